"""Counts of what a run has done so far, for the progress bar, the report and the exit code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from batcher.item import Event, State


@dataclass(kw_only=True)
class Tally:
    """Counts of one run.

    `total`, `done`, `in_doubt` and `ended` include what earlier runs did for the same manifests.
    """

    total: int = 0
    done: int = 0
    in_doubt: int = 0
    ended: int = 0  # without audio: rejected, failed, gone or abandoned
    open: int = 0  # tasks at the provider
    to_download: int = 0  # finished tasks whose audio is not on disk yet
    created: int = 0
    collected: int = 0
    creates: int = 0
    polls: int = 0
    downloads: int = 0
    throttled: int = 0
    unwritten: int = 0
    credits: float | None = None
    credits_reported: bool = False  # with the answers to creates; otherwise they are what the tasks' costs leave

    @property
    def remaining(self) -> int:
        """Items that this run may still finish."""
        return max(0, self.total - self.done - self.in_doubt - self.ended)

    def begin(self, states: Mapping[str, int]) -> None:
        """Start from the numbers of the manifests' items by state, as earlier runs left them."""
        self.total = sum(states.values())
        self.done, self.in_doubt = states[State.DONE], states[State.IN_DOUBT]
        self.ended = sum(states[state] for state in (State.REJECTED, State.FAILED, State.GONE, State.ABANDONED))

    def requests(self) -> dict[str, int]:
        """Requests sent, by kind, and how many of them were throttled."""
        sent = {"create": self.creates, "poll": self.polls, "download": self.downloads}
        return sent | {"throttled": self.throttled}

    def balance_reported(self, credits_: float) -> None:
        """Take the balance that came with an answer."""
        self.credits, self.credits_reported = credits_, True

    def charged(self, credits_: float | None) -> None:
        """Subtract the cost of a task that has ended, if answers report no balance."""
        if credits_ is not None and self.credits is not None and not self.credits_reported:
            self.credits -= credits_

    def answered(self, event: Event | None) -> None:
        """Count the answer to a create, or its loss."""
        self.created += event is Event.ACCEPTED
        self.in_doubt += event is Event.LOST
        self.ended += event is Event.REJECTED

    def saved(self, *, wanted: bool) -> None:
        """Count an item whose audio is now on disk."""
        self.collected += 1
        self.to_download = max(0, self.to_download - 1)
        self.done += wanted
