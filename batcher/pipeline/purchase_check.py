"""Checks the voices, models and parameters of the items to be created, so that nothing is bought by mistake.

A voice that does not exist is a fault of its rows, like those of the manifest. Everything less certain is a warning.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from batcher.formatting import amount, counted
from batcher.ledger.imports import unknown_voices
from batcher.ledger.ledger import Connection
from batcher.ledger.lifecycle import runs
from batcher.ledger.money.prices import Prices, prices
from batcher.ledger.queries.purchases import lines_with
from batcher.ledger.records import Batch, Purchase
from batcher.ledger.storage import cached_facts
from batcher.ledger.storage.filters import numbers_of
from batcher.manifest.faults import Faults, literal
from batcher.pipeline.catalogue import CACHE_SECONDS, Catalogue, Verdict
from batcher.pipeline.context import RunContext
from batcher.pipeline.ingest import Ingest
from batcher.provider.model_rules import JUDGED, ignored_parameters

if TYPE_CHECKING:
    from batcher.provider.client import Client

CACHE: Final = "catalogue"
"""Name of the learned value with what was read of the API's catalogue."""
_SHOWN: Final = "purchase warnings"
"""Name of the learned value with the lines that the latest check printed."""


async def check_purchases(ctx: RunContext, client: Client, account_id: int, ingest: Ingest) -> None:
    """Check what this run is about to buy: refuse or skip rows with an unknown voice, and print warnings.

    Unchanged manifests are checked once a day; selected rows are checked in each run, unless their manifests are.
    """
    if not ingest.wanted or ctx.stop.creating or await ctx.ledger.do(_is_checked, ingest, ctx.clock.now()):
        return
    found = await ctx.ledger.do(ingest.selection.purchases, ingest.wanted)
    if not found:
        return
    catalogue = Catalogue(client, ctx.clock, await ctx.ledger.do(runs.learned_value, account_id, CACHE))
    verdict = Verdict()
    with ctx.stop.scope("creating"):
        verdict = await catalogue.check({one.voice for one in found})
    await ctx.ledger.do(runs.save_learned_value, account_id, CACHE, catalogue.cached, at=ctx.clock.now())
    known = None if ctx.settings.sandbox else await ctx.ledger.do(prices)
    lines = warnings(found, verdict, known)
    if verdict.unknown:
        lines += await _reject(ctx, ingest, verdict)
    elif verdict.is_whole and not ingest.selection.is_limited:
        await ctx.ledger.do(_note_checked, ingest, ctx.clock.now())
    await _show(ctx, account_id, lines)


async def _show(ctx: RunContext, account_id: int, lines: list[str]) -> None:
    """Print the lines. A quiet run prints only those that the check before it did not print."""
    shown = await ctx.ledger.do(runs.learned_value, account_id, _SHOWN) or []
    for line in lines:
        (ctx.progress.say if line in shown else ctx.progress.warn)(line)
    if lines != shown:
        await ctx.ledger.do(runs.save_learned_value, account_id, _SHOWN, lines, at=ctx.clock.now())


async def _reject(ctx: RunContext, ingest: Ingest, verdict: Verdict) -> list[str]:
    """Treat rows with an unknown voice as invalid: skip them, or refuse to create anything.

    Returns the lines about the skipped rows.
    """
    lines: list[str] = []
    sources = {source.rules.batch: source for source in ctx.settings.sources}
    for batch in list(ingest.wanted):
        faults = Faults(sources[batch.name].label)
        for _, line, voice in await ctx.ledger.do(_lines, batch, sorted(verdict.unknown)):
            add_fault(faults, line, voice)
        if not faults:
            continue
        if sources[batch.name].rules.skip_invalid:
            lines += [f"skipped: {text}" for text in faults.lines()]
            await ctx.ledger.do(unknown_voices.skip_rows, batch, sorted(verdict.unknown), why)
        else:
            message = f"{faults.name}: {counted(faults.count, 'row')} with an unknown voice; nothing was created"
            ingest.refuse(message, faults.lines(), fix_voices(sandbox=ctx.settings.sandbox))
    return lines


