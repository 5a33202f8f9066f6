"""`batcher voices`: the voices that the API offers."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from batcher.cli.api_options import allow_http_option, api_url_option, find_token, need_one_api, token_file_option
from batcher.cli.config_file import apply_config_file
from batcher.cli.json_output import JsonCommand, reply
from batcher.cli.options import json_option, option
from batcher.formatting import counted
from batcher.settings import Settings

if TYPE_CHECKING:
    from batcher.provider.catalogue import Voice

_PAGE: Final = 100
"""Voices requested at a time."""


@click.command(cls=JsonCommand)
@click.argument("search", required=False, default="")
@click.option(
    "--limit", type=click.IntRange(1), default=100, show_default=True, metavar="N", help="Maximum voices to list."
)
@option("--sandbox", is_flag=True, help="List the voices of the sandbox.")
@api_url_option
@token_file_option
@allow_http_option
@json_option
@click.pass_context
def voices(ctx: click.Context, /, search: str, limit: int, **_: Any) -> None:
    """List the voices that the API offers. Creates nothing.

    Prints ID, name and provider; the ID belongs in the voice column of a manifest. SEARCH selects voices by their name.
    """
    import anyio

    apply_config_file(ctx, Path())
    need_one_api(ctx, sandbox=ctx.params["sandbox"])
    with tempfile.TemporaryDirectory(prefix="batcher-voices-") as folder:  # where a sandbox may store its tasks
        settings = Settings(
            sources=(),
            ledger=Path(folder) / "batcher-sandbox.db",
            out_dir=Path(folder),
            sandbox=ctx.params["sandbox"],
            api_url=ctx.params["api_url"],
            token=find_token(ctx),
            allow_http=ctx.params["allow_http"],
        )
        found, total = anyio.run(_read, settings, search, limit)
    if ctx.params["as_json"]:
        facts = [{"id": voice.id, "name": voice.name, "provider": voice.provider} for voice in found]
        reply(ctx, _message(found, total, search), voices=facts, total=total)
        return
    widths = [max((len(value) for value in column), default=0) for column in zip(*map(_cells, found), strict=True)]
    for voice in found:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(_cells(voice), widths, strict=True)).rstrip())
    if not found or (total is not None and total > len(found)):
        click.echo(_message(found, total, search), err=True)


def _message(found: list[Voice], total: int | None, search: str) -> str:
    if not found:
        return "no matching voices" if search else "the API lists no voices"
    if total is not None and total > len(found):
        return f"{len(found):,} of {counted(total, 'voice')}; search, or raise --limit"
    return counted(len(found), "voice")


def _cells(voice: Voice) -> tuple[str, str, str]:
    return voice.id, voice.name or "", voice.provider or ""


async def _read(settings: Settings, search: str, limit: int) -> tuple[list[Voice], int | None]:
    """The first `limit` voices, and the number of all (None if unknown).

    Raises:
        CredentialsError: there is no token, or the API rejected it.
        TroubleError: the list cannot be read.
    """
    from batcher.errors import TroubleError
    from batcher.pipeline.connection import reach, remedy, token_rejected
    from batcher.provider.answers import Cause
    from batcher.provider.client import Client

    found: dict[str, Voice] = {}
    offset = 0
    with reach(settings) as (endpoint, origin):
        async with Client(endpoint, create_connections=1) as client:
            while True:
                answer = await client.voices(search=search, limit=min(_PAGE, limit - len(found)), offset=offset)
                if answer.cause is Cause.CREDENTIALS:
                    raise token_rejected(answer)
                if answer.cause is not Cause.OK:
                    message = f"cannot read the list of voices at {origin} ({answer.explain()})"
                    raise TroubleError(message, remedy(answer))
                new = {voice.id: voice for voice in answer.voices if voice.id not in found}
                found |= new
                offset += len(answer.voices)
                if not new or len(found) >= limit or offset == answer.total:
                    return list(found.values())[:limit], answer.total
