"""`Retry-After` is obeyed within bounds: a longer one ends the run, says until when, and never binds the next run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from batcher.cli.screen import Screen
from batcher.clock import Clock, local
from batcher.errors import TroubleError
from batcher.ledger.ledger import open_ledger
from batcher.pipeline.preflight import Preflight
from batcher.pipeline.refusal import refused
from batcher.pipeline.stop import Reason
from batcher.provider.client import Client
from batcher.provider.endpoint import Endpoint
from batcher.provider.limits import PATIENT_RETRY_AFTER_SECONDS, PROFILE_SECONDS
from batcher.settings import Settings
from batcher.throttle.gate import Gate
from tests.support.fake_tts import TOKEN, FakeTTS, refusal
from tests.support.ledger_kit import AT, Book, book_in, run_context
from tests.support.raw_server import Connection, raw_server
from tests.support.virtual import HastyClock

if TYPE_CHECKING:
    from tests.conftest import Project

YEAR = str(365 * 86_400)
ASKED = [YEAR, "Fri, 01 Jan 2099 00:00:00 GMT", "9" * 5000, str(int(PATIENT_RETRY_AFTER_SECONDS) + 60)]


def refuse(provider: FakeTTS, what: str, asked: str) -> Callable[[], None]:
    """Let every request of this kind be refused; returns what ends that."""
    name = {"create": "on_create", "poll": "on_read", "profile": "on_profile"}[what]
    before = getattr(provider, name)
    setattr(provider, name, lambda _: refusal(429, "slow_down", Retry_After=asked))
    return lambda: setattr(provider, name, before)


@pytest.mark.parametrize(("what", "asked"), [("create", ASKED[0]), ("poll", ASKED[1]), ("profile", ASKED[2])])
def test_a_long_retry_after_ends_the_run_and_does_not_bind_the_next(
    project: Project, provider: FakeTTS, what: str, asked: str
) -> None:
    """It says until when; what is bought is collected, once."""
    manifest = project.manifest(3)
    recover = refuse(provider, what, asked)
    ended = project.run(manifest)
    assert ended.exit_code == 8
    assert "the API asks to wait until 20" in ended.report["message"]
    assert ended.report["elapsed_seconds"] < 10
    recover()
    assert project.run(manifest).exit_code == 0
    project.assert_whole(project.rows(3))
    assert max(map(len, provider.paid.values())) == 1


def test_a_download_that_is_asked_to_wait_for_long_is_left_to_the_next_run(project: Project, provider: FakeTTS) -> None:
    """The others are collected. Summary, results, `show` and the report have the reason."""
    first = project.rows(1)[0]["text"]
    provider.on_audio = lambda job: refusal(503, "slow_down", Retry_After=YEAR) if job.text == first else None
    manifest = project.manifest(3)
    ended = project.run(manifest)
    assert (ended.exit_code, ended.report["collected"]) == (8, 2)
    assert ended.report["message"] == "the audio of 1 finished task could not be downloaded; run it again later"
    why = "HTTP 503 from 127.0.0.1; it asks to wait until 20"
    assert f"1 item finished, but without usable audio so far: r1 ({why}" in ended.err
    assert [row["error"] and row["error"]["code"] for row in project.results()] == ["no_audio", None, None]
    assert project.results()[0]["error"]["message"].startswith(why)
    assert why in project.batcher("show", "r1").out
    assert why in project.batcher("report", "lines.csv", "--format", "csv").out
    provider.on_audio = lambda _: None
    assert project.run(manifest).exit_code == 0
    assert project.results()[0]["error"] is None


@pytest.mark.parametrize("asked", [PATIENT_RETRY_AFTER_SECONDS + 1, 1e9])
def test_a_wait_beyond_patience_stops_instead_of_closing_the_gate(tmp_path: Path, asked: float) -> None:
    reasons: list[tuple[Reason, str]] = []
    gate = _after_refusals(tmp_path, asked, stop=lambda *found: reasons.append(found))
    assert [reason for reason, _ in reasons] == [Reason.TROUBLE]
    assert local(AT + asked) in reasons[0][1]
    assert gate.closed_seconds < 1


@pytest.mark.parametrize(
    ("asked", "lines"),
    [([5.0], 0), ([60.0], 1), ([60.0, 60.0, 60.0], 1), ([60.0, 90.0], 2), ([PATIENT_RETRY_AFTER_SECONDS], 1)],
)
def test_a_wait_is_shown_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], asked: list[float], lines: int
) -> None:
    """Answers in a burst ask for the same."""
    gate = _after_refusals(tmp_path, *asked, stop=lambda *_: pytest.fail("stopped"))
    assert gate.closed_seconds == max(asked)
    shown = capsys.readouterr().err.splitlines()
    assert len(shown) == lines
    assert all(line.startswith("the API asks to wait until 20") and "creating waits" in line for line in shown)


class Still(Clock):
    """A clock that stands still."""

    def now(self) -> float:
        return AT

    def steady(self) -> float:
        return AT


def _after_refusals(tmp_path: Path, *asked: float, stop: Callable[[Reason, str], None]) -> Gate:
    """The gate after creates that were refused with these Retry-After."""
    clock = Still()
    gate = Gate(clock, 8)

    async def refuse_all() -> None:
        sent = [gate.enter() for _ in asked]
        for one, seconds in zip(sent, asked, strict=True):
            refused(ctx, gate, one, seconds, what="creating", stop=stop)

    with book_in(tmp_path) as book, open_ledger(book.path, "real") as ledger:
        settings = Settings(sources=(), ledger=book.path, out_dir=tmp_path / "audio")
        ctx = replace(run_context(ledger, settings, clock), progress=Screen())
        anyio.run(refuse_all)
    return gate


@pytest.fixture
def book(tmp_path: Path) -> Book:
    with book_in(tmp_path) as made:
        return made


async def _falls_silent(connection: Connection) -> None:
    await connection.request()
    await connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{")
    await connection.until_gone()


async def test_all_attempts_to_read_the_profile_share_one_deadline(tmp_path: Path, book: Book) -> None:
    with open_ledger(book.path, "real") as ledger:
        ctx = run_context(ledger, Settings(sources=(), ledger=book.path, out_dir=tmp_path), HastyClock())
        async with (
            raw_server(_falls_silent) as server,
            Client(Endpoint(server.origin, TOKEN), create_connections=1) as client,
        ):
            preflight = Preflight(ctx=ctx, client=client, origin="https://new.test", token=TOKEN)
            with pytest.raises(TroubleError, match=f"no answer within {PROFILE_SECONDS:g} s"):
                await preflight.enter([])
