"""Types of markup and placeholders: finds them in a text, and removes them.

Every false alarm stops a scheduled run, so a type is found only where it can hardly be ordinary text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final, NamedTuple

from batcher.manifest.markup.tags import BREAK, REMOVED, Span, enclosed, html_spans, ssml_spans

_CONTROL: Final = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufff9-\ufffb"
"""Control characters, and those that change the direction of a text regardless of its letters."""
_SUSPICIOUS: Final = (*"<&{[%\\`\ufffd", "**", "TODO", "TBD", "FIXME", "orem ipsum", "orem Ipsum")
"""What every find in a text of more than a few words contains, or else a control character: most texts have none of it.
Searching for one after the other takes a quarter of the time of one regular expression."""
_FEW_WORDS: Final = 24
"""Characters of a text that may be nothing but a draft's mark."""

_BRACES: Final = re.compile(r"\$?\{(?:[^{}]++|\{(?:[^{}]++|\{[^{}]*+\})*+\})*+\}")
_SMILEY: Final = re.compile(r"(?<!\S)[:;]-?[{}](?!\S)")
_LIST: Final = re.compile(r"\{\s*[\w.]+(?:\s*,\s*[\w.]+)+\s*\}")
_MESSAGE: Final = re.compile(r"\{\s*\w+\s*,\s*(?:plural|select|selectordinal|number|date|time)\b")
_SOUND: Final = re.compile(
    r"\[(?:sound|anki)\s*:[^\[\]]*+\]|\[(?:audio|image|video|file|media):[^\s\[\]]+\.\w{2,4}\]", re.IGNORECASE
)
_BBCODE: Final = re.compile(r"\[(?P<close>/?)(?P<name>[A-Za-z]\w*|\*)(?P<value>=[^\[\]]*+|(?:\s++\w++=[^\[\]]*+))?\]")
_BBCODE_WORDS: Final = """
b i u s url img color colour size font center centre left right justify quote code list li ul ol table tr td th spoiler
email youtube video sup sub indent wave shake rainbow tornado fade
"""
_BBCODE_NAMES: Final = frozenset(_BBCODE_WORDS.split())
_BBCODE_ALONE: Final = frozenset(("center", "centre", "img", "color", "colour", "url", "font", "justify"))
"""Tags that are hardly words, and so count without the tag that closes them."""
_BBCODE_OPENING: Final = re.compile(r"\[(\w++)")
_BBCODE_CLOSING: Final = re.compile(r"\[/(\w++)\]")
_PICTURE: Final = (re.compile(r"\[img[^\[\]]*+\]", re.IGNORECASE), re.compile(r"\[/img\]", re.IGNORECASE))
"""Where a picture begins and ends."""
_ADDRESS: Final = r"\b(?:https?|ftp|file)://\S+|\bwww\.\S+|\b[A-Za-z]:\\\S*|\\\\\w[\w.-]*\\\S*"
"""Web addresses and paths of Windows, in which % and \\ mean something else."""
_PLACEHOLDER: Final = re.compile(
    rf"{_ADDRESS}|(?P<found>(?<![\w%])%(?:"
    r"\(\w+\)[-+#0]*\d*(?:\.\d+)?[A-Za-z]"  # %(name)s
    r"|\d{1,2}\$[-+#0]*\d*(?:\.\d+)?[sdifuxXg@]"  # %1$s
    r"|(?:0\d+|\d*\.\d+)?l{0,2}[sdifuxXg@](?!\w)"  # %s, %02d, %.2f
    r"|(?P<number>[1-9])(?![\w.,'\u2019%])|(?<=%)[1-9](?=[.,](?:\s|$))"  # %1
    r"|[A-Za-z_]\w*%(?!\w))"  # %NAME%
    r"|<[A-Za-z]++_\w++>"  # <player_name>
    r"|\[(?i:insert|your|enter)\s[^\[\]]*+\])"  # [your name]
)
_PERCENT_FIRST: Final = re.compile("[ıİşŞğĞ]")
"""Letters of Turkish, which writes 5% as %5."""
_ESCAPE: Final = re.compile(rf"{_ADDRESS}|(?P<found>\\(?:[nNrt]|[\"']|u[0-9a-fA-F]{{4}}))")
_BOLD: Final = re.compile(r"(?<![\w*])\*\*(?=[^\s*])([^*\n]+?)(?<=\S)\*\*(?![\w*])")
_LINK: Final = re.compile(r"!?\[([^\[\]\n]*)\]\((?:https?://|mailto:|[./#])[^()\s]*\)")
_CONTROLS: Final = re.compile(f"[{_CONTROL}]+")
_LOST: Final = re.compile("\ufffd+")
_FENCE: Final = re.compile(r"```\w*")
_DRAFT_WORD: Final = (
    r"(?:TODO|FIXME|XXX+|PLACEHOLDER|TK|\?\?\?+|(?i:tbd|tba|tbc|fixme|n/a)|NULL|NaN|nan"
    r"|#(?:REF!|VALUE!|NAME\?|DIV/0!|NUM!))"
)
_DRAFT: Final = re.compile(
    rf"[\s\[\](){{}}<>#*:.…_-]*{_DRAFT_WORD}[\s\[\](){{}}<>#*:.…_-]*\Z"  # nothing else
    r"|\W{0,2}(?:TODO|TBD|FIXME)\b\s*[:(\u2013\u2014-]"  # TODO: …
    r"|(?s:.*?)\b(?i:lorem ipsum dolor)\b"
)
_BRACKETED_DRAFT: Final = (re.compile(r"[\[(<{]\s*+(?:TODO|TBD|FIXME)\b"), re.compile(r"[\])>}]"))
"""Where a draft's mark in brackets begins and ends, as in `… (TBD) …`."""
_DRAFT_WORDS: Final = re.compile(rf"{_DRAFT_WORD}|(?i:lorem ipsum)")
_DRAFT_INSIDE: Final = re.compile(r"\b(?:TBD|FIXME)\b")


