"""Keeps torch's compiler out of a process that compiles nothing: importing it takes as long as importing torch.

torch and its libraries import it in passing, to keep functions out of its graphs or to ask whether a GPU can do with
them; what they ask for means nothing where nothing is compiled. For as long as `without_compiler` lasts a stand-in
answers these few questions, and gives its place up to the compiler itself when anybody asks for more.
"""

from __future__ import annotations

import functools
import importlib
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch

from tlbench.machine.imports import There, uncollected

COMPILER, UTILITIES = "torch._dynamo", "torch._dynamo.utils"


def set_deterministic(wanted: bool, warn_only: bool = False) -> None:
    """Does what `torch.use_deterministic_algorithms` does, which imports the compiler's settings to tell them the same:
    here they are told only where they are there. `tlbench.train.compiling.own_graphs` tells them once it needs them.
    """
    if "torch._inductor.config" in sys.modules:
        torch.use_deterministic_algorithms(wanted, warn_only=warn_only)
    else:
        torch.set_deterministic_debug_mode(("warn" if warn_only else "error") if wanted else "default")


@contextmanager
def importing() -> Iterator[None]:
    """Lets torchvision and timm be imported as quickly as they can be: without the compiler, and `uncollected`."""
    with without_compiler(), uncollected():
        yield


@contextmanager
def without_compiler() -> Iterator[None]:
    """Lets torch, torchvision and timm be imported and used without the compiler, unless it is there already or
    somebody asks for more of it than the stand-in knows.
    """
    if COMPILER in sys.modules:  # the compiler, or a stand-in that an outer block takes away again
        yield
        return
    stand_in = _StandIn()
    try:
        stand_in.enter()
        yield
    finally:
        stand_in.leave()


class _StandIn(ModuleType):
    """Stands in for the compiler from `enter` to `leave`, and whatever was kept out of its graphs by then still is."""

    def __init__(self) -> None:
        super().__init__(COMPILER)
        self.__path__: list[str] = []  # a package, whose modules `_finder` is asked for
        self._kept_out: list[Any] = []
        self._utilities = ModuleType(UTILITIES)
        self._utilities.__getattr__ = functools.partial(self._more, UTILITIES)  # type: ignore[method-assign]
        self._utilities.is_compile_supported = self._is_compile_supported  # type: ignore[attr-defined]
        self._finder = _Finder(self._real)

    def enter(self) -> None:
        """Takes the place of the compiler: all that `leave` needs is there by now, wherever Ctrl-C tears this."""
        sys.modules[COMPILER], sys.modules[UTILITIES] = self, self._utilities
        sys.meta_path.insert(0, self._finder)

    def leave(self) -> None:
        """Gives the place of the compiler up."""
        for name, module in ((COMPILER, self), (UTILITIES, self._utilities)):
            if sys.modules.get(name) is module:
                del sys.modules[name]
        if self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)
        while self._kept_out:  # asked of the compiler itself from now on
            vars(self._kept_out.pop()).pop(_KEPT, None)

    def disable(self, fn: Any = None, recursive: bool = True, *, wrapping: bool = True, **more: Any) -> Any:
        """Keeps a function out of graphs, as soon as there may be any."""
        if fn is None:
            return functools.partial(self.disable, recursive=recursive, wrapping=wrapping, **more)
        if not wrapping:  # torch's own wrapper, which asks at the first call and keeps the answer with the function
            self._kept_out.append(fn)
            return fn
        return _kept_out_later(fn, {"recursive": recursive, **more})

    def graph_break(self, *_: Any, **__: Any) -> None:
        """Breaks no graph, since there is none."""

    def _is_compile_supported(self, device_type: Any) -> Any:
        return self._real(UTILITIES).is_compile_supported(device_type)

    def _real(self, name: str) -> Any:
        self.leave()
        return importlib.import_module(name)

    def __getattr__(self, name: str) -> Any:
        """Returns what the compiler has, which is imported for it."""
        return self._more(COMPILER, name)

    def _more(self, module: str, name: str) -> Any:
        if name.startswith("__"):  # Python itself looks for such names in every module
            raise AttributeError(name)
        return getattr(self._real(module), name)


_KEPT = "__dynamo_disable"
"""Where torch's wrapper keeps the answer."""


def _kept_out_later(fn: Callable[..., Any], how: dict[str, Any]) -> Callable[..., Any]:
    @functools.wraps(fn)
    def kept_out(*arguments: Any, **words: Any) -> Any:
        compiler = sys.modules.get(COMPILER)
        if compiler is None or isinstance(compiler, _StandIn):
            return fn(*arguments, **words)
        return compiler.disable(fn, **how)(*arguments, **words)

    return kept_out


class _Finder:
    """Is asked for the modules of the compiler while there is a stand-in: whoever imports one gets the real ones."""

    def __init__(self, real: Callable[[str], Any]) -> None:
        self._real = real

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> Any:
        """Finds a module of the compiler, once this is imported; None for any other module, which others find."""
        if not name.startswith(f"{COMPILER}."):
            return None
        package = self._real(COMPILER)
        if name in sys.modules:  # the package has imported it
            return importlib.util.spec_from_loader(name, There(sys.modules[name]))
        return importlib.machinery.PathFinder.find_spec(name, package.__path__)
