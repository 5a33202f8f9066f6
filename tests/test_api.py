"""`import batcher` for programs without an event loop: what the functions return, raise and leave alone."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
import typing
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any, Final

import click
import pytest
import structlog

import batcher
import batcher.api
from batcher.cli.commands.help import topic_text
from batcher.cli.commands.run import run as run_command
from batcher.ledger.storage.lock import owner_lock
from batcher.options import _OPTIONS, Options, checked
from tests.conftest import Project
from tests.support.fake_tts import TOKEN, FakeTTS, Job, Twist, refusal

ROOT: Final = Path(__file__).parents[1]


@pytest.fixture
def options(project: Project) -> dict[str, Any]:
    """How a program reaches the tests' provider."""
    return {"api_url": project.provider.url, "token": TOKEN}


def test_a_run_returns_its_report(project: Project, options: dict[str, Any]) -> None:
    """States, credits and exit code; the folder is as the command line leaves it, which finds nothing to do."""
    rows = project.rows(3)
    manifest = project.manifest(rows)
    report = batcher.run(manifest, max_credits=5_000, concurrency=2, **options)
    assert (report.exit_code, report.outcome, report.states["done"]) == (0, "done", 3)
    assert (report.credits.spent, report.created, report.halt) == (3, 3, None)
    assert Path(report.ledger or "") == project.ledger
    project.assert_whole(rows)
    assert project.run(manifest).report["created"] == 0


