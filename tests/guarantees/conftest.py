"""Which guarantees are tested on a server as well."""

from __future__ import annotations

from typing import Final

import pytest

_ON_BOTH: Final = ("test_kill_matrix", "test_kill_selection", "test_promises")
"""Modules whose tests run with a ledger on a server, too, except those marked `file_ledger`."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give the tests their second database."""
    name = metafunc.module.__name__.rpartition(".")[2]
    if "project" not in metafunc.fixturenames or name not in _ON_BOTH:
        return
    if metafunc.definition.get_closest_marker("file_ledger") is None:
        metafunc.parametrize("project", ["sqlite", pytest.param("postgres", marks=pytest.mark.slow)], indirect=True)
