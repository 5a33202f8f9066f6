"""The sandbox over a real socket: the provider's shapes and refusals, durable charges, and audible speech."""

from __future__ import annotations

import array
import csv
import io
import json
import math
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from batcher.cli.commands.help import topic_text
from batcher.cli.commands.sandbox import sandbox
from batcher.errors import UsageError
from batcher.sandbox.audio import render
from batcher.sandbox.host import Running, running, serve
from batcher.sandbox.options import SandboxOptions
from batcher.sandbox.requests import SpeechRequest
from batcher.sandbox.speech import Command, engine
from batcher.sandbox.store import Store, top_up
from tests.conftest import Project

SAMPLES = Path(__file__).parents[2] / "sample_inputs"
MAGIC = {"mp3": (b"\xff", b"ID3"), "wav": (b"RIFF",), "opus": (b"OggS",), "ogg": (b"OggS",), "pcm": (b"",)}


class Caller:
    """A client of one running sandbox."""

    def __init__(self, sandbox: Running) -> None:
        self.http = httpx.Client(headers={"Authorization": f"Bearer {sandbox.token}"}, trust_env=False, verify=False)
        self.stranger = httpx.Client(trust_env=False, verify=False)  # whoever has an audio URL, without a token
        self.url = sandbox.url
        self._jobs = f"{sandbox.url}/speech/tts/jobs"

    def create(self, text: str = "Hello there.", voice: str = "en-us", **more: Any) -> httpx.Response:
        """Send one create."""
        return self.http.post(self._jobs, json={"text": text, "voiceId": voice, "format": "mp3"} | more)

    def read(self, task_id: str) -> httpx.Response:
        """Poll a task once."""
        return self.http.get(f"{self._jobs}/{task_id}")

    def ended(self, task_id: str) -> dict[str, Any]:
        """Poll a task until it has ended."""
        while True:
            task: dict[str, Any] = self.read(task_id).json()["task"]
            if task["status"] in ("completed", "failed"):
                return task

    def spoken(self, text: str, **more: Any) -> bytes:
        """The audio of a text."""
        created = self.create(text, **more)
        assert created.status_code == 202, created.text
        return self.stranger.get(self.ended(created.json()["task"]["id"])["audioUrl"]).content

    def profile(self) -> dict[str, Any]:
        """Read the account."""
        found: dict[str, Any] = self.http.get(f"{self.url}/profile").json()
        return found


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Path of a sandbox's store."""
    return tmp_path / "tasks.db"


@contextmanager
def calling(store: Path, **options: Any) -> Iterator[Caller]:
    """A client of a quick sandbox on that store."""
    with running(store, SandboxOptions(speed=1000, **options)) as sandbox:
        caller = Caller(sandbox)
        with caller.http, caller.stranger:
            yield caller


@pytest.fixture(scope="module")
def caller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    """A client of a quick, healthy sandbox, shared by tests that only add tasks."""
    with calling(tmp_path_factory.mktemp("sandbox") / "tasks.db") as caller:
        yield caller


def _loudness(samples: bytes) -> float:
    numbers = array.array("h", samples)
    return math.sqrt(sum(number * number for number in numbers) / len(numbers))


def _sounds(data: bytes) -> bytes:
    """The samples of a compressed file."""
    soundfile = pytest.importorskip("soundfile")
    samples, _ = soundfile.read(io.BytesIO(data), dtype="int16")
    return bytes(samples.tobytes())


def _request(
    text: str = "Ten bytes.", voice: str = "de", audio_format: str = "pcm", params: dict[str, float] | None = None
) -> SpeechRequest:
    return SpeechRequest(text=text, voice=voice, model="any", format=audio_format, params=params or {})


def test_a_create_leads_to_a_task_and_its_audio(caller: Caller) -> None:
    """202 with an envelope; the price is the text's bytes."""
    before = caller.profile()["credits"]
    created = caller.create("Grüße")
    body = created.json()
    assert created.status_code == 202
    assert {"task", "record", "requestId", "quotaRemaining", "creditsUsed"} <= body.keys()
    assert body["task"]["status"] in ("queued", "processing", "completed")  # a busy machine may be slow to ask
    assert before - caller.profile()["credits"] == len("Grüße".encode()) == body["creditsUsed"]
    audio = caller.stranger.get(caller.ended(body["task"]["id"])["audioUrl"])
    assert (audio.status_code, audio.headers["content-type"]) == (200, "audio/mpeg")
    assert int(audio.headers["content-length"]) == len(audio.content) > 1000


