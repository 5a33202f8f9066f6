"""Renders the help topics for a terminal.

The topics use a small part of Markdown: headings, paragraphs and list items on one line each, tables, fenced code,
`code`, **bold**, *emphasis* and links. A library for all of Markdown would double the base install.
"""

from __future__ import annotations

import re
from itertools import zip_longest
from textwrap import indent, wrap
from typing import Final

import click

_FENCE: Final = "```"
_GAP: Final = "  "
_LIST_ITEM: Final = re.compile(r"(- |\d+\. )(.*)")
_LINK: Final = re.compile(r"\[([^\]]+)\]\(([^)]+)\)")
_EMPHASIS: Final = re.compile(r"(?<![\w*])\*([^*\s][^*]*)\*(?![\w*])")
_MARKED: Final = re.compile(r"(?P<mark>`|\*\*)(?P<text>.+?)(?P=mark)", re.DOTALL)


def render(text: str, width: int) -> str:
    """The Markdown text as lines of at most `width` characters, styled for a terminal; code blocks keep their lines."""
    lines = text.splitlines()
    blocks: list[str] = []
    while lines:
        line = lines[0]
        if line.startswith(_FENCE):
            blocks.append(_code(lines))
        elif line.startswith("|"):
            blocks.append(_table(_take_while(lines, r"\|"), width))
        elif _LIST_ITEM.match(line):
            blocks.append("\n".join(_paragraph(item, width) for item in _take_while(lines, _LIST_ITEM.pattern)))
        elif lines.pop(0):
            title = line.lstrip("# ")
            blocks.append(_paragraph(line, width) if title == line else click.style(title, bold=True))
    return "\n\n".join(blocks) + "\n"


def _take_while(lines: list[str], pattern: str) -> list[str]:
    """Remove the first lines that match the pattern, and return them."""
    taken = []
    while lines and re.match(pattern, lines[0]):
        taken.append(lines.pop(0))
    return taken


def _code(lines: list[str]) -> str:
    end = lines.index(_FENCE, 1)
    block = lines[1:end]
    del lines[: end + 1]
    return indent("\n".join(block), "    ")


def _paragraph(line: str, width: int) -> str:
    item = _LIST_ITEM.fullmatch(line)
    first, text = ("", line) if item is None else (f"  {item[1]}".replace("- ", "• "), item[2])
    filled = wrap(_inline(text), width, initial_indent=first, subsequent_indent=" " * len(first))
    return _styled("\n".join(filled))


def _inline(text: str) -> str:
    return _EMPHASIS.sub(r"\1", _LINK.sub(r"\1 (\2)", text))


def _styled(text: str) -> str:
    return _MARKED.sub(_style, text)


def _style(found: re.Match[str]) -> str:
    is_code = found["mark"] == "`"
    return click.style(found["text"], fg="cyan" if is_code else None, bold=None if is_code else True)


def _table(lines: list[str], width: int) -> str:
    """The table with aligned columns; the widest columns are wrapped until the rows fit."""
    cells = [[_MARKED.sub(r"\g<text>", _inline(cell)) for cell in _split(line)] for line in lines]
    header, _, *rows = cells
    widths = [max(map(len, column)) for column in zip(*[header, *rows], strict=True)]
    room = width - len(_GAP) * (len(widths) - 1)
    while sum(widths) > room:
        widths[widths.index(max(widths))] -= 1
    rule = _GAP.join("─" * one for one in widths)
    return "\n".join([_row(header, widths), rule, *(_row(row, widths) for row in rows)])


def _split(line: str) -> list[str]:
    cells = re.split(r"(?<!\\)\|", line.strip().removeprefix("|").removesuffix("|"))
    return [cell.strip().replace("\\|", "|") for cell in cells]


def _row(cells: list[str], widths: list[int]) -> str:
    columns = [wrap(cell, size, break_on_hyphens=False) for cell, size in zip(cells, widths, strict=True)]
    lines = zip_longest(*columns, fillvalue="")
    padded = (_GAP.join(part.ljust(size) for part, size in zip(line, widths, strict=True)).rstrip() for line in lines)
    return "\n".join(padded)
