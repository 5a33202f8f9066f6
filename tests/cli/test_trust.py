"""A project folder from a stranger is data: what could leak a token or write elsewhere needs `batcher trust`."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from batcher.cli.trust import guarded, listed
from batcher.settings import DEFAULT_URL
from tests.conftest import Project
from tests.support.fake_tts import TOKEN, FakeTTS


def configure(project: Project, text: str) -> None:
    (project.folder / "batcher.toml").write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ({"api-url": "https://example.com/v1"}, {"api-url"}),
        ({"api-url": DEFAULT_URL}, set()),
        ({"api-url": f"{DEFAULT_URL}@example.com"}, {"api-url"}),
        ({"allow-http": True, "allow-audio-host": ["10.0.0.1"]}, {"allow-http", "allow-audio-host"}),
        ({"allow-http": False, "concurrency": 50, "voice": "anna", "columns": {"text": "A"}}, set()),
        ({"ping": "https://example.com", "metrics": "m.prom", "log-file": "l.log"}, {"ping", "metrics", "log-file"}),
        ({"notify": "https://example.com"}, {"notify"}),
        ({"ledger": "state/jobs.db", "out-dir": "audio"}, set()),
        ({"ledger": "../jobs.db", "out-dir": "/srv/audio"}, {"ledger", "out-dir"}),
        ({"ledger": "inside/../../x.db", "out-dir": "link"}, {"ledger", "out-dir"}),
        ({"ledger": "postgresql://example.com/x", "out-dir": "circle"}, {"ledger", "out-dir"}),
        ({"ledger": "sqlite:///../x.db", "out-dir": "a\0b"}, {"ledger", "out-dir"}),
        ({"out-dir": "s3://bucket/audio"}, {"out-dir"}),
        ({"token-file": "secret"}, {"token-file"}),
    ],
)
def test_settings_that_leak_or_write_elsewhere_are_guarded(
    tmp_path: Path, config: dict[str, Any], names: set[str]
) -> None:
    """Following links; all others concern only the batch."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    (folder / "circle").symlink_to("circle")
    assert set(guarded(config, folder)) == names


def test_a_strangers_api_gets_nothing_until_it_is_trusted(project: Project, provider: FakeTTS) -> None:
    """Each command that would use it ends with 2 and the command to copy; editing other lines does not ask again."""
    manifest = project.manifest(1)
    configure(project, f'api-url = "{provider.url}"\nvoice = "anna"\n')
    for words in (("run", manifest), ("plan", manifest), ("doctor", manifest), ("voices",)):
        ended = project.batcher(*words)
        assert ended.exit_code == 2, ended
        assert f'api-url = "{provider.url}"'[:30] in ended.err
        assert f"batcher trust {project.folder}" in ended.err
    assert not provider.api_headers
    assert not project.ledger.exists()
    trusted = project.batcher("trust", project.folder)
    assert (trusted.exit_code, f'api-url = "{provider.url}"'[:30] in trusted.out) == (0, True)
    configure(project, f'voice = "anna"\nconcurrency = 2\napi-url = "{provider.url}"\n')
    ended = project.batcher("run", manifest)
    assert ended.exit_code == 0
    assert ended.err.splitlines()[0].endswith(f", API http://{provider.url.split('/')[2]}")
    configure(project, f'api-url = "{provider.url}"\nallow-http = true\n')
    assert project.batcher("run", manifest).exit_code == 2


def test_trust_is_for_one_folder_and_can_be_undone(project: Project, tmp_path: Path) -> None:
    """The record is the user's alone."""
    configure(project, 'log-file = "run.log"\n')
    trusted = project.batcher("trust")
    record = Path(trusted.out.rpartition("rm ")[2].strip())
    assert record.is_file()
    assert stat.S_IMODE(record.parent.stat().st_mode) == 0o700
    manifest = project.manifest(1)
    assert project.batcher("run", manifest, "--sandbox", "--dry-run").exit_code == 0
    project.folder.rename(tmp_path / "elsewhere")
    manifest = tmp_path / "elsewhere" / "lines.csv"
    assert project.batcher("run", manifest, "--sandbox", "--dry-run", cwd=tmp_path).exit_code == 2
    (tmp_path / "elsewhere").rename(project.folder)
    record.unlink()
    assert project.batcher("run", "lines.csv", "--sandbox", "--dry-run").exit_code == 2


