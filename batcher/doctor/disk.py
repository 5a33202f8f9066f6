"""Where ledger and audio lie: on what file system, with what room, beside what is left over."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Final

from batcher.audio.store import Store
from batcher.doctor.finding import Finding, hint, ok, problem
from batcher.errors import BatcherError
from batcher.formatting import counted, size
from batcher.ledger.ledger import open_readonly
from batcher.ledger.queries import outputs
from batcher.ledger.storage.spill import Spill
from batcher.settings import Settings

_MOUNTS: Final = Path("/proc/mounts")
_REMOTE: Final = ("nfs", "cifs", "smb", "afs", "ceph", "glusterfs", "lustre", "9p", "fuse.")
_SYNCED: Final = re.compile(
    r"dropbox|onedrive|google ?drive|my drive|nextcloud|owncloud|mobile documents|icloud|cloudstorage", re.IGNORECASE
)
_USUAL_BYTES: Final = {"wav": 6_000, "pcm": 6_000}
"""Bytes a character where nothing is learned yet, at 15 characters a second: 16 bits at 44.1 kHz; else 128 kbit/s."""
_OTHER_BYTES: Final = 1_100
_LEAST_FREE_BYTES: Final = 64 << 20
_OLD_SECONDS: Final = 30 * 86_400.0


def examine(settings: Settings, now: float) -> list[Finding]:
    """Look around ledger and audio, without changing anything."""
    places = (("ledger's disk", settings.ledger.parent), ("audio's disk", settings.out_dir))
    found = [_place(topic, path) for topic, path in places]
    return [*found, _room(settings), *_leftovers(settings, now)]


def file_system(path: Path, mounts: str) -> str | None:
    """The type of the file system that `path` is on, by the lines of /proc/mounts; None where they do not tell."""
    best, kind = "", None
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) < 3:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), fields[1])
        if path.is_relative_to(point) and len(point) >= len(best):
            best, kind = point, fields[2]
    return kind


def synced_folder(path: Path) -> str | None:
    """The part of `path` that a service which copies files about is known by, if there is one."""
    return next((part for part in path.parts if _SYNCED.search(part)), None)


def _place(topic: str, path: Path) -> Finding:
    is_ledger = topic.startswith("ledger")
    matters = problem if is_ledger else hint
    if (part := synced_folder(path)) is not None:
        do = "Move it out: a service that copies files while they change makes a ledger that forgets what was bought."
        return matters(topic, f"{path} is in a synced folder ({part})", do if is_ledger else "Slow, but it may stay.")
    try:
        kind = file_system(path, _MOUNTS.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        kind = None
    if kind is not None and kind.startswith(_REMOTE):
        do = "Keep the ledger on a local disk: --ledger PATH." if is_ledger else "Fine for audio, but slower."
        return matters(topic, f"{path} is on a network file system ({kind})", do)
    return ok(topic, f"{path} is on a local file system" + (f" ({kind})" if kind else ""))


def _room(settings: Settings) -> Finding:
    """The space that is free against the audio that is still to come."""
    try:
        with open_readonly(settings.ledger) as conn:
            waiting = outputs.expected_audio(conn)
    except BatcherError:
        waiting = {}
    needed = sum(
        chars * (rate or _USUAL_BYTES.get(audio_format, _OTHER_BYTES))
        for audio_format, (chars, rate) in waiting.items()
    )
    folder = next(parent for parent in (settings.out_dir, *settings.out_dir.parents) if parent.is_dir())
    free = shutil.disk_usage(folder).free
    message = f"{size(free)} are free, and the audio that the ledger waits for needs about {size(needed)}"
    if free < needed + _LEAST_FREE_BYTES:
        return problem("room", message, "Free some space, or choose another --out-dir.")
    if free < 2 * needed + _LEAST_FREE_BYTES:
        return hint("room", message, "It should do, with little to spare.")
    return ok("room", message)


def _leftovers(settings: Settings, now: float) -> list[Finding]:
    found, ledger = [], settings.ledger
    parts = list(Store(ledger.parent, settings.out_dir).leftovers())
    if parts:
        do = "A run at work has some; otherwise the next run removes them and downloads anew, at no cost."
        found.append(hint("leftovers", f"{counted(len(parts), 'unfinished download')} in {settings.out_dir}", do))
    bad = list(Store(ledger.parent, settings.out_dir).bad())
    if bad:
        message = f"what came last for {counted(len(bad), 'item')} is no audio for the text: {bad[0]}"
        do = "Look at them; `batcher show` with the beginning of a name tells whose it is. Good audio takes its place."
        found.append(hint("leftovers", message, do))
    answers = len(Spill(ledger.with_name(f"{ledger.name}.spill")).records())
    if answers:
        message = f"{counted(answers, 'answer')} to creates wait in {ledger.name}.spill"
        found.append(hint("leftovers", message, "Leave the file: the next run takes them into the ledger."))
    old = [path for path in ledger.parent.glob(f"{ledger.name}.backup-*") if path.stat().st_mtime < now - _OLD_SECONDS]
    if old:
        message = (
            f"{counted(len(old), 'backup')} of the ledger older than 30 days: {', '.join(p.name for p in old[:3])}"
        )
        found.append(hint("leftovers", message, "Delete what you no longer need."))
    stray = list(ledger.parent.glob(f"{ledger.name}-wal.stray-*"))
    if stray:
        message = f"{counted(len(stray), 'journal')} set aside when another ledger took this one's place"
        found.append(hint("leftovers", message, "Delete them once the ledger has shown to be complete."))
    return found or [ok("leftovers", "nothing is left over")]
