"""Validates one record of a manifest and turns it into a row, or into faults."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Container
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, NamedTuple

from batcher.item import MAYBE_PAID, PARAMETERS, Inputs, State
from batcher.manifest.columns import Columns
from batcher.manifest.confusable import is_seen
from batcher.manifest.faults import Faults, InvalidValueError, Problem, code, literal, printable
from batcher.manifest.markup.markup import strip
from batcher.manifest.markup.nouns import SPEAKER
from batcher.manifest.markup.speakers import speaker_of, voice_of
from batcher.manifest.outputs import DEFAULT_FORMAT, OutputNames, former_path, is_audio_file
from batcher.manifest.rules import Rules
from batcher.manifest.suggestions import voice_column
from batcher.manifest.values import CHECKS, string, word

READER_VERSION: Final = 6
"""Increased when the same file and rules yield other rows than before, or when more is stored about the reading. Every
file is then read again."""
_WITH_DEFAULTS: Final = ("voice", "model", "format")
_PARAMETERS: Final = frozenset(PARAMETERS)
_EARLIER_TAKES: Final = 50
"""Most takes of a row's inputs that are looked for: a manifest may have given any number."""


class Former(NamedTuple):
    """A row as the ledger has it from an earlier import: output, item's key and take, and whether that is bought."""

    output: str
    key: str | None
    take: int
    bought: bool


FindFormer = Callable[[str], Former | None]
"""Finds what the ledger has for a row id; None if it has no such row."""
FindState = Callable[[str], State | None]
"""The state of the item with this key; None if the ledger has no such item."""


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


class _Form(NamedTuple):
    """What a row requests, and the problems with it."""

    inputs: Inputs | None
    output: str
    problems: list[Problem]


class RowValidator:
    """Turns records into rows by the `rules`, and adds their problems to `faults`.

    `stripped` counts the rows from whose texts markup was removed.
    """

    def __init__(self, rules: Rules, columns: Columns, faults: Faults) -> None:
        self._rules = rules
        self._columns = columns
        self._faults = faults
        self._defaults: dict[str, Any] = {}
        for name, value in (("voice", rules.voice), ("model", rules.model), ("format", rules.format)):
            if value and value.strip():
                self._defaults[name] = value.strip()
        self._checks: dict[str, Callable[[Any], Any]] = CHECKS | {"voice": self._voice}
        self._valid_defaults: dict[str, Any] = {}
        for name, value in self._defaults.items():
            with suppress(InvalidValueError):
                self._valid_defaults[name] = self._checks[name](value)
        self._invalid_defaults = {
            name: value for name, value in self._defaults.items() if name not in self._valid_defaults
        }
        self.stripped = 0
        self._names = OutputNames(rules.filename, rules.batch, faults)

    def row(self, record: Record, find_former: FindFormer, find_state: FindState) -> Row | None:
        """The row; None if it is invalid and invalid rows are not skipped.

        The fault of a table without a text column is not repeated for each row. A row that was bought or named by an
        earlier version, which `find_former` shows, stays as it is. `find_state` shows which takes of its inputs exist.
        """
        has_text, problems = self._columns.has_text, record.problems
        if problems and not record.given:
            return self._invalid(record, record_id(record.number), "")
        _drop_unseen(record.given)
        no_text = self._strip(record)
        empty = has_text and "text" not in record.given
        to_skip = empty and self._rules.skip_empty and not problems
        checked = self._checked(record, problems)
        problems += self._missing(record, no_text if empty else None)
        complete = has_text and "voice" in checked and not problems
        if complete and "take" not in record.given and checked["take"] > 1:
            checked["take"] = self._take(checked, find_former, find_state)
        inputs, output, wrong = self._form(record, checked, find_former, complete=complete)
        problems += wrong
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

    def _take(self, checked: dict[str, Any], find_former: FindFormer, find_state: FindState) -> int:
        """The take of a row that has used takes up to `checked["take"]`: that of the ledger's row, if the inputs are
        the same. Otherwise the row may have had these inputs before: the latest of their takes that it can return to.
        """
        former = find_former(checked["id"])
        named = self._inputs({"format": self._names.format_of(checked) or DEFAULT_FORMAT} | checked)
        for inputs in (named, self._inputs({"format": DEFAULT_FORMAT} | checked)):
            if former is not None and replace(inputs, take=former.take).key() == former.key:
                return former.take
        return _latest_take(named, find_state)

    def _strip(self, record: Record) -> Problem:
        """Remove markup from the row's text, and its speaker, who becomes the voice if `voices` has the name.

        Returns the problem of the row if it has no text.
        """
        text = record.given.get("text")
        if not self._rules.strip or not isinstance(text, str):
            return _NO_TEXT
        kept = strip(text, self._rules.strip)
        speaker = speaker_of(kept) if SPEAKER in self._rules.strip else None
        if speaker is not None:
            voice = voice_of(speaker, self._rules.voices)
            if voice is not None:
                record.given.setdefault("voice", voice)
            if voice is not None or (speaker.is_likely and not self._rules.voices):
                kept = speaker.rest
        if kept != text:
            self.stripped += 1
            record.given["text"] = kept
        if not is_seen(kept):
            del record.given["text"]
        return _NOTHING_LEFT

    def _missing(self, record: Record, no_text: Problem | None) -> list[Problem]:
        """Problems for a missing text, if it is one, and a missing voice, unless another fault explains it."""
        if no_text is None and ("voice" in self._defaults or "voice" in record.given):
            return []
        explained = {problem.field for problem in record.problems} | self._columns.misspelt
        problems = [no_text] if no_text is not None and "text" not in explained else []
        if "voice" not in explained.union(self._defaults, record.given):
            problems.append(self._no_voice(record))
        return problems

    def _no_voice(self, record: Record) -> Problem:
        """The problem of a row without a voice: it may have the name of a speaker in a column that is only copied."""
        header = voice_column(record.extra)
        if header is None or "voice" in self._rules.columns:
            return _NO_VOICE
        speaker = str(record.extra[header] or "").strip()
        if speaker and len(self._faults.speakers) < _SPEAKERS:
            self._faults.speakers.setdefault(speaker)
        self._faults.suggest(option := f"--column {shlex.quote(f'voice={header}')}")
        return replace(_NO_VOICE, reason=f"no voice: pass {option}, or --voice VOICE for all rows")

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
        name = string(value)
        voice = self._rules.voices.get(name, name).strip()
        if not voice:
            raise InvalidValueError("blank", f"[voices] maps {literal(name)} to a blank: give it a voice id")
        return word(voice)

    def _form(self, record: Record, checked: dict[str, Any], find_former: FindFormer, *, complete: bool) -> _Form:
        """Inputs, output, and the problems with them. The inputs are None unless the checked values are complete."""
        named = checked.get("format") or self._names.format_of(checked) or DEFAULT_FORMAT
        doubtful = _doubtful_voice(checked.get("voice"))
        if not doubtful and self._names.is_exact(checked, named) and ("format" in checked or named == DEFAULT_FORMAT):
            return self._named(record, checked, named, complete=complete, exact=True)
        new = self._named(record, checked, named, complete=complete, exact=False)
        new.problems.extend(doubtful)
        old = self._named(record, checked, DEFAULT_FORMAT, complete=complete, exact=True)
        if new == old or "id" not in checked or (former := find_former(checked["id"])) is None:
            return new
        if former.output not in (old.output, former_path(old.output, checked.get("take", 1))):
            return new
        if old.inputs is not None and old.inputs.key() == former.key and (former.bought or new.problems):
            return old
        return old if new.inputs == old.inputs and not new.problems else new

    def _named(
        self, record: Record, checked: dict[str, Any], audio_format: str, *, complete: bool, exact: bool
    ) -> _Form:
        values = {"format": audio_format} | checked
        inputs = self._inputs(values) if complete else None
        try:
            output = self._names.path(record.number, values, inputs, exact=exact)
        except InvalidValueError as error:
            return _Form(inputs, "", [Problem(field="output", cause=error.cause, reason=str(error))])
        return _Form(inputs, output, [])

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


