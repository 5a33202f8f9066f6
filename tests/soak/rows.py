"""The manifest of a soak, and edits as people make them: rows added, changed, put back, removed, moved and repeated."""

from __future__ import annotations

import csv
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

VOICES: Final = ("en-gb", "de", "fr")
_WORDS: Final = ("quiet", "river", "old", "stones", "morning", "light", "window", "garden", "silver", "road", "winter")


@dataclass
class Row:
    """A row as the manifest has it; `earlier` are its former texts."""

    id: str
    text: str
    voice: str
    format: str
    earlier: list[str] = field(default_factory=list)


class EditedManifest:
    """A CSV file whose rows change between runs and during them."""

    def __init__(self, path: Path, chance: random.Random) -> None:
        self.path = path
        self.rows: list[Row] = []
        self._chance = chance
        self._made = 0

    def add(self, number: int) -> None:
        """Append new rows; one in twenty repeats the text of another."""
        for _ in range(number):
            self._made += 1
            twin = self._chance.choice(self.rows) if self.rows and self._chance.random() < 0.05 else None
            text = twin.text if twin else self._text()
            voice = twin.voice if twin else self._chance.choice(VOICES)
            audio_format = twin.format if twin else "wav" if self._chance.random() < 0.1 else "mp3"
            self.rows.append(Row(f"line-{self._made:05}", text, voice, audio_format))
        self._write()

    def edit(self) -> None:
        """Change up to five rows, put back up to two texts, remove a row now and then, and sometimes reorder all."""
        for row in self._chance.sample(self.rows, min(len(self.rows), self._chance.randint(0, 5))):
            row.earlier.append(row.text)
            row.text = self._text()
        changed = [row for row in self.rows if row.earlier]
        for row in self._chance.sample(changed, min(len(changed), self._chance.randint(0, 2))):
            row.text, row.earlier = self._chance.choice(row.earlier), [*row.earlier, row.text]
        if len(self.rows) > 20 and self._chance.random() < 0.3:
            self.rows.pop(self._chance.randrange(len(self.rows)))
        if self._chance.random() < 0.1:
            self._chance.shuffle(self.rows)
        self._write()

    def _text(self) -> str:
        words = self._chance.choices(_WORDS, k=self._chance.randint(3, 12))
        return f"{' '.join(words).capitalize()}, {self._chance.randrange(10**6)}."

    def _write(self) -> None:
        draft = self.path.with_suffix(".draft")
        with draft.open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file)
            table.writerow(["id", "text", "voice", "format"])
            table.writerows([row.id, row.text, row.voice, row.format] for row in self.rows)
        draft.replace(self.path)
