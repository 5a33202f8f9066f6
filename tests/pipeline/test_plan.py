"""`plan` shows what a run would do and cost, and does none of it."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from batcher.audio.content import digest
from batcher.manifest.reader import Manifest
from batcher.manifest.rules import Rules
from tests.conftest import Project
from tests.support.fake_tts import HTML_404, FakeTTS, Twist, refusal

ROOT = Path(__file__).parents[2]


def _plan(project: Project, *arguments: Any) -> Any:
    return project.batcher("plan", *arguments, "--api-url", project.provider.url, "--json").report


def test_a_plan_before_the_first_run_leaves_nothing_behind(project: Project, provider: FakeTTS) -> None:
    """No task and no ledger; the price is estimated by the provider's rule."""
    rows = [*project.rows(3), {"id": "twin", "text": "Line number 1 of the script.", "voice": "anna"}]
    manifest = project.manifest(rows)
    found = _plan(project, manifest)
    assert (found["rows"], found["items"], found["shared"], found["new"]) == (4, 3, 1, 3)
    assert (found["estimate"]["credits"], found["estimate_source"]) == (3 * 14, "price rule")
    assert (found["suffices"], found["stops_after"]) == (None, None)
    told = project.batcher("plan", manifest, "--api-url", provider.url)
    assert "about 42 credits by the provider's price rule (some models cost more: `batcher help account`)" in told.out
    probe = f"  batcher run {manifest} --api-url {provider.url} --max-items 1\n"
    assert f"To find out the price, create one item:\n{probe}" in told.out
    assert found["balance"] == provider.credits
    assert f"balance: {provider.credits:,.0f} credits\n" in told.out
    provider.credits = 41
    assert (
        "balance: 41 credits, probably not enough\n" in project.batcher("plan", manifest, "--api-url", provider.url).out
    )
    assert found["columns_sent"] == {"id": "id", "text": "text", "voice": "voice"}
    assert provider.creates == []
    assert list(project.folder.iterdir()) == [manifest]


def test_a_plan_after_a_run_estimates_costs_and_names_changes(project: Project, provider: FakeTTS) -> None:
    """It also counts the items that the balance pays for."""
    rows = project.rows(4)
    assert project.run(project.manifest(rows)).exit_code == 0
    rows[0]["text"] += " And more."
    rows[1]["voice"] = "ben"
    provider.credits = 4.5
    manifest = project.manifest([*rows, *project.rows(6, first=5)])
    found = _plan(project, manifest)
    assert (found["new"], found["done"]) == (8, 2)
    assert found["changed"] == {"text": ["r1"], "voice": ["r2"]}
    assert 7.9 < found["estimate"]["credits"] < 9
    assert (found["suffices"], found["stops_after"]) == (False, 4)
    told = project.batcher("plan", manifest, "--api-url", provider.url)
    assert "voice changed since the last run in 1 row: r2" in told.out
    assert "columns used" not in told.out
    assert "enough for about 4 items" in told.out
    assert len(provider.creates) == 4


def test_a_plan_lists_voices_with_their_rows_and_parameters_with_their_values(project: Project) -> None:
    """So a typo stands out, and so does a column that became a parameter. Unchanged rows count too."""
    rows = [row | {"voice": "en-us", "speed": f"0.{i}", "language": "de"} for i, row in enumerate(project.rows(6), 1)]
    assert project.run(project.manifest(rows)).exit_code == 0
    rows[5]["voice"] = "Anna"
    manifest = project.manifest([*rows, project.rows(1, first=7)[0] | {"voice": "en-us", "speed": "", "language": ""}])
    planned = project.batcher("plan", manifest, "--model", "s2", "--rebuy", "--api-url", project.provider.url).out
    assert "voices: en-us 6, Anna 1\n" in planned
    assert "parameters: engineModelId s2; format mp3; language de; speed 0.1, 0.2, 0.3, 0.4 and 2 more\n" in planned
    found = _plan(project, manifest)
    assert found["voices"] == {"en-us": 6, "Anna": 1}
    assert found["parameters"]["format"] == {"values": {"mp3": 7}, "distinct": 1}
    assert found["parameters"]["language"] == {"values": {"de": 6}, "distinct": 1}
    assert found["parameters"]["speed"]["distinct"] == 6


