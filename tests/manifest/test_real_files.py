"""Files as people have them: each is read with a voice alone, or with the options that its error prints, and then gives
the texts that its owner wants. Their contents are invented, their shapes are those of many programs."""

from __future__ import annotations

import io
import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from xlsxwriter import Workbook

from batcher.cli.app import cli
from batcher.cli.commands.plan import plan
from batcher.cli.run_options import run_settings
from batcher.errors import BatcherError
from batcher.manifest.reader import Manifest

GATE, LANTERN, RIVER = "The gate is closed tonight.", "Bring the lantern, quickly!", "Nobody crosses the river alone."
LINES = [GATE, LANTERN, RIVER]
TEXTS = ("One", "Two", "Three")
GERMAN = ["Das Tor ist heute Nacht zu.", "Bring die Laterne, schnell!", "Niemand geht allein."]


def table(*rows: str, mark: str = ",") -> str:
    """The rows, in which `{0}`, `{1}` and `{2}` are the lines, quoted where need be, and `{d0}` … their translation."""
    cells = {f"d{number}": text for number, text in enumerate(GERMAN)}
    quoted = [f'"{text}"' if mark in text else text for text in (*LINES, *GERMAN)]
    more = dict(zip(cells, quoted[len(LINES) :], strict=True))
    return "\n".join(rows).format(*quoted[: len(LINES)], **more) + "\n"


def jsonl(*objects: Any) -> str:
    return "".join(f"{json.dumps(one, ensure_ascii=False)}\n" for one in objects)


def document(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)


def workbook(**sheets: Sequence[Sequence[Any]]) -> bytes:
    out = io.BytesIO()
    with Workbook(out) as book:
        for name, rows in sheets.items():
            sheet = book.add_worksheet(name)
            for number, row in enumerate(rows):
                sheet.write_row(number, 0, row)
    return out.getvalue()


def speech(text: str, number: int) -> dict[str, Any]:
    body = {"model": "tts-1", "voice": "alloy", "input": text}
    return {"custom_id": f"r{number}", "method": "POST", "url": "/v1/audio/speech", "body": body}


def chat(text: str, number: int) -> dict[str, Any]:
    messages = [{"role": "system", "content": "Read these lines aloud."}, {"role": "user", "content": text}]
    return {"custom_id": f"r{number}", "body": {"model": "x", "messages": messages}}


def numbered(make: Any) -> list[Any]:
    return [make(text, number) for number, text in enumerate(LINES)]


