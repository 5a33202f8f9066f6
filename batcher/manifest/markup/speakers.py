"""Names of speakers at the beginning of a text, as in `Anna: I told you so.`"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

_PREFIX: Final = re.compile(
    r"\s*(?P<name>[^\W\d_][\w'\u2019.-]{0,29}(?: [^\W_][\w'\u2019.-]{0,29}){0,2})"
    r"(?: ?\([^()]{1,40}\))? ?(?::\s+|\uff1a\s*)(?=\S)"  # (whispering):
)
_LABEL_WORDS: Final = """
a abstract achtung address agenda alert announcement answer antwort appendix atención attention attenzione aufgabe
author aviso avvertenza award beispiel bemerkung bonus breakfast breaking caution chapitre chapter conclusion contact
contents context correction credits danger date deadline default definition delivery description dessert destination
details dinner directions disclaimer domanda duration editor ejemplo email ende episode error esempio event example
exemple exemplo exercise fact fazit figure focus folge frage from fyi goal headline heute hint hinweis hours important
importante info information ingredients instructions introduction issue item kapitel language lektion lesson level
location lunch meaning merke method mission motto name news next nota note notes notice notiz now objective one option
order outcome overview page paragraph part phase phone place pregunta price problem product ps purpose q question
quote re reason recap recipe reminder remarque result réponse respuesta risposta review rule schedule scene score
season section series setting size source step subject summary task teil theme then time tip tipp title to today
tomorrow tonight topic total traffic translation type unit update verse version volume vorsicht warning warnung
weather website wichtig word zusammenfassung monday tuesday wednesday thursday friday saturday sunday montag dienstag
mittwoch donnerstag freitag samstag sonntag lundi mardi mercredi jeudi vendredi samedi dimanche january february march
april may june july august september october november december
"""
_LABELS: Final = frozenset(_LABEL_WORDS.split())
"""What texts call themselves or their parts, in common languages: hardly names of speakers."""
_NUMBERED: Final = frozenset(
    ("speaker", "narrator", "person", "voice", "character", "man", "woman", "sprecher", "host")
)
"""Words that a number follows in names of speakers; elsewhere a number makes a heading, as in `Chapter 1`."""


class Speaker(NamedTuple):
    """A name at the beginning of a text, and the text after it."""

    name: str
    rest: str

    @property
    def is_likely(self) -> bool:
        """Whether it looks like a name: each word begins with a capital, and none is a common label."""
        words = self.name.split()
        first, last = words[0], words[-1]
        if any(char.isdigit() for char in self.name):
            return re.sub(r"[\d_ .-]+$", "", self.name).casefold() in _NUMBERED
        if {first.rstrip(".").casefold(), last.rstrip(".").casefold()} & _LABELS:
            return False
        return all(word[0].isupper() for word in words)


def speaker_of(text: str) -> Speaker | None:
    """The name of a speaker that the text may begin with."""
    match = _PREFIX.match(text) if ":" in text[:120] or "\uff1a" in text[:120] else None
    return None if match is None else Speaker(match["name"], text[match.end() :])


def voice_of(speaker: Speaker, voices: Mapping[str, str]) -> str | None:
    """The speaker's name as the table `[voices]` has it, in any case; None if it is not there."""
    if speaker.name in voices:
        return speaker.name
    return next((name for name in voices if name.casefold() == speaker.name.casefold()), None)
