"""One record of a manifest, checked and turned into the row that is to be bought, or into what is wrong with it."""

from __future__ import annotations

import math
import re
import string
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from batcher.item import FORMATS, PARAMETERS, RESERVED, Inputs
from batcher.manifest.columns import Columns
from batcher.manifest.faults import Faults, Problem, WrongError, kind, printable, quoted

READING: Final = 3
"""Goes up whenever a file, by the same rules, comes to other rows than before, or more is kept of how it was read: all
are then read anew."""
TEMPLATE_FIELDS: Final = ("id", "row", "voice", "take", "format", "batch", "key")
"""What a template for file names may use."""

_NUMERIC: Final = ("speed", "volume", "pitch", "stability", "similarity")
_PARAMETERS: Final = frozenset(PARAMETERS)
_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_DECIMAL_COMMA: Final = re.compile(r"[+-]?\d*,\d+", re.ASCII)
_TAKE: Final = re.compile(r"0*[1-9]\d{0,8}", re.ASCII)
_CONTROLS: Final = r"\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff"
_CONTROL: Final = re.compile(f"[{_CONTROLS}]")
_UNSAFE: Final = re.compile(rf'[/\\:*?"<>|{_CONTROLS}]|^\.+')
_PLAIN: Final = re.compile(r"\w[\w.-]{0,199}", re.ASCII)  # most names: a file in the output folder itself
_DRIVE: Final = re.compile(r"[A-Za-z]:")
_RESULTS: Final = re.compile(r"[^/]*\.(results\.(jsonl|csv)|report\.(html|xlsx))", re.IGNORECASE)
_WORD_LENGTH: Final = 200
_COMPONENT_BYTES: Final = 249  # of 255: an unfinished file has a dot before and .part behind
_PATH_BYTES: Final = 1000  # leaves room for the output folder's own path below what systems allow


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How a manifest is to be read, and what holds for rows that don't say it themselves.

    `columns` maps fields to headers (an empty header takes the field away), `voices` a sheet's words to voice ids,
    `takes` ids of rows to their latest take, for rows that name none; an id that is missing there means take 1.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row as it is to be staged. `number` counts records from 1, `line` is where the record begins in the file.

    `inputs` is None exactly for rows that are skipped, and `reason` then says why. `output` is a relative path with
    forward slashes; "" if none could be made. `extra` holds the carried columns in the file's order. `defaulted` names
    those of voice, model and format that the configuration decided and not the row.
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
    """What a file says about one row, before it is judged: the fields that aren't blank, what is carried along, and
    what the reader already found wrong."""

    number: int
    line: int
    given: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


