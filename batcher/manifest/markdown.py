"""Reads Markdown: each heading, paragraph, list item and quotation is a row. The rest is left out and counted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from batcher.formatting import counted
from batcher.manifest.input import Input
from batcher.manifest.markdown_text import only_tags, spoken
from batcher.manifest.prose import joined
from batcher.manifest.rows import Record
from batcher.manifest.stream import check_length
from batcher.manifest.table import table_record

_FRONT: Final = {"---": ("---", "..."), "+++": ("+++",)}
"""The first line of a file with front matter, and the lines that end it."""
_FRONT_MATTER: Final = "front matter"
_FENCE: Final = re.compile(r"(`{3,}|~{3,})(?P<info>.*)")
_HEADING: Final = re.compile(r"#{1,6}(?:\s+(?P<text>.*?))?(?:\s+#+)?\s*")
_UNDERLINE: Final = re.compile(r"=+\s*|-+\s*")
_RULE: Final = re.compile(r"([-*_])(?:\s*\1){2,}\s*")
_ITEM: Final = re.compile(r"(?:[-*+]|(?P<number>\d{1,9})[.)])(?:\s+(?:\[[ xX]\]\s+)?(?P<text>.*)|\s*\Z)")
_QUOTE: Final = re.compile(r"(?:\s{0,3}>\s?)+")
_TABLE_RULE: Final = re.compile(r"\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*")
_LINK_TARGET: Final = re.compile(r"\[[^\]^][^\]]*\]:\s*\S+.*")
_FOOTNOTE: Final = re.compile(r"\[\^[^\]]+\]:.*")
_DIRECTIVE: Final = re.compile(r":{3,}.*|!!!\s+\w+.*")
_CODE_INDENT: Final = 4


@dataclass(slots=True)
class _Block:
    """A part of the document that is one text: what it is, its first line's number, and its lines."""

    kind: str
    line: int
    lines: list[str] = field(default_factory=list)


def records(source: Input) -> Iterator[Record]:
    """A record for each block of text. Its number is that of its first line; `block` and `section`, the heading above
    it, are carried.

    Raises:
        ManifestError: the encoding is unusable.
    """
    layout = source.columns.read_header(["text", "block", "section"], 1)
    splitter = _Splitter(source.name)
    section, count = "", 0
    for block in splitter.blocks(source.lines):
        text, left_out = spoken(_paragraph(block.lines))
        splitter.left_out.update(left_out)
        if only_tags(text):
            splitter.left_out["HTML block"] += bool(text)
            continue
        count += 1
        number = count if source.rules.counted else block.line
        yield table_record(number, block.line, [text, block.kind, section], layout, f"{text}{section}")
        section = text if block.kind == "heading" else section
    if splitter.unclosed is not None:
        what, line = splitter.unclosed
        reason = f"the {what} that begins here never ends: close it, or the text below is not spoken"
        source.faults.add(line, None, reason, cause="unclosed", fatal=True)
    elif not count:
        reason = "empty: the file has no paragraphs that can be spoken"
        source.faults.add(None, None, reason, cause="empty", fatal=True)
    source.notes.append("each heading, paragraph, list item and quotation is one text, without its Markdown")
    if not_spoken := [_counted(number, what) for what, number in splitter.left_out.items() if number]:
        source.notes.append(f"not spoken: {', '.join(not_spoken)}")


def _counted(number: int, what: str) -> str:
    return counted(number, what) if what != _FRONT_MATTER else what


def _paragraph(lines: Iterable[str]) -> str:
    """The lines as one text, in which those that end with two spaces or a backslash are broken."""
    parts: list[list[str]] = [[]]
    for line in lines:
        is_broken = line.endswith(("  ", "\\"))
        parts[-1].append(line.rstrip().removesuffix("\\") if is_broken else line)
        if is_broken:
            parts.append([])
    return "\n".join(filter(None, map(joined, parts)))


