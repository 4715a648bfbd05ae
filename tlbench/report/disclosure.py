"""How much a report shows of what lies behind its records: images, names of files, folders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Disclosure:
    """Says what of a person's data and machine a report may show."""

    thumbnails: bool = True
    """Small pictures of the images that models were the surest about, and wrong, and of those whose labels look wrong.
    Records of a run with ``--thumbnails off`` have none in any case."""
    file_names: bool = True
    """The names of these images' files."""
    clean: Callable[[str], str] | None = None
    """Goes over every text before it is written."""


ALL = Disclosure()
"""Everything, as in one's own reports."""
