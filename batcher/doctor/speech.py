"""Can the sandbox speak?"""

from __future__ import annotations

from batcher.doctor.finding import Finding, hint, ok
from batcher.errors import UsageError


def examine() -> Finding:
    """Have the sandbox's engine say a word."""
    from batcher.sandbox.speech import speech_seconds

    try:
        seconds = speech_seconds("One.")
    except UsageError as error:
        return hint("sandbox", error.message, error.hint)
    if seconds == 0.0:
        return hint(
            "sandbox", "the sandbox's eSpeak NG makes no sound", "Install its extra anew: 'tts-batcher[sandbox]'"
        )
    return ok("sandbox", "the sandbox is installed, and speaks")
