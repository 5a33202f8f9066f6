"""How a manifest is staged, compared with what is paid for, and merged in one transaction, or only previewed."""
