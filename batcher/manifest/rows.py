"""Validates one record of a manifest and turns it into a row, or into faults."""

from __future__ import annotations

import math
import re
import string
import unicodedata
from collections.abc import Callable, Container, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from batcher.item import FORMATS, PARAMETERS, RESERVED, Inputs
from batcher.manifest.columns import Columns
from batcher.manifest.faults import Faults, InvalidValueError, Problem, code, literal, printable

READER_VERSION: Final = 4
"""Increased when the same file and rules yield other rows than before, or when more is stored about the reading. Every
file is then read again."""
TEMPLATE_FIELDS: Final = ("id", "row", "voice", "take", "format", "batch", "key")
"""The fields of a file name template (`--filename`)."""

_WITH_DEFAULTS: Final = ("voice", "model", "format")
_NUMERIC: Final = ("speed", "volume", "pitch", "stability", "similarity")
_PARAMETERS: Final = frozenset(PARAMETERS)
_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_DECIMAL_COMMA: Final = re.compile(r"[+-]?\d*,\d+", re.ASCII)
_TAKE: Final = re.compile(r"0*[1-9]\d{0,8}", re.ASCII)
_CONTROLS: Final = r"\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff"
_CONTROL: Final = re.compile(f"[{_CONTROLS}]")
_UNSAFE: Final = re.compile(rf'[/\\:*?"<>|{_CONTROLS}]|^\.+')
_PLAIN: Final = re.compile(r"\w[\w.-]{0,199}", re.ASCII)  # fast path: a plain file name
_DRIVE: Final = re.compile(r"[A-Za-z]:")
_RESULTS: Final = re.compile(r"[^/]*\.(results\.(jsonl|csv)|report\.(html|xlsx))", re.IGNORECASE)
_TABLES: Final = ("jsonl", "csv", "html", "xlsx")  # fast path: how such names end
_MAX_WORD_LENGTH: Final = 200
_MAX_NAME_BYTES: Final = 249  # of 255: an unfinished file's name adds a dot and `.part`
_MAX_PATH_BYTES: Final = 1000  # leaves room for the path of the output folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How to read a manifest, and the defaults for its rows.

    `columns` maps fields to headers (an empty header unmaps the field), `voices` maps a sheet's voice names to voice
    ids, `takes` maps row ids to their latest take, used for rows that set none; ids not in it have take 1.
    """

    batch: str
    voice: str | None = None
    model: str | None = None
    format: str = "mp3"
    columns: Mapping[str, str] = field(default_factory=dict)
    voices: Mapping[str, str] = field(default_factory=dict)
    encoding: str | None = None
    filename: str = "{id}.{format}"
    skip_invalid: bool = False
    skip_empty: bool = False
    takes: Mapping[str, int] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Row:
    """A row to be staged. `number` counts records from 1; `line` is where the record begins in the file.

    `inputs` is None exactly for skipped rows, whose `reason` is set. `output` is a relative path with forward
    slashes, "" if there is none. `extra` holds the carried columns in the file's order. `defaulted` names those of
    voice, model and format that come from the configuration.
    """

    number: int
    line: int
    id: str
    inputs: Inputs | None
    skipped: Literal["invalid", "empty"] | None = None
    reason: str | None = None
    output: str
    extra: dict[str, Any]
    defaulted: tuple[str, ...] = ()


@dataclass(slots=True)
class Record:
    """One row as read: the values of its fields, without blank ones, the carried columns, and the problems that the
    reader found."""

    number: int
    line: int
    given: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


class RowValidator:
    """Turns records into rows by the `rules`, and adds their problems to `faults`."""

    def __init__(self, rules: Rules, columns: Columns, faults: Faults) -> None:
        self._rules = rules
        self._columns = columns
        self._faults = faults
        self._defaults: dict[str, Any] = {"format": rules.format.strip()}
        for name, value in (("voice", rules.voice), ("model", rules.model)):
            if value and value.strip():
                self._defaults[name] = value.strip()
        self._checks: dict[str, Callable[[Any], Any]] = _CHECKS | {"voice": self._voice}
        self._valid_defaults: dict[str, Any] = {}
        for name, value in self._defaults.items():
            with suppress(InvalidValueError):
                self._valid_defaults[name] = self._checks[name](value)
        self._invalid_defaults = {
            name: value for name, value in self._defaults.items() if name not in self._valid_defaults
        }
        self._template_fields = self._checked_template()

    def row(self, record: Record, *, has_text: bool) -> Row | None:
        """The row; None if it is invalid and invalid rows are not skipped. `has_text` is false for a table without a
        text column, whose fault is not repeated for each row."""
        problems = record.problems
        if problems and not record.given:
            return self._invalid(record, record_id(record.number), "")
        empty = has_text and "text" not in record.given
        to_skip = empty and self._rules.skip_empty and not problems
        checked = self._checked(record, problems)
        problems += self._missing(record, empty=empty)
        inputs = self._inputs(checked) if has_text and "voice" in checked and not problems else None
        output = self._output(record, checked, inputs, problems)
        row_id = checked.get("id") or record_id(record.number)
        if to_skip:
            return self._skipped(record, row_id, output, "empty", "the text is empty")
        if inputs is None or problems:
            return self._invalid(record, row_id, output)
        return Row(
            number=record.number,
            line=record.line,
            id=row_id,
            inputs=inputs,
            output=output,
            extra=record.extra,
            defaulted=self._defaulted(record),
        )

    def _missing(self, record: Record, *, empty: bool) -> list[Problem]:
        """Problems for a missing text and a missing voice, unless another fault explains it."""
        if not empty and ("voice" in self._defaults or "voice" in record.given):
            return []
        explained = {problem.field for problem in record.problems} | self._columns.misspelt
        problems = [_NO_TEXT] if empty and "text" not in explained else []
        if "voice" not in explained.union(self._defaults, record.given):
            problems.append(_NO_VOICE)
        return problems

    def _defaulted(self, record: Record) -> tuple[str, ...]:
        given: Container[str] = record.given
        if self._rules.voices and record.given.get("voice") in self._rules.voices:
            given = record.given.keys() - {"voice"}
        return tuple([name for name in _WITH_DEFAULTS if name not in given])

    def _checked(self, record: Record, problems: list[Problem]) -> dict[str, Any]:
        """The valid values, given or default, as they will be used; the others become problems."""
        checked = self._valid_defaults.copy()
        given = self._invalid_defaults | record.given if self._invalid_defaults else record.given
        for name, value in given.items():
            try:
                checked[name] = self._checks[name](value)
            except InvalidValueError as error:
                checked.pop(name, None)
                problems.append(Problem(field=name, cause=error.cause, reason=str(error)))
        if "id" not in record.given:
            checked["id"] = record_id(record.number)
        if "take" not in record.given:
            checked["take"] = self._rules.takes.get(checked["id"], 1) if "id" in checked else 1
        if "params" in checked:
            for name in checked["params"].keys() & checked.keys() & _PARAMETERS:
                reason = f"{code(name)} is also given as a column: remove one"
                problems.append(Problem(field="params", cause=f"clash {name}", reason=reason))
        return checked

    def _inputs(self, checked: dict[str, Any]) -> Inputs:
        params = {name: value for name, value in checked.items() if name in _PARAMETERS}
        if "params" in checked:
            params |= checked["params"]
        return Inputs(
            text=checked["text"],
            voice=checked["voice"],
            model=checked.get("model"),
            format=checked["format"],
            params=params,
            take=checked["take"],
        )

    def _voice(self, value: Any) -> str:
        name = _string(value)
        voice = self._rules.voices.get(name, name).strip()
        if not voice:
            raise InvalidValueError("blank", f"[voices] maps {literal(name)} to a blank: give it a voice id")
        return _word(voice)

    def _output(self, record: Record, checked: dict[str, Any], inputs: Inputs | None, problems: list[Problem]) -> str:
        """The row's path; "" if there is none, which is a problem unless another one explains it."""
        path = checked.get("output") or self._from_template(record.number, checked, inputs)
        if path is None:
            return ""
        try:
            return _relative(path)
        except InvalidValueError as error:
            problems.append(Problem(field="output", cause=error.cause, reason=str(error)))
            return ""

    def _from_template(self, number: int, checked: dict[str, Any], inputs: Inputs | None) -> str | None:
        if self._template_fields is None:
            return None
        values: dict[str, Any] = {}
        for name in self._template_fields:
            value = checked.get(name)
            if value is None:
                value = self._computed_field(name, number, inputs)
            if value is None:
                return None
            values[name] = value if not isinstance(value, str) or value.isalnum() else _UNSAFE.sub("_", value)
        return self._rules.filename.format_map(values)

    def _computed_field(self, name: str, number: int, inputs: Inputs | None) -> Any:
        """The value of a template field that no column gives; None if it is unknown."""
        if name == "row":
            return number
        if name == "batch":
            return self._rules.batch
        return inputs.key() if name == "key" and inputs is not None else None

    def _checked_template(self) -> list[str] | None:
        """The fields that the file name template uses; None, and a fault, if it is invalid."""
        template = self._rules.filename
        sample = dict.fromkeys(TEMPLATE_FIELDS, "x") | {"row": 1, "take": 1}
        try:
            parts = list(string.Formatter().parse(template))
            used = [name for _, name, _, _ in parts if name is not None]
            for name in used:
                if name not in TEMPLATE_FIELDS:
                    raise ValueError(f"there is no field {{{printable(name)}}}")
            if any("{" in (spec or "") for _, _, spec, _ in parts):
                raise ValueError("a format cannot contain braces")
            template.format_map(sample)
        except ValueError as error:
            fields = ", ".join(TEMPLATE_FIELDS)
            reason = f"--filename {literal(template)} cannot be used: {error}; the fields are {fields}"
            self._faults.add(None, None, reason, cause="filename", fatal=True)
            return None
        return used

    def _invalid(self, record: Record, row_id: str, output: str) -> Row | None:
        reasons = []
        for problem in record.problems:
            column = problem.column or (problem.field and self._columns.header_of(problem.field))
            self._faults.add(record.line, column, problem.reason, cause=f"{problem.field}: {problem.cause}")
            reasons.append(f"{printable(column)}: {problem.reason}" if column else problem.reason)
        if not reasons or not self._rules.skip_invalid:
            return None
        return self._skipped(record, row_id, output, "invalid", "; ".join(reasons))

    def _skipped(
        self, record: Record, row_id: str, output: str, skipped: Literal["invalid", "empty"], reason: str
    ) -> Row:
        return Row(
            number=record.number,
            line=record.line,
            id=row_id,
            inputs=None,
            skipped=skipped,
            reason=reason,
            output=output,
            extra=record.extra,
        )


