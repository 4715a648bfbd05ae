"""What is in a person's folder of images, before any is decoded: its splits, classes and files, and what is wrong."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tlbench.data.class_folder import ClassFolder
from tlbench.data.inside import ENDINGS
from tlbench.data.levels import ARCHIVES, LAYOUT, PARTS, Levels, count_images, read_levels, some_of
from tlbench.errors import UserError

if TYPE_CHECKING:
    from tlbench.data.held import Held

OF_OTHER_READERS = (".gif", ".jfif", ".jpe", ".jp2", ".avif", ".heic", ".heif", ".dng", ".mpo", ".tga", ".svg")
"""Endings of pictures that are passed over: somebody else's reader may take them, so that it is said."""
Member = tuple[str, int, Path]
"""Split, label and path of an image."""
Stamp = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Scan:
    """Says where the images are; nothing is decoded yet."""

    root: Path
    classes: tuple[str, ...]
    files: tuple[Path | Held, ...]
    labels: tuple[int, ...]
    parts: tuple[str, ...]
    """train, val or test for each file; all empty where the folder leaves it to tlbench to divide them."""
    folders: Mapping[tuple[str, str], str]
    """(part, class) -> the class folder, below the root."""
    stamps: tuple[Stamp | None, ...]
    """Device, inode, size and times of each file, which change when it does; None for a link that leads nowhere."""
    passed_over: tuple[str, ...]
    """Other files in the class folders."""
    remarks: tuple[str, ...]
    """What is not read as it stands there, in lines: what is left out, and what is there in an unusual way."""
    photographs: bool = True
    """Near copies are looked for. Drawings of one sign look alike, and are none."""


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
    root = _root(path)
    levels = read_levels(root)
    found = {place: ClassFolder(root, inner) for place, inner in levels.folders.items()}
    lacking = _lacking(levels, found)
    places = [(part, label, name) for part in levels.splits for label, name in enumerate(levels.classes)]
    own = [(part, label, found[part, name]) for part, label, name in places if (part, name) in found]
    members = [(part, label, file) for part, label, folder in own for file in folder.images]
    stamps = [stamp_of(file) for _, _, file in members]
    once = _less_repeats(root, members, stamps)
    again = len(members) - len(once) + sum(folder.again for _, _, folder in own)
    passed_over = tuple(name for _, _, folder in own for name in folder.others)
    return Scan(
        root=root,
        classes=levels.classes,
        files=tuple(members[position][2] for position in once),
        labels=tuple(members[position][1] for position in once),
        parts=tuple(members[position][0] for position in once),
        folders=levels.folders,
        stamps=tuple(stamps[position] for position in once),
        passed_over=passed_over,
        remarks=(
            *levels.remarks,
            *_about_classes(levels, lacking),
            *_about_files([folder for _, _, folder in own], again, passed_over),
        ),
    )


def split_of(path: str) -> str:
    """Says in words how a folder's images are split, by its folders alone. Errors: UserError as `scan`."""
    levels = read_levels(_root(path))
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
        raise UserError(f"dataset folder {str(root)!r} does not exist; {LAYOUT}")
    if not is_a_folder and root.name.lower().endswith(ARCHIVES):
        raise UserError(f"dataset folder {str(root)!r} is an archive; unpack it, and give the folder that comes out")
    if not is_a_folder:
        raise UserError(f"dataset folder {str(root)!r} is no folder; {LAYOUT}")
    return root


def _lacking(levels: Levels, found: Mapping[tuple[str, str], ClassFolder]) -> dict[str, list[str]]:
    """Returns the classes that val and test have no images of. Errors: UserError where train has none of a class, or
    another split of all classes but one.
    """
    lacking = {}
    for part in levels.splits:
        there = {name for name in levels.classes if (part, name) in found and found[part, name].images}
        missing = [name for name in levels.classes if name not in there]
        empty = [found[part, name] for name in missing if (part, name) in found]
        if empty and (part in ("", "train") or len(there) < 2):
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


def _less_repeats(root: Path, members: Sequence[Member], stamps: Sequence[Stamp | None]) -> list[int]:
    """Returns the positions of the images, less those that are in their class already under another name. Under two
    classes of a split they stay, as copies do, which are counted and kept together.

    Errors: UserError for a file in two splits: it would be trained on and tested on.
    """
    numbers = Counter(stamp[:2] for stamp in stamps if stamp is not None)
    known: dict[object, list[int]] = {}
    kept = []
    for position, ((part, label, file), stamp) in enumerate(zip(members, stamps, strict=True)):
        if stamp is None or numbers[stamp[:2]] == 1:
            kept.append(position)
            continue
        # Some network file systems give several files one number: only links make two names of one file.
        others = known.setdefault(stamp[:2] if stamp[-1] > 1 else os.path.realpath(file), [])
        for other in others:
            if members[other][0] != part:
                raise UserError(
                    f"dataset folder {str(root)!r}: {str(members[other][2].relative_to(root))!r} and "
                    f"{str(file.relative_to(root))!r} are one file under two names (a link) in two splits, and "
                    "would be trained on and tested on; remove one of them"
                )
        if all(members[other][1] != label for other in others):
            kept.append(position)
            others.append(position)
    return kept


# --- what is said ---------------------------------------------------------------------------------------------


def _about_classes(levels: Levels, lacking: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Says which classes a split has no images of."""
    for part, names in lacking.items():
        count = f"{len(names):,} of the {len(levels.classes):,} classes"
        yield f"{levels.splits[part]}/ has no images of {count}: {some_of(names)}"


def _about_files(folders: Sequence[ClassFolder], again: int, passed_over: Sequence[str]) -> Iterator[str]:
    """Says what is unusual about the files in class folders."""
    deeper = [name for folder in folders for name in folder.deeper]
    if deeper:
        kinds = {tuple(name.removeprefix(f"{folder.inner}/") for name in folder.deeper) for folder in folders}
        alike = "; all classes have the same ones: are these the classes?" if len(kinds) == 1 else ""
        yield f"folders in a class folder are of its class: {some_of(deeper)}{alike}"
    outside = [name for folder in folders for name in folder.outside]
    if outside:
        yield f"outside of the folder, behind links: {count_images(len(outside))}, such as {outside[0]!r}"
    if again:
        yield f"counted once, though there under more names (links) in one class: {again:,}"
    unread = [name for name in passed_over if name.lower().endswith(OF_OTHER_READERS)]
    if unread:
        files = f"{len(unread):,} file{'s' * (len(unread) != 1)}"
        yield f"not used: {files} whose endings are not read, such as {unread[0]!r}; read are {', '.join(ENDINGS)}"
