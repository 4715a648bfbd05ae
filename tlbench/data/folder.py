"""A person's own images: an ImageFolder with train/ and val/ (optionally test/), or one level of class folders."""

from __future__ import annotations

import os
import warnings
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from tlbench.data import Request
from tlbench.data.splits import HELD_OUT, divide
from tlbench.data.store import RESAMPLING, Images, fit, make_images
from tlbench.errors import UserError

ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
LAYOUT = "expected PATH/train/CLASS/*.jpg and PATH/val/CLASS/*.jpg, or PATH/CLASS/*.jpg"


@dataclass(frozen=True, kw_only=True)
class Scan:
    """Where the images are; nothing is decoded yet."""

    root: Path
    classes: tuple[str, ...]
    files: tuple[Path, ...]
    labels: tuple[int, ...]
    parts: tuple[str, ...]
    """train, val or test for each file; all empty where the folder has no such level."""


def scan(path: str) -> Scan:
    """Lists the images of a folder, sorted.

    Errors: UserError naming what is missing and the layout that is expected.
    """
    if not path:
        raise UserError("dataset 'folder:' names no folder; write folder:PATH")
    root = Path(path).expanduser()
    if not root.exists():
        raise UserError(f"dataset folder {str(root)!r} does not exist; {LAYOUT}")
    if not root.is_dir():
        raise UserError(f"dataset folder {str(root)!r} is no folder; {LAYOUT}")
    parts = [part for part in ("train", "val", "test") if (root / part).is_dir()]
    if "train" not in parts:
        classes = _class_folders(root, "")
        members = [("", name, file) for name in classes for file in _files(root / name, root)]
    else:
        if len(parts) == 1:
            raise UserError(f"dataset folder {str(root)!r} has train/, but neither val/ nor test/; {LAYOUT}")
        classes = _class_folders(root / "train", "train/")
        for part in parts[1:]:
            other = _class_folders(root / part, f"{part}/")
            if differing := sorted(set(classes) ^ set(other)):
                here, there = ("train", part) if differing[0] in classes else (part, "train")
                raise UserError(
                    f"dataset folder {str(root)!r}: class folder {differing[0]!r} is in {here}/, but not in {there}/; "
                    "every split needs the same classes"
                )
        members = [(part, n, file) for part in parts for n in classes for file in _files(root / part / n, root)]
    return Scan(
        root=root,
        classes=classes,
        files=tuple(file for _, _, file in members),
        labels=tuple(classes.index(name) for _, name, _ in members),
        parts=tuple(part for part, _, _ in members),
    )


def _class_folders(folder: Path, shown: str) -> tuple[str, ...]:
    try:
        names = sorted(e.name for e in os.scandir(folder) if e.is_dir() and not e.name.startswith("."))
    except OSError as error:
        raise UserError(f"dataset folder {str(folder)!r} cannot be read: {error.strerror}") from None
    if not names:
        raise UserError(f"dataset folder {str(folder)!r} has no class folders; {LAYOUT}")
    if len(names) == 1:
        raise UserError(
            f"dataset folder {str(folder)!r} has only one class folder, {names[0]!r}; "
            f"a classifier needs at least two; {LAYOUT}"
        )
    return tuple(names)


def _files(folder: Path, root: Path) -> list[Path]:
    try:
        entries = sorted(os.scandir(folder), key=lambda e: e.name)
    except OSError as error:
        raise UserError(f"class folder {str(folder)!r} cannot be read: {error.strerror}") from None
    found = [Path(e.path) for e in entries if e.name.lower().endswith(ENDINGS) and not e.name.startswith(".")]
    if not found:
        inner = " (but folders: one level too many?)" if any(e.is_dir() for e in entries) else ""
        raise UserError(
            f"class folder {str(folder.relative_to(root))!r} of {str(root)!r} holds no images{inner}; "
            f"images end in {', '.join(ENDINGS)}"
        )
    return found


