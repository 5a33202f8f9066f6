"""Paths of outputs within the output folder: which are valid, and that of a further take."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from batcher.manifest.faults import InvalidValueError, literal, without_controls

_PLAIN: Final = re.compile(r"\w[\w.-]{0,199}", re.ASCII)  # fast path: a plain file name
_DRIVE: Final = re.compile(r"[A-Za-z]:")
_RESULTS: Final = re.compile(r"[^/]*\.(results\.(jsonl|csv)|report\.(html|xlsx))", re.IGNORECASE)
_MAX_NAME_BYTES: Final = 249  # of 255: an unfinished file's name adds a dot and `.part`
_MAX_PATH_BYTES: Final = 1000  # leaves room for the path of the output folder


def path_of_take(path: str, take: int, before: int = 1) -> str:
    """The path of a take, derived from `path`, that of take `before`: `a/b.mp3`, `a/b.take2.mp3`, `a/b.take3.mp3`."""
    folder, slash, name = path.rpartition("/")
    stem, dot, ending = name.rpartition(".") if "." in name.strip(".") else (name, "", "")
    return f"{folder}{slash}{stem.removesuffix(f'.take{before}')}.take{take}{dot}{ending}"


def relative_path(path: str) -> str:
    """`path` in its simplest spelling, if it is inside the output folder and a valid file name."""
    relative = path if _PLAIN.fullmatch(path) else _normal_path(path)
    if _RESULTS.fullmatch(relative):
        raise InvalidValueError("reserved", f"{literal(path)} is reserved for results and reports: use another name")
    return relative


def _normal_path(path: str) -> str:
    parts = [part for part in unicodedata.normalize("NFC", path).split("/") if part not in ("", ".")]
    shown = literal(without_controls(path))
    if "\\" in path:
        raise InvalidValueError("backslash", f"{shown} contains a backslash: separate folders by /")
    if path.startswith("/") or _DRIVE.match(path):
        raise InvalidValueError("absolute", f"{shown} is an absolute path: write it relative to the output folder")
    if ".." in parts:
        raise InvalidValueError("outside", f"{shown} leaves the output folder: remove the ..")
    if path.endswith("/") or not parts:
        raise InvalidValueError("folder", f"{shown} is a folder: add the name of a file")
    if parts[0].startswith("."):
        reason = f"{shown} begins with a dot, which is reserved for unfinished files: remove it"
        raise InvalidValueError("dot", reason)
    if len(path.encode()) > _MAX_PATH_BYTES or any(len(part.encode()) > _MAX_NAME_BYTES for part in parts):
        limits = f"{_MAX_NAME_BYTES} bytes in a name and {_MAX_PATH_BYTES:,} in the path"
        raise InvalidValueError("long", f"{shown} is too long for a file: use at most {limits}")
    return "/".join(parts)
