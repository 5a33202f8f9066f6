"""Reading manifests: formats, columns, and how faults are reported."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from batcher.errors import ManifestError
from batcher.manifest.faults import Faults
from batcher.manifest.reader import Manifest
from batcher.manifest.rows import Row
from batcher.manifest.rules import Rules

SAMPLES = Path(__file__).parents[2] / "sample_inputs"


def rules(**changes: Any) -> Rules:
    return Rules(**({"batch": "m", "voice": "anna"} | changes))


def read(folder: Path, content: str | bytes, name: str = "m.csv", **changes: Any) -> tuple[list[Row], Manifest]:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    manifest = Manifest(path, rules(**changes))
    return list(manifest.rows()), manifest


def faults(folder: Path, content: str | bytes, name: str = "m.csv", **changes: Any) -> list[str]:
    """The error lines without the folder; checks that no bad row is yielded."""
    rows, manifest = read(folder, content, name, **changes)
    assert all(row.inputs is not None for row in rows)
    return [line.removeprefix(f"{folder}/") for line in manifest.faults.lines()]


def texts(rows: list[Row]) -> list[str]:
    return [row.inputs.text for row in rows if row.inputs]


def test_csv_and_jsonl_twins_give_equal_rows(tmp_path: Path) -> None:
    """Their keys are equal too. Only the numbers differ, by the header."""
    records: list[dict[str, Any]] = [
        {"ID": "7", "text": " Hi\r\nyou ", "Voice-Id": "bob", "speed": 1.5, "take": 2, "format": "WAV", "notes": "n"},
        {"ID": "8", "text": "Bye", "Voice-Id": "", "speed": 1, "take": "", "format": "", "notes": ""},
    ]
    sheet = io.StringIO()
    writer = csv.DictWriter(sheet, list(records[0]))
    writer.writeheader()
    writer.writerows(records)
    from_csv, table = read(tmp_path, sheet.getvalue())
    from_json, lines = read(tmp_path, "\n".join(map(json.dumps, records)), "m.jsonl")
    assert not table.faults
    assert not lines.faults
    assert [(r.number - 1, r.id, r.inputs, r.output, r.extra) for r in from_csv] == [
        (r.number, r.id, r.inputs, r.output, r.extra) for r in from_json
    ]
    assert [r.inputs and r.inputs.key() for r in from_csv] == [r.inputs and r.inputs.key() for r in from_json]
    first = from_csv[0].inputs
    assert first is not None
    assert (first.text, first.voice, first.format, first.take, first.params) == (
        "Hi\nyou",
        "bob",
        "wav",
        2,
        {"speed": 1.5},
    )
    assert table.columns_sent == lines.columns_sent
    assert table.columns_sent["Voice-Id"] == "voice"
    assert table.columns_carried == lines.columns_carried == ["notes"]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=1, max_size=8))
@example(["\r0,"])
def test_cells_written_by_a_csv_writer_are_read_back(
    tmp_path_factory: pytest.TempPathFactory, cells: list[str]
) -> None:
    """A text is stripped and gets plain line ends; a carried cell is unchanged. A cell that looks like rows which a
    quote swallows is an error first."""
    sheet = io.StringIO()
    csv.writer(sheet).writerows([["text", "carried"], *([f"x{cell}x", cell] for cell in cells)])
    folder = tmp_path_factory.mktemp("h")
    rows, manifest = read(folder, sheet.getvalue())
    if manifest.faults:
        assert all(line.endswith("probably rows: close its quote") for line in manifest.faults.lines())
        rows, manifest = read(folder, sheet.getvalue(), quotes="on")
    assert manifest.faults.lines() == []
    assert texts(rows) == [f"x{cell}x".replace("\r\n", "\n").replace("\r", "\n") for cell in cells]
    assert [row.extra["carried"] for row in rows] == cells


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_encodings_delimiters_and_line_ends_of_csv_are_detected(
    tmp_path: Path, encoding: str, delimiter: str, end: str
) -> None:
    table = end.join(
        [delimiter.join(["id", '"text"', "a;b,c" if delimiter == "\t" else "x"]), "", delimiter.join("1é3")]
    )
    rows, manifest = read(tmp_path, table.encode(encoding))
    assert manifest.faults.lines() == []
    assert [(row.id, row.line, texts([row])) for row in rows] == [("1", 3, ["é"])]
    assert manifest.columns_sent == {"id": "id", "text": "text"}


def test_a_manifest_needs_only_texts(tmp_path: Path) -> None:
    """Ids are padded row numbers, as a spreadsheet shows them; blank rows and cells are skipped."""
    rows, manifest = read(tmp_path, 'text,,n,\n"one, two"\n , ,\n\nthree, ,,, ,\n', "m.txt")
    assert not manifest.faults
    assert texts(rows) == ["one, two", "three"]
    assert [(row.number, row.line, row.id, row.output) for row in rows] == [
        (2, 2, "000002", "000002.mp3"),
        (5, 5, "000005", "000005.mp3"),
    ]


def test_an_error_names_the_line_where_its_record_begins(tmp_path: Path) -> None:
    """Line breaks within cells do not shift it."""
    assert faults(tmp_path, 'text,take\n"a\nb\r\nc",1\n"d\ne",x\n') == [
        'm.csv:5: take: "x" is not a take: use 1, 2, 3, ...'
    ]


@pytest.mark.parametrize("name", ["m.csv", "m.jsonl"])
def test_a_cell_of_5_mb_is_read_whole(tmp_path: Path, name: str) -> None:
    text = "word " * 1_000_000 + "end"
    content = f'id,text\n1,"{text}"\n' if name == "m.csv" else json.dumps({"id": 1, "text": text})
    assert texts(read(tmp_path, content, name)[0]) == [text]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("m", ' \n {"text": "a"}\n'),
        ("m.csv", "{,text\nx,a"),
        ("m.dat", "text\na"),
        ("m.ndjson", '\ufeff{"text": "a"}'),
        ("m.JSON", '{"text": "a"}'),
    ],
)
def test_the_format_follows_from_the_file_name_or_its_first_character(tmp_path: Path, name: str, content: str) -> None:
    """A file that begins with a brace is JSONL."""
    assert texts(read(tmp_path, content, name)[0]) == ["a"]


def test_standard_input_is_jsonl() -> None:
    manifest = Manifest(None, rules(), stdin=io.BytesIO(b'{"text": "a"}\n{"text": 5}\n'))
    assert texts(list(manifest.rows())) == ["a"]
    assert manifest.faults.lines() == ["<stdin>:2: text: 5 is not a string: put it in quotes"]


def test_hash_and_size_cover_the_whole_file(tmp_path: Path) -> None:
    """Also where the rows could not be read to the end."""
    content = b"\xef\xbb\xbftext\r\n" + b"a\r\n" * 5000 + b'"open\n' + b"x" * 100_000
    rows, manifest = read(tmp_path, content)
    assert len(rows) == 5000
    assert (manifest.digest, manifest.size) == (hashlib.sha256(content).hexdigest(), len(content))


def test_the_broken_sample_reports_every_error() -> None:
    """The sample holds each error of a CSV file that does not stop the reader."""
    manifest = Manifest(SAMPLES / "broken.csv", Rules(batch="broken"))
    assert [row.id for row in manifest.rows()] == ["fine", "fine", "same-file", "last"]
    said = [line.split("broken.csv:")[1] for line in manifest.faults.lines()]
    expected = [
        "1: Voice ID: columns 3 and 10 are both read as `voice`: remove or rename one",
        "1: notes: two columns have this name, and the results can hold only one: rename one",
        "1: emotoin: looks like `emotion` misspelt",
        "1: params: only JSONL has `params`",
        "4: text: the text is empty",
        "5: no voice: add a `voice` column or pass --voice VOICE",
        '6: voice: "vvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvv..." has 201 characters: use at most 200',
        '7: voice: "an\\nna" contains a line break',
        '9: format: "flac" is not a format: use mp3, wav, opus, ogg or pcm',
        '10: take: "0" is not a take: use 1, 2, 3, ...',
        '11: speed: "fast" is not a number: use digits',
        '12: speed: "1,5" has a decimal comma: write 1.5',
        '13: speed: "1e999" is too large: write a smaller number',
        '14: id: "bell\\x07" contains a line break or another control character: remove it',
        '15: id: "iiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiii..." has 201 characters: use at most 200',
        '16: output: "/tmp/a.mp3" is an absolute path: write it relative to the output folder',
        '17: output: "../a.mp3" leaves the output folder: remove the ..',
        '18: output: "chapter/" is a folder: add the name of a file',
        '19: output: "chapter\\a.mp3" contains a backslash: separate folders by /',
        '20: output: ".a.mp3" begins with a dot, which is reserved for unfinished files: remove it',
        '21: output: "a\\x1bb.mp3" contains a line break or another control character: remove it',
        '22: output: "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn..." is too long for a file: use at most 249 bytes',
        '23: output: "broken.results.csv" is reserved for results and reports: use another name',
        "25: 15 cells, but the header has 14 columns: quote cells that contain the delimiter",
        '26: "stray" is in column 13, which has no name: name the column or clear the cell',
        "27: text: contains a NUL character: remove it",
        "28: a quote within a quoted cell: write it twice, or remove the quotes around the cell",
    ]
    assert [line for line, start in zip(said, expected, strict=True) if not line.startswith(start)] == []
    assert manifest.faults.fatal
    assert manifest.faults.count == len(expected)


@pytest.mark.parametrize("name", ["m.csv", "m.jsonl"])
def test_many_rows_with_one_cause_are_reported_in_one_line(tmp_path: Path, name: str) -> None:
    """With their number and their span of lines."""
    content = "text\n" + "a\n" * 3000 if name == "m.csv" else '{"text": "a"}\n' * 3000
    first = 2 if name == "m.csv" else 1
    assert faults(tmp_path, content, name, voice=" ") == [
        f"{name}:{first}: no voice: add a `voice` column or pass --voice VOICE"
        f" (and 2,999 more rows: lines {first + 1}-{first + 2999})"
    ]


def test_only_the_first_spans_of_lines_and_the_last_line_are_listed() -> None:
    """Adjacent lines make one span."""
    collected = Faults("f")
    for line in (1, 7):
        collected.add(line, "a", "is bad", cause="one")
    for line in (2, 4, 5, 6, 10, 20, 30, 40, 50):
        collected.add(line, None, "is worse", cause="many")
    assert collected.lines() == [
        "f:1: a: is bad (and 1 more row: line 7)",
        "f:2: is worse (and 8 more rows: lines 4-6, 10, 20, 30, 40 ... 50)",
    ]
    assert (collected.count, collected.fatal, bool(collected), bool(Faults("f"))) == (11, False, True, False)


def test_at_most_fifty_causes_are_listed() -> None:
    """By first line, those of the whole file first; the rest is a number."""
    collected = Faults("f")
    for line in range(60, 0, -1):
        collected.add(line, None, f"reason {line}", cause=str(line))
    collected.add(None, None, "all of it", cause="file", fatal=True)
    lines = collected.lines()
    assert lines[:2] == ["f: all of it", "f:1: reason 1"]
    assert (len(lines), lines[-1]) == (51, "... and 11 more")
    assert collected.fatal


def test_an_error_is_one_line_without_control_characters(tmp_path: Path) -> None:
    """Regardless of the header or the value."""
    said = faults(tmp_path, 'text,"emo\n\x1btoin",take\na,,"\x1b[2J\nx"\n')
    assert [line.isprintable() for line in said] == [True, True]


@pytest.mark.parametrize(
    ("header", "field"),
    [("txet", "text"), ("vioce", "voice"), ("fromat", "format"), ("langauge", "language"), ("Emotoin", "emotion"),
     ("out_put_", None), ("modelId", "model"), ("voice__name", None), ("texts", "text"), ("engine-modell-id", "model")],
)  # fmt: skip
def test_a_misspelt_column_is_fatal(tmp_path: Path, header: str, field: str | None) -> None:
    """Whether or not bad rows are skipped. Accepted spellings are not errors."""
    text = "a" if field == "text" else "text"
    _, manifest = read(tmp_path, f"{header},{text}\nx,y\n", skip_invalid=True)
    if field is None:
        assert not manifest.faults
        return
    assert manifest.faults.fatal
    carry = ", or copy it to the results with --column "
    ways = {"text": "", "voice": f"{carry}voice= and set a voice for all rows with --voice"}
    assert manifest.faults.lines() == [
        f"{tmp_path}/m.csv:1: {header}: looks like `{field}` misspelt: rename it, or read it as it is with "
        f"--column {field}={header}" + ways.get(field, f"{carry}{field}=")
    ]


@pytest.mark.parametrize("skip", [False, True])
def test_errors_caused_by_a_misspelt_column_are_not_repeated(tmp_path: Path, skip: bool) -> None:
    """Rows that lack a voice or a text because of it are not bad rows. Each hint leads on."""
    content = "id,txet,voise\na,A.,anna\nb,,\n"
    rows, manifest = read(tmp_path, content, voice=None, skip_invalid=skip)
    assert [line.split(":")[2] for line in manifest.faults.lines()] == [" txet", " voise"]
    assert all(row.inputs is None for row in rows)
    used = {"text": "txet", "voice": "voise"}
    assert texts(read(tmp_path, content, voice=None, columns=used, skip_invalid=True)[0][:1]) == ["A."]
    carried = {"text": "txet", "voice": ""}
    _, manifest = read(tmp_path, content, voice="eva", columns=carried, skip_empty=True)
    assert (manifest.faults.lines(), manifest.columns_carried) == ([], ["voise"])


def test_a_misspelt_field_of_jsonl_is_an_error_of_its_row(tmp_path: Path) -> None:
    """Each record names its own fields; the row is reported once and can be skipped."""
    records = ({"id": "a", "text": "A."}, {"id": "b", "txet": "B."}, {"id": "c", "text": "C.", "vioce": "eva"})
    content = "\n".join(map(json.dumps, records))
    rows, manifest = read(tmp_path, content, "m.jsonl", skip_invalid=True)
    assert [(row.id, row.skipped) for row in rows] == [("a", None), ("b", "invalid"), ("c", "invalid")]
    assert not manifest.faults.fatal
    starts = [
        "m.jsonl:2: txet: looks like `text` misspelt",
        "m.jsonl:3: vioce: looks like `voice` misspelt",
    ]
    told = faults(tmp_path, content, "m.jsonl")
    assert [line.partition(": rename it")[0] for line in told] == starts


@pytest.mark.parametrize("header", ["title", "notes", "speaker", "context", "i", "uid", "date", "kate", "name"])
def test_other_columns_are_carried(tmp_path: Path, header: str) -> None:
    """Ordinary words in a header are not misspellings."""
    rows, manifest = read(tmp_path, f"text,{header}\na, 1 \n")
    assert not manifest.faults
    assert manifest.columns_carried == [header]
    assert rows[0].extra == {header: " 1 "}


def test_a_similar_header_beside_the_real_column_is_carried(tmp_path: Path) -> None:
    """A sheet with `text` may have `text_de` and `texts` as well."""
    assert read(tmp_path, "text,text_de,texts\na,b,c\n")[1].columns_carried == ["text_de", "texts"]
    _, manifest = read(tmp_path, '{"text": "a", "texts": 1}\n', "m.jsonl")
    assert not manifest.faults


def test_columns_are_mapped_on_request(tmp_path: Path) -> None:
    """In any spelling. A field mapped to another header leaves its own name to be carried."""
    chosen = {"text": "the script", "emotion": " ", "pitch": "", "voiceId": "Who"}
    for name, content in (
        ("m.csv", "The_Script,text,emotoin,emotion,who,voice\na,b,c,d,eva,x\n"),
        ("m.jsonl", '{"The_Script":"a","text":"b","emotoin":"c","emotion":"d","who":"eva","voice":"x"}'),
    ):
        rows, manifest = read(tmp_path, content, name, columns=chosen)
        assert manifest.faults.lines() == []
        assert manifest.columns_sent == {"The_Script": "text", "who": "voice"}
        assert rows[0].extra == {"text": "b", "emotoin": "c", "emotion": "d", "voice": "x"}
        assert rows[0].inputs is not None
        assert (rows[0].inputs.text, rows[0].inputs.voice, rows[0].inputs.params) == ("a", "eva", {})


@pytest.mark.parametrize(
    ("chosen", "fault"),
    [
        ({"mood": "x"}, "m: --column mood=x: there is no field `mood`: use one of text, id, voice, "),
        ({"speed": "Tempo"}, "m: --column speed=Tempo: the file has no column `Tempo` (it has text, n)"),
        ({"text": "Script"}, "m: --column text=Script: the file has no column `Script` (it has text, n)"),
        ({"speed": "n", "pitch": "N"}, "m: --column maps `N` to both `speed` and `pitch`: choose one"),
    ],
)
def test_a_mapping_of_an_unknown_field_or_header_is_fatal(tmp_path: Path, chosen: dict[str, str], fault: str) -> None:
    for name, content in (("m.csv", "text,n\na,1\n"), ("m.jsonl", '{"text": "a", "n": 1}')):
        _, manifest = read(tmp_path, content, name, columns=chosen)
        assert manifest.faults.fatal
        assert manifest.faults.lines()[0].startswith(fault.replace("m:", f"{tmp_path}/{name}:", 1))


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        (
            "m.csv",
            "id,txt2\n1,a\n2,b\n",
            "m.csv:1: no `text` column: pass --column text=txt2",
        ),
        ("m.csv", "\n ,;\n", "m.csv: empty: the first line must name the columns"),
        (
            "m.jsonl",
            '{"id": 1}',
            "m.jsonl: no `text` column: name the column of the texts with --column text=HEADER (it has id)",
        ),
        (
            "m.csv",
            'text,n\na,1\n"b,2\nc,3\n',
            "m.csv:3: a quote is opened and never closed: close it (the rest of the file was",
        ),
    ],
)
def test_an_error_of_the_whole_file_is_fatal_and_reported_once(
    tmp_path: Path, name: str, content: str, fault: str
) -> None:
    _, manifest = read(tmp_path, content, name, skip_invalid=True)
    assert manifest.faults.fatal
    assert manifest.faults.lines()[0].startswith(f"{tmp_path}/{fault}")


def test_a_broken_quote_is_reported_at_its_record_and_line(tmp_path: Path) -> None:
    """Reading goes on after it."""
    assert faults(tmp_path, 'text,take\n"a\nb "c" d",1\ne,x\n') == [
        "m.csv:2: a quote within a quoted cell in line 3: write it twice, or remove the quotes around the cell",
        'm.csv:4: take: "x" is not a take: use 1, 2, 3, ...',
    ]


def test_an_open_quote_does_not_read_the_file_into_memory(tmp_path: Path) -> None:
    (said,) = faults(tmp_path, b'text\na\n"' + (b"x" * 1000 + b"\n") * 9000)
    reason = "a cell has more than 8,388,608 characters, or a quote is never closed: close it"
    assert said == f"m.csv:3: {reason} (the rest of the file was not read)"


@pytest.mark.parametrize(
    ("content", "encoding", "message", "hint"),
    [
        ("text\nfine\ncafé\n".encode("cp1252"), None,
         "m.csv:3: not valid UTF-8: invalid continuation byte at byte 13", "cp"),
        (b"text\r\n" + 5000 * b"012345\r\n" + b"\xff", None,
         "m.csv:5002: not valid UTF-8: invalid start byte at byte 40,006", ""),
        (b"text\n\x81\n", "cp1252", "m.csv:2: not valid CP1252: character maps to <undefined> at byte 5", "UTF-8"),
        ("text\na".encode("utf-16") + b"a", None, "m.csv:2: not valid UTF-16-LE: truncated data at byte 14", "UTF-8"),
        (b"text", "latin-one", 'm.csv: "latin-one" is not an encoding', "cp1252"),
        (b"text", "hex", 'm.csv: "hex" is not an encoding', "cp1252"),
        (b"text", "punycode", 'm.csv: "punycode" is not an encoding', "cp1252"),
        (b"text", "undefined", 'm.csv: "undefined" is not an encoding', "cp1252"),
        (b"text", "utf\0", 'm.csv: "utf', "cp1252"),
        (b"text,id\n", "utf-16", "m.csv:1: not valid UTF-16: UTF-16 stream does not start with BOM", "UTF-8"),
        ("text\na".encode("utf-16-le"), None,
         "m.csv:1: the header contains NUL bytes: the file may be UTF-16", "--encoding"),
        (b'"text"x,y\na', None, "m.csv:1: the header is not valid CSV", ""),
    ],
)  # fmt: skip
def test_a_wrong_encoding_or_header_ends_the_reading(
    tmp_path: Path, content: bytes, encoding: str | None, message: str, hint: str
) -> None:
    """The error names line, byte and the option that helps."""
    with pytest.raises(ManifestError) as caught:
        read(tmp_path, content, encoding=encoding)
    assert caught.value.message.startswith(f"{tmp_path}/{message}")
    assert caught.value.faults == [caught.value.message]
    assert hint in caught.value.hint


def test_a_given_encoding_is_used(tmp_path: Path) -> None:
    """For files without a byte order mark."""
    assert texts(read(tmp_path, "text\ncafé".encode("cp1252"), encoding="cp1252")[0]) == ["café"]
    assert texts(read(tmp_path, "text\ncafé".encode("utf-16-be"), encoding="utf-16-be")[0]) == ["café"]


def test_a_missing_file_or_a_folder_is_refused(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "no.csv", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(ManifestError, match=f"cannot be read: {reason}"):
            list(Manifest(path, rules()).rows())


def test_memory_does_not_grow_with_rows(tmp_path: Path) -> None:
    """Not even if every row has an error."""
    peaks = []
    for count in (1_000, 10_000):
        path = tmp_path / f"{count}.csv"
        path.write_text("id,text,take\n" + "".join(f"{n},,x\n{n},ok,\n" for n in range(count // 2)))
        tracemalloc.start()
        for _ in Manifest(path, rules()).rows():
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.2
