"""The plain values that the ledger stores and returns."""

from __future__ import annotations

import base64
import json
from dataclasses import asdict, dataclass, field, fields
from typing import NamedTuple

from batcher.item import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A batch in its current version."""

    batch_id: int
    name: str
    version: int
    out_dir: str  # relative to the ledger's folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """An item whose intent to create is durable: the create request of this `attempt` may be sent once."""

    key: str
    attempt: int
    format: str
    chars: int
    model: str | None = None
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRecord:
    """The answer to one create request, or its substitute if none arrived. Can be stored as JSON."""

    key: str
    attempt: int
    run_id: str
    account_id: int
    at: float
    event: Event
    cause: str
    task_id: str | None = None
    http_status: int | None = None
    error_code: str | None = None
    error_message: str | None = None
    request_id: str | None = None
    credits: float | None = None
    ignored: str | None = None  # parameters that the model ignored, separated by commas
    raw: bytes = field(default=b"", repr=False)

    def to_json(self) -> bytes:
        """The record as one JSON object."""
        return json.dumps(asdict(self) | {"raw": base64.b64encode(self.raw).decode()}).encode()

    @classmethod
    def from_json(cls, data: bytes) -> AnswerRecord:
        """Restore what `to_json` returned, also in an earlier version with other fields."""
        names = {one.name for one in fields(cls)}
        values = {name: value for name, value in json.loads(data).items() if name in names}
        return cls(**values | {"event": Event(values["event"]), "raw": base64.b64decode(values["raw"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenTask:
    """A task to be collected, with the fields of its item that the poller and the downloader need."""

    key: str
    attempt: int
    account_id: int
    task_id: str
    format: str
    chars: int
    accepted_at: float
    model: str | None = None
    rendered: bool = False
    wanted: bool = True
    next_try_at: float = 0.0  # of its download, if one has failed


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskEnd:
    """The end of a task, or an answer without usable task or audio, as one poll returned it."""

    task: OpenTask
    at: float
    run_id: str
    polls: int
    word: str | None = None  # the provider's status
    credits: float | None = None
    ignored: str | None = None  # parameters that the model ignored, separated by commas
    error_code: str | None = None
    error_message: str | None = None
    request_id: str | None = None
    http_status: int | None = None
    raw: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """A verified audio file; `path` is relative to its output folder."""

    path: str
    sha256: str
    bytes: int
    audio_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """An account's balance from its profile; None is unknown."""

    credits: float | None = None
    quota: float | None = None
    tier: str | None = None

    def to_json(self) -> str:
        """The balance as it is stored with a run."""
        return json.dumps(asdict(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Halt:
    """An open halt of an account: the reason why nothing is created."""

    id: int
    account_id: int
    run_id: str  # that opened it, or confirmed it last
    kind: str
    since_at: float
    detail: str
    probes: int  # that had no definite answer
    credits: float | None
    quota: float | None
    balance_at: float | None
    probe_after_at: float

    @property
    def balance(self) -> float | None:
        """The balance after the last creates: the quota if it is known, or else the credits."""
        return self.credits if self.quota is None else self.quota


@dataclass(frozen=True, slots=True, kw_only=True)
class Purchase:
    """Items to be created with the same voice, model and names of parameters: their rows, number and size.

    `listed_credits` is their price by the provider's published rule, which may be a multiple too low.
    """

    voice: str
    model: str | None
    parameters: tuple[str, ...]
    rows: int
    items: int
    bytes: int
    chars: int
    listed_credits: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """A row's output: the item's audio that belongs there, and the audio that was last linked there.

    `source`, `linked_source` and `out_dir` are relative to the ledger's folder, `output` and `linked_output` to
    `out_dir`.
    """

    batch_id: int
    row_id: str
    number: int
    key: str
    out_dir: str
    output: str
    saved: bool  # the item's audio is on disk
    source: str | None
    sha256: str | None
    linked: bool  # it was linked at the output
    linked_output: str | None
    linked_source: str | None
    linked_sha256: str | None


class FolderNames(NamedTuple):
    """The names of the files in a folder of outputs: a checksum over them, and the folder's stamp when it was taken.

    `trusted`: as long as the stamp is the same, the names are.
    """

    checksum: int
    stamp: list[int] | None
    trusted: bool
