"""How a manifest is staged, compared with earlier purchases, and merged in one transaction, or only previewed."""
