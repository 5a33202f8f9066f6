"""The sandbox over a real socket: the provider's shapes and refusals, charges that survive, and speech that is one."""

from __future__ import annotations

import array
import csv
import io
import json
import math
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from batcher.errors import UsageError
from batcher.sandbox import Knobs, Running, running, serve, top_up
from batcher.sandbox.speech import engine

SAMPLES = Path(__file__).parents[1] / "sample_inputs"
MAGIC = {"mp3": (b"\xff", b"ID3"), "wav": (b"RIFF",), "opus": (b"OggS",), "ogg": (b"OggS",), "pcm": (b"",)}


class Caller:
    """A caller of one running sandbox."""

    def __init__(self, sandbox: Running) -> None:
        self.http = httpx.Client(headers={"Authorization": f"Bearer {sandbox.token}"}, trust_env=False)
        self._jobs = f"{sandbox.url}/speech/tts/jobs"
        self._sandbox = sandbox

    def create(self, text: str = "Hello there.", voice: str = "en-us", **more: Any) -> httpx.Response:
        """One create."""
        return self.http.post(self._jobs, json={"text": text, "voiceId": voice, "format": "mp3"} | more)

    def read(self, task_id: str) -> httpx.Response:
        """One look at a task."""
        return self.http.get(f"{self._jobs}/{task_id}")

    def ended(self, task_id: str) -> dict[str, Any]:
        """The task once it has ended."""
        while True:
            task: dict[str, Any] = self.read(task_id).json()["task"]
            if task["status"] in ("completed", "failed"):
                return task

    def spoken(self, text: str, **more: Any) -> bytes:
        """The audio of a text."""
        created = self.create(text, **more)
        assert created.status_code == 202, created.text
        return httpx.get(self.ended(created.json()["task"]["id"])["audioUrl"], trust_env=False).content

    def profile(self) -> dict[str, Any]:
        """The account."""
        found: dict[str, Any] = self.http.get(f"{self._sandbox.url}/profile").json()
        return found


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Where a sandbox's tasks live."""
    return tmp_path / "tasks.db"


@contextmanager
def calling(store: Path, **knobs: Any) -> Iterator[Caller]:
    """A caller of a quick sandbox on that store."""
    with running(store, Knobs(speed=1000, **knobs)) as sandbox:
        caller = Caller(sandbox)
        with caller.http:
            yield caller


@pytest.fixture
def caller(store: Path) -> Iterator[Caller]:
    """A caller of a quick sandbox in good health."""
    with calling(store) as caller:
        yield caller


def _loudness(samples: bytes) -> float:
    numbers = array.array("h", samples)
    return math.sqrt(sum(number * number for number in numbers) / len(numbers))


def _wav(data: bytes) -> tuple[float, float]:
    with wave.open(io.BytesIO(data)) as file:
        return file.getnframes() / file.getframerate(), _loudness(file.readframes(file.getnframes()))


def test_a_task_from_create_to_audio(caller: Caller) -> None:
    """A create answers 202 with an envelope, costs its bytes, and ends in an address that gives audio."""
    before = caller.profile()["credits"]
    created = caller.create("Grüße")
    body = created.json()
    assert created.status_code == 202
    assert {"task", "record", "requestId", "quotaRemaining", "creditsUsed"} <= body.keys()
    assert body["task"]["status"] in ("queued", "processing")
    assert before - caller.profile()["credits"] == len("Grüße".encode()) == body["creditsUsed"]
    audio = httpx.get(caller.ended(body["task"]["id"])["audioUrl"], trust_env=False)
    assert (audio.status_code, audio.headers["content-type"]) == (200, "audio/mpeg")
    assert int(audio.headers["content-length"]) == len(audio.content) > 1000


@pytest.mark.parametrize("audio_format", list(MAGIC))
def test_formats(caller: Caller, audio_format: str) -> None:
    """Each format begins as it must."""
    data = caller.spoken("One, two, three.", format=audio_format)
    assert data.startswith(MAGIC[audio_format])
    assert len(data) > 1000