AT_ONCE: dict[str, str | bytes] = {
    "barks.tsv": table(
        "filename\ttext\tvoice", "b1.wav\t{0}\tguard", "b2.wav\t{1}\tguard", "b3.wav\t{2}\tmiller", mark="\t"
    ),
    "yarn strings.csv": table(
        "id,text,file,node,lineNumber", "line:1,{0},a.yarn,S,5", "line:2,{1},a.yarn,S,6", "line:3,{2},a.yarn,S,7"
    ),
    "unreal table.csv": table(",Speaker,Text", "Gate_01,G,{0}", "Gate_02,G,{1}", "River_01,M,{2}"),
    "voice clones.csv": table("audio_file|text|speaker_name", "a1.wav|{0}|x", "a2.wav|{1}|x", "a3.wav|{2}|x", mark="|"),
    "sentences.txt": "\n".join(LINES),
    "dialogue.txt": "\n\n".join(LINES),
    "speech corpus.json": jsonl(
        *numbered(lambda text, n: {"audio_filepath": f"/{n}.wav", "duration": 2.5, "text": text})
    ),
    "game texts.json": document({"gate": {"closed": GATE, "lantern": LANTERN}, "river": RIVER}),
    "whole transcript.json": document(
        {"text": " ".join(LINES), "segments": [{"text": text} for text in LINES], "language": "en"}
    ),
    "answer of an API.json": document({"data": {"items": [{"text": text} for text in LINES]}}),
    "app_en.arb": document({"@@locale": "en", "a": GATE, "@a": {"description": "At night"}, "b": LANTERN, "c": RIVER}),
    "de.po": 'msgid ""\nmsgstr "Language: en\\n"\n\n'
    + "\n".join(f'msgid "m{n}"\nmsgstr "{text}"\n' for n, text in enumerate(LINES)),
    "game.pot": "\n".join(f'msgid "{text}"\nmsgstr ""\n' for text in LINES),
    "episode.srt": "".join(f"{n}\n00:00:0{n},000 --> 00:00:0{n},900\n{text}\n\n" for n, text in enumerate(LINES, 1)),
    "episode.vtt": "WEBVTT\n\n"
    + "".join(f"00:0{n}.000 --> 00:0{n}.900\n<v Guard>{text}\n\n" for n, text in enumerate(LINES)),
    "captions.sbv": "".join(f"0:00:0{n}.000,0:00:0{n}.900\n{text}\n\n" for n, text in enumerate(LINES)),
    "excel.csv": "sep=;\r\n" + table("id;text;speed", "1;{0};1", "2;{1};1", "3;{2};1", mark=";"),
    "data frame.csv": table(",text,label", "0,{0},1", "1,{1},0", "2,{2},1"),
    "excel unicode.txt": ("\ufeff" + table("id\ttext", "1\t{0}", "2\t{1}", "3\t{2}", mark="\t")).encode("utf-16-le"),
    "guide.md": "---\ntitle: x\n---\nThe gate is closed\ntonight.\n\n- **Bring** the lantern, quickly!\n\n"
    "```sh\nls\n```\n\nNobody crosses [the river](http://example.org) alone.\n",
}
"""File name and content of what needs no option."""

