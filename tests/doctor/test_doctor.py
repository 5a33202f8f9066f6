"""`doctor` finds problems before they cost anything, and each finding has a hint."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from batcher.doctor.api import _check_host
from batcher.doctor.disk import file_system, synced_folder
from batcher.ledger.storage.spill import Spill
from batcher.sandbox.openapi import DOCUMENT
from tests.support.fake_tts import TOKEN, FakeTTS, Twist, refusal
from tests.support.terminal import Terminal

if TYPE_CHECKING:
    from tests.conftest import Project
    from tests.support.processes import Ended

PROFILE = {"user_id": "user-1", "credits": 10}


def doctor(project: Project, *arguments: str | Path, **how: Any) -> Ended:
    """Run `batcher doctor --json` against the provider."""
    return project.batcher("doctor", *arguments, "--json", "--api-url", project.provider.url, **how)


def levels(ended: Ended) -> dict[str, str]:
    """The worst level of each topic."""
    ranks = ["ok", "hint", "problem"]
    found: dict[str, str] = {}
    for one in ended.report["findings"]:
        found[one["topic"]] = max(found.get(one["topic"], "ok"), one["level"], key=ranks.index)
    return found


def test_a_healthy_project_has_no_problems(project: Project, provider: FakeTTS) -> None:
    """The token shows nowhere; every finding that is not ok has a hint."""
    provider.schema = DOCUMENT
    manifest = project.manifest(2)
    assert project.run(manifest).exit_code == 0
    before = project.ledger.read_bytes()
    ended = doctor(project, manifest)
    assert ended.exit_code == 0, ended
    expected = {"account": "ok", "schema": "ok", "ledger": "ok", "consistency": "ok", "leftovers": "ok", "room": "ok"}
    assert levels(ended) | expected == levels(ended)
    assert all(one["hint"] for one in ended.report["findings"] if one["level"] != "ok")
    assert TOKEN not in ended.out + ended.err
    assert project.ledger.read_bytes() == before
    assert len(provider.creates) == 2


def test_each_setting_has_its_value_and_source(project: Project, provider: FakeTTS) -> None:
    """Option, environment, batcher.toml or default."""
    (project.folder / "batcher.toml").write_text('voice = "anna"\nmax-items = 7\n', encoding="utf-8")
    ended = doctor(project, "--concurrency", "9", environment={"BATCHER_MODEL": "m1", "BATCHER_MAX_ITEMS": "8"})
    found = {one["name"]: (one["value"], one["source"]) for one in ended.report["settings"]}
    assert found["concurrency"] == (9, "flag")
    assert (found["model"], found["max-items"]) == (("m1", "environment"), (8, "environment"))
    assert found["voice"] == ("anna", "batcher.toml")
    assert found["max-in-doubt"] == (5, "default")
    assert found["token"] == (None, "environment")
    words = project.batcher("doctor", "--api-url", provider.url).out
    assert "voice = anna (batcher.toml)" in words
    assert TOKEN not in words


@pytest.mark.parametrize(
    ("answer", "exit_code", "words"),
    [
        (refusal(401, "invalid_token"), 2, "the API rejected the token"),
        (
            Twist(status=403, body=b"<html>Denied</html>", headers={"content-type": "text/html"}),
            2,
            "another host answers in place of the API",
        ),
        (Twist(status=200, body={"credits": 5}), 2, "does not name the account"),
        (refusal(500, "oops"), 8, "cannot read the account's profile"),
        (Twist(), 8, "cannot read the account's profile"),
    ],
    ids=["refused", "edge", "nameless", "error", "unreachable"],
)
def test_each_trouble_with_the_account_has_its_exit_code(
    project: Project, provider: FakeTTS, answer: Twist, exit_code: int, words: str
) -> None:
    """2 if it must be fixed, 8 if it may pass."""
    provider.on_profile = lambda _: answer
    ended = doctor(project)
    assert ended.exit_code == exit_code, ended
    assert [words in one["message"] for one in ended.report["findings"] if one["topic"] == "account"] == [True]


def test_without_a_token_everything_else_is_checked(project: Project, provider: FakeTTS) -> None:
    del project.environment["BATCHER_API_TOKEN"]
    ended = doctor(project)
    assert (ended.exit_code, levels(ended)["token"], levels(ended)["room"]) == (2, "problem", "ok")
    words = project.batcher("doctor", "--api-url", provider.url).out
    assert "differ from their defaults" in words
    assert "nowhere" not in words
    assert provider.api_headers == []


def test_a_manifest_is_checked_like_by_a_run(project: Project) -> None:
    """One that a run would refuse is a problem, with its first errors and a hint; one whose bad rows would be skipped
    is a hint; a good one is reported with its number of rows. No ledger is made, and the sandbox needs none.
    """
    good = project.manifest(2)
    fine = {"id": "x", "text": "Said.", "voice": "anna", "format": "mp3", "take": "1", "speed": "1", "output": "x.mp3"}
    faults = [{name: "\x07"} for name in fine if name != "text"]
    bad = project.manifest([fine | {"id": f"x{n}"} | fault for n, fault in enumerate(faults)], "bad.csv")
    assert "2 rows, 2 items" in project.batcher("doctor", good, "--sandbox").out
    refused = doctor(project, good, bad)
    told = [one for one in refused.report["findings"] if one["topic"] == "manifest"]
    assert (refused.exit_code, {one["level"] for one in told}, len(told)) == (2, {"problem"}, 5)
    assert "bad.csv:2: id" in told[0]["message"]
    assert "--skip-invalid" in told[0]["hint"]
    assert "`batcher plan` lists" in told[0]["hint"]
    skipping = doctor(project, bad, "--skip-invalid")
    assert (skipping.exit_code, levels(skipping)["manifest"]) == (0, "hint")
    assert not project.ledger.exists()


def test_an_edit_that_needs_consent_is_found(project: Project) -> None:
    """A changed default would buy rows again, which a run refuses."""
    manifest = project.manifest([{"id": "a", "text": "Said once."}])
    assert project.run(manifest, "--voice", "anna").exit_code == 0
    assert levels(doctor(project, manifest, "--voice", "anna"))["manifest"] == "ok"
    assert levels(doctor(project, manifest, "--voice", "ben"))["manifest"] == "problem"
    assert levels(doctor(project, manifest, "--voice", "ben", "--rebuy"))["manifest"] == "ok"


def test_settings_are_shown_as_people_write_them(project: Project, provider: FakeTTS) -> None:
    """Those of the tables, too."""
    lines = ['max-runtime = "50m"', 'allow = ["html", "braces"]', "skip-empty = true", "max-credits = 5000"]
    tables = ["[columns]", 'text = "Line"', "[voices]", 'Anna = "5f3c"']
    (project.folder / "batcher.toml").write_text("\n".join([*lines, *tables]), encoding="utf-8")
    told = project.batcher("doctor", "--api-url", provider.url).out
    settings = told.partition("settings that differ from their defaults:\n")[2]
    for shown in (
        "max-runtime = 50m",
        "allow = html, braces",
        "skip-empty = true",
        "max-credits = 5000",
        "[columns] text = Line",
        "[voices] Anna = 5f3c",
    ):
        assert f"         {shown} (batcher.toml)\n" in settings
    found = {one["name"]: one["value"] for one in doctor(project).report["settings"]}
    assert (found["max-runtime"], found["allow"], found["[voices] Anna"]) == (3000.0, "html, braces", "5f3c")


def test_a_halt_is_a_problem_with_the_credits_that_it_takes(project: Project, provider: FakeTTS) -> None:
    provider.credits = 2
    manifest = project.manifest(4)
    assert project.run(manifest, "--concurrency", "1").exit_code == 4
    ended = doctor(project)
    (halt,) = (one for one in ended.report["findings"] if one["topic"] == "halt")
    assert (ended.exit_code, halt["level"]) == (2, "problem")
    assert "0 credits left then; the next item needs about 1, all 2 items to go about 2" in halt["message"]
    assert "Top up the API credits" in halt["hint"]
    provider.credits = 100
    assert project.run(manifest).exit_code == 0
    assert "halt" not in levels(doctor(project))


def test_the_reason_of_an_unreachable_api_is_given_once(project: Project, provider: FakeTTS) -> None:
    """In words, and with what to do; also if each request fails in its own way. `plan` says the same."""
    where = ("--api-url", "http://127.0.0.1:9/api/open/v1")
    ended = project.batcher("doctor", *where)
    assert ended.exit_code == 8
    assert ended.out.count("cannot reach the API at http://127.0.0.1:9 (connection refused)") == 1
    assert ended.out.count("Nothing listens at that address: check --api-url.") == 1
    assert "schema" not in ended.out
    planned = project.batcher("plan", project.manifest(1), *where)
    assert "balance: unknown, cannot reach the API at http://127.0.0.1:9 (connection refused). Nothing" in planned.out
    provider.on_profile = lambda _: refusal(502, "bad_gateway")
    provider.schema = {}
    ended = project.batcher("doctor", "--api-url", provider.url)
    assert (ended.exit_code, ended.out.count("HTTP 502"), "schema:" in ended.out) == (8, 1, False)


def test_creates_in_doubt_lead_to_resolve(project: Project, provider: FakeTTS) -> None:
    provider.on_create = lambda _: Twist()
    manifest = project.manifest(1)
    project.run(manifest)
    (told,) = (one for one in doctor(project, manifest).report["findings"] if one["topic"] == "doubt")
    assert (told["level"], told["message"].startswith("1 create in doubt")) == ("hint", True)
    assert "batcher resolve" in told["hint"]


def test_a_wrong_clock_and_an_unexpected_schema_are_found(project: Project, provider: FakeTTS) -> None:
    """The clock's difference from the server's is shown; a schema without the paths in use is a problem, one with a
    listing is a hint.
    """
    dated = Twist(status=200, body=PROFILE, headers={"date": "Tue, 01 Jan 2019 00:00:00 GMT"})
    provider.on_profile = lambda _: dated
    provider.schema = json.loads(json.dumps(DOCUMENT))
    provider.schema["paths"]["/speech/tts/jobs"]["get"] = {}
    ended = doctor(project)
    assert (ended.exit_code, levels(ended)["clock"], levels(ended)["schema"]) == (0, "hint", "hint")
    assert any("can list speech tasks" in one["message"] for one in ended.report["findings"])
    del provider.schema["paths"]["/profile"]
    ended = doctor(project)
    assert (ended.exit_code, levels(ended)["schema"]) == (2, "problem")
    assert any("GET /profile" in one["message"] for one in ended.report["findings"])


INCONSISTENT: Final = {
    "UPDATE items SET state = 'failed'": "not in the state that their last event led to",
    "UPDATE files SET saved_at = NULL": "items are done but have no saved file",
    "UPDATE attempts SET outcome = NULL, answered_at = NULL": "are not waiting for one",
    "DELETE FROM tasks": "refers to a missing row of tasks",
    "DELETE FROM events": "have no recorded event",
    "UPDATE rows SET output = 'one.mp3'": "more than one row",
    "UPDATE alembic_version SET version_num = '9999'": "newer batcher",
}


def test_an_inconsistent_ledger_is_found(project: Project, provider: FakeTTS) -> None:
    """Whichever table somebody has written to."""
    assert project.run(project.manifest(2)).exit_code == 0
    good = project.ledger.read_bytes()
    for sql, words in INCONSISTENT.items():
        project.ledger.write_bytes(good)
        with closing(sqlite3.connect(project.ledger)) as connection, connection:
            connection.execute(sql)
        ended = doctor(project)
        assert ended.exit_code == 2, ended
        assert any(words in one["message"] for one in ended.report["findings"]), ended


def test_a_damaged_ledger_is_a_problem_with_a_hint(project: Project, provider: FakeTTS) -> None:
    assert project.run(project.manifest(40)).exit_code == 0
    data = bytearray(project.ledger.read_bytes())
    for start in range(4096 * 3, len(data) - 4096, 4096 * 3):
        data[start : start + 400] = b"\xff" * 400
    project.ledger.write_bytes(data)
    ended = doctor(project)
    assert ended.exit_code == 2, ended
    assert any("damaged" in one["message"] or "cannot be read" in one["message"] for one in ended.report["findings"])


def test_leftovers_are_named_and_stay(project: Project, provider: FakeTTS) -> None:
    """Unfinished downloads, spilled answers, old backups."""
    assert project.run(project.manifest(1)).exit_code == 0
    part = project.audio / ".items" / "ab" / ".x.mp3.part"
    part.parent.mkdir(exist_ok=True)
    part.write_bytes(b"half")
    stray = project.folder / "batcher.db-wal.stray-20200101T000000"
    stray.write_bytes(b"")
    Spill(project.folder / "batcher.db.spill").reserve()
    found = [one["message"] for one in doctor(project).report["findings"] if one["topic"] == "leftovers"]
    assert [words in "; ".join(found) for words in ("unfinished download", "set aside", "answer")] == [
        True,
        True,
        False,
    ]
    assert part.exists()
    assert stray.exists()


@pytest.mark.parametrize(("set_to", "coloured"), [(None, True), ("1", False)])
def test_levels_are_coloured_only_on_a_terminal(project: Project, set_to: str | None, coloured: bool) -> None:
    """Unless NO_COLOR is set."""
    project.environment.pop("NO_COLOR", None)
    project.environment |= {} if set_to is None else {"NO_COLOR": set_to}
    terminal = Terminal(project, "doctor", "--api-url", project.provider.url)
    assert terminal.end() == 0
    assert ("\x1b[" in terminal.said) is coloured
    assert "\x1b[" not in doctor(project).out + project.batcher("doctor", "--api-url", project.provider.url).out


MOUNTS = """/dev/sda1 / ext4 rw 0 0
host:/share /srv nfs4 rw 0 0
tmpfs /srv/my\\040books tmpfs rw 0 0
broken
sshfs /home/me/far fuse.sshfs rw 0 0
"""


def test_the_nearest_mount_above_names_the_file_system() -> None:
    """Its path may contain spaces."""
    found = [file_system(Path(path), MOUNTS) for path in ("/a/b", "/srv/x", "/srv/my books/x", "/home/me/far", "/srvx")]
    assert found == ["ext4", "nfs4", "tmpfs", "fuse.sshfs", "ext4"]
    assert file_system(Path("/a"), "") is None


def test_synced_folders_are_known_by_name() -> None:
    assert synced_folder(Path("/Users/me/Library/Mobile Documents/x")) == "Mobile Documents"
    assert synced_folder(Path("/home/me/OneDrive - Firm/books")) == "OneDrive - Firm"
    assert synced_folder(Path("/home/me/books")) is None


@pytest.mark.parametrize(
    ("url", "level"),
    [
        ("https://fishaudio.org/api/open/v1", "ok"),
        ("https://eu.fishaudio.org/api/open/v1", "ok"),
        ("https://fishaudio.org/v1", "hint"),
        ("https://fishaudi0.org/api/open/v1", "problem"),
        ("https://fish-audio.org/api/open/v1", "problem"),
        ("https://speech.example/api/open/v1", "hint"),
    ],
)
def test_a_host_that_resembles_the_providers_is_a_problem(url: str, level: str) -> None:
    """The token would go there."""
    assert _check_host(url).level == level
