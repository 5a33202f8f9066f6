"""README, manual and help describe what exists: all of it, and nothing else."""

from __future__ import annotations

import re
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import pytest

from batcher import files
from batcher.audio import objects
from batcher.cli.app import cli
from batcher.cli.commands.help import TOPICS, summary, topic_text
from batcher.cli.config_file import SECTIONS
from batcher.cli.epilogs import MEANINGS
from batcher.cli.markdown import render
from batcher.item import FORMATS, PARAMETERS, State
from batcher.pipeline import outage
from batcher.pipeline.descriptors import SPARE_DESCRIPTORS
from batcher.reports.run_report import OUTCOMES
from tests.support.fake_tts import TOKEN, FakeTTS, Job

if TYPE_CHECKING:
    from tests.conftest import Project

ROOT: Final = Path(__file__).parents[1]
README: Final = (ROOT / "README.md").read_text(encoding="utf-8")
MANUAL: Final = {name: topic_text(name) for name in TOPICS}
TEXT: Final = "\n".join([README, *MANUAL.values()])
BLOCK: Final = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
BLOCKS: Final = BLOCK.findall(TEXT)
LINK: Final = re.compile(r"\]\(([^)]+)\)")


def code(text: str) -> list[str]:
    """Every code block, and every piece of code within a line."""
    return [body for _, body in BLOCK.findall(text)] + re.findall(r"`([^`\n]+)`", BLOCK.sub("", text))


CODE: Final = code(TEXT)


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command by the words that call it, those of groups included."""
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


def section(text: str, title: str) -> str:
    """A text from a heading to the next."""
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


def first_cells(text: str) -> set[str]:
    """What stands first in the rows of tables, code alone where there is some."""
    rows = re.findall(r"^\| (.+?) \|", text, re.MULTILINE)
    return {word for row in rows for word in (re.findall(r"`([^`]+)`", row) or [row])} - {"---"}


def test_documents_call_every_command_and_no_other() -> None:
    """Each command that README or manual call exists; README and manual introduce each that exists."""
    for text in (README, TEXT):
        called = {name for part in code(text) for name in re.findall(r"(?<![\w./-])batcher ([a-z]+)", part)}
        assert called == {name for name, _ in commands() if " " not in name}


def test_documents_name_every_option_and_no_other() -> None:
    """Each option that README or manual name exists, and each that exists is named there."""
    named = {name for part in CODE for name in re.findall(r"(?<![\w-])--[a-z][a-z-]+", part)}
    there = {name for name, _ in options()}
    assert named - there - {"--help", "--version"} == set()
    assert there - named == set()


def test_exit_codes_are_the_same_everywhere() -> None:
    """README, manual and help have each exit code once."""
    for text in (README, MANUAL["operations"]):
        codes = re.findall(r"^\| (\d+) \|", section(text, "Exit codes"), re.MULTILINE)
        assert sorted(map(int, codes)) == sorted(OUTCOMES)
    assert set(MEANINGS) == set(OUTCOMES)


def test_manual_has_every_state() -> None:
    """The table of states has them all, in lower case as they are printed."""
    table = section(MANUAL["guarantees"], "States")
    assert {cell for cell in first_cells(table) if cell.isidentifier()} - {"state"} == set(map(str, State))


def test_environment_names_follow_the_stated_rule() -> None:
    """Each environment variable in README or manual is read, and options follow the rule given there."""
    named = set(re.findall(r"(?<!_)\bBATCHER_[A-Z_]+", TEXT)) - {"BATCHER_"}
    rule = {f"BATCHER_{name[2:].upper().replace('-', '_')}": option.envvar for name, option in options()}
    special = {"BATCHER_API_TOKEN", "BATCHER_API_TOKEN_FILE", "BATCHER_TRUST", "BATCHER_NOTIFY_SECRET"}
    assert named - set(rule) - special == set()
    assert special <= named
    given = {envvar for envvar in rule.values() if envvar is not None}
    assert {name for name in given if rule.get(str(name)) != name} == {"BATCHER_API_TOKEN_FILE"}


def test_samples_of_the_configuration_file_use_keys_that_exist() -> None:
    there = {name.removeprefix("--") for name, option in options() if option.envvar is not None}
    for kind, body in BLOCKS:
        if kind == "toml":
            assert set(tomllib.loads(body)) - set(SECTIONS) <= there


def test_the_security_policy_lists_every_dependency_of_users() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    added = (one for name in ("sandbox", "opus", "postgres", "xlsx", "objects") for one in extras[name])
    wanted = [*project["dependencies"], *added]
    text = (ROOT / ".github" / "SECURITY.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (?:`\w+` \| )?([a-z][\w, -]*) \|", section(f"{text}\n", "Dependencies"), re.MULTILINE)
    listed = {name for cell in rows for name in cell.split(", ")} - {"package", "extra"}
    assert listed == {re.split(r"[<>=\[]", one)[0] for one in wanted}


def test_manual_has_every_column_and_format() -> None:
    """The table of columns names every parameter and every format."""
    table = section(MANUAL["manifest"], "Columns")
    assert {*PARAMETERS, "text", "id", "voice", "model", "format", "take", "output", "params"} <= first_cells(table)
    assert all(f"`{name}`" in table for name in FORMATS)


@pytest.mark.parametrize("name", [name for name, _ in commands()])
def test_help_of_a_command_has_examples_and_exit_codes(name: str) -> None:
    """Each command's help has an example that calls it with options that it has, and its exit codes."""
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
def test_completion_lines_work_in_their_shell(project: Project, shell: str) -> None:
    """The line that the manual gives for a shell prints code for that shell."""
    assert f"_BATCHER_COMPLETE={shell}_source batcher" in TEXT
    ended = project.batcher(environment={"_BATCHER_COMPLETE": f"{shell}_source"})
    assert (ended.exit_code, ended.err) == (0, "")
    assert f"{shell}_complete" in ended.out


