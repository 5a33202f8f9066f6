"""Which of a manifest's columns is which field, and which are only carried along to the results."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from batcher.item import PARAMETERS
from batcher.manifest.faults import Faults, Problem, printable, quoted

FIELDS: Final = ("text", "id", "voice", "model", "format", "take", "output", "params", *PARAMETERS)
"""What a manifest can say about a row."""

REPORT_MARK: Final = "batcher_"
"""Begins the name of each column that a report adds to those of its manifest; no manifest has such a one of its own."""

_ALIKE: Final = 0.8
_SHORTEST: Final = 3  # below it, nearly every word is like every other
_HEADERS_LISTED: Final = 12


def _normal(header: str) -> str:
    """What is left of a header when case, blanks, `_` and `-` don't count."""
    return re.sub(r"[\s_-]+", "", unicodedata.normalize("NFC", header)).casefold()


_NAMES: Final = {name: name for name in FIELDS} | {"voiceid": "voice", "enginemodelid": "model"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where a CSV file keeps what: positions of the fields, of carried columns and of columns without a name."""

    fields: list[tuple[str, int]]
    carried: list[tuple[str, int]]
    unnamed: list[int]
    width: int


class Columns:
    """Tells fields from carried columns and adds what is wrong with the columns, all of it fatal, to `faults`.

    `chosen` maps fields to the headers that a user named for them; an empty header takes the field away, so that a
    column of its name is carried. `sent` (header to field) and `carried` grow as headers are met. `misspelt` are the
    fields that a table's header seems to mean and doesn't give: that is told once, not of each row.
    """

    def __init__(self, chosen: Mapping[str, str], faults: Faults) -> None:
        self.sent: dict[str, str] = {}
        self.carried: list[str] = []
        self.misspelt: set[str] = set()
        self._faults = faults
        self._chosen: dict[str, str] = {}
        self._fields: dict[str, str | None] = {}
        self._suspects: dict[str, str] = {}
        self._names = self._named(chosen)

    def _named(self, chosen: Mapping[str, str]) -> dict[str, str]:
        for name, header in chosen.items():
            field = _NAMES.get(_normal(name))
            if field is None:
                reason = f"--column {printable(name)}={printable(header)}: there is no such field; there are "
                self._fault(None, None, reason + ", ".join(FIELDS), f"no field {name}")
            else:
                self._chosen[field] = header.strip()
        names = {name: field for name, field in _NAMES.items() if field not in self._chosen}
        added: dict[str, str] = {}
        for field, header in self._chosen.items():
            if not header:
                continue
            other = added.setdefault(_normal(header), field)
            if other != field:
                reason = f"--column names {quoted(header)} for two fields, {other} and {field}"
                self._fault(None, None, reason, f"chosen twice {header}")
        return names | added

    def header_of(self, field: str) -> str:
        """The header under which the file gives `field`; its own name when it doesn't."""
        return next((header for header, known in self.sent.items() if known == field), field)

    def read_header(self, headers: list[str], line: int) -> Layout:
        """The layout of a CSV file with these headers."""
        headers = [header.strip() for header in headers]
        while headers and not headers[-1]:
            headers.pop()
        fields: dict[str, int] = {}
        carried: dict[str, int] = {}
        for index, header in enumerate(headers):
            field = self._place(header) if header else None
            if field is None and header in carried:
                reason = "two columns have this name and neither is a field: rename one, or the results lose it"
                self._fault(line, header, reason, f"twice {header}")
            elif field is None and header:
                carried[header] = index
            elif field in fields:
                reason = f"columns {fields[field] + 1} and {index + 1} both give `{field}`: remove one or rename it"
                self._fault(line, header, reason, f"both {field}")
            elif field is not None:
                fields[field] = index
        self._check_header(headers, fields, carried, line)
        unnamed = [index for index, header in enumerate(headers) if not header]
        return Layout(fields=list(fields.items()), carried=list(carried.items()), unnamed=unnamed, width=len(headers))

    def _check_header(self, headers: list[str], fields: dict[str, int], carried: dict[str, int], line: int) -> None:
        for header in carried:
            if (field := self._suspected(header, set(fields))) is not None:
                self.misspelt.add(field)
                self._fault(line, header, _way_out(header, field), f"misspelt {header}")
        if "params" in fields:
            reason = "only JSONL has `params`: give each parameter a column, or carry this one with --column params="
            self._fault(line, headers[fields["params"]], reason, "params in csv")
        self.check_file(line)

    def split(self, record: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], list[Problem]]:
        """A JSON object as what it says of fields, what it carries, and what is wrong with its names."""
        given: dict[str, Any] = {}
        extra: dict[str, Any] = {}
        problems: list[Problem] = []
        for header, value in record.items():
            field = self._fields[header] if header in self._fields else self._place(header)
            if field is None:
                extra[header] = value
                continue
            said = value.strip() if isinstance(value, str) else value
            if said is None or said == "":
                continue
            if field in given:
                reason = f"{quoted(header)} gives `{field}` a second time: remove one"
                problems.append(Problem(field=field, cause="twice", reason=reason))
            else:
                given[field] = said
        present = {field for name in record if (field := self._fields[name])}
        for header in self._suspects.keys() & extra.keys():
            if (suspected := self._suspected(header, present)) is not None:
                reason = _way_out(header, suspected)
                problems.append(Problem(field=suspected, cause=f"misspelt {header}", reason=reason, column=header))
        return given, extra, problems

    def check_file(self, line: int | None) -> None:
        """Adds a fault for each column that the file, all of whose headers were met, should have and hasn't, and for
        a file that is a report: its rows are those of a manifest, and would be bought once more beside another ledger.
        """
        present = set(self.sent.values())
        for field, header in self._chosen.items():
            if header and field not in present:
                reason = f"--column {field}={printable(header)}: the file has no such column{self._listed()}"
                self._fault(None, None, reason, f"no column {field}")
        explained = self._chosen.get("text") or "text" in self._suspects.values()
        if "text" not in present and not explained:
            reason = f"no `text` column: name it with --column text=HEADER{self._listed()}"
            self._fault(line, None, reason, "no text")
        reported = next((header for header in self.carried if header.startswith(REPORT_MARK)), None)
        if reported is not None:
            reason = (
                f"only `batcher report` writes such a column: run the manifest that it told of, or, if this file is to"
                f" be bought by itself, take all columns out that begin with {REPORT_MARK}"
            )
            self._fault(line, reported, reason, "a report")

    def _place(self, header: str) -> str | None:
        """The field that `header` gives, if any; called once for each spelling."""
        normal = _normal(header)
        field = self._fields[header] = self._names.get(normal) if normal else None
        if field is not None:
            self.sent[header] = field
        elif header not in self.carried:
            self.carried.append(header)
            if alike := _alike(normal, self._names):
                self._suspects[header] = self._names[alike]
        return field

    def _suspected(self, header: str, present: set[str]) -> str | None:
        """The field that `header` looks like, if it is neither there by its own name nor settled by the user."""
        field = self._suspects.get(header)
        return None if field in present or field in self._chosen else field

    def _listed(self) -> str:
        headers = [*self.sent, *self.carried]
        more = ", ..." if len(headers) > _HEADERS_LISTED else ""
        return f" (it has: {', '.join(map(printable, headers[:_HEADERS_LISTED]))}{more})" if headers else ""

    def _fault(self, line: int | None, column: str | None, reason: str, cause: str) -> None:
        self._faults.add(line, column, reason, cause=cause, fatal=True)


def _way_out(header: str, field: str) -> str:
    """What to do about a likely slip. To carry it is no way where each row needs the field: not for a text, and for a
    voice only with another for all.
    """
    reason = f"looks like `{field}` misspelt: rename it, or use it as it is with --column {field}={printable(header)}"
    if field == "text":
        return reason
    other = " and name one for all with --voice" if field == "voice" else ""
    return f"{reason}, or carry it with --column {field}={other}"


def _alike(normal: str, names: Mapping[str, str]) -> str | None:
    """The name that a normalised header was probably meant to be; swapped letters count whatever the ratio says."""
    if len(normal) < _SHORTEST:
        return None
    long = [name for name in names if len(name) >= _SHORTEST]
    close = difflib.get_close_matches(normal, long, n=1, cutoff=_ALIKE)
    swapped = [name for name in long if name[0] == normal[0] and sorted(name) == sorted(normal)]
    return next(iter(close + swapped), None)
