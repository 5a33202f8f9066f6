"""Share of an API's permitted rate that clients use, and how often they are refused: `python -m tests.bench.throttle`.

The API permits 50 creates a second, counted in one of several ways, or a number in flight: 50, then 5 for half a
minute, then 50 again. All that it reveals is a 429, with or without `Retry-After`. The clients are ours, a loop with
jittered back-off, and a loop that obeys `Retry-After`; the loops run in 16 independent workers (64 against the limit in
flight). Each cell is the share of the permitted rate, the refusals per admitted request, and in brackets the requests
that left inside a `Retry-After` that the client had received, as means over several seeds. Time is virtual, so the
figures are reproducible. `--ours` leaves out the loops. `--real` uses real processes and sockets: see
`tests.bench.limited`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from functools import partial
from statistics import mean
from typing import Final

from tests.bench import limited
from tests.support.limiters import (
    AtOnce,
    Client,
    FixedWindow,
    Hint,
    Limiter,
    SlidingWindow,
    TokenBucket,
    Trial,
    adaptive,
    attempt,
    attempt_again,
    backing_off,
    heeding,
    permitted_at_once,
)

RATE: Final = 50
SEEDS: Final = range(3)
DROP_SEEDS: Final = range(12)
"""More, since a share after a drop or a return depends on when a few trials happen to fall."""
CLIENTS: Final[dict[str, Client]] = {"ours": adaptive, "backoff": backing_off, "Retry-After": heeding}
HINTS: Final[tuple[Hint, ...]] = ("none", "seconds", "date")
LIMITERS: Final[dict[str, Callable[[], Limiter]]] = {
    "token bucket of 3": lambda: TokenBucket(RATE, 3),
    "token bucket of 10": lambda: TokenBucket(RATE, 10),
    "token bucket of 50": lambda: TokenBucket(RATE, 50),
    "fixed window, 1 s": lambda: FixedWindow(RATE),
    "sliding window, 1 s": lambda: SlidingWindow(RATE),
    "sliding window, 10 s": lambda: SlidingWindow(10 * RATE, 10.0),
}
MANY_CLIENTS: Final[dict[str, Client]] = CLIENTS | {
    "backoff": partial(backing_off, workers=64),
    "Retry-After": partial(heeding, workers=64),
}
DROP_AT, RETURN_AT, END_AT = 30.0, 60.0, 100.0
SPANS: Final = {"first 50": (10.0, 30.0, 50), "then 5": (35.0, 60.0, 5), "20 s after": (80.0, 100.0, 50)}
"""Begin and end of each measured span (seconds), and the number in flight that is permitted in it."""


def changing(at: float) -> int:
    """Number in flight that the API permits at `at`."""
    return 5 if DROP_AT <= at < RETURN_AT else 50


def main(names: Collection[str] = tuple(CLIENTS)) -> None:
    """Print the tables for the clients whose name is in `names`."""
    for items in (600, 6000):
        print(f"\n{items} creates at {RATE}/s, from nothing known", *(f"{hint:>22}" for hint in HINTS))  # noqa: T201
        for name, limiter in LIMITERS.items():
            for who in names:
                trials = (
                    [attempt(CLIENTS[who], limiter(), hint, seed=seed, items=items) for seed in SEEDS] for hint in HINTS
                )
                print(f"{name:24} {who:16}", *(_rate_cell(found, items) for found in trials))  # noqa: T201
    print("\n600 creates at 50/s, with the values learned from 3000 before")  # noqa: T201
    for name, limiter in LIMITERS.items():
        trials = ([attempt_again(limiter, hint, seed=seed, items=600) for seed in SEEDS] for hint in HINTS)
        print(f"{name:24} {'ours':16}", *(_rate_cell(found, 600) for found in trials))  # noqa: T201
    print(f"\n{'requests at once: 50, 5, 50':41}", *(f"{span:>11}" for span in SPANS), " refused")  # noqa: T201
    for hint in HINTS:
        for who in names:
            print(f"{hint:24} {who:16}", _at_once_row(MANY_CLIENTS[who], hint))  # noqa: T201


def _rate_cell(trials: list[Trial], items: int) -> str:
    share = mean(items / RATE / trial.seconds for trial in trials)
    return f"{share:8.3f} {_refused(trials)}"


def _at_once_row(client: Client, hint: Hint) -> str:
    trials = [attempt(client, AtOnce(changing), hint, seed=seed, seconds=END_AT) for seed in DROP_SEEDS]
    cells = []
    for begin, end, at_once in SPANS.values():
        cells.append(f"{mean(trial.rate(begin, end) for trial in trials) / permitted_at_once(at_once):11.3f}")
    return " ".join([*cells, _refused(trials)])


def _refused(trials: list[Trial]) -> str:
    return f"{mean(trial.refused_share for trial in trials):7.2%} ({mean(trial.too_early for trial in trials):.0f})"


if __name__ == "__main__":
    if "--real" in sys.argv:
        limited.main()
    else:
        main(["ours"] if "--ours" in sys.argv else tuple(CLIENTS))
