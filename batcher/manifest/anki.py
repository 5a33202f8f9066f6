"""The lines with which a text export of Anki begins (`#separator:tab`, `#columns:Front Back`), and its texts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Final

_LINE: Final = re.compile(r"#([a-z ]+):(.*)", re.IGNORECASE)
_SEPARATORS: Final = {"comma": ",", "semicolon": ";", "tab": "\t", "space": " ", "pipe": "|", "colon": ":"}
_COLUMN: Final = re.compile(r"(tags|deck|notetype|guid) column")
_KEYS: Final = {"separator", "html", "columns", "tags", "deck", "notetype", "if matches"}
_SOUND: Final = re.compile(r"\[sound:[^\]]*\]")
_SPACES: Final = re.compile(r"[^\S\n]+")
_BREAKS: Final = re.compile(r" *\n[ \n]*")
_BLOCKS: Final = frozenset({"br", "div", "p", "li", "ul", "ol", "tr", "table", "hr", "h1", "h2", "h3"})
_SILENT: Final = frozenset({"style", "script"})


@dataclass(slots=True)
class Export:
    """What the first lines say: how many there are, the delimiter, whether texts are HTML, and names of columns."""

    count: int = 0
    delimiter: str | None = None
    html: bool = False
    columns: str | None = None
    placed: dict[int, str] = field(default_factory=dict)

    def names(self, width: int) -> list[str] | None:
        """The names of that many columns; None if the lines name none."""
        if self.columns is None and not self.placed:
            return None
        listed = [] if self.columns is None else self.columns.split(self.delimiter or "\t")
        names = [name.strip() for name in listed] + [""] * (width - len(listed))
        for index, name in self.placed.items():
            if index < len(names):
                names[index] = names[index] or name
        return [name or f"column {index}" for index, name in enumerate(names, 1)]


def is_directive(line: str) -> bool:
    """Whether the line is one of those with which an export begins."""
    match = _LINE.match(line)
    return match is not None and (match[1].lower() in _KEYS or _COLUMN.fullmatch(match[1].lower()) is not None)


def read(lines: Iterable[str]) -> Export:
    """Read the lines of an export up to the first note."""
    found = Export()
    for line in lines:
        match = _LINE.match(line.rstrip("\r\n"))
        if match is None or not is_directive(line):
            break
        found.count += 1
        name, value = match[1].lower(), match[2]
        if name == "separator":
            found.delimiter = _SEPARATORS.get(value.strip().lower(), value[:1] or None)
        elif name == "html":
            found.html = value.strip().lower() == "true"
        elif name == "columns":
            found.columns = value
        elif (column := _COLUMN.fullmatch(name)) is not None and value.strip().isdecimal() and int(value) > 0:
            found.placed[int(value) - 1] = column[1]
    return found


def spoken(text: str, *, html: bool) -> str:
    """The text of a card's field without `[sound:…]`; of HTML, without tags and with the line breaks of the card."""
    text = _SOUND.sub("", text).strip()
    if not html:
        return text
    parser = _Text()
    parser.feed(text)
    parser.close()
    return _BREAKS.sub("\n", _SPACES.sub(" ", "".join(parser.parts))).strip()


class _Text(HTMLParser):
    """Collects the text of HTML, and a line break for each element that begins a line."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002 - its signature
        self.parts += ["\n"] * (tag in _BLOCKS)
        self._silent += tag in _SILENT

    def handle_endtag(self, tag: str) -> None:
        self.parts += ["\n"] * (tag in _BLOCKS)
        self._silent = max(0, self._silent - (tag in _SILENT))

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.parts.append(data)