class RowValidator:
    """Makes rows of records by the `rules`, and adds what is wrong with them to `faults`."""

    def __init__(self, rules: Rules, columns: Columns, faults: Faults) -> None:
        self._rules = rules
        self._columns = columns
        self._faults = faults
        self._defaults: dict[str, Any] = {"format": rules.format.strip()}
        for name, value in (("voice", rules.voice), ("model", rules.model)):
            if value and value.strip():
                self._defaults[name] = value.strip()
        self._checks: dict[str, Callable[[Any], Any]] = _CHECKS | {"voice": self._voice}
        self._template_fields = self._checked_template()

    def row(self, record: Record, *, has_text: bool) -> Row | None:
        """The row; None if it is invalid and invalid rows aren't skipped. `has_text` is false for a file without a
        text column, a fault that then isn't repeated for each row."""
        problems = record.problems
        if problems and not record.given:
            return self._invalid(record, record_id(record.number), "")
        empty = has_text and "text" not in record.given
        to_skip = empty and self._rules.skip_empty and not problems
        unusable = {problem.field for problem in problems} | self._columns.misspelt
        checked = self._checked(record, problems)
        if empty and "text" not in unusable:
            problems.append(_NO_TEXT)
        if "voice" not in self._defaults and "voice" not in record.given and "voice" not in unusable:
            problems.append(_NO_VOICE)
        inputs = self._inputs(checked) if has_text and "voice" in checked and not problems else None
        output = self._output(record, checked, inputs, problems)
        row_id = checked.get("id") or record_id(record.number)
        if to_skip:
            return self._skipped(record, row_id, output, "empty", _NO_TEXT.reason)
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

    def _defaulted(self, record: Record) -> tuple[str, ...]:
        given = record.given.keys() - ({"voice"} if record.given.get("voice") in self._rules.voices else set())
        return tuple(name for name in ("voice", "model", "format") if name not in given)

    def _checked(self, record: Record, problems: list[Problem]) -> dict[str, Any]:
        """The values that are right or go without saying, as they will be used; a problem for each of the others."""
        checked: dict[str, Any] = {}
        for name, value in (self._defaults | record.given).items():
            try:
                checked[name] = self._checks[name](value)
            except WrongError as wrong:
                problems.append(Problem(field=name, cause=wrong.cause, reason=str(wrong)))
        if "id" not in record.given:
            checked["id"] = record_id(record.number)
        if "take" not in record.given:
            checked["take"] = self._rules.takes.get(checked["id"], 1) if "id" in checked else 1
        if "params" in checked:
            for name in checked["params"].keys() & checked.keys() & _PARAMETERS:
                reason = f"{quoted(name)} is given here and as a column: remove one"
                problems.append(Problem(field="params", cause=f"clash {name}", reason=reason))
        return checked

    def _inputs(self, checked: dict[str, Any]) -> Inputs:
        params = {name: value for name, value in checked.items() if name in _PARAMETERS}
        return Inputs(
            text=checked["text"],
            voice=checked["voice"],
            model=checked.get("model"),
            format=checked["format"],
            params=params | checked.get("params", {}),
            take=checked["take"],
        )

    def _voice(self, value: Any) -> str:
        said = _string(value)
        voice = self._rules.voices.get(said, said).strip()
        if not voice:
            raise WrongError("blank", f"{quoted(said)} stands for a blank voice: give it a voice id")
        return _word(voice)

    def _output(self, record: Record, checked: dict[str, Any], inputs: Inputs | None, problems: list[Problem]) -> str:
        """The row's path; "" if it can't be made, which is a problem unless another one is the reason."""
        path = checked.get("output") or self._from_template(record.number, checked, inputs)
        if path is None:
            return ""
        if checked.get("take", 1) > 1 and not self._tells_takes(record):
            path = path_of_take(path, checked["take"])
        try:
            return _relative(path)
        except WrongError as wrong:
            problems.append(Problem(field="output", cause=wrong.cause, reason=str(wrong)))
            return ""

    def _tells_takes(self, record: Record) -> bool:
        """Whether a row's path differs from take to take anyway, or whoever wrote the take chose it."""
        if "take" in record.given:
            return True
        return "output" not in record.given and not {"take", "key"}.isdisjoint(self._template_fields or ())

    def _from_template(self, number: int, checked: dict[str, Any], inputs: Inputs | None) -> str | None:
        if self._template_fields is None:
            return None
        values: dict[str, Any] = {}
        for name in self._template_fields:
            value = checked.get(name)
            if name == "row":
                value = number
            elif name == "batch":
                value = self._rules.batch
            elif name == "key" and inputs is not None:
                value = inputs.key()
            if value is None:
                return None
            values[name] = _UNSAFE.sub("_", value) if isinstance(value, str) else value
        return self._rules.filename.format_map(values)

    def _checked_template(self) -> list[str] | None:
        """The fields that the file name's template uses; None, and a fault, if it can't be used."""
        template = self._rules.filename
        sample = dict.fromkeys(TEMPLATE_FIELDS, "x") | {"row": 1, "take": 1}
        try:
            parts = list(string.Formatter().parse(template))
            used = [name for _, name, _, _ in parts if name is not None]
            for name in used:
                if name not in TEMPLATE_FIELDS:
                    raise ValueError(f"{quoted(name)} is no field")
            if any("{" in (spec or "") for _, _, spec, _ in parts):
                raise ValueError("braces within braces")
            template.format_map(sample)
        except ValueError as error:
            reason = f"--filename {quoted(template)} can't be used: {error}; fields are {', '.join(TEMPLATE_FIELDS)}"
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


def path_of_take(path: str, take: int, before: int = 1) -> str:
    """Where another take goes, beside `path` of the take `before`: `a/b.mp3`, `a/b.take2.mp3`, `a/b.take3.mp3`."""
    folder, slash, name = path.rpartition("/")
    stem, dot, ending = name.rpartition(".") if "." in name.strip(".") else (name, "", "")
    return f"{folder}{slash}{stem.removesuffix(f'.take{before}')}.take{take}{dot}{ending}"


