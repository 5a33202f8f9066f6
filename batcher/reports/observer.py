"""Receivers of a run's messages and counts: the command line's screen, or the log of a program that uses batcher."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from batcher.address import Address
from batcher.clock import Clock, Wakeup
from batcher.ledger.records import Batch
from batcher.log import log
from batcher.manifest.rows import Record
from batcher.reports.tally import Tally


@dataclass(frozen=True, slots=True)
class Work:
    """What a run works on: a ledger's batches, all of their rows or those `chosen` (batch id and number).

    `committed` rings after each change of the ledger.
    """

    ledger: Address
    batches: Sequence[Batch]
    chosen: frozenset[tuple[int, int]] | None
    committed: Wakeup


class Observer(Protocol):
    """Receives a run's messages for people, and its counts."""

    def begin(self, work: Work) -> None:
        """Learn what the run works on, once the manifests are imported."""

    def say(self, line: str, colour: str | None = None) -> None:
        """Receive a message, and the colour that suits it on a terminal."""

    def warn(self, line: str, colour: str | None = None) -> None:
        """Receive a message about a problem."""

    def reading(self, rows: Iterator[Record], name: str) -> Iterator[Record]:
        """Pass on the rows as they are read from the file of this name."""

    async def follow(self, tally: Tally, clock: Clock) -> None:
        """Watch the counts, until cancelled or no longer interested."""

    def close(self) -> None:
        """Receive nothing but messages from now on."""


class LogObserver:
    """Passes the messages on to the log, and shows no counts."""

    def begin(self, work: Work) -> None:
        """Do nothing."""

    def say(self, line: str, colour: str | None = None) -> None:  # noqa: ARG002
        """Log a message."""
        log.info(line)

    def warn(self, line: str, colour: str | None = None) -> None:  # noqa: ARG002
        """Log a message about a problem."""
        log.warning(line)

    def reading(self, rows: Iterator[Record], name: str) -> Iterator[Record]:  # noqa: ARG002
        """Show nothing."""
        return rows

    async def follow(self, tally: Tally, clock: Clock) -> None:
        """Ignore the counts."""

    def close(self) -> None:
        """Do nothing: nothing is open."""
