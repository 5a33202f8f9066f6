"""A run's settings, validated and frozen, and parsers for values that flags, environment and `batcher.toml` share."""

from __future__ import annotations

import math
import os
import re
import shlex
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

from batcher import files
from batcher.address import Address, Server, home_of, server_url, without_password
from batcher.errors import CredentialsError, ManifestError, UsageError
from batcher.formatting import one_line
from batcher.manifest.faults import printable
from batcher.manifest.rules import Rules

DEFAULT_URL: Final = "https://fishaudio.org/api/open/v1"
NEW_CREDENTIALS: Final = (
    "Set a valid token in BATCHER_API_TOKEN, or pass --token-file FILE; "
    "create one at https://fishaudio.org/en/account?section=api."
)
"""What to do about a missing or rejected token."""
RESULT_FORMATS: Final = ("jsonl", "csv")
"""The formats of results files; `ledger recover` and `--restored` read the first."""
OBJECT_STORES: Final = ("s3", "gs", "az")
"""Schemes of URLs of object stores."""
FILE_NAME: Final = "batcher.toml"
SANDBOX_CONCURRENCY: Final = 20
"""Default of `--concurrency` with `--sandbox`, whose tasks take about a second each."""
_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,221}")
_DURATION: Final = re.compile(r"(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,9})s?)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One manifest of a run and the rules for reading it: the file at `path`, or else `content`, called `title`.

    Without either, `content` is still to be read from standard input.
    """

    path: Path | None
    rules: Rules
    content: BinaryIO | None = field(default=None, repr=False, compare=False)
    title: str = "<stdin>"

    @property
    def label(self) -> str:
        """The manifest as it was named on the command line."""
        return str(self.path) if self.path is not None else self.title


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One run's settings. The token never appears in `repr`."""

    sources: tuple[Source, ...]
    ledger: Address
    out_dir: Path | str  # a URL of an object store
    sandbox: bool = False
    api_url: str = DEFAULT_URL
    token: str | None = field(default=None, repr=False)
    allow_http: bool = False
    audio_hosts: frozenset[str] = frozenset()  # permitted although they are not at public addresses
    no_credits_codes: frozenset[str] = frozenset()
    concurrency: int = 5
    create_rate: float | None = None  # maximum requests per second
    poll_rate: float | None = None
    only: tuple[str, ...] = ()  # ids of the rows that the run works on; none: all
    sample: int | None = None  # items of a sample that the run works on
    max_items: int | None = None
    max_credits: float | None = None
    max_in_doubt: int = 5
    max_runtime_seconds: float | None = None
    wait: bool = True
    collect_only: bool = False
    override_halt: bool = False
    rebuy: bool = False
    rename: bool = False
    refilter: bool = False
    allow: frozenset[str] = frozenset()  # types of markup that are bought as they are
    restored: bool = False
    rescan: bool = False
    results: tuple[str, ...] = RESULT_FORMATS
    wait_lock_seconds: float = 0.0
    command: tuple[str, ...] = ("batcher", "run")  # the command line, for suggesting another

    def __post_init__(self) -> None:
        """Check the paths, which the ledger and the reports hold as text.

        Raises:
            UsageError: the name of a file or a folder is not UTF-8.
        """
        for path in (self.home, self.out_dir, *(source.path.absolute() for source in self.sources if source.path)):
            if not _is_text(str(path)):
                shown = str(path).encode(errors="backslashreplace").decode()
                raise UsageError(f"the name is not UTF-8: {shown}", "Rename that file or folder; nothing was created.")

    @property
    def home(self) -> Path:
        """The folder to which the paths in the ledger are relative."""
        return home_of(self.ledger)

    @property
    def world(self) -> Literal["real", "sandbox"]:
        """Which API the ledger must belong to."""
        return "sandbox" if self.sandbox else "real"

    @property
    def other_api(self) -> str | None:
        """Origin of the API, without a password that the URL may contain; None for the default one and the sandbox."""
        if self.sandbox or self.api_url == DEFAULT_URL:
            return None
        scheme, _, rest = self.api_url.partition("://")
        return printable(f"{scheme}://{rest.partition('/')[0].rpartition('@')[2]}")

    @property
    def ledger_options(self) -> str:
        """The command-line options that select this ledger and its API in other commands."""
        url = without_password(self.api_url)
        api = "" if self.sandbox or self.api_url == DEFAULT_URL else f" --api-url {shlex.quote(url)}"
        return f"--ledger {shlex.quote(str(self.ledger))}{api}"

    def ways_out(self, error: ManifestError) -> list[str]:
        """What to do about the error, line by line: the command that it suggests, then its hint."""
        lines = [error.hint] if error.hint else []
        if error.suggestion is None:
            return lines
        command = changed_command(self.command, error.suggestion.options)
        return [error.suggestion.when, f"  {command}", *lines]

    def require_token(self) -> str:
        """The token.

        Raises:
            CredentialsError: there is none.
        """
        if not self.token:
            raise CredentialsError("no API token", f"{NEW_CREDENTIALS} To try batcher without a token, add --sandbox.")
        return self.token


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def project_folder(manifest: Path | None) -> Path:
    """The manifest's folder, or the current one for standard input."""
    return (manifest.parent if manifest is not None else Path()).absolute()


def ledger_address(value: str | None, folder: Path, *, sandbox: bool) -> Address:
    """Resolve `--ledger`; without it, the ledger of the project folder. Follows symbolic links.

    Raises:
        UsageError: the value is the URL of neither an SQLite file nor a PostgreSQL database.
    """
    if value is None:
        return files.resolved(folder / ("batcher-sandbox.db" if sandbox else "batcher.db"))
    if (url := server_url(value)) is not None:
        return Server(url, files.resolved(folder))
    if "://" in value:
        if not value.startswith("sqlite:///"):
            scheme = value.partition(":")[0]
            raise UsageError(
                f"unsupported ledger {scheme}://…", "Pass a path, sqlite:///PATH or postgresql://HOST/DATABASE."
            )
        value = value.removeprefix("sqlite:///")
    return files.resolved(Path(value).expanduser())


def folder_of_ledger(value: str | None) -> Path:
    """The project folder of the ledger that `--ledger` names: its own folder, or the current one."""
    return home_of(ledger_address(value, Path(), sandbox=False)) if value is not None else Path().absolute()


def output_folder(value: str | Path) -> Path | str:
    """Resolve `--out-dir`: a path, or the URL of a prefix in an object store.

    Raises:
        UsageError: it is a URL, but not of an object store; or it contains credentials, or parts that a path of an
            object cannot have.
    """
    if not files.is_url(str(value)):
        return files.resolved(Path(value))
    scheme, _, rest = str(value).partition("://")
    rest = rest.rstrip("/")
    bucket, *parts = rest.split("/")
    hint = "Pass a folder, or s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX."
    if "@" in rest or ":" in bucket:  # and a password is not shown
        hint = "Credentials belong in the environment; see `batcher help objects`."
        raise UsageError("the URL of --out-dir contains more than a bucket and a prefix", hint)
    if scheme not in OBJECT_STORES:
        raise UsageError(f"--out-dir: unsupported address {printable(scheme)}://…", hint)
    if not _BUCKET.fullmatch(bucket) or not all(map(_is_path_part, parts)):
        raise UsageError(f"--out-dir: {printable(str(value))} is not a bucket with a prefix", hint)
    return f"{scheme}://{rest}"


def _is_path_part(part: str) -> bool:
    return part not in ("", ".", "..") and part.isprintable() and not set(part) & set("?#%\\")


def changed_command(command: Sequence[str], options: Mapping[str, Sequence[str]]) -> str:
    """The command line with these values for the options, in the place of its own; without passwords and control
    characters. An option without values is a flag."""
    words, kept = iter(command), []
    for word in words:
        if options.get(word):
            next(words, None)
        elif word.partition("=")[0] not in options:
            kept.append(_shown(word))
    added: list[str] = []
    for name, values in options.items():
        added += [part for value in values for part in (name, value)] or [name]
    return "".join(char if char.isprintable() else "?" for char in shlex.join([*kept, *added]))


def _shown(word: str) -> str:
    option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    return f"{option}{equals}{without_password(value)}"


def duration(text: str) -> float:
    """Parse `90`, `90s`, `50m`, `2h` or `1h30m` into seconds.

    Raises:
        ValueError: it is not a duration.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None or not any(match.groups()):
        raise ValueError(f"{text!r} is not a duration: write 90s, 50m or 1h30m")
    hours, minutes, seconds = (int(group or 0) for group in match.groups())
    return float(hours * 3600 + minutes * 60 + seconds)


def rate(value: Any) -> float:
    """A number of requests per second, above 0 and finite.

    Raises:
        ValueError: it is none.
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = 0.0
    if not 0 < number < math.inf:
        raise ValueError(f"{value!r} is not a number above 0")
    return number


def duration_text(seconds: float) -> str:
    """The duration as `duration` reads it: `90s`, `50m`, `2h`. Fractions of a second are dropped."""
    whole = int(seconds)
    for unit, size in (("h", 3600), ("m", 60)):
        if whole and whole % size == 0:
            return f"{whole // size}{unit}"
    return f"{whole}s"


def column_choice(text: str) -> tuple[str, str]:
    """Parse `FIELD=HEADER` into field and header.

    Raises:
        ValueError: the field or the `=` is missing.
    """
    name, equals, header = text.partition("=")
    if not equals or not name.strip():
        raise ValueError(f"{text!r} is not FIELD=HEADER: write for example text=Script")
    return name.strip(), header.strip()


def batch_name(name: str) -> str:
    """`name`, if it is valid as the name of a batch and of its results files.

    Raises:
        UsageError: it is not.
    """
    if not name or name.startswith(".") or any(char in '/\\:*?"<>|' or not char.isprintable() for char in name):
        raise UsageError(f"{name!r} is not a valid batch name", "Pass --batch NAME with letters, digits, - and _.")
    return name


def token_from_environment() -> str | None:
    """The API token from the environment, if set."""
    return os.environ.get("BATCHER_API_TOKEN")


def read_token(token: str | None, file: Path | None) -> str | None:
    """The token given directly, or else the first line of the token file.

    Raises:
        UsageError: the file cannot be read, or its content is not a token.
    """
    if not (token or "").strip() and file is not None:
        try:
            token = files.read_config(file).decode().strip().partition("\n")[0]
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not a UTF-8 text file"
            raise UsageError(f"cannot read the token from {file}: {why}") from None
    token = (token or "").strip()
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        raise UsageError("the API token contains invalid characters", "Copy it again, without quotes.")
    return token or None


def read_file(folder: Path) -> dict[str, Any]:
    """Parse `batcher.toml` in a folder; {} if it does not exist.

    Raises:
        UsageError: it cannot be read or is not valid TOML.
    """
    path = folder / FILE_NAME
    try:
        return tomllib.loads(files.read_config(path).decode())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", "Fix or remove it.") from None
    except (ValueError, RecursionError) as error:  # of TOML, UTF-8, numbers and nesting
        raise UsageError(f"{path}: {one_line(str(error))}") from None


def user_folder() -> Path | None:
    """The folder of the user's own `batcher.toml`: `XDG_CONFIG_HOME`, or `~/.config`; None without a home folder."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    try:
        return Path(base) if base.startswith("/") else Path.home() / ".config"
    except RuntimeError:
        return None


def string_table(table: Any, name: str, path: Path) -> Mapping[str, str]:
    """Check that `table`, such as `[voices]` in `batcher.toml`, maps names to strings; {} if it is None.

    Raises:
        UsageError: it does not.
    """
    if table is None:
        return {}
    if not isinstance(table, dict) or not all(isinstance(value, str) for value in table.values()):
        raise UsageError(f"{path}: [{name}] must be a table of strings", "Put each of its values in quotes.")
    return table
