"""The structure of the package, read from its source: which part imports which, and which part owns what."""

from __future__ import annotations

import ast
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

LAYERS = {
    "batcher": [
        "__main__",
        "cli",
        "api",
        "project",
        "project_run",
        "row_output",
        "row_input",
        "options",
        "run_settings",
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
        "log",
        "formatting",
        "installation",
        "address",
        "item",
        "files",
        "errors",
    ],
    "batcher.ledger": ["imports", "recovery", "ledger", "lifecycle", "queries", "money", "storage", "records"],
}
"""Parts of each folder, the highest first. A part imports only itself and those below it."""

OWNERS = {
    "structlog": ["batcher.log"],
    "httpcore": ["batcher.provider"],
    "httpx": ["batcher.provider", "batcher.cli.monitoring"],
    "psycopg": ["batcher.ledger.storage"],
    "sqlalchemy": ["batcher.ledger"],
    "alembic": ["batcher.ledger"],
    "obstore": ["batcher.audio.objects"],
    "tqdm": ["batcher.cli.screen"],
    "click": ["batcher.cli"],
    "jinja2": ["batcher.reports.page"],
    "python_calamine": ["batcher.manifest"],
    "xlsxwriter": ["batcher.reports.table"],
}
"""Parts of the package that may import each library."""


@cache
def sources(folder: str) -> dict[str, ast.Module]:
    """The parsed modules below the folder, by dotted name."""
    found = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    assert found
    return found


@cache
def imports(folder: str, name: str) -> set[str]:
    """Dotted names that a module imports, at its top or in functions; a module's name where the package has one."""
    known, found = sources("batcher"), set()
    for node in ast.walk(sources(folder)[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            module = node.module or ""
            found |= {full if (full := f"{module}.{alias.name}") in known else module for alias in node.names}
    return found


def inside(name: str, part: str) -> bool:
    """Whether the module is `part` or lies in it."""
    return name == part or name.startswith(f"{part}.")


def part_of(name: str, folder: str) -> str | None:
    """The part of the folder that contains the module. None for the folder itself and for modules outside it."""
    return name.removeprefix(f"{folder}.").split(".")[0] if name != folder and inside(name, folder) else None


@pytest.mark.parametrize("folder", list(LAYERS))
def test_layers_list_each_part_of_a_folder_once(folder: str) -> None:
    parts = {part for name in sources("batcher") if (part := part_of(name, folder)) is not None}
    assert sorted(LAYERS[folder]) == sorted(parts)


@pytest.mark.parametrize("folder", list(LAYERS))
def test_a_module_imports_only_its_own_part_and_those_below(folder: str) -> None:
    order = LAYERS[folder]
    placed = {name: part for name in sources("batcher") if (part := part_of(name, folder)) is not None}
    assert placed
    for name, own in placed.items():
        used = {part for one in imports("batcher", name) if (part := part_of(one, folder)) is not None}
        assert {part for part in used if order.index(part) < order.index(own)} == set(), name


def test_each_init_holds_only_a_docstring() -> None:
    """So each name has one address."""
    for path in (ROOT / "batcher").rglob("__init__.py"):
        if path.parent != ROOT / "batcher":
            tree = ast.parse(path.read_text(encoding="utf-8"))
            assert [type(node) for node in tree.body] == [ast.Expr], path
            assert ast.get_docstring(tree), path


def test_no_module_imports_itself_indirectly() -> None:
    """Imports inside functions count too."""
    graph = {
        name: {one for one in imports("batcher", name) if inside(one, "batcher")} - {name}
        for name in sources("batcher")
    }
    assert set(TopologicalSorter(graph).static_order()) == set(graph)


def test_a_library_is_imported_by_all_its_owners_and_nobody_else() -> None:
    for library, owners in OWNERS.items():
        users = {name for name in sources("batcher") if any(inside(one, library) for one in imports("batcher", name))}
        assert all(any(inside(name, owner) for name in users) for owner in owners), library
        assert {name for name in users if not any(inside(name, owner) for owner in owners)} == set(), library


def test_migrations_import_nothing_from_the_package() -> None:
    """Their meaning must not change with it."""
    for name in sources("migrations"):
        assert [one for one in imports("migrations", name) if inside(one, "batcher")] == [], name


def test_only_the_command_line_prints_or_imports_by_name() -> None:
    used = {
        (ast.unparse(node), name)
        for name, tree in sources("batcher").items()
        if not inside(name, "batcher.cli")
        for node in ast.walk(tree)
        if isinstance(node, ast.Name | ast.Attribute)
    }
    words = ("print", "sys.stdout", "importlib.import_module", "__import__")
    assert [(word, name) for word, name in sorted(used) if word in words] == []


def test_only_transitions_sets_an_items_state() -> None:
    writers = {
        name
        for name, tree in sources("batcher").items()
        if inside(name, "batcher.ledger")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "values"
        if any(keyword.arg == "state" for keyword in node.keywords)
    }
    assert writers == {"batcher.ledger.lifecycle.transitions"}
