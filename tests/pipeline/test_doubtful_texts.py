"""Texts with markup or placeholders are reported before anything is bought."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Project
from tests.support.fake_tts import FakeTTS
from tests.support.terminal import Terminal

TEXTS = ["Hello <b>there</b>.", "Fine.", "Hi {name}!"]


def marked(project: Project) -> Path:
    return project.manifest([{"id": f"r{i}", "text": text, "voice": "anna"} for i, text in enumerate(TEXTS)])


def texts(provider: FakeTTS) -> set[str]:
    return {create.text for create in provider.creates}


def test_a_run_reports_markup_and_creates_nothing(project: Project, provider: FakeTTS) -> None:
    """Exit 2, as for other faults of a manifest, and no row is imported. `plan` and `doctor` report the same."""
    manifest = marked(project)
    for command in ("run", "plan", "doctor"):
        ended = project.batcher(command, manifest, "--api-url", provider.url)
        shown = ended.out + ended.err
        assert ended.exit_code == 2
        assert (
            'lines.csv:2: html: 1 row with HTML tags or entities that would be spoken: "<b>", "</b>" (row 2)' in shown
        )
        assert 'lines.csv:4: braces: 1 row with text in braces that would be spoken: "{name}" (row 4)' in shown
        assert "--strip html,braces, or buy the texts as they are with --allow html,braces." in shown
    assert provider.creates == []
    assert project.query("SELECT * FROM rows") == []
    found = project.batcher("plan", manifest, "--api-url", provider.url, "--json").report
    assert [(one["type"], one["rows"], one["numbers"]) for one in found["doubts"]] == [
        ("html", 1, "2"),
        ("braces", 1, "4"),
    ]
    assert found["new"] == 3


def test_allowed_markup_is_bought_and_stripped_markup_is_not_sent(project: Project, provider: FakeTTS) -> None:
    """The preview counts the characters of the stripped text. Later runs need no flag."""
    manifest = marked(project)
    options = ("--allow", "braces,todo", "--strip", "html")
    planned = project.batcher("plan", manifest, *options, "--api-url", provider.url)
    assert planned.exit_code == 0
    assert "markup removed from the texts of 1 row\n" in planned.out
    assert f"to create: {len('Hello there.Fine.Hi {name}!')} characters" in planned.out
    assert project.run(manifest, *options).exit_code == 0
    assert texts(provider) == {"Hello there.", "Fine.", "Hi {name}!"}


def test_types_can_be_set_in_the_configuration_file_and_the_environment(project: Project, provider: FakeTTS) -> None:
    """As a list or as one string."""
    manifest, config = marked(project), project.folder / "batcher.toml"
    for lines, environment in (
        ('allow = ["html", "braces"]\n', {}),
        ('allow = "html"\nstrip = "braces"\n', {}),
        ("", {"BATCHER_ALLOW": "html braces"}),
    ):
        config.write_text(lines)
        planned = project.batcher("plan", manifest, "--api-url", provider.url, environment=environment)
        assert planned.exit_code == 0
    config.write_text('allow = "tags"\n')
    wrong = project.batcher("plan", manifest, "--api-url", provider.url)
    assert wrong.exit_code == 2
    assert "allow: 'tags' is not a type of markup: use html, ssml, braces," in wrong.err


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("\n", 2)])
def test_a_person_at_a_terminal_is_asked(project: Project, provider: FakeTTS, answer: str, code: int) -> None:
    """The doubts are shown once, before the question."""
    terminal = Terminal(project, "run", marked(project), "--api-url", provider.url, columns=0)
    terminal.until_says("[y/N]")
    terminal.type(answer)
    assert terminal.end() == code
    assert "buy these texts as they are? [y/N]" in terminal.said
    assert terminal.said.count("html: 1 row") == 1
    assert len(provider.creates) == (3 if code == 0 else 0)


def test_standard_input_may_have_allowed_markup(project: Project, provider: FakeTTS) -> None:
    lines = "".join(json.dumps({"text": text, "voice": "anna"}) + "\n" for text in TEXTS)
    ended = project.batcher("run", "-", "--api-url", provider.url, "--allow", "html,braces", stdin=lines)
    assert ended.exit_code == 0
    assert len(provider.creates) == 3
