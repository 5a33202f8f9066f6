"""The contract of the command line: exit codes, JSON keys, sources of options, places of files."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from batcher.ledger.storage.lock import owner_lock
from tests.support.fake_tts import TOKEN, FakeTTS, audio_of, refusal
from tests.support.terminal import Terminal

if TYPE_CHECKING:
    from tests.conftest import Project
    from tests.support.processes import Ended

ROOT = Path(os.sep)
REPORT = (
    *("schema", "command", "run_id", "exit_code", "outcome", "message", "hint"),
    *("ledger", "out_dir", "batches", "rows", "items"),
    *("states", "not_selected", "left_out", "created", "collected", "halt", "credits", "requests", "elapsed_seconds"),
)
STATES = {
    *("pending", "submitting", "in_doubt", "submitted", "rendered", "done", "rejected", "failed", "gone", "abandoned"),
}
CREDITS = {"start", "end", "spent", "estimated_needed", "topped_up"}
REQUESTS = {"create", "poll", "download", "throttled"}


def assert_contract(ended: Ended, exit_code: int, outcome: str) -> None:
    """Check the exit code, and that standard output is one JSON object with exactly the documented keys."""
    report = ended.report
    assert (ended.exit_code, report["exit_code"], report["outcome"]) == (exit_code, exit_code, outcome), ended
    assert tuple(report) == REPORT
    assert report["schema"] == 1
    assert report["message"]
    assert set(report["credits"]) == CREDITS
    assert set(report["requests"]) == REQUESTS
    assert set(report["states"]) in (STATES, set())


@pytest.mark.parametrize(
    "arguments",
    [
        ["lines.csv", "--no-such-option"],
        ["lines.csv", "--concurrency", "0"],
        ["lines.csv", "--max-runtime", "soon"],
        ["lines.csv", "--column", "emotion"],
        ["lines.csv", "--ledger", "mysql://host/db"],
        ["lines.csv", "--api-url", "http://speech.example/api"],
        ["lines.csv", "--token-file", "no-such-file"],
        ["lines.csv", "lines.csv"],
        ["lines.csv", "more/other.csv", "--batch", "both"],
        ["lines.csv", "--format", "midi"],
        ["lines.csv", "--filename", "{nothing}.mp3"],
        ["absent.csv"],
        [],
    ],
    ids=" ".join,
)
def test_a_usage_error_exits_2_with_the_whole_json(project: Project, provider: FakeTTS, arguments: list[str]) -> None:
    """Standard error names the cause, and the API receives no request."""
    project.manifest(1)
    url = [] if "--api-url" in arguments else ["--api-url", provider.url]
    if "--token-file" in arguments:
        del project.environment["BATCHER_API_TOKEN"]
    ended = project.batcher("run", *arguments, *url, "--json")
    assert_contract(ended, 2, "refused")
    assert ended.report["message"].splitlines()[0] in ended.err
    assert "Traceback" not in ended.err
    assert provider.creates == []


def test_a_bad_manifest_reports_all_errors_at_once(project: Project, provider: FakeTTS) -> None:
    """Each with file and line; the API receives no request."""
    one = project.manifest([{"id": "a", "text": "", "voice": "anna"}, {"id": "b", "text": "Fine.", "voice": ""}])
    two = project.manifest([{"id": "c", "txet": "Where is the text?", "voice": "anna"}], "two.csv")
    ended = project.run(one, two)
    assert_contract(ended, 2, "refused")
    for words in ("lines.csv:2", "lines.csv:3", "two.csv"):
        assert words in ended.err
    assert provider.api_headers == []


def test_a_hint_follows_its_error_once(project: Project, provider: FakeTTS) -> None:
    """It names the option, and is a key of its own in the JSON."""
    manifest = project.manifest(1)
    command = ("run", manifest, "--json", "--api-url", "http://example.org/api")
    refused = project.batcher(*command)
    assert_contract(refused, 2, "refused")
    said = "the token would be sent to example.org unencrypted"
    assert f"exit 2: {said}\n  Use https, or pass --allow-http.\n" in refused.err
    assert (refused.err.count("Use https"), refused.report["message"]) == (1, said)
    assert refused.report["hint"] == "Use https, or pass --allow-http."
    project.manifest([{"id": "a", "text": "", "voice": "anna"}])
    ended = project.run(manifest).err
    assert ended.index("lines.csv:2") < ended.index("exit 2: ") < ended.index("  Fix them, or pass --skip-invalid")


def test_a_missing_manifest_is_reported_in_one_line(project: Project, provider: FakeTTS) -> None:
    manifest = project.manifest(1)
    assert project.run(manifest).exit_code == 0
    manifest.unlink()
    ended = project.run(manifest)
    assert_contract(ended, 2, "refused")
    assert ended.err.count("cannot be read: No such file or directory") == 1


def test_a_good_run_exits_0_with_the_whole_json(project: Project, provider: FakeTTS) -> None:
    """Everything else goes to standard error."""
    ended = project.run(project.manifest(2))
    assert_contract(ended, 0, "done")
    report = ended.report
    assert (report["batches"], report["rows"], report["items"], report["states"]["done"]) == (["lines"], 2, 2, 2)
    assert (report["ledger"], report["out_dir"]) == (str(project.ledger), str(project.audio))
    assert report["requests"] == {"create": 2, "poll": 2, "download": 2, "throttled": 0}
    assert report["halt"] is None


def test_without_json_standard_output_stays_empty(project: Project, provider: FakeTTS) -> None:
    """With --quiet a good run prints nothing at all."""
    manifest = project.manifest(1)
    plain = project.batcher("run", manifest, "--api-url", provider.url)
    quiet = project.batcher("run", manifest, "--api-url", provider.url, "--quiet")
    assert (plain.exit_code, plain.out, plain.err != "") == (0, "", True)
    assert (quiet.exit_code, quiet.out, quiet.err) == (0, "", "")


def test_batcher_json_works_like_the_option(project: Project, provider: FakeTTS) -> None:
    """Even if the command line itself cannot be parsed."""
    asked = {"BATCHER_JSON": "1"}
    assert_contract(project.batcher("run", "--no-such-option", environment=asked), 2, "refused")
    ended = project.batcher("run", project.manifest(1), "--api-url", provider.url, environment=asked)
    assert_contract(ended, 0, "done")


def test_without_a_token_a_run_exits_5(project: Project, provider: FakeTTS) -> None:
    del project.environment["BATCHER_API_TOKEN"]
    ended = project.run(project.manifest(1))
    assert_contract(ended, 5, "credentials")
    assert "BATCHER_API_TOKEN" in ended.err
    assert provider.api_headers == []


@pytest.mark.parametrize("variable", ["", "another-account's"])
def test_a_token_file_named_by_an_option_wins_over_the_environment(
    project: Project, provider: FakeTTS, variable: str
) -> None:
    project.environment["BATCHER_API_TOKEN"] = variable
    (project.folder / "secret.txt").write_text(f"{TOKEN}\n")
    assert_contract(project.run(project.manifest(1), "--token-file", "secret.txt"), 0, "done")


def test_a_token_in_the_environment_wins_over_a_token_file_there(project: Project, provider: FakeTTS) -> None:
    """Unless it is empty."""
    (project.folder / "secret.txt").write_text("another-account's")
    project.environment["BATCHER_API_TOKEN_FILE"] = "secret.txt"
    assert_contract(project.run(project.manifest(1)), 0, "done")
    project.environment["BATCHER_API_TOKEN"] = ""
    assert_contract(project.run(project.manifest(2)), 5, "credentials")


def test_a_locked_ledger_ends_a_run_with_exit_7(project: Project, provider: FakeTTS) -> None:
    """At once, or after --wait-lock."""
    manifest = project.manifest(1)
    with owner_lock(project.ledger):
        assert_contract(project.run(manifest), 7, "locked")
        locked = project.run(manifest, "--wait-lock", "1s")
        assert_contract(locked, 7, "locked")
        assert "--wait-lock" in locked.err
    assert provider.api_headers == []


def test_a_file_that_is_no_ledger_is_refused_unchanged(project: Project, provider: FakeTTS) -> None:
    project.ledger.write_bytes(b"not a database at all, but somebody's " * 100)
    before = project.ledger.read_bytes()
    assert_contract(project.run(project.manifest(1)), 2, "refused")
    assert project.ledger.read_bytes() == before


def test_the_first_line_names_ledger_and_output_folder(project: Project, provider: FakeTTS) -> None:
    """By absolute paths; NEW marks a new ledger only."""
    manifest = project.manifest(1)
    first = project.run("lines.csv", "--no-wait").err.splitlines()[0]
    second = project.run(manifest, "--no-wait").err.splitlines()[0]
    for line in (first, second):
        assert str(project.ledger) in line
        assert str(project.audio) in line
    assert "NEW" in first
    assert "NEW" not in second


def test_ledger_audio_and_settings_lie_beside_the_manifest(project: Project, provider: FakeTTS) -> None:
    """Wherever the run is started, as by cron."""
    (project.folder / "batcher.toml").write_text('voice = "from-the-file"\n')
    manifest = project.manifest([{"id": "a", "text": "From afar."}])
    ended = project.run(manifest, cwd=ROOT)
    assert (ended.exit_code, ended.report["ledger"]) == (0, str(project.ledger))
    assert (project.audio / "a.mp3").read_bytes() == audio_of("From afar.", "mp3")
    assert provider.creates[0].body == {"text": "From afar.", "voiceId": "from-the-file", "format": "mp3"}


def test_an_option_wins_over_environment_file_and_default(project: Project, provider: FakeTTS) -> None:
    """In this order."""
    (project.folder / "batcher.toml").write_text('voice = "file"\nmodel = "file"\nformat = "ogg"\nno-wait = true\n')
    manifest = project.manifest([{"text": "Who wins?"}])
    environment = {"BATCHER_MODEL": "environment", "BATCHER_FORMAT": "opus"}
    ended = project.run(manifest, "--format", "wav", environment=environment)
    assert ended.report["states"]["submitted"] == 1
    sent = {"text": "Who wins?", "voiceId": "file", "engineModelId": "environment", "format": "wav"}
    assert provider.creates[0].body == sent


def test_all_settings_may_be_in_batcher_toml(project: Project, provider: FakeTTS) -> None:
    """Paths are relative to it, wherever the run starts; the token may be in a file."""
    (project.folder / "secret.txt").write_text(f"{TOKEN}\n")
    lines = ['ledger = "state/jobs.db"', 'out-dir = "speech"', 'token-file = "secret.txt"', "concurrency = 2"]
    lines += ['max-runtime = "30s"', f'api-url = "{provider.url}"', 'filename = "{batch}/{id}.{format}"']
    (project.folder / "batcher.toml").write_text("\n".join(lines))
    manifest = project.manifest(1)
    del project.environment["BATCHER_API_TOKEN"]
    assert project.batcher("trust", project.folder).exit_code == 0
    ended = project.batcher("run", manifest, "--json", cwd=ROOT)
    assert_contract(ended, 0, "done")
    assert ended.report["ledger"] == str(project.folder / "state" / "jobs.db")
    assert (project.folder / "speech" / "lines" / "r1.mp3").is_file()
    status = project.batcher("status", manifest, "--json", cwd=ROOT)
    assert status.report["states"]["done"] == 1


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("concurency = 3", "concurrency"),
        ("override-halt = true", "override-halt"),
        ('concurrency = "many"', "many"),
        ("voices = 3", "voices"),
        ("voice = ", "batcher.toml"),
        ("no-header = 7", "no-header: '7' is not a valid boolean"),
        ("skip-empty = []", "skip-empty: [] is not a possible value: write true or false"),
        ("concurrency = [3]", "concurrency: [3] is not a possible value: write text or a number"),
        ("max-items = inf", "max-items: 'inf' is not a valid integer range"),
        ("where = [[1]]", "where: [[1]] is not a possible value: write text or a list of texts"),
        ("filename = {a = 1}", 'filename: {"a": 1} is not a possible value'),
        ('filename = "a\\u0000b"', "filename: "),
    ],
)
def test_a_bad_batcher_toml_is_refused_by_key(project: Project, provider: FakeTTS, line: str, words: str) -> None:
    """An unknown key, a consent, a wrong value or invalid TOML."""
    (project.folder / "batcher.toml").write_text(line)
    ended = project.run(project.manifest(1))
    assert_contract(ended, 2, "refused")
    assert words in ended.err
    assert provider.creates == []


def test_columns_and_voices_of_a_sheet_are_mapped(project: Project, provider: FakeTTS) -> None:
    """By --column, [columns] and [voices]; other columns are carried along."""
    toml = '[columns]\ntext = "Notes"\nvoice = "Speaker"\n\n[voices]\nGran = "voice-77"\n'
    (project.folder / "batcher.toml").write_text(toml)
    row = {"id": "a", "Line": "Well, well.", "Speaker": "Gran", "emotion": "calm", "Notes": "slowly"}
    ended = project.run(project.manifest([row]), "--column", "text=Line", "--column", "emotion=", "--no-wait")
    assert ended.exit_code == 6
    assert provider.creates[0].body == {"text": "Well, well.", "voiceId": "voice-77", "format": "mp3"}
    assert project.results()[0]["extra"] == {"emotion": "calm", "Notes": "slowly"}


def test_a_manifest_is_read_from_standard_input(project: Project, provider: FakeTTS) -> None:
    """As JSONL; the current folder is then the project folder."""
    row = {"id": "a", "text": "Piped.", "voice": "anna", "params": {"speed": 1.5, "seed": 7}}
    ended = project.run("-", "--batch", "piped", "--no-wait", stdin=json.dumps(row) + "\n")
    assert (ended.exit_code, ended.report["batches"], ended.report["ledger"]) == (6, ["piped"], str(project.ledger))
    sent = {"text": "Piped.", "voiceId": "anna", "format": "mp3", "speed": 1.5, "seed": 7}
    assert provider.creates[0].body == sent
    assert [result["id"] for result in project.results("piped")] == ["a"]


def test_two_manifests_make_two_batches(project: Project, provider: FakeTTS) -> None:
    """Each has its results; a text in both is bought once."""
    one = project.manifest(2, "one.csv")
    shared = project.rows(1)[0] | {"id": "again"}
    two = project.manifest([shared, *project.rows(1, first=3)], "two.csv")
    ended = project.run(one, two)
    assert_contract(ended, 0, "done")
    assert (ended.report["batches"], ended.report["rows"], ended.report["items"]) == (["one", "two"], 4, 3)
    assert len(provider.creates) == 3
    assert [[result["id"] for result in project.results(name)] for name in ("one", "two")] == [
        ["r1", "r2"],
        ["again", "r3"],
    ]
    project.assert_whole([*project.rows(3), shared])


def test_two_batches_cannot_share_an_output(project: Project, provider: FakeTTS) -> None:
    """Otherwise one batch would replace the other's audio."""
    project.run(project.manifest(1, "one.csv"), "--no-wait")
    other = [{"id": "r1", "text": "Something else.", "voice": "anna"}]
    ended = project.run(project.manifest(other, "two.csv"))
    assert_contract(ended, 2, "refused")
    assert len(provider.creates) == 1
    project.assert_whole(project.rows(1))


