"""Checks the disks of the ledger and the audio: file system, free space, and leftovers."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Final

from batcher.address import Address, Server, spill_files
from batcher.audio.folder import Folder
from batcher.doctor.bucket import check_bucket
from batcher.doctor.finding import Finding, hint, ok, problem
from batcher.errors import BatcherError, StorageError
from batcher.formatting import counted, size
from batcher.ledger.ledger import open_readonly
from batcher.ledger.queries import outputs
from batcher.ledger.queries.identity import identity
from batcher.ledger.storage.spill import Spill
from batcher.settings import Settings

_MOUNTS: Final = Path("/proc/mounts")
_REMOTE: Final = ("nfs", "cifs", "smb", "afs", "ceph", "glusterfs", "lustre", "9p", "fuse.")
_SYNCED: Final = re.compile(
    r"dropbox|onedrive|google ?drive|my drive|nextcloud|owncloud|mobile documents|icloud|cloudstorage", re.IGNORECASE
)
_BYTES_PER_CHARACTER: Final = {"wav": 6_000, "pcm": 6_000}
"""Expected before any audio is done, at 15 characters a second: 16 bits at 44.1 kHz; 128 kbit/s in other formats."""
_OTHER_BYTES_PER_CHARACTER: Final = 1_100
_RESERVE_BYTES: Final = 64 << 20
"""Free space expected beside that for the audio."""
_OLD_BACKUP_SECONDS: Final = 30 * 86_400.0


def check_disk(settings: Settings, now: float) -> list[Finding]:
    """Check the disks of ledger and audio, without changing anything."""
    out_dir = settings.out_dir
    if isinstance(out_dir, str):
        of_audio, store = [check_bucket(settings)], None
    else:
        of_audio = [_check_audio_disk(out_dir), _check_free_space(settings, out_dir)]
        store = Folder(settings.home, out_dir)
    return [_check_ledger_disk(settings.home), *of_audio, *_check_leftovers(settings.ledger, store, now)]


def file_system(path: Path, mounts: str) -> str | None:
    """The type of the file system that holds `path`, from the content of /proc/mounts. None if unknown."""
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
    """The part of `path` that is the folder of a file syncing service. None if there is none."""
    return next((part for part in path.parts if _SYNCED.search(part)), None)


def _check_ledger_disk(path: Path) -> Finding:
    topic = "ledger's disk"
    if (part := synced_folder(path)) is not None:
        action = "Move it to another folder: syncing can damage a ledger or put back an older state of it."
        return problem(topic, f"{path} is in a synced folder ({part})", action)
    kind = _file_system(path)
    if kind is not None and kind.startswith(_REMOTE):
        action = "Put the ledger on a local disk: --ledger PATH."
        return problem(topic, f"{path} is on a network file system ({kind})", action)
    return _local(topic, path, kind)


def _check_audio_disk(path: Path) -> Finding:
    topic = "audio's disk"
    if (part := synced_folder(path)) is not None:
        return hint(topic, f"{path} is in a synced folder ({part})", "No action is needed, but it slows runs down.")
    kind = _file_system(path)
    if kind is not None and kind.startswith(_REMOTE):
        action = "No action is needed, but a local disk is faster."
        return hint(topic, f"{path} is on a network file system ({kind})", action)
    return _local(topic, path, kind)


def _local(topic: str, path: Path, kind: str | None) -> Finding:
    return ok(topic, f"{path} is on a local file system" + (f" ({kind})" if kind else ""))


def _file_system(path: Path) -> str | None:
    try:
        return file_system(path, _MOUNTS.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None


def _check_free_space(settings: Settings, out_dir: Path) -> Finding:
    """Compare the free space with the expected size of the audio that is still to come."""
    folder = next(parent for parent in (out_dir, *out_dir.parents) if parent.is_dir())
    free, needed = shutil.disk_usage(folder).free, _expected_bytes(settings.ledger)
    audio = f"the audio to download needs about {size(needed)}" if needed else "no audio to download"
    message = f"{size(free)} free; {audio}"
    if free < needed + _RESERVE_BYTES:
        return problem("room", message, "Free some space, or choose another --out-dir.")
    if free < 2 * needed + _RESERVE_BYTES:
        return hint("room", message, "This should be enough, but free some space to be safe.")
    return ok("room", message)


def _expected_bytes(ledger: Address) -> float:
    """The expected size of the audio that the ledger's unfinished items need."""
    try:
        with open_readonly(ledger) as conn:
            expected = outputs.expected_audio(conn)
    except BatcherError:
        return 0
    return sum(
        chars * (rate or _BYTES_PER_CHARACTER.get(audio_format, _OTHER_BYTES_PER_CHARACTER))
        for audio_format, (chars, rate) in expected.items()
    )


