"""What is in a person's folder of images, before any is decoded: its splits, classes and files, and what is wrong."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tlbench.data.splits import HELD_OUT
from tlbench.errors import UserError

ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""The endings of torchvision's ImageFolder, so that a peer which uses it sees the same images."""
LAYOUT = "expected PATH/train/CLASS/*.jpg and PATH/val/CLASS/*.jpg, or PATH/CLASS/*.jpg"
PARTS = ("train", "val", "test")
MISNAMED = {"training": "train", "valid": "val", "validation": "val", "dev": "val", "testing": "test"}


@dataclass(frozen=True, kw_only=True)
class Scan:
    """Says where the images are; nothing is decoded yet."""

    root: Path
    classes: tuple[str, ...]
    files: tuple[Path, ...]
    labels: tuple[int, ...]
    parts: tuple[str, ...]
    """train, val or test for each file; all empty where the folder has no such level."""
    stamps: tuple[tuple[int, ...] | None, ...]
    """Device, inode, size and times of each file, which change when it does; None for a link that leads nowhere."""
    passed_over: tuple[str, ...]
    """Other files in the class folders."""


_once: list[dict[tuple[str, str], Scan] | None] = [None]


@contextmanager
def listed_once() -> Iterator[None]:
    """Has each folder listed once within, however often it is asked for: 100,000 files take a second."""
    before, _once[0] = _once[0], {}
    try:
        yield
    finally:
        _once[0] = before


def scan(path: str) -> Scan:
    """Lists the images of a folder, sorted.

    Errors: UserError naming what is missing and the layout that is expected.
    """
    if (known := _once[0]) is None:
        return _scan(path)
    place = os.getcwd(), path
    if place not in known:
        known[place] = _scan(path)
    return known[place]


def _scan(path: str) -> Scan:
    root = _root(path)
    parts, classes = _layout(root)
    members: list[tuple[str, int, Path]] = []
    passed_over: list[str] = []
    for part in parts:
        for label, name in enumerate(classes):
            images, others = _files(root, str(Path(part) / name))
            members += [(part, label, file) for file in images]
            passed_over += others
    files = tuple(file for _, _, file in members)
    stamps = tuple(_stamp(file) for file in files)
    _check_apart(root, files, stamps)
    return Scan(
        root=root,
        classes=classes,
        files=files,
        labels=tuple(label for _, label, _ in members),
        parts=tuple(part for part, _, _ in members),
        stamps=stamps,
        passed_over=tuple(passed_over),
    )


@dataclass(frozen=True, kw_only=True)
class Listed:
    """Says what a folder has by the names and sizes of its files alone; none was opened."""

    classes: tuple[str, ...]
    counts: Mapping[str, tuple[float, ...]]
    """train, val, test -> the images of each class; of a part that is cut by seed, how many these will be about."""
    about: frozenset[str]
    """The parts that are cut by seed: by what is in the files."""
    images: int
    bytes: int
    """What all files take."""


def listed(path: str) -> Listed:
    """Counts the images of a folder, and opens none. Errors: UserError as `scan`."""
    scanned = scan(path)
    seen = Counter(zip(scanned.parts, scanned.labels, strict=True))
    there = {part: tuple(seen[part, label] for label in range(len(scanned.classes))) for part in set(scanned.parts)}
    counts, about = _divided(there)
    return Listed(
        classes=scanned.classes,
        counts=counts,
        about=about,
        images=len(scanned.files),
        bytes=sum(stamp[2] for stamp in scanned.stamps if stamp is not None),
    )


def _divided(there: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, tuple[float, ...]], frozenset[str]]:
    """Returns what the parts of a folder become when it is split (`tlbench.data.folder.load`), and which of them is
    only about so large.
    """
    if "" in there:
        whole = there[""]
        shares = {"train": 1 - 2 * HELD_OUT, "val": HELD_OUT, "test": HELD_OUT}
        return {part: tuple(share * n for n in whole) for part, share in shares.items()}, frozenset(shares)
    if len(there) == len(PARTS):
        return {part: there[part] for part in PARTS}, frozenset()
    train, test = there["train"], there.get("test", there.get("val", ()))
    cut = {"train": tuple((1 - HELD_OUT) * n for n in train), "val": tuple(HELD_OUT * n for n in train)}
    return {**cut, "test": test}, frozenset(cut)


def split_of(path: str) -> str:
    """Says in words how a folder's images are split, by its folders alone. Errors: UserError as `scan`."""
    parts, _ = _layout(_root(path))
    if parts == [""]:
        return "class folders alone: about 70/15/15 within each class, by seed"
    if len(parts) == len(PARTS):
        return "train/, val/ and test/ as they are in the folder"
    there, missing = ("val/", "test/") if "val" in parts else ("test/", "val/")
    return f"{there} is what is tested on (there is no {missing}); validation images are cut from train/, by seed"


