"""A person's decisions about items: settling doubts, and retrying what ended badly.

If an item has a task, that is read before the item may be created again: if it succeeded after all, it is collected.
"""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from batcher.clock import Clock, local
from batcher.errors import CredentialsError, TroubleError, UsageError
from batcher.item import State
from batcher.ledger.ledger import Ledger
from batcher.ledger.lifecycle import decisions
from batcher.ledger.money.evidence import evidence
from batcher.pipeline.connection import known_account, reach, token_rejected
from batcher.provider.answers import Answer, Cause, Phase, Task
from batcher.provider.client import Client
from batcher.settings import Settings

ENDED_BADLY = (State.REJECTED, State.FAILED, State.GONE)
"""States that `abandon` applies to."""
HOST_GRACE_SECONDS: Final = 120.0
"""A create may leave this long after its run has lost its session with a server: as long as a stopped host has a lease,
and a request has to be answered."""
SETTLED_BY_RETRY = (*ENDED_BADLY, State.ABANDONED)
"""States that `retry` applies to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Outcome of a decision for an item: whether it `changed`, its `state` now, and a `message` about it."""

    key: str
    changed: bool
    state: State
    message: str

    def line(self) -> str:
        """The outcome on one line."""
        return f"{self.key[:16]}  {self.message}"


@dataclass(kw_only=True)
class Decisions:
    """Carries out a person's decisions in one ledger. Each method returns the outcome for each item."""

    ledger: Ledger
    settings: Settings
    clock: Clock

    async def buy_again(self, keys: Sequence[str]) -> list[Outcome]:
        """Allow items in doubt to be created again; each may cost twice.

        Not yet those whose run has just lost its session with a server: its host may still send them.
        """
        return [await self._buy_again(key) for key in keys]

    async def _buy_again(self, key: str) -> Outcome:
        case = await self._case(key)
        safe_at = (case.answered_at or 0.0) + HOST_GRACE_SECONDS
        may_be_sent = self.ledger.is_shared and case.cause == "vanished" and self.clock.now() < safe_at
        if may_be_sent and not _is_dead_here(case):
            return _skipped(case, f"may still be sent by {case.host}; try again after {local(safe_at)}")
        message = "the next run creates it again; it may cost twice"
        return await self._settle(key, decisions.buy_again, State.PENDING, message)

    async def abandon(self, keys: Sequence[str], message: str) -> list[Outcome]:
        """Give up items that are in doubt or ended badly. `message` is what to report for each."""
        return [await self._settle(key, decisions.abandon, State.ABANDONED, message) for key in keys]

    async def adopt(self, key: str, task_id: str) -> list[Outcome]:
        """Assign an existing task of the account that sent the item's create to the item.

        Raises:
            UsageError: the account has no such task, or it belongs to another item.
        """
        case = await self._case(key)
        async with self._account(case) as (client, account_id):
            answer = await client.read(task_id)
            if answer.cause is Cause.NOT_FOUND:
                raise UsageError(f"this account has no task {task_id}: {answer.explain()}", "Check the task's id.")
            _need_task(answer)
            owner = await self.ledger.do(decisions.task_owner, account_id, task_id)
            if owner not in (None, key):
                raise UsageError(
                    f"task {task_id} belongs to another item ({owner[:16]})", f"`batcher show {owner[:16]}` shows it."
                )
            adopted = await self._adopt(case, account_id, task_id)
        if adopted:
            return [_moved(key, State.SUBMITTED, "adopted; the next run collects it")]
        return [_skipped(await self._case(key), "has changed meanwhile; skipped")]

    async def retry(self, keys: Sequence[str]) -> list[Outcome]:
        """Allow items that ended badly to be created again, after reading their tasks once more."""
        return [await self._retry(await self._case(key)) for key in keys]

    async def _settle(self, key: str, decision: Any, state: State, message: str) -> Outcome:
        """Apply a decision of `ledger.lifecycle.decisions`, which leads to `state`."""
        case = await self._case(key)
        moved = await self.ledger.do(decision, key, case.attempt, at=self.clock.now(), who=person())
        return _moved(key, state, message) if moved else _skipped(case, f"is {case.state}; skipped")

    async def _retry(self, case: Any) -> Outcome:
        if case.task_id is not None and (succeeded := await self._adopt_unless_failed(case)) is not None:
            return succeeded
        at, who = self.clock.now(), person()
        if not await self.ledger.do(decisions.retry, case.key, case.attempt, at=at, who=who):
            return _skipped(case, f"is {case.state}; skipped")
        message = "the next run creates it again and pays for it"
        if case.state == State.ABANDONED and case.outcome == "lost":
            message = "the next run creates it again; it may have been bought before, and cost twice"
        return _moved(case.key, State.PENDING, message)

    async def _adopt_unless_failed(self, case: Any) -> Outcome | None:
        """Read the item's task, and adopt it unless it has failed or is gone. Returns the outcome if it was adopted."""
        async with self._account(case) as (client, account_id):
            answer = await client.read(case.task_id)
            if answer.cause is Cause.NOT_FOUND or (task := _need_task(answer)).phase is Phase.FAILED:
                return None
            await self._adopt(case, account_id, case.task_id)
            return _moved(case.key, State.SUBMITTED, f"its task is {task.word} after all; the next run collects it")

    async def _adopt(self, case: Any, account_id: int, task_id: str) -> bool:
        return await self.ledger.do(
            decisions.adopt,
            case.key,
            case.attempt,
            account_id=account_id,
            task_id=task_id,
            at=self.clock.now(),
            who=person(),
        )

    async def _case(self, key: str) -> Any:
        return (await self.ledger.do(evidence, [key]))[0]

    @asynccontextmanager
    async def _account(self, case: Any) -> AsyncIterator[tuple[Client, int]]:
        """A client for the account that sent the item's create, and the account's number.

        Raises:
            UsageError: the account is at another origin, which must not receive the token.
            CredentialsError: the token is refused or belongs to another account.
            TroubleError: the profile cannot be read.
        """
        with reach(self.settings) as (endpoint, origin):
            if case.origin != origin:
                raise UsageError(
                    f"the item belongs to an account at {case.origin}, not {origin}", "Pass its --api-url."
                )
            async with Client(endpoint, create_connections=1) as client:
                account_id = await known_account(client, self.ledger, origin)
                if account_id is None or account_id != case.attempt_account_id:
                    raise CredentialsError(
                        f"the item belongs to the account {case.user_id} at {case.origin}",
                        "Use a token of that account.",
                    )
                yield client, account_id


def _is_dead_here(case: Any) -> bool:
    """Whether the run that sent the item's create was a process of this host, which has no such process any more."""
    if case.host != socket.gethostname():
        return False
    try:
        os.kill(case.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # another account's
        return False
    return False


def _need_task(answer: Answer) -> Task:
    if answer.cause is Cause.CREDENTIALS:
        raise token_rejected(answer)
    if answer.task is None:
        raise TroubleError(f"cannot read the task: {answer.explain()}", "Nothing was changed. Try again later.")
    return answer.task


def _moved(key: str, state: State, message: str) -> Outcome:
    return Outcome(key=key, changed=True, state=state, message=message)


def _skipped(case: Any, message: str) -> Outcome:
    return Outcome(key=case.key, changed=False, state=State(case.state), message=message)


def person() -> str:
    """The user running this process, for the item's history: the login name, or else the uid."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # KeyError before Python 3.13, OSError since
        return f"uid {os.getuid()}"
