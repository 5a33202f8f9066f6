"""`batcher report` on the real program: the page as a file and in a browser, the data, the marks exported from it.

Browser tests drive a Chromium on PATH with playwright (the `browser` extra), and are skipped without them.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from batcher.ledger.queries.report import TaskTimes
from batcher.reports.page.charts import Dot, TimeAxis, scatter, throughput
from tests.conftest import Project
from tests.reports.conftest import HOSTILE, ROWS, batcher
from tests.support.fake_tts import FakeTTS, Twist

FORMULAS: Final = ("=HYPERLINK(1)", "+1+2", "-1+2", "@SUM(1)", "\tcmd", "\rcmd", "＝1+2")  # noqa: RUF001


class _Elements(HTMLParser):
    """The elements of a page with their attributes, and the contents of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[tuple[dict[str, str | None], str]] = []
        self._data: list[str] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._data = [] if tag in ("script", "style") else None

    def handle_data(self, data: str) -> None:
        if self._data is not None:
            self._data.append(data)

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002
        if self._data is not None:
            self.inside.append((self.found[-1][1], "".join(self._data)))
        self._data = None


def _rows(path: Path) -> list[list[Any]]:
    inside = _Elements(path.read_text(encoding="utf-8")).inside
    return [row for attributes, data in inside if attributes.get("class") == "rows" for row in json.loads(data)]


def test_the_page_holds_every_row(page: Path) -> None:
    """As data, in the manifest's order. No hostile text ends its script."""
    rows = _rows(page)
    assert [row[:2] for row in rows] == [[row["id"], row["text"]] for row in ROWS]
    assert HOSTILE not in page.read_text(encoding="utf-8")
    for row in rows[:2] + rows[3:]:
        assert (page.parent / unquote(row[6])).is_file()
        assert re.match(r"\./[\w%.-]+\.mp3$", row[6])
    assert rows[2][6] is None


def test_the_page_loads_nothing_from_elsewhere(page: Path) -> None:
    """No other address, no event handler; its policy allows exactly its own script and style."""
    elements = _Elements(page.read_text(encoding="utf-8"))
    for _, attributes in elements.found:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        assert not [value for name, value in attributes.items() if name in ("src", "action") and value]
        assert str(attributes.get("href", "#")).startswith(("#", "data:"))
    assert not re.search(r"(?:https?:)?//\w", re.sub(r"[^\n]*// [^\n]*", "", page.read_text(encoding="utf-8")))
    (policy,) = [a["content"] or "" for tag, a in elements.found if tag == "meta" and "http-equiv" in a]
    assert policy.startswith("default-src 'none'; ")
    live = [data for attributes, data in elements.inside if "type" not in attributes]
    assert len(live) == 2
    for text in live:
        assert base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() in policy


def test_the_top_of_the_page_shows_the_outcome(page: Path) -> None:
    """Counts, the error that needs attention with its command, credits, and the charts."""
    text = page.read_text(encoding="utf-8")
    assert "<strong>3</strong> of 4" in text
    assert "batcher retry --state rejected" in text
    assert "nothing is unexplained" in text
    assert re.findall(r'<figure id="figure-(\w+)"', text) == ["progress", "throughput", "length", "wait", "polls"]


def test_no_text_leaves_texts_out_of_page_and_data(project: Project, provider: FakeTTS) -> None:
    """So are the provider's messages, which may quote them."""
    provider.on_create = lambda create: (
        Twist(status=400, body={"code": "invalid_text", "message": create.text})
        if create.text.endswith("2 of the script.")
        else None
    )
    assert project.run(project.manifest(3)).exit_code == 3
    told = project.batcher("report", "--no-text", "--output", "p.html")
    assert told.exit_code == 0, told.err
    outputs = [(project.folder / "p.html").read_text(encoding="utf-8")]
    outputs += [project.batcher("report", "--no-text", "--format", kind).out for kind in ("csv", "jsonl")]
    for output in outputs:
        assert "of the script" not in output
        assert "invalid_text" in output
    assert "of the script" in project.batcher("report", "--format", "csv").out


def test_embed_puts_the_bytes_of_each_file_into_the_page_once(spoken: Path) -> None:
    """The message shows the page's size."""
    ended = batcher(spoken, "report", "--sandbox", "--embed", "--output", "elsewhere.html")
    assert "MB" in ended.err
    inside = _Elements((spoken / "elsewhere.html").read_text(encoding="utf-8")).inside
    found = {base64.b64decode(data) for attributes, data in inside if "data-media" in attributes}
    assert found == {path.read_bytes() for path in (spoken / "audio-sandbox").glob("*.mp3")}


