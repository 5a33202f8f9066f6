"""batcher turns a manifest of texts into verified speech, through a paid API of asynchronous tasks.

A row's way: `manifest` reads and checks it, `ledger.imports` stores it, `pipeline.submitter` claims its item and sends
the create (`ledger.lifecycle.claims`, `answers`), `pipeline.poller` polls the task until it ends, `pipeline.downloader`
downloads and checks the audio, `pipeline.delivery` links it to the row. `pipeline.runner` is one run as a table of
contents; `pipeline.credit_guard` stops it when credits run out.

Each folder's `__init__` states what the folder hides. Imports point downwards only, in the order of
`.github/CONTRIBUTING.md`.
"""

__version__ = "0.1.0"
