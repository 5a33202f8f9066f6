"""The options that `run`, `plan` and `doctor` share, and the settings made from them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from batcher import settings
from batcher.cli.api_options import (
    allow_audio_host_option,
    allow_http_option,
    api_url_option,
    find_token,
    need_one_api,
    token_file_option,
)
from batcher.cli.config_file import apply_config_file, merged_columns
from batcher.cli.json_output import JsonCommand
from batcher.cli.option_types import ColumnNames, Delimiter, Duration, MarkupTypes, Rate, RowIds, Where
from batcher.cli.options import DEBUG, is_default, option
from batcher.cli.side_files import without_side_files
from batcher.errors import UsageError
from batcher.manifest.markup.nouns import TABLE
from batcher.run_settings import settings_of, sources_of

F = TypeVar("F", bound=Callable[..., Any])


def _set_debug(ctx: click.Context, param: click.Parameter, value: bool) -> bool:  # noqa: ARG001 - click's signature
    ctx.meta[DEBUG] = value
    return value


_OPTIONS: Final[tuple[Callable[[Any], Any], ...]] = (
    option("--batch", metavar="NAME", help="Name of the batch; defaults to the file name without its extension."),
    option(
        "--column",
        multiple=True,
        metavar="FIELD=HEADER",
        help="Read FIELD from the column HEADER, or from several, as in A+B; FIELD= ignores it.",
    ),
    option("--encoding", metavar="NAME", help="Encoding of the manifest; UTF-8, and UTF-16 with a BOM, are detected."),
    option(
        "--delimiter",
        type=Delimiter(),
        metavar="CHAR",
        help="Delimiter of a text file, or tab; comma, semicolon, tab and | are detected.",
    ),
    option(
        "--quotes",
        type=click.Choice(["auto", "on", "off"]),
        default="auto",
        show_default=True,
        help="Whether double quotes enclose the cells of a text file; off: they are part of the texts.",
    ),
    option("--header-row", type=click.IntRange(1, 1000), metavar="N", help="Row that names the columns of a table."),
    option("--no-header", is_flag=True, help="Read the first row of a table as data."),
    option(
        "--columns",
        type=ColumnNames(),
        metavar="NAMES",
        help="Names of the columns with --no-header, such as id,_,text; _ skips a column.",
    ),
    option("--sheet", metavar="NAME", help="Sheet of a workbook; defaults to the first visible one."),
    option(
        "--where",
        multiple=True,
        type=Where(),
        metavar="COLUMN=VALUE",
        help="Read only rows with this value; COLUMN!=VALUE: only rows without it.",
    ),
    option("--skip-invalid", is_flag=True, help="Skip invalid rows and process the others."),
    option("--skip-empty", is_flag=True, help="Skip rows without text."),
    option(
        "--allow",
        multiple=True,
        type=MarkupTypes(TABLE),
        metavar="TYPE",
        help="Buy texts with this type of markup, such as html, as they are; table: read all rows as one table.",
    ),
    option(
        "--strip", multiple=True, type=MarkupTypes(), metavar="TYPE", help="Remove markup of this type from the texts."
    ),
    option("--voice", metavar="ID", help="Voice ID of the provider."),
    option("--model", metavar="ID", help="Model ID of the provider, which chooses one by default."),
    option(
        *("--format", "audio_format"),
        metavar="FORMAT",
        help="mp3, wav, opus, ogg or pcm; defaults to the extension of the file name, or mp3.",
    ),
    option("--ledger", metavar="PATH", help="Ledger; defaults to batcher.db beside the manifest."),
    option(
        "--out-dir",
        metavar="DIR",
        help="Folder or object store (s3://BUCKET/PREFIX) for the audio; defaults to audio beside the manifest.",
    ),
    option(
        "--filename",
        metavar="TEMPLATE",
        default="{id}.{format}",
        show_default=True,
        help="Template for file names. Fields: id row voice take format batch key.",
    ),
    option(
        "--wait-lock",
        type=Duration(),
        default="0s",
        show_default=True,
        metavar="TIME",
        help="Wait up to TIME, such as 5m, while another run holds the ledger.",
    ),
    option(
        "--concurrency",
        type=click.IntRange(1, 20_000),
        default=5,
        show_default=True,
        metavar="N",
        help=f"Maximum tasks open at the provider at once; {settings.SANDBOX_CONCURRENCY} by default with --sandbox.",
    ),
    option(
        "--create-rate",
        type=Rate(),
        metavar="N",
        help="Maximum create requests per second; detected automatically by default.",
    ),
    option(
        "--poll-rate", type=Rate(), metavar="N", help="Maximum polls per second; detected automatically by default."
    ),
    option(
        "--only",
        consent=True,
        multiple=True,
        type=RowIds(),
        metavar="ID",
        help="Work on these rows only: IDs, separated by commas.",
    ),
    option(
        "--sample",
        consent=True,
        type=click.IntRange(1),
        metavar="N",
        help="Work on a representative sample of N items only; a later run creates the rest.",
    ),
    option("--max-items", type=click.IntRange(0), metavar="N", help="Maximum items to create in this run."),
    option(
        "--max-credits",
        type=click.FloatRange(0),
        metavar="N",
        help="Maximum credits to spend on this batch, over all its runs.",
    ),
    option(
        "--max-in-doubt",
        type=click.IntRange(0),
        default=5,
        show_default=True,
        metavar="N",
        help="Halt when more than N create requests in a row get no definite answer.",
    ),
    option(
        "--max-runtime",
        type=Duration(),
        metavar="TIME",
        help="End within TIME, such as 50m; creating stops early enough to collect open tasks.",
    ),
    option("--no-wait", is_flag=True, help="Create tasks and exit; a later run collects them."),
    option("--collect-only", is_flag=True, help="Collect open tasks and create nothing; needs no manifest."),
    option(
        "--results",
        type=click.Choice(["all", "none", "jsonl", "csv"]),
        default="all",
        show_default=True,
        help="Results files to write.",
    ),
    option("--rescan", is_flag=True, help="Ignore caches: reread every manifest and recheck every output."),
    option(
        "--rebuy",
        consent=True,
        is_flag=True,
        help="Allow rows to be bought again after a changed default or many edits.",
    ),
    option(
        "--rename",
        consent=True,
        is_flag=True,
        help="Allow the audio of many rows to get other file names after changed ids or settings.",
    ),
    option(
        "--refilter",
        consent=True,
        is_flag=True,
        help="Allow another --where than in the last run of the batch.",
    ),
    option(
        "--restored",
        consent=True,
        is_flag=True,
        help="Accept a copied, older or new ledger beside audio that it does not list.",
    ),
    option(
        "--override-halt", consent=True, is_flag=True, help="Try one create request although the account is halted."
    ),
    api_url_option,
    token_file_option,
    option("--sandbox", is_flag=True, help="Use the built-in sandbox: no account, no cost."),
    allow_http_option,
    allow_audio_host_option,
    option(
        "--no-credits-code", multiple=True, metavar="CODE", help="Another API error code that means out of credits."
    ),
    option("--json", "as_json", is_flag=True, help="Print the result as one JSON object to standard output."),
    option("--quiet", is_flag=True, help="Print only new problems."),
    option("-v", "--verbose", is_flag=True, help="Log each create request, the end of each task, and each download."),
    option("--debug", is_flag=True, callback=_set_debug, help="Log everything, also each poll, and show tracebacks."),
)


_COMMAND: Final = "batcher.command"
"""Key of `click.Context.meta`: the words of the command line."""
_GROUPS: Final = {
    "Manifest": (
        *("batch", "column", "encoding", "delimiter", "quotes", "header_row", "no_header", "columns", "sheet"),
        *("where", "skip_invalid", "skip_empty", "allow", "strip", "rescan"),
    ),
    "Defaults for rows without their own": ("voice", "model", "audio_format"),
    "Files": ("ledger", "out_dir", "filename", "results"),
    "Rows of this run (command line only)": ("only", "sample"),
    "Limits": (
        *("concurrency", "create_rate", "poll_rate", "max_items", "max_credits", "max_in_doubt", "max_runtime"),
        *("no_wait", "collect_only", "wait_lock"),
    ),
    "Consent (command line only)": ("yes", "rebuy", "rename", "refilter", "restored", "override_halt"),
    "API": ("api_url", "token_file", "sandbox", "allow_http", "allow_audio_host", "no_credits_code"),
    "Monitoring": ("ok_exit", "ping", "notify", "metrics", "log_format", "log_file"),
    "Output": ("dry_run", "save_settings", "as_json", "quiet", "verbose", "debug"),
}
"""Headings of the help, with the options below each; options in none of them come last, under "Output"."""


class GroupedCommand(JsonCommand):
    """A command whose help lists its options in groups, and which remembers its command line."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments."""
        ctx.meta[_COMMAND] = (*ctx.command_path.split(), *args)
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options group by group."""
        options = [param for param in self.get_params(ctx) if isinstance(param, click.Option)]
        records = {param.name: record for param in options if (record := param.get_help_record(ctx)) is not None}
        for title, names in _GROUPS.items():
            found = [records.pop(name) for name in names if name in records]
            if title == "Output":
                found += records.values()
            if found:
                with formatter.section(title):
                    formatter.write_dl(found)


def manifest_options(command: F) -> F:
    """Add the options of a run, except those of `run` alone."""
    for decorate in reversed(_OPTIONS):
        command = decorate(command)
    return command


def run_settings(ctx: click.Context, manifests: tuple[str, ...], *, without: Path | None = None) -> settings.Settings:
    """The run's settings, from the command line, the environment and `batcher.toml`.

    `without` is the project folder if there is no manifest, where none is needed.

    Raises:
        UsageError: options contradict each other, or a value is invalid.
    """
    quiet = ctx.params["quiet"]
    named = without_side_files(manifests, lambda line: None if quiet else click.echo(line, err=True))
    paths = [None if name == "-" else Path(name) for name in named]
    folder = settings.project_folder(paths[0]) if paths else without or settings.project_folder(None)
    config = apply_config_file(ctx, folder)
    params = ctx.params
    if not paths and without is None and not params["collect_only"]:
        raise UsageError("no manifest given", "Name one, such as lines.csv; or pass --collect-only.")
    need_one_api(ctx, sandbox=params["sandbox"])
    if params["sandbox"] and is_default(ctx, "concurrency"):
        params["concurrency"] = settings.SANDBOX_CONCURRENCY
    values = params | {
        "format": params["audio_format"],
        "column": merged_columns(params["column"], config, folder),
        "voices": settings.string_table(config.get("voices"), "voices", folder / settings.FILE_NAME),
    }
    values |= {name: tuple(chain.from_iterable(params[name])) for name in ("only", "allow", "strip")}
    sources = sources_of(values, paths)
    command = ctx.meta.get(_COMMAND, ())
    return settings_of(values, sources, folder=folder, token=find_token(ctx), command=command)
