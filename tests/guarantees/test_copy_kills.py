"""`batcher ledger copy` is killed at each step, both ways: never two usable ledgers, and repeated it finishes."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from batcher.address import Address, Server, option_of
from batcher.errors import BatcherError
from batcher.ledger.storage import database, moving
from tests.support import postgres, processes
from tests.support.fake_tts import FakeTTS
from tests.support.history import History
from tests.support.ledger_kit import book_in, content

if TYPE_CHECKING:
    from tests.conftest import Project

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]
TO_SERVER, TO_FILE = "to a server", "to a file"
_PUBLISH: Final = "after os:replace"
"""A file gets its name, without which there is no ledger at the target."""
_DIALECT: Final = "sqlalchemy.engine.default:DefaultDialect"
_EVERY: Final = 11
"""Which statements the command is killed at: every first would take minutes."""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger in a file, with a history."""
    with book_in(tmp_path_factory.mktemp("original")) as book:
        history = History(book, 7)
        for _ in range(60):
            history.step()
        return book.path


@contextmanager
def moves(direction: str, original: Path, url: str, folder: Path) -> Iterator[Iterator[tuple[Address, Address]]]:
    """Sources like the original, each with a target where there is no ledger."""
    with ExitStack() as stack:
        template = ""
        if direction == TO_FILE:
            template_url = stack.enter_context(postgres.database_of(url))
            copied = Path(shutil.copy2(original, folder / "template.db"))
            moving.move(copied, Server(template_url, folder))
            template = template_url.partition("?")[0].rpartition("/")[2]
        yield _moves(template, original, url, folder)


def _moves(template: str, original: Path, url: str, folder: Path) -> Iterator[tuple[Address, Address]]:
    for n in itertools.count():
        here = folder / f"{n}"
        here.mkdir()
        if template:
            with postgres.database_of(url, template=template) as source:
                yield Server(source, here), here / "batcher.db"
        else:
            with postgres.database_of(url) as target:
                yield Path(shutil.copy2(original, here / "batcher.db")), Server(target, here)


def is_usable(address: Address) -> bool:
    """Whether a run would accept the ledger."""
    try:
        if not database.exists(address):
            return False
        database.open_existing(address).dispose()
    except BatcherError:
        return False
    return True


@pytest.mark.parametrize("direction", [TO_SERVER, TO_FILE])
@pytest.mark.parametrize(
    ("step", "every"),
    [
        (f"before {_DIALECT}.do_commit", 1),
        (f"after {_DIALECT}.do_commit", 1),
        (f"before {_DIALECT}.do_execute", _EVERY),
        (f"before {_DIALECT}.do_executemany", _EVERY),
        (_PUBLISH, 1),
    ],
)
def test_a_killed_copy_never_leaves_two_ledgers_and_is_finished_when_repeated(
    original: Path, postgres_url: str, tmp_path: Path, direction: str, step: str, every: int
) -> None:
    """Nothing of the source is missing at the target then, and no run accepts the source."""
    before, kills = content(original), 0
    with moves(direction, original, postgres_url, tmp_path) as each:
        for n, (source, target) in zip(itertools.count(1, every), each, strict=False):
            copy = ["ledger", "copy", option_of(source), option_of(target)]
            ended = processes.struck(f"{step} {n}", copy, target_folder(source, target), dict(os.environ))
            if ended.exit_code == 0:  # it has fewer such steps
                break
            assert ended.exit_code == -signal.SIGKILL, ended
            kills += 1
            assert not (is_usable(source) and is_usable(target))
            moving.move(source, target)
            assert (is_usable(source), is_usable(target)) == (False, True)
            assert content(target) == before
    assert kills or (direction, step) == (TO_SERVER, _PUBLISH)


def target_folder(source: Address, target: Address) -> Path:
    """The folder of the file of the two."""
    return next(one.parent for one in (source, target) if isinstance(one, Path))


def test_after_a_killed_copy_a_run_does_not_begin_anew_at_the_target(
    project: Project, provider: FakeTTS, postgres_url: str
) -> None:
    """The target has no ledger yet, but the audio names the one that bought it."""
    manifest = project.manifest(2)
    assert project.run(manifest).exit_code == 0
    with postgres.database_of(postgres_url) as url:
        copy = ["ledger", "copy", str(project.ledger), url]
        processes.killed("before batcher.ledger.storage.moving:_copy 1", copy, project.folder, project.environment)
        assert project.run(manifest, "--ledger", url).exit_code == 2
        assert "was moved to" in project.run(manifest).err
    assert len(provider.creates) == 2
