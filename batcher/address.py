"""Where a ledger is: in a file, or in a database of a server."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

_SCHEME: Final = re.compile(r"postgres(ql)?(\+psycopg)?://", re.IGNORECASE)
_PASSWORD: Final = re.compile(r"(?<=://)[^@:/]*:(.+)@|[?&](?:ssl)?password=([^&]+)", re.IGNORECASE)
_LEAST_SECRET: Final = 8
"""Characters of a password, at least, that is removed from messages: removing less would garble ordinary words."""
_SHOWN: Final = frozenset(
    {
        *("dbname", "host", "hostaddr", "options", "port", "service", "target_session_attrs", "user"),
        *("application_name", "connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval"),
        *("channel_binding", "passfile", "sslcert", "sslkey", "sslmode", "sslnegotiation", "sslrootcert"),
    }
)
"""Options of a URL that say where the database is and how to reach it. No others are shown: they may be secrets."""


@dataclass(frozen=True, slots=True)
class Server:
    """A PostgreSQL database. `home` is the project folder, to which the paths in the ledger are relative; this host
    keeps its own files there."""

    url: str = field(repr=False)
    home: Path

    def __str__(self) -> str:
        """The URL without secrets: a value of `--ledger`, to which the user adds any password."""
        address = _SCHEME.sub("", self.url)
        secrets, _, rest = address.partition("@") if _has_user(address) else ("", "", address)
        place, _, options = rest.partition("?")
        if "@" in options:  # what is before another @ may be part of a password
            options = ""
        user, shown = secrets.partition(":")[0], _shown(options)
        return f"postgresql://{user}{'@' if secrets else ''}{place.rpartition('@')[2]}{'?' if shown else ''}{shown}"

    def without_secrets(self, message: str) -> str:
        """A message of the server without the password of the URL or of the environment, which it knows."""
        found = ["".join(one) for one in _PASSWORD.findall(self.url)]
        parts = {part for one in found for part in (one, *one.split("@"))}  # libpq may end a password at any @
        secrets = parts | set(map(unquote, parts)) | {os.environ.get("PGPASSWORD", "")}
        for secret in sorted(secrets, key=len, reverse=True):
            if len(secret) >= _LEAST_SECRET:
                message = message.replace(secret, "***")
        return message


def _has_user(address: str) -> bool:
    """Whether the driver reads a user, and perhaps a password, which may contain `?` and `#`, up to the first @."""
    return "@" in address.partition("/")[0]


def _shown(options: str) -> str:
    """Those options of a URL that are no secrets."""
    return "&".join(one for one in options.split("&") if one.partition("=")[0] in _SHOWN)


Address = Path | Server
"""A ledger's address: the path of an SQLite file, or a server."""


def home_of(address: Address) -> Path:
    """The folder to which the paths in the ledger are relative."""
    return address.home if isinstance(address, Server) else address.parent


def option_of(address: Address) -> str:
    """The value of `--ledger` that names it, with any password."""
    return address.url if isinstance(address, Server) else str(address)


def spill_file(address: Address, ledger_id: str, run_id: str) -> Path:
    """The path of the file in which this host keeps answers that the ledger did not take.

    Each run on a server has its own. A project folder can have several ledgers, and the URL does not tell those on
    servers apart: a server has several names.
    """
    if isinstance(address, Server):
        return address.home / f"batcher-{ledger_id}-{run_id}.spill"
    return address.with_name(f"{address.name}.spill")


def intents_file(server: Server, ledger_id: str, run_id: str) -> Path:
    """The path of the file in which this host keeps what the run was about to create."""
    return server.home / f"batcher-{ledger_id}-{run_id}.intents"


def intents_files(server: Server, ledger_id: str) -> dict[str, Path]:
    """Such files of this host, by the run that wrote them."""
    return _files_of_runs(server, ledger_id, "intents")


def spill_files(address: Address, ledger_id: str) -> dict[str, Path]:
    """The files of this host that may have such answers, by the run that wrote them ("" for a ledger's file)."""
    if not isinstance(address, Server):
        return {"": spill_file(address, "", "")}
    return _files_of_runs(address, ledger_id, "spill")


def _files_of_runs(server: Server, ledger_id: str, ending: str) -> dict[str, Path]:
    start = f"batcher-{ledger_id}"
    return {path.stem[len(start) + 1 :]: path for path in sorted(server.home.glob(f"{start}*.{ending}"))}


def without_password(value: str) -> str:
    """A value of an option as it may be shown: without what may be a secret in the URL of a server, and `URL` for
    others with a user."""
    if (url := server_url(value)) is not None:
        return str(Server(url, Path()))
    return "URL" if "://" in value and _names_user(value) else value


def _names_user(url: str) -> bool:
    try:
        return "@" in urlsplit(url).netloc
    except ValueError:
        return True


def has_secret(value: str) -> bool:
    """Whether a value of an option is a URL that contains something that may be a secret."""
    return without_password(value) != (server_url(value) or value)


def server_url(value: str) -> str | None:
    """The URL of a server in the form that its driver reads, or None if `value` is not one."""
    scheme = _SCHEME.match(value)
    return None if scheme is None else f"postgresql://{value[scheme.end() :]}"
