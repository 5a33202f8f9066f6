"""All examinations, in the order in which their findings are of use."""

from __future__ import annotations

import anyio

from batcher.clock import Clock
from batcher.doctor import api, disk, ledger, manifests, speech
from batcher.doctor.finding import Finding
from batcher.settings import Settings


def examine(settings: Settings, clock: Clock) -> list[Finding]:
    """Everything that can be found out about a run with these settings, short of running it."""
    return [
        *anyio.run(api.examine, settings, clock),
        *ledger.examine(settings),
        *manifests.examine(settings),
        *disk.examine(settings, clock.now()),
        speech.examine(),
    ]
