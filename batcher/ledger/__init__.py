"""Everything that survives a crash: what was asked for, paid for and received. The only part that speaks SQL."""
