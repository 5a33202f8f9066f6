"""Runs the sandbox on a loopback port: in a background thread, or in the foreground."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from batcher.errors import UsageError
from batcher.installation import this_installation
from batcher.sandbox.options import DEFAULTS, SandboxOptions
from batcher.sandbox.speech import engine
from batcher.sandbox.store import Store

if TYPE_CHECKING:
    import uvicorn
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    from batcher.sandbox.server import Connections


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """The base URL and the token of a running sandbox."""

    url: str
    token: str


@contextmanager
def running(store: Path, options: SandboxOptions = DEFAULTS, *, port: int = 0) -> Iterator[Running]:
    """Run the sandbox in a thread until the block is left. Port 0 picks a free port.

    Raises:
        UsageError: the extra or eSpeak is not installed, the store cannot be used, or the port is in use.
    """
    with _prepared(store, options, "127.0.0.1", port) as (server, listener):
        thread = threading.Thread(target=server.run, args=([listener],), name="sandbox", daemon=True)
        thread.start()
        while not server.started:
            thread.join(0.002)
            if not thread.is_alive():
                raise RuntimeError("the sandbox's server did not start")
        try:
            yield _at(listener)
        finally:
            server.should_exit = True
            thread.join()


def serve(
    store: Path,
    options: SandboxOptions,
    *,
    host: str,
    port: int,
    on_ready: Callable[[Running], object] = lambda _: None,
) -> None:
    """Run the sandbox until it receives a signal. `on_ready` is called once it accepts connections.

    Raises:
        UsageError: as for `running`, or `host` is not a loopback address.
    """
    if not _is_loopback(host):
        raise UsageError(f"the sandbox does not listen on {host}: its token is public", "Use 127.0.0.1.")
    with _prepared(store, options, host, port) as (server, listener), contextlib.suppress(KeyboardInterrupt):
        on_ready(_at(listener))
        server.run([listener])


def _at(listener: socket.socket) -> Running:
    from batcher.sandbox.server import BASE, TOKEN

    host, port = listener.getsockname()[:2]
    return Running(url=f"http://{f'[{host}]' if ':' in host else host}:{port}{BASE}", token=TOKEN)


@contextmanager
def _prepared(
    path: Path, options: SandboxOptions, host: str, port: int
) -> Iterator[tuple[uvicorn.Server, socket.socket]]:
    try:
        import uvicorn

        from batcher.sandbox.server import Sandbox
    except ImportError as error:
        raise UsageError("the sandbox is not installed", this_installation().install("sandbox")) from error
    connections: Connections = {}
    speech = engine()
    with _listening(host, port) as listener, contextlib.closing(Store(path, options)) as store:
        config = uvicorn.Config(
            Sandbox(store, speech, options, connections).app(),
            loop="asyncio",
            http=_tracking(connections),
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            timeout_graceful_shutdown=2,
        )
        yield uvicorn.Server(config), listener


def _tracking(connections: Connections) -> type[HttpToolsProtocol]:
    """A protocol that registers its open connections, for those that the sandbox is to drop."""
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    class Tracked(HttpToolsProtocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            connections[transport.get_extra_info("peername")[:2]] = transport

        def connection_lost(self, exc: Exception | None) -> None:
            del connections[self.transport.get_extra_info("peername")[:2]]
            super().connection_lost(exc)

    return Tracked


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        message = f"the sandbox cannot listen on {host} port {port}: {error}"
        raise UsageError(message, "Choose another port with --port.") from error
    # Accepted connections inherit it. asyncio does not set it here, and each answer would then wait 40 ms for an ACK.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"
