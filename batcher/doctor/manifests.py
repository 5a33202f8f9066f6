"""Checks whether a run could import the manifests."""

from __future__ import annotations

from typing import Final

import anyio

from batcher.doctor.finding import Finding, hint, ok, problem
from batcher.errors import BatcherError
from batcher.formatting import counted
from batcher.pipeline.plan import Plan, plan
from batcher.settings import Settings

_FAULTS_SHOWN: Final = 5
"""Maximum number of faults that are findings of their own."""


def check_manifests(settings: Settings) -> list[Finding]:
    """Read the manifests as a run with these settings would, compare them with the ledger, and ask the API about the
    voices and models of the items to be created. Stores nothing."""
    if not settings.sources:
        return []
    try:
        found = anyio.run(plan, settings)
    except BatcherError as error:
        return [hint("manifest", f"not checked: {error.message}", "Fix that first.")]
    names = ", ".join(source.label for source in settings.sources)
    return [*_check_faults(found), *_check_consents(found, settings), *_check_purchases(found)] or [
        ok("manifest", f"{names}: {counted(found.rows, 'row')}, {counted(found.items, 'item')}")
    ]


def _check_purchases(plan: Plan) -> list[Finding]:
    """What may be bought by mistake."""
    action = "Fix the rows, unless that is intended; a run warns and buys them. See `batcher help account`."
    return [hint("voices", warning.removeprefix("warning: "), action) for warning in plan.warnings]


def _check_faults(plan: Plan) -> list[Finding]:
    hidden = len(plan.faults) - _FAULTS_SHOWN
    more = f" `batcher plan` lists {hidden:,} more." if hidden > 0 else ""
    shown = plan.faults[:_FAULTS_SHOWN]
    if not plan.refused:
        return [hint("manifest", f"skipped: {fault}", f"A run continues without it.{more}") for fault in shown]
    action = next(filter(None, plan.refused.values()), "Fix it; until then, a run creates nothing.")
    return [problem("manifest", fault, f"{action}{more}") for fault in shown]


def _check_consents(plan: Plan, settings: Settings) -> list[Finding]:
    """What a run would refuse to do without `--rebuy`, `--rename`, `--allow` or `--restored`."""
    needed = []
    if plan.rebuy and not settings.rebuy:
        action = "Undo the change, or accept it with --rebuy; `batcher plan` shows all of it."
        needed.append(problem("manifest", plan.rebuy.splitlines()[0], action))
    if plan.rename and not settings.rename:
        action = "Undo the change, or accept it with --rename; `batcher plan` shows all of it."
        needed.append(problem("manifest", plan.rename.splitlines()[0], action))
    needed += [problem("manifest", doubt, plan.doubts_hint or "") for doubt in plan.refused_doubts]
    if plan.outdated and not settings.restored:
        action = "Run with --restored and all manifests of the ledger; see `batcher help files`."
        needed.append(problem("manifest", plan.outdated, action))
    return needed
