"""Checkpoint files as people name them, ``PATH`` or ``PATH?key=NAME``; nothing here reads one, or imports torch."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from tlbench.errors import UserError, unknown

WEIGHTS = ("auto", "pretrained", "random")
"""Weights that are named by no file."""
ENDINGS = (".pth", ".pt", ".bin", ".safetensors", ".ckpt", ".tar", ".pkl")
"""What files of weights are mostly called: where there is none, it is the file that is missing, not a word misspelt."""
_KEY = re.compile(r"(?s)(.+)\?key=([^?/\\]+)")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Names a file, and which of the weights in it are meant."""

    path: str
    """As it was written; `file` is where it lies."""
    key: str | None = None
    """Name of an entry of the file, or of a prefix of its tensors' names; None lets the content decide."""

    @property
    def file(self) -> Path:
        """Returns where the file lies, ``~`` resolved."""
        return Path(os.path.expanduser(self.path))


def parse_checkpoint(spec: str) -> Checkpoint:
    """Takes ``PATH?key=NAME`` apart. What lies on the disk under the whole text is a path.

    >>> parse_checkpoint("runs/last.pth?key=state_dict_ema")
    Checkpoint(path='runs/last.pth', key='state_dict_ema')
    """
    found = _KEY.fullmatch(spec)
    if found is None or os.path.exists(os.path.expanduser(spec)):
        return Checkpoint(path=spec)
    return Checkpoint(path=found[1], key=found[2])


def with_key_of(new: str, old: str) -> str:
    """Returns the checkpoint at a new place with the key that the old one had, unless it names its own: a file that
    has moved is asked for the same weights.
    """
    if new in WEIGHTS or old in WEIGHTS or parse_checkpoint(new).key is not None:
        return new
    key = parse_checkpoint(old).key
    return new if key is None else f"{new}?key={key}"


def check_weights(spec: str) -> None:
    """Raises UserError for weights that are neither one of `WEIGHTS` nor a checkpoint file that can be opened, whatever
    it is called: what it holds is read when it is loaded.
    """
    if spec in WEIGHTS:
        return
    checkpoint = parse_checkpoint(spec)
    path = checkpoint.file
    if re.match(r"\w+://", spec):
        raise UserError(f"checkpoint {spec!r} is an address; download the file, and give the path where it lies")
    try:
        if path.is_file():
            with path.open("rb"):
                return
        folder, there = path.is_dir(), path.exists()
    except (OSError, ValueError) as error:  # no permission, a name too long, a NUL in it
        raise UserError(f"checkpoint {spec!r} cannot be opened: {getattr(error, 'strerror', None) or error}") from None
    if folder:
        raise UserError(f"checkpoint {spec!r} is a folder; give the file in it that holds the weights{_in(path)}")
    if there:
        raise UserError(
            f"checkpoint {spec!r} is no regular file; give a file that torch.save or safetensors has written"
        )
    if path.is_symlink():
        raise UserError(f"checkpoint {spec!r} is a link to {os.readlink(path)!r}, which is not there; mend the link")
    if "/" not in spec and os.sep not in spec and not path.name.lower().endswith(ENDINGS) and checkpoint.key is None:
        raise unknown("weights", spec, [*WEIGHTS, "PATH of a checkpoint"])
    raise UserError(
        f"checkpoint {spec!r} does not exist; give a file that torch.save or safetensors has written, or one of "
        f"{', '.join(WEIGHTS)}"
    )


def check_commas(specs: tuple[str, ...]) -> None:
    """Raises UserError where several weights that are not there are one file whose name has a comma."""
    for begin in range(len(specs)):
        for end in range(begin + 2, len(specs) + 1):
            for joint in (",", ", "):
                whole = joint.join(specs[begin:end])
                if parse_checkpoint(whole).file.is_file() and not parse_checkpoint(specs[begin]).file.is_file():
                    written = whole.replace(",", "\\,")
                    raise UserError(f"weights {whole!r} are one file, whose comma is written as \\,: '{written}'")


def _in(folder: Path) -> str:
    """Names a file of a folder that probably holds weights."""
    try:
        found = sorted(one.name for one in folder.iterdir() if one.name.lower().endswith(ENDINGS))
    except OSError:
        return ""
    return f", such as {found[0]!r}" if found else ""
