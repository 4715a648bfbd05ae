"""The folder of a run in which cells leave their weights (`tlbench.kept.left`): what is there, what stays, what goes.
Nothing here imports torch.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path

TRAINED = "trained"
"""Folder of these weights, in that of a run."""
MOST_FILES, MOST_BYTES = 12, 2 * 10**9
"""How many of them stay, and the bytes of all of them together."""


def name_of(id: str, block: int) -> str:
    """Names the file of a measurement: ids have characters that names of files may not have."""
    return f"{hashlib.sha256(id.encode()).hexdigest()[:32]}-{block}.safetensors"


def left_in(run: Path) -> set[str]:
    """Returns the names of the weights that lie in a run's folder."""
    return {path.name for path in (run / TRAINED).glob("*.safetensors")}


def keep_the_best(accuracies: Mapping[str, float], folder: Path) -> None:
    """Removes the weights (name of the file -> accuracy) of cells that are behind on validation images where there are
    too many. Errors: OSError.
    """
    found = {path.name: path.stat().st_size for path in folder.glob("*.safetensors")}
    if len(found) <= MOST_FILES and sum(found.values()) <= MOST_BYTES:
        return
    size = 0
    for number, name in enumerate(sorted(found, key=lambda name: -accuracies.get(name, 0.0))):
        size += found[name]
        if number >= MOST_FILES or (size > MOST_BYTES and number):
            (folder / name).unlink(missing_ok=True)


def give_way(run: Path) -> bool:
    """Removes what the cells of a run have left, where something has to go. Returns whether there was anything."""
    there = any((run / TRAINED).glob("*"))
    shutil.rmtree(run / TRAINED, ignore_errors=True)
    return there
