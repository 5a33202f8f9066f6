"""Hosts of a test as network namespaces: each reaches the provider and the database by a link of its own."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

_OURS: Final = os.getpid() % 120
_NETWORKS: Final = (f"10.213.{_OURS}", f"10.213.{_OURS + 120}")
"""The networks of the provider and of the database. This machine has the first address of each."""
PROVIDER_ADDRESS, DATABASE_ADDRESS = (f"{network}.1" for network in _NETWORKS)
_NEW_NETWORK: Final = 0x40000000  # CLONE_NEWNET


@dataclass(frozen=True)
class Host:
    """A host: its namespace, and the link and the bridge by which it reaches the database."""

    namespace: str
    database_link: str
    database_bridge: str

    def enter(self) -> None:
        """Move this thread to the host, as for a process that begins."""
        with Path("/run/netns", self.namespace).open("rb") as file:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.setns(file.fileno(), _NEW_NETWORK) != 0:
                raise OSError(ctypes.get_errno(), "setns")

    def cut_off(self) -> None:
        """Let its packets to and from the database vanish: both ends keep their links and addresses."""
        _ip("link", "set", self.database_link, "nomaster")

    def rejoin(self) -> None:
        """End what `cut_off` began."""
        _ip("link", "set", self.database_link, "master", self.database_bridge)


@contextmanager
def hosts(number: int) -> Iterator[list[Host]]:
    """Hosts that reach this machine by both networks; skips the test where namespaces cannot be made."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and the program ip")
    mark = uuid.uuid4().hex[:6]
    bridges = [f"bt{mark}{letter}" for letter in "pd"]
    made: list[Host] = []
    try:
        for bridge, network in zip(bridges, _NETWORKS, strict=True):
            _bridge(bridge, f"{network}.1/24")
        for n in range(number):
            made.append(Host(f"bt{mark}{n}", f"{bridges[1]}{n}", bridges[1]))
            _add(made[-1].namespace, bridges, n)
        yield made
    finally:
        for host in made:
            subprocess.run(["ip", "netns", "del", host.namespace], check=False, capture_output=True)
        for bridge in bridges:
            subprocess.run(["ip", "link", "del", bridge], check=False, capture_output=True)


def _bridge(name: str, address: str) -> None:
    made = subprocess.run(["ip", "link", "add", name, "type", "bridge"], check=False, capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no bridge can be made here: {made.stderr}")
    _ip("addr", "add", address, "dev", name)
    _ip("link", "set", name, "up")


def _add(namespace: str, bridges: list[str], number: int) -> None:
    _ip("netns", "add", namespace)
    _ip("-n", namespace, "link", "set", "lo", "up")
    for bridge, network in zip(bridges, _NETWORKS, strict=True):
        outer, inner = f"{bridge}{number}", bridge
        _ip("link", "add", outer, "type", "veth", "peer", "name", inner, "netns", namespace)
        _ip("link", "set", outer, "master", bridge, "up")
        _ip("-n", namespace, "addr", "add", f"{network}.{number + 2}/24", "dev", inner)
        _ip("-n", namespace, "link", "set", inner, "up")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
