"""The submitter: how many items it claims, and what each answer to a create leaves behind."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import anyio
import pytest

from batcher.clock import Clock
from batcher.errors import StorageError
from batcher.ledger.lifecycle import collection, halts
from batcher.pipeline.credit_guard import SUSPECT_THROTTLED
from batcher.pipeline.recheck import recheck
from batcher.pipeline.stop import Reason
from batcher.pipeline.submitter import Submitter
from batcher.provider.answers import Answer, Cause, Profile
from tests.support.fake_tts import HTML_404, NO_CREDITS, Create, FakeTTS, Job, Twist, refusal
from tests.support.ledger_kit import AT, RUN, Book, SetClock, ending

DROPPED = Twist()
INVALID = refusal(422, "bad_text")
THROTTLED = refusal(429, "rate_limited", retry_after="0")


async def create_one(submitter: Submitter) -> str:
    """Claim an item and create it; return its key."""
    (claimed,) = await submitter._claim(1)
    await submitter._create(claimed, submitter.gate.enter())
    return claimed.key


@pytest.mark.parametrize(("open_tasks", "number"), [(0, 3), (2, 2), (3, 1)])
async def test_no_more_tasks_are_created_than_there_are_slots(
    book: Book, provider: FakeTTS, submitter: Submitter, open_tasks: int, number: int
) -> None:
    """Of the four, earlier runs' open tasks have some. Each that ends lets another be created."""
    tally = submitter.ctx.tally
    submitter.api.slots.take(open_tasks)

    async def created(number: int) -> None:
        with anyio.fail_after(10.0):
            while tally.created < number:
                await submitter.api.changed.wait(submitter.ctx.clock, seconds=1.0)
        await anyio.sleep(0.05)
        assert len(provider.creates) == tally.creates == number

    async with anyio.create_task_group() as stages:
        stages.start_soon(submitter.run)
        await created(number)
        assert (tally.open, submitter._in_flight) == (open_tasks + number, 0)
        for more in range(number + 1, 4):
            submitter.api.slots.release()
            await created(more)
        stages.cancel_scope.cancel()


@pytest.mark.parametrize("changes", [{"max_items": 2}])
@pytest.mark.parametrize(
    ("answer", "left"),
    [(None, 1), (INVALID, 1), (DROPPED, 1), (THROTTLED, 2), (NO_CREDITS, 2)],
    ids=["accepted", "invalid", "dropped", "throttled", "no credits"],
)
async def test_max_items_counts_creates_that_may_have_been_bought(
    book: Book, provider: FakeTTS, submitter: Submitter, answer: Twist | None, left: int
) -> None:
    """And rejected ones, but not those that may be sent again."""
    provider.on_create = lambda _: answer
    await create_one(submitter)
    assert submitter._items_left() == left


@pytest.mark.parametrize("changes", [{"max_items": 2}])
async def test_max_items_stops_only_creating(book: Book, provider: FakeTTS, submitter: Submitter) -> None:
    """Open tasks are collected; the next run creates the rest."""
    submitter._claimed, submitter._in_flight = 2, 1
    assert not submitter._items_spent()  # the one in flight may be deferred
    submitter._claimed = submitter._in_flight = 0
    await submitter.run()
    stop = submitter.ctx.stop
    assert stop.reasons == {Reason.ASKED: "--max-items 2 reached"}
    assert (stop.creating, stop.collecting, len(provider.creates), provider.profiles) == (True, False, 2, 0)


