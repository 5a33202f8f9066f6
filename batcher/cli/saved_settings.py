"""`run --save-settings`: writes the options of the command line to `batcher.toml`."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Final

import click

from batcher import files, settings
from batcher.address import has_secret
from batcher.audio.placing import sync_folder
from batcher.cli import trust
from batcher.cli.option_types import Duration
from batcher.cli.options import is_flag
from batcher.cli.toml_edit import Value, set_values
from batcher.errors import StorageError, UsageError

_NOT_SAVED: Final = frozenset(("as_json", "collect_only", "debug", "dry_run", "rescan", "sandbox", "verbose"))
"""Options that concern a single run, or that would turn later ones into something else."""


class SavedSettings:
    """The options of the command line that `batcher.toml` in the project folder can hold. Consents and the token are
    not among them.

    `names` are the options to save, `left_out` the others that were given.
    """

    def __init__(self, ctx: click.Context, folder: Path) -> None:
        self.path = folder / settings.FILE_NAME
        self.names: list[str] = []
        self.left_out: list[str] = []
        self._values: dict[str, Value] = {}
        self._columns: dict[str, str] = {}
        for param in ctx.command.params:
            if isinstance(param, click.Option) and param.name is not None and is_flag(ctx, param.name):
                self._add(param, param.name, ctx.params[param.name])

    def _add(self, param: click.Option, name: str, value: Any) -> None:
        option = max(param.opts, key=len)
        if name == "save_settings":
            return
        if param.envvar is None or name in _NOT_SAVED or (isinstance(value, str) and has_secret(value)):
            self.left_out.append(option)
            return
        self.names.append(option)
        if name == "column":
            self._columns |= dict(map(settings.column_choice, value))
        else:
            self._values[option.removeprefix("--")] = self._saved(param, value)

    def _saved(self, param: click.Option, value: Any) -> Value:
        """The value in the form that the file has."""
        if isinstance(param.type, Duration):
            return settings.duration_text(value)
        if isinstance(value, Path) or (param.name in ("ledger", "out_dir") and not files.is_url(value)):
            found = Path(os.path.abspath(Path(value).expanduser()))  # noqa: PTH100 - links stay
            return str(found.relative_to(self.path.parent) if found.is_relative_to(self.path.parent) else found)
        if isinstance(value, tuple):
            return list(chain.from_iterable(one if isinstance(one, tuple) else (one,) for one in value))
        saved: Value = value
        return saved

    def edited(self) -> str:
        """The file's text with the options set.

        Raises:
            UsageError: the file cannot be read, or not be edited safely.
        """
        try:
            text = files.read_config(self.path).decode() if self.path.exists() else ""
            return set_values(text, self._values, {"columns": self._columns} if self._columns else {})
        except UsageError as error:
            raise UsageError(f"{self.path}: {error.message}", error.hint) from None
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{self.path}: {error}") from None

    def save(self) -> None:
        """Replace the file, atomically.

        Raises:
            UsageError: it cannot be edited safely.
            StorageError: it, or the record that it is trusted, cannot be written.
        """
        path, text = files.resolved(self.path), self.edited()
        before = settings.read_file(self.path.parent)
        try:
            mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o644
            with files.replacing(path, mode=mode, encoding="utf-8") as file:
                file.write(text)
            sync_folder(path.parent)
        except OSError as error:
            raise StorageError(f"cannot write {path}: {error.strerror}", "The settings were not saved.") from error
        self._keep_trust(before)

    def _keep_trust(self, before: Mapping[str, Any]) -> None:
        """Trust what the user has just written, unless the file already held settings that are not trusted."""
        folder = self.path.parent
        after = settings.read_file(folder)
        if trust.guarded(after, folder) and (not trust.guarded(before, folder) or trust.is_trusted(before, folder)):
            trust.trust(after, folder)

    def summary(self) -> str:
        """What was saved, in one line."""
        left_out = f"; not saved: {', '.join(self.left_out)}" if self.left_out else ""
        return f"saved to {self.path}: {', '.join(self.names) or 'nothing'}{left_out}"
