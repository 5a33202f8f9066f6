"""What is about to be bought, grouped by what the API can be asked about."""

from __future__ import annotations

import random
from dataclasses import astuple, replace
from typing import Final

import pytest

from batcher.ledger.imports.preview import ImportPreview
from batcher.ledger.ledger import open_readonly
from batcher.ledger.queries import purchases
from batcher.ledger.records import Purchase
from batcher.provider.model_rules import listed_price
from tests.support.ledger_kit import Book

CONTENT: Final = """id,text,voice,speed,pitch
a,One.,anna,,
b,Two.,anna,1.5,2
c,One.,anna,,
d,Three.,ben,,-1
e,Four.,anna,0.5,3
"""


@pytest.mark.parametrize("preview", [False, True])
def test_items_are_grouped_by_voice_and_the_names_of_their_parameters(book: Book, preview: bool) -> None:
    """The most frequent first; the rows of a shared item count each, its text once."""
    book.take_in(CONTENT)
    if preview:
        with open_readonly(book.address) as conn:
            foresight = ImportPreview(conn)
            foresight.add_unchanged(book.wanted[0])
            found = foresight.purchases()
    else:
        found = book.do(purchases.purchases, book.wanted)
    plain = Purchase(voice="anna", model=None, parameters=(), rows=2, items=1, bytes=4, chars=4, listed_credits=2)
    assert found == [
        replace(plain, parameters=("pitch", "speed"), items=2, bytes=9, chars=9, listed_credits=5),
        plain,
        replace(plain, voice="ben", parameters=("pitch",), rows=1, bytes=6, chars=6, listed_credits=3),
    ]
    assert all(type(value) is int for one in found for value in astuple(one)[3:])


def test_the_listed_price_is_the_same_wherever_it_is_computed(book: Book) -> None:
    """Around the edges of each range of characters that cost a whole credit."""
    dice = random.Random(0)
    words = "61 E9 1100 11FF 1200 2E80 9FFF A000 AC00 D7FF FF00 FFEF 20000 3FFFF"
    edges = [int(word, 16) for word in words.split()]
    characters = [chr(edge + step) for edge in edges for step in (-1, 0, 1) if chr(edge + step).isprintable()]
    texts = ["".join(dice.choices(characters, k=dice.randint(1, 9))) for _ in range(200)]
    book.take_in("id,voice,text\n" + "".join(f'{n},v{n},"{text}"\n' for n, text in enumerate(texts)))
    found = {one.voice: one.listed_credits for one in book.do(purchases.purchases, book.wanted)}
    stored = {row["voice"]: row["text"] for row in book.all("SELECT voice, text FROM items")}
    assert len(found) == 200
    assert found == {voice: listed_price(text) for voice, text in stored.items()}