def test_skipped_rows_are_in_the_results_and_exit_3(project: Project, provider: FakeTTS) -> None:
    """Rows without a text do not count as bad."""
    rows = [
        *project.rows(1),
        {"id": "bad", "text": "No voice.", "voice": ""},
        {"id": "later", "text": "", "voice": "v"},
    ]
    ended = project.run(project.manifest(rows), "--skip-invalid", "--skip-empty")
    assert_contract(ended, 3, "needs_person")
    assert [result["state"] for result in project.results()] == ["done", "invalid", "empty"]
    assert "no voice" in project.results()[1]["error"]["message"]
    assert project.run(project.manifest([rows[0], rows[2]]), "--skip-empty").exit_code == 0
    assert len(provider.creates) == 1


def test_status_has_the_documented_keys(project: Project, provider: FakeTTS) -> None:
    """It includes the end of the last run."""
    provider.credits = 0
    project.run(project.manifest(2))
    status = project.batcher("status", "--json").report
    assert {"batches", "rows", "items", "states", "halt", "credits", "last_run"} <= set(status)
    assert set(status["states"]) == STATES
    assert set(status["credits"]) == CREDITS | {"in_flight", "in_doubt", "left"}
    assert set(status["halt"]) == {"kind", "since", "detail"}
    assert (status["batches"], status["rows"], status["states"]["pending"]) == (["lines"], 2, 2)
    assert (status["last_run"]["exit_code"], status["last_run"]["outcome"]) == (4, "halted")
    plain = project.batcher("status", project.folder / "lines.csv", cwd=ROOT)
    assert plain.exit_code == 0
    assert "halted" in plain.out


