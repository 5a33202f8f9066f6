"""Changes a ledger outside a run: under the same lock as a run, with the settings of its API."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from batcher.cli.api_options import api_settings
from batcher.cli.json_output import reply
from batcher.formatting import counted

if TYPE_CHECKING:
    from batcher.ledger.ledger import Ledger
    from batcher.maintenance.decisions import Decisions, Outcome
    from batcher.settings import Settings


@contextmanager
def locked_ledger(ctx: click.Context, path: Path) -> Iterator[tuple[Ledger, Settings]]:
    """Lock and open the ledger at `path`, with the settings of its API.

    Raises:
        LockedError: a run holds the ledger.
    """
    from batcher.ledger.ledger import open_ledger
    from batcher.ledger.storage.lock import owner_lock

    with owner_lock(path):
        settings = api_settings(ctx, path)
        with open_ledger(path, settings.world) as ledger:
            yield ledger, settings


def decide(ctx: click.Context, path: Path, decision: Callable[[Decisions], Awaitable[list[Outcome]]]) -> list[Outcome]:
    """Carry out a decision in the ledger at `path`. Returns the outcomes, one for each item.

    Raises:
        LockedError: a run holds the ledger.
    """
    import anyio

    from batcher.clock import Clock
    from batcher.maintenance.decisions import Decisions

    with locked_ledger(ctx, path) as (ledger, settings):
        return anyio.run(decision, Decisions(ledger=ledger, settings=settings, clock=Clock()))


def print_outcomes(ctx: click.Context, outcomes: Sequence[Outcome]) -> None:
    """Print what was decided, item by item."""
    if ctx.params["as_json"]:
        changed = sum(one.changed for one in outcomes)
        message = f"{changed:,} of {counted(len(outcomes), 'item')} changed"
        reply(ctx, message, outcomes=[asdict(one) for one in outcomes])
        return
    for one in outcomes:
        click.echo(one.line())