def test_completion_offers_what_exists(project: Project) -> None:
    asked = {"_BATCHER_COMPLETE": "bash_complete", "COMP_WORDS": "batcher verify --he", "COMP_CWORD": "2"}
    assert project.batcher(environment=asked).out.split() == ["plain,--heal", "plain,--help"]


PREPARED: Final = ("python3 -m venv", ".venv/bin/pip", ".venv/bin/pytest")
"""What makes the environment that the tests run in already, or runs these very tests."""
ENDINGS: Final = {"batcher run lines.csv": 3, "batcher run lines.csv --sample 20": 3}
"""Lines that end otherwise than with 0, since the tasks of two rows fail here: `retry` and `abandon` need one each."""


PLAIN: Final = re.compile(r"[\w ./=,-]+")
"""A line that a shell only splits at its blanks."""


def lines_to_run() -> list[str]:
    """The lines of the blocks that are for a shell, without what the tests' own environment has done."""
    lines = [line for kind, body in BLOCKS if kind == "sh" for line in body.splitlines()]
    kept = []
    for line in lines:
        parts = [part for part in line.split(" && ") if not part.startswith(PREPARED)]
        kept += [" && ".join(parts)] * bool(parts)
    return kept


def test_shell_lines_of_the_readme_run(project: Project, provider: FakeTTS) -> None:
    """Each line that README or manual give to a shell succeeds, one after the other, in one folder."""
    rows = [{"id": f"line-{i}", "voice": "5f3c", "text": f"This is line {i}."} for i in (15, 16, 17, 18)]
    project.manifest(rows)
    provider.ending = lambda job: _fails(job, [row["text"] for row in rows[:2]])
    shutil.copytree(ROOT / "sample_inputs", project.folder / "sample_inputs")
    environment = {"BATCHER_API_URL": provider.url}
    provider.voices = ("anna", "narrator")
    ran = 0
    for line in lines_to_run():
        command = line.partition("  #")[0].strip()
        if command.startswith("export "):
            assert command == "export BATCHER_API_TOKEN=..."
            environment["BATCHER_API_TOKEN"] = TOKEN
            continue
        assert PLAIN.fullmatch(command), command
        program, *arguments = command.split()
        assert program in ("batcher", ".venv/bin/batcher")
        ended = project.batcher(*arguments, environment=environment)
        assert ended.exit_code == ENDINGS.get(command, 0), (command, ended)
        ran += 1
    assert ran >= 10


def _fails(job: Job, texts: list[str]) -> dict[str, Any]:
    return {"status": "failed", "error": {"code": "odd"}} if job.text in texts else {}


def test_the_readmes_transcript_is_what_its_manifest_prints(project: Project) -> None:
    """Paths and numbers of seconds and credits aside."""
    blocks = dict(BLOCK.findall(section(README, "Use it")))
    manifest = project.folder / "lines.csv"
    manifest.write_text(blocks["csv"], encoding="utf-8")
    printed = project.run(manifest).err.replace(str(project.folder), "/srv/flight")
    printed = re.sub(r", API http:\S+", "", printed)
    number = re.compile(r"\d[\d,.]*(?= (?:s|credits|left)\b)")
    assert number.sub("N", printed) == number.sub("N", blocks["text"])


