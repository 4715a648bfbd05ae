"""What stands for the objects of a checkpoint whose types are not looked up; which of them make it a hostile one."""

from __future__ import annotations

from typing import Any

HOSTILE = {
    *("os", "posix", "nt", "sys", "io", "_io", "subprocess", "commands", "socket", "shutil", "tempfile", "fileinput"),
    *("importlib", "imp", "runpy", "zipimport", "pty", "code", "codeop", "ctypes", "marshal", "pickle", "_pickle"),
    *("timeit", "pdb", "bdb", "profile", "cProfile", "webbrowser", "pip", "ensurepip", "venv", "site", "signal"),
}
"""Modules that attacks on those who unpickle go through, and that nothing beside weights has to do with. A checkpoint
that calls something of theirs is refused, though nothing here would call it."""
HOSTILE_BUILTINS = {"eval", "exec", "execfile", "compile", "open", "__import__", "input", "breakpoint", "apply"}
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
        self.hostile = first in HOSTILE or (first == "builtins" and name in HOSTILE_BUILTINS)

    def made(self) -> Unknown:
        """Returns what stands for an object of it. Errors: Hostile."""
        if self.hostile:
            raise Hostile(self.full)
        return Unknown(self.full)
