"""Records -> a folder with report.html (one self-contained file), Markdown, CSV, Parquet and figures.

Everything is made from records alone, without torch, and can be made again at any time. What is in the page is worked
out in `tlbench.report.contents`; the templates, the style and the script lie beside this file. A part that cannot be
made costs that part and a line (`tlbench.report.parts`); what is made comes into place at once
(`tlbench.report.together`). One file, since it is the order of a report's parts.
"""

from __future__ import annotations

import functools
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlbench.analysis.deciding import metric_for
from tlbench.analysis.figures import COLUMNS
from tlbench.analysis.frame import figures_of, rows, with_seldom, write_csv
from tlbench.analysis.summary import Configuration
from tlbench.console import because, say
from tlbench.errors import NotApplicable, UserError, printable
from tlbench.machine.beside import beside
from tlbench.machine.imports import uncollected
from tlbench.machine.markdown import markdown
from tlbench.records.record import Record
from tlbench.report import class_pictures, contents, markup, suspect_pictures
from tlbench.report.columns import columns_of
from tlbench.report.disclosure import ALL, Disclosure
from tlbench.report.parts import Parts
from tlbench.report.together import Lost, replace_together

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from tlbench.report.plots.look import Plot

FOLDER = Path(__file__).parent
Table = tuple[Sequence[Mapping[str, Any]], Sequence[str]]
"""Rows, and the columns that are written."""
PAGES = ("report.html", "report.md")
MANY = 300
"""Configurations from which on figures are drawn beside the rest: for fewer, a copy of the process saves nothing."""
TABLES = ("report.csv", "report.parquet", "records.parquet")


def write_report(
    records: Sequence[Record],
    folder: str | Path,
    runs: Sequence[str] | None = None,
    made: datetime | None = None,
    disclosure: Disclosure = ALL,
    tell: Callable[[str], None] = say,
) -> Path:
    """Writes report.html and beside it report.md, report.csv and report.parquet (a row a configuration),
    records.parquet (a row a record) and figures/ (PNG and SVG), all at once in the place of an earlier report. Returns
    the path of report.html. Parquet needs the extra ``tlbench[parquet]``.

    ``runs`` names the run of each record; without it all are of one run, that of the folder. ``disclosure`` says what
    of a person's data it may show. A part that cannot be made is left out, and ``tell`` is given a line that says so.
    Errors: UserError when the folder cannot be written or nothing can be made; an earlier report stays as it was.
    """
    folder = Path(folder)
    table = rows(records, runs if runs is not None else str(folder))
    summary = contents.ordered(table)
    metric_for(summary)  # runs that go by different ones have no verdict, and so no page, together
    parts = Parts(clean=disclosure.clean)
    with beside(functools.partial(_drawn, summary, disclosure), worth_it=len(summary) >= MANY) as drawn:
        columns = with_seldom(COLUMNS, table)
        pictures = functools.partial(class_pictures.of_picks, disclosure=disclosure)
        suspects = parts.make("its suspect labels", suspect_pictures.of_data_sets, summary, disclosure) or []
        hidden = frozenset[str]() if disclosure.file_names else frozenset({"image_results"})  # where they lie
        parquet = _parquet(
            {"report.parquet": (summary, columns_of(summary)), "records.parquet": (table, columns)}, parts, hidden
        )
        parts.add("report.csv", _csv, summary)
        given = (table, summary, made or datetime.now(UTC), pictures, suspects)
        context = parts.make(" and ".join(PAGES), contents.context, *given)
        figures, files, lost = _unpacked(drawn())
    parts.files |= files
    parts.lost[:0] = lost
    for name in PAGES if context is not None else ():
        parts.add(name, _page, name, {**(context or {}), **contents.of_figures(figures), **parquet})
    return _put(parts, folder, [figure["name"] for figure in figures], tell)


