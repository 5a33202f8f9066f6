"""Addresses of ledgers."""

from __future__ import annotations

from pathlib import Path

import pytest

from batcher.address import Server, spill_file


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://user@host/db", "postgresql://user@host/db"),
        (
            "postgresql://user:secret@host:5432,other/db?sslmode=require",
            "postgresql://user@host:5432,other/db?sslmode=require",
        ),
        ("postgresql://user:secret%40@[::1]/db", "postgresql://user@[::1]/db"),
        ("postgresql://user:sec?ret@host/db", "postgresql://user@host/db"),
        ("postgresql://user:sec#ret@host/db", "postgresql://user@host/db"),
        ("postgresql://user:sec@ret@host/db", "postgresql://user@host/db"),
        ("postgresql://user:sec/ret@host/db", "postgresql://host/db"),
        ("postgresql://host/db?user=me&password=secret", "postgresql://host/db?user=me"),
        ("postgresql://host/db?sslpassword=secret&passwor%64=secret&future_secret=x", "postgresql://host/db"),
        ("postgresql://host/db?user=me@home", "postgresql://host/db"),
        ("postgresql:///db?host=/run/postgresql", "postgresql:///db?host=/run/postgresql"),
        ("postgresql:///db?password=x&host=/run&options=-ca%3Db", "postgresql:///db?host=/run&options=-ca%3Db"),
    ],
)
def test_no_password_is_shown(url: str, shown: str) -> None:
    """Whatever characters it contains, as the driver reads it."""
    assert str(Server(url, Path())) == shown


def test_ledgers_of_one_project_folder_have_different_spill_files(tmp_path: Path) -> None:
    """So that an answer from the one is never recorded in the other, with another account or attempt."""
    file = tmp_path / "batcher.db"
    first, second = (Server(url, tmp_path) for url in ("postgresql://a/b", "postgresql://c/d"))
    found = {spill_file(file, "1", "r"), spill_file(first, "2", "r"), spill_file(second, "3", "r")}
    assert len(found) == 3
    assert {path.parent for path in found} == {tmp_path}
    assert spill_file(first, "2", "r") == spill_file(second, "2", "r")