def _layout(root: Path) -> tuple[list[str], tuple[str, ...]]:
    """Returns the splits that the folder has (one without a name where it has no such level), and the classes."""
    shown = repr(str(root))
    folders = _folders(root, shown)
    if "train" not in folders:
        return [""], _classes(folders, shown)
    for name in folders:
        right = MISNAMED.get(name.lower(), name.lower())
        if name not in PARTS and right in PARTS:
            raise UserError(f"dataset folder {shown} has {name + '/'!r} beside train/; call it {right}/ or move it")
    parts = [part for part in PARTS if part in folders]
    if len(parts) == 1:
        raise UserError(f"dataset folder {shown} has train/, but neither val/ nor test/; {LAYOUT}")
    train, *others = (_classes(_folders(root / p, repr(str(root / p))), repr(str(root / p))) for p in parts)
    for part, classes in zip(parts[1:], others, strict=True):
        _check_same(train, classes, part, shown)
    return parts, train


def _root(path: str) -> Path:
    if not path:
        raise UserError("dataset 'folder:' names no folder; write folder:PATH")
    root = Path(os.path.expanduser(path))
    try:
        is_folder = root.is_dir()
        there = is_folder or root.exists()
    except OSError as error:
        raise UserError(f"dataset folder {str(root)!r} cannot be read: {error.strerror}") from None
    if not there:
        raise UserError(f"dataset folder {str(root)!r} does not exist; {LAYOUT}")
    if not is_folder:
        raise UserError(f"dataset folder {str(root)!r} is no folder; {LAYOUT}")
    return root


def _entries(folder: Path, shown: str) -> list[os.DirEntry[str]]:
    """Lists all entries but hidden ones, sorted by name."""
    try:
        return sorted((e for e in os.scandir(folder) if not e.name.startswith(".")), key=lambda e: e.name)
    except OSError as error:
        raise UserError(f"folder {shown} cannot be read: {error.strerror}") from None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads round in a circle
        return False


def _folders(folder: Path, shown: str) -> list[str]:
    entries = _entries(folder, shown)
    for entry in entries:
        if entry.is_symlink() and not os.path.exists(entry.path):
            # It may have been a class, and a class less is another task.
            raise UserError(f"folder {shown}: {entry.name!r} is a link that leads nowhere; repair or remove it")
    return [entry.name for entry in entries if _is_folder(entry)]


def _classes(names: list[str], shown: str) -> tuple[str, ...]:
    if not names:
        raise UserError(f"dataset folder {shown} has no class folders; {LAYOUT}")
    if len(names) == 1:
        raise UserError(
            f"dataset folder {shown} has only one class folder, {names[0]!r}; a classifier needs at least two; {LAYOUT}"
        )
    return tuple(names)


def _check_same(train: tuple[str, ...], other: tuple[str, ...], part: str, shown: str) -> None:
    differing = sorted(set(train) ^ set(other))
    if not differing:
        return
    name = differing[0]
    here, there, choices = ("train", part, other) if name in train else (part, "train", train)
    alike = [choice for choice in choices if _plain(choice) == _plain(name)]
    # In ASCII, since the two may look the same on a screen.
    hint = f" (which has {alike[0]!a} for {name!a})" if alike else ""
    raise UserError(
        f"dataset folder {shown}: class folder {name!r} is in {here}/, but not in {there}/{hint}; "
        "every split needs the same classes"
    )


def _plain(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold().strip()


def _files(root: Path, inner: str) -> tuple[list[Path], list[str]]:
    """Returns the images right in a class folder, and the paths of other files."""
    shown = f"{inner!r} of {str(root)!r}"
    entries = _entries(root / inner, shown)
    images = [Path(e.path) for e in entries if e.name.lower().endswith(ENDINGS)]
    for entry in entries:
        if _is_folder(entry) and any(e.name.lower().endswith(ENDINGS) for e in _entries(Path(entry.path), shown)):
            raise UserError(
                f"class folder {shown} holds images in a folder of its own, {entry.name!r}; images lie directly in "
                f"their class folder: move them there, or hide the folder as {'.' + entry.name!r}; {LAYOUT}"
            )
    if not images:
        deeper = " (but folders: one level too many?)" if any(map(_is_folder, entries)) else ""
        raise UserError(f"class folder {shown} holds no images{deeper}; images end in {', '.join(ENDINGS)}; {LAYOUT}")
    others = [e.name for e in entries if not e.name.lower().endswith(ENDINGS) and not _is_folder(e)]
    return images, [f"{inner}/{name}" for name in others]


def _stamp(file: Path) -> tuple[int, ...] | None:
    try:
        s = file.stat()
    except OSError:
        return None
    return s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_nlink


def _check_apart(root: Path, files: Sequence[Path], stamps: Sequence[tuple[int, ...] | None]) -> None:
    """Raises UserError when a file is there under two names: it could be trained on and tested on."""
    first: dict[tuple[int, ...], Path] = {}
    for file, stamp in zip(files, stamps, strict=True):
        if stamp is None:
            continue
        other = first.setdefault(stamp[:2], file)
        # Some network file systems give several files one number: only links make two names of one file.
        if other is not file and (stamp[-1] > 1 or os.path.realpath(other) == os.path.realpath(file)):
            raise UserError(
                f"dataset folder {str(root)!r}: {str(other.relative_to(root))!r} and {str(file.relative_to(root))!r} "
                "are one file under two names (a link), which could end up in training and test; remove one of them"
            )
