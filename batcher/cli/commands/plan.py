"""`batcher plan`: what a run would do and cost."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click

from batcher.cli.colours import BAD, GOOD, LOOK
from batcher.cli.run_options import Grouped, manifest_options, resolve
from batcher.formatting import amount, counted


@click.command(cls=Grouped)
@click.argument("manifests", nargs=-1, metavar="MANIFEST...")
@manifest_options
@click.pass_context
def plan(ctx: click.Context, /, manifests: tuple[str, ...], **_: Any) -> None:
    """Show what a run would do and cost. Creates nothing, and makes no ledger.

    Takes the options of `run`. What it may cost is learned from the tasks in the ledger; the balance is asked for when
    there is a token. Exits 2 when a run would refuse to create anything.
    """
    ctx.exit(show_plan(ctx, manifests))


def show_plan(ctx: click.Context, manifests: tuple[str, ...]) -> int:
    """Print the plan. Returns the exit code."""
    from batcher.pipeline import plan

    chosen = resolve(ctx, manifests)
    found = plan.plan(chosen)
    refused = bool(found.refused) or bool(found.rebuy and not chosen.rebuy)
    refused = refused or bool(found.outdated and not chosen.restored)
    if ctx.params["as_json"]:
        click.echo(json.dumps(asdict(found), ensure_ascii=False))
    else:
        for line in _lines(found):
            click.echo(line)
    return 2 if refused else 0


def _lines(found: Any) -> list[str]:
    lines = [click.style(fault, fg=BAD) for fault in found.faults]
    if found.refused:
        lines += [*dict.fromkeys(filter(None, found.refused.values()))]
        lines.append(f"not counted: {', '.join(found.refused)}; until it is mended, a run creates nothing")
    if not found.refused or len(found.refused) < len(found.batches):
        lines += _counted(found)
    if found.balance is not None:
        lines.append(f"balance: {amount(found.balance)} credits{_verdict(found)}")
    elif found.balance_unknown is not None:
        lines.append(click.style(f"balance: not known, {found.balance_unknown}", fg=LOOK))
    if found.outdated:
        lines.append(click.style(f"{found.outdated}: a run wants --restored", fg=LOOK))
    if found.rebuy:
        lines += [click.style("a run would want --rebuy:", fg=LOOK), found.rebuy]
    return lines


def _counted(found: Any) -> list[str]:
    """What those manifests come to that a run can take in."""
    lines = []
    rows, items = counted(found.rows, "row"), counted(found.items, "item")
    shared = f"; {counted(found.shared, 'row')} with the inputs of another" if found.shared else ""
    lines.append(f"{rows} for {items}{shared}")
    lines.append(f"  {found.new:>9,}  new")
    counts = {
        "done": (found.done, GOOD),
        "in flight": (found.in_flight, None),
        "need a person": (found.need_person, BAD),
    }
    lines += [click.style(f"  {number:>9,}  {what}", fg=colour) for what, (number, colour) in counts.items() if number]
    if found.skipped:
        lines.append(f"  {found.skipped:>9,}  skipped")
    for name, ids in found.changed.items():
        more = ", …" if len(ids) > 5 else ""
        lines.append(f"{counted(len(ids), 'row')} with another {name} than in the last run: {', '.join(ids[:5])}{more}")
    sent = (header if header == name else f"{header} (as {name})" for header, name in found.columns_sent.items())
    carried = f"; only carried to the results: {', '.join(found.columns_carried)}" if found.columns_carried else ""
    lines.append(f"columns used: {', '.join(sent)}{carried}")
    lines.append(f"to be created: {found.characters:,} characters, {_cost(found)}")
    return lines


def _cost(found: Any) -> str:
    if found.estimate is None:
        return "for an unknown number of credits (no finished task in the ledger has said its price yet)"
    about, low, high = (f"{found.estimate[name]:,.0f}" for name in ("credits", "low", "high"))
    return f"for about {about} credits{'' if low == high else f' ({low} to {high})'}"


def _verdict(found: Any) -> str:
    if found.suffices is None:
        return ""
    if found.suffices:
        return ", which suffices"
    return click.style(f", which would last for about {found.stops_after:,} items", fg=LOOK)