@pytest.mark.parametrize("changes", [{}, {"wait": False}], ids=["wait", "no wait"])
@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (None, "submitted"),
        (INVALID, "rejected"),
        (DROPPED, "in_doubt"),
        (THROTTLED, "pending"),
        (NO_CREDITS, "pending"),
    ],
    ids=["accepted", "invalid", "dropped", "throttled", "no credits"],
)
async def test_only_an_accepted_task_that_is_waited_for_keeps_its_slot(
    book: Book, provider: FakeTTS, submitter: Submitter, changes: dict[str, Any], answer: Twist | None, state: str
) -> None:
    """The poller is told of it, to collect it in this run."""
    provider.on_create = lambda _: answer
    key = await create_one(submitter)
    kept = int(state == "submitted" and submitter.ctx.settings.wait)
    assert (book.state(key), submitter._in_flight) == (state, 0)
    assert (submitter.ctx.tally.open, len(submitter.poller._due)) == (kept, kept)


async def test_an_accepted_task_is_polled_as_the_ledger_has_it(
    book: Book, provider: FakeTTS, submitter: Submitter
) -> None:
    await create_one(submitter)
    (watched,) = submitter.poller._due
    (stored,) = book.open_tasks()
    names = ("key", "attempt", "account_id", "task_id", "format", "chars", "model", "wanted")
    assert [getattr(watched.task, name) for name in names] == [getattr(stored, name) for name in names]
    assert abs(watched.task.accepted_at - stored.accepted_at) < 1.0
    assert book.one("SELECT ignored FROM tasks") == {"ignored": None}


async def test_what_an_answer_reports_is_recorded(book: Book, provider: FakeTTS, submitter: Submitter) -> None:
    """The task's cost, the ignored parameters, the balance, and the raw bytes."""
    headers = {"x-openapi-ignored-parameters": "speed, pitch", "x-openapi-quota-remaining": "41.5"}
    body = {"task": {"id": "t1", "status": "queued"}, "creditsUsed": 2}
    provider.on_create = lambda _: Twist(status=202, body=body, headers=headers)
    await create_one(submitter)
    assert book.one("SELECT task_id, credits, ignored FROM tasks") == {
        "task_id": "t1",
        "credits": 2.0,
        "ignored": "speed,pitch",
    }
    attempt = book.one("SELECT run_id, account_id, cause, credits, raw, http_status, answered_at FROM attempts")
    assert b'"t1"' in attempt.pop("raw")
    assert abs(attempt.pop("answered_at") - submitter.ctx.clock.now()) < 60.0
    assert attempt == {"run_id": RUN, "account_id": book.account_id, "cause": "ok", "credits": 2.0, "http_status": 202}
    assert submitter.ctx.tally.credits == 41.5


async def test_a_refusal_is_recorded_with_its_code_message_and_request(
    book: Book, provider: FakeTTS, submitter: Submitter
) -> None:
    provider.on_create = lambda _: INVALID
    item = book.item(await create_one(submitter))
    error = [item[f"error_{name}"] for name in ("code", "message", "request_id", "http_status")]
    assert error == ["bad_text", "this is bad_text", "req_0123", 422]


@pytest.mark.parametrize("interrupted", [False, True])
async def test_a_lost_create_has_the_balance_read_next(
    book: Book, provider: FakeTTS, submitter: Submitter, interrupted: bool
) -> None:
    """It shows whether the create was charged. A create that the user cut short says nothing about the API."""
    provider.on_create = lambda _: DROPPED
    submitter.ctx.stop.interrupted = interrupted
    await create_one(submitter)
    attempt = book.one("SELECT outcome, cause, error_message FROM attempts")
    assert (attempt["outcome"], attempt["cause"]) == ("lost", "interrupted" if interrupted else "unclear")
    assert attempt["error_message"]  # how the connection broke
    assert [await submitter._read_balance() for _ in range(2)] == [not interrupted, False]
    assert provider.profiles == int(not interrupted)


async def test_an_answer_that_arrived_before_an_interruption_is_recorded_as_it_is(
    book: Book, provider: FakeTTS, submitter: Submitter
) -> None:
    provider.on_create = lambda _: INVALID
    submitter.ctx.stop.interrupted = True
    await create_one(submitter)
    assert book.one("SELECT outcome, cause FROM attempts") == {"outcome": "rejected", "cause": "invalid"}


