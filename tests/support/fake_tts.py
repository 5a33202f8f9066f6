"""A provider that speaks the API over real sockets, records every create that reaches it, and fails as a test wants.

Its settings may change while it runs.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import threading
import time
import wave
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

TOKEN: Final = "sk-first-token-of-the-tests"
SIGNATURE: Final = "c2lnbmF0dXJl"
"""A part of every audio address, and of nothing else."""
_JOBS: Final = "/api/open/v1/speech/tts/jobs"
_PROFILE: Final = "/api/open/v1/profile"
_CATALOGUE: Final = ("/api/openapi.json", "/api/open/v1/voices", "/api/open/v3/")


@dataclass(frozen=True, kw_only=True)
class Twist:
    """Replaces the usual answer to a request. Without a status the connection is dropped.

    `charge`: a create is charged and makes its task all the same. A body that is a dict is sent as JSON. A
    `content-length` header is sent as given, and the connection is closed after the body.
    """

    status: int | None = None
    body: dict[str, Any] | bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    charge: bool = False


def refusal(status: int, code: str, **headers: str) -> Twist:
    """An error in the API's own shape."""
    body = {"code": code, "message": f"this is {code}", "requestId": "req_0123"}
    return Twist(status=status, body=body, headers={name.replace("_", "-"): value for name, value in headers.items()})


NO_CREDITS: Final = refusal(402, "insufficient_credits")
HTML_404: Final = Twist(status=404, body=b"<html><h1>Not here</h1></html>", headers={"content-type": "text/html"})


@dataclass(eq=False)
class Create:
    """A create that arrived; numbers begin at 1."""

    number: int
    text: str
    body: dict[str, Any]
    arrived_at: float
    answered_at: float | None = None
    status: int | None = None
    task_id: str | None = None


@dataclass(eq=False)
class Job:
    """A task that was made and paid for."""

    id: str
    text: str
    format: str
    ends_at: float
    reads: int = 0
    downloads: int = 0


