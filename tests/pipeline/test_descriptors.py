"""Few file descriptors: fewer requests at once, and always one for the answers to what was bought."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from batcher.errors import TroubleError
from batcher.item import Event
from batcher.ledger.records import AnswerRecord
from batcher.ledger.storage.spill import Spill
from batcher.pipeline.descriptors import SPARE_DESCRIPTORS, InFlight, fit, fitted
from tests.conftest import Project

WANTED = InFlight(creates=128, polls=16, downloads=4)


@contextmanager
def _permitted(number: int) -> Iterator[None]:
    """With at most so many open files."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@contextmanager
def _no_file_more() -> Iterator[None]:
    """With every descriptor taken that is permitted."""
    highest = max(int(path.name) for path in Path("/proc/self/fd").iterdir())
    taken: list[int] = []
    try:
        while not taken or taken[-1] < highest:
            taken.append(os.open(os.devnull, os.O_RDONLY))
        with _permitted(max(taken) + 1):
            yield
    finally:
        for descriptor in taken:
            os.close(descriptor)


@pytest.mark.parametrize("ends", [1, 2])
@pytest.mark.parametrize("free", range(10, 400, 7))
def test_requests_leave_descriptors_to_spare_and_one_of_each_kind_remains(free: int, ends: int) -> None:
    found = fitted(WANTED, free, ends)
    if found is None:
        assert free < 20
        return
    assert all(1 <= number <= most for number, most in zip(found, WANTED, strict=True))
    assert found.descriptors(ends) + SPARE_DESCRIPTORS <= free or found == (1, 1, 1)


def test_enough_descriptors_change_nothing() -> None:
    assert fitted(WANTED, WANTED.descriptors(1) + SPARE_DESCRIPTORS, 1) == WANTED


def test_the_soft_limit_is_raised_as_far_as_is_needed() -> None:
    said: list[str] = []
    with _permitted(64):
        assert fit(WANTED, said.append) == WANTED
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert (said, soft >= WANTED.descriptors(1) + SPARE_DESCRIPTORS) == ([], True)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files cannot be counted")
def test_the_spill_file_takes_an_answer_when_no_file_can_be_opened(tmp_path: Path) -> None:
    record = AnswerRecord(
        key="k", attempt=1, run_id="r", account_id=1, at=1.0, event=Event.ACCEPTED, cause="ok", task_id="t1"
    )
    spill = Spill(tmp_path / "l.spill")
    spill.records()
    spill.reserve()
    with _no_file_more():
        with pytest.raises(OSError, match="Too many open files"):
            (tmp_path / "other").open("w")
        spill.append(record)
    spill.close()
    assert [found.task_id for found in Spill(spill.path).records()] == ["t1"]


def test_a_spill_file_that_was_deleted_is_made_anew(tmp_path: Path) -> None:
    record = AnswerRecord(
        key="k", attempt=1, run_id="r", account_id=1, at=1.0, event=Event.ACCEPTED, cause="ok", task_id="t1"
    )
    spill = Spill(tmp_path / "l.spill")
    spill.reserve()
    spill.path.unlink()
    spill.append(record)
    spill.close()
    assert [found.task_id for found in Spill(spill.path).records()] == ["t1"]


@pytest.mark.parametrize(("limit", "done"), [(14, False), (32, True)])
def test_a_run_with_few_descriptors_works_or_says_why_not(project: Project, limit: int, done: bool) -> None:
    manifest = project.manifest(12)
    line = f"ulimit -n {limit}; exec {sys.executable} -m batcher run {manifest} --api-url {project.provider.url} --json"
    how = {"cwd": project.folder, "env": project.environment, "capture_output": True, "check": False}
    ended = subprocess.run(["sh", "-c", f"{line} --concurrency 12 --metrics m.prom"], **how)  # type: ignore[call-overload]
    report = json.loads(ended.stdout)
    assert report["exit_code"] == ended.returncode == (0 if done else 8), ended.stderr
    assert f"may open only {limit} files" in ended.stderr.decode()
    assert len(project.provider.creates) == (12 if done else 0)


def test_too_few_for_any_request_is_an_error_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (8, 8))
    with pytest.raises(TroubleError, match="too few for any request"):
        fit(WANTED, lambda _: None)
