"""The log of a run as a source for dashboards: everything is in its lines."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from batcher.cli.commands.help import topic_text
from batcher.log import line as on_one_line
from tests.conftest import Project
from tests.support.fake_tts import NO_CREDITS, FakeTTS, refusal

LOGGED = ("--log-file", "run.log", "--log-format", "json")


def lines_of(project: Project) -> list[dict[str, Any]]:
    """The lines of the log."""
    return [json.loads(line) for line in (project.folder / "run.log").read_text(encoding="utf-8").splitlines()]


def dashboard(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """What a dashboard shows, from the lines alone: the latest state of each row, durations, failures, halts, runs."""
    found: dict[str, Any] = {"rows": {}, "render": {}, "bytes": 0, "failures": {}, "polls": 0, "halts": [], "runs": []}
    for line in lines:
        names = [(line["batch"], row_id) for row_id in line.get("ids", ())] if "batch" in line else []
        match line["event"]:
            case "create":
                state = "open" if line["outcome"] == "accepted" else line["outcome"]
                found["rows"] |= dict.fromkeys(names, state)
            case "poll":
                found["rows"] |= dict.fromkeys(names, line["status"])
                found["polls"] += 1
            case "task ended":
                found["render"] |= dict.fromkeys(names, line["seconds"])
                if line["level"] == "warning":
                    found["rows"] |= dict.fromkeys(names, "failed")
                    found["failures"] |= dict.fromkeys(names, line.get("code"))
            case "saved":
                found["rows"] |= dict.fromkeys(names, "done")
                found["bytes"] += line["bytes"]
            case "halted" | "resumed" as event:
                found["halts"].append((event, line["kind"]))
            case "top-up noticed":
                found["halts"].append((line["event"], line["credits"]))
            case "run ended":
                found["runs"].append((line["run_id"], line["exit_code"], line["states"].get("done")))
    return found


def test_a_dashboard_can_be_built_from_the_log_alone(project: Project, provider: FakeTTS) -> None:
    """Of three runs: one that the account halts, one after a top-up, one whose file is missing."""
    rows = project.rows(4)
    rows.append({**rows[0], "id": "again"})  # shares an item with r1
    provider.ending = lambda job: {"status": "failed", "error": {"code": "odd"}} if "3" in job.text else {}
    provider.on_create = lambda create: NO_CREDITS if "4" in create.text else None
    provider.credits = 10.0
    manifest = project.manifest(rows)
    first = project.run(manifest, *LOGGED, "--concurrency", "1")
    assert first.exit_code == 4
    provider.credits, provider.on_create = 500.0, lambda _: None
    second = project.run(manifest, *LOGGED)
    assert second.exit_code == 3
    manifest.unlink()
    assert project.run(manifest, *LOGGED).exit_code == 2
    lines = lines_of(project)
    shown = dashboard(lines)
    states = {"r1": "done", "again": "done", "r2": "done", "r3": "failed", "r4": "done"}
    assert shown["rows"] == {("lines", row_id): state for row_id, state in states.items()}
    assert shown["failures"] == {("lines", "r3"): "odd"}
    assert shown["bytes"] == sum(result["bytes"] for result in project.results() if result["id"] in ("r1", "r2", "r4"))
    assert all(0 < seconds < 30 for seconds in shown["render"].values())
    assert shown["halts"] == [("halted", "credits"), ("top-up noticed", 493.0), ("resumed", "credits")]
    assert [run[1:] for run in shown["runs"]] == [(4, 2), (3, 3), (2, 3)]
    assert [run[0] for run in shown["runs"]][:2] == [first.report["run_id"], second.report["run_id"]]


def test_the_log_of_a_debugged_run_has_each_poll(project: Project, provider: FakeTTS) -> None:
    """With the rows and the status of a task that is still running; a dashboard can show it."""
    provider.task_seconds = 1000.0
    started = project.start_run(project.manifest(2), *LOGGED, "--debug")
    started.until(
        lambda: (project.folder / "run.log").exists() and "poll" in [line["event"] for line in lines_of(project)]
    )
    shown = dashboard(lines_of(project))
    assert set(shown["rows"].values()) <= {"open", "processing", "queued"}
    provider.end_tasks()
    assert started.end().exit_code == 0
    lines = [line for line in lines_of(project) if line["event"] == "poll"]
    assert {(line["level"], line["batch"], line["cause"]) for line in lines} == {("debug", "lines", "ok")}
    assert {row_id for line in lines for row_id in line["ids"]} == {"r1", "r2"}
    assert len(lines) == sum(project.query("SELECT sum(looks) FROM tasks")[0])
    assert all(line["seconds"] >= 0 and line["polls"] >= 1 and line["task_id"] for line in lines)


def test_the_last_line_of_a_run_is_its_report(project: Project) -> None:
    report = project.run(project.manifest(1), *LOGGED).report
    lines = lines_of(project)
    known = {name: value for name, value in report.items() if value is not None}
    assert known.items() <= lines[-1].items()
    assert {line["run_id"] for line in lines} == {report["run_id"]}
    assert [line["event"] for line in lines] == ["run started", "create", "task ended", "saved", "run ended"]
    saved = lines[3]
    assert (saved["batch"], saved["ids"], saved["attempt"], saved["task_id"]) == ("lines", ["r1"], 1, "task_1")
    assert saved["seconds"] >= 0 < saved["bytes"]


def test_a_rejected_create_is_a_warning_with_its_row(project: Project, provider: FakeTTS) -> None:
    provider.on_create = lambda _: refusal(400, "bad_text")
    project.run(project.manifest(1), *LOGGED)
    (line,) = (line for line in lines_of(project) if line["event"] == "create")
    assert (line["level"], line["outcome"], line["ids"], line["code"]) == ("warning", "rejected", ["r1"], "bad_text")


def test_the_manual_lists_every_event() -> None:
    """Each event that the code logs by a literal name, and no other."""
    python = (Path(__file__).parents[2] / "batcher").rglob("*.py")
    text = "\n".join(path.read_text(encoding="utf-8") for path in python)
    logged = set(
        re.findall(r'\b(?:log\w*|answered|_log\([^()]*\))\)?\.(?:debug|info|warning|error)\(\s*"([^"]+)"', text)
    )
    logged |= set(re.findall(r'\b(?:answered|logged)\.warning\)\(\s*"([^"]+)"', text)) | {"run ended"}
    section = topic_text("operations").split("\n## Log\n")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)) == logged


def test_a_line_for_people_has_lists_and_counts_in_short() -> None:
    facts = {"ids": ["r1", "r 2"], "states": {"done": 2, "failed": 0}, "credits": {"start": None}}
    assert on_one_line("saved", facts) == "saved: ids=r1,'r 2' states=done:2 credits=-"
