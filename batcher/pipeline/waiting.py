"""Why the submitter currently claims nothing, and what it waits for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from batcher.provider.limits import PATIENT_RETRY_AFTER_SECONDS


class Wait(Enum):
    """Why nothing was claimed. The value describes what happens next."""

    SEARCH_AGAIN = "rows before the cursor may have become claimable: search from the first row"
    BALANCE = "everything created has ended at an unknown price: read the balance"
    BUDGET = "the budget is tied up in open tasks: wait until one of them ends, maybe at a lower price"
    BUDGET_IN_USE = "the rest of the budget is tied up in items of other runs: wait until they are finished"
    BUDGET_SPENT = "the budget is spent: stop creating"
    ANSWERS = "creates are in flight and may return their items: wait for an answer"
    OTHERS = "other runs have the remaining items: wait until they have finished or returned them"
    NOTHING_LEFT = "no item is left to create: finish"
    ITEMS_SPENT = "the runs have created as many items as they may: stop creating"
    CLOSED = "the API asked for a longer wait than a run has patience: stop creating"
    TURN = "the rate of all runs, or a wait that the API asked for, permits no create yet: wait as long"
    SLOTS = "other runs have the account's slots: wait until one is free"
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
    others_work: bool = False
    """Other runs have wanted items that they have not finished."""
    items_spent: bool = False
    """The runs that work at the same time have created `--max-items`."""
    turn_seconds: float = 0.0
    """Until the limits of all runs permit a create."""
    closed_seconds: float = 0.0
    """Until the end of a wait that the API asked for."""
    crowded: bool = False
    """The limits of all runs leave this one no slot."""


def why_waiting(found: Situation) -> Wait:
    """The one reason why nothing was claimed; the first that applies."""
    if not found.searched_all:
        return Wait.SEARCH_AGAIN
    if found.price_unknown:
        return Wait.BALANCE
    if found.over_budget and not found.pending:
        return _over_budget(found)
    if found.in_flight:
        return Wait.ANSWERS
    if not found.pending:
        return Wait.OTHERS if found.others_work and found.waits_for_tasks else Wait.NOTHING_LEFT
    if found.items_spent:
        return Wait.ITEMS_SPENT
    if found.closed_seconds > PATIENT_RETRY_AFTER_SECONDS:
        return Wait.CLOSED
    if found.turn_seconds > 0:
        return Wait.TURN
    if found.probing:
        return Wait.PROBE if found.has_open_tasks and found.waits_for_tasks else Wait.UNSEEN_PROBE
    return Wait.SLOTS if found.crowded else Wait.BLOCKED


def _over_budget(found: Situation) -> Wait:
    if found.in_flight or found.has_open_tasks:
        return Wait.BUDGET
    return Wait.BUDGET_IN_USE if found.others_work and found.waits_for_tasks else Wait.BUDGET_SPENT
