"""Which columns of a manifest are fields, and which are only copied to the results."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NoReturn

from batcher.errors import ManifestError
from batcher.item import PARAMETERS
from batcher.manifest import limits
from batcher.manifest.confusable import trimmed, without_invisible
from batcher.manifest.faults import Faults, Problem, code, printable
from batcher.manifest.nested import MISSING, paths_in, value_at

FIELDS: Final = ("text", "id", "voice", "model", "format", "take", "output", "params", *PARAMETERS)
"""What a manifest can set for a row."""

EMPTY_TEXT: Final = "text: empty"
"""Cause of the faults of rows without a text, which a missing column explains."""
REPORT_PREFIX: Final = "batcher_"
"""Prefix of the columns that a report adds to those of its manifest; a manifest may not have such columns."""

_SIMILARITY: Final = 0.8  # minimum ratio of `difflib` at which a header counts as a misspelt field
_MIN_LENGTH: Final = 3  # shorter words all resemble each other
_MAX_COMPARED: Final = 1000  # unknown headers that are compared with the fields, which is slow
_HEADERS_LISTED: Final = 12


@lru_cache(maxsize=1024)
def normalised(header: str) -> str:
    """The header without case, blanks, `_`, `-` and invisible characters, unless it has nothing else."""
    normal = re.sub(r"[\s_-]+", "", unicodedata.normalize("NFC", without_invisible(header))).casefold()
    return normal or trimmed(header)


_NAMES: Final = {name: name for name in FIELDS} | {"voiceid": "voice", "enginemodelid": "model"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Column positions in a table: of fields, of carried columns and of columns without a name; and its width. A field
    that is joined from several columns has several positions.

    `named_by` is where the columns are named, in the words of a message.
    """

    fields: list[tuple[str, int]]
    carried: list[tuple[str, int]]
    unnamed: list[int]
    width: int
    named_by: str = "the header has"


