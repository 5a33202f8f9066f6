"""What a manifest may look like: formats, encodings, columns, rules for values, and how errors in it are reported."""
