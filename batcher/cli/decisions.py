"""What `resolve` and `retry` share: the ledger with its owner's lock, and the way to the API."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from batcher import settings
from batcher.cli.options import find_token, ledger_options, need_one_api, option

if TYPE_CHECKING:
    from batcher.maintenance.decisions import Decisions

F = TypeVar("F", bound=Callable[..., Any])


def api_options(command: F) -> F:
    """How the API is reached, for commands that may have to ask it."""
    token_file: Callable[[F], F] = option(
        "--token-file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        envvar="BATCHER_API_TOKEN_FILE",
        help="Holds the API token; without this flag BATCHER_API_TOKEN has it.",
    )
    command = option("--allow-http", is_flag=True, help="Permit plain http to hosts other than this one.")(command)
    command = token_file(command)
    command = option("--api-url", metavar="URL", default=settings.DEFAULT_URL, show_default=True)(command)
    return ledger_options(command)


def decide(ctx: click.Context, path: Path, decision: Callable[[Decisions], Awaitable[list[str]]]) -> list[str]:
    """Carry out a decision in the ledger at `path`, as the only one that writes to it.

    Raises:
        LockedError: a run is at work.
    """
    import anyio

    from batcher.clock import Clock
    from batcher.ledger.ledger import open_ledger
    from batcher.ledger.storage.lock import owner_lock
    from batcher.maintenance.decisions import Decisions

    with owner_lock(path):
        chosen = api_settings(ctx, path)
        with open_ledger(path, chosen.world) as ledger:
            return anyio.run(decision, Decisions(ledger=ledger, settings=chosen, clock=Clock()))


def api_settings(ctx: click.Context, path: Path) -> settings.Settings:
    """Where the API is for the ledger at `path`: its own world's."""
    from batcher.ledger.ledger import open_readonly, world_of

    with open_readonly(path) as conn:
        world = world_of(conn)
    params = ctx.params
    need_one_api(ctx, sandbox=params["sandbox"])
    return settings.Settings(
        sources=(),
        ledger=path,
        out_dir=path.parent,
        sandbox=world == "sandbox",
        api_url=params["api_url"],
        token=find_token(ctx),
        allow_http=params["allow_http"],
    )
