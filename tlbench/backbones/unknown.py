"""What stands for the objects of a checkpoint whose types are not looked up, and which of them make it a hostile one."""

from __future__ import annotations

import sys
from typing import Any

HARMLESS = {
    *(
        "argparse",
        "array",
        "collections",
        "codecs",
        "_codecs",
        "copyreg",
        "copy_reg",
        "dataclasses",
        "datetime",
        "decimal",
    ),
    *("enum", "fractions", "functools", "itertools", "logging", "numbers", "operator", "pathlib", "random", "re"),
    *("string", "threading", "time", "types", "typing", "uuid", "weakref", "zoneinfo"),
}
"""Modules of Python's own that training scripts keep objects of beside the weights. A checkpoint that calls something
of another one would be up to something: it is refused, though nothing here would call it."""
DANGEROUS = {"eval", "exec", "compile", "open", "__import__", "input", "breakpoint", "execfile", "apply", "setattr"}
"""Functions that are built in, of which the same is true."""


class Hostile(Exception):
    """A checkpoint would run something, were it unpickled; the message is its name."""


class Unknown(dict[Any, Any]):
    """Stands for an object of a type that is not looked up. It has the items where that is a kind of dictionary."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        """Module and name of the type, or of the function that would have made it."""
        self.is_module = False
        """Whether it is a whole model."""

    __hash__ = object.__hash__  # type: ignore[assignment]


class Name:
    """Stands for a class or a function that is not looked up."""

    def __init__(self, module: str, name: str) -> None:
        self.full = f"{module}.{name}"
        first = module.partition(".")[0]
        if first == "builtins":
            self.hostile = name in DANGEROUS
        else:
            self.hostile = first in sys.stdlib_module_names and first not in HARMLESS

    def made(self) -> Unknown:
        """Returns what stands for an object of it. Errors: Hostile."""
        if self.hostile:
            raise Hostile(self.full)
        return Unknown(self.full)
