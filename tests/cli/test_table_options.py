"""The options for tables, from the command line, the environment and `batcher.toml`, in each command that reads one."""

from __future__ import annotations

import csv
import io
import json
import shlex
from typing import TYPE_CHECKING

import pytest

from tests.support.fake_tts import FakeTTS

if TYPE_CHECKING:
    from tests.conftest import Project

SPEECH = 'k1|"Sell it," they said.|raw\nk2|Nobody did.|raw\n'
TEXTS = ['"Sell it," they said.', "Nobody did."]


@pytest.mark.parametrize("where", ["options", "environment", "file", "list in the file"])
def test_the_options_for_tables_may_be_set_anywhere(project: Project, provider: FakeTTS, where: str) -> None:
    """A later report reads the manifest as the run did."""
    (project.folder / "m.csv").write_text(SPEECH)
    options: list[str] = []
    environment: dict[str, str] = {}
    toml = 'voice = "anna"\n'
    if where == "options":
        options = ["--no-header", "--columns", "id,text,_"]
    elif where == "environment":
        environment = {"BATCHER_NO_HEADER": "1", "BATCHER_COLUMNS": "id,text,_"}
    else:
        names = '"id,text,_"' if where == "file" else '["id", "text", "_"]'
        toml += f"no-header = true\ncolumns = {names}\n"
    (project.folder / "batcher.toml").write_text(toml)
    planned = project.batcher("plan", "m.csv", *options, "--api-url", provider.url, environment=environment)
    assert "delimiter |; quotes are part of the texts" in planned.out
    ended = project.run("m.csv", *options, environment=environment)
    assert ended.report["exit_code"] == 0
    assert "delimiter |; quotes are part of the texts" in ended.err
    assert sorted(provider.asked) == sorted(TEXTS)
    lines = (project.audio / "m.results.jsonl").read_text().splitlines()
    assert [(json.loads(line)["row"], json.loads(line)["id"]) for line in lines] == [(1, "k1"), (2, "k2")]
    report = project.batcher("report", "m.csv", "--format", "csv")
    assert [(row["id"], row["text"]) for row in csv.DictReader(io.StringIO(report.out))] == [
        ("k1", TEXTS[0]), ("k2", TEXTS[1]),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--columns", "id,text"], "--columns names the columns of a file without a header"),
        (["--no-header", "--header-row", "2"], "--header-row and --no-header contradict each other"),
        (["--delimiter", "ab"], "'ab' is not a delimiter: use one character, or tab"),
        (["--delimiter", '"'], "is not a delimiter"),
        (["--quotes", "maybe"], "--quotes"),
    ],
)
def test_options_for_tables_that_make_no_sense_are_refused(
    project: Project, provider: FakeTTS, options: list[str], words: str
) -> None:
    (project.folder / "m.csv").write_text(SPEECH)
    ended = project.batcher("plan", "m.csv", *options, "--api-url", provider.url)
    assert ended.exit_code == 2
    assert words in ended.err


def test_the_table_of_columns_in_the_file_still_maps_headers(project: Project, provider: FakeTTS) -> None:
    """`columns` is the list only if it is not a table."""
    (project.folder / "m.csv").write_text("Satz\nHallo.\n")
    (project.folder / "batcher.toml").write_text('voice = "anna"\n[columns]\ntext = "Satz"\n')
    planned = project.batcher("plan", "m.csv", "--api-url", provider.url, "--json")
    assert planned.report["columns_sent"] == {"Satz": "text"}


SHEET = "Kapitel 1;;28.11.2026\n\nNr.;Figur;Zeile\nk1;Anna;Es war einmal.\nk2;Ben;Nein.\n"
NAMED = (
    'If the column has names instead of voice IDs, put these lines into batcher.toml:\n  [voices]\n  "Anna" = "VOICE"\n'
)


@pytest.mark.parametrize(
    ("content", "options", "voices"),
    [
        (SHEET, "--header-row 3 --column text=Zeile --column id=Nr. --column voice=Figur", False),
        ("Line ID,Character,Dialogue\nk1,Anna,Who is it?\nk2,Ben,It is me.\n", "--column text=Dialogue", True),
        ("id,Speaker,text\nk1,Anna,Who is it?\nk2,Ben,It is me.\n", "--column voice=Speaker", True),
    ],
)
def test_the_first_error_about_a_sheet_prints_the_command_that_reads_it(
    project: Project, provider: FakeTTS, content: str, options: str, voices: bool
) -> None:
    """With the columns of texts, ids and speakers; the speakers are ready to be copied to `[voices]`."""
    (project.folder / "my sheet.csv").write_text(content, encoding="utf-8")
    refused = project.batcher("plan", "my sheet.csv", "--api-url", provider.url)
    after = refused.out.partition("To read it like this:\n")[2].splitlines()[0]
    assert (refused.exit_code, options in after, NAMED in refused.out) == (2, True, voices)
    program, *words = shlex.split(after)
    planned = project.batcher(*words)
    assert (program, planned.exit_code) == ("batcher", 0), planned
    assert "voices: Anna 1, Ben 1" in planned.out


def test_a_file_in_another_encoding_prints_the_command_for_that_of_excel(project: Project, provider: FakeTTS) -> None:
    """A column that was named on the command line stays so."""
    path = project.folder / "m.csv"
    path.write_bytes("id,Satz,voice\nk1,Grüße aus Köln,a\n".encode("cp1252"))
    refused = project.batcher("plan", "m.csv", "--column", "text=Satz", "--api-url", provider.url)
    after = refused.out.partition("If Excel saved it on Windows:\n")[2].splitlines()[0]
    assert project.batcher(*shlex.split(after)[1:]).exit_code == 0
