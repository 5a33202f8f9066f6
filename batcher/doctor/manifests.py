"""Whether a run could take the manifests in."""

from __future__ import annotations

from typing import Final

from batcher.doctor.finding import Finding, hint, ok, problem
from batcher.errors import BatcherError
from batcher.formatting import counted
from batcher.pipeline.plan import Plan, plan_offline
from batcher.settings import Settings

_SHOWN: Final = 5


def examine(settings: Settings) -> list[Finding]:
    """Read the manifests as a run with these settings would, and judge them against the ledger. Keeps nothing."""
    if not settings.sources:
        return []
    try:
        found = plan_offline(settings)
    except BatcherError as error:
        return [hint("manifest", f"not read: {error.message}", "See to the ledger first.")]
    names = ", ".join(str(source.path or source.name) for source in settings.sources)
    return [*_faults(found), *_consents(found, settings)] or [
        ok("manifest", f"{names}: {counted(found.rows, 'row')} for {counted(found.items, 'item')}")
    ]


def _faults(found: Plan) -> list[Finding]:
    hidden = len(found.faults) - _SHOWN
    more = f" `batcher plan` names {hidden:,} more." if hidden > 0 else ""
    shown = found.faults[:_SHOWN]
    if not found.refused:
        return [hint("manifest", f"skipped: {fault}", f"A run goes on without it.{more}") for fault in shown]
    todo = next(filter(None, found.refused.values()), "A run creates nothing before it is mended.")
    return [problem("manifest", fault, f"{todo}{more}") for fault in shown]


def _consents(found: Plan, settings: Settings) -> list[Finding]:
    """What a run would not do without a word of consent."""
    wanted = []
    if found.rebuy and not settings.rebuy:
        wanted.append(problem("manifest", found.rebuy.splitlines()[0], "`batcher plan` tells all of it; see --rebuy."))
    if found.outdated and not settings.restored:
        wanted.append(problem("manifest", found.outdated, "A run wants --restored."))
    return wanted
