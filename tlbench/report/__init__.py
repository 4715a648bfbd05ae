"""Records -> a folder with report.html (one self-contained file), Markdown, CSV, Parquet and figures.

Everything is made from records alone, without torch, and can be made again at any time. What is in the page is worked
out in `tlbench.report.contents`; the templates, the style and the script lie beside this file.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlbench.analysis.figures import COLUMNS
from tlbench.analysis.frame import rows, values, write_csv
from tlbench.analysis.summary import SUMMARY, Configuration
from tlbench.errors import NotApplicable, UserError, printable
from tlbench.records.record import Record
from tlbench.report import contents, markup, plots
from tlbench.report.plots import look

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FOLDER = Path(__file__).parent
Table = tuple[Sequence[Mapping[str, Any]], Sequence[str]]
"""Rows, and the columns that are written."""


def write_report(
    records: Sequence[Record],
    folder: str | Path,
    runs: Sequence[str] | None = None,
    made: datetime | None = None,
) -> Path:
    """Writes report.html and beside it report.md, report.csv and report.parquet (a row a configuration),
    records.parquet (a row a record) and figures/ (PNG and SVG). Returns the path of report.html. Parquet needs the
    extra ``tlbench[parquet]``.

    ``runs`` names the run of each record; without it all are of one run, that of the folder. Errors: UserError when
    the folder cannot be written.
    """
    folder = Path(folder)
    table = rows(records, runs if runs is not None else str(folder))
    summary = contents.ordered(table)
    try:
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        drawn = [{name: _shown(value) for name, value in row.items()} for row in summary]
        figures = [_write_figure(name, drawn, folder / "figures") for name in plots.PLOTS]
        parquet: dict[str, Table] = {
            "report.parquet": (summary, tuple(SUMMARY)),
            "records.parquet": (table, tuple(COLUMNS)),
        }
        written = _write_parquet(parquet, folder)
        context = contents.context(table, summary, figures, made or datetime.now(UTC)) | {"parquet": written}
        text = io.StringIO()
        write_csv(summary, text, tuple(SUMMARY))
        (folder / "report.csv").write_text(text.getvalue(), encoding="utf-8")
        templates = _templates()
        for name in ("report.md", "report.html"):
            (folder / name).write_text(templates.get_template(f"{name}.j2").render(context), encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"cannot write the report to {str(folder)!r}: {error.strerror}; choose another folder with --out"
        ) from None
    return folder / "report.html"


def _templates() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=lambda name: name is None or ".html" in name,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.globals["inline"] = lambda name: Markup((FOLDER / name).read_text(encoding="utf-8"))
    environment.filters["md"] = markup.markdown
    environment.filters["code"] = markup.code
    environment.filters["unbroken"] = markup.unbroken
    environment.filters["json"] = lambda value: Markup(_json(value))
    return environment


def _shown(value: Any) -> Any:
    """Returns what is put into a template; of a text that is no markup, what a reader may safely see."""
    return printable(value, keep="\n") if type(value) is str else value


def _all_shown(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {_shown(name): _all_shown(inner) for name, inner in value.items()}
    return [_all_shown(inner) for inner in value] if isinstance(value, list | tuple) else _shown(value)


def _dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _json(value: Any) -> str:
    """Returns JSON that may stand inside a script element: no text in it can end the element, and what no screen shows
    is spelt out in it.
    """
    text = _dumped(value)
    if printable(text) != text or re.search(r"\\[bfru]", text):  # once for all, since there may be 10,000 cells
        text = _dumped(_all_shown(value))
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def _write_figure(name: str, summary: Sequence[Configuration], folder: Path) -> dict[str, Any]:
    """Writes a figure as PNG and SVG; returns it as SVG in the page's own colours, or why it cannot be drawn."""
    from markupsafe import Markup

    plot = plots.PLOTS[name]
    labels = {"name": name, "title": plot.title, "caption": plot.caption}
    try:
        figure = plot.draw(summary)
    except NotApplicable as error:
        for old in (folder / f"{name}.png", folder / f"{name}.svg"):
            old.unlink(missing_ok=True)  # of an earlier report of this folder
        return {**labels, "svg": None, "reason": str(error)}
    svg = look.as_svg(figure, name)
    _write_png(figure, folder / f"{name}.png")
    (folder / f"{name}.svg").write_text(svg, encoding="utf-8")
    return {**labels, "svg": Markup(markup.inline_svg(svg, plot.title)), "reason": ""}


def _write_png(figure: Figure, path: Path) -> None:
    """Writes a figure that `look.as_svg` has laid out: laying it out again would take as long as drawing it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set_layout_engine("none")
    figure.set_dpi(look.DOTS_PER_INCH)
    figure.set_facecolor("white")
    canvas: Any = FigureCanvasAgg(figure)
    canvas.print_png(path)


def _write_parquet(tables: Mapping[str, Table], folder: Path) -> bool:
    """Writes rows and columns under each file name. Returns False where pyarrow, an extra, is not installed."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        for name in tables:
            (folder / name).unlink(missing_ok=True)  # of an earlier report of this folder
        return False
    for name, (table, columns) in tables.items():
        arrays = {column: pa.array(list(map(_plain, values(table, column)))) for column in columns}
        parquet.write_table(pa.table(arrays), folder / name, compression="zstd")
    return True


def _plain(value: Any) -> Any:
    """Returns mappings as JSON: as Parquet's structs they would have every key that any row has."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, Mapping) else value