def _put(parts: Parts, folder: Path, figures: Iterable[str], tell: Callable[[str], None]) -> Path:
    """Writes what was made, the most important first, should there be no room for all. Returns the first one's path."""
    order = [name for name in (*PAGES, *TABLES[:1], *parts.files) if name in parts.files]
    files = {name: parts.files[name] for name in order}
    if not files:
        raise UserError(f"no part of the report can be made: {'; '.join(parts.lost)}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lost = replace_together(folder, files, _earlier(folder, figures))
    except (OSError, ValueError) as error:
        raise _unwritable(folder, getattr(error, "strerror", None) or str(error)) from None
    for line in [*parts.lost, *_not_written(lost)]:
        tell(line)
    if reasons := [reason for name, reason in lost if name == order[0]]:
        raise _unwritable(folder, reasons[0])
    return folder / order[0]


def _unwritable(folder: Path, reason: str) -> UserError:
    return UserError(
        f"cannot write the report to {str(folder)!r}: {reason}; what is there stays; "
        "tlbench report RUN --out DIR writes it elsewhere"
    )


def _earlier(folder: Path, figures: Iterable[str]) -> set[str]:
    """Returns the names that an earlier report's files may have. Which figures it had its own page tells: what else
    lies among them is somebody else's.
    """
    page = ""
    with suppress(OSError):
        page = (folder / PAGES[0]).read_text(encoding="utf-8", errors="replace")
    drawn = {*figures, *re.findall(r'<figure id="figure-([\w-]+)">', page)}
    return {*PAGES, *TABLES, *(f"figures/{name}.{ending}" for name in drawn for ending in ("png", "svg"))}


MOST_NAMES = 3


def _not_written(lost: Sequence[Lost]) -> list[str]:
    """Says what there was no room for, or no right to write, a line for each reason."""
    reasons: dict[str, list[str]] = {}
    for name, reason in lost:
        reasons.setdefault(reason, []).append(name)
    return [
        f"the report lacks {', '.join(names[:MOST_NAMES])}"
        + (f" and {len(names) - MOST_NAMES} files more" if len(names) > MOST_NAMES else "")
        + f": {reason}"
        for reason, names in reasons.items()
    ]


# --- pages ----------------------------------------------------------------------------------------------------


def _page(name: str, context: Mapping[str, Any]) -> str:
    text: str = _templates().get_template(f"{name}.j2").render(context)
    return text


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
    environment.filters["md"] = markdown
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


# --- figures --------------------------------------------------------------------------------------------------


def _drawn(summary: Sequence[Configuration], disclosure: Disclosure) -> bytes:
    """Returns all figures as the page has them, lines on what could not be drawn, and files, for `_unpacked`."""
    parts = Parts(clean=disclosure.clean)
    figures = _figures(summary, parts)
    sizes = {name: len(content) for name, content in parts.files.items()}
    told = json.dumps({"figures": figures, "lost": parts.lost, "sizes": sizes}).encode()
    return b"\n".join((told, b"".join(parts.files.values())))


def _unpacked(drawn: bytes) -> tuple[list[dict[str, Any]], dict[str, bytes], list[str]]:
    """Returns figures, the content of their files by name, and lines on what could not be drawn, of `_drawn`."""
    from markupsafe import Markup

    told, _, rest = drawn.partition(b"\n")  # JSON has none
    known = json.loads(told)
    figures = [{**one, "svg": one["svg"] and Markup(one["svg"])} for one in known["figures"]]
    files, start = {}, 0
    for name, size in known["sizes"].items():
        files[name] = rest[start : start + size]
        start += size
    return figures, files, known["lost"]


def _figures(summary: Sequence[Configuration], parts: Parts) -> list[dict[str, Any]]:
    """Draws all figures; without matplotlib, or with one that does not start, none."""
    try:
        from tlbench.report import plots
        from tlbench.report.plots import look
    except Exception as error:
        reason = f"matplotlib does not start: {because(error)}"
        parts.lost.append(f"the report lacks its figures: {reason}")
        return [{"name": "all", "title": "All figures", "caption": "", "svg": None, "reason": reason}]
    drawn = look.shown(summary)
    figures = []
    for name, plot in plots.PLOTS.items():
        with uncollected():  # a figure is garbage once it is written, and not before
            figures.append(_figure(name, plot, drawn, parts))
    return figures


def _figure(name: str, plot: Plot, summary: Sequence[Configuration], parts: Parts) -> dict[str, Any]:
    """Makes a figure as PNG and SVG; returns it as SVG in the page's own colours, or why it cannot be drawn."""
    from markupsafe import Markup

    from tlbench.report.plots import look
    from tlbench.report.plots.picture import in_style

    labels = {"name": name, "title": plot.title, "caption": plot.caption}
    try:
        if plot.words is not None:
            labels["caption"] = " ".join([plot.caption, *plot.words(summary)])
        with in_style(look.STYLE):  # also what a plugin draws
            figure = plot.draw(summary)
        svg = look.as_svg(figure, name)
        inline = Markup(markup.inline_svg(svg, plot.title))
    except NotApplicable as error:
        return {**labels, "svg": None, "reason": str(error)}
    except Exception as error:
        parts.lost.append(f"the report lacks the figure {plot.title!r}: {because(error)}")
        return {**labels, "svg": None, "reason": because(error)}
    parts.add(f"figures/{name}.svg", lambda: svg)
    ending = "png" if parts.add(f"figures/{name}.png", _png, figure) else "svg"
    return {**labels, "svg": inline, "file": f"{name}.{ending}", "reason": ""}


def _png(figure: Figure) -> bytes:
    """Returns a figure that `look.as_svg` has laid out: laying it out again would take as long as drawing it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from tlbench.report.plots import look
    from tlbench.report.plots.picture import in_style

    file = io.BytesIO()
    with in_style(look.STYLE):  # ticks are made when they are drawn
        figure.set_layout_engine("none")
        figure.set_dpi(look.DOTS_PER_INCH)
        figure.set_facecolor("white")
        canvas: Any = FigureCanvasAgg(figure)
        canvas.print_png(file)
    return file.getvalue()


# --- tables ---------------------------------------------------------------------------------------------------


def _csv(summary: Sequence[Configuration]) -> str:
    text = io.StringIO()
    write_csv(summary, text, columns_of(summary))
    return text.getvalue()


def _parquet(tables: Mapping[str, Table], parts: Parts, hidden: frozenset[str]) -> dict[str, bool]:
    """Makes rows and columns a file under each name; what is ``hidden`` is none. Returns what the pages are told:
    whether they are there, and whether pyarrow, an extra, is not installed.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        return {"parquet": False, "lacks_pyarrow": True}
    except Exception as error:
        parts.lost.append(f"the report lacks its Parquet files: pyarrow does not start: {because(error)}")
        return {"parquet": False, "lacks_pyarrow": False}

    def content(table: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> bytes:
        # Not by a file's name, which may look like an address to pyarrow (exp:1/report.parquet).
        file = io.BytesIO()
        told = zip(columns, figures_of(table, columns), strict=True)
        arrays = {
            column: pa.array([None] * len(found) if column in hidden else _all_plain(found)) for column, found in told
        }
        parquet.write_table(pa.table(arrays), file, compression="zstd")
        arrays.clear()
        pa.default_memory_pool().release_unused()  # else it stays taken until the process ends
        return file.getvalue()

    made = [parts.add(name, functools.partial(content, *table)) for name, table in tables.items()]
    return {"parquet": all(made), "lacks_pyarrow": False}


NUMBERS = {float, int, bool, type(None)}
TEXTS = {str, type(None)}


def _all_plain(column: list[Any]) -> list[Any]:
    """Returns values as Parquet takes them."""
    kinds = set(map(type, column))
    if kinds <= NUMBERS:
        return column
    if kinds <= TEXTS:  # of which there are few different ones
        texts = {text: _plain(text) for text in set(column)}
        return [texts[text] for text in column]
    return list(map(_plain, column))


def _plain(value: Any) -> Any:
    """Returns mappings as JSON, since as Parquet's structs they would have every key that any row has, and what is no
    text (half a character, of a path that is none) spelt out.
    """
    kind = type(value)
    if kind in NUMBERS:
        return value
    if kind is str:
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode("utf-8")
    if kind in (list, tuple):
        return [_plain(one) for one in value] if any(type(one) is str for one in value) else value
    return _plain(json.dumps(value, ensure_ascii=False)) if isinstance(value, Mapping) else value
