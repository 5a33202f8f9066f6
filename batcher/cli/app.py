"""The group of commands, and the one place where an error becomes an exit code."""

from __future__ import annotations

import errno
import importlib
import os
import sys
import traceback
from contextlib import suppress
from typing import Any, Final

import click

from batcher import __version__
from batcher.cli import colours
from batcher.cli.epilogs import epilog
from batcher.cli.options import DEBUG
from batcher.errors import BatcherError, CredentialsError, LockedError, StorageError, TroubleError, UsageError

COMMANDS: Final = {
    "run": "Create audio for the rows of a manifest. This can charge.",
    "plan": "Show what a run would do and cost. Creates nothing.",
    "status": "Show how the batches of a ledger stand.",
    "show": "Show items: where each is and what went wrong.",
    "report": "Make a page of what became of every row, to look at and listen to. Creates nothing.",
    "resolve": "Settle creates whose answer was lost. Settling can lead to a second charge.",
    "retry": "Have items that ended badly created again. The next run charges for them.",
    "retake": "Have another output of done rows created. The next run charges for it.",
    "ledger": "Look after the ledger's file.",
    "verify": "Compare the audio on disk with the ledger, and put back what is wrong. Creates nothing.",
    "doctor": "Find out what is wrong, or soon will be, and what to do. Creates nothing.",
    "sandbox": "Serve the API on this machine, with real speech, for trying things out.",
    "help": "Show a topic of the manual, or list the topics.",
}
"""The commands, in the order that people need them."""


class _Lazy(click.Group):
    """Imports a command's module only when it is asked for, so that `--help` is quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """The commands, in the order that people need them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command of that name."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"batcher.cli.commands.{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        command.epilog = epilog(cmd_name)
        for name, one in command.commands.items() if isinstance(command, click.Group) else ():
            one.epilog = epilog(f"{cmd_name} {name}")
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. A closed pipe is no error: the reader has seen enough."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            return 0
        except Exception as error:
            if ctx.meta.get(DEBUG) and verdict(error)[0] != 1:  # a bug is always shown in full
                traceback.print_exception(error)
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def cli() -> None:
    """Turn a manifest of texts into speech through a paid API: nothing bought twice, nothing paid for lost."""


def main() -> None:
    """Run the `batcher` command with the arguments of this process, then exit."""
    code = _run(sys.argv[1:])
    _forget_unwritten()
    sys.exit(code)


def _forget_unwritten() -> None:
    """What standard output refused would be tried again at the interpreter's end, and change the exit code."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(arguments: list[str]) -> int:
    try:
        result = cli.main(arguments, prog_name="batcher", standalone_mode=False, color=colours.wanted())
        return result if isinstance(result, int) else 0
    except (click.exceptions.Exit, click.exceptions.Abort) as error:
        return getattr(error, "exit_code", 130)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except SystemExit as error:  # click ends so when a shell has asked what may come next
        return error.code if isinstance(error.code, int) else 1
    except BaseException as error:  # noqa: BLE001 - the last one to see it
        code, message, hint = verdict(error)
        if code == 1:
            traceback.print_exception(error)
        return _end(code, message, hint)


def verdict(error: BaseException) -> tuple[int, str, str]:
    """What an error that ended a command comes to: exit code, message, hint."""
    leaf = _leaf(error)
    if isinstance(leaf, OSError) and leaf.errno in (errno.ENOSPC, errno.EDQUOT):
        where = leaf.filename or "a file, or standard output,"
        leaf = StorageError(f"{where} cannot be written: {leaf.strerror}", "Free some space, then run again.")
    if isinstance(leaf, BatcherError):
        return exit_code_of(leaf), leaf.message, leaf.hint
    if isinstance(leaf, KeyboardInterrupt):
        return 130, "interrupted", ""
    if isinstance(leaf, click.ClickException):
        return 2, leaf.format_message(), _usage_hint(leaf)
    hint = "What was bought is in the ledger; running again is safe. Please report this with the lines above."
    return 1, f"unexpected: {leaf!r}", hint


def exit_code_of(error: BatcherError) -> int:
    """The exit code that tells a program what to do about `error`."""
    codes: dict[type[BatcherError], int] = {LockedError: 7, UsageError: 2, CredentialsError: 5, TroubleError: 8}
    return next(code for kind, code in codes.items() if isinstance(error, kind))


def _leaf(error: BaseException) -> BaseException:
    """The error that matters most inside the groups that task groups made: a bug before what a user can mend."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    leaves = [_leaf(one) for one in error.exceptions]
    return next((leaf for leaf in leaves if not isinstance(leaf, BatcherError)), leaves[0])


def _end(code: int, message: str, hint: str) -> int:
    """Print the error, then what to do about it. Returns the exit code."""
    with suppress(OSError):
        click.echo(f"batcher: {message}", err=True)
        if hint:
            click.echo(f"  {hint}", err=True)
    return code


def _usage_hint(error: click.ClickException) -> str:
    context: Any = getattr(error, "ctx", None)
    return f"See {context.command_path} --help." if context is not None else ""
