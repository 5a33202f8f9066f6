"""The spill file, which takes the answers that the database refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from batcher.errors import StorageError
from batcher.item import Event
from batcher.ledger.records import AnswerRecord
from batcher.ledger.storage.spill import Spill
from tests.support.ledger_kit import AT, RUN


def _spilled(number: int) -> AnswerRecord:
    return AnswerRecord(
        key=f"{number:064x}",
        attempt=1,
        run_id=RUN,
        account_id=1,
        at=AT + number / 3,
        event=Event.ACCEPTED,
        cause="ok",
        task_id=f"täsk {number}\n",
        credits=0.1,
        raw=bytes(range(256)),
    )


def test_records_are_read_back_unchanged_by_another_process(tmp_path: Path) -> None:
    """They stay, in order, until somebody clears them."""
    path = tmp_path / "l.spill"
    spill = Spill(path)
    spill.reserve()
    records = [_spilled(number) for number in range(3)]
    for record in records:
        spill.append(record)
    spill.close()
    other = Spill(path)
    assert other.records() == records
    other.append(_spilled(3))
    assert Spill(path).records() == [*records, _spilled(3)]
    other.remove()
    assert path.exists()
    other.records()
    other.clear()
    assert Spill(path).records() == []
    other.append(_spilled(4))
    assert Spill(path).records() == [_spilled(4)]


def test_a_record_of_another_version_is_read() -> None:
    """With fields that this version does not have: its task id must not be lost in an upgrade."""
    record = _spilled(1)
    values = json.loads(record.to_json()) | {"not_before_at": 5.0, "later": [1]}
    assert AnswerRecord.from_json(json.dumps(values).encode()) == record


def test_a_record_fits_the_reserved_space(tmp_path: Path) -> None:
    """It does not make the file longer, and reserving again keeps it."""
    spill = Spill(tmp_path / "l.spill")
    spill.reserve()
    size = (tmp_path / "l.spill").stat().st_size
    assert size >= 1 << 20
    assert (tmp_path / "l.spill").stat().st_blocks * 512 >= size
    spill.append(_spilled(1))
    spill.reserve()
    assert (tmp_path / "l.spill").stat().st_size == size
    assert Spill(tmp_path / "l.spill").records() == [_spilled(1)]
    os.truncate(tmp_path / "l.spill", size // 2)
    spill.reserve()
    assert (tmp_path / "l.spill").stat().st_size == size


def test_a_hundred_large_answers_fit_the_reserved_space(tmp_path: Path) -> None:
    """Their raw bodies are shortened, and their task ids kept."""
    spill = Spill(tmp_path / "l.spill")
    spill.reserve()
    size = spill.path.stat().st_size
    for number in range(100):
        spill.append(replace(_spilled(number), raw=bytes(1 << 16)))
    assert spill.path.stat().st_size == size
    found = Spill(spill.path).records()
    assert [record.task_id for record in found] == [_spilled(number).task_id for number in range(100)]
    assert {len(record.raw) for record in found} == {4096}


def test_a_spill_file_that_was_not_read_is_not_removed(tmp_path: Path) -> None:
    """It may hold answers."""
    Spill(tmp_path / "l.spill").append(_spilled(1))
    Spill(tmp_path / "l.spill").remove()
    assert Spill(tmp_path / "l.spill").records() == [_spilled(1)]


def test_an_empty_spill_file_is_removed(tmp_path: Path) -> None:
    spill = Spill(tmp_path / "l.spill")
    spill.reserve()
    assert spill.records() == []
    descriptor = spill._opened()
    for _ in range(2):
        spill.remove()
        assert list(tmp_path.iterdir()) == []
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_a_record_of_another_format_ends_the_reading(tmp_path: Path) -> None:
    path = tmp_path / "l.spill"
    spill = Spill(path)
    spill.append(_spilled(1))
    path.write_bytes(path.read_bytes().replace(b"TTS1", b"TTS2"))
    assert Spill(path).records() == []


def test_an_answer_that_cannot_be_stored_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    spill = Spill(tmp_path / "missing" / "l.spill")
    spill.clear()
    assert spill.records() == []
    spill.clear()
    with pytest.raises(StorageError, match=r"cannot write .*l\.spill: No such file"):
        spill.append(_spilled(1))
    (tmp_path / "folder.spill").mkdir()
    with pytest.raises(StorageError, match=r"cannot read .*folder\.spill: ") as caught:
        Spill(tmp_path / "folder.spill").records()
    assert "move it away" in caught.value.hint


def test_the_spill_file_survives_a_power_cut(tmp_path: Path, disk_calls: list[tuple[str, int]]) -> None:
    """Its reserved space, its name, each record and each clearing are synced at once."""
    spill = Spill(tmp_path / "l.spill")
    spill.reserve()
    written = [(call, spill.path.stat().st_ino) for call in ("write", "sync")]
    assert disk_calls == [*written, ("sync", tmp_path.stat().st_ino)]
    for step in (partial(spill.append, _spilled(1)), spill.clear):
        disk_calls.clear()
        step()
        assert disk_calls == written


@pytest.mark.parametrize("rest", ["cut off", "zeros", "noise"])
def test_a_torn_record_is_ignored_and_those_before_it_are_read(tmp_path: Path, rest: str) -> None:
    """Regardless of which part of it reached the disk."""
    path = tmp_path / "l.spill"
    spill = Spill(path)
    spill.reserve()
    spill.append(_spilled(1))
    first_end = spill._end or 0
    spill.append(_spilled(2))
    whole, end = path.read_bytes(), spill._end or 0
    wrong = []
    for cut in range(first_end, end):
        behind = {"cut off": b"", "zeros": bytes(end + 100 - cut), "noise": b"\xa5" * (end + 100 - cut)}[rest]
        path.write_bytes(whole[:cut] + behind)
        try:
            found: object = Spill(path).records()
        except ValueError as error:
            found = error
        if found != [_spilled(1)]:
            wrong.append((cut - first_end, found))
    assert wrong == []


def test_the_next_record_overwrites_a_torn_one(tmp_path: Path) -> None:
    path = tmp_path / "l.spill"
    spill = Spill(path)
    spill.append(_spilled(1))
    end = spill._end or 0
    spill.append(_spilled(2))
    os.truncate(path, end + 20)
    spill.close()
    again = Spill(path)
    again.append(_spilled(3))
    assert Spill(path).records() == [_spilled(1), _spilled(3)]


def test_reserving_fails_where_the_space_is_missing(tmp_path: Path) -> None:
    """The run detects this before it buys anything."""
    (tmp_path / "l.spill").mkdir()
    with pytest.raises(StorageError, match=r"cannot write .*l\.spill: "):
        Spill(tmp_path / "l.spill").reserve()


def test_a_record_written_in_pieces_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a nearly full disk, where space is freed meanwhile."""
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, at: write(descriptor, data[:100], at))
    spill = Spill(tmp_path / "l.spill")
    for number in range(2):
        spill.append(_spilled(number))
    assert Spill(spill.path).records() == [_spilled(number) for number in range(2)]