def record_id(number: int) -> str:
    """The id of a record without one."""
    return f"{number:06d}"


def _string(value: Any) -> str:
    if isinstance(value, str):
        return value
    fix = "write a single string" if isinstance(value, (dict, list)) else "put it in quotes"
    raise InvalidValueError("type", f"{literal(value)} is not a string: {fix}")


def _text(value: Any) -> str:
    text = _string(value)
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _word(value: Any) -> str:
    """A name: one line of limited length."""
    word = _string(value)
    if len(word) > _MAX_WORD_LENGTH:
        reason = f"{literal(word)} has {len(word):,} characters: use at most {_MAX_WORD_LENGTH}"
        raise InvalidValueError("long", reason)
    return _without_controls(word)


def _without_controls(value: str) -> str:
    if _CONTROL.search(value):
        reason = f"{literal(value)} contains a line break or another control character: remove it"
        raise InvalidValueError("control", reason)
    return value


def _id(value: Any) -> str:
    return _word(str(value) if type(value) is int else value)


def _format(value: Any) -> str:
    name = _string(value).lower()
    if name not in FORMATS:
        choices = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        raise InvalidValueError("unknown", f"{literal(value)} is not a format: use {choices}")
    return name


def _take(value: Any) -> int:
    if isinstance(value, (bool, float, dict, list)) or not _TAKE.fullmatch(str(value)):
        raise InvalidValueError("number", f"{literal(value)} is not a take: use 1, 2, 3, ...")
    return int(value)


