"""The command line: reads arguments, environment and `batcher.toml`; prints results and sets exit codes."""
