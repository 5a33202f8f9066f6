"""How audio is stored, on disk or in an object store: names, atomic publishing, checks of the bytes, threads."""
