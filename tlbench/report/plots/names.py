"""Says which colour, marker and filling belong to which name, so that a thing looks the same in every figure and run.

A policy's colour and sign, a backbone's marker and a head's filling depend on its name alone: what people use has a
look of its own here, and any other name gets one by its hash. Only where two names of one run would look the same does
the one without a look of its own, or of two such the later by the alphabet, take the next look that no name of the run
has; with more names than looks some share one.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple, TypeVar

COLORS = ("#0268c0", "#e58c09", "#01aa86", "#7922fd", "#cf220a", "#e47fd0", "#b3a354", "#a6553f")
"""Colours of which any two are at least 20 apart in CIE Lab, also as the colour-blind see them (the three simulations
of Machado 2009), and each has a contrast of 2.5 or more both on white and on the report's dark page.
"""
BLUE, ORANGE, GREEN, VIOLET, RED, PINK, OLIVE, BROWN = COLORS
NO_POLICY = "#7d8590"
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*", "d", "8")
Filling = Literal["full", "none", "left", "right", "top", "bottom", "core"]
FILLINGS: tuple[Filling, ...] = ("full", "none", "left", "right", "bottom", "top", "core")
"""How much of a marker is filled: the whole, nothing, a half, or its middle."""
DASHES: Mapping[Filling, tuple[float, tuple[float, ...]]] = {
    "full": (0, ()),
    "none": (0, (3.5, 1.6)),
    "left": (0, (1, 1.4)),
    "right": (0, (5, 1.4, 1, 1.4)),
    "bottom": (0, (7, 2)),
    "top": (0, (5, 1.4, 1, 1.4, 1, 1.4)),
    "core": (0, (1, 3)),
}
"""Offset and lengths, in widths of the line, of what a line of a head looks like."""


T = TypeVar("T", bound=Hashable)


class Tone(NamedTuple):
    """A tone is how a policy is told: its colour, and the sign that more policies than colours need."""

    color: str
    sign: Literal["", "ring", "dot", "ring and dot"] = ""
    """In the colour of the text: a ring close around the marker, a dot in its middle."""


TONES: Mapping[str, Tone] = {
    # These usually stand together: a colour each.
    "linear_probe": Tone(BLUE),
    "last_1": Tone(ORANGE),
    "norm": Tone(GREEN),
    "full": Tone(VIOLET),
    "last_2": Tone(RED),
    "lora": Tone(PINK),
    "lp_ft": Tone(OLIVE),
    "bias": Tone(BROWN),
    # The rest of the table, away from what they are compared with.
    "scratch": Tone(BLUE, "ring"),
    "norm_bias": Tone(ORANGE, "ring"),
    "layer_decay": Tone(GREEN, "ring"),
    "first_1": Tone(VIOLET, "ring"),
    "l2_sp": Tone(RED, "ring"),
    "gradual": Tone(PINK, "ring"),
    "freeze_out": Tone(OLIVE, "ring"),
    "auto_rgn": Tone(BROWN, "ring"),
}
OTHER_TONES = (*(Tone(color, "dot") for color in COLORS), *(Tone(color, "ring and dot") for color in COLORS))
BACKBONES: Mapping[str, str] = {
    "resnet18": "o",
    "efficientnet_lite0": "s",
    "mobilenet_v3_small": "^",
    "efficientnet_lite1": "D",
    "efficientnet_lite2": "v",
    "resnet50": "P",
    "mobilenet_v3_large": "<",
    "efficientnet_b0": ">",
    "vit_b_16": "*",
    "convnext_tiny": "p",
    "vgg16": "X",
    "densenet121": "h",
    "swin_t": "d",
    "resnet34": "8",
}
HEADS: Mapping[str, Filling] = {
    "linear": "full",
    "mlp": "none",
    "dropout_linear": "left",
    "cosine": "right",
    "nearest_mean": "bottom",
    "ridge": "top",
    "logreg": "core",
}


def tones(policies: Iterable[str]) -> dict[str, Tone]:
    """Returns the tone of each policy. One that differs from another by its arguments or options alone, as
    ``lora(r=4)`` and ``full+bn=freeze``, is in that one's colour with a dot.
    """
    policies = list(policies)
    places = {text: place for text in policies if (place := _beside(text)) is not None}
    return _shared_out(policies, TONES, OTHER_TONES, places)


def markers(backbones: Iterable[str]) -> dict[str, str]:
    """Returns the marker of each backbone. Other weights of one, as ``resnet50@IMAGENET1K_V2`` and ``resnet18 (weights
    of mine.pt)``, have that of the plain name where it is free.
    """
    backbones = list(backbones)
    places = {}
    for name in backbones:
        plain = re.split(r" \(|@", name, maxsplit=1)[0]
        places[name] = MARKERS.index(BACKBONES[plain]) if plain in BACKBONES else _hash(plain)
    return _shared_out(backbones, BACKBONES, MARKERS, places)


def fillings(heads: Iterable[str]) -> dict[str, Filling]:
    """Returns the filling of each head; another meaning of a name, as ``logreg@1``, has that one's where it is
    free."""
    heads = list(heads)
    places = {head: FILLINGS.index(HEADS[plain]) for head in heads if (plain := head.partition("@")[0]) in HEADS}
    return _shared_out(heads, HEADS, FILLINGS, places)


def _beside(policy: str) -> int | None:
    """Returns the place among the other tones that has the colour of the plain policy, where that has one."""
    plain = TONES.get(re.split(r"[(+@]", policy, maxsplit=1)[0])
    return None if plain is None else OTHER_TONES.index(Tone(plain.color, "dot"))


def _hash(name: str) -> int:
    return zlib.crc32(name.encode("utf-8", "surrogatepass"))


def _shared_out(
    names: Iterable[str], own: Mapping[str, T], others: Sequence[T], places: Mapping[str, int]
) -> dict[str, T]:
    """Gives each name its own, or of the others the one at its place, by its hash where no place is given; or the next
    that none of these names has.
    """
    given: dict[str, T] = {}
    names = sorted(set(names), key=lambda name: (name not in own, name))
    for name in names:
        place = places.get(name, _hash(name))
        from_there = [others[(place + step) % len(others)] for step in range(len(others))]
        taken = set(given.values())
        given[name] = own[name] if name in own else next((one for one in from_there if one not in taken), from_there[0])
    return given
