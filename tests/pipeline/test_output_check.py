"""A run looks for linked outputs only after somebody else has added or removed files. Against real files."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from batcher.audio import fingerprints
from batcher.audio.fingerprints import AddedNames, read_names
from batcher.audio.folder import Folder as AudioFolder
from batcher.clock import Clock
from batcher.item import State
from batcher.ledger.ledger import Ledger, open_ledger
from batcher.ledger.queries.outputs import outputs_of
from batcher.ledger.records import Batch, FolderNames
from batcher.ledger.storage import database, known_folders
from batcher.manifest.rules import Rules
from batcher.pipeline import output_check
from batcher.pipeline.delivery import Delivery
from batcher.pipeline.ingest import Ingest
from batcher.settings import Settings, Source
from tests.support.ledger_kit import run_context, sheet

pytestmark = pytest.mark.anyio

_BUY = """
    INSERT OR IGNORE INTO accounts (id, origin, user_id) VALUES (1, 'https://api.test', 'u1');
    INSERT OR IGNORE INTO runs (id, started_at, pid, host, out_dir) VALUES ('run-1', 1.0, 1, 'h', 'audio');
    INSERT INTO attempts (item_key, attempt, run_id, account_id, intended_at, answered_at, outcome)
        SELECT key, 1, 'run-1', 1, 2.0, 3.0, 'accepted' FROM items WHERE state = 'pending';
    INSERT INTO tasks (account_id, task_id, item_key, attempt, accepted_at, looks, missing_looks, unusable_looks)
        SELECT 1, key, key, 1, 3.0, 0, 0, 0 FROM items WHERE state = 'pending';
    INSERT INTO files SELECT key, 'audio', '.items/' || key, key, 999, 1.5, 4.0, 5.0 FROM items WHERE state = 'pending';
    UPDATE items SET state = 'done', attempt = 1, account_id = 1, task_id = key WHERE state = 'pending';
"""


class Later(Clock):
    """A clock that is ten seconds fast, so that new files count as old."""

    def now(self) -> float:
        """Ten seconds from now."""
        return super().now() + 10.0


class CountingFolder(AudioFolder):
    """A store that counts the outputs it looks for."""

    looks = 0

    def is_there(self, output: str) -> bool:
        """Count, and look."""
        self.looks += 1
        return super().is_there(output)


@dataclass
class Night:
    """One run: how many linked outputs it looked for, and why it refused to buy."""

    looks: int = 0
    refused: str | None = None


@dataclass
class Folder:
    """A user's folder with manifests, and runs in it that buy and link every item."""

    home: Path
    clock: Clock = field(default_factory=Later)
    out_dir: str = "audio"

    @property
    def audio(self) -> Path:
        """The output folder."""
        return self.home / self.out_dir

    async def run(
        self,
        content: str,
        *,
        batch: str = "m",
        meanwhile: Callable[[], object] = lambda: None,
        killed: bool = False,
        rescan: bool = False,
        **rules: Any,
    ) -> Night:
        """Run a manifest with this content. `meanwhile` happens before it links what it bought."""
        manifest, ledger_path = self.home / f"{batch}.csv", self.home / "batcher.db"
        if not manifest.exists() or manifest.read_text() != content:
            manifest.write_text(content)
        if not ledger_path.exists():
            database.create(ledger_path, "real")
        source = Source(path=manifest, rules=Rules(batch=batch, voice="anna", **rules))
        settings = Settings(sources=(source,), ledger=ledger_path, out_dir=self.audio, rescan=rescan)
        with open_ledger(ledger_path, "real") as ledger:
            return await self._run(ledger, settings, meanwhile, killed=killed)

    async def _run(self, ledger: Ledger, settings: Settings, meanwhile: Callable[[], object], *, killed: bool) -> Night:
        ctx = run_context(ledger, settings, self.clock)
        store = CountingFolder(self.home, self.audio, ctx.stores.added)
        ctx.stores._opened[store.out_dir] = store
        ingest = Ingest(ctx, None)
        await ingest.run()
        delivery = Delivery(ctx=ctx, named=[batch.batch_id for batch in ingest.named])
        await delivery.link_saved(ingest.checked)
        meanwhile()
        if ingest.refused is None:
            for key in self._buy():
                await delivery.link(await ledger.do(outputs_of, key))
        if not killed:
            await ledger.do(ingest.record_end, unwritten=ctx.tally.unwritten)
        return Night(store.looks, ingest.refused)

    def _buy(self) -> list[str]:
        """Make every pending item done, as if a run had bought it; return their keys."""
        with closing(sqlite3.connect(self.home / "batcher.db")) as connection:
            found = connection.execute("SELECT key FROM items WHERE state = ?", (State.PENDING.value,))
            keys = [row[0] for row in found]
            connection.executescript(f"BEGIN; {_BUY} COMMIT;")
        items = self.home / "audio/.items"
        items.mkdir(parents=True, exist_ok=True)
        for key in keys:
            (items / key).write_text(key)
        return keys

    def known(self) -> list[FolderNames]:
        """The folders that the ledger knows for the first batch."""
        batch = Batch(batch_id=1, name="m", version=1, out_dir="audio")
        with database.open_existing(self.home / "batcher.db").begin() as connection:
            return list(known_folders.get(connection, batch).values())

    def outputs(self) -> list[str]:
        """The files in the output folder, without hidden ones."""
        found = (path.relative_to(self.audio) for path in self.audio.rglob("*") if path.is_file())
        return sorted(str(path) for path in found if not path.parts[0].startswith("."))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


