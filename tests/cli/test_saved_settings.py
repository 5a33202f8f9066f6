"""`run --save-settings` keeps a command line's options for later runs."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import Project
from tests.support.fake_tts import FakeTTS


def keyed(project: Project) -> Path:
    return project.manifest([{"key": row["id"], "text": row["text"]} for row in project.rows(2)])


def test_a_later_run_needs_only_the_manifest(project: Project, provider: FakeTTS) -> None:
    """Paths are relative to the file; consents, --json and --sandbox are left out; the rest of the file stays."""
    config = project.folder / "batcher.toml"
    config.write_text("# ours\nconcurrency = 3 # enough\n")
    config.chmod(0o600)
    manifest = keyed(project)
    options = ("--column", "id=key", "--voice", "anna", "--max-runtime", "50m", "--out-dir", "sub/../sounds", "--rebuy")
    ended = project.run("lines.csv", *options, "--allow", "html,todo", "--save-settings")
    assert ended.exit_code == 0
    assert f"saved to {config}: " in ended.err
    assert "; not saved: " in ended.err
    text = config.read_text()
    assert text.startswith("# ours\nconcurrency = 3 # enough\n")
    wanted = ('voice = "anna"', 'max-runtime = "50m"', 'out-dir = "sounds"', 'allow = ["html", "todo"]')
    assert set(wanted) < set(text.splitlines())
    assert text.endswith('\n[columns]\nid = "key"\n')
    assert not [word for word in ("rebuy", "json", "save-settings", "token") if word in text]
    assert config.stat().st_mode & 0o777 == 0o600
    again = project.batcher("run", manifest, "--json")
    assert (again.exit_code, again.report["created"]) == (0, 0)
    assert project.run(manifest, "--save-settings").exit_code == 0
    assert config.read_text().splitlines() == text.splitlines()


def test_a_token_is_never_saved(project: Project) -> None:
    """Only the path of its file, and no URL with a password."""
    secret = project.folder / "secret"
    secret.write_text(project.environment["BATCHER_API_TOKEN"])
    environment = {"BATCHER_API_TOKEN": ""}
    options = (
        "--token-file",
        secret,
        "--ping",
        "http://user:word@127.0.0.1:9/x",
        "--notify",
        "http://user:wo/rd@127.0.0.1:9/x",
        "--column",
        "id=key",
        "--voice",
        "anna",
    )
    ended = project.run(keyed(project), *options, "--save-settings", environment=environment)
    assert ended.exit_code == 0
    text = (project.folder / "batcher.toml").read_text()
    assert 'token-file = "secret"\n' in text
    assert secret.read_text() not in text
    assert "word" not in text


def test_a_refused_run_saves_nothing(project: Project, provider: FakeTTS) -> None:
    """Nor does one that cannot start; a file that cannot be edited is reported before anything is bought."""
    config = project.folder / "batcher.toml"
    manifest = keyed(project)
    assert project.run(manifest, "--column", "id=none", "--voice", "anna", "--save-settings").exit_code == 2
    assert project.run(manifest, "--dry-run", "--save-settings").exit_code == 2
    assert not config.exists()
    config.write_text('columns.text = "text"\n')
    refused = project.run(manifest, "--column", "id=key", "--voice", "anna", "--save-settings")
    assert refused.exit_code == 2
    assert "batcher.toml: the file cannot be edited safely" in refused.err
    assert config.read_text() == 'columns.text = "text"\n'
    assert provider.creates == []
