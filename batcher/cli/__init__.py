"""The command line: arguments, environment and `batcher.toml` become settings; errors become exit codes."""

from batcher.cli.main import main

__all__ = ["main"]
