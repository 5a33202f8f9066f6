"""Reads prose: each paragraph is the text of a row. Paragraphs are separated by blank lines, and their lines are
broken at a width."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

from batcher.manifest.input import Input
from batcher.manifest.rows import Record
from batcher.manifest.stream import bounded, check_length
from batcher.manifest.table import table_record

_SAMPLE_LINES: Final = 1000
_MIN_WIDTH: Final = 40
"""Characters of the longest line, below which lines are phrases and not broken by a width."""
_MIN_FILLED: Final = 0.8
_MIN_LOWER: Final = 0.3
"""Share of the lines that go on within a paragraph and begin with a small letter: in German, every third word has a
capital."""
_ENDS: Final = re.compile(r"[.!?…:;\u3002\uff01\uff1f][\"'\u201d\u2019\xbb)\u300d\u300f]*\Z")
_WITHOUT_SPACES: Final = re.compile(r"[\u3000-\u30ff\u3400-\u9fff\uff00-\uffef]")
"""Characters of Chinese and Japanese, which put no space where a line is broken."""
_HYPHENATED: Final = re.compile(r"[^\W\d_]-\Z")


def joined(lines: Sequence[str]) -> str:
    """The lines of a paragraph as one text."""
    text = ""
    for line in map(str.strip, lines):
        is_split = bool(_HYPHENATED.search(text[-2:])) and line[:1].islower()
        is_dense = bool(_WITHOUT_SPACES.match(text[-1:]) and _WITHOUT_SPACES.match(line))
        text += line if not text or is_split or is_dense else f" {line}"
    return text


def is_prose(source: Input) -> bool:
    """Whether the lines of plain text are parts of paragraphs: each is filled up to a width, and goes on in the next.

    Raises:
        ManifestError: the encoding is unusable.
    """
    if source.rules.no_header:
        return False
    with source.lines_ahead() as ahead:
        lines = [line.strip() for line in bounded(iter(ahead), _SAMPLE_LINES)]
    width = max(map(len, lines), default=0)
    joints = [(line, following) for line, following in pairwise(lines) if line and following]
    if width < _MIN_WIDTH or not joints:
        return False
    filled = sum(len(line) + 1 + len(_first_word(following)) > width for line, following in joints)
    ended = sum(_ENDS.search(line) is not None for line, _ in joints)
    cased = [following for _, following in joints if following[0].lower() != following[0].upper()]
    lower = sum(following[0].islower() for following in cased)
    goes_on = 2 * ended < len(joints) and lower >= _MIN_LOWER * len(cased)
    return goes_on and filled >= _MIN_FILLED * len(joints)


def _first_word(line: str) -> str:
    return line[:1] if _WITHOUT_SPACES.match(line) else line.split(maxsplit=1)[0]


def records(source: Input) -> Iterator[Record]:
    """A record for each paragraph. Its number is that of its first line.

    Raises:
        ManifestError: the encoding is unusable.
    """
    source.notes.append("each paragraph is one text, its lines joined; if each line is a text, pass --no-header")
    layout = source.columns.read_header(["text"], 1)
    for count, (number, lines) in enumerate(_paragraphs(source), 1):
        text = joined(lines)
        yield table_record(count if source.rules.counted else number, number, [text], layout, text)


def _paragraphs(source: Input) -> Iterator[tuple[int, list[str]]]:
    """The lines of each paragraph, and the number of the first."""
    first, size, lines = 0, 0, list[str]()
    for number, line in enumerate(source.lines, 1):
        if line.isspace():
            if lines:
                yield first, lines
            size, lines = 0, []
            continue
        first = first if lines else number
        size += len(line)
        check_length(source.name, first, size)
        lines.append(line)
    if lines:
        yield first, lines
