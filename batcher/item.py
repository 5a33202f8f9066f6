"""The item: what is bought once, its key, and the machine that it goes through. Nothing here touches disk or network.

An item is the text together with everything else that changes the audio. Rows that agree in all of it share one item
and so one payment. `TRANSITIONS` is the whole machine; the ledger is the only one to move an item along it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

KEY_VERSION: Final = 1
"""Goes into every key; a new version comes with a migration that maps the old keys."""

FORMATS: Final = ("mp3", "wav", "opus", "ogg", "pcm")
PARAMETERS: Final = ("speed", "volume", "pitch", "stability", "similarity", "language", "emotion")
"""The API's optional parameters that a manifest may give as columns."""
RESERVED: Final = {
    "text": "text",
    "voiceId": "voice",
    "engineModelId": "model",
    "format": "format",
    "reference_id": "voice",
    "modelId": "voice",
}
"""Fields of the request that `params` may not set, with the column that does. The last two are legacy aliases."""


class State(StrEnum):
    """Where an item is."""

    PENDING = "pending"  # not bought; a create may leave
    SUBMITTING = "submitting"  # a create is about to leave or on the wire
    IN_DOUBT = "in_doubt"  # a create left and no definite answer is known: maybe bought
    SUBMITTED = "submitted"  # the provider has a task for it
    RENDERED = "rendered"  # the task ended well; its audio is to be fetched
    DONE = "done"  # verified audio is on disk
    REJECTED = "rejected"  # the provider refused the inputs
    FAILED = "failed"  # the task ended badly
    GONE = "gone"  # the task, or its audio, is no longer to be had
    ABANDONED = "abandoned"  # a person gave it up


class Event(StrEnum):
    """What happens to an item."""

    CLAIM = "claim"  # a run takes it, to send a create
    ACCEPTED = "accepted"  # the answer names a task
    DEFERRED = "deferred"  # definitely not created, nothing wrong with the row
    REJECTED = "rejected"  # definitely not created, the row must be fixed
    LOST = "lost"  # no definite answer
    EVIDENCE = "evidence"  # the attempt's own answer turned up later
    ADOPTED = "adopted"  # it has an old task after all: named by a person, or found not to have failed
    BUY_AGAIN = "buy_again"  # a person accepts that it may cost twice
    ABANDON = "abandon"  # a person gives up a doubt
    RENDERED = "rendered"  # the task ended well
    REMOTE_FAILED = "remote_failed"  # the task ended badly
    UNFUNDED = "unfunded"  # the task failed for lack of credits and charged nothing
    GONE = "gone"  # the API says, repeatedly, that it does not know the task
    SAVED = "saved"  # verified audio is at its final path
    UNCOLLECTABLE = "uncollectable"  # no usable audio in many reads over a day
    RETRY = "retry"  # a person wants another create
    RETAKE = "retake"  # a person wants another output beside this one: a new item


TRANSITIONS: Final[dict[tuple[State, Event], State]] = {
    (State.PENDING, Event.CLAIM): State.SUBMITTING,
    (State.PENDING, Event.ADOPTED): State.SUBMITTED,
    (State.SUBMITTING, Event.ACCEPTED): State.SUBMITTED,
    (State.SUBMITTING, Event.DEFERRED): State.PENDING,
    (State.SUBMITTING, Event.REJECTED): State.REJECTED,
    (State.SUBMITTING, Event.LOST): State.IN_DOUBT,
    (State.IN_DOUBT, Event.EVIDENCE): State.SUBMITTED,
    (State.IN_DOUBT, Event.ADOPTED): State.SUBMITTED,
    (State.IN_DOUBT, Event.BUY_AGAIN): State.PENDING,
    (State.IN_DOUBT, Event.ABANDON): State.ABANDONED,
    (State.SUBMITTED, Event.RENDERED): State.RENDERED,
    (State.SUBMITTED, Event.REMOTE_FAILED): State.FAILED,
    (State.SUBMITTED, Event.UNFUNDED): State.PENDING,
    (State.SUBMITTED, Event.GONE): State.GONE,
    (State.RENDERED, Event.SAVED): State.DONE,
    (State.RENDERED, Event.UNCOLLECTABLE): State.GONE,
    (State.REJECTED, Event.RETRY): State.PENDING,
    (State.FAILED, Event.RETRY): State.PENDING,
    (State.GONE, Event.RETRY): State.PENDING,
    (State.ABANDONED, Event.RETRY): State.PENDING,
    (State.REJECTED, Event.ADOPTED): State.SUBMITTED,
    (State.FAILED, Event.ADOPTED): State.SUBMITTED,
    (State.GONE, Event.ADOPTED): State.SUBMITTED,
    (State.ABANDONED, Event.ADOPTED): State.SUBMITTED,
    (State.DONE, Event.RETAKE): State.DONE,
}

OPEN: Final = (State.SUBMITTING, State.SUBMITTED)
"""States in which a place at the provider is taken."""
COLLECTABLE: Final = (State.SUBMITTED, State.RENDERED)
"""States in which a task is still to be read or its audio to be fetched."""
NEEDS_PERSON: Final = (State.IN_DOUBT, State.REJECTED, State.FAILED, State.GONE)
"""States that no run leaves by itself."""


TARGET: Final = {event: state for (_, event), state in TRANSITIONS.items()}
"""Where each event leads, whatever state it starts from."""


def sources(event: Event) -> tuple[State, ...]:
    """The states in which `event` may happen."""
    return tuple(state for state, when in TRANSITIONS if when is event)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Everything that changes the audio of an item, as it will be sent, and the take that tells intended repeats apart.

    `params` holds API parameters by their API names. Numbers that are whole are sent and hashed as integers, so that
    `1` and `1.0` are one item.
    """

    text: str = field(repr=False)
    voice: str
    model: str | None = None
    format: str = "mp3"
    params: dict[str, Any] = field(default_factory=dict)
    take: int = 1

    def body(self) -> dict[str, Any]:
        """The JSON object of the create request."""
        body: dict[str, Any] = {"text": self.text, "voiceId": self.voice, "format": self.format}
        if self.model is not None:
            body["engineModelId"] = self.model
        return body | {name: _plain(value) for name, value in self.params.items()}

    def key(self) -> str:
        """SHA-256, in hex, over the canonical JSON of the body, the take and the key's version.

        Canonical: keys sorted, no white space, UTF-8 unescaped. Equal keys mean equal requests.
        """
        return hashlib.sha256(canonical({"v": KEY_VERSION, "take": self.take, "body": self.body()})).hexdigest()

    def text_hash(self) -> str:
        """SHA-256 of the text's UTF-8 bytes, in hex."""
        return hashlib.sha256(self.text.encode()).hexdigest()


_CANONICAL: Final = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def canonical(value: Any) -> bytes:
    """The one JSON spelling of `value` that is hashed.

    Raises:
        ValueError: a number is not finite.
    """
    return _CANONICAL.encode(value).encode()


def _plain(value: Any) -> Any:
    """`value` with whole floats as integers, at any depth."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value


UNFINISHED: Final = (State.PENDING, State.SUBMITTING, State.SUBMITTED, State.RENDERED)