async def test_the_balance_is_read_although_the_creates_after_the_lost_one_are_held(
    book: Book, provider: FakeTTS, submitter: Submitter
) -> None:
    """A broken connection closes the gate for a moment."""
    provider.on_create = lambda _: DROPPED
    keys = [await create_one(submitter) for _ in range(2)]
    assert [book.state(key) for key in keys] == ["in_doubt", "pending"]
    assert submitter.ctx.tally.creates == 1
    assert await submitter._read_balance()


async def test_rows_before_the_last_claim_are_searched_again(
    book: Book, provider: FakeTTS, submitter: Submitter
) -> None:
    """Their items may have returned, deferred."""
    submitter._cursor = (0, 99)
    await submitter.run()
    assert len(provider.creates) == 3


async def test_a_create_on_the_wire_is_recorded_although_the_run_is_cancelled(
    book: Book, provider: FakeTTS, submitter: Submitter
) -> None:
    """It was bought; without its record it would be in doubt."""
    provider.create_seconds = 0.1
    (claimed,) = await submitter._claim(1)
    async with anyio.create_task_group() as stages:
        stages.start_soon(submitter._create, claimed, submitter.gate.enter())
        await anyio.to_thread.run_sync(provider.until, lambda: len(provider.creates) == 1)
        stages.cancel_scope.cancel()
    assert (book.state(claimed.key), submitter._in_flight) == ("submitted", 0)


@pytest.mark.parametrize("changes", [{"max_in_doubt": 0}])
@pytest.mark.parametrize(("answer", "kind"), [(NO_CREDITS, "credits"), (DROPPED, "unstable")])
async def test_a_halt_that_an_answer_opens_is_known_at_once(
    book: Book, provider: FakeTTS, submitter: Submitter, answer: Twist, kind: str
) -> None:
    """The next create would be held."""
    provider.on_create = lambda _: answer
    await create_one(submitter)
    assert [halt.kind for halt in submitter.api.guard.halts] == [kind]
    assert submitter.api.guard.tripped


async def test_a_halt_that_an_accepted_probe_closes_is_over_at_once(
    book: Book, provider: FakeTTS, submitter: Submitter
) -> None:
    """The other creates need not wait for the probe's task."""
    book.do(halts.open_halt, book.account_id, "credits", AT, "why", "run-0")
    await submitter.api.guard.begin(Profile(), override=True)
    assert submitter.api.guard.probing
    await create_one(submitter)
    assert (submitter.api.guard.halts, len(await submitter._claim(3))) == ([], 2)


class QuickClock(Clock):
    """A clock whose pauses take no time, and are counted."""

    pauses = 0

    async def sleep(self, seconds: float) -> None:
        self.pauses += 1
        await super().sleep(min(seconds, 0.0))


async def test_a_halt_of_another_process_ends_creating(book: Book, provider: FakeTTS, submitter: Submitter) -> None:
    """It is found when no item can be claimed. Until then the halts are read with a pause between."""
    clock = QuickClock()
    submitter.ctx = replace(submitter.ctx, clock=clock)
    book.do(halts.open_halt, book.account_id, "credits", AT, "why", RUN)
    await submitter.run()
    assert (provider.creates, submitter.api.guard.tripped, clock.pauses) == ([], True, 1)


@pytest.mark.parametrize("in_flight", [0, 1])
@pytest.mark.parametrize("over_budget", [False, True])
@pytest.mark.parametrize("changes", [{"max_credits": 9.0}])
async def test_what_a_submitter_waits_for(
    book: Book, provider: FakeTTS, submitter: Submitter, in_flight: int, over_budget: bool
) -> None:
    """For a single answer too, and for no item of a batch that cannot afford one."""
    assert submitter._budget is not None
    submitter._budget.blocked = {book.wanted[0].batch_id: "reached"} if over_budget else {}
    submitter._in_flight, submitter._searched_all = in_flight, True
    found = await submitter._situation()
    assert (found.in_flight, found.over_budget, found.pending) == (bool(in_flight), over_budget, not over_budget)


