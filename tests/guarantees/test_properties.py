"""The promises about money and files hold for any sequence of actions by users, signals and the provider.

Hypothesis generates the stories; real processes and sockets run them.
"""

from __future__ import annotations

import itertools
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from batcher.address import Address, Server
from batcher.item import TRANSITIONS, Event, State
from tests.conftest import Project
from tests.support.fake_tts import Create, audio_of, running
from tests.support.postgres import database_of
from tests.support.processes import Ended, Started
from tests.support.summing import assert_added_up
from tests.support.world import ADDRESSES, AUDIO, CREATES, ENDINGS, READS, USERS, Body, World, body_of

Rows = dict[str, dict[str, str]]
Changes = dict[str, dict[str, str] | None]
Signalled = tuple[signal.Signals, int, float]
"""The signal, after how many requests, and how many seconds later."""

IDS = st.sampled_from([f"r{number}" for number in range(1, 9)])
ROWS = st.fixed_dictionaries(
    {
        "text": st.integers(1, 7).map("Line number {} of the script.".format),
        "voice": st.sampled_from(["anna", "ben"]),
        "take": st.sampled_from(["1", "1", "2", ""]),
    }
)
CHANGES = st.dictionaries(IDS, st.one_of(ROWS, ROWS, ROWS, st.none()), max_size=5)
"""Rows to add or edit, and rows to remove."""
NEW_ROWS = st.dictionaries(
    IDS,
    st.fixed_dictionaries(
        {"text": st.integers(8, 99).map("Line number {} of the script.".format)}
        | {"voice": st.sampled_from(["anna", "ben"]), "take": st.just("1")}
    ),
    min_size=3,
    max_size=8,
)
"""Rows whose texts are most likely new, so that two runs have something to share."""
MISFORTUNES = st.lists(st.sampled_from(["", *CREATES, *READS, *AUDIO, *ENDINGS, *ADDRESSES]), max_size=6)
"""What happens to the next creates in order, or to the tasks that they make."""
SELECTIONS: Final = ("--only=r0", "--sample=3")
"""Options with which a run works on some rows."""
HOW: Final = ("", "", "", "--override-halt", "--no-wait", "--collect-only", "spoilt", "--skip-invalid", *SELECTIONS)
"""How a run is started; `spoilt` means with a row without a text in the manifest."""
HOW_OF_TWO: Final = ("", "", "", *HOW, *["--override-halt"] * 5)
"""How each of two runs is started."""
SIGNALLED = st.tuples(
    st.sampled_from([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]),
    st.integers(2, 25),
    st.sampled_from([0.0, 0.02, 0.05, 0.1]),
)
"""What one of two runs is sent."""
MOST_SECONDS_OF_TWO: Final = 60.0
"""Time limit of two runs, in seconds: one may wait for the other, and take over what it leaves."""


@dataclass(frozen=True)
class Before:
    """What was so before a command."""

    creates: int
    unfunded: int
    halts: set[str]
    topped_up: bool

    def may_create(self, *arguments: str) -> bool:
        """Whether a run with these arguments may create anything, or start with a probe."""
        return not self.halts or self.topped_up or "--override-halt" in arguments


