"""Weights: files in torch hub's cache layout, downloads, checkpoints. Nothing is ever unpickled into code."""

from __future__ import annotations

import argparse
import contextlib
import re
import socket
import sys
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from tlbench.backbones.network import UNREACHABLE, check_reachable, unreachable
from tlbench.errors import Unavailable, UserError

_failed: dict[str, str] = {}
"""File name -> why its download failed: one attempt a process, not one a cell."""

DOWNLOAD_TIMEOUT_SECONDS = 20.0


def hub_folder() -> Path:
    """Returns the folder where torch hub keeps weights: ``$TORCH_HOME/hub/checkpoints``."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def cached_or_downloaded(url: str) -> dict[str, Tensor]:
    """Returns the state dict of a URL, from torch hub's cache or by download into it.

    Errors: Unavailable, with the file, its folder and the way forward; UserError for a damaged file.
    """
    parsed = urlparse(url)
    name, host = Path(parsed.path).name, parsed.netloc
    path = hub_folder() / name
    if not path.exists():
        reason = _failed.get(name) or UNREACHABLE.get(host)
        if reason is None:
            try:
                _download(url, path)
            except (OSError, RuntimeError) as error:
                reason = str(getattr(error, "reason", None) or error)
                (UNREACHABLE if unreachable(error) else _failed)[host if unreachable(error) else name] = reason
        if reason is not None:
            raise Unavailable(
                f"pretrained weights are not at hand: the download failed ({reason}); "
                f"put {name} into {_shown(path.parent)}, or use --weights random"
            )
    return read_state(path, f"{path} is damaged; delete it to have it downloaded again")


def _shown(folder: Path) -> str:
    """Writes a folder with ``~`` for the home folder: records travel, and whose machine it was is nobody's business."""
    home = Path.home()
    return f"~/{folder.relative_to(home)}" if folder.is_relative_to(home) else str(folder)


def _download(url: str, path: Path) -> None:
    check_reachable(url)
    path.parent.mkdir(parents=True, exist_ok=True)
    hash_prefix = re.search(r"-([0-9a-f]{8,})\.", path.name)
    with _timeout(DOWNLOAD_TIMEOUT_SECONDS):
        # Writes beside the target and renames, so that an interrupted download leaves no file.
        torch.hub.download_url_to_file(
            url, str(path), hash_prefix[1] if hash_prefix else None, progress=sys.stderr.isatty()
        )


@contextlib.contextmanager
def _timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def read_state(path: Path, damaged: str) -> dict[str, Tensor]:
    """Returns the tensors of a checkpoint file, ``state_dict`` and ``module.`` wrappers taken off.

    Errors: UserError ``damaged`` with the reason when it is no file of tensors.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            # Training scripts keep their options beside the weights; a Namespace holds values and runs nothing.
            with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what is wrong with the file is said below, in one line
                state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many kinds for a damaged file
        raise UserError(f"{damaged} ({_why(path, error)})") from None
    for wrapper in ("state_dict", "model_state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()) or not state:
        kind = f"a mapping of {', '.join(map(str, [*state][:5]))}" if isinstance(state, Mapping) and state else None
        raise UserError(
            f"{damaged} (no state dict: a mapping from parameter names to tensors was expected, "
            f"not {kind or f'an empty or other object ({type(state).__name__})'})"
        )
    return _without_prefix(state)


def _why(path: Path, error: Exception) -> str:
    """Gives the reason in one short line."""
    text = str(error).strip()
    if not path.stat().st_size:
        return "it is empty"
    with path.open("rb") as file:
        if path.suffix != ".safetensors" and not file.read(2).startswith((b"PK", b"\x80")):
            return "torch.save has not written it"
    if "TorchScript" in text:
        return "it is a TorchScript program; save its state_dict() instead"
    if "weights only" in text.lower():
        refused = re.search(r"GLOBAL ([\w.]+)", text)
        named = f" ({refused[1]})" if refused else ""
        return f"it holds more than tensors{named}, and tlbench never runs code from a checkpoint"
    first = (text.splitlines() or [type(error).__name__])[0].partition(". ")[0]
    return f"it is cut off or damaged: {first[:200]}"


def _without_prefix(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if not all(key.startswith("module.") for key in state):
        return dict(state) if not hasattr(state, "_metadata") else state  # type: ignore[return-value]
    return OrderedDict((key.removeprefix("module."), value) for key, value in state.items())


_OLD_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.((?:[12])\.\w+)$")


def load_into(model: nn.Module, state: Mapping[str, Tensor], what: str, head: Iterable[nn.Module]) -> None:
    """Loads a whole model's state, whatever the head's number of classes.

    Errors: UserError naming the first five missing, unexpected and wrongly shaped keys, and their counts.
    """
    expected = model.state_dict()
    replaced = {id(p) for module in head for p in module.parameters()}
    in_head = {name for name, p in model.named_parameters() if id(p) in replaced}
    given = {_OLD_DENSENET.sub(r"\1\2", key): value for key, value in state.items()}
    given = {key: value for key, value in given.items() if not key.lower().startswith(("aux1.", "aux2.", "auxlogits."))}

    counters = {key for key in expected if key.endswith("num_batches_tracked")}  # absent from old checkpoints
    missing = [key for key in expected if key not in given and key not in in_head | counters]
    unexpected = [key for key in given if key not in expected]
    shapes = [
        f"{key} {tuple(given[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in expected
        if key in given and key not in in_head and given[key].shape != expected[key].shape
    ]
    if missing or unexpected or shapes:
        parts = [_few("missing", missing), _few("unexpected", unexpected), _few("wrongly shaped", shapes)]
        raise UserError(f"{what} does not fit: {'; '.join(part for part in parts if part)}")
    fits = {k: v for k, v in given.items() if k not in in_head or v.shape == expected[k].shape}
    full: Any = OrderedDict({**expected, **fits})
    # Some modules (MNASNet) read a version from it.
    full._metadata = getattr(state, "_metadata", None) or getattr(expected, "_metadata", None)
    model.load_state_dict(full)


def _few(kind: str, keys: list[str]) -> str:
    if not keys:
        return ""
    return f"{len(keys)} {kind} ({', '.join(keys[:5])}{', …' if len(keys) > 5 else ''})"
