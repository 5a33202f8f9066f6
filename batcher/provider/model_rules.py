"""What the provider's pages say about its models: the parameters that they ignore, and the price of a text. Pure.

Both are second-hand: the API's own answers, where there are any, take precedence.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Final

_FAMILIES: Final = ("fishaudio", "minimax", "qwen", "cosyvoice", "doubao")
"""The engines, by the beginnings of their models' names."""
_ONLY: Final = {
    "stability": ("fishaudio",),
    "similarity": ("fishaudio",),
    "pitch": ("minimax", "qwen"),
    "emotion": ("minimax",),
}
"""Parameters that only some engines use; the others charge for the request and ignore the parameter."""
JUDGED: Final = ("speed", "volume", "pitch", "stability", "similarity", "emotion")
"""Parameters of which an API's list of controls shows whether a model uses them."""
_CJK: Final = (
    r"\u1100-\u11ff\u2e80-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\ufe30-\ufe4f\uff00-\uffef\U00020000-\U0003ffff"
)
_IS_CJK: Final = re.compile(f"[{_CJK}]")
_HALVES: Final = f"length(text) + length(regexp_replace(text, '[^{_CJK}]', '', 'g'))"
LISTED_PRICE: Final = f"CAST(ceil(({_HALVES}) / 2.0) AS integer)"
"""`listed_price` as SQL, for a database that cannot call it."""


def ignored_parameters(model: str | None, names: Iterable[str]) -> list[str]:
    """Those of the parameters that the model is known to ignore. None for a model that the server chooses."""
    family = next((one for one in _FAMILIES if (model or "").lower().startswith(one)), None)
    if family is None:
        return []
    return [name for name in names if name in _ONLY and family not in _ONLY[name]]


def listed_price(text: str) -> int:
    """Credits for a request with this text: 1 for each CJK character, 0.5 for any other, rounded up.

    Some models cost a multiple of it, which is not published.
    """
    cjk = 0 if text.isascii() else len(_IS_CJK.findall(text))
    return math.ceil(cjk + (len(text) - cjk) / 2)