def _latest_take(inputs: Inputs, find_state: FindState) -> int:
    """The latest take of these inputs, up to theirs, that may be paid for; or else that was attempted; or else 1."""
    takes = range(inputs.take, max(0, inputs.take - _EARLIER_TAKES), -1)
    states = {take: find_state(replace(inputs, take=take).key()) for take in takes}
    paid = (take for take, state in states.items() if state in MAYBE_PAID)
    attempted = (take for take, state in states.items() if state not in (None, State.PENDING))
    return next(paid, None) or next(attempted, 1)


def _drop_unseen(given: dict[str, Any]) -> None:
    """Remove values of invisible characters alone: they look blank."""
    unseen = [name for name, value in given.items() if isinstance(value, str) and not value.isascii()]
    for name in unseen:
        if not is_seen(given[name]):
            del given[name]


def record_id(number: int) -> str:
    """The id of a record without one."""
    return f"{number:06d}"


def _doubtful_voice(voice: str | None) -> list[Problem]:
    """A problem if the voice is the path or the name of a file."""
    if voice is None or not ("/" in voice or is_audio_file(voice)):
        return []
    reason = f"{literal(voice)} is the name of a file or a path, not a voice: write the provider's voice ID"
    return [Problem(field="voice", cause="file", reason=reason)]


_NO_TEXT: Final = Problem(
    field="text", cause="empty", reason="the text is empty: write one, or skip such rows with --skip-empty"
)
_NOTHING_LEFT: Final = Problem(
    field="text",
    cause="stripped",
    reason="nothing is left of the text after --strip: write one, or skip such rows with --skip-empty",
)
_SPEAKERS: Final = 100
"""Names of speakers that are listed for `[voices]`."""
_NO_VOICE: Final = Problem(field=None, cause="voice", reason="no voice: add a `voice` column or pass --voice VOICE")
