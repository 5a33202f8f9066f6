"""How audio is kept on disk: paths, links, atomic publishing, checks of the bytes, and the threads that do the work."""
