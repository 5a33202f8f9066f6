"""Voices, models and parameters are checked before anything is bought with them, and no failed check stops a run."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from batcher.clock import Clock
from batcher.pipeline.catalogue import CACHE_SECONDS, Catalogue
from batcher.provider.client import Client
from batcher.provider.endpoint import Endpoint
from tests.support.fake_tts import HTML_404, TOKEN, FakeTTS, Twist, refusal

if TYPE_CHECKING:
    from tests.conftest import Project

SCHEMA = "/api/openapi.json"
LIST = "/api/open/v1/voices"
MODELS = "/api/open/v3/speech/tts/capabilities"


def _direct(voice: str) -> str:
    return f"/api/open/v3/voices/{voice}"


def _mixed(project: Project) -> list[dict[str, str]]:
    """Five rows; the second and the third have a voice that does not exist."""
    rows = project.rows(5)
    for row in rows[1:3]:
        row["voice"] = "annna"
    return rows


def _plan(project: Project, *arguments: Any) -> Any:
    return project.batcher("plan", *arguments, "--api-url", project.provider.url, "--json").report


def test_rows_with_an_unknown_voice_are_faults_of_the_manifest(project: Project, provider: FakeTTS) -> None:
    """Nothing is created and the run exits 2, until the voice is fixed. A plan says the same."""
    provider.voices = ("anna",)
    provider.publish_direct_reads()
    manifest = project.manifest(_mixed(project))
    plan = _plan(project, manifest)
    fault = 'lines.csv:3: voice: the API has no voice "annna": use the id of another one (and 1 more row: line 4)'
    assert (plan["faults"], list(plan["refused"])) == ([str(manifest.parent / fault)], ["lines"])
    ended = project.run(manifest)
    assert (ended.exit_code, ended.report["created"], provider.creates) == (2, 0, [])
    assert fault in ended.err
    assert "2 rows with an unknown voice; nothing was created" in ended.report["message"]
    assert "`batcher voices` lists voices" in ended.err
    found = project.batcher("doctor", manifest, "--api-url", provider.url)
    assert (found.exit_code, fault in found.out) == (2, True)
    provider.voices = ("anna", "annna")  # what does not exist is never remembered
    assert project.run(manifest).exit_code == 0


def test_skip_invalid_leaves_out_only_the_rows_with_an_unknown_voice(project: Project, provider: FakeTTS) -> None:
    """In each run, until the voice exists. A quiet run says it once."""
    provider.voices = ("anna",)
    provider.publish_direct_reads()
    rows = _mixed(project)
    manifest = project.manifest(rows)
    plan = _plan(project, manifest, "--skip-invalid")
    assert (plan["refused"], plan["new"], plan["skipped"], plan["items"]) == ({}, 3, 2, 3)
    for created, told in ((3, True), (0, False)):
        ended = project.run(manifest, "--skip-invalid", "--quiet")
        assert (ended.exit_code, ended.report["created"]) == (3, created)
        assert ("skipped: " in ended.err) == told
    assert [line["state"] for line in project.results()] == ["done", "invalid", "invalid", "done", "done"]
    assert project.results()[1]["error"]["code"] == "invalid"
    provider.voices = ("anna", "annna")
    ended = project.run(manifest, "--skip-invalid")
    assert (ended.exit_code, ended.report["created"]) == (0, 2)
    project.assert_whole(rows)


def test_open_tasks_are_collected_although_a_voice_is_unknown(project: Project, provider: FakeTTS) -> None:
    provider.voices = ("anna",)
    provider.publish_direct_reads()
    rows = _mixed(project)
    manifest = project.manifest([rows[0], *rows[3:]])
    assert project.run(manifest, "--no-wait").exit_code == 6
    ended = project.run(project.manifest(rows))
    assert (ended.exit_code, ended.report["created"], ended.report["collected"]) == (2, 0, 3)


def test_a_voice_missing_from_the_list_is_a_warning(project: Project, provider: FakeTTS) -> None:
    """Without direct reads it is bought all the same."""
    provider.voices = (*(f"voice-{number}" for number in range(150)), "anna")
    manifest = project.manifest(_mixed(project))
    warning = 'warning: voice "annna" is not in the API\'s list of voices; `batcher voices` shows it'
    assert _plan(project, manifest)["warnings"] == [f"{warning} (2 rows, about 28 credits)"]
    ended = project.run(manifest)
    assert (ended.exit_code, ended.report["created"]) == (0, 5)
    assert f"{warning} (2 rows, about 28 credits)\n" in ended.err
    found = project.batcher("doctor", project.manifest(project.rows(1, first=9)), "--api-url", provider.url)
    assert "is not in" not in found.out


def test_a_voice_that_only_a_direct_read_finds_is_known(project: Project, provider: FakeTTS) -> None:
    provider.voices, provider.unlisted = ("anna",), ("annna",)
    provider.publish_direct_reads()
    ended = project.run(project.manifest(_mixed(project)))
    assert (ended.exit_code, "warning" in ended.err) == (0, False)


@pytest.mark.parametrize("listed", [("anna",), ("other",)])
def test_direct_reads_that_find_no_voice_at_all_prove_nothing(
    project: Project, provider: FakeTTS, listed: tuple[str, ...]
) -> None:
    """A 404 is then about the path, so a voice is unknown only to the list."""
    provider.voices = listed
    provider.publish_direct_reads()
    provider.on_catalogue = lambda path: refusal(404, "no_such_path") if path.startswith(_direct("")) else None
    ended = project.run(project.manifest(_mixed(project)))
    assert (ended.exit_code, ended.report["created"]) == (0, 5)
    assert ended.err.count("is not in the API's list of voices") == (1 if listed == ("anna",) else 2)


@pytest.mark.parametrize(
    "twist",
    [
        HTML_404,
        refusal(401, "invalid_token"),
        refusal(429, "rate_limited"),
        refusal(500, "oops"),
        Twist(),
        Twist(status=200, body={"items": 7, "voices": {}, "models": [1], "paths": [2], "total": "x"}),
        Twist(status=200, body=b"[1, 2"),
    ],
)
@pytest.mark.parametrize("direct", [False, True])
def test_reads_that_fail_stop_no_run(project: Project, provider: FakeTTS, twist: Twist, direct: bool) -> None:
    """Nor do they warn of anything."""
    provider.publish_direct_reads()
    provider.on_catalogue = lambda path: None if direct and path == SCHEMA else twist
    ended = project.run(project.manifest(_mixed(project)))
    assert (ended.exit_code, ended.report["created"], "warning" in ended.err) == (0, 5, False)


def test_answers_are_cached_and_a_run_with_nothing_to_create_asks_nothing(project: Project, provider: FakeTTS) -> None:
    """New rows with a known voice are checked without a read."""
    provider.voices = ("anna", "bert")
    provider.publish_direct_reads()
    assert project.run(project.manifest(2)).exit_code == 0
    assert sorted(provider.catalogue_reads) == sorted([SCHEMA, MODELS, _direct("anna")])
    provider.catalogue_reads.clear()
    assert project.run(project.folder / "lines.csv").exit_code == 0
    rows = project.rows(3)
    assert project.run(project.manifest(rows)).exit_code == 0
    assert [path for path in provider.catalogue_reads if path != MODELS] == []  # an empty list of models is no answer
    rows.append({"id": "b", "text": "Bert's line.", "voice": "bert"})
    assert project.run(project.manifest(rows)).exit_code == 0
    assert [path for path in provider.catalogue_reads if path != MODELS] == [_direct("bert")]


@pytest.mark.file_ledger
def test_an_unchanged_manifest_is_checked_once(project: Project, provider: FakeTTS) -> None:
    """Although items are still to be created. With a ledger on a server, in which nothing is cached, each run asks."""
    provider.voices = ("bert",)
    manifest = project.manifest(3)
    assert "is not in the API's list" in project.run(manifest, "--max-items", "1").err
    provider.catalogue_reads.clear()
    assert "is not in the API's list" not in project.run(manifest, "--max-items", "1").err
    assert provider.catalogue_reads == []


class _Later(Clock):
    """A clock that is ahead by some seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def now(self) -> float:
        return time.time() + self._seconds


