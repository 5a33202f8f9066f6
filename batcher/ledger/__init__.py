"""Everything that survives a crash: requested, paid and received items. The only part of the package that uses SQL."""
