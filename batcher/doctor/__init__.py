"""Finds out what is wrong, or soon will be, and says what to do about it. Changes nothing and creates nothing.

`finding` is what each examination gives: `api` asks the provider, `ledger` looks into the ledger, `disk` around it,
`manifests` reads what is to be bought, `speech` tries the sandbox's voice. `examine` does all of it.
"""

from batcher.doctor.examining import examine
from batcher.doctor.finding import Finding, Level

__all__ = ["Finding", "Level", "examine"]