@dataclass(frozen=True)
class Request:
    """A request as received; header names are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


def _as_usual(*_: Any) -> None:
    """No twist: the request goes well."""


def _ends_well(_: Job) -> dict[str, Any]:
    return {}


@dataclass(eq=False)
class FakeTTS:
    """The provider: first the settings, for tests to change, then the records of what has arrived."""

    shape: str = "envelope"  # or flat, or wrapped
    token: str = TOKEN
    user_id: str = "user-1"
    credits: float = 1_000_000.0  # each create costs one
    membership: float | None = None  # credits of the profile, where they are another balance than the API's
    hidden: tuple[str, ...] = ()  # fields left out of the profile
    task_seconds: float = 0.05
    create_seconds: float = 0.0  # between the charge and the answer
    ignored: str = ""  # parameters that the answer to a create names as ignored
    host: str = "127.0.0.1"  # address that it listens on
    schema: dict[str, Any] | None = None  # OpenAPI document published at the origin, without a token
    voices: tuple[str, ...] | None = None  # ids in the list of voices; None: no such list
    unlisted: tuple[str, ...] = ()  # ids that only direct reads find
    voice_models: tuple[str, ...] = ()  # models that each voice lists
    models: list[dict[str, Any]] = field(default_factory=list)
    on_catalogue: Callable[[str], Twist | None] = _as_usual
    on_create: Callable[[Create], Twist | None] = _as_usual
    on_read: Callable[[Job], Twist | None] = _as_usual
    on_profile: Callable[[int], Twist | None] = _as_usual
    on_audio: Callable[[Job], Twist | None] = _as_usual
    ending: Callable[[Job], dict[str, Any]] = _ends_well  # fields that an ended task adds or replaces

    creates: list[Create] = field(default_factory=list)
    jobs: dict[str, Job] = field(default_factory=dict)
    profiles: int = 0
    catalogue_reads: list[str] = field(default_factory=list)  # paths, with the schema
    audio_headers: list[dict[str, str]] = field(default_factory=list)
    api_headers: list[dict[str, str]] = field(default_factory=list)
    url: str = ""
    _audio_origin: str = ""
    _changed: threading.Condition = field(default_factory=threading.Condition)

    @property
    def paid(self) -> dict[str, list[str]]:
        """The task ids charged for each text."""
        found: dict[str, list[str]] = {}
        for job in list(self.jobs.values()):
            found.setdefault(job.text, []).append(job.id)
        return found

    @property
    def asked(self) -> list[str]:
        """The texts of all creates that arrived, in order."""
        return [create.text for create in list(self.creates)]

    def until(self, holds: Callable[[], bool], seconds: float = 30.0) -> None:
        """Wait until `holds` is true; it is called after each arrival and each answer."""
        with self._changed:
            assert self._changed.wait_for(holds, seconds), "the provider was not asked what the test expects"

    def end_tasks(self) -> None:
        """Complete all tasks at once from now on, existing ones too."""
        self.task_seconds = 0.0
        for job in list(self.jobs.values()):
            job.ends_at = 0.0

    async def api(self, request: Request) -> Twist:
        """The answer to a call of the API."""
        self.api_headers.append(request.headers)
        if request.method == "GET" and request.path.partition("?")[0].startswith(_CATALOGUE):
            return self._catalogue(request)
        if request.headers.get("authorization") != f"Bearer {self.token}":
            return refusal(401, "invalid_token")
        if request.method == "POST" and request.path == _JOBS:
            return await self._create(json.loads(request.body))
        if request.method == "GET" and request.path == _PROFILE:
            return self._profile()
        if request.method == "GET" and request.path.startswith(f"{_JOBS}/"):
            return self._read(request.path.rpartition("/")[2])
        return HTML_404

    async def audio(self, request: Request) -> Twist:
        """The answer of the audio's host."""
        self.audio_headers.append(request.headers)
        job = self.jobs[request.path.partition("?")[0].rpartition("/")[2].partition(".")[0]]
        job.downloads += 1
        usual = Twist(status=200, body=audio_of(job.text, job.format), headers={"content-type": "audio/mpeg"})
        return self.on_audio(job) or usual

    async def _create(self, body: dict[str, Any]) -> Twist:
        create = Create(len(self.creates) + 1, body["text"], body, time.monotonic())
        self.creates.append(create)
        self._tell()
        twist = self.on_create(create) or (NO_CREDITS if self.credits < 1 else None)
        if twist is None or twist.charge:
            self.credits -= 1
            create.task_id = f"task_{create.number}"
            ends_at = time.monotonic() + self.task_seconds
            self.jobs[create.task_id] = Job(create.task_id, create.text, body["format"], ends_at)
        await asyncio.sleep(self.create_seconds)
        headers = {"x-openapi-ignored-parameters": self.ignored} if self.ignored else {}
        body = self._shaped({"id": create.task_id, "status": "queued"})
        answer = twist or Twist(status=202, body=body, headers=headers)
        create.status, create.answered_at = answer.status, time.monotonic()
        return answer

    def _read(self, task_id: str) -> Twist:
        job = self.jobs.get(task_id)
        if job is None:
            return refusal(404, "task_not_found")
        job.reads += 1
        if (twist := self.on_read(job)) is not None:
            return twist
        if time.monotonic() < job.ends_at:
            return Twist(status=200, body=self._shaped({"id": job.id, "status": "processing"}))
        url = f"{self._audio_origin}/{job.id}.{job.format}?read={job.reads}&X-Signature={SIGNATURE}"
        return Twist(
            status=200, body=self._shaped({"id": job.id, "status": "completed", "audioUrl": url} | self.ending(job))
        )

    def publish_direct_reads(self) -> None:
        """List the direct reads of voices and models in the schema, and serve them."""
        reads: dict[str, Any] = {path: {"get": {}} for path in ("/voices/{voiceId}", "/speech/tts/capabilities")}
        self.schema = {"openapi": "3.1.0", "servers": [{"url": "/api/open/v3"}], "paths": reads}

    def _catalogue(self, request: Request) -> Twist:
        path, _, query = request.path.partition("?")
        self.catalogue_reads.append(path)
        if (twist := self.on_catalogue(path)) is not None:
            return twist
        if path == "/api/openapi.json":
            return HTML_404 if self.schema is None else Twist(status=200, body=self.schema)
        if path == "/api/open/v1/voices" and self.voices is not None:
            asked = dict(parse_qsl(query))
            first, most = int(asked.get("offset", 0)), int(asked.get("limit", 20))
            found = [voice for voice in self.voices if asked.get("search", "") in voice]
            items = [{"id": voice, "name": voice.title(), "provider": "fish"} for voice in found[first : first + most]]
            return Twist(status=200, body={"total": len(found), "items": items})
        if path.startswith("/api/open/v3/voices/"):
            voice = unquote(path.rpartition("/")[2])
            if voice not in (*(self.voices or ()), *self.unlisted):
                return refusal(404, "voice_not_found")
            return Twist(status=200, body={"voiceId": voice, "name": voice, "modelIds": [*self.voice_models]})
        if path == "/api/open/v3/speech/tts/capabilities":
            return Twist(status=200, body={"models": self.models})
        return HTML_404

    def _profile(self) -> Twist:
        self.profiles += 1
        if (twist := self.on_profile(self.profiles)) is not None:
            return twist
        whole = {"user_id": self.user_id, "api_quota_remaining": self.credits, "tier": "pro"}
        whole["credits"] = self.credits if self.membership is None else self.membership
        return Twist(status=200, body={name: value for name, value in whole.items() if name not in self.hidden})

    def _shaped(self, task: dict[str, Any]) -> dict[str, Any]:
        if self.shape == "flat":
            return task
        if self.shape == "wrapped":
            return {"success": True, "message": "ok", "data": task}
        return {"task": task, "record": {"kind": "tts"}, "requestId": "req_4567", "creditsUsed": 1}

    def _tell(self) -> None:
        with self._changed:
            self._changed.notify_all()

    async def _answer(
        self, serve: Callable[[Request], Awaitable[Twist]], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Serve one connection until either side closes it."""
        try:
            while (request := await _received(reader)) is not None:
                answer = await serve(request)
                if answer.status is None:
                    break
                writer.write(_sent(answer))
                await writer.drain()
                self._tell()
                if "content-length" in answer.headers:
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the program was killed or has closed the connection
        finally:
            writer.close()
            self._tell()

    async def _serve(self, ready: threading.Event, stop: asyncio.Event) -> None:
        def connect(serve: Callable[[Request], Awaitable[Twist]]) -> Callable[..., Awaitable[None]]:
            return lambda reader, writer: self._answer(serve, reader, writer)

        api = await asyncio.start_server(connect(self.api), self.host, 0, backlog=500)
        audio = await asyncio.start_server(connect(self.audio), self.host, 0, backlog=500)
        self.url = f"http://{self.host}:{api.sockets[0].getsockname()[1]}/api/open/v1"
        self._audio_origin = f"http://{self.host}:{audio.sockets[0].getsockname()[1]}"
        ready.set()
        await stop.wait()
        for server in (api, audio):
            server.close()
        while connections := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in connections:
                task.cancel()
            await asyncio.gather(*connections, return_exceptions=True)
        await asyncio.sleep(0)  # their sockets are closed by the next turn of the loop


@contextmanager
def running(host: str = "127.0.0.1") -> Iterator[FakeTTS]:
    """A provider that runs in its own thread until the context ends."""
    provider, ready, stop = FakeTTS(host=host), threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_until_complete, args=[provider._serve(ready, stop)])
    thread.start()
    try:
        ready.wait()
        yield provider
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


def audio_of(text: str, audio_format: str) -> bytes:
    """The one right audio for a text: small, well formed, and different for every text."""
    seed = hashlib.sha256(text.encode()).digest() * (2 + len(text) // 64)
    if audio_format == "mp3":
        frame = (seed * 13)[:413].replace(b"\xff", b"\xfe")
        return (b"\xff\xfb\x90\x00" + frame) * (2 + len(text) // 200)
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(8000)
        out.writeframes(seed)
    return file.getvalue()


def different_takes(provider: FakeTTS) -> None:
    """Let each task have audio of its own, even for the same text."""

    def audio(job: Job) -> Twist:
        body = take_audio(job.text, int(job.id.removeprefix("task_")))
        return Twist(status=200, body=body, headers={"content-type": "audio/mpeg"})

    provider.on_audio = audio


def take_audio(text: str, number: int) -> bytes:
    """The audio of the task with this number."""
    return audio_of(f"{text} {number}", "mp3")


async def _received(reader: asyncio.StreamReader) -> Request | None:
    """The next complete request, or None if the client has gone."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.strip().split("\r\n")
    pairs = (line.partition(":") for line in lines)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    method, path, _ = first.split(" ")
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(method, path, headers, body)


def _sent(answer: Twist) -> bytes:
    is_json = isinstance(answer.body, dict)
    body = json.dumps(answer.body).encode() if isinstance(answer.body, dict) else answer.body
    headers = {"content-length": str(len(body))}
    headers |= {"content-type": "application/json"} if is_json else {}
    lines = [
        f"HTTP/1.1 {answer.status} Said",
        *(f"{name}: {value}" for name, value in (headers | answer.headers).items()),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
