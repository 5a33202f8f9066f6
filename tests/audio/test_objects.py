"""What an object store answers, in messages. Against a real socket."""

from __future__ import annotations

import socket
import threading

import pytest

from batcher.audio import objects
from tests.support.object_store import URL


def test_the_reason_of_a_store_is_one_short_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if it is long and has control characters."""
    text = f"<Error><Code>Bad</Code><Message>\x1b]0;title\x07\nread {'on ' * 50_000}</Message></Error>".encode()

    def refuse() -> None:
        connection, _ = listening.accept()
        with connection:
            while not connection.recv(65536).endswith(b"audio"):
                pass
            connection.sendall(b"HTTP/1.1 400 Bad\r\ncontent-length: %d\r\n\r\n%s" % (len(text), text))

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=refuse, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{listening.getsockname()[1]}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "k")
        with pytest.raises(OSError, match="Bad") as caught:
            objects.create(f"{URL}/a", b"audio")
    reason = str(caught.value.strerror)
    assert reason.startswith("Bad: ]0;title read on on")
    assert len(reason) == 300