def test_show_lists_items_by_row_by_state_or_all(project: Project, provider: FakeTTS) -> None:
    """With the documented keys."""
    bad = project.rows(2)[1]["text"]
    provider.on_create = lambda create: refusal(400, "bad_text") if create.text == bad else None
    manifest = project.manifest(2)
    assert project.run(manifest).exit_code == 3
    shown = project.batcher("show", manifest, "--json").report["items"]
    assert len(shown) == 2
    for item in shown:
        assert set(item) == {"key", "state", "attempt", "task_id", "account", "take", "chars", "rows", "error"}
    good = _only(project.batcher("show", "r1", "--json").report["items"])
    assert (good["state"], good["account"], good["attempt"], good["take"]) == ("done", "user-1", 1, 1)
    assert [good["task_id"]] == provider.paid[project.rows(1)[0]["text"]]
    assert good["rows"] == [{"batch": "lines", "row": 2, "id": "r1", "output": "r1.mp3"}]
    assert good["error"] is None
    failed = _only(project.batcher("show", "--state", "rejected", "--json").report["items"])
    error = {"code": "bad_text", "message": "this is bad_text", "request_id": "req_0123", "http_status": 400}
    assert (failed["error"], failed["chars"]) == (error, len(bad))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("show", "--state", "failed"), "no matching items in state failed"),
        (("show", "r1", "--batch", "lang"), "no matching items in batch lang"),
        (("status", "other.csv"), "the ledger has no batch from other.csv"),
    ],
    ids=["no state", "no batch", "no manifest"],
)
def test_an_empty_selection_is_reported_and_exits_0(project: Project, arguments: tuple[str, ...], words: str) -> None:
    """On standard error."""
    project.run(project.manifest(1))
    project.manifest(1, "other.csv")
    ended = project.batcher(*arguments)
    assert (ended.exit_code, ended.err) == (0, f"{words}\n")
    known = project.batcher("status", "lines.csv")
    assert (known.exit_code, known.err) == (0, "")


