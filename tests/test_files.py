"""Files are opened as what they must be, whatever was put in their place."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from batcher import files
from batcher.errors import UsageError


def test_a_new_file_replaces_a_link_and_leaves_its_target_alone(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "draft"
    victim.write_text("precious")
    for plant in (path.symlink_to, path.hardlink_to):
        plant(victim)
        os.close(files.create(path))
        assert victim.read_text() == "precious"
        assert path.read_text() == ""
        path.unlink()


def test_a_new_file_replaces_a_pipe_without_waiting_for_a_reader(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "draft")
    os.close(files.create(tmp_path / "draft"))
    assert (tmp_path / "draft").is_file()


def test_a_folder_in_the_way_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "draft").mkdir()
    with pytest.raises(OSError, match="draft is a folder"):
        files.create(tmp_path / "draft")


def test_a_replaced_file_is_complete_or_unchanged_and_nobody_elses(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text("old")
    old = os.umask(0)
    try:
        with pytest.raises(TypeError), files.replacing(path, encoding="utf-8") as file:
            file.writelines(["half", None])
        assert path.read_text() == "old"
        with files.replacing(path, encoding="utf-8") as file:
            file.write("new\n")
    finally:
        os.umask(old)
    assert path.read_bytes() == b"new\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert list(tmp_path.iterdir()) == [path]


def test_a_device_is_not_replaced() -> None:
    with pytest.raises(OSError, match="it is a device"), files.replacing(Path("/dev/null")):
        pass
    assert Path("/dev/null").is_char_device()


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    """A pipe does not block, a device does not fill the memory."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(OSError, match=r"it is not a regular file|Is a directory"):
            files.read_config(path)


def test_a_configuration_file_has_at_most_a_mebibyte(tmp_path: Path) -> None:
    path = tmp_path / "batcher.toml"
    path.write_bytes(bytes(files.MAX_CONFIG_BYTES))
    assert len(files.read_config(path)) == files.MAX_CONFIG_BYTES
    path.write_bytes(bytes(files.MAX_CONFIG_BYTES + 1))
    with pytest.raises(OSError, match="more than 1,048,576 bytes"):
        files.read_config(path)


def test_a_file_for_the_user_alone_is_no_link_and_has_no_other_name(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "link").symlink_to(victim)
    (tmp_path / "twin").hardlink_to(victim)
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "twin", "pipe"):
        with pytest.raises(OSError, match=name):
            files.open_own(tmp_path / name)
    os.close(files.open_own(tmp_path / "new"))
    assert victim.read_text() == "precious"
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o600


def test_a_link_to_itself_is_named(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UsageError, match="its symbolic links form a loop"):
        files.resolved(tmp_path / "loop" / "audio")


def test_a_path_leads_out_of_a_folder_only_by_a_link(tmp_path: Path) -> None:
    folder = tmp_path / "audio"
    (folder / "real").mkdir(parents=True)
    (folder / "inner").symlink_to("real")
    (folder / "outer").symlink_to(tmp_path)
    leads_out = {name: files.leads_out(folder, folder / name / "a.mp3") for name in ("real", "inner", "outer", "new")}
    assert leads_out == {"real": False, "inner": False, "outer": True, "new": False}
    (tmp_path / "other").symlink_to(folder)
    assert not files.leads_out(tmp_path / "other", tmp_path / "other" / "real" / "a.mp3")
