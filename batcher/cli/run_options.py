"""What is asked of a run: the options that `run`, `plan` and `doctor` share, and the settings that they come to."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from batcher import settings
from batcher.cli.options import (
    DEBUG,
    Duration,
    Rate,
    fill_from_file,
    find_token,
    ledger_path,
    merged_columns,
    need_one_api,
    option,
    project_folder,
)
from batcher.errors import UsageError
from batcher.manifest.rows import Rules

F = TypeVar("F", bound=Callable[..., Any])


def _note_debug(ctx: click.Context, param: click.Parameter, value: bool) -> bool:  # noqa: ARG001 - click's signature
    ctx.meta[DEBUG] = value
    return value


_OPTIONS: Final[tuple[Callable[[Any], Any], ...]] = (
    option("--batch", metavar="NAME", help="The batch's name; by default the file's, without its ending."),
    option(
        "--column", multiple=True, metavar="FIELD=HEADER", help="Read FIELD from that column; FIELD= leaves it unread."
    ),
    option("--encoding", metavar="NAME", help="The manifest's encoding, if not UTF-8 or UTF-16 with its mark."),
    option("--skip-invalid", is_flag=True, help="Go on with the good rows when others have faults."),
    option("--skip-empty", is_flag=True, help="Pass over rows whose text is not written yet."),
    option("--voice", metavar="ID", help="A voice of the provider's."),
    option("--model", metavar="ID", help="By default the provider chooses."),
    option(
        "--format", "audio_format", metavar="FORMAT", default="mp3", show_default=True, help="mp3, wav, opus, ogg, pcm."
    ),
    option("--ledger", metavar="PATH", help="By default batcher.db beside the manifest."),
    option("--out-dir", type=click.Path(path_type=Path), metavar="DIR", help="By default audio beside the manifest."),
    option(
        "--filename",
        metavar="TEMPLATE",
        default="{id}.{format}",
        show_default=True,
        help="Fields: id row voice take format batch key.",
    ),
    option("--wait-lock", type=Duration(), default="0s", metavar="TIME", help="Wait so long for another run to end."),
    option(
        "--concurrency",
        type=click.IntRange(1, 20_000),
        default=5,
        show_default=True,
        metavar="N",
        help="Tasks open at the provider at once.",
    ),
    option("--create-rate", type=Rate(), metavar="N", help="Creates a second at most; otherwise found out by itself."),
    option("--poll-rate", type=Rate(), metavar="N", help="The same for looks at open tasks."),
    option("--max-items", type=click.IntRange(0), metavar="N", help="Create at most so many in this run."),
    option(
        "--max-credits",
        type=click.FloatRange(0),
        metavar="N",
        help="Spend at most so much on the batch, over all its runs.",
    ),
    option(
        "--max-in-doubt",
        type=click.IntRange(0),
        default=5,
        show_default=True,
        metavar="N",
        help="Stop creating after more lost answers than this in a row.",
    ),
    option(
        "--max-runtime", type=Duration(), metavar="TIME", help="End within it, with what is open collected: 50m, 90s."
    ),
    option("--no-wait", is_flag=True, help="Create and leave; another run collects."),
    option("--collect-only", is_flag=True, help="Create nothing; needs no manifest."),
    option("--rescan", is_flag=True, help="Trust no file to be as it was: read every manifest, look for every output."),
    option("--rebuy", consent=True, is_flag=True, help="Buy again what a changed default or many edits would."),
    option("--restored", consent=True, is_flag=True, help="Use a copied, older or new ledger beside audio it lacks."),
    option("--override-halt", consent=True, is_flag=True, help="Try one create although the account is halted."),
    option("--api-url", metavar="URL", default=settings.DEFAULT_URL, show_default=True),
    option(
        "--token-file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        envvar="BATCHER_API_TOKEN_FILE",
        help="Holds the API token; without this flag BATCHER_API_TOKEN has it.",
    ),
    option("--sandbox", is_flag=True, help="Use the built-in sandbox: no account, no cost."),
    option("--allow-http", is_flag=True, help="Permit plain http to hosts other than this one."),
    option("--no-credits-code", multiple=True, metavar="CODE", help="Another error code that means: out of credits."),
    option("--json", "as_json", is_flag=True, help="End with one JSON object on standard output."),
    option("--quiet", is_flag=True, help="Say only what is wrong, and new."),
    option("-v", "--verbose", is_flag=True, help="Log each create, look and download."),
    option("--debug", is_flag=True, callback=_note_debug, help="Log everything; show tracebacks."),
)


_GROUPS: Final = {
    "What": ("batch", "column", "encoding", "skip_invalid", "skip_empty", "rescan"),
    "Defaults for rows that name none": ("voice", "model", "audio_format"),
    "Where": ("ledger", "out_dir", "filename", "wait_lock"),
    "How much": (
        *("concurrency", "create_rate", "poll_rate", "max_items", "max_credits", "max_in_doubt", "max_runtime"),
        *("no_wait", "collect_only"),
    ),
    "Consent (flags only)": ("yes", "rebuy", "restored", "override_halt"),
    "API": ("api_url", "token_file", "sandbox", "allow_http", "no_credits_code"),
    "Watching": ("ping", "metrics", "log_format", "log_file"),
    "Output": ("dry_run", "as_json", "quiet", "verbose", "debug"),
}


class Grouped(click.Command):
    """A command whose help has its options in groups."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, group by group; what belongs to none comes last."""
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
    """Everything that says what a run is about."""
    for decorate in reversed(_OPTIONS):
        command = decorate(command)
    return command