def _only(items: list[dict[str, Any]]) -> dict[str, Any]:
    assert len(items) == 1
    return items[0]


@pytest.mark.parametrize("command", ["status", "show", "resolve", "retry --state failed", "ledger upgrade"])
def test_only_run_makes_a_ledger(project: Project, provider: FakeTTS, command: str) -> None:
    """The other commands refuse to work without one."""
    ended = project.batcher(*command.split())
    assert ended.exit_code == 2
    assert str(project.ledger) in ended.err
    assert list(project.folder.iterdir()) == []


def test_status_works_while_a_run_holds_the_ledger(project: Project, provider: FakeTTS) -> None:
    provider.task_seconds = 600.0
    run = project.start_run(project.manifest(3))
    provider.until(lambda: len(provider.creates) == 3)
    status = project.batcher("status", "--json")
    assert (status.exit_code, status.report["rows"]) == (0, 3)
    assert status.report["last_run"]["ended_at"] is None
    provider.end_tasks()
    assert run.end().exit_code == 0


@pytest.mark.parametrize(("answer", "code", "created"), [("y\n", 0, 51), ("\n", 6, 0), (None, 130, 0)])
def test_a_terminal_confirms_more_than_fifty_new_items(
    project: Project, provider: FakeTTS, answer: str | None, code: int, created: int
) -> None:
    """One question names count and balance.

    A signal counts as an answer and needs no key after it. Without a yes, a halt of the account is not mentioned.
    """
    manifest = project.manifest(51)
    if code:
        provider.credits = 0
        assert project.run(manifest, "--only", "r1").exit_code == 4
        provider.credits, provider.creates = 1_000_000, []
    terminal = Terminal(project, "run", manifest, "--api-url", provider.url, "--concurrency", "51", columns=0)
    terminal.until_says("[y/N]")
    if answer is None:
        terminal.interrupt()
    else:
        terminal.type(answer)
    assert terminal.end() == code
    assert terminal.said.endswith("\nCancelled; nothing was created\n") is (code != 0)
    assert "halt" not in terminal.said
    price = "about 756 credits by the provider's price rule"
    assert f"create 51 items for {price} (the balance is 1,000,000 credits)?" in terminal.said
    assert len(provider.creates) == created


