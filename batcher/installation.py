"""How batcher was installed, and the commands that change that installation and no other."""

from __future__ import annotations

import importlib.util
import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_NAME: Final = "tts-batcher"


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """The environment `prefix` of the interpreter `python`, which may lack pip.

    `url` is where batcher came from, if that was not an index; `editable`: it runs from the folder there.
    """

    python: str
    prefix: Path
    has_pip: bool = True
    url: str | None = None
    editable: bool = False

    def install(self, extra: str) -> str:
        """The command that adds an extra."""
        if self._is_pipx:
            return self._joined("pipx", "install", "--force", self._requirement(extra))
        if self._is_uv_tool:
            return self._joined("uv", "tool", "install", self._requirement(extra))
        return self._joined(*self._pip, f"{_NAME}[{extra}]")

    def repair(self, package: str, *, extra: str) -> str:
        """The command that installs a package of an extra again."""
        if self._is_pipx:
            return self.install(extra)
        if self._is_uv_tool:
            return self._joined("uv", "tool", "install", "--reinstall", self._requirement(extra))
        return self._joined(*self._pip, "--force-reinstall" if self.has_pip else "--reinstall", package)

    def upgrade(self) -> str:
        """The command that installs the latest version."""
        if self._is_pipx:
            return self._joined("pipx", "upgrade", _NAME)
        if self._is_uv_tool:
            return self._joined("uv", "tool", "upgrade", _NAME)
        source = [_NAME] if self.url is None else ["-e"] * self.editable + [self.url]
        return self._joined(*self._pip, "-U", *source)

    @property
    def _is_pipx(self) -> bool:
        return (self.prefix / "pipx_metadata.json").exists()

    @property
    def _is_uv_tool(self) -> bool:
        return (self.prefix / "uv-receipt.toml").exists()

    @property
    def _pip(self) -> list[str]:
        if self.has_pip:
            return [self.python, "-m", "pip", "install"]
        return ["uv", "pip", "install", "--python", self.python]

    def _requirement(self, extra: str) -> str:
        return f"{_NAME}[{extra}]" + (f" @ {self.url}" if self.url else "")

    def _joined(self, *words: str) -> str:
        # Quoted in any case, as people know it: some shells expand brackets.
        return " ".join(f"'{word}'" if "[" in word else shlex.quote(word) for word in words)


def this_installation() -> Installation:
    """The installation that runs this program."""
    origin = _origin()
    return Installation(
        python=sys.executable,
        prefix=Path(sys.prefix),
        has_pip=importlib.util.find_spec("pip") is not None,
        url=origin.get("url"),
        editable=bool(origin.get("dir_info", {}).get("editable")),
    )


def _origin() -> dict[str, Any]:
    """Where batcher was installed from, by the standard record of installers; {} if from an index, or unknown."""
    import importlib.metadata  # slow to import, and every command imports this module

    try:
        text = importlib.metadata.distribution(_NAME).read_text("direct_url.json")
        found = json.loads(text or "{}")
    except (importlib.metadata.PackageNotFoundError, OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
