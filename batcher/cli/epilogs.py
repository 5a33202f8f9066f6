"""Examples and exit codes, printed below the options in each command's help."""

from __future__ import annotations

from typing import Final

MEANINGS: Final = {
    0: "every row is done, abandoned or skipped as empty",
    1: "unexpected error (a bug)",
    2: "wrong usage, configuration or manifest; nothing was created",
    3: "some items need attention",
    4: "halted: out of credits",
    5: "the token is missing, rejected or of another account",
    6: "stopped as requested with rows still open; run it again to continue",
    7: "another run holds the ledger",
    8: "temporary problem with the API, network or disk; run it again later",
    130: "interrupted",
}
_OTHER_MEANINGS: Final = {
    0: "success",
    2: "wrong usage or configuration, or errors to fix first",
    3: "some files need attention",
}
"""Meanings that differ for commands other than `run`."""
_COMMON: Final = (0, 1, 2, 8, 130)
_LOCKING: Final = (*_COMMON, 7)

_COMMANDS: Final[dict[str, tuple[tuple[int, ...], tuple[str, ...]]]] = {
    "run": (
        tuple(MEANINGS),
        (
            "batcher run lines.csv --voice VOICE_ID",
            "batcher run lines.csv --sandbox",
            "batcher run lines.csv --sample 20",
            "batcher run lines.csv --quiet --max-runtime 50m --ping https://hc-ping.com/UUID",
            "batcher run --collect-only --ledger /srv/book/batcher.db",
        ),
    ),
    "plan": (_COMMON, ("batcher plan lines.csv --voice VOICE_ID", "batcher plan lines.csv --json")),
    "status": (_COMMON, ("batcher status lines.csv", "batcher status --ledger /srv/book/batcher.db --json")),
    "show": (_COMMON, ("batcher show line-17", "batcher show --state failed --json")),
    "changes": (_COMMON, ("batcher changes lines.csv", "batcher changes --since 3f2a9c --json")),
    "runs": (_COMMON, ("batcher runs lines.csv", "batcher runs --end 3f2a9c --ledger postgresql://host/speech")),
    "voices": ((*_COMMON, 5), ("batcher voices", "batcher voices narrator --json", "batcher voices --sandbox")),
    "report": (
        _COMMON,
        (
            "batcher report lines.csv",
            "batcher report lines.csv --format csv --output lines.report.csv",
            "batcher report lines.csv --format xlsx",
        ),
    ),
    "resolve": (
        (*_LOCKING, 5),
        ("batcher resolve", "batcher resolve line-17 --adopt TASK_ID", "batcher resolve --all --abandon"),
    ),
    "retry": ((*_LOCKING, 5), ("batcher retry line-17", "batcher retry --state failed")),
    "abandon": (_LOCKING, ("batcher abandon line-17", "batcher abandon --state failed")),
    "retake": (
        _LOCKING,
        (
            "batcher retake line-17",
            "batcher retake line-17 --take 1",
            "batcher retake --marks lines.marks.json",
        ),
    ),
    "ledger": (
        _LOCKING,
        (
            "batcher ledger backup /backups/batcher.db",
            "batcher ledger copy batcher.db postgresql://host/speech",
            "batcher ledger upgrade lines.csv",
            "batcher ledger recover audio/lines.results.jsonl",
        ),
    ),
    "verify": ((*_LOCKING, 3, 5), ("batcher verify lines.csv", "batcher verify --heal", "batcher verify --json")),
    "trust": (_COMMON, ("batcher trust", "batcher trust /srv/book")),
    "doctor": (
        _COMMON,
        ("batcher doctor lines.csv --voice VOICE_ID", "batcher doctor --ledger /srv/book/batcher.db --json"),
    ),
    "sandbox": (_COMMON, ("batcher sandbox --credits 2000 --fail 0.05", "batcher sandbox --top-up 5000")),
    "help": ((0, 1, 2, 130), ("batcher help", "batcher help manifest", "batcher help json run")),
}
"""Exit codes and examples by command."""
_TOPICS: Final = {
    "run": ("manifest", "settings", "guarantees"),
    "plan": ("manifest",),
    "status": ("guarantees", "json"),
    "show": ("guarantees", "json"),
    "changes": ("files", "json"),
    "runs": ("hosts", "json"),
    "voices": ("account",),
    "report": ("report",),
    "resolve": ("guarantees", "troubleshooting"),
    "retry": ("guarantees",),
    "abandon": ("guarantees",),
    "retake": ("report", "guarantees"),
    "ledger": ("files", "hosts"),
    "verify": ("troubleshooting",),
    "trust": ("settings",),
    "doctor": ("troubleshooting",),
    "sandbox": ("sandbox",),
}
"""Help topics that explain what a command is about."""


def epilog(command: str) -> str:
    """Text for click to print below a command's help; a subcommand has its group's exit codes and its own examples."""
    codes, examples = _COMMANDS[command.split()[0]]
    examples = tuple(line for line in examples if f"{line} ".startswith(f"batcher {command} "))
    meanings = MEANINGS if command == "run" else MEANINGS | _OTHER_MEANINGS
    lines = ["\b", "Examples:", *(f"  {line}" for line in examples), "", "\b", "Exit codes:"]
    lines += [f"  {code:>3}  {meanings[code]}" for code in sorted(codes)]
    topics = [f"  batcher help {topic}" for topic in _TOPICS.get(command.split()[0], ())]
    return "\n".join([*lines, "", "\b", "Manual:", *topics] if topics else lines)
