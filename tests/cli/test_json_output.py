"""What commands print with `--json`: one envelope, and the keys of the schemas in the package."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Final

import pytest
from jsonschema import Draft202012Validator

from batcher.cli.commands.help import command_schema
from tests.conftest import Project
from tests.support.contract import checked
from tests.support.fake_tts import FakeTTS, Twist, refusal
from tests.test_docs import commands

FAILURES: Final = {
    "run": ["no-such.csv"],
    "plan": ["--no-such-option"],
    "status": ["--no-such-option"],
    "show": ["no-such-row"],
    "changes": ["--since", "no-such-run"],
    "runs": ["--end", "no-such-run"],
    "voices": ["--limit", "0"],
    "report": ["--batch", "no-such-batch"],
    "resolve": ["no-such-row"],
    "retry": ["no-such-row"],
    "abandon": [],
    "retake": ["no-such-row"],
    "ledger upgrade": ["--ledger", "no-such.db"],
    "ledger backup": ["copy.db", "--ledger", "no-such.db"],
    "ledger copy": ["no-such.db", "other.db"],
    "ledger recover": ["no-such.jsonl", "--ledger", "no-such.db"],
    "verify": ["no-such-file"],
    "trust": ["no-such-folder"],
    "doctor": ["no-such.csv"],
    "sandbox": ["--speed", "0"],
}
"""Arguments with which each command fails."""


def json_commands() -> list[str]:
    """The commands with --json."""
    return [name for name, command in commands() if any("--json" in one.opts for one in command.params)]


@pytest.fixture
def mixed(project: Project, provider: FakeTTS) -> Project:
    """A project with a row that is done, one in doubt, one rejected and one that failed."""
    answers = {
        "Line number 2 of the script.": Twist(charge=True),
        "Line number 3 of the script.": refusal(400, "bad_text"),
    }
    provider.on_create = lambda create: answers.get(create.text)
    provider.ending = lambda job: {"status": "failed", "error": {"code": "odd"}} if "4" in job.text else {}
    assert checked(project.run(project.manifest(4)), "run")["states"]["in_doubt"] == 1
    provider.on_create = lambda _: None
    return project


def test_every_command_that_prints_data_has_a_schema() -> None:
    assert json_commands() == list(FAILURES)
    shared = command_schema("run")["$defs"]
    Draft202012Validator.check_schema({"$defs": shared})
    for name in json_commands():
        schema = command_schema(name)
        assert schema.pop("$defs") == shared
        Draft202012Validator.check_schema(schema)
    silent = {name for name, _ in commands()} - set(FAILURES)
    assert silent == {"ledger", "help"}


@pytest.mark.parametrize("name", FAILURES)
def test_a_command_that_fails_prints_the_envelope(project: Project, name: str) -> None:
    """With the message that people read."""
    ended = project.batcher(*name.split(), *FAILURES[name], "--json")
    found = checked(ended, name)
    assert found["exit_code"] == 2
    assert found["message"] in ended.err


def test_a_command_whose_ledger_is_held_prints_the_envelope(mixed: Project) -> None:
    from batcher.ledger.storage.lock import owner_lock

    with owner_lock(mixed.ledger):
        for name in ("retry", "abandon", "run"):
            words = ["lines.csv"] if name == "run" else ["r3"]
            assert checked(mixed.batcher(name, *words, "--json"), name)["exit_code"] == 7


def test_every_command_prints_its_data_as_in_its_schema(mixed: Project, provider: FakeTTS) -> None:
    api = ("--api-url", provider.url, "--json")
    assert [one["id"] for one in checked(mixed.batcher("show", "--json"), "show")["items"][0]["rows"]] == ["r1"]
    assert checked(mixed.batcher("status", "--json"), "status")["last_run"]["state"] == "ended"
    assert checked(mixed.batcher("plan", "lines.csv", *api), "plan")["in_flight"] == 0
    assert checked(mixed.batcher("run", "lines.csv", "--dry-run", *api), "plan")["batches"] == ["lines"]
    assert checked(mixed.batcher("doctor", "lines.csv", *api), "doctor")["findings"]
    provider.voices = ("anna", "narrator")
    assert checked(mixed.batcher("voices", *api), "voices")["message"] == "2 voices"
    (mixed.audio / "r1.mp3").unlink()
    assert checked(mixed.batcher("verify", *api), "verify")["exit_code"] == 3
    assert checked(mixed.batcher("verify", "--heal", *api), "verify")["faults"][0]["healed"]
    assert checked(mixed.batcher("resolve", *api), "resolve")["doubts"][0]["rows"][0]["id"] == "r2"


def test_every_decision_prints_what_became_of_each_item(mixed: Project, provider: FakeTTS) -> None:
    api = ("--api-url", provider.url, "--json")
    decided = checked(mixed.batcher("resolve", "--all", "--abandon", *api), "resolve")["outcomes"]
    assert [(one["changed"], one["state"]) for one in decided] == [(True, "abandoned")]
    assert checked(mixed.batcher("resolve", "--all", "--abandon", *api), "resolve")["outcomes"] == []
    assert checked(mixed.batcher("abandon", "r3", "--json"), "abandon")["outcomes"][0]["state"] == "abandoned"
    found = checked(mixed.batcher("retry", "r4", *api), "retry")
    assert (found["outcomes"][0]["state"], found["message"]) == ("pending", "1 of 1 item changed")
    taken = checked(mixed.batcher("retake", "r1", "r3", "--json"), "retake")["outcomes"]
    assert [(one["id"], one["take"]) for one in taken] == [("r1", 2), ("r3", None)]


def test_report_prints_the_path_that_it_wrote(mixed: Project) -> None:
    """A table that would go to standard output needs --output."""
    for kind in ("html", "csv", "jsonl", "xlsx"):
        options = ["--format", kind, "--json"]
        if kind in ("csv", "jsonl"):
            assert checked(mixed.batcher("report", *options), "report")["exit_code"] == 2
            options += ["--output", f"table.{kind}"]
        found = checked(mixed.batcher("report", *options), "report")
        assert found["format"] == kind
        assert Path(found["path"]).stat().st_size > 0


def test_trust_prints_settings_and_record(project: Project) -> None:
    assert checked(project.batcher("trust", "--json"), "trust")["record"] is None
    (project.folder / "batcher.toml").write_text('ping = "https://example.org/x"\n', encoding="utf-8")
    found = checked(project.batcher("trust", "--json"), "trust")
    assert found["settings"] == {"ping": "https://example.org/x"}
    assert Path(found["record"]).is_file()


def test_json_has_the_numbers_of_the_text(project: Project, provider: FakeTTS) -> None:
    """Credits too: rounded alike."""
    provider.ending = lambda _: {"creditsUsed": 0.1}
    run = checked(project.run(project.manifest(3)), "run")
    status = checked(project.batcher("status", "--json"), "status")
    assert run["credits"]["spent"] == status["credits"]["spent"] == 0.3
    assert "credits: 0.3 spent, 0 in flight, 0 in doubt" in project.batcher("status").out
    assert (status["credits"]["in_flight"], status["credits"]["in_doubt"]) == (0, 0)


def test_help_json_prints_the_schema_of_each_command(project: Project) -> None:
    """`help json` has all of them below its text, `help json COMMAND` one and nothing else."""
    assert json.loads(project.batcher("help", "json", "run").out) == command_schema("run")
    shown = project.batcher("help", "json").out
    assert '"$schema": "https://json-schema.org/draft/2020-12/schema"' in shown
    assert all(f'"const": "{name}"' in shown for name in json_commands() if name not in ("retry", "abandon"))
    shown = project.batcher("help", "json", "ledger", "backup").out
    assert json.loads(shown) == command_schema("ledger backup")
    unknown = project.batcher("help", "json", "ledger")
    assert (unknown.exit_code, "no command 'ledger' prints JSON" in unknown.err) == (2, True)


def test_ledger_commands_print_what_they_did(project: Project, next_version: Path) -> None:
    project.run(project.manifest(2))
    found = checked(project.batcher("ledger", "backup", "copy.db", "--json"), "ledger backup")
    assert (found["ledger"], found["backup"]) == (str(project.ledger), str(project.folder / "copy.db"))
    assert checked(project.batcher("ledger", "upgrade", "--json"), "ledger upgrade")["backup"] is None
    later = {"PYTHONPATH": str(next_version)}
    upgraded = checked(project.batcher("ledger", "upgrade", "--json", environment=later), "ledger upgrade")
    assert Path(upgraded["backup"]).is_file()
    results = project.audio / "lines.results.jsonl"
    found = checked(project.batcher("ledger", "recover", results, "--json", environment=later), "ledger recover")
    assert found["rows"] == 2


def test_a_sandbox_prints_its_address_once_it_listens(project: Project) -> None:
    """On a free port; and a top-up prints the balance."""
    sandbox = project.start("sandbox", "--port", "0", "--json", "--store", "tasks.db")
    sandbox.until_says("Stop it with Ctrl-C")
    sandbox.send(signal.SIGINT)
    found = checked(sandbox.end(), "sandbox")
    assert re.fullmatch(r"http://127\.0\.0\.1:[1-9]\d+/api/open/v1", found["url"])
    assert (found["token"], found["store"]) == ("sandbox", str(project.folder / "tasks.db"))
    added = checked(project.batcher("sandbox", "--top-up", "500", "--store", "tasks.db", "--json"), "sandbox")
    assert (added["added"], added["balance"]) == (500, 1_000_500)


def test_top_ups_are_in_the_json_as_in_the_text(project: Project, provider: FakeTTS) -> None:
    """Of the status, of the run, and of the report."""
    provider.credits = 100.0
    project.run(project.manifest(2))
    provider.credits += 500
    ended = project.run(project.manifest(3))
    assert "topped up about 500" in project.batcher("status").out
    assert checked(project.batcher("status", "--json"), "status")["credits"]["topped_up"] == 500
    assert checked(ended, "run")["credits"]["topped_up"] == 0
    written = checked(project.batcher("report", "--json"), "report")["credits"]
    assert written == {"start": 100, "end": 597, "spent": 3, "topped_up": 500}
