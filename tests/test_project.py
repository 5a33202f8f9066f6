"""A project in a running event loop: rows as they settle, and what ends a run early."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

import batcher
from batcher.project_run import CHUNK
from tests.conftest import Project
from tests.support.fake_tts import TOKEN, FakeTTS, Job, Twist, refusal

NEVER = 1000.0


@pytest.fixture
async def speech(project: Project) -> AsyncIterator[batcher.Project]:
    """An open project that uses the tests' provider."""
    where: Any = {"out_dir": project.audio, "api_url": project.provider.url, "token": TOKEN}
    async with batcher.open(project.ledger, concurrency=20, **where) as opened:
        yield opened


async def test_each_row_comes_once_when_it_has_settled(project: Project, speech: batcher.Project) -> None:
    """With its audio in place. A second run yields the rows again and creates nothing."""
    rows = [*project.rows(5), {"id": "twin", "text": "Line number 1 of the script.", "voice": "anna"}]
    run = speech.run(rows)
    found = {}
    async for row in run:
        assert row.path is not None
        assert row.path.is_file()
        assert (row.state, row.credits, row.error) == ("done", 1, None)
        assert row.id not in found
        found[row.id] = row.path
    assert found == {row["id"]: project.audio / f"{row['id']}.mp3" for row in rows}
    assert (run.report.exit_code, run.report.created) == (0, 5)
    project.assert_whole(rows)
    again = speech.run(rows)
    assert [row.id async for row in again] == [row["id"] for row in rows]
    assert (again.report.created, len(project.provider.creates)) == (0, 5)


async def test_rows_come_while_the_run_is_under_way(
    project: Project, provider: FakeTTS, speech: batcher.Project
) -> None:
    """The others are still open, and the ledger can be looked at."""
    provider.on_read = lambda job: _running(job) if "number 1" not in job.text else None
    async for row in speech.run(project.rows(3)):
        if row.id == "r1":
            status = await speech.status()
            assert (status.states["done"], status.states["submitted"]) == (1, 2)
            assert {row.state async for row in speech.results()} == {"done", "submitted"}
            assert (await speech.plan(project.rows(3))).done == 1
            provider.on_read = lambda _: None
    assert (await speech.status()).states["done"] == 3


def _running(job: Job) -> Twist:
    return Twist(status=200, body={"task": {"id": job.id, "status": "processing"}, "requestId": "req_1"})


async def test_what_becomes_of_rows_is_data(project: Project, provider: FakeTTS, speech: batcher.Project) -> None:
    """Failed, rejected and invalid rows come too; rows that stay open do not."""
    provider.ending = lambda job: {"status": "failed", "error": {"code": "odd"}} if "number 1" in job.text else {}
    provider.on_create = lambda create: refusal(422, "bad_text") if "number 2" in create.text else None
    rows: list[dict[str, Any]] = [*project.rows(3), {"id": "blank", "text": None, "voice": "anna"}]
    run = speech.run(rows, skip_invalid=True)
    found = {row.id: (row.state, row.error and row.error.code) async for row in run}
    assert found == {
        "r1": ("failed", "odd"),
        "r2": ("rejected", "bad_text"),
        "r3": ("done", None),
        "blank": ("invalid", "invalid"),
    }
    assert run.report.exit_code == 3
    more = speech.run(project.rows(6), max_items=1, concurrency=1)
    assert {row.id async for row in more} == {"r1", "r2", "r3", "r4"}
    assert (more.report.exit_code, more.report.states["pending"]) == (6, 2)


async def test_a_run_of_selected_rows_yields_only_those(project: Project, speech: batcher.Project) -> None:
    await speech.run(project.rows(3))
    assert [row.id async for row in speech.run(project.rows(3), only=["r3", "r1"])] == ["r1", "r3"]


async def test_a_selection_that_can_be_read_once_holds_for_every_run_of_the_project(project: Project) -> None:
    """It is not empty, which would mean all rows, the second time."""
    where: Any = {"out_dir": project.audio, "api_url": project.provider.url, "token": TOKEN}
    async with batcher.open(project.ledger, only=iter(["r2"]), **where) as speech:
        assert (await speech.run(project.rows(3))).created == 1
        assert (await speech.run(project.rows(3))).created == 0
    assert len(project.provider.creates) == 1


async def test_a_run_that_is_awaited_twice_reads_its_rows_once(project: Project, speech: batcher.Project) -> None:
    async def rows() -> AsyncIterator[dict[str, Any]]:
        for row in project.rows(3):
            await asyncio.sleep(0)
            yield row

    run = speech.run(rows())
    reports = await asyncio.gather(_report(run), _report(run))
    assert [report.created for report in reports] == [3, 3]
    project.assert_whole(project.rows(3))


async def _report(run: batcher.Run) -> batcher.RunReport:
    return await run


