"""Addresses of ledgers."""

from __future__ import annotations

from pathlib import Path

import pytest

from batcher.address import Server, has_secret, spill_file, without_password


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


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("postgres+psycopg://u:secret@host/db", "postgresql://u@host/db"),
        ("postgresql://host/db?password=secret", "postgresql://host/db"),
        ("postgresql://u:sec/ret@host/db", "postgresql://host/db"),
        ("https://u:secret@host/x", "URL"),
        ("ftp://[u:secret@", "URL"),
    ],
)
def test_a_value_with_a_secret_is_recognised(value: str, shown: str) -> None:
    assert has_secret(value)
    assert without_password(value) == shown


@pytest.mark.parametrize(
    "value", ["postgresql://u@host/db?sslmode=require", "postgres://host/db", "https://host/x?y=1", "a@b", "sub/a.db"]
)
def test_a_value_without_a_secret_is_shown_as_it_is(value: str) -> None:
    assert not has_secret(value)
    assert without_password(value).removeprefix("postgresql") == value.removeprefix("postgresql").removeprefix(
        "postgres"
    )


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:my%20secret@h/d",
        "postgresql://h/d?user=u&password=my%20secret",
        "postgresql://h/d?PASSWORD=my%20secret&a=b",
        "postgresql://h/d",
    ],
)
def test_a_password_that_a_server_repeats_is_not_shown(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """From the URL or the environment. A short one stays: it could be any word."""
    if "secret" not in url:
        monkeypatch.setenv("PGPASSWORD", "my secret")
    server = Server(url, Path())
    assert server.without_secrets("FATAL: you sent my secret") == "FATAL: you sent ***"
    monkeypatch.setenv("PGPASSWORD", "FATAL")
    assert server.without_secrets("FATAL") == "FATAL"


def test_ledgers_of_one_project_folder_have_different_spill_files(tmp_path: Path) -> None:
    """So that an answer from the one is never recorded in the other, with another account or attempt."""
    file = tmp_path / "batcher.db"
    first, second = (Server(url, tmp_path) for url in ("postgresql://a/b", "postgresql://c/d"))
    found = {spill_file(file, "1", "r"), spill_file(first, "2", "r"), spill_file(second, "3", "r")}
    assert len(found) == 3
    assert {path.parent for path in found} == {tmp_path}
    assert spill_file(first, "2", "r") == spill_file(second, "2", "r")
