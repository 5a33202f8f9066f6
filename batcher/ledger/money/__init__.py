"""Prices, spending, budgets, and the balances around a create in doubt."""
