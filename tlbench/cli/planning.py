"""The commands `plan` and `fits`: what a grid will cost, and which batches fit into a memory."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tlbench.cli.app import Plugins, load, new_console
from tlbench.cli.output import result_is_elsewhere
from tlbench.cli.running import GridFile, Photographs, argument, with_folder
from tlbench.errors import UserError, printable, unknown
from tlbench.grid.axes import AXES, parse_axis
from tlbench.grid.settings import SETTINGS
from tlbench.grid.values import written_size

if TYPE_CHECKING:
    from tlbench.campaign.campaign import Campaign
    from tlbench.campaign.foretelling import Fit, Foretold
    from tlbench.grid.cell import Cell

FORMATS = ("table", "csv")
UNVERIFIED = (
    "unverified: {measured}what CUDA takes beside a step is a guess, and no card has confirmed it yet; images that lie "
    "on the card come on top"
)
ON_PROCESSOR = "what a step takes was measured on the processor, "


def foretell_and_print(campaign: Campaign, as_csv: bool = False) -> Foretold:
    """Profiles what is missing, prints what a campaign will cost, and returns it. Errors: as
    `tlbench.campaign.foretelling.foretell`.
    """
    from tlbench.campaign.foretelling import foretell
    from tlbench.report.plan_words import Said, sums, table, uncounted

    found = foretell(campaign, lambda line: print(f"tlbench: {printable(line)}", file=sys.stderr))
    rows = [Said(cell=row.step.cell, values=row.values()) for row in found.rows]
    if as_csv:
        from tlbench.analysis.frame import write_csv

        if rows:
            write_csv([row.values for row in rows], sys.stdout, list(rows[0].values))
        return found
    console = new_console()
    console.print(table(rows))
    lines = sums(rows, found.seconds, found.interval, datetime.now())
    for line in [*lines, *uncounted(campaign.plan.settings, {row.cell.dataset for row in rows})]:
        console.print(line, markup=False, soft_wrap=True)
    return found


def plan(
    *,
    photographs: Photographs = None,
    grid: GridFile = None,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN", help="what is left of a run, corrected by what it has measured")
    ] = None,
    plugin: Plugins = None,
    format_: Annotated[str, typer.Option("--format", metavar="NAME", help="table (default), or csv")] = "table",
    **given: Any,
) -> None:
    """Says what a grid would cost, cell by cell: seconds, peak memory, what will not fit. Your images train nothing.

    Takes the axes and settings of `tlbench run`. Each backbone is profiled once, by a few steps on random images, and
    that is kept for this machine; what earlier cells took corrects it.

    Exit status 1 where nothing can be said of a cell that would be measured.
    """
    from dataclasses import replace

    from tlbench.campaign.asked import parse_asked
    from tlbench.campaign.campaign import begin
    from tlbench.campaign.outlook import outlook
    from tlbench.progress import decoding_shown, print_outlook

    if format_ not in FORMATS:
        raise unknown("format", format_, FORMATS)
    if format_ != "csv":
        result_is_elsewhere()
    named = {axis.option: given[name] for name, axis in AXES.items()}
    named |= {name: given[argument(name)] for name in SETTINGS}
    named["dataset"] = with_folder(photographs, named["dataset"])
    asked = parse_asked({**named, "grid": grid, "resume": resume, "plugin": plugin}).or_first_grid()
    default = {"isolate": "backbone"} if resume is None else {}
    asked = replace(asked, settings={**default, **asked.settings}, measures=False)
    console = new_console(stderr=True)
    with decoding_shown(console):
        campaign = begin(asked)
    print_outlook(console, [line for line in outlook(campaign) if line[0] not in ("time", "results")])
    if foretell_and_print(campaign, format_ == "csv").seconds is None:
        raise typer.Exit(1)


def fits(
    backbones: Annotated[list[str], typer.Argument(metavar="BACKBONE…", help="of `tlbench list backbones`")],
    memory: Annotated[str, typer.Option(metavar="SIZE[,…]", help="memory of the device: 8GB,16GB,24GB")],
    freeze: Annotated[
        str, typer.Option(metavar="POLICY[,…]", help="of `tlbench list policies`")
    ] = "linear_probe,last_1,norm,full",
    head: Annotated[str, typer.Option(metavar="HEAD", help="of `tlbench list heads`")] = "linear",
    image_size: Annotated[
        int | None, typer.Option(min=8, metavar="N", help="pixels a side (default: each one's own)")
    ] = None,
    precision: Annotated[str, typer.Option(metavar="NAME", help="fp32, tf32, bf16, fp16")] = "fp32",
    optimizer: Annotated[str, typer.Option(metavar="NAME", help="auto, adamw, sgd")] = "auto",
    device: Annotated[
        str, typer.Option(metavar="DEVICE", help="cuda (a card of that memory, here or not), or cpu (--memory-limit)")
    ] = "cuda",
    threads: Annotated[int | None, typer.Option(min=1, metavar="N", help="threads within an operation")] = None,
    plugin: Plugins = None,
) -> None:
    """Which batches fit: the largest one of each policy for each size of memory, without having such a card.

    On cuda the size is the card's; on cpu it is what --memory-limit allows a process.

    Exit status 1 where nothing can be said of any.
    """
    from tlbench.campaign.foretelling import check_memories, largest_batches, measured_on
    from tlbench.grid.settings import Settings

    load(plugin)
    memories = check_memories([part for part in (one.strip() for one in memory.split(",")) if part])
    cells = cells_of(
        backbones,
        {
            "freeze": freeze, "head": head, "precision": precision, "optimizer": optimizer, "device": device,
            **({} if image_size is None else {"image_size": str(image_size)}),
        },
    )  # fmt: skip
    found = largest_batches(
        cells,
        memories,
        Settings(threads=threads, prefix="auto"),
        lambda line: print(f"tlbench: {printable(line)}", file=sys.stderr),
        plugins=plugin or (),
    )
    _show_fits(found, memories)
    if device != "cpu":
        print(UNVERIFIED.format(measured=ON_PROCESSOR * (measured_on(device) == "cpu")))
    raise typer.Exit(int(all(fit.problem for fit in found)))


def cells_of(backbones: Sequence[str], given: dict[str, str]) -> list[Cell]:
    """Returns the cells whose batches are looked for. Errors: UserError naming the value and the choices."""
    from tlbench.backbones import check_backbone
    from tlbench.grid.grid import Grid
    from tlbench.heads import HEADS
    from tlbench.policies.parse import parse_policy

    axes = {name: parse_axis(name, text) for name, text in given.items()}
    for name in ("head", "precision", "optimizer", "device"):
        if len(axes[name]) != 1:
            raise UserError(f"--{name}: give one, not {', '.join(map(str, axes[name]))}")
    axes["backbone"] = tuple(dict.fromkeys(backbones))
    for name, values in axes.items():
        for value in values:
            AXES[name].check(value)
    for name in axes["backbone"]:
        check_backbone(name)
    for policy in axes["freeze"]:
        parse_policy(policy)
    if HEADS[axes["head"][0]].fit is not None:
        raise UserError(
            f"--head {axes['head'][0]} is fitted to all images at once and has no batch; take linear or mlp"
        )
    if not re.fullmatch(r"cpu|cuda(:\d+)?", str(axes["device"][0])):
        raise UserError(f"--device {axes['device'][0]}: take cuda (a card, here or not) or cpu")
    return Grid(axes={**axes, "dataset": ("synthetic",), "epochs": (10,)}).expand()


def _show_fits(found: Sequence[Fit], memories: Sequence[int]) -> None:
    from rich.table import Table

    from tlbench.campaign.foretelling import MOST_BATCH

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("backbone", "freeze", *map(written_size, memories)):
        table.add_column(heading, justify="left" if heading in ("backbone", "freeze") else "right")
    good = [fit for fit in found if not fit.problem]
    for fit in good:
        counts = [fit.batches[size] for size in memories]
        shown = ["none" if not n else f"{n:,}" if n < MOST_BATCH else f"over {MOST_BATCH:,}" for n in counts]
        table.add_row(fit.cell.backbone, fit.cell.freeze, *shown)
    if good:
        new_console().print(table)
    for fit in found:
        if fit.problem:
            print(f"{fit.cell.backbone} {fit.cell.freeze}: {printable(fit.problem)}", file=sys.stderr)
