"""Feeds readers, answers, codings, addresses and audio with made-up input::

    python -m tests.fuzz [--minutes 5] [--only TARGET ...]

Each target has its own process, an equal share of the time, and a limit of memory. It fails if an exception other than
ours escapes, if what it returns is not credible, if one input takes more than 20 s, or if its memory exceeds the limit.
hypothesis keeps the inputs that failed in `.hypothesis/fuzz` and tries them first the next time. Prints one line for
each target at the end; the exit code is 1 if any has failed.
"""

from __future__ import annotations

import argparse
import sys

from tests.fuzz.target import TARGETS, outcome


def main() -> None:
    """Fuzz all targets, print, and exit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--only", nargs="+", choices=list(TARGETS), default=list(TARGETS))
    asked = parser.parse_args()
    found = {name: outcome(name, asked.minutes * 60 / len(asked.only)) for name in asked.only}
    for name, one in found.items():
        if one.failure:
            print(f"--- {name}\n{one.failure}")  # noqa: T201
    for name, one in found.items():
        verdict = "FAILED" if one.failure else "ok"
        print(f"{name:10} {verdict:6} {one.inputs:7,} inputs in {one.seconds:4.0f} s, {one.memory_mib:4.0f} MiB")  # noqa: T201
    sys.exit(1 if any(one.failure for one in found.values()) else 0)


if __name__ == "__main__":
    main()
