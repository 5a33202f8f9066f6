"""Rows that `--where` leaves out are neither checked nor bought, in no run; a second language has its own batch."""

from __future__ import annotations

import shlex
from typing import Any

from tests.conftest import Project
from tests.support.fake_tts import FakeTTS, audio_of


def _sheet(project: Project, number: int, **columns: str) -> list[dict[str, str]]:
    rows = [row | {"spoken": "TRUE", "fr": f"Ligne {row['id']}."} | columns for row in project.rows(number)]
    rows.append({"id": "cue", "text": "", "voice": "", "spoken": "FALSE", "fr": ""})
    return rows


def _copied(project: Project, err: str, command: str, **how: Any) -> Any:
    """Run the command that a message prints on a line of its own."""
    (line,) = [line.strip() for line in err.splitlines() if line.strip().startswith(f"batcher {command} ")]
    return project.batcher(*shlex.split(line)[1:], **how)


def test_a_forgotten_filter_stops_every_command_that_would_follow_it(project: Project, provider: FakeTTS) -> None:
    """`plan` and `doctor` foresee the refusal, and the printed command works. --save-settings remembers the filter."""
    rows = _sheet(project, 3)
    manifest = project.manifest(rows)
    first = project.run(manifest, "--where", "spoken=TRUE")
    assert (first.exit_code, first.report["rows"], first.report["left_out"]) == (0, 3, 1)
    assert "1 row left out by --where" in first.err
    for command in ("run", "plan", "doctor"):
        refused = project.batcher(command, manifest, "--api-url", provider.url)
        assert refused.exit_code == 2
        assert "had --where spoken=TRUE, and this one has no --where" in refused.out + refused.err
    planned = project.batcher("plan", manifest, "--api-url", provider.url)
    assert f"\n  batcher plan {manifest} --api-url {provider.url} --where spoken=TRUE\n" in planned.out
    again = _copied(project, project.run(manifest).err, "run")
    assert (again.exit_code, again.report["created"], again.report["left_out"]) == (0, 0, 1)
    assert project.run(manifest, "--where", "spoken=TRUE", "--save-settings").exit_code == 0
    assert project.run(manifest).exit_code == 0
    assert len(provider.creates) == 3


def test_a_plan_counts_what_is_left_out(project: Project) -> None:
    """Also in JSON; a wrong value lists those that there are."""
    manifest = project.manifest(_sheet(project, 3))
    planned = project.batcher("plan", manifest, "--where", "spoken=TRUE", "--json", "--sandbox").report
    assert (planned["rows"], planned["left_out"]) == (3, 1)
    planned = project.batcher("plan", manifest, "--where", "spoken=yes", "--sandbox")
    assert planned.exit_code == 2
    assert 'no row has this value (the column has "TRUE", "FALSE")' in planned.out


def test_a_second_language_is_offered_a_batch_of_its_own(project: Project, provider: FakeTTS) -> None:
    """Also if the file has changed; the printed command buys it and leaves the first language alone."""
    rows = _sheet(project, 3)
    manifest = project.manifest(rows)
    options = ("--where", "spoken=TRUE")
    assert project.run(manifest, *options).exit_code == 0
    assert project.run(manifest, *options, "--column", "text=text").exit_code == 0
    rows[0]["text"] += " And more."
    manifest = project.manifest(rows)
    refused = project.run(manifest, *options, "--column", "text=fr")
    assert refused.exit_code == 2
    assert " --batch fr --filename 'fr/{id}.{format}'\n" in refused.err
    assert refused.err.index("another language") < refused.err.index("--rebuy")
    french = _copied(project, refused.err, "run")
    assert (french.exit_code, french.report["batches"], french.report["created"]) == (0, ["fr"], 3)
    assert (project.audio / "fr" / "r2.mp3").read_bytes() == audio_of(rows[1]["fr"], "mp3")
    assert (project.audio / "r2.mp3").read_bytes() == audio_of(rows[1]["text"], "mp3")
    assert project.run(manifest, *options).report["created"] == 1


def test_a_second_language_does_not_take_the_files_of_an_output_column(project: Project, provider: FakeTTS) -> None:
    rows = [{**row, "output": f"x/{row['id']}.mp3", "fr": "Ligne."} for row in project.rows(1)]
    manifest = project.manifest(rows)
    assert project.run(manifest).exit_code == 0
    refused = project.run(manifest, "--column", "text=fr")
    assert "--column text=fr --column output=" in refused.err
    assert _copied(project, refused.err, "run").exit_code == 0
    assert (project.audio / "fr" / "r1.mp3").read_bytes() == audio_of("Ligne.", "mp3")
