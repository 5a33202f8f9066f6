"""The options that `run`, `plan` and `doctor` share, and the settings made from them."""

from __future__ import annotations

import math
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
from batcher.cli.ledger_path import ledger_path, project_folder
from batcher.cli.option_types import TABLE, ColumnNames, Delimiter, Duration, MarkupTypes, Rate, RowIds, Where
from batcher.cli.options import DEBUG, option
from batcher.errors import UsageError
from batcher.manifest import packed
from batcher.manifest.rules import Rules

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
        help="Read only rows with this value, or with COLUMN!=VALUE without it.",
    ),
    option("--skip-invalid", is_flag=True, help="Skip invalid rows and process the others."),
    option("--skip-empty", is_flag=True, help="Skip rows without text."),
    option(
        "--allow",
        multiple=True,
        type=MarkupTypes(TABLE),
        metavar="TYPE",
        help="Buy texts with markup of this type as they are, such as html; table: read all rows as one table.",
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
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Folder for the audio; defaults to audio beside the manifest.",
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
        help="Maximum tasks open at the provider at once.",
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
        help="Accept a ledger that is a copy, a backup or new, beside audio it does not list.",
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
    option("-v", "--verbose", is_flag=True, help="Log each create request, poll and download."),
    option("--debug", is_flag=True, callback=_set_debug, help="Log everything and show tracebacks."),
)


_COMMAND: Final = "batcher.command"
"""Key of `click.Context.meta`: the words of the command line."""
_GROUPS: Final = {
    "Manifest": (
        *("batch", "column", "encoding", "delimiter", "quotes", "header_row", "no_header", "columns", "sheet"),
        *("where", "skip_invalid", "skip_empty", "allow", "strip", "rescan"),
    ),
    "Defaults for rows without their own": ("voice", "model", "audio_format"),
    "Files": ("ledger", "out_dir", "filename"),
    "Rows of this run (command line only)": ("only", "sample"),
    "Limits": (
        *("concurrency", "create_rate", "poll_rate", "max_items", "max_credits", "max_in_doubt", "max_runtime"),
        *("no_wait", "collect_only", "wait_lock"),
    ),
    "Consent (command line only)": ("yes", "rebuy", "rename", "refilter", "restored", "override_halt"),
    "API": ("api_url", "token_file", "sandbox", "allow_http", "allow_audio_host", "no_credits_code"),
    "Monitoring": ("ok_exit", "ping", "metrics", "log_format", "log_file"),
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


def run_settings(ctx: click.Context, manifests: tuple[str, ...], *, beside: Path | None = None) -> settings.Settings:
    """The run's settings, from the command line, the environment and `batcher.toml`.

    No manifest is needed with `beside`, a file in the project folder.

    Raises:
        UsageError: options contradict each other, or a value is invalid.
    """
    paths = [None if name == "-" else Path(name) for name in manifests]
    folder = project_folder(paths[0] if paths else beside)
    config = apply_config_file(ctx, folder)
    params = ctx.params
    if not paths and beside is None and not params["collect_only"]:
        raise UsageError("no manifest given", "Name one, such as lines.csv; or pass --collect-only.")
    if math.isnan(params["max_credits"] or 0.0):
        raise UsageError("--max-credits must be a number", "For example: --max-credits 5000")
    only = tuple(dict.fromkeys(chain.from_iterable(params["only"])))
    _need_one_selection(params)
    sandbox = params["sandbox"]
    need_one_api(ctx, sandbox=sandbox)
    out_dir = params["out_dir"] or folder / ("audio-sandbox" if sandbox else "audio")
    return settings.Settings(
        sources=_sources(params, paths, config, folder),
        ledger=ledger_path(params["ledger"], folder, sandbox=sandbox),
        out_dir=Path(out_dir).resolve(),
        sandbox=sandbox,
        api_url=params["api_url"],
        token=find_token(ctx),
        allow_http=params["allow_http"],
        audio_hosts=frozenset(params["allow_audio_host"]),
        no_credits_codes=frozenset(params["no_credits_code"]),
        concurrency=params["concurrency"],
        create_rate=params["create_rate"],
        poll_rate=params["poll_rate"],
        only=only,
        sample=params["sample"],
        max_items=params["max_items"],
        max_credits=params["max_credits"],
        max_in_doubt=params["max_in_doubt"],
        max_runtime_seconds=params["max_runtime"],
        wait=not params["no_wait"],
        collect_only=params["collect_only"],
        override_halt=params["override_halt"],
        rebuy=params["rebuy"],
        allow=frozenset(chain.from_iterable(params["allow"])),
        rename=params["rename"],
        refilter=params["refilter"],
        restored=params["restored"],
        rescan=params["rescan"],
        wait_lock_seconds=params["wait_lock"],
        command=ctx.meta.get(_COMMAND, ()),
    )


def _need_one_selection(params: dict[str, Any]) -> None:
    given = [f"--{name.replace('_', '-')}" for name in ("only", "sample", "collect_only") if params[name]]
    if len(given) > 1:
        hint = (
            "--collect-only creates nothing, and collects everything." if "--collect-only" in given else "Choose one."
        )
        raise UsageError(f"{given[0]} and {given[1]} contradict each other", hint)


def _sources(
    params: dict[str, Any], paths: list[Path | None], config: dict[str, Any], folder: Path
) -> tuple[settings.Source, ...]:
    names = _batch_names(params["batch"], paths)
    if params["columns"] and not params["no_header"]:
        hint = "Add --no-header if the first row is data. To rename a column, use --column FIELD=HEADER."
        raise UsageError("--columns names the columns of a file without a header", hint)
    if params["header_row"] and params["no_header"]:
        raise UsageError("--header-row and --no-header contradict each other", "Choose one.")
    columns = merged_columns(params["column"], config, folder)
    voices = settings.string_table(config.get("voices"), "voices", folder / settings.FILE_NAME)
    return tuple(
        settings.Source(
            path=path,
            rules=Rules(
                batch=name,
                voice=params["voice"],
                model=params["model"],
                format=(params["audio_format"] or "").lower() or None,
                columns=columns,
                voices=voices,
                encoding=params["encoding"],
                delimiter=params["delimiter"],
                quotes=None if params["quotes"] == "auto" else params["quotes"],
                header_row=params["header_row"],
                no_header=params["no_header"],
                names=params["columns"] or (),
                sheet=params["sheet"],
                single_table=TABLE in chain.from_iterable(params["allow"]),
                where=params["where"],
                filename=params["filename"],
                skip_invalid=params["skip_invalid"],
                skip_empty=params["skip_empty"],
                strip=tuple(sorted(set(chain.from_iterable(params["strip"])))),
            ),
        )
        for path, name in zip(paths, names, strict=True)
    )


def _batch_names(batch: str | None, paths: list[Path | None]) -> list[str]:
    if batch is not None and len(paths) > 1:
        raise UsageError("--batch names one batch, but there are several manifests", "Run them one by one.")
    names = [settings.batch_name(batch or (packed.stem(path) if path is not None else "stdin")) for path in paths]
    if len(set(names)) < len(names):
        raise UsageError(
            f"two manifests have the same batch name ({', '.join(names)})", "Run them one by one, each with --batch."
        )
    return names
