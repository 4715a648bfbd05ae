"""Loads code from outside that adds to the tables of this package."""

from __future__ import annotations

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
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)


def one_line(text: str) -> str:
    """Returns a text in one line of at most 300 characters."""
    return " ".join(text.split())[:300]
