"""The sandbox as an ASGI application: the provider's paths, on top of a store and eSpeak."""

from __future__ import annotations

import math
import time
import uuid
from asyncio import Transport
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from batcher.sandbox import requests
from batcher.sandbox.audio import CONTENT_TYPES, AudioCache, formats
from batcher.sandbox.openapi import DOCUMENT
from batcher.sandbox.options import SandboxOptions
from batcher.sandbox.requests import ApiError
from batcher.sandbox.speech import Engine
from batcher.sandbox.store import Store, Task

BASE: Final = "/api/open/v1"
BASE_3: Final = "/api/open/v3"
TOKEN: Final = "sandbox"  # noqa: S105 - public
CREATE_SECONDS: Final = 0.05
"""Duration of a create at speed 1, while it counts towards `SandboxOptions.concurrent`."""

_MAX_PAGE: Final = 100
"""Most voices in one page of the list."""

Connections = dict[tuple[str, int], Transport]
"""Open connections by peer address, so that they can be dropped."""


class Sandbox:
    """The endpoints, all on one event loop."""

    def __init__(self, store: Store, engine: Engine, options: SandboxOptions, connections: Connections) -> None:
        self._store = store
        self._engine = engine
        self._options = options
        self._connections = connections
        self._audio_cache = AudioCache(engine)
        self._gate = _Gate(options)

    def app(self) -> Starlette:
        """The ASGI application."""
        return Starlette(
            routes=[
                Route(f"{BASE}/speech/tts/jobs", self.create, methods=["POST"]),
                Route(f"{BASE}/speech/tts/jobs/{{task_id}}", self.read),
                Route(f"{BASE}/profile", self.profile),
                Route(f"{BASE}/voices", self.voices),
                Route(f"{BASE_3}/voices/{{voice}}", self.voice),
                Route(f"{BASE_3}/speech/tts/capabilities", self.capabilities),
                Route("/api/openapi.json", self.openapi),
                Route("/audio/{name}", self.audio),
            ],
            exception_handlers={ApiError: _error_response, HTTPException: _error_response},
        )

    async def create(self, request: Request) -> Response:
        """Create a task and charge it."""
        _authorise(request)
        with self._gate.passing(time.time()):
            body = await request.body()
            speech_request = requests.parse(body, catalogue=self._engine.catalogue, formats=formats())
            await anyio.sleep(CREATE_SECONDS / self._options.speed)
            task = self._store.create(speech_request, time.time())
        if task is None:
            raise ApiError(402, "insufficient_credits", "not enough credits for this text")
        if request.client and self._options.chance("drop", task.number) < self._options.drop:
            return _Dropped(self._connections[(request.client.host, request.client.port)])
        answer = self._envelope(request, task, 202)
        if ignored := requests.ignored(body):
            answer.headers["X-OpenAPI-Ignored-Parameters"] = ",".join(ignored)
        return answer

    async def read(self, request: Request) -> Response:
        """Return a task."""
        _authorise(request)
        task = self._store.task(request.path_params["task_id"])
        if task is None:
            raise ApiError(404, "task_not_found", "this account has no task with this id")
        return self._envelope(request, task, 200)

    async def profile(self, request: Request) -> Response:
        """Return the account and its balance."""
        _authorise(request)
        balance = _number(self._store.balance(time.time()))
        return JSONResponse(
            {"user_id": self._store.user_id, "api_quota_remaining": balance, "tier": "sandbox", "credits": balance}
        )

    async def voices(self, request: Request) -> Response:
        """Return a page of the voices, all or those whose id or name contains `search`."""
        _authorise(request)
        search = request.query_params.get("search", "").lower()
        limit, offset = (_count(request, name, usual) for name, usual in (("limit", 20), ("offset", 0)))
        size = min(max(limit, 1), _MAX_PAGE)
        named = ((voice, self._engine.catalogue.find(voice) or "") for voice in self._engine.catalogue.voices)
        found = [
            {"id": voice, "name": name, "provider": "espeak"}
            for voice, name in named
            if search in voice or search in name.lower()
        ]
        return JSONResponse(
            {
                "total": len(found),
                "page": offset // size + 1,
                "pageSize": size,
                "totalPages": math.ceil(len(found) / size),
                "items": found[offset : offset + size],
            }
        )

    async def voice(self, request: Request) -> Response:
        """Return one voice, with a variant or without."""
        _authorise(request)
        voice = request.path_params["voice"]
        name = self._engine.catalogue.find(voice)
        if name is None:
            raise ApiError(404, "voice_not_found", f"there is no voice {voice!r:.60}")
        return JSONResponse({"voiceId": voice, "name": name, "modelIds": [*requests.MODELS], "languages": []})

    async def capabilities(self, request: Request) -> Response:
        """Return the models, with the parameters that have an effect."""
        _authorise(request)
        models = [
            {"modelId": model, "displayName": model, "available": True, "controls": dict.fromkeys(requests.USED, True)}
            for model in requests.MODELS
        ]
        return JSONResponse({"models": models, "recommendedModelId": requests.MODELS[0]})

    async def openapi(self, request: Request) -> Response:  # noqa: ARG002
        """Return the OpenAPI document."""
        return JSONResponse(DOCUMENT)

    async def audio(self, request: Request) -> Response:
        """Return the audio of a finished task to anyone with a signed URL that has not expired."""
        name, expires = request.path_params["name"], request.query_params.get("expires", "")
        if not self._store.is_signed(f"{name}?{expires}", request.query_params.get("signature", "")):
            raise ApiError(403, "bad_signature", "the signature of the URL is not valid")
        if float(expires) <= time.time():
            raise ApiError(403, "url_expired", "the URL has expired; read the task again for a new one")
        task_id, _, ending = name.rpartition(".")
        task = self._store.task(task_id)
        if task is None:
            raise ApiError(404, "task_not_found", "this account has no task with this id")
        return Response(await self._audio_cache.audio(task), headers={"Content-Type": CONTENT_TYPES[ending]})

    def _envelope(self, request: Request, task: Task, status: int) -> Response:
        now = time.time()
        word = task.status(now)
        shown: dict[str, Any] = {
            "id": task.id,
            "status": word,
            "voiceId": task.request.voice,
            "engineModelId": task.request.model,
            "format": task.request.format,
            "creditsUsed": 0 if word == "failed" else _number(task.cost),
            "createdAt": _iso(task.created_at),
            "startedAt": _iso(task.started_at) if word != "queued" else None,
            "completedAt": _iso(task.ended_at) if word in ("completed", "failed") else None,
        }
        if word == "completed":
            shown["audioUrl"] = self._audio_url(request, task, now)
        if word == "failed":
            shown["error"] = {"code": "render_failed", "message": "rendering failed; nothing is charged"}
        return JSONResponse(
            {
                "task": shown,
                "record": {"taskId": task.id, "characters": len(task.request.text), "createdAt": shown["createdAt"]},
                "requestId": _request_id(),
                "quotaRemaining": _number(self._store.balance(now)),
                "creditsUsed": shown["creditsUsed"],
            },
            status,
        )

    def _audio_url(self, request: Request, task: Task, now: float) -> str:
        name, expires = f"{task.id}.{task.request.format}", f"{now + self._options.url_seconds:.3f}"
        signature = self._store.sign(f"{name}?{expires}")
        return f"{request.base_url}audio/{name}?expires={expires}&signature={signature}"


