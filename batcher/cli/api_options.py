"""Options that lead to the API, its token, and the settings of a command that asks it about a ledger."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click

from batcher import settings
from batcher.address import Address, home_of
from batcher.cli.options import is_default, is_flag, ledger_options, option
from batcher.errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])

api_url_option = option(
    "--api-url", metavar="URL", default=settings.DEFAULT_URL, show_default=True, help="Base URL of the API."
)
token_file_option = option(
    "--token-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    envvar="BATCHER_API_TOKEN_FILE",
    help="File with the API token, instead of BATCHER_API_TOKEN.",
)
allow_http_option = option("--allow-http", is_flag=True, help="Allow plain HTTP to hosts other than this machine.")

allow_audio_host_option = option(
    "--allow-audio-host",
    multiple=True,
    metavar="HOST",
    help="Download audio from this host although it is not at a public address.",
)


def api_options(command: F) -> F:
    """Add the options for the ledger and its API."""
    return ledger_options(api_url_option(token_file_option(allow_http_option(command))))


def ledger_settings(address: Address) -> settings.Settings:
    """Settings for the ledger, which may belong to the sandbox; none for its API."""
    from batcher.ledger.ledger import open_readonly, world_of

    with open_readonly(address) as conn:
        world = world_of(conn)
    return settings.Settings(sources=(), ledger=address, out_dir=home_of(address), sandbox=world == "sandbox")


def api_settings(ctx: click.Context, address: Address) -> settings.Settings:
    """Settings for the ledger, and for the API that it belongs to: the sandbox or the real one."""
    found, params = ledger_settings(address), ctx.params
    need_one_api(ctx, sandbox=params["sandbox"])
    return replace(
        found,
        api_url=params["api_url"],
        token=find_token(ctx),
        allow_http=params["allow_http"],
        audio_hosts=frozenset(params.get("allow_audio_host", ())),
    )


def need_one_api(ctx: click.Context, *, sandbox: bool) -> None:
    """Refuse `--sandbox` together with `--api-url`, unless the flag `--sandbox` overrides a configured address.

    Raises:
        UsageError: both were given.
    """
    if sandbox and not is_default(ctx, "api_url") and (is_flag(ctx, "api_url") or not is_flag(ctx, "sandbox")):
        raise UsageError(
            "--sandbox and --api-url exclude each other",
            "Leave one out. For a sandbox that you started yourself, pass only --api-url.",
        )


def find_token(ctx: click.Context) -> str | None:
    """The API token: from `--token-file`, else `BATCHER_API_TOKEN`, else the token file named elsewhere.

    Raises:
        UsageError: the file cannot be read, or its content cannot be a token.
    """
    token = None if is_flag(ctx, "token_file") else settings.token_from_environment()
    return settings.read_token(token, ctx.params["token_file"])
