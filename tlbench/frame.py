"""The tidy frame of a run for notebooks: ``from tlbench.frame import COLUMNS, load``."""

from tlbench.analysis.frame import COLUMNS, EXPORT_COLUMNS, SELDOM, frame, load, row, rows

__all__ = ["COLUMNS", "EXPORT_COLUMNS", "SELDOM", "frame", "load", "row", "rows"]