def test_a_run_prints_nothing_and_leaves_signals_and_logging_alone(
    project: Project, options: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    """The only handler of its logger is the one that drops everything."""

    def state() -> Any:
        handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
        return handlers, signal.pthread_sigmask(signal.SIG_BLOCK, []), signal.set_wakeup_fd(-1), logging.root.handlers

    before, threads = state(), threading.active_count()
    assert batcher.run(project.manifest(3), **options).exit_code == 0
    assert batcher.run(project.rows(2), ledger=project.folder / "more" / "batcher.db", **options).exit_code == 0
    assert state() == before
    give_up_at = time.monotonic() + 10.0
    while threading.active_count() > threads:  # the provider's own end once they notice that the run has hung up
        assert time.monotonic() < give_up_at
        time.sleep(0.01)
    assert capfd.readouterr() == ("", "")
    assert [type(handler) for handler in logging.getLogger("batcher").handlers] == [logging.NullHandler]


def test_the_log_has_each_step_with_its_facts(
    project: Project, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """As records of the standard library's logging, without texts or the token."""
    caplog.set_level(logging.INFO, logger="batcher")
    batcher.run(project.manifest(1), **options)
    assert {record.name for record in caplog.records if record.name.startswith("batcher")} == {"batcher"}
    (create,) = [record for record in caplog.records if getattr(record, "event", None) == "create"]
    facts = vars(create)["facts"]
    assert (facts["task_id"], facts["attempt"], create.levelname) == ("task_1", 1, "INFO")
    assert create.module == "submitter"
    assert f"task_id={facts['task_id']}" in create.getMessage()
    assert "Line number" not in caplog.text
    assert TOKEN not in caplog.text


def test_the_log_does_not_depend_on_how_the_host_logs(project: Project, options: dict[str, Any]) -> None:
    """The library that both may use is configured by the host alone."""

    def explode(*_: Any) -> Any:
        raise AssertionError

    structlog.configure(processors=[explode])
    try:
        assert batcher.run(project.manifest(1), **options).exit_code == 0
    finally:
        structlog.reset_defaults()


def _in_thread(function: Callable[[], Any]) -> Any:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


def _in_running_loop(function: Callable[[], Any]) -> Any:
    async def main() -> Any:
        return function()

    return asyncio.run(main())


@pytest.mark.parametrize("where", [_in_thread, _in_running_loop])
def test_functions_work_in_any_thread_and_beside_a_running_loop(
    project: Project, options: dict[str, Any], where: Callable[[Callable[[], Any]], Any]
) -> None:
    manifest = project.manifest(2)
    assert where(lambda: batcher.plan(manifest, **options)).new == 2
    assert where(lambda: batcher.run(manifest, **options)).exit_code == 0
    assert where(lambda: batcher.status(manifest)).states["done"] == 2
    assert [row.id for row in where(lambda: [*batcher.results(manifest)])] == ["r1", "r2"]


def test_two_runs_at_once_in_one_process(project: Project, options: dict[str, Any]) -> None:
    """Of two ledgers."""
    reports: list[batcher.RunReport] = []

    def run(name: str) -> None:
        folder = project.folder / name
        report = batcher.run(project.rows(4), ledger=folder / "speech.db", out_dir=folder / "audio", **options)
        reports.append(report)

    threads = [threading.Thread(target=run, args=[name]) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [report.exit_code for report in reports] == [0, 0]
    assert len(project.provider.creates) == 8


def test_an_interrupt_ends_the_wait_for_the_lock(project: Project, options: dict[str, Any]) -> None:
    """Nothing has begun that could drain."""
    manifest = project.manifest(1)
    assert batcher.run(manifest, **options).exit_code == 0
    this = threading.get_ident()
    before = time.monotonic()
    with owner_lock(project.ledger):
        threading.Timer(0.3, signal.pthread_kill, [this, signal.SIGINT]).start()
        with pytest.raises(KeyboardInterrupt):
            batcher.run(manifest, wait_lock=60, **options)
    assert time.monotonic() - before < 30


def test_an_interrupt_ends_a_plan_while_it_reads(project: Project, options: dict[str, Any]) -> None:
    """These rows take more than ten seconds."""
    manifest = project.folder / "many.csv"
    lines = "".join(f"r{number},Hello.,5f3c\n" for number in range(200_000))
    manifest.write_text(f"id,text,voice\n{lines}", encoding="utf-8")
    this = threading.get_ident()
    before = time.monotonic()
    threading.Timer(0.3, signal.pthread_kill, [this, signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt):
        batcher.plan(manifest, **options)
    assert time.monotonic() - before < 4


def test_decisions_need_no_event_loop(project: Project, provider: FakeTTS, options: dict[str, Any]) -> None:
    """They are those of a project; also in a thread whose loop is running."""
    provider.on_create = lambda create: Twist(charge=True) if "number 2" in create.text else None
    assert batcher.run(project.manifest(3), **options).states["in_doubt"] == 1
    provider.on_create = lambda _: None
    where: Any = {name: options[name] for name in ("api_url", "token")} | {"ledger": project.ledger}
    assert {change.id for change in batcher.changes(ledger=project.ledger)} == {"r1", "r3"}
    assert [doubt.rows[0].id for doubt in batcher.doubts(ledger=project.ledger)] == ["r2"]
    with pytest.raises(batcher.UsageError, match="choose one of"):
        batcher.resolve("r2", **where)
    with pytest.raises(TypeError, match=r"retry\(\) got an unexpected keyword argument 'ledgr'. Did you mean 'ledger'"):
        batcher.retry("r2", ledgr=project.ledger)  # type: ignore[call-arg]

    async def decide() -> list[batcher.Outcome]:
        return batcher.resolve("r2", abandon=True, **where)

    assert [outcome.changed for outcome in asyncio.run(decide())] == [True]
    assert [outcome.changed for outcome in batcher.retry("r2", **where)] == [True]
    manifest = project.folder / "lines.csv"
    assert [retake.take for retake in batcher.retake("r1", manifest=manifest)] == [2]
    assert batcher.run(manifest, **options).states["done"] == 3


class _Interrupt:
    """A trace function that raises KeyboardInterrupt once: before the line with this number of those in `api`."""

    def __init__(self, number: int) -> None:
        self.lines = 0
        self._number = number

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename != batcher.api.__file__ or frame.f_code.co_name not in _WAITING:
            return None
        if event == "line":
            self.lines += 1
            if self.lines == self._number:
                raise KeyboardInterrupt
        return self


_WAITING: Final = ("_wait_for", "__init__", "wait", "leave", "result", "_request")
"""The functions of `api` that the waiting thread is in."""


def test_an_interrupt_at_any_step_of_the_wait_drains(
    project: Project, provider: FakeTTS, options: dict[str, Any]
) -> None:
    """Before every line: no run goes on without its caller, and the next finishes what was left."""
    manifest, number, has_ended = project.manifest(1), 0, False
    while not has_ended:
        number += 1
        trace = _Interrupt(number)
        sys.settrace(trace)
        try:
            batcher.run(manifest, **options)
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        has_ended = trace.lines < number
        _assert_workers_end()
    assert number > 10
    assert batcher.run(manifest, **options).exit_code == 0
    assert len(provider.creates) == 1


@pytest.mark.parametrize("when", ["in a request", "between steps"])
def test_a_second_interrupt_right_after_the_first_ends_a_run_too(
    project: Project, provider: FakeTTS, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Where the first is just being handled, or where nothing catches it: the run drains all the same."""
    worker, provider.task_seconds = batcher.api._Worker, 1000.0
    real, requests = worker._request, []

    def interrupted(self: Any) -> None:
        requests.append(self)
        if len(requests) == 1:
            raise KeyboardInterrupt
        real(self)

    def wait(self: Any) -> None:
        self._thread.start()
        provider.until(lambda: len(provider.jobs) == 1)
        raise KeyboardInterrupt

    monkeypatch.setattr(worker, *(("_request", interrupted) if when == "in a request" else ("wait", wait)))
    interrupt = threading.Thread(target=_interrupt_once, args=[provider, threading.get_ident()])
    if when == "in a request":
        interrupt.start()
    with pytest.raises(KeyboardInterrupt):
        batcher.run(project.manifest(3), concurrency=1, **options)
    provider.end_tasks()
    _assert_workers_end()
    assert (len(provider.creates), project.states()) == (1, {"done": 1, "pending": 2})


def _interrupt_once(provider: FakeTTS, thread: int) -> None:
    provider.until(lambda: len(provider.jobs) == 1)
    signal.pthread_kill(thread, signal.SIGINT)
    provider.end_tasks()


def _assert_workers_end() -> None:
    for thread in threading.enumerate():
        if thread.name == "batcher":
            thread.join(20)
            assert not thread.is_alive()


def test_results_have_every_row_with_its_outcome(project: Project, provider: FakeTTS, options: dict[str, Any]) -> None:
    """Failures are data."""
    provider.ending = lambda job: _failed(job) if "number 2" in job.text else {}
    rows = [*project.rows(2), {"id": "blank", "text": "", "voice": "anna"}]
    report = batcher.run(project.manifest(rows), skip_invalid=True, **options)
    assert (report.exit_code, report.states["failed"]) == (3, 1)
    good, bad, blank = batcher.results(ledger=project.ledger)
    assert (good.id, good.state, good.path, good.credits) == ("r1", "done", project.audio / "r1.mp3", 1)
    assert (good.error, good.batch, good.take) == (None, "lines", 1)
    assert [good.task_id] == provider.paid["Line number 1 of the script."]
    assert (bad.state, bad.path, bad.error and bad.error.code) == ("failed", None, "odd")
    assert (blank.state, blank.key, blank.error and blank.error.code) == ("invalid", None, "invalid")
    assert [row.id for row in batcher.results(ledger=project.ledger, batch="lines")] == ["r1", "r2", "blank"]
    with pytest.raises(batcher.UsageError, match="It has lines"):
        batcher.results(ledger=project.ledger, batch="other")


def _failed(_: Job) -> dict[str, Any]:
    return {"status": "failed", "error": {"code": "odd", "message": "this is odd"}}


def test_a_status_has_the_numbers_of_the_command_line(project: Project, options: dict[str, Any]) -> None:
    batcher.run(project.manifest(2), **options)
    found, shown = batcher.status(ledger=project.ledger), project.batcher("status", "--json").report
    assert (found.states, found.rows, found.batches) == (shown["states"], shown["rows"], shown["batches"])
    assert asdict(found.credits) == shown["credits"]
    assert found.last_run is not None
    assert found.last_run.run_id == shown["last_run"]["run_id"]
    with pytest.raises(batcher.LedgerError, match="no ledger at"):
        batcher.status(ledger=project.folder / "other.db")


def test_what_keeps_a_run_from_beginning_is_an_exception(
    project: Project, provider: FakeTTS, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is created."""
    manifest = project.manifest([*project.rows(2), {"id": "r1", "text": "Again.", "voice": "anna"}])
    with pytest.raises(batcher.ManifestError) as faulty:
        batcher.run(manifest, **options)
    assert faulty.value.faults == [f'{manifest}:4: id: "r1" is taken by line 2']
    assert faulty.value.faults[0] in str(faulty.value)
    with pytest.raises(batcher.DoubtError) as doubtful:
        batcher.run([{"id": "b", "text": "<b>Bold</b> words.", "voice": "anna"}], ledger=project.ledger, **options)
    assert doubtful.value.types == {"html"}
    manifest = project.manifest(2)
    monkeypatch.delenv("BATCHER_API_TOKEN", raising=False)
    with pytest.raises(batcher.CredentialsError, match="no API token"):
        batcher.run(manifest, api_url=provider.url)
    with pytest.raises(batcher.CredentialsError, match="rejected the token"):
        batcher.run(manifest, api_url=provider.url, token="sk-another")
    with owner_lock(project.ledger), pytest.raises(batcher.LockedError, match="another run holds"):
        batcher.run(manifest, **options)
    with pytest.raises(batcher.TroubleError, match="cannot reach"):
        batcher.run(manifest, token=TOKEN, api_url="http://127.0.0.1:9/v1")
    with pytest.raises(batcher.UsageError, match="cannot be read: No such file"):
        batcher.run(project.folder / "missing.csv", **options)
    assert provider.creates == []


def test_a_halt_is_in_the_report(project: Project, provider: FakeTTS, options: dict[str, Any]) -> None:
    provider.credits = 1
    report = batcher.run(project.manifest(3), concurrency=1, **options)
    assert (report.exit_code, report.states["done"], report.halt and report.halt.kind) == (4, 1, "credits")


def test_a_token_that_is_rejected_in_mid_run_is_in_the_report(
    project: Project, provider: FakeTTS, options: dict[str, Any]
) -> None:
    provider.on_create = lambda create: refusal(401, "invalid_token") if create.number > 1 else None
    report = batcher.run(project.manifest(3), concurrency=1, **options)
    assert (report.exit_code, report.outcome) == (5, "credentials")


def test_the_token_comes_from_the_environment_and_nothing_else_does(
    project: Project, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither other variables nor batcher.toml change a call."""
    monkeypatch.setenv("BATCHER_API_TOKEN", TOKEN)
    monkeypatch.setenv("BATCHER_OUT_DIR", "elsewhere")
    (project.folder / "batcher.toml").write_text('filename = "{row}.{format}"\nvoice = ""\n', encoding="utf-8")
    assert batcher.run(project.manifest(1), api_url=options["api_url"]).exit_code == 0
    assert (project.audio / "r1.mp3").exists()


def _click_options() -> Iterator[tuple[str, click.Option]]:
    for param in run_command.params:
        if isinstance(param, click.Option):
            yield next(name for name in param.opts if name.startswith("--"))[2:].replace("-", "_"), param


COMMAND_LINE_ONLY: Final = {
    *("yes", "save_settings", "dry_run", "log_format", "log_file", "ping", "metrics", "notify", "ok_exit"),
    *("json", "quiet", "verbose", "debug"),
}


def test_parameters_are_the_options_of_the_command_line() -> None:
    """With the same defaults; only what concerns the terminal is missing, and the token and voices are added."""
    there = dict(_click_options())
    parameters = set(typing.get_type_hints(Options))
    assert parameters - {"token", "voices"} == there.keys() - COMMAND_LINE_ONLY
    with click.Context(run_command) as context:
        run_command.parse_args(context, ["lines.csv"])
    for name, value in checked({}, "run").items():
        if name in there:
            assert (context.params[there[name].name or ""] or None) == (value or None), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"concurrency": 0}, "concurrency: 0 is out of range: use 1 to 20,000"),
        ({"concurrency": "20"}, "concurrency: '20' is not a whole number"),
        ({"max_credits": float("nan")}, "max_credits: nan is not a number from 0"),
        ({"max_runtime": "soon"}, "max_runtime: 'soon' is not a duration"),
        ({"skip_invalid": "no"}, "skip_invalid: 'no' is neither True nor False"),
        ({"allow": ["html", "hmtl"]}, "allow: 'hmtl' is not a type of markup"),
        ({"column": "text=Script"}, "column: 'text=Script' is not a mapping"),
        ({"where": "no condition"}, "where: "),
        ({"quotes": "maybe"}, "quotes: 'maybe' is not one of auto, on, off"),
        ({"only": []}, "only: name at least one row, or pass None for all"),
        ({"only": iter(())}, "only: name at least one row"),
        ({"only": ","}, "only: name at least one row"),
        ({"only": ["a"], "sample": 3}, "--only and --sample contradict each other"),
    ],
)
def test_an_invalid_value_names_its_parameter(project: Project, options: Any, message: str) -> None:
    with pytest.raises(batcher.UsageError) as raised:
        batcher.run(project.manifest(1), **options)
    assert raised.value.message.startswith(message)
    assert not project.ledger.exists()


def test_an_unknown_parameter_is_a_type_error_with_a_suggestion(project: Project) -> None:
    expected = r"run\(\) got an unexpected keyword argument 'max_credit'. Did you mean 'max_credits'\?"
    with pytest.raises(TypeError, match=expected):
        batcher.run(project.manifest(1), max_credit=5)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="two values"):
        batcher.open("speech.db", ledger="other.db")
    with pytest.raises(TypeError, match=r"^open\(\) got an unexpected keyword argument 'zzz'$"):
        batcher.open("speech.db", zzz=5)  # type: ignore[call-arg]


def test_a_secret_never_appears_in_an_error() -> None:
    with pytest.raises(batcher.UsageError) as raised:
        batcher.open("speech.db", token=b"sk-secret")  # type: ignore[arg-type]
    assert "sk-secret" not in str(raised.value)


def test_options_reach_the_run(project: Project, provider: FakeTTS, options: dict[str, Any]) -> None:
    """Columns, voices, filters and names of files, as on the command line."""
    manifest = project.manifest([{"Key": f"k{i}", "Script": f"Line {i}.", "Who": "Anna", "status": "ok"} for i in "12"])
    report = batcher.run(
        manifest,
        column={"id": "Key", "text": "Script", "voice": "Who"},
        voices={"Anna": "5f3c"},
        filename="{batch}/{id}.{format}",
        where=["status=ok"],
        only="k2",
        format="wav",
        **options,
    )
    assert (report.exit_code, report.rows, report.not_selected) == (0, 1, 1)
    assert provider.creates[0].body == {"text": "Line 2.", "voiceId": "5f3c", "format": "wav"}
    assert (project.audio / "lines" / "k2.wav").exists()


def test_the_public_names_are_there_and_importing_them_costs_nothing_before_use() -> None:
    """Each has a docstring; `import batcher` alone loads none of the package's modules."""
    assert {"run", "plan", "status", "results", "open", "Options", "Row", "RunReport", "BatcherError"} <= {
        *batcher.__all__
    }
    for name in batcher.__all__:
        assert getattr(batcher, name) is not None
        assert name == "__version__" or inspect.getdoc(getattr(batcher, name))
    assert set(batcher.__all__) <= set(dir(batcher))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = batcher.nothing
    code = "import batcher, sys; print([name for name in sys.modules if name.startswith(('batcher.', 'anyio', 'sql'))])"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ended.stdout == "[]\n"
    assert (ROOT / "batcher" / "py.typed").is_file()


SCRIPT: Final = """
import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import batcher

options: batcher.Options = {"voice": "5f3c", "max_credits": 5_000, "max_runtime": "50m"}
report: batcher.RunReport = batcher.run("lines.csv", **options)
spent: float | None = report.credits.spent
paths: list[Path] = [row.path for row in batcher.results(ledger="batcher.db") if row.path is not None]
new: int = batcher.plan([{"id": "a", "text": "Hello."}], voice="5f3c").new


async def rows() -> AsyncIterator[dict[str, str]]:
    yield {"id": "a", "text": "Hello."}


async def main() -> None:
    async with batcher.open("speech.db", out_dir=Path("audio"), concurrency=20) as project:
        async for row in project.run(rows()):
            print(row.id, row.state, row.error.code if row.error is not None else "")
        last: batcher.RunReport = await project.run([Path("a.csv"), Path("b.csv")])
        print(last.exit_code, (await project.status()).states)
        settled: list[batcher.Outcome] = await project.retry(state=["failed", "gone"])
        settled += await project.resolve(["a"], buy_again=True)
        seconds: list[float | None] = [change.audio_seconds for change in await project.changes(batch="a")]
        takes: list[int | None] = [retake.take for retake in await project.retake("a", take=1)]
        print(settled, seconds, takes, [note.note for note in (await project.retake_marked("a.json")).notes])


asyncio.run(main())
"""
WRONG: Final = """
import batcher

batcher.run("lines.csv", max_credit=5)
batcher.run("lines.csv", concurrency="20")
batcher.run("lines.csv").credits.gone
batcher.open("a.db").resolve("a", buyagain=True)
"""


@pytest.mark.slow
def test_a_users_script_is_type_checked(tmp_path: Path) -> None:
    """In strict mode; misspelt and mistyped parameters are errors."""
    script, wrong = tmp_path / "script.py", tmp_path / "wrong.py"
    script.write_text(SCRIPT, encoding="utf-8")
    wrong.write_text(WRONG, encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--config-file="]
    command += ["--cache-dir", str(tmp_path / "cache"), str(script), str(wrong)]
    environment = os.environ | {"MYPYPATH": str(ROOT)}
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert re.findall(r"(\w+\.py):(\d+): error.*\[(.*)\]", ended.stdout) == [
        ("wrong.py", "4", "call-arg"),
        ("wrong.py", "5", "arg-type"),
        ("wrong.py", "6", "attr-defined"),
        ("wrong.py", "7", "call-arg"),
        ("wrong.py", "7", "unused-coroutine"),
    ], ended


def test_the_examples_of_the_manual_run(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One after the other, in one folder."""
    monkeypatch.chdir(project.folder)
    monkeypatch.setenv("BATCHER_API_TOKEN", TOKEN)
    monkeypatch.setitem(_OPTIONS, "api_url", _OPTIONS["api_url"]._replace(default=project.provider.url))
    project.manifest(2)
    examples = re.findall(r"^```python\n(.*?)^```", topic_text("python"), re.MULTILINE | re.DOTALL)
    said = []
    for example in examples:
        exec(compile(example, "example", "exec"), {})
        said.append(capsys.readouterr().out.splitlines())
    assert said[0][:2] == ["0 all rows are done or settled", "2 2.0"]
    assert said[1][0] == "2 items to create"
    folder = project.folder / "speech"
    assert sorted(said[1][1:3]) == [f"{name} done {folder / name}.mp3" for name in ("bye", "hello")]
    assert sorted(said[2][:2]) == [f"new: {folder / name}.mp3" for name in ("bye", "hello")]
    assert said[2][2:] == ["hello 2 take 2: the next run creates and pays for it", "all open tasks are collected"]
    assert said[3] == ["bye 2 take 2: the next run creates and pays for it"]
    assert said[4][0].endswith("frozenset({'html'})")
    assert len(said) == 5


def test_the_manual_names_every_function_and_error() -> None:
    text = topic_text("python")
    errors = [name for name in batcher.__all__ if name.endswith("Error") and name != "RowError"]
    for name in [*errors, "run", "plan", "status", "results", "open", "Project", "Row", "RunReport", "Plan", "Status"]:
        assert f"`{name}" in text, name
    methods = {name for name in vars(batcher.Project) if not name.startswith("_")} - {"ledger"}
    assert [name for name in methods if f"`{name}(" not in text and f"project.{name}(" not in text] == []
    assert [name for name in methods if not hasattr(batcher, name)] == []
