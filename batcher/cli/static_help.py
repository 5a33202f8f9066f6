"""What `batcher --version` and `batcher --help` say, without loading anything to say it."""

from __future__ import annotations

from typing import Final

from batcher import __version__

VERSION: Final = f"batcher, version {__version__}"
COMMANDS: Final = {
    "run": "Create audio for the rows of a manifest. This can charge.",
    "plan": "Show what a run would do and cost. Creates nothing.",
    "status": "Show how the batches of a ledger stand.",
    "show": "Show items: where each is and what went wrong.",
    "report": "Make a page of what became of every row, to look at and listen to. Creates nothing.",
    "resolve": "Settle creates whose answer was lost. Settling can lead to a second charge.",
    "retry": "Have items that ended badly created again. The next run charges for them.",
    "retake": "Have another output of done rows created. The next run charges for it.",
    "ledger": "Look after the ledger's file.",
    "verify": "Compare the audio on disk with the ledger, and put back what is wrong. Creates nothing.",
    "doctor": "Find out what is wrong, or soon will be, and what to do. Creates nothing.",
    "sandbox": "Serve the API on this machine, with real speech, for trying things out.",
}
"""The commands, in the order that people need them."""
_OPTIONS: Final = {"--version": "Show the version and exit.", "-h, --help": "Show this message and exit."}


def _listed(words: dict[str, str]) -> str:
    width = max(map(len, words))
    return "\n".join(f"  {name:{width}}  {meaning}" for name, meaning in words.items())


HELP: Final = f"""\
Usage: batcher [OPTIONS] COMMAND [ARGS]...

  Turn a manifest of texts into speech through a paid API: nothing bought
  twice, nothing paid for lost.

Options:
{_listed(_OPTIONS)}

Commands:
{_listed(COMMANDS)}"""

SAID_AT_ONCE: Final[dict[tuple[str, ...], str]] = {("--version",): VERSION, ("--help",): HELP, ("-h",): HELP}
"""Arguments that need no command."""
