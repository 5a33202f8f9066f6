"""The JSON that commands print with `--json`: one envelope for all of them, also when a command fails."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any, Final

import click

from batcher.reports.run_report import SCHEMA

_PRINTED: Final = "batcher.printed"
"""Key of `click.Context.meta`: whether the command has printed its object."""


class JsonCommand(click.Command):
    """A command that prints one JSON object with `--json`, even if it fails or its command line cannot be parsed."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments; on an error, parse them leniently to find `--json`."""
        try:
            return super().parse_args(ctx, list(args))
        except click.UsageError as error:
            lenient = click.Context(
                self, ctx.parent, ctx.info_name, resilient_parsing=True, ignore_unknown_options=True
            )
            super().parse_args(lenient, args)
            self._print_failure(lenient, error)
            raise

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, and print its failure."""
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, BrokenPipeError):
            raise
        except BaseException as error:
            self._print_failure(ctx, error)
            raise

    def failure(self, ctx: click.Context, error: BaseException) -> dict[str, Any]:
        """The object for a command that `error` ended: the envelope without data."""
        from batcher.cli.app import explain

        code, message, hint = explain(error)
        return _envelope(ctx, message, exit_code=code, hint=hint)

    def _print_failure(self, ctx: click.Context, error: BaseException) -> None:
        if ctx.params.get("as_json") and not ctx.meta.get(_PRINTED):
            with suppress(OSError):  # the error that ended the command counts
                print_object(ctx, self.failure(ctx, error))


def reply(ctx: click.Context, message: str, /, *, exit_code: int = 0, hint: str = "", **data: Any) -> None:
    """Print the result of a command: the envelope, then its data."""
    print_object(ctx, _envelope(ctx, message, exit_code=exit_code, hint=hint) | data)


def print_object(ctx: click.Context, found: dict[str, Any]) -> None:
    """Print a whole object on one line. A command prints one at most."""
    ctx.meta[_PRINTED] = True
    click.echo(json.dumps(found, ensure_ascii=False))


def _envelope(ctx: click.Context, message: str, *, exit_code: int, hint: str) -> dict[str, Any]:
    name = "plan" if ctx.params.get("dry_run") else " ".join(ctx.command_path.split()[1:])
    return {"schema": SCHEMA, "command": name, "exit_code": exit_code, "message": message, "hint": hint or None}
