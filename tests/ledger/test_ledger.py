"""Shared commits, and recovery when the database refuses a write."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import anyio
import anyio.from_thread
import anyio.lowlevel
import pytest
from sqlalchemy import Connection, event, text

from batcher.address import Server, spill_file
from batcher.errors import StorageError
from batcher.item import Event
from batcher.ledger import ledger as ledger_module
from batcher.ledger.ledger import Ledger
from batcher.ledger.lifecycle import answers, runs
from batcher.ledger.records import AnswerRecord
from batcher.ledger.recovery import recover
from batcher.ledger.storage.spill import Spill
from tests.support import postgres
from tests.support.ledger_kit import AT, NEVER, RUN, Book, sheet


@pytest.fixture(params=[False, True], ids=["alone", "gathering"])
def ledger(book: Book, request: pytest.FixtureRequest) -> Iterator[Ledger]:
    """The opened ledger of twelve items, with `gathers` off and on."""
    book.take_in(sheet(*(f"text {number}" for number in range(12))))
    with book.ledger() as made:
        made.group_commits = request.param
        yield made


def _write(conn: Connection, name: str) -> str:
    conn.execute(text("INSERT INTO meta VALUES (:name, 'x')"), {"name": name})
    return name


def _names(book: Book) -> set[str]:
    return {row["name"] for row in book.all("SELECT name FROM meta")}


async def test_a_refused_record_does_not_affect_those_recorded_with_it(book: Book, ledger: Ledger) -> None:
    """It goes to the spill file; the others are durable."""
    claimed = book.claim(10)
    records = [book.accepted(one, f"t{number}") for number, one in enumerate(claimed)]
    records[4] = replace(records[4], account_id=999)
    results: dict[int, object] = {}

    async def record(number: int) -> None:
        try:
            results[number] = await ledger.record(records[number], max_in_doubt=NEVER)
        except StorageError as error:
            results[number] = error

    async with anyio.create_task_group() as group:
        for number in range(10):
            group.start_soon(record, number)
    assert isinstance(results[4], StorageError)
    assert [kept.task_id for kept in ledger.spill.records()] == ["t4"]
    assert [results[number] for number in range(10) if number != 4] == [Event.ACCEPTED] * 9
    assert {row["task_id"] for row in book.all("SELECT task_id FROM tasks")} == {f"t{n}" for n in range(10)} - {"t4"}
    assert book.state(claimed[4].key) == "submitting"


async def test_concurrent_calls_share_commits(book: Book, ledger: Ledger) -> None:
    """They run one after the other; one or two commits make all of them durable."""
    commits: list[Connection] = []
    event.listen(ledger._engine, "commit", commits.append)
    seen: list[int] = []

    def noting(conn: Connection, name: str) -> None:
        seen.append(conn.execute(text("SELECT count(*) FROM meta WHERE value = 'x'")).scalar_one())
        _write(conn, name)

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(ledger.do, noting, f"n{number}")
    assert seen == list(range(20))
    assert {f"n{number}" for number in range(20)} <= _names(book)
    assert len(commits) <= 2


async def test_a_call_that_may_wait_shares_the_commit_of_the_next(book: Book, ledger: Ledger) -> None:
    """With none to share, it commits by itself after a moment."""
    ledger.group_commits = True
    commits: list[Connection] = []
    event.listen(ledger._engine, "commit", commits.append)
    async with anyio.create_task_group() as group:
        group.start_soon(ledger.do_soon, _write, "patient")
        await anyio.lowlevel.checkpoint()
        await ledger.do(_write, "urgent")
    assert len(commits) == 1
    await ledger.do_soon(_write, "alone")
    assert len(commits) == 2
    assert {"patient", "urgent", "alone"} <= _names(book)


async def test_a_call_that_may_wait_leaves_the_next_commit_to_an_urgent_one(book: Book, ledger: Ledger) -> None:
    """Both arrived during a commit."""
    ledger.group_commits = True
    commits: list[Connection] = []
    event.listen(ledger._engine, "commit", commits.append)
    async with anyio.create_task_group() as group:
        group.start_soon(ledger.do, _write, "first")
        while not commits:
            await anyio.lowlevel.checkpoint()
        group.start_soon(ledger.do_soon, _write, "patient")
        group.start_soon(ledger.do, _write, "urgent")
    assert len(commits) == 2
    assert {"first", "patient", "urgent"} <= _names(book)


async def test_a_failing_call_is_rolled_back(book: Book, ledger: Ledger) -> None:
    """Its caller gets the error, and the ledger goes on."""

    def half(conn: Connection) -> None:
        _write(conn, "half")
        raise KeyError("stop")

    with pytest.raises(KeyError, match="stop"):
        await ledger.do(half)
    assert await ledger.do(_write, "after") == "after"
    assert "half" not in _names(book)


async def test_a_cancelled_call_is_written_all_the_same(book: Book, ledger: Ledger) -> None:
    """Cancelled before or during the commit."""
    async with anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(ledger.do, _write, f"n{number}")
        await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
    assert {f"n{number}" for number in range(5)} <= _names(book)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await ledger.do(_write, "already cancelled")
    assert "already cancelled" in _names(book)


async def test_a_call_returns_only_once_its_write_is_durable(book: Book, ledger: Ledger) -> None:
    """Another connection sees the write, however long the shared commit takes."""
    seen: list[bool] = []

    @event.listens_for(ledger._engine, "commit")
    def _dawdle(connection: Connection) -> None:
        for _ in range(5):  # the loop runs meanwhile: a call that returned early would show
            anyio.from_thread.run(anyio.lowlevel.checkpoint)

    async def write(name: str) -> None:
        await ledger.do(_write, name)
        seen.append(name in _names(book))

    async with anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(write, f"n{number}")
    assert seen == [True] * 5


def _fill(conn: Connection) -> None:
    if conn.dialect.name == "postgresql":
        conn.exec_driver_sql("SET default_transaction_read_only = on")
        return
    pages = conn.exec_driver_sql("PRAGMA page_count").scalar_one()
    conn.exec_driver_sql(f"PRAGMA max_page_count = {pages}")


def _room(conn: Connection) -> None:
    if conn.dialect.name == "postgresql":
        conn.exec_driver_sql("SET default_transaction_read_only = off")
        return
    conn.exec_driver_sql("PRAGMA max_page_count = 1000000")


async def _full(ledger: Ledger) -> None:
    """Cap the ledger's size, and use up the free space within its pages."""
    await ledger.do(_fill)
    for number in range(1000):
        try:
            await ledger.do(_write, f"filler {number:04}" + "x" * 500)
        except StorageError:
            return
    pytest.fail("the ledger took it all")


