"""How much a folder's disk can still take, and how much of that a run could do without: it never takes the room of a
record. Nothing here imports torch.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tlbench.machine.memory import free_bytes

MEMORY_FILE_SYSTEMS = ("tmpfs", "ramfs")
MOUNTS = "/proc/self/mountinfo"


def room_in(folder: str) -> int | None:
    """Returns the bytes that a folder's disk can still take; of one that is memory (a tmpfs), no more than the memory
    has. None where the system does not tell.
    """
    try:
        room = shutil.disk_usage(folder).free
    except (OSError, AttributeError):
        return None
    return min(room, free_bytes()) if lies_in_memory(folder) else room


def lies_in_memory(folder: str) -> bool:
    """Tells whether what is written into a folder takes memory. False where the system does not tell."""
    try:
        lines = Path(MOUNTS).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        place = os.path.realpath(folder)
    except OSError:
        return False
    found, kind = "", ""
    for line in lines:
        before, _, after = line.partition(" - ")
        point = before.split(" ")[4].replace("\\040", " ") if before.count(" ") >= 4 else ""
        within = point == "/" or place == point or place.startswith(f"{point}/")
        if point and within and len(point) >= len(found):  # of two at one place the later one is seen
            found, kind = point, after.split(" ")[0]
    return kind in MEMORY_FILE_SYSTEMS


SPARE_SHARE, SPARE_BYTES = 0.05, 256_000_000
"""Of a disk, so much stays free, whichever is less: records, and the report, may lie on it too."""


def room(folder: str | Path) -> int:
    """Returns how many bytes of a folder's disk may be taken by what a run could do without. Errors: OSError."""
    usage = shutil.disk_usage(folder)
    return max(usage.free - min(SPARE_BYTES, int(SPARE_SHARE * usage.total)), 0)