def _matches(pattern: re.Pattern[str], replacement: str = REMOVED) -> Callable[[str], Iterator[Span]]:
    return lambda text: (Span(match.start(), match.end(), replacement) for match in pattern.finditer(text))


def _blank(match: re.Match[str]) -> str:
    return " " * len(match[0])


def _braces(text: str) -> Iterator[Span]:
    for match in _BRACES.finditer(_SMILEY.sub(_blank, text)):
        if not _LIST.fullmatch(match[0]) or _MESSAGE.match(match[0]):
            yield Span(match.start(), match.end())


def _bbcode(text: str) -> Iterator[Span]:
    yield from (Span(start, end) for start, end in enclosed(*_PICTURE, text))
    lower = text.lower()
    opened, closed = set(_BBCODE_OPENING.findall(lower)), set(_BBCODE_CLOSING.findall(lower))
    for match in _BBCODE.finditer(text):
        name = match["name"].lower()
        if name == "*":
            found = "list" in closed
        elif match["close"]:
            found = name in _BBCODE_NAMES or name in opened
        elif match["value"]:
            found = name in _BBCODE_NAMES or name in closed
        else:
            found = name in _BBCODE_ALONE or name in closed
        if found:
            yield Span(match.start(), match.end(), BREAK if name == "*" else REMOVED)


def _placeholders(text: str) -> Iterator[Span]:
    numbered = re.search(r"(?<![\w%])%1(?!\d)", text) is not None and not _PERCENT_FIRST.search(text)
    for match in _PLACEHOLDER.finditer(text):
        if match["found"] and (numbered or not match["found"][-1:].isdigit()):
            yield Span(match.start(), match.end())


def _escapes(text: str) -> Iterator[Span]:
    for match in _ESCAPE.finditer(text):
        if (found := match["found"]) is None:
            continue
        replacement = found[1] if found[1] in "\"'" else BREAK
        if found[1] == "u":
            char = chr(int(found[2:], 16))
            replacement = char if char.isprintable() else BREAK
        yield Span(match.start(), match.end(), replacement)


