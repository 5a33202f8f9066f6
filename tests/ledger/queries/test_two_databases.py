"""Every query of a ledger gives the same answer on SQLite and on PostgreSQL, value for value and type for type."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest
from sqlalchemy import Connection, Row

from batcher.address import Server
from batcher.item import State
from batcher.ledger.money import evidence, prices, spending, top_ups
from batcher.ledger.queries import (
    attention,
    batches,
    changes,
    eta,
    identity,
    ignored,
    integrity,
    item_counts,
    outputs,
    report,
    run_list,
    settled,
    status,
)
from batcher.ledger.storage.chosen import choose
from tests.support import postgres
from tests.support.history import History
from tests.support.ledger_kit import AT, Book, book_in, opened_book

MODULES: Final = (
    *(evidence, prices, spending, top_ups, attention, batches, changes, eta, identity),
    *(ignored, integrity, item_counts, outputs, report, settled, status),
)


class Asked:
    """A history with what queries about it need: its batches, items and runs."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.book = history.book
        self.wanted = sorted(self.book.wanted, key=lambda batch: batch.batch_id)
        self.keys = [row["key"] for row in self.book.all("SELECT key FROM items ORDER BY key")]
        self.runs = [row["id"] for row in self.book.all("SELECT id FROM runs ORDER BY started_at, id")]
        self.accounts = [row["id"] for row in self.book.all("SELECT id FROM accounts ORDER BY id")]
        self.rows = [
            (row["batch_id"], row["id"], row["number"])
            for row in self.book.all("SELECT * FROM rows WHERE is_current = 1 ORDER BY batch_id, number")
        ]


Query = Callable[[Connection, Asked], Any]


def _some(query: Callable[..., Any], *more: Any, **how: Any) -> Query:
    """The query for all batches, for each of them, and for none."""

    def ask(conn: Connection, asked: Asked) -> Any:
        return [query(conn, some, *more, **how) for some in ([], asked.wanted, *([one] for one in asked.wanted))]

    return ask


def _each(query: Callable[..., Any], *more: Any, **how: Any) -> Query:
    """The query for each batch."""
    return lambda conn, asked: [query(conn, batch, *more, **how) for batch in asked.wanted]


def _runs(query: Callable[..., Any], *more: Any) -> Query:
    """The query for each run."""
    return lambda conn, asked: [query(conn, run_id, *more) for run_id in (*asked.runs, "no such run")]


def _items(query: Callable[..., Any]) -> Query:
    """The query for each item."""
    return lambda conn, asked: [query(conn, key) for key in asked.keys]


def _chosen(query: Callable[..., Any], *more: Any, **how: Any) -> Query:
    """The query for every other row."""

    def ask(conn: Connection, asked: Asked) -> Any:
        choose(conn, [(batch_id, number) for batch_id, _, number in asked.rows[::2]])
        return query(conn, asked.wanted, *more, **how)

    return ask


def _either(query: Callable[..., Any], *more: Any) -> Query:
    """The query for all rows and for every other row."""
    some, chosen = _some(query, *more), _chosen(query, *more, only_chosen=True)
    return lambda conn, asked: [some(conn, asked), chosen(conn, asked)]


def _states(query: Callable[..., Any]) -> Query:
    """The query for each state."""
    return lambda conn, asked: [query(state)(conn, asked) for state in State]


def _affords(conn: Connection, asked: Asked) -> Any:
    budgets = [spending.Budget(limit, "run-1") for limit in (1.0, 50.0)]
    sizes = [(batch.batch_id, model, 10) for batch in asked.wanted for model in (None, "m1", "m3")]
    said = [[budget.affords(conn, *size) for size in sizes] for budget in budgets]
    return [said, [budget.blocked for budget in budgets]]


def _through(query: Callable[..., Any]) -> Query:
    """The chunks of a query for each batch, from the first row to the last."""

    def ask(conn: Connection, asked: Asked) -> Any:
        found = []
        for batch in asked.wanted:
            after = -1
            while True:
                chunk, last = query(conn, batch, after, 3)
                found.append([chunk, last])
                if last == after:
                    break
                after = last
        return found

    return ask