WITH_PRINTED: dict[str, tuple[str | bytes, str]] = {
    "script.csv": (
        table("Line ID,Role,Line,Direction", "G1,G,{0},calm", "G2,G,{1},loud", "M1,M,{2},"),
        "--column text=Line --column 'id=Line ID'",
    ),
    "unreal strings.csv": (
        "\ufeff" + table("Key,SourceString,Comment", '"a","The gate is closed tonight.","x"', "b,{1},", "c,{2},"),
        "--column text=SourceString --column id=Key",
    ),
    "unreal rows.csv": (
        table("---,Speaker,Line,Sound", "NewRow,G,{0},None", "NewRow_0,G,{1},None", "NewRow_1,M,{2},None"),
        "--column text=Line --column id=---",
    ),
    "unity.csv": (
        table("Key,Id,Shared Comments,English(en),German(de)", "a,1,,{0},{d0}", "b,2,loud,{1},{d1}", "c,3,,{2},{d2}"),
        "--column 'text=English(en)'",
    ),
    "unity i2.csv": (
        table("Key;Type;Desc;English;German", "a;Text;;{0};{d0}", "b;Text;;{1};{d1}", "c;Text;;{2};{d2}", mark=";"),
        "--column text=English --column id=Key",
    ),
    "godot.csv": (table("keys,en,de", "GATE,{0},{d0}", "LANTERN,{1},{d1}", "RIVER,{2},{d2}"), "--column text=en"),
    "translations.csv": (
        table('"key_id";"en";"de"', "a;{0};{d0}", "b;{1};{d1}", "c;{2};{d2}", mark=";"),
        "--column text=en",
    ),
    "crowdsourced.csv": (
        table("Identifier,Source String,Context,Translation", "a,{0},,{d0}", "b,{1},x,{d1}", "c,{2},,{d2}"),
        "--column 'text=Source String' --column id=Identifier",
    ),
    "speech corpus.csv": (
        table("B-01|x 1|{0}", "B-02|x 2|{1}", "B-03|x 3|{2}", mark="|"),
        "--no-header --columns id,_,text",
    ),
    "file list.txt": (
        table("wavs/a1.wav|{0}", "wavs/a2.wav|{1}", "wavs/a3.wav|{2}", mark="|"),
        "--no-header --columns id,text",
    ),
    "recordings.tsv": (
        table(
            "client_id\tpath\tsentence\tup_votes\tlocale",
            "9f\tc_1.mp3\t{0}\t2\ten",
            "9f\tc_2.mp3\t{1}\t2\ten",
            "8a\tc_3.mp3\t{2}\t2\ten",
            mark="\t",
        ),
        "--column text=sentence --column id=path",
    ),
    "sentences.csv": (
        table("1276\teng\t{0}", "1277\teng\t{1}", "1280\teng\t{2}", mark="\t"),
        "--no-header --columns id,_,text",
    ),
    "pairs.tsv": (
        table("11\t{0}\t7\t{d0}", "12\t{1}\t8\t{d1}", "13\t{2}\t9\t{d2}", mark="\t"),
        "--no-header --columns id,text,_,_",
    ),
    "cards.txt": (
        "#separator:tab\n#html:true\n" + "".join(f"{text}\t<b>x</b><br>[sound:a.mp3]\n" for text in LINES),
        "--no-header --columns text,_",
    ),
    "labels.txt": (
        table("0.0\t2.5\t{0}", "3.0\t4.0\t{1}", "5.0\t6.0\t{2}", mark="\t"),
        "--no-header --columns _,_,text",
    ),
    "speech batch.jsonl": (jsonl(*numbered(speech)), "--column text=body.input --column id=custom_id"),
    "chat batch.jsonl": (jsonl(*numbered(chat)), "--column text=body.messages.1.content --column id=custom_id"),
    "speech service.json": (
        document({"inputKind": "PlainText", "inputs": [{"content": text} for text in LINES]}),
        "--column text=content",
    ),
    "terms.json": (
        document(numbered(lambda text, n: {"term": f"t{n}", "definition": text, "reference": "a.c"})),
        "--column text=definition",
    ),
    "extension.json": (
        document(
            {
                f"m{n}": {"message": text, "description": f"Shown at night, in scene {n}."}
                for n, text in enumerate(LINES)
            }
        ),
        "--column text=message",
    ),
    "blank.po": ("\n".join(f'msgid "{text}"\nmsgstr ""\n' for text in LINES), "--column text=msgid"),
    "titles.csv": (
        "Harbour Studios,,\nVersion 3,,\n,,\n" + table("No,Actor,Script", "1,A,{0}", "2,A,{1}", "3,B,{2}"),
        "--header-row 4 --column text=Script",
    ),
    "acts.csv": (table("Scene,Text", "ACT 1,", "1,{0}", "1,{1}", "ACT 2,", "2,{2}"), "--skip-empty"),
    "joined.csv": (table("id,text", "1,{0}", "2,{1}", "id,text", "3,{2}"), "--allow table"),
    "transcript.txt": (f"ANNA: {GATE}\nBEN: {LANTERN}\nANNA: {RIVER}\n", "--strip speaker"),
    "ssml.csv": (table("id,text", "1,<speak>The gate is closed tonight.</speak>", "2,{1}", "3,{2}"), "--strip ssml"),
    "phone menu.csv": (
        table("Prompt Name,Wording", "a b.wav,{0}", "c d.wav,{1}", "e f.wav,{2}"),
        "--column text=Wording",
    ),
    "names.csv": ("Wort\n" + "\n".join(TEXTS), "--column text=Wort"),
    "latin.csv": ("id;text\n1;Schöne Grüße!\n".encode("cp1252"), "--encoding cp1252"),
    "japanese.csv": ("id,text\n1,門は今夜閉まっています。\n".encode("shift_jis"), "--encoding shift_jis"),
    "sheets.xlsx": (
        workbook(Notes=[["Please read this slowly."]], Lines=[["id", "text"], *enumerate(LINES)]),
        "--sheet Lines",
    ),
    "casting.xlsx": (
        workbook(
            Script=[
                ["Harbour Studios"],
                [],
                ["No", "Role", "Dialogue"],
                *([n, "A", text] for n, text in enumerate(LINES)),
            ]
        ),
        "--header-row 3 --column text=Dialogue",
    ),
}
"""File name, content, and what the error prints for it."""
OTHER_TEXTS = {"names.csv": [*TEXTS], "latin.csv": ["Schöne Grüße!"], "japanese.csv": ["門は今夜閉まっています。"]}

