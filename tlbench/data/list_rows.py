"""The rows of a list: read, each with the file that it names, and what is wrong with any of them named by its line.

One file, since each check of a row needs what the rows before have said.
"""

from __future__ import annotations

import errno
import os
import stat
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tlbench.data.columns import Columns, choose
from tlbench.data.inside import endings
from tlbench.data.levels import PARTS, split_names
from tlbench.data.list_files import Source
from tlbench.data.scan import OF_OTHER_READERS, Stamp
from tlbench.data.tables import Table, read_table
from tlbench.errors import UserError, is_text, printable

SHOWN = 3
"""How many rows an error names."""


@dataclass(slots=True)
class Row:
    """Is what one row says."""

    where: str
    """Its line, with the file where there are several."""
    name: str
    """The path as it is written."""
    root: str
    """The folder that it is relative to."""
    file: str
    """Where that is."""
    label: str
    part: str
    group: str = ""
    stamp: Stamp | None = None


@dataclass(kw_only=True)
class Read:
    """Is what has been read of a list."""

    shown: str
    rows: list[Row] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    missing: list[Row] = field(default_factory=list)
    """Rows whose image is not there."""
    called: dict[str, str] = field(default_factory=dict)
    """Split -> what the person calls it."""
    remarks: list[str] = field(default_factory=list)
    total: int = 0
    """All rows, those with problems as well."""
    grouped_by: str = ""

    def check(self, hint: str = "") -> None:
        """Raises UserError where rows have problems, naming the first few, with a ``hint`` at the end."""
        if self.problems:
            more = "; …" if len(self.problems) > SHOWN else ""
            raise UserError(
                f"list {self.shown}: {len(self.problems):,} of {self.total:,} rows cannot be used: "
                f"{'; '.join(self.problems[:SHOWN])}{more}{hint}"
            )


def read_rows(files: Sequence[Source], shown: str, options: Mapping[str, str]) -> Read:
    """Reads all files of a list, and looks at the files that its rows name; ``shown`` is what an error calls it.

    Errors: UserError for a file that cannot be read, and naming rows that cannot be: by their lines.
    """
    read = Read(shown=shown)
    for source in files:
        root = root_of(options, source)
        _take_rows(read, source, root, options, alone=len(files) == 1)
    if read.grouped_by:
        read.problems += [f"{row.where}: no group for {row.name!r}" for row in read.rows if not row.group]
    read.check()
    for row in read.rows:
        _look(read, row)
    read.check(_hint(read))
    _check_once(read)
    return read


def root_of(options: Mapping[str, str], source: Source) -> Path:
    """Returns the folder that the paths of a list are relative to. Errors: UserError."""
    if "root" not in options:
        return source.file.parent
    root = near(options["root"], source.file.parent)
    if not root.is_dir():
        raise UserError(f"root {options['root']!r} is no folder here, nor beside the list {source.shown!r}; give one")
    return root


def near(path: str, folder: Path) -> Path:
    """Returns where a path leads that an option names: as any path does, or else from the list's folder on."""
    own = Path(os.path.expanduser(path))
    return folder / own if not own.exists() and (folder / own).exists() else own


def _take_rows(read: Read, source: Source, root: Path, options: Mapping[str, str], alone: bool) -> None:
    """Reads one file of a list. Errors: UserError for what is wrong with all of it."""
    shown = repr(source.shown)
    table = read_table(source.file, shown)
    suffix = options.get("suffix", "")
    columns = _columns(table, options, shown, lambda cell: _is_image(cell, root, suffix))
    if columns.split is None and not source.split and not alone and options.get("split") != "none":
        raise UserError(
            f"list {read.shown}: the name of {shown} says none of {', '.join(PARTS)}; call it so, or give its rows a "
            "column 'split'"
        )
    rows = table.rows[columns.header :]
    part_of = {source.split: source.split} if columns.split is None else _parts_of_values(read, rows, columns.split)
    if source.split:
        read.called.setdefault(source.split, source.shown)
    if columns.group is not None:
        read.grouped_by = columns.names[columns.group]
    words = f"read as: {columns.in_words()}"
    read.remarks += [words] if words not in read.remarks else []
    prefix = "" if alone else f"{source.shown} "
    folder = os.path.join(root, "")
    for line, cells in rows:
        where = f"{prefix}{table.where(line)}"
        if problem := _problem(cells, columns, part_of, source.split):
            read.problems.append(f"{where}: {problem}")
            continue
        name = cells[columns.path]
        part = source.split if columns.split is None else part_of[cells[columns.split]]
        group = "" if columns.group is None else unicodedata.normalize("NFC", cells[columns.group])
        file = os.path.join(folder, name if not suffix or name.lower().endswith(suffix.lower()) else name + suffix)
        label = unicodedata.normalize("NFC", cells[columns.label])
        read.rows.append(Row(where, name, folder, file, label, part, group))
    read.total += len(rows)


def _columns(table: Table, options: Mapping[str, str], shown: str, is_image: Callable[[str], bool]) -> Columns:
    named = {what: value for what, value in options.items() if what in ("path", "label", "split", "group_column")}
    ignored = ["group_column"] if "group" in options else []
    if options.get("split") == "none":
        ignored.append("split")
    return choose(table, named, shown, is_image, ignored)


