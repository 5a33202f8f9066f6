"""The command line: arguments, environment and `batcher.toml` in; exit codes and printing out."""