def test_a_plan_shows_an_estimate_without_a_range_as_one_number(project: Project, provider: FakeTTS) -> None:
    """Carried columns are named as a run names them."""
    manifest = project.manifest([row | {"note": "x"} for row in project.rows(4, first=10)])
    assert project.run(manifest, "--max-items", "1").exit_code == 6
    told = project.batcher("plan", manifest, "--api-url", provider.url).out
    assert re.search(r"characters, about 3 credits$", told, re.MULTILINE)
    assert "columns used: id, text, voice; only copied to the results: note\n" in told


def test_a_plan_exits_like_the_run_it_predicts(project: Project, provider: FakeTTS) -> None:
    """2 with errors, or where --rebuy would be needed. `run --dry-run` is the same."""
    rows = [{"id": row["id"], "text": row["text"]} for row in project.rows(2)]
    manifest = project.manifest(rows)
    assert project.run(manifest, "--voice", "anna").exit_code == 0
    for command in (("plan",), ("run", "--dry-run")):
        wanted = project.batcher(*command, manifest, "--voice", "ben", "--api-url", provider.url)
        assert wanted.exit_code == 2
        assert "voice from anna to ben" in wanted.out
        assert project.batcher(*command, manifest, "--voice", "anna", "--api-url", provider.url).exit_code == 0
    faulty = project.batcher("plan", manifest, "--api-url", provider.url)
    assert faulty.exit_code == 2
    assert "no voice" in faulty.out
    assert len(provider.creates) == 2


def test_batcher_dry_run_makes_a_run_plan_only(project: Project, provider: FakeTTS) -> None:
    dry = project.batcher("run", project.manifest(2), "--api-url", provider.url, environment={"BATCHER_DRY_RUN": "1"})
    assert (dry.exit_code, provider.creates, project.ledger.exists()) == (0, [], False)
    assert "2 items" in dry.out


def test_a_plan_counts_nothing_of_a_manifest_with_errors(project: Project) -> None:
    """Its errors and a hint are shown; no number claims to be 0, or to suffice. Other manifests are counted."""
    good = project.manifest(2)
    assert project.run(good).exit_code == 0
    twice = project.manifest([{"id": "x", "text": "Said.", "voice": "anna"}] * 2, "twice.csv")
    misspelt = project.manifest([{"id": "y", "txet": "Said.", "voice": "anna"}], "misspelt.csv")
    for manifest, hint in ((twice, "or pass --skip-invalid"), (misspelt, "cannot skip all"), ("no.csv", "no.csv")):
        told = project.batcher("plan", manifest, "--api-url", project.provider.url)
        assert told.exit_code == 2
        assert hint in told.out
        assert "Nothing will be created until then." in told.out
        assert not [words for words in ("0 rows", "0  new", "about 0", "enough") if words in told.out]
    assert project.batcher("plan", twice, "--skip-invalid", "--api-url", project.provider.url).exit_code == 0
    assert project.batcher("plan", misspelt, "--skip-invalid", "--api-url", project.provider.url).exit_code == 2
    found = _plan(project, good, twice)
    assert (found["rows"], list(found["refused"]), found["suffices"]) == (2, ["twice"], None)
    told = project.batcher("plan", good, twice, "--api-url", project.provider.url)
    assert "twice has errors; fix them first." in told.out
    assert "2 rows, 2 items" in told.out


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (refusal(401, "invalid_token"), "the API rejected the token"),
        (Twist(status=200, body={"user_id": "user-1"}), "the profile has no balance"),
        (Twist(), "cannot read the account's profile at http://127.0.0.1:"),
        (HTML_404, "another host answers in place of the API at http://127.0.0.1:"),
    ],
    ids=["refused", "without", "dropped", "another host"],
)
def test_a_plan_gives_the_reason_for_a_missing_balance(
    project: Project, provider: FakeTTS, answer: Twist, words: str
) -> None:
    """The rest of it stays the same."""
    provider.on_profile = lambda _: answer
    told = project.batcher("plan", project.manifest(2), "--api-url", provider.url)
    assert told.exit_code == 0
    assert f"balance: unknown, {words}" in told.out
    assert "2 rows, 2 items" in told.out


def test_a_plan_works_beside_a_run_and_without_a_token(project: Project, provider: FakeTTS) -> None:
    """Without a token the balance is unknown."""
    provider.task_seconds = 600.0
    manifest = project.manifest(2)
    started = project.start_run(manifest)
    provider.until(lambda: len(provider.creates) == 2)
    environment = {"BATCHER_API_TOKEN": ""}
    found = project.batcher("plan", manifest, "--json", environment=environment)
    assert found.exit_code == 0
    assert (found.report["new"], found.report["balance"]) == (0, None)
    provider.end_tasks()
    assert started.end().exit_code == 0


