"""The report's page in a real browser, on the journeys of people who listen and mark.

These tests drive a Chromium on PATH with playwright (the `browser` extra), and are skipped without them.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any, Final

import pytest

from tests.reports.conftest import HOSTILE, ROWS, Opened, batcher

IDS: Final = [row["id"] for row in ROWS]


def _marks(opened: Opened) -> dict[str, str]:
    """The pressed buttons of the rows shown, by id."""
    found: dict[str, str] = {}
    for line in opened.tab.locator("#window .row").all():
        pressed = line.locator(".mark [aria-pressed=true]").evaluate_all("all => all.map((one) => one.dataset.mark)")
        found[line.locator(".id b").inner_text()] = " ".join(pressed)
    return found


def _chosen(opened: Opened) -> str:
    """The id of the chosen row, which must also be the one that a screen reader is on."""
    active = opened.tab.evaluate("document.getElementById(table.getAttribute('aria-activedescendant'))?.className")
    assert "chosen" in active
    found: str = opened.tab.locator("#window .chosen .id b").inner_text()
    return found


def test_shows_hostile_text_as_text(opened: Opened) -> None:
    """The page opens without a complaint, and markup in a text is not run."""
    assert opened.ids() == [row["id"] for row in ROWS]
    assert opened.tab.locator("#window .text q").first.inner_text() == HOSTILE
    assert opened.tab.locator("#window img").count() == 0
    assert opened.tab.title() == "lines – batcher report"  # noqa: RUF001


def test_plays_a_row_to_its_end_and_goes_on(opened: Opened) -> None:
    """By keys alone, past rows without audio."""
    tab = opened.tab
    note = "() => ended.push([audio.src, audio.currentTime, audio.duration])"
    tab.evaluate(f"() => {{ window.ended = []; audio.addEventListener('ended', {note}, true); }}")
    tab.focus("#table")
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("Shift+Enter")
    tab.wait_for_function("() => ended.length === 2 && audio.paused", timeout=20_000)
    ended = tab.evaluate("ended")
    assert [Path(name).name for name, _, _ in ended] == ["r2.mp3", "a%23b%2520%20c_.mp3"]
    assert all(at == length > 0.3 for _, at, length in ended)
    assert tab.get_attribute("#onward", "aria-pressed") == "false"


def test_plays_embedded_audio(browser: Any, spoken: Path, tmp_path: Path) -> None:
    """Far from any file."""
    batcher(spoken, "report", "--sandbox", "--embed", "--output", tmp_path / "alone.html")
    context = browser.new_context()
    opened = Opened(context.new_page(), tmp_path / "alone.html")
    opened.tab.click("#window .row:nth-child(2) .go")
    opened.tab.wait_for_function("() => audio.ended", timeout=20_000)
    assert opened.tab.evaluate("audio.src.slice(0, 22)") == "data:audio/mpeg;base64"
    assert opened.complaints == []
    context.close()


def test_marks_the_button_of_the_row_that_plays(opened: Opened) -> None:
    """It shows a pause sign in a colour that stands out, also under the pointer."""
    button = opened.tab.locator("#window .row:nth-child(2) .go")
    button.click()
    opened.tab.locator("#window .row:nth-child(2).sounding").wait_for()
    shown = "one => { const style = getComputedStyle(one, '::before'); return [style.content, style.color]; }"
    content, colour = button.evaluate(shown)
    assert content == '"❚❚"'
    assert colour != button.evaluate("one => getComputedStyle(one).backgroundColor")


def test_the_page_begins_with_its_rows(opened: Opened) -> None:
    """On a laptop's screen they need no scrolling; credits and charts are behind tabs, and Back leads back."""
    tab = opened.tab
    tab.set_viewport_size({"width": 1200, "height": 700})
    assert tab.inner_text(".lead").startswith("3 of 4 rows done: 0:")
    assert tab.inner_text(".lead").endswith("; 1 needs attention.")
    assert tab.locator("#window .row").nth(1).bounding_box()["y"] < 600
    assert [tab.is_visible(f"#panel-{name}") for name in ("rows", "credits", "timing")] == [True, False, False]
    tab.focus("#tab-rows")
    for name in ("credits", "timing"):
        tab.keyboard.press("ArrowRight")
        assert tab.evaluate("document.activeElement.id") == f"tab-{name}"
        assert tab.is_visible(f"#panel-{name}")
        assert not tab.is_visible("#panel-rows")
    tab.go_back()
    assert tab.is_visible("#panel-credits")
    tab.reload()
    assert tab.get_attribute("#tab-credits", "aria-selected") == "true"


