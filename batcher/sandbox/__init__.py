"""The provider's API on this machine with real speech, to try things out, to rehearse trouble and for the tests.

Starting it needs the `sandbox` extra; importing it does not.
"""
