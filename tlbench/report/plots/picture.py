"""A figure as a notebook shows it, or what is missing for it: the same whatever matplotlib's settings are here."""

from __future__ import annotations

import html
import io
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import matplotlib as mpl
from matplotlib.figure import Figure

from tlbench.errors import UserError

DOTS_PER_INCH = 150
ELSEWHERE = ("backend", "webagg", "toolbar", "interactive", "timezone", "tk", "docstring", "date.epoch", "savefig.dir")
"""Beginnings of the settings that say how matplotlib talks to a screen, and nothing of how a figure looks."""
DEFAULTS: Mapping[str, Any] = {
    name: value for name, value in mpl.rcParamsDefault.items() if not name.startswith(ELSEWHERE)
}


@contextmanager
def in_style(style: Mapping[str, Any]) -> Iterator[None]:
    """Gives what is drawn or written within matplotlib's own defaults and this style, whatever a matplotlibrc says."""
    settings: Any = {**DEFAULTS, **style}
    with warnings.catch_warnings(), mpl.rc_context(settings):
        # Else a line for each character that the font lacks, and for each axis of a single point.
        warnings.filterwarnings("ignore", "Glyph .* missing from|Attempting to set identical low and high")
        yield


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """A picture is what a call of a plot gives: a notebook shows it by itself, black on white, or the reason why there
    is none.
    """

    title: str
    figure: Figure | None
    """matplotlib's figure; None where it cannot be drawn."""
    missing: str = ""
    """Says what the frame lacks where there is no figure."""
    style: Mapping[str, Any] = field(default_factory=dict)
    """matplotlib's settings that it is written with."""

    def savefig(self, path: str | Path | IO[bytes], **options: Any) -> None:
        """Writes the figure to a file, by the ending of its name; options are those of matplotlib's ``savefig``, such
        as ``format`` for a file that is open already.

        Errors: UserError where there is no figure, or the file cannot be written.
        """
        try:
            self._write(path, **options)
        except OSError as error:
            raise UserError(f"cannot write {str(path)!r}: {error.strerror}; choose another file") from None

    def _write(self, file: Any, **options: Any) -> None:
        if self.figure is None:
            raise UserError(self._reason())
        with in_style(self.style):
            self.figure.savefig(file, **{"dpi": DOTS_PER_INCH, "facecolor": "white", **options})

    def _reason(self) -> str:
        return f"{self.title}: not drawn, since {self.missing}"

    def __repr__(self) -> str:
        if self.figure is None:
            return self._reason()
        return f"{self.title} (a figure: savefig(path) writes it, figure is matplotlib's)"

    def _repr_png_(self) -> bytes | None:
        if self.figure is None:
            return None
        content = io.BytesIO()
        self._write(content, format="png")
        return content.getvalue()

    def _repr_html_(self) -> str | None:
        return None if self.figure is not None else f"<p>{html.escape(self._reason())}</p>"
