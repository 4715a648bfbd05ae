"""The commands `list` and `show`: what can be chosen, and what a choice looks like."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tlbench.cli.app import Plugins, load, new_console
from tlbench.data.data_root import data_root as looked_into
from tlbench.errors import NotApplicable, Unavailable, UserError, lookup
from tlbench.grid.axes import AXES, LARGEST_IMAGE, MOST_EPOCHS
from tlbench.grid.cell import Cell
from tlbench.grid.values import MOST, quoted
from tlbench.machine.imports import uncollected

if TYPE_CHECKING:
    from torch import nn

    from tlbench.backbones.base import StageCost
    from tlbench.policies.base import Outline, Phase
    from tlbench.policies.parse import Expression


# --- list -----------------------------------------------------------------------------------------------------


def _list_backbones(pattern: str | None) -> list[dict[str, Any]]:
    from tlbench.backbones import list_backbones

    return list_backbones(pattern)


def _list_policies(_: str | None) -> list[dict[str, Any]]:
    from tlbench.policies.parse import form
    from tlbench.policies.table import POLICIES

    return [
        {"policy": form(n), "trains": p.summary, "source": p.source, "departs from it": p.departs}
        for n, p in POLICIES.items()
    ]


def _list_heads(_: str | None) -> list[dict[str, Any]]:
    from tlbench.heads import HEADS

    return [
        {"head": name, "what it is": head.summary, "departs from its source": head.departs}
        for name, head in HEADS.items()
    ]


def _list_datasets(_: str | None) -> list[dict[str, Any]]:
    from tlbench.data import DATASETS, form_of

    rows = []
    for name, dataset in DATASETS.items():
        classes = dataset.classes if isinstance(dataset.classes, int) else None
        split = dataset.split if isinstance(dataset.split, str) else ""
        here = None
        with suppress(Exception):  # of a plugin, which must not cost the list
            here = None if dataset.takes_path else _is_here(dataset.places(""))
        rows.append(_dataset(form_of(name), classes, here, dataset.summary, split))
        for offer in dataset.offers() if dataset.offers else ():
            rows.append(_dataset(offer.name, offer.classes, offer.here, offer.summary, offer.splits))
    return rows


def _is_here(places: Sequence[str] | None) -> bool:
    """Tells whether all is there of a data set that lies at these places; one without a place always is."""
    return places is None or (bool(places) and all(map(os.path.exists, places)))


def _dataset(name: str, classes: int | None, here: bool | None, summary: str, splits: str) -> dict[str, Any]:
    """Returns a row of the list of data sets."""
    return {"dataset": name, "classes": classes, "here": here, "what it is": summary, "splits": splits or None}


LISTS: dict[str, Callable[[str | None], list[dict[str, Any]]]] = {
    "backbones": _list_backbones,
    "policies": _list_policies,
    "heads": _list_heads,
    "datasets": _list_datasets,
}


def list_(
    what: Annotated[str, typer.Argument(metavar="WHAT", help=", ".join(LISTS))],
    pattern: Annotated[
        str | None, typer.Argument(metavar="PATTERN", help="only names that match, such as 'resnet*'")
    ] = None,
    timm: Annotated[
        str | None,
        typer.Option(metavar="PATTERN", help="with backbones: timm's models whose names match, such as 'resnet*'"),
    ] = None,
    data_root: Annotated[
        str | None, typer.Option("--data-root", metavar="DIR", help="with datasets: the folder that is looked into")
    ] = None,
    plugin: Plugins = None,
) -> None:
    """What can be chosen on an axis."""
    from rich.table import Table

    load(plugin)
    if data_root is not None and what != "datasets":
        raise UserError("--data-root is where data sets lie: tlbench list datasets --data-root DIR")
    with looked_into(data_root):
        rows = lookup(LISTS, "list", what)(pattern)
    if timm is not None:
        rows = _of_timm(what, pattern, timm)
    elif pattern:
        from fnmatch import fnmatch

        rows = [row for row in rows if fnmatch(str(next(iter(row.values()))), f"*{pattern.strip('*')}*")]
        if not rows:
            raise UserError(f"no {what} match {pattern!r}; `tlbench list {what}` shows all")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for key, value in rows[0].items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        table.add_column(key.replace("_", " "), justify="right" if number else "left")
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    new_console().print(table)


def _of_timm(what: str, pattern: str | None, wanted: str) -> list[dict[str, Any]]:
    """Returns a row for each model of timm's that matches. Errors: UserError where none does, or something else is
    listed.
    """
    if what != "backbones" or pattern is not None:
        raise UserError("--timm lists timm's backbones: tlbench list backbones --timm 'resnet*'")
    from tlbench.backbones import timm_list

    if not (rows := timm_list.rows(wanted)):
        raise UserError(f"no model of timm's matches {wanted!r}; `tlbench list backbones --timm '*'` shows all")
    return rows


def _cell(value: Any) -> str:
    from rich.markup import escape

    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else escape(str(value))


# --- show -----------------------------------------------------------------------------------------------------


MOST_CLASSES = 1_000_000


def show(
    backbone: Annotated[str, typer.Argument(metavar="BACKBONE", help="a name of `tlbench list backbones`")],
    freeze: Annotated[str, typer.Option(metavar="POLICY", help=AXES["freeze"].help)] = Cell.freeze,
    head: Annotated[str, typer.Option(metavar="HEAD", help=AXES["head"].help)] = Cell.head,
    classes: Annotated[int, typer.Option(min=1, metavar="N", help="classes of the new head")] = 23,
    image_size: Annotated[int | None, typer.Option(min=8, metavar="N", help=AXES["image_size"].help)] = None,
    batch_size: Annotated[int, typer.Option(min=1, metavar="N", help="images in the summary's input")] = 32,
    epochs: Annotated[
        int, typer.Option(min=1, metavar="N", help="epochs that a schedule's phases are laid out over")
    ] = 10,
    plugin: Plugins = None,
) -> None:
    """A backbone with a new head under a freeze policy: layers, shapes, parameters, what trains."""
    from tlbench.backbones import check_backbone
    from tlbench.heads import HEADS
    from tlbench.policies.parse import parse_policy

    for option, value, most in (
        ("classes", classes, MOST_CLASSES),
        ("image-size", image_size or 0, LARGEST_IMAGE),
        ("batch-size", batch_size, MOST),
        ("epochs", epochs, MOST_EPOCHS),
    ):
        if value > most:
            raise UserError(f"--{option}: {quoted(value)} is too large; give at most {most:,}")
    load(plugin)
    check_backbone(backbone)
    lookup(HEADS, "head", head)
    policy = parse_policy(freeze)
    with _in_one_line(f"{backbone} under {freeze}"):
        _show(Cell(backbone=backbone, head=head, image_size=image_size), policy, classes, batch_size, epochs)


@contextmanager
def _in_one_line(what: str) -> Iterator[None]:
    """Raises UserError for whatever code from outside raises, with the place where that is."""
    try:
        yield
    except (UserError, NotApplicable, Unavailable):
        raise
    except Exception as error:
        from tlbench.campaign.plugins import one_line

        at = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{at.filename}, line {at.lineno}"
        raise UserError(f"{what} cannot be shown: {type(error).__name__}: {one_line(str(error))} ({place})") from None


def _show(cell: Cell, policy: Expression, classes: int, batch_size: int, epochs: int) -> None:
    with uncollected():
        from tlbench.backbones import shapes_of
        from tlbench.backbones.base import stage_costs
        from tlbench.machine.lean import without_compiler
        from tlbench.measure.build import assemble, image_size_of
        from tlbench.policies import freezing
        from tlbench.train.loop import plan_epochs

    with without_compiler(), uncollected():  # counting on shapes imports more
        loaded = shapes_of(cell.backbone)
        model = assemble(loaded, cell.head, classes)
        size = image_size_of(cell, loaded)
        policy.inject(model, size)
        described = freezing.describe(model, loaded.group_of, policy.owns, loaded.below_head)
        phases = policy.phases(described, epochs)
        freezing.apply(model, phases[0])
        typer.echo(_layers(model, (batch_size, 3, size, size)))
        plan, costs = plan_epochs(phases, epochs), stage_costs(model, size)
        _stage_table(model, costs)
        for phase in phases:
            count = sum(p is phase for p in plan)
            when = f" for {count} of {epochs} epochs" if len(phases) > 1 else ""
            typer.echo(f"{phase.name}{when}: {_what_trains(model, described, phase, size, costs)}")
        if loaded.note:
            typer.echo(f"Note: {loaded.note}")


def _layers(model: nn.Sequential, shape: tuple[int, int, int, int]) -> str:
    """Returns each layer's shapes and parameters, for images (N, 3, S, S). The model is left on the meta device."""
    from torchinfo import summary

    # Without data on the meta device: a summary at any batch size costs no memory and no time.
    report = summary(
        model.to("meta"),
        input_size=shape,
        col_names=["input_size", "output_size", "num_params", "trainable"],
        col_width=20,
        row_settings=["var_names"],
        device="meta",
        mode="eval",  # each phase sets its own modes
        verbose=0,
    )
    return str(report)


