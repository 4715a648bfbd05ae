"""How large libraries are imported. Nothing here imports torch."""

from __future__ import annotations

import gc
import importlib
import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.abc import Loader
from types import ModuleType
from typing import Any


@contextmanager
def uncollected() -> Iterator[None]:
    """Keeps Python from looking for garbage among what is imported within: nothing of it is any, and looking takes a
    fifth of the time that torch and torchvision take.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextmanager
def needed_to_the_end() -> Iterator[None]:
    """Keeps Python from looking for garbage among what is read within, then and for as long as the process lasts: a
    command needs all of its records until it ends, and each look at 50,000 of them takes a second.
    """
    with uncollected():
        yield
        gc.freeze()


@contextmanager
def later(modules: Mapping[str, Mapping[str, Any]]) -> Iterator[None]:
    """Keeps modules from being imported within, though libraries ask for them in passing: in the place of each that is
    installed and not there yet stands one with the names that are given for it. As soon as more is asked of one, all
    give up their places, and the module itself is imported. A package is named before its parts.
    """
    absent = [name for name in modules if name not in sys.modules]
    installed = {name: _is_installed(name) for name in {name.partition(".")[0] for name in absent}}
    stand_ins: list[_Later] = []
    for name in absent:
        if installed[name.partition(".")[0]]:
            _Later(name, modules[name], stand_ins)
    finder = _PartsFinder()
    try:
        for one in stand_ins:
            one.enter()
        sys.meta_path.insert(0, finder)
        yield
    finally:
        if finder in sys.meta_path:
            sys.meta_path.remove(finder)
        for one in stand_ins:
            one.leave()


def _is_installed(package: str) -> bool:
    """Tells whether a package can be imported, which is not tried."""
    return package in sys.modules or importlib.util.find_spec(package) is not None


class _Later(ModuleType):
    """Stands in for a module until more is asked of it than it knows. Whoever keeps it has the module all the same."""

    def __init__(self, name: str, known: Mapping[str, Any], together: list[_Later]) -> None:
        super().__init__(name)
        vars(self).update(known)
        self._together = together
        together.append(self)
        self.__path__: list[str] = []  # a package, whose parts `_PartsFinder` is asked for

    def __getattr__(self, name: str) -> Any:
        """Returns what the module itself has. Errors: AttributeError for what Python looks for in every module."""
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(imported(self.__name__), name)

    def enter(self) -> None:
        """Takes the place of the module, in its package as well, whose own ways to import it would not end here."""
        sys.modules[self.__name__] = self
        package, name = self._place()
        if package is not None:
            setattr(package, name, self)

    def leave(self) -> None:
        """Gives the place of the module up, and those of all that stand in together with it: what is imported for real
        is to find the real ones.
        """
        for one in self._together:
            one._leave()

    def _leave(self) -> None:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        package, name = self._place()
        if package is not None and vars(package).get(name) is self:
            delattr(package, name)

    def _place(self) -> tuple[ModuleType | None, str]:
        """Returns the package that the module is part of, if that is there, and its name in it."""
        package, _, name = self.__name__.rpartition(".")
        return sys.modules.get(package), name


def imported(name: str) -> ModuleType:
    """Imports a module itself, whether or not another stands in its place."""
    stand_in = sys.modules.get(name)
    if isinstance(stand_in, _Later):
        stand_in.leave()
    return importlib.import_module(name)


class _PartsFinder:
    """Is asked for the parts of packages in whose place others stand: whoever imports one gets the real ones."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> Any:
        """Finds a part of such a package, once this is imported; None for any other module, which others find."""
        package = name.rpartition(".")[0]
        if not isinstance(sys.modules.get(package), _Later):
            return None
        places = imported(package).__path__
        if name in sys.modules:  # the package has imported it
            return importlib.util.spec_from_loader(name, There(sys.modules[name]))
        return importlib.machinery.PathFinder.find_spec(name, places)


class There(Loader):
    """Loads a module that is there already."""

    def __init__(self, module: ModuleType) -> None:
        self._module, self._spec = module, module.__spec__

    def create_module(self, spec: Any) -> ModuleType:
        """Returns the module, as it is."""
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        """Runs nothing, and leaves no trace of the loader."""
        module.__spec__ = self._spec