async def test_what_a_run_links_itself_is_not_looked_for_by_the_next(folder: Folder) -> None:
    """Whether the manifest has changed or not."""
    assert await folder.run(sheet("one", "two")) == Night()
    assert await folder.run(sheet("one", "two")) == Night()
    assert await folder.run(sheet("one", "two", "three")) == Night()
    assert await folder.run(sheet("one", "2", "three")) == Night()
    assert await folder.run(sheet("one", "2", "three")) == Night()
    assert folder.outputs() == ["a.mp3", "b.mp3", "c.mp3"]


async def test_an_output_deleted_between_runs_is_linked_by_the_next(folder: Folder) -> None:
    """After a run that linked others, and after one that did nothing."""
    content = sheet("one", "two", "three")
    await folder.run(content)
    (folder.audio / "a.mp3").unlink()
    assert await folder.run(content) == Night(looks=3)
    assert await folder.run(content) == Night()
    (folder.audio / "b.mp3").unlink()
    assert await folder.run(content) == Night(looks=3)
    assert folder.outputs() == ["a.mp3", "b.mp3", "c.mp3"]


async def test_an_output_deleted_while_a_run_links_others_is_linked_by_the_next(folder: Folder) -> None:
    """The run's own additions do not hide it, although they change the folder's times as well."""
    await folder.run(sheet("one", "two"))
    content = sheet("one", "two", "three")
    await folder.run(content, meanwhile=(folder.audio / "a.mp3").unlink)
    assert folder.outputs() == ["b.mp3", "c.mp3"]
    assert await folder.run(content) == Night(looks=3)
    assert folder.outputs() == ["a.mp3", "b.mp3", "c.mp3"]


async def test_an_output_exchanged_for_another_file_is_linked_by_the_next_run(folder: Folder) -> None:
    """The number of files in the folder is the same."""
    content = sheet("one", "two")
    await folder.run(content)
    (folder.audio / "a.mp3").rename(folder.audio / "mine.mp3")
    await folder.run(content)
    assert folder.outputs() == ["a.mp3", "b.mp3", "mine.mp3"]