def _what_trains(model: nn.Sequential, described: Outline, phase: Phase, size: int, costs: Sequence[StageCost]) -> str:
    """Says what trains in a phase, what a training step costs then, and what lies before the cut."""
    from tlbench.policies import freezing
    from tlbench.train.flops import step_flops

    freezing.apply(model, phase)
    cut, names = freezing.cut(model), [name for name, _ in model.named_children()]
    added = freezing.count_added(described)
    total = sum(p.numel for p in described.params) - added  # as a record counts them
    count = f"{freezing.count_trainable(described, phase):,} trainable parameters"
    count += f", adds {added:,} to the model's {total:,}" if added else f" of {total:,}"
    return (
        f"{count}; "
        f"{step_flops(model, phase, size, costs) / 1e9:.3g} GFLOP a training image; "
        f"cut at {names[cut]}, frozen prefix: {', '.join(names[:cut]) or 'none'}"
    )


def _stage_table(model: nn.Sequential, costs: Iterable[StageCost]) -> None:
    """Prints parameters, what of them trains, and forward FLOPs for one image, of each stage and the head."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("stage")
    for heading in ("parameters", "trainable", "forward GFLOP"):
        table.add_column(heading, justify="right")
    counted: set[int] = set()
    for cost, (name, stage) in zip(costs, model.named_children(), strict=True):
        trainable = {id(p): p.numel() for p in stage.parameters() if p.requires_grad and id(p) not in counted}
        counted |= trainable.keys()
        table.add_row(name, f"{cost.parameters:,}", f"{sum(trainable.values()):,}", f"{cost.flops / 1e9:.3g}")
    new_console().print(table)
