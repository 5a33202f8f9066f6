"""`batcher` in a terminal, with a person in front of it."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import termios
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.conftest import Project


class Terminal:
    """A terminal in which a command of the project runs. The command must show something."""

    def __init__(self, project: Project, *arguments: str | Path, columns: int = 80) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self._process = project.start(*arguments, terminal=Path(os.ttyname(theirs)))
        self._said = b""
        self._read()
        os.close(theirs)  # not before the command has opened it

    @property
    def said(self) -> str:
        """What the command has shown, with plain line ends."""
        return self._said.decode().replace("\r\n", "\n")

    def _read(self) -> bool:
        try:
            chunk = os.read(self._ours, 4096)
        except OSError:  # raised by Linux at the end of a terminal
            chunk = b""
        self._said += chunk
        return bool(chunk)

    def until_says(self, words: str) -> None:
        """Wait until it has shown these words."""
        while words.encode() not in self._said:
            assert self._read(), self.said

    def type(self, keys: str) -> None:
        """Press these keys."""
        os.write(self._ours, keys.encode())

    def interrupt(self) -> None:
        """Send SIGINT to the command."""
        self._process.send(signal.SIGINT)

    def end(self) -> int:
        """Read until the command has ended; returns its exit code."""
        while self._read():
            pass
        os.close(self._ours)
        return self._process.exit_code()
