"""The conditions on which objects are created and replaced, as Google Cloud Storage and Azure have them.

Against a server that knows just these requests of both.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar, Final

import pytest

from batcher.audio import objects
from batcher.audio.bucket import Bucket
from batcher.audio.content import digest

URLS: Final = ("gs://bucket/book", "az://container/book")
PATH: Final = ".items/ab/k.mp3"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    found: ClassVar[dict[str, tuple[bytes, int, dict[str, str]]]]  # by path: content, version, attributes
    versions: ClassVar[Iterator[int]]

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        version = self.found[self.path][1] if self.path in self.found else 0
        wanted = self.headers.get("x-goog-if-generation-match")
        if (self.headers.get("If-None-Match") == "*" and version) or (wanted is not None and int(wanted) != version):
            self._answer(412 if wanted is not None else 409)
            return
        if (etag := self.headers.get("If-Match")) is not None and etag != f'"{version}"':
            self._answer(412)
            return
        attributes = {name: value for name, value in self.headers.items() if "-meta-" in name}
        self.found[self.path] = content, next(self.versions), attributes
        self._answer(201)

    def do_GET(self) -> None:
        self._answer(200 if self.path in self.found else 404)

    def do_HEAD(self) -> None:
        self.do_GET()

    def _answer(self, status: int) -> None:
        content, version, attributes = self.found.get(self.path, (b"", 0, {})) if status < 300 else (b"", 0, {})
        body = content if self.command != "PUT" else b""
        self.send_response(status)
        headers = attributes | {"ETag": f'"{version}"', "x-goog-generation": str(version)}
        headers |= {"Content-Length": str(len(body)), "Last-Modified": "Sat, 28 Nov 2026 15:00:00 GMT"}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, tuple[bytes, int, dict[str, str]]]]:
    """What the server has; the environment leads there."""
    handler = type("Handler", (_Handler,), {"found": {}, "versions": itertools.count(1)})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}"
        account = {"gcs_base_url": address, "disable_oauth": True, "private_key": "", "private_key_id": ""}
        (tmp_path / "account.json").write_text(json.dumps(account | {"client_email": "a@example.com"}))
        monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", str(tmp_path / "account.json"))
        monkeypatch.setenv("GOOGLE_ALLOW_HTTP", "true")
        monkeypatch.setenv("AZURE_STORAGE_USE_EMULATOR", "true")
        monkeypatch.setenv("AZURITE_BLOB_STORAGE_URL", address)
        yield handler.found  # type: ignore[attr-defined]
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("url", URLS)
def test_an_object_is_created_once_and_recognised(
    tmp_path: Path, found: dict[str, tuple[bytes, int, dict[str, str]]], url: str
) -> None:
    """Other content at its place is set aside, and then replaced on the condition that it has not changed."""
    store = Bucket(tmp_path, url)
    store.prepare()
    for content, objects_there in ((b"speech", 2), (b"speech", 2), (b"other speech", 3)):
        store.part(PATH).write_bytes(content)
        sha256 = digest(store.part(PATH))
        store.publish(PATH)
        assert store.holds(PATH, sha256)
        assert len(found) == objects_there
    assert {content for content, *_ in found.values()} >= {b"speech", b"other speech"}


@pytest.mark.parametrize("url", URLS)
def test_an_object_that_has_changed_is_not_replaced(
    tmp_path: Path, found: dict[str, tuple[bytes, int, dict[str, str]]], url: str
) -> None:
    name = f"{url}/a.mp3"
    objects.create(name, b"ours")
    before = objects.head(name)
    assert before is not None
    objects.write(name, b"theirs")
    with pytest.raises(FileExistsError):
        objects.replace(name, b"ours again", before)
    assert objects.read(name, 100) == b"theirs"


def test_plain_links_need_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "speech")
    assert objects.links(["gs://bucket/a b.mp3"], None) == ["https://storage.googleapis.com/bucket/a%20b.mp3"]
    assert objects.links(["az://c/a b.mp3"], None) == ["https://speech.blob.core.windows.net/c/a%20b.mp3"]
