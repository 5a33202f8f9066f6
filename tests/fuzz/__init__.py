"""Feeds whatever comes from outside with made-up input for minutes: no exception but ours, no memory blow-up."""