@pytest.mark.parametrize("audio_format", list(MAGIC))
def test_each_format_has_its_header_and_sound(caller: Caller, audio_format: str) -> None:
    data = caller.spoken("One, two, three.", format=audio_format)
    assert data.startswith(MAGIC[audio_format])
    assert len(data) > 1000
    samples = data if audio_format == "pcm" else _sounds(data)
    assert _loudness(samples) > 500
    assert 2 * 22_050 < len(samples) < 6 * 24_000


def test_speech_is_audible_and_grows_with_its_text(caller: Caller) -> None:
    """A higher speed makes it shorter."""
    short = caller.spoken("Good morning.", format="pcm")
    longer = caller.spoken("Good morning. " * 5, format="pcm")
    quick = caller.spoken("Good morning. " * 5, format="pcm", speed=1.8)
    assert _loudness(short) > 500
    assert len(longer) > 3 * len(short)
    assert len(quick) < 0.8 * len(longer)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"text": " "}, 400, "invalid_text"),
        ({"voice": "nobody"}, 400, "unknown_voice"),
        ({"format": "flac"}, 400, "unsupported_format"),
        ({"engineModelId": "nothing"}, 400, "unknown_model"),
        ({"speed": 9}, 400, "invalid_parameter"),
        ({"pitch": 10**400}, 400, "invalid_parameter"),
        ({"volume": True}, 400, "invalid_parameter"),
        ({"emotion": 1}, 400, "invalid_parameter"),
        ({"text": "x" * 100_001}, 400, "invalid_text"),
        ({"voice": "en-us+nobody"}, 400, "unknown_voice"),
    ],
)
def test_a_bad_create_is_refused_in_the_apis_words_and_costs_nothing(
    caller: Caller, body: dict[str, Any], status: int, code: str
) -> None:
    before = caller.profile()["credits"]
    refused = caller.create(**body)
    assert (refused.status_code, refused.json()["code"]) == (status, code)
    assert refused.json()["requestId"]
    assert caller.profile()["credits"] == before


def test_another_token_is_401_and_an_unknown_task_404(caller: Caller) -> None:
    """In the API's words."""
    assert caller.read("task_none").json()["code"] == "task_not_found"
    refused = caller.http.get(caller.read("x").url, headers={"Authorization": "Bearer other"})
    assert (refused.status_code, refused.json()["code"]) == (401, "invalid_token")


def test_without_credits_a_create_is_402_until_a_top_up(store: Path) -> None:
    """It makes no task."""
    with calling(store, credits=15) as caller:
        assert caller.create("Ten bytes.").status_code == 202
        refused = caller.create("Ten bytes.")
        assert (refused.status_code, refused.json()["code"]) == (402, "insufficient_credits")
        assert caller.profile()["credits"] == 5
        top_up(store, 100)
        assert caller.create("Ten bytes.").status_code == 202
        assert caller.profile()["credits"] == 95


def test_an_audio_address_expires_and_cannot_be_forged(store: Path) -> None:
    """Reading the task again gives a new one."""
    with calling(store, url_seconds=0.0) as caller:
        task_id = caller.create().json()["task"]["id"]
        expired = caller.ended(task_id)["audioUrl"]
        refused = caller.stranger.get(expired)
        assert (refused.status_code, refused.json()["code"]) == (403, "url_expired")
        longer = httpx.URL(expired).copy_set_param("expires", "9999999999.000")
        forged = caller.stranger.get(longer)
        assert (forged.status_code, forged.json()["code"]) == (403, "bad_signature")
        assert caller.ended(task_id)["audioUrl"] != expired


def test_above_the_permitted_rate_a_create_is_429_with_retry_after(store: Path) -> None:
    """It makes no task."""
    with calling(store, rate=1.0) as caller:
        answers = [caller.create() for _ in range(4)]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert refused
        assert all(float(answer.headers["retry-after"]) > 0 for answer in refused)