class _Gate:
    """Limits concurrency and rate of creates. A pause of a second permits a burst of one second's creates."""

    def __init__(self, options: SandboxOptions) -> None:
        self._options = options
        self._inside = 0
        self._due_at = 0.0  # when all creates so far would have arrived at the permitted rate

    @contextmanager
    def passing(self, now: float) -> Iterator[None]:
        """Occupy a slot while a create is handled.

        Raises:
            ApiError: 429; with Retry-After when the rate is too high.
        """
        if self._options.concurrent and self._inside >= self._options.concurrent:
            message = f"at most {self._options.concurrent:,} concurrent creates are permitted"
            raise ApiError(429, "rate_limited", message)
        if self._options.rate:
            wait_seconds = self._due_at - now - 1
            if wait_seconds > 0:
                message = f"at most {self._options.rate:g} creates per second are permitted"
                raise ApiError(429, "rate_limited", message, {"Retry-After": str(math.ceil(wait_seconds))})
            self._due_at = max(self._due_at, now) + 1 / self._options.rate
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1


class _Dropped(Response):
    """Resets the connection instead of answering."""

    def __init__(self, connection: Transport) -> None:
        super().__init__()
        self._connection = connection

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        self._connection.abort()
        await receive()  # returns once the server has noticed; without it, the server would log that no answer was sent


async def _error_response(request: Request, error: Exception) -> Response:  # noqa: ARG001
    if isinstance(error, HTTPException):
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "bad_request")
        error = ApiError(error.status_code, code, error.detail, dict(error.headers or {}))
    assert isinstance(error, ApiError)  # noqa: S101 - no other class is registered
    body = {"code": error.code, "message": error.message, "requestId": _request_id()}
    return JSONResponse(body, error.status, error.headers)


def _authorise(request: Request) -> None:
    if request.headers.get("Authorization") != f"Bearer {TOKEN}":
        raise ApiError(401, "invalid_token", f"the sandbox's only token is {TOKEN!r}")


def _count(request: Request, name: str, usual: int) -> int:
    """A whole number of the query."""
    value = request.query_params.get(name, str(usual))
    if not (value.isascii() and value.isdigit()):
        raise ApiError(400, "invalid_parameter", f"{name} must be a whole number")
    return int(value)


def _request_id() -> str:
    return f"req_{uuid.uuid4().hex}"


def _number(value: float) -> float:
    return int(value) if value.is_integer() else value


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