def _is_image(cell: str, root: Path, suffix: str) -> bool:
    """Tells whether a cell names an image: by its ending, or because it is there."""
    if cell.lower().endswith((*endings(), *OF_OTHER_READERS)):
        return True
    return bool(cell) and _is_file(root / (cell + suffix))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # what is no name of a file
        return False


def _parts_of_values(read: Read, rows: Iterable[tuple[int, tuple[str, ...]]], place: int) -> dict[str, str]:
    """Returns what a column of splits says -> train, val or test, of values that say one of these."""
    values = dict.fromkeys(cells[place] for _, cells in rows if place < len(cells))
    found = {}
    for part, written in split_names(values).items():
        if len(others := {value.casefold(): value for value in reversed(written)}) > 1:
            # One of them may be what nobody is to be tested on.
            one, other = sorted(others.values(), key=written.index)[:2]
            raise UserError(
                f"list {read.shown}: column {place + 1} has {one!r} and {other!r}, two names for one "
                "split; give the rows of both the same name, or take those of one out"
            )
        for value in written:
            found[value] = part
        read.called.setdefault(part, written[0])
    return found


def _problem(cells: Sequence[str], columns: Columns, part_of: Mapping[str, str], split: str) -> str:
    """Says why a row cannot be used; nothing where it can."""
    if len(cells) != columns.count:
        return f"{len(cells)} column{'s' * (len(cells) != 1)} where there are {columns.count}"
    if not cells[columns.path]:
        return "no path"
    if not cells[columns.label]:
        return f"no label for {cells[columns.path]!r}"
    if columns.group is not None and not cells[columns.group]:
        return f"no group for {cells[columns.path]!r}"
    if not is_text(cells[columns.label]):
        return f"label '{printable(cells[columns.label])}' is no text in UTF-8; save the list as UTF-8"
    if columns.split is not None:
        value = cells[columns.split]
        if value not in part_of:
            none = f"no split for {cells[columns.path]!r}"
            return f"split {value!r} is none of {', '.join(PARTS)}" if value else none
        if split and part_of[value] != split:
            return f"split {value!r} in a list of {split}"
    return ""


# --- files ----------------------------------------------------------------------------------------------------


def _look(read: Read, row: Row) -> None:
    """Looks at the file of a row, and notes what is wrong with it."""
    problem = ""
    try:
        found = _stat(row)
        row.stamp = found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_nlink
        if stat.S_ISDIR(found.st_mode):
            problem = "is a folder"
    except (FileNotFoundError, NotADirectoryError):
        problem = "is a link that leads nowhere" if os.path.islink(row.file) else "is not there"
        read.missing.append(row)
    except ValueError:
        problem = "is no name of a file"
    except OSError as error:
        if error.errno == errno.ELOOP:
            problem = "is a link that leads round in a circle"
        elif error.errno == errno.ENAMETOOLONG:
            problem = "is no name of a file"
        # What may not be read is said when it is opened, as in a folder.
    if problem:
        read.problems.append(f"{row.where}: {row.name!r} {problem}")


def _stat(row: Row) -> os.stat_result:
    """Asks the system about a row's file, which may be written as Windows does, or in another of Unicode's forms than
    on the disk. Errors: OSError, ValueError.
    """
    try:
        return os.stat(row.file)
    except FileNotFoundError:
        plain = row.file if os.sep == "\\" else row.file.replace("\\", "/")
        for file in (plain, unicodedata.normalize("NFC", plain), unicodedata.normalize("NFD", plain)):
            if file != row.file and os.path.exists(file):
                row.file = file
                return os.stat(file)
        raise


def _hint(read: Read) -> str:
    """Says what may be meant where images are not there."""
    if not read.missing:
        return ""
    root, name = Path(read.missing[0].root), read.missing[0].name
    for ending in endings():
        if _is_file(root / (name + ending)):
            return f"; did you mean ?suffix={ending}?"
    for other in (root.parent, *_folders_in(root)):
        if _is_file(other / name):
            return f"; paths are relative to {str(root)!r}: did you mean ?root={other}?"
        for ending in endings():
            if _is_file(other / (name + ending)):
                return f"; did you mean ?root={other}&suffix={ending}?"
    return f"; paths are relative to {str(root)!r}: ?root=FOLDER names another folder"


def _folders_in(root: Path) -> list[Path]:
    try:
        return sorted(one for one in root.iterdir() if one.is_dir())[:100]
    except OSError:
        return []


def _check_once(read: Read) -> None:
    """Raises UserError where a file is in several rows: one of them would be counted twice, or is wrong."""
    first: dict[str, Row] = {}
    for row in read.rows:
        other = first.setdefault(os.path.abspath(row.file), row)
        if other is row:
            continue
        if other.label != row.label:
            what = f"have {row.name!r} as {other.label!r} and as {row.label!r}"
        elif other.part != row.part:
            what = f"have {row.name!r} in {other.part} and in {row.part}"
        elif other.group != row.group:
            what = f"have {row.name!r} in group {other.group!r} and in {row.group!r}"
        else:
            what = f"both have {row.name!r}"
        read.problems.append(f"{other.where} and {row.where} {what}")
    read.check("; give each image one row")
