"""What is worth a line beneath the tables: when compiling pays, and what makes a GPU's times unsteady."""

from __future__ import annotations

from collections.abc import Sequence

from tlbench.analysis.compiling import Paying, paying
from tlbench.analysis.summary import Configuration
from tlbench.report import wording


def remarks(rows: Sequence[Configuration]) -> list[str]:
    """Returns sentences on the configurations of a summary, without the full stop."""
    return [*(_compiling(one) for one in paying(rows)), *_clocks(rows)]


def _compiling(one: Paying) -> str:
    what = {"train": ("an epoch", "epoch"), "infer": ("an image", "image")}[one.row["task"]]
    spent = f"{wording.label(one.row)}: compiling takes {wording.number(one.seconds)} s"
    if one.start is None:
        return f"{spent} and never pays: {what[0]} takes no less time"
    return f"{spent}, {what[0]} {wording.number(one.saved)} s less: it pays from {what[1]} {one.start:,} on"


def _clocks(rows: Sequence[Configuration]) -> list[str]:
    free = list(dict.fromkeys(row["device"] for row in rows if row["gpu_clocks_locked"] is False))
    if not free:
        return []
    return [
        f"The clocks of {', '.join(free)} are not locked, so that its times follow its heat and what ran before; "
        "nvidia-smi --lock-gpu-clocks makes them steadier"
    ]