class Columns:
    """Maps headers to fields. Other columns are copied to the results. Faults of columns are fatal.

    `mapping` is the user's `--column FIELD=HEADER`; an empty header unmaps the field, so that a column of its name is
    carried; `A+B` joins two columns unless one has that name. `sent` (header to field) and `carried` grow as headers
    are read. `misspelt` holds the fields whose header in a table is probably misspelt: that is reported once, not for
    each row. `has_text` is false once a table's header was read that has no column for the text.
    """

    def __init__(self, mapping: Mapping[str, str], faults: Faults) -> None:
        self.sent: dict[str, str] = {}
        self.carried: dict[str, None] = {}
        self.misspelt: set[str] = set()
        self.has_text = True
        self._faults = faults
        self._mapped: dict[str, str] = {}
        self._fields: dict[str, str | None] = {}
        self._suspects: dict[str, str] = {}
        self._inner: dict[str, list[str]] = {}
        self._names = self._map_names(mapping)
        self._joins = {header: parts for header in self._mapped.values() if (parts := _joined(header))}
        self._parts_found: set[str] = set()
        self._composed = [header for header in self._mapped.values() if "." in header or header in self._joins]

    def _map_names(self, mapping: Mapping[str, str]) -> dict[str, str]:
        """Normalised header to field."""
        for name, header in mapping.items():
            field = _NAMES.get(normalised(name))
            if field is None:
                option = f"--column {printable(name)}={printable(header)}"
                reason = f"{option}: there is no field {code(name)}: use one of {', '.join(FIELDS)}"
                self._fault(None, None, reason, f"no field {name}")
            else:
                self._mapped[field] = header.strip()
        names = {name: field for name, field in _NAMES.items() if field not in self._mapped}
        added: dict[str, str] = {}
        for field, header in self._mapped.items():
            if not header:
                continue
            other = added.setdefault(normalised(header), field)
            if other != field:
                reason = f"--column maps {code(header)} to both {code(other)} and {code(field)}: choose one"
                self._fault(None, None, reason, f"mapped twice {header}")
        return names | added

    def header_of(self, field: str) -> str:
        """The header that is read as `field` in this file; the field's own name if there is none."""
        return next((header for header, given in self.sent.items() if given == field), field)

    def names_text(self, headers: Iterable[str]) -> bool:
        """Whether one of the headers is that of the text, or several are together."""
        headers = list(headers)
        text = self._mapped.get("text", "")
        return any(self.field_named(header) == "text" for header in headers) or bool(self._positions(headers, text))

    def field_named(self, header: str) -> str | None:
        """The field that a column with this header would be read as."""
        return self._names.get(normalised(header))

    def has(self, header: str) -> bool:
        """Whether a column with this header was read."""
        if (field := self.field_named(header)) is not None:
            return field in self.sent.values()
        return any(normalised(other) == normalised(header) for other in self.carried)

    def value_of(self, header: str, given: Mapping[str, Any], extra: Mapping[str, Any]) -> Any:
        """A record's value in the column with this header, or at this path; `MISSING` if it has none."""
        if (field := self.field_named(header)) is not None:
            return given.get(field, MISSING)
        if header in extra:
            return extra[header]
        named = {self.header_of(field): value for field, value in given.items()}
        return value_at({**extra, **named}, header, normalised)

    def why_missing(self, header: str) -> str:
        """That the file has no column with this header, and which it may mean."""
        near = difflib.get_close_matches(header, [*self.sent, *self.carried], n=1)
        meant = f": did you mean {code(near[0])}?" if near else ""
        return f"the file has no column {code(header)}{self._listed()}{meant}"

    def mapped_to(self, field: str) -> str | None:
        """The header that the user named for this field."""
        return self._mapped.get(field) or None

    def has_path(self, field: str, record: Mapping[str, Any]) -> bool:
        """Whether a JSON object has the path, or columns to join, to which the user mapped this field."""
        path = self._mapped.get(field, "")
        return path in self._composed and self._compose(record, path) is not MISSING

    def read_header(
        self, headers: list[str], line: int, *, skipped: str | None = None, advice: str | None = None
    ) -> Layout:
        """The layout of a table with these headers. Columns called `skipped` are neither fields nor carried.

        A first column without a name is carried under that of its position: tables are often exported with an index.
        `advice` is what to do if there is no column for the text.
        """
        if len(headers) > limits.MAX_COLUMNS:
            self._raise_too_many()
        headers = [trimmed(header) for header in headers]
        while headers and not headers[-1]:
            headers.pop()
        headers = with_first_named(headers)
        left_out = {index for index, header in enumerate(headers) if header == skipped}
        headers = ["" if index in left_out else header for index, header in enumerate(headers)]
        fields: dict[str, int] = {}
        carried: dict[str, int] = {}
        for index, header in enumerate(headers):
            field = self._field_of(header) if header else None
            if field is None and header in carried:
                reason = "two columns have this name, and the results can hold only one: rename one"
                self._fault(line, header, reason, f"twice {header}")
            elif field is None and header:
                carried[header] = index
            elif field in fields:
                reason = (
                    f"columns {fields[field] + 1} and {index + 1} are both read as {code(field)}: remove or rename one"
                )
                self._fault(line, header, reason, f"both {field}")
            elif field is not None:
                fields[field] = index
        joined: list[tuple[str, int]] = []
        for field, header in self._mapped.items():
            if field not in fields and (positions := self._positions(headers, header)):
                joined += [(field, index) for index in positions]
                self.sent[header] = field
        self.has_text = "text" in fields or any(field == "text" for field, _ in joined)
        self._check_header(headers, fields, carried, line, advice)
        unnamed = [index for index, header in enumerate(headers) if not header and index not in left_out]
        return Layout(
            fields=[*fields.items(), *joined], carried=list(carried.items()), unnamed=unnamed, width=len(headers)
        )

    def _positions(self, headers: list[str], joined: str) -> list[int]:
        """The positions of the columns that this mapped header joins; none unless all are there."""
        normal = [normalised(header) for header in headers]
        parts = [normalised(part) for part in self._joins.get(joined, ())]
        return [normal.index(part) for part in parts] if all(part in normal for part in parts) else []

    def _check_header(
        self, headers: list[str], fields: dict[str, int], carried: dict[str, int], line: int, advice: str | None
    ) -> None:
        for header in carried:
            if (field := self._suspected(header, set(fields))) is not None:
                self.misspelt.add(field)
                self._fault(line, header, _misspelling(header, field), f"misspelt {header}")
        if "params" in fields:
            reason = (
                "only JSONL has `params`: give each parameter its own column, or copy this column to the results"
                " with --column params="
            )
            self._fault(line, headers[fields["params"]], reason, "params in csv")
        self.check_file(line, advice)

    def split(self, record: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], list[Problem]]:
        """Split a JSON object into values of fields, carried values, and the problems with its names.

        A field may be mapped to the path of a nested value, or to several joined. These are carried all the same.
        """
        for header in self._composed:
            if all(normalised(key) != normalised(header) for key in record):
                found = self._compose(record, header)
                record = {**record, header: found} if found is not MISSING else record
        given: dict[str, Any] = {}
        extra: dict[str, Any] = {}
        problems: list[Problem] = []
        for header, value in record.items():
            field = self._fields[header] if header in self._fields else self._field_of(header)
            if field is None:
                extra[header] = value
                if isinstance(value, dict) and header not in self._inner:
                    self._inner[header] = [f"{header}.{path}" for path in paths_in(value)]
                continue
            stripped = value.strip() if isinstance(value, str) else value
            if stripped is None or stripped == "":
                continue
            if field in given:
                first = next(name for name in record if self._fields[name] == field and not _is_blank(record[name]))
                reason = f"{code(first)} and {code(header)} are both read as {code(field)}: remove or rename one"
                problems.append(Problem(field=field, cause="both", reason=reason))
            else:
                given[field] = stripped
        if self._suspects.keys().isdisjoint(extra):
            return given, extra, problems
        present = {field for name in record if (field := self._fields[name])}
        for header in self._suspects.keys() & extra.keys():
            if (suspected := self._suspected(header, present)) is not None:
                reason = _misspelling(header, suspected)
                problems.append(Problem(field=suspected, cause=f"misspelt {header}", reason=reason, column=header))
        return given, extra, problems

    def _compose(self, record: Mapping[str, Any], header: str) -> Any:
        """The value at the path, or the joined values, that a mapped header stands for; `MISSING` if there is none."""
        if header not in self._joins:
            return value_at(record, header, normalised)
        values = {part: value_at(record, part, normalised) for part in self._joins[header]}
        values = {part: value for part, value in values.items() if value is not MISSING}
        self._parts_found.update(values)
        if not values:
            return MISSING
        filled = [value for value in values.values() if not _is_blank(value)]
        if nested := [value for value in filled if isinstance(value, dict | list)]:
            return nested[0]
        return " ".join(str(value).strip() for value in filled)

    def check_file(self, line: int | None, advice: str | None = None) -> None:
        """Check the columns as a whole, once all headers are read: is each mapped column there, and one for the text?
        `advice` is what to do if there is none for the text.

        A report is rejected: its rows are those of its manifest, and beside another ledger they would be bought again.
        """
        present = set(self.sent.values())
        for field, header in self._mapped.items():
            if header and field not in present:
                option = f"--column {field}={printable(header)}"
                reason = f"{option}: the file has no column {code(header)}{self._listed()}"
                more = f"; {advice}" if advice is not None and field == "text" else ""
                self._fault(None, None, reason + more, f"no column {field}")
            missing = [part for part in self._joins.get(header, ()) if part not in self._parts_found]
            if field in present and missing and not self._parts_found.isdisjoint(self._joins[header]):
                reason = f"--column {field}={printable(header)}: no row has {code(missing[0])}{self._listed()}"
                self._fault(None, None, reason, f"no part {missing[0]}")
        explained = self._mapped.get("text") or "text" in self._suspects.values()
        if "text" not in present and not explained:
            advice = advice or f"name the column of the texts with --column text=HEADER{self._listed()}"
            reason = f"no `text` column: {advice}"
            self._fault(line, None, reason, "no text")
        if "text" not in present and not self._suspects:
            self._faults.drop(EMPTY_TEXT)
        reported = next((header for header in self.carried if header.startswith(REPORT_PREFIX)), None)
        if reported is not None:
            reason = (
                "only `batcher report` writes this column: run the manifest of the report instead, or, to buy these"
                f" rows as a new batch, remove the columns whose names begin with {REPORT_PREFIX}"
            )
            self._fault(line, reported, reason, "a report")

    def _field_of(self, header: str) -> str | None:
        """The field that `header` maps to, if any; called once for each spelling."""
        normal = normalised(header)
        field = self._fields[header] = self._names.get(normal) if normal else None
        if field is not None:
            self.sent[header] = field
        elif header not in self.carried:
            self.carried[header] = None
            if len(self.carried) > limits.MAX_COLUMNS:
                self._raise_too_many()
            if len(self.carried) <= _MAX_COMPARED and (similar := _most_similar(normal, self._names)):
                self._suspects[header] = self._names[similar]
        return field

    def _raise_too_many(self) -> NoReturn:
        fault = f"{self._faults.name}: more than {limits.MAX_COLUMNS:,} columns"
        raise ManifestError(fault, [fault], "Is this the right file, and its delimiter the right one?")

    def _suspected(self, header: str, present: set[str]) -> str | None:
        """The field that `header` probably means, unless that is present by its own name or mapped by the user."""
        field = self._suspects.get(header)
        return None if field in present or field in self._mapped else field

    def _listed(self) -> str:
        headers = [*self.sent]
        for header in self.carried:
            headers += self._inner.get(header) or [header]
        more = ", ..." if len(headers) > _HEADERS_LISTED else ""
        return f" (it has {', '.join(map(printable, headers[:_HEADERS_LISTED]))}{more})" if headers else ""

    def _fault(self, line: int | None, column: str | None, reason: str, cause: str) -> None:
        self._faults.add(line, column, reason, cause=cause, fatal=True)


