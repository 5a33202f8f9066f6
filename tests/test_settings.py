"""Values shared by options, environment and `batcher.toml`, and the secrecy of the token."""

from __future__ import annotations

import os
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from batcher import settings
from batcher.errors import CredentialsError, UsageError
from batcher.manifest.rules import Rules
from batcher.settings import Settings, Source, output_folder

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
def test_a_duration_has_hours_minutes_and_seconds_in_order(text: str, seconds: float) -> None:
    """A bare number is seconds."""
    assert settings.duration(text) == seconds
    assert isinstance(settings.duration(text), float)


@pytest.mark.parametrize("text", ["", " ", "s", "h", "soon", "-5", "1.5h", "5 m", "30m1h", "5d", "1h1h", "5ms", "1e3"])
def test_an_invalid_duration_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration: write 90s, 50m or 1h30m"):
        settings.duration(text)


@pytest.mark.parametrize(
    ("text", "choice"),
    [("text=Sentence", ("text", "Sentence")), ("emotion=", ("emotion", "")), (" id = a=b ", ("id", "a=b"))],
)
def test_a_column_mapping_is_a_field_and_a_header(text: str, choice: tuple[str, str]) -> None:
    """The header may be empty or contain a `=`."""
    assert settings.column_choice(text) == choice


@pytest.mark.parametrize("text", ["", "text", "=Sentence", " =x"])
def test_a_column_mapping_needs_a_field_and_an_equals_sign(text: str) -> None:
    with pytest.raises(ValueError, match="is not FIELD=HEADER"):
        settings.column_choice(text)


@pytest.mark.parametrize("name", ["m", "My batch", "größe-2.1", "語", "a..b"])
def test_a_batch_name_may_be_any_file_name(name: str) -> None:
    assert settings.batch_name(name) == name


@pytest.mark.parametrize("name", ["", ".hidden", "..", "a/b", "a\\b", "a:b", "a*", "a?", 'a"', "a<", "a|b", "a\nb"])
def test_a_batch_name_that_is_no_safe_file_name_is_refused(name: str) -> None:
    """With a hint."""
    with pytest.raises(UsageError, match="is not a valid batch name") as caught:
        settings.batch_name(name)
    assert "--batch" in caught.value.hint


@pytest.mark.parametrize(
    "content",
    [TOKEN, f"{TOKEN}\n", f"\n  {TOKEN}  \r\n", f"{TOKEN}\nsecond line\n", f"{TOKEN}\r\nsecond line"],
)
def test_the_token_is_the_stripped_first_line_of_its_file(tmp_path: Path, content: str) -> None:
    file = tmp_path / "token"
    file.write_bytes(content.encode())
    assert settings.read_token(None, file) == TOKEN


def test_a_given_token_wins_over_its_file(tmp_path: Path) -> None:
    """The file is not even read."""
    assert settings.read_token(f" {TOKEN}\n", tmp_path / "missing") == TOKEN


@pytest.mark.parametrize("content", ["", "\n\n", "   "])
def test_an_empty_file_or_value_is_no_token(tmp_path: Path, content: str) -> None:
    file = tmp_path / "token"
    file.write_text(content)
    assert settings.read_token(None, file) is None
    assert settings.read_token(content, None) is None
    assert settings.read_token(None, None) is None


@pytest.mark.parametrize("token", ["sk with blanks", "sk-\u201cquoted\u201d", "sk-\x07bell", "sk-a\tb", "\ufeffsk-abc"])
def test_a_token_that_no_header_can_carry_is_refused_unshown(token: str) -> None:
    with pytest.raises(UsageError, match="invalid characters") as caught:
        settings.read_token(token, None)
    assert "sk" not in str(caught.value)


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_an_unreadable_token_file_is_named_with_the_reason(tmp_path: Path, content: bytes | None) -> None:
    """Its content shows nowhere."""
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError, match=f"cannot read the token from {file}: ") as caught:
        settings.read_token(None, file)
    assert caught.value.__cause__ is None
    assert "\\xff" not in "".join(traceback.format_exception(caught.value))


def test_neither_repr_nor_str_shows_the_token(tmp_path: Path) -> None:
    made = make(tmp_path, token=TOKEN, sources=(Source(path=tmp_path / "m.csv", rules=Rules(batch="m")),))
    assert made.require_token() == TOKEN
    for shown in (repr(made), str(made), f"{made}", f"{(made, [made])!r}"):
        assert TOKEN not in shown
        assert "secret" not in shown


@pytest.mark.parametrize("token", [None, ""])
def test_a_missing_token_error_names_every_way_to_give_one(tmp_path: Path, token: str | None) -> None:
    with pytest.raises(CredentialsError) as caught:
        make(tmp_path, token=token).require_token()
    for way in ("BATCHER_API_TOKEN", "--token-file", "--sandbox"):
        assert way in caught.value.hint


def test_settings_are_frozen(tmp_path: Path) -> None:
    with pytest.raises(AttributeError):
        make(tmp_path).concurrency = 50  # type: ignore[misc]


def test_a_run_is_real_unless_it_asks_for_the_sandbox(tmp_path: Path) -> None:
    assert make(tmp_path).world == "real"
    assert make(tmp_path, sandbox=True).world == "sandbox"


