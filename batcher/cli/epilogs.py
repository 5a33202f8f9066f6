"""What stands below the options in each command's help: examples, and the exit codes that it can end with."""

from __future__ import annotations

from typing import Final

MEANINGS: Final = {
    0: "every row is done, abandoned or skipped as empty",
    1: "unexpected: a bug",
    2: "usage, configuration or manifest: nothing was created",
    3: "a person is needed",
    4: "halted: out of credits",
    5: "the token is missing or refused, or another account's",
    6: "stopped as asked with rows still open: run again",
    7: "another run holds the ledger",
    8: "trouble that may pass: run again later",
    130: "interrupted",
}
_ELSEWHERE: Final = {0: "all is well", 2: "usage, configuration, or what must be mended first"}
"""What some of them mean for commands that do not run."""
_EVERY: Final = (0, 1, 2, 8, 130)
_LOCKING: Final = (*_EVERY, 7)

_OF: Final[dict[str, tuple[tuple[int, ...], tuple[str, ...]]]] = {
    "run": (
        tuple(MEANINGS),
        (
            "batcher run lines.csv --voice VOICE_ID",
            "batcher run lines.csv --sandbox",
            "batcher run lines.csv --quiet --max-runtime 50m --ping https://hc-ping.com/UUID",
            "batcher run --collect-only --ledger /srv/book/batcher.db",
        ),
    ),
    "plan": (_EVERY, ("batcher plan lines.csv --voice VOICE_ID", "batcher plan lines.csv --json")),
    "status": (_EVERY, ("batcher status lines.csv", "batcher status --ledger /srv/book/batcher.db --json")),
    "show": (_EVERY, ("batcher show line-17", "batcher show --state failed --json")),
    "report": (
        _EVERY,
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
    "retake": (_LOCKING, ("batcher retake line-17", "batcher retake --marks lines.marks.json")),
    "ledger": (
        _LOCKING,
        (
            "batcher ledger backup /backups/batcher.db",
            "batcher ledger upgrade lines.csv",
            "batcher ledger recover audio/lines.results.jsonl",
        ),
    ),
    "verify": ((*_LOCKING, 3, 5), ("batcher verify lines.csv", "batcher verify --heal", "batcher verify --json")),
    "doctor": (
        _EVERY,
        ("batcher doctor lines.csv --voice VOICE_ID", "batcher doctor --ledger /srv/book/batcher.db --json"),
    ),
    "sandbox": (_EVERY, ("batcher sandbox --credits 2000 --fail 0.05", "batcher sandbox --top-up 5000")),
    "help": ((0, 1, 2, 130), ("batcher help manifest", "batcher help")),
}
"""Exit codes and examples of each command."""


def epilog(command: str) -> str:
    """The lines for a command, as click takes them; one of a group has the group's codes, and examples of its own."""
    codes, examples = _OF[command.split()[0]]
    examples = tuple(line for line in examples if f"{line} ".startswith(f"batcher {command} "))
    meanings = MEANINGS if command == "run" else MEANINGS | _ELSEWHERE
    lines = ["\b", "Examples:", *(f"  {line}" for line in examples), "", "\b", "Exit codes:"]
    return "\n".join([*lines, *(f"  {code:>3}  {meanings[code]}" for code in sorted(codes))])
