"""A local implementation of the provider's API with real speech: for trials, for rehearsing failures, and for tests.

Running it needs the `sandbox` extra; importing it does not.
"""
