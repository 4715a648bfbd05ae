"""What is in a person's folder of images, before any is decoded: its splits, classes and files, and what is wrong."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tlbench.data import groups, heif
from tlbench.data.class_folder import ClassFolder
from tlbench.data.inside import endings, meant_beside
from tlbench.data.levels import ARCHIVES, LAYOUT, PARTS, Levels, count_images, read_levels, some_of
from tlbench.data.options import known_options
from tlbench.errors import UserError, unknown

if TYPE_CHECKING:
    from tlbench.data.held import Held

OF_OTHER_READERS = (
    *(".gif", ".jfif", ".jpe", ".jp2", ".avif", ".heic", ".heif", ".dng", ".mpo", ".tga", ".svg", ".jxl", ".psd"),
    *(".raw", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".dcm"),
)
"""Endings of pictures that are passed over: somebody else's reader may take them, so that it is said."""
TABLES = (".csv", ".tsv", ".jsonl", ".parquet", ".txt")
"""Endings of what may be a list of images."""
OPTIONS = {
    "classes": "leaf: the innermost folders are the classes",
    "group": "a regular expression on the path of a file, whose parentheses hold what one group has in common",
}
"""What may follow the path of a folder -> what it means."""
Member = tuple[str, int, Path, str]
"""Split, label and path of an image, and what the data set calls it."""
Stamp = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Scan:
    """Says where the images are; nothing is decoded yet."""

    root: Path
    classes: tuple[str, ...]
    files: tuple[Path | Held, ...]
    names: tuple[str, ...]
    """What the data set calls each file: its path below the root, with `/`."""
    labels: tuple[int, ...]
    parts: tuple[str, ...]
    """train, val or test for each file; all empty where the folder leaves it to tlbench to divide them."""
    folders: Mapping[tuple[str, str], str]
    """(part, class) -> the class folder, below the root; empty for a list."""
    stamps: tuple[Stamp | None, ...]
    """Device, inode, size and times of each file, which change when it does; None for a link that leads nowhere."""
    passed_over: tuple[str, ...]
    """Other files in the class folders."""
    remarks: tuple[str, ...]
    """What is not read as it stands there, in lines: what is left out, and what is there in an unusual way."""
    how_split: str
    """How the images are split, in words."""
    groups: tuple[str, ...] = ()
    """What each image belongs to by a person's word, a patient, a shop; empty where nothing is said."""
    photographs: bool = True
    """Near copies are looked for. Drawings of one sign look alike, and are none."""
    column: str = ""
    """Which images of a table these are that has several of a row; empty where that cannot be."""


T = TypeVar("T")
_listings: list[dict[Hashable, Any] | None] = [None]


@contextmanager
def listed_once() -> Iterator[None]:
    """Has each folder listed once within, however often it is asked for: 100,000 files take a second."""
    before, _listings[0] = _listings[0], {}
    try:
        yield
    finally:
        _listings[0] = before


def once(key: Hashable, find: Callable[[], T]) -> T:
    """Returns what is found of folders; within `listed_once` it is found once for a key."""
    if (known := _listings[0]) is None:
        return find()
    if key not in known:
        known[key] = find()
    found: T = known[key]
    return found


def scan(path: str) -> Scan:
    """Lists the images of a folder, sorted.

    Errors: UserError naming what is missing and the layout that is expected.
    """
    return once(("scan", os.getcwd(), path), lambda: _scan(path))


