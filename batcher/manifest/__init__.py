"""A manifest becomes rows: `reader` takes the file apart, `columns` knows what a header means, `rows` judges the
values of a row, `faults` gathers what is wrong with any of it."""

from batcher.manifest.reader import Manifest
from batcher.manifest.rows import Row, Rules

__all__ = ["Manifest", "Row", "Rules"]