def _check_leftovers(ledger: Address, store: Folder | None, now: float) -> list[Finding]:
    try:
        found = [
            *([] if store is None else [_check_parts(store), _check_bad_audio(store)]),
            _check_spill(ledger),
            *_check_copies(ledger, now),
        ]
    except OSError as error:
        return [problem("leftovers", f"cannot read {error.filename}: {error.strerror}", "Check its permissions.")]
    except StorageError as error:
        return [problem("leftovers", error.message, error.hint)]
    return [one for one in found if one is not None] or [ok("leftovers", "there are no leftover files")]


def _check_parts(store: Folder) -> Finding | None:
    parts = list(store.leftovers())
    if not parts:
        return None
    message = f"{counted(len(parts), 'unfinished download')} in {store.place}"
    action = "No action is needed: a run may be using them; if not, the next run downloads again, at no cost."
    return hint("leftovers", message, action)


def _check_bad_audio(store: Folder) -> Finding | None:
    bad = list(store.bad())
    if not bad:
        return None
    message = f"{counted(len(bad), 'download')} failed the audio checks; stored for inspection: {bad[0]}"
    action = "`batcher show` with the first characters of the file's name shows its item. Good audio will replace it."
    return hint("leftovers", message, action)


def _check_spill(ledger: Address) -> Finding | None:
    try:
        spills = spill_files(ledger, _id_of(ledger))
    except BatcherError:  # another finding reports it
        return None
    found = {path.name: len(Spill(path).records()) for path in spills.values()}
    names = [name for name, answers in found.items() if answers]
    if not names:
        return None
    message = f"{counted(sum(found.values()), 'answer')} from the API in {_examples(names)}, not yet in the ledger"
    return hint("leftovers", message, "Keep the file: the next run records them in the ledger.")


def _id_of(ledger: Address) -> str:
    """The id of a ledger on a server. The files beside a ledger's file are found even if it cannot be read."""
    if not isinstance(ledger, Server):
        return ""
    with open_readonly(ledger) as conn:
        return identity(conn).ledger_id


def _check_copies(ledger: Address, now: float) -> list[Finding | None]:
    """Backups and journals beside a ledger's file."""
    return [_check_backups(ledger, now), _check_journals(ledger)] if isinstance(ledger, Path) else []


def _check_backups(ledger: Path, now: float) -> Finding | None:
    backups = ledger.parent.glob(f"{ledger.name}.backup-*")
    old = [path.name for path in backups if path.stat().st_mtime < now - _OLD_BACKUP_SECONDS]
    if not old:
        return None
    message = f"{counted(len(old), 'backup')} of the ledger older than 30 days: {_examples(old)}"
    return hint("leftovers", message, "Delete those that you no longer need.")


def _check_journals(ledger: Path) -> Finding | None:
    stray = [path.name for path in ledger.parent.glob(f"{ledger.name}-wal.stray-*")]
    if not stray:
        return None
    message = f"{counted(len(stray), 'journal')} set aside when the ledger file was replaced: {_examples(stray)}"
    return hint("leftovers", message, "Delete them once you have checked that the ledger is complete.")


def _examples(names: list[str]) -> str:
    return ", ".join(names[:3]) + ", …" * (len(names) > 3)