async def test_a_full_database_fails_every_waiting_call_and_recovers(book: Book, ledger: Ledger) -> None:
    await _full(ledger)
    before = book.dump()
    errors: list[StorageError] = []

    async def write(name: str) -> None:
        try:
            await ledger.do(_write, name + "y" * 5000)
        except StorageError as error:
            errors.append(error)

    async with anyio.create_task_group() as group:
        for number in range(4):
            group.start_soon(write, f"n{number}")
    assert len(errors) == 4
    assert ("read-only" if isinstance(book.address, Server) else "full") in errors[0].message
    assert "then run it again" in errors[0].hint
    assert book.dump() == before
    await ledger.do(_room)
    assert await ledger.do(_write, "later") == "later"


def _leave(ledger: Ledger, *records: AnswerRecord) -> Spill:
    """The spill file of an earlier run with these answers."""
    left = Spill(spill_file(ledger.address, ledger.ledger_id, "earlier"))
    for record in records:
        left.append(record)
    left.close()
    return left


async def test_an_answer_that_the_database_refuses_goes_to_the_spill_file(book: Book, ledger: Ledger) -> None:
    """The next recovery records it once."""
    (claimed, other) = book.claim(2)
    record = book.accepted(claimed, "t1", raw=b"r" * 9000)
    ledger.spill.reserve()
    await _full(ledger)
    with pytest.raises(StorageError, match="the answer is stored in"):
        await ledger.record(record, max_in_doubt=NEVER)
    assert book.state(claimed.key) == "submitting"
    ledger.close()
    with book.ledger("run-2") as again:
        assert Spill(ledger.spill.path).records() == [replace(record, raw=b"r" * 4096)]
        await again.do(runs.begin_run, "run-2", out_dir="audio", at=AT + 9)
        assert await recover(again, run_id="run-2", at=AT + 9, max_in_doubt=NEVER) == 1
        assert Spill(ledger.spill.path).records() == []
    assert (book.state(claimed.key), book.state(other.key)) == ("submitted", "in_doubt")
    assert book.events(claimed.key) == ["claim", "accepted"]
    assert not ledger.spill.records()


