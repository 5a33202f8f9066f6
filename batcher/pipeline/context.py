"""What the stages of one run share."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from batcher.audio.store import Store
from batcher.audio.stores import Stores
from batcher.clock import Clock, Wakeup
from batcher.ledger.ledger import Ledger
from batcher.pipeline.credit_guard import Guard
from batcher.pipeline.item_log import ItemLog
from batcher.pipeline.slots import Slots
from batcher.pipeline.stop import Stop
from batcher.reports.observer import Observer
from batcher.reports.tally import Tally
from batcher.settings import Settings
from batcher.throttle.gate import Throttle

if TYPE_CHECKING:
    from batcher.provider.client import Client

Confirm = Callable[[str], Awaitable[bool]]
"""Puts a question to a person; returns whether the answer is yes."""


def new_run_id() -> str:
    """A new identity for a run."""
    return uuid.uuid4().hex[:12]


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """One run: its settings, its ledger and output folders, its identity, and its shared latches and counts."""

    settings: Settings
    ledger: Ledger
    stores: Stores
    progress: Observer
    clock: Clock
    stop: Stop = field(default_factory=Stop)
    tally: Tally = field(default_factory=Tally)
    items: ItemLog = field(default_factory=ItemLog)
    run_id: str = field(default_factory=new_run_id)

    @cached_property
    def store(self) -> Store:
        """The output folder that new audio goes to."""
        return self.stores.of(self.settings.out_dir)


@dataclass(frozen=True, kw_only=True)
class ApiContext:
    """What the stages that send requests share: the account and its guard, the client, and the limits on requests.

    `changed` wakes whoever waits for a slot, an answer or the end of a task.
    """

    client: Client
    account_id: int
    guard: Guard
    throttle: Throttle
    slots: Slots
    changed: Wakeup
