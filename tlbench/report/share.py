"""A report to give away: without the folders that things lie in, the machine's name and that of its user."""

from __future__ import annotations

import getpass
import os
import platform
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from html import escape
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any

from markupsafe import escape as in_template

from tlbench.analysis.frame import rows
from tlbench.analysis.raced import BY_NAME, races_of
from tlbench.data import DATASETS
from tlbench.data.inside import ENDINGS
from tlbench.data.levels import ARCHIVES
from tlbench.data.options import apart_by_text, shortened
from tlbench.data.scan import OF_OTHER_READERS
from tlbench.errors import printable
from tlbench.grid.cell import Cell
from tlbench.grid.other_tests import named
from tlbench.machine.credentials import without_credentials
from tlbench.machine.markdown import markdown
from tlbench.records.record import Record
from tlbench.report import write_report
from tlbench.report.disclosure import Disclosure

_QUOTED = re.compile(r"""(['"])(?:~[\w.-]*|[A-Za-z]:|file://)?[/\\][^'"\n]*?([^'"/\\\n]*)[/\\]?\1""")
_PLAIN = re.compile(
    r"""(?<![\w/\\.])(?!(?<=:)//)(?:~[\w.-]*|[A-Za-z]:)?[/\\]+(?:[^\s'"/\\:;,<>|()]+[/\\]+)*([^\s'"/\\:;,<>|()]+)"""
)
_FILE = re.compile(r"""file://[^\s'"]*?([^\s'"/\\]+)(?=[\s'"]|$)""")
OF_DATA = (".json", ".xml", ".npy", ".npz", ".h5", ".hdf5", ".mat", ".pkl", ".arrow", ".tfrecord", ".mp4")
"""Endings of other files of a data set."""
FILE = "[file]"
"""What stands for the name of an image, or of another file of a data set."""
_ENDINGS = "|".join(re.escape(one) for one in (*ENDINGS, *OF_OTHER_READERS, *ARCHIVES, *OF_DATA))
_INNER = re.compile(r"""(?<!\w)(['"])((?:(?!\1)[^\n])+)\1(?!\w)""")
"""What stands in quotes, also with spaces in it: a name that an error tells."""
_IMAGE = re.compile(
    rf"""(?<!\w)(?:[^\s'"/\\:;,<>|()]+[/\\])*[^\s'"/\\:;,<>|()]+?(?:{_ENDINGS})(?![\w.])""", re.IGNORECASE
)
"""A file of data without quotes, with the folders before it."""
_SHORTEST = 3
"""Characters of a name that is looked for in texts."""
WORDS = ("reason", "output", "validity_reason", "weights", "layout", "prefix", "nondeterministic", "environment")

FORMS: tuple[Callable[[str], str], ...] = (
    str,
    printable,
    lambda text: escape(printable(text)),
    lambda text: str(in_template(printable(text))),  # which writes quotes in another way
    lambda text: str(in_template(printable(text, keep="\n"))),
    lambda text: printable(text, keep="\n"),
    lambda text: markdown(printable(text)),
    escape,
    markdown,
)
"""Ways in which the files of a report write a text."""


def write_shared(records: Sequence[Record], folder: str | Path, runs: Sequence[str]) -> Path:
    """Writes a report as `tlbench.report.write_report` does, of records that name no place, host or user.
    Images, and the names of their files, are left out of it.
    """
    # Of what a name without a folder stands for, were it a path; and of files beside the records.
    # A relative one says nothing of where it lies, and may be a word of any text, as / is.
    folders = [folder for folder in (Path.cwd(), *_folders(records)) if folder.is_absolute() and folder.name]
    places = {f"{folder}{os.sep}" for folder in folders}
    written = {form(place) for place in places for form in (str, printable, escape, markdown)}

    names = _names_in(records)
    said = {reason: _cleaned(reason, names) for reason in _reasons(records)}

    def clean(text: str) -> str:
        for reason, cleaned in said.items():
            for form in FORMS:
                text = text.replace(form(reason), form(cleaned))
        for path in sorted(written, key=len, reverse=True):
            text = text.replace(path, "")
        return text

    bare = Disclosure(thumbnails=False, file_names=False, clean=clean)
    return write_report(shared(records), folder, _short(runs, names), disclosure=bare)


