"""Which settings of a project's `batcher.toml` need the user's trust, and which the user has trusted.

A project folder may come from a stranger. Its settings are data, except those that could send a token or a request
elsewhere, or write outside the folder: these need `batcher trust`, which stores a digest of exactly those settings in
the user's state folder. A setting of the command line, the environment or the user's own file needs no trust.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

from batcher import settings
from batcher.address import server_url, without_password
from batcher.errors import StorageError, UsageError

VARIABLE: Final = "BATCHER_TRUST"
"""Environment variable that trusts every project's settings, for containers."""
_TOKEN_FILE: Final = "token-file"  # noqa: S105 - an option
"""Needs trust only together with another API address: the default one cannot do anything with a stranger's file."""
_ALWAYS: Final = frozenset(("allow-audio-host", "allow-http", "api-url", "log-file", "metrics", "notify", "ping"))
_PATHS: Final = frozenset(("ledger", "out-dir"))
_YES: Final = frozenset(("1", "on", "true", "yes"))


def guarded(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The settings of a `batcher.toml` in `folder` that could send something elsewhere or write outside of it."""
    return {name: value for name, value in sorted(config.items()) if _is_guarded(name, value, folder)}


def _is_guarded(name: str, value: Any, folder: Path) -> bool:
    if name in _PATHS:
        return _leads_out(str(value), folder)
    return name == _TOKEN_FILE or (name in _ALWAYS and value is not False and value != settings.DEFAULT_URL)


def _leads_out(value: str, folder: Path) -> bool:
    try:
        return "://" in value or not (folder / value).resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):  # a circle of links, or a path that no file can have
        return True


def need_trust(config: Mapping[str, Any], folder: Path, keys: Collection[str], api_url: Any) -> None:
    """Refuse guarded settings of a project's file, unless the user trusts them.

    `keys` are those that the command would take from the file, and `api_url` the address that it would use.

    Raises:
        UsageError: there are such settings, and they are not trusted.
    """
    found = {name: value for name, value in guarded(config, folder).items() if name in keys}
    if api_url == settings.DEFAULT_URL:
        found.pop(_TOKEN_FILE, None)
    if found and not is_trusted(config, folder):
        raise UsageError(
            f"{folder / settings.FILE_NAME} can send your token or requests elsewhere, or write outside its folder, "
            f"and is not trusted: {listed(found)}",
            f"If you trust these settings, run: batcher trust {shlex.quote(str(folder))}",
        )


def listed(found: Mapping[str, Any]) -> str:
    """Guarded settings in one line, as the file has them."""
    shown = {name: json.dumps(public(value), default=str, ensure_ascii=False) for name, value in found.items()}
    return ", ".join(f"{name} = {value}" for name, value in shown.items())


def public(value: Any) -> Any:
    """The value of a setting without secrets; complete otherwise, since the user decides by it."""
    if isinstance(value, list):
        return [public(one) for one in value]
    return without_password(value) if isinstance(value, str) and server_url(value) is not None else value


def is_trusted(config: Mapping[str, Any], folder: Path) -> bool:
    """Whether the user has trusted exactly these guarded settings of this folder, or all through the environment."""
    if os.environ.get(VARIABLE, "").lower() in _YES:
        return True
    try:
        return _record(config, folder).is_file()
    except (UsageError, OSError):
        return False


def trust(config: Mapping[str, Any], folder: Path) -> Path:
    """Trust the guarded settings of this folder until one of them changes. Returns the file that records it.

    Raises:
        UsageError: the user has no home folder.
        StorageError: the state folder cannot be written.
    """
    record = _record(config, folder)
    lines = [
        str(folder.resolve()),
        *(f"{name} = {public(value)!r}" for name, value in guarded(config, folder).items()),
    ]
    try:
        record.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = record.with_name(f"{record.name}.{os.getpid()}.part")
        draft.write_text("\n".join([*lines, ""]), encoding="utf-8", errors="backslashreplace")
        draft.replace(record)
    except OSError as error:
        hint = f"Make that folder writable, or set {VARIABLE}=1."
        raise StorageError(f"cannot write {record.parent}: {error.strerror}", hint) from error
    return record


def _record(config: Mapping[str, Any], folder: Path) -> Path:
    """The file whose existence means that these settings are trusted; its content is for people."""
    content = json.dumps([os.fsencode(folder.resolve()).hex(), guarded(config, folder)], default=str, sort_keys=True)
    return _state_folder() / f"{hashlib.sha256(content.encode()).hexdigest()}.trusted"


def _state_folder() -> Path:
    base = os.environ.get("XDG_STATE_HOME", "")
    try:
        home = Path(base) if base.startswith("/") else Path.home() / ".local" / "state"
    except RuntimeError:
        raise UsageError("you have no home folder", f"Set HOME or XDG_STATE_HOME, or {VARIABLE}=1.") from None
    return home / "batcher"