def load(request: Request) -> tuple[Images, dict[str, list[int]]]:
    """Decodes the images once for all seeds, then splits.

    Without test/, val/ serves as the test split, and validation is cut from train/ by seed. Without train/, the
    classes are split 70/15/15. Errors: UserError for unreadable images, unless they are to be skipped.
    """
    scanned = scan(request.path)
    images, kept = _decode_cached(scanned, request)
    parts = [scanned.parts[i] for i in kept]

    def members(part: str) -> list[int]:
        return [position for position, own in enumerate(parts) if own == part]

    split = (images.labels, images.classes)
    if "train" not in parts:
        return images, divide(members(""), *split, {"val": HELD_OUT, "test": HELD_OUT}, request.seed)
    if "val" in parts and "test" in parts:
        return images, {part: members(part) for part in ("train", "val", "test")}
    held_out = members("test") or members("val")
    return images, {**divide(members("train"), *split, {"val": HELD_OUT}, request.seed), "test": held_out}


_decoded: OrderedDict[tuple[object, ...], tuple[Images, list[int]]] = OrderedDict()
STORES_KEPT = 2


def _decode_cached(scanned: Scan, request: Request) -> tuple[Images, list[int]]:
    stamps = tuple((str(f), s.st_size, s.st_mtime_ns) for f in scanned.files if (s := _stat(f)))
    key = (stamps, scanned.labels, request.size, request.resize, request.interpolation, request.bad_images)
    if key not in _decoded:
        _decoded[key] = _decode(scanned, request)
        while len(_decoded) > STORES_KEPT:
            _decoded.popitem(last=False)
    _decoded.move_to_end(key)
    return _decoded[key]


def _stat(file: Path) -> os.stat_result | None:
    try:
        return file.stat()
    except OSError:
        return None


def _decode(scanned: Scan, request: Request) -> tuple[Images, list[int]]:
    """All images in parallel, and the positions in the scan of those that could be read."""
    pixels = np.empty((len(scanned.files), 3, request.size, request.size), np.uint8)
    resampling = RESAMPLING[request.interpolation]
    inside = scanned.root.resolve()

    def one(position: int) -> str | None:
        try:
            pixels[position] = fit(
                read_image(scanned.files[position], inside), request.resize, request.size, resampling
            )
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            return (str(getattr(error, "strerror", None) or error).splitlines() or [type(error).__name__])[0]
        return None

    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        # What PIL warns of (a huge image, odd metadata) is either an error here or of no consequence.
        warnings.simplefilter("ignore")
        problems = list(pool.map(one, range(len(scanned.files))))
    bad = {
        position: f"{str(scanned.files[position].relative_to(scanned.root))!r}: {problem.replace(str(inside), '…')}"
        for position, problem in enumerate(problems)
        if problem
    }
    if bad and request.bad_images == "fail":
        few = "; ".join(list(bad.values())[:5])
        raise UserError(
            f"{len(bad)} of {len(problems)} images in {str(scanned.root)!r} cannot be read: {few}"
            f"{'; …' if len(bad) > 5 else ''}; repair or remove them, or use --bad-images skip"
        )
    kept = [position for position in range(len(problems)) if position not in bad]
    labels = [scanned.labels[position] for position in kept]
    for part in dict.fromkeys(scanned.parts):
        present = {scanned.labels[p] for p in kept if scanned.parts[p] == part}
        for label, name in enumerate(scanned.classes):
            if label not in present:
                raise UserError(f"class folder {str(Path(part) / name)!r} has no readable image left")
    return make_images(pixels[kept] if bad else pixels, labels, scanned.classes, list(bad.values())), kept


def read_image(file: Path, inside: Path) -> Image.Image:
    """An image as RGB, upright (as its EXIF orientation says). Transparency is dropped, as torchvision's loader
    does; of an animation the first frame counts; 16-bit grey is scaled to 8 bits, not cut off at white.

    Errors: OSError or ValueError for anything that is no readable image or lies outside ``inside``.
    """
    real = file.resolve(strict=True)
    if not real.is_relative_to(inside):
        raise ValueError("it is a link that leaves the folder")
    if not real.is_file():
        raise ValueError("it is no file")
    with Image.open(real) as image:
        width, height = image.size
        if Image.MAX_IMAGE_PIXELS and width * height > Image.MAX_IMAGE_PIXELS:
            raise ValueError(f"{width} x {height} pixels are too many (a decompression bomb?)")
        if image.mode.startswith("I"):
            return Image.fromarray((np.asarray(image).astype(np.int64).clip(0, 65535) >> 8).astype(np.uint8)).convert(
                "RGB"
            )
        if image.mode == "F":
            raise ValueError("floating-point images have no known range; convert it to 8 or 16 bits")
        upright = ImageOps.exif_transpose(image)
        return upright.convert("RGB")
