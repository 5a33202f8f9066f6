"""`python -m batcher`."""

from batcher.cli.app import main

main()
