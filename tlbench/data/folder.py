"""A person's own images: an ImageFolder with train/ and val/ (optionally test/), or one level of class folders."""

from __future__ import annotations

import errno
import os
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from tlbench.data import Request
from tlbench.data.splits import HELD_OUT, divide
from tlbench.data.store import MOST_PIXELS, RESAMPLING, Images, allocate, fit, make_images, remember, workers
from tlbench.errors import UserError

ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Those of torchvision's ImageFolder, so that a peer which uses it sees the same images."""
FORMATS = ("JPEG", "MPO", "PNG", "GIF", "WEBP", "AVIF", "JPEG2000", "BMP", "DIB", "PPM", "TIFF")
"""What is decoded, whatever the name says: nothing that starts another program (EPS would start Ghostscript)."""
LAYOUT = "expected PATH/train/CLASS/*.jpg and PATH/val/CLASS/*.jpg, or PATH/CLASS/*.jpg"
PARTS = ("train", "val", "test")
MISNAMED = {"training": "train", "valid": "val", "validation": "val", "dev": "val", "testing": "test"}
NAMED = 5
"""Files that an error names."""

ORIENTATION = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what turns the image upright (Exif 2.3, tag 274)."""


@dataclass(frozen=True, kw_only=True)
class Scan:
    """Where the images are; nothing is decoded yet."""

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


# --- what is there --------------------------------------------------------------------------------------------


def scan(path: str) -> Scan:
    """Lists the images of a folder, sorted.

    Errors: UserError naming what is missing and the layout that is expected.
    """
    root = _root(path)
    parts, classes = _layout(root)
    members: list[tuple[str, int, Path]] = []
    passed_over: list[str] = []
    for part in parts:
        for label, name in enumerate(classes):
            found, others = _files(root, str(Path(part) / name))
            members += [(part, label, file) for file in found]
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


def _layout(root: Path) -> tuple[list[str], tuple[str, ...]]:
    """The splits that the folder has (one without a name where it has no such level), and the classes."""
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
        found = root.is_dir()
        there = found or root.exists()
    except OSError as error:
        raise UserError(f"dataset folder {str(root)!r} cannot be read: {error.strerror}") from None
    if not there:
        raise UserError(f"dataset folder {str(root)!r} does not exist; {LAYOUT}")
    if not found:
        raise UserError(f"dataset folder {str(root)!r} is no folder; {LAYOUT}")
    return root


def _entries(folder: Path, shown: str) -> list[os.DirEntry[str]]:
    """All but hidden ones, sorted by name."""
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
    """Images right in a class folder, and the paths of other files."""
    shown = f"{inner!r} of {str(root)!r}"
    entries = _entries(root / inner, shown)
    found = [Path(e.path) for e in entries if e.name.lower().endswith(ENDINGS)]
    for entry in entries:
        if _is_folder(entry) and any(e.name.lower().endswith(ENDINGS) for e in _entries(Path(entry.path), shown)):
            raise UserError(
                f"class folder {shown} holds images in a folder of its own, {entry.name!r}; images lie directly in "
                f"their class folder: move them there, or hide the folder as {'.' + entry.name!r}; {LAYOUT}"
            )
    if not found:
        deeper = " (but folders: one level too many?)" if any(map(_is_folder, entries)) else ""
        raise UserError(f"class folder {shown} holds no images{deeper}; images end in {', '.join(ENDINGS)}; {LAYOUT}")
    others = [e.name for e in entries if not e.name.lower().endswith(ENDINGS) and not _is_folder(e)]
    return found, [f"{inner}/{name}" for name in others]


def _stamp(file: Path) -> tuple[int, ...] | None:
    try:
        s = file.stat()
    except OSError:
        return None
    return s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_nlink


def _check_apart(root: Path, files: Sequence[Path], stamps: Sequence[tuple[int, ...] | None]) -> None:
    """Errors: UserError when a file is there under two names: it could be trained on and tested on."""
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


# --- decoding -------------------------------------------------------------------------------------------------


def load(request: Request) -> tuple[Images, dict[str, list[int]]]:
    """Decodes the images once for all seeds, then splits.

    Without test/, val/ serves as the test split, and validation is cut from train/ by seed. Without train/, the
    classes are split 70/15/15. Errors: UserError for unreadable images, unless they are to be skipped.
    """
    scanned = scan(request.path)
    # All that decides the pixels; the folder itself because links may leave it.
    key = (
        *("folder", scanned.root.resolve(), scanned.files, scanned.stamps, scanned.passed_over, scanned.classes),
        *(request.size, request.resize, request.interpolation, request.bad_images),
    )
    images = remember(key, lambda: _decode(scanned, request))
    parts = [scanned.parts[origin] for origin in images.origins]

    def members(part: str) -> list[int]:
        return [position for position, own in enumerate(parts) if own == part]

    split = (images.labels, images.classes)
    if "train" not in parts:
        return images, divide(members(""), *split, {"val": HELD_OUT, "test": HELD_OUT}, request.seed)
    if "val" in parts and "test" in parts:
        return images, {part: members(part) for part in ("train", "val", "test")}
    held_out = members("test") or members("val")
    return images, {**divide(members("train"), *split, {"val": HELD_OUT}, request.seed), "test": held_out}


def _decode(scanned: Scan, request: Request) -> Images:
    """All images in parallel; those that cannot be read are an error or left out."""
    pixels = allocate(len(scanned.files), request.size)
    resampling = RESAMPLING[request.interpolation]
    inside = scanned.root.resolve()

    def one(position: int) -> str | None:
        try:
            image = read_image(scanned.files[position], inside)
            pixels[position] = fit(image, request.resize, request.size, resampling)
        except ValueError as error:
            return str(error)
        return None

    with warnings.catch_warnings(), ThreadPoolExecutor(workers()) as pool:
        # What PIL warns of (a huge image, odd metadata) is either an error here or of no consequence.
        warnings.simplefilter("ignore")
        try:
            problems = list(pool.map(one, range(len(scanned.files))))
        except MemoryError:
            raise UserError(f"not enough memory to decode the images in {str(scanned.root)!r}") from None
    bad = {
        position: f"{str(scanned.files[position].relative_to(scanned.root))!r}: {problem}"
        for position, problem in enumerate(problems)
        if problem is not None
    }
    if bad and request.bad_images == "fail":
        raise UserError(
            f"{len(bad)} of {len(problems)} images in {str(scanned.root)!r} cannot be read: "
            f"{_first(bad.values())}; repair or remove them, or use --bad-images skip"
        )
    kept = [position for position in range(len(problems)) if position not in bad]
    labels = [scanned.labels[position] for position in kept]
    left = Counter((scanned.parts[p], scanned.labels[p]) for p in kept)
    for part in dict.fromkeys(scanned.parts):
        for label, name in enumerate(scanned.classes):
            if not left[part, label]:
                raise UserError(
                    f"class folder {str(Path(part) / name)!r} of {str(scanned.root)!r} has no readable image left: "
                    f"{_first(bad[p] for p in bad if (scanned.parts[p], scanned.labels[p]) == (part, label))}"
                )
    for position, origin in enumerate(kept):  # in place: a copy would need the memory twice
        if position != origin:
            pixels[position] = pixels[origin]
    return make_images(
        pixels[: len(kept)],
        labels,
        scanned.classes,
        origins=kept,
        dropped=list(bad.values()),
        passed_over=scanned.passed_over,
    )


def _first(texts: Iterable[str]) -> str:
    every = list(texts)
    return "; ".join([*every[:NAMED], *(["…"] if len(every) > NAMED else [])])


def read_image(file: Path, inside: Path) -> Image.Image:
    """An image as RGB, upright (as its EXIF orientation says). Transparency is dropped, as torchvision's loader
    does; of an animation the first frame counts; 16-bit grey is scaled to 8 bits, not cut off at white.

    Errors: ValueError, one line that says why, for anything that is no readable image or lies outside ``inside``.
    """
    try:
        file.stat()
        if not (real := file.resolve(strict=True)).is_relative_to(inside):
            raise ValueError("it is a link that leaves the folder")
        if not real.is_file():
            raise ValueError("it is no file")
        with Image.open(real, formats=_formats()) as image:
            width, height = image.size
            if not width * height:
                raise ValueError("it has no pixels")
            if width * height > MOST_PIXELS:
                raise ValueError(f"{width} x {height} pixels are too many (a decompression bomb?)")
            orientation = image.getexif().get(ORIENTATION)
            rgb = _rgb(image)
            return rgb.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else rgb
    except MemoryError:
        raise
    except Exception as error:  # a decoder may raise anything when it is fed a broken file
        raise ValueError(_reason(error, file)) from None


def _rgb(image: Image.Image) -> Image.Image:
    # PIL holds 16-bit PNG and PGM in 32 bits ("I") in some versions; it scales the latter to 65,535 itself.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError("its 32-bit values have no known range; convert it to 8 or 16 bits")
    return image.convert("RGB")


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _reason(error: Exception, file: Path) -> str:
    """One line without control characters: an image's bytes may have chosen the text."""
    if isinstance(error, UnidentifiedImageError):
        return "it is empty" if not file.stat().st_size else "it is no image, or of a format that is not read"
    if isinstance(error, OSError) and error.errno in (errno.ENOENT, errno.ELOOP) and file.is_symlink():
        return "it is a link that leads nowhere"
    text = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return "".join(c if c.isprintable() else " " for c in text)[:200]