@pytest.mark.parametrize(("seconds", "reads"), [(CACHE_SECONDS - 60, 0), (CACHE_SECONDS + 60, 3), (-3600.0, 3)])
async def test_cached_answers_hold_for_a_day(provider: FakeTTS, seconds: float, reads: int) -> None:
    """Those from the future, after a clock was set back, do not hold."""
    provider.voices, provider.models = ("anna",), [{"modelId": "m1", "controls": {"speed": {}}}]
    provider.publish_direct_reads()
    async with Client(Endpoint(provider.url, TOKEN), create_connections=1) as client:
        first = Catalogue(client, Clock(), None)
        verdict = await first.check({"anna"})
        provider.catalogue_reads.clear()
        again = await Catalogue(client, _Later(seconds), first.cached).check({"anna"})
    assert (again.voices.keys(), again.models, again.unknown) == (verdict.voices.keys(), verdict.models, frozenset())
    assert len(provider.catalogue_reads) == reads


CONTROLS = {"speed": {"min": 0.5}, "emotion": {"supported": False}, "pitch": False, "stability": None}


@pytest.mark.parametrize(
    ("row", "warning"),
    [
        ({"model": "fishaudio-s9", "emotion": "happy"}, "model fishaudio-s9 is not among the API's models: m1, m2"),
        ({"model": "m2"}, "the API reports the model m2 as not available"),
        ({"model": "m2"}, "voice anna does not list the model m2"),
        (
            {"model": "m1", "emotion": "happy", "pitch": "2"},
            "model m1 ignores emotion, pitch, and charges all the same",
        ),
        ({"stability": "1"}, "every model ignores stability, and charges all the same"),
    ],
)
def test_what_a_model_lacks_is_told_with_rows_and_cost(
    project: Project, provider: FakeTTS, row: dict[str, str], warning: str
) -> None:
    """It is bought all the same."""
    provider.voices, provider.voice_models = ("anna",), ("m1",)
    provider.models = [
        {"modelId": "m1", "available": True, "controls": CONTROLS},
        {"modelId": "m2", "available": False, "controls": {"speed": True, "emotion": True}},
    ]
    provider.publish_direct_reads()
    plain = project.rows(1, first=9)[0] | dict.fromkeys(row, "")
    manifest = project.manifest([one | row for one in project.rows(2)] + [plain])
    told = [line.replace('"', "") for line in _plan(project, manifest)["warnings"]]
    assert f"warning: {warning} (2 rows, about 28 credits)" in told
    ended = project.run(manifest)
    assert (ended.exit_code, ended.report["created"]) == (0, 3)
    assert f"warning: {warning} (2 rows, about 28 credits)" in ended.err.replace('"', "")


