"""Everything that must survive a crash: items requested, paid for and received. The only part that uses SQL."""