class Story(RuleBasedStateMachine):
    """A user's project from its first manifest on, with everything that can happen to it.

    The ledger is in a file, or in a new database of the server with this URL.
    """

    def __init__(self, environment: dict[str, str], folder: Path, server: str | None = None) -> None:
        super().__init__()
        self.folder = folder
        (folder / "project").mkdir(parents=True)
        self.stack = ExitStack()
        provider = self.stack.enter_context(running())
        self.world = World(provider)
        self.project = Project(folder / "project", provider, dict(environment))
        if server is not None:
            self.project.use_server(self.stack.enter_context(database_of(server)))
        self.stack.callback(self.project.close)
        self.rows: Rows = {}
        self.spoilt = False
        self.asked_for: set[tuple[str, str, str]] = set()  # text, voice and take of every row that ever was
        self.consents: Counter[Body] = Counter()  # further charges with a person's consent
        self.saved: dict[str, tuple[int, int]] = {}  # which file on disk each done item has
        self.sound = False  # everything has been checked since the last command

    # Rules: what happens.

    @initialize(changes=CHANGES, credits_=st.integers(1, 9), shape=st.sampled_from(["envelope", "flat", "wrapped"]))
    def begin(self, changes: Changes, credits_: int, shape: str) -> None:
        """A first manifest, some credits, and one of the API's shapes."""
        self.world.provider.shape, self.world.provider.credits = shape, credits_
        self.change(changes | {"r0": {"text": "A line that is always there.", "voice": "anna", "take": "1"}})

    @rule(changes=CHANGES, misfortunes=MISFORTUNES, concurrency=st.integers(1, 4), how=st.sampled_from(HOW))
    def run(self, changes: Changes, misfortunes: list[str], concurrency: int, how: str) -> None:
        """Run the edited manifest to the end."""
        self.change(changes)
        self.world.misfortunes = list(misfortunes)
        self.spoilt = how in ("spoilt", "--skip-invalid")
        self.go("--concurrency", str(concurrency), *([how] if how.startswith("-") else []))

    @rule(
        changes=CHANGES,
        misfortunes=MISFORTUNES,
        number=st.sampled_from([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]),
        events=st.one_of(st.integers(2, 5), st.integers(1, 15)),
        milliseconds=st.sampled_from([0, 0, 20, 50, 55, 100]),
        selection=st.sampled_from([[], [], *([one] for one in SELECTIONS)]),
    )
    def run_and_signal(
        self,
        changes: Changes,
        misfortunes: list[str],
        number: signal.Signals,
        events: int,
        milliseconds: int,
        selection: list[str],
    ) -> None:
        """Run, and kill or stop the run a while after a number of requests."""
        self.change(changes)
        self.world.misfortunes = list(misfortunes)
        self.spoilt = False
        self.go("--concurrency", "3", *selection, signalled=(number, events, milliseconds / 1000))

    @rule(old=IDS, new=IDS)
    def rename(self, old: str, new: str) -> None:
        """Give a row another id, perhaps one that another row had."""
        if old in self.rows:
            self.rows[new] = self.rows.pop(old)

    @rule(credits_=st.integers(1, 9))
    def top_up(self, credits_: int) -> None:
        """Top up the account in use."""
        self.world.feed(credits_)

    @rule()
    def switch(self) -> None:
        """Use the other account from now on."""
        self.use(next(user for user in USERS if user != self.world.user))

    @rule(number=st.integers(0, 5), how=st.sampled_from(["adopt", "--buy-again", "--abandon"]))
    def resolve(self, number: int, how: str) -> None:
        """Settle one doubt, in the right way or not."""
        found = self.items(State.IN_DOUBT)
        if found:
            self.settle(*found[number % len(found)][:3], how)

    @rule(number=st.integers(0, 5))
    def retry(self, number: int) -> None:
        """Retry an item."""
        found = self.items(State.REJECTED, State.FAILED, State.ABANDONED)
        if found:
            self.try_again(*found[number % len(found)])

    @rule(row_id=IDS)
    def retake(self, row_id: str) -> None:
        """Ask for another take of a row."""
        if self.project.has_ledger and row_id in self.rows:
            self.sound = False
            ended = self.project.batcher("retake", row_id)
            assert ended.exit_code in (0, 2), ended
            if "the next run creates and pays for it" in ended.out:
                self.consents.update(self.project.query(_BODY.format(row_id)))

    # Helpers of the rules.

    def use(self, user: str) -> None:
        """Use the account."""
        self.world.switch(user)
        self.project.environment["BATCHER_API_TOKEN"] = self.world.token

    def go(self, *arguments: str, signalled: Signalled | None = None) -> Ended:
        """Run once, and check what must always hold."""
        self.sound = False
        before = self.before()
        may_create = before.may_create(*arguments)
        refused = self.spoilt and "--skip-invalid" not in arguments
        manifest = [self.manifest()]
        if "--collect-only" in arguments and self.project.has_ledger:
            manifest, may_create, refused = [], False, False
        ended = self.end(self.project.start_run(*manifest, "--max-in-doubt", "3", *arguments), signalled)
        new = self.world.provider.creates[before.creates :]
        assert (may_create and not refused) or new == [], ended
        assert self.are_selected(new, arguments), ended
        if before.halts:
            assert_alone(new)
        if ended.exit_code >= 0:
            whole = bool(manifest) and not set(SELECTIONS).intersection(arguments)
            self.assert_told(ended, whole=whole, refused=refused)
            out_of_credits = any(create.status == 402 for create in new) or len(self.world.unfunded) > before.unfunded
            assert "credits" in self.halts() or not out_of_credits, ended
        assert ended.exit_code >= 0 or signalled is not None, ended
        return ended

    def before(self) -> Before:
        """What is so now."""
        halts = self.halts()
        topped_up = self.world.user in self.world.fed and halts == {"credits"}
        return Before(len(self.world.provider.creates), len(self.world.unfunded), halts, topped_up)

    def are_selected(self, new: Sequence[Create], arguments: Sequence[str]) -> bool:
        """Whether the creates are for rows that the options select."""
        if "--only=r0" in arguments:
            return {create.text for create in new} <= {self.rows["r0"]["text"]}
        return "--sample=3" not in arguments or len({body_of(create) for create in new}) <= 3

    def assert_told(self, ended: Ended, *, whole: bool, refused: bool) -> None:
        """Check that the exit code is a documented one and correct; `whole`: it refers to the whole manifest."""
        assert "Traceback" not in ended.err, ended
        assert "cannot write" not in ended.err, ended
        assert "could not be written" not in ended.err, ended
        assert ended.exit_code in (0, 2, 3, 4, 5, 6, 8), ended
        assert (ended.exit_code == 2) == refused, ended
        if whole and ended.exit_code == 0:
            assert self.states() <= {"done", "abandoned"}, ended

    def end(self, run: Started, signalled: Signalled | None) -> Ended:
        """Let the run end, or send it a signal a while after a number of requests."""
        timer = None if signalled is None else self.send_later(run, signalled)
        ended = run.end()
        self.world.at_event = None
        if timer is not None:
            timer.cancel()
        return ended

    def send_later(self, run: Started, signalled: Signalled) -> threading.Timer:
        """Send the run a signal a while after a number of requests."""
        number, events, seconds = signalled

        def send() -> None:
            self.world.killed_at = time.monotonic() if number is signal.SIGKILL else self.world.killed_at
            run.send(number)

        timer = threading.Timer(seconds, send)
        self.world.at_event = self.world.events + events, timer
        return timer

    def change(self, changes: Changes) -> None:
        """Edit the manifest."""
        self.rows = {row_id: row for row_id, row in (self.rows | changes).items() if row is not None}
        for row_id, row in self.rows.items():  # a blank take is the row's latest: each row's own
            self.asked_for.add((row["text"], row["voice"], row["take"] or f"the latest of {row_id}"))

    def manifest(self, project: Project | None = None) -> Path:
        """Write the manifest as it is now, in the folder of this host."""
        rows = [{"id": row_id} | row for row_id, row in self.rows.items()]
        if self.spoilt:
            rows.append({"id": "bad", "text": " ", "voice": "anna", "take": ""})
        return (project or self.project).manifest(rows)

    def states(self) -> set[str]:
        """The states in the last run's results."""
        return {result["state"] for result in self.project.results()}

    def lost(self, user: str, body: Body) -> list[str]:
        """Tasks that the account paid for and the ledger does not know."""
        known = {task_id for (task_id,) in self.project.query("SELECT task_id FROM tasks")}
        charged = self.world.charged().items()
        return [task_id for task_id, owner in charged if task_id not in known and owner == (user, body)]

    def settle(self, key: str, user: str, body: Body, how: str) -> None:
        """Settle the doubt; with nothing to adopt, it stays."""
        self.use(user)
        if how != "adopt":
            said = self.decide("resolve", key, how)
            self.consents[body] += "creates it again" in said
        elif lost := self.lost(user, body):
            self.decide("resolve", key, "--adopt", lost[0])

    def try_again(self, key: str, user: str, body: Body, state: str) -> None:
        """Retry the item."""
        self.use(user)
        said = self.decide("retry", key)
        self.consents[body] += "creates it again" in said and state != State.REJECTED

    def decide(self, command: str, key: str, *arguments: str) -> str:
        """Make a person's decision; return what was printed."""
        self.sound = False
        first = len(self.world.provider.creates)
        ended = self.project.batcher(command, key, *arguments, "--api-url", self.world.provider.url)
        assert ended.exit_code in (0, 2, 5, 8), ended
        assert "Traceback" not in ended.err, ended
        assert len(self.world.provider.creates) == first
        return ended.out

    def items(self, *states: State) -> list[tuple[str, str, Body, str]]:
        """Items in these states: key, account of the last create, body, state."""
        if not self.project.has_ledger:
            return []
        words = ", ".join(f"'{state}'" for state in states)
        found = self.project.query(f"{_ITEMS} WHERE i.state IN ({words}) ORDER BY i.key")
        return [(key, user, (text, voice), state) for key, user, text, voice, state in found]

    def halts(self) -> set[str]:
        """The kinds of open halts of the account in use."""
        if not self.project.has_ledger:
            return set()
        return {kind for kind, user in self.project.query(_HALTS) if user == self.world.user}

    # Checks of the promises.

    @invariant()
    def holds(self) -> None:
        """Check all promises about money, ledger and files."""
        self.assert_paid_once()
        if self.project.has_ledger:
            self.assert_every_charge_known()
            self.assert_files_whole()
            self.assert_ledger_sound()
        self.sound = True

    def assert_paid_once(self) -> None:
        """Check that nothing that may have been charged was sent again without a person's consent."""
        allowed = Counter((text, voice) for text, voice, _ in self.asked_for) + self.consents
        assert self.world.spent() <= allowed

    def assert_every_charge_known(self) -> None:
        """Check that each task is in the ledger with its item, or that a create of that item has no definite answer."""
        charged = self.world.charged()
        found = self.project.query(_TASKS)
        assert {task_id: (user, (text, voice)) for user, task_id, text, voice in found}.items() <= charged.items()
        known = {task_id for _, task_id, _, _ in found}
        missing = Counter(owner for task_id, owner in charged.items() if task_id not in known)
        doubts = Counter((user, (text, voice)) for user, text, voice in self.project.query(_DOUBTS))
        assert missing <= doubts

    def assert_files_whole(self) -> None:
        """Check that each done item has the right audio, unchanged, and that outputs are that audio."""
        done = {key: (text, self.project.folder / path) for key, text, path in self.project.query(_DONE)}
        assert self.saved.keys() <= done.keys()
        for key, (text, path) in done.items():
            assert path.read_bytes() == audio_of(text, "mp3")
            found = path.stat()
            assert self.saved.setdefault(key, (found.st_ino, found.st_mtime_ns)) == (found.st_ino, found.st_mtime_ns)
        for text, output in self.project.query(_OUTPUTS):
            assert (self.project.audio / output).read_bytes() == audio_of(text, "mp3")

    def assert_ledger_sound(self) -> None:
        """Check a file's integrity, and that each item reached its state by allowed transitions."""
        address: Address = self.project.ledger
        if self.project.server is None:
            assert self.project.query("PRAGMA integrity_check") == [("ok",)]
            assert self.project.query("PRAGMA foreign_key_check") == []
        else:
            address = Server(self.project.server, self.project.folder)
        now: dict[str, State] = {}
        for key, event, state in self.project.query("SELECT item_key, event, state FROM events ORDER BY id"):
            assert TRANSITIONS[now.get(key, State.PENDING), Event(event)] == state
            now[key] = State(state)
        assert_added_up(address)
        states = dict(self.project.query("SELECT key, state FROM items"))
        assert states == {key: now.get(key, State.PENDING) for key in states}

    # The end of a story.

    def teardown(self) -> None:
        """Heal the provider and bring every row to its end; name and settle what cannot get there."""
        try:
            if self.sound:
                self.world.heal()
                self.spoilt = False
                self.finish()
        finally:
            self.stack.close()
            shutil.rmtree(self.folder)

    def finish(self) -> None:
        """Run and settle until each row is done or abandoned."""
        for _ in range(5):
            self.run_until_named()
            self.holds()
            doubts = self.items(State.IN_DOUBT)
            for key, user, body, _ in doubts:
                self.settle(key, user, body, "adopt")
            for key, user, body, _ in self.items(State.IN_DOUBT):
                assert self.lost(user, body) == []
                self.settle(key, user, body, "--buy-again")
            bad = self.items(State.REJECTED, State.FAILED)
            for item in bad:
                self.try_again(*item)
            if not doubts and not bad:
                break
        assert not self.items(State.IN_DOUBT, State.REJECTED, State.FAILED)
        for result in self.project.results():
            assert result["state"] in ("done", "abandoned"), result
            assert (result["output"] is not None) == (result["state"] == "done")

    def run_until_named(self) -> None:
        """Run with each account in turn until only a person's decisions are left."""
        for user in itertools.islice(itertools.cycle(reversed(USERS)), 8):
            self.use(user)
            self.world.feed(50)
            ended = self.go("--override-halt")
            self.holds()
            if self.states() <= {"done", "abandoned", "in_doubt", "rejected", "failed"}:
                assert ended.exit_code == (0 if self.states() <= {"done", "abandoned"} else 3), ended
                return
        raise AssertionError(f"runs without any misfortune leave rows unfinished: {self.project.results()}")


