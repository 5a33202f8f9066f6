"""`batcher verify`: is the audio on disk what was bought?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import click

from batcher.cli.decisions import api_options, api_settings
from batcher.cli.options import find_ledger, json_option
from batcher.formatting import counted

if TYPE_CHECKING:
    from batcher.maintenance.heal import Healer, Repair
    from batcher.maintenance.verify import Fault, Findings


@click.command()
@click.argument("manifest", nargs=-1, metavar="[MANIFEST]")
@click.option("--heal", is_flag=True, help="Put back what is wrong: from copies on disk, else from the existing tasks.")
@api_options
@json_option
@click.pass_context
def verify(ctx: click.Context, /, manifest: tuple[str, ...], heal: bool, **_: Any) -> None:
    """Compare the audio on disk with the ledger. Creates nothing.

    Reads every item's file and every row's output. With --heal, what is wrong is put back: linked or copied from where
    the same audio still lies, else downloaded again from the task that was paid for, at no cost. What is replaced is
    kept beside it under another name; what the ledger did not make is left alone.
    """
    from batcher.ledger.ledger import open_readonly
    from batcher.maintenance.verify import compare, expected_files

    path, rest = find_ledger(ctx, manifest)
    if rest:
        raise click.UsageError(f"there is no file {rest[0]}", ctx)
    if heal:
        found, mended, code, trouble = _heal(ctx, path)
    else:
        with open_readonly(path) as conn:
            memory = expected_files(conn)
        found = compare(memory, path.parent)
        mended, code, trouble = [], 3 if found.faults else 0, None
    if ctx.params["as_json"]:
        click.echo(json.dumps(_facts(path, found, mended, code), ensure_ascii=False))
    else:
        for line in _lines(found, mended, heal=heal):
            click.echo(line)
    if trouble is not None:
        raise trouble
    ctx.exit(code)


def _heal(ctx: click.Context, path: Path) -> tuple[Findings, Sequence[Repair], int, Exception | None]:
    from batcher.clock import Clock
    from batcher.ledger.ledger import open_ledger
    from batcher.ledger.storage.lock import owner_lock
    from batcher.maintenance.heal import Healer
    from batcher.maintenance.verify import compare, expected_files

    with owner_lock(path):
        chosen = api_settings(ctx, path)
        with open_ledger(path, chosen.world) as ledger:
            healing = Healer(ledger=ledger, settings=chosen, clock=Clock())
            found = compare(anyio.run(ledger.do, expected_files), path.parent)
            mended = anyio.run(healing.heal, found.faults)
    return found, mended, _exit_code(healing, mended), healing.trouble


def _exit_code(healing: Healer, mended: Sequence[Repair]) -> int:
    from batcher.cli.app import exit_code_of

    if healing.trouble is not None:
        return exit_code_of(healing.trouble)
    if any(one.passing for one in mended):
        return 8
    return 0 if all(one.healed for one in mended) else 3


def _lines(found: Findings, mended: Sequence[Repair], *, heal: bool) -> list[str]:
    looked = f"{counted(found.items, 'item')} and {counted(found.outputs, 'output')} looked at"
    if not found.faults:
        return [f"{looked}: all is well"]
    if not heal:
        lines = [f"{fault.kind:<9}  {_name(fault)}" for fault in found.faults]
        return [*lines, f"{looked}: {counted(len(found.faults), 'file')} not as the ledger remembers; --heal mends"]
    lines = []
    for one in mended:
        lines.append(f"{'mended' if one.healed else one.fault.kind:<9}  {_name(one.fault)}: {one.how}")
        lines += [f"           {one.hint}"] * bool(one.hint)
    return [*lines, f"{looked}: {sum(one.healed for one in mended)} of {counted(len(mended), 'file')} mended"]


def _name(fault: Fault) -> str:
    whose = f"row {fault.output.row_id}" if fault.output is not None else f"item {fault.saved.key[:16]}"
    return f"{fault.path} ({whose})"


def _facts(path: Path, found: Findings, mended: Sequence[Repair], code: int) -> dict[str, Any]:
    """The object that `verify --json` prints; `healed` and what follows it are null without --heal."""
    become = {id(one.fault): one for one in mended}
    faults = []
    for fault in found.faults:
        one = become.get(id(fault))
        facts: dict[str, Any] = {"kind": fault.kind, "path": str(fault.path), "key": fault.saved.key}
        facts |= {"id": fault.output and fault.output.row_id, "task_id": fault.saved.task_id}
        facts |= {"healed": one and one.healed, "how": one and one.how, "hint": one and one.hint}
        faults.append(facts)
    numbers = {"items": found.items, "outputs": found.outputs}
    return {"schema": 1, "exit_code": code, "ledger": str(path), **numbers, "faults": faults}
