"""Decisions about items from their names to the outcomes: finds the items, takes the owner's lock, carries them out.

The commands and `batcher.open` call these functions.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio.to_thread

from batcher.clock import Clock
from batcher.errors import UsageError
from batcher.item import State
from batcher.ledger.ledger import open_locked, open_readonly
from batcher.ledger.queries import names
from batcher.maintenance.decisions import ENDED_BADLY, SETTLED_BY_RETRY, Decisions, Outcome
from batcher.maintenance.doubts import Doubt, find_doubts
from batcher.settings import Settings

_DECISIONS = "--adopt, --buy-again and --abandon"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The items that a decision is about: those named by `ids`, in one of `states`, and of `batch`.

    An id is a row's, or the beginning of an item's key. None, and no states, stand for all that are permitted.
    """

    ids: Sequence[str] | None = None
    states: Sequence[State] = ()
    batch: str | None = None


async def retry(settings: Settings, choice: Choice) -> list[Outcome]:
    """Let the next run create items again that were rejected, failed, gone or abandoned, and pay for them.

    If an item has a task, the API is asked about it first; one that succeeded after all is collected instead.

    Raises:
        UsageError: no item matches, or a name matches nothing.
        LockedError: a run holds the ledger.
        CredentialsError: the token is rejected, or belongs to another account than a task.
        TroubleError: a task cannot be read; its item was not changed.
    """
    hint = "`batcher show` lists items by state."
    keys = await anyio.to_thread.run_sync(_find, settings, choice, "retry", SETTLED_BY_RETRY, hint)
    async with _deciding(settings) as decisions:
        return await decisions.retry(keys)


async def abandon(settings: Settings, choice: Choice) -> list[Outcome]:
    """Give up items that were rejected, failed or are gone.

    Raises:
        UsageError: no item matches, or a name matches nothing.
        LockedError: a run holds the ledger.
    """
    hint = "`batcher show` lists items by state; `batcher resolve --abandon` gives up one in doubt."
    keys = await anyio.to_thread.run_sync(_find, settings, choice, "abandon", ENDED_BADLY, hint)
    async with _deciding(settings) as decisions:
        return await decisions.abandon(keys, "abandoned; `batcher retry` takes it up again")


async def doubts(settings: Settings, ids: Sequence[str] | None = None) -> list[Doubt]:
    """The items in doubt, all or those named, with the evidence.

    Raises:
        UsageError: a name matches nothing, or none of the named items is in doubt.
    """
    return await anyio.to_thread.run_sync(_find_doubts, settings, ids)


async def resolve(
    settings: Settings,
    ids: Sequence[str] | None,
    *,
    adopt: str | None = None,
    buy_again: bool = False,
    abandon: bool = False,
    everything: bool = False,
) -> list[Outcome]:
    """Settle items in doubt, named or `everything`, by exactly one decision.

    `adopt` assigns this task to the only item, after checking it with the API. `buy_again` lets the next run create
    the items again, which may cost twice. `abandon` gives them up.

    Raises:
        UsageError: the decision is missing or unclear, or none of the named items is in doubt.
        LockedError: a run holds the ledger.
        CredentialsError: the token is rejected, or belongs to another account than the item's.
        TroubleError: the task cannot be read; nothing was changed.
    """
    if sum((adopt is not None, buy_again, abandon)) != 1:
        raise UsageError(f"choose one of {_DECISIONS}")
    if ids is None and (adopt is not None or not everything):
        raise UsageError("name items by ID" + ("" if adopt is not None else ", or pass --all"))
    keys = [doubt.key for doubt in await doubts(settings, ids)]
    if adopt is not None and len(keys) != 1:
        raise UsageError(f"--adopt needs exactly one item in doubt, not {len(keys):,}")
    async with _deciding(settings) as decisions:
        if adopt is not None:
            return await decisions.adopt(keys[0], adopt)
        return await (decisions.buy_again(keys) if buy_again else decisions.abandon(keys, "abandoned"))


@asynccontextmanager
async def _deciding(settings: Settings) -> AsyncIterator[Decisions]:
    clock = Clock()
    with open_locked(settings.ledger, settings.world) as ledger:
        clock.ahead_seconds = await ledger.ahead_seconds()
        yield Decisions(ledger=ledger, settings=settings, clock=clock)


def _find(settings: Settings, choice: Choice, verb: str, permitted: Sequence[State], hint: str) -> list[str]:
    """The keys of the chosen items that are in a permitted state. `verb` and `hint` are for the error without any."""
    if choice.ids is None and not choice.states:
        raise UsageError("name items by ID, or pass --state")
    ids = _need_names(choice.ids)
    with open_readonly(settings.ledger, settings.world) as conn:
        if choice.batch is not None:
            names.need_rows(conn, ids, batch=choice.batch)
        states = [state for state in permitted if not choice.states or state in choice.states]
        keys = names.find_keys(conn, ids, states=states, batch=choice.batch)
    if not keys:
        raise UsageError(f"nothing to {verb}: no matching item is {' or '.join(choice.states or permitted)}", hint)
    return keys


def _find_doubts(settings: Settings, ids: Sequence[str] | None) -> list[Doubt]:
    with open_readonly(settings.ledger, settings.world) as conn:
        keys = names.find_keys(conn, _need_names(ids), states=[State.IN_DOUBT])
        if ids is not None and not keys:
            raise UsageError("none of these items is in doubt", "`batcher show` lists items by state.")
        return find_doubts(conn, keys)


def _need_names(ids: Sequence[str] | None) -> Sequence[str]:
    """The names; none for None. An empty list is an error: whoever computed it would decide about everything."""
    if ids is not None and not ids:
        raise UsageError("name at least one item, or pass None for all")
    return ids or ()