def _markdown(text: str) -> Iterator[Span]:
    for match in (*_BOLD.finditer(text), *_LINK.finditer(text)):
        yield Span(match.start(), match.start(1))
        yield Span(match.end(1), match.end())
    yield from _matches(_FENCE, BREAK)(text)


def _controls(text: str) -> Iterator[Span]:
    for match in _CONTROLS.finditer(text):
        yield Span(match.start(), match.end(), BREAK if match[0] < "\u2000" else REMOVED)


def _drafts(text: str) -> Iterator[Span]:
    is_marked = _DRAFT.match(text) or any(enclosed(*_BRACKETED_DRAFT, text))
    if is_marked or (text != text.upper() and _DRAFT_INSIDE.search(text)):
        yield Span(0, len(text))


class _Type(NamedTuple):
    """A type of markup: how it is found, and signs without which a text has none, or ""."""

    spans: Callable[[str], Iterable[Span]]
    signs: str


_TYPES: Final = {
    "html": _Type(html_spans, "<&"),
    "ssml": _Type(ssml_spans, "<"),
    "braces": _Type(_braces, "{"),
    "bbcode": _Type(_bbcode, "["),
    "sound": _Type(_matches(_SOUND), "["),
    "placeholders": _Type(_placeholders, "%<["),
    "escapes": _Type(_escapes, "\\"),
    "markdown": _Type(_markdown, "*[`"),
    "controls": _Type(_controls, ""),
    "lost": _Type(_matches(_LOST), "\ufffd"),
    "todo": _Type(_drafts, "TFXPLNtfln?#"),
}


def find(text: str) -> dict[str, list[str]]:
    """Markup and placeholders in the text, by type, without speaker names."""
    if not _is_suspicious(text):
        return {}
    found: dict[str, list[str]] = {}
    for name, one in _likely(text):
        parts = [text[span.start : span.end] for span in _in_order(one.spans(text))]
        if parts:
            found[name] = parts if name != "todo" else _DRAFT_WORDS.findall(text)[:1]
    return found


def strip(text: str, types: Collection[str]) -> str:
    """The text without markup and placeholders of these types, except speaker names.

    Entities and escaped characters become the characters that they stand for. A draft leaves nothing.
    """
    while _is_suspicious(text):
        spans = [span for name, one in _likely(text) if name in types for span in one.spans(text)]
        if not spans:
            break
        text = _without(text, _in_order(spans))
    return text


def _is_suspicious(text: str) -> bool:
    if len(text) <= _FEW_WORDS:
        return True
    for sign in _SUSPICIOUS:
        if sign in text:
            return True
    return not text.isprintable() and _CONTROLS.search(text) is not None


def _likely(text: str) -> Iterator[tuple[str, _Type]]:
    """The types that the text may have, by the signs in it."""
    return ((name, one) for name, one in _TYPES.items() if not one.signs or any(sign in text for sign in one.signs))


def _in_order(spans: Iterable[Span]) -> Iterator[Span]:
    """The spans by their position, without those that lie in another."""
    end = 0
    for span in sorted(spans, key=lambda span: (span.start, -span.end)):
        if span.start >= end:
            end = span.end
            yield span


def _without(text: str, spans: Iterable[Span]) -> str:
    parts, end = [], 0
    for span in spans:
        parts += [text[end : span.start], span.replacement]
        end = span.end
    kept = _GAP.sub(_close_gap, "".join([*parts, text[end:]])).strip()
    return kept.lstrip(" ,;:") if parts[:2] == ["", REMOVED] else kept


_GAP: Final = re.compile(r"(\s*)\0([\0\s]*)")


def _close_gap(match: re.Match[str]) -> str:
    """One blank or line break where the removed part separated words, and none before punctuation."""
    before, after = match[1], match[2].replace("\0", "")
    space = "\n" if "\n" in before + after else " "
    if before and not after and match.string[match.end() : match.end() + 1] in _CLOSING:
        return ""
    if after and not before and match.string[: match.start()].endswith(_OPENING):
        return ""
    return space if before or after else ""


_CLOSING: Final = frozenset(".,;:!?…)]}")
_OPENING: Final = ("(", "[", "{", "¿", "¡")