@pytest.mark.parametrize("changes", [{"max_credits": 9.0}])
async def test_the_balance_is_read_once_for_a_create_at_an_unknown_price(
    book: Book, provider: FakeTTS, submitter: Submitter
) -> None:
    """After its task has ended, which shows what it cost."""
    assert submitter._budget is not None
    submitter._budget.unpriced = True
    for open_tasks, in_flight, read in ((1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 1)):
        submitter.ctx.tally.open, submitter._in_flight = open_tasks, in_flight
        await submitter._read_balance()
        assert (provider.profiles, submitter._budget.unpriced) == (read, not read)


@pytest.mark.parametrize("changes", [{"max_credits": 9.0}])
async def test_a_balance_read_for_another_reason_shows_no_price_before_the_task_has_ended(
    book: Book, provider: FakeTTS, submitter: Submitter
) -> None:
    """Otherwise a second item would be created at an unknown price."""
    assert submitter._budget is not None
    submitter._budget.unpriced = submitter._balance_due = True
    submitter.ctx.tally.open = 1
    assert await submitter._read_balance()
    assert (provider.profiles, submitter._budget.unpriced) == (1, True)


@pytest.mark.parametrize("changes", [{"max_credits": 9.0}])
async def test_a_known_price_stays_known_when_the_balance_is_read(
    book: Book, provider: FakeTTS, submitter: Submitter
) -> None:
    assert submitter._budget is not None
    submitter._balance_due = True
    assert await submitter._read_balance()
    assert (provider.profiles, submitter._budget.unpriced) == (1, False)


@pytest.mark.parametrize("changes", [{"max_credits": 4.5}])
async def test_a_spent_budget_ends_only_creating(book: Book, provider: FakeTTS, submitter: Submitter) -> None:
    """Open tasks are collected; the reason is given once."""
    book.do(collection.record_rendered, ending(book.submitted("t1"), credits=3.0))
    await submitter.run()
    stop = submitter.ctx.stop
    ((reason, why),) = stop.reasons.items()
    assert (reason, why.startswith("--max-credits 4.5 reached: about 3 spent")) == (Reason.ASKED, True)
    assert (stop.creating, stop.collecting, provider.creates) == (True, False, [])


@pytest.mark.parametrize("changes", [{"max_credits": 9.0}])
@pytest.mark.parametrize("over_budget", [False, True])
async def test_answers_are_waited_for_without_asking_the_ledger_again(
    book: Book, provider: FakeTTS, submitter: Submitter, over_budget: bool
) -> None:
    """They may free an item or a part of the budget."""
    assert submitter._budget is not None
    book.claim(3)
    submitter._budget.blocked = {book.wanted[0].batch_id: "reached"} if over_budget else {}
    submitter._in_flight, submitter._searched_all = 1, True
    with anyio.move_on_after(0.03) as limit:
        await submitter._wait()
    assert limit.cancelled_caught


@pytest.mark.parametrize("changes", [{}, {"wait": False}], ids=["wait", "no wait"])
async def test_the_result_of_a_probe_is_waited_for_if_this_run_will_see_it(
    book: Book, provider: FakeTTS, submitter: Submitter, changes: dict[str, Any]
) -> None:
    """Without waiting for tasks, creating ends: a later run sees it."""
    book.do(halts.open_halt, book.account_id, "credits", AT, "why", "run-0", from_task=True)
    await submitter.api.guard.begin(Profile(), override=True)
    await create_one(submitter)
    assert await submitter._claim(3) == []
    submitter._searched_all, more = True, None
    with anyio.move_on_after(0.05) as limit:
        more = await submitter._wait()
    assert (limit.cancelled_caught, more) == ((False, False) if changes else (True, None))
    assert len(provider.creates) == 1


