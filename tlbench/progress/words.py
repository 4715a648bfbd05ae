"""Says in words which cell is being measured, and what came of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from tlbench.data.options import apart_by_text, shortened
from tlbench.data.short_names import apart
from tlbench.grid.axes import AXES
from tlbench.grid.cell import Cell
from tlbench.grid.values import taken, three_digits
from tlbench.records.record import Record

FLAGS = {
    "noisy": "its times were disturbed",
    "throttled": "its times are of a machine that was held back",
    "drifting": "its times changed while it ran",
    "shared": "its times are of a node that it may have shared",
}
"""Validity -> what it means."""
_WAITED = re.compile(r"(\d+%) of it, something waited for a processor")
"""What `tlbench.machine.noise.noisy` says of one round."""
STATUS = {
    "not_applicable": "means nothing here",
    "oom": "OUT OF MEMORY",
    "failed": "FAILED",
    "timeout": "TIMED OUT",
    "diverged": "DIVERGED",
}
"""Status -> how it is written where it is not the plain word."""


class Names:
    """Names cells by what tells them apart: backbone, policy and head, and each axis that has several values."""

    def __init__(self, cells: Sequence[Cell], blocks: Sequence[int] = ()) -> None:
        trained = [cell for cell in cells if cell.task == "train"]
        values = {
            name: {getattr(cell, name) for cell in (trained if axis.training_only else cells)}
            for name, axis in AXES.items()
        }
        always = ("task", "backbone", "freeze", "head")
        self._differs = [name for name, seen in values.items() if len(seen) > 1 and name not in always]
        self._apart = {
            "dataset": apart(sorted(values["dataset"]), _data_set),
            "weights": apart(sorted(values["weights"]), AXES["weights"].label, "folder:"),
        }
        self._blocks = len(set(blocks)) > 1

    def of(self, cell: Cell, block: int = 0, random: bool = False) -> str:
        """Writes ``resnet18 last_1 linear seed 1``; ``random``: its weights turned out to be."""
        training = cell.task == "train"
        parts = [cell.backbone, *(["(random weights)"] if random else []), *([cell.freeze] if training else [])]
        parts.append(cell.head if training else f"{cell.head} inference")
        for name in self._differs:
            axis, value = AXES[name], getattr(cell, name)
            if (axis.training_only and not training) or value is None:
                continue
            parts.append(self._value(name, value))
        if self._blocks:
            parts.append(f"block {block + 1}")
        return " ".join(parts)

    def _value(self, name: str, value: object) -> str:
        if name == "seed":
            return f"seed {value}"
        if name in self._apart and value in self._apart[name]:
            return self._apart[name][str(value)]
        return _data_set(str(value)) if name == "dataset" else AXES[name].label(value)


def _data_set(value: str) -> str:
    kind, colon, path = value.partition(":")
    plain, options = apart_by_text(path)
    return f"{Path(plain).name}{shortened(options)}" or value if colon else kind


def finished(record: Record, brief: bool = False) -> str:
    """Says what came of a cell: its accuracy or speed, what it took, and what is to be known of that; ``brief``: of
    disturbed times no more than that they are.
    """
    if record.status != "ok":
        word = STATUS.get(record.status, record.status.replace("_", " "))
        return f"{word}: {record.reason}" if record.reason else word
    parts = [*_figures(record), _seconds(record)]
    return "; ".join([", ".join(parts), *_remarks(record, brief)])


def round_seconds(record: Record) -> float:
    """Returns what the timed rounds took together: what two measurements of a cell are compared by. What came before
    them (imports, images, a layout to choose) is the first one's alone.
    """
    return sum(one.seconds for one in record.rounds)


def repeated(record: Record, before: float | None) -> str:
    """Says what the rounds took of a cell that is measured once more, beside what they took before."""
    rounds = "epochs" if record.cell.task == "train" else "rounds"
    first = f", {taken(before)} the first time" if before else ""
    text = f"its {rounds} took {taken(round_seconds(record))}{first}: the same once more, to see how far times differ"
    return text if record.status == "ok" else f"{record.status.replace('_', ' ')}: {record.reason}"


def _figures(record: Record) -> list[str]:
    if record.cell.task == "infer":
        samples, seconds = (sum(getattr(r, name) for r in record.rounds) for name in ("samples", "seconds"))
        speed = [f"{three_digits(samples / seconds)} images/s"] if seconds else []
        single = sorted(record.latency_seconds)
        one = [f"{three_digits(1000 * single[len(single) // 2])} ms for one"] if single else []
        return [*speed, *one]
    if record.accuracy_test is not None:
        return [f"{100 * record.accuracy_test:.1f} % on test"]
    return []


def _seconds(record: Record) -> str:
    """Writes ``3.2 s + its share of 50 s``: what the cell took alone, and what it takes of the shared computation."""
    whole, shared = record.wall_seconds or 0.0, float(record.prefix.get("seconds") or 0.0)
    own = whole if record.prefix.get("shared") else max(whole - shared, 0.0)
    return taken(own) + (f" + its share of {taken(shared)}" if shared else "")


def _remarks(record: Record, brief: bool) -> list[str]:
    remarks = []
    if record.validity != "ok" and brief:
        remarks.append(FLAGS.get(record.validity, record.validity))
    elif record.validity != "ok":
        rounds = "epochs" if record.cell.task == "train" else "rounds"
        why = _WAITED.sub(r"other programs wanted the processor \1 of the time", record.validity_reason)
        why = why.replace("rounds", rounds)
        remarks.append(f"{FLAGS.get(record.validity, record.validity)} ({why})")
    return [*remarks, *record.prefix.get("notes", ())]
