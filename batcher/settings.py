"""What a run was asked to do, checked and frozen; and the parsing of the values that flags, environment and
`batcher.toml` share."""

from __future__ import annotations

import os
import re
import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from batcher.errors import CredentialsError, UsageError
from batcher.manifest.rows import Rules

DEFAULT_URL: Final = "https://fishaudio.org/api/open/v1"
FILE_NAME: Final = "batcher.toml"
_DURATION: Final = re.compile(r"(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,9})s?)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One manifest to be run (`path` None: standard input) and the rules it is read by."""

    path: Path | None
    rules: Rules

    @property
    def name(self) -> str:
        """How the ledger calls where the batch came from."""
        return str(self.path.absolute()) if self.path is not None else "<stdin>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One run's settings. The token never shows in a `repr`."""

    sources: tuple[Source, ...]
    ledger: Path
    out_dir: Path
    sandbox: bool = False
    api_url: str = DEFAULT_URL
    token: str | None = field(default=None, repr=False)
    allow_http: bool = False
    no_credits_codes: frozenset[str] = frozenset()
    concurrency: int = 5
    create_rate: float | None = None  # requests per second at most
    poll_rate: float | None = None
    max_items: int | None = None
    max_credits: float | None = None
    max_in_doubt: int = 5
    max_runtime_seconds: float | None = None
    wait: bool = True
    collect_only: bool = False
    override_halt: bool = False
    rebuy: bool = False
    restored: bool = False
    rescan: bool = False
    wait_lock_seconds: float = 0.0

    @property
    def world(self) -> Literal["real", "sandbox"]:
        """The world that the ledger must belong to."""
        return "sandbox" if self.sandbox else "real"

    @property
    def where(self) -> str:
        """The options that lead other commands to this ledger and its API."""
        api = "" if self.sandbox or self.api_url == DEFAULT_URL else f" --api-url {shlex.quote(self.api_url)}"
        return f"--ledger {shlex.quote(str(self.ledger))}{api}"

    def need_token(self) -> str:
        """The token.

        Raises:
            CredentialsError: there is none.
        """
        if not self.token:
            raise CredentialsError(
                "no API token",
                "Set BATCHER_API_TOKEN, or name a file with --token-file; to try without one, add --sandbox.",
            )
        return self.token


def duration(text: str) -> float:
    """Seconds of `90`, `90s`, `50m`, `2h` or `1h30m`.

    Raises:
        ValueError: it is none of these.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None or not any(match.groups()):
        raise ValueError(f"{text!r} is not a duration: write 90s, 50m or 1h30m")
    hours, minutes, seconds = (int(group or 0) for group in match.groups())
    return float(hours * 3600 + minutes * 60 + seconds)


def column_choice(text: str) -> tuple[str, str]:
    """Field and header of `FIELD=HEADER`.

    Raises:
        ValueError: there is no `=`.
    """
    name, equals, header = text.partition("=")
    if not equals or not name.strip():
        raise ValueError(f"{text!r} is not FIELD=HEADER")
    return name.strip(), header.strip()


def batch_name(name: str) -> str:
    """`name`, when it can name a batch and the files of its results.

    Raises:
        UsageError: it cannot.
    """
    if not name or name.startswith(".") or any(char in '/\\:*?"<>|' or not char.isprintable() for char in name):
        raise UsageError(f"{name!r} cannot name a batch", "Pass --batch NAME, with letters, digits, - and _.")
    return name


def token_from_environment() -> str | None:
    """The API token, where the environment gives it."""
    return os.environ.get("BATCHER_API_TOKEN")


def read_token(token: str | None, file: Path | None) -> str | None:
    """The token itself, or else the first line of the file that holds it.

    Raises:
        UsageError: the file cannot be read, or what it holds cannot be a token.
    """
    if not (token or "").strip() and file is not None:
        try:
            token = file.read_text(encoding="utf-8").strip().partition("\n")[0]
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not text"
            raise UsageError(f"cannot read the token from {file}: {why}") from None
    token = (token or "").strip()
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        raise UsageError("the API token holds characters that no token has", "Copy it again, without quotes.")
    return token or None


def read_file(folder: Path) -> dict[str, Any]:
    """What `batcher.toml` in the project folder says; nothing when there is none.

    Raises:
        UsageError: it cannot be read.
    """
    path = folder / FILE_NAME
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        return {}
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {error}") from None


def words(table: Any, name: str, path: Path) -> Mapping[str, str]:
    """A table of strings in `batcher.toml`, such as `[voices]`.

    Raises:
        UsageError: it is not one.
    """
    if table is None:
        return {}
    if not isinstance(table, dict) or not all(isinstance(value, str) for value in table.values()):
        raise UsageError(f"{path}: [{name}] must map words to words, each in quotes")
    return table