def test_a_row_shows_its_number_in_the_manifest_and_why_it_failed(opened: Opened) -> None:
    assert opened.tab.locator("#window .number").all_inner_texts() == ["1", "2", "3", "4"]
    (reason,) = (text for text in opened.tab.locator("#window .reason").all_inner_texts() if text)
    assert reason == "invalid_parameter: pitch must be a number from -12 to 12"
    assert opened.tab.locator("#window .row").nth(2).locator(".reason").inner_text() == reason


def test_filters_and_search_narrow_the_rows(opened: Opened) -> None:
    """State, voice, error and words; what narrows them is shown, and one button brings all rows back."""
    tab = opened.tab
    tab.click(".pick[data-state=rejected]")
    assert (opened.ids(), tab.inner_text("#found")) == (["r3"], "1 of 4 rows: rejected")
    assert tab.get_attribute(".pick[data-state=rejected]", "aria-pressed") == "true"
    tab.click(".pick[data-state=rejected]")
    for select, label, ids in (("#by-voice", "en-us (3)", IDS[1:]), ("#by-error", "invalid_parameter (1)", ["r3"])):
        tab.select_option(select, label=label)
        assert opened.ids() == ids
        tab.select_option(select, "")
    tab.fill("#search", "LAMP")
    assert (opened.ids(), tab.inner_text("#found")) == (IDS[3:], "1 of 4 rows: “LAMP”")
    tab.click("#all-rows")
    assert (opened.ids(), tab.inner_text("#found")) == (IDS, "4 rows")


def test_rows_are_marked_before_anything_is_played(opened: Opened) -> None:
    """By three buttons in each row with names; a row without audio has only that for a note."""
    tab = opened.tab
    buttons = tab.locator("#window .row").nth(1).locator(".mark button")
    names = buttons.evaluate_all("all => all.map((one) => one.ariaLabel)")
    assert names == ["Mark r2 as good", "Mark r2 for a retake", "Mark r2 with a note"]
    assert tab.locator("#window .row").nth(2).locator(".mark button:visible").count() == 1
    tab.click("button[aria-label='Mark r1 as good']")
    tab.click("button[aria-label='Mark r2 for a retake']")
    assert _marks(opened) == {"r1": "good", "r2": "retake", "r3": "", IDS[3]: ""}
    assert tab.evaluate("audio.src") == ""
    tab.keyboard.press("r")
    assert (_marks(opened)["r2"], tab.inner_text("#said")) == ("", "r2: mark “retake” removed")
    assert tab.get_attribute("#said", "role") == "status"


def test_after_a_click_on_play_all_down_and_r_mark_the_next_row(opened: Opened) -> None:
    """The mark of the row that played before stays."""
    tab = opened.tab
    tab.click("#play-all")
    tab.keyboard.press("r")
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("r")
    assert _marks(opened) == {"r1": "retake", "r2": "retake", "r3": "", IDS[3]: ""}
    assert _chosen(opened) == "r2"
    tab.keyboard.press(" ")
    tab.wait_for_function("() => audio.paused")


@pytest.mark.parametrize("focus", ["body", "#export", "#seek", "#onward", "#tab-rows", ".pick", "#file"])
def test_keys_work_wherever_the_focus_is(opened: Opened, focus: str) -> None:
    """Except where letters are typed."""
    tab = opened.tab
    tab.keyboard.press("ArrowDown")
    assert _chosen(opened) == "r1"
    tab.keyboard.press("g")
    tab.locator(focus).first.focus()
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("r")
    assert (_chosen(opened), _marks(opened)["r2"]) == ("r2", "retake")
    tab.keyboard.press("/")
    tab.keyboard.type("gr")
    assert (tab.input_value("#search"), _marks(opened)) == ("gr", {})
    tab.fill("#search", "fog")
    tab.keyboard.press("Enter")
    tab.keyboard.press("g")
    assert _marks(opened) == {"r2": "good"}


def test_enter_in_a_note_saves_it_and_returns_to_the_rows(opened: Opened) -> None:
    """So the next key is not written into it. Esc brings the former note back."""
    tab = opened.tab
    for key in ("ArrowDown", "ArrowDown", "n"):
        tab.keyboard.press(key)
    tab.keyboard.type("too fast")
    tab.keyboard.press("Enter")
    assert tab.inner_text("#said") == "r2: note saved"
    tab.keyboard.press("g")
    assert tab.evaluate("document.activeElement.id") == "table"
    tab.keyboard.press("n")
    tab.keyboard.type(" or not")
    tab.keyboard.press("Escape")
    assert tab.locator("#window .row").nth(1).locator(".remark").inner_text() == "too fast"
    assert _marks(opened)["r2"] == "good note"


def test_a_note_belongs_to_the_row_at_which_it_was_begun(opened: Opened) -> None:
    """While it is written, the next row waits; then it plays."""
    tab = opened.tab
    tab.click("#window .row:nth-child(2) .go")
    tab.keyboard.press("Shift+Enter")
    tab.keyboard.press("n")
    tab.keyboard.type("clipped")
    tab.wait_for_function("() => audio.ended", timeout=20_000)
    tab.keyboard.type(" end")
    tab.keyboard.press("Enter")
    assert tab.locator("#window .row").nth(1).locator(".remark").inner_text() == "clipped end"
    assert _chosen(opened) == IDS[3]
    assert tab.input_value("#note") == ""


