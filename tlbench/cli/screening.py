"""The command `screen`: which backbones are worth training, by their features alone."""

from __future__ import annotations

import io
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tlbench.cli.app import Plugins, load, new_console
from tlbench.cli.running import with_folder
from tlbench.console import surviving
from tlbench.errors import UserError, printable
from tlbench.grid.axes import AXES, parse_axis

if TYPE_CHECKING:
    from rich.console import Console

    from tlbench.analysis.screens import Screened
    from tlbench.campaign.seen import Seen
    from tlbench.grid.cell import Cell
    from tlbench.grid.grid import Grid
    from tlbench.grid.settings import Settings

HEADINGS = {
    "backbone": "backbone",
    "ridge": "ridge",
    "knn": "kNN",
    "logme": "LogME",
    "top1": "ImageNet top-1",
    "parameters": "parameters",
    "image_size": "px",
    "seconds": "s",
    "weights": "weights",
}
"""Field of `tlbench.analysis.screens.Screened` -> heading of its column in the terminal."""


def screen(
    photographs: Annotated[
        str | None, typer.Argument(metavar="PATH", help="folder of images, as --dataset folder:PATH, or any data set")
    ] = None,
    dataset: Annotated[str | None, typer.Option(metavar="DATASET", help="one of `tlbench list datasets`")] = None,
    backbone: Annotated[
        str, typer.Option(metavar="NAME[,…]", help="names and patterns: 'resnet*,convnext*,timm:vit_small*'")
    ] = "efficientnet_lite*",
    weights: Annotated[
        str,
        typer.Option(metavar="WEIGHTS", help="auto or pretrained (here, or downloaded), random"),
    ] = "auto",
    image_size: Annotated[
        int | None, typer.Option(min=8, metavar="N", help="pixels a side (default: each one's own)")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="of the splits and of the images that are taken")] = 0,
    device: Annotated[str, typer.Option(metavar="DEVICE", help="cpu or cuda")] = "cpu",
    threads: Annotated[int | None, typer.Option(min=1, metavar="N", help="threads within an operation")] = None,
    bad_images: Annotated[
        str, typer.Option(metavar="VALUE", help="images that cannot be read: fail, or skip and count them")
    ] = "fail",
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="folder for screen.csv and screen.png (default: printed only)")
    ] = None,
    plugin: Plugins = None,
) -> None:
    """Which backbones are worth training: one forward pass of each over at most 1,000 training images
    (more, where there are more classes than that).

    ridge and kNN are leave-one-out accuracies on frozen features, LogME is their evidence. ImageNet top-1 and
    parameters never look at the images: they are what every other column has to beat.

    Exit status 1 where no backbone could be looked at.
    """
    from tlbench.campaign import screening
    from tlbench.campaign.stop import despite_hangup
    from tlbench.grid.cell import Cell
    from tlbench.grid.grid import Grid
    from tlbench.grid.settings import Settings

    load(plugin)
    if (photographs is None) == (dataset is None):
        raise UserError("name the images once: a folder (tlbench screen PATH), or --dataset NAME")
    screening.check_weights_of(weights)
    named = screening.wanted([str(name) for name in parse_axis("backbone", backbone)])
    given = {"dataset": with_folder(photographs, dataset), "device": device, "image_size": image_size}
    one = {name: _one(name, value) for name, value in given.items() if value is not None}
    cell = Cell(backbone=named[0], weights=weights, seed=seed, epochs=1, **one)
    settings = Settings(threads=threads, bad_images=bad_images)
    with despite_hangup() if out is not None else nullcontext():  # a folder outlasts a terminal
        grid, whole = _checked(Grid.of(cell).with_axes({"backbone": tuple(named)}), settings)
        if len(grid.axes["device"]) > 1:
            raise UserError(f"--device {device}: a screen is of one device; give {' or '.join(grid.axes['device'])}")
        if out is not None:
            _make(out)
        cells = screening.cells(named, grid.expand()[0])
        rows = _screened(cells, settings)
        _tell_part(rows, cells[0].train_size, whole)
        _show(rows, out)
    raise typer.Exit(int(all(row.problem for row in rows)))


def _checked(grid: Grid, settings: Settings) -> tuple[Grid, int | None]:
    """Returns the grid of all backbones, whose images are decoded, and how many training images there are, where the
    data set is one's own. Errors: UserError.
    """
    from tlbench.campaign.check import check
    from tlbench.progress import decoding_shown

    console = new_console(stderr=True)
    found: list[Seen] = []
    with decoding_shown(console):
        grid = check(
            grid, settings, lambda line: console.print(line, markup=False), lambda dataset, one: found.append(one)
        )
    for one in found:
        _tell_dropped(console, one.dropped)
    return grid, found[0].splits[0] if found else None


