"""Records of runs and accounts: who ran, on which account, with which balance, and what was learned."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest

from batcher.ledger.lifecycle import collection, runs
from batcher.ledger.records import Balance
from tests.support.ledger_kit import AT, RUN, Book, ending, sheet

API = "https://api.test"


def enter(book: Book, run_id: str, **changes: Any) -> int | None:
    """Begin a run and enter its account."""
    book.do(runs.begin_run, run_id, out_dir="audio", at=AT)
    who: dict[str, Any] = {"origin": API, "user_id": "u1", "token": "secret", "balance": Balance(credits=1.0), "at": AT}
    return book.do(runs.enter_account, run_id, **(who | changes))


def test_a_new_run_ends_those_that_vanished_and_learns_how_the_last_one_ended(book: Book) -> None:
    """Otherwise a killed run could still claim."""
    book.do(lambda conn: runs.end_run(conn, RUN, ended_at=AT + 1, outcome="done", exit_code=0, message="all done"))
    assert book.do(runs.begin_run, "run-2", out_dir="audio", at=AT + 2) == (0, "all done")
    assert book.do(runs.begin_run, "run-3", out_dir="audio", at=AT + 3) == (None, None)
    assert book.all("SELECT id, ended_at, outcome FROM runs ORDER BY started_at") == [
        {"id": RUN, "ended_at": AT + 1, "outcome": "done"},
        {"id": "run-2", "ended_at": AT + 3, "outcome": "vanished"},
        {"id": "run-3", "ended_at": None, "outcome": None},
    ]


def test_the_first_run_of_a_ledger_learns_of_no_other(book: Book) -> None:
    book.execute("DELETE FROM balances")
    book.execute("DELETE FROM runs")
    assert book.do(runs.begin_run, "run-2", out_dir="audio", at=AT) == (None, None)


def test_a_run_vanishes_once(book: Book) -> None:
    """Its host is named, and neither a run that recorded its end nor the one that asks has vanished."""
    book.do(lambda conn: runs.end_run(conn, RUN, ended_at=AT, outcome="done", exit_code=0, message="all done"))
    for run_id in ("run-2", "run-3"):
        book.do(runs.begin_run, run_id, out_dir="audio", at=AT)
        book.execute("UPDATE runs SET ended_at = NULL, is_creating = 1 WHERE id = 'run-2'")
    assert book.do(runs.end_vanished, "run-3", at=AT + 1) == [socket.gethostname()]
    assert book.do(runs.end_vanished, "run-3", at=AT + 2) == []
    assert book.all("SELECT id, ended_at, outcome, is_creating FROM runs ORDER BY id") == [
        {"id": RUN, "ended_at": AT, "outcome": "done", "is_creating": 0},
        {"id": "run-2", "ended_at": AT + 1, "outcome": "vanished", "is_creating": 0},
        {"id": "run-3", "ended_at": None, "outcome": None, "is_creating": None},
    ]


@pytest.mark.parametrize("book", ["postgres"], indirect=True)
def test_a_run_that_joins_learns_how_the_last_run_that_ended_did(book: Book) -> None:
    """Another works since then."""
    book.join("run-2", at=AT + 1)
    book.do(lambda conn: runs.end_run(conn, RUN, ended_at=AT + 2, outcome="done", exit_code=0, message="all done"))
    assert book.do(runs.begin_run, "run-3", out_dir="audio", at=AT + 3) == (0, "all done")


@pytest.mark.parametrize("book", ["postgres"], indirect=True)
def test_runs_that_overlap_have_worked_together_even_if_only_through_a_third(book: Book) -> None:
    """One that begins when no other works has worked alone until another joins it."""
    book.join("run-2")
    assert book.do(runs.others_work, RUN)
    end(book, RUN)
    assert not book.do(runs.others_work, "run-2")
    assert book.do(runs.others_work, RUN)
    book.join("run-3")
    for run_id in ("run-2", "run-3"):
        end(book, run_id)
    book.do(runs.begin_run, "run-4", out_dir="audio", at=AT)
    together = [book.do(runs.worked_with_others, run_id) for run_id in (RUN, "run-2", "run-3", "run-4")]
    assert together == [True, True, True, False]


def end(book: Book, run_id: str) -> None:
    """Record the end of this run."""
    book.do(lambda conn: runs.end_run(conn, run_id, ended_at=AT, outcome="done"))


@pytest.mark.parametrize("book", ["postgres"], indirect=True)
def test_a_run_begins_by_merging_the_costs_that_earlier_runs_noted(book: Book) -> None:
    """Otherwise there would be a line for each task that has ever ended."""
    book.take_in(sheet("one", "two"))
    for task_id in ("t1", "t2"):
        book.do(collection.record_rendered, ending(book.submitted(task_id), credits=1.0))
    assert len(book.all("SELECT told FROM costs")) > 1
    book.do(runs.begin_run, "run-2", out_dir="audio", at=AT)
    assert [row["told"] for row in book.all("SELECT told FROM costs")] == [2.0]


@pytest.mark.parametrize("book", ["postgres"], indirect=True)
def test_runs_begin_one_after_another(book: Book) -> None:
    """Of two that begin at once, the second finds the first at work, or neither would know of the other."""
    with book.engine.begin() as connection:
        runs.begin_run(connection, "run-2", out_dir="audio", at=AT)
        turns = """SELECT classid FROM pg_locks JOIN pg_database ON pg_database.oid = database
            WHERE locktype = 'advisory' AND objsubid = 2 AND classid <> 7001 AND datname = current_database()"""
        assert len(book.all(turns)) == 1


@pytest.mark.parametrize("book", ["postgres"], indirect=True)
def test_one_run_at_a_time_finds_that_another_has_vanished(book: Book) -> None:
    """The others find it once that is recorded."""
    with book.engine.begin() as connection:
        assert runs.end_vanished(connection, "run-2", at=AT) == [socket.gethostname()]
        of_run = "SELECT pg_try_advisory_xact_lock(hashtextextended('run-1', 7001)) AS free"
        assert book.one(of_run) == {"free": False}
    assert book.one(of_run) == {"free": True}


def test_an_account_is_known_by_its_user_and_origin(book: Book) -> None:
    """Or by the token, where the profile names nobody. Tasks of one account are never read with another's token."""
    assert book.do(runs.account_of_token, origin=API, token="secret") == book.account_id
    assert enter(book, "run-2", token="new") == book.account_id
    assert enter(book, "run-3", user_id=None, token="new") == book.account_id
    assert enter(book, "run-4", user_id=None, token="secret") is None  # replaced
    assert enter(book, "run-5", user_id=None, token="new", origin="https://other.test") is None
    other = enter(book, "run-6", user_id="u2", token="other")
    assert other not in (None, book.account_id)
    assert enter(book, "run-7", origin="https://other.test") not in (None, book.account_id, other)
    found = [book.do(runs.find_account, origin=API, user_id=user_id) for user_id in ("u1", "u2", "u3")]
    assert found == [book.account_id, other, None]
    accounts = {row["id"]: row["account_id"] for row in book.all("SELECT id, account_id FROM runs")}
    assert (accounts["run-3"], accounts["run-4"], accounts["run-6"]) == (book.account_id, None, other)