def shared(records: Sequence[Record]) -> list[Record]:
    """Returns records in which data sets and checkpoints have their own names alone, and nothing names a place, the
    host or the user. Two things of one name at two places stay two.
    """
    names = _names_in(records)
    datasets = _names([*(record.cell.dataset for record in records), *_tested_on(records)], names)
    weights = _names([record.cell.weights for record in records], names)
    tests = _names(_other_tests(records), names)
    files = dict.fromkeys(record.cell.relabel for record in records if record.cell.relabel is not None)
    corrections = {file: f"corrections{f'-{n}' * (n > 1)}.csv" for n, file in enumerate(files, start=1)}
    nodes, known = _nodes(records), dict[str, str]()
    roots = _names([root for record in records if (root := record.settings.data_root) is not None], names)
    plugins = _names([plugin for record in records for plugin in record.plugins], names)
    ids, taken = dict[str, str](), set[str]()
    found = []
    for record in records:
        cell = replace(record.cell, dataset=datasets[record.cell.dataset], weights=weights[record.cell.weights])
        if cell.relabel is not None:
            cell = replace(cell, relabel=corrections[cell.relabel])
        words = {name: _cleaned(getattr(record, name), names, known) for name in WORDS}
        places = {field: _own_name(place, names) for field, place in record.places.items()}
        if (id := _without_places(record, cell)) not in ids:
            ids[id] = _apart(_cleaned(id, names), taken)
        made = replace(record, cell=cell, places=places, id=ids[id], **words)
        made = replace(made, node=nodes.get(record.node, record.node))
        if record.plugins:
            made = replace(made, plugins={plugins[name]: sha256 for name, sha256 in record.plugins.items()})
        if (root := record.settings.data_root) is not None:
            made = replace(made, settings=replace(made.settings, data_root=roots[root]))
        found.append(_with_tests(made, datasets, tests))
    return found


def _without_places(record: Record, cell: Cell) -> str:
    """Returns the id of a record, in which more of a place's path stands where last names are the same: that of the
    names in ``cell`` in its stead.
    """
    told = record.id
    for place, name in ((record.cell.dataset, cell.dataset), (record.cell.weights, cell.weights)):
        parts = Path(apart_by_text(place.partition(":")[2] or place)[0]).parts
        for length in range(len(parts), 1, -1):
            longer = re.sub(r"[^\w.+-]", "_", "/".join(parts[-length:]))
            told = told.replace(f"-{longer}", "-" + re.sub(r"[^\w.+-]", "_", name.partition(":")[2] or name))
    return told


def _folders(records: Sequence[Record]) -> set[Path]:
    """Returns the folders that the runs of records lie in, as far as they have results on single images."""
    found = [one.per_image.place for one in records if one.per_image is not None]
    return {Path(place["folder"]) for place in found if place}


def _reasons(records: Sequence[Record]) -> list[str]:
    """Returns what races of these records say of cells that failed, the longest first."""
    raced = races_of([{"group": rows(records)}])
    return sorted({one.reason for race in raced for one in race.entrants if one.reason}, key=len, reverse=True)


def _tested_on(records: Sequence[Record]) -> list[str]:
    """Returns the data sets of the other tests of records."""
    asked = [named(text)[1] for record in records for text in record.settings.also_test]
    told = [one["dataset"] for record in records for one in record.other_tests.values() if "dataset" in one]
    return [*asked, *map(str, told)]


def _other_tests(records: Sequence[Record]) -> list[str]:
    """Returns the names that people have given to the other tests of records: those of corruptions are ours."""
    asked = [named(text)[0] for record in records for text in record.settings.also_test]
    return asked + [name for record in records for name, one in record.other_tests.items() if "dataset" in one]


def _with_tests(record: Record, datasets: Mapping[str, str], names: Mapping[str, str]) -> Record:
    """Returns a record whose other tests have their data sets' own names alone, and ``names`` of their own."""
    if not (record.settings.also_test or record.other_tests):
        return record
    also = tuple(f"{names[name]}={datasets[dataset]}" for name, dataset in map(named, record.settings.also_test))
    tests = {
        names.get(name, name): {**one, "dataset": datasets[str(one["dataset"])]} if "dataset" in one else one
        for name, one in record.other_tests.items()
    }
    return replace(record, settings=replace(record.settings, also_test=also), other_tests=tests)


def _names(values: Iterable[str], people: Mapping[str, str]) -> dict[str, str]:
    """Maps values to short names without those of ``people`` and machines, of which no two are the same."""
    taken = set[str]()
    return {value: _apart(_own_name(value, people), taken) for value in dict.fromkeys(values)}


def _apart(name: str, taken: set[str]) -> str:
    """Returns a name, with a number behind it where it is taken, and takes it."""
    found, number = name, 2
    while found in taken:
        found, number = f"{name}-{number}", number + 1
    taken.add(found)
    return found


