"""Decides which rows of its manifests a run works on: all, those that `--only` names, or the sample of `--sample`.

A run imports its manifests as a whole and collects everything that is bought. It creates items only for selected rows,
and its counts and exit code refer to them. Rows that share an item are selected together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from batcher.errors import UsageError
from batcher.formatting import counted
from batcher.ledger.imports.preview import ImportPreview
from batcher.ledger.ledger import Connection
from batcher.ledger.money import spending
from batcher.ledger.money.prices import prices
from batcher.ledger.queries import item_counts, purchases, selection
from batcher.ledger.queries.item_counts import Counts
from batcher.ledger.records import Batch, Purchase
from batcher.pipeline.sample import sample
from batcher.settings import Settings

_SHOWN: Final = 5
"""Unknown ids that an error lists."""


class Selection:
    """The rows that a run works on. `others` counts the rows of its manifests that are not among them."""

    def __init__(self, settings: Settings) -> None:
        self._only = settings.only
        self._sample = settings.sample
        self.others = 0

    @property
    def is_limited(self) -> bool:
        """Whether the run works on less than all rows: those in the ledger's table `chosen`."""
        return bool(self._only) or self._sample is not None

    @property
    def is_sample(self) -> bool:
        """Whether the run works on a sample."""
        return self._sample is not None

    def choose(self, conn: Connection, batches: Sequence[Batch]) -> list[str]:
        """Select rows of the imported manifests. Returns the ids of `--only` that none of them has."""
        if not self.is_limited:
            return []
        unknown: list[str] = []
        if self._sample is None:
            unknown = selection.choose_ids(conn, batches, self._only)
        else:
            places = sample(selection.candidates(conn, batches), self._sample)
            selection.choose_places(conn, batches, places)
        self.others = item_counts.count(conn, batches).rows - self.count(conn, batches).rows
        return unknown

    def limit(self, preview: ImportPreview) -> list[str]:
        """Limit a preview to the selected rows, as `choose` limits a run. Returns the same ids."""
        if not self.is_limited:
            return []
        every = preview.counts().rows
        unknown: list[str] = []
        if self._sample is None:
            unknown = preview.limit_to_ids(self._only)
        else:
            preview.limit_to_places(sample(preview.candidates(), self._sample))
        self.others = every - preview.counts().rows
        return unknown

    def count(self, conn: Connection, batches: Sequence[Batch]) -> Counts:
        """Count the selected rows of these batches, and their items by state."""
        return item_counts.count_chosen(conn, batches) if self.is_limited else item_counts.count(conn, batches)

    def purchases(self, conn: Connection, batches: Sequence[Batch]) -> list[Purchase]:
        """The items that are still to be created for selected rows."""
        return purchases.purchases(conn, batches, only_chosen=self.is_limited)

    def estimated_need(self, conn: Connection, batches: Sequence[Batch]) -> float | None:
        """Estimated credits for these items; None while no price is known."""
        if not self.is_limited:
            return spending.estimated_need(conn, batches)
        found = self.purchases(conn, batches)
        estimate = prices(conn).estimate((one.model, one.bytes) for one in found)
        return None if estimate is None else estimate.credits


def need_known(unknown: Sequence[str]) -> None:
    """Check that there are no unknown ids.

    Raises:
        UsageError: there are.
    """
    if not unknown:
        return
    shown = ", ".join(unknown[:_SHOWN]) + (", …" if len(unknown) > _SHOWN else "")
    verb = "has" if len(unknown) == 1 else "have"
    message = f"--only: {counted(len(unknown), 'ID')} that no row {verb}: {shown}; nothing was created"
    raise UsageError(message, "Pass IDs as the manifest has them; without an id column, row numbers such as 000007.")
