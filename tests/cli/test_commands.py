"""The command line as a contract: exit codes, keys of the JSON, where options come from, where files are."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock

from tests.support.fake_tts import TOKEN, FakeTTS, audio_of, refusal

if TYPE_CHECKING:
    from tests.conftest import Project
    from tests.support.processes import Ended

ROOT = Path(os.sep)
REPORT = (
    *("schema", "run_id", "exit_code", "outcome", "message", "ledger", "out_dir", "batches", "rows", "items"),
    *("states", "created", "collected", "halt", "credits", "requests", "elapsed_seconds"),
)
STATES = {
    *("pending", "submitting", "in_doubt", "submitted", "rendered", "done", "rejected", "failed", "gone", "abandoned"),
}
CREDITS = {"start", "end", "spent", "estimated_needed"}
REQUESTS = {"create", "poll", "download", "throttled"}


def assert_contract(ended: Ended, exit_code: int, outcome: str) -> None:
    """The run ended so, and said it in one JSON object with exactly the keys that were promised."""
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
        ["lines.csv", "--ledger", "postgresql://host/db"],
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
def test_usage_errors(project: Project, provider: FakeTTS, arguments: list[str]) -> None:
    """Whatever is wrong with a command, it exits 2 with the whole JSON, says why, and asks the API nothing."""
    project.manifest(1)
    url = [] if "--api-url" in arguments else ["--api-url", provider.url]
    if "--token-file" in arguments:
        del project.environment["BATCHER_API_TOKEN"]
    ended = project.batcher("run", *arguments, *url, "--json")
    assert_contract(ended, 2, "refused")
    assert ended.report["message"].splitlines()[0] in ended.err
    assert "Traceback" not in ended.err
    assert provider.creates == []


def test_bad_manifest(project: Project, provider: FakeTTS) -> None:
    """All that is wrong with all manifests is said at once, with file and line, and nothing is bought or even asked."""
    one = project.manifest([{"id": "a", "text": "", "voice": "anna"}, {"id": "b", "text": "Fine.", "voice": ""}])
    two = project.manifest([{"id": "c", "txet": "Where is the text?", "voice": "anna"}], "two.csv")
    ended = project.run(one, two)
    assert_contract(ended, 2, "refused")
    for words in ("lines.csv:2", "lines.csv:3", "two.csv"):
        assert words in ended.err
    assert provider.api_headers == []


def test_a_way_out_follows_what_it_is_the_way_out_of(project: Project, provider: FakeTTS) -> None:
    """What can be done about a refusal is said once, right after it, with the option's name, and not in the JSON."""
    manifest = project.manifest(1)
    command = ("run", manifest, "--json", "--api-url", "http://example.org/api")
    refused = project.batcher(*command)
    assert_contract(refused, 2, "refused")
    said = "The token would be sent to example.org unencrypted."
    assert f"exit 2: {said}\n  Use https, or pass --allow-http.\n" in refused.err
    assert (refused.err.count("Use https"), refused.report["message"]) == (1, said)
    project.manifest([{"id": "a", "text": "", "voice": "anna"}])
    ended = project.run(manifest).err
    assert ended.index("lines.csv:2") < ended.index("exit 2: ") < ended.index("  Fix them, or pass --skip-invalid")


def test_a_missing_manifest_is_said_once(project: Project, provider: FakeTTS) -> None:
    """A manifest that is gone since the last run is said in one line."""
    manifest = project.manifest(1)
    assert project.run(manifest).exit_code == 0
    manifest.unlink()
    ended = project.run(manifest)
    assert_contract(ended, 2, "refused")
    assert ended.err.count("cannot be read: No such file or directory") == 1


def test_good_run(project: Project, provider: FakeTTS) -> None:
    """A run that goes well ends 0 with the whole JSON on standard output and all else on standard error."""
    ended = project.run(project.manifest(2))
    assert_contract(ended, 0, "done")
    report = ended.report
    assert (report["batches"], report["rows"], report["items"], report["states"]["done"]) == (["lines"], 2, 2, 2)
    assert (report["ledger"], report["out_dir"]) == (str(project.ledger), str(project.audio))
    assert report["requests"] == {"create": 2, "poll": 2, "download": 2, "throttled": 0}
    assert report["halt"] is None


def test_without_json(project: Project, provider: FakeTTS) -> None:
    """Without --json nothing goes to standard output, and --quiet has nothing to say of a run that goes well."""
    manifest = project.manifest(1)
    plain = project.batcher("run", manifest, "--api-url", provider.url)
    quiet = project.batcher("run", manifest, "--api-url", provider.url, "--quiet")
    assert (plain.exit_code, plain.out, plain.err != "") == (0, "", True)
    assert (quiet.exit_code, quiet.out, quiet.err) == (0, "", "")


