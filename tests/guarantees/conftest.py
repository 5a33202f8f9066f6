"""Which guarantees are tested on a server as well."""

from __future__ import annotations

from typing import Final

import pytest

from tests.support.postgres import use_both_databases

_ON_BOTH: Final = ("test_kill_matrix", "test_kill_selection", "test_promises")
"""Modules whose tests run with a ledger on a server, too, except those marked `file_ledger`."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give the tests their second database."""
    if metafunc.module.__name__.rpartition(".")[2] in _ON_BOTH:
        use_both_databases(metafunc)