REFUSED: dict[str, tuple[str, str]] = {
    "open quote.csv": (
        'id,text\nh-1,"I came\nh-2,Go on\nh-3,I went"\nh-4,Well.\n',
        "a quoted cell contains the delimiter",
    ),
    "one column.csv": ('text\n"I came\nI saw\nI won"\nWell.\n', "a quoted cell spans the lines up to 4"),
    "utterances.txt": ("utt_01 THE GATE\nutt_02 THE RIVER\nutt_03 THE END\n", "begins with what looks like its id"),
    "languages.json": (document({"en": {"a": "Go."}, "de": {"a": "Los."}}), "a member for each language"),
    "scenes.json": (
        document([{"id": n, "lines": [{"text": GATE}, {"text": RIVER}]} for n in (1, 2)]),
        "in the lists `lines`",
    ),
    "one or many.json": (document({"text": "Hello.", "title": "Intro"}), "it may be one row, or ids and their texts"),
    "fence.md": ("Hello.\n\n```\ncode\n\nMore.\n", "the code block that begins here never ends"),
    "script.rpy": ('label start:\n    e "Hello."\n', "a Ren'Py script cannot be read"),
    "catalog.xcstrings": ('{"strings": {}}', "an Xcode string catalog cannot be read"),
    "errors.csv": ("id,text\n1,Hello.\n2,#REF!\n3,nan\n", "2 rows with drafts"),
}
"""Files that nobody but their owner can decide about, and the beginning of what is said."""


def planned(path: Path, *options: str) -> Result:
    return CliRunner().invoke(cli, ["plan", str(path), "--sandbox", "--voice", "anna", *options])


def texts(path: Path, *options: str) -> list[str]:
    """The texts that a run with these options would buy."""
    with plan.make_context("plan", [str(path), "--sandbox", "--voice", "anna", *options]) as ctx:
        assert isinstance(ctx, click.Context)
        rules = run_settings(ctx, (str(path),)).sources[0].rules
    return [row.inputs.text for row in Manifest(path, rules).rows() if row.inputs]


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("name", list(AT_ONCE))
def test_a_file_is_read_with_a_voice_alone(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, name, AT_ONCE[name])
    ended = planned(path)
    assert (ended.exit_code, texts(path)) == (0, LINES), ended.output


@pytest.mark.parametrize("name", list(WITH_PRINTED))
def test_a_file_is_read_with_the_options_that_its_error_prints(tmp_path: Path, name: str) -> None:
    content, printed = WITH_PRINTED[name]
    path = written(tmp_path, name, content)
    refused = planned(path)
    said = refused.output.replace(str(path), name)
    assert refused.exit_code == 2
    assert re.search(rf"(?<!\S){re.escape(printed)}(?=[;,.]?(?:\s|$))", said), said
    ended = planned(path, *shlex.split(printed))
    assert (ended.exit_code, texts(path, *shlex.split(printed))) == (0, OTHER_TEXTS.get(name, LINES)), ended.output


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_only_its_owner_can_decide_is_never_bought_unseen(tmp_path: Path, name: str) -> None:
    content, words = REFUSED[name]
    refused = planned(written(tmp_path, name, content))
    assert (refused.exit_code, words in refused.output) == (2, True), refused.output
    assert not isinstance(refused.exception, BatcherError)