def _scan(path: str) -> Scan:
    plain, options = known_options(path, OPTIONS, "folder:PATH")
    root = _root(plain)
    if options.get("classes", "leaf") != "leaf":
        raise unknown("value of classes", options["classes"], ["leaf"])
    levels = read_levels(root, leaf="classes" in options)
    found = {place: ClassFolder(root, inner) for place, inner in levels.folders.items()}
    lacking = _lacking(levels, found)
    places = [(part, label, name) for part in levels.splits for label, name in enumerate(levels.classes)]
    own = [(part, label, found[part, name]) for part, label, name in places if (part, name) in found]
    name_of = _namer(root)
    members = [(part, label, file, name_of(file)) for part, label, folder in own for file in folder.images]
    stamps = [stamp_of(file) for _, _, file, _ in members]
    once = less_repeats(f"dataset folder {str(root)!r}", members, stamps)
    again = len(members) - len(once) + sum(folder.again for _, _, folder in own)
    passed_over = tuple(name for _, _, folder in own for name in folder.others)
    names = tuple(members[position][3] for position in once)
    parts = tuple(members[position][0] for position in once)
    named = groups.by_pattern(options["group"], names, repr(str(root))) if "group" in options else ()
    return Scan(
        root=root,
        classes=levels.classes,
        files=tuple(members[position][2] for position in once),
        names=names,
        labels=tuple(members[position][1] for position in once),
        parts=parts,
        folders=levels.folders,
        stamps=tuple(stamps[position] for position in once),
        passed_over=passed_over,
        remarks=(
            *levels.remarks,
            *about_classes(levels.classes, levels.splits, lacking),
            *_about_files([folder for _, _, folder in own], again, passed_over),
            *groups.across(named, parts, {part: f"{name}/" for part, name in levels.splits.items()}),
        ),
        how_split=_how_split(levels) + groups.in_words(named, f"'{options.get('group')}' in the path", levels.splits),
        groups=named,
    )


def _namer(root: Path) -> Callable[[Path], str]:
    """Returns what names a file below the root. No `Path.relative_to`, which takes a second for 100,000 files."""
    length = len(os.path.join(root, "")) if str(root) != "." else 0
    return lambda file: str(file)[length:].replace(os.sep, "/")


def split_of(path: str) -> str:
    """Says in words how a folder's images are split, by its folders alone where there are no groups. Errors: UserError
    as `scan`.
    """
    plain, options = known_options(path, OPTIONS, "folder:PATH")
    return scan(path).how_split if "group" in options else _how_split(read_levels(_root(plain), "classes" in options))


def _how_split(levels: Levels) -> str:
    if "" in levels.splits:
        train = levels.splits[""]
        alone = f"{train}/, which has no split with class folders beside it" if train else "class folders alone"
        return f"{alone}: about 70/15/15 within each class, by seed"
    names = {part: f"{name}/" for part, name in levels.splits.items()}
    if len(names) == len(PARTS):
        return f"{names['train']}, {names['val']} and {names['test']} as they are in the folder"
    part, missing = ("val", "test") if "val" in names else ("test", "val")
    why = f"{missing}/ has no classes" if missing in levels.unlabelled else f"there is no {missing}/"
    return f"{names[part]} is what is tested on ({why}); validation images are cut from {names['train']}, by seed"


def remarks_of(path: str) -> tuple[str, ...]:
    """Says, in lines, what of a folder is not read as it stands there. Errors: UserError as `scan`."""
    return scan(path).remarks


def _root(path: str) -> Path:
    if not path:
        raise UserError("dataset 'folder:' names no folder; write folder:PATH")
    root = Path(os.path.expanduser(path))
    try:
        is_a_folder = root.is_dir()
        there = is_a_folder or root.exists()
    except OSError as error:
        raise UserError(f"dataset folder {str(root)!r} cannot be read: {error.strerror}") from None
    if not there:
        raise UserError(f"dataset folder {str(root)!r} does not exist; {meant_beside(root)}{LAYOUT}")
    if not is_a_folder and root.name.lower().endswith(ARCHIVES):
        raise UserError(f"dataset folder {str(root)!r} is an archive; unpack it, and give the folder that comes out")
    if not is_a_folder:
        meant = f"a list of images is written 'list:{root}'; " if root.name.lower().endswith(TABLES) else ""
        raise UserError(f"dataset folder {str(root)!r} is no folder; {meant}{LAYOUT}")
    return root


def _lacking(levels: Levels, found: Mapping[tuple[str, str], ClassFolder]) -> dict[str, list[str]]:
    """Returns the classes that val and test have no images of. Errors: UserError where train has none of a class, or
    another split has none at all.
    """
    lacking = {}
    for part in levels.splits:
        there = {name for name in levels.classes if (part, name) in found and found[part, name].images}
        missing = [name for name in levels.classes if name not in there]
        empty = [found[part, name] for name in missing if (part, name) in found]
        if empty and (part in ("", "train") or not there):
            raise empty[0].without_images()
        if missing:
            lacking[part] = missing
    return lacking


