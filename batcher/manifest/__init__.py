"""Everything about a manifest: its formats, encodings, columns and values, and how its faults are reported."""
