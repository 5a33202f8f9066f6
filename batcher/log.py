"""The package's log: the standard library's logger `batcher`. A program that uses the package decides what is shown.

Never texts, tokens or URL queries.
"""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from typing import Any, Final

import structlog
import structlog.contextvars

LOGGER: Final = logging.getLogger("batcher")
_WRAPPERS: Final = 4
"""Calls between an event's place in the code and the standard library."""
LOGGER.addHandler(logging.NullHandler())  # without any handler, Python would print warnings


def _to_record(_logger: Any, _name: str, event: structlog.typing.EventDict) -> tuple[tuple[str], dict[str, Any]]:
    """The arguments of a record: its message, its `event`, and the `facts` about it that are known."""
    what = event.pop("event")
    facts = {name: value for name, value in event.items() if value is not None}
    return (line(what, facts),), {"extra": {"event": what, "facts": facts}, "stacklevel": _WRAPPERS}


def line(what: str, facts: dict[str, Any]) -> str:
    """An event and its facts on one line: `create: key=3f… attempt=1`."""
    if not facts:
        return what
    return f"{what}: {' '.join(f'{name}={_shown(value)}' for name, value in facts.items())}"


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(_shown, value))
    if isinstance(value, dict):
        return ",".join(f"{name}:{_shown(one)}" for name, one in value.items() if one) or "-"
    text = str(value)
    return repr(text) if " " in text or not text.isprintable() else text


log: Final = structlog.wrap_logger(
    LOGGER,
    processors=[structlog.stdlib.filter_by_level, structlog.contextvars.merge_contextvars, _to_record],
    wrapper_class=structlog.stdlib.BoundLogger,
    context_class=dict,
)
"""Logs events with their facts: `log.info("saved", key=key)`. Independent of how the host configures the library."""


def within_run(run_id: str) -> AbstractContextManager[None]:
    """A context in which every line carries the id of the run; so do those of the tasks that it starts."""
    return structlog.contextvars.bound_contextvars(run_id=run_id)
