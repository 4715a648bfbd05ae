"""The commands cache and env: what lies on this disk, and what this machine is."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from tlbench.errors import UserError, printable
from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings

CACHED = {
    "filling": "being written",
    "orphans": "left unfinished by processes that are gone; they go with the next run that keeps activations",
    "older": "of older versions, which this one does not read",
    "others": "not made by tlbench, which does not remove them",
}
"""Field of `tlbench.train.inventory.Inventory` -> what `cache` says of the files."""
DECODED = {
    "stored": "decoded images, for later runs",
    "filling": "decoded images being written",
    "orphans": "decoded images left unfinished by processes that are gone",
}
"""Field of `tlbench.data.decoded_folder.Inventory` -> what `cache` says of the files."""


def cache(
    clear: Annotated[
        bool,
        typer.Option(
            "--clear",
            help="remove stored activations, decoded images, and what checks found in images; data sets, screens and "
            "what was measured of the machine stay",
        ),
    ] = False,
) -> None:
    """What is kept on the disk of frozen layers, for runs whose activations exceed the memory for them, and of decoded
    images; and what lies there unfinished.
    """
    from tlbench.data import decoded_folder, facts_folder
    from tlbench.train import inventory

    try:
        before, left = inventory.clear() if clear else (None, inventory.look())
    except OSError as error:
        raise UserError(f"cannot read the cache folder {str(inventory.folder())!r}: {error.strerror}") from None
    files, size = inventory.count(left.stored)
    if before is not None:
        was = inventory.count(before.stored)
        files, size = was[0] - files, was[1] - size
    done = "there are" if before is None else "removed"
    typer.echo(f"{done} {files} stored activations, {size / 1e6:,.1f} MB, in {printable(str(inventory.folder()))}")
    for kind, what in CACHED.items():
        goes = before is not None and kind in inventory.GO
        files, size = inventory.count(getattr(before if goes else left, kind))
        if files:
            done = "removed" if goes else "beside them"
            typer.echo(f"{done}: {files} {'file' if files == 1 else 'files'} {what}, {size / 1e6:,.1f} MB")
    was_decoded, decoded = decoded_folder.clear() if clear else (None, decoded_folder.look())
    for kind, what in DECODED.items():
        goes = was_decoded is not None and kind != "filling"
        files, size = decoded_folder.count(getattr(was_decoded if goes else decoded, kind))
        if files:
            done = "removed" if goes else "beside them"
            typer.echo(f"{done}: {files} {'file' if files == 1 else 'files'} of {what}, {size / 1e6:,.1f} MB")
    facts, size = facts_folder.clear() if clear else facts_folder.count()
    if facts:
        done = "removed" if clear else "beside them"
        kind = "file" if facts == 1 else "files"
        typer.echo(f"{done}: {facts} {kind} of what checks found in images, {size / 1e6:,.1f} MB")
    stuck = [*(one.path for kind in inventory.GO for one in getattr(left, kind)), *(o.path for o in decoded.stored)]
    if before is not None and stuck:
        raise UserError(f"cannot remove {len(stuck)} of these files, such as {str(stuck[0])!r}")


def env() -> None:
    """This machine as every record describes it, with the default settings, as JSON."""
    import torch

    from tlbench.machine.environment import environment, settings
    from tlbench.machine.process import set_up

    default = Settings()
    with set_up(default.threads, Cell().precision, default.deterministic, default.allocator) as process:
        used = settings(process.allocator)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        typer.echo(json.dumps(environment(device, used=used), indent=1))
