"""Loads code from outside that adds to the tables of this package, and what of it a run was made with."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tlbench.errors import UserError, text_of
from tlbench.machine.folders import same_folder
from tlbench.records.machine import SHORT
from tlbench.records.record import Record


def of_plugins(plugins: Iterable[str]) -> list[str]:
    """Writes plugins as options of a command."""
    return [f"--plugin={name}" for name in plugins]


def again_by(command: str, folder: Path, plugins: Iterable[str]) -> str:
    """Writes the command that does something of a run, with the plugins that it needs."""
    return shlex.join(["tlbench", command, str(folder), *of_plugins(plugins)])


def load_plugins(plugins: Iterable[str]) -> dict[str, str]:
    """Imports modules by name, or files by a path that ends in ``.py``, which add to the tables of this package.
    Returns the SHA-256 of each one's file (`fingerprint`), as a record keeps it.

    Errors: UserError naming the plugin and what went wrong in it.
    """
    loaded: dict[str, str] = {}
    for name in plugins:
        try:
            with same_folder():
                if name.endswith(".py"):
                    _load_file(Path(name))
                else:
                    importlib.import_module(name)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever code that is not ours raises, SystemExit as well
            raise UserError(
                f"plugin {name!r} cannot be imported: {type(error).__name__}: {one_line(text_of(error))}; "
                "give a file such as ./mine.py, or a module that Python finds"
            ) from None
        loaded[name] = fingerprint(name) or ""
    return loaded


def fingerprint(name: str) -> str | None:
    """Returns the SHA-256 of a plugin's file, empty for a module without one; None where there is no such plugin. What
    it imports itself is not part of it.
    """
    try:
        if name.endswith(".py"):
            path: str | None = name
        else:
            found = importlib.util.find_spec(name)
            if found is None:
                return None
            path = found.origin if found.has_location else None
        return hashlib.sha256(Path(path).read_bytes()).hexdigest() if path else ""
    except (OSError, ValueError, ImportError):
        return None


def with_those_of(
    run: str, made_with: Iterable[Mapping[str, str]], given: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Returns the plugins to load for a run's cells, and what there is to say of them: those that it was ``made_with``
    (as in `Record.plugins`), each in the place that ``given`` names for a file of the same name, then the others of
    ``given``. Nothing is loaded yet.

    Errors: UserError where one is not there, or is another than it was, unless it is given by name: no code runs that
    neither the user has named nor the run was made with.
    """
    known: dict[str, dict[str, None]] = {}
    for plugins in made_with:
        for name, sha256 in plugins.items():
            known.setdefault(name, {})[sha256] = None
    places = {Path(name).name: name for name in given}
    taken, notes = [], []
    for name, hashes in known.items():
        place = places.get(Path(name).name)
        now = fingerprint(place or name)
        before = " and ".join(sha256[:SHORT] for sha256 in hashes)
        if place is None and now is None:
            raise UserError(
                f"run {run!r} was made with the plugin {name!r}, which is not here; say where it lies now: "
                f"--plugin PATH/{Path(name).name}"
            )
        if now is not None and now not in hashes:
            changed = f"plugin {place or name!r} is not what run {run!r} was made with ({before}, now {now[:SHORT]})"
            if place is None:
                raise UserError(f"{changed}; to take it as it is, name it: --plugin {name}")
            notes.append(changed)
        elif len(hashes) > 1:
            notes.append(
                f"plugin {name!r} changed while run {run!r} was made ({before}); now it is {(now or '')[:SHORT]}"
            )
        taken.append(place or name)
    return [*dict.fromkeys([*taken, *given])], notes


def plugins_of(records: Iterable[Record]) -> list[Mapping[str, str]]:
    """Returns what the records were made with, each only once."""
    return list({tuple(record.plugins.items()): record.plugins for record in records}.values())


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