async def test_an_output_deleted_within_the_tick_of_the_last_link_is_noticed(folder: Folder) -> None:
    """A folder that was changed just now is listed, since a further change may not alter its times."""
    folder.clock = Clock()
    content = sheet("one", "two")
    await folder.run(content)
    await folder.run(content)
    before = folder.audio.stat()
    (folder.audio / "a.mp3").unlink()
    os.utime(folder.audio, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert await folder.run(content) == Night(looks=2)
    assert folder.outputs() == ["a.mp3", "b.mp3"]


async def test_an_output_in_a_nested_folder_is_missed(folder: Folder) -> None:
    """Also with the whole folder."""
    content = "id,text,output\na,one,x/a.mp3\nb,two,x/y/b.mp3\nc,three,c.mp3\n"
    await folder.run(content)
    assert await folder.run(content) == Night()
    (folder.audio / "x/y/b.mp3").unlink()
    await folder.run(content)
    assert folder.outputs() == ["c.mp3", "x/a.mp3", "x/y/b.mp3"]
    shutil.rmtree(folder.audio / "x")
    await folder.run(content)
    assert folder.outputs() == ["c.mp3", "x/a.mp3", "x/y/b.mp3"]
    more = content + "d,four,z/d.mp3\n"
    assert await folder.run(more) == Night()
    assert await folder.run(more) == Night()
    (folder.audio / "z/d.mp3").unlink()
    assert await folder.run(more) == Night(looks=4)


async def test_reports_results_and_hidden_files_are_no_reason_to_look(folder: Folder) -> None:
    """No output can have their names."""
    content = sheet("one", "two")
    await folder.run(content)
    for name in ("m.results.jsonl", "m.results.csv", "m.report.html", "m.report.xlsx", ".DS_Store"):
        (folder.audio / name).touch()
    (folder.audio / "a folder").mkdir()
    assert await folder.run(content) == Night()


async def test_a_file_in_the_way_of_a_later_output_is_noticed(folder: Folder) -> None:
    """Whether it was there when the row came, or came while the row waited; the others stay linked."""
    await folder.run(sheet("one"))
    (folder.audio / "b.mp3").write_text("mine")
    night = await folder.run(sheet("one", "two"))
    assert night.refused == "1 output would replace other files; nothing was created"
    night = await folder.run(sheet("one", "two"))
    assert night == Night(looks=0, refused="1 output would replace other files; nothing was created")
    (folder.audio / "b.mp3").unlink()
    assert (await folder.run(sheet("one", "two"))).refused is None
    assert folder.outputs() == ["a.mp3", "b.mp3"]


async def test_a_run_of_another_batch_in_the_same_folder_is_no_reason_to_look(folder: Folder) -> None:
    """Nor does it hide a deleted output."""
    await folder.run(sheet("one", "two"))
    other = "id,text\nx,uno\ny,due\n"
    assert await folder.run(other, batch="n") == Night()
    assert await folder.run(sheet("one", "two")) == Night()
    assert await folder.run(other + "z,tre\n", batch="n", meanwhile=(folder.audio / "a.mp3").unlink) == Night()
    assert await folder.run(sheet("one", "two")) == Night(looks=2)
    assert folder.outputs() == ["a.mp3", "b.mp3", "x.mp3", "y.mp3", "z.mp3"]


@pytest.mark.parametrize(
    "other", [sheet("one"), sheet("one", "2"), "id,text,output\na,one,\nb,two,else.mp3\n"], ids=["gone", "text", "path"]
)
async def test_a_row_that_is_again_as_it_was_is_looked_for(folder: Folder, other: str) -> None:
    """Its output may have been deleted while no row needed it."""
    before = sheet("one", "two")
    await folder.run(before)
    await folder.run(other)
    (folder.audio / "b.mp3").unlink()
    await folder.run(other)
    await folder.run(before)
    assert "b.mp3" in folder.outputs()


async def test_a_copy_of_the_project_folder_is_no_reason_to_look(folder: Folder, tmp_path: Path) -> None:
    """All inodes and times differ, but not the names. If the copy lacks a file, it is linked."""
    content = sheet("one", "two", "three")
    await folder.run(content)
    shutil.copytree(folder.home, tmp_path / "copy", copy_function=shutil.copyfile)
    copy = Folder(tmp_path / "copy")
    assert await copy.run(content) == Night()
    (copy.audio / "c.mp3").unlink()
    assert await copy.run(content) == Night(looks=3)
    assert copy.outputs() == ["a.mp3", "b.mp3", "c.mp3"]


async def test_another_output_folder_gets_every_output(folder: Folder) -> None:
    """And the first one, when it is used again."""
    content = sheet("one", "two")
    await folder.run(content)
    for folder.out_dir in ("second", "audio", "second"):
        (folder.audio / "a.mp3").unlink(missing_ok=True)
        await folder.run(content)
        assert folder.outputs() == ["a.mp3", "b.mp3"]


async def test_after_a_killed_run_every_output_is_looked_for_once(folder: Folder) -> None:
    """The ledger does not list which names it added."""
    await folder.run(sheet("one"))
    content = sheet("one", "two")
    await folder.run(content, killed=True)
    assert await folder.run(content) == Night(looks=2)
    assert await folder.run(content) == Night()


async def test_rescan_looks_for_every_output(folder: Folder) -> None:
    """Whatever is known."""
    content = sheet("one", "two")
    await folder.run(content)
    assert await folder.run(content, rescan=True) == Night(looks=2)
    assert await folder.run(content) == Night()


async def test_outputs_in_very_many_folders_are_looked_for_by_every_run(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their names are not recorded."""
    monkeypatch.setattr(output_check, "_MAX_FOLDERS", 2)
    content = "id,text,output\na,one,x/a.mp3\nb,two,y/b.mp3\nc,three,z/c.mp3\n"
    await folder.run(content)
    assert await folder.run(content) == Night(looks=3)
    assert await folder.run(content) == Night(looks=3)


async def test_a_folder_that_cannot_be_listed_is_looked_into_by_every_run(folder: Folder) -> None:
    """A file has taken its place."""
    content = "id,text,output\na,one,x/a.mp3\n"
    await folder.run(content)
    shutil.rmtree(folder.audio / "x")
    (folder.audio / "x").write_text("mine")
    night = await folder.run(content)
    assert night == Night(looks=1)
    (folder.audio / "x").unlink()
    await folder.run(content)
    assert folder.outputs() == ["x/a.mp3"]


async def test_a_stamp_is_trusted_only_once_it_has_changed(tmp_path: Path) -> None:
    """On a file system that does not update a folder's times, the folder is listed by every run."""

    def names(known: Any, clock: Clock | None = None) -> Any:
        return read_names(tmp_path, known, ignored=(), clock=clock or Later())

    (tmp_path / "a").touch()
    first = names(None)
    assert not first.trusted
    same_times = first._replace(checksum=0)  # as if the file had come since
    assert names(same_times) == first
    (tmp_path / "b").touch()
    second = names(first)
    assert second.trusted
    assert second.checksum != first.checksum
    assert names(second._replace(checksum=0)).checksum == 0  # not listed
    assert not names(first, Clock()).trusted  # too young


async def test_a_stamp_is_not_trusted_after_the_run_added_a_name(folder: Folder) -> None:
    """Before it has changed, it does not show whether it changes at all."""
    await folder.run(sheet("one"))
    await folder.run(sheet("one"))
    assert [known.trusted for known in folder.known()] == [True]
    await folder.run(sheet("one", "two"))
    assert [known.trusted for known in folder.known()] == [False]


async def test_the_checksum_of_added_names_is_that_of_the_listing(tmp_path: Path) -> None:
    """Also for names that are not ASCII, whatever the order."""
    added = AddedNames()
    for name in ("b.mp3", "ä.mp3", "a.mp3"):
        (tmp_path / name).touch()
        added.add("audio", name)
    found = read_names(tmp_path, None, ignored=(), clock=Later())
    assert found is not None
    assert added.checksums == {"audio": found.checksum}
    missing = read_names(tmp_path / "missing", None, ignored=(), clock=Later())
    assert missing is not None
    assert missing.checksum == 0
    assert fingerprints.stamp(tmp_path / "missing") is None
