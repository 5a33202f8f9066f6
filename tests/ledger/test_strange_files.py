"""Ledger files that this program would not have written, such as one from somebody else."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import select

from batcher.address import Address
from batcher.errors import DamagedError, LedgerError
from batcher.ledger.ledger import blaming_damage, open_readonly
from batcher.ledger.queries import integrity
from batcher.ledger.storage import database, moving
from batcher.ledger.storage.schema import batches, items, runs
from tests.support.ledger_kit import book_in

_ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A new ledger with a run and an item."""
    with book_in(tmp_path) as book:
        book.take_in("text\nHello.\n")
        address = book.address
    assert isinstance(address, Path)
    return address


def change(path: Path, *statements: str) -> None:
    """Change the file as its author could."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        for statement in statements:
            connection.execute(statement)


@pytest.mark.parametrize(
    "statements",
    [
        ["ALTER TABLE items RENAME TO other", f"CREATE VIEW items AS {_ENDLESS} SELECT other.* FROM other, c"],
        [f"CREATE TRIGGER evil AFTER INSERT ON runs BEGIN INSERT INTO meta {_ENDLESS} SELECT x, x FROM c; END"],
        ["DROP TRIGGER items_move", "CREATE TRIGGER items_move AFTER UPDATE ON items BEGIN DELETE FROM events; END"],
        ["DROP VIEW endings", "CREATE VIEW endings AS SELECT * FROM tasks"],
        ["DROP TABLE balances", f"CREATE VIEW Balances AS {_ENDLESS} SELECT x FROM c"],
    ],
)
def test_a_ledger_with_triggers_or_views_of_somebody_else_is_refused(path: Path, statements: list[str]) -> None:
    """Before any of them is run: they could change what is bought, or never end."""
    change(path, *statements)
    for readonly in (True, False):
        with pytest.raises(LedgerError, match=r"not batcher's: (items|evil|endings|Balances)"):
            database.open_existing(path, readonly=readonly)


def test_a_view_that_a_user_has_added_does_no_harm(path: Path) -> None:
    change(path, "CREATE VIEW mine AS SELECT state, count(*) FROM items GROUP BY state")
    database.open_existing(path, world="real").dispose()


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("DELETE FROM meta", "it lacks its id or its world"),
        ("UPDATE meta SET value = 'mars' WHERE name = 'world'", "it lacks its id or its world"),
        ("INSERT INTO alembic_version VALUES ('x')", "is a database but not a batcher ledger"),
    ],
)
def test_a_ledger_without_its_facts_is_refused(path: Path, statement: str, message: str) -> None:
    change(path, statement)
    with pytest.raises(LedgerError, match=message):
        database.open_existing(path)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE runs SET started_at = 'yesterday'", r"runs\.started_at is of the wrong kind"),
        ("UPDATE runs SET started_at = 9e999", r"runs\.started_at is of the wrong kind"),
        ("UPDATE runs SET started_at = 1e15", r"runs\.started_at is of the wrong kind"),
        ("INSERT INTO balances (account_id, at) VALUES (1, 5e17)", r"balances\.at is of the wrong kind"),
        ("UPDATE items SET text = x'ff'", r"items\.text is of the wrong kind"),
        ("UPDATE items SET params = '{['", r"items\.params is of the wrong kind"),
        ("UPDATE items SET bytes = 'many'", r"items\.bytes is of the wrong kind"),
        ("UPDATE items SET state = 'odd'", r"items\.items_state is of the wrong kind"),
    ],
)
def test_an_error_that_wrong_values_cause_names_them(path: Path, statement: str, message: str) -> None:
    """They are looked for only after such an error, and by `doctor`."""
    change(path, statement)
    with pytest.raises(DamagedError, match=message), open_readonly(path):
        raise TypeError
    with open_readonly(path) as conn:
        assert [re.search(message, one) is not None for one in integrity.damage(conn)] == [True]


def test_a_ledger_that_cannot_be_checked_in_time_is_not_called_damaged(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batcher.ledger.ledger._DIAGNOSIS_SECONDS", -1.0)
    monkeypatch.setattr("batcher.ledger.storage.sqlite._STEPS", 1)
    with pytest.raises(TypeError), open_readonly(path):
        raise TypeError


def test_other_errors_pass(path: Path) -> None:
    with pytest.raises(TypeError), open_readonly(path):
        raise TypeError
    change(path, "UPDATE items SET text = x'ff'")
    with pytest.raises(KeyboardInterrupt), open_readonly(path):
        raise KeyboardInterrupt


@pytest.mark.parametrize("column", [items.c.text, batches.c.source, runs.c.host])
def test_a_huge_value_is_not_read(path: Path, column: object) -> None:
    """It would take a multiple of its size."""
    name = str(column)
    change(path, f"UPDATE {name.partition('.')[0]} SET {name.partition('.')[2]} = hex(zeroblob(34000000))")
    with pytest.raises(DamagedError, match="too big"), open_readonly(path) as conn:
        conn.execute(select(column)).all()  # type: ignore[call-overload]


def test_a_move_of_wrong_values_names_them_and_leaves_the_ledger_as_it_was(path: Path) -> None:
    change(path, "UPDATE runs SET started_at = 'yesterday'")
    target: Address = path.with_name("copy.db")
    with pytest.raises(DamagedError, match=r"runs\.started_at"), blaming_damage(path):
        moving.move(path, target)
    assert not database.exists(target)
    database.open_existing(path).dispose()
