"""The API's catalogue: voices, models, and where an API publishes direct reads of them. Pure.

Only the list of voices is documented. Direct reads are used where the API's own schema lists them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from batcher.provider.answers import ApiError, Cause, Reply, Rules, explained
from batcher.provider.failures import Obstacle

_VOICE_PATH: Final = re.compile(r".*/voices/\{\}")
_MODELS_PATH: Final = re.compile(r".*/speech/tts/capabilities")
_SWITCHES: Final = ("supported", "available", "enabled")

CATALOGUE_RULES: Final[Rules] = (
    (Cause.UNSENT, lambda r: r.wire.unsent),
    (Cause.OK, lambda r: r.good),
    (Cause.NOT_FOUND, lambda r: r.api(404)),
    (Cause.CREDENTIALS, lambda r: r.api(401, 403)),
    (Cause.THROTTLED, lambda r: r.status(429)),
    (Cause.WRONG_HOST, lambda r: r.foreign(401, 403, 404) or r.status(*range(300, 400))),
    (Cause.UNCLEAR, lambda _: True),
)
"""Rules for the answer to a read of voices or models. A good answer proves nothing about the token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """A voice. `models` are the ids of the models that it lists; empty if unknown."""

    id: str
    name: str | None = None
    provider: str | None = None
    models: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model. `controls` are the parameters that it uses; None if unknown."""

    id: str
    available: bool = True
    controls: frozenset[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueAnswer:
    """The outcome of a read of voices or models: what was found, and how many there are in all (None if unknown)."""

    cause: Cause
    voices: tuple[Voice, ...] = ()
    models: tuple[Model, ...] = ()
    total: int | None = None
    error: ApiError = field(default_factory=ApiError)
    transport: str | None = None
    obstacle: Obstacle | None = None

    def explain(self) -> str:
        """The answer in one line, for people."""
        return explained(self.error, self.transport)


@dataclass(frozen=True, slots=True, kw_only=True)
class CataloguePaths:
    """Paths of direct reads below the origin, with `{}` for a voice's id; None where the schema lists none."""

    voice: str | None = None
    models: str | None = None


def paths_in(operations: Iterable[tuple[str, str]]) -> CataloguePaths:
    """The direct reads that a schema lists; of several versions, the latest."""
    paths = sorted(path for method, path in operations if method == "GET")
    return CataloguePaths(
        voice=next((path for path in reversed(paths) if _VOICE_PATH.fullmatch(path)), None),
        models=next((path for path in reversed(paths) if _MODELS_PATH.fullmatch(path)), None),
    )


Clean = Callable[[object], str | None]
"""Returns a value as one clean line of text; None if it is none."""


def read_catalogue(reply: Reply, cause: Cause, clean: Clean) -> CatalogueAnswer:
    """The answer, from a list of voices, one voice, or a list of models."""
    body = reply.json if cause is Cause.OK and reply.json is not None else {}
    data = body.get("data")
    places = [place for place in (body, data) if isinstance(place, dict)]
    listed = [data] if isinstance(data, list) else []
    many = [*listed, *(place.get(name) for place in places for name in ("items", "voices"))]
    one = [place for outer in places for place in (outer, outer.get("voice")) if isinstance(place, dict)]
    voices = [_voice(item, clean) for item in _items(many)] or [_voice(item, clean) for item in one]
    total = next((place["total"] for place in places if type(place.get("total")) is int), None)
    return CatalogueAnswer(
        cause=cause,
        voices=tuple(voice for voice in voices if voice is not None),
        models=tuple(_models(_items(place.get("models") for place in places), clean)),
        total=total,
        error=reply.error,
        transport=reply.wire.transport,
        obstacle=reply.wire.obstacle,
    )


def _items(lists: Iterable[object]) -> Iterator[dict[str, Any]]:
    """The objects in these lists."""
    return (item for found in lists if isinstance(found, list) for item in found if isinstance(item, dict))


def _voice(item: dict[str, Any], clean: Clean) -> Voice | None:
    found = clean(item.get("id")) or clean(item.get("voiceId"))
    if found is None:
        return None
    models = item.get("modelIds")
    names = [clean(model) for model in models] if isinstance(models, list) else []
    return Voice(
        id=found,
        name=clean(item.get("name")),
        provider=clean(item.get("provider")),
        models=tuple(name for name in names if name),
    )


def _models(items: Iterable[dict[str, Any]], clean: Clean) -> Iterator[Model]:
    for item in items:
        found = clean(item.get("modelId")) or clean(item.get("id"))
        if found is not None:
            yield Model(id=found, available=item.get("available") is not False, controls=_controls(item))


def _controls(item: dict[str, Any]) -> frozenset[str] | None:
    controls = item.get("controls")
    if isinstance(controls, list):
        return frozenset(str(name) for name in controls)
    if not isinstance(controls, dict):
        return None
    return frozenset(name for name, value in controls.items() if _is_used(value))


def _is_used(value: object) -> bool:
    """Whether a control has an effect, by its description, whose shape is not documented."""
    if isinstance(value, dict):
        return all(value.get(switch) is not False for switch in _SWITCHES)
    return value is not None and value is not False
