"""Chooses a representative sample of a manifest's items. The same manifest always has the same sample."""

from __future__ import annotations

import unicodedata
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain
from typing import Final

from batcher.ledger.queries.selection import Candidate

_COMMON: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ \t\r\n")
_UNUSUAL_SHARE: Final = 0.1
"""Characters in at most this share of the texts, or in a single one, are unusual."""
_FOR_UNUSUAL: Final = 4
"""Up to one in this many of the sample is chosen for its unusual characters."""


def sample(found: Iterable[Candidate], size: int) -> list[int]:
    """The places of `size` items, or of all if there are fewer.

    First one item of each voice, model and format, the most frequent first; then the longest and the shortest text;
    then texts with unusual characters, the rarest first; the rest are spread evenly over the manifest.
    """
    survey = _Survey()
    for one in found:
        survey.add(one)
    chosen: dict[int, None] = {}
    for place in chain(survey.typical(), survey.extremes(), survey.unusual(max(1, size // _FOR_UNUSUAL))):
        if len(chosen) < size:
            chosen[place] = None
    rest = [place for place in survey.places() if place not in chosen]
    missing = min(size - len(chosen), len(rest))
    spread = (rest[(2 * index + 1) * len(rest) // (2 * missing)] for index in range(missing))
    return sorted(chain(chosen, spread))


@dataclass(slots=True)
class _Rarity:
    """The number of texts with a kind of character, and the place of the first."""

    texts: int
    place: int


@dataclass(slots=True)
class _Survey:
    """What a sample is chosen by. The order in which items are added does not matter."""

    _groups: dict[tuple[str, str | None, str], array[int]] = field(default_factory=dict)  # places
    _longest: tuple[int, int] = (0, 0)  # characters, and the negative place
    _shortest: tuple[int, int] | None = None
    _kinds: dict[str, _Rarity] = field(default_factory=dict)
    _known_kinds: dict[str, str] = field(default_factory=dict)  # by character

    def add(self, one: Candidate) -> None:
        group = (one.voice, one.model, one.format)
        if group not in self._groups:
            self._groups[group] = array("q")
        self._groups[group].append(one.place)
        size = len(one.text)
        self._longest = max(self._longest, (size, -one.place))
        self._shortest = min(self._shortest or (size, one.place), (size, one.place))
        for kind in {self._kind(char) for char in set(one.text) - _COMMON}:
            known = self._kinds.get(kind)
            if known is None:
                self._kinds[kind] = _Rarity(1, one.place)
            else:
                known.texts += 1
                known.place = min(known.place, one.place)

    def _kind(self, char: str) -> str:
        kind = self._known_kinds.get(char)
        if kind is None:
            kind = self._known_kinds[char] = _kind_of(char)
        return kind

    def places(self) -> list[int]:
        """The places of all items, in order."""
        return sorted(chain.from_iterable(self._groups.values()))

    def typical(self) -> list[int]:
        """The item in the middle of each group, the largest group first."""
        groups = [sorted(places) for places in self._groups.values()]
        groups.sort(key=lambda places: (-len(places), places[0]))
        return [places[len(places) // 2] for places in groups]

    def extremes(self) -> list[int]:
        """The longest and the shortest text."""
        return [] if self._shortest is None else [-self._longest[1], self._shortest[1]]

    def unusual(self, most: int) -> list[int]:
        """Up to `most` items with unusual characters, the rarest first."""
        limit = max(1.0, _UNUSUAL_SHARE * sum(map(len, self._groups.values())))
        rare = sorted((one.texts, one.place) for one in self._kinds.values() if one.texts <= limit)
        return list(dict.fromkeys(place for _, place in rare))[:most]


def _kind_of(char: str) -> str:
    """What a character has in common with others: its script, being a digit; or the character itself."""
    if char.isnumeric():
        return "digit"
    if not char.isalpha() and not unicodedata.category(char).startswith("M"):
        return char
    script = unicodedata.name(char, "unnamed").split()[0]
    return char.casefold() if script == "LATIN" else script
