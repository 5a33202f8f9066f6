"""Every limit on what comes over the network, in one place.

`batcher help security` lists them. A limit that a test must reach quickly is a field of `DownloadLimits`, which the
client takes as an argument.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MAX_BODY_BYTES: Final = 1 << 20
"""Longest answer of the API, both as it arrives and after decoding. The rest is not read."""
MAX_RAW_BYTES: Final = 1 << 16
"""Longest part of an answer that the ledger stores."""
MAX_CODINGS: Final = 1
"""Content codings in one answer or download; only gzip and deflate are decoded. Each layer may grow it 1,000 times."""
MAX_PIECE_BYTES: Final = 1 << 16
"""Bytes decoded in one step."""
MAX_NESTING: Final = 100
"""Levels of an answer's JSON that are read; deeper ones count as null."""
MAX_DIGITS: Final = 100
"""Digits of an integer in an answer's JSON; a longer one counts as null."""
MAX_URL_CHARACTERS: Final = 8192
"""Longest URL of audio, after redirects too."""
MAX_REDIRECTS: Final = 5
"""Redirects followed by one download; the API's own calls follow none."""
MAX_ADDRESSES: Final = 8
"""Addresses of an audio host that are tried."""

REQUEST_SECONDS: Final = 60.0
"""Total time of any request but a download."""
PROFILE_SECONDS: Final = 60.0
"""Total time in which a run reads the account at its start, over all attempts."""
PATIENT_RETRY_AFTER_SECONDS: Final = 900.0
"""Longest `Retry-After` that a run waits for. A longer one ends creating or collecting, with exit 8."""
MAX_RETRY_AFTER_SECONDS: Final = 366 * 86_400.0
"""Longest `Retry-After` that is reported; a longer one counts as this."""

MAX_CREDITS: Final = 1e15
"""Largest credible number of credits; a larger one, and a negative cost, counts as unknown."""
MAX_SERVERS: Final = 8
"""Servers of the published schema, and of each of its paths, that are read."""
MAX_OPERATIONS: Final = 10_000
"""Operations of the published schema that are read."""
MAX_IGNORED: Final = 50
"""Ignored parameters that one answer may name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadLimits:
    """How long one download may take, redirects included.

    It ends after `seconds` and `seconds_per_character` of the text, or if less than `bytes_per_second` arrive on
    average over `window_seconds`. The defaults permit uncompressed speech over a connection of 100 kbit/s.
    """

    seconds: float = 120.0
    seconds_per_character: float = 1.0
    window_seconds: float = 30.0
    bytes_per_second: float = 1024.0

    def deadline_seconds(self, chars: int) -> float:
        """Total time for the speech of a text of `chars` characters."""
        return self.seconds + self.seconds_per_character * chars
