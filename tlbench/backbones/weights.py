"""Weights: files in torch hub's cache layout, downloads, checkpoints. Nothing is ever unpickled into code."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from tlbench.backbones.candidates import target_of
from tlbench.backbones.checkpoint import parse_checkpoint
from tlbench.backbones.fitting import DoesNotFit, Taken, load_content
from tlbench.backbones.network import UNREACHABLE, check_reachable, unreachable
from tlbench.backbones.reading import about, read_content
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
    home = Path(os.path.expanduser("~"))
    return f"~/{folder.relative_to(home)}" if home.is_absolute() and folder.is_relative_to(home) else str(folder)


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
    """Returns the state dict of a file that is published as one, with what torch keeps beside it.

    Errors: UserError ``damaged`` with the reason when it is no file of tensors.
    """
    state = read_content(path, damaged)
    for wrapper in ("state_dict", "model_state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()) or not state:
        raise UserError(f"{damaged} ({about(state)})")
    return state  # type: ignore[return-value]


def load_into(model: nn.Module, state: Mapping[str, Tensor], what: str, head: Iterable[nn.Module]) -> None:
    """Loads a whole model's published state, whatever the head's number of classes.

    Errors: UserError naming the first five missing, unexpected and wrongly shaped keys, and their counts.
    """
    try:
        load_content(model, state, what, target_of(model, head))
    except DoesNotFit as error:
        raise UserError(str(error)) from None


def load_checkpoint(model: nn.Module, spec: str, head: Iterable[nn.Module], backbone: str) -> Taken:
    """Loads what a checkpoint, ``PATH`` or ``PATH?key=NAME``, has for a whole model, and says what that was.

    Errors: DoesNotFit where it is of another model than the backbone; UserError where it is no file of weights.
    """
    checkpoint = parse_checkpoint(spec)
    content = read_content(checkpoint.file, f"checkpoint {checkpoint.path!r} cannot be read")
    what = f"checkpoint {checkpoint.path!r}"
    try:
        return load_content(model, content, what, target_of(model, head), checkpoint.key)
    except DoesNotFit as error:
        raise DoesNotFit(str(error).replace(" does not fit: ", f" does not fit {backbone}: ", 1)) from None
