"""Compressed manifests: gzip, and zip archives of one file."""

from __future__ import annotations

import gzip
import io
import json
import random
import subprocess
import zipfile
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, BinaryIO, cast

import pytest
from xlsxwriter import Workbook

from batcher.errors import ManifestError
from batcher.manifest import limits, packed
from batcher.manifest.reader import Manifest
from batcher.manifest.rules import Rules

if TYPE_CHECKING:
    from tests.conftest import Project

CSV = b"id\ttext\na\tOne.\nb\tTwo.\n"


def read(path: Path | None, content: bytes = b"") -> list[str]:
    manifest = Manifest(path, Rules(batch="m", voice="anna"), stdin=io.BytesIO(content))
    found = [row.inputs.text for row in manifest.rows() if row.inputs]
    assert not manifest.faults
    return found


def zipped(**members: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "."), content)
    return target.getvalue()


@pytest.mark.parametrize("name", ["m.tsv.gz", "m.gz", "m.tsv", "M.TSV.GZ"])
def test_a_gzipped_file_is_read_as_the_format_of_its_inner_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(gzip.compress(CSV))
    assert read(tmp_path / name) == ["One.", "Two."]


def test_the_format_in_a_zip_archive_is_that_of_its_file(tmp_path: Path) -> None:
    """What systems add to archives is ignored."""
    lines = b'{"text": "One."}\n{"text": "Two."}\n'
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        for name, content in (("a/", b""), ("a/m.jsonl", lines), ("__MACOSX/a/._m.jsonl", b"x"), ("a/.DS_Store", b"x")):
            archive.writestr(name, content)
    assert read(tmp_path / "m.zip") == ["One.", "Two."]


def test_a_workbook_may_be_compressed_and_stays_a_workbook(tmp_path: Path) -> None:
    with Workbook(tmp_path / "m.xlsx") as book:
        book.add_worksheet().write_column(0, 0, ["text", "One."])
    content = (tmp_path / "m.xlsx").read_bytes()
    (tmp_path / "m.zip").write_bytes(zipped(m__xlsx=content))
    (tmp_path / "m.xlsx.gz").write_bytes(gzip.compress(content))
    assert [read(tmp_path / name) for name in ("m.xlsx", "m.zip", "m.xlsx.gz")] == [["One."]] * 3


def test_standard_input_may_be_compressed() -> None:
    assert read(None, gzip.compress(CSV)) == read(None, zipped(m__csv=CSV)) == ["One.", "Two."]


def test_the_digest_is_that_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "m.tsv").write_bytes(CSV)
    (tmp_path / "m.tsv.gz").write_bytes(gzip.compress(CSV))
    manifests = [Manifest(tmp_path / name, Rules(batch="m", voice="a")) for name in ("m.tsv", "m.tsv.gz")]
    assert [len(list(one.rows())) for one in manifests] == [2, 2]
    digests = [packed.content_digest(tmp_path / name) for name in ("m.tsv", "m.tsv.gz")]
    assert [manifests[0].digest, manifests[1].digest] == digests
    assert digests[0] == digests[1]


def test_a_compressed_manifest_is_bought_once_and_reported_with_its_columns(project: Project) -> None:
    path = project.folder / "lines.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"id": "a", "text": "One.", "note": "n1"}\n'))
    assert project.run(path, "--voice", "anna").report["created"] == 1
    assert project.run(path, "--voice", "anna").report["created"] == 0
    shown = project.batcher("report", path, "--format", "jsonl")
    assert (json.loads(shown.out)["note"], json.loads(shown.out)["batcher_batch"]) == ("n1", "lines")
    assert "differs from the last run" not in shown.err


def test_an_archive_of_several_files_is_refused_and_its_files_are_listed(tmp_path: Path) -> None:
    (tmp_path / "m.zip").write_bytes(zipped(a__csv=CSV, b__csv=CSV))
    with pytest.raises(ManifestError, match=r"must hold one file, but has 2: a\.csv, b\.csv"):
        read(tmp_path / "m.zip")


@pytest.mark.parametrize("name", ["m.csv.gz", "m.zip"])
def test_what_unpacks_without_bounds_is_refused(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_UNPACKED_BYTES", 1 << 20)
    content = CSV + b" " * (5 << 20)
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else zipped(m__csv=content))
    with pytest.raises(ManifestError, match="cannot be unpacked: it is too large: more than 1 MiB unpacked"):
        read(tmp_path / name)


def test_a_pipe_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it fills the disk."""
    monkeypatch.setattr(limits, "MAX_PIPED_BYTES", 1 << 20)
    with subprocess.Popen(["yes", "a,b"], stdout=subprocess.PIPE) as endless:
        manifest = Manifest(None, Rules(batch="m", voice="anna"), stdin=cast("BinaryIO", endless.stdout))
        with pytest.raises(ManifestError, match="<stdin>: it is too large: more than 1 MiB"):
            next(iter(manifest.rows()))
        endless.kill()


@pytest.mark.parametrize("content", [gzip.compress(CSV), zipped(m__csv=CSV)], ids=["gzip", "zip"])
def test_a_damaged_archive_is_read_or_refused(tmp_path: Path, content: bytes) -> None:
    chance, refused = random.Random(1), 0
    for _ in range(200):
        damaged = bytearray(content)
        damaged[chance.randrange(len(content))] = chance.randrange(256)
        path = tmp_path / "m.tsv.gz"
        path.write_bytes(damaged[: chance.choice((len(content), chance.randrange(len(content))))])
        try:
            list(Manifest(path, Rules(batch="m", voice="a")).rows())
        except ManifestError:
            refused += 1
    assert refused > 50


@pytest.mark.parametrize("name", ["lines.csv", "lines.csv.gz", "lines.zip", "lines.CSV.ZIP", "lines.gz"])
def test_the_batch_is_named_without_both_extensions(name: str) -> None:
    assert packed.stem(PurePath(name)) == "lines"