def test_a_page_in_another_folder_links_to_the_audio(spoken: Path) -> None:
    (spoken / "for you").mkdir()
    assert batcher(spoken, "report", "--sandbox", "--output", "for you/p.html").exit_code == 0
    links = [row[6] for row in _rows(spoken / "for you/p.html") if row[6]]
    assert len(links) == 3
    assert all((spoken / "for you" / unquote(link)).is_file() for link in links)


def test_the_data_begin_with_the_manifests_columns(spoken: Path) -> None:
    """In its order and unchanged; the outcome of the rows follows."""
    table = list(csv.DictReader(io.StringIO(batcher(spoken, "report", "--sandbox", "--format", "csv").out)))
    assert list(table[0])[:5] == ["id", "text", "voice", "scene", "pitch"]
    assert all(name.startswith("batcher_") for name in list(table[0])[5:])
    assert [(row["id"], row["scene"], row["batcher_state"]) for row in table] == [
        ("r1", "one", "done"),
        ("r2", "one", "done"),
        ("r3", "two", "rejected"),
        ("a#b%20 c?", "two", "done"),
    ]
    lines = batcher(spoken, "report", "--sandbox", "--format", "jsonl").out.splitlines()
    assert [list(json.loads(line))[:4] for line in lines] == [["id", "text", "voice", "scene"]] * 4


def test_the_columns_of_a_changed_manifest_come_from_the_ledger(project: Project) -> None:
    """The report mentions it."""
    rows = [row | {"scene": "9"} for row in project.rows(2)]
    manifest = project.manifest(rows)
    project.run(manifest)
    project.manifest(1)
    told = project.batcher("report", "--format", "csv")
    assert "differs from the last run; its columns are taken from the ledger" in told.err
    table = list(csv.DictReader(io.StringIO(told.out)))
    assert [(row["id"], row["text"], row["scene"]) for row in table] == [
        ("r1", rows[0]["text"], "9"),
        ("r2", rows[1]["text"], "9"),
    ]


def test_a_report_given_to_run_is_refused(project: Project, provider: FakeTTS) -> None:
    """With no ledger beside it, all of its rows would be bought again."""
    project.run(project.manifest(2))
    for ending in ("csv", "jsonl", "xlsx"):
        told = project.folder / ending / f"lines.report.{ending}"
        told.parent.mkdir()
        assert project.batcher("report", "--format", ending, "--output", told).exit_code == 0
        ended = project.run(told)
        assert (ended.exit_code, ended.report["created"], len(provider.creates)) == (2, 0, 2)
        assert "`batcher report`" in ended.err
        assert project.run(told, "--skip-invalid", "--batch", "lines", "--ledger", project.ledger).exit_code == 2
        assert len(provider.creates) == 2


def test_formulas_are_escaped_in_csv_and_unchanged_in_jsonl(project: Project) -> None:
    """By an apostrophe."""
    rows = [row | {"remark": cell} for row, cell in zip(project.rows(8), (*FORMULAS, "-3.5"), strict=True)]
    project.run(project.manifest(rows))
    project.batcher("report", "--format", "csv", "--output", "told.csv")
    with (project.folder / "told.csv").open(encoding="utf-8-sig", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["remark"] for row in table] == [*(f"'{cell}" for cell in FORMULAS), "-3.5"]
    lines = project.batcher("report", "--format", "jsonl").out.splitlines()
    assert [json.loads(line)["remark"] for line in lines] == [row["remark"] for row in rows]


def test_an_impossible_report_exits_2_and_writes_nothing(project: Project) -> None:
    """No ledger, an unknown batch, or a target that is the manifest or the ledger."""
    assert project.batcher("report").exit_code == 2
    manifest = project.manifest(1)
    project.run(manifest)
    before = manifest.read_bytes(), project.ledger.read_bytes()
    for arguments in (("--batch", "x"), ("--output", "lines.csv"), ("--output", "batcher.db"), ("absent.csv",)):
        assert project.batcher("report", *arguments).exit_code == 2, arguments
    assert before == (manifest.read_bytes(), project.ledger.read_bytes())
    assert not list(project.audio.glob("*.html"))


