"""Why a submitter that claimed nothing waits, finishes or searches again: one reason for each situation."""

from __future__ import annotations

from dataclasses import replace

import pytest

from batcher.pipeline.waiting import Situation, Wait, why_waiting

IDLE = Situation(
    searched_all=True,
    price_unknown=False,
    over_budget=False,
    in_flight=False,
    has_open_tasks=False,
    waits_for_tasks=True,
    probing=False,
    pending=False,
)
"""Everything was searched, nothing is under way, and no item is pending."""


@pytest.mark.parametrize(
    ("changes", "wait"),
    [
        pytest.param({}, Wait.NOTHING_LEFT, id="nothing is pending or in flight"),
        pytest.param({"has_open_tasks": True}, Wait.NOTHING_LEFT, id="open tasks are the poller's"),
        pytest.param({"in_flight": True}, Wait.ANSWERS, id="an answer may return its item"),
        pytest.param({"in_flight": True, "pending": True}, Wait.ANSWERS, id="an answer comes before a blocked item"),
        pytest.param({"pending": True}, Wait.BLOCKED, id="an item is pending and was not claimed"),
        pytest.param({"searched_all": False}, Wait.SEARCH_AGAIN, id="the search began behind the first row"),
        pytest.param({"searched_all": False, "price_unknown": True}, Wait.SEARCH_AGAIN, id="search before the balance"),
        pytest.param({"price_unknown": True, "pending": True}, Wait.BALANCE, id="the balance may show the price"),
        pytest.param({"over_budget": True}, Wait.BUDGET_SPENT, id="nothing can free any budget"),
        pytest.param({"over_budget": True, "has_open_tasks": True}, Wait.BUDGET, id="a task may cost less than feared"),
        pytest.param({"over_budget": True, "in_flight": True}, Wait.BUDGET, id="a create may be rejected"),
        pytest.param({"over_budget": True, "pending": True}, Wait.BLOCKED, id="another batch can still afford one"),
        pytest.param(
            {"probing": True, "pending": True, "has_open_tasks": True}, Wait.PROBE, id="this run polls the probe's task"
        ),
        pytest.param({"probing": True, "pending": True}, Wait.UNSEEN_PROBE, id="the probe's task has ended"),
        pytest.param(
            {"probing": True, "pending": True, "has_open_tasks": True, "waits_for_tasks": False},
            Wait.UNSEEN_PROBE,
            id="with --no-wait nobody polls the probe's task",
        ),
        pytest.param({"probing": True, "in_flight": True, "pending": True}, Wait.ANSWERS, id="the probe has no answer"),
        pytest.param({"others_work": True}, Wait.OTHERS, id="another run may return an item"),
        pytest.param(
            {"others_work": True, "waits_for_tasks": False}, Wait.NOTHING_LEFT, id="with --no-wait nobody is waited for"
        ),
        pytest.param(
            {"over_budget": True, "others_work": True}, Wait.BUDGET_IN_USE, id="their items may cost less than feared"
        ),
        pytest.param({"others_work": True, "pending": True, "items_spent": True}, Wait.ITEMS_SPENT, id="--max-items"),
        pytest.param({"pending": True, "turn_seconds": 0.1}, Wait.TURN, id="the rate of all runs"),
        pytest.param({"pending": True, "turn_seconds": 900.0, "closed_seconds": 900.0}, Wait.TURN, id="Retry-After"),
        pytest.param(
            {"pending": True, "turn_seconds": 901.0, "closed_seconds": 901.0}, Wait.CLOSED, id="too long a Retry-After"
        ),
        pytest.param({"pending": True, "turn_seconds": 5000.0}, Wait.TURN, id="a low --create-rate"),
        pytest.param({"pending": True, "crowded": True}, Wait.SLOTS, id="other runs have all slots"),
        pytest.param({"probing": True}, Wait.NOTHING_LEFT, id="a halt does not matter once nothing is pending"),
    ],
)
def test_a_situation_has_one_reason_to_wait(changes: dict[str, object], wait: Wait) -> None:
    """The first reason that applies decides."""
    assert why_waiting(replace(IDLE, **changes)) is wait  # type: ignore[arg-type]


def test_every_reason_occurs() -> None:
    """No reason is left without a situation in the table above."""
    (table,) = test_a_situation_has_one_reason_to_wait.pytestmark  # type: ignore[attr-defined]
    assert {param.values[1] for param in table.args[1]} == set(Wait)
