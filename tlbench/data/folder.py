"""A person's own images: an ImageFolder with train/ and val/ (optionally test/), or one level of class folders."""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

from tlbench.data import Parts, Request, facts
from tlbench.data.budget import Budget
from tlbench.data.copies import grouped, mixed
from tlbench.data.decode import own_limit, read_image
from tlbench.data.looks import Looks
from tlbench.data.scan import Scan, scan
from tlbench.data.splits import HELD_OUT, divide
from tlbench.data.store import RESAMPLING, Images, Known, allocate, fit, make_images, remember, workers
from tlbench.data.watching import tell
from tlbench.errors import UserError
from tlbench.machine.kept import KEPT

NAMED = 5
"""How many files an error names."""
AT_ONCE = 1000
"""Images that are handed to the threads together: each takes some memory while it waits for its turn."""


def count_classes(path: str) -> int:
    """Counts the classes of a folder. Errors: UserError for one that is not laid out as it must be."""
    return len(scan(path).classes)


def load(request: Request) -> tuple[Images, Parts]:
    """Decodes the images once for all seeds, then splits.

    Without test/, val/ serves as the test split, and validation is cut from train/ by seed. Without train/, the
    classes are split 70/15/15. Errors: UserError for unreadable images, unless they are to be skipped.
    """
    scanned = scan(request.path)
    images = remember(_key(scanned, request), lambda: _decode(scanned, request))
    return images, _split(scanned, images, request.seed)


def describe(request: Request, decode: bool) -> tuple[Known, Parts] | None:
    """Returns what `load` does, but for the pixels, which are decoded only where nothing tells what is in the files;
    None where that is not wanted. Errors: as `load`.
    """
    scanned = scan(request.path)
    known: Known | None = KEPT.images.get(_key(scanned, request)) or facts.read(_unchanged(scanned, request))
    if known is None and not decode:
        return None
    if known is None:
        known = remember(_key(scanned, request), lambda: _decode(scanned, request))
    return known, _split(scanned, known, request.seed)


def _key(scanned: Scan, request: Request) -> Hashable:
    """Returns all that decides the pixels; the folder itself because links may leave it."""
    return (
        *("folder", scanned.root.resolve(), scanned.files, scanned.stamps, scanned.passed_over, scanned.classes),
        *(request.size, request.resize, request.interpolation, request.bad_images),
    )


def _unchanged(scanned: Scan, request: Request) -> Hashable:
    """Returns the same as what another process may find, after the machine was started anew: without the numbers that
    file systems give themselves.
    """
    stamps = tuple(stamp and stamp[2:5] for stamp in scanned.stamps)
    files = tuple(map(str, scanned.files))
    asked = request.size, request.resize, request.interpolation, request.bad_images
    return str(scanned.root.resolve()), files, stamps, scanned.passed_over, scanned.classes, asked


def _split(scanned: Scan, images: Known, seed: int) -> Parts:
    parts = [scanned.parts[origin] for origin in images.origins]

    def members(part: str) -> list[int]:
        return [position for position, its_part in enumerate(parts) if its_part == part]

    def cut(part: str, shares: dict[str, float]) -> Parts:
        return divide(members(part), images.labels, images.classes, shares, seed, images.groups)

    there = set(parts)
    if "train" not in there:
        return cut("", {"val": HELD_OUT, "test": HELD_OUT})
    if "val" in there and "test" in there:
        return {part: members(part) for part in ("train", "val", "test")}
    return {**cut("train", {"val": HELD_OUT}), "test": members("test") or members("val")}


