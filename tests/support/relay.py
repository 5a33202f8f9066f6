"""A relay of TCP connections that can lose what it is given, as a broken network does: nobody is told."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class Relay:
    """A relay; both ways lose nothing until a test sets their events."""

    port: int
    to_server_lost: threading.Event = field(default_factory=threading.Event)
    to_client_lost: threading.Event = field(default_factory=threading.Event)


@contextmanager
def relay_to(host: str, port: int) -> Iterator[Relay]:
    """A relay on 127.0.0.1 to a server at this address.

    What is lost was acknowledged by the kernel, so that no time limit of TCP ends a connection; nor is its end passed.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    relay, opened = Relay(listener.getsockname()[1]), [listener]

    def accept() -> None:
        with suppress(OSError):  # closed at the end
            while True:
                client, _ = listener.accept()
                server = socket.create_connection((host, port))
                opened.extend((client, server))
                for ends in ((client, server, relay.to_server_lost), (server, client, relay.to_client_lost)):
                    threading.Thread(target=_pass_on, args=ends, daemon=True).start()

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield relay
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        for one in opened:
            one.close()


def _pass_on(source: socket.socket, target: socket.socket, lost: threading.Event) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            if not lost.is_set():
                target.sendall(data)
        if not lost.is_set():
            target.shutdown(socket.SHUT_WR)
