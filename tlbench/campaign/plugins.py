"""Loads code from outside that adds to the tables of this package."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path

from tlbench.errors import UserError


def load_plugins(plugins: Iterable[str]) -> None:
    """Imports modules by name, or files by a path that ends in ``.py``, which add to the tables of this package.

    Errors: UserError naming the plugin and what went wrong in it.
    """
    for name in plugins:
        try:
            if name.endswith(".py"):
                _load_file(Path(name))
            else:
                importlib.import_module(name)
        except (Exception, SystemExit) as error:  # whatever code that is not ours raises
            raise UserError(
                f"plugin {name!r} cannot be imported: {type(error).__name__}: {one_line(str(error))}; "
                "give a file such as ./mine.py, or a module that Python finds"
            ) from None


def _load_file(path: Path) -> None:
    name = _module_name(path)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)


def _module_name(path: Path) -> str:
    """Returns the name that a file's module gets: the file's own, but where that is another module's, which a file such
    as ``json.py`` would take away from whoever imports it afterwards.
    """
    loaded = getattr(sys.modules.get(path.stem), "__file__", None) if path.stem in sys.modules else str(path)
    try:
        found = importlib.util.find_spec(path.stem) if path.stem not in sys.modules else None
    except (ImportError, ValueError, AttributeError):  # a name that no module can have
        found = None
    taken = loaded is None or Path(loaded).resolve() != path.resolve()
    elsewhere = found is not None and (found.origin is None or Path(found.origin).resolve() != path.resolve())
    digest = hashlib.sha256(str(path.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"tlbench_plugin_{path.stem}_{digest}" if taken or elsewhere else path.stem


def one_line(text: str) -> str:
    """Returns a text in one line of at most 300 characters."""
    return " ".join(text.split())[:300]
