"""What every node is asked before anything trains on it, and what of its answers would make other figures than here."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlbench.campaign.plugins import fingerprint
from tlbench.data import DATASETS, parse_dataset
from tlbench.data.data_root import data_root
from tlbench.data.relabel import read_corrections
from tlbench.errors import UserError, text_of
from tlbench.grid.other_tests import named
from tlbench.grid.values import written_size
from tlbench.machine.cache import cache_folder
from tlbench.records.identity import short_sha
from tlbench.records.plan import versions

if TYPE_CHECKING:
    from tlbench.campaign.campaign import Campaign
    from tlbench.campaign.engine import Engine

NAMED = 3
"""Most things that a node's line names of one kind."""


def question(campaign: Campaign) -> dict[str, Any]:
    """Returns what to ask a node of a campaign's images, corrected labels, weights and plugins, as plain values."""
    from tlbench.campaign.moved import cell_at

    cells = list(dict.fromkeys(cell_at(step.cell, campaign.places) for step in campaign.left))
    sizes = {(cell.dataset, cell.image_size or 224) for cell in cells}
    seen = {name: campaign.seen[name].images for name in campaign.seen}
    also = campaign.plan.settings.also_test
    return {
        "datasets": sorted({cell.dataset for cell in cells} | {named(text)[1] for text in also}),
        "relabel": sorted({cell.relabel for cell in cells if cell.relabel}),
        "weights": sorted({(cell.backbone, cell.weights) for cell in cells}),
        "plugins": [name for name in campaign.asked.plugins if not name.endswith(".py")],
        "data_root": campaign.plan.settings.data_root,
        # Those of files lie where there is room, at the worst in none, as on one machine.
        "room": max((3 * size * size * seen.get(d, 0) for d, size in sizes if not _of_files(d)), default=0),
    }


def _of_files(dataset: str) -> bool:
    return DATASETS[parse_dataset(dataset)[0]].of_files