def _own_name(value: str, people: Mapping[str, str]) -> str:
    """Returns the short name of a thing without those of ``people`` and machines; what is ours keeps its name, whoever
    has the same.
    """
    name = _name(value)
    if value in BY_NAME or value in DATASETS:
        return name
    kind, colon, own = name.partition(":")
    return f"{kind}:{_without(own, people)}" if colon and kind in DATASETS else _without(name, people)


def _name(value: str) -> str:
    """Returns ``folder:PATH`` and paths with the last part of the path alone; names as they are."""
    kind, colon, path = value.partition(":")
    if colon and kind in ("folder", "list"):
        plain, options = apart_by_text(path)
        return f"{kind}:{'+'.join(_name(part) for part in plain.split('+'))}{shortened(options)}"
    if colon and len(kind) > 1:
        return f"{kind}:{_name(path)}" if _is_path(path) else value
    return _last(value) if _is_path(value) else value


def _is_path(value: str) -> bool:
    return bool(re.search(r"[/\\]", value)) or value.startswith(("~", "."))


def _last(path: str) -> str:
    pure: PurePath = PureWindowsPath(path) if re.match(r"[A-Za-z]:|[^/]*\\", path) else PurePath(path)
    return pure.name if pure.name not in ("", "..") else Path(os.path.abspath(path)).name


def _short(runs: Sequence[str], people: Mapping[str, str]) -> list[str]:
    names = _names([f"{run}/." if not _is_path(run) else run for run in dict.fromkeys(runs)], people)
    return [names[run if _is_path(run) else f"{run}/."] for run in runs]


def _names_in(records: Sequence[Record]) -> dict[str, str]:
    """Maps the names of this user, this host and the nodes of a cluster to what stands for them, the longest first."""
    numbered = _nodes(records)
    short = {name.partition(".")[0]: stands for name, stands in numbered.items()}
    found = {**short, **_own_names(), **numbered}
    found = {re.sub(r"\W", "_", name): stands for name, stands in found.items()} | found  # as ids have them
    return {name: found[name] for name in sorted(found, key=len, reverse=True) if len(name) >= _SHORTEST}


def _nodes(records: Sequence[Record]) -> dict[str, str]:
    """Maps the nodes of a cluster to what stands for them."""
    names = sorted({record.node for record in records if record.node})
    return {name: f"[node {n}]" for n, name in enumerate(names, start=1)}


def _own_names() -> dict[str, str]:
    """Maps the names of this user and this host to what stands for them."""
    users, hosts = {os.path.basename(os.path.expanduser("~"))}, {platform.node()}
    with suppress(OSError, KeyError, ImportError):
        users.add(getpass.getuser())
    users |= {os.environ.get(name, "") for name in ("USER", "LOGNAME", "USERNAME", "SUDO_USER")}
    hosts |= {os.environ.get(name, "") for name in ("HOSTNAME", "COMPUTERNAME", "SLURMD_NODENAME")}
    hosts |= {host.partition(".")[0] for host in hosts}
    named = {**dict.fromkeys(users, "[user]"), **dict.fromkeys(hosts, "[host]")}
    return {name: named[name] for name in sorted(named, key=len, reverse=True) if len(name) >= _SHORTEST}


def _unnamed(found: re.Match[str]) -> str:
    """Returns what stands in quotes without the name of a file of data, and of another path its last part alone."""
    quote, text = found[1], found[2]
    if re.search(rf"(?:{_ENDINGS})$", text, re.IGNORECASE):
        return f"{quote}{FILE}{quote}"
    if re.search(r"\w[/\\]+\w", text) and "://" not in text:
        return f"{quote}{_last(text)}{quote}"
    return found[0]


def _cleaned(data: Any, names: Mapping[str, str], known: dict[str, str] | None = None) -> Any:
    """Returns data whose texts name none of these, nor a place; ``known``: texts that were cleaned so already."""
    if isinstance(data, Mapping):
        return {key: value if key == "sha256" else _cleaned(value, names, known) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return type(data)(_cleaned(value, names, known) for value in data)
    if not isinstance(data, str):
        return data
    if known is None:
        return _clean_text(data, names)
    if data not in known:
        known[data] = _clean_text(data, names)
    return known[data]


def _clean_text(data: str, names: Mapping[str, str]) -> str:
    text = without_credentials(data)
    text = _INNER.sub(_unnamed, text)
    for pattern, put in ((_FILE, r"\1"), (_QUOTED, r"\1\2\1"), (_PLAIN, r"\1"), (_IMAGE, FILE)):
        text = pattern.sub(put, text)
    return _without(text, names)


def _without(text: str, names: Mapping[str, str]) -> str:
    """Returns a text with what stands for these names in their place."""
    for name, stands in names.items():
        text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", stands, text)
    return text
