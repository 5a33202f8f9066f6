"""Links items' audio to rows' outputs, and never loses the audio that it replaces there.

The order is durable at every step: the ledger forgets what was linked at an output before that is replaced, and records
what is linked there afterwards. So an output that the ledger has as linked always holds that audio.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter

from batcher.audio.io_threads import Disk
from batcher.audio.objects import OutageError
from batcher.audio.store import Store
from batcher.audio.stores import Stores
from batcher.ledger.ledger import Connection, Ledger
from batcher.ledger.lifecycle import collection
from batcher.ledger.queries.outputs import has_audio, linked_elsewhere, places_of_audio
from batcher.ledger.records import Output

Linked = tuple[Output, str | None]
"""An output, with the reason why it could not be linked, or None."""


@dataclass(kw_only=True)
class Linker:
    """Links outputs of one ledger. The caller records the links. New audio goes to `store`."""

    ledger: Ledger
    stores: Stores
    store: Store
    disk: Disk = field(init=False)

    def __post_init__(self) -> None:
        self.disk = Disk(remote=self.store.is_remote)

    async def link(self, outputs: Sequence[Output], *, publish: str | None = None) -> list[Linked]:
        """Link these outputs, after publishing the part of the item path `publish`.

        Raises:
            OSError: the part cannot be published; or the object store is out of reach for its rows.
        """
        if replaced := [one for one in outputs if one.linked_source is not None and not one.linked]:
            await self.ledger.do(_forget, replaced)
        results = []
        for output, why in await self.disk.do(self._publish_and_link, publish, outputs):
            try:
                results.append((output, why if why is None else await self._replace_known(output, why)))
            except OSError as error:
                results.append((output, _reason(error)))
        return results

    async def _replace_known(self, output: Output, why: str) -> str | None:
        """Replace the file at the output if it is audio that the ledger has. Returns why not, or None."""
        store = self.stores.at(output.out_dir)
        sha256 = await self.disk.do(store.digest_at, output.output)
        item = await self.disk.do(store.item_at, output)  # after that: another run may replace the file at any time
        owners = await self.ledger.do(owners_of, output, item, sha256)
        if owners and (other := await self.ledger.do(row_at, store, output, owners)) is not None:
            return other
        return await self.disk.do(self._link_one, output, owners, sha256) if owners else why

    def _publish_and_link(self, path: str | None, outputs: Sequence[Output]) -> list[Linked]:
        if path is not None:
            self.store.publish(path)
        results: list[Linked] = []
        for output in outputs:
            try:
                results.append((output, self._link_one(output)))
            except OutageError as error:
                if path is not None:
                    raise
                results.append((output, _reason(error)))
        return results

    def _link_one(
        self, output: Output, owners: Sequence[tuple[str, str, str]] = (), sha256: str | None = None
    ) -> str | None:
        """Link one output; `owners` are the items whose audio, with this hash, is there. Returns why that failed, or
        None."""
        store = self.stores.at(output.out_dir)
        try:
            return store.link(output, replace=bool(owners) and store.preserve(output, owners, sha256))
        except OutageError:
            raise
        except OSError as error:
            return _reason(error)


def _reason(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}"


def owners_of(
    conn: Connection, output: Output, item: tuple[str, str] | None, sha256: str | None
) -> list[tuple[str, str, str]]:
    """The items whose audio is at the output: output folder, key and file extension. Empty if it is not ours.

    `item` is that whose own file is there, `sha256` the digest of what is there.

    An item's own file is ours even if the ledger does not know the item, as after a loss of the ledger. If it does, the
    content must be audio that it has: a file that was edited in place is not replaced.
    """
    if item is not None and not has_audio(conn, item[0]):
        return [(output.out_dir, *item)]
    return [] if sha256 is None else places_of_audio(conn, sha256)


def row_at(conn: Connection, store: Store, output: Output, owners: Sequence[tuple[str, str, str]]) -> str | None:
    """Why the output must not be replaced although the audio of `owners` there is ours, or None.

    By a link, or on a disk that ignores case, it is also the output of another current row.
    """
    for batch, row_id, out_dir, path in linked_elsewhere(conn, [key for _, key, _ in owners], output):
        if store.is_same_entry(output, out_dir, path):
            return f"{output.output} is one file with the output of row {row_id} of {batch}: choose another path"
    return None


def _forget(conn: Connection, outputs: Sequence[Output]) -> None:
    for batch_id, of_batch in groupby(outputs, key=attrgetter("batch_id")):
        collection.forget_links(conn, batch_id, [output.row_id for output in of_batch])
