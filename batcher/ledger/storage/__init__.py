"""That the ledger is one SQLite file: its tables, triggers, migrations, lock, spill file and prepared statements."""