async def test_a_recovery_killed_before_clearing_the_spill_file_can_be_repeated(book: Book, ledger: Ledger) -> None:
    (claimed,) = book.claim()
    _leave(ledger, book.accepted(claimed, "t1"))
    await ledger.do(answers.record_answer, book.accepted(claimed, "t1"), max_in_doubt=NEVER)
    assert await recover(ledger, run_id=RUN, at=AT, max_in_doubt=NEVER) == 0
    assert (book.state(claimed.key), book.events(claimed.key)) == ("submitted", ["claim", "accepted"])


async def test_the_spill_file_is_not_cleared_before_its_answers_are_committed(book: Book, ledger: Ledger) -> None:
    """The database refuses the first recovery and takes the second."""
    (claimed,) = book.claim()
    record = book.accepted(claimed, "t1", raw=b"r" * 4096)
    left = _leave(ledger, record)
    await _full(ledger)
    with pytest.raises(StorageError):
        await recover(ledger, run_id=RUN, at=AT, max_in_doubt=NEVER)
    assert left.records() == [record]
    await ledger.do(_room)
    assert await recover(ledger, run_id=RUN, at=AT, max_in_doubt=NEVER) == 0
    assert (book.state(claimed.key), left.records()) == ("submitted", [])


async def test_a_spilled_answer_that_the_schema_refuses_stays_in_the_spill_file(book: Book, ledger: Ledger) -> None:
    """The user can inspect it there, and the other answers are recorded."""
    (claimed, other) = book.claim(2)
    records = [book.accepted(claimed, "t1", account_id=999), book.accepted(other, "t2")]
    left = _leave(ledger, *records)
    ledger.close()
    with book.ledger("run-2") as again:
        await again.do(runs.begin_run, "run-2", out_dir="audio", at=AT)
        assert await recover(again, run_id="run-2", at=AT, max_in_doubt=NEVER) == 1
    assert (book.state(claimed.key), book.state(other.key)) == ("in_doubt", "submitted")
    assert left.records() == records


@pytest.mark.parametrize("book", ["sqlite"], indirect=True)
async def test_a_clean_close_leaves_one_file(book: Book) -> None:
    """No journal with content and no spill file stay beside the ledger."""
    book.engine.dispose()
    with book.ledger() as made:
        made.spill.reserve()
        await recover(made, run_id=RUN, at=AT, max_in_doubt=NEVER)
        await made.do(_write, "kept")
        assert made.spill.path.exists()
    beside = {path.name: path.stat().st_size for path in book.path.parent.iterdir()}
    assert not [name for name, size in beside.items() if name != "batcher.db" and size]
    assert "kept" in _names(book)


@pytest.mark.parametrize("book", ["postgres"], indirect=True)
@pytest.mark.parametrize("ledger", [True], indirect=True)
async def test_a_server_that_does_not_answer_is_given_up(
    book: Book, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise an answer to a create would stay in memory for as long as a proxy holds the connection."""
    monkeypatch.setattr(ledger_module, "_PING_SECONDS", 0.05)
    monkeypatch.setattr(ledger_module, "_SILENT_SECONDS", 0.2)
    (claimed,) = book.claim()
    record = book.accepted(claimed, "t1")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ledger.keep)
        tasks.start_soon(_fails, ledger)
        await anyio.lowlevel.checkpoint()
        with anyio.fail_after(10), pytest.raises(StorageError, match="the answer is stored in"):
            await ledger.record(record, max_in_doubt=NEVER)
        tasks.cancel_scope.cancel()
    assert ledger.spill.records() == [record]
    assert not ledger.is_held
    assert isinstance(book.address, Server)
    postgres.end_sessions(book.address.url)  # it still sleeps


async def _fails(ledger: Ledger) -> None:
    with pytest.raises(StorageError):
        await ledger.do(lambda conn: conn.execute(text("SELECT pg_sleep(60)")))
