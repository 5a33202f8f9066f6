"""Structured logs: what happened to which item, attempt and task; never a text, a token or the query of a URL."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import structlog


def configure(write: Callable[[str], object], *, verbose: bool = False, debug: bool = False) -> None:
    """Write log lines through `write`: problems always, every step with `verbose`, everything with `debug`."""
    level = logging.DEBUG if debug else logging.INFO if verbose else logging.ERROR

    def emit(_logger: Any, _name: str, event: structlog.typing.EventDict) -> str:
        at, severity, what = event.pop("timestamp"), event.pop("level"), event.pop("event")
        words = " ".join(f"{name}={_shown(value)}" for name, value in event.items() if value is not None)
        write(f"{at} {severity:<7} {what}: {words}")
        raise structlog.DropEvent

    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%Y-%m-%dT%H:%M:%S", utc=False),
            emit,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=False,
    )


def _shown(value: object) -> str:
    text = str(value)
    return repr(text) if " " in text or not text.isprintable() else text