def test_the_player_bar_lists_the_keys(opened: Opened) -> None:
    """From the start; it covers no more than a line until a row is chosen."""
    keys = opened.tab.locator("#player kbd").all_inner_texts()
    assert set(keys) == {"↑", "↓", "Space", "Shift", "Enter", "G", "R", "N", "/", "Esc"}
    assert opened.tab.is_visible("#keys")
    assert opened.tab.locator("#player").bounding_box()["height"] < 50


def test_exports_marks_that_retake_accepts(opened: Opened, spoken: Path, tmp_path: Path) -> None:
    """Marks set by keys survive a reload."""
    tab = opened.tab
    tab.focus("#table")
    for key in ("ArrowDown", "g", "ArrowDown", "r", "n"):
        tab.keyboard.press(key)
    tab.keyboard.type("too fast")
    tab.reload()
    assert _marks(opened)["r2"] == "retake note"
    with tab.expect_download() as waiting:
        tab.click("#export")
    path = tmp_path / waiting.value.suggested_filename
    waiting.value.save_as(path)
    found = json.loads(path.read_text(encoding="utf-8"))["rows"]
    assert [(one["id"], one["mark"], one["note"]) for one in found] == [
        ("r1", "good", ""),
        ("r2", "retake", "too fast"),
    ]
    copy = tmp_path / "copy"
    shutil.copytree(spoken, copy)
    told = batcher(copy, "retake", "--sandbox", "--marks", path)
    assert told.out == "r2 of lines  take 2: the next run creates and pays for it\n", told.err


def test_a_dot_of_a_chart_leads_to_its_row(opened: Opened) -> None:
    """Under the pointer, and by keys through the button below, which starts with the oddest; filters are cleared."""
    tab = opened.tab
    tab.set_viewport_size({"width": 1200, "height": 1400})  # nothing is below the player
    tab.fill("#search", "nothing at all")
    tab.click("#tab-timing")
    figure = tab.locator("#figure-length")
    figure.locator(".before").focus()
    oddest = figure.locator(".to-row").inner_text()
    names = set()
    for _ in range(3):
        names.add(figure.locator(".to-row").inner_text().partition(":")[0])
        tab.keyboard.press("Enter")
    assert names == {"r1", "r2", IDS[3]}
    assert figure.locator(".to-row").inner_text() == oddest
    figure.locator(".to-row").focus()
    tab.keyboard.press("Enter")
    assert (_chosen(opened), opened.ids()) == (oddest.partition(":")[0], IDS)
    assert tab.evaluate("document.activeElement.id") == "table"
    tab.go_back()
    dot = figure.locator(f"circle[data-at^='{len(HOSTILE)} ']")
    dot.click(position={"x": 7, "y": 3}, force=True)  # beside it
    assert _chosen(opened) == "r1"


def test_a_dot_of_several_rows_shows_these_alone(browser: Any, novel: Path) -> None:
    opened = Opened(browser.new_page(), novel)
    opened.tab.click("#tab-timing")
    dot = opened.tab.locator("#figure-length circle[data-keys*=' ']").first
    number = len((dot.get_attribute("data-keys") or "").split())
    where = "one => { const { x, y } = one.getBoundingClientRect(); return { clientX: x + 2, clientY: y + 2 }; }"
    dot.dispatch_event("click", dot.evaluate(where))
    assert opened.tab.inner_text("#found") == f"{number} of 1,200 rows: one dot of the chart"
    assert len(opened.ids()) == number
    assert _chosen(opened) == opened.ids()[0]
    opened.tab.close()


def test_only_rows_in_view_are_in_the_document(browser: Any, novel: Path) -> None:
    """Of thousands; keys reach the last one, and begin where the page was scrolled to."""
    opened = Opened(browser.new_page(), novel)
    for key, last in (("End", "n001200"), ("Home", "n000001")):
        opened.tab.keyboard.press(key)
        assert _chosen(opened) == last
        assert opened.tab.locator("#window .row").count() < 100
    opened.tab.click("#close")
    opened.tab.mouse.wheel(0, 62_000)
    opened.tab.wait_for_function("() => scrollY > 60000")
    opened.tab.keyboard.press("ArrowDown")
    assert 900 < int(_chosen(opened)[1:]) < 1010
    opened.tab.close()


def _pages(pdf: bytes) -> int:
    return len(re.findall(rb"/Type\s*/Page\b", pdf))


