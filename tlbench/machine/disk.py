"""Room on a disk for what a run could do without: it never takes the room of a record."""

from __future__ import annotations

import shutil
from pathlib import Path

SPARE_SHARE, SPARE_BYTES = 0.05, 256_000_000
"""Of a disk, so much stays free, whichever is less: records, and the report, may lie on it too."""


def room(folder: str | Path) -> int:
    """Returns how many bytes of a folder's disk may be taken by what a run could do without. Errors: OSError."""
    usage = shutil.disk_usage(folder)
    return max(usage.free - min(SPARE_BYTES, int(SPARE_SHARE * usage.total)), 0)
