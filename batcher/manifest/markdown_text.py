"""Takes the marks of Markdown out of a text: emphasis, links, images, code spans, escapes."""

from __future__ import annotations

import html
import re
from collections import Counter
from typing import Final

_ESCAPED: Final = re.compile(r"\\([!-/:-@\[-`{-~])")
_CODE: Final = re.compile(r"(?<!`)(`+)(?!`)(.{1,500}?)(?<!`)\1(?!`)", re.DOTALL)
_IMAGE: Final = re.compile(r"!\[[^\[\]]*\](?:\([^()]*(?:\([^()]*\)[^()]*)*\)|\[[^\[\]]*\])|!\[\[[^\[\]]*\]\]")
_WIKI_LINK: Final = re.compile(r"\[\[(?:[^\[\]|]*\|)?([^\[\]|]+)\]\]")
_LINK: Final = re.compile(r"\[((?:[^\[\]]|\[[^\[\]]*\])*)\](?:\([^()]*(?:\([^()]*\)[^()]*)*\)|\[[^\[\]]*\])")
_FOOTNOTE: Final = re.compile(r"\[\^[^\]\s]+\]")
_ADDRESS: Final = re.compile(r"<((?:https?|mailto|ftp):[^<>\s]+|[^<>\s@]+@[^<>\s@]+\.\w+)>")
_HEADING_ID: Final = re.compile(r"[\w:.-]+\}\s*")
_TAG: Final = re.compile(r"</?[A-Za-z][^<>]*>|&nbsp;|\s")
_MARKS: Final = (
    re.compile(r"\*\*\*(?=\S)((?:[^*]|\*(?!\*\*))+?)(?<=\S)\*\*\*"),
    re.compile(r"\*\*(?=\S)((?:[^*]|\*(?!\*))+?)(?<=\S)\*\*"),
    re.compile(r"(?<!\w)__(?=\S)((?:[^_]|_(?!_))+?)(?<=\S)__(?!\w)"),
    re.compile(r"\*(?=[^\s*])((?:[^*]|(?<=\s)\*(?=\s))+?)(?<=[^\s*])\*"),
    re.compile(r"(?<!\w)_(?=[^\s_])((?:[^_]|(?<=\w)_(?=\w))+?)(?<=[^\s_])_(?!\w)"),
    re.compile(r"~~(?=\S)((?:[^~]|~(?!~))+?)(?<=\S)~~"),
)
"""Emphasis, which ends at the next such mark: looking further would take forever in a long text."""
_KEPT: Final = "\ue000{}\ue001"
"""Stands for a part that has no marks; its number is between two characters for private use."""
_KEPT_PART: Final = re.compile("\ue000(\\d+)\ue001")


def spoken(text: str) -> tuple[str, Counter[str]]:
    """The text without its marks, and what was left out of it."""
    left_out: Counter[str] = Counter()
    kept: list[str] = []

    def keep(part: str) -> str:
        kept.append(part)
        return _KEPT.format(len(kept) - 1)

    if _KEPT_PART.search(text):
        return text, left_out
    text = _CODE.sub(lambda match: keep(match[2].strip()), text)
    text = _ESCAPED.sub(lambda match: keep(match[1]), text)
    text, left_out["image"] = _IMAGE.subn("", text)
    text = _WIKI_LINK.sub(r"\1", text)
    text, count = _LINK.subn(r"\1", text)
    while count:
        text, count = _LINK.subn(r"\1", text)
    text, left_out["footnote mark"] = _FOOTNOTE.subn("", text)
    text = _ADDRESS.sub(lambda match: keep(match[1].removeprefix("mailto:")), _without_heading_id(text))
    for mark in _MARKS:
        text = mark.sub(r"\1", text)
    text = _KEPT_PART.sub(lambda match: kept[int(match[1])], html.unescape(text))
    return re.sub(r"[^\S\n]{2,}", " ", text).strip(), left_out


def _without_heading_id(text: str) -> str:
    before, begun, name = text.rpartition("{#")
    return before if begun and _HEADING_ID.fullmatch(name) else text


def only_tags(text: str) -> bool:
    """Whether nothing but HTML tags is in the text."""
    return not _TAG.sub("", text)
