"""What is in a person's folder of images, before any is decoded: its splits, classes and files, and what is wrong."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tlbench.data.inside import ENDINGS, entries, is_folder, is_image, leads_nowhere
from tlbench.data.levels import ARCHIVES, LAYOUT, PARTS, Levels, count_images, read_levels, some_of
from tlbench.errors import UserError

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
    files: tuple[Path, ...]
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


def scan(path: str) -> Scan:
    """Lists the images of a folder, sorted.

    Errors: UserError naming what is missing and the layout that is expected.
    """
    root = _root(path)
    levels = read_levels(root)
    found = {place: ClassFolder(root, inner) for place, inner in levels.folders.items()}
    lacking = _lacking(levels, found)
    places = [(part, label, name) for part in levels.splits for label, name in enumerate(levels.classes)]
    own = [(part, label, found[part, name]) for part, label, name in places if (part, name) in found]
    members = [(part, label, file) for part, label, folder in own for file in folder.images]
    stamps = [_stamp(file) for _, _, file in members]
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


# --- one class folder -----------------------------------------------------------------------------------------


class ClassFolder:
    """Holds what a class folder has. All below it is of its class, as for torchvision's ImageFolder, and links are
    followed; a folder that is there under several names is looked into once.
    """

    def __init__(self, root: Path, inner: str) -> None:
        """Reads the folder at ``inner``, below the root. Errors: UserError for what cannot be read, and for links that
        lead nowhere or round in a circle.
        """
        self.root, self.inner = root, inner
        self.images: list[Path] = []
        self.others: list[str] = []
        self.deeper: list[str] = []
        """The folders in it that hold images."""
        self.outside: list[str] = []
        """The images that lie outside of the root, behind links."""
        self.again = 0
        """Times that a folder came up which had been looked into."""
        self._base = os.path.join(os.path.realpath(root), "")
        above = frozenset(os.path.realpath(root / part) for part in ("", *_parents(inner)))
        seen: set[str] = set()
        left = [(inner, os.path.realpath(root / inner), above)]
        while left:  # no recursion: folders may lie deeper than Python lets functions call each other
            name, real, above = left.pop()
            if real in above:
                raise UserError(
                    f"folder {name!r} of {str(root)!r} is a link that leads back to a folder above it; remove it"
                )
            if real in seen:
                self.again += 1
                continue
            seen.add(real)
            left += [(*one, above | {real}) for one in reversed(self._read(name, real))]

    def _read(self, name: str, real: str) -> list[tuple[str, str]]:
        """Takes in what lies right in a folder, which is really at ``real``; returns the folders in it, and where these
        really are.
        """
        before, folders = len(self.images), []
        beyond = not real.startswith(self._base)
        for entry in entries(self.root / name, f"{name!r} of {str(self.root)!r}"):
            inner = f"{name}/{entry.name}"
            if is_image(entry.name):
                self.images.append(Path(entry.path))
                if beyond or (entry.is_symlink() and not os.path.realpath(entry.path).startswith(self._base)):
                    self.outside.append(inner)
            elif is_folder(entry):
                really = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(real, entry.name)
                folders.append((inner, really))
            elif not os.path.splitext(entry.name)[1] and leads_nowhere(entry):
                raise UserError(
                    f"folder {name!r} of {str(self.root)!r}: {entry.name!r} is a link that leads nowhere, and may have "
                    "been a folder of images; repair or remove it"
                )
            else:
                self.others.append(inner)
        if name != self.inner and len(self.images) > before:
            self.deeper.append(name)
        return folders

    def without_images(self) -> UserError:
        """Returns the error of a class that has none."""
        hint = f" (but other files, such as {self.others[0]!r})" if self.others else ""
        return UserError(
            f"class folder {self.inner!r} of {str(self.root)!r} holds no images{hint}; put some there, which end in "
            f"{', '.join(ENDINGS)}, or remove it; {LAYOUT}"
        )


def _parents(inner: str) -> list[str]:
    """Returns the folders between the root and a class folder.

    >>> _parents("train/cats")
    ['train']
    """
    parts = Path(inner).parts
    return [os.path.join(*parts[:count]) for count in range(1, len(parts))]


# --- all of them ----------------------------------------------------------------------------------------------


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


def _stamp(file: Path) -> Stamp | None:
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
        yield f"folders in a class folder are of its class: {some_of(deeper)}"
    outside = [name for folder in folders for name in folder.outside]
    if outside:
        yield f"outside of the folder, behind links: {count_images(len(outside))}, such as {outside[0]!r}"
    if again:
        yield f"counted once, though there under more names (links) in one class: {again:,}"
    unread = [name for name in passed_over if name.lower().endswith(OF_OTHER_READERS)]
    if unread:
        files = f"{len(unread):,} file{'s' * (len(unread) != 1)}"
        yield f"not used: {files} whose endings are not read, such as {unread[0]!r}; read are {', '.join(ENDINGS)}"