def test_a_create_with_a_dropped_answer_is_charged(store: Path) -> None:
    """It has made its task; only the client never receives the answer."""
    with calling(store, drop=1.0, credits=100) as caller:
        with pytest.raises(httpx.TransportError):
            caller.create("Ten bytes.")
        assert caller.profile()["credits"] == 90


def test_a_failed_task_has_a_code_and_returns_its_credits(store: Path) -> None:
    with calling(store, fail=1.0, credits=100) as caller:
        task = caller.ended(caller.create("Ten bytes.").json()["task"]["id"])
        assert (task["status"], task["error"]["code"]) == ("failed", "render_failed")
        assert caller.profile()["credits"] == 100


def test_the_sandbox_listens_only_on_this_machine(store: Path) -> None:
    """Everybody knows its token."""
    with pytest.raises(UsageError, match="does not listen"):
        serve(store, SandboxOptions(), host="0.0.0.0", port=0)


def test_a_create_without_a_json_object_is_400(caller: Caller) -> None:
    for body in (b"", b"text", b"[]", b'{"text": ', b'{"text": "\\ud800", "voiceId": "de"}'):
        refused = caller.http.post(f"{caller.url}/speech/tts/jobs", content=body)
        assert refused.status_code == 400
        assert refused.json()["code"] in ("invalid_json", "invalid_text")


def test_each_path_of_the_openapi_document_answers(caller: Caller) -> None:
    """With another method it is a 405 in the API's words."""
    document = caller.stranger.get(httpx.URL(caller.url).copy_with(path="/api/openapi.json")).json()
    assert document["servers"] == [{"url": httpx.URL(caller.url).path}]
    task_id = caller.create().json()["task"]["id"]
    for path, operations in document["paths"].items():
        (server,) = operations.get("servers", document["servers"])
        base = str(httpx.URL(caller.url).copy_with(path=server["url"]))
        url = base + path.replace("{taskId}", task_id).replace("{voiceId}", "de")
        (method,) = operations.keys() - {"servers"}
        assert caller.http.request(method, url, json={"text": "Hi.", "voiceId": "de"}).is_success
        refused = caller.http.delete(url)
        assert (refused.status_code, refused.json()["code"]) == (405, "method_not_allowed")
        assert method.upper() in refused.headers["allow"]
    shown = caller.ended(task_id)
    assert shown.keys() - {"audioUrl"} == set(document["components"]["schemas"]["Task"]["required"])


def test_voices_are_listed_page_by_page_and_searched(caller: Caller) -> None:
    """Every listed voice can be read directly; so can a variant, which the list lacks."""
    whole = caller.http.get(f"{caller.url}/voices", params={"limit": 100}).json()
    assert whole["total"] >= len(whole["items"]) == min(100, whole["total"])
    page = caller.http.get(f"{caller.url}/voices", params={"limit": 2, "offset": 3}).json()
    assert page["items"] == whole["items"][3:5]
    found = caller.http.get(f"{caller.url}/voices", params={"search": "EN-US"}).json()["items"]
    assert "en-us" in [voice["id"] for voice in found]
    assert all("en-us" in f"{voice['id']} {voice['name']}".lower() for voice in found)
    assert caller.http.get(f"{caller.url}/voices", params={"limit": "many"}).status_code == 400
    direct = caller.url.replace("/v1", "/v3/voices/")
    for voice in ("en-us", "en-us%2Bf3"):
        assert caller.http.get(direct + voice).json()["voiceId"] == voice.replace("%2B", "+")
    missing = caller.http.get(direct + "anna")
    assert (missing.status_code, missing.json()["code"]) == (404, "voice_not_found")


def test_parameters_without_effect_are_named_in_a_header(caller: Caller) -> None:
    """Speed, volume and pitch are used; the others change nothing in the audio."""
    plain = caller.create(speed=1.1, volume=1, pitch=2)
    assert "X-OpenAPI-Ignored-Parameters" not in plain.headers
    ignoring = caller.create(speed=1.1, volume=1, pitch=2, emotion="happy", stability=1)
    assert ignoring.headers["X-OpenAPI-Ignored-Parameters"] == "stability,emotion"


