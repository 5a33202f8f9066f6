"""Hides how markup, placeholders and speaker names are told from ordinary text, and how they are removed from it."""
