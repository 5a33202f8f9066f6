"""Parameters that a model charges for and ignores, as the API's answers name them: stored and shown everywhere."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

from tests.support.fake_tts import FakeTTS, Job, Twist

if TYPE_CHECKING:
    from tests.conftest import Project


def test_ignored_parameters_are_shown_after_the_purchase(project: Project, provider: FakeTTS) -> None:
    """At the run's end, in the results, by `show` and in the report; the rows are done all the same."""
    provider.ignored = "emotion, pitch"
    ended = project.run(project.manifest([row | {"emotion": "happy", "pitch": "2"} for row in project.rows(2)]))
    assert ended.exit_code == 0
    assert (
        "the default model ignored emotion, pitch in 2 tasks, which cost 2 credits; see `batcher help account`\n"
        in ended.err
    )
    assert [line["ignored"] for line in project.results()] == [["emotion", "pitch"]] * 2
    with (project.audio / "lines.results.csv").open(encoding="utf-8", newline="") as file:
        assert [line["ignored"] for line in csv.DictReader(file)] == ["emotion,pitch"] * 2
    assert "ignored emotion,pitch" in project.batcher("show", "r1").out
    records = project.batcher("report", "lines.csv", "--format", "jsonl").out.splitlines()
    assert [json.loads(record)["batcher_ignored"] for record in records] == ["emotion,pitch"] * 2
    assert project.batcher("report", "lines.csv").exit_code == 0
    assert "ignored emotion, pitch in 2 tasks" in (project.audio / "lines.report.html").read_text(encoding="utf-8")


def test_a_poll_may_name_ignored_parameters_too(project: Project, provider: FakeTTS) -> None:
    """They are stored with the end of the task."""

    def read(job: Job) -> Twist | None:
        body = {"id": job.id, "status": "completed", "audioUrl": f"{provider._audio_origin}/{job.id}.mp3"}
        return Twist(status=200, body=body, headers={"x-openapi-ignored-parameters": "stability"})

    provider.on_read = read
    assert project.run(project.manifest(1)).exit_code == 0
    assert [line["ignored"] for line in project.results()] == [["stability"]]


def test_nothing_is_said_where_nothing_is_ignored(project: Project) -> None:
    ended = project.run(project.manifest(1))
    assert "ignored" not in ended.err
    assert [line["ignored"] for line in project.results()] == [None]
