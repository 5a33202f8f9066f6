"""How the ledger is one SQLite file: tables, triggers, migrations, indexes, lock, spill file, prepared statements."""
