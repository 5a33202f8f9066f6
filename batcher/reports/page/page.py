"""Writes the page as a stream: what it tells and draws first, then every row as compact JSON, then embedded audio."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from batcher.clock import local
from batcher.formatting import plainly
from batcher.ledger.ledger import Connection
from batcher.ledger.queries.identity import identity
from batcher.ledger.queries.report import ReportRow, report_rows
from batcher.ledger.records import Batch
from batcher.reports.page.facts import STATES, facts_of

KEY_DIGITS: Final = 16
"""So many of an item's key tell it from all others on a page."""
_CHUNK: Final = 5000
_MEDIA: Final = {"mp3": "audio/mpeg", "wav": "audio/wav", "opus": "audio/ogg", "ogg": "audio/ogg"}
"""What browsers can play; a raw `pcm` file is only linked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """Where the page goes, and what it holds: `embed` the audio itself, `texts` what is spoken."""

    path: Path
    home: Path  # the ledger's folder
    at: float
    embed: bool = False
    texts: bool = True


@dataclass(slots=True)
class _Words:
    """Words that recur from row to row, each told once; rows name them by number."""

    known: dict[Any, int] = field(default_factory=dict)

    def number(self, word: Any) -> int:
        return self.known.setdefault(word, len(self.known))


class _Rows:
    """The rows in the page's own short form; what they share is complete once they have all been given out."""

    def __init__(self, conn: Connection, wanted: Sequence[Batch], choices: Choices) -> None:
        self._told = report_rows(conn, wanted)
        self._choices = choices
        self._links = {batch.out_dir: _link_to(choices, batch.out_dir) for batch in wanted}
        self.voices, self.errors, self.batches, self.states = _Words(), _Words(), _Words(), _Words()
        self.audio: dict[str, tuple[Path, str]] = {}

    def chunks(self) -> Iterator[Markup]:
        """JSON arrays of rows."""
        while chunk := [self._short(row) for row in islice(self._told, _CHUNK)]:
            yield as_json(chunk)

    def shared(self) -> dict[str, Any]:
        """The words that rows name by number."""
        return {
            "voices": list(self.voices.known),
            "errors": list(self.errors.known),
            "batches": list(self.batches.known),
            "states": [[state, STATES[state][0]] for state in self.states.known],
        }

    def _short(self, row: ReportRow) -> list[Any]:
        """In the order that the page's script knows: id, text, voice, state, seconds, error, link, key, batch, take."""
        inputs = row.inputs
        message = plainly(row.error_message or "") if self._choices.texts else ""
        error = None if row.error is None else (row.error, message)
        return [
            row.id,
            inputs.text if inputs is not None and self._choices.texts else "",
            None if inputs is None else self.voices.number(inputs.voice),
            self.states.number(row.state),
            None if row.audio_seconds is None else round(row.audio_seconds, 2),
            None if error is None else self.errors.number(error),
            self._link(row),
            None if row.key is None else row.key[:KEY_DIGITS],
            self.batches.number(row.batch),
            row.take,
        ]

    def _link(self, row: ReportRow) -> str | None:
        if row.output is None or row.inputs is None or row.key is None:
            return None
        media = _MEDIA.get(row.inputs.format)
        if self._choices.embed and media is not None:
            self.audio[row.key[:KEY_DIGITS]] = (self._choices.home / row.out_dir / row.output, media)
        return self._links[row.out_dir] + quote(row.output)

    def embedded(self) -> Iterator[dict[str, str]]:
        """The audio of each item once, as far as it is on disk."""
        for key, (path, media) in self.audio.items():
            try:
                yield {"key": key, "media": media, "base64": base64.b64encode(path.read_bytes()).decode()}
            except FileNotFoundError:
                continue


def write_page(conn: Connection, wanted: Sequence[Batch], choices: Choices) -> None:
    """Replace the file at `choices.path` by the page on these batches, as a whole.

    Raises:
        OSError: the folder does not take it; what was there stays.
    """
    choices.path.parent.mkdir(parents=True, exist_ok=True)
    draft = choices.path.with_name(f".{choices.path.name}.part")
    try:
        with draft.open("w", encoding="utf-8") as file:
            file.writelines(_render(conn, wanted, choices))
        draft.replace(choices.path)
    finally:
        draft.unlink(missing_ok=True)


def _render(conn: Connection, wanted: Sequence[Batch], choices: Choices) -> Iterable[str]:
    rows, who = _Rows(conn, wanted, choices), identity(conn)
    names = [batch.name for batch in wanted]
    style, script = _asset("page.css"), _asset("page.js")
    return _template().generate(
        title=", ".join(names),
        batches=names,
        sandbox=who.world == "sandbox",
        made_at=local(choices.at),
        policy=_policy(style, script),
        style=Markup(style),  # noqa: S704 - our own files
        script=Markup(script),  # noqa: S704
        rows=rows,
        about=lambda: as_json({"ledger": who.ledger_id, "texts": choices.texts} | rows.shared()),
        facts=facts_of(conn, wanted),
    )


def as_json(value: Any) -> Markup:
    """Compact JSON that may stand within a script element: nothing in it can end one, nor begin a comment."""
    said = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return Markup(said.replace("<", "\\u003c"))  # noqa: S704 - what could end the element is gone


def _policy(style: str, script: str) -> str:
    """A content security policy under which only this style and this script count, and audio from beside the page."""
    hashes = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script))
    return (
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; img-src data:; "
        "media-src 'self' file: data:; base-uri 'none'; form-action 'none'"
    ).format(*hashes)


def _link_to(choices: Choices, out_dir: str) -> str:
    """The way from the page to the output folder, as the beginning of a relative link; never one with a scheme."""
    way = os.path.relpath((choices.home / out_dir).resolve(), choices.path.parent.resolve())
    return f"./{quote(way)}/" if way != "." else "./"


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_asset("page.html"))
