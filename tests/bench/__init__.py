"""Measurements, each run by its own command. They print ratios within one run and judge nothing by the clock."""
