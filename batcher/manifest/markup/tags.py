"""HTML and SSML: tags, comments and entities in a text.

A tag is reported only where it can hardly be anything else: `3 <b and c> 2` and `<3` are text.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Set
from html.entities import html5
from typing import Final, NamedTuple

REMOVED: Final = "\0"
"""Stands for a removed part of a text, which itself cannot contain it."""
BREAK: Final = " \0 "
"""Stands for a removed part that also separated two words."""


class Span(NamedTuple):
    """A part of a text that is markup, and what replaces it."""

    start: int
    end: int
    replacement: str = REMOVED


_TAG: Final = re.compile(
    r"<(?P<close>/?)(?P<name>[A-Za-z][\w:.-]*+)"
    r"(?P<attributes>=[^<>]*+|(?:\s++[\w:@.-]++(?:\s*+=\s*+(?:\"[^\"]*+\"|'[^']*+'|[^\s\"'<>`]++))?)*+)"
    r"\s*+(?P<empty>/?)>"
)
_DECLARATION: Final = re.compile(r"<!\[CDATA\[|\]\]>|<!DOCTYPE[^<>]*+>|<\?xml[^<>]*\?>", re.IGNORECASE)
_CLOSING: Final = re.compile(r"</([a-z][\w:.-]*+)>")
_HIDDEN: Final = (
    (re.compile("<!--"), re.compile("-->")),
    *(
        (re.compile(rf"<{name}\b[^<>]*+>", re.IGNORECASE), re.compile(rf"</{name}\s*+>", re.IGNORECASE))
        for name in ("style", "script")
    ),
)
"""Where what is not shown begins and ends."""
_ENTITY: Final = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_SSML: Final = frozenset(("speak", "break", "prosody", "emphasis", "say-as", "phoneme"))
_SSML_ATTRIBUTES: Final = {"sub": "alias", "voice": "name", "lang": "xml:lang", "mark": "name"}
"""Tags that are SSML if they have this attribute."""
_SSML_PREFIXES: Final = ("amazon:", "mstts:", "google:")
_HTML_NAMES: Final = """
abbr address article aside audio big blockquote body br button center cite code dd del dfn div dl dt em figcaption
figure font footer form h1 h2 h3 h4 h5 h6 head header hr html iframe img input ins kbd label li link main mark meta
nav ol option picture pre rp rt ruby samp script section select small span strike strong style sub sup svg table tbody
td textarea tfoot th thead time title tr tt ul var video wbr
"""
_HTML: Final = frozenset(_HTML_NAMES.split())
_BREAK_NAMES: Final = """
address article blockquote br break center dd div dl dt figcaption h1 h2 h3 h4 h5 h6 hr li ol option p pre s section
table td th tr ul
"""
_BREAKS: Final = frozenset(_BREAK_NAMES.split())
"""Tags that separate words."""


def enclosed(begin: re.Pattern[str], end: re.Pattern[str], text: str) -> Iterator[tuple[int, int]]:
    """Each part from a beginning to the next end. A single pattern would search the rest of the text again for each
    beginning without an end, which takes quadratic time."""
    at = 0
    while (first := begin.search(text, at)) and (last := end.search(text, first.end())):
        at = last.end()
        yield first.start(), at


def html_spans(text: str) -> Iterator[Span]:
    """HTML and similar tags, comments and entities."""
    for begin, end in _HIDDEN:
        yield from (Span(start, stop, BREAK) for start, stop in enclosed(begin, end, text))
    for match in _DECLARATION.finditer(text):
        yield Span(match.start(), match.end(), BREAK)
    closed = set(_CLOSING.findall(text.lower()))
    for match, is_ssml in _tags(text):
        if not is_ssml and _is_html(match, closed):
            yield _span(match)
    for match in _ENTITY.finditer(text):
        name = match[0][1:]
        if name[0] == "#" or name in html5:
            yield Span(match.start(), match.end(), html.unescape(match[0]).replace("\0", "").replace("\xa0", " "))


def ssml_spans(text: str) -> Iterator[Span]:
    """SSML tags."""
    return (_span(match) for match, is_ssml in _tags(text) if is_ssml)


def _tags(text: str) -> Iterator[tuple[re.Match[str], bool]]:
    """Everything in the form of a tag, and whether it is SSML."""
    found = list(_TAG.finditer(text))
    names = {match["name"].lower() for match in found if _opens_ssml(match)}
    for match in found:
        name = match["name"].lower()
        yield match, "speak" in names or name in names or name in _SSML or name.startswith(_SSML_PREFIXES)


def _opens_ssml(match: re.Match[str]) -> bool:
    name = match["name"].lower()
    attribute = _SSML_ATTRIBUTES.get(name)
    return name in _SSML or (attribute is not None and f" {attribute}=" in match["attributes"].lower())


def _is_html(match: re.Match[str], closed: Set[str]) -> bool:
    """Whether the match is a tag: one that HTML knows, one with a value, or one of those that are closed."""
    name, attributes = match["name"].lower(), match["attributes"]
    if name in _HTML or "=" in attributes or match["close"]:
        return True
    if attributes:
        return False
    return bool(match["empty"]) or name in closed or (name == "p" and not match.start())


def _span(match: re.Match[str]) -> Span:
    return Span(match.start(), match.end(), BREAK if match["name"].lower() in _BREAKS else REMOVED)