def test_concurrent_creates_beyond_the_limit_are_429(store: Path) -> None:
    """They make no task."""
    with running(store, SandboxOptions(concurrent=1, speed=0.2)) as sandbox, ThreadPoolExecutor(4) as pool:
        caller = Caller(sandbox)
        with caller.http, caller.stranger:
            statuses = [answer.status_code for answer in pool.map(lambda _: caller.create("Hi."), range(4))]
            spent = SandboxOptions().credits - caller.profile()["credits"]
    assert set(statuses) == {202, 429}
    assert spent == 3 * statuses.count(202)


def test_a_killed_sandbox_forgets_nothing(store: Path) -> None:
    """Restarted on its store it has the same account and the charged task."""
    script = (
        "import pathlib, sys; from batcher.sandbox.host import running\n"
        "with running(pathlib.Path(sys.argv[1])) as sandbox: print(sandbox.url, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, store], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        caller = Caller(Running(url=process.stdout.readline().strip(), token="sandbox"))
        with caller.http, caller.stranger:
            task_id, account = caller.create("Ten bytes.").json()["task"]["id"], caller.profile()
        process.kill()
    with calling(store) as again:
        assert again.ended(task_id)["status"] == "completed"
        assert again.profile() == account
        assert account["credits"] == SandboxOptions().credits - 10


def test_a_tasks_status_follows_from_its_times_alone(store: Path) -> None:
    """Queued, processing, completed."""
    with closing(Store(store, SandboxOptions())) as opened:
        task = opened.create(_request("x" * 100), 1000.0)
        assert task is not None
        assert opened.task(task.id) == task
    assert 0.7 * 1.4 <= task.ended_at - task.created_at <= 1.5 * 1.4
    moments = (task.created_at, task.started_at, task.ended_at - 0.001, task.ended_at)
    assert [task.status(now) for now in moments] == ["queued", "processing", "processing", "completed"]


def test_the_requested_share_of_tasks_fails(store: Path) -> None:
    """Their credits are back when they have ended."""
    with closing(Store(store, SandboxOptions(fail=0.25, credits=2000))) as opened:
        tasks = [opened.create(_request(), 0.0) for _ in range(200)]
        fails = sum(task.fails for task in tasks if task)
        assert 30 < fails < 70
        assert opened.create(_request(), 0.0) is None
        assert opened.balance(0.0) == 0
        assert opened.balance(60.0) == 10 * fails
        assert opened.create(_request(), 60.0) is not None
        assert opened.balance(60.0) == 10 * fails - 10


def test_the_store_is_private_and_another_file_is_refused(store: Path, tmp_path: Path) -> None:
    """It holds texts. The other program's file stays as it is."""
    Store(store).close()
    assert store.stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE precious (thing)")
    (tmp_path / "notes.txt").write_text("not a database " * 100)
    for name in ("other.db", "notes.txt", "nowhere/tasks.db"):
        with pytest.raises(UsageError, match=name):
            Store(tmp_path / name)
    with closing(sqlite3.connect(tmp_path / "other.db")) as other:
        assert other.execute("SELECT name FROM sqlite_master").fetchall() == [("precious",)]
    with pytest.raises(UsageError, match="no sandbox store"):
        top_up(tmp_path / "missing.db", 1)


def test_a_top_up_prints_the_new_balance(project: Project, store: Path) -> None:
    Store(store, SandboxOptions(credits=2000)).close()
    ended = project.batcher("sandbox", "--store", store, "--top-up", "5000")
    assert (ended.exit_code, ended.out, ended.err) == (0, "", "Added 5,000 credits; the balance is now 7,000\n")


def test_the_rehearsal_of_the_manual_goes_as_described() -> None:
    """Of the dialogue's tasks four fail and one is lost before the credits run out, and one more afterwards; everything
    bought again then is done.
    """
    said = re.search(
        r"batcher sandbox --credits 2000 --fail (\S+) --drop (\S+) --seed (\d+)\n",
        topic_text("sandbox"),
    )
    assert said is not None
    options = SandboxOptions(fail=float(said[1]), drop=float(said[2]), seed=int(said[3]))

    def met(what: str, share: float, tasks: range) -> int:
        return sum(options.chance(what, task) < share for task in tasks)

    assert [met("drop", options.drop, tasks) for tasks in (range(30), range(30, 62), range(62, 68))] == [1, 1, 0]
    assert [met("fail", options.fail, tasks) for tasks in (range(35), range(35, 68))] == [4, 0]


@pytest.mark.parametrize("options", [{"speed": 0.0}, {"fail": 1.5}, {"drop": math.nan}, {"credits": -1.0}])
def test_options_have_ranges(options: dict[str, float]) -> None:
    """An option out of its range is rejected by name before anything starts."""
    with pytest.raises(UsageError, match=f"the sandbox's --{next(iter(options))} must be"):
        SandboxOptions(**options)  # type: ignore[arg-type]


def test_a_rejected_option_is_all_that_is_printed(tmp_path: Path) -> None:
    """The command checks its options before it prints that the sandbox answers, and leaves no store."""
    store = tmp_path / "store.db"
    asked = CliRunner().invoke(sandbox, ["--fail", "7", "--store", str(store)])
    assert isinstance(asked.exception, UsageError)
    assert (asked.output, store.exists()) == ("", False)


def test_a_tasks_audio_is_stable_and_differs_from_another_tasks() -> None:
    """A task's file is the same regardless of what is rendered in between; another task of the same request differs."""
    request = _request("Once more, from the beginning.", "en-gb+whisperf", "mp3")
    first, second, again = (render(engine(), request, f"task_000{digit}") for digit in "121")
    assert again == first != second


def test_pitch_and_volume_change_the_audio() -> None:
    """Volume is in decibels."""
    plain, quiet, high = (
        render(engine(), _request("A long way home.", params=params), "task_0000")
        for params in ({}, {"volume": -12.0}, {"pitch": 12.0})
    )
    assert 3 < _loudness(plain) / _loudness(quiet) < 5
    assert _crossings(high) > 1.1 * _crossings(plain)


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="needs the espeak-ng command")
def test_the_espeak_ng_command_replaces_the_library() -> None:
    """It accepts the same voices and is as loud."""
    command = Command(shutil.which("espeak-ng") or "")
    assert command.catalogue.find("EN-us+f3") == engine().catalogue.find("en-us+f3") == "gmw/en-US+f3"
    assert command.catalogue.find("en-us+nobody") is None
    request = _request("One line.\nAnother line.", "fr-fr")
    spoken = render(command, request, "task_0001")
    assert _loudness(spoken) > 500
    assert 0.5 < len(spoken) / len(render(engine(), request, "task_0001")) < 2


