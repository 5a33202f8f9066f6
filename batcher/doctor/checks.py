"""All checks, in the order in which their findings are shown."""

from __future__ import annotations

import anyio

from batcher.clock import Clock
from batcher.doctor.api import check_api
from batcher.doctor.disk import check_disk
from batcher.doctor.finding import Finding
from batcher.doctor.ledger import check_ledger
from batcher.doctor.manifests import check_manifests
from batcher.doctor.speech import check_speech
from batcher.settings import Settings


def run_checks(settings: Settings, clock: Clock) -> list[Finding]:
    """Check everything that a run with these settings would meet."""
    return [
        *anyio.run(check_api, settings, clock),
        *check_ledger(settings),
        *check_manifests(settings),
        *check_disk(settings, clock.now()),
        check_speech(),
    ]
