"""What `doctor` checks to find what would keep a run from working; changes nothing.

All that it creates is a small object in an object store, as a run does.
"""
