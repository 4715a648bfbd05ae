"""Which files a ``list:PATH`` is made of, and which split each of them is: by their names."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tlbench.data.inside import look
from tlbench.data.levels import NAMES, PARTS, split_names
from tlbench.data.options import places_of
from tlbench.data.tables import READ
from tlbench.errors import UserError

LAYOUT = (
    "expected list:FILE (.csv, .tsv, .jsonl, .parquet, or lines of a path and a label), list:FOLDER with lists of "
    "train, val and test, or list:FILE+FILE"
)
LIKE = {
    split: re.compile(
        rf"(?<![^\W\d_])({'|'.join(names)})(val|set|data|images|imgs|list|split|labels|files|metadata)?(?![^\W\d_])"
    )
    for split, names in NAMES.items()
}
"""Names that say a split beside other things: ``train800``, ``test_labels``, ``trainlist01``."""
METADATA = "metadata"
"""What Hugging Face's ImageFolder calls its lists, in the folder or in those of its splits."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Is one file of a list."""

    file: Path
    shown: str
    """What it is called beside the others."""
    split: str = ""
    """train, val or test by its name; empty where that is for its rows to say."""


def sources(plain: str) -> list[Source]:
    """Returns the files of a list that is written without options. Errors: UserError for what is not there, for lists
    of which it cannot be told what they are, and for two of one split in a folder.
    """
    if not plain:
        raise UserError(f"dataset 'list:' names no list; {LAYOUT}")
    places = [Path(os.path.expanduser(place)) for place in places_of(plain)]
    for place in places:
        _check_there(place)
    if len(places) == 1:
        return _of_folder(places[0]) if places[0].is_dir() else [Source(file=places[0], shown=places[0].name)]
    for place in places:
        if place.is_dir():
            raise UserError(f"list {plain!r} joins files, but {str(place)!r} is a folder; name the files in it")
        if places.count(place) > 1:
            raise UserError(f"list {plain!r} names {str(place)!r} twice; leave one of them")
    split_of = {
        place: split
        for split, some in by_split([place.name for place in places]).items()
        for place in places
        if place.name in some
    }
    # Of several, not only the name may say what they are.
    return [Source(file=place, shown=place.name, split=split_of.get(place, "")) for place in places]


def _check_there(place: Path) -> None:
    try:
        there = place.exists()
    except OSError as error:
        raise UserError(f"list {str(place)!r} cannot be read: {error.strerror}") from None
    if not there and place.is_symlink():
        raise UserError(f"list {str(place)!r} is a link that leads nowhere; repair or remove it")
    if not there:
        raise UserError(f"list {str(place)!r} does not exist; {LAYOUT}")


def by_split(names: Sequence[str]) -> dict[str, list[str]]:
    """Returns split -> the names of files that say it: those that are called so, otherwise those that are called
    something like it, and like no other split.

    >>> by_split(["train800.txt", "val200.txt", "train800val200.txt", "test.txt"])
    {'test': ['test.txt'], 'train': ['train800.txt'], 'val': ['val200.txt']}
    """
    stems = {name: os.path.splitext(name)[0].casefold() for name in names}
    exact = split_names(dict.fromkeys(stems.values()))
    found = {split: [name for name in names if stems[name] in written] for split, written in exact.items()}
    known = {name for some in found.values() for name in some}
    for name, stem in stems.items():
        like = [split for split, pattern in LIKE.items() if pattern.search(stem)]
        if name not in known and len(like) == 1 and like[0] not in exact:
            found.setdefault(like[0], []).append(name)
    return found


def _of_folder(folder: Path) -> list[Source]:
    """Returns the lists in a folder. Errors: UserError."""
    inside = look(folder)
    lists = [name for name in inside.others if name.lower().endswith(READ)]
    named = by_split(lists)
    if "train" in named:
        return [
            Source(file=folder / _one_of(folder, named[split]), shown=named[split][0], split=split)
            for split in PARTS
            if split in named
        ]
    if whole := [name for name in lists if os.path.splitext(name)[0].casefold() == METADATA]:
        return [Source(file=folder / _one_of(folder, whole), shown=whole[0])]
    if own := _in_splits(folder, inside.folders):
        return own
    if named:
        has = ", ".join(repr(some[0]) for some in named.values())
        raise UserError(f"folder {str(folder)!r} has {has}, but no list of train; {LAYOUT}")
    tables = [name for name in lists if not name.lower().endswith(".txt")] or lists
    meant = f"; did you mean 'list:{folder / tables[0]}'?" if tables else ""
    meant = meant or f"; {LAYOUT}"
    raise UserError(f"folder {str(folder)!r} has no list that is called train, nor {METADATA}.csv{meant}")


def _in_splits(folder: Path, folders: Sequence[str]) -> list[Source]:
    """Returns the lists in the folders of the splits, as Hugging Face's ImageFolder has them. Errors: UserError."""
    found = []
    for split, names in split_names(folders).items():
        lists = []
        for name in names:
            inside = look(folder / name)
            if own := [one for one in inside.others if os.path.splitext(one)[0].casefold() == METADATA]:
                lists.append(f"{name}/{_one_of(folder / name, own)}")
        if len(lists) > 1:
            raise UserError(
                f"folder {str(folder)!r} has {lists[0]!r} and {lists[1]!r}, two lists for one split; take one of the "
                "two folders out"
            )
        for one in lists:
            found.append(Source(file=folder / one, shown=one, split=split))
    return sorted(found, key=lambda source: PARTS.index(source.split))


def _one_of(folder: Path, names: Sequence[str]) -> str:
    if len(names) > 1:
        raise UserError(
            f"folder {str(folder)!r} has {names[0]!r} and {names[1]!r}, two lists for one split; join those that "
            f"count: 'list:{folder / names[0]}+…'"
        )
    return names[0]
