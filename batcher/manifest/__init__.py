"""A manifest becomes rows: `reader` takes the file apart, `columns` knows what a header means, `rows` judges the
values of a row, `faults` gathers what is wrong with any of it."""

from batcher.manifest.columns import REPORT_MARK
from batcher.manifest.reader import Manifest, given_columns, given_takes
from batcher.manifest.rows import READING, Row, Rules, path_of_take

__all__ = ["READING", "REPORT_MARK", "Manifest", "Row", "Rules", "given_columns", "given_takes", "path_of_take"]