def facts(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Answers a `question` on the machine that this runs on, as plain values. What cannot be had is said in words."""
    with data_root(asked.get("data_root")):
        images = {dataset: _images(dataset) for dataset in asked["datasets"]}
    return {
        "versions": {**versions(), "python": ".".join(platform.python_version_tuple()[:2])},
        "images": images,
        "relabel": {path: _corrections(path) for path in asked.get("relabel", ())},
        "weights": {f"{name} with {weights}": _weights(name, weights) for name, weights in asked["weights"]},
        "plugins": {name: fingerprint(name) for name in asked["plugins"]},
        "room": _room(),
    }


def differences(here: Mapping[str, Any], there: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """Says what of a node's facts is another than here, a kind in each text; nothing where it measures the same."""
    if why := there.get("error"):
        return [str(why)]
    lines = [
        _said(
            f"{name} is {there['versions'].get(name) or 'not installed'} there, {mine or 'not installed'} here"
            for name, mine in here["versions"].items()
            if there["versions"].get(name) != mine
        ),
        _said(
            f"the images of {name!r} are {_found(there['images'].get(name))}"
            for name, mine in here["images"].items()
            if there["images"].get(name) != mine
        ),
        _said(
            f"the corrected labels in {name!r} are {_found(there.get('relabel', {}).get(name))}"
            for name, mine in here.get("relabel", {}).items()
            if there.get("relabel", {}).get(name) != mine
        ),
        _said(
            f"the weights of {name} are {_found(there['weights'].get(name))}"
            for name, mine in here["weights"].items()
            if not _may_be_same(mine, there["weights"].get(name))
        ),
        _said(
            f"the plugin {name!r} is {'another' if there['plugins'].get(name) else 'not there'}"
            for name, mine in here["plugins"].items()
            if there["plugins"].get(name) != mine
        ),
    ]
    if (room := there.get("room")) is not None and room < asked["room"]:
        lines.append(f"{written_size(room)} are free for decoded images, which take {written_size(asked['room'])}")
    return [line for line in lines if line]


def check_nodes(campaign: Campaign, engine: Engine, here: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Asks every node that an engine has, and leaves out those that would measure something else, where that is wanted.

    Errors: UserError with a line for each of these nodes, where it is not, or where none is left.
    """
    told = engine.ask()
    bad = {node: lines for node, said in told.items() if (lines := differences(here, said, asked))}
    if not bad:
        return
    lines = [f"{node}: {'; '.join(why)}" for node, why in bad.items()]
    if not campaign.asked.engine.skip_bad_nodes:
        raise UserError("\n".join([*lines, "mend these nodes, or go on without them by --skip-bad-nodes"]))
    if len(bad) == len(told):
        raise UserError("\n".join([*lines, "no other node is there: mend one of them"]))
    for line in lines:
        campaign.say(f"left out: {line}")
    engine.leave_out(list(bad))


def _may_be_same(mine: str, theirs: str | None) -> bool:
    """Tells whether weights are the same, or may be: what is still to be downloaded is known by its record."""
    if DOWNLOAD in (mine, theirs):
        return all(one == DOWNLOAD or len(one or "") == 64 for one in (mine, theirs))
    return mine == theirs


def _said(texts: Iterable[str]) -> str:
    every = list(texts)
    more = f", and {len(every) - NAMED} more" if len(every) > NAMED else ""
    return ", ".join(every[:NAMED]) + more


def _found(what: Any) -> str:
    if not what:
        return "not there"
    return f"others ({short_sha(what)})" if len(str(what)) == 64 else str(what)


# --- on a node ------------------------------------------------------------------------------------------------

DOWNLOAD = "to be downloaded"


def _images(dataset: str) -> str:
    """Returns the SHA-256 of the names and sizes of all files of a data set that has folders and files of its own; of
    another one its name: it comes with a package, whose version is asked for, or from a cache of a library's.
    """
    name, given = parse_dataset(dataset)
    row = DATASETS[name]
    places = row.places(given)
    if places is None:
        return dataset
    if not places or not all(map(os.path.exists, places)):
        return ""
    if row.files is None:
        files = [(os.path.relpath(file, place), str(file)) for place in places for file in _files(Path(place))]
    else:
        try:
            files = [(shown, str(file)) for shown, file in row.files(given)]
        except UserError as error:
            return f"not to be read: {error}"[:200]
    digest = hashlib.sha256()
    for shown, path in sorted(files):
        try:
            size = os.stat(path).st_size
        except OSError:
            size = -1
        digest.update(f"{shown}\0{size}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _corrections(path: str) -> str:
    """Returns the SHA-256 of a file of corrected labels; nothing where there is none, words where it cannot be read."""
    try:
        return read_corrections(path).sha256
    except UserError as error:
        there = os.path.exists(os.path.expanduser(path))
        return f"not to be read: {error}"[:200] if there else ""


def _files(path: Path) -> Iterable[str]:
    if path.is_file():
        return [str(path)]
    return [os.path.join(folder, name) for folder, _, names in os.walk(path, followlinks=True) for name in names]


def _weights(backbone: str, weights: str) -> str:
    """Returns the SHA-256 of weights as they are loaded; words where they are not loaded."""
    from tlbench.backbones import load_backbone
    from tlbench.backbones.outlook import prospect

    try:
        found = prospect(backbone, weights)
        if found.kind == "random":
            return "random"
        if found.kind == "download":
            return DOWNLOAD
        if found.kind == "missing":
            return "missing"
        return str(load_backbone(backbone, weights).weights.sha256)
    except Exception as error:  # whatever it is, it is the same here, or the node's line says it
        return f"not to be loaded: {type(error).__name__}: {text_of(error)}"[:200]


def _room() -> int | None:
    """Returns the bytes that are free where decoded images and activations go; None where nobody can tell."""
    try:
        folder = cache_folder()
        while not folder.exists():
            folder = folder.parent
        return min(shutil.disk_usage(folder).free, shutil.disk_usage(tempfile.gettempdir()).free)
    except OSError:
        return None
