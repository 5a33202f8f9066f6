"""What an operator does between runs, through an open project: the guarantees of the commands hold."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import click
import pytest

import batcher
from batcher.cli.app import COMMANDS, cli
from batcher.ledger.storage.lock import owner_lock
from tests.conftest import Project
from tests.support.fake_tts import TOKEN, FakeTTS, Twist, different_takes, refusal, take_audio


@pytest.fixture
async def speech(project: Project) -> AsyncIterator[batcher.Project]:
    """An open project that uses the tests' provider."""
    where: Any = {"out_dir": project.audio, "api_url": project.provider.url, "token": TOKEN}
    async with batcher.open(project.ledger, **where) as opened:
        yield opened


@pytest.fixture
async def doubtful(project: Project, provider: FakeTTS, speech: batcher.Project) -> batcher.Project:
    """After a run of three rows: the second's create was charged and its answer lost."""
    provider.on_create = lambda create: Twist(charge=True) if "number 2" in create.text else None
    assert (await speech.run(project.rows(3))).states["in_doubt"] == 1
    provider.on_create = lambda _: None
    return speech


async def test_a_doubt_has_the_evidence_of_the_command_line(project: Project, doubtful: batcher.Project) -> None:
    (doubt,) = await doubtful.doubts()
    (shown,) = project.batcher("resolve", "--json").report["doubts"]
    assert (doubt.key, doubt.sent_at, doubt.raw) == (shown["key"], shown["sent_at"], shown["raw"])
    assert [row.id for row in doubt.rows] == [row["id"] for row in shown["rows"]] == ["r2"]
    assert doubt.money.unexplained == shown["money"]["unexplained"]
    assert await doubtful.doubts("r2") == [doubt]
    with pytest.raises(batcher.UsageError, match="none of these items is in doubt"):
        await doubtful.doubts("r1")


UNCLEAR: Final[tuple[dict[str, Any], ...]] = (
    {},
    {"all": True},
    {"buy_again": True},
    {"ids": "r2"},
    {"ids": "r2", "buy_again": True, "abandon": True},
    {"ids": [], "buy_again": True},
    {"ids": [], "buy_again": True, "all": True},
    {"ids": "r1", "buy_again": True},
    {"ids": "nobody", "buy_again": True},
    {"adopt": "task_1", "all": True},
)


async def test_a_doubt_is_settled_only_by_one_explicit_decision(
    project: Project, provider: FakeTTS, doubtful: batcher.Project
) -> None:
    """Nothing else changes anything, and the next run does not buy it again."""
    for how in UNCLEAR:
        with pytest.raises(batcher.UsageError):
            await doubtful.resolve(**how)
        assert (await doubtful.status()).states["in_doubt"] == 1, how
    assert (await doubtful.run(project.rows(3))).created == 0
    assert len(provider.creates) == 3


async def test_an_item_in_doubt_is_bought_again_once(
    project: Project, provider: FakeTTS, doubtful: batcher.Project
) -> None:
    (outcome,) = await doubtful.resolve("r2", buy_again=True)
    assert (outcome.changed, outcome.state, outcome.message) == (
        True,
        "pending",
        "the next run creates it again; it may cost twice",
    )
    for created in (1, 0):
        assert (await doubtful.run(project.rows(3))).created == created
    assert provider.asked.count("Line number 2 of the script.") == 2
    project.assert_whole(project.rows(3))


async def test_an_adopted_task_is_collected_and_nothing_bought(
    project: Project, provider: FakeTTS, doubtful: batcher.Project
) -> None:
    """Only one of this account, and of no other item."""
    with pytest.raises(batcher.UsageError, match="has no task task_999"):
        await doubtful.resolve("r2", adopt="task_999")
    (other,) = provider.paid["Line number 1 of the script."]
    with pytest.raises(batcher.UsageError, match="belongs to another item"):
        await doubtful.resolve("r2", adopt=other)
    (lost,) = provider.paid["Line number 2 of the script."]
    assert (await doubtful.resolve("r2", adopt=lost))[0].state == "submitted"
    report = await doubtful.run(project.rows(3))
    assert (report.exit_code, report.created, len(provider.creates)) == (0, 0, 3)
    project.assert_whole(project.rows(3))