def fix_voices(*, sandbox: bool) -> str:
    """What to do about rows with unknown voices."""
    command = f"batcher voices{' --sandbox' * sandbox}"
    return (
        "Fix them, or pass --skip-invalid to continue with the other rows. "
        f"`{command}` lists voices; to give them names of your own, see [voices] in `batcher help settings`."
    )


def add_fault(faults: Faults, line: int, voice: str) -> None:
    """Add the fault of a row with an unknown voice."""
    faults.add(line, "voice", why(voice), cause=f"voice {voice}")


def why(voice: str) -> str:
    """Why a row with this unknown voice is invalid."""
    return f"the API has no voice {literal(voice)}: use the id of another one"


def warnings(found: Sequence[Purchase], verdict: Verdict, known: Prices | None) -> list[str]:
    """What may be bought by mistake, with the number of rows and the cost, one line for each cause.

    `known` are the prices; None if costs are not to be estimated.
    """
    causes: dict[str, list[Purchase]] = {}
    for one in found:
        for cause in _causes(one, verdict):
            causes.setdefault(cause, []).append(one)
    return [f"warning: {cause} ({_extent(of_cause, known)})" for cause, of_cause in causes.items()]


def _causes(one: Purchase, verdict: Verdict) -> Iterator[str]:
    model = verdict.models.get(one.model or "")
    if one.voice in verdict.unlisted:
        yield f"voice {literal(one.voice)} is not in the API's list of voices; `batcher voices` shows it"
    if one.model is not None and verdict.models and model is None:
        yield f"model {literal(one.model)} is not among the API's models: {', '.join(verdict.models)}"
    if model is not None and not model.available:
        yield f"the API reports the model {literal(model.id)} as not available"
    voice = verdict.voices.get(one.voice)
    if one.model is not None and voice is not None and voice.models and one.model not in voice.models:
        yield f"voice {literal(voice.id)} does not list the model {literal(one.model)}"
    if ignored := ignored_by(one, verdict):
        name = f"model {literal(one.model)}" if one.model is not None else "every model"
        yield f"{name} ignores {', '.join(ignored)}, and charges all the same"


def ignored_by(one: Purchase, verdict: Verdict) -> list[str]:
    """The parameters that will have no effect: by the API's own list of controls, or else by known rules."""
    models = list(verdict.models.values()) if one.model is None else [verdict.models.get(one.model)]
    controls = [model.controls for model in models if model is not None and model.controls is not None]
    if not controls or len(controls) < len(models):
        return ignored_parameters(one.model, one.parameters)
    return [name for name in one.parameters if name in JUDGED and not any(name in used for used in controls)]


def _extent(found: Iterable[Purchase], known: Prices | None) -> str:
    """Rows and estimated cost."""
    found = list(found)
    rows = counted(sum(one.rows for one in found), "row")
    if known is None:
        return rows
    estimate = known.estimate((one.model, one.bytes) for one in found)
    cost = estimate.credits if estimate is not None else sum(one.listed_credits for one in found)
    return f"{rows}, about {amount(cost)} credits"


def _lines(conn: Connection, batch: Batch, voices: Sequence[str]) -> list[tuple[int, int, str]]:
    return list(lines_with(conn, [batch], voices))


def _is_checked(conn: Connection, ingest: Ingest, now: float) -> bool:
    """Whether a run checked these manifests within the last day, and nothing has changed in them since."""
    at = cached_facts.get(conn, _fact(ingest))
    return at is not None and now - CACHE_SECONDS < at <= now


def _note_checked(conn: Connection, ingest: Ingest, now: float) -> None:
    cached_facts.put(conn, _fact(ingest), "manifests", now)


def _fact(ingest: Ingest) -> str:
    return f"purchases checked {numbers_of(ingest.wanted)}"
