"""A person's own images: an ImageFolder with train/ and val/ (optionally test/), or class folders alone."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

from tlbench.data import Request
from tlbench.data.budget import Budget
from tlbench.data.copies import grouped, mixed
from tlbench.data.decode import own_limit, read_image
from tlbench.data.looks import Looks
from tlbench.data.scan import Scan, scan
from tlbench.data.splits import HELD_OUT, divide
from tlbench.data.store import RESAMPLING, Images, allocate, fit, make_images, remember, workers
from tlbench.errors import UserError

NAMED = 5
"""How many files an error names."""


def count_classes(path: str) -> int:
    """Counts the classes of a folder. Errors: UserError for one that is not laid out as it must be."""
    return len(scan(path).classes)


def load(request: Request) -> tuple[Images, dict[str, list[int]]]:
    """Decodes the images once for all seeds, then splits.

    Without test/, val/ serves as the test split, and validation is cut from train/ by seed. Class folders alone, and a
    train/ alone, are split 70/15/15. Errors: UserError for unreadable images, unless they are to be skipped.
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
        return [position for position, its_part in enumerate(parts) if its_part == part]

    def cut(part: str, shares: dict[str, float]) -> dict[str, list[int]]:
        return divide(members(part), images.labels, images.classes, shares, request.seed, images.groups)

    if "train" not in parts:
        return images, cut("", {"val": HELD_OUT, "test": HELD_OUT})
    if "val" in parts and "test" in parts:
        return images, {part: members(part) for part in ("train", "val", "test")}
    return images, {**cut("train", {"val": HELD_OUT}), "test": members("test") or members("val")}


def _decode(scanned: Scan, request: Request) -> Images:
    """Decodes all images in parallel; those that cannot be read are an error or left out."""
    pixels = allocate(len(scanned.files), request.size)
    looks = Looks(len(scanned.files))
    identities = [b""] * len(scanned.files)
    resampling = RESAMPLING[request.interpolation]
    budget = Budget()

    def one(position: int) -> str | None:
        try:
            with budget.room() as take:
                image = read_image(scanned.files[position], partial(_take, take, request.resize))
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

    with warnings.catch_warnings(), own_limit(), ThreadPoolExecutor(workers()) as pool:
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
    images = grouped(images, [identities[position] for position in kept], looks.of(kept))
    names = [repr(str(scanned.files[position].relative_to(scanned.root))) for position in kept]
    return replace(images, mixed=tuple(f"{names[one]} and {names[other]}" for one, other in mixed(images)))


def _take(take: Callable[[int], None], resize: int, width: int, height: int) -> None:
    """Takes room for an image as it is in the file, or as it is resized: a thin one grows."""
    take(max(width * height, resize * resize * max(width, height) // min(width, height)))


def _check_some_left(scanned: Scan, kept: Sequence[int], bad: Mapping[int, str]) -> None:
    """Raises UserError where no image of a class folder is among those kept; ``bad`` says what became of the others."""
    left = {(scanned.parts[p], scanned.labels[p]) for p in kept}
    for part, label in dict.fromkeys(zip(scanned.parts, scanned.labels, strict=True)):
        if (part, label) not in left:
            name = scanned.folders[part, scanned.classes[label]]
            raise UserError(
                f"class folder {name!r} of {str(scanned.root)!r} has no readable image left: "
                f"{_first(bad[p] for p in bad if (scanned.parts[p], scanned.labels[p]) == (part, label))}"
            )


def _first(texts: Iterable[str]) -> str:
    every = list(texts)
    return "; ".join([*every[:NAMED], *(["…"] if len(every) > NAMED else [])])
