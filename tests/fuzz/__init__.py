"""Feeds made-up input to everything that reads from outside, for minutes: no exception but ours, no memory blow-up."""
