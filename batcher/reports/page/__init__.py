"""How the report's HTML page is made: one file that loads nothing from any network."""
