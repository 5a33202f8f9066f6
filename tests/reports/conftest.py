"""The report's page of a small manifest, and a real browser to open it in."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.bench.page import made_up
from tests.support.processes import Ended, begin

HOSTILE: Final = "<img src=x onerror=\"document.title='owned'\"></script><!--<script>document.title='owned'</script>"
ROWS: Final = (
    {"id": "r1", "text": HOSTILE, "voice": "en-gb", "scene": "one"},
    {"id": "r2", "text": "The fog.", "voice": "en-us", "scene": "one"},
    {"id": "r3", "text": "Nobody here.", "voice": "en-us", "scene": "two", "pitch": 99},
    {"id": "a#b%20 c?", "text": "The lamp.", "voice": "en-us", "scene": "two"},
)
BROWSER: Final = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def batcher(folder: Path, *arguments: str | Path) -> Ended:
    """Run the program in the folder, without this environment's settings."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BATCHER_")}
    return begin([*map(str, arguments)], folder, environment, aside=folder.parent).end()


@pytest.fixture(scope="session")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose manifest the sandbox has run, except for one row with an invalid parameter."""
    folder = tmp_path_factory.mktemp("spoken")
    (folder / "lines.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    assert batcher(folder, "run", "lines.jsonl", "--sandbox", "--allow", "html").exit_code == 3
    return folder


@pytest.fixture(scope="session")
def page(spoken: Path) -> Path:
    """The page, at its default path."""
    ended = batcher(spoken, "report", "lines.jsonl", "--sandbox")
    assert ended.exit_code == 0, ended.err
    return spoken / "audio-sandbox" / "lines.report.html"


@pytest.fixture(scope="session")
def novel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of 1,200 rows that have no audio."""
    folder = tmp_path_factory.mktemp("novel")
    made_up(folder / "batcher.db", 1200)
    ended = batcher(folder, "report", "--output", "p.html")
    assert ended.exit_code == 0, ended.err
    return folder / "p.html"


@pytest.fixture(scope="module")  # not longer: while it lasts, an event loop runs in this thread
def browser() -> Iterator[Any]:
    """A real browser."""
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("playwright is not installed: pip install -e '.[browser]'")
    if BROWSER is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on PATH")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # As root, as in many containers, Chromium does not start with its own sandbox; the page is trusted.
        started = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield started
        started.close()


class Opened:
    """The page in a tab, with the browser's complaints and every address it requested."""

    def __init__(self, tab: Any, path: Path) -> None:
        self.tab = tab
        self.complaints: list[str] = []
        self.asked: list[str] = []
        tab.on("console", lambda message: self.complaints.append(message.text))
        tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        tab.on("request", lambda request: self.asked.append(request.url))
        tab.goto(path.as_uri())

    def ids(self) -> list[str]:
        """The ids of the rows shown."""
        found: list[str] = self.tab.locator("#window .id b").all_inner_texts()
        return found


@pytest.fixture
def opened(browser: Any, page: Path) -> Iterator[Opened]:
    """The page, opened as a file, in its own browser profile."""
    context = browser.new_context()
    found = Opened(context.new_page(), page)
    yield found
    assert found.complaints == []
    assert all(url.startswith(("file:", "data:", "blob:")) for url in found.asked)
    context.close()