def test_without_a_manifest_one_page_covers_every_batch(project: Project) -> None:
    """It is named after the ledger. With a manifest, the page covers that batch alone."""
    for name, first in (("one.csv", 1), ("two.csv", 3)):
        project.run(project.manifest(project.rows(2, first=first), name))
    project.batcher("report")
    project.batcher("report", "two.csv")
    assert [row[0] for row in _rows(project.audio / "batcher.report.html")] == ["r1", "r2", "r3", "r4"]
    assert [row[0] for row in _rows(project.audio / "two.report.html")] == ["r3", "r4"]


def test_idle_time_is_left_out_of_the_time_axis() -> None:
    """However long it is."""
    axis = TimeAxis([0, 60, 120, 86_400, 86_460, 86_520])
    assert axis.active_seconds == 240
    assert [axis.active(at) for at in (0, 120, 5_000, 86_400, 86_520)] == [0, 120, 120, 120, 240]
    assert len(axis.breaks) == 1


def _marks(project: Project, ledger: str, *changes: dict[str, str]) -> Path:
    results = {line["id"]: line["key"] for line in project.results()}
    rows = [
        {"batch": "lines", "note": "", "take": 1, "key": results.get(one["id"], "0" * 64)[:16]} | one for one in changes
    ]
    path = project.folder / "lines.marks.json"
    path.write_text(json.dumps({"marks": 1, "ledger": ledger, "rows": rows}), encoding="utf-8")
    return path


def test_retake_takes_each_marked_row_again_once(project: Project, provider: FakeTTS) -> None:
    """The same marks given again change nothing."""
    manifest = project.manifest(3)
    project.run(manifest)
    ((ledger,),) = project.query("SELECT value FROM meta WHERE name = 'ledger_id'")
    marked = ({"id": "r1", "mark": "good"}, {"id": "r2", "mark": "retake"}, {"id": "r9", "mark": "retake"})
    path = _marks(project, ledger, *marked)
    told = project.batcher("retake", "--marks", path)
    assert told.out.splitlines() == [
        "r9 of lines  already retaken since it was marked; skipped",
        "r2 of lines  take 2: the next run creates and pays for it",
    ]
    for created in (1, 0):
        assert project.run(manifest).report["created"] == created
        assert "take 3" not in project.batcher("retake", "--marks", path).out
    assert provider.asked.count("Line number 2 of the script.") == 2


def test_retake_with_nothing_to_do_says_so_and_shows_the_notes(project: Project) -> None:
    project.run(project.manifest(2))
    ((ledger,),) = project.query("SELECT value FROM meta WHERE name = 'ledger_id'")
    noted = {"id": "r1", "mark": "good", "note": " Lovely\n\x1b[31mvoice "}
    told = project.batcher("retake", "--marks", _marks(project, ledger, noted, {"id": "r2", "mark": "good"}))
    assert told.out.splitlines() == [
        "r1 of lines  note: Lovely ?[31mvoice",
        "nothing to retake: the file marks no row for a retake",
    ]
    told = project.batcher("retake", "--marks", _marks(project, ledger, {"id": "r9", "mark": "retake"}))
    assert told.out.endswith("nothing to retake: all marked rows have another take by now\n")


def test_marks_that_do_not_fit_change_nothing(project: Project) -> None:
    """From another ledger's page, from a file that holds none, or together with names."""
    project.run(project.manifest(1))
    strange = _marks(project, "other", {"id": "r1", "mark": "retake"})
    assert "another ledger" in project.batcher("retake", "--marks", strange).err
    assert project.batcher("retake", "--marks", strange, "r1").exit_code == 2
    strange.write_text('{"marks": 1}', encoding="utf-8")
    assert "is not a marks file" in project.batcher("retake", "--marks", strange).err
    assert project.batcher("retake").exit_code == 2
    assert project.states() == {"done": 1}


def test_numbers_on_axes_are_round_and_fit() -> None:
    times = [1e9 + number / 30 for number in range(4000)]
    tasks = [
        TaskTimes(key="k", created_at=at, rendered_at=at + 6, saved_at=at + 6, polls=1, chars=9, audio_seconds=6)
        for at in times
    ]
    dots = [Dot(x=9, y=seconds, key="k", oddity=seconds) for seconds in (6, 3)]
    drawn = throughput(tasks, TimeAxis(times)) + scatter(dots, "Time", "characters")
    values = re.findall(r'class="value"[^>]*>([^<]*)<', drawn)
    assert values[3:] == ["0", "3 s", "6 s"]
    assert re.fullmatch(r"\d,\d{3}", values[2])
    assert all(len(value) <= 6 and "e" not in value for value in values)
