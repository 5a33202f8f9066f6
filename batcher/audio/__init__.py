"""How audio is stored on disk: paths, links, atomic publishing, checks of the bytes, the worker threads."""
