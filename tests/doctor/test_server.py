"""Checks of the server of a ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from batcher.address import Server
from batcher.doctor.ledger import _check_server
from batcher.ledger.ledger import open_readonly
from batcher.ledger.storage import database
from tests.support.fake_tts import FakeTTS

if TYPE_CHECKING:
    from tests.conftest import Project

pytestmark = pytest.mark.parametrize("project", ["postgres"], indirect=True)


def test_doctor_names_the_server_and_its_setting(project: Project, provider: FakeTTS) -> None:
    manifest = project.manifest(2)
    project.run(manifest)
    told = project.batcher("doctor", manifest, "--api-url", provider.url, "--allow-http")
    assert "server: PostgreSQL " in told.out
    assert "synchronous_commit=on" in told.out


def test_old_versions_and_long_transactions_are_hints(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """They slow down every claim, and nothing else shows them."""
    assert project.server is not None
    address = Server(project.server, project.folder)
    database.create(address, "real")
    monkeypatch.setattr("batcher.doctor.ledger._MAX_TRANSACTION_SECONDS", 0.0)
    with psycopg.connect(project.server) as busy:
        busy.execute("INSERT INTO meta SELECT 'x' || n, '' FROM generate_series(1, 3) AS n")
        with open_readonly(address) as conn:
            found = _check_server(conn)
    assert [one.level for one in found] == ["ok", "hint"]
    assert "a transaction has been open for" in found[1].message
