"""The values that flags, environment and `batcher.toml` share, and what never shows of them."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from batcher import settings
from batcher.errors import CredentialsError, UsageError
from batcher.manifest.rows import Rules
from batcher.settings import Settings, Source

if TYPE_CHECKING:
    from tests.conftest import Project
    from tests.support.fake_tts import FakeTTS

TOKEN = "sk-very-secret-0123456789"


def make(folder: Path, **changes: Any) -> Settings:
    values: dict[str, Any] = {"sources": (), "ledger": folder / "batcher.db", "out_dir": folder / "audio"}
    return Settings(**(values | changes))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("50m", 3000),
        ("2h", 7200),
        ("1h30m", 5400),
        ("1h30m15s", 5415),
        ("1H5S", 3605),
        (" 5m ", 300),
        ("0", 0),
        ("0m", 0),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    """Durations are whole hours, minutes and seconds, in that order; a bare number is seconds."""
    assert settings.duration(text) == seconds
    assert isinstance(settings.duration(text), float)


@pytest.mark.parametrize("text", ["", " ", "s", "h", "soon", "-5", "1.5h", "5 m", "30m1h", "5d", "1h1h", "5ms", "1e3"])
def test_no_durations(text: str) -> None:
    """What is not a duration is refused with examples of some."""
    with pytest.raises(ValueError, match="is not a duration: write 90s, 50m or 1h30m"):
        settings.duration(text)


@pytest.mark.parametrize(
    ("text", "choice"),
    [("text=Sentence", ("text", "Sentence")), ("emotion=", ("emotion", "")), (" id = a=b ", ("id", "a=b"))],
)
def test_column_choices(text: str, choice: tuple[str, str]) -> None:
    """A choice of column is a field and a header, which may be empty or hold a `=`."""
    assert settings.column_choice(text) == choice


@pytest.mark.parametrize("text", ["", "text", "=Sentence", " =x"])
def test_no_column_choices(text: str) -> None:
    """Without a field or a `=` there is no choice."""
    with pytest.raises(ValueError, match="is not FIELD=HEADER"):
        settings.column_choice(text)


@pytest.mark.parametrize("name", ["m", "My batch", "größe-2.1", "語", "a..b"])
def test_batch_names(name: str) -> None:
    """A batch's name can be what a file's can be."""
    assert settings.batch_name(name) == name


@pytest.mark.parametrize("name", ["", ".hidden", "..", "a/b", "a\\b", "a:b", "a*", "a?", 'a"', "a<", "a|b", "a\nb"])
def test_no_batch_names(name: str) -> None:
    """A name that could leave the folder or that some system cannot write is refused, with the way out."""
    with pytest.raises(UsageError, match="is not a valid batch name") as caught:
        settings.batch_name(name)
    assert "--batch" in caught.value.hint


@pytest.mark.parametrize(
    "content",
    [TOKEN, f"{TOKEN}\n", f"\n  {TOKEN}  \r\n", f"{TOKEN}\nsecond line\n", f"{TOKEN}\r\nsecond line"],
)
def test_tokens_from_files(tmp_path: Path, content: str) -> None:
    """The token is the file's first line, without the white space around it."""
    file = tmp_path / "token"
    file.write_bytes(content.encode())
    assert settings.read_token(None, file) == TOKEN


def test_a_token_by_itself_wins(tmp_path: Path) -> None:
    """Where the token itself is given its file is not even read."""
    assert settings.read_token(f" {TOKEN}\n", tmp_path / "missing") == TOKEN


@pytest.mark.parametrize("content", ["", "\n\n", "   "])
def test_no_token(tmp_path: Path, content: str) -> None:
    """An empty file, an empty value and none at all are no token."""
    file = tmp_path / "token"
    file.write_text(content)
    assert settings.read_token(None, file) is None
    assert settings.read_token(content, None) is None
    assert settings.read_token(None, None) is None


@pytest.mark.parametrize("token", ["sk with blanks", "sk-\u201cquoted\u201d", "sk-\x07bell", "sk-a\tb", "\ufeffsk-abc"])
def test_what_no_token_is(token: str) -> None:
    """Characters that cannot stand in a header are refused without repeating them."""
    with pytest.raises(UsageError, match="characters that no token has") as caught:
        settings.read_token(token, None)
    assert "sk" not in str(caught.value)


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_unreadable_token_files(tmp_path: Path, content: bytes | None) -> None:
    """A missing file, or one that is not text, is named with the reason; what it holds shows nowhere."""
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError, match=f"cannot read the token from {file}: ") as caught:
        settings.read_token(None, file)
    assert caught.value.__cause__ is None
    assert "\\xff" not in "".join(traceback.format_exception(caught.value))


