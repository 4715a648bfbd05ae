"""What decides activations beside weights and images: how the stages are put together, and the code that runs them."""

from __future__ import annotations

import hashlib
import re
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

from torch import nn

import tlbench

LIBRARIES = ("torch", "torchvision", "timm", "tlbench")
"""Their versions are part of what a machine is (`tlbench.machine.environment.stable`)."""
ROOMS = ("backbones", "machine", "measure", "policies", "train")
"""Folders of this package whose code has a part in activations: between two of its versions there are many states."""
_ADDRESS = re.compile(" at 0x[0-9a-f]+")


def code_of(stages: nn.Module) -> str:
    """Returns a hash of what stages compute beside their weights: their modules with what these say of themselves, and
    the files of classes from outside the libraries. What such files call elsewhere it does not know.
    """
    digest = hashlib.sha256(_ADDRESS.sub("", repr(stages)).encode())
    digest.update(_own_code().encode())
    modules = {type(module).__module__ for module in stages.modules()}
    for content in sorted(map(_content, (name for name in modules if name.partition(".")[0] not in LIBRARIES))):
        digest.update(content)
    return digest.hexdigest()


@cache
def _own_code() -> str:
    package, digest = Path(tlbench.__file__).parent, hashlib.sha256()
    for room in ROOMS:
        for path in sorted((package / room).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _content(module: str) -> bytes:
    """Returns the hash of a module's file; that of its name where it has none."""
    file = getattr(sys.modules.get(module), "__file__", None)
    with suppress(OSError):
        if file:
            return hashlib.sha256(Path(file).read_bytes()).digest()
    return hashlib.sha256(module.encode()).digest()
