"""`batcher run`: import manifests, create tasks and collect their audio."""

from __future__ import annotations

import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from batcher.cli.colours import forced
from batcher.cli.commands.plan import show_plan
from batcher.cli.json_output import print_object
from batcher.cli.monitoring import failure_report, post_notice, report_end, report_start
from batcher.cli.option_types import ExitCodes, WebAddress
from batcher.cli.options import option
from batcher.cli.run_options import GroupedCommand, manifest_options, run_settings
from batcher.cli.saved_settings import SavedSettings
from batcher.cli.terminal import show
from batcher.errors import BatcherError, StoppedError, TerminatedError, UsageError, root_cause
from batcher.settings import project_folder

if TYPE_CHECKING:
    from batcher.cli.screen import Screen
    from batcher.reports.run_report import RunReport

_REFUSED: Final = 2
"""Exit code of a run that created nothing because of its settings or manifests."""


class _RunCommand(GroupedCommand):
    """Prints the report of a run, with all its keys, even if it could not begin."""

    def failure(self, ctx: click.Context, error: BaseException) -> dict[str, Any]:
        """The report of a run that `error` ended; of a dry run, its envelope."""
        if ctx.params["dry_run"]:
            return super().failure(ctx, error)
        return failure_report(error).facts()


@click.command(cls=_RunCommand)
@click.argument("manifests", nargs=-1, metavar="MANIFEST...")
@manifest_options
@option("--yes", consent=True, is_flag=True, help="Create many items without asking for confirmation.")
@option(
    "--save-settings",
    consent=True,
    is_flag=True,
    help="Write the other options of this command line to batcher.toml, unless the run is refused.",
)
@option("--dry-run", is_flag=True, help="Show what the run would do and cost, like `plan`.")
@option(
    "--log-format",
    type=click.Choice(["console", "json"]),
    default="console",
    show_default=True,
    help="Format of log lines.",
)
@option(
    "--log-file", type=click.Path(path_type=Path), metavar="FILE", help="Log every step to FILE, which may be rotated."
)
@option(
    "--ok-exit",
    type=ExitCodes(),
    metavar="CODES",
    help="Exit with 0 in place of these exit codes, such as 3,6,7; the report keeps them.",
)
@option(
    "--ping",
    type=WebAddress(),
    metavar="URL",
    help="Ping a monitor: URL/start, then URL/EXIT_CODE with a summary (URL/log if another run holds the ledger).",
)
@option(
    "--notify",
    type=WebAddress(),
    metavar="URL",
    help="POST the report as JSON at a halt and at the end; the next run repeats what was not received.",
)
@option(
    "--metrics",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the result as Prometheus metrics, such as /var/lib/node_exporter/batcher.prom.",
)
@click.pass_context
def run(ctx: click.Context, /, manifests: tuple[str, ...], **_: Any) -> None:
    """Create audio for the rows of a manifest. This can charge.

    MANIFEST is a table, workbook, JSON, text or subtitle file, or - for standard input; see `batcher help manifest`.
    Run it again at any time: it creates new and changed rows, collects open tasks, and never buys the same thing twice.
    """
    from batcher.cli.screen import Screen
    from batcher.reports.run_report import log_end

    if ctx.params["dry_run"]:
        if ctx.params["save_settings"]:
            raise UsageError("--save-settings needs a run that is not dry", "Remove --dry-run or --save-settings.")
        ctx.exit(show_plan(ctx, manifests))
    progress = Screen(quiet=ctx.params["quiet"], colours=forced())
    try:
        report = _execute(ctx, manifests, progress)
    except BaseException as error:  # noqa: BLE001 - raised again below
        # Once it has begun, a run receives the signals itself.
        ended = StoppedError() if isinstance(root_cause(error), KeyboardInterrupt | TerminatedError) else error
        with suppress(OSError):  # the error that ended the run counts
            failed = failure_report(ended)
            log_end(failed)
            _finish(ctx, failed, progress)
        raise ended from error.__cause__
    _finish(ctx, report, progress)
    ctx.exit(report.exit_code)


def _finish(ctx: click.Context, report: RunReport, progress: Screen) -> None:
    report_end(ctx.params, report, progress.say)
    if ctx.params["as_json"]:
        with suppress(BrokenPipeError):  # the exit code carries the result too
            print_object(ctx, report.facts())


def _execute(ctx: click.Context, manifests: tuple[str, ...], progress: Screen) -> RunReport:
    settings = run_settings(ctx, manifests)
    if ctx.params["ok_exit"]:
        ctx.find_root().obj.update(ctx.params["ok_exit"])
    # Only now: a signal that arrives during the imports has the exit code that the settings name.
    import anyio

    from batcher.cli.signals import SignalRequests
    from batcher.cli.standard_input import with_standard_input
    from batcher.pipeline import runner
    from batcher.pipeline.stop import CANCELLED
    from batcher.reports import logs

    settings = with_standard_input(settings)
    saved = _settings_to_save(ctx, manifests)
    file = logs.LogFile(ctx.params["log_file"]) if ctx.params["log_file"] is not None else None
    logs.configure(
        progress.write,
        verbose=ctx.params["verbose"],
        debug=ctx.params["debug"],
        as_json=ctx.params["log_format"] == "json",
        file=file.write if file is not None else None,
    )
    asks = not ctx.params["yes"] and all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))
    report_start(ctx.params, progress.say)
    url = ctx.params["notify"]
    post = partial(post_notice, url) if url is not None else None
    confirm = _confirm if asks else None
    ended = anyio.run(partial(runner.run, settings, progress, SignalRequests(), confirm=confirm, post=post))
    if saved is not None and ended.report.exit_code != _REFUSED and ended.report.message != CANCELLED:
        _save(saved, progress)
    return ended.report


def _save(saved: SavedSettings, progress: Screen) -> None:
    """Save the options. The run counts, whether or not that succeeds."""
    try:
        saved.save()
    except BatcherError as error:
        progress.warn(error.one_line())
    else:
        progress.say(saved.summary())


def _settings_to_save(ctx: click.Context, manifests: tuple[str, ...]) -> SavedSettings | None:
    """The options to save, if they are to be saved. Whether they can be is checked before anything is bought."""
    if not ctx.params["save_settings"]:
        return None
    first = next(iter(manifests), "-")
    saved = SavedSettings(ctx, project_folder(None if first == "-" else Path(first)))
    saved.edited()
    return saved


async def _confirm(question: str) -> bool:
    import anyio

    show(f"{question} [y/N] ", err=True, newline=False)
    try:
        await anyio.wait_readable(sys.stdin)  # a signal could not cancel a thread that reads
    except anyio.get_cancelled_exc_class():
        click.echo(err=True)
        raise
    return sys.stdin.readline().strip().lower() in ("y", "yes")