def test_a_plan_writes_nothing(project: Project) -> None:
    """Neither for a changed manifest nor on a ledger in use."""
    rows = project.rows(4)
    project.run(project.manifest(rows))
    rows[0]["text"] += " And more."
    manifest = project.manifest([*rows, *project.rows(2, first=5)])

    def files() -> dict[Path, str]:
        journal = ("-wal", "-shm")  # a reader's are empty
        found = (path for path in project.folder.rglob("*") if path.is_file() and not path.name.endswith(journal))
        return {path: digest(path) for path in found}

    before = files()
    assert _plan(project, manifest)["new"] == 3
    assert files() == before


def test_manifests_are_planned_together(project: Project) -> None:
    """An item in two manifests counts once, and an output claimed by both is found."""
    one, two = (project.folder / f"{name}.csv" for name in ("one", "two"))
    one.write_text("id,text,voice\na,Same.,anna\nb,First.,anna\n")
    two.write_text("id,text,voice\nc,Same.,anna\nd,Second.,anna\n")
    found = _plan(project, one, two)
    assert (found["rows"], found["items"], found["shared"], found["new"]) == (4, 3, 1, 3)
    two.write_text("id,text,voice\na,Same.,anna\nd,Second.,anna\n")
    told = project.batcher("plan", one, two, "--api-url", project.provider.url)
    assert told.exit_code == 2
    assert 'two.csv:2: output: "a.mp3" belongs to batch "one"' in told.out


@pytest.mark.file_ledger
def test_an_unchanged_file_is_planned_from_the_ledger(project: Project) -> None:
    """Without reading it, and with the same result. Its times must be old enough, as those of the sample are."""
    manifest = project.folder / "welcome.csv"
    manifest.symlink_to(ROOT / "sample_inputs" / "welcome.csv")
    assert project.run(manifest, "--max-items", "2").exit_code == 6
    found = _plan(project, manifest)
    assert (found["rows"], found["done"]) == (10, 2)
    assert found == _plan(project, manifest, "--rescan")
    [(stored,)] = project.query("SELECT value FROM meta WHERE name LIKE 'reading %'")
    with closing(sqlite3.connect(project.ledger)) as connection, connection:
        marked = json.dumps(json.loads(stored) | {"left_out": 7})
        connection.execute("UPDATE meta SET value = ? WHERE name LIKE 'reading %'", (marked,))
    assert _plan(project, manifest)["left_out"] == 7
    assert _plan(project, manifest, "--rescan")["left_out"] == 0


def test_a_plan_with_nothing_to_create_says_so(project: Project, provider: FakeTTS) -> None:
    """Whether all is done, tasks are open, or rows need attention."""
    rows = project.rows(2)
    manifest = project.manifest(rows)

    def told() -> str:
        return project.batcher("plan", manifest, "--api-url", provider.url).out

    assert project.run(manifest, "--no-wait").exit_code == 6
    assert "nothing to create: a run collects 2 open items at no cost\n" in told()
    assert project.run(manifest).exit_code == 0
    assert "nothing to do: all rows are done or settled\n" in told()
    assert "0 characters" not in told()
    provider.on_create = lambda _: refusal(400, "invalid_text")
    project.manifest([*rows, *project.rows(1, first=3)])
    assert project.run(manifest).exit_code == 3
    assert "nothing to create: 1 item needs attention, and a run does not create it again\n" in told()


def test_columns_are_described_only_where_something_was_decided(tmp_path: Path) -> None:
    """Not where each has the name of a field or was named by the user. At most 12 are listed, in printable form."""

    def described(header: str, **rules: Any) -> list[str]:
        file = tmp_path / "lines.csv"
        file.write_text(f"{header}\n{','.join('x' * (header.count(',') + 1))}\n")
        manifest = Manifest(file, Rules(batch="lines", **rules))
        list(manifest.rows())
        return manifest.description()

    assert described("ID,Text,voice") == []
    assert described("id,Line,voice", columns={"text": "Line"}) == []
    assert described("id,text,voiceId") == ["columns used: id, text, voiceId (as voice)"]
    carried = ",".join(f"c{number}" for number in range(14))
    listed = ", ".join(f"c{number}" for number in range(12))
    line = f"columns used: id, text, voice; only copied to the results: {listed}, … (2 more)"
    assert described(f"id,text,voice,{carried}") == [line]
    assert described("id,text,voice,no\x07te")[0].endswith("no\\x07te")
    assert "outputs are named by row number" in described("text,voice")[0]
    assert described("text,voice,output") == []
