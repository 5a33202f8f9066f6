"""Reads subtitles, SRT, WebVTT and SBV: each cue is a row, whose times are carried along as `start` and `end`."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from batcher.manifest.faults import Problem, literal
from batcher.manifest.input import Input
from batcher.manifest.rows import Record
from batcher.manifest.table import table_record

_TIME: Final = r"(?:\d+:)?\d{1,2}:\d{2}[,.]\d{1,3}"
_TIMES: Final = re.compile(rf"\s*({_TIME})(?:\s*-->\s*|,)({_TIME})(?:\s.*)?", re.ASCII)
_VOICE: Final = re.compile(r"<v(?:\.[^\s>]*)?\s+([^>]+)>")
_TAG: Final = re.compile(r"</?(?:[biucv]|ruby|rt|lang|font)(?:[.\s][^<>]*)?>|<[\d:.]+>|\{\\[^{}]*\}", re.IGNORECASE)
_ENTITY: Final = re.compile(r"&(?:amp|lt|gt|nbsp|lrm|rlm|quot|#\d+|#x[0-9a-f]+);", re.IGNORECASE)
_BLOCKS: Final = ("NOTE", "STYLE", "REGION", "WEBVTT", "X-TIMESTAMP")
"""How blocks of WebVTT begin that are no cues."""
_COLUMNS: Final = ["text", "start", "end", "speaker"]
_MAX_LINES: Final = 1000
"""Lines of a block."""


@dataclass(slots=True)
class _Block:
    """Lines between blank lines: the number of the first, and the lines."""

    line: int
    lines: list[str] = field(default_factory=list)


def records(source: Input) -> Iterator[Record]:
    """A record for each cue, numbered from 1.

    Raises:
        ManifestError: the encoding is unusable.
    """
    columns = _COLUMNS[:3] if source.ending == ".srt" else _COLUMNS
    layout = source.columns.read_header(columns, 1)
    number = 0
    for block in _blocks(source):
        timed = next((index for index, line in enumerate(block.lines[:2]) if _TIMES.fullmatch(line)), None)
        if timed is None and block.lines[0].startswith(_BLOCKS):
            continue
        number += 1
        times = None if timed is None else _TIMES.fullmatch(block.lines[timed])
        if timed is None or times is None:
            reason = (
                f"{literal(block.lines[0])} begins no cue: write its times above it, or remove the blank line above"
            )
            yield Record(number, block.line, problems=[Problem(field=None, cause="no times", reason=reason)])
            continue
        lines = block.lines[timed + 1 :]
        if any(map(_TIMES.fullmatch, lines)):
            reason = "contains the times of another cue: insert a blank line between them"
            yield Record(number, block.line, problems=[Problem(field=None, cause="two cues", reason=reason)])
            continue
        text = " ".join(map(str.strip, lines))
        cells = [_plain(text), times[1], times[2], *_speakers(text)][: len(columns)]
        yield table_record(number, block.line, cells, layout, "".join(cells))
    if not number:
        source.faults.add(None, None, "empty: there is no cue", cause="empty", fatal=True)


def are_subtitles(beginning: str) -> bool:
    """Whether a file that begins so has subtitles."""
    return beginning.startswith("WEBVTT") or any(map(_TIMES.fullmatch, beginning.splitlines()[:2]))


def _blocks(source: Input) -> Iterator[_Block]:
    """The blocks of the file; one of too many lines is cut."""
    block: _Block | None = None
    for number, raw in enumerate(source.lines, 1):
        line = raw.rstrip("\r\n")
        if block is not None and (not line.strip() or len(block.lines) == _MAX_LINES):
            yield block
            block = None
        if line.strip():
            block = block or _Block(number)
            block.lines.append(line)
    if block is not None:
        yield block


def _plain(text: str) -> str:
    """The text of a cue without the tags of its format."""
    return _ENTITY.sub(lambda match: html.unescape(match[0]), _TAG.sub("", text)).strip()


def _speakers(text: str) -> list[str]:
    """The speaker that WebVTT names, if it is one."""
    names = {name.strip() for name in _VOICE.findall(text)}
    return [next(iter(names))] if len(names) == 1 else [""]
