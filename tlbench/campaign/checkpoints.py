"""Looks whether a checkpoint fits the backbones of a grid, here or in the process that will measure the first cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tlbench.backbones import load_backbone
from tlbench.backbones.sources import name_of_source
from tlbench.campaign import ahead
from tlbench.errors import NotApplicable, UserError
from tlbench.grid.cell import Cell

OURS = ("wheels", "torchvision", "timm")
"""Sources of backbones that a process knows which has loaded no plugin."""


@dataclass(frozen=True, kw_only=True)
class Looked:
    """Says what came of loading a checkpoint into backbones."""

    notes: list[str]
    """What of it was taken, each line once."""
    misfits: dict[str, str]
    """Backbone that it is not of -> why."""


def about_checkpoint(spec: str, backbones: Sequence[str]) -> list[str]:
    """Loads a checkpoint into each backbone; says in lines what of it was taken, and which backbones it is not of,
    whose cells are not applicable.

    Errors: UserError where it is of none of them, or cannot be read.
    """
    looked = _looked_ahead(spec, backbones) or look(spec, backbones)
    misfits = looked.misfits
    if len(misfits) == len(backbones):
        first, *others = misfits
        more = f"; nor does it fit {', '.join(others)}" if others else ""
        raise UserError(f"{misfits[first]}{more}; give weights of one of the backbones, or --weights random")
    lines = [f"checkpoint {spec!r} {note}" for note in looked.notes]
    return lines + [f"not applicable, as are all cells of this pair: {reason}" for reason in misfits.values()]


def look(spec: str, backbones: Sequence[str], keep: bool = False) -> Looked:
    """Loads a checkpoint into each backbone. ``keep``: what was loaded last is kept for the cells of this process.

    Errors: UserError where it cannot be read.
    """
    notes: dict[str, None] = {}
    misfits: dict[str, str] = {}
    for name in backbones:
        try:
            if keep:
                from tlbench.measure.shared_weights import load_weights

                loaded = load_weights(Cell(backbone=name, weights=spec))
            else:
                loaded = load_backbone(name, spec)
        except NotApplicable as error:
            misfits[name] = str(error)
        else:
            notes.update(dict.fromkeys(loaded.weights.notes))
    return Looked(notes=list(notes), misfits=misfits)


def _looked_ahead(spec: str, backbones: Sequence[str]) -> Looked | None:
    """Has the process that was started ahead look, which imports torch anyway; None where there is none, or it does not
    know all of the backbones. Errors: UserError as `look`.
    """
    if (process := ahead.started()) is None or not all(name_of_source(name) in OURS for name in backbones):
        return None
    try:
        found = process.look(spec, backbones)
    except BaseException:
        ahead.drop()
        raise
    if found is None:  # whatever became of it, this process can look as well
        ahead.drop()
        return None
    return Looked(**found)
