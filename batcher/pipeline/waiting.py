"""Why the submitter currently claims nothing, and what it waits for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Wait(Enum):
    """Why nothing was claimed. The value describes what happens next."""

    SEARCH_AGAIN = "rows before the cursor may have become claimable: search from the first row"
    BALANCE = "everything created has ended at an unknown price: read the balance"
    BUDGET = "the budget is tied up in open tasks: wait until one of them ends, maybe at a lower price"
    BUDGET_SPENT = "the budget is spent: stop creating"
    ANSWERS = "creates are in flight and may return their items: wait for an answer"
    NOTHING_LEFT = "no item is left to create: finish"
    PROBE = "a halt is being probed: wait for the probe's result"
    UNSEEN_PROBE = "a halt is being probed, but a later run will see the result: finish"
    BLOCKED = "an item is pending, but the ledger permits no claim: check the halts and try again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """The facts that decide how a submitter that claimed nothing continues."""

    searched_all: bool
    """The claim searched all wanted rows, from the first to the last."""
    price_unknown: bool
    """Everything created has ended, and neither the tasks nor the balance have shown a price."""
    over_budget: bool
    """At least one batch cannot afford its next item."""
    in_flight: bool
    """Creates were sent and are not recorded."""
    has_open_tasks: bool
    waits_for_tasks: bool
    """This run polls the tasks that it creates (no `--no-wait`)."""
    probing: bool
    """A halt is open, and this run may send one create at a time."""
    pending: bool
    """An affordable item is pending."""


def why_waiting(found: Situation) -> Wait:
    """The one reason why nothing was claimed; the first that applies."""
    if not found.searched_all:
        return Wait.SEARCH_AGAIN
    if found.price_unknown:
        return Wait.BALANCE
    if found.over_budget and not found.pending:
        return Wait.BUDGET if found.in_flight or found.has_open_tasks else Wait.BUDGET_SPENT
    if found.in_flight:
        return Wait.ANSWERS
    if not found.pending:
        return Wait.NOTHING_LEFT
    if found.probing:
        return Wait.PROBE if found.has_open_tasks and found.waits_for_tasks else Wait.UNSEEN_PROBE
    return Wait.BLOCKED
