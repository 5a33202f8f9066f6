"""The promises through `import batcher`: a program is killed or interrupted in the middle of a run, then run again."""

from __future__ import annotations

import signal
from collections import Counter
from typing import TYPE_CHECKING, Final

import pytest

from tests.guarantees.test_kill_matrix import CONCURRENCY, RECORD, ROWS, assert_kept, settle, unrecorded
from tests.support.fake_tts import FakeTTS
from tests.support.processes import killed

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Project

LOG: Final = """
import logging
logging.basicConfig(filename="log.txt", level=logging.INFO)
"""
BLOCKING: Final = """
import batcher
print(batcher.run("lines.csv", api_url="{url}", concurrency={concurrency}).exit_code)
"""
AWAITING: Final = """
import asyncio, batcher
async def main():
    async with batcher.open("batcher.db", api_url="{url}", concurrency={concurrency}) as project:
        run = project.run("lines.csv")
        async for row in run:
            pass
        print(run.report.exit_code)
asyncio.run(main())
"""
POINTS: Final = {
    "claim-committed": "after batcher.pipeline.submitter:Submitter._claim 1",
    "answer-not-committed": "after batcher.ledger.ledger:record_answer 2",
    "answer-committed": f"after {RECORD} 4",
    "file-in-place": "after batcher.audio.folder:Folder.publish 3",
    "rows-read": "after batcher.project_run:_Reader.next_rows 4",
    "end-not-committed": "after batcher.ledger.lifecycle.runs:end_run 1",
}
CORE: Final = {("answer-not-committed", BLOCKING), ("answer-committed", AWAITING)}


def script(project: Project, text: str) -> Path:
    """The program, in the project's folder."""
    path = project.folder / "make_speech.py"
    path.write_text(LOG + text.format(url=project.provider.url, concurrency=CONCURRENCY), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "point"),
    [
        pytest.param(text, point, id=f"{name}-{kind}", marks=[] if (name, text) in CORE else [pytest.mark.slow])
        for kind, text in (("blocking", BLOCKING), ("awaiting", AWAITING))
        for name, point in POINTS.items()
        if not (name == "rows-read" and text is BLOCKING)
    ],
)
def test_a_killed_program_buys_nothing_twice_and_loses_nothing(
    project: Project, provider: FakeTTS, text: str, point: str
) -> None:
    """The next call finishes the rest; what may have been bought is left to a person."""
    rows = project.rows(ROWS)
    project.manifest(rows)
    program = script(project, text)
    killed(point, [str(program)], project.folder, project.environment)
    doubts = unrecorded(project)
    again = project.batcher(program)
    assert (again.exit_code, again.out) == (0, "3\n" if doubts else "0\n"), again
    assert_kept(project, rows, doubts)
    asked = len(provider.creates)
    assert project.batcher(program).out == again.out
    assert len(provider.creates) == asked
    if doubts:
        settle(project, rows, doubts)
        assert project.batcher(program).out == "0\n"
    assert_kept(project, rows, set())
    assert Counter(provider.asked) == Counter(row["text"] for row in rows)


@pytest.mark.parametrize("text", [BLOCKING, AWAITING], ids=["blocking", "awaiting"])
def test_ctrl_c_lets_a_program_drain(project: Project, provider: FakeTTS, text: str) -> None:
    """What is created is collected; then KeyboardInterrupt goes on its way."""
    rows = project.rows(ROWS)
    project.manifest(rows)
    program = script(project, text)
    provider.task_seconds = 1000.0
    started = project.start(program)
    provider.until(lambda: len(provider.jobs) == int(CONCURRENCY))
    started.send(signal.SIGINT)
    started.until(lambda: "stopping" in project.ledger.with_name("log.txt").read_text(encoding="utf-8"))
    provider.end_tasks()
    ended = started.end()
    assert (ended.exit_code, ended.out) == (1, "")
    assert "KeyboardInterrupt" in ended.err
    assert len(provider.creates) == int(CONCURRENCY)
    assert project.states() == {"done": int(CONCURRENCY), "pending": ROWS - int(CONCURRENCY)}
    assert project.batcher(program).out == "0\n"
    assert_kept(project, rows, set())
    assert Counter(provider.asked) == Counter(row["text"] for row in rows)
