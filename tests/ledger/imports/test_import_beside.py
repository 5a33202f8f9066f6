"""An import on a server while another run works on the same batch."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from batcher.address import Server
from tests.support import postgres
from tests.support.ledger_kit import Book, sheet

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("book", ["postgres"], indirect=True)]


def test_an_import_and_a_delivery_that_wait_for_each_other_both_succeed(book: Book) -> None:
    """The delivery links the rows in another order than the import changes them: the server ends one of the two."""
    book.take_in(sheet("one", "two", "three"))
    assert isinstance(book.address, Server)
    url, link = book.address.url, "UPDATE rows SET linked_key = item_key WHERE id = %s"
    with psycopg.connect(url) as delivery, ThreadPoolExecutor(1) as threads:
        delivery.execute("SET deadlock_timeout = '1min'")  # the server looks at the import's wait first
        delivery.execute(link, ("c",))
        imported = threads.submit(book.take_in, "id,text\nnew,zero\n" + sheet("one", "two", "three").partition("\n")[2])
        while not postgres.rows(url, "SELECT 1 FROM pg_locks WHERE NOT granted", ()):
            time.sleep(0.01)
        delivery.execute(link, ("a",))
        delivery.commit()
        assert imported.result().version == 2
    linked = book.all("SELECT id FROM rows WHERE linked_key IS NOT NULL AND is_current = 1 ORDER BY id")
    assert [row["id"] for row in linked] == ["a", "c"]