class _Splitter:
    """Splits a document into blocks.

    `left_out` counts what is in none. `unclosed` is what was opened last, with its line, until it is closed.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._size = 0
        self.left_out: Counter[str] = Counter()
        self.unclosed: tuple[str, int] | None = None
        self._open: _Block | None = None
        self._ended: list[_Block] = []
        self._until: str | None = None  # what ends the part that is being left out: a fence, or a blank line as ""
        self._in_comment = self._in_list = False
        self._after_blank = True

    def blocks(self, lines: Iterable[str]) -> Iterator[_Block]:
        """The blocks, in order."""
        front: tuple[str, ...] = ()
        for number, line in enumerate(lines, 1):
            line = line.rstrip("\r\n").expandtabs(_CODE_INDENT)
            if number == 1 and line.rstrip() in _FRONT:
                front = _FRONT[line.rstrip()]
                self.unclosed = (_FRONT_MATTER, number)
            elif front:
                if line.rstrip() in front:
                    front, self.unclosed = (), None
                    self.left_out[_FRONT_MATTER] += 1
            else:
                self._add(number, line)
            yield from self._take()
        self._end()
        yield from self._take()

    def _take(self) -> Iterator[_Block]:
        ended, self._ended = self._ended, []
        yield from ended

    def _add(self, number: int, line: str) -> None:
        bare = line.strip()
        if self._until is not None and (self._until or bare):
            if self._until and bare.startswith(self._until) and not bare.strip(self._until[0]):
                self._until = self.unclosed = None
            return
        self._until = None
        if self._in_comment or not _FENCE.match(bare):
            line = self._without_comments(number, line)
        quote = _QUOTE.match(line)
        line = line[quote.end() :] if quote else line
        if not line.strip():
            self._end()
            self._after_blank = True
            return
        self._place(number, line, in_quote=quote is not None)
        self._after_blank = False

    def _without_comments(self, number: int, line: str) -> str:
        if self._in_comment:
            _, ended, line = line.partition("-->")
            if not ended:
                return ""
            self._in_comment, self.unclosed = False, None
        parts = []
        while True:
            before, begun, line = line.partition("<!--")
            parts.append(before)
            self.left_out["comment"] += bool(begun)
            _, ended, line = line.partition("-->")
            if begun and not ended:
                self._in_comment, self.unclosed = True, ("comment", number)
            if not ended:
                return "".join(parts)

    def _place(self, number: int, line: str, *, in_quote: bool) -> None:
        """Add a line that is not blank to the open block, or begin another with it."""
        bare, indent = line.strip(), len(line) - len(line.lstrip())
        item = _ITEM.fullmatch(bare)
        if fence := _FENCE.fullmatch(bare):
            self._leave_out("code block", fence[1])
            self.unclosed = ("code block", number)
        elif indent >= _CODE_INDENT and self._open is None and not self._in_list:
            self.left_out["code block"] += self._after_blank
        elif heading := _HEADING.fullmatch(bare):
            self._begin("heading", number, heading["text"] or "")
            self._end()
        elif self._open is not None and self._open.kind == "paragraph" and _UNDERLINE.fullmatch(bare):
            self._open.kind = "heading"
            self._end()
        elif _RULE.fullmatch(bare) or _DIRECTIVE.fullmatch(bare):
            self._end()
        elif item and (self._open is None or self._in_list or item["number"] in (None, "1")):
            self._begin("list item", number, item["text"] or "")
            self._in_list = True
        elif self._open is None and _FOOTNOTE.fullmatch(bare):
            self._leave_out("footnote", "")
        elif self._open is None and _LINK_TARGET.fullmatch(bare):
            pass
        elif self._open is not None and "|" in bare and self._is_table(bare):
            self._open.lines.pop()
            self._leave_out("table", "")
        elif self._open is not None:
            self._size += len(line)
            check_length(self._name, self._open.line, self._size)
            self._open.lines.append(line)
        else:
            self._in_list = self._in_list and indent > 1
            self._begin("list item" if self._in_list else "quotation" if in_quote else "paragraph", number, line)

    def _is_table(self, line: str) -> bool:
        """Whether this line separates the header of a table, which is the line above, from its rows."""
        above = self._open.lines[-1].strip().strip("|") if self._open is not None else ""
        return _TABLE_RULE.fullmatch(line) is not None and above.count("|") == line.strip("|").count("|")

    def _leave_out(self, what: str, until: str) -> None:
        self._end()
        self.left_out[what] += 1
        self._until = until

    def _begin(self, kind: str, number: int, line: str) -> None:
        self._end()
        self._in_list = self._in_list and kind == "list item"
        self._open, self._size = _Block(kind, number, [line]), len(line)
        check_length(self._name, number, self._size)

    def _end(self) -> None:
        if self._open is not None and any(map(str.strip, self._open.lines)):
            self._ended.append(self._open)
        self._open = None