def resolve(ctx: click.Context, manifests: tuple[str, ...], *, beside: Path | None = None) -> settings.Settings:
    """The run's settings, from flags, environment and file.

    With `beside`, a file in the project folder, no manifest is needed.

    Raises:
        UsageError: they do not fit together.
    """
    paths = [None if name == "-" else Path(name) for name in manifests]
    folder = project_folder(paths[0] if paths else beside)
    file = fill_from_file(ctx, folder)
    params = ctx.params
    if not paths and beside is None and not params["collect_only"]:
        raise UsageError("no manifest named", "Give one, as in: batcher run lines.csv (or --collect-only).")
    if math.isnan(params["max_credits"] or 0.0):
        raise UsageError("--max-credits is not a number of credits", "Give one, as in: --max-credits 5000")
    sandbox = params["sandbox"]
    need_one_api(ctx, sandbox=sandbox)
    out_dir = params["out_dir"] or folder / ("audio-sandbox" if sandbox else "audio")
    return settings.Settings(
        sources=_sources(params, paths, file, folder),
        ledger=ledger_path(params["ledger"], folder, sandbox=sandbox),
        out_dir=Path(out_dir).resolve(),
        sandbox=sandbox,
        api_url=params["api_url"],
        token=find_token(ctx),
        allow_http=params["allow_http"],
        no_credits_codes=frozenset(params["no_credits_code"]),
        concurrency=params["concurrency"],
        create_rate=params["create_rate"],
        poll_rate=params["poll_rate"],
        max_items=params["max_items"],
        max_credits=params["max_credits"],
        max_in_doubt=params["max_in_doubt"],
        max_runtime_seconds=params["max_runtime"],
        wait=not params["no_wait"],
        collect_only=params["collect_only"],
        override_halt=params["override_halt"],
        rebuy=params["rebuy"],
        restored=params["restored"],
        rescan=params["rescan"],
        wait_lock_seconds=params["wait_lock"],
    )


def _sources(
    params: dict[str, Any], paths: list[Path | None], file: dict[str, Any], folder: Path
) -> tuple[settings.Source, ...]:
    if params["batch"] is not None and len(paths) > 1:
        raise UsageError("--batch names one batch, and there are several manifests", "Run them one by one.")
    names = [settings.batch_name(params["batch"] or (path.stem if path is not None else "stdin")) for path in paths]
    if len(set(names)) < len(names):
        raise UsageError(
            f"two manifests would be the same batch ({', '.join(names)})", "Run them one by one with --batch."
        )
    rules = {
        "voice": params["voice"],
        "model": params["model"],
        "format": params["audio_format"].lower(),
        "columns": merged_columns(params["column"], file, folder),
        "voices": settings.string_table(file.get("voices"), "voices", folder / settings.FILE_NAME),
        "encoding": params["encoding"],
        "filename": params["filename"],
        "skip_invalid": params["skip_invalid"],
        "skip_empty": params["skip_empty"],
    }
    return tuple(
        settings.Source(path=path, rules=Rules(batch=name, **rules)) for path, name in zip(paths, names, strict=True)
    )