QUERIES: Final[dict[Callable[..., Any], Query]] = {
    evidence.evidence: lambda conn, asked: [_without_numbers(case) for case in evidence.evidence(conn, asked.keys)],
    evidence.balance_evidence: lambda conn, asked: [
        (found, found.unexplained)
        for case in evidence.evidence(conn, asked.keys)
        if case.attempt_account_id is not None
        for found in [evidence.balance_evidence(conn, case)]
    ],
    prices.prices: lambda conn, _: prices.prices(conn),
    spending.spending: lambda conn, asked: [
        spending.spending(conn, batch_id=batch_id)
        for batch_id in (None, *(batch.batch_id for batch in asked.wanted), 99)
    ],
    spending.Budget: _affords,
    spending.estimated_need: _some(spending.estimated_need),
    spending.to_buy: lambda conn, asked: [
        _by_model(spending.to_buy(conn, some)) for some in ([], asked.wanted, asked.wanted[:1])
    ],
    spending.sizes_to_buy: _either(spending.sizes_to_buy),
    spending.next_need: _either(spending.next_need),
    spending.spent_in_run: _runs(spending.spent_in_run),
    top_ups.topped_up: lambda conn, asked: [
        top_ups.topped_up(conn),
        *(top_ups.topped_up(conn, run_id=run_id) for run_id in asked.runs),
        top_ups.topped_up(conn, since=AT + 10.0),
        top_ups.topped_up(conn, since=AT, until=AT + 20.0),
    ],
    attention.foreign_tasks: lambda conn, asked: [
        attention.foreign_tasks(conn, asked.wanted, account) for account in (None, *asked.accounts)
    ],
    attention.needing_attention: _states(lambda state: _either(attention.needing_attention, state, 3)),
    attention.undelivered: _either(attention.undelivered, 3),
    batches.current_batches: lambda conn, _: batches.current_batches(conn),
    changes.run_named: lambda conn, asked: [
        changes.run_named(conn, None),
        *(changes.run_named(conn, run_id) for run_id in asked.runs if run_id != "run-1"),
    ],
    changes.changes: lambda conn, _: [changes.changes(conn, AT + after) for after in (0.0, 20.0, 1000.0)],
    eta.forecast: _runs(eta.forecast, 5),
    identity.identity: lambda conn, _: identity.identity(conn).world,
    identity.has_run: _runs(identity.has_run),
    identity.working_runs: lambda conn, _: identity.working_runs(conn),
    ignored.ignored_in_run: _runs(ignored.ignored_in_run),
    ignored.ignored_in: _some(ignored.ignored_in),
    integrity.damage: lambda conn, _: integrity.damage(conn),
    integrity.inconsistencies: lambda conn, _: integrity.inconsistencies(conn),
    item_counts.count: _some(item_counts.count),
    item_counts.count_chosen: _chosen(item_counts.count_chosen),
    item_counts.collectable: lambda conn, _: item_counts.collectable(conn),
    item_counts.new_in_run: _states(lambda state: _runs(item_counts.new_in_run, state)),
    item_counts.few_items_in: lambda conn, _: [
        item_counts.few_items_in(conn, state, limit) for state in State for limit in (1, 2, 500)
    ],
    outputs.outputs: lambda conn, _: outputs.outputs(conn),
    outputs.outputs_of: _items(outputs.outputs_of),
    outputs.to_link: _each(outputs.to_link, 1, 2),
    outputs.folders: lambda conn, asked: [
        sorted(outputs.folders(conn, batch, 100, unlinked=unlinked))
        for batch in asked.wanted
        for unlinked in (False, True)
    ],
    outputs.places_of_audio: _items(lambda conn, key: outputs.places_of_audio(conn, key[:64])),
    outputs.linked_elsewhere: lambda conn, _: [
        sorted(outputs.linked_elsewhere(conn, [one.key], one)) for one in outputs.outputs(conn)
    ],
    outputs.has_audio: _items(outputs.has_audio),
    outputs.results: _each(outputs.results),
    outputs.row_outputs: lambda conn, asked: [
        outputs.row_outputs(conn, batch, unlinked=unlinked) for batch in asked.wanted for unlinked in (False, True)
    ],
    outputs.output_of: lambda conn, asked: [
        outputs.output_of(conn, batch, one.row_id)
        for batch in asked.wanted
        for one in outputs.outputs(conn)
        if one.batch_id == batch.batch_id
    ],
    outputs.expected_audio: lambda conn, _: outputs.expected_audio(conn),
    report.report_rows: _some(report.report_rows),
    report.row_states: _some(report.row_states),
    report.audio_total: _some(report.audio_total),
    report.task_times: _some(report.task_times),
    report.spent: _some(report.spent),
    report.report_runs: _some(report.report_runs),
    report.report_credits: lambda conn, asked: report.report_credits(
        conn, report.report_runs(conn, asked.wanted), report.spent(conn, asked.wanted)
    ),
    # A run is at work on a server if it has a session, which these runs have not.
    run_list.run_list: lambda conn, _: [run | {"is_working": None} for run in run_list.run_list(conn, 10)],
    report.open_halts: lambda conn, _: report.open_halts(conn),
    settled.next_results: _through(settled.next_results),
    settled.last_event: lambda conn, _: settled.last_event(conn),
    settled.settled_since: lambda conn, asked: [
        settled.settled_since(conn, asked.wanted, after, 50) for after in (0, 20, 1000)
    ],
    status.show: lambda conn, asked: status.show(conn, asked.keys),
    status.story: _items(status.story),
    status.out_dirs: lambda conn, _: status.out_dirs(conn),
    status.status: lambda conn, _: status.status(conn),
    status.by_batch: lambda conn, _: status.by_batch(conn),
    status.precompute: lambda conn, _: status.precompute(conn),
}
"""Each public query of `MODULES`, with how it is asked."""
OTHER: Final = {
    *(outputs.select_results, outputs.result_line, outputs.error_of, ignored.names, status.balance_of),
    *(item_counts.rows_in, identity.note_timeline),
}
"""Public functions that read nothing, or only a part of a query."""


