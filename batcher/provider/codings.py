"""Undoes the content coding of an answer in small steps, so that a few bytes cannot fill the memory."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any, Final

from batcher.provider.limits import MAX_CODINGS, MAX_PIECE_BYTES

_GZIP: Final = 16 + zlib.MAX_WBITS
_RAW: Final = -zlib.MAX_WBITS
_PLAIN: Final = ("", "identity", "aws-chunked")  # object stores keep the last as a header of plain content


class CodingError(Exception):
    """The content coding is refused, or the body is not in it."""


class Decoder:
    """Decodes one body whose `Content-Encoding` header is `header` (None: no header).

    Raises:
        CodingError: the header names more than one coding, or one other than gzip and deflate.
    """

    def __init__(self, header: str | None) -> None:
        names = [name for name in map(str.strip, (header or "").lower().split(",")) if name not in _PLAIN]
        if len(names) > MAX_CODINGS:
            raise CodingError(f"it has {len(names)} content codings; at most {MAX_CODINGS} is accepted")
        self._name = names[0] if names else None
        if self._name not in (None, "gzip", "x-gzip", "deflate"):
            raise CodingError(f"it has a content coding that was not asked for: {self._name:.20}")
        self._head = b""  # start of the body, until it shows which format of deflate it is
        self._inflate: Any = None  # zlib does not export the class

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Decode the next bytes, in pieces of at most `MAX_PIECE_BYTES`; uncoded bytes pass as they are.

        Raises:
            CodingError: they are not in the coding that the header names.
        """
        if self._name is None:
            yield data
            return
        if self._inflate is None:
            self._head += data
            if len(self._head) < 2:
                return
            data, self._inflate = self._head, zlib.decompressobj(self._window())
        yield from self._decoded(data)

    def end(self) -> None:
        """Check that a coded body is complete.

        Raises:
            CodingError: it ends too early.
        """
        if self._head and (self._inflate is None or not self._inflate.eof):
            raise CodingError(f"the {self._name} body was cut off")

    def _window(self) -> int:
        """The format, as zlib counts them. Many servers send deflate without its header."""
        if self._name != "deflate":
            return _GZIP
        has_header = self._head[0] & 15 == zlib.DEFLATED and int.from_bytes(self._head[:2], "big") % 31 == 0
        return zlib.MAX_WBITS if has_header else _RAW

    def _decoded(self, data: bytes) -> Iterator[bytes]:
        piece = b""
        while not self._inflate.eof and (data or len(piece) == MAX_PIECE_BYTES):
            try:
                piece = self._inflate.decompress(data, MAX_PIECE_BYTES)
            except zlib.error as error:
                raise CodingError(f"the body is not {self._name}: {error}") from error
            data = self._inflate.unconsumed_tail
            if piece:
                yield piece
