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
from hypothesis import given
from hypothesis import strategies as st

from batcher.errors import ManifestError
from batcher.manifest.faults import Faults
from batcher.manifest.reader import Manifest
from batcher.manifest.rows import Row, Rules

SAMPLES = Path(__file__).parents[2] / "sample_inputs"


def rules(**changes: Any) -> Rules:
    return Rules(**({"batch": "m", "voice": "anna"} | changes))


def read(folder: Path, content: str | bytes, name: str = "m.csv", **changes: Any) -> tuple[list[Row], Manifest]:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    manifest = Manifest(path, rules(**changes))
    return list(manifest.rows()), manifest


def faults(folder: Path, content: str | bytes, name: str = "m.csv", **changes: Any) -> list[str]:
    """The fault lines without the folder; none of the rows at fault may have been yielded."""
    rows, manifest = read(folder, content, name, **changes)
    assert all(row.inputs is not None for row in rows)
    return [line.removeprefix(f"{folder}/") for line in manifest.faults.lines()]


def texts(rows: list[Row]) -> list[str]:
    return [row.inputs.text for row in rows if row.inputs]


def test_csv_and_jsonl_twins_give_equal_rows(tmp_path: Path) -> None:
    """The same records as CSV and as JSONL become the same rows with the same keys."""
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
    assert [(r.number, r.id, r.inputs, r.output, r.extra) for r in from_csv] == [
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
def test_what_csv_wrote_is_read_back(tmp_path_factory: pytest.TempPathFactory, cells: list[str]) -> None:
    """Whatever a CSV writer puts into cells arrives: stripped with plain line ends as text, untouched when carried."""
    sheet = io.StringIO()
    csv.writer(sheet).writerows([["text", "carried"], *([f"x{cell}x", cell] for cell in cells)])
    rows, manifest = read(tmp_path_factory.mktemp("h"), sheet.getvalue())
    assert manifest.faults.lines() == []
    assert texts(rows) == [f"x{cell}x".replace("\r\n", "\n").replace("\r", "\n") for cell in cells]
    assert [row.extra["carried"] for row in rows] == cells


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_spellings_of_csv(tmp_path: Path, encoding: str, delimiter: str, end: str) -> None:
    """Encodings with their marks, delimiters and line ends all mean the same table."""
    table = end.join(
        [delimiter.join(["id", '"text"', "a;b,c" if delimiter == "\t" else "x"]), "", delimiter.join("1é3")]
    )
    rows, manifest = read(tmp_path, table.encode(encoding))
    assert manifest.faults.lines() == []
    assert [(row.id, row.line, texts([row])) for row in rows] == [("1", 3, ["é"])]
    assert manifest.columns_sent == {"id": "id", "text": "text"}


def test_a_column_of_texts_is_enough(tmp_path: Path) -> None:
    """One column makes a manifest; ids are padded row numbers, and blank rows and cells count for nothing."""
    rows, manifest = read(tmp_path, 'text,,n,\n"one, two"\n , ,\n\nthree, ,,, ,\n', "m.txt")
    assert not manifest.faults
    assert texts(rows) == ["one, two", "three"]
    assert [(row.number, row.line, row.id, row.output) for row in rows] == [
        (1, 2, "000001", "000001.mp3"),
        (2, 5, "000002", "000002.mp3"),
    ]


def test_lines_are_those_where_records_begin(tmp_path: Path) -> None:
    """Line breaks within cells don't shift the lines that faults name."""
    assert faults(tmp_path, 'text,take\n"a\nb\r\nc",1\n"d\ne",x\n') == [
        'm.csv:5: take: "x" is not a take: use 1, 2, 3, ...'
    ]


@pytest.mark.parametrize("name", ["m.csv", "m.jsonl"])
def test_a_cell_may_be_huge(tmp_path: Path, name: str) -> None:
    """A text of 5 MB is read whole."""
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
def test_kinds_are_told_by_ending_or_beginning(tmp_path: Path, name: str, content: str) -> None:
    """Known endings decide; else a brace at the beginning means JSONL."""
    assert texts(read(tmp_path, content, name)[0]) == ["a"]


def test_standard_input_is_jsonl() -> None:
    """Without a path JSONL is read from standard input."""
    manifest = Manifest(None, rules(), stdin=io.BytesIO(b'{"text": "a"}\n{"text": 5}\n'))
    assert texts(list(manifest.rows())) == ["a"]
    assert manifest.faults.lines() == ["<stdin>:2: text: 5 is not a string: put it in quotes"]


def test_hash_and_size_are_those_of_the_whole_file(tmp_path: Path) -> None:
    """Hash and size cover every byte, even behind a place where reading rows had to end."""
    content = b"\xef\xbb\xbftext\r\n" + b"a\r\n" * 5000 + b'"open\n' + b"x" * 100_000
    rows, manifest = read(tmp_path, content)
    assert len(rows) == 5000
    assert (manifest.digest, manifest.size) == (hashlib.sha256(content).hexdigest(), len(content))


def test_broken_sample_names_every_fault() -> None:
    """The sample holds each fault that a CSV file can have without stopping the reader, and each is reported."""
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
def test_many_rows_with_one_cause_are_one_line(tmp_path: Path, name: str) -> None:
    """3,000 rows without a voice are reported in one line, with their number and span."""
    content = "text\n" + "a\n" * 3000 if name == "m.csv" else '{"text": "a"}\n' * 3000
    first = 2 if name == "m.csv" else 1
    assert faults(tmp_path, content, name, voice=" ") == [
        f"{name}:{first}: no voice: add a `voice` column or pass --voice VOICE"
        f" (and 2,999 more rows: lines {first + 1}-{first + 2999})"
    ]


def test_scattered_places_are_listed_up_to_a_point() -> None:
    """Spans of lines are merged, only the first ones listed, and the last line of all is named."""
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


def test_at_most_fifty_causes_are_shown() -> None:
    """Causes come by first line, those of the whole file first; after 50 only their number is told."""
    collected = Faults("f")
    for line in range(60, 0, -1):
        collected.add(line, None, f"reason {line}", cause=str(line))
    collected.add(None, None, "all of it", cause="file", fatal=True)
    lines = collected.lines()
    assert lines[:2] == ["f: all of it", "f:1: reason 1"]
    assert (len(lines), lines[-1]) == (51, "... and 11 more")
    assert collected.fatal


def test_a_fault_stays_on_its_line(tmp_path: Path) -> None:
    """Neither a header nor a value can break a fault's line or reach the terminal as a control sequence."""
    said = faults(tmp_path, 'text,"emo\n\x1btoin",take\na,,"\x1b[2J\nx"\n')
    assert [line.isprintable() for line in said] == [True, True]


@pytest.mark.parametrize(
    ("header", "field"),
    [("txet", "text"), ("vioce", "voice"), ("fromat", "format"), ("langauge", "language"), ("Emotoin", "emotion"),
     ("out_put_", None), ("modelId", "model"), ("voice__name", None), ("texts", "text"), ("engine-modell-id", "model")],
)  # fmt: skip
def test_misspelt_columns_are_fatal(tmp_path: Path, header: str, field: str | None) -> None:
    """A header close to a field's name is refused, whether or not rows are skipped; a spelling that counts is not."""
    text = "a" if field == "text" else "text"
    _, manifest = read(tmp_path, f"{header},{text}\nx,y\n", skip_invalid=True)
    if field is None:
        assert not manifest.faults
        return
    assert manifest.faults.fatal
    carry = ", or carry it to the results with --column "
    ways = {"text": "", "voice": f"{carry}voice= and set a voice for all rows with --voice"}
    assert manifest.faults.lines() == [
        f"{tmp_path}/m.csv:1: {header}: looks like `{field}` misspelt: rename it, or read it as it is with "
        f"--column {field}={header}" + ways.get(field, f"{carry}{field}=")
    ]


@pytest.mark.parametrize("skip", [False, True])
def test_what_follows_from_a_misspelt_column_is_not_told_too(tmp_path: Path, skip: bool) -> None:
    """Rows that lack a voice, or a text, because its column is misspelt are not faults of their own; each way out that
    is named leads on."""
    content = "id,txet,voise\na,A.,anna\nb,,\n"
    rows, manifest = read(tmp_path, content, voice=None, skip_invalid=skip)
    assert [line.split(":")[2] for line in manifest.faults.lines()] == [" txet", " voise"]
    assert all(row.inputs is None for row in rows)
    used = {"text": "txet", "voice": "voise"}
    assert texts(read(tmp_path, content, voice=None, columns=used, skip_invalid=True)[0][:1]) == ["A."]
    carried = {"text": "txet", "voice": ""}
    _, manifest = read(tmp_path, content, voice="eva", columns=carried, skip_empty=True)
    assert (manifest.faults.lines(), manifest.columns_carried) == ([], ["voise"])


def test_a_misspelt_field_of_jsonl_is_its_rows_fault(tmp_path: Path) -> None:
    """In JSONL each record names its own fields: a misspelt one is told with its row, once, and that row is skipped."""
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
    """Ordinary words of a sheet are no misspellings: they are carried."""
    rows, manifest = read(tmp_path, f"text,{header}\na, 1 \n")
    assert not manifest.faults
    assert manifest.columns_carried == [header]
    assert rows[0].extra == {header: " 1 "}


def test_a_likeness_beside_the_real_column_is_carried(tmp_path: Path) -> None:
    """A sheet with `text` may have `text_de` and `texts` beside it."""
    assert read(tmp_path, "text,text_de,texts\na,b,c\n")[1].columns_carried == ["text_de", "texts"]
    _, manifest = read(tmp_path, '{"text": "a", "texts": 1}\n', "m.jsonl")
    assert not manifest.faults


def test_columns_can_be_chosen(tmp_path: Path) -> None:
    """A chosen header gives the field, in any spelling of it; a field chosen away leaves its name and its likeness to
    be carried."""
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
def test_wrong_choices_of_columns_are_fatal(tmp_path: Path, chosen: dict[str, str], fault: str) -> None:
    """A choice of a field or header that doesn't exist is named."""
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
            "m.csv:1: no `text` column: name the column of the texts with --column text=HEADER (it has id, txt2)",
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
def test_faults_of_the_whole_file_are_fatal(tmp_path: Path, name: str, content: str, fault: str) -> None:
    """What is wrong with the file as such is said once and can't be skipped."""
    _, manifest = read(tmp_path, content, name, skip_invalid=True)
    assert manifest.faults.fatal
    assert manifest.faults.lines()[0].startswith(f"{tmp_path}/{fault}")


def test_a_broken_quote_over_several_lines_says_where(tmp_path: Path) -> None:
    """A quote that goes wrong lines later is reported at its record, with the line where it showed, and reading
    goes on."""
    assert faults(tmp_path, 'text,take\n"a\nb "c" d",1\ne,x\n') == [
        "m.csv:2: a quote within a quoted cell in line 3: write it twice, or remove the quotes around the cell",
        'm.csv:4: take: "x" is not a take: use 1, 2, 3, ...',
    ]


def test_an_endless_cell_ends_the_reading(tmp_path: Path) -> None:
    """A quote left open in a huge file is noticed without reading all of it into memory."""
    (said,) = faults(tmp_path, b'text\na\n"' + b"x" * 69_000_000)
    reason = "a cell has more than 67,108,864 characters, or a quote is never closed: close it"
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
        ("text\na".encode("utf-16-le"), None,
         "m.csv:1: the header contains NUL bytes: the file may be UTF-16", "--encoding"),
        (b'"text"x,y\na', None, "m.csv:1: the header is not valid CSV", ""),
    ],
)  # fmt: skip
def test_what_cannot_be_read_at_all(
    tmp_path: Path, content: bytes, encoding: str | None, message: str, hint: str
) -> None:
    """A wrong encoding is an error that names line and byte and the option that helps, as is a header of no use."""
    with pytest.raises(ManifestError) as caught:
        read(tmp_path, content, encoding=encoding)
    assert caught.value.message.startswith(f"{tmp_path}/{message}")
    assert caught.value.faults == [caught.value.message]
    assert hint in caught.value.hint


def test_a_named_encoding_is_used(tmp_path: Path) -> None:
    """`--encoding` reads what has no mark."""
    assert texts(read(tmp_path, "text\ncafé".encode("cp1252"), encoding="cp1252")[0]) == ["café"]
    assert texts(read(tmp_path, "text\ncafé".encode("utf-16-be"), encoding="utf-16-be")[0]) == ["café"]


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    """A missing file and a folder are errors that say so."""
    for path, reason in ((tmp_path / "no.csv", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(ManifestError, match=f"cannot be read: {reason}"):
            list(Manifest(path, rules()).rows())


def test_memory_does_not_grow_with_rows(tmp_path: Path) -> None:
    """Ten times the rows, all of them at fault in some way, take no more memory."""
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