def _number(value: Any) -> float:
    if isinstance(value, str) and _DECIMAL_COMMA.fullmatch(value):
        raise InvalidValueError("comma", f"{literal(value)} has a decimal comma: write {value.replace(',', '.')}")
    if isinstance(value, (bool, dict, list)) or (isinstance(value, str) and not _NUMBER.fullmatch(value)):
        raise InvalidValueError("number", f"{literal(value)} is not a number: use digits, as in 1 or 0.8")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise InvalidValueError("finite", f"{literal(value)} is too large: write a smaller number")
    return number


def _params(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidValueError("type", f'{literal(value)} is not an object: use one such as {{"speed": 0.8}}')
    checked: dict[str, Any] = {}
    for name, given in value.items():
        inner = given.strip() if isinstance(given, str) and name in _PARAMETERS else given
        if name in RESERVED:
            reason = f"{code(name)} cannot be set here: use the {code(RESERVED[name])} column"
            raise InvalidValueError(f"reserved {name}", reason)
        if inner is None or (inner == "" and name in _PARAMETERS):
            continue
        try:
            checked[name] = _CHECKS[name](inner) if name in _PARAMETERS else inner
        except InvalidValueError as error:
            raise InvalidValueError(f"{name} {error.cause}", f"{code(name)}: {error}") from None
    return checked


def _relative(path: str) -> str:
    """`path` in its simplest spelling, if it is inside the output folder and a valid file name."""
    relative = path if _PLAIN.fullmatch(path) else _normal_path(path)
    if relative[-5:].lower().endswith(_TABLES) and _RESULTS.fullmatch(relative):
        raise InvalidValueError("reserved", f"{literal(path)} is reserved for results and reports: use another name")
    return relative


def _normal_path(path: str) -> str:
    parts = [part for part in unicodedata.normalize("NFC", path).split("/") if part not in ("", ".")]
    shown = literal(_without_controls(path))
    if "\\" in path:
        raise InvalidValueError("backslash", f"{shown} contains a backslash: separate folders by /")
    if path.startswith("/") or _DRIVE.match(path):
        raise InvalidValueError("absolute", f"{shown} is an absolute path: write it relative to the output folder")
    if ".." in parts:
        raise InvalidValueError("outside", f"{shown} leaves the output folder: remove the ..")
    if path.endswith("/") or not parts:
        raise InvalidValueError("folder", f"{shown} is a folder: add the name of a file")
    if parts[0].startswith("."):
        reason = f"{shown} begins with a dot, which is reserved for unfinished files: remove it"
        raise InvalidValueError("dot", reason)
    if len(path.encode()) > _MAX_PATH_BYTES or any(len(part.encode()) > _MAX_NAME_BYTES for part in parts):
        limits = f"{_MAX_NAME_BYTES} bytes in a name and {_MAX_PATH_BYTES:,} in the path"
        raise InvalidValueError("long", f"{shown} is too long for a file: use at most {limits}")
    return "/".join(parts)


_CHECKS: Final[dict[str, Callable[[Any], Any]]] = {
    "text": _text,
    "id": _id,
    "model": _word,
    "format": _format,
    "take": _take,
    "output": _string,
    "params": _params,
    "language": _string,
    "emotion": _string,
} | dict.fromkeys(_NUMERIC, _number)

_NO_TEXT: Final = Problem(
    field="text", cause="empty", reason="the text is empty: write one, or skip such rows with --skip-empty"
)
_NO_VOICE: Final = Problem(field=None, cause="voice", reason="no voice: add a `voice` column or pass --voice VOICE")