async def test_a_run_whose_rows_are_still_read_does_not_begin_once_its_project_is_left(project: Project) -> None:
    """Nothing is bought behind the back of a program that has left the block."""
    left, asked = asyncio.Event(), asyncio.Event()

    async def rows() -> AsyncIterator[dict[str, Any]]:
        yield project.rows(1)[0]
        asked.set()
        await left.wait()

    async with batcher.open(project.ledger, out_dir=project.audio, api_url=project.provider.url, token=TOKEN) as speech:
        report = asyncio.create_task(_report(speech.run(rows())))
        await asked.wait()
    left.set()
    with pytest.raises(RuntimeError, match="its project was left"):
        await report
    assert not project.provider.creates


async def test_a_run_can_be_awaited(project: Project, speech: batcher.Project) -> None:
    run = speech.run(project.rows(2))
    with pytest.raises(RuntimeError, match="has not ended"):
        _ = run.report
    assert (await run).exit_code == 0
    assert (await run) is run.report
    assert [row.id async for row in run] == ["r1", "r2"]
    assert len(project.provider.creates) == 2


async def test_more_rows_than_are_read_at_once(project: Project, speech: batcher.Project) -> None:
    """Each comes once, in the run that creates it and in the next."""
    rows = [{"id": f"r{i}", "text": f"Line {i % 7} of a few.", "voice": "anna"} for i in range(2 * CHUNK + 1)]
    for _ in range(2):
        found = [row.id async for row in speech.run(rows)]
        assert Counter(found) == Counter(row["id"] for row in rows)
    assert [row.id async for row in speech.results("rows")] == [row["id"] for row in rows]


class PandasLike:
    """The part of a data frame of pandas that is used."""

    columns = ("id", "text", "voice", "speed")

    def itertuples(self, *, index: bool, name: None) -> Iterator[tuple[Any, ...]]:
        assert (index, name) == (False, None)
        return iter([("a", "One.", "anna", float("nan")), ("b", "Two.", "anna", 1.25)])


class PolarsLike:
    """The part of a data frame of polars that is used."""

    columns = ("id", "text", "voice", "day")

    def iter_rows(self) -> Iterator[tuple[Any, ...]]:
        return iter([("a", "One.", "anna", None), ("b", "Two.", "anna", date(2026, 5, 1))])


async def _awaited() -> AsyncIterator[dict[str, Any]]:
    for name, text in (("a", "One."), ("b", "Two.")):
        await asyncio.sleep(0)
        yield {"id": name, "text": text, "voice": "anna"}


@pytest.mark.parametrize("kind", ["list", "generator", "async", "pandas", "polars", "path", "paths"])
async def test_rows_of_every_kind(project: Project, speech: batcher.Project, kind: str) -> None:
    listed = [{"id": "a", "text": "One.", "voice": "anna"}, {"id": "b", "text": "Two.", "voice": "anna"}]
    path = project.manifest(listed)
    kinds: dict[str, Any] = {
        "list": listed,
        "generator": (row for row in listed),
        "async": _awaited(),
        "pandas": PandasLike(),
        "polars": PolarsLike(),
        "path": str(path),
        "paths": [path],
    }
    assert (await speech.plan(listed)).new == 2
    found = [row async for row in speech.run(kinds[kind])]
    assert {row.id for row in found} == {"a", "b"}
    assert {create.text for create in project.provider.creates} == {"One.", "Two."}
    if kind == "pandas":
        speeds = {create.text: create.body.get("speed") for create in project.provider.creates}
        assert speeds == {"One.": None, "Two.": 1.25}
    if kind == "polars":
        assert [row.extra["day"] for row in found if row.id == "b"] == ["2026-05-01"]


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ([{"id": "a", "text": "One."}, "two"], "<rows>:2: a str is not a mapping"),
        ([{"id": "a", "text": object()}], "<rows>:1: text: a value of type object cannot be stored"),
        ([{"id": "a", "text": "One.", "voice": "anna"}, {"id": "b", "text": "", "voice": "anna"}], "<rows>:2: text: "),
        ([{"id": "a", "text": "One.", "voice": "anna", "speed": float("inf")}], "<rows>:1: "),
    ],
)
async def test_faults_of_rows_are_listed_in_the_exception(
    speech: batcher.Project, provider: FakeTTS, rows: Any, fault: str
) -> None:
    with pytest.raises(batcher.ManifestError) as raised:
        await speech.run(rows)
    assert [line for line in raised.value.faults if line.startswith(fault)]
    assert provider.creates == []


@pytest.mark.parametrize("rows", [5, {"id": "a"}, b"lines.csv", None])
async def test_what_cannot_be_rows_is_refused(speech: batcher.Project, rows: Any) -> None:
    with pytest.raises((batcher.UsageError, batcher.ManifestError)):
        await speech.run(rows)


async def test_a_second_run_on_the_ledger_is_locked_out(
    project: Project, provider: FakeTTS, speech: batcher.Project
) -> None:
    """Or waits, if that is wanted."""
    provider.task_seconds = NEVER
    async with anyio.create_task_group() as group:
        group.start_soon(_finish, speech.run(project.rows(1)))
        await anyio.to_thread.run_sync(provider.until, lambda: bool(provider.jobs))
        with pytest.raises(batcher.LockedError):
            await speech.run(project.rows(1))
        waiting = speech.run(project.rows(1), wait_lock="30s")
        group.start_soon(_finish, waiting)
        provider.end_tasks()
    assert (waiting.report.exit_code, len(provider.creates)) == (0, 1)