def test_batcher_toml_is_read_from_its_folder(tmp_path: Path) -> None:
    """A missing one means no settings."""
    assert settings.read_file(tmp_path) == {}
    (tmp_path / "batcher.toml").write_text('voice = "anna"\n[voices]\nAnna = "v-1"\n')
    assert settings.read_file(tmp_path) == {"voice": "anna", "voices": {"Anna": "v-1"}}


@pytest.mark.parametrize(
    "content",
    [b"voice = ", b"voice = 'a'\nvoice = 'b'\n", b"\xff\xfe", b"a = " + b"9" * 5000, b"a = " + b"[" * 5000],
)
def test_an_unreadable_batcher_toml_is_named_with_the_reason(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "batcher.toml").write_bytes(content)
    with pytest.raises(UsageError, match=r"batcher\.toml: "):
        settings.read_file(tmp_path)


@pytest.mark.parametrize(
    "words",
    [
        ["--ledger", "postgresql://host/db?user=u&password=secret"],
        ["--ledger=postgresql://host/db?password=secret"],
        ["--ledger", "postgresql://u:secret@host/db"],
        ["--api-url=https://u:secret@host/x"],
    ],
)
def test_a_suggested_command_has_no_password(words: list[str]) -> None:
    command = settings.changed_command(["batcher", "run", "a.csv", *words], {"--yes": []})
    assert "secret" not in command
    assert command.startswith(f"batcher run a.csv {words[0].partition('=')[0]}")


def test_a_table_of_strings_is_returned_unchanged(tmp_path: Path) -> None:
    """A missing one is empty."""
    assert settings.string_table(None, "voices", tmp_path) == {}
    assert settings.string_table({"Anna": "v-1"}, "voices", tmp_path) == {"Anna": "v-1"}


@pytest.mark.parametrize("table", ["anna", ["anna"], {"Anna": 1}, {"Anna": {"id": "v-1"}}])
def test_a_table_of_other_values_is_refused_by_name(tmp_path: Path, table: object) -> None:
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
def test_sandbox_and_api_url_conflict_only_if_both_are_options(
    project: Project, arguments: str, environment: dict[str, str], file: str, refused: bool
) -> None:
    """A configured address gives way to the sandbox."""
    project.manifest(1)
    (project.folder / "batcher.toml").write_text(file, encoding="utf-8")
    trusting = environment | {"BATCHER_TRUST": "1"}
    told = project.batcher("plan", "lines.csv", *arguments.split(), environment=trusting)
    assert (told.exit_code, "exclude each other" in told.err) == ((2, True) if refused else (0, False)), told


def test_columns_in_the_environment_are_separated_by_spaces(project: Project, provider: FakeTTS) -> None:
    """Spaces within a header do not count."""
    project.manifest([{"Mein Text": "Hallo.", "No": "7"}])
    chosen = {"BATCHER_COLUMN": "text=MeinText id=no", "BATCHER_VOICE": "anna"}
    assert project.run("lines.csv", environment=chosen).exit_code == 0
    assert (project.audio / "7.mp3").is_file()


def test_lock_files_that_a_pattern_includes_are_skipped(project: Project, provider: FakeTTS) -> None:
    """Somebody has the workbook open, or a Mac has copied it."""
    project.manifest(1)
    for name in ("~$lines.xlsx", "._lines.csv", ".~lock.lines.ods#"):
        (project.folder / name).write_bytes(b"\x05Somebody")
    ended = project.run("._lines.csv", "lines.csv", "~$lines.xlsx", ".~lock.lines.ods#")
    assert ended.exit_code == 0
    assert "skipped ~$lines.xlsx: it is the lock file of a document that is open in Microsoft Office" in ended.err
    alone = project.run("~$lines.xlsx")
    assert (alone.exit_code, "is the lock file" in alone.err) == (2, True)


def test_a_name_that_is_not_utf_8_is_refused_before_anything_is_written(project: Project) -> None:
    folder = project.folder / os.fsdecode(b"gr\xfcn")
    folder.mkdir()
    manifest = project.manifest(1).rename(folder / "lines.csv")
    for command in ("run", "plan"):
        ended = project.batcher(command, manifest, "--sandbox")
        assert (ended.exit_code, "Traceback" in ended.err) == (2, False)
        assert "the name is not UTF-8" in ended.err
        assert "gr\\udcfcn" in ended.err
    assert list(folder.iterdir()) == [manifest]
    with pytest.raises(UsageError, match="not UTF-8"):
        settings.Settings(sources=(), ledger=manifest, out_dir=project.folder)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("s3://bucket/audio book/1", "s3://bucket/audio book/1"),
        ("gs://bucket/", "gs://bucket"),
        ("az://container/a", "az://container/a"),
    ],
)
def test_an_output_folder_may_be_a_prefix_in_an_object_store(given: str, meant: str) -> None:
    assert output_folder(given) == meant


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("http://example.com/audio", "unsupported address http"),
        ("s3://", "is not a bucket"),
        ("s3:///prefix", "is not a bucket"),
        ("s3://bucket/a//b", "is not a bucket with a prefix"),
        ("s3://bucket/../b", "is not a bucket with a prefix"),
        ("s3://bucket/a?region=x", "is not a bucket with a prefix"),
        ("s3://key:secret@bucket/a", "more than a bucket"),
    ],
)
def test_other_addresses_of_an_output_folder_are_refused(given: str, why: str) -> None:
    """Without showing a password."""
    with pytest.raises(UsageError, match=why) as caught:
        output_folder(given)
    assert "secret" not in str(caught.value)
