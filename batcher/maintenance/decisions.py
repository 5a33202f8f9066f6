"""What a person decides about items: how a doubt is settled, what is tried again.

A task is always read before its item may be created anew: if it ended well after all, it is collected instead.
"""

from __future__ import annotations

import getpass
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from batcher.clock import Clock
from batcher.errors import CredentialsError, TroubleError, UsageError
from batcher.item import State
from batcher.ledger.ledger import Ledger
from batcher.ledger.lifecycle import decisions
from batcher.ledger.money.evidence import evidence
from batcher.pipeline.connection import known_account, reach
from batcher.provider.answers import Answer, Cause, Phase
from batcher.provider.client import Client
from batcher.settings import Settings


@dataclass(kw_only=True)
class Decisions:
    """Carries out a person's decisions in one ledger. Each returns a line per item that says what became of it."""

    ledger: Ledger
    settings: Settings
    clock: Clock

    async def buy_again(self, keys: Sequence[str]) -> list[str]:
        """Let items in doubt be created again: each may cost twice."""
        return await self._each(keys, decisions.buy_again, "will be created again by the next run; it may cost twice")

    async def abandon(self, keys: Sequence[str]) -> list[str]:
        """Give items in doubt up."""
        return await self._each(keys, decisions.abandon, "abandoned")

    async def adopt(self, key: str, task_id: str) -> list[str]:
        """Give the item in doubt a task that the API knows under the account that sent its create.

        Raises:
            UsageError: the API does not know the task, or another item has it.
        """
        case = await self._case(key)
        async with self._account(case) as (client, account_id):
            answer = await client.read(task_id)
            if answer.cause is Cause.NOT_FOUND:
                raise UsageError(f"the API does not know a task {task_id} for this account", answer.explain())
            _need_task(answer)
            owner = await self.ledger.do(decisions.task_owner, account_id, task_id)
            if owner not in (None, key):
                raise UsageError(
                    f"task {task_id} belongs to another item ({owner[:16]})", "`batcher show` tells which."
                )
            adopted = await self._adopt(case, account_id, task_id)
        return [_line(key, "adopted: the next run collects it" if adopted else "changed meanwhile: left alone")]

    async def retry(self, keys: Sequence[str]) -> list[str]:
        """Have items that ended badly created again, after another look at their tasks."""
        return [_line(key, await self._retry(await self._case(key))) for key in keys]

    async def _retry(self, case: Any) -> str:
        if case.task_id is not None:
            async with self._account(case) as (client, account_id):
                answer = await client.read(case.task_id)
                if answer.cause is not Cause.NOT_FOUND:
                    task = _need_task(answer)
                    if task.phase is not Phase.FAILED:
                        await self._adopt(case, account_id, case.task_id)
                        return f"its task says {task.word} after all: the next run collects it"
        at, who = self.clock.now(), person()
        if await self.ledger.do(decisions.retry, case.key, case.attempt, at=at, who=who):
            if case.state == State.ABANDONED:
                return "will be created again by the next run; it may have been bought before, and cost twice"
            return "will be created again by the next run, and paid for"
        return f"is {case.state}: left alone"

    async def _each(self, keys: Sequence[str], verb: Any, words: str) -> list[str]:
        lines = []
        for key in keys:
            case = await self._case(key)
            moved = await self.ledger.do(verb, key, case.attempt, at=self.clock.now(), who=person())
            lines.append(_line(key, words if moved else f"is {case.state}: left alone"))
        return lines

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
        """A client for the account that the item's create was sent with.

        Raises:
            UsageError: the account is at another address: the token must not go here.
            CredentialsError: the token is another account's, or refused.
            TroubleError: the profile cannot be had.
        """
        with reach(self.settings) as (endpoint, origin):
            if case.origin != origin:
                raise UsageError(
                    f"the item belongs to an account at {case.origin}, not {origin}", "Pass its --api-url."
                )
            async with Client(endpoint, create_connections=1) as client:
                found = await known_account(client, self.ledger, origin)
                if found is None or found != case.attempt_account_id:
                    raise CredentialsError(
                        f"the task belongs to the account {case.user_id} at {case.origin}",
                        "Use a token of that account.",
                    )
                yield client, found


def _need_task(answer: Answer) -> Any:
    if answer.cause is Cause.CREDENTIALS:
        raise CredentialsError(f"the API refused the token: {answer.explain()}")
    if answer.task is None:
        raise TroubleError(f"the task could not be read: {answer.explain()}", "Nothing was changed; try again later.")
    return answer.task


def _line(key: str, words: str) -> str:
    return f"{key[:16]}  {words}"


SETTLED_BY_RETRY = (State.REJECTED, State.FAILED, State.GONE, State.ABANDONED)
"""States that `retry` is for."""


def person() -> str:
    """The user that this process belongs to, as an item's history names them: the login name, or else the uid."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # before Python 3.13, and since
        return f"uid {os.getuid()}"
