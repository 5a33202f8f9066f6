"""Which guarantees are tested on a server as well."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest

from tests.support.postgres import Cluster, own_cluster, use_both_databases

_ON_BOTH: Final = ("test_kill_matrix", "test_kill_selection", "test_promises")
"""Modules whose tests run with a ledger on a server, too, except those marked `file_ledger`."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give the tests their second database."""
    if metafunc.module.__name__.rpartition(".")[2] in _ON_BOTH:
        use_both_databases(metafunc)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A server of the test's own, which it may stop, kill or fill."""
    with own_cluster() as cluster:
        cluster.start()
        yield cluster
