"""`batcher help`: the manual."""

from __future__ import annotations

import difflib
import json
import re
import shutil
import sys
from importlib import resources
from typing import Any, Final

import click

from batcher.cli.markdown import render
from batcher.errors import UsageError

TOPICS: Final = (
    "manifest",
    "settings",
    "account",
    "guarantees",
    "operations",
    "files",
    "hosts",
    "objects",
    "security",
    "report",
    "json",
    "python",
    "sandbox",
    "troubleshooting",
)
"""Names of the help topics, in reading order; each is a Markdown file in `batcher/cli/help`."""
_MOST_WIDTH: Final = 100
"""Longest line of the manual, in characters, however wide the terminal is."""

_TOPICS_NAMED: Final = 2
"""Topics that are named for a word that is none: those that have it most often."""


@click.command()
@click.argument("topic", required=False)
@click.argument("command", nargs=-1)
@click.pass_context
def help(ctx: click.Context, topic: str | None, command: tuple[str, ...]) -> None:  # noqa: A001 - the command's name
    """Show a topic of the manual, or list the topics. Creates nothing.

    TOPIC may also be a command, which shows its --help. `help json COMMAND` prints the JSON Schema of the command's
    output with --json.
    """
    if command:
        if topic != "json":
            raise UsageError("name one topic only", "Only `batcher help json` takes a command.")
        click.echo(json.dumps(command_schema(" ".join(command)), indent=2, ensure_ascii=False))
    elif topic is None:
        with_summaries = [(name, summary(topic_text(name))) for name in TOPICS]
        formatter = click.HelpFormatter(width=_width())
        with formatter.section("Topics"):
            formatter.write_dl(with_summaries)
        click.echo(
            formatter.getvalue()
            + "\nShow one with `batcher help TOPIC`; a command's options with `batcher COMMAND --help`."
        )
    elif topic in TOPICS:
        _show(render(topic_text(topic), _width()))
    else:
        click.echo(_command_help(ctx, topic))


def topic_text(name: str) -> str:
    """The Markdown text of a topic."""
    text = resources.files("batcher.cli").joinpath("help", f"{name}.md").read_text(encoding="utf-8")
    return f"{text}\n```json\n{_schema_text()}```\n" if name == "json" else text


def command_schema(name: str) -> dict[str, Any]:
    """The JSON Schema of what a command prints with --json.

    Raises:
        UsageError: it prints no JSON, or does not exist.
    """
    schema: dict[str, Any] = json.loads(_schema_text())
    defs: dict[str, Any] = schema["$defs"]
    printed = {title: _commands(found) for title, found in defs.items()}
    known = sorted({command for commands in printed.values() for command in commands})
    if name not in known:
        raise UsageError(f"no command {name!r} prints JSON", f"Those that do: {', '.join(known)}.")
    titles = [title for title, commands in printed.items() if name in commands]
    titles += ["failure"] * (name != "run")
    return schema | {"title": f"batcher {name} --json", "anyOf": [{"$ref": f"#/$defs/{title}"} for title in titles]}


def _commands(found: dict[str, Any]) -> list[str]:
    """The commands whose output a definition of the schema describes."""
    command = found.get("properties", {}).get("command", {})
    named: list[str] = command.get("enum", [])
    return [command["const"]] if "const" in command else named


def _schema_text() -> str:
    return resources.files("batcher.cli").joinpath("output_schema.json").read_text(encoding="utf-8")


def summary(text: str) -> str:
    """The first paragraph of a topic: one line that describes its content."""
    return text.split("\n\n")[1]


def _show(text: str) -> None:
    if sys.stdout.isatty():
        click.echo_via_pager(text)
    else:
        click.echo(text, nl=False)


def _width() -> int:
    return min(shutil.get_terminal_size().columns, _MOST_WIDTH)


def _command_help(ctx: click.Context, name: str) -> str:
    root = ctx.find_root()
    command = root.command.get_command(root, name) if isinstance(root.command, click.Group) else None
    if command is None:
        raise UsageError(f"there is no help topic {name!r}", _where_else(name))
    return command.get_help(click.Context(command, info_name=f"batcher {name}", parent=None))


def _where_else(name: str) -> str:
    """Where the manual may have what is not a topic: the topic of a similar name, or those that mention the word."""
    if near := difflib.get_close_matches(name, TOPICS, n=1):
        return f"Did you mean {near[0]}?"
    word = re.compile(rf"\b{re.escape(name)}\b", re.IGNORECASE)
    numbers = {topic: len(word.findall(topic_text(topic).partition("```json")[0])) for topic in TOPICS}
    found = sorted(filter(numbers.get, TOPICS), key=lambda topic: -numbers[topic])[:_TOPICS_NAMED]
    if not found:
        return f"The topics are {', '.join(TOPICS)}."
    return f"The word is in {' and '.join(f'`batcher help {topic}`' for topic in found)}."
