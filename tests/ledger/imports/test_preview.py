"""What a preview counts is what the import then does."""

from __future__ import annotations

import random
from typing import Any

import pytest

from batcher.errors import ManifestError
from batcher.ledger.imports.preview import ImportPreview
from batcher.ledger.ledger import open_readonly
from batcher.ledger.money import spending
from batcher.ledger.queries import item_counts, purchases
from batcher.ledger.records import Batch
from batcher.manifest.reader import Manifest
from batcher.manifest.rules import Rules
from tests.support.ledger_kit import AT, Book


@pytest.mark.parametrize("seed", range(4))
def test_a_preview_predicts_the_import(book: Book, seed: int) -> None:
    """Rows, items and costs are the same, whatever changes in the manifest."""
    dice = random.Random(seed)
    refused = 0
    for _ in range(12):
        batch = dice.choice("ab")
        rows = [f"{batch}{row},{dice.choice(['', 'x', 'y y', 'z z z'])}" for row in dice.sample(range(6), 4)]
        content = "\n".join(["id,text", *rows, dice.choice(["", f"{rows[0]} twice"])]) + "\n"
        how: dict[str, Any] = {
            "skip_empty": True,
            "skip_invalid": True,
            "voice": dice.choice(["anna"] * 4 + ["ben"]),
        }
        counts, waiting, refusal = _foreseen(book, batch, content, how)
        if refusal is not None:
            refused += 1
            with pytest.raises(ManifestError):
                book.take_in(content, batch=batch, **how)
            continue
        wanted = [book.take_in(content, batch=batch, **how)]
        assert counts == book.do(item_counts.count, wanted)
        assert (counts, waiting) == _foreseen_unchanged(book, wanted[0])
        assert sum(one.bytes for one in waiting) == sum(size for _, size in book.do(spending.to_buy, wanted))
        assert waiting == book.do(purchases.purchases, wanted)
        for claimed in book.claim_anew(dice.randint(0, 2)):
            book.record(book.accepted(claimed, f"t{claimed.key}{claimed.attempt}"))
    assert refused < 8


def _foreseen(book: Book, batch: str, content: str, how: dict[str, Any]) -> tuple[Any, Any, ManifestError | None]:
    file, rules = book.folder / f"{batch}.csv", Rules(batch=batch, **how)
    file.write_text(content)
    with open_readonly(book.address) as conn:
        foresight = ImportPreview(conn)
        refusal = foresight.add(Manifest(file, rules), rules, out_dir="audio", at=AT).rebuy
        return foresight.counts(), foresight.purchases(), refusal


def _foreseen_unchanged(book: Book, batch: Batch) -> tuple[Any, Any]:
    with open_readonly(book.address) as conn:
        foresight = ImportPreview(conn)
        foresight.add_unchanged(batch)
        return foresight.counts(), foresight.purchases()
