"""`batcher report`: the result of every row, as a page or as a table."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from batcher import files
from batcher.address import Address, home_of
from batcher.cli.json_output import JsonCommand, reply
from batcher.cli.ledger_path import find_ledger_only
from batcher.cli.options import json_option, ledger_options, option
from batcher.clock import Clock
from batcher.errors import StorageError, UsageError
from batcher.formatting import counted, rounded
from batcher.settings import OBJECT_STORES

if TYPE_CHECKING:
    from batcher.ledger.ledger import Connection
    from batcher.ledger.records import Batch
    from batcher.reports.table import Plain, Sheet

_EMBED_WARN_BYTES = 200_000_000
"""Embedded audio above this size in bytes makes a page slow to open."""


@click.command(cls=JsonCommand)
@click.argument("manifest", nargs=-1, metavar="[MANIFEST]")
@option("--batch", metavar="NAME", help="Report only this batch.")
@click.option(
    *("--format", "as_format"),
    type=click.Choice(["html", "csv", "jsonl", "xlsx"]),
    default="html",
    show_default=True,
    help="A page, or a table of the manifest's columns and each row's result.",
)
@click.option(
    *("--output", "target"),
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Output file; html and xlsx default to the output folder, or the ledger's if that is in an object store; "
    "csv and jsonl to standard output.",
)
@option("--encoding", metavar="NAME", help="Encoding of the manifest, as for `run`.")
@click.option("--embed", is_flag=True, help="Embed the audio in the page instead of linking to it.")
@click.option(
    "--link-hours",
    type=click.FloatRange(0, 168, min_open=True),
    metavar="N",
    help="Sign the page's links to an object store: they work for N hours, up to 168, for whoever has the page.",
)
@click.option("--no-text", is_flag=True, help="Omit texts, and error messages, which may quote them.")
@ledger_options
@json_option
@click.pass_context
def report(ctx: click.Context, /, manifest: tuple[str, ...], **_: Any) -> None:
    """Write a report page to read and listen to, or export a table. Creates no audio.

    The page, OUT/BATCH.report.html, is one HTML file that needs no network. It shows the state of the rows, credits,
    durations and errors, and a table of all rows to search, filter and play. Rows that you mark for retaking can be
    exported as a file for `batcher retake --marks FILE`.

    Covers the batch of MANIFEST, or --batch; without either, all batches of the ledger.
    """
    from batcher.ledger.ledger import open_readonly

    path = find_ledger_only(ctx, manifest)
    if len(manifest) > 1:
        raise click.UsageError("name one manifest only", ctx)
    params = ctx.params
    if params["as_format"] != "html" and params["embed"]:
        raise click.UsageError("--embed needs --format html", ctx)
    if params["as_format"] != "html" and params["link_hours"]:
        raise click.UsageError("--link-hours needs --format html", ctx)
    if params["as_json"] and params["as_format"] in ("csv", "jsonl") and params["target"] is None:
        raise click.UsageError(f"--json with --format {params['as_format']} needs --output", ctx)
    with open_readonly(path) as conn:
        batches = _select_batches(conn, manifest, params["batch"])
        target = params["target"]
        if target is not None:
            _check_target(conn, target, path, batches)
        if params["as_format"] == "html":
            target = target or _beside_results(path, batches, "html")
            _write_page(conn, batches, path, target, params)
        elif params["as_format"] == "xlsx":
            target = target or _beside_results(path, batches, "xlsx")
            _write_workbook(_sheet(conn, batches, params), target)
        else:
            _write_data(_sheet(conn, batches, params), target, params["as_format"])
        credits_ = _credits(conn, batches) if params["as_json"] else {}
    if params["as_json"]:
        written = target.absolute()
        reply(
            ctx,
            f"wrote {written}",
            format=params["as_format"],
            path=str(written),
            batches=[one.name for one in batches],
            credits=credits_,
        )


def _select_batches(conn: Connection, manifest: tuple[str, ...], batch: str | None) -> list[Batch]:
    """The batches to report.

    Raises:
        UsageError: the ledger does not have them.
    """
    from batcher.ledger.queries import manifest_paths
    from batcher.ledger.queries.batches import current_batches

    current = current_batches(conn)
    names = [batch] if batch is not None else [one.name for one in current]
    if manifest and batch is None:
        names = manifest_paths.batches_of(conn, Path(manifest[0]))
    found = [one for one in current if one.name in names]
    if not found:
        missing = f"no batch from {manifest[0]}" if manifest and batch is None else f"no batch {batch or ''}".rstrip()
        raise UsageError(
            f"the ledger has {missing}", f"Its batches: {', '.join(one.name for one in current) or 'none yet'}."
        )
    return found


def _credits(conn: Connection, batches: list[Batch]) -> dict[str, float | None]:
    """The credits of the page, rounded as there."""
    from batcher.ledger.queries import report

    found = report.report_credits(conn, report.report_runs(conn, batches), report.spent(conn, batches))
    return {name: rounded(getattr(found, name)) for name in ("start", "end", "spent", "topped_up")}


def _check_target(conn: Connection, target: Path, ledger: Address, batches: list[Batch]) -> None:
    from batcher.ledger.queries import manifest_paths

    if target.parts[0] in [f"{scheme}:" for scheme in OBJECT_STORES]:
        raise UsageError("a report is written to disk, not to an object store", "Pass the path of a file as --output.")
    manifests = (files.resolved(Path(manifest_paths.source_of(conn, batch)[0])) for batch in batches)
    inputs: list[Address] = [ledger, *manifests]
    if files.resolved(target) in inputs:
        raise UsageError(f"{target} is an input of the report", "Pass another --output.")


def _beside_results(ledger: Address, batches: list[Batch], extension: str) -> Path:
    """Default path of a report, beside the results: named after its batch, or after the ledger for several."""
    from batcher.reports.results import REPORT

    name = batches[0].name if len(batches) == 1 else ledger.stem if isinstance(ledger, Path) else "batcher"
    home = home_of(ledger)
    return (home if files.is_url(batches[0].out_dir) else home / batches[0].out_dir) / f"{name}{REPORT}.{extension}"


def _write_page(conn: Connection, batches: list[Batch], ledger: Address, target: Path, params: dict[str, Any]) -> None:
    from batcher.ledger.queries import report
    from batcher.reports.page.page import Choices, write_page

    if params["embed"]:
        _, size = report.audio_total(conn, batches)
        slow = "; browsers will open it slowly" if size > _EMBED_WARN_BYTES else ""
        click.echo(f"embedded audio: about {size * 4 / 3e6:,.1f} MB{slow}", err=True)
    at, texts = Clock().now(), not params["no_text"]
    seconds = params["link_hours"] and params["link_hours"] * 3600
    choices = Choices(
        path=target, home=home_of(ledger), at=at, embed=params["embed"], texts=texts, link_seconds=seconds
    )
    with _writing(target):
        write_page(conn, batches, choices)
    click.echo(f"Wrote {target}", err=True)


def _sheet(conn: Connection, batches: list[Batch], params: dict[str, Any]) -> Sheet:
    from batcher.reports.table import Sheet

    sheet = Sheet(conn, batches, texts=not params["no_text"], encoding=params["encoding"])
    for name in sheet.changed:
        click.echo(f"{name} differs from the last run; its columns are taken from the ledger", err=True)
    return sheet


def _write_workbook(sheet: Sheet, target: Path) -> None:
    with _writing(target), files.replacing(target) as file:
        cut = sheet.write_workbook(file)
    if cut:
        click.echo(
            f"{counted(cut, 'cell')} cut at 32,767 characters, the limit of XLSX; use --format csv for the full text",
            err=True,
        )
    click.echo(f"Wrote {target}", err=True)


def _write_data(sheet: Sheet, target: Path | None, kind: Plain) -> None:
    if target is None:
        with suppress(BrokenPipeError), _exact_output() as output:  # the reader may have seen enough
            sheet.write(output, kind)
        return
    # The byte order mark lets spreadsheets detect the encoding.
    encoding = "utf-8-sig" if kind == "csv" else "utf-8"
    with _writing(target), files.replacing(target, encoding=encoding) as file:
        sheet.write(file, kind)


@contextmanager
def _exact_output() -> Iterator[TextIO]:
    """Standard output for data: in UTF-8 and with every character as it is, unless it is a terminal."""
    if sys.stdout.isatty():
        yield sys.stdout
        return
    output = TextIOWrapper(sys.stdout.buffer, encoding="utf-8", newline="", write_through=True)
    try:
        yield output
    finally:
        output.detach()


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"cannot write {target}: {error.strerror or error}", "Pass another --output.") from error
