"""Colours: when they show, and one meaning for each in every command."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from batcher.cli.colours import forced
from tests.support.fake_tts import FakeTTS, Twist, refusal
from tests.support.terminal import Terminal

if TYPE_CHECKING:
    from tests.conftest import Project

GREEN, YELLOW, RED = "\x1b[32m", "\x1b[33m", "\x1b[31m"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"NO_COLOR": ""}, None),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
        ({"CLICOLOR": "0"}, False),
        ({"CLICOLOR": "1", "CLICOLOR_FORCE": "0"}, None),
        ({"CLICOLOR_FORCE": "1"}, True),
        ({"FORCE_COLOR": "1"}, True),
    ],
)
def test_the_environment_forces_or_disables_colours(environment: dict[str, str], expected: bool | None) -> None:
    """Disabling wins."""
    assert forced(environment) is expected


@pytest.fixture
def mixed(project: Project, provider: FakeTTS) -> Project:
    """A ledger with three items: done, rejected, in doubt."""
    twists = {
        "Line number 2 of the script.": refusal(400, "invalid_voice"),
        "Line number 3 of the script.": Twist(charge=True),
    }
    provider.on_create = lambda create: twists.get(create.text)
    assert project.run(project.manifest(3)).exit_code == 3
    return project


def test_done_is_green_rejected_red_and_in_doubt_yellow(mixed: Project) -> None:
    """In every command, with colours forced."""
    forced = {"FORCE_COLOR": "1"}
    status = mixed.batcher("status", environment=forced).out
    assert all(
        f"{colour}          1  {state}" in status
        for colour, state in ((GREEN, "done"), (RED, "rejected"), (YELLOW, "in_doubt"))
    )
    assert f"{RED}rejected" in mixed.batcher("show", "r2", environment=forced).out
    assert f"{YELLOW}r3 of lines" in mixed.batcher("resolve", environment=forced).out
    plan = mixed.batcher("plan", "lines.csv", "--api-url", mixed.provider.url, environment=forced).out
    assert f"{RED}          2  need attention" in plan


def test_pipes_and_json_get_no_colours(mixed: Project) -> None:
    """With --json not even if they are forced."""
    for command in ("status", "show", "resolve", "plan lines.csv", "doctor lines.csv"):
        words = [*command.split(), *(["--api-url", mixed.provider.url] if " " in command else [])]
        assert "\x1b" not in mixed.batcher(*words).out, command
        assert "\x1b" not in mixed.batcher(*words, "--json", environment={"FORCE_COLOR": "1"}).out, command


@pytest.mark.parametrize(("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_a_terminal_gets_colours_unless_disabled(mixed: Project, environment: dict[str, str], coloured: bool) -> None:
    for name in [name for name in mixed.environment if "COLOR" in name]:
        del mixed.environment[name]
    mixed.environment |= environment
    terminal = Terminal(mixed, "status")
    assert terminal.end() == 0
    assert (GREEN in terminal.said) is coloured