def test_json_by_the_environment(project: Project, provider: FakeTTS) -> None:
    """BATCHER_JSON asks for the JSON as --json does, also of a command that cannot even be read."""
    asked = {"BATCHER_JSON": "1"}
    assert_contract(project.batcher("run", "--no-such-option", environment=asked), 2, "refused")
    ended = project.batcher("run", project.manifest(1), "--api-url", provider.url, environment=asked)
    assert_contract(ended, 0, "done")


def test_no_token(project: Project, provider: FakeTTS) -> None:
    """Without a token a run exits 5 with the whole JSON."""
    del project.environment["BATCHER_API_TOKEN"]
    ended = project.run(project.manifest(1))
    assert_contract(ended, 5, "credentials")
    assert "BATCHER_API_TOKEN" in ended.err
    assert provider.api_headers == []


@pytest.mark.parametrize("variable", ["", "another-account's"])
def test_token_from_a_file(project: Project, provider: FakeTTS, variable: str) -> None:
    """The token may be in a file: one that a flag names wins over any variable."""
    project.environment["BATCHER_API_TOKEN"] = variable
    (project.folder / "secret.txt").write_text(f"{TOKEN}\n")
    assert_contract(project.run(project.manifest(1), "--token-file", "secret.txt"), 0, "done")


def test_token_in_the_environment(project: Project, provider: FakeTTS) -> None:
    """A token wins over a file that the environment names too, unless it is empty."""
    (project.folder / "secret.txt").write_text("another-account's")
    project.environment["BATCHER_API_TOKEN_FILE"] = "secret.txt"
    assert_contract(project.run(project.manifest(1)), 0, "done")
    project.environment["BATCHER_API_TOKEN"] = ""
    assert_contract(project.run(project.manifest(2)), 5, "credentials")


def test_locked(project: Project, provider: FakeTTS) -> None:
    """While another process holds the ledger a run exits 7 with the whole JSON, at once or after --wait-lock."""
    manifest = project.manifest(1)
    with FileLock(f"{project.ledger}.lock"):
        assert_contract(project.run(manifest), 7, "locked")
        assert_contract(project.run(manifest, "--wait-lock", "1s"), 7, "locked")
    assert provider.api_headers == []


def test_unusable_ledger(project: Project, provider: FakeTTS) -> None:
    """A file that is no ledger is left as it is: exit 2."""
    project.ledger.write_bytes(b"not a database at all, but somebody's " * 100)
    before = project.ledger.read_bytes()
    assert_contract(project.run(project.manifest(1)), 2, "refused")
    assert project.ledger.read_bytes() == before


def test_first_line(project: Project, provider: FakeTTS) -> None:
    """The first line names ledger and output folder by absolute paths, and says NEW for a new ledger only."""
    manifest = project.manifest(1)
    first = project.run("lines.csv", "--no-wait").err.splitlines()[0]
    second = project.run(manifest, "--no-wait").err.splitlines()[0]
    for line in (first, second):
        assert str(project.ledger) in line
        assert str(project.audio) in line
    assert "NEW" in first
    assert "NEW" not in second


def test_cron(project: Project, provider: FakeTTS) -> None:
    """Started elsewhere, a run finds ledger, audio and configuration in the manifest's folder."""
    (project.folder / "batcher.toml").write_text('voice = "from-the-file"\n')
    manifest = project.manifest([{"id": "a", "text": "From afar."}])
    ended = project.run(manifest, cwd=ROOT)
    assert (ended.exit_code, ended.report["ledger"]) == (0, str(project.ledger))
    assert (project.audio / "a.mp3").read_bytes() == audio_of("From afar.", "mp3")
    assert provider.creates[0].body == {"text": "From afar.", "voiceId": "from-the-file", "format": "mp3"}


def test_flags_environment_file(project: Project, provider: FakeTTS) -> None:
    """A flag wins over the environment, the environment over batcher.toml, and that over what goes without saying."""
    (project.folder / "batcher.toml").write_text('voice = "file"\nmodel = "file"\nformat = "ogg"\nno-wait = true\n')
    manifest = project.manifest([{"text": "Who wins?"}])
    environment = {"BATCHER_MODEL": "environment", "BATCHER_FORMAT": "opus"}
    ended = project.run(manifest, "--format", "wav", environment=environment)
    assert ended.report["states"]["submitted"] == 1
    sent = {"text": "Who wins?", "voiceId": "file", "engineModelId": "environment", "format": "wav"}
    assert provider.creates[0].body == sent


