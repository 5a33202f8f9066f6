"""How one run takes rows from a manifest to delivered audio, in which order, and why it stops."""
