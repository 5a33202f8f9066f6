"""A finding of `doctor`, and the functions that build one."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How serious a finding is."""

    OK = "ok"
    HINT = "hint"  # works, but could be better or safer
    PROBLEM = "problem"  # does not work, or must not stay as it is


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of one check of `topic`: what was found, and what to do (`hint`, unless it is ok).

    `passing`: the problem may be temporary.
    """

    level: Level
    topic: str
    message: str
    hint: str = ""
    passing: bool = False


def ok(topic: str, message: str) -> Finding:
    """A check that found nothing wrong."""
    return Finding(level=Level.OK, topic=topic, message=message)


def hint(topic: str, message: str, action: str) -> Finding:
    """Something that works, but could be better or safer."""
    return Finding(level=Level.HINT, topic=topic, message=message, hint=action)


def problem(topic: str, message: str, action: str, *, passing: bool = False) -> Finding:
    """Something that must be fixed, or must pass."""
    return Finding(level=Level.PROBLEM, topic=topic, message=message, hint=action, passing=passing)
