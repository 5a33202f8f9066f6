"""Decides when to poll a task next, from the durations of earlier tasks. No I/O, no clock."""