def record_id(number: int) -> str:
    """The id of a record that names none."""
    return f"{number:06d}"


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise WrongError("type", f"must be a string, not {kind(value)}")
    return value


def _text(value: Any) -> str:
    text = _string(value)
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _word(value: Any) -> str:
    """A name for something: one line, not too long."""
    word = _string(value)
    if len(word) > _WORD_LENGTH:
        raise WrongError("long", f"{quoted(word)} is longer than {_WORD_LENGTH} characters")
    if _CONTROL.search(word):
        raise WrongError("control", f"{quoted(word)} has a line break or another control character in it")
    return word


def _id(value: Any) -> str:
    return _word(str(value) if type(value) is int else value)


def _format(value: Any) -> str:
    said = _string(value)
    if said.lower() not in FORMATS:
        raise WrongError("unknown", f"{quoted(said)} is not a format; there are {', '.join(FORMATS)}")
    return said.lower()


def _take(value: Any) -> int:
    if isinstance(value, (bool, float, dict, list)) or not _TAKE.fullmatch(str(value)):
        raise WrongError("number", f"{quoted(value)} is not a take: 1, 2, 3, ...")
    return int(value)


def _number(value: Any) -> float:
    if isinstance(value, (bool, dict, list)):
        raise WrongError("type", f"must be a number, not {kind(value)}")
    if isinstance(value, str) and _DECIMAL_COMMA.fullmatch(value):
        raise WrongError("comma", f"{quoted(value)} has a decimal comma: write {quoted(value.replace(',', '.'))}")
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        raise WrongError("number", f"{quoted(value)} is not a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise WrongError("finite", f"{quoted(value)} is too large")
    return number


def _params(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise WrongError("type", f"must be an object, not {kind(value)}")
    checked: dict[str, Any] = {}
    for name, said in value.items():
        inner = said.strip() if isinstance(said, str) and name in _PARAMETERS else said
        if name in RESERVED:
            raise WrongError(f"reserved {name}", f"{quoted(name)} may not be set here: it has a column of its own")
        if inner is None or (inner == "" and name in _PARAMETERS):
            continue
        try:
            checked[name] = _CHECKS[name](inner) if name in _PARAMETERS else inner
        except WrongError as wrong:
            raise WrongError(f"{name} {wrong.cause}", f"{quoted(name)}: {wrong}") from None
    return checked


def _relative(path: str) -> str:
    """`path` in its plainest spelling, if it stays below the output folder and a file can have that name."""
    relative = path if _PLAIN.fullmatch(path) else _normal_path(path)
    if _RESULTS.fullmatch(relative):
        raise WrongError("taken", f"{quoted(path)} is where results are written")
    return relative


def _normal_path(path: str) -> str:
    parts = [part for part in unicodedata.normalize("NFC", path).split("/") if part not in ("", ".")]
    if _CONTROL.search(path):
        raise WrongError("control", f"{quoted(path)} has a control character in it")
    if "\\" in path:
        raise WrongError("backslash", f"{quoted(path)} has a backslash: folders end with `/`")
    if path.startswith("/") or _DRIVE.match(path):
        raise WrongError("absolute", f"{quoted(path)} is absolute: paths start at the output folder")
    if ".." in parts:
        raise WrongError("outside", f"{quoted(path)} leaves the output folder")
    if path.endswith("/") or not parts:
        raise WrongError("folder", f"{quoted(path)} names no file")
    if parts[0].startswith("."):
        raise WrongError("dot", f"{quoted(path)} begins with a dot: such names are kept for unfinished files")
    if len(path.encode()) > _PATH_BYTES or any(len(part.encode()) > _COMPONENT_BYTES for part in parts):
        limits = f"{_COMPONENT_BYTES} bytes in a name and {_PATH_BYTES} in the path"
        raise WrongError("long", f"{quoted(path)} is too long for a file: at most {limits}")
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

_NO_TEXT: Final = Problem(field="text", cause="empty", reason="the text is empty (--skip-empty leaves such rows out)")
_NO_VOICE: Final = Problem(field=None, cause="voice", reason="no voice: add a `voice` column or pass --voice VOICE")
