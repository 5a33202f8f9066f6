"""Checks the object store of the audio: whether it can be reached and written, and protects what is there."""

from __future__ import annotations

from batcher.audio.stores import Stores
from batcher.doctor.finding import Finding, ok, problem
from batcher.errors import BatcherError, TroubleError
from batcher.settings import Settings


def check_bucket(settings: Settings) -> Finding:
    """Create a small object twice, as a run does at its start."""
    topic, place = "audio's store", settings.out_dir
    try:
        Stores(settings.home).of(place).prepare()
    except BatcherError as error:
        return problem(topic, error.message, error.hint, passing=isinstance(error, TroubleError))
    return ok(topic, f"{place} can be written, and refuses to create an object twice")
