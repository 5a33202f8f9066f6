"""Measurements, each run by its own command; what they print are ratios within one run, never a verdict by the clock."""