def test_help_lists_the_topics(project: Project) -> None:
    """`batcher help` and the README have a line for each topic, and there is a topic for each file of the manual."""
    folder = ROOT / "batcher" / "cli" / "help"
    assert sorted(TOPICS) == sorted(path.stem for path in folder.iterdir())
    assert re.findall(r"^\| \[(\w+)\]\(batcher/cli/help/", README, re.MULTILINE) == list(TOPICS)
    listed = project.batcher("help")
    assert listed.exit_code == 0
    assert re.findall(r"^  (\w+)  ", listed.out, re.MULTILINE) == list(TOPICS)


@pytest.mark.parametrize("name", TOPICS)
def test_a_topic_is_shown_as_plain_text(project: Project, name: str) -> None:
    """Outside a terminal a topic has no styles, no Markdown and no long lines, except in code blocks and tables."""
    shown = project.batcher("help", name, environment={"COLUMNS": "80"})
    assert (shown.exit_code, shown.err) == (0, "")
    lines = [line for line in shown.out.splitlines() if not line.startswith("    ")]
    assert summary(MANUAL[name]).replace("`", "").split()[:5] == shown.out.split()[1:6]
    assert max(map(len, lines)) <= 80
    assert not re.search(r"\x1b|\*\*|```|\]\(|^#|^\|", "\n".join(lines), re.MULTILINE)


def test_help_of_a_topic_that_does_not_exist(project: Project) -> None:
    """An unknown topic is exit 2 with the nearest one; the name of a command shows its help."""
    ended = project.batcher("help", "manifests")
    assert (ended.exit_code, ended.err) == (
        2,
        "batcher: there is no help topic 'manifests'\n  Did you mean manifest?\n",
    )
    assert "The word is in `batcher help operations`." in project.batcher("help", "cron").err
    assert "The topics are manifest, " in project.batcher("help", "nothing-like-it").err
    assert "--max-credits" in project.batcher("help", "run").out


def test_a_misspelt_command_names_the_nearest(project: Project) -> None:
    ended = project.batcher("staus")
    assert (ended.exit_code, "No such command 'staus'. (Did you mean 'status'?)" in ended.err) == (2, True)
    assert "Did you mean" not in project.batcher("something").err


@pytest.mark.parametrize("width", [40, 80, 100])
def test_tables_fit_the_width(width: int) -> None:
    """The widest columns are wrapped until a table fits, and a bar within a cell is no column."""
    table = "| a | b |\n| --- | --- |\n| `x \\| y` | " + "word " * 50 + "|\n"
    lines = render(table, width).splitlines()
    assert lines[2].startswith("x | y  word")
    assert max(map(len, lines)) <= width


def test_references_lead_somewhere() -> None:
    """Each topic that a text of ours refers to exists, and so does each file that README and manual link to."""
    python = [path.read_text(encoding="utf-8") for path in (ROOT / "batcher").rglob("*.py")]
    named = {name for text in [TEXT, *python] for name in re.findall(r"`batcher help (\w+)", text)}
    assert named - {"TOPIC"} <= set(TOPICS)
    links = [link for link in LINK.findall(README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).is_file()] == []


def test_the_manual_names_each_limit_of_files() -> None:
    """With the value that it has in the code."""
    text = MANUAL["security"]
    assert f"| `MAX_CONFIG_BYTES` | {files.MAX_CONFIG_BYTES >> 20} MiB |" in text
    assert f"| `SHARED_MODE` | 0{files.SHARED_MODE:o} |" in text
    assert f"| `SPARE_DESCRIPTORS` | {SPARE_DESCRIPTORS} |" in text


def test_the_manual_names_each_limit_of_object_stores() -> None:
    """With the value that it has in the code."""
    text = MANUAL["objects"]
    assert f"| `REQUEST_SECONDS` | {objects.REQUEST_SECONDS:g} s |" in text
    assert f"| `TRANSFER_SECONDS` | {objects.TRANSFER_SECONDS:g} s |" in text
    assert f"| `RETRIES`, `RETRY_SECONDS` | {objects.RETRIES}, {objects.RETRY_SECONDS:g} s |" in text
    assert f"| `CREATING_SECONDS` | {outage.CREATING_SECONDS:g} s |" in text
    assert f"| `WAITING_SECONDS` | {outage.WAITING_SECONDS:g} s |" in text