def test_printing_prints_the_rows_that_fit_the_filters(browser: Any, novel: Path) -> None:
    """All of them, wherever the page is scrolled to, thirty or more to a page; afterwards the page is as before."""
    tab = browser.new_page()
    tab.goto(novel.as_uri())
    count = "() => { printed = document.querySelectorAll('#window .row').length; }"
    tab.evaluate(f"addEventListener('beforeprint', {count})")
    pages = {}
    for words in ("", "n00010"):
        tab.fill("#search", words)
        pages[words] = _pages(tab.pdf(format="A4")), tab.evaluate("printed")
    assert pages["n00010"] == (1, 10)
    assert pages[""][1] == 1200
    assert pages[""][0] <= 40
    assert tab.locator("#window .row").count() == 10
    tab.emulate_media(media="print")
    assert tab.inner_text("#found") == "10 of 1,200 rows: “n00010”"
    assert not any(
        tab.is_visible(name) for name in ("#filters", "#player", "#tabs", "#play-all", ".go", "#panel-timing")
    )
    tab.close()


def test_print_uses_columns_on_narrow_paper(browser: Any, page: Path) -> None:
    """Paper is not treated as a phone, and a reason stays on its line."""
    tab = browser.new_page(viewport={"width": 640, "height": 900})
    tab.goto(page.as_uri())
    tab.emulate_media(media="print")
    columns = tab.evaluate("getComputedStyle(document.querySelector('.row.head')).gridTemplateColumns").split()
    assert len(columns) == 7
    assert tab.locator("#window .row").nth(2).locator(".reason").bounding_box()["height"] < 20
    tab.close()


@pytest.mark.parametrize("name", ["rows", "credits", "timing"])
def test_a_narrow_screen_needs_no_scrolling_sideways(browser: Any, page: Path, name: str) -> None:
    """And fingers can hit the buttons of a row."""
    tab = browser.new_page(viewport={"width": 340, "height": 700})
    tab.goto(f"{page.as_uri()}#{name}")
    assert tab.evaluate("document.documentElement.scrollWidth") == 340
    if name == "rows":
        tab.locator("#window .row").nth(1).click(position={"x": 150, "y": 40})
        sizes = tab.locator("#window .row:nth-child(2) button").evaluate_all("all => all.map((one) => one.offsetWidth)")
        assert min(sizes) >= 32
        assert tab.evaluate("document.documentElement.scrollWidth") == 340
    tab.close()


CONTRAST: Final = """(names) => names.map((name) => {
  const light = (colour) => {
    const parts = colour.match(/[\\d.]+/g).slice(0, 3).map((part) => part / 255);
    const [r, g, b] = parts.map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const one = document.querySelector(name);
  let behind = one;
  while (/, 0\\)$/.test(getComputedStyle(behind).backgroundColor)) behind = behind.parentElement;
  const [ink, paper] = [light(getComputedStyle(one).color), light(getComputedStyle(behind).backgroundColor)];
  return [name, (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05)];
})"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_their_background(browser: Any, page: Path, scheme: str) -> None:
    """By the ratio of 4.5 that WCAG 2.2 demands, in both colour schemes."""
    tab = browser.new_page(color_scheme=scheme)
    tab.goto(page.as_uri())
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("r")
    names = [".lead", ".lead .bad", ".as-of", ".meanings li", "#tabs a[aria-selected=false]", "#found", ".row .reason"]
    names += [
        ".row .number",
        ".row .voice",
        ".to-good",
        ".to-retake",
        "#keys",
        "#said",
        "#retake",
        ".chosen .state",
        "#now",
    ]
    assert {name: ratio for name, ratio in tab.evaluate(CONTRAST, names) if ratio < 4.5} == {}
    tab.close()


def test_every_control_has_a_role_and_a_name(opened: Opened) -> None:
    """As a screen reader lists them; the rows are one stop of the Tab key."""
    tab = opened.tab
    tab.keyboard.press("ArrowDown")
    found = tab.locator("body").aria_snapshot()
    for line in ('tablist "Parts of the report"', 'tab "Rows" [selected]', 'tabpanel "Rows"', 'grid "Rows"'):
        assert line in found
    assert 'button "Mark r1 for a retake"' in found
    assert not re.search(r"- (button|link|textbox|searchbox|combobox|slider|tab|grid)( \[[^]]*\])*:?\n", found)
    assert tab.locator("#table button").evaluate_all("all => all.every((one) => one.tabIndex === -1)")


def test_without_javascript_everything_but_the_rows_is_there(browser: Any, page: Path) -> None:
    """And nothing that would have no effect."""
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(page.as_uri())
    assert all(
        tab.is_visible(name) for name in (".lead", ".states", "noscript", "#panel-credits table", "#figure-polls")
    )
    assert not any(
        tab.is_visible(name) for name in ("#tabs", "#filters", "#table", "#play-all", "#player", ".outliers")
    )
    context.close()