def test_a_pipe_closed_early_is_no_error(project: Project, provider: FakeTTS) -> None:
    project.run(project.manifest(3))
    reading, writing = os.pipe()
    os.close(reading)
    for command in ("show", "status --json", f"run lines.csv --json --api-url {provider.url}"):
        ended = subprocess.run(
            [sys.executable, "-m", "batcher", *command.split()],
            cwd=project.folder,
            env=project.environment,
            stdout=writing,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            check=False,
        )
        assert (ended.returncode, "Traceback" in ended.stderr) == (0, False), ended.stderr
    os.close(writing)


def test_status_of_several_batches_has_a_line_for_each(project: Project, provider: FakeTTS) -> None:
    """The JSON has the same in `by_batch`, beside the keys of the whole."""
    project.manifest(2)
    project.manifest([*project.rows(2, first=7), {"id": "e", "text": "", "voice": "anna"}], "more.csv")
    provider.on_create = lambda create: refusal(400, "bad") if "number 7" in create.text else None
    assert project.run("lines.csv", "more.csv", "--skip-empty").exit_code == 3
    told = project.batcher("status").out.splitlines()
    assert told[1] == "2 batches: 5 rows, 4 items"
    assert "  lines: 2 rows: 2 done" in told
    assert "  more: 3 rows: 1 done, 1 rejected, 1 row skipped" in told
    found = project.batcher("status", "--json").report
    assert {"batches", "rows", "items", "states", "halt", "credits", "last_run"} <= set(found)
    assert [(one["batch"], one["rows"], one["states"]["done"], one["empty"]) for one in found["by_batch"]] == [
        ("lines", 2, 2, 0),
        ("more", 3, 1, 1),
    ]


