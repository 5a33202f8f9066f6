"""A sample of a manifest represents all of it, and is always the same."""

from __future__ import annotations

import random
from typing import Any

from batcher.ledger.queries.selection import Candidate
from batcher.pipeline.sample import sample


def plain(number: int, *, voice: str = "anna", model: str | None = None, audio_format: str = "mp3") -> list[Candidate]:
    """Candidates with ordinary texts, all of about the same length."""
    return [Candidate(place, voice, model, audio_format, f"An ordinary line, {place:04}.") for place in range(number)]


def changed(found: list[Candidate], place: int, **changes: Any) -> None:
    found[place] = found[place]._replace(**changes)


def test_each_voice_model_and_format_is_in_the_sample() -> None:
    """In a sample that is too small for all, the largest groups are."""
    found = plain(100)
    for place, group in enumerate(({"voice": "ben"}, {"model": "m2"}, {"format": "wav"})):
        for row in range(60 + 10 * place, 60 + 10 * place + 3 - place):
            changed(found, row, **group)
    for size, number in ((3, 3), (6, 4), (20, 4)):
        groups = {found[place][1:4] for place in sample(found, size)}
        assert len(groups) == number
        assert ("ben", None, "mp3") in groups


def test_the_shortest_and_the_longest_text_are_in_the_sample() -> None:
    found = plain(100)
    changed(found, 83, text="No.")
    changed(found, 84, text="A long line. " * 40)
    assert {83, 84} <= set(sample(found, 5))


def test_unusual_characters_are_in_the_sample() -> None:
    """Another script, a symbol and an accented letter, each once in the manifest; the rarest come first."""
    found = plain(400)
    for place, text in ((71, "Сейчас, 0071."), (72, "An ordinary €, 0072."), (73, "An ordinary café, 0073.")):
        changed(found, place, text=text)
    for place in range(100, 120):
        changed(found, place, text=f"An ordinary #{place}.")
    assert {71, 72, 73} <= set(sample(found, 20))
    assert len({71, 72, 73} & set(sample(found, 8))) == 2  # leaves room for the others


def test_the_rest_is_spread_over_the_manifest() -> None:
    """No tenth of it has more than two of twenty."""
    chosen = sample(plain(1000), 20)
    assert max(sum(place // 100 == tenth for place in chosen) for tenth in range(10)) <= 3
    assert len(chosen) == 20


def test_a_sample_does_not_depend_on_the_order_of_reading() -> None:
    found = [*plain(200), *(one._replace(place=one.place + 200, voice="ben") for one in plain(40))]
    changed(found, 7, text="€")
    shuffled = random.Random(7).sample(found, len(found))
    assert sample(found, 30) == sample(shuffled, 30)


def test_a_small_manifest_is_sampled_as_a_whole() -> None:
    assert sample(plain(3), 20) == [0, 1, 2]
    assert sample([], 20) == []
