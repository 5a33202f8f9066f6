"""Doubtful contents of a manifest's texts: by type, how many rows have them, which ones, and examples."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from batcher.formatting import counted
from batcher.manifest.faults import Spans, literal
from batcher.manifest.markup.markup import find
from batcher.manifest.markup.nouns import NOUNS, SPEAKER
from batcher.manifest.markup.speakers import Speaker, speaker_of

_EXAMPLES: Final = 3
_MIN_SPEAKER_ROWS: Final = 2
_MIN_SPEAKER_SHARE: Final = 0.2
"""A name that is no voice counts if this many rows share it, and this share of all rows begins with a shared name."""
_MAX_NAMES: Final = 1000
"""Distinct names that are counted: a script has few."""


@dataclass(slots=True, kw_only=True)
class Doubt:
    """Rows whose texts contain markup that is unlikely to be meant for speech. `line`: the first row's, in the file."""

    type: str
    line: int
    rows: int = 0
    examples: list[str] = field(default_factory=list)
    numbers: Spans = field(default_factory=Spans)

    def add(self, number: int, parts: Iterable[str]) -> None:
        """Add a row, with what was found in it."""
        self.rows += 1
        self.numbers.add(number)
        for part in parts:
            if len(self.examples) < _EXAMPLES and part not in self.examples:
                self.examples.append(part)

    def line_in(self, manifest: str) -> str:
        """The doubt in one line, for a person."""
        shown = ", ".join(map(literal, self.examples))
        what = f"{counted(self.rows, 'row')} with {NOUNS[self.type]} that would be spoken"
        return f"{manifest}:{self.line}: {self.type}: {what}: {shown} ({self.numbers.named('row')})"

    def to_json(self) -> dict[str, Any]:
        """The doubt as `plan --json` has it."""
        return asdict(self) | {"examples": list(self.examples), "numbers": self.numbers.named("row").partition(" ")[2]}


class Doubts:
    """Collects the doubts about texts, read in the order of their rows. Memory grows with types, not with rows.

    `voices` are names that certainly are speakers where a text begins with them.
    """

    def __init__(self, voices: Collection[str]) -> None:
        self._voices = {name.casefold() for name in voices}
        self._found: dict[str, Doubt] = {}
        self._speakers: dict[str, Doubt] = {}
        self._rows = 0

    def add(self, number: int, line: int, text: str) -> None:
        """Add a row's text."""
        self._rows += 1
        for name, parts in find(text).items():
            self._found.setdefault(name, Doubt(type=name, line=line)).add(number, parts)
        speaker = speaker_of(text)
        if speaker is not None:
            self._add_speaker(number, line, speaker)

    def _add_speaker(self, number: int, line: int, speaker: Speaker) -> None:
        name = speaker.name.casefold()
        if name not in self._voices and not speaker.is_likely:
            return
        if name in self._speakers or len(self._speakers) < _MAX_NAMES:
            self._speakers.setdefault(name, Doubt(type=SPEAKER, line=line)).add(number, [f"{speaker.name}:"])

    def found(self) -> list[Doubt]:
        """The doubts, in the order of the types."""
        found = self._found | {doubt.type: doubt for doubt in self._likely_speakers()}
        return [found[name] for name in NOUNS if name in found]

    def _likely_speakers(self) -> Iterator[Doubt]:
        """One doubt for all names that are voices, or that several rows share; beside other markup, for all names."""
        shared = [one for one in self._speakers.values() if self._found or one.rows >= _MIN_SPEAKER_ROWS]
        if not self._found and sum(one.rows for one in shared) < _MIN_SPEAKER_SHARE * self._rows:
            shared = []
        likely = [one for name, one in self._speakers.items() if name in self._voices or one in shared]
        if likely:
            yield _merged(sorted(likely, key=lambda one: -one.rows))


def _merged(doubts: list[Doubt]) -> Doubt:
    """The doubts as one, with the ranges of rows that are known of each."""
    merged = Doubt(type=SPEAKER, line=min(one.line for one in doubts), rows=sum(one.rows for one in doubts))
    merged.examples = [part for one in doubts for part in one.examples][:_EXAMPLES]
    numbers = {number for one in doubts for first, last in one.numbers.ranges for number in range(first, last + 1)}
    for number in sorted(numbers | {one.numbers.last for one in doubts if one.numbers.last is not None}):
        merged.numbers.add(number)
    return merged