async def test_abandoned_doubts_are_never_created(
    project: Project, provider: FakeTTS, doubtful: batcher.Project
) -> None:
    assert [one.state for one in await doubtful.resolve(all=True, abandon=True)] == ["abandoned"]
    assert await doubtful.resolve(all=True, abandon=True) == []
    assert (await doubtful.run(project.rows(3))).exit_code == 0
    assert len(provider.creates) == 3


async def test_failed_items_are_retried_or_given_up(
    project: Project, provider: FakeTTS, speech: batcher.Project
) -> None:
    """By id or by state; a task that completed after all is collected instead of being bought again."""
    provider.ending = lambda _: {"status": "failed", "error": {"code": "odd"}}
    await speech.run(project.rows(3))
    provider.ending = lambda _: {}
    provider.on_read = lambda job: (
        Twist(status=200, body={"id": job.id, "status": "failed"}) if "number 1" in job.text else None
    )
    (retried,) = await speech.retry("r1")
    assert (retried.state, retried.message) == ("pending", "the next run creates it again and pays for it")
    (collected,) = await speech.retry("r2", state="failed", batch="rows")
    assert (collected.state, "after all" in collected.message) == ("submitted", True)
    assert [one.state for one in await speech.abandon(state=["failed", "gone"])] == ["abandoned"]
    provider.on_read = lambda _: None
    report = await speech.run(project.rows(3))
    assert (report.exit_code, report.created, report.states["abandoned"]) == (0, 1, 1)


async def test_a_retry_without_names_or_states_changes_nothing(
    project: Project, provider: FakeTTS, speech: batcher.Project
) -> None:
    """Neither does an empty list, which a program may have computed, nor an item whose task cannot be read."""
    provider.ending = lambda _: {"status": "failed"}
    await speech.run(project.rows(1))
    unclear: list[dict[str, Any]] = [
        {},
        {"ids": []},
        {"ids": [], "state": "failed"},
        {"state": "rejected"},
        {"state": "done"},
    ]
    for how in unclear:
        for decide in (speech.retry, speech.abandon):
            with pytest.raises(batcher.UsageError):
                await decide(**how)
    provider.on_read = lambda _: refusal(500, "oops")
    with pytest.raises(batcher.TroubleError, match="cannot read the task"):
        await speech.retry("r1")
    assert (await speech.status()).states["failed"] == 1


async def test_a_retake_buys_a_second_output_once_and_the_first_comes_back_free(
    project: Project, provider: FakeTTS, speech: batcher.Project
) -> None:
    """With the changes that each makes."""
    different_takes(provider)
    rows = project.rows(2)
    first = (await speech.run(rows, concurrency=1)).run_id
    assert [change.path.name for change in await speech.changes()] == ["r1.mp3", "r2.mp3"]
    (asked,) = await speech.retake("r2")
    assert (asked.batch, asked.id, asked.take) == ("rows", "r2", 2)
    assert [one.message for one in await speech.retake(["r2"])] == ["not done yet; skipped"]
    assert (await speech.run(rows)).created == 1
    file = project.audio / "r2.mp3"
    assert file.read_bytes() == take_audio(rows[1]["text"], 3)
    assert [(change.id, change.take, change.path) for change in await speech.changes()] == [("r2", 2, file)]
    assert [change.id for change in await speech.changes(first, batch="rows")] == ["r1", "r2"]
    assert [one.take for one in await speech.retake("r2", take=1)] == [1]
    assert file.read_bytes() == take_audio(rows[1]["text"], 2)
    assert (await speech.run(rows)).created == 0
    with pytest.raises(batcher.UsageError):
        await speech.retake([])
    with pytest.raises(batcher.UsageError, match="has no run 'zzz'"):
        await speech.changes("zzz")


