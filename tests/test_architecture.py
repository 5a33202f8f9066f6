"""The package's shape, read off its source: who may import whom, and who alone touches what."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

LAYERS = [
    "__main__",
    "cli",
    "maintenance",
    "doctor",
    "pipeline",
    "reports",
    "audio",
    "ledger",
    "settings",
    "sandbox",
    "provider",
    "throttle",
    "manifest",
    "pacing",
    "clock",
    "formatting",
    "item",
    "errors",
]
"""Modules and folders of the package, the highest first: each imports only what stands below it."""

OWNERS = {
    "httpcore": "batcher.provider",
    "httpx": "batcher.provider",
    "sqlalchemy": "batcher.ledger",
    "alembic": "batcher.ledger",
    "tqdm": "batcher.reports.progress",
    "click": "batcher.cli",
    "jinja2": "batcher.reports.page",
    "python_calamine": "batcher.manifest",
    "xlsxwriter": "batcher.reports.table",
}
"""Libraries that one part of the package hides from all others."""


@cache
def sources(folder: str) -> dict[str, ast.Module]:
    """The modules below the folder by their dotted names, parsed."""
    found = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    assert found
    return found


def imports(name: str, tree: ast.Module) -> Iterator[str]:
    """What a module imports, at its top or within functions, by dotted names as exact as the package has modules."""
    known = sources("batcher")
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            module = node.module or ""
            yield from (full if (full := f"{module}.{alias.name}") in known else module for alias in node.names)


def inside(name: str, part: str) -> bool:
    """Whether the module is `part` or lies in it."""
    return name == part or name.startswith(f"{part}.")


def layer(name: str) -> int:
    """Where the module stands, counted from the top; the package itself, being empty, is below all."""
    parts = name.split(".")
    return LAYERS.index(parts[1]) if len(parts) > 1 else len(LAYERS)


def test_every_module_has_its_place() -> None:
    """The list of layers names every module and folder of the package, once, and nothing else."""
    there = {name.split(".")[1] for name in sources("batcher") if name != "batcher"}
    assert len(LAYERS) == len({*LAYERS})
    assert {*LAYERS} == there


@pytest.mark.parametrize("name", list(sources("batcher")))
def test_imports_go_downwards(name: str) -> None:
    """A module imports its own folder's modules and what stands below it, nothing above or beside."""
    ours = {one for one in imports(name, sources("batcher")[name]) if inside(one, "batcher")}
    upwards = {one for one in ours if layer(one) <= layer(name) and one.split(".")[:2] != name.split(".")[:2]}
    assert upwards == set()


def test_no_circles() -> None:
    """No module imports itself by any detour, within folders either, counting imports inside functions."""
    graph = {
        name: {one for one in imports(name, tree) if inside(one, "batcher")} - {name}
        for name, tree in sources("batcher").items()
    }
    assert set(TopologicalSorter(graph).static_order()) == set(graph)


@pytest.mark.parametrize(("library", "owner"), list(OWNERS.items()))
def test_one_importer(library: str, owner: str) -> None:
    """A library is imported by the part that hides it, and by that part alone."""
    users = {
        name for name, tree in sources("batcher").items() if any(inside(one, library) for one in imports(name, tree))
    }
    assert users
    assert {name for name in users if not inside(name, owner)} == set()


@pytest.mark.parametrize("name", list(sources("migrations")))
def test_migrations_stand_alone(name: str) -> None:
    """A migration means the same for ever: it imports nothing that changes with the package."""
    assert [one for one in imports(name, sources("migrations")[name]) if inside(one, "batcher")] == []


@pytest.mark.parametrize("words", ["print", "sys.stdout", "importlib.import_module", "__import__"])
def test_only_the_command_line_uses(words: str) -> None:
    """Nothing but the command line prints, takes hold of standard output, or imports by a name made at run time."""
    users = {
        name
        for name, tree in sources("batcher").items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Name | ast.Attribute) and ast.unparse(node) == words
    }
    assert {name for name in users if not inside(name, "batcher.cli")} == set()


def test_one_place_writes_the_state() -> None:
    """In the ledger only the machine sets an item's state by name."""
    writers = {
        name
        for name, tree in sources("batcher").items()
        if inside(name, "batcher.ledger")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "values"
        if any(keyword.arg == "state" for keyword in node.keywords)
    }
    assert writers == {"batcher.ledger.lifecycle.transitions"}
