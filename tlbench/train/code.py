"""What decides activations beside weights and images: how the stages are put together, and the code that runs them."""

from __future__ import annotations

import hashlib
import re
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType

from torch import nn

import tlbench

LIBRARIES = ("torch", "torchvision", "timm", "tlbench")
"""Their versions are part of what a machine is (`tlbench.machine.environment.stable`)."""
ROOMS = ("backbones", "machine", "measure", "policies", "train")
"""Folders of this package whose code has a part in activations: between two of its versions there are many states."""
_ADDRESS = re.compile(" at 0x[0-9a-f]+")


def code_of(stages: nn.Module) -> str:
    """Returns a hash of what stages compute beside their weights: their modules with what these say of themselves, and
    of classes from outside the libraries the code that was loaded, and their files. What such files call elsewhere it
    does not know.
    """
    digest = hashlib.sha256(_ADDRESS.sub("", repr(stages)).encode())
    digest.update(_own_code().encode())
    kinds = {kind for module in stages.modules() for kind in type(module).__mro__}
    own = {kind for kind in kinds if kind.__module__.partition(".")[0] not in (*LIBRARIES, "builtins")}
    for content in sorted(map(_content, {kind.__module__ for kind in own})):
        digest.update(content)
    # A file may have been edited since it was imported, and a notebook's classes have none.
    for content in sorted(map(_loaded, own)):
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


def _loaded(kind: type) -> bytes:
    """Returns a hash of the functions of a class as they were loaded."""
    digest = hashlib.sha256(f"{kind.__module__}.{kind.__qualname__}".encode())
    for name, value in sorted(vars(kind).items()):
        function = getattr(value, "__func__", getattr(value, "fget", value))
        if isinstance(function, FunctionType):
            digest.update(name.encode() + _of_code(function.__code__))
    return digest.digest()


def _of_code(code: CodeType) -> bytes:
    """Returns a hash of what code does: not of where it stands, which an edit elsewhere in a file changes."""
    digest = hashlib.sha256(code.co_code)
    for value in (code.co_names, code.co_varnames, code.co_freevars):
        digest.update(repr(value).encode())
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            digest.update(_of_code(constant))
        else:  # a set's order is another in each process
            digest.update(repr(sorted(map(repr, constant)) if isinstance(constant, frozenset) else constant).encode())
    return digest.digest()