async def test_no_answer_is_waited_for_while_items_may_be_left(
    book: Book, provider: FakeTTS, submitter: Submitter
) -> None:
    """A slow API would otherwise have one create at a time."""
    may_answer = threading.Event()

    def hold(_: Create) -> None:
        may_answer.wait(5.0)

    provider.on_create = hold
    async with anyio.create_task_group() as creates:
        assert [await submitter._step(creates) for _ in range(3)] == [True] * 3
        assert (submitter._in_flight, submitter.ctx.tally.creates) == (3, 0)
        may_answer.set()


async def test_creating_ends_with_the_last_answer(book: Book, provider: FakeTTS, submitter: Submitter) -> None:
    """Not with the end of a task."""
    provider.create_seconds = 0.1
    with anyio.fail_after(30.0):
        await submitter.run()
    assert (submitter._in_flight, submitter.ctx.tally.open) == (0, 3)


async def test_creating_goes_on_after_the_balance_was_read(book: Book, provider: FakeTTS, submitter: Submitter) -> None:
    submitter._balance_due = True
    await submitter.run()
    assert (provider.profiles, len(provider.creates), submitter.ctx.stop.reasons) == (1, 3, {})


@pytest.mark.parametrize(
    ("answer", "reason", "all_stops"),
    [(refusal(401, "bad_token"), Reason.CREDENTIALS, True), (HTML_404, Reason.TROUBLE, False)],
    ids=["token", "another host"],
)
async def test_an_answer_that_concerns_every_request_stops_the_run(
    book: Book, provider: FakeTTS, submitter: Submitter, answer: Twist, reason: Reason, all_stops: bool
) -> None:
    """Without a valid token nothing can be collected either."""
    provider.on_create = lambda _: answer
    await create_one(submitter)
    stop = submitter.ctx.stop
    assert (list(stop.reasons), stop.creating, stop.collecting) == ([reason], True, all_stops)


async def test_a_tripped_guard_ends_creating_and_asks_about_no_old_task(
    book: Book, provider: FakeTTS, submitter: Submitter
) -> None:
    """What failed for lack of credits is checked again once the account may create."""
    task = book.submitted("task_1")
    book.do(collection.record_unfunded, ending(task, error_code="insufficient_credits"))
    provider.jobs["task_1"] = Job("task_1", "one", "mp3", ends_at=0.0)
    await submitter.api.guard.begin(Profile(), override=False)
    await submitter.run()
    assert (provider.creates, provider.jobs["task_1"].reads, submitter.ctx.stop.creating) == ([], 0, False)


async def test_a_ledger_that_cannot_be_written_ends_the_run(
    book: Book, provider: FakeTTS, submitter: Submitter
) -> None:
    """Nothing is created without a durable intent."""
    await submitter.ctx.ledger.do(lambda conn: conn.exec_driver_sql("PRAGMA query_only = ON"))
    await submitter.run()
    stop = submitter.ctx.stop
    assert (list(stop.reasons), stop.collecting, provider.creates) == ([Reason.TROUBLE], True, [])


@pytest.mark.parametrize("changes", [{"max_items": 0}])
async def test_an_old_task_that_does_cost_is_collected_before_anything_is_created(
    book: Book, provider: FakeTTS, submitter: Submitter
) -> None:
    """It failed for lack of credits once, and by now it has ended well."""
    task = book.submitted("task_1")
    book.do(collection.record_unfunded, ending(task, error_code="insufficient_credits"))
    (halt,) = book.do(halts.open_halts, book.account_id)
    book.do(halts.find_prober, halt, RUN, may_probe=True)
    provider.jobs["task_1"] = Job("task_1", "one", "mp3", ends_at=0.0)
    await submitter.run()
    assert (book.state(task.key), submitter.ctx.tally.open, submitter.ctx.tally.polls) == ("submitted", 1, 1)
    assert [watched.task.task_id for watched in submitter.poller._due] == ["task_1"]
    assert book.one("SELECT detail FROM events ORDER BY id DESC LIMIT 1") == {"detail": "read again: completed"}