def test_speech_is_loud_and_grows_with_its_text(caller: Caller) -> None:
    """A sentence is audible, a longer one lasts longer, and a quicker one is shorter."""
    short, loudness = _wav(caller.spoken("Good morning.", format="wav"))
    longer, _ = _wav(caller.spoken("Good morning. " * 5, format="wav"))
    quick, _ = _wav(caller.spoken("Good morning. " * 5, format="wav", speed=1.8))
    assert loudness > 500
    assert longer > 3 * short
    assert quick < 0.8 * longer


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"text": " "}, 400, "invalid_text"),
        ({"voice": "nobody"}, 400, "unknown_voice"),
        ({"format": "flac"}, 400, "unsupported_format"),
        ({"engineModelId": "nothing"}, 400, "unknown_model"),
        ({"speed": 9}, 400, "invalid_parameter"),
    ],
)
def test_refusals(caller: Caller, body: dict[str, Any], status: int, code: str) -> None:
    """What cannot be spoken is refused with the API's own words, and costs nothing."""
    before = caller.profile()["credits"]
    refused = caller.create(**body)
    assert (refused.status_code, refused.json()["code"]) == (status, code)
    assert refused.json()["requestId"]
    assert caller.profile()["credits"] == before


def test_token_and_paths(caller: Caller) -> None:
    """Another token is a 401, an unknown task a 404, both as the API says it."""
    assert caller.read("task_none").json()["code"] == "task_not_found"
    refused = caller.http.get(caller.read("x").url, headers={"Authorization": "Bearer other"})
    assert (refused.status_code, refused.json()["code"]) == (401, "invalid_token")


def test_out_of_credits_and_topped_up(store: Path) -> None:
    """With too few credits a create is a 402 and makes nothing; credits can be added to the store."""
    with calling(store, credits=15) as caller:
        assert caller.create("Ten bytes.").status_code == 202
        refused = caller.create("Ten bytes.")
        assert (refused.status_code, refused.json()["code"]) == (402, "insufficient_credits")
        assert caller.profile()["credits"] == 5
        top_up(store, 100)
        assert caller.create("Ten bytes.").status_code == 202
        assert caller.profile()["credits"] == 95


def test_a_store_outlives_its_server(store: Path) -> None:
    """Started again on the same store, the sandbox is the same account and knows its tasks."""
    with calling(store) as caller:
        task_id, who = caller.create().json()["task"]["id"], caller.profile()
    with calling(store) as again:
        assert again.profile() == who
        assert again.ended(task_id)["status"] == "completed"


def test_addresses_expire_and_cannot_be_forged(store: Path) -> None:
    """An address is good for its time only and only as it was given; reading the task again gives a fresh one."""
    with calling(store, url_seconds=0.0) as caller:
        task_id = caller.create().json()["task"]["id"]
        expired = caller.ended(task_id)["audioUrl"]
        assert httpx.get(expired, trust_env=False).json()["code"] == "url_expired"
        assert httpx.get(expired[:-4] + "0000", trust_env=False).status_code == 403
        assert caller.ended(task_id)["audioUrl"] != expired


def test_throttling(store: Path) -> None:
    """Above the permitted rate a create is a 429 that says when to come again, and makes nothing."""
    with calling(store, rate=1.0) as caller:
        answers = [caller.create() for _ in range(4)]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert refused
        assert all(float(answer.headers["retry-after"]) > 0 for answer in refused)


def test_dropped_answers_are_charged(store: Path) -> None:
    """A dropped create has made its task and taken its price: the caller just never hears."""
    with calling(store, drop=1.0, credits=100) as caller:
        with pytest.raises(httpx.TransportError):
            caller.create("Ten bytes.")
        assert caller.profile()["credits"] == 90


def test_failing_tasks_are_not_charged(store: Path) -> None:
    """A failed task says so with a code, and its credits come back."""
    with calling(store, fail=1.0, credits=100) as caller:
        task = caller.ended(caller.create("Ten bytes.").json()["task"]["id"])
        assert (task["status"], task["error"]["code"]) == ("failed", "render_failed")
        assert caller.profile()["credits"] == 100


def test_only_this_machine_is_served(store: Path) -> None:
    """The sandbox refuses to listen on an address that others reach: everybody knows its token."""
    with pytest.raises(UsageError, match="does not listen"):
        serve(store, Knobs(), host="0.0.0.0", port=0)


def _lines(name: str) -> list[str]:
    return (SAMPLES / name).read_text(encoding="utf-8").splitlines()


def test_samples_can_be_spoken() -> None:
    """Every voice that the sample inputs name is one of the sandbox's."""
    catalogue = engine().catalogue
    rows = [row for name in ("welcome", "languages") for row in csv.DictReader(_lines(f"{name}.csv"))]
    rows += [json.loads(line) for line in _lines("dialogue.jsonl")]
    voices = {row["voice"] for row in rows}
    assert len(voices) > 20
    assert [voice for voice in sorted(voices) if catalogue.find(voice) is None] == []
