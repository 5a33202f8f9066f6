"""The bytes of a manifest, measured and hashed as they are read, and the lines of text decoded from them."""

from __future__ import annotations

import codecs
import hashlib
import io
import re
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import islice
from typing import IO, BinaryIO, Final, NoReturn, cast

from batcher.errors import ManifestError, Suggestion
from batcher.manifest import limits
from batcher.manifest.faults import literal

SAVE_AS: Final = "Save the file as UTF-8, or name its encoding, for example --encoding cp1252."
_SAVE_AS_BY_LANGUAGE: Final = (
    "Save the file as UTF-8, or name its encoding: --encoding shift_jis (Japanese), gb18030 or big5 (Chinese), cp949 "
    "(Korean) or cp1251 (Cyrillic)."
)
_HIGH: Final = re.compile(rb"[\x80-\xff]+")
_HEAD_BYTES: Final = 4096
_BOUND: Final = 1 << 20
_SPOOLED_BYTES: Final = 1 << 23
_CHUNK: Final = 1 << 20
_NO_ENCODINGS: Final = frozenset(("idna", "punycode", "undefined"))
"""Codecs of Python that are none of text files."""
_BOMS: Final = {b"\xef\xbb\xbf": "utf-8", b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}


@contextmanager
def seekable(stream: BinaryIO, name: str) -> Iterator[BinaryIO]:
    """The stream, or a copy of it if it is a pipe.

    Raises:
        ManifestError: the pipe has too much.
    """
    if stream.seekable():
        yield stream
        return
    with temporary_copy() as copy:
        if not copied(stream, copy, limits.MAX_PIPED_BYTES):
            message = f"{name}: it is too large: more than {limits.MAX_PIPED_BYTES >> 20:,} MiB"
            raise ManifestError(message, [message], "Write it to a file and pass that.")
        yield copy


def temporary_copy() -> AbstractContextManager[BinaryIO]:
    """A stream for a copy: in memory, or in a temporary file once it has more than 8 MiB."""
    return cast("AbstractContextManager[BinaryIO]", tempfile.SpooledTemporaryFile(max_size=_SPOOLED_BYTES))


def copied(stream: IO[bytes], copy: BinaryIO, most: int) -> bool:
    """Copy the stream, and rewind the copy. Returns False if there is more than that many bytes."""
    while copy.tell() <= most and (data := stream.read(_CHUNK)):
        copy.write(data)
    is_whole = copy.tell() <= most
    copy.seek(0)
    return is_whole


def bounded(lines: Iterator[str], number: int) -> Iterator[str]:
    """At most that many lines, or fewer once they have more than a million characters: what memory can hold."""
    size = 0
    for line in islice(lines, number):
        yield line
        size += len(line)
        if size > _BOUND:
            return


def check_length(name: str, line: int, characters: int) -> None:
    """Check the length of a text that spans lines, of which `line` is the first.

    Raises:
        ManifestError: it is too long.
    """
    if characters > limits.MAX_TEXT_CHARACTERS:
        fault = f"{name}:{line}: a text has more than {limits.MAX_TEXT_CHARACTERS:,} characters"
        raise ManifestError(fault, [fault], "Separate paragraphs with blank lines.")


class Tap(io.BufferedIOBase):
    """A binary stream that measures and hashes what is read of it; `head` is its beginning."""

    def __init__(self, name: str, stream: BinaryIO) -> None:
        self.name = name
        self.head = stream.read(_HEAD_BYTES)
        self.size = 0
        self.sha256 = hashlib.sha256()
        self._stream = stream
        self._begun = False

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        data = self._stream.read(-1 if size is None else size) if self._begun else self.head
        self._begun = True
        self.size += len(data)
        self.sha256.update(data)
        return data

    read1 = read

    def whole(self) -> bytes:
        """The whole stream; call it before any other read."""
        return self.read() + self.read()

    def drain(self) -> None:
        """Read the rest, so that hash and size cover the whole stream."""
        while self.read(1 << 20):
            pass