def _decode(scanned: Scan, request: Request) -> Images:
    """Decodes all images in parallel; those that cannot be read are an error or left out."""
    pixels = allocate(len(scanned.files), request.size)
    looks = Looks(len(scanned.files))
    identities = [b""] * len(scanned.files)
    resampling = RESAMPLING[request.interpolation]
    inside = scanned.root.resolve()
    budget = Budget()

    def one(position: int) -> str | None:
        try:
            with budget.room() as take:
                image = read_image(scanned.files[position], inside, partial(_take, take, request.resize))
                pixels[position] = fit(image, request.resize, request.size, resampling)
                looks.take(position, image)
                del image
            # Of the file, not of the pixels: decoders differ by a bit, and splits must not.
            with open(scanned.files[position], "rb") as file:
                identities[position] = hashlib.file_digest(file, "sha256").digest()
        except OSError as error:
            return error.strerror or type(error).__name__
        except ValueError as error:
            return str(error)
        return None

    bad = _problems(scanned, one)
    if bad and request.bad_images == "fail":
        raise UserError(
            f"{len(bad)} of {len(scanned.files)} images in {str(scanned.root)!r} cannot be read: "
            f"{_first(bad.values())}; repair or remove them, or use --bad-images skip"
        )
    kept = [position for position in range(len(scanned.files)) if position not in bad]
    labels = [scanned.labels[position] for position in kept]
    _check_some_left(scanned, kept, bad)
    for position, origin in enumerate(kept):  # in place: a copy would need the memory twice
        if position != origin:
            pixels[position] = pixels[origin]
    images = make_images(
        pixels[: len(kept)],
        labels,
        scanned.classes,
        origins=kept,
        dropped=list(bad.values()),
        passed_over=scanned.passed_over,
    )
    if bad:
        looks = looks.of(kept)
    images = grouped(images, [identities[position] for position in kept], looks)
    names = [repr(str(scanned.files[position].relative_to(scanned.root))) for position in kept]
    images = replace(images, mixed=tuple(f"{names[one]} and {names[other]}" for one, other in mixed(images)))
    if not bad:  # what cannot be read now may be readable the next time, whatever its size and time
        facts.keep(_unchanged(scanned, request), images)
    return images


def _problems(scanned: Scan, one: Callable[[int], str | None]) -> dict[int, str]:
    """Has threads decode each image by its position; says of those that cannot be read why not. Errors: UserError where
    the memory is too small.
    """
    problems: list[str | None] = []
    count = len(scanned.files)
    with warnings.catch_warnings(), own_limit(), ThreadPoolExecutor(workers()) as pool:
        # What PIL warns of (a huge image, odd metadata) is either an error here or of no consequence.
        warnings.simplefilter("ignore")
        try:
            for start in range(0, count, AT_ONCE):
                for problem in pool.map(one, range(start, min(start + AT_ONCE, count))):
                    problems.append(problem)
                    tell(len(problems), count)
        except MemoryError:
            raise UserError(f"not enough memory to decode the images in {str(scanned.root)!r}") from None
    return {
        position: f"{str(scanned.files[position].relative_to(scanned.root))!r}: {problem}"
        for position, problem in enumerate(problems)
        if problem is not None
    }


def _take(take: Callable[[int], None], resize: int, width: int, height: int) -> None:
    """Takes room for an image as it is in the file, or as it is resized: a thin one grows."""
    take(max(width * height, resize * resize * max(width, height) // min(width, height)))


def _check_some_left(scanned: Scan, kept: Sequence[int], bad: Mapping[int, str]) -> None:
    """Raises UserError where no image of a class folder is among those kept; ``bad`` says what became of the others."""
    left = Counter((scanned.parts[p], scanned.labels[p]) for p in kept)
    for part in dict.fromkeys(scanned.parts):
        for label, name in enumerate(scanned.classes):
            if not left[part, label]:
                raise UserError(
                    f"class folder {str(Path(part) / name)!r} of {str(scanned.root)!r} has no readable image left: "
                    f"{_first(bad[p] for p in bad if (scanned.parts[p], scanned.labels[p]) == (part, label))}"
                )


def _first(texts: Iterable[str]) -> str:
    every = list(texts)
    return "; ".join([*every[:NAMED], *(["…"] if len(every) > NAMED else [])])
