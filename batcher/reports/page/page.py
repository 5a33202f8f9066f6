"""Writes the page as a stream: its frame and charts first, then every row as compact JSON, then embedded audio."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Any, Final
from urllib.parse import urljoin

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from batcher import files
from batcher.audio.content import on_disk
from batcher.audio.objects import OutageError, trouble
from batcher.audio.stores import Stores
from batcher.clock import local
from batcher.formatting import plain_error
from batcher.ledger.ledger import Connection
from batcher.ledger.queries.identity import identity
from batcher.ledger.queries.report import ReportRow, report_rows
from batcher.ledger.records import Batch
from batcher.reports.page.charts import KEY_DIGITS
from batcher.reports.page.facts import STATES, facts_of

_CHUNK: Final = 5000
"""Rows per script element."""
_MEDIA: Final = {"mp3": "audio/mpeg", "wav": "audio/wav", "opus": "audio/ogg", "ogg": "audio/ogg"}
"""Formats that browsers can play. Raw `pcm` files are only linked."""
_SCRIPTS: Final = ("data.js", "table.js", "player.js", "page.js")
"""Parts of the page's script, which share one scope."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """The page's path and content.

    `embed`: include the audio itself; `texts`: include the spoken texts. `link_seconds`: sign links to an object store,
    so that they are valid for so long without credentials.
    """

    path: Path
    home: Path  # the ledger's folder
    at: float
    embed: bool = False
    texts: bool = True
    link_seconds: float | None = None


@dataclass(slots=True)
class _Shared:
    """Values that many rows share, stored once; rows refer to them by number."""

    numbers: dict[Any, int] = field(default_factory=dict)

    def number(self, value: Any) -> int:
        return self.numbers.setdefault(value, len(self.numbers))


class _Rows:
    """The rows in the page's compact form. Shared values are complete only after all rows have been read."""

    def __init__(self, conn: Connection, chosen: Sequence[Batch], choices: Choices) -> None:
        self._rows = report_rows(conn, chosen)
        self._choices = choices
        self._stores = Stores(choices.home)
        self._remote = {batch.out_dir for batch in chosen if self._stores.at(batch.out_dir).is_remote}
        self.voices, self.errors, self.batches, self.states = _Shared(), _Shared(), _Shared(), _Shared()
        self.audio: dict[str, tuple[str, str]] = {}  # by item: location and media type

    def chunks(self) -> Iterator[Markup]:
        """JSON arrays of rows."""
        while found := list(islice(self._rows, _CHUNK)):
            yield as_json([self._short(row, link) for row, link in zip(found, self._links(found), strict=True)])

    def origins(self) -> list[str]:
        """The web addresses of the object stores that have audio."""
        links = (self._links_in(out_dir, ["x"])[0] for out_dir in sorted(self._remote))
        return sorted({urljoin(link, "/").rstrip("/") for link in links})

    def _links_in(self, out_dir: str, outputs: Sequence[str]) -> list[str]:
        return self._stores.at(out_dir).links(outputs, self._choices.path, self._choices.link_seconds)

    def _links(self, found: Sequence[ReportRow]) -> list[str | None]:
        """The link to the audio of each row, None if it has none."""
        links: list[str | None] = [None] * len(found)
        numbers: dict[str, dict[int, str]] = {}  # by output folder: outputs by the number of their row
        for number, row in enumerate(found):
            if row.output is not None and row.inputs is not None and row.key is not None:
                numbers.setdefault(row.out_dir, {})[number] = row.output
                self._note_audio(row.key, f"{row.out_dir}/{row.output}", row.inputs.format)
        for out_dir, outputs in numbers.items():
            for number, link in zip(outputs, self._links_in(out_dir, list(outputs.values())), strict=True):
                links[number] = link
        return links

    def _note_audio(self, key: str, location: str, audio_format: str) -> None:
        media = _MEDIA.get(audio_format)
        if self._choices.embed and media is not None:
            self.audio[key[:KEY_DIGITS]] = (location, media)

    def shared(self) -> dict[str, Any]:
        """The values that rows refer to by number."""
        return {
            "voices": list(self.voices.numbers),
            "errors": list(self.errors.numbers),
            "batches": list(self.batches.numbers),
            "states": [[state, STATES[state][0]] for state in self.states.numbers],
        }

    def _short(self, row: ReportRow, link: str | None) -> list[Any]:
        """Fields in the order of `data.js`: id, text, voice, state, seconds, error, link, key, batch, take, number."""
        inputs = row.inputs
        message = plain_error(row.error_message or "") if self._choices.texts else ""
        error = None if row.error is None else (row.error, message)
        return [
            row.id,
            inputs.text if inputs is not None and self._choices.texts else "",
            None if inputs is None else self.voices.number(inputs.voice),
            self.states.number(row.state),
            None if row.audio_seconds is None else round(row.audio_seconds, 2),
            None if error is None else self.errors.number(error),
            link,
            None if row.key is None else row.key[:KEY_DIGITS],
            self.batches.number(row.batch),
            row.take,
            row.number,
        ]

    def embedded(self) -> Iterator[dict[str, str]]:
        """The audio of each item once, if it is there.

        Raises:
            BatcherError: an object store cannot be used.
        """
        for key, (location, media) in self.audio.items():
            is_remote = files.is_url(location)
            try:
                with on_disk(self._choices.home, location) as path, files.reading(path) as file:
                    yield {"key": key, "media": media, "base64": base64.b64encode(file.read()).decode()}
            except OSError as error:
                if isinstance(error, OutageError | PermissionError) and is_remote:
                    raise trouble(f"cannot use {location}", error) from error


def write_page(conn: Connection, chosen: Sequence[Batch], choices: Choices) -> None:
    """Replace the file at `choices.path` by the page about these batches, atomically.

    Raises:
        OSError: it cannot be written; the old file stays.
    """
    choices.path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(choices.path, encoding="utf-8") as file:
        file.writelines(_render(conn, chosen, choices))


def _render(conn: Connection, chosen: Sequence[Batch], choices: Choices) -> Iterable[str]:
    rows, who = _Rows(conn, chosen, choices), identity(conn)
    style, script = _asset("page.css"), _script()
    return _template().generate(
        title=", ".join(batch.name for batch in chosen),
        sandbox=who.world == "sandbox",
        as_of=local(choices.at),
        policy=_policy(style, script, rows.origins()),
        style=Markup(style),  # noqa: S704 - our own files
        script=Markup(script),  # noqa: S704
        rows=rows,
        about=lambda: as_json({"ledger": who.ledger_id} | rows.shared()),
        facts=facts_of(conn, chosen),
    )


def as_json(value: Any) -> Markup:
    """Compact JSON for a script element: it cannot end the element or start a comment."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))  # noqa: S704 - cannot end the element any more


def _policy(style: str, script: str, origins: Sequence[str]) -> str:
    """A content security policy that allows only this style, this script, and audio next to the page or from these
    origins."""
    hashes = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script))
    return (
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; img-src data:; "
        "media-src {}; base-uri 'none'; form-action 'none'"
    ).format(*hashes, " ".join(("'self'", "file:", "data:", *origins)))


def _script() -> str:
    parts = "\n".join(map(_asset, _SCRIPTS))
    return f'"use strict";\n(() => {{\n{parts}}})();\n'


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_asset("page.html"))