def with_first_named(headers: Sequence[str]) -> list[str]:
    """The headers, of which a blank first one is named by its position."""
    is_unnamed = len(headers) > 1 and not headers[0].strip()
    return ["column 1", *headers[1:]] if is_unnamed else list(headers)


def _joined(header: str) -> list[str]:
    """The headers that `Line 1+Line 2` joins; none if it is one header."""
    parts = [part.strip() for part in header.split("+")]
    return parts if len(parts) > 1 and all(map(normalised, parts)) else []


def _is_blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _misspelling(header: str, field: str) -> str:
    """The reason for a misspelt header. Carrying the column is offered only where rows can do without the field: not
    for the text, and for the voice only with a default.
    """
    reason = (
        f"looks like {code(field)} misspelt: rename it, or read it as it is with --column {field}={printable(header)}"
    )
    if field == "text":
        return reason
    default = " and set a voice for all rows with --voice" if field == "voice" else ""
    return f"{reason}, or copy it to the results with --column {field}={default}"


def _similar_lengths(one: int, other: int) -> bool:
    """Whether words of these lengths can be similar; comparing them is slow."""
    return 2 * min(one, other) >= _SIMILARITY * (one + other)


def _most_similar(normal: str, names: Mapping[str, str]) -> str | None:
    """The name that a normalised header probably means; swapped letters count regardless of the ratio."""
    if len(normal) < _MIN_LENGTH:
        return None
    long = [name for name in names if len(name) >= _MIN_LENGTH and _similar_lengths(len(name), len(normal))]
    close = difflib.get_close_matches(normal, long, n=1, cutoff=_SIMILARITY)
    swapped = [name for name in long if name[0] == normal[0] and sorted(name) == sorted(normal)]
    return next(iter(close + swapped), None)