def stamp_of(file: Path) -> Stamp | None:
    """Returns device, inode, size, times and the number of names of a file; None for a link that leads nowhere."""
    try:
        s = file.stat()
    except OSError:
        return None
    return s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_nlink


def less_repeats(whole: str, members: Sequence[Member], stamps: Sequence[Stamp | None]) -> list[int]:
    """Returns the positions of the images, less those that are in their class already under another name. Under two
    classes of a split they stay, as copies do, which are counted and kept together. ``whole`` is what an error calls
    the data set.

    Errors: UserError for a file in two splits: it would be trained on and tested on.
    """
    numbers = Counter(stamp[:2] for stamp in stamps if stamp is not None)
    known: dict[object, list[int]] = {}
    kept = []
    for position, ((part, label, file, name), stamp) in enumerate(zip(members, stamps, strict=True)):
        if stamp is None or numbers[stamp[:2]] == 1:
            kept.append(position)
            continue
        # Some network file systems give several files one number: only links make two names of one file.
        others = known.setdefault(stamp[:2] if stamp[-1] > 1 else os.path.realpath(file), [])
        for other in others:
            if members[other][0] != part:
                raise UserError(
                    f"{whole}: {members[other][3]!r} and {name!r} are one file under two names (a link) in two splits, "
                    "and would be trained on and tested on; remove one of them"
                )
        if all(members[other][1] != label for other in others):
            kept.append(position)
            others.append(position)
    return kept


# --- what is said ---------------------------------------------------------------------------------------------


def about_classes(
    classes: Sequence[str], splits: Mapping[str, str], lacking: Mapping[str, Sequence[str]], mark: str = "/"
) -> Iterator[str]:
    """Says which classes a split has no images of. ``splits`` says what each is called, a ``mark`` follows that."""
    for part, names in lacking.items():
        count = f"{len(names):,} of the {len(classes):,} classes"
        yield f"{splits[part]}{mark} has no images of {count}: {some_of(names)}"


def _about_files(folders: Sequence[ClassFolder], again: int, passed_over: Sequence[str]) -> Iterator[str]:
    """Says what is unusual about the files in class folders."""
    deeper = [name for folder in folders for name in folder.deeper]
    if deeper:
        kinds = {tuple(name.removeprefix(f"{folder.inner}/") for name in folder.deeper) for folder in folders}
        alike = "; all classes have the same ones: are these the classes?" if len(kinds) == 1 else ""
        yield (
            f"folders in a class folder are of its class: {some_of(deeper)}{alike}; folder:PATH?classes=leaf takes the "
            "innermost folders as classes"
        )
    outside = [name for folder in folders for name in folder.outside]
    if outside:
        yield f"outside of the folder, behind links: {count_images(len(outside))}, such as {outside[0]!r}"
    if again:
        yield f"counted once, though there under more names (links) in one class: {again:,}"
    if unread := unread_endings(passed_over):
        count = sum(unread.values())
        first = next(name for name in passed_over if _ending(name) in unread)
        by_ending = ", ".join(f"{number:,} {ending}" for ending, number in unread.items())
        more = f" ({heif.INSTALL})" if set(heif.ENDINGS) & set(unread) else ""
        yield (
            f"not used: {count:,} file{'s' * (count != 1)} whose endings are not read, such as {first!r}: "
            f"{by_ending}{more}; read are {', '.join(endings())}"
        )


def unread_endings(passed_over: Sequence[str]) -> dict[str, int]:
    """Counts, by their endings in small letters, files that are pictures and are not read here; the most frequent
    first.
    """
    found = Counter(ending for name in passed_over if (ending := _ending(name)) in OF_OTHER_READERS)
    return dict(sorted(found.items(), key=lambda one: (-one[1], one[0])))


def _ending(name: str) -> str:
    return os.path.splitext(name)[1].lower()