def test_known_rules_warn_where_the_api_publishes_no_models(project: Project) -> None:
    """A parameter that the model is known to ignore."""
    rows = [row | {"model": "qwen3-tts-flash", "stability": "1", "pitch": "2"} for row in project.rows(2)]
    ended = project.run(project.manifest(rows))
    assert 'model "qwen3-tts-flash" ignores stability, and charges all the same (2 rows, about 28 c' in ended.err
    assert ended.exit_code == 0


def test_voices_are_listed_and_searched(project: Project, provider: FakeTTS) -> None:
    """Page by page, up to the limit."""
    provider.voices = tuple(f"voice-{number:03}" for number in range(230))
    everything = project.batcher("voices", "--api-url", provider.url, "--limit", "999", "--json").report["voices"]
    assert [voice["id"] for voice in everything] == list(provider.voices)
    assert everything[0] == {"id": "voice-000", "name": "Voice-000", "provider": "fish"}
    some = project.batcher("voices", "--api-url", provider.url, "--limit", "2")
    assert some.out == "voice-000  Voice-000  fish\nvoice-001  Voice-001  fish\n"
    assert some.err == "2 of 230 voices; search, or raise --limit\n"
    assert project.batcher("voices", "229", "--api-url", provider.url).out.split()[0] == "voice-229"
    none = project.batcher("voices", "nobody", "--api-url", provider.url)
    assert (none.exit_code, none.out, none.err) == (0, "", "no matching voices\n")


@pytest.mark.parametrize(
    ("twist", "code", "words"),
    [
        (refusal(401, "invalid_token"), 5, "create one at https://fishaudio.org/en/account?section=api"),
        (HTML_404, 8, "cannot read the list of voices"),
        (refusal(500, "oops"), 8, "cannot read the list of voices"),
    ],
)
def test_voices_that_cannot_be_read_are_an_error(
    project: Project, provider: FakeTTS, twist: Twist, code: int, words: str
) -> None:
    provider.on_catalogue = lambda _: twist
    ended = project.batcher("voices", "--api-url", provider.url)
    assert (ended.exit_code, words in ended.err) == (code, True)


def test_voices_of_the_sandbox_need_no_token_and_leave_nothing(project: Project) -> None:
    listed = project.batcher("voices", "EN-US", "--sandbox", "--json", environment={"BATCHER_API_TOKEN": ""})
    assert "en-us" in [voice["id"] for voice in listed.report["voices"]]
    assert list(project.folder.iterdir()) == []