def test_everything_in_the_file(project: Project, provider: FakeTTS) -> None:
    """Paths in batcher.toml are relative to it, wherever the run is started; the token may come from a file."""
    (project.folder / "secret.txt").write_text(f"{TOKEN}\n")
    lines = ['ledger = "state/jobs.db"', 'out-dir = "speech"', 'token-file = "secret.txt"', "concurrency = 2"]
    lines += ['max-runtime = "30s"', f'api-url = "{provider.url}"', 'filename = "{batch}/{id}.{format}"']
    (project.folder / "batcher.toml").write_text("\n".join(lines))
    manifest = project.manifest(1)
    del project.environment["BATCHER_API_TOKEN"]
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
    ],
)
def test_bad_file(project: Project, provider: FakeTTS, line: str, words: str) -> None:
    """A key that no option has, a consent, a wrong value or bad TOML is refused by name."""
    (project.folder / "batcher.toml").write_text(line)
    ended = project.run(project.manifest(1))
    assert_contract(ended, 2, "refused")
    assert words in ended.err
    assert provider.creates == []


def test_columns_and_voices(project: Project, provider: FakeTTS) -> None:
    """A sheet's own headers and voice names are mapped by --column, [columns] and [voices]; the rest is carried."""
    toml = '[columns]\ntext = "Notes"\nvoice = "Speaker"\n\n[voices]\nGran = "voice-77"\n'
    (project.folder / "batcher.toml").write_text(toml)
    row = {"id": "a", "Line": "Well, well.", "Speaker": "Gran", "emotion": "calm", "Notes": "slowly"}
    ended = project.run(project.manifest([row]), "--column", "text=Line", "--column", "emotion=", "--no-wait")
    assert ended.exit_code == 6
    assert provider.creates[0].body == {"text": "Well, well.", "voiceId": "voice-77", "format": "mp3"}
    assert project.results()[0]["extra"] == {"emotion": "calm", "Notes": "slowly"}


def test_standard_input(project: Project, provider: FakeTTS) -> None:
    """A manifest may come as JSONL on standard input; the current folder is then the project folder."""
    row = {"id": "a", "text": "Piped.", "voice": "anna", "params": {"speed": 1.5, "seed": 7}}
    ended = project.run("-", "--batch", "piped", "--no-wait", stdin=json.dumps(row) + "\n")
    assert (ended.exit_code, ended.report["batches"], ended.report["ledger"]) == (6, ["piped"], str(project.ledger))
    sent = {"text": "Piped.", "voiceId": "anna", "format": "mp3", "speed": 1.5, "seed": 7}
    assert provider.creates[0].body == sent
    assert [result["id"] for result in project.results("piped")] == ["a"]


def test_two_manifests(project: Project, provider: FakeTTS) -> None:
    """Two manifests in one run are two batches with their own results; a text that both have is bought once."""
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
    """An output path that a row of another batch has is refused: nobody's audio is replaced."""
    project.run(project.manifest(1, "one.csv"), "--no-wait")
    other = [{"id": "r1", "text": "Something else.", "voice": "anna"}]
    ended = project.run(project.manifest(other, "two.csv"))
    assert_contract(ended, 2, "refused")
    assert len(provider.creates) == 1
    project.assert_whole(project.rows(1))


def test_skipped_rows(project: Project, provider: FakeTTS) -> None:
    """With leave, bad rows are passed over and told in the results (exit 3); rows without text do not count as bad."""
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


def test_status(project: Project, provider: FakeTTS) -> None:
    """`status --json` has the promised keys, and tells how the last run ended."""
    provider.credits = 0
    project.run(project.manifest(2))
    status = project.batcher("status", "--json").report
    assert set(status) == {"batches", "rows", "items", "states", "halt", "credits", "last_run"}
    assert set(status["states"]) == STATES
    assert set(status["credits"]) == CREDITS
    assert set(status["halt"]) == {"kind", "since", "detail"}
    assert (status["batches"], status["rows"], status["states"]["pending"]) == (["lines"], 2, 2)
    assert (status["last_run"]["exit_code"], status["last_run"]["outcome"]) == (4, "halted")
    plain = project.batcher("status", project.folder / "lines.csv", cwd=ROOT)
    assert plain.exit_code == 0
    assert "halted" in plain.out


