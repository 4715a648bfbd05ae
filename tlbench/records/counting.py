"""What counts of runs that are read: of a cell that was measured again, its latest measurement alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tlbench.errors import UserError
from tlbench.records.record import Record
from tlbench.records.resuming import current
from tlbench.records.run_folder import RECORDS, find_run, load


@dataclass(frozen=True, kw_only=True)
class Counting:
    """Holds what counts of a run, and what does not."""

    records: list[Record]
    """The records that count (`tlbench.records.resuming.current`), at least one."""
    superseded: int
    """The number of earlier tries, in whose place others count now."""
    damaged: list[str]
    """As in `Loaded`."""

    @property
    def notes(self) -> list[str]:
        """Says what was left out, a line each."""
        lines = [f"set aside {line}" for line in self.damaged]
        if self.superseded:
            noun = "record" if self.superseded == 1 else "records"
            lines.append(f"{self.superseded} earlier {noun} superseded by later measurements of the same cells")
        return lines


def check_once(runs: Sequence[str | Path]) -> None:
    """Raises UserError when a run is given twice, under whatever names: its records would count double."""
    first: dict[Path, str | Path] = {}
    for run in runs:
        path = find_run(run)
        path = (path / RECORDS if path.is_dir() else path).resolve()
        if path in first:
            also = f" (also as {str(first[path])!r})" if str(first[path]) != str(run) else ""
            raise UserError(f"run {str(run)!r} is given twice{also}; its records would count double")
        first[path] = run


def read_current(run: str | Path) -> Counting:
    """Reads what counts of a run, for everything that reports or compares it. Errors: as `load`; also UserError when
    it has no record.
    """
    loaded = load(run)
    if not loaded.records:
        raise UserError(f"no records in {str(run)!r}; `tlbench run --out DIR` makes some")
    records = current(loaded.records)
    return Counting(records=records, superseded=len(loaded.records) - len(records), damaged=loaded.damaged)
