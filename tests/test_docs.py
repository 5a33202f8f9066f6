"""The README and the help describe everything that exists, and nothing else."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import pytest

from batcher.cli.app import cli
from batcher.cli.epilogs import MEANINGS
from batcher.cli.options import SECTIONS
from batcher.item import FORMATS, PARAMETERS, State
from batcher.reports.run_report import OUTCOMES
from tests.support.fake_tts import TOKEN, FakeTTS, Job

if TYPE_CHECKING:
    from tests.conftest import Project

ROOT: Final = Path(__file__).parents[1]
TEXT: Final = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK: Final = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
BLOCKS: Final = BLOCK.findall(TEXT)
CODE: Final = [body for _, body in BLOCKS] + re.findall(r"`([^`\n]+)`", BLOCK.sub("", TEXT))


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command by its full name, including those of groups."""
    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        yield name, command
        if isinstance(command, click.Group):
            yield from ((f"{name} {word}", inner) for word, inner in command.commands.items())


def options() -> Iterator[tuple[str, click.Option]]:
    """Every long option of every command."""
    for _, command in commands():
        for param in command.params:
            if isinstance(param, click.Option):
                yield from ((name, param) for name in param.opts if name.startswith("--"))


def section(title: str) -> str:
    """The README from one heading to the next."""
    return TEXT.split(f"\n## {title}\n")[1].split("\n## ")[0]


def first_cells(text: str) -> set[str]:
    """The first cells of the tables' rows, reduced to their code spans where there are any."""
    rows = re.findall(r"^\| (.+?) \|", text, re.MULTILINE)
    return {word for row in rows for word in (re.findall(r"`([^`]+)`", row) or [row])} - {"---"}


def test_the_readme_names_exactly_the_existing_commands() -> None:
    called = {name for code in CODE for name in re.findall(r"(?<![\w.-])batcher ([a-z]+)", code)}
    there = {name for name, _ in commands() if " " not in name}
    assert called == there


def test_the_readme_names_exactly_the_existing_options() -> None:
    ours = (code for code in CODE if "tests.bench" not in code)
    named = {name for code in ours for name in re.findall(r"(?<![\w-])--[a-z][a-z-]+", code)}
    there = {name for name, _ in options()}
    assert named - there - {"--help", "--version"} == set()
    assert there - named == set()


def test_the_table_of_exit_codes_is_complete() -> None:
    """The help texts use the same codes."""
    codes = re.findall(r"^\| (\d+) \|", section("Exit codes"), re.MULTILINE)
    assert sorted(map(int, codes)) == sorted(OUTCOMES)
    assert set(MEANINGS) == set(OUTCOMES)


def test_the_table_of_states_is_complete() -> None:
    """In lower case, as they are printed."""
    table = section("What is guaranteed").split("| state |")[1].split("\n\n")[0]
    assert {cell for cell in first_cells(table) if cell.isidentifier()} == set(map(str, State))


def test_each_environment_name_in_the_readme_is_read() -> None:
    """Options follow the rule that it states."""
    named = set(re.findall(r"(?<!_)\bBATCHER_[A-Z_]+", TEXT)) - {"BATCHER_"}
    rule = {f"BATCHER_{name[2:].upper().replace('-', '_')}": option.envvar for name, option in options()}
    special = {"BATCHER_API_TOKEN", "BATCHER_API_TOKEN_FILE"}
    assert named - set(rule) - special == set()
    assert special <= named
    given = {envvar for envvar in rule.values() if envvar is not None}
    assert {name for name in given if rule.get(str(name)) != name} == {"BATCHER_API_TOKEN_FILE"}


def test_the_keys_of_the_sample_batcher_toml_exist() -> None:
    there = {name.removeprefix("--") for name, option in options() if option.envvar is not None}
    for kind, body in BLOCKS:
        if kind == "toml":
            assert set(tomllib.loads(body)) - set(SECTIONS) <= there