class SharedStory(Story):
    """A story on a server, in which two runs can work at once on two hosts: two folders with the same audio."""

    def __init__(self, environment: dict[str, str], folder: Path, server: str | None) -> None:
        super().__init__(environment, folder, server)
        (folder / "shared").mkdir()
        self.project.audio.symlink_to(folder / "shared")
        self.other = self.project.on_another_host()
        self.other.environment = self.project.environment

    @rule(
        changes=st.one_of(CHANGES, NEW_ROWS, NEW_ROWS),
        edits=st.one_of(st.none(), st.none(), CHANGES),
        misfortunes=st.one_of(st.just([]), MISFORTUNES, MISFORTUNES),
        credits_=st.sampled_from([0, 4, 30, 30]),
        first=st.sampled_from(HOW_OF_TWO),
        second=st.sampled_from(HOW_OF_TWO),
        seconds=st.sampled_from([(0.05, 0.05), (0.05, 1.0), (0.3, 0.3), (0.3, 1.0)]),
        signalled=st.one_of(st.none(), SIGNALLED, SIGNALLED),
        which=st.integers(0, 1),
    )
    def run_two(
        self,
        changes: Changes,
        edits: Changes | None,
        misfortunes: list[str],
        credits_: int,
        first: str,
        second: str,
        seconds: tuple[float, float],
        signalled: Signalled | None,
        which: int,
    ) -> None:
        """Run both hosts at once, perhaps after a top-up, the second perhaps with further edits of the manifest, and
        perhaps signal one of them."""
        self.sound = False
        if credits_:
            self.world.feed(credits_)
        self.change(changes)
        self.world.misfortunes = list(misfortunes)
        self.pace(*seconds)
        self.world.count_open()
        before = self.before()
        works = [self.start_on(self.project, first)]
        self.change(edits or {})
        works.append(self.start_on(self.other, second))
        timer = None if signalled is None else self.send_later(works[which], signalled)
        ended = [work.end(MOST_SECONDS_OF_TWO) for work in works]
        self.world.at_event = None
        if timer is not None:
            timer.cancel()
        self.pace(0.05, 0.05)
        self.assert_shared(before, (first, second), ended, signalled is not None)
        same = edits is None and "spoilt" not in (first, second) and "--skip-invalid" not in (first, second)
        for number, (how, one) in enumerate(zip((first, second), ended, strict=True)):
            if one.exit_code >= 0:
                whole = same and how not in (*SELECTIONS, "--collect-only")
                self.assert_told(one, whole=whole, refused=how == "spoilt")
                if whole and one.exit_code == 3:
                    assert self.states() & {"in_doubt", "rejected", "failed", "gone"}, ended
            else:
                assert signalled is not None, ended
                assert number == which, ended

    def pace(self, create_seconds: float, task_seconds: float) -> None:
        """Set how long the provider takes."""
        self.world.provider.create_seconds, self.world.provider.task_seconds = create_seconds, task_seconds

    def start_on(self, project: Project, how: str) -> Started:
        """Start a run on that host with the manifest as it is now."""
        self.spoilt = how in ("spoilt", "--skip-invalid")
        manifest = [self.manifest(project)]
        if how == "--collect-only" and self.project.has_ledger:
            manifest = []
        options = [how] if how.startswith("-") else []
        return project.start_run(*manifest, "--max-in-doubt", "9", "--concurrency", "3", *options)

    def assert_shared(self, before: Before, hows: tuple[str, str], ended: list[Ended], signalled: bool) -> None:
        """Check what two runs have created together."""
        new = self.world.provider.creates[before.creates :]
        creating = [how for how in hows if how not in ("spoilt", "--collect-only")]
        assert (creating and before.may_create(*hows)) or new == [], ended
        if "--no-wait" not in hows:
            assert self.world.most_open <= 3, ended
        if all(one.exit_code >= 0 for one in ended):
            assert self.project.query(_UNFINISHED) == [], ended
        if signalled:
            return
        if before.halts:
            assert_alone(new)
        out_of_credits = any(create.status == 402 for create in new)
        if "--override-halt" not in hows and not before.topped_up:
            out_of_credits |= len(self.world.unfunded) > before.unfunded
        assert "credits" in self.halts() or not out_of_credits, ended