def _crossings(samples: bytes) -> float:
    numbers = [number for number in array.array("h", samples) if number]
    return sum(one * other < 0 for one, other in pairwise(numbers)) / len(numbers)


def _samples(name: str) -> list[dict[str, Any]]:
    lines = (SAMPLES / name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines] if name.endswith("jsonl") else list(csv.DictReader(lines))


@pytest.mark.parametrize(("name", "least"), [("welcome.csv", 8), ("dialogue.jsonl", 60), ("languages.csv", 25)])
def test_the_sandbox_accepts_every_line_of_the_samples(caller: Caller, name: str, least: int) -> None:
    """With its voice and parameters."""
    rows = _samples(name)
    assert len({row["id"] for row in rows}) == len(rows) >= least
    for row in rows:
        params = {key: float(row[key]) for key in ("speed", "pitch", "volume") if row.get(key)} | row.get("params", {})
        assert caller.create(row["text"], row["voice"], **params).status_code == 202, row["id"]


def test_each_language_of_the_samples_is_audible() -> None:
    """For a duration that fits the sentence."""
    for row in _samples("languages.csv"):
        samples = render(engine(), _request(row["text"], row["voice"]), "task_0000")
        assert _loudness(samples) > 500, row["id"]
        assert 3 < len(row["text"]) / (len(samples) / 44_100) < 25, row["id"]


def test_the_dialogue_uses_every_feature_of_a_manifest() -> None:
    """A repeated line, a second take, nested parameters, carried columns."""
    rows = _samples("dialogue.jsonl")
    inputs = [json.dumps({**row, "id": "", "scene": 0}, sort_keys=True) for row in rows]
    assert len(set(inputs)) == len(inputs) - 1
    assert [row["id"] for row in rows if row.get("take") == 2]
    assert [row["id"] for row in rows if "params" in row]
    assert {"scene", "speaker"} <= rows[0].keys()
