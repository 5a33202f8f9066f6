"""Imported by the process from which `processes` forks: everything that a command may import."""

from __future__ import annotations

import gc
import importlib
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).parents[2]
_MODULES: Final = [
    ".".join(path.relative_to(_ROOT).with_suffix("").parts)
    for path in sorted((_ROOT / "batcher").rglob("*.py"))
    if path.stem not in ("__init__", "__main__")
]

for _name in ("anyio._backends._asyncio", "tests.support.killing", "tests.support.processes", *_MODULES):
    importlib.import_module(_name)
# Otherwise each command's first garbage collection would copy the memory of all that was imported.
gc.collect()
gc.freeze()
