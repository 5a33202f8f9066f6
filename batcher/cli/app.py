"""The `batcher` command: loads subcommands on demand and turns errors into messages and exit codes."""

from __future__ import annotations

import difflib
import importlib
import os
import signal
import sys
import traceback
from contextlib import suppress
from types import FrameType
from typing import Any, Final, NoReturn

import click

from batcher import __version__
from batcher.cli import colours, streams
from batcher.cli.epilogs import epilog
from batcher.cli.options import DEBUG
from batcher.cli.terminal import show
from batcher.errors import (
    BatcherError,
    CredentialsError,
    LockedError,
    StoppedError,
    TerminatedError,
    TroubleError,
    UsageError,
    of_file_system,
    root_cause,
)

COMMANDS: Final = {
    "run": "Create audio for the rows of a manifest. This can charge.",
    "plan": "Show what a run would do and cost. Creates nothing.",
    "status": "Show progress: items by state, credits and the last run.",
    "show": "Show items: state, task, rows, error and history.",
    "changes": "List the files that a run has made or replaced.",
    "runs": "List the last runs, and what each has not finished.",
    "voices": "List the voices that the API offers.",
    "report": "Write a report page to read and listen to, or export a table.",
    "resolve": "Settle items that may have been bought. This can charge twice.",
    "retry": "Retry failed items. The next run creates and charges for them.",
    "abandon": "Give up items that were rejected, failed or are gone.",
    "retake": "Request another take of done rows. The next run charges for it.",
    "ledger": "Upgrade, back up, move or recover a ledger.",
    "verify": "Check the audio on disk against the ledger, and repair it.",
    "trust": "Accept the settings of a project folder from someone else.",
    "doctor": "Check the setup and explain how to fix problems.",
    "sandbox": "Serve the API on this machine, with real speech, at no cost.",
    "help": "Show the manual.",
}
"""Commands with a one-line help, in the order in which people need them; `epilogs` has the rest of their help."""


class _LazyGroup(click.Group):
    """Imports a command's module only when it is needed, so that `--help` is fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Names of the commands, in the order in which people need them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a command; None if the name is unknown."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"batcher.cli.commands.{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        command.epilog = epilog(cmd_name)
        if isinstance(command, click.Group):
            for name, subcommand in command.commands.items():
                subcommand.epilog = epilog(f"{cmd_name} {name}")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first argument names.

        Raises:
            UsageError: there is none of this name; the message has the nearest.
        """
        near = difflib.get_close_matches(args[0], COMMANDS, n=1)
        if args[0] not in COMMANDS and near and not args[0].startswith("-"):
            raise click.UsageError(f"No such command {args[0]!r}. (Did you mean {near[0]!r}?)", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. A closed pipe is not an error: the reader has seen enough."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            return 0
        except Exception as error:
            if ctx.meta.get(DEBUG) and explain(error)[0] != 1:  # for a bug, `_run` always prints it
                traceback.print_exception(error)
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def cli() -> None:
    """Turn a manifest of texts into speech through a paid API. Never buys anything twice or loses what is paid for."""


def main() -> None:
    """Run the `batcher` command with the arguments of this process, then exit."""
    streams.prepare()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as after nohup
            signal.signal(number, _terminate)
    code = _run(sys.argv[1:])
    _discard_unwritten()
    sys.exit(code)


def _terminate(_number: int, _frame: FrameType | None) -> NoReturn:
    raise TerminatedError(130)


def _discard_unwritten() -> None:
    """Drop buffered output that cannot be written: Python would retry at exit and change the exit code."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(arguments: list[str]) -> int:
    """Run a command. Returns the exit code of the process: 0 in place of those that `--ok-exit` names."""
    accepted: set[int] = set()  # filled by the command
    code = _exit_code(arguments, accepted)
    return 0 if code in accepted else code


def _exit_code(arguments: list[str], accepted: set[int]) -> int:
    how: dict[str, Any] = {"standalone_mode": False, "color": colours.forced(), "obj": accepted}
    try:
        result = cli.main(arguments, prog_name="batcher", **how)
        return result if isinstance(result, int) else 0
    except (click.exceptions.Exit, click.exceptions.Abort) as error:
        return getattr(error, "exit_code", 130)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except TerminatedError as error:
        return _print_error(*explain(error))
    except SystemExit as error:  # how click ends a request for shell completion
        return error.code if isinstance(error.code, int) else 1
    except BaseException as error:  # noqa: BLE001 - the outermost handler
        code, message, hint = explain(error)
        if code == 1:
            traceback.print_exception(error)
        return _print_error(code, message, hint)


def explain(error: BaseException) -> tuple[int, str, str]:
    """Exit code, message and hint for an error that ended a command."""
    leaf = root_cause(error)
    if isinstance(leaf, OSError):
        leaf = of_file_system(leaf) or leaf
    if isinstance(leaf, BatcherError):
        return exit_code_of(leaf), leaf.message, leaf.hint
    if isinstance(leaf, KeyboardInterrupt | TerminatedError):
        return 130, "interrupted", ""
    if isinstance(leaf, click.ClickException):
        return 2, leaf.format_message(), _usage_hint(leaf)
    hint = (
        "This is a bug: please report it with the lines above. Purchases are in the ledger, so running again is safe."
    )
    return 1, f"unexpected error: {leaf!r}", hint


def exit_code_of(error: BatcherError) -> int:
    """The exit code for an error that batcher raised."""
    codes: dict[type[BatcherError], int] = {
        LockedError: 7,
        UsageError: 2,
        CredentialsError: 5,
        TroubleError: 8,
        StoppedError: 6,
    }
    return next(code for kind, code in codes.items() if isinstance(error, kind))


def _print_error(code: int, message: str, hint: str) -> int:
    """Print an error and its hint. Returns the exit code."""
    with suppress(OSError):
        show(f"batcher: {message}", err=True)
        if hint:
            show(f"  {hint}", err=True)
    return code


def _usage_hint(error: click.ClickException) -> str:
    context: Any = getattr(error, "ctx", None)
    return f"See `{context.command_path} --help`." if context is not None else ""