def _tell_dropped(console: Console, count: int) -> None:
    if count:
        console.print(
            f"{count:,} image{'s' * (count > 1)} could not be read and {'are' if count > 1 else 'is'} left out"
        )


def _screened(cells: Sequence[Cell], settings: Settings) -> list[Screened]:
    """Looks at the backbones, says what was found of each, and returns the rows, the best first."""
    from tlbench.analysis import screens
    from tlbench.campaign import screening

    rows, began = [], time.monotonic()
    for row, images in screening.screen(cells, settings):
        rows.append(row)
        if images is not None:
            screens.keep(images, [row])
        left = (time.monotonic() - began) / len(rows) * (len(cells) - len(rows))
        said = row.problem or f"ridge {100 * (row.ridge or 0):.1f} %, {row.seconds:.1f} s"
        print(f"[{len(rows)}/{len(cells)}] {row.backbone}: {printable(said)}; about {left:.0f} s left", file=sys.stderr)
    return sorted(rows, key=lambda row: (row.ridge is None, -(row.ridge or 0)))


def _tell_part(rows: Sequence[Screened], most: int | None, whole: int | None) -> None:
    """Says that features do not stay, where backbones have looked at ``most`` training images of more."""
    if any(row.images == most and row.images != whole for row in rows if row.images is not None):
        print(
            f"tlbench: the features do not stay for a run on all training images, of which these {most:,} are a part "
            "(docs/keep.md)",
            file=sys.stderr,
        )


def _show(rows: Sequence[Screened], out: Path | None) -> None:
    """Prints the table, and writes it with the figure. Errors: UserError for a folder that cannot be written."""
    from rich.table import Table

    good = [row for row in rows if not row.problem]
    if good:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name, heading in HEADINGS.items():
            table.add_column(
                heading, justify="left" if name in ("backbone", "weights") else "right", no_wrap=name == "backbone"
            )
        for row in good:
            table.add_row(*(_cell(name, getattr(row, name)) for name in HEADINGS))
        new_console().print(table)
    for row in rows:
        if row.problem:
            print(f"{row.backbone}: {printable(row.problem)}", file=sys.stderr)
    if out is not None:
        _write(rows, out)


def _one(name: str, text: object) -> Any:
    """Reads the value of an axis that a screen has one of. Errors: UserError naming the value and what was expected."""
    values = parse_axis(name, text)
    if len(values) != 1:
        option = AXES[name].option
        raise UserError(f"--{option} {text}: a screen is of one {option.replace('-', ' ')}; give one of them")
    return values[0]


def _cell(name: str, value: Any) -> str:
    from rich.markup import escape

    if value is None:
        return "–"
    if name in ("ridge", "knn"):
        return f"{100 * value:.1f} %"
    if name == "top1":
        return f"{value:.1f} %"
    if name == "logme":
        return f"{value:.3f}"
    return (
        f"{value:,}" if isinstance(value, int) else f"{value:.1f}" if isinstance(value, float) else escape(str(value))
    )


def _make(out: Path) -> None:
    """Makes the folder, before anything is computed. Errors: UserError where it cannot be made or written to."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        raise _unwritable(out, error) from None


def _unwritable(out: Path, error: OSError) -> UserError:
    return UserError(f"cannot write to {str(out)!r}: {error.strerror}; choose another with --out")


def _write(rows: Sequence[Screened], out: Path) -> None:
    from tlbench.analysis.frame import write_csv

    table = [asdict(row) for row in rows]
    text = io.StringIO()
    write_csv(table, text, list(table[0]))
    _put(out, "screen.csv", text.getvalue().encode())
    if any(not row.problem for row in rows):
        drawn, content = io.BytesIO(), b""
        with surviving("screen.png is not drawn"):
            from tlbench.report.plots.screen import screen_picture

            screen_picture(rows).savefig(drawn, format="png")
            content = drawn.getvalue()
        if content:
            _put(out, "screen.png", content)


def _put(out: Path, name: str, content: bytes) -> None:
    """Writes a file of the screen whole, and says where. Errors: UserError where it cannot be written."""
    from tlbench.machine.scratch import write_aside

    try:
        write_aside(out / name, content)
    except OSError as error:
        raise _unwritable(out, error) from None
    typer.echo(printable(str(out / name)))