class Lines:
    """The decoded lines of a stream, without a byte order mark; `seen` counts them. `encoding` is the codec's name.

    `is_split` is whether the last line ends in a carriage return alone although the first one does not: it stood within
    a line, and cut it in two.

    With `longest`, they end with the first that has as many characters; it is `cut` off there.

    Raises, when constructed or iterated:
        ManifestError: the encoding is unknown, the bytes are not in it, or a line is too long.
    """

    def __init__(self, tap: Tap, encoding: str | None, *, longest: int | None = None) -> None:
        self.seen = 0
        self.cut = False
        self.is_split = False
        self._longest = longest
        self._tap = tap
        marked = next((codec for mark, codec in _BOMS.items() if tap.head.startswith(mark)), "utf-8")
        self.encoding = encoding or marked
        try:
            if codecs.lookup(self.encoding).name in _NO_ENCODINGS:
                raise LookupError
            self._text = io.TextIOWrapper(tap, encoding=self.encoding, newline="")
        except (LookupError, ValueError):  # ValueError: the name contains a null character
            message = f"{tap.name}: {literal(self.encoding)} is not an encoding"
            raise ManifestError(message, [message], "Use for example --encoding utf-8, cp1252 or utf-16.") from None

    def beginning(self) -> str:
        """The stream's head from the first character that is not white space; "" if there is none."""
        return self._tap.head.decode(self.encoding, "replace").lstrip("\ufeff \t\r\n")

    def __iter__(self) -> Iterator[str]:
        try:
            longest, feeds = self._longest or limits.MAX_LINE_CHARACTERS, False
            for line in iter(partial(self._text.readline, longest), ""):
                self.seen += 1
                feeds = feeds or (self.seen == 1 and line[-1] == "\n")
                self.is_split = feeds and line[-1] == "\r"
                self.cut = len(line) == longest
                if self.cut and self._longest is None:
                    self._raise_fault(
                        f"the line has {longest:,} characters or more", "Is this a text file with one row per line?"
                    )
                yield line.removeprefix("\ufeff") if self.seen == 1 else line
                if self.cut:
                    return
        except UnicodeError as error:
            self._raise_undecodable(error)

    def whole(self) -> str:
        """All lines in one string, of any length.

        Raises:
            ManifestError: the bytes are not in the encoding.
        """
        try:
            return self._text.read().removeprefix("\ufeff")
        except UnicodeError as error:
            self._raise_undecodable(error)

    def _raise_fault(self, reason: str, hint: str) -> NoReturn:
        fault = f"{self._tap.name}:{self.seen}: {reason}"
        raise ManifestError(fault, [fault], hint) from None

    def _raise_undecodable(self, error: UnicodeError) -> NoReturn:
        if not isinstance(error, UnicodeDecodeError):
            self.seen += 1
            self._raise_fault(f"not valid {self.encoding.upper()}: {error}", SAVE_AS)
        # The decoder receives a chunk only after all lines before it were yielded.
        before = error.object[: error.start].decode(self.encoding, "replace")
        line = self.seen + 1 + len(re.findall(r"\r\n|\r|\n", before))
        offset = self._tap.size - len(error.object) + error.start
        encoding = self.encoding.upper()
        fault = f"{self._tap.name}:{line}: not valid {encoding}: {error.reason} at byte {offset:,}"
        runs = [len(run) for run in _HIGH.findall(error.object[error.start : error.start + _HEAD_BYTES])]
        is_latin = 2 * runs.count(1) >= len(runs)  # accents stand alone, characters of other alphabets do not
        excel = Suggestion("If Excel saved it on Windows:", {"--encoding": ["cp1252"]}) if is_latin else None
        hint = SAVE_AS if is_latin else _SAVE_AS_BY_LANGUAGE
        raise ManifestError(fault, [fault], hint, suggestion=excel) from None
