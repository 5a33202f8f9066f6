"""The log of the command line: what happened to which item, attempt and task, as lines for people or as JSON."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from io import FileIO, TextIOWrapper
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any

from batcher.errors import UsageError
from batcher.files import SHARED_MODE
from batcher.log import LOGGER
from batcher.log import line as on_one_line

_Line = Callable[[float, str, str, dict[str, Any]], str]


def configure(
    write: Callable[[str], object],
    *,
    verbose: bool = False,
    debug: bool = False,
    as_json: bool = False,
    file: Callable[[str], object] | None = None,
) -> None:
    """Send log lines to `write`: errors always, every step with `verbose`, everything with `debug`.

    `file` receives every step regardless of `verbose`. `as_json`: each line is a JSON object, its time in UTC.
    """
    level = logging.DEBUG if debug else logging.INFO if verbose else logging.ERROR
    lowest = min(level, logging.INFO) if file is not None else level
    line: _Line = _json if as_json else _console

    LOGGER.addHandler(_Lines(write, file, line, level))
    LOGGER.setLevel(lowest)
    LOGGER.propagate = False


class _Lines(logging.Handler):
    """Writes each record as a line: from `level` on to `write`, and all of them to `file`."""

    def __init__(
        self, write: Callable[[str], object], file: Callable[[str], object] | None, line: _Line, level: int
    ) -> None:
        super().__init__()
        self._write = write
        self._file = file
        self._line = line
        self._level = level

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        what, facts = getattr(record, "event", record.getMessage()), getattr(record, "facts", {})
        text = self._line(record.created, record.levelname.lower(), what, facts)
        if record.levelno >= self._level:
            self._write(text)
        if self._file is not None:
            self._file(text)


class LogFile(WatchedFileHandler):
    """A log file opened for appending. After rotation has moved it away, a new one is created at its path.

    Raises:
        UsageError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        try:
            super().__init__(path, encoding="utf-8", delay=True)
            self.stream = self._open()
        except OSError as error:
            raise UsageError(f"cannot write the log {path}: {error.strerror}", "Name another --log-file.") from error

    def _open(self) -> TextIOWrapper:
        """Open the log, created with permissions that keep it from other accounts; of a pipe, wait for no reader."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(self.baseFilename, flags, SHARED_MODE)
        os.set_blocking(descriptor, True)
        return TextIOWrapper(FileIO(descriptor, "w"), encoding="utf-8", write_through=True)

    def write(self, line: str) -> None:
        """Append a line. Errors are ignored: a full disk must not stop the run."""
        with suppress(OSError):  # from reopening
            self.handle(logging.makeLogRecord({"msg": line}))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is logging's
        """Drop a line that cannot be written: everything important is in the ledger."""


def _console(at: float, severity: str, what: str, facts: dict[str, Any]) -> str:
    when = datetime.fromtimestamp(at, UTC).astimezone().isoformat(timespec="milliseconds")
    return f"{when} {severity:<7} {on_one_line(what, facts)}"


def _json(at: float, severity: str, what: str, facts: dict[str, Any]) -> str:
    when = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps({"timestamp": when, "level": severity, "event": what} | facts, ensure_ascii=False, default=str)
