"""Compound files: streams of any size are found in them, and damaged ones end."""

from __future__ import annotations

import struct

import pytest

from batcher.manifest import limits
from batcher.manifest.compound import MAGIC, Streams, packed

END, FREE = 0xFFFFFFFE, 0xFFFFFFFF
LARGE, SMALL = b"large" * 1000, b"small" * 50


def entry(
    name: str, kind: int, start: int, size: int, *, siblings: tuple[int, int] = (FREE, FREE), child: int = FREE
) -> bytes:
    encoded = name.encode("utf-16-le")
    return struct.pack("<64sHBB3I36xIQ", encoded, len(encoded) + 2, kind, 1, *siblings, child, start, size)


def container(*, extra: dict[int, int] | None = None, double: int = END, listed: int = 1, entries: int = 5) -> bytes:
    """A compound file by sectors: list of streams (0 and 1), table (2), table of small sectors (3), the stream of the
    root (4), a large stream (5 to 14), a list of the table's sectors (15).

    In it: Large, Book, which is small, and a folder that holds another Book. `extra` changes numbers of the table.
    """
    folder = (
        entry("Root Entry", 5, 4, 512, child=1)
        + entry("Book", 2, 1, len(SMALL), siblings=(2, 3))
        + entry("Large", 2, 5, len(LARGE))
        + entry("Objects", 1, 0, 0, child=4)
        + entry("Book", 2, 5, len(LARGE))
    )[: entries * 128].ljust(1024, b"\0")
    chains = {0: 1, 1: END, 2: 0xFFFFFFFD, 3: END, 4: END, **{number: number + 1 for number in range(5, 14)}, 14: END}
    numbers = chains | (extra or {})
    table = [numbers.get(number, FREE) for number in range(128)]
    small = [FREE, 2, 4, FREE, 5, END]
    pieces = [b"", SMALL[:64], SMALL[64:128], b"", SMALL[128:192], SMALL[192:]]
    return b"".join(
        [
            struct.pack("<8s16x5H6x9I", MAGIC, 0x3E, 3, 0xFFFE, 9, 6, 0, listed, 0, 0, 4096, 3, 1, double, 0),
            struct.pack("<109I", *([2] * listed), *[FREE] * (109 - listed)),
            folder,
            struct.pack("<128I", *table),
            struct.pack("<128I", *small, *[FREE] * (128 - len(small))),
            b"".join(piece.ljust(64, b"\0") for piece in pieces).ljust(512, b"\0"),
            LARGE.ljust(5120, b"\0"),
            struct.pack("<128I", 2 if listed == 0 else FREE, *[FREE] * 126, 15 if double == 15 and listed else END),
        ]
    )


def test_large_and_small_streams_are_read_but_not_those_of_embedded_documents() -> None:
    streams = Streams(container())
    assert (streams.read("Large"), streams.read("Book")) == (LARGE, SMALL)
    assert ("Root Entry" in streams, "Objects" in streams) == (False, False)


def test_the_table_is_found_through_the_list_of_its_sectors() -> None:
    assert Streams(container(double=15, listed=0)).read("Large") == LARGE


def test_what_is_written_is_read_even_if_its_table_needs_such_a_list() -> None:
    for size in (10, 5000, 8 << 20):
        stream = b"0123456789" * (size // 10)
        assert Streams(packed(stream)).read("Workbook")[: len(stream)] == stream


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (container(double=15), "the list of its table's sectors does not end"),
        (container(listed=2), "a sector of its table is used twice"),
        (container(extra={14: 5}), "a chain of its sectors does not end"),
        (container(extra={1: 0}), "a chain of its sectors does not end"),
        (container(extra={14: 200}), "a chain of its sectors does not end"),
        (container()[:512], "a chain of its sectors does not end"),
        (container(entries=1), "Large"),
        (container().replace(b"\xfe\xff\x09", b"\xfe\xff\x0a", 1), "unusual"),
    ],
)
def test_a_damaged_file_is_refused_at_once(content: bytes, why: str) -> None:
    with pytest.raises((ValueError, KeyError, struct.error), match=why):
        Streams(content).read("Large")


def test_a_small_stream_that_forms_a_circle_is_refused() -> None:
    content = bytearray(container())
    struct.pack_into("<I", content, 512 + 3 * 512 + 5 * 4, 1)
    with pytest.raises(ValueError, match="does not end"):
        Streams(bytes(content)).read("Book")


def test_a_list_of_streams_that_forms_a_circle_is_refused() -> None:
    content = bytearray(container())
    struct.pack_into("<I", content, 512 + 2 * 128 + 68, 1)
    with pytest.raises(ValueError, match="its list of streams does not end"):
        Streams(bytes(content))


def test_a_list_of_streams_that_is_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_LISTING_BYTES", 512)
    with pytest.raises(limits.TooLargeError, match="its list of streams has more than"):
        Streams(container())