def test_show(project: Project, provider: FakeTTS) -> None:
    """`show --json` lists items with the promised keys, chosen by row, by state, or all of them."""
    bad = project.rows(2)[1]["text"]
    provider.on_create = lambda create: refusal(400, "bad_text") if create.text == bad else None
    manifest = project.manifest(2)
    assert project.run(manifest).exit_code == 3
    shown = project.batcher("show", manifest, "--json").report
    assert len(shown) == 2
    for item in shown:
        assert set(item) == {"key", "state", "attempt", "task_id", "account", "take", "chars", "rows", "error"}
    good = _only(project.batcher("show", "r1", "--json").report)
    assert (good["state"], good["account"], good["attempt"], good["take"]) == ("done", "user-1", 1, 1)
    assert [good["task_id"]] == provider.paid[project.rows(1)[0]["text"]]
    assert good["rows"] == [{"batch": "lines", "row": 1, "id": "r1", "output": "r1.mp3"}]
    assert good["error"] is None
    failed = _only(project.batcher("show", "--state", "rejected", "--json").report)
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
def test_nothing_found_is_said(project: Project, arguments: tuple[str, ...], words: str) -> None:
    """What finds nothing says so on standard error, and exits 0."""
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
def test_looking_makes_no_ledger(project: Project, provider: FakeTTS, command: str) -> None:
    """The commands beside `run` refuse to work where there is no ledger, and leave none behind."""
    ended = project.batcher(*command.split())
    assert ended.exit_code == 2
    assert str(project.ledger) in ended.err
    assert list(project.folder.iterdir()) == []


def test_looking_while_a_run_works(project: Project, provider: FakeTTS) -> None:
    """`status` can be asked while a run is at work on the same ledger."""
    provider.task_seconds = 600.0
    run = project.start_run(project.manifest(3))
    provider.until(lambda: len(provider.creates) == 3)
    status = project.batcher("status", "--json")
    assert (status.exit_code, status.report["rows"]) == (0, 3)
    assert status.report["last_run"]["ended_at"] is None
    provider.end_tasks()
    assert run.end().exit_code == 0


@pytest.mark.parametrize(("answer", "code", "created"), [(b"y\n", 0, 51), (b"\n", 2, 0), (None, 6, 0)])
def test_many_items_are_asked_for_on_a_terminal(
    project: Project, provider: FakeTTS, answer: bytes | None, code: int, created: int
) -> None:
    """On a terminal, more than fifty new items are created only after a yes to one question with count and balance.

    A signal is an answer too, and needs no key after it.
    """
    manifest = project.manifest(51)
    terminal, side = pty.openpty()
    arguments = [sys.executable, "-m", "batcher", "run", str(manifest), "--api-url", provider.url]
    process = subprocess.Popen(
        [*arguments, "--concurrency", "51"], env=project.environment, stdin=side, stdout=side, stderr=side
    )
    os.close(side)
    said = b""
    while b"[y/N]" not in said:
        said += os.read(terminal, 4096)
    if answer is None:
        process.send_signal(signal.SIGINT)
    else:
        os.write(terminal, answer)
    with contextlib.suppress(OSError):  # what Linux says at the end of a terminal
        while chunk := os.read(terminal, 4096):
            said += chunk
    os.close(terminal)
    assert process.wait(30) == code
    refused = b"exit 2: not confirmed: 51 items were not created\r\n  --yes confirms without asking.\r\n"
    assert (refused in said, said.count(b"confirms without asking")) == ((True, 1) if code == 2 else (False, 0))
    assert b"create 51 items for an unknown number of credits (the balance is 1,000,000 credits)?" in said
    assert len(provider.creates) == created


@pytest.mark.parametrize("command", ["show", "status --json", "run lines.csv --json"])
def test_a_reader_that_has_seen_enough(project: Project, provider: FakeTTS, command: str) -> None:
    """A pipe that is closed early is no error, and not taken for one."""
    project.run(project.manifest(3))
    reading, writing = os.pipe()
    os.close(reading)
    where = ["--api-url", provider.url] if command.startswith("run") else []
    ended = subprocess.run(
        [sys.executable, "-m", "batcher", *command.split(), *where],
        cwd=project.folder,
        env=project.environment,
        stdout=writing,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        check=False,
    )
    os.close(writing)
    assert (ended.returncode, "Traceback" in ended.stderr) == (0, False), ended.stderr


def test_status_of_several_batches(project: Project, provider: FakeTTS) -> None:
    """With more than one batch in the ledger, people are told of each in a line; programs get the same keys."""
    project.manifest(2)
    project.manifest([*project.rows(2, first=7), {"id": "e", "text": "", "voice": "anna"}], "more.csv")
    provider.on_create = lambda create: refusal(400, "bad") if "number 7" in create.text else None
    assert project.run("lines.csv", "more.csv", "--skip-empty").exit_code == 3
    told = project.batcher("status").out.splitlines()
    assert told[1] == "2 batches: 5 rows, 4 items"
    assert "  lines: 2 rows: 2 done" in told
    assert "  more: 3 rows: 1 done, 1 rejected, 1 row skipped" in told
    keys = ["batches", "rows", "items", "states", "halt", "credits", "last_run"]
    assert list(project.batcher("status", "--json").report) == keys