@pytest.mark.parametrize(
    ("how", "file", "code"),
    [
        (["--ok-exit", "3,6"], "", 0),
        (["--ok-exit", "6"], "", 3),
        ([], "ok-exit = [3, 7]", 0),
        ([], "ok-exit = 3", 0),
        (["--ok-exit", "7"], "ok-exit = [3]", 3),
    ],
)
def test_ok_exit_codes_become_0_for_the_process_alone(
    project: Project, provider: FakeTTS, how: list[str], file: str, code: int
) -> None:
    """Report and ledger keep the real one."""
    provider.on_create = lambda _: refusal(422, "too_odd")
    (project.folder / "batcher.toml").write_text(file, encoding="utf-8")
    ended = project.run(project.manifest(1), *how)
    assert (ended.exit_code, ended.report["exit_code"]) == (code, 3)
    assert project.query("SELECT exit_code FROM runs") == [(3,)]


def test_ok_exit_covers_a_ledger_that_is_held_and_never_a_wrong_command_line(project: Project) -> None:
    manifest, accepted = project.manifest(1), {"BATCHER_OK_EXIT": "3,6,7"}
    with owner_lock(project.ledger):
        held = project.run(manifest, environment=accepted)
    assert (held.exit_code, held.report["exit_code"], "another run" in held.err) == (0, 7, True)
    assert project.run(manifest, "--no-such-option", environment=accepted).exit_code == 2
    refused = project.run(manifest, "--ok-exit", "2,3")
    assert (refused.exit_code, "'2' cannot count as success" in refused.err) == (2, True)


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs a PID namespace")
@pytest.mark.parametrize("held", [False, True])
def test_process_1_of_a_container_obeys_sigterm(project: Project, provider: FakeTTS, held: bool) -> None:
    """While it waits for the ledger it ends at once; while a task is open it collects that first."""
    provider.task_seconds = 0.5
    command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-m", "batcher", "run"]
    command += [str(project.manifest(1)), "--api-url", provider.url, "--json", "--wait-lock", "60s"]
    with owner_lock(project.ledger) if held else nullcontext():
        how: dict[str, Any] = {"cwd": project.folder, "env": project.environment, "encoding": "utf-8"}
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **how) as started:
            (process,) = _children(started.pid)
            if held:
                _until(lambda: _has_loaded_sqlite(process))
            else:
                provider.until(lambda: bool(provider.jobs))
            os.kill(process, signal.SIGTERM)
            out, err = started.communicate(timeout=30)
    if held:
        assert (started.returncode, json.loads(out)["exit_code"]) == (6, 6), err
    else:
        assert (started.returncode, json.loads(out)["states"]["done"]) == (0, 1), err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_before_a_run_has_begun_is_a_request_to_stop_too(project: Project, number: signal.Signals) -> None:
    """And `--ok-exit` covers it: the process is not killed."""
    command = [sys.executable, "-m", "batcher", "run", str(project.manifest(1)), "--json", "--wait-lock", "60s"]
    codes = []
    with owner_lock(project.ledger):
        for accepted in ([], ["--ok-exit", "6"]):
            how: dict[str, Any] = {"cwd": project.folder, "env": project.environment, "encoding": "utf-8"}
            with subprocess.Popen([*command, *accepted], stdout=subprocess.PIPE, stderr=subprocess.PIPE, **how) as run:
                _until(partial(_has_loaded_sqlite, run.pid))
                run.send_signal(number)
                out, err = run.communicate(timeout=30)
            assert json.loads(out)["exit_code"] == 6
            assert err == "batcher: stopped by a signal; run it again to continue\n"
            codes.append(run.returncode)
    assert codes == [6, 0]


def test_a_signal_ends_the_reading_of_a_long_manifest(project: Project) -> None:
    """Its batch stays as it was, and the run ends long before the rows were read, which takes more than ten seconds."""
    manifest = project.manifest(1)
    assert project.run(manifest).exit_code == 0
    lines = "".join(f"x{number},Hello.,5f3c\n" for number in range(200_000))
    manifest.write_text(f"id,text,voice\n{lines}", encoding="utf-8")
    run = project.start_run(manifest)
    _until(lambda: project.query("SELECT count(*) FROM runs") == [(2,)])
    before = time.monotonic()
    run.send(signal.SIGTERM)
    ended = run.end()
    assert time.monotonic() - before < 5
    assert (ended.exit_code, ended.report["rows"], ended.report["states"]["done"]) == (6, 1, 1)
    assert ended.report["message"] == "stopped by a signal; run it again to continue"


def _children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    _until(lambda: bool(path.read_text(encoding="ascii").split()))
    return [int(child) for child in path.read_text(encoding="ascii").split()]


def _has_loaded_sqlite(pid: int) -> bool:
    """Whether the process has parsed its command line and is on the way to the ledger."""
    return "_sqlite3" in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8")


def _until(holds: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < ends_at
        time.sleep(0.02)
