"""An S3 server on loopback that can lose answers, be busy, or be out of reach."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from http import HTTPStatus
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import pytest
from localbucket import S3Error, S3Handler

BUCKET: Final = "bucket"
URL: Final = f"s3://{BUCKET}/book"
SLOW_SECONDS: Final = 0.3


class Fault(Enum):
    """What goes wrong with a request."""

    DOWN = "the connection breaks before anything is done"
    LOST = "it is done, and the answer is lost"
    BUSY = "the store asks to try again"
    DENIED = "the credentials do not permit it"
    SLOW = "it takes a while"
    UNSUPPORTED = "the store does not know such requests"


_ANSWERS: Final = {
    Fault.BUSY: (HTTPStatus.CONFLICT, "ConditionalRequestConflict", "A conflicting operation is in progress."),
    Fault.DENIED: (HTTPStatus.FORBIDDEN, "AccessDenied", "Access Denied"),
    Fault.UNSUPPORTED: (HTTPStatus.NOT_IMPLEMENTED, "NotImplemented", "This is not implemented."),
}


class ObjectStore:
    """The server: the folder of its bucket, and the requests that it has received, as method and key.

    `faults` decides what goes wrong, by method and key.
    """

    def __init__(self, folder: Path) -> None:
        self.bucket = folder / BUCKET
        self.bucket.mkdir(parents=True)
        self.requests: list[tuple[str, str]] = []
        self.faults: Callable[[str, str], Fault | None] = lambda *_: None
        self.sha256s: dict[str, str] = {}  # by key: the attribute of our own
        handler = type("Handler", (_Handler,), {"data_root": folder, "store": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def environment(self) -> dict[str, str]:
        """The variables that lead to it."""
        host, port = self._server.server_address[:2]
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        return {"AWS_ENDPOINT_URL": f"http://{host!s}:{port}", "AWS_REGION": "us-east-1"} | dict.fromkeys(names, "key")

    def path(self, key: str) -> Path:
        """The file that holds an object below `book/`."""
        return self.bucket / "book" / key

    def objects(self) -> dict[str, bytes]:
        """The objects below `book/`, without the program's own."""
        found = (path for path in self.path("").rglob("*") if path.is_file() and not path.name.startswith("."))
        return {str(path.relative_to(self.path(""))): path.read_bytes() for path in found}

    def put(self, key: str, content: bytes) -> None:
        """Write an object below `book/` as somebody else."""
        self.path(key).parent.mkdir(parents=True, exist_ok=True)
        self.path(key).write_bytes(content)
        self.sha256s.pop(f"book/{key}", None)

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients are killed, and answers lost."""


class _Handler(S3Handler):  # type: ignore[misc]
    store: ObjectStore
    loses_answer = False

    def _dispatch(self, action: Any) -> None:
        key = self.path.partition("?")[0].removeprefix(f"/{BUCKET}").removeprefix("/")
        self.store.requests.append((self.command, key))
        fault = self.store.faults(self.command, key)
        if fault is Fault.DOWN:
            raise ConnectionAbortedError
        if fault in _ANSWERS:
            self._read_body()
            self._send_error(S3Error(*_ANSWERS[fault]))
            return
        if fault is Fault.SLOW:
            time.sleep(SLOW_SECONDS)
        self.loses_answer = fault is Fault.LOST
        super()._dispatch(action)

    def _send_headers(self, status: HTTPStatus, length: int, headers: Any = None) -> None:
        if self.loses_answer:
            raise ConnectionAbortedError
        key = self.path.partition("?")[0].removeprefix(f"/{BUCKET}/")
        known = self.store.sha256s.get(key) if self.command in ("GET", "HEAD") else None
        super()._send_headers(status, length, (headers or {}) | ({"x-amz-meta-sha256": known} if known else {}))

    def _write_object(self, bucket: str, key: str, write: Any) -> Any:
        path = self._object_path(bucket, key)
        if (wanted := self.headers.get("If-Match")) is not None:
            now = hashlib.md5(path.read_bytes()).hexdigest() if path.is_file() else None  # an ETag
            if wanted.strip('"') != now:
                raise self._precondition_failed_error()
        etag = super()._write_object(bucket, key, write)
        self.store.sha256s.pop(key, None)
        if (sha256 := self.headers.get("x-amz-meta-sha256")) is not None:
            self.store.sha256s[key] = sha256
        return etag

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def serving(folder: Path) -> Iterator[ObjectStore]:
    """A server with an empty bucket, in `folder`."""
    store = ObjectStore(folder)
    try:
        yield store
    finally:
        store.close()


@contextmanager
def reached(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """The same, with the variables by which this process reaches it."""
    with serving(folder) as store:
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        yield store