def test_the_table_of_columns_names_every_parameter_and_format() -> None:
    table = section("The manifest")
    assert {*PARAMETERS, "text", "id", "voice", "model", "format", "take", "output", "params"} <= first_cells(table)
    assert all(f"`{name}`" in table for name in FORMATS)


@pytest.mark.parametrize("name", [name for name, _ in commands()])
def test_each_help_has_a_valid_example_and_its_exit_codes(name: str) -> None:
    command = dict(commands())[name]
    words = click.Context(command, info_name=f"batcher {name}")
    text = command.get_help(words)
    assert "Exit codes:\n      0  " in text
    examples = text.split("Examples:\n")[1].split("\n\n")[0].splitlines()
    assert all(line.strip().startswith(f"batcher {name}") for line in examples)
    there = {option for one, inner in commands() for option in _longs(inner) if f"{one} ".startswith(name.split()[0])}
    assert examples
    assert set(re.findall(r"--[a-z-]+", "\n".join(examples))) <= there
    assert re.search(r"--token-file FILE(?!\s+(-|$))", text) or "--token-file" not in text
    assert ("[MANIFEST...]" in text) == (name == "doctor")


def _longs(command: click.Command) -> list[str]:
    return [name for param in command.params for name in param.opts if name.startswith("--")]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_lines_of_the_readme_work(project: Project, shell: str) -> None:
    """The program prints a script for each shell."""
    assert f"_BATCHER_COMPLETE={shell}_source batcher" in TEXT
    ended = project.batcher(environment={"_BATCHER_COMPLETE": f"{shell}_source"})
    assert (ended.exit_code, ended.err) == (0, "")
    assert f"{shell}_complete" in ended.out


def test_completion_offers_existing_options(project: Project) -> None:
    asked = {"_BATCHER_COMPLETE": "bash_complete", "COMP_WORDS": "batcher verify --he", "COMP_CWORD": "2"}
    assert project.batcher(environment=asked).out.split() == ["plain,--heal", "plain,--help"]


PREPARED: Final = ("python3 -m venv", ".venv/bin/pip", ".venv/bin/pytest")
"""Lines whose effect the tests' environment has already, or that run these tests."""
ENDINGS: Final = {"batcher run lines.csv --voice VOICE_ID": 3}
"""Exit codes other than 0: one row's task fails here, since `retry` needs one."""


def lines_to_run() -> list[str]:
    """The lines of the shell blocks, without those in PREPARED."""
    lines = [line for kind, body in BLOCKS if kind == "sh" for line in body.splitlines()]
    kept = []
    for line in lines:
        parts = [part for part in line.split(" && ") if not part.startswith(PREPARED)]
        kept += [" && ".join(parts)] * bool(parts)
    return kept


def test_the_shell_blocks_of_the_readme_run_in_order(project: Project, provider: FakeTTS) -> None:
    """In one folder."""
    rows = [{"id": f"line-{i}", "text": f"This is line {i}."} for i in (16, 17, 18)]
    project.manifest(rows)
    provider.ending = lambda job: _fails(job, rows[0]["text"])
    shutil.copytree(ROOT / "sample_inputs", project.folder / "sample_inputs")
    program = project.folder / ".venv" / "bin" / "batcher"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m batcher "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    environment = project.environment | {"BATCHER_API_URL": provider.url}
    environment["PATH"] = f"{program.parent}:{environment['PATH']}"
    ran = 0
    for line in lines_to_run():
        command = line.partition("  #")[0].strip()
        if command.startswith("export "):
            assert command == "export BATCHER_API_TOKEN=..."
            environment["BATCHER_API_TOKEN"] = TOKEN
            continue
        ended = subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=project.folder,
            env=environment,
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert ended.returncode == ENDINGS.get(command, 0), (command, ended)
        ran += 1
    assert ran >= 10


def _fails(job: Job, text: str) -> dict[str, Any]:
    return {"status": "failed", "error": {"code": "odd"}} if job.text == text else {}
