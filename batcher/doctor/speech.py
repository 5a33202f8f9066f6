"""Checks that the sandbox can speak."""

from __future__ import annotations

from batcher.doctor.finding import Finding, hint, ok
from batcher.errors import UsageError
from batcher.installation import this_installation


def check_speech() -> Finding:
    """Have the sandbox's speech engine speak a word."""
    from batcher.sandbox.speech import speech_seconds

    try:
        seconds = speech_seconds("One.")
    except UsageError as error:
        return hint("sandbox", error.message, error.hint)
    if seconds == 0.0:
        message = "the sandbox's speech engine (eSpeak NG) produces no sound"
        repair = this_installation().repair("espeakng-loader", extra="sandbox")
        return hint("sandbox", message, f"Reinstall it: {repair}")
    return ok("sandbox", "the sandbox is installed and can speak")
