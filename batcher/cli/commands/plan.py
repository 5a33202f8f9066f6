"""`batcher plan`: preview a run and its cost."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

import click

from batcher.cli.colours import ERROR, GOOD, WARNING
from batcher.cli.json_output import reply
from batcher.cli.run_options import GroupedCommand, manifest_options, run_settings
from batcher.cli.terminal import show
from batcher.formatting import amount, counted
from batcher.manifest.faults import printable
from batcher.settings import Settings, changed_command

_VOICES_SHOWN: Final = 15
_VALUES_SHOWN: Final = 4


@click.command(cls=GroupedCommand)
@click.argument("manifests", nargs=-1, metavar="MANIFEST...")
@manifest_options
@click.pass_context
def plan(ctx: click.Context, /, manifests: tuple[str, ...], **_: Any) -> None:
    """Show what a run would do and cost. Creates nothing, not even a ledger.

    Takes the options of `run`. The price is estimated from finished tasks in the ledger, or else by the provider's
    price rule. With a token, the balance is read, and voices, models and parameters are checked. Exits with 2 if a run
    would refuse to create anything.
    """
    ctx.exit(show_plan(ctx, manifests))


def show_plan(ctx: click.Context, manifests: tuple[str, ...]) -> int:
    """Print the plan. Returns the exit code."""
    import anyio

    from batcher.cli.screen import Screen
    from batcher.cli.standard_input import with_standard_input
    from batcher.pipeline import plan

    settings = with_standard_input(run_settings(ctx, manifests))
    screen = Screen(quiet=ctx.params["quiet"])
    try:
        screen.comparing(", ".join(source.label for source in settings.sources))
        found = anyio.run(plan.plan, settings, screen.reading)
    finally:
        screen.close()
    refused = (
        bool(found.refused or found.refused_doubts)
        or (found.rebuy is not None and not settings.rebuy)
        or (found.rename is not None and not settings.rename)
        or (found.outdated is not None and not settings.restored)
    )
    if ctx.params["as_json"]:
        reply(ctx, _message(found, refused=refused), exit_code=2 if refused else 0, **asdict(found))
    else:
        for line in _lines(found, settings):
            show(line)
    return 2 if refused else 0


def _message(found: Any, *, refused: bool) -> str:
    if found.refused:
        return f"{', '.join(found.refused)}: errors; nothing will be created until they are fixed"
    if refused:
        return "a run would be refused: see doubts, outdated, rename and rebuy"
    return f"{counted(found.items, 'item')}, {found.new:,} to create"


def _lines(found: Any, settings: Settings) -> list[str]:
    lines = [click.style(fault, fg=ERROR) for fault in found.faults]
    if found.refused:
        lines += [*dict.fromkeys(filter(None, found.refused.values()))]
        have = "has" if len(found.refused) == 1 else "have"
        lines.append(f"{', '.join(found.refused)} {have} errors; fix them first. Nothing will be created until then.")
    if not found.refused or len(found.refused) < len(found.batches):
        lines += [*_preview(found), *_purchase(found, settings)]
        lines += [click.style(warning, fg=WARNING) for warning in found.warnings]
    if found.balance is not None:
        lines.append(f"balance: {amount(found.balance)} credits{_sufficiency(found)}")
    elif found.balance_unknown is not None:
        lines.append(click.style(f"balance: unknown, {found.balance_unknown}", fg=WARNING))
    if found.refused_doubts:
        lines += [click.style(doubt, fg=ERROR) for doubt in found.refused_doubts]
        lines.append(f"A run creates nothing while texts have these. {found.doubts_hint}")
    if found.outdated:
        lines.append(click.style(f"{found.outdated}: a run needs --restored", fg=WARNING))
    if found.rename:
        lines += [click.style("a run needs --rename:", fg=WARNING), found.rename]
    if found.rebuy:
        lines += [click.style("a run needs --rebuy:", fg=WARNING), found.rebuy]
    return lines


def _preview(found: Any) -> list[str]:
    """Lines about the manifests that have no errors."""
    lines = []
    rows, items = counted(found.rows, "row"), counted(found.items, "item")
    shared = f" ({counted(found.shared, 'row')} with the same inputs as another)" if found.shared else ""
    lines.append(f"{rows}, {items}{shared}")
    if found.not_selected:
        lines[-1] += f"; {found.not_selected:,} other rows are not part of this run"
    counts = {
        "new": (found.new, None),
        "done": (found.done, GOOD),
        "in flight": (found.in_flight, None),
        "need attention": (found.need_person, ERROR),
    }
    lines += [click.style(f"  {number:>9,}  {what}", fg=colour) for what, (number, colour) in counts.items() if number]
    if found.skipped:
        lines.append(f"  {found.skipped:>9,}  skipped")
    if found.left_out:
        lines.append(f"  {found.left_out:>9,}  left out by --where")
    for name, ids in found.changed.items():
        more = ", …" if len(ids) > 5 else ""
        lines.append(f"{name} changed since the last run in {counted(len(ids), 'row')}: {', '.join(ids[:5])}{more}")
    lines += found.notes
    lines += [f"voices: {_voices(found.voices)}"] if found.voices else []
    if found.parameters:
        shown = (f"{printable(name)} {_values(one)}" for name, one in found.parameters.items())
        lines.append(f"parameters: {'; '.join(shown)}")
    if found.stripped:
        lines.append(f"markup removed from the texts of {counted(found.stripped, 'row')}")
    return lines


def _purchase(found: Any, settings: Settings) -> list[str]:
    """What would be bought, and how to find out its price if no task has reported one."""
    if not found.new:
        return [click.style(_nothing_to_create(found), fg=GOOD)]
    lines = [f"to create: {found.characters:,} characters, {_cost(found)}"]
    if found.estimate_source != "tasks" and not found.refused and settings.command:
        words = [word for word in settings.command[2:] if word not in ("--dry-run", "--json")]
        lines.append("To find out the price, create one item:")
        lines.append(f"  {changed_command((settings.command[0], 'run', *words), {'--max-items': ['1']})}")
    return lines


def _nothing_to_create(found: Any) -> str:
    if found.in_flight:
        return f"nothing to create: a run collects {counted(found.in_flight, 'open item')} at no cost"
    if found.need_person:
        verbs = ("needs", "it") if found.need_person == 1 else ("need", "them")
        items = counted(found.need_person, "item")
        return f"nothing to create: {items} {verbs[0]} attention, and a run does not create {verbs[1]} again"
    return "nothing to do: all rows are done or settled"


def _voices(voices: dict[str, int]) -> str:
    """Each voice with its rows. Of very many, the most and the least frequent ones, among which typos are."""
    shown = [f"{printable(voice)} {rows:,}" for voice, rows in voices.items()]
    if len(shown) > 2 * _VOICES_SHOWN:
        hidden = len(shown) - 2 * _VOICES_SHOWN
        shown[_VOICES_SHOWN:-_VOICES_SHOWN] = [f"… {hidden:,} more …"]
    return ", ".join(shown)


def _values(one: dict[str, Any]) -> str:
    shown = [printable(value) for value in one["values"]][:_VALUES_SHOWN]
    more = f" and {one['distinct'] - len(shown):,} more" if one["distinct"] > len(shown) else ""
    return f"{', '.join(shown)}{more}"


def _cost(found: Any) -> str:
    if found.estimate is None:
        return "price unknown: no task in the ledger has reported its cost yet"
    about, low, high = (f"{found.estimate[name]:,.0f}" for name in ("credits", "low", "high"))
    if found.estimate_source == "price rule":
        return f"about {about} credits by the provider's price rule (some models cost more: `batcher help account`)"
    return f"about {about} credits{'' if low == high else f' ({low} to {high})'}"


def _sufficiency(found: Any) -> str:
    if found.suffices is None or not found.new:
        listed = found.estimate["credits"] if found.estimate_source == "price rule" and found.new else 0.0
        return click.style(", probably not enough", fg=WARNING) if found.balance < listed else ""
    if found.suffices:
        return ", which is enough"
    if not found.stops_after:
        return click.style(", not enough for one item", fg=WARNING)
    return click.style(f", enough for about {counted(found.stops_after, 'item')}", fg=WARNING)