@pytest.mark.parametrize("answer", ["unfunded", "bad token"])
async def test_an_old_task_that_is_still_unfunded_lets_its_item_be_created(
    book: Book, provider: FakeTTS, submitter: Submitter, answer: str
) -> None:
    """After a second poll that shows it. A rejected token ends the run."""
    task = book.submitted("task_1")
    book.do(collection.record_unfunded, ending(task, error_code="insufficient_credits"))
    (halt,) = book.do(halts.open_halts, book.account_id)
    book.do(halts.find_prober, halt, RUN, may_probe=True)
    provider.jobs["task_1"] = Job("task_1", "one", "mp3", ends_at=0.0)
    provider.ending = lambda _: {"status": "failed", "error": {"code": "insufficient_credits"}, "creditsUsed": 0}
    provider.on_read = lambda _: refusal(401, "bad_token") if answer == "bad token" else None
    await recheck(submitter.ctx, submitter.api, submitter.poller, submitter.wanted)
    stop = submitter.ctx.stop
    assert (list(stop.reasons), stop.collecting) == (
        ([Reason.CREDENTIALS], True) if answer != "unfunded" else ([], False)
    )
    (claimed,) = book.claim_anew()
    assert (claimed.key == task.key) == (answer == "unfunded")


async def test_a_task_that_belongs_to_another_item_is_not_polled_twice(
    book: Book, provider: FakeTTS, submitter: Submitter
) -> None:
    """An API that repeats a task id leaves the second create in doubt."""
    provider.on_create = lambda _: Twist(status=202, body={"task": {"id": "t1", "status": "queued"}})
    first, second = [await create_one(submitter) for _ in range(2)]
    assert (book.state(first), book.state(second)) == ("submitted", "in_doubt")
    assert [watched.task.key for watched in submitter.poller._due] == [first]
    assert submitter.gate._flights.started == []


@pytest.mark.parametrize("cause", [Cause.UNSENT, Cause.UNCLEAR])
async def test_creating_stops_once_the_api_has_not_answered_for_long(submitter: Submitter, cause: Cause) -> None:
    """A first failure only slows it down. Open tasks are still collected."""
    clock = submitter.gate._closure._clock = SetClock()
    answer, stop = Answer(cause=cause, transport="refused"), submitter.ctx.stop
    submitter._react(answer, submitter.gate.enter())
    assert not stop.reasons
    for _ in range(100):
        clock.at += 60.0
        submitter._react(answer, submitter.gate.enter())
    assert (list(stop.reasons), stop.creating, stop.collecting) == ([Reason.TROUBLE], True, False)
    assert submitter.ctx.tally.creates == (0 if cause is Cause.UNSENT else 101)


@pytest.mark.parametrize("cause", [Cause.OK, Cause.INVALID])
async def test_any_answer_ends_a_series_of_failures_and_of_refusals(submitter: Submitter, cause: Cause) -> None:
    clock = submitter.gate._closure._clock = SetClock()
    submitter.api.guard._throttled = 1
    for one in (Cause.UNCLEAR, cause, Cause.UNCLEAR):
        clock.at += 3600.0
        submitter._react(Answer(cause=one, transport="refused"), submitter.gate.enter())
    assert (submitter.ctx.stop.reasons, submitter.api.guard._throttled) == ({}, 0)


