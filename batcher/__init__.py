"""batcher: a manifest of texts becomes verified speech, through a paid API of asynchronous tasks.

A map, in the order in which a row meets the modules:

* `cli` turns arguments, environment and `batcher.toml` into `settings`.
* `runner` is one run as a table of contents; `stop` holds the reasons why it may end early.
* `opening` has input and ledger ready; `intake` takes the manifests in: `manifest` reads and judges them,
  `ledger.importing` stores their rows and items. Where the ledger is a copy, an older one or new beside audio that it
  lacks, `restoring` recalls what the results files tell, before anything is bought.
* `preflight` finds the account; `guard` decides whether it may create.
* `submitter` claims an item, sends its create once, and records the answer (`ledger.creating`).
* `poller` looks at the task when `pacing` says so, until it has ended (`ledger.collecting`).
* `downloader` fetches the audio, `audio` checks it, `delivery` hands it to the rows, by way of
  `store` (where files belong) and `disk` (what blocks).
* `ending` closes the run: `report`, `summary` and `progress` say what became of it all, with `words`; `tally` counts
  it, `logs` writes it down, `metrics` puts it in figures for a monitor.
* `page` and `sheet` tell of whole batches, for people and for programs; `marks` are what listeners send back.
* Beside a run: `planning` tells what one would do, `deciding` carries out what a person decides, `verifying` compares
  the disk with the ledger and `healing` puts back what is wrong, `doctor` finds out what would keep a run from working.

Below them all: `client` speaks HTTP (`answer` and `parsing` say what an answer means), `throttle` (with `limit`) and
`clock` hold requests back, `ledger` keeps everything that must survive, `item` is the machine that an item goes
through, `person` says who decides, `errors` what can go wrong. `sandbox` is the provider's API on this machine, with
real speech.
"""

__version__ = "0.1.0"
