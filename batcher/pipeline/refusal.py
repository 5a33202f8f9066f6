"""What a run does when the API refuses a request for its rate (429): it waits as asked, within bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from batcher.clock import local
from batcher.formatting import span
from batcher.pipeline.context import RunContext
from batcher.pipeline.stop import Reason
from batcher.provider.limits import PATIENT_RETRY_AFTER_SECONDS
from batcher.throttle.gate import Gate, Sent

_SHOWN_SECONDS: Final = 10.0
"""A wait is shown on the screen if it is longer than the one before by more than this."""


def refused(
    ctx: RunContext,
    gate: Gate,
    sent: Sent,
    asked_seconds: float | None,
    *,
    what: str,
    stop: Callable[[Reason, str], None],
) -> None:
    """Close the gate for `Retry-After`, or `stop` if that is longer than a run waits; `what` the gate is for."""
    ctx.tally.throttled += 1
    asked = asked_seconds or 0.0
    until = local(ctx.clock.now() + asked)
    if asked > PATIENT_RETRY_AFTER_SECONDS:
        stop(Reason.TROUBLE, too_long(until))
        asked = 0.0
    elif asked - gate.closed_seconds > _SHOWN_SECONDS:
        ctx.progress.say(f"the API asks to wait until {until} (Retry-After); {what} waits")
    gate.close(sent, asked)


def too_long(until: str) -> str:
    """The message of a run that ends because the API asks to wait until `until`."""
    most = span(PATIENT_RETRY_AFTER_SECONDS)
    return f"the API asks to wait until {until} (Retry-After), and a run waits at most {most}; run it again after that"
