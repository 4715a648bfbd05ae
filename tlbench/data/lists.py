"""Images that a list names: ``list:PATH`` -> where they are, what they show and which split they are in.

A list says by columns what a folder says by its folders; all that comes after is the same (`tlbench.data.folder`).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from tlbench.data import groups
from tlbench.data.class_names import class_order, name_classes, names_beside
from tlbench.data.levels import PARTS, split_names
from tlbench.data.list_files import sources
from tlbench.data.list_rows import Read, near, read_rows, root_of
from tlbench.data.options import known_options
from tlbench.data.scan import Member, Scan, about_classes, less_repeats, once
from tlbench.errors import UserError

FORM = "list:PATH"
OPTIONS = {
    "path": "the column that names the image, by its name or, counted from 0, its number",
    "label": "the column of its class",
    "split": "the column of its split; none: tlbench makes the splits",
    "group_column": "the column of what stays in one split",
    "group": "a regular expression on the path, whose parentheses hold what stays in one split",
    "root": "the folder that the paths are relative to, where it is not the list's own",
    "suffix": "what the paths lack at their end, such as .jpg",
    "classes": "a file with the names of numbered classes",
}
"""What may follow the path of a list -> what it means."""
WITHOUT = "one list without splits: about 70/15/15 within each class, by seed"


def scan_list(path: str) -> Scan:
    """Lists the images that a list names, in the order that they have in a folder; none is opened. So the order of rows
    is of no consequence, and a list of what a folder holds is that folder.

    Errors: UserError for a list that is not there or not to be read, and naming the rows that cannot be.
    """
    return once(("list", os.getcwd(), path), lambda: _scan(path))


def files_of(path: str) -> list[tuple[str, Path]]:
    """Returns the name and the place of all files of a data set: the lists and their images. Errors: UserError."""
    plain, options = known_options(path, OPTIONS, FORM)
    lists = [(source.shown, source.file) for source in sources(plain)]
    if "classes" in options:
        lists.append((options["classes"], near(options["classes"], lists[0][1].parent)))
    scanned = scan_list(path)
    pairs = zip(scanned.names, scanned.files, strict=True)
    return [*lists, *((name, file) for name, file in pairs if isinstance(file, Path))]


def _scan(path: str) -> Scan:
    plain, options = known_options(path, OPTIONS, FORM)
    if "group" in options and "group_column" in options:
        raise UserError(f"list {plain!r} is given group and group_column; groups come from one of them")
    files = sources(plain)
    if options.get("split") == "none":
        files = [replace(source, split="") for source in files]
    read = read_rows(files, repr(plain), options)
    _make_parts(read, alone=len(files) == 1 and options.get("split") != "none")
    classes = _classes(read)
    roots = [root_of(options, source) for source in files]
    root = roots[0] if len(set(roots)) == 1 else Path(os.path.commonpath([os.path.abspath(one) for one in roots]))
    beside = files[0].file.parent
    if "classes" not in options and (found := names_beside(beside, classes, [source.file for source in files])):
        read.remarks.append(
            f"classes are called by their numbers; {found} beside the list names them: ?classes={found}"
        )
    return _scanned(read, classes, root, options, beside)


def _scanned(read: Read, classes: tuple[str, ...], root: Path, options: Mapping[str, str], beside: Path) -> Scan:
    label_of = {name: label for label, name in enumerate(classes)}
    if "classes" in options:
        classes = _renamed(read, classes, near(options["classes"], beside), options["classes"])
    name_of = partial(_name, os.path.join(os.path.abspath(root), ""))
    rows = [(row.part, label_of[row.label], name_of(row.file), row) for row in read.rows]
    rows.sort(key=lambda one: (PARTS.index(one[0] or "train"), one[1], _place(one[2])))
    members: list[Member] = [(part, label, Path(row.file), name) for part, label, name, row in rows]
    stamps = [row.stamp for *_, row in rows]
    kept = less_repeats(f"list {read.shown}", members, stamps)
    names = tuple(members[position][3] for position in kept)
    parts = tuple(members[position][0] for position in kept)
    labels = tuple(members[position][1] for position in kept)
    if "group" in options:
        named = groups.by_pattern(options["group"], names, f"list {read.shown}")
        source = f"'{options['group']}' in the path"
    else:
        named = tuple(rows[position][3].group for position in kept) if read.grouped_by else ()
        source = f"column {read.grouped_by!r}"
    splits = {part: read.called.get(part, part) for part in PARTS if part in parts} or {"": ""}
    lacking = _lacking(classes, splits, zip(parts, labels, strict=True))
    if len(members) > len(kept):
        again = len(members) - len(kept)
        read.remarks.append(f"counted once, though there under more names (links) in one class: {again:,}")
    read.remarks += [*about_classes(classes, splits, lacking, ""), *groups.across(named, parts, splits)]
    return Scan(
        root=root,
        classes=classes,
        files=tuple(members[position][2] for position in kept),
        names=names,
        labels=labels,
        parts=parts,
        folders={},
        stamps=tuple(stamps[position] for position in kept),
        passed_over=(),
        remarks=tuple(read.remarks),
        how_split=_how_split(read, splits) + groups.in_words(named, source, splits),
        groups=named,
    )


def _place(name: str) -> tuple[list[str], str]:
    """Returns what a name is sorted by: the images right in a folder stand before those in its folders."""
    folder, _, file = name.rpartition("/")
    return folder.split("/"), file


def _name(root: str, file: str) -> str:
    """Returns the path of a file below a folder, which ends with a slash; from there on where it lies elsewhere."""
    full = os.path.abspath(file)
    name = full[len(root) :] if full.startswith(root) else os.path.relpath(full, root)
    return name.replace(os.sep, "/")


# --- splits and classes ---------------------------------------------------------------------------------------


def _make_parts(read: Read, alone: bool) -> None:
    """Says of each row which split it is in, where the list does not. Errors: UserError where none is of train."""
    there = {row.part for row in read.rows}
    if there == {""} and alone:
        # Below the list's folder, however the paths are written: ./train/a.jpg, or absolute.
        below = [_name(os.path.join(os.path.abspath(row.root), ""), row.file) for row in read.rows]
        folders = [name.replace("\\", "/").partition("/") for name in below]
        first = {folder if slash else "" for folder, slash, _ in folders}
        named = split_names(first)
        if len(named) > 1 and "train" in named and sum(map(len, named.values())) == len(first):
            part_of = {name: part for part, names in named.items() for name in names}
            for row, (folder, _, _) in zip(read.rows, folders, strict=True):
                row.part = part_of[folder]
            read.called = {part: f"{names[0]}/" for part, names in named.items()}
            there = set(named)
    if there == {"train"}:
        for row in read.rows:
            row.part = ""
    elif "train" not in there and there != {""}:
        raise UserError(
            f"list {read.shown} has rows of {' and '.join(one for one in PARTS if one in there)}, but none of train; "
            "name some, or leave the splits to tlbench: ?split=none"
        )


def _classes(read: Read) -> tuple[str, ...]:
    """Returns the labels of the training rows in the order of their index. Errors: UserError for fewer than two, and
    for rows of others.
    """
    trained = [row for row in read.rows if row.part in ("", "train")]
    classes = class_order([row.label for row in trained], [row.where for row in trained], read.shown)
    if len(classes) < 2:
        raise UserError(f"list {read.shown} has only one class, {classes[0]!r}; a classifier needs at least two")
    known = set(classes)
    others = [row for row in read.rows if row.label not in known]
    read.problems += [f"{row.where}: label {row.label!r} is in {row.part}, but not in train" for row in others]
    read.check("; no model can learn it: give train rows of it, or leave it out")
    return classes


def _lacking(
    classes: Sequence[str], splits: Mapping[str, str], there: Iterable[tuple[str, int]]
) -> dict[str, list[str]]:
    """Returns the classes that splits have no images of."""
    count = Counter(there)
    found = {part: [name for label, name in enumerate(classes) if not count[part, label]] for part in splits}
    return {part: names for part, names in found.items() if names}


def _renamed(read: Read, classes: Sequence[str], file: Path, given: str) -> tuple[str, ...]:
    """Returns the names of the classes, in the order they have. Errors: UserError where a file lacks them."""
    if not file.is_file():
        raise UserError(f"classes {given!r} is no file here, nor beside the list; give one with a name for each label")
    names, others = name_classes(file, repr(given), classes)
    if others:
        read.remarks.append(f"{given} names {others:,} more class{'es' * (others != 1)}, of which there are no images")
    return tuple(names[name] for name in classes)


def _how_split(read: Read, splits: Mapping[str, str]) -> str:
    if "" in splits:
        name = read.called.get("train")
        return f"{name} alone: about 70/15/15 within each class, by seed" if name else WITHOUT
    if len(splits) == len(PARTS):
        return f"{splits['train']}, {splits['val']} and {splits['test']} as the list has them"
    part, missing = ("val", "test") if "val" in splits else ("test", "val")
    return (
        f"{splits[part]} is what is tested on (there is no {missing}); validation images are cut from "
        f"{splits['train']}, by seed"
    )
