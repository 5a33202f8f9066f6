"""A monitoring service over a real socket."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Monitor:
    """A monitoring service: records each ping with its body and headers, and answers with `status`."""

    def __init__(self) -> None:
        self.status = 200
        self.paths: list[str] = []
        self.bodies: list[str] = []
        self.headers: list[str] = []
        self.url = ""


@contextmanager
def listening() -> Iterator[Monitor]:
    """A monitor that listens until the context ends."""
    monitor = Monitor()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            monitor.paths.append(self.path)
            monitor.bodies.append(self.rfile.read(int(self.headers["content-length"])).decode())
            monitor.headers.append(str(self.headers))
            self.send_response(monitor.status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        monitor.url = f"http://127.0.0.1:{server.server_address[1]}/check"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield monitor
        server.shutdown()
        thread.join()