def test_the_token_never_shows(tmp_path: Path) -> None:
    """Neither repr nor str of the settings gives the token away, though it is there."""
    made = make(tmp_path, token=TOKEN, sources=(Source(path=tmp_path / "m.csv", rules=Rules(batch="m")),))
    assert made.require_token() == TOKEN
    for shown in (repr(made), str(made), f"{made}", f"{(made, [made])!r}"):
        assert TOKEN not in shown
        assert "secret" not in shown


@pytest.mark.parametrize("token", [None, ""])
def test_a_missing_token(tmp_path: Path, token: str | None) -> None:
    """Without a token the error names every way to give one."""
    with pytest.raises(CredentialsError) as caught:
        make(tmp_path, token=token).require_token()
    for way in ("BATCHER_API_TOKEN", "--token-file", "--sandbox"):
        assert way in caught.value.hint


def test_settings_are_frozen(tmp_path: Path) -> None:
    """Nothing changes a run's settings once they are made."""
    with pytest.raises(AttributeError):
        make(tmp_path).concurrency = 50  # type: ignore[misc]


def test_worlds(tmp_path: Path) -> None:
    """A run is for the real world unless it says sandbox."""
    assert make(tmp_path).world == "real"
    assert make(tmp_path, sandbox=True).world == "sandbox"


def test_source_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ledger knows a manifest by its absolute path, and standard input by a name that no file has."""
    monkeypatch.chdir(tmp_path)
    assert Source(path=Path("m.csv"), rules=Rules(batch="m")).name == str(tmp_path / "m.csv")
    assert Source(path=None, rules=Rules(batch="m")).name == "<stdin>"


def test_the_file(tmp_path: Path) -> None:
    """`batcher.toml` is read where it lies; none is no settings."""
    assert settings.read_file(tmp_path) == {}
    (tmp_path / "batcher.toml").write_text('voice = "anna"\n[voices]\nAnna = "v-1"\n')
    assert settings.read_file(tmp_path) == {"voice": "anna", "voices": {"Anna": "v-1"}}


@pytest.mark.parametrize("content", [b"voice = ", b"voice = 'a'\nvoice = 'b'\n", b"\xff\xfe"])
def test_a_broken_file(tmp_path: Path, content: bytes) -> None:
    """A file that cannot be read is named with the reason."""
    (tmp_path / "batcher.toml").write_bytes(content)
    with pytest.raises(UsageError, match=r"batcher\.toml: "):
        settings.read_file(tmp_path)


def test_tables_of_words(tmp_path: Path) -> None:
    """A table of words is taken as it is, none is an empty one."""
    assert settings.string_table(None, "voices", tmp_path) == {}
    assert settings.string_table({"Anna": "v-1"}, "voices", tmp_path) == {"Anna": "v-1"}


@pytest.mark.parametrize("table", ["anna", ["anna"], {"Anna": 1}, {"Anna": {"id": "v-1"}}])
def test_tables_of_something_else(tmp_path: Path, table: object) -> None:
    """Anything but words mapped to words is refused by the table's name."""
    with pytest.raises(UsageError, match=r"\[voices\] must be a table of strings"):
        settings.string_table(table, "voices", tmp_path / "batcher.toml")


@pytest.mark.parametrize(
    ("arguments", "environment", "file", "refused"),
    [
        ("--sandbox --api-url http://127.0.0.1:9/v1", {}, "", True),
        ("--sandbox", {"BATCHER_API_URL": "http://127.0.0.1:9/v1"}, "", False),
        ("--sandbox", {}, 'api-url = "http://127.0.0.1:9/v1"', False),
        ("--api-url http://127.0.0.1:9/v1", {"BATCHER_SANDBOX": "1"}, "", True),
        ("", {"BATCHER_SANDBOX": "1", "BATCHER_API_URL": "http://127.0.0.1:9/v1"}, "", True),
        ("", {}, 'sandbox = true\napi-url = "http://127.0.0.1:9/v1"', True),
    ],
)
def test_the_sandbox_or_another_api(
    project: Project, arguments: str, environment: dict[str, str], file: str, refused: bool
) -> None:
    """Who names an API and asks for the sandbox is told so; the flag alone wins over an address that is configured."""
    project.manifest(1)
    (project.folder / "batcher.toml").write_text(file, encoding="utf-8")
    told = project.batcher("plan", "lines.csv", *arguments.split(), environment=environment)
    assert (told.exit_code, "exclude each other" in told.err) == ((2, True) if refused else (0, False)), told


def test_columns_from_the_environment(project: Project, provider: FakeTTS) -> None:
    """Several columns stand in one value, parted by blanks; blanks within a header do not count."""
    project.manifest([{"Mein Text": "Hallo.", "No": "7"}])
    chosen = {"BATCHER_COLUMN": "text=MeinText id=no", "BATCHER_VOICE": "anna"}
    assert project.run("lines.csv", environment=chosen).exit_code == 0
    assert (project.audio / "7.mp3").is_file()
