"""batcher turns a manifest of texts into verified speech, through a paid API of asynchronous tasks.

A row's way: `manifest` reads and checks it, `ledger.imports` stores it, `pipeline.submitter` claims its item and sends
the create (`ledger.lifecycle.claims`, `answers`), `pipeline.poller` polls the task until it ends, `pipeline.downloader`
downloads and checks the audio, `pipeline.delivery` links it to the row. `pipeline.runner` is one run as a table of
contents; `pipeline.credit_guard` stops it when credits run out.

Each folder's `__init__` states what the folder hides. Imports point downwards only, in the order of
`.github/CONTRIBUTING.md`. The names in `__all__` are for programs that use batcher: see `batcher help python`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batcher.api import (
        abandon,
        changes,
        doubts,
        open,  # noqa: A004 - its public name
        plan,
        resolve,
        results,
        retake,
        retake_marked,
        retry,
        run,
        status,
    )
    from batcher.errors import (
        BatcherError,
        CredentialsError,
        DoubtError,
        LedgerError,
        LockedError,
        ManifestError,
        StorageError,
        TroubleError,
        UsageError,
    )
    from batcher.maintenance.decisions import Outcome
    from batcher.maintenance.doubts import Doubt, DoubtMoney, DoubtRow
    from batcher.maintenance.retakes import MarkedRetakes, Note, Retake
    from batcher.options import LedgerOptions, Options
    from batcher.pipeline.plan import Plan
    from batcher.project import Project
    from batcher.project_run import Run
    from batcher.reports.run_report import Credits, OpenHalt, RunReport
    from batcher.row_output import Change, LastRun, LedgerCredits, Row, RowError, Status

__version__ = "0.1.0"
__all__ = [
    "BatcherError",
    "Change",
    "CredentialsError",
    "Credits",
    "Doubt",
    "DoubtError",
    "DoubtMoney",
    "DoubtRow",
    "LastRun",
    "LedgerCredits",
    "LedgerError",
    "LedgerOptions",
    "LockedError",
    "ManifestError",
    "MarkedRetakes",
    "Note",
    "OpenHalt",
    "Options",
    "Outcome",
    "Plan",
    "Project",
    "Retake",
    "Row",
    "RowError",
    "Run",
    "RunReport",
    "Status",
    "StorageError",
    "TroubleError",
    "UsageError",
    "__version__",
    "abandon",
    "changes",
    "doubts",
    "open",
    "plan",
    "resolve",
    "results",
    "retake",
    "retake_marked",
    "retry",
    "run",
    "status",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: the command line starts without most of them."""
    if name not in __all__:
        raise AttributeError(f"module 'batcher' has no attribute {name!r}")
    from batcher import api, errors, options, project, row_output
    from batcher.maintenance import decisions, doubts, retakes
    from batcher.pipeline import plan
    from batcher.reports import run_report

    homes = (api, errors, options, project, row_output, plan, run_report, decisions, doubts, retakes)
    found = globals()[name] = next(getattr(home, name) for home in homes if hasattr(home, name))
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
