"""The provider's API offline, with real speech: for trying things out, for rehearsing trouble, for the tests.

In reading order: `knobs` what can be set, `orders` what a create may ask for, `store` accounts and tasks on disk,
`speech` and `audio` from text to a file, `server` and `openapi` the API, `hosting` how it is run. Starting it needs the
`sandbox` extra; importing it does not.
"""

from batcher.sandbox.host import Running, running, serve
from batcher.sandbox.options import Knobs
from batcher.sandbox.speech import spoken
from batcher.sandbox.store import top_up

__all__ = ["Knobs", "Running", "running", "serve", "spoken", "top_up"]