def assert_alone(new: Sequence[Create]) -> None:
    """Check that the first of the creates, a probe, was answered before the next one."""
    assert len(new) < 2 or (new[0].answered_at or 0) <= new[1].arrived_at, "a probe goes alone"


_BODY: Final = (
    "SELECT i.text, i.voice FROM rows r JOIN items i ON i.key = r.item_key WHERE r.is_current = 1 AND r.id = '{}'"
)
_UNFINISHED: Final = (
    "SELECT key FROM items WHERE state = 'submitting' UNION ALL SELECT id FROM runs WHERE ended_at IS NULL"
)
_ITEMS: Final = (
    "SELECT i.key, u.user_id, i.text, i.voice, i.state FROM items i"
    " JOIN attempts a ON a.item_key = i.key AND a.attempt = i.attempt JOIN accounts u ON u.id = a.account_id"
)
_HALTS: Final = "SELECT kind, user_id FROM halts h JOIN accounts a ON a.id = h.account_id WHERE closed_at IS NULL"
_TASKS: Final = (
    "SELECT u.user_id, t.task_id, i.text, i.voice FROM tasks t"
    " JOIN items i ON i.key = t.item_key JOIN accounts u ON u.id = t.account_id"
)
_DOUBTS: Final = (
    "SELECT u.user_id, i.text, i.voice FROM attempts a JOIN items i ON i.key = a.item_key"
    " JOIN accounts u ON u.id = a.account_id WHERE coalesce(a.outcome, 'lost') = 'lost'"
)
_DONE: Final = (
    "SELECT i.key, i.text, f.out_dir || '/' || f.path FROM items i JOIN files f ON f.item_key = i.key"
    " WHERE i.state = 'done'"
)
_OUTPUTS: Final = (
    "SELECT i.text, r.output FROM rows r JOIN batches b ON b.id = r.batch_id AND r.is_current = 1"
    " JOIN items i ON i.key = r.item_key WHERE r.linked_key = r.item_key AND r.linked_output = r.output"
)


