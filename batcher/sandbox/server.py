"""The API as an ASGI application: the provider's paths, over a store and a voice."""

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
from batcher.sandbox.audio import CONTENT_TYPES, Studio, formats
from batcher.sandbox.openapi import DOCUMENT
from batcher.sandbox.options import SandboxOptions
from batcher.sandbox.requests import ApiError
from batcher.sandbox.speech import Engine
from batcher.sandbox.store import Store, Task

BASE: Final = "/api/open/v1"
TOKEN: Final = "sandbox"  # noqa: S105 - known to everybody
CREATE_SECONDS: Final = 0.05
"""How long a create takes to be handled at speed 1: what `SandboxOptions.concurrent` counts."""

Connections = dict[tuple[str, int], Transport]
"""The open connections by the peer's address, for those that are to be dropped."""


class Sandbox:
    """The endpoints. Everything here runs on one event loop."""

    def __init__(self, store: Store, engine: Engine, options: SandboxOptions, connections: Connections) -> None:
        self._store = store
        self._engine = engine
        self._knobs = options
        self._connections = connections
        self._studio = Studio(engine)
        self._gate = _Gate(options)

    def app(self) -> Starlette:
        """The application."""
        return Starlette(
            routes=[
                Route(f"{BASE}/speech/tts/jobs", self.create, methods=["POST"]),
                Route(f"{BASE}/speech/tts/jobs/{{task_id}}", self.read),
                Route(f"{BASE}/profile", self.profile),
                Route("/api/openapi.json", self.openapi),
                Route("/audio/{name}", self.audio),
            ],
            exception_handlers={ApiError: _refusal, HTTPException: _refusal},
        )

    async def create(self, request: Request) -> Response:
        """Makes a task and charges it."""
        _authorise(request)
        with self._gate.passing(time.time()):
            order = requests.read(await request.body(), catalogue=self._engine.catalogue, formats=formats())
            await anyio.sleep(CREATE_SECONDS / self._knobs.speed)
            task = self._store.create(order, time.time())
        if task is None:
            raise ApiError(402, "insufficient_credits", "the account's credits do not reach for this text")
        if request.client and self._knobs.chance("drop", task.number) < self._knobs.drop:
            return _Dropped(self._connections[(request.client.host, request.client.port)])
        return self._envelope(request, task, 202)

    async def read(self, request: Request) -> Response:
        """Says how a task stands."""
        _authorise(request)
        task = self._store.task(request.path_params["task_id"])
        if task is None:
            raise ApiError(404, "task_not_found", "this account has no such task")
        return self._envelope(request, task, 200)

    async def profile(self, request: Request) -> Response:
        """Says what the account has left."""
        _authorise(request)
        balance = _number(self._store.balance(time.time()))
        return JSONResponse(
            {"user_id": self._store.user_id, "api_quota_remaining": balance, "tier": "sandbox", "credits": balance}
        )

    async def openapi(self, request: Request) -> Response:  # noqa: ARG002
        """Describes the paths above."""
        return JSONResponse(DOCUMENT)

    async def audio(self, request: Request) -> Response:
        """A finished task's file, for whoever has a signed URL that is still good."""
        name, expires = request.path_params["name"], request.query_params.get("expires", "")
        if not self._store.signed(f"{name}?{expires}", request.query_params.get("signature", "")):
            raise ApiError(403, "bad_signature", "this is not a URL that was given out here")
        if float(expires) <= time.time():
            raise ApiError(403, "url_expired", "the URL has expired; read the task again for another")
        task_id, _, ending = name.rpartition(".")
        task = self._store.task(task_id)
        if task is None:
            raise ApiError(404, "task_not_found", "this account has no such task")
        return Response(await self._studio.audio(task), headers={"Content-Type": CONTENT_TYPES[ending]})

    def _envelope(self, request: Request, task: Task, status: int) -> Response:
        now = time.time()
        word = task.status(now)
        shown: dict[str, Any] = {
            "id": task.id,
            "status": word,
            "voiceId": task.order.voice,
            "engineModelId": task.order.model,
            "format": task.order.format,
            "creditsUsed": 0 if word == "failed" else _number(task.cost),
            "createdAt": _iso(task.created_at),
            "startedAt": _iso(task.started_at) if word != "queued" else None,
            "completedAt": _iso(task.ended_at) if word in ("completed", "failed") else None,
        }
        if word == "completed":
            shown["audioUrl"] = self._audio_url(request, task, now)
        if word == "failed":
            shown["error"] = {"code": "render_failed", "message": "the voice was lost on the way; nothing is charged"}
        return JSONResponse(
            {
                "task": shown,
                "record": {"taskId": task.id, "characters": len(task.order.text), "createdAt": shown["createdAt"]},
                "requestId": _request_id(),
                "quotaRemaining": _number(self._store.balance(now)),
                "creditsUsed": shown["creditsUsed"],
            },
            status,
        )

    def _audio_url(self, request: Request, task: Task, now: float) -> str:
        name, expires = f"{task.id}.{task.order.format}", f"{now + self._knobs.url_seconds:.3f}"
        signature = self._store.sign(f"{name}?{expires}")
        return f"{request.base_url}audio/{name}?expires={expires}&signature={signature}"


class _Gate:
    """Refuses creates that come too many at once or too fast; a pause of a second earns a burst of a second's worth."""

    def __init__(self, options: SandboxOptions) -> None:
        self._knobs = options
        self._inside = 0
        self._due_at = 0.0  # when all creates so far would have come at the permitted rate

    @contextmanager
    def passing(self, now: float) -> Iterator[None]:
        """Holds a place while a create is handled.

        Raises:
            ApiError: 429; with Retry-After when the rate is too high.
        """
        if self._knobs.concurrent and self._inside >= self._knobs.concurrent:
            raise ApiError(429, "rate_limited", f"{self._knobs.concurrent} creates at once are permitted")
        if self._knobs.rate:
            wait_seconds = self._due_at - now - 1
            if wait_seconds > 0:
                message = f"{self._knobs.rate:g} creates a second are permitted"
                raise ApiError(429, "rate_limited", message, {"Retry-After": str(math.ceil(wait_seconds))})
            self._due_at = max(self._due_at, now) + 1 / self._knobs.rate
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1


class _Dropped(Response):
    """No answer at all: the connection is reset."""

    def __init__(self, connection: Transport) -> None:
        super().__init__()
        self._connection = connection

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        self._connection.abort()
        await receive()  # returns once the server has noticed, else it would report that no answer was sent


async def _refusal(request: Request, error: Exception) -> Response:  # noqa: ARG001
    if isinstance(error, HTTPException):
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "bad_request")
        error = ApiError(error.status_code, code, error.detail, dict(error.headers or {}))
    assert isinstance(error, ApiError)  # noqa: S101 - the only other kind that is registered
    body = {"code": error.code, "message": error.message, "requestId": _request_id()}
    return JSONResponse(body, error.status, error.headers)


def _authorise(request: Request) -> None:
    if request.headers.get("Authorization") != f"Bearer {TOKEN}":
        raise ApiError(401, "invalid_token", f"the sandbox's only token is {TOKEN!r}")


def _request_id() -> str:
    return f"req_{uuid.uuid4().hex}"


def _number(value: float) -> float:
    return int(value) if value.is_integer() else value


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