async def test_marks_of_a_page_are_retaken_once_and_have_their_notes(
    project: Project, provider: FakeTTS, speech: batcher.Project
) -> None:
    await speech.run(project.rows(3))
    keys = {row.id: row.key async for row in speech.results()}
    ((ledger_id,),) = project.query("SELECT value FROM meta WHERE name = 'ledger_id'")
    marked = [("r1", "retake", "too fast"), ("r2", "good", ""), ("r3", "", " wrong name ")]
    rows = [{"batch": "rows", "id": one, "key": keys[one], "mark": mark, "note": note} for one, mark, note in marked]
    marks = project.folder / "marks.json"
    marks.write_text(json.dumps({"marks": 1, "ledger": ledger_id, "rows": rows}), encoding="utf-8")
    found = await speech.retake_marked(marks)
    assert [(one.id, one.take) for one in found.outcomes] == [("r1", 2)]
    assert [(one.id, one.note) for one in found.notes] == [("r1", "too fast"), ("r3", "wrong name")]
    again = await speech.retake_marked(str(marks))
    assert [one.message for one in again.outcomes] == ["already retaken since it was marked; skipped"]


async def test_decisions_wait_for_the_end_of_a_run(project: Project, doubtful: batcher.Project) -> None:
    """They do not touch a ledger that a run holds; looking is possible."""
    with owner_lock(project.ledger):
        for decision in (doubtful.resolve("r2", buy_again=True), doubtful.retake("r1")):
            with pytest.raises(batcher.LockedError):
                await decision
        assert len(await doubtful.doubts()) == 1
    assert (await doubtful.status()).states["in_doubt"] == 1


async def test_decisions_without_a_ledger_make_none(project: Project, speech: batcher.Project) -> None:
    for decision in (speech.retry("r1"), speech.doubts(), speech.retake("r1"), speech.changes(), speech.abandon("r1")):
        with pytest.raises(batcher.LedgerError, match="no ledger"):
            await decision
    assert list(project.folder.iterdir()) == []


@pytest.mark.parametrize("name", ["retry", "abandon", "retake", "resolve", "changes"])
def test_methods_have_the_options_of_the_commands(name: str) -> None:
    """A program can decide all that a command can."""
    assert name in COMMANDS
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    there = {
        max(param.opts, key=len)[2:].replace("-", "_") for param in command.params if isinstance(param, click.Option)
    }
    of_a_project = {"ledger", "sandbox", "json", "api_url", "token_file", "allow_http"}
    methods = [getattr(batcher.Project, name), *([batcher.Project.retake_marked] if name == "retake" else [])]
    parameters = {one for method in methods for one in inspect.signature(method).parameters}
    assert there - of_a_project == parameters - {"self", "ids"}


@pytest.mark.skipif(os.getuid() == 0, reason="permissions do not bind this account")
async def test_a_folder_without_permissions_is_an_error_of_batcher(project: Project, speech: batcher.Project) -> None:
    project.audio.mkdir()
    project.audio.chmod(0o500)
    with pytest.raises(batcher.BatcherError, match="Permission denied"):
        await speech.run(project.rows(1))


async def _run(speech: batcher.Project, rows: Any, out_dir: Path) -> None:
    await speech.run(rows, out_dir=out_dir)


async def _run_blocking(speech: batcher.Project, rows: Any, out_dir: Path) -> None:
    batcher.run(rows, ledger=speech.ledger, out_dir=out_dir, token=TOKEN)


@pytest.mark.parametrize("run", [_run, _run_blocking])
async def test_a_path_that_cannot_be_used_is_an_error_of_batcher(
    project: Project, speech: batcher.Project, run: Any
) -> None:
    """With what to do, and no OSError; nothing is created."""
    with pytest.raises(batcher.UsageError, match=r"cannot use .*: File name too long") as raised:
        await run(speech, project.rows(1), project.folder / ("x" * 300))
    assert isinstance(raised.value.__cause__, OSError)
    assert "Check the path" in raised.value.hint
    assert project.provider.creates == []


def test_a_name_that_no_file_can_have_is_an_error_of_batcher() -> None:
    with pytest.raises(batcher.UsageError, match="embedded null byte"):
        batcher.open("a\0b")


async def test_an_error_of_the_callers_own_rows_stays_what_it_is(project: Project, speech: batcher.Project) -> None:
    def rows() -> Any:
        yield project.rows(1)[0]
        (project.folder / "missing.csv").read_text(encoding="utf-8")

    with pytest.raises(FileNotFoundError):
        await speech.run(rows())