@pytest.mark.parametrize("step", ["reserve", "append", "clear"])
def test_a_disk_error_is_an_error_that_names_the_file(tmp_path: Path, step: str) -> None:
    """No record counts as cleared, or as written, before it is."""
    spill = Spill(tmp_path / "l.spill")
    spill.append(_spilled(1))
    spill.close()
    spill._descriptor = os.open(spill.path, os.O_RDONLY)  # writes to it fail
    append = partial(spill.append, _spilled(2))
    verbs: dict[str, Callable[[], None]] = {"reserve": spill.reserve, "append": append, "clear": spill.clear}
    with pytest.raises(StorageError, match=r"cannot write .*l\.spill: Bad file descriptor"):
        verbs[step]()
    spill.close()
    assert spill.records() == [_spilled(1)]
    spill.append(_spilled(3))
    assert Spill(spill.path).records() == [_spilled(1), _spilled(3)]


def test_a_file_that_another_process_writes_is_not_taken_for_left(tmp_path: Path) -> None:
    """Until it closes the file; what it has written is then there."""
    writer, reader = Spill(tmp_path / "x.spill"), Spill(tmp_path / "x.spill")
    writer.reserve()
    writer.append(_spilled(1))
    assert not reader.is_left()
    writer.append(_spilled(2))
    writer.close()
    assert reader.is_left()
    assert reader.records() == [_spilled(1), _spilled(2)]


def test_a_file_that_is_deleted_while_it_is_used_begins_anew(tmp_path: Path) -> None:
    """The records that follow can be read."""
    writer = Spill(tmp_path / "x.spill")
    writer.reserve()
    writer.append(_spilled(1))
    writer.path.unlink()
    writer.append(_spilled(2))
    assert Spill(writer.path).records() == [_spilled(2)]
