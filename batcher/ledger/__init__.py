"""The ledger: what was asked, what was paid, what came back. See `ledger.Ledger`."""