def live_through(project: Project, story: type[Story], many: settings, server: str | None = None) -> None:
    """Run this many stories, each in its own folder and with its own provider and ledger."""
    numbers = itertools.count(1)

    class Here(story):  # type: ignore[valid-type, misc]
        def __init__(self) -> None:
            super().__init__(project.environment, project.folder.with_name(f"story-{next(numbers)}"), server)

    run_state_machine_as_test(Here, settings=many)


FEW = settings(
    max_examples=2,
    stateful_step_count=8,
    phases=[Phase.generate],  # a story takes too long to be shrunk
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
MANY = settings(FEW, max_examples=60, stateful_step_count=25, derandomize=False, phases=[Phase.generate, Phase.shrink])


def test_the_promises_hold_in_any_order(project: Project) -> None:
    """A few stories, the same every time."""
    live_through(project, Story, FEW)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_the_promises_hold_in_many_long_stories(project: Project) -> None:
    """New ones every time."""
    live_through(project, Story, MANY)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_promises_hold_in_any_order_on_a_server(project: Project, postgres_url: str) -> None:
    """A few stories, the same every time, in which two runs can work at once."""
    live_through(project, SharedStory, FEW, postgres_url)


@pytest.mark.slow
@pytest.mark.timeout(14400)
def test_the_promises_hold_in_many_long_stories_on_a_server(project: Project, postgres_url: str) -> None:
    """New ones every time."""
    live_through(project, SharedStory, MANY, postgres_url)
