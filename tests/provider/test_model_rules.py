"""What the provider's pages say about models: ignored parameters, and the price of a text."""

from __future__ import annotations

import pytest

from batcher.provider.model_rules import ignored_parameters, listed_price

ALL = ("speed", "stability", "similarity", "pitch", "emotion", "language")


@pytest.mark.parametrize(
    ("model", "ignored"),
    [
        ("fishaudio-s2pro", ["pitch", "emotion"]),
        ("MiniMax-2.8-hd", ["stability", "similarity"]),
        ("qwen3-tts-flash", ["stability", "similarity", "emotion"]),
        ("doubao-tts-2.0", ["stability", "similarity", "pitch", "emotion"]),
        ("a-model-of-tomorrow", []),
        (None, []),
    ],
)
def test_only_known_engines_are_known_to_ignore_parameters(model: str | None, ignored: list[str]) -> None:
    """Nothing is claimed about a model that the server chooses, or that no page mentions."""
    assert ignored_parameters(model, ALL) == ignored


@pytest.mark.parametrize(
    ("text", "credits_"), [("abcd", 2), ("abc", 2), ("a", 1), ("你好", 2), ("你好!", 3), ("カナ한글", 4), ("é", 1)]
)
def test_the_listed_price_counts_characters_and_rounds_up(text: str, credits_: int) -> None:
    """A CJK character costs one credit, any other half."""
    assert listed_price(text) == credits_
