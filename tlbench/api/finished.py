"""A run that has been measured, as a script or a notebook holds it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlbench.errors import UserError, lookup
from tlbench.records.run_folder import find_run, holds_a_run

if TYPE_CHECKING:
    import pandas as pd

    from tlbench.records.record import Record


class Verdict:
    """A verdict is what to use and how sure that is: `str` of it has the sentences that the terminal prints."""

    def __init__(self, text: str, picks: Sequence[dict[str, Any]]) -> None:
        self._text = text
        self.picks = list(picks)
        """The answers, for each data set, device and machine: ``question``, ``standing``, ``reason``, ``command``, and
        of the configuration that answers, what is known of the columns of report.csv."""

    def __str__(self) -> str:
        return self._text

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from tlbench.report.notebook import preformatted

        return preformatted(self._text)


class Run:
    """A run is a folder of records, read when they are first asked for. Shown by itself it is the table."""

    def __init__(self, folder: str | Path, metric: str | None = None) -> None:
        """Takes the folder of a run, its name under results/, or ``latest``; ``metric`` is to decide its verdict in the
        place of the one that it was measured for (``--metric``). Errors: UserError when there is none of these.
        """
        from tlbench.analysis.metrics import DECIDING

        if metric is not None:
            lookup(DECIDING, "metric", metric)
        self._metric = metric
        found = find_run(folder)
        self.folder: Path = (found if found.is_dir() else found.parent).absolute()

    @cached_property
    def records(self) -> list[Record]:
        """Returns what counts of the run's records. Errors: UserError when there are none, or they cannot be read."""
        from tlbench.analysis.deciding import deciding
        from tlbench.records.counting import read_current

        return list(deciding(read_current(self.folder).records, self._metric))

    @cached_property
    def frame(self) -> pd.DataFrame:
        """Returns the records as a pandas frame, as `tlbench.load` gives it. Errors: as `records`."""
        from tlbench.analysis.frame import load

        return load(self.folder)

    @cached_property
    def verdict(self) -> Verdict:
        """Returns what to use, and how sure that is. Errors: as `records`."""
        from tlbench.report.notebook import picks, verdict

        return Verdict(verdict(self.records, str(self.folder)), picks(self.records, str(self.folder)))

    @property
    def model(self) -> Path | None:
        """Returns the folder of the model that ``keep="best"`` has kept last, for `tlbench.load_model`; None without
        one.
        """
        from tlbench.kept.card import CARD

        found = [card.parent for card in self.folder.glob(f"model*/{CARD}")]
        return max(found, key=lambda folder: (folder / CARD).stat().st_mtime_ns, default=None)

    def report(self, out: str | Path | None = None, thumbnails: bool = True) -> Path:
        """Writes report.html and what belongs to it into the run's folder, or into ``out``; returns its path. Without
        ``thumbnails`` no picture of an image is in it.

        Errors: UserError when the folder cannot be written, or is that of another run.
        """
        from tlbench.report import write_report
        from tlbench.report.disclosure import Disclosure

        folder = self.folder if out is None else Path(out)
        if holds_a_run(folder) and not folder.samefile(self.folder):
            raise UserError(f"{str(folder)!r} is the folder of another run, whose report would be overwritten")
        records = self.records
        return write_report(
            records, folder, [str(self.folder)] * len(records), disclosure=Disclosure(thumbnails=thumbnails)
        )

    def __repr__(self) -> str:
        """Returns the table as the terminal prints it, or why there is none."""
        from tlbench.report.notebook import table

        try:
            text = table(self.records, str(self.folder), shutil.get_terminal_size().columns)
        except UserError as error:
            text = str(error)
        return f"{text}\nRun: {self.folder}"

    def _repr_html_(self) -> str:
        from tlbench.report.notebook import preformatted, table_html

        try:
            return table_html(self.records, str(self.folder), f"Run: {self.folder}")
        except UserError as error:
            return preformatted(str(error))
