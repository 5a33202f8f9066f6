"""`batcher resolve`: settle items in doubt."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import click

from batcher.cli.api_options import api_options
from batcher.cli.colours import in_state
from batcher.cli.json_output import JsonCommand, reply
from batcher.cli.ledger_path import find_ledger
from batcher.cli.locked_ledger import decide, print_outcomes
from batcher.cli.options import json_option
from batcher.clock import local, utc
from batcher.errors import UsageError
from batcher.formatting import amount, counted, plain_error, rounded
from batcher.item import State
from batcher.ledger.ledger import open_readonly
from batcher.ledger.money.evidence import BalanceEvidence, balance_evidence, evidence
from batcher.ledger.queries import names, status

if TYPE_CHECKING:
    from batcher.maintenance.decisions import Decisions, Outcome


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
    with open_readonly(path) as conn:
        keys = names.find_keys(conn, ids, states=[State.IN_DOUBT])
        cases = evidence(conn, keys)
        money = {case.key: balance_evidence(conn, case) for case in cases}
        rows = {item["key"]: item["rows"] for item in status.show(conn, keys)}
    if sum((adopt is not None, buy_again, abandon)) > 1:
        raise click.UsageError("choose one of --adopt, --buy-again and --abandon", ctx)
    if ids and not keys:
        raise UsageError("none of these items is in doubt", "`batcher show` lists items by state.")
    if not (adopt or buy_again or abandon):
        _list(ctx, cases, rows, money)
        return
    if not ids and not everything:
        raise click.UsageError("name items by ID" + ("" if adopt is not None else ", or pass --all"), ctx)
    if adopt is not None and len(keys) != 1:
        raise click.UsageError(f"--adopt needs exactly one item in doubt, not {len(keys):,}", ctx)
    if not keys:
        click.echo("no items in doubt", err=True)
    print_outcomes(ctx, decide(ctx, path, _decision(keys, adopt, buy_again=buy_again)) if keys else [])


def _decision(
    keys: list[str], adopt: str | None, *, buy_again: bool
) -> Callable[[Decisions], Coroutine[Any, Any, list[Outcome]]]:
    if adopt is not None:
        return lambda decisions: decisions.adopt(keys[0], adopt)
    if buy_again:
        return lambda decisions: decisions.buy_again(keys)
    return lambda decisions: decisions.abandon(keys)


def _list(
    ctx: click.Context,
    cases: list[Any],
    rows: dict[str, list[dict[str, Any]]],
    money: dict[str, BalanceEvidence],
) -> None:
    if ctx.params["as_json"]:
        facts = [_facts(case) | {"rows": rows[case.key], "money": _money_facts(money[case.key])} for case in cases]
        reply(ctx, f"{counted(len(facts), 'item')} in doubt" if facts else "no items in doubt", doubts=facts)
        return
    if not cases:
        click.echo("no items in doubt")
    for case in cases:
        _print_case(case, rows[case.key], money[case.key])
    if cases:
        click.echo(_CHOICES)


def _print_case(case: Any, rows: list[dict[str, Any]], money: BalanceEvidence) -> None:
    named = ", ".join(f"{row['id']} of {row['batch']}" for row in rows) or "no current row"
    named = in_state(State.IN_DOUBT, named)
    click.echo(f"{case.key[:16]}  {named}: {len(case.text):,} characters, voice {case.voice}")
    click.echo(f"    request {case.attempt}: {_sent(case)}, account {case.user_id}")
    click.echo(f"    answer: {_answer(case)}")
    if case.raw:
        click.echo(f"    body: {case.raw[:120].decode(errors='replace')!r}")
    for line in _money(money):
        click.echo(f"    {line}")


def _sent(case: Any) -> str:
    if case.cause == "restored":
        return f"may have been sent between {local(case.intended_at)} and {local(case.answered_at)}"
    return f"sent at {local(case.intended_at)}"


def _answer(case: Any) -> str:
    status = f"HTTP {case.http_status}, " if case.http_status else ""
    error = plain_error(case.error_message or "") or case.error_code or _CAUSES.get(case.cause, case.cause)
    if case.answered_at is None or case.cause == "restored":
        return f"{status}{error}"
    return f"{status}{error} ({'noticed at' if case.cause == 'vanished' else 'at'} {local(case.answered_at)})"


def _money(found: BalanceEvidence) -> list[str]:
    """The balance before and after the request, other spending between them, and the price."""
    lines = []
    if found.before is not None and found.before_at is not None:
        lines.append(f"balance before: {amount(found.before)} at {local(found.before_at)}")
    if found.after is not None and found.after_at is not None:
        lines.append(f"balance after: {amount(found.after)} at {local(found.after_at)}")
    if found.unexplained is not None:
        others = f"; {found.unreported:,} more did not report their cost" if found.unreported else ""
        lines.append(
            f"reported cost of other requests between: {amount(found.reported)}{others}; "
            f"unexplained: {amount(found.unexplained)}"
        )
    lines.append("price unknown" if found.estimate is None else f"price: about {amount(found.estimate)} credits")
    return lines


def _money_facts(found: BalanceEvidence) -> dict[str, Any]:
    return {
        "before": rounded(found.before),
        "before_at": utc(found.before_at),
        "after": rounded(found.after),
        "after_at": utc(found.after_at),
        "told": rounded(found.reported),
        "untold": found.unreported,
        "unexplained": rounded(found.unexplained),
        "estimate": rounded(found.estimate),
    }


_CHOICES = """\
Settle each item with one of these:
  --adopt TASK_ID  costs nothing more
  --buy-again      pays the price, a second time if it was already bought
  --abandon        costs nothing more; loses the price if it was already bought"""
_CAUSES = {"vanished": "none recorded before the run that sent it ended"}


def _facts(case: Any) -> dict[str, Any]:
    return {
        "key": case.key,
        "attempt": case.attempt,
        "account": case.user_id,
        "sent_at": utc(case.intended_at),
        "answered_at": utc(case.answered_at),
        "cause": case.cause,
        "http_status": case.http_status,
        "code": case.error_code,
        "message": case.error_message,
        "request_id": case.request_id,
        "raw": case.raw.decode(errors="replace") if case.raw else None,
    }
