"""Several runs work on one ledger on a server: they share its items and limits, and buy nothing twice."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from random import Random
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from batcher.ledger.storage import sharing
from tests.support import postgres
from tests.support.fake_tts import Create, FakeTTS, Twist, audio_of, refusal
from tests.support.purchases import MostOpen

if TYPE_CHECKING:
    from tests.conftest import Project
    from tests.support.processes import Started

pytestmark = pytest.mark.parametrize("project", ["postgres"], indirect=True)


def assert_bought_once(project: Project, rows: int) -> None:
    """Check that every text is done or in doubt, bought once, and no task is missing from the ledger."""
    provider = project.provider
    assert max(Counter(provider.asked).values()) == 1
    recorded = {task_id for (task_id,) in project.query("SELECT task_id FROM tasks")}
    in_doubt = {text for (text,) in project.query("SELECT text FROM items WHERE state = 'in_doubt'")}
    for text, task_ids in provider.paid.items():
        assert recorded.issuperset(task_ids) or text in in_doubt
    assert project.query("SELECT count(*) FROM items WHERE state = 'done'") == [(rows - len(in_doubt),)]


def started(project: Project, number: int, *arguments: Any) -> list[Started]:
    """This many runs of the same manifest, started together."""
    return [project.start_run(*arguments) for _ in range(number)]


def test_three_runs_started_together_on_a_new_database_share_its_items(project: Project, provider: FakeTTS) -> None:
    """Each text is bought once, and never more than --concurrency tasks are open; every run ends with 0."""
    open_, provider.task_seconds = MostOpen(provider), 0.2
    manifest = project.manifest(60)
    ended = [one.end() for one in started(project, 3, manifest, "--concurrency", "6")]
    assert [one.exit_code for one in ended] == [0, 0, 0], ended
    assert_bought_once(project, 60)
    project.assert_whole(project.rows(60))
    assert open_.most <= 6
    assert sum(one.report["created"] for one in ended) == 60
    assert min(one.report["created"] for one in ended) >= 10, ended


@pytest.mark.slow
def test_a_run_may_join_and_ends_when_all_items_are_done(project: Project, provider: FakeTTS) -> None:
    """It has nothing to create, and waits for the tasks of the other."""
    provider.task_seconds = 600.0
    manifest = project.manifest(4)
    first = project.start_run(manifest)
    provider.until(lambda: len(provider.creates) == 4)
    second = project.start_run(manifest)
    second.until_says("waiting for the items of other runs")
    provider.end_tasks()
    ended = [first.end(), second.end()]
    assert [one.exit_code for one in ended] == [0, 0], ended
    assert [one.report["created"] for one in ended] == [4, 0]
    assert_bought_once(project, 4)


@pytest.mark.slow
def test_tasks_of_a_killed_run_are_taken_over_by_one_that_works(project: Project, provider: FakeTTS) -> None:
    """Its creates without an answer are in doubt, and nobody sends them again."""
    provider.task_seconds, provider.create_seconds = 600.0, 0.3
    manifest = project.manifest(40)
    killed, other = started(project, 2, manifest, "--concurrency", "12")
    provider.until(lambda: len(provider.creates) >= 12)
    time.sleep(0.5)
    killed.send(signal.SIGKILL)
    other.until_says("has ended without a record of it")
    provider.end_tasks()
    ended = other.end()
    assert ended.exit_code in (0, 3), ended
    assert_bought_once(project, 40)
    assert project.query("SELECT count(*) FROM runs WHERE outcome = 'vanished'") == [(1,)]


@pytest.mark.slow
def test_an_empty_account_stops_all_runs_and_one_of_them_probes_after_a_top_up(
    project: Project, provider: FakeTTS
) -> None:
    """The others go on once its task was accepted."""
    provider.credits, provider.task_seconds = 10.0, 0.1
    manifest = project.manifest(40)
    ended = [one.end() for one in started(project, 3, manifest, "--concurrency", "6")]
    assert [one.exit_code for one in ended] == [4, 4, 4], ended
    refused = [create for create in provider.creates if create.status == 402]
    assert 1 <= len(refused) <= 6
    in_flight: list[int] = []

    def count(_: Create) -> None:
        in_flight.append(sum(create.answered_at is None for create in provider.creates))

    before, provider.on_create, provider.credits, provider.create_seconds = len(provider.creates), count, 1000.0, 0.3
    ended = [one.end() for one in started(project, 3, manifest, "--concurrency", "6")]
    assert [one.exit_code for one in ended] == [0, 0, 0], ended
    assert in_flight[0] == 1
    probe = provider.creates[before]
    assert probe.answered_at is not None
    assert all(create.arrived_at >= probe.answered_at for create in provider.creates[before + 1 :])
    assert len(provider.jobs) == 40


@pytest.mark.slow
def test_limits_on_the_command_line_hold_for_all_runs_together(project: Project, provider: FakeTTS) -> None:
    """--max-items and --create-rate."""
    manifest = project.manifest(40)
    limits = ("--max-items", "20", "--create-rate", "8", "--concurrency", "12")
    ended = [one.end() for one in started(project, 3, manifest, *limits)]
    assert {one.exit_code for one in ended} == {6}, ended
    assert len(provider.jobs) == 20
    arrived = sorted(create.arrived_at for create in provider.creates)
    assert arrived[-1] - arrived[0] >= 18 / 8
    in_a_second = max(sum(first <= at < first + 1 for at in arrived) for first in arrived)
    assert in_a_second <= 10


@pytest.mark.slow
def test_runs_with_a_budget_share_the_items(project: Project, provider: FakeTTS) -> None:
    """Also if one of them had to wait until the first task of the other showed a price."""
    provider.task_seconds = 0.5
    manifest = project.manifest(60)
    ended = [one.end() for one in started(project, 2, manifest, "--max-credits", "100000", "--concurrency", "4")]
    assert [one.exit_code for one in ended] == [0, 0], ended
    assert min(one.report["created"] for one in ended) > 10, ended
    assert len(provider.jobs) == 60


@pytest.mark.slow
def test_a_wait_that_the_api_asks_for_holds_for_all_runs(project: Project, provider: FakeTTS) -> None:
    """None creates before it is over, except for creates in flight."""
    asked_at: list[float] = []

    def refuse(create: Create) -> Twist | None:
        if create.number != 4:
            return None
        asked_at.append(time.monotonic())
        return refusal(429, "rate_limited", retry_after="3")

    provider.on_create = refuse
    ended = [one.end() for one in started(project, 3, project.manifest(60), "--create-rate", "10")]
    assert [one.exit_code for one in ended] == [0, 0, 0], ended
    early = [create for create in provider.creates if asked_at[0] + 0.5 < create.arrived_at < asked_at[0] + 3]
    assert early == []
    assert_bought_once_or_deferred(provider)


@pytest.mark.slow
def test_a_wait_that_is_too_long_for_one_run_ends_all_of_them(project: Project, provider: FakeTTS) -> None:
    """One create is refused, and the others in flight are answered. A run that begins later asks again."""
    provider.on_create = lambda create: refusal(429, "rate_limited", retry_after="7200") if create.number == 9 else None
    manifest = project.manifest(40)
    works = started(project, 3, manifest, "--concurrency", "6")
    ended = [one.end() for one in works]
    assert [one.exit_code for one in ended] == [8] * 3, ended
    assert all("asks to wait until" in one.report["message"] for one in ended), ended
    assert len(provider.creates) < 20
    assert project.run(manifest).exit_code == 0
    assert_bought_once_or_deferred(provider)


def assert_bought_once_or_deferred(provider: FakeTTS) -> None:
    assert max(map(len, provider.paid.values())) == 1


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_four_runs_with_deaths_of_every_kind_buy_each_text_once(project: Project, provider: FakeTTS) -> None:
    """Two are killed, one is stopped until its lease has ended, one loses its session: others and later ones go on."""
    open_, provider.task_seconds, provider.create_seconds = MostOpen(provider), 0.2, 0.02
    manifest = project.manifest(2000)
    arguments = (manifest, "--concurrency", "20")
    works = started(project, 4, *arguments)
    provider.until(lambda: len(provider.creates) >= 150, 60)
    works[0].send(signal.SIGKILL)
    works.append(project.start_run(*arguments))
    provider.until(lambda: len(provider.creates) >= 400, 60)
    works[1].send(signal.SIGSTOP)
    stopped_at = time.monotonic()
    provider.until(lambda: len(provider.creates) >= 600, 60)
    works[2].send(signal.SIGKILL)
    ((run_id,),) = project.query(f"SELECT id FROM runs WHERE pid = {works[3].pid}")
    assert project.batcher("runs", "--end", run_id).exit_code == 0
    works.append(project.start_run(*arguments))
    provider.until(lambda: len(provider.creates) >= 900, 120)
    time.sleep(max(0.0, stopped_at + 70 - time.monotonic()))
    works[1].send(signal.SIGCONT)
    ended = [one.end(180) for one in works]
    codes = [one.exit_code for one in ended]
    assert (codes[0], codes[1], codes[2], codes[3]) == (-9, 8, -9, 8), codes
    assert set(codes[4:]) <= {0, 3}, ended
    assert_bought_once(project, 2000)
    assert open_.most <= 20


@pytest.mark.slow
def test_answers_that_a_run_without_its_session_spills_are_all_recorded(project: Project, provider: FakeTTS) -> None:
    """Its process lives on for a while and writes them, before and after another run looks into its spill file."""
    slow = {1: 2.0, 2: 14.0, 3: 14.0, 4: 14.0}
    create = provider._create

    async def create_slowly(body: dict[str, Any]) -> Twist:
        number = len(provider.creates) + 1
        answer = await create(body)
        await asyncio.sleep(slow.get(number, 0.0))
        return answer

    provider.task_seconds, provider._create = 600.0, create_slowly  # type: ignore[method-assign]
    manifest = project.manifest(4)
    cut_off = project.start_run(manifest)
    provider.until(lambda: len(provider.creates) == 4)
    other = project.start_run(manifest)
    other.until_says("waiting for the items of other runs")
    ((run_id,),) = project.query(f"SELECT id FROM runs WHERE pid = {cut_off.pid}")
    assert project.batcher("runs", "--end", run_id).exit_code == 0
    assert cut_off.end(60).exit_code == 8
    provider.end_tasks()
    assert other.end(60).exit_code in (0, 3)
    assert project.run(manifest).exit_code == 0
    assert len(project.query("SELECT task_id FROM tasks")) == 4
    assert list(project.folder.glob("*.spill")) + list(project.folder.glob("*.intents")) == []


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_runs_whose_audio_cannot_be_downloaded_do_not_wait_for_each_other(
    project: Project, provider: FakeTTS
) -> None:
    """Each gives up its own, and the next run tries again."""
    provider.on_audio, provider.create_seconds = lambda _: Twist(status=500, body=b"no"), 0.3
    both = started(project, 2, project.manifest(4), "--concurrency", "2")
    assert [one.end(240).exit_code for one in both] == [8, 8]


@pytest.mark.slow
def test_a_run_creates_nothing_of_a_version_that_another_has_imported(project: Project, provider: FakeTTS) -> None:
    """It has neither checked those rows nor asked about them; it collects what it has, and says why it ends."""
    provider.task_seconds = 600.0
    old, new = project.rows(6), project.rows(6, first=7)
    first = project.start_run(project.manifest(old), "--concurrency", "2")
    provider.until(lambda: len(provider.creates) == 2)
    second = project.start_run(project.manifest(new), "--concurrency", "2", "--collect-only")
    second.until(lambda: project.query("SELECT version FROM batches") == [(2,)])
    provider.end_tasks()
    ended = first.end()
    assert (ended.exit_code, "another version of lines" in ended.report["message"]) == (6, True), ended
    assert set(provider.asked) <= {row["text"] for row in old}
    assert second.end().exit_code == 6


@pytest.mark.slow
def test_a_run_that_waits_for_anothers_import_says_so_and_can_be_stopped(project: Project, provider: FakeTTS) -> None:
    """A big manifest takes minutes. Once it is imported, a run that still waits goes on."""
    assert project.run(project.manifest(1)).exit_code == 0
    manifest = project.manifest(2)
    assert project.server is not None
    with psycopg.connect(project.server, autocommit=True) as importing:
        importing.execute(f"SELECT pg_advisory_lock({sharing._TURNS['import']}, hashtext('public'))")
        both = started(project, 2, manifest)
        for one in both:
            one.until_says("waiting until another run has imported its manifest")
        both[0].send(signal.SIGINT)
        assert both[0].end().exit_code == 6
        assert len(provider.creates) == 1
    assert both[1].end().exit_code == 0
    assert len(provider.creates) == 2


@pytest.mark.slow
def test_what_a_stopped_host_may_still_send_is_not_bought_again_yet(project: Project, provider: FakeTTS) -> None:
    """Its session is over, but it is there: its last request can leave when it goes on."""
    provider.create_seconds = 600.0
    manifest = project.manifest(1)
    stopped = project.start_run(manifest)
    provider.until(lambda: len(provider.creates) == 1)
    stopped.send(signal.SIGSTOP)
    postgres.end_sessions(str(project.server))
    assert project.run(manifest).exit_code == 3
    decide = ("resolve", manifest, "--all", "--buy-again", "--json")
    (refused,) = project.batcher(*decide).report["outcomes"]
    assert (refused["changed"], "may still be sent by" in refused["message"]) == (False, True)
    stopped.send(signal.SIGKILL)
    stopped.end()
    (allowed,) = project.batcher(*decide).report["outcomes"]
    assert (allowed["changed"], allowed["state"]) == (True, "pending")


@pytest.mark.slow
def test_two_hosts_that_link_rows_at_once_never_take_one_items_audio_for_anothers(
    project: Project, provider: FakeTTS
) -> None:
    """Each round gives every row another text that has audio: nothing is bought, all outputs are replaced."""
    rows, random = project.rows(24), Random(5)
    assert project.run(project.manifest(rows)).exit_code == 0
    other = project.on_another_host()
    for _ in range(3):
        texts = random.sample([row["text"] for row in rows], len(rows))
        rows = [row | {"text": text} for row, text in zip(rows, texts, strict=True)]
        ended = [
            one.end()
            for one in [host.start_run(host.manifest(rows), "--rename", "--rebuy") for host in (project, other)]
        ]
        assert [one.exit_code for one in ended] == [0, 0], ended
        for text, path in project.query(_SAVED):
            assert (project.folder / path).read_bytes() == audio_of(text, "mp3")
        project.assert_whole(rows)
    assert len(provider.creates) == len(rows)


_SAVED = "SELECT i.text, f.out_dir || '/' || f.path FROM items i JOIN files f ON f.item_key = i.key"
