"""``timm:NAME``: timm's image classifiers through their common interface.

What is here names, checks, builds and loads them; `tlbench.backbones.timm_stages` cuts them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import nn

from tlbench.backbones.base import Anatomy, InputSpec
from tlbench.backbones.inputs import CROP_MODES
from tlbench.backbones.known import hub_folder
from tlbench.backbones.network import UNREACHABLE, check_reachable, unreachable
from tlbench.backbones.sources import TIMM
from tlbench.backbones.timm_list import repository_of
from tlbench.backbones.timm_stages import classifiers, split
from tlbench.errors import NotApplicable, Unavailable, unknown
from tlbench.machine.lean import importing

_failed: dict[str, str] = {}
"""Name -> why weights could not be had: one attempt a process, not one a cell."""


def check(name: str) -> None:
    """Raises UserError with the nearest match when timm has no such model, or no such weights of it."""
    with importing():
        import timm

    name = name.removeprefix(TIMM)
    if not timm.is_model(name):
        raise unknown("timm model", name, timm.list_models())
    architecture, _, tag = name.partition(".")
    if tag:
        with_weights = timm.list_models(f"{architecture}.*", pretrained=True)
        if name not in with_weights:
            raise unknown("timm model", name, [architecture, *with_weights])


def build(name: str, pretrained: bool) -> tuple[nn.Module, str]:
    """Returns the model with random weights, or with those in the Hugging Face cache, or else with downloaded ones; and
    the source of its weights.

    Errors: Unavailable when the pretrained weights cannot be had; one attempt a process.
    """
    with importing():
        import timm

    name = name.removeprefix(TIMM)
    if not pretrained:
        return timm.create_model(name, pretrained=False), "random"
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise Unavailable(f"timm has no pretrained weights for {name}; use --weights random or a checkpoint file")
    from huggingface_hub import constants

    host = urlparse(constants.ENDPOINT).netloc
    reason = _failed.get(name) or UNREACHABLE.get(host)
    for online in (False, True) if reason is None else (False,):
        try:
            # A failed attempt must not move the random weights that may follow it.
            if online and not constants.HF_HUB_OFFLINE:
                check_reachable(constants.ENDPOINT)
            with torch.random.fork_rng(devices=[]), contextlib.nullcontext() if online else _cache_only():
                model = timm.create_model(name, pretrained=True)
                return model, source(model)
        except Exception as error:  # whatever the hub's client raises
            if online:
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
                (UNREACHABLE if unreachable(error) else _failed)[host if unreachable(error) else name] = reason
    into = f"{repository_of(config)} into the Hugging Face cache ($HF_HOME/hub, as huggingface-cli download does)"
    if not config.hf_hub_id and config.url:
        into = f"{Path(urlparse(str(config.url)).path).name} into {hub_folder()}"
    raise Unavailable(
        f"pretrained weights of timm:{name} are not at hand ({reason}); put {into}, or use --weights random"
    )


@contextlib.contextmanager
def _cache_only() -> Iterator[None]:
    """Keeps the hub's client off the network: it asks about cached files, too, and waits long where there is none."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def source(model: Any) -> str:
    """Returns what a record says of pretrained weights."""
    return str(model.pretrained_cfg.get("hf_hub_id") or model.pretrained_cfg.get("url") or "timm")


def input_spec(m: Any) -> InputSpec:
    """Reads the input from timm's configuration of the weights, with timm's own values for what it leaves out.

    Errors: NotApplicable for a model of images that are not square.
    """
    from timm.data.config import resolve_model_data_config

    resolve: Any = resolve_model_data_config
    config, given = m.pretrained_cfg, resolve(m)
    height, size = map(int, given["input_size"][-2:])
    if height != size:
        raise NotApplicable(
            f"its images are {size} pixels wide and {height} high, and here they are square; choose another model"
        )
    return InputSpec(
        size=size,
        resize=int(size / given["crop_pct"]),
        mean=tuple(given["mean"]),
        std=tuple(given["std"]),
        interpolation=given["interpolation"],
        # As timm does: whatever else it is called, the centre is cut out.
        crop_mode=given["crop_mode"] if given["crop_mode"] in CROP_MODES else "center",
        crop_share=given["crop_pct"],
        # timm's transformers check their input's size; where it says nothing, smaller images are tried.
        fixed_size=bool(config.get("fixed_input_size")),
        min_size=int(config["min_input_size"][-1]) if config.get("min_input_size") else 1,
    )


def open_up(_: str, model: nn.Module) -> Anatomy:
    """Opens a model up: its input, its classifiers and how it is cut. Errors: NotApplicable for a model without timm's
    interface.
    """
    spec = input_spec(model)
    return Anatomy(input=spec, head=classifiers(model), split=partial(split, model, spec))
