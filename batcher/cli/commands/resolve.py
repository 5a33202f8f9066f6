"""`batcher resolve`: settling creates whose answer was lost."""

from __future__ import annotations

import json
from typing import Any

import click

from batcher.cli.colours import in_state
from batcher.cli.decisions import api_options, decide
from batcher.cli.options import find_ledger, json_option
from batcher.clock import local, utc
from batcher.errors import UsageError
from batcher.formatting import amount, plainly
from batcher.item import State
from batcher.ledger.ledger import open_readonly
from batcher.ledger.money.evidence import BalanceEvidence, balance_evidence, evidence
from batcher.ledger.queries import names, status


@click.command()
@click.argument("arguments", nargs=-1, metavar="[ID...]")
@click.option("--adopt", metavar="TASK_ID", help="The item has this task: collect it. Asks the API first.")
@click.option("--buy-again", is_flag=True, help="Create it again. It may cost twice.")
@click.option("--abandon", is_flag=True, help="Give it up.")
@click.option("--all", "everything", is_flag=True, help="Every item in doubt, for --buy-again or --abandon.")
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
    """Settle creates whose answer was lost. With --buy-again, the next run may charge a second time.

    Without a decision it lists them with what is known: look them up in your account's history at the provider, then
    adopt the task, or buy again, or abandon. Each is named by a row's id or the beginning of its key.
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
        raise UsageError("none of them is in doubt", "`batcher show` tells how items stand.")
    if not (adopt or buy_again or abandon):
        _list(cases, rows, money, as_json=ctx.params["as_json"])
        return
    if not ids and not everything:
        raise click.UsageError("name the items, or pass --all", ctx)
    if adopt is not None and len(keys) != 1:
        raise click.UsageError(f"--adopt is for one item in doubt, and {len(keys)} are named", ctx)
    if not keys:
        click.echo("nothing is in doubt", err=True)
        return
    for line in decide(
        ctx,
        path,
        lambda decisions: (
            decisions.adopt(keys[0], adopt)
            if adopt is not None
            else decisions.buy_again(keys)
            if buy_again
            else decisions.abandon(keys)
        ),
    ):
        click.echo(line)


def _list(
    cases: list[Any], rows: dict[str, list[dict[str, Any]]], money: dict[str, BalanceEvidence], *, as_json: bool
) -> None:
    if as_json:
        facts = (_facts(case) | {"rows": rows[case.key], "money": _money_facts(money[case.key])} for case in cases)
        click.echo(json.dumps(list(facts), ensure_ascii=False))
        return
    if not cases:
        click.echo("nothing is in doubt")
    for case in cases:
        named = ", ".join(f"{row['id']} of {row['batch']}" for row in rows[case.key]) or "no row any more"
        named = in_state(State.IN_DOUBT, named)
        click.echo(f"{case.key[:16]}  {named}: {len(case.text)} characters, voice {case.voice}")
        click.echo(f"    create {case.attempt} {_sent(case)} for account {case.user_id}")
        status = f"HTTP {case.http_status}, " if case.http_status else ""
        came = plainly(case.error_message or "") or case.error_code or _CAUSES.get(case.cause, case.cause)
        until = f" (until {local(case.answered_at)})" if case.answered_at else ""
        click.echo(f"    what came: {status}{came}{until}")
        if case.raw:
            click.echo(f"    its body began: {case.raw[:120].decode(errors='replace')!r}")
        for line in _money(money[case.key]):
            click.echo(f"    {line}")
    if cases:
        click.echo("settle each with --adopt TASK_ID, --buy-again or --abandon")


def _sent(case: Any) -> str:
    if case.cause == "restored":
        return f"may have been sent between {local(case.intended_at)} and {local(case.answered_at)}"
    return f"was sent at {local(case.intended_at)}"


def _money(found: BalanceEvidence) -> list[str]:
    """The balance around the create, what else was spent there, and what each choice may cost."""
    lines = []
    if found.before is not None and found.before_at is not None:
        lines.append(f"balance before: {amount(found.before)} at {local(found.before_at)}")
    if found.after is not None and found.after_at is not None:
        lines.append(f"balance after: {amount(found.after)} at {local(found.after_at)}")
    if found.unexplained is not None:
        untold = f", and {found.unreported} more do not say" if found.unreported else ""
        lines.append(
            f"other creates in between say they cost {amount(found.reported)}{untold}: "
            f"{amount(found.unexplained)} unexplained"
        )
    cost = "an unknown number of credits" if found.estimate is None else f"about {amount(found.estimate)} credits"
    lines.append(f"this one costs {cost}: --adopt pays nothing more, --buy-again pays it (twice, if it was bought), ")
    lines[-1] += "--abandon loses it, if it was bought"
    return lines


def _money_facts(found: BalanceEvidence) -> dict[str, Any]:
    return {
        "before": found.before,
        "before_at": utc(found.before_at),
        "after": found.after,
        "after_at": utc(found.after_at),
        "told": found.reported,
        "untold": found.unreported,
        "unexplained": found.unexplained,
        "estimate": found.estimate,
    }


_CAUSES = {"vanished": "nothing: the run that sent it ended before an answer was recorded"}


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
