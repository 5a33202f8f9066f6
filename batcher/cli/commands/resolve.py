"""`batcher resolve`: settle items in doubt."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Any

import anyio
import click

from batcher.cli.api_options import api_options, api_settings, ledger_settings
from batcher.cli.colours import in_state
from batcher.cli.decisions import print_outcomes
from batcher.cli.json_output import JsonCommand, reply
from batcher.cli.ledger_path import find_ledger
from batcher.cli.options import json_option
from batcher.clock import local_time
from batcher.formatting import amount, counted, plain_error
from batcher.item import State
from batcher.maintenance import operations
from batcher.maintenance.doubts import Doubt, DoubtMoney


@click.command(cls=JsonCommand)
@click.argument("arguments", nargs=-1, metavar="[ID...]")
@click.option("--adopt", metavar="TASK_ID", help="Assign this task to the item, after checking with the API.")
@click.option("--buy-again", is_flag=True, help="Create the items again; each may be charged twice.")
@click.option("--abandon", is_flag=True, help="Give the items up.")
@click.option("--all", "everything", is_flag=True, help="Apply --buy-again or --abandon to every item in doubt.")
@api_options
@json_option
@click.pass_context
def resolve(
    ctx: click.Context,
    /,
    arguments: tuple[str, ...],
    adopt: str | None,
    buy_again: bool,
    abandon: bool,
    everything: bool,
    **_: Any,
) -> None:
    """Settle items that may have been bought. With --buy-again, the next run may charge twice.

    An item is in doubt if a create request was sent and no definite answer arrived. Without --adopt, --buy-again or
    --abandon, lists these items with the evidence: look for their tasks in your account's history at the provider,
    then decide. ID is a row's id or the beginning of an item's key.
    """
    path, ids = find_ledger(ctx, arguments)
    if not (adopt or buy_again or abandon):
        _list(ctx, anyio.run(operations.doubts, ledger_settings(path), ids or None))
        return
    decide = partial(
        operations.resolve,
        api_settings(ctx, path),
        ids or None,
        adopt=adopt,
        buy_again=buy_again,
        abandon=abandon,
        everything=everything,
    )
    outcomes = anyio.run(decide)
    if not outcomes:
        click.echo("no items in doubt", err=True)
    print_outcomes(ctx, outcomes)


def _list(ctx: click.Context, doubts: list[Doubt]) -> None:
    if ctx.params["as_json"]:
        message = f"{counted(len(doubts), 'item')} in doubt" if doubts else "no items in doubt"
        reply(ctx, message, doubts=[asdict(one) for one in doubts])
        return
    if not doubts:
        click.echo("no items in doubt")
    for one in doubts:
        _print(one)
    if doubts:
        click.echo(_CHOICES)


def _print(doubt: Doubt) -> None:
    named = ", ".join(f"{row.id} of {row.batch}" for row in doubt.rows) or "no current row"
    named = in_state(State.IN_DOUBT, named)
    click.echo(f"{doubt.key[:16]}  {named}: {doubt.chars:,} characters, voice {doubt.voice}")
    click.echo(f"    request {doubt.attempt}: {_sent(doubt)}, account {doubt.account}")
    click.echo(f"    answer: {_answer(doubt)}")
    if doubt.raw:
        click.echo(f"    body: {doubt.raw[:120]!r}")
    for line in _money(doubt.money):
        click.echo(f"    {line}")


def _sent(doubt: Doubt) -> str:
    if doubt.cause == "restored":
        return f"may have been sent between {local_time(doubt.sent_at)} and {local_time(doubt.answered_at or '')}"
    return f"sent at {local_time(doubt.sent_at)}"


def _answer(doubt: Doubt) -> str:
    status = f"HTTP {doubt.http_status}, " if doubt.http_status else ""
    cause = doubt.cause or "unknown"
    error = plain_error(doubt.message or "") or doubt.code or _CAUSES.get(cause, cause)
    if doubt.answered_at is None or doubt.cause == "restored":
        return f"{status}{error}"
    return f"{status}{error} ({'noticed at' if doubt.cause == 'vanished' else 'at'} {local_time(doubt.answered_at)})"


def _money(found: DoubtMoney) -> list[str]:
    """The balance before and after the request, other spending between them, and the price."""
    lines = []
    if found.before is not None and found.before_at is not None:
        lines.append(f"balance before: {amount(found.before)} at {local_time(found.before_at)}")
    if found.after is not None and found.after_at is not None:
        lines.append(f"balance after: {amount(found.after)} at {local_time(found.after_at)}")
    if found.unexplained is not None:
        others = f"; {found.untold:,} more did not report their cost" if found.untold else ""
        lines.append(
            f"reported cost of other requests between: {amount(found.told or 0)}{others}; "
            f"unexplained: {amount(found.unexplained)}"
        )
    lines.append("price unknown" if found.estimate is None else f"price: about {amount(found.estimate)} credits")
    return lines


_CHOICES = """\
Settle each item with one of these:
  --adopt TASK_ID  costs nothing more
  --buy-again      pays the price, a second time if it was already bought
  --abandon        costs nothing more; loses the price if it was already bought"""
_CAUSES = {"vanished": "none recorded before the run that sent it ended"}
