"""Answers of an object store are bounded, whatever it sends. Against real sockets."""

from __future__ import annotations

import base64
import io
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from batcher.audio import objects, relay
from batcher.audio.objects import OutageError
from tests.support.object_store import URL, serving

PIECE = b"x" * 65536


@contextmanager
def server(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """The port of a server that serves each connection in a thread."""

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=answer, args=(listening.accept()[0],), daemon=True).start()

    def answer(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            serve(connection)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=accept, daemon=True).start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def reach(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    """Let the object store be at this port."""
    for name, value in {
        "ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "ACCESS_KEY_ID": "k",
        "SECRET_ACCESS_KEY": "k",
    }.items():
        monkeypatch.setenv(f"AWS_{name}", value)


@pytest.mark.parametrize("status", [200, 400, 404, 503])
def test_an_answer_without_an_end_is_cut_off(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    """The library reads the text of an error, and each page of a listing, into memory."""
    sent = [0]

    def endless(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 %d Whatever\r\n\r\n<Error>" % status)
        while True:
            sent[0] += connection.send(PIECE)

    with server(endless) as port:
        reach(monkeypatch, port)
        monkeypatch.setattr(objects, "RETRIES", 0)
        with pytest.raises(OutageError, match="the store's answer is too long"):
            list(objects.names_below(URL))
    assert sent[0] < 4 * relay.MAX_ANSWER_BYTES


def test_the_answer_to_a_write_is_cut_off_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many writes are under way at once."""
    text = b"<Error><Message>" + b"x" * (2 * relay.MAX_REPLY_BYTES) + b"</Message></Error>"

    def refuse(connection: socket.socket) -> None:
        while not connection.recv(65536).endswith(b"audio"):
            pass
        connection.sendall(b"HTTP/1.1 400 Bad\r\ncontent-length: %d\r\n\r\n%s" % (len(text), text))

    with server(refuse) as port:
        reach(monkeypatch, port)
        with pytest.raises(OutageError, match="the store's answer is too long"):
            objects.create(f"{URL}/a", b"audio")


def test_the_reason_of_a_store_is_one_short_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(connection: socket.socket) -> None:
        while not connection.recv(65536).endswith(b"audio"):
            pass
        text = f"<Error><Code>Bad</Code><Message>\x1b]0;title\x07\nread {'on ' * 50_000}</Message></Error>".encode()
        connection.sendall(b"HTTP/1.1 400 Bad\r\ncontent-length: %d\r\n\r\n%s" % (len(text), text))

    with server(refuse) as port:
        reach(monkeypatch, port)
        with pytest.raises(OSError, match="Bad") as caught:
            objects.create(f"{URL}/a", b"audio")
    reason = str(caught.value.strerror)
    assert reason.startswith("Bad: ]0;title read on on")
    assert len(reason) == 300


@pytest.mark.parametrize("size", [0, 1, 100_000, 131_072, 131_073, 400_000])
def test_an_object_of_any_size_arrives_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, size: int) -> None:
    """Large ones in parts, each an answer of its own."""
    content = bytes(i % 251 for i in range(size))
    with serving(tmp_path) as store:
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        store.put("a.mp3", content)
        monkeypatch.setattr(objects, "_PART_BYTES", 131_072)
        file = io.BytesIO()
        assert objects.download(f"{URL}/a.mp3", file) == sha256(content).hexdigest()
        assert file.getvalue() == content


def through(target: str, *, password: bool = True) -> bytes:
    """What comes back through the tunnel of the relay to this target, after `ping`."""
    proxy = relay.proxy_for("AWS", 100)
    assert proxy is not None
    url = urlsplit(proxy)
    assert url.hostname == "127.0.0.1"
    permission = base64.b64encode(f"{url.username}:{url.password if password else 'guess'}".encode())
    with socket.create_connection((url.hostname, url.port or 0)) as connection:
        connection.sendall(
            b"CONNECT %s HTTP/1.1\r\nProxy-Authorization: Basic %s\r\n\r\n" % (target.encode(), permission)
        )
        head = connection.recv(100)
        if head:
            connection.sendall(b"ping")
        return head + connection.recv(100) if head else b""


def test_a_tunnel_for_tls_carries_bytes_as_they_are_and_only_for_this_program() -> None:
    with server(lambda connection: connection.sendall(connection.recv(100).upper())) as port:
        assert through(f"127.0.0.1:{port}") == b"HTTP/1.1 200 OK\r\n\r\nPING"
        assert through(f"127.0.0.1:{port}", password=False) == b""
    assert through(f"127.0.0.1:{port}") == b""  # nobody listens there any more


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "http_proxy", "ALL_PROXY", "AWS_PROXY_URL"])
def test_a_proxy_of_the_user_comes_first(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "http://proxy.example:3128")
    assert relay.proxy_for("AWS", 100) is None
