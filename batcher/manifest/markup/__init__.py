"""Hides how markup, placeholders and speaker names are recognised in texts, and how they are removed."""
