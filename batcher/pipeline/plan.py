"""What a run would do and cost. Only reads the ledger, and asks the API for nothing but the balance."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import anyio

from batcher.audio.store import Store
from batcher.clock import Clock
from batcher.errors import CredentialsError, ManifestError
from batcher.item import NEEDS_ATTENTION, OPEN, State
from batcher.ledger.imports import importer
from batcher.ledger.imports.preview import ImportPreview
from batcher.ledger.ledger import Connection, open_readonly
from batcher.ledger.money.prices import Prices, prices
from batcher.ledger.storage import database
from batcher.manifest.reader import Manifest
from batcher.pipeline.connection import reach
from batcher.pipeline.restore import why_outdated
from batcher.provider.answers import Cause, ProfileAnswer
from batcher.provider.client import Client
from batcher.settings import Settings


@dataclass(kw_only=True)
class Plan:
    """What the manifests come to. Its fields are the keys of `plan --json`; None stands for unknown."""

    schema: int = 1
    batches: list[str] = field(default_factory=list)
    rows: int = 0
    items: int = 0
    shared: int = 0  # rows whose item another row has too
    new: int = 0  # items that would be created
    done: int = 0
    in_flight: int = 0
    need_person: int = 0
    skipped: int = 0
    changed: dict[str, list[str]] = field(default_factory=dict)  # by field: ids of rows that changed it
    faults: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)  # batches that faults keep uncounted, and the way out
    rebuy: str | None = None  # why --rebuy would be wanted
    outdated: str | None = None  # why --restored would be wanted
    columns_sent: dict[str, str] = field(default_factory=dict)
    columns_carried: list[str] = field(default_factory=list)
    characters: int = 0
    estimate: dict[str, float] | None = None  # credits, low, high
    balance: float | None = None
    balance_unknown: str | None = None  # why, where one was asked for
    suffices: bool | None = None
    stops_after: int | None = None  # items that the balance pays for, if not all


def plan(settings: Settings) -> Plan:
    """Find out what a run with these settings would do. Creates nothing and makes no ledger.

    Raises:
        LedgerError: there is a ledger that cannot be used.
        UsageError: a setting cannot be used.
    """
    balance, unknown = anyio.run(_balance, settings)
    found = foresee(settings, balance)
    found.balance_unknown = unknown
    return found


def foresee(settings: Settings, balance: float | None = None) -> Plan:
    """The same for an account that has this balance, without asking the API for anything.

    Raises:
        LedgerError: there is a ledger that cannot be used.
    """
    with _ledger(settings) as path, open_readonly(path, settings.world) as conn:
        return _Planning(settings, ImportPreview(conn), balance).run(conn)


@contextmanager
def _ledger(settings: Settings) -> Iterator[Path]:
    """The ledger's path, or that of an empty one, which is thrown away, where there is none yet."""
    if settings.ledger.exists():
        yield settings.ledger
        return
    with tempfile.TemporaryDirectory(prefix="batcher-plan-") as folder:
        empty = Path(folder) / settings.ledger.name
        database.create(empty, settings.world)
        yield empty


class _Planning:
    def __init__(self, settings: Settings, foresight: ImportPreview, balance: float | None) -> None:
        self._settings = settings
        self._foresight = foresight
        self._plan = Plan(balance=balance)
        self._store = Store(settings.ledger.parent, settings.out_dir)

    def run(self, conn: Connection) -> Plan:
        self._plan.outdated = why_outdated(conn, self._settings)
        self._take_in(conn)
        self._count(conn)
        return self._plan

    def _take_in(self, conn: Connection) -> None:
        for source in self._settings.sources:
            rules = replace(source.rules, takes=importer.latest_takes(conn, source.rules.batch))
            manifest = Manifest(source.path, rules)
            self._plan.batches.append(rules.batch)
            try:
                out_dir, at = self._store.out_dir, Clock().now()
                changed, rebuy = self._foresight.add(manifest, rules, out_dir=out_dir, at=at)
            except ManifestError as error:
                self._plan.faults += error.faults
                self._plan.refused[rules.batch] = error.hint
                continue
            self._plan.faults += manifest.faults.lines()
            self._plan.rebuy = self._plan.rebuy or rebuy
            for name, ids in changed.items():
                self._plan.changed.setdefault(name, []).extend(ids)
            self._plan.columns_sent |= manifest.columns_sent
            self._plan.columns_carried += manifest.columns_carried

    def _count(self, conn: Connection) -> None:
        (found, to_buy), plan = self._foresight.counts(), self._plan
        plan.rows, plan.items = found.rows, found.items
        plan.skipped = found.invalid + found.empty
        plan.shared = found.rows - plan.skipped - found.items
        plan.new, plan.done = found.states[State.PENDING], found.states[State.DONE]
        plan.in_flight = sum(found.states[state] for state in (*OPEN, State.RENDERED))
        plan.need_person = sum(found.states[state] for state in NEEDS_ATTENTION)
        plan.characters = sum(characters for _, _, characters in to_buy)
        known = prices(conn)
        estimate = known.estimate((model, size) for model, size, _ in to_buy)
        if estimate is None:
            return
        plan.estimate = {"credits": estimate.credits, "low": estimate.low, "high": estimate.high}
        if plan.balance is not None and not plan.refused:
            plan.suffices = plan.balance >= estimate.credits
            if not plan.suffices:
                plan.stops_after = _affordable(known, self._foresight.sizes_to_buy(), plan.balance)


async def _balance(settings: Settings) -> tuple[float | None, str | None]:
    """What the account has, and why that is not known; of a sandbox that is new neither is."""
    if settings.sandbox and not settings.ledger.exists():
        return None, None
    try:
        with reach(settings) as (endpoint, _):
            async with Client(endpoint, create_connections=1) as client:
                answer = await client.profile()
    except CredentialsError as error:
        return None, error.message
    if answer.profile is None:
        return None, _why_unknown(answer)
    balance = answer.profile.balance
    return balance, "the profile does not say it" if balance is None else None


def _why_unknown(answer: ProfileAnswer) -> str:
    said = answer.explain()
    if answer.cause is Cause.CREDENTIALS:
        return f"the API refused the token: {said}"
    if answer.cause is Cause.WRONG_HOST:
        return f"something other than the API answers: {said}"
    return f"the API gives no profile: {said}"


def _affordable(known: Prices, sizes: Iterable[tuple[str | None, int]], balance: float) -> int:
    number, spent = 0, 0.0
    for size in sizes:
        one = known.estimate([size])
        spent += 0.0 if one is None else one.credits
        if spent > balance:
            break
        number += 1
    return number