async def _finish(run: batcher.Run) -> None:
    await run


async def test_a_project_is_used_within_its_block(project: Project) -> None:
    with pytest.raises(RuntimeError, match="async with"):
        batcher.open(project.ledger).run(project.rows(1))
    async with batcher.open(project.ledger) as opened:
        with pytest.raises(TypeError, match="that of the project is used"):
            opened.run(project.rows(1), ledger="other.db")
        with pytest.raises(TypeError, match="Did you mean 'max_items'"):
            opened.run(project.rows(1), max_item=1)  # type: ignore[call-arg]


async def _leave(run: batcher.Run) -> None:
    async for _ in run:
        break


async def _raise(run: batcher.Run) -> None:
    async def work() -> None:
        async for _ in run:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await work()


async def _cancel(run: batcher.Run) -> None:
    first = asyncio.Event()

    async def work() -> None:
        async for _ in run:
            first.set()

    task = asyncio.create_task(work())
    await first.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def _time_out(run: batcher.Run) -> None:
    async def work() -> None:
        async with asyncio.timeout(NEVER) as limit:
            async for _ in run:
                limit.reschedule(asyncio.get_running_loop().time())

    with pytest.raises(TimeoutError):
        await work()


async def _scope(run: batcher.Run) -> None:
    with anyio.CancelScope() as scope:
        async for _ in run:
            scope.cancel()
    assert scope.cancelled_caught


async def _stop(run: batcher.Run) -> None:
    async for _ in run:
        run.stop()
        break
    await run


@pytest.mark.parametrize("leave", [_leave, _raise, _cancel, _time_out, _scope, _stop])
async def test_leaving_a_run_early_drains_it(project: Project, provider: FakeTTS, leave: Any) -> None:
    """Nothing more is created, what is created is collected, and the next run buys the rest."""
    rows = project.rows(12)
    where: Any = {"out_dir": project.audio, "api_url": provider.url, "token": TOKEN, "concurrency": 2}
    async with batcher.open(project.ledger, **where) as speech:
        run = speech.run(rows)
        await leave(run)
    assert (run.report.exit_code, run.report.message) == (6, "stopped as requested; run it again to continue")
    states = {state: number for state, number in run.report.states.items() if number}
    assert set(states) == {"pending", "done"}
    assert states["done"] == len(provider.creates) < 12
    async with batcher.open(project.ledger, **where) as speech:
        assert (await speech.run(rows)).exit_code == 0
    assert Counter(provider.asked) == Counter(row["text"] for row in rows)
    project.assert_whole(rows)


async def test_the_answer_to_a_create_in_flight_survives_a_cancellation(project: Project, provider: FakeTTS) -> None:
    """It is recorded, and its task collected."""
    provider.create_seconds = 0.3
    where: Any = {"out_dir": project.audio, "api_url": provider.url, "token": TOKEN, "concurrency": 1}
    async with batcher.open(project.ledger, **where) as speech:
        run = speech.run(project.rows(3))
        task = asyncio.create_task(_finish(run))
        await anyio.to_thread.run_sync(provider.until, lambda: bool(provider.creates))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert (len(provider.creates), run.report.states["done"], run.report.states["in_doubt"]) == (1, 1, 0)


async def test_a_second_cancellation_ends_a_run_at_once(project: Project, provider: FakeTTS) -> None:
    """A create without an answer is in doubt, and is not created again."""
    provider.create_seconds = NEVER
    where: Any = {"out_dir": project.audio, "api_url": provider.url, "token": TOKEN}
    async with batcher.open(project.ledger, **where) as speech:
        run = speech.run(project.rows(1))
        task = asyncio.create_task(_finish(run))
        await anyio.to_thread.run_sync(provider.until, lambda: bool(provider.creates))
        for _ in range(2):
            task.cancel()
            await asyncio.sleep(0.05)
        with pytest.raises(asyncio.CancelledError):
            await task
    assert (run.report.exit_code, run.report.states["in_doubt"]) == (130, 1)
    provider.create_seconds = 0.0
    async with batcher.open(project.ledger, **where) as speech:
        assert [row.state async for row in speech.run(project.rows(1))] == ["in_doubt"]
    assert len(provider.creates) == 1


async def test_the_ledger_may_be_named_by_its_url(project: Project) -> None:
    """The audio is beside it."""
    where: Any = {"api_url": project.provider.url, "token": TOKEN}
    async with batcher.open(f"sqlite:///{project.ledger}", **where) as speech:
        assert (await speech.run(project.rows(1))).exit_code == 0
    assert (project.audio / "r1.mp3").is_file()


async def test_no_ledger_is_made_by_looking(project: Project, speech: batcher.Project) -> None:
    with pytest.raises(batcher.LedgerError, match="no ledger"):
        await speech.status()
    assert (await speech.plan(project.rows(2))).new == 2
    assert not Path(speech.ledger).exists()
