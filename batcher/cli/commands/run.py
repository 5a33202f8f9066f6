"""`batcher run`: the one command that cron calls."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batcher.cli.commands.plan import show_plan
from batcher.cli.monitoring import begun, ended, failed
from batcher.cli.options import WebAddress, option
from batcher.cli.run_options import Grouped, manifest_options, resolve

if TYPE_CHECKING:
    from batcher.reports.progress import Progress
    from batcher.reports.run_report import RunReport


class _Run(Grouped):
    """`run --json` ends with a JSON object even if the command line cannot be parsed."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments; on an error, parse what can be parsed to learn whether JSON is wanted."""
        try:
            return super().parse_args(ctx, list(args))
        except click.UsageError as error:
            lenient = click.Context(self, parent=ctx.parent, resilient_parsing=True, ignore_unknown_options=True)
            super().parse_args(lenient, args)
            if lenient.params["as_json"]:
                _print_json(failed(error))
            raise


@click.command(cls=_Run)
@click.argument("manifests", nargs=-1, metavar="MANIFEST...")
@manifest_options
@option("--yes", consent=True, is_flag=True, help="Do not ask before many items are created.")
@option("--dry-run", is_flag=True, help="Show what the run would do and cost, as `plan` does.")
@option(
    "--log-format",
    type=click.Choice(["console", "json"]),
    default="console",
    show_default=True,
    help="How log lines are written.",
)
@option("--log-file", type=click.Path(path_type=Path), metavar="FILE", help="Log every step there; it may be rotated.")
@option(
    "--ping",
    type=WebAddress(),
    metavar="URL",
    help="Tell a monitor: URL/start, then URL/EXIT with the summary (URL/log if another run holds the ledger).",
)
@option(
    "--metrics",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the end of the run there for Prometheus, as in: /var/lib/node_exporter/batcher.prom.",
)
@click.pass_context
def run(ctx: click.Context, /, manifests: tuple[str, ...], **_: Any) -> None:
    """Create audio for the rows of manifests. This can charge.

    MANIFEST is a CSV, TSV, JSONL or XLSX file, or - for JSONL on standard input. The run may be repeated at will: what
    is done or paid for is never created again, what is open is collected.
    """
    from batcher.reports.progress import Progress

    if ctx.params["dry_run"]:
        ctx.exit(show_plan(ctx, manifests))
    progress = Progress(quiet=ctx.params["quiet"])
    try:
        report = _watched(ctx, manifests, progress)
    except BaseException as error:
        _end(ctx, failed(error), progress)
        raise
    _end(ctx, report, progress)
    ctx.exit(report.exit_code)


def _end(ctx: click.Context, report: RunReport, progress: Progress) -> None:
    ended(ctx.params, report, progress.say)
    if ctx.params["as_json"]:
        _print_json(report)


def _print_json(report: RunReport) -> None:
    with suppress(OSError):  # the exit code carries the result too
        click.echo(report.to_json())


def _watched(ctx: click.Context, manifests: tuple[str, ...], progress: Progress) -> RunReport:
    from batcher.pipeline import runner
    from batcher.reports import logs

    chosen = resolve(ctx, manifests)
    file = logs.LogFile(ctx.params["log_file"]) if ctx.params["log_file"] is not None else None
    logs.configure(
        progress.warn,
        verbose=ctx.params["verbose"],
        debug=ctx.params["debug"],
        as_json=ctx.params["log_format"] == "json",
        file=file.write if file is not None else None,
    )
    asks = not ctx.params["yes"] and all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))
    begun(ctx.params, progress.say)
    return runner.run(chosen, progress, confirm=_confirm if asks else None)


async def _confirm(question: str) -> bool:
    import anyio

    click.echo(f"{question} [y/N] ", err=True, nl=False)
    await anyio.wait_readable(sys.stdin)  # a thread that reads could not be called off by a signal
    return sys.stdin.readline().strip().lower() in ("y", "yes")
