"""Asks the API, free of charge, which voices and models exist, before anything is bought with them.

A list of voices may be only a window of the catalogue: a voice that it lacks may work. Only a direct read of the voice
can show that it does not exist, and only where the same read finds a voice that does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import anyio

from batcher.clock import Clock
from batcher.provider.answers import Cause
from batcher.provider.catalogue import CatalogueAnswer, CataloguePaths, Model, Voice, paths_in

if TYPE_CHECKING:
    from batcher.provider.client import Client

CACHE_SECONDS: Final = 86_400.0
"""Time in seconds for which what was read is believed."""
DEADLINE_SECONDS: Final = 20.0
"""Total time in seconds for all reads of one check; what was not read by then is not checked."""
_PAGE: Final = 100
_MAX_PAGES: Final = 20
"""Pages of the list of voices that are read, and their size."""
_MAX_DIRECT: Final = 500
"""Voices that one check reads directly."""
_AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the API said. Voices that could not be checked are in none of the fields.

    `unknown` voices do not exist, `unlisted` ones are not in the list and may work. `voices` are the known ones, by id;
    `models` are all models, by id, empty if the API does not publish them. `is_whole`: every read was answered.
    """

    unknown: frozenset[str] = frozenset()
    unlisted: frozenset[str] = frozenset()
    voices: Mapping[str, Voice] = field(default_factory=dict)
    models: Mapping[str, Model] = field(default_factory=dict)
    is_whole: bool = False


class Catalogue:
    """Reads of one API's catalogue, with a cache: JSON values by name, each with the time at which it was read.

    That a voice does not exist is never cached: it may be made at any moment.
    """

    def __init__(self, client: Client, clock: Clock, cached: Mapping[str, Any] | None) -> None:
        self._client = client
        self._clock = clock
        now = clock.now()
        fresh = {name: one for name, one in (cached or {}).items() if now - CACHE_SECONDS < one[0] <= now}
        self.cached: dict[str, Any] = fresh
        """What may be cached for the next check."""
        self._listed: dict[str, Voice] | None = None
        self._lists_all = False  # whether the list of voices was read to its end
        self._failed = False  # whether a read was not answered

    async def check(self, voices: Iterable[str]) -> Verdict:
        """Ask about these voices, and for the models. Never raises for the network or the server."""
        known: dict[str, Voice] = {}
        unknown: set[str] = set()
        unlisted: set[str] = set()
        models: dict[str, Model] = {}
        is_whole = False
        with self._clock.limit(DEADLINE_SECONDS):
            paths = await self._paths()
            models |= await self._models(paths)
            denied, unread = await self._read_directly(paths, sorted(voices), known)
            if denied or unread:
                await self._find_in_list([*denied, *unread], known)
            denied = [voice for voice in denied if voice not in known]
            if denied and await self._reads_voices(paths, known):
                unknown |= set(denied)
            if self._lists_all:
                unlisted |= {*denied, *unread} - unknown - known.keys()
            is_whole = not self._failed
        return Verdict(
            unknown=frozenset(unknown),
            unlisted=frozenset(unlisted),
            voices=known,
            models=models,
            is_whole=is_whole,
        )

    async def _paths(self) -> CataloguePaths:
        if (cached := self._cached("paths")) is not None:
            return CataloguePaths(**cached)
        answer = await self._client.schema()
        if answer.operations is None:
            self._failed |= answer.transport is not None
            return CataloguePaths()
        paths = paths_in(answer.operations)
        self._cache("paths", {"voice": paths.voice, "models": paths.models})
        return paths

    async def _models(self, paths: CataloguePaths) -> dict[str, Model]:
        if paths.models is None:
            return {}
        found = self._cached("models")
        if found is None:
            answer = self._noted(await self._client.models(paths.models))
            if not answer.models:
                return {}
            found = [
                [one.id, one.available, None if one.controls is None else sorted(one.controls)] for one in answer.models
            ]
            self._cache("models", found)
        return {
            name: Model(id=name, available=available, controls=None if controls is None else frozenset(controls))
            for name, available, controls in found
        }

    async def _read_directly(
        self, paths: CataloguePaths, voices: Sequence[str], known: dict[str, Voice]
    ) -> tuple[list[str], list[str]]:
        """Read each voice, and add those found to `known`. Returns those answered by 404, and those not answered."""
        for voice in voices:
            if (models := self._cached(f"voice {voice}")) is not None:
                known[voice] = Voice(id=voice, models=tuple(models))
        to_read = [voice for voice in voices if voice not in known]
        denied: list[str] = []
        unread = to_read if paths.voice is None else to_read[_MAX_DIRECT:]
        limit = anyio.CapacityLimiter(_AT_ONCE)

        async def read(path: str, voice: str) -> None:
            async with limit:
                cause, found = await self._read(path, voice)
            if found is not None:
                self._know(found, known)
            else:
                (denied if cause is Cause.NOT_FOUND else unread).append(voice)

        async with anyio.create_task_group() as reads:
            for voice in to_read[:_MAX_DIRECT] if paths.voice is not None else []:
                reads.start_soon(read, paths.voice or "", voice)
        return denied, unread

    async def _read(self, path: str, voice: str) -> tuple[Cause, Voice | None]:
        answer = self._noted(await self._client.voice(path, voice))
        return answer.cause, next((found for found in answer.voices if found.id == voice), None)

    async def _reads_voices(self, paths: CataloguePaths, known: Mapping[str, Voice]) -> bool:
        """Whether direct reads work: one finds a voice that exists. Otherwise a 404 may be about the path."""
        if paths.voice is None:
            return False
        if self._cached("reads voices"):
            return True
        if self._listed is None:
            await self._find_in_list([], {})
        example = next(iter([*known, *(self._listed or {})]), None)
        if example is None or (await self._read(paths.voice, example))[1] is None:
            return False
        self._cache("reads voices", True)
        return True

    async def _find_in_list(self, wanted: Sequence[str], known: dict[str, Voice]) -> None:
        """Read the list of voices until all wanted ones are found, and add these to `known`."""
        self._listed = self._listed or {}
        offset = 0
        for _ in range(_MAX_PAGES):
            answer = self._noted(await self._client.voices(limit=_PAGE, offset=offset))
            if answer.cause is not Cause.OK:
                return
            new = {voice.id: voice for voice in answer.voices if voice.id not in self._listed}
            self._listed |= new
            offset += len(answer.voices)
            for voice in wanted:
                if voice in new:
                    self._know(new[voice], known)
            self._lists_all = bool(self._listed) and (not answer.voices or offset == answer.total)
            # An API that ignores the offset repeats its first page.
            if self._lists_all or not new or self._listed.keys() >= set(wanted):
                return

    def _noted(self, answer: CatalogueAnswer) -> CatalogueAnswer:
        self._failed |= answer.cause in (Cause.UNSENT, Cause.UNCLEAR, Cause.THROTTLED)
        return answer

    def _know(self, voice: Voice, known: dict[str, Voice]) -> None:
        known[voice.id] = voice
        self._cache(f"voice {voice.id}", list(voice.models))

    def _cached(self, name: str) -> Any:
        return self.cached[name][1] if name in self.cached else None

    def _cache(self, name: str, value: Any) -> None:
        self.cached[name] = [self._clock.now(), value]
