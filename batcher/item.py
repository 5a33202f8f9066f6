"""The item, the unit of purchase: its inputs, its key and its state machine. No I/O.

An item is a text with everything else that changes the audio. Rows with equal inputs share an item and its payment.
`TRANSITIONS` is the complete state machine; only the ledger moves an item from state to state.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import msgspec

KEY_VERSION: Final = 1
"""Part of every key. A new version needs a migration that maps the old keys."""

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
"""Request fields that `params` may not set, with the column that sets each. The last two are legacy aliases."""


class State(StrEnum):
    """The state of an item."""

    PENDING = "pending"  # not bought; a create request may be sent
    SUBMITTING = "submitting"  # a create request is being sent
    IN_DOUBT = "in_doubt"  # a create request was sent and its outcome is unknown: may have been bought
    SUBMITTED = "submitted"  # the provider has a task for it
    RENDERED = "rendered"  # the task succeeded; its audio is not downloaded yet
    DONE = "done"  # verified audio is on disk
    REJECTED = "rejected"  # the provider rejected the inputs
    FAILED = "failed"  # the task failed
    GONE = "gone"  # the task or its audio no longer exists
    ABANDONED = "abandoned"  # given up by the user


class Event(StrEnum):
    """An event that changes the state of an item."""

    CLAIM = "claim"  # a run claims it to send a create request
    ACCEPTED = "accepted"  # the answer has a task id
    DEFERRED = "deferred"  # definitely not created; the row is fine
    REJECTED = "rejected"  # definitely not created; the row must be fixed
    LOST = "lost"  # no definite answer
    EVIDENCE = "evidence"  # the answer to this attempt was found later
    ADOPTED = "adopted"  # attached to an existing task: named by the user, or found not to have failed
    BUY_AGAIN = "buy_again"  # the user accepts that it may be paid for twice
    ABANDON = "abandon"  # the user gives up an item that is in doubt or ended badly
    RENDERED = "rendered"  # the task succeeded
    REMOTE_FAILED = "remote_failed"  # the task failed
    UNFUNDED = "unfunded"  # the task failed for lack of credits and charged nothing
    GONE = "gone"  # the API repeatedly answered that the task does not exist
    SAVED = "saved"  # verified audio is at its final path
    UNCOLLECTABLE = "uncollectable"  # no usable audio after many attempts over a day
    RETRY = "retry"  # the user requests another create request
    RETAKE = "retake"  # the user requests another output beside this one: a new item


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
    (State.REJECTED, Event.ABANDON): State.ABANDONED,
    (State.FAILED, Event.ABANDON): State.ABANDONED,
    (State.GONE, Event.ABANDON): State.ABANDONED,
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
"""States that occupy a slot at the provider."""
COLLECTABLE: Final = (State.SUBMITTED, State.RENDERED)
"""States with a task to poll or audio to download."""
NEEDS_ATTENTION: Final = (State.IN_DOUBT, State.REJECTED, State.FAILED, State.GONE)
"""States that only the user can change."""
MAYBE_PAID: Final = (State.SUBMITTING, State.IN_DOUBT, State.SUBMITTED, State.RENDERED, State.DONE)
"""States of items that are paid for or may be."""
UNFINISHED: Final = (State.PENDING, State.SUBMITTING, State.SUBMITTED, State.RENDERED)
"""States that the next run continues from."""

TARGET: Final = {event: state for (_, event), state in TRANSITIONS.items()}
"""The state that each event leads to; it is the same from every state."""


def sources(event: Event) -> tuple[State, ...]:
    """The states in which `event` is allowed."""
    return tuple(state for state, when in TRANSITIONS if when is event)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Everything that changes the audio of an item, as it will be sent, and the take, which distinguishes intended
    repeats.

    `params` holds API parameters by their API names. Whole numbers are sent and hashed as integers, so `1` and `1.0`
    are the same item.
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
        """SHA-256, in hex, of the canonical JSON of body, take and key version. Equal keys mean equal requests."""
        encode = canonical if self.params else _ENCODE_PLAIN
        return hashlib.sha256(encode({"v": KEY_VERSION, "take": self.take, "body": self.body()})).hexdigest()

    def text_hash(self) -> str:
        """SHA-256 of the text's UTF-8 bytes, in hex."""
        return hashlib.sha256(self.text.encode()).hexdigest()


_ENCODE_PLAIN: Final = msgspec.json.Encoder(order="sorted").encode
"""As `canonical` and ten times as fast, for strings and integers; it writes some floats in another way."""
_CANONICAL: Final = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def canonical(value: Any) -> bytes:
    """`value` as canonical JSON: keys sorted, no white space, UTF-8 unescaped.

    Raises:
        ValueError: a number is not finite.
    """
    return _CANONICAL.encode(value).encode()


def _plain(value: Any) -> Any:
    """`value` with whole floats converted to integers, at any depth."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value