def _without_numbers(case: Row[Any]) -> dict[str, Any]:
    """The case without the numbers of accounts: a server leaves gaps between those that it gives."""
    return {name: value for name, value in case._mapping.items() if not name.endswith("account_id")}


def _by_model(found: list[tuple[str | None, int]]) -> dict[str | None, int]:
    return {model: sum(size for one, size in found if one == model) for model, _ in found}


def _plain(answer: Any) -> Any:
    """The answer in a form in which equal values of different types differ, and floats that are nearly equal do not."""
    if is_dataclass(answer) and not isinstance(answer, type):
        return type(answer).__name__, _plain(asdict(answer))
    if isinstance(answer, float):
        return "float", f"{answer:.9g}"
    if isinstance(answer, Mapping):
        return {repr(_plain(name)): _plain(value) for name, value in answer.items()}
    if isinstance(answer, list | tuple | Iterator | Row):
        return [_plain(one) for one in answer]
    return type(answer).__name__, answer


def _public(module: ModuleType) -> set[Any]:
    """The functions of the module that others may call."""
    functions = inspect.getmembers(module, inspect.isfunction)
    return {one for name, one in functions if not name.startswith("_") and one.__module__ == module.__name__}


def test_every_query_is_asked() -> None:
    functions = set().union(*map(_public, MODULES))
    assert {one.__name__ for one in functions - OTHER - set(QUERIES)} == set()


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_both_databases_give_the_same_answers(tmp_path: Path, ledger_url: str, seed: int) -> None:
    """At several points of the same random history."""
    with _two_books(tmp_path, ledger_url) as books:
        histories = [History(book, seed) for book in books]
        for _ in range(2):
            for history in histories:
                for _ in range(30):
                    history.step()
            expected, found = (_answers(history) for history in histories)
            differing = [name for name in expected if expected[name] != found[name]]
            assert [(name, expected[name], found[name]) for name in differing] == []


_TAMPERING: Final = (
    "UPDATE attempts SET outcome = NULL, answered_at = NULL WHERE outcome = 'accepted'",
    "UPDATE items SET attempt = attempt + 1 WHERE state <> 'pending'",
    "UPDATE files SET saved_at = NULL",
    "UPDATE rows SET output = 'same.mp3'",
    "DELETE FROM events",
)


@pytest.mark.parametrize(
    "tampering", [_TAMPERING[0], *(pytest.param(one, marks=pytest.mark.slow) for one in _TAMPERING[1:])]
)
def test_both_databases_find_the_same_contradictions(tmp_path: Path, ledger_url: str, tampering: str) -> None:
    with _two_books(tmp_path, ledger_url) as books:
        found = []
        for book in books:
            history = History(book, seed=0)
            for _ in range(80):
                history.step()
            book.execute(tampering)
            found.append({one.description: one.number for one in book.do(integrity.inconsistencies)})
    assert found[0] == found[1] != {}


@contextmanager
def _two_books(folder: Path, url: str) -> Iterator[list[Book]]:
    """New ledgers in a file and on a server, for the same folder."""
    try:
        with book_in(folder) as in_file, opened_book(Server(url, folder)) as on_server:
            yield [in_file, on_server]
    finally:
        postgres.empty(url)


def _answers(history: History) -> dict[str, Any]:
    asked = Asked(history)
    assert len(asked.keys) > 3
    return {query.__qualname__: history.book.do(_ask, ask, asked) for query, ask in QUERIES.items()}


def _ask(conn: Connection, ask: Query, asked: Asked) -> Any:
    return _plain(ask(conn, asked))