def test_a_token_is_not_in_the_ledger(book: Book) -> None:
    enter(book, "run-2", token="sk-very-secret")
    assert "sk-very-secret" not in "\n".join(book.dump())
    assert runs.token_fingerprint("sk-very-secret") == "06e1f0fca422ab34"  # as every version had it


def test_the_balance_before_a_run_is_the_latest_of_an_earlier_run_on_its_account(book: Book) -> None:
    """An unknown balance is not recorded: it never counts as zero."""
    account_id = book.account_id
    assert book.do(runs.balance_before, account_id, RUN) is None
    book.do(runs.note_balance, RUN, account_id, Balance(credits=90.0), at=AT + 1)
    book.do(runs.note_balance, RUN, account_id, Balance(quota=70.0), at=AT + 2)
    book.do(runs.note_balance, RUN, account_id, Balance(tier="pro"), at=AT + 3)
    kept = book.all("SELECT credits, quota FROM balances ORDER BY at")
    assert [tuple(row.values()) for row in kept] == [(100.0, None), (90.0, None), (None, 70.0)]
    other = enter(book, "run-2", user_id="u2", token="other", balance=Balance(credits=5.0))
    assert other is not None
    assert book.do(runs.balance_before, account_id, "run-2") == 70.0
    book.do(runs.note_balance, "run-2", other, Balance(credits=4.0), at=AT + 4)
    found = book.all("SELECT profile_start, profile_end FROM runs ORDER BY id")
    balances = [[json.loads(row[name])["credits"] for name in ("profile_start", "profile_end")] for row in found]
    assert balances == [[100.0, None], [5.0, 4.0]]


def test_learned_values_belong_to_an_account_and_a_name(book: Book) -> None:
    """The latest is kept."""
    other = enter(book, "run-2", user_id="u2", token="other")
    assert other is not None
    for account_id, name, value in (
        (book.account_id, "pace", [1]),
        (book.account_id, "pace", {"a": 2.5}),
        (other, "x", 3),
    ):
        book.do(runs.save_learned_value, account_id, name, value, at=AT)
    assert book.do(runs.learned_value, book.account_id, "pace") == {"a": 2.5}
    assert book.do(runs.learned_value, other, "pace") is None
    assert book.do(runs.learned_value, other, "x") == 3
