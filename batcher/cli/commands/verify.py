"""`batcher verify`: check the audio on disk against the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import anyio
import click

from batcher.address import Address, home_of
from batcher.cli.api_options import allow_audio_host_option, api_options, api_settings
from batcher.cli.json_output import JsonCommand, reply
from batcher.cli.ledger_path import find_ledger_only
from batcher.cli.options import json_option
from batcher.cli.terminal import show
from batcher.formatting import counted

if TYPE_CHECKING:
    from batcher.errors import BatcherError
    from batcher.maintenance.heal import Healer, Repair
    from batcher.maintenance.verify import Fault, Findings


@click.command(cls=JsonCommand)
@click.argument("manifest", nargs=-1, metavar="[MANIFEST]")
@click.option("--heal", is_flag=True, help="Repair files from copies, or download them again from their tasks.")
@api_options
@allow_audio_host_option
@json_option
@click.pass_context
def verify(ctx: click.Context, /, manifest: tuple[str, ...], heal: bool, **_: Any) -> None:
    """Check the stored audio against the ledger. Creates nothing.

    Reads every item's file and every row's output. With --heal, repairs missing and damaged files: links or copies
    them from elsewhere, or downloads them again from the paid task, at no cost. Replaced files are renamed,
    not deleted; files that batcher did not write are never touched.
    """
    from batcher.audio.stores import Stores
    from batcher.ledger.ledger import open_readonly
    from batcher.maintenance.verify import compare, expected_files

    path = find_ledger_only(ctx, manifest)
    if heal:
        found, repairs, code, trouble = _heal(ctx, path)
    else:
        with open_readonly(path) as conn:
            expected = expected_files(conn)
        found = compare(expected, Stores(home_of(path)))
        repairs, code, trouble = [], 3 if found.faults else 0, None
    *lines, summary = _lines(found, repairs, heal=heal)
    if ctx.params["as_json"]:
        message, hint = (summary, "") if trouble is None else (trouble.message, trouble.hint)
        reply(ctx, message, exit_code=code, hint=hint, **_facts(path, found, repairs))
    else:
        for line in (*lines, summary, *([] if heal else _advice(found.faults))):
            show(line)
    if trouble is not None:
        raise trouble
    ctx.exit(code)


def _heal(ctx: click.Context, path: Address) -> tuple[Findings, Sequence[Repair], int, BatcherError | None]:
    from batcher.audio.stores import Stores
    from batcher.clock import Clock
    from batcher.ledger.ledger import open_locked
    from batcher.maintenance.heal import Healer
    from batcher.maintenance.verify import compare, expected_files

    settings = api_settings(ctx, path)
    with open_locked(path, settings.world) as ledger:
        healer = Healer(ledger=ledger, settings=settings, clock=Clock())
        found = compare(anyio.run(ledger.do, expected_files), Stores(home_of(path)))
        repairs = anyio.run(healer.heal, found.faults)
    return found, repairs, _exit_code(healer, repairs), healer.trouble


def _exit_code(healer: Healer, repairs: Sequence[Repair]) -> int:
    from batcher.cli.app import exit_code_of

    if healer.trouble is not None:
        return exit_code_of(healer.trouble)
    if any(one.passing for one in repairs):
        return 8
    return 0 if all(one.healed for one in repairs) else 3


def _lines(found: Findings, repairs: Sequence[Repair], *, heal: bool) -> list[str]:
    checked = f"Checked {counted(found.items, 'item')} and {counted(found.outputs, 'output')}"
    if not found.faults:
        return [f"{checked}: all are intact"]
    if not heal:
        lines = [f"{fault.kind:<9}  {_label(fault)}{'' if fault.ours else ', foreign'}" for fault in found.faults]
        return [*lines, f"{checked}: {counted(len(found.faults), 'file')} missing or damaged"]
    lines = []
    for one in repairs:
        lines.append(f"{'repaired' if one.healed else one.fault.kind:<9}  {_label(one.fault)}: {one.how}")
        lines += [f"           {one.hint}"] * bool(one.hint)
    return [*lines, f"{checked}: {sum(one.healed for one in repairs):,} of {counted(len(repairs), 'file')} repaired"]


def _advice(faults: Sequence[Fault]) -> list[str]:
    """What to do about the files: `--heal` leaves those alone that batcher did not write."""
    foreign = sum(not fault.ours for fault in faults)
    lines = []
    if foreign:
        them = "it" if foreign == 1 else "them"
        lines.append(f"{counted(foreign, 'foreign file')}, not written by batcher: --heal leaves {them} alone.")
        lines.append(f"Move {them} away, then `batcher verify --heal` restores the audio.")
    if foreign < len(faults):
        lines.append(f"--heal repairs {'the others' if foreign else 'them'} at no cost.")
    return lines


def _label(fault: Fault) -> str:
    owner = f"row {fault.output.row_id}" if fault.output is not None else f"item {fault.saved.key[:16]}"
    return f"{fault.path} ({owner})"


def _facts(path: Address, found: Findings, repairs: Sequence[Repair]) -> dict[str, Any]:
    """The data of `verify --json`; `healed`, `how` and `hint` are null without --heal."""
    by_fault = {id(one.fault): one for one in repairs}
    faults = []
    for fault in found.faults:
        one = by_fault.get(id(fault))
        facts: dict[str, Any] = {"kind": fault.kind, "path": fault.path, "key": fault.saved.key}
        facts |= {"id": fault.output and fault.output.row_id, "task_id": fault.saved.task_id}
        facts |= {"healed": one and one.healed, "how": one and one.how, "hint": one and one.hint}
        faults.append(facts)
    return {"ledger": str(path), "items": found.items, "outputs": found.outputs, "faults": faults}
