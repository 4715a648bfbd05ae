"""Records -> report.html (one self-contained file), report.md, report.csv. No torch; made again at any time."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import tlbench
from tlbench import recommend, wording
from tlbench.errors import NotApplicable, UserError
from tlbench.frame import (
    SUMMARY,
    frame,
    machine_differences,
    machine_key,
    summarise,
    write_csv,
)
from tlbench.record import Record

TEMPLATES = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of the report's table."""

    name: str
    """Of `tlbench.frame.SUMMARY`: what the column sorts by."""
    heading: str
    draw: Callable[[Any], str] = wording.text
    with_interval: bool = False


TABLE: tuple[Column, ...] = (
    Column(name="task", heading="task"),
    Column(name="backbone", heading="backbone"),
    Column(name="weights", heading="weights"),
    Column(name="freeze", heading="freeze"),
    Column(name="head", heading="head"),
    Column(name="dataset", heading="data set"),
    Column(name="device", heading="device"),
    Column(name="precision", heading="precision"),
    Column(name="batch_size", heading="batch"),
    Column(name="image_size", heading="pixels"),
    Column(name="epochs", heading="epochs"),
    Column(name="variant", heading="other settings"),
    Column(name="accuracy_test", heading="test accuracy", draw=wording.percent, with_interval=True),
    Column(name="accuracy_val", heading="validation accuracy", draw=wording.percent, with_interval=True),
    Column(name="epoch_seconds", heading="epoch, s", draw=wording.number, with_interval=True),
    Column(name="training_seconds", heading="training, s", draw=wording.number, with_interval=True),
    Column(name="images_per_second", heading="images/s", draw=wording.number, with_interval=True),
    Column(name="latency_p50_ms", heading="p50, ms", draw=wording.number, with_interval=True),
    Column(name="latency_p95_ms", heading="p95, ms", draw=wording.number, with_interval=True),
    Column(name="trainable_parameters", heading="trainable parameters", draw=wording.whole),
    Column(name="total_parameters", heading="parameters", draw=wording.whole),
    Column(name="peak_memory_bytes", heading="memory", draw=wording.size),
    Column(name="seeds", heading="seeds", draw=wording.whole),
    Column(name="status", heading="status"),
)
NUMBERS = {c.name for c in TABLE[TABLE.index(next(c for c in TABLE if c.name == "accuracy_test")) : -1]}


def write_report(records: Sequence[Record], folder: str | Path, runs: Sequence[str] | None = None) -> Path:
    """Writes report.html, report.md and report.csv into the folder; returns the path of the first.

    ``runs`` names the run of each record; without it all are of one run, named after the folder.
    Errors: UserError when the folder cannot be written.
    """
    folder = Path(folder)
    names = runs if runs is not None else [folder.name] * len(records)
    context = _context(records, names)
    summary = context["summary"]
    text = io.StringIO()
    write_csv(summary, text, tuple(SUMMARY))
    environment = _environment()
    files = {
        "report.csv": text.getvalue(),
        "report.md": environment.get_template("report.md.j2").render(context),
        "report.html": environment.get_template("report.html.j2").render(context),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name).write_text(content, encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"cannot write the report to {str(folder)!r}: {error.strerror}; choose another with --out"
        ) from None
    return folder / "report.html"


def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=lambda name: name is None or ".html" in name,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["inline"] = lambda name: Markup((TEMPLATES / name).read_text(encoding="utf-8"))
    environment.filters["md"] = _markdown
    return environment


def _markdown(value: Any) -> str:
    """Text that Markdown shows as it is, also inside a table."""
    return re.sub(r"([\\`*_{}\[\]<>#|~])", r"\\\1", str(value)).replace("\n", " ")


def _context(records: Sequence[Record], runs: Sequence[str]) -> dict[str, Any]:
    from tlbench.frame import row

    table = [row(record, run) for record, run in zip(records, runs, strict=True)]
    summary = summarise(table)
    floor = recommend.noise_floor(table)
    scopes = recommend.verdicts(summary, floor.relative if floor else None)
    columns = [c for c in TABLE if _says_something(c, summary)]
    return {
        "wording": wording,
        "version": tlbench.__version__,
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "runs": list(dict.fromkeys(runs)),
        "records": records,
        "summary": summary,
        "scopes": scopes,
        "columns": columns,
        "numbers": NUMBERS,
        "cell": _cell,
        "raw": _raw,
        "machines": _machines(records),
        "differences": machine_differences(records),
        "floor": floor,
        "not_ok": [r for r in summary if r["status"] != "ok"],
        "weights": _weights(summary),
        "figures": _figures(table),
    }


def _says_something(column: Column, summary: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a column holds anything; one of the settings, whether it differs between rows."""
    values = {row[column.name] for row in summary} - {None, ""}
    return len(values) > 1 if column.name in wording.SOMETIMES else bool(values)


def _cell(column: Column, row: Mapping[str, Any]) -> str:
    return column.draw(row[column.name])


def _raw(value: Any) -> str:
    """The value as the CSV has it."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(["" if value is None else value, ""])
    return text.getvalue()[:-1]


def _weights(summary: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Weights -> backbone -> where they come from, or why there are none."""
    found: dict[str, dict[str, str]] = {}
    for row in summary:
        if row["weights_source"]:
            reason = f"{row['weights_source']}" + (f" ({row['weights_reason']})" if row["weights_reason"] else "")
            found.setdefault(row["weights"], {})[row["backbone"]] = reason
    return found


def _machines(records: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """Machine -> stable facts, settings and the devices and runs that used it."""
    found: dict[str, dict[str, Any]] = {}
    for record in records:
        environment = record.environment
        entry = found.setdefault(
            machine_key(record),
            {"stable": environment.get("stable", {}), "settings": environment.get("settings", {}), "devices": {}},
        )
        entry["devices"][record.cell.device] = None
    return found


def _figures(table: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each plot as SVG in the page's own colours, or why it cannot be drawn."""
    from markupsafe import Markup

    from tlbench import plots

    data = frame(table)
    figures = []
    for name, plot in plots.PLOTS.items():
        try:
            svg: Any = Markup(_svg(plot.draw(data)))
            reason = ""
        except NotApplicable as error:
            svg, reason = None, str(error)
        figures.append({"name": name, "title": plot.title, "caption": plot.caption, "svg": svg, "reason": reason})
    return figures


def _svg(figure: Any) -> str:
    import matplotlib as mpl

    from tlbench import plots

    text = io.StringIO()
    with mpl.rc_context(plots.STYLE):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].replace(plots.INK, "currentColor")
    return svg
