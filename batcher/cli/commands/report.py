"""`batcher report`: what became of the rows, as a page to look at and listen to, or as data."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batcher.cli.options import find_ledger, ledger_options, option
from batcher.clock import Clock
from batcher.errors import StorageError, UsageError
from batcher.formatting import counted

if TYPE_CHECKING:
    from batcher.ledger.ledger import Connection
    from batcher.ledger.records import Batch
    from batcher.reports.table import Plain, Sheet

_EMBED_WARN_BYTES = 200_000_000
"""Beyond it browsers take long to open a page."""


@click.command()
@click.argument("manifest", nargs=-1, metavar="[MANIFEST]")
@option("--batch", metavar="NAME", help="Only this batch.")
@click.option(
    *("--format", "as_format"),
    type=click.Choice(["html", "csv", "jsonl", "xlsx"]),
    default="html",
    show_default=True,
    help="A page; or the manifest's own columns, with what became of each row beside them.",
)
@click.option(
    *("--output", "target"),
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Where to write; by default a page or a workbook goes beside the results, csv and jsonl to standard output.",
)
@option("--encoding", metavar="NAME", help="The manifest's, for its own columns, as in `run`.")
@click.option("--embed", is_flag=True, help="Put the audio into the page instead of linking it.")
@click.option("--no-text", is_flag=True, help="Leave the texts out, and errors' messages, which may quote them.")
@ledger_options
@click.pass_context
def report(ctx: click.Context, /, manifest: tuple[str, ...], **_: Any) -> None:
    """Make a page that tells what became of every row, and plays it. Creates nothing at the provider.

    The page is one HTML file, OUT/BATCH.report.html beside the results, that asks nothing of any network: how the rows
    stand, where the credits went, how long things took, and a table to search, filter, and listen through. Rows that
    are marked there are exported as a file for `batcher retake --marks FILE`.

    The batch is MANIFEST's, or --batch; without either, all batches of the ledger are told of in one page.
    """
    from batcher.ledger.ledger import open_readonly

    path, rest = find_ledger(ctx, manifest)
    if rest or len(manifest) > 1:
        raise click.UsageError(f"there is no file {rest[0]}" if rest else "name one manifest", ctx)
    params = ctx.params
    if params["as_format"] != "html" and params["embed"]:
        raise click.UsageError("--embed is for the page", ctx)
    with open_readonly(path) as conn:
        wanted = _wanted(conn, manifest, params["batch"])
        target = params["target"]
        if target is not None:
            _need_free(conn, target, path, wanted)
        if params["as_format"] == "html":
            _write_page(conn, wanted, path, target or _beside_results(path, wanted, "html"), params)
            return
        sheet = _sheet(conn, wanted, params)
        if params["as_format"] == "xlsx":
            _write_workbook(sheet, target or _beside_results(path, wanted, "xlsx"))
        else:
            _write_data(sheet, target, params["as_format"])


def _wanted(conn: Connection, manifest: tuple[str, ...], batch: str | None) -> list[Batch]:
    """The batches to tell of.

    Raises:
        UsageError: there is none like that.
    """
    from batcher.ledger.queries import report
    from batcher.ledger.queries.batches import current_batches

    known = current_batches(conn)
    names = [batch] if batch is not None else [one.name for one in known]
    if manifest and batch is None:
        names = report.batches_of(conn, Path(manifest[0]))
    found = [one for one in known if one.name in names]
    if not found:
        said = f"no batch of {manifest[0]}" if manifest and batch is None else f"no batch {batch or ''}".rstrip()
        raise UsageError(f"the ledger has {said}", f"It has: {', '.join(one.name for one in known) or 'none yet'}.")
    return found


def _need_free(conn: Connection, target: Path, ledger: Path, wanted: list[Batch]) -> None:
    from batcher.ledger.queries import report

    taken = [ledger, *(Path(report.source_of(conn, batch)[0]).resolve() for batch in wanted)]
    if target.resolve() in taken:
        raise UsageError(f"{target} is what the report is made from", "Choose another --output.")


def _beside_results(ledger: Path, wanted: list[Batch], ending: str) -> Path:
    """Where a report goes: beside the results of its batch, or of the first of several under the ledger's name."""
    from batcher.reports.results import REPORT

    name = wanted[0].name if len(wanted) == 1 else ledger.stem
    return ledger.parent / wanted[0].out_dir / f"{name}{REPORT}.{ending}"


def _write_page(conn: Connection, wanted: list[Batch], ledger: Path, target: Path, params: dict[str, Any]) -> None:
    from batcher.ledger.queries import report
    from batcher.reports.page.page import Choices, write_page

    if params["embed"]:
        _, size = report.audio_made(conn, wanted)
        slow = "; browsers are slow to open so much" if size > _EMBED_WARN_BYTES else ""
        click.echo(f"the audio inside makes the page about {size * 4 / 3e6:,.1f} MB{slow}", err=True)
    at, texts = Clock().now(), not params["no_text"]
    choices = Choices(path=target, home=ledger.parent, at=at, embed=params["embed"], texts=texts)
    with _writing(target):
        write_page(conn, wanted, choices)
    click.echo(f"{counted(len(wanted), 'batch')} told of in {target}", err=True)


def _sheet(conn: Connection, wanted: list[Batch], params: dict[str, Any]) -> Sheet:
    from batcher.reports.table import Sheet

    sheet = Sheet(conn, wanted, texts=not params["no_text"], encoding=params["encoding"])
    for name in sheet.changed:
        click.echo(
            f"{name} reads otherwise than in the last run: its columns are told as the ledger keeps them", err=True
        )
    return sheet


def _write_workbook(sheet: Sheet, target: Path) -> None:
    with _drafted(target) as draft, draft.open("wb") as file:
        cut = sheet.write_workbook(file)
    if cut:
        click.echo(f"{counted(cut, 'cell')} cut at the 32,767 characters that one takes; csv has them whole", err=True)
    click.echo(f"written to {target}", err=True)


def _write_data(sheet: Sheet, target: Path | None, kind: Plain) -> None:
    if target is None:
        with suppress(BrokenPipeError):  # whoever reads has seen enough
            sheet.write(sys.stdout, kind)
        return
    # The mark at its beginning lets spreadsheets know a table's encoding.
    encoding = "utf-8-sig" if kind == "csv" else "utf-8"
    with _drafted(target) as draft, draft.open("w", encoding=encoding, newline="") as file:
        sheet.write(file, kind)


@contextmanager
def _drafted(target: Path) -> Iterator[Path]:
    """Where to write what is to be at `target`, which gets it whole or not at all."""
    draft = target.with_name(f".{target.name}.part")
    with _writing(target):
        try:
            yield draft
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{target} cannot be written: {error.strerror or error}", "Name another --output."
        ) from error
