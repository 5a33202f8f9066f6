"""Assembles the settings of a run from the values of its options, however they were given."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from batcher.errors import UsageError
from batcher.manifest import packed
from batcher.manifest.markup.nouns import TABLE
from batcher.manifest.rules import Rules
from batcher.settings import RESULT_FORMATS, Settings, Source, batch_name, ledger_address, output_folder


def sources_of(
    values: Mapping[str, Any], paths: Sequence[Path | None], *, content: BinaryIO | None = None, title: str = "<stdin>"
) -> tuple[Source, ...]:
    """The manifests at these paths, with the rules for reading them. The path None is that of `content`.

    Raises:
        UsageError: options contradict each other, or a batch name is not valid.
    """
    names = _batch_names(values["batch"], paths, title.strip("<>"))
    if values["columns"] and not values["no_header"]:
        hint = "Add --no-header if the first row is data. To rename a column, use --column FIELD=HEADER."
        raise UsageError("--columns names the columns of a file without a header", hint)
    if values["header_row"] and values["no_header"]:
        raise UsageError("--header-row and --no-header contradict each other", "Choose one.")
    return tuple(
        Source(path=path, rules=_rules(values, name), content=content if path is None else None, title=title)
        for path, name in zip(paths, names, strict=True)
    )


def settings_of(
    values: Mapping[str, Any],
    sources: tuple[Source, ...],
    *,
    folder: Path,
    token: str | None,
    command: tuple[str, ...] = (),
) -> Settings:
    """The settings of a run of these manifests in this project folder. `command` is its command line, if it has one.

    Raises:
        UsageError: options contradict each other, or a value is invalid.
    """
    if math.isnan(values["max_credits"] or 0.0):
        raise UsageError("--max-credits must be a number", "For example: --max-credits 5000")
    _need_one_selection(values)
    sandbox = values["sandbox"]
    out_dir = values["out_dir"] or folder / ("audio-sandbox" if sandbox else "audio")
    return Settings(
        sources=sources,
        ledger=ledger_address(values["ledger"], folder, sandbox=sandbox),
        out_dir=output_folder(out_dir),
        sandbox=sandbox,
        api_url=values["api_url"],
        token=token,
        allow_http=values["allow_http"],
        audio_hosts=frozenset(values["allow_audio_host"]),
        no_credits_codes=frozenset(values["no_credits_code"]),
        concurrency=values["concurrency"],
        create_rate=values["create_rate"],
        poll_rate=values["poll_rate"],
        only=tuple(dict.fromkeys(values["only"])),
        sample=values["sample"],
        max_items=values["max_items"],
        max_credits=values["max_credits"],
        max_in_doubt=values["max_in_doubt"],
        max_runtime_seconds=values["max_runtime"],
        wait=not values["no_wait"],
        collect_only=values["collect_only"],
        override_halt=values["override_halt"],
        rebuy=values["rebuy"],
        allow=frozenset(values["allow"]),
        rename=values["rename"],
        refilter=values["refilter"],
        restored=values["restored"],
        rescan=values["rescan"],
        results={"all": RESULT_FORMATS, "none": ()}.get(values["results"], (values["results"],)),
        wait_lock_seconds=values["wait_lock"],
        command=command,
    )


def _rules(values: Mapping[str, Any], batch: str) -> Rules:
    return Rules(
        batch=batch,
        voice=values["voice"],
        model=values["model"],
        format=(values["format"] or "").lower() or None,
        columns=values["column"],
        voices=values["voices"],
        encoding=values["encoding"],
        delimiter=values["delimiter"],
        quotes=None if values["quotes"] == "auto" else values["quotes"],
        header_row=values["header_row"],
        no_header=values["no_header"],
        names=values["columns"] or (),
        sheet=values["sheet"],
        single_table=TABLE in values["allow"],
        where=values["where"],
        filename=values["filename"],
        skip_invalid=values["skip_invalid"],
        skip_empty=values["skip_empty"],
        strip=tuple(sorted(set(values["strip"]))),
    )


def _need_one_selection(values: Mapping[str, Any]) -> None:
    given = [f"--{name.replace('_', '-')}" for name in ("only", "sample", "collect_only") if values[name]]
    if len(given) > 1:
        hint = (
            "--collect-only creates nothing, and collects everything." if "--collect-only" in given else "Choose one."
        )
        raise UsageError(f"{given[0]} and {given[1]} contradict each other", hint)


def _batch_names(batch: str | None, paths: Sequence[Path | None], nameless: str) -> list[str]:
    if batch is not None and len(paths) > 1:
        raise UsageError("--batch names one batch, but there are several manifests", "Run them one by one.")
    names = [batch_name(batch or (packed.stem(path) if path is not None else nameless)) for path in paths]
    if len(set(names)) < len(names):
        raise UsageError(
            f"two manifests have the same batch name ({', '.join(names)})", "Run them one by one, each with --batch."
        )
    return names
