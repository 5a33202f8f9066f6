"""Names of outputs: their paths, and the format that a file name's extension stands for."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Mapping
from typing import Any, Final

from batcher.item import FORMATS, Inputs
from batcher.manifest import limits
from batcher.manifest.faults import CONTROLS, Faults, InvalidValueError, literal, printable, without_controls

TEMPLATE_FIELDS: Final = ("id", "row", "voice", "take", "format", "batch", "key")
"""The fields of a file name template (`--filename`)."""
DEFAULT_FORMAT: Final = "mp3"
"""The format of a row whose file name has no extension and for which none is given."""

_EXTENSIONS: Final[dict[str, tuple[str, ...]]] = {name: (name,) for name in FORMATS} | {
    "wave": ("wav",),
    "raw": ("pcm",),
    "ogg": ("ogg", "opus"),
    "oga": ("ogg", "opus"),
}
"""Formats that a file with this extension may have; the first is used where no format is given."""
_OTHER_AUDIO: Final = frozenset(
    ("aac", "ac3", "aif", "aiff", "alac", "amr", "caf", "flac", "m4a", "m4b", "m4r", "mka", "mp2", "mp4", "webm", "wma")
)
"""Extensions of audio that the API does not make."""
_UNSAFE: Final = re.compile(rf'[/\\:*?"<>|{CONTROLS}]|^\.+')
_PLAIN: Final = re.compile(r"\w[\w.-]{0,199}", re.ASCII)  # fast path: a plain file name
_DRIVE: Final = re.compile(r"[A-Za-z]:")
_RESULTS: Final = re.compile(r"[^/]*\.(results\.(jsonl|csv)|report\.(html|xlsx))", re.IGNORECASE)
_WIDE: Final = re.compile(r"\d{4}")
_MAX_NAME_BYTES: Final = 249  # of 255: an unfinished file's name adds a dot and `.part`
_MAX_PATH_BYTES: Final = 1000  # leaves room for the path of the output folder


class OutputNames:
    """Determines the path of each row's output, by the `output` that it gives or by the template.

    `template` is that of `--filename`. A template that cannot be used is a fatal fault, added once.
    """

    def __init__(self, template: str, batch: str, faults: Faults) -> None:
        self._template = template
        self._batch = batch
        self._fields = self._checked_template(faults)
        self._ending = _extension(template)

    def format_of(self, values: Mapping[str, Any]) -> str | None:
        """The format that the extension of the row's `output` stands for, or else that of its name by the template.

        None if there is none.
        """
        formats = _EXTENSIONS.get(_extension(self._named_by(values)), ())
        return formats[0] if formats else None

    def is_exact(self, values: Mapping[str, Any], audio_format: str) -> bool:
        """Whether the path ends in an extension of the format without one being added or removed."""
        if "output" in values:
            return audio_format in _EXTENSIONS.get(_extension(values["output"]), ())
        return self._template.endswith(".{format}") and _extension(values.get("id", "")) not in _EXTENSIONS

    def _named_by(self, values: Mapping[str, Any]) -> str:
        """The value whose extension is, or would be, that of the output."""
        if "output" in values:
            return str(values["output"])
        if self._ending in _EXTENSIONS or self._ending in _OTHER_AUDIO:
            return self._template
        return str(values.get("id", "")) if "id" in (self._fields or ()) else ""

    def path(self, number: int, values: Mapping[str, Any], inputs: Inputs | None, *, exact: bool) -> str:
        """The path of the output of row `number` with these values; "" if it cannot be known without its inputs.

        The path ends in an extension of the row's format: a missing one is added, and one that the id has is not
        repeated. `exact` leaves it as it is, as versions before 0.2 did.

        Raises:
            InvalidValueError: the path cannot be used, or its extension is not one of the row's format.
        """
        path = values.get("output") or self._from_template(number, values, inputs, exact=exact)
        if not path:
            return ""
        if not exact:
            _relative(path)  # of a folder or a reserved name, an extension would make a file
            path = _with_extension(path, values["format"])
        return _relative(path)

    def _from_template(self, number: int, values: Mapping[str, Any], inputs: Inputs | None, *, exact: bool) -> str:
        if self._fields is None:
            return ""
        known = {**values, "row": number, "batch": self._batch}
        if "key" in self._fields and inputs is not None:
            known["key"] = inputs.key()
        if not exact and "format" in self._fields and "id" in values:
            known["id"] = _without_extension(values["id"], values["format"])
        shown: dict[str, Any] = {}
        for name in self._fields:
            value = known.get(name)
            if value is None:
                return ""
            shown[name] = value if not isinstance(value, str) or value.isalnum() else _UNSAFE.sub("_", value)
        return self._template.format_map(shown)

    def _checked_template(self, faults: Faults) -> list[str] | None:
        """The fields that the template uses; None, and a fault, if it is invalid."""
        template = self._template
        sample = dict.fromkeys(TEMPLATE_FIELDS, "x") | {"row": 1, "take": 1}
        try:
            parts = list(string.Formatter().parse(template))
            used = [name for _, name, _, _ in parts if name is not None]
            for name in used:
                if name not in TEMPLATE_FIELDS:
                    raise ValueError(f"there is no field {{{printable(name)}}}")
            if any("{" in (spec or "") for _, _, spec, _ in parts):
                raise ValueError("a format cannot contain braces")
            if any(_WIDE.search(spec or "") for _, _, spec, _ in parts):
                raise ValueError("the width or precision of a field has at most three digits")
            template.format_map(sample)
        except ValueError as error:
            fields = ", ".join(TEMPLATE_FIELDS)
            reason = f"--filename {literal(template)} cannot be used: {error}; the fields are {fields}"
            faults.add(None, None, reason, cause="filename", fatal=True)
            return None
        return used


def former_path(path: str, take: int) -> str:
    """The path that versions before 0.2 gave to a later take of a row whose path is `path`: `a/b.take2.mp3`."""
    if take == 1:
        return path
    folder, slash, name = path.rpartition("/")
    stem, dot, ending = name.rpartition(".") if "." in name.strip(".") else (name, "", "")
    return f"{folder}{slash}{stem.removesuffix('.take1')}.take{take}{dot}{ending}"


def is_audio_file(name: str) -> bool:
    """Whether the name has the extension of an audio file."""
    extension = _extension(name)
    return extension in _EXTENSIONS or extension in _OTHER_AUDIO


def _extension(path: str) -> str:
    """The extension in lower case, without the dot; "" if there is none."""
    stem, _, ending = path.rpartition("/")[2].rpartition(".")
    return ending.lower() if stem else ""


def _without_extension(name: str, audio_format: str) -> str:
    """`name` without its extension, if that is one of the format."""
    return name.rpartition(".")[0] if audio_format in _EXTENSIONS.get(_extension(name), ()) else name


def _with_extension(path: str, audio_format: str) -> str:
    """`path` with an extension of the format.

    Raises:
        InvalidValueError: it has that of another audio format.
    """
    extension = _extension(path)
    if audio_format in _EXTENSIONS.get(extension, ()):
        return path
    if extension in _EXTENSIONS:
        reason = f"{literal(path)} ends in .{extension}, but the format is {audio_format}: change one of them"
        raise InvalidValueError("other format", reason)
    if extension in _OTHER_AUDIO:
        choices = f"{', '.join(f'.{name}' for name in FORMATS[:-1])} or .{FORMATS[-1]}"
        reason = f"{literal(path)} ends in .{extension}, which the API does not make: use {choices}"
        raise InvalidValueError("no format", reason)
    return f"{path}.{audio_format}"


def _relative(path: str) -> str:
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
    if len(parts) > limits.MAX_FOLDERS + 1:
        raise InvalidValueError("folders", f"{shown} is in more than {limits.MAX_FOLDERS} folders: use fewer")
    if ".." in parts:
        raise InvalidValueError("outside", f"{shown} leaves the output folder: remove the ..")
    if path.endswith("/") or not parts:
        raise InvalidValueError("folder", f"{shown} is a folder: add the name of a file")
    if parts[0].startswith("."):
        reason = f"{shown} begins with a dot, which is reserved for unfinished files: remove it"
        raise InvalidValueError("dot", reason)
    if len(path.encode()) > _MAX_PATH_BYTES or any(len(part.encode()) > _MAX_NAME_BYTES for part in parts):
        most = f"{_MAX_NAME_BYTES} bytes in a name and {_MAX_PATH_BYTES:,} in the path"
        raise InvalidValueError("long", f"{shown} is too long for a file: use at most {most}")
    return "/".join(parts)