@pytest.mark.parametrize("step", ["refresh", "throttled"])
async def test_a_halt_that_cannot_be_stored_or_reported_stops_the_run(
    book: Book, provider: FakeTTS, submitter: Submitter, step: str
) -> None:
    """Nothing more is created or collected."""

    async def fail(_: object) -> None:
        raise StorageError("the disk is full")

    (claimed,) = await submitter._claim(1)
    submitter.api.guard._throttled = SUSPECT_THROTTLED - 1
    provider.credits = 0
    if step == "refresh":
        submitter.api.guard._on_halt = fail
        book.do(halts.open_halt, book.account_id, "credits", AT, "why", RUN)
        await submitter._heed(claimed, Answer(cause=Cause.UNCLEAR))
    else:
        await submitter.ctx.ledger.do(lambda conn: conn.exec_driver_sql("PRAGMA query_only = ON"))
        await submitter._heed(claimed, Answer(cause=Cause.THROTTLED))
    stop = submitter.ctx.stop
    assert (list(stop.reasons), stop.collecting) == ([Reason.TROUBLE], True)


@pytest.mark.parametrize("table", ["tasks", "halts"])
@pytest.mark.parametrize("answer", [None, DROPPED, NO_CREDITS], ids=["accepted", "dropped", "no credits"])
async def test_a_ledger_destroyed_while_a_create_is_in_flight_stops_the_run(
    book: Book, provider: FakeTTS, submitter: Submitter, table: str, answer: Twist | None
) -> None:
    """Like other trouble with storage. The answer is in the ledger or in the spill file."""

    def destroy(_: Create) -> Twist | None:
        with book.engine.begin() as conn:
            conn.exec_driver_sql("PRAGMA legacy_alter_table = ON")
            conn.exec_driver_sql(f"ALTER TABLE {table} RENAME TO lost")
        return answer

    provider.on_create = destroy
    ledger, stop = submitter.ctx.ledger, submitter.ctx.stop
    ledger.spill.reserve()
    key = await create_one(submitter)
    assert f"does not match this program: no such table: {table}" in stop.reasons[Reason.TROUBLE].replace("main.", "")
    assert (stop.creating, stop.collecting, submitter._in_flight) == (True, True, 0)
    spilled = [record.key for record in ledger.spill.records()]
    assert spilled == ([key] if book.state(key) == "submitting" else [])


@pytest.mark.parametrize(
    ("answer", "level", "of_answer"),
    [
        (None, "INFO", "outcome=accepted cause=ok status=202 task_id=task_1 credits=1.0 request_id=req_4567"),
        (INVALID, "WARNING", "outcome=rejected cause=invalid status=422 code=bad_text request_id=req_0123"),
        (DROPPED, "WARNING", "outcome=lost cause=unclear"),
    ],
    ids=["accepted", "invalid", "dropped"],
)
async def test_each_create_is_one_line_of_the_log_with_its_row_and_its_answer(
    provider: FakeTTS,
    submitter: Submitter,
    caplog: pytest.LogCaptureFixture,
    answer: Twist | None,
    level: str,
    of_answer: str,
) -> None:
    """Only what is bought as asked is no warning. The seconds are those until the answer, to the millisecond."""
    caplog.set_level("DEBUG", logger="batcher")
    provider.on_create, provider.create_seconds = lambda _: answer, 0.02
    key = await create_one(submitter)
    (line,) = [record for record in caplog.records if getattr(record, "event", None) == "create"]
    facts = dict(part.split("=") for part in line.getMessage().removeprefix("create: ").split())
    seconds = facts.pop("seconds")
    assert (line.levelname, 0.0 <= float(seconds) < 5.0, len(seconds.partition(".")[2]) <= 3) == (level, True, True)
    of_item = f"batch=m ids=a key={key} attempt=1 endpoint=create chars=3"
    assert facts == dict(part.split("=") for part in f"{of_item} {of_answer}".split())


async def test_a_create_that_was_held_is_no_warning_of_the_log(
    submitter: Submitter, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing was sent."""
    caplog.set_level("DEBUG", logger="batcher")
    submitter.ctx.stop.stop_creating(Reason.ASKED, "enough")
    await create_one(submitter)
    (line,) = [record for record in caplog.records if getattr(record, "event", None) == "create"]
    assert (line.levelname, str(vars(line)["facts"]["outcome"])) == ("DEBUG", "deferred")