def test_what_the_user_gives_needs_no_trust(project: Project, provider: FakeTTS, tmp_path: Path) -> None:
    """A flag, the environment, the user's own file, or BATCHER_TRUST for everything."""
    manifest = project.manifest(1)
    configure(project, 'api-url = "http://127.0.0.1:9/v1"\n')
    assert project.run(manifest).exit_code == 0
    assert project.batcher("run", manifest, environment={"BATCHER_API_URL": provider.url}).exit_code == 0
    configure(project, f'api-url = "{provider.url}"\n')
    assert project.batcher("run", manifest).exit_code == 2
    assert project.batcher("run", manifest, environment={"BATCHER_TRUST": "0"}).exit_code == 2
    assert project.batcher("run", manifest, environment={"BATCHER_TRUST": "1"}).exit_code == 0
    configure(project, 'voice = "project"\n')
    own = tmp_path / "config" / "batcher.toml"
    own.parent.mkdir()
    own.write_text(f'api-url = "{provider.url}"\nvoice = "user"\nmodel = "m-1"\n')
    project.manifest([{"text": "Whose voice?"}], "more.csv")
    ended = project.batcher("run", "more.csv")
    assert (ended.exit_code, ", API http://127.0.0.1:" in ended.err.splitlines()[0]) == (0, True)
    assert provider.creates[-1].body["voiceId"] == "project"
    assert provider.creates[-1].body["engineModelId"] == "m-1"
    assert f"model = m-1 ({own})" in project.batcher("doctor").out


def test_a_token_file_needs_trust_only_with_another_api(project: Project, provider: FakeTTS) -> None:
    """Whoever names that API: else the first line of any readable file would go there."""
    (project.folder / "secret").write_text("first line of a private key")
    manifest = project.manifest(1)
    configure(project, 'token-file = "secret"\n')
    ended = project.batcher("plan", manifest, "--api-url", provider.url, environment={"BATCHER_API_TOKEN": ""})
    assert (ended.exit_code, "token-file" in ended.err, provider.api_headers) == (2, True, [])
    assert "private key" not in ended.err
    status = project.batcher("doctor", "--json", environment={"BATCHER_API_URL": DEFAULT_URL, "BATCHER_SANDBOX": "0"})
    assert "is not trusted" not in status.err


def test_nothing_is_sent_or_written_on_behalf_of_an_untrusted_file(project: Project, provider: FakeTTS) -> None:
    """Not even to report the refusal, or another error in the file."""
    manifest = project.manifest(1)
    target = project.folder.parent / "victim"
    for more in ("", "nonsense = 1\n", 'voice = ["a"]\n'):
        configure(project, f'metrics = "{target}"\nlog-file = "{target}"\nping = "{provider.url}/ping"\n{more}')
        assert project.run(manifest).exit_code == 2
    assert not target.exists()
    assert not provider.api_headers
    configure(project, f'ledger = "{target}"\n')
    assert project.batcher("status", manifest).exit_code == 2


def test_saving_ones_own_settings_keeps_them_trusted(project: Project, provider: FakeTTS) -> None:
    """But not what a stranger's file held already."""
    manifest = project.manifest(1)
    assert project.run(manifest, "--save-settings", "--log-file", "run.log").exit_code == 0
    assert project.batcher("run", manifest).exit_code == 0
    configure(project, f'metrics = "{project.folder.parent}/victim"\n')
    saved = project.run(manifest, "--save-settings", "--metrics", project.folder / "own.prom", "--voice", "anna")
    assert saved.exit_code == 0
    assert project.batcher("run", manifest).exit_code == 2


def test_the_first_line_names_no_password(project: Project) -> None:
    ended = project.batcher("run", project.manifest(1), "--api-url", f"https://user:{TOKEN}@example.invalid/v1")
    assert ended.exit_code == 2
    assert TOKEN not in ended.err


def test_settings_to_be_trusted_are_shown_as_a_whole_but_for_passwords() -> None:
    """The end of an address shows who owns it. Control characters are escapes."""
    url = f"https://fishaudio.org.{'a' * 100}.example/v1"
    assert listed({"api-url": url, "ping": "https://x/\x1b"}) == f'api-url = "{url}", ping = "https://x/\\u001b"'
    shown = {"ledger": ["postgresql://u:secret@h/d"], "out-dir": "postgresql://h/d?password=secret"}
    assert listed(shown) == 'ledger = ["postgresql://u@h/d"], out-dir = "postgresql://h/d"'


def test_a_folder_without_such_settings_needs_no_trust(project: Project) -> None:
    configure(project, 'voice = "anna"\n')
    trusted = project.batcher("trust")
    assert (trusted.exit_code, "no setting that needs trust" in trusted.out) == (0, True)
    assert not (project.folder.parent / "state").exists()
