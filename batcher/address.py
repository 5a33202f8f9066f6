"""Where a ledger is: in a file, or in a database of a server."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

_SCHEME: Final = re.compile(r"postgres(ql)?(\+psycopg)?://", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Server:
    """A PostgreSQL database. `home` is the project folder, to which the paths in the ledger are relative; this host
    keeps its own files there."""

    url: str = field(repr=False)
    home: Path

    def __str__(self) -> str:
        """The URL without password and options."""
        found = urlsplit(self.url)
        user, at, host = found.netloc.rpartition("@")
        return f"postgresql://{user.partition(':')[0]}{at}{host}{found.path}"


Address = Path | Server
"""A ledger's address: the path of an SQLite file, or a server."""


def home_of(address: Address) -> Path:
    """The folder to which the paths in the ledger are relative."""
    return address.home if isinstance(address, Server) else address.parent


def option_of(address: Address) -> str:
    """The value of `--ledger` that names it, with any password."""
    return address.url if isinstance(address, Server) else str(address)


def local_file(address: Address, ending: str) -> Path:
    """The path of a file that this host keeps for the ledger, such as `batcher.db.spill`."""
    path = address.home / "batcher.db" if isinstance(address, Server) else address
    return path.with_name(f"{path.name}.{ending}")


def without_password(value: str) -> str:
    """A value of `--ledger` as it may be shown."""
    url = server_url(value)
    return value if url is None else str(Server(url, Path()))


def server_url(value: str) -> str | None:
    """The URL of a server in the form that its driver reads, or None if `value` is not one."""
    scheme = _SCHEME.match(value)
    return None if scheme is None else f"postgresql://{value[scheme.end() :]}"
