"""What an examination finds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How much a finding matters."""

    OK = "ok"
    HINT = "hint"  # works, and could be better or safer
    PROBLEM = "problem"  # does not work, or must not go on like this


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One finding about `topic`, with what to do (`hint`) unless all is well. `passing`: it may mend itself."""

    level: Level
    topic: str
    message: str
    hint: str = ""
    passing: bool = False


def ok(topic: str, message: str) -> Finding:
    """All is well."""
    return Finding(level=Level.OK, topic=topic, message=message)


def hint(topic: str, message: str, do: str) -> Finding:
    """Something could be better."""
    return Finding(level=Level.HINT, topic=topic, message=message, hint=do)


def problem(topic: str, message: str, do: str, *, passing: bool = False) -> Finding:
    """Something must be mended, or pass."""
    return Finding(level=Level.PROBLEM, topic=topic, message=message, hint=do, passing=passing)
