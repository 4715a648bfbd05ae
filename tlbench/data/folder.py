"""A person's own images: an ImageFolder with train/ and val/ (optionally test/), or class folders alone."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

from tlbench.data import Parts, Request, facts
from tlbench.data.budget import Budget
from tlbench.data.copies import grouped, mixed
from tlbench.data.decode import own_limit, read_image
from tlbench.data.depth import FULL, Extent, Scale, scale_of
from tlbench.data.held import identity_of
from tlbench.data.looks import Looks
from tlbench.data.pixel_range import describe as describe_range
from tlbench.data.scan import Scan, once, scan
from tlbench.data.splits import HELD_OUT, divide
from tlbench.data.store import RESAMPLING, Images, Known, allocate, fit, make_images, remember, resized, workers
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


def load(request: Request, find: Callable[[str], Scan] = scan) -> tuple[Images, Parts]:
    """Decodes the images once for all seeds, then splits. ``find`` says where they are: in a folder, by a list.

    Without test/, val/ serves as the test split, and validation is cut from train/ by seed. Class folders alone, and a
    train/ alone, are split 70/15/15. Errors: UserError for unreadable images, unless they are to be skipped.
    """
    scanned = find(request.path)
    images = remember(_key(scanned, request), lambda: _decode(scanned, request))
    return images, _split(scanned, images, request.seed)


def describe(request: Request, decode: bool, find: Callable[[str], Scan] = scan) -> tuple[Known, Parts] | None:
    """Returns what `load` does, but for the pixels, which are decoded only where nothing tells what is in the files;
    None where that is not wanted. Errors: as `load`.
    """
    scanned = find(request.path)
    known: Known | None = KEPT.images.get(_key(scanned, request))
    if known is None:  # each seed asks for the same
        kept = "facts", replace(request, seed=0)
        known = once(kept, lambda: facts.read(_unchanged(scanned, request)))
    if known is None and not decode:
        return None
    if known is None:
        known = remember(_key(scanned, request), lambda: _decode(scanned, request))
    return known, _split(scanned, known, request.seed)


def _key(scanned: Scan, request: Request) -> Hashable:
    """Returns all that decides the pixels; the folder itself because links may leave it."""
    return (
        # Names, not what they are of: a key must not keep the arrays that images were taken from.
        *("folder", scanned.root.resolve(), tuple(map(str, scanned.files)), scanned.stamps),
        *(scanned.passed_over, scanned.classes),
        *(scanned.labels, scanned.parts),  # a list may say others of the same files
        *(request.size, request.resize, request.interpolation, request.bad_images, request.crop_mode, request.fill),
    )


def _unchanged(scanned: Scan, request: Request) -> Hashable:
    """Returns the same as what another process may find, after the machine was started anew: without the numbers that
    file systems give themselves.
    """
    stamps = tuple(stamp and stamp[2:5] for stamp in scanned.stamps)
    files = tuple(map(str, scanned.files))
    asked = request.size, request.resize, request.interpolation, request.bad_images, request.crop_mode, request.fill
    said = scanned.classes, scanned.labels, scanned.parts
    return str(scanned.root.resolve()), files, stamps, scanned.passed_over, said, asked


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
    budget = Budget()
    extents: dict[int, Extent] = {}

    def one(position: int, scale: Scale) -> str | None:
        try:
            with budget.room() as take:
                room = partial(_take, take, request.resize, crop_mode=request.crop_mode)
                learn = partial(extents.__setitem__, position)
                image = read_image(scanned.files[position], room, scale, learn)
                pixels[position] = fit(image, request.resize, request.size, resampling, request.crop_mode, request.fill)
                looks.take(position, image)
                del image
            # Of the file, not of the pixels: decoders differ by a bit, and splits must not.
            identities[position] = identity_of(scanned.files[position])
        except (OSError, ValueError) as error:
            return (error.strerror or type(error).__name__) if isinstance(error, OSError) else str(error)
        return None

    problems, pixel_range = _all(one, scanned, extents)
    bad = {
        position: f"{str(scanned.files[position].relative_to(scanned.root))!r}: {problem}"
        for position, problem in enumerate(problems)
        if problem is not None
    }
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
    images = grouped(images, [identities[position] for position in kept], looks if scanned.photographs else None)
    names = [repr(str(scanned.files[position].relative_to(scanned.root))) for position in kept]
    twice = tuple(f"{names[one]} and {names[other]}" for one, other in mixed(images))
    images = replace(images, mixed=twice, pixel_range=pixel_range)
    if not bad:  # what cannot be read now may be readable the next time, whatever its size and time
        facts.keep(_unchanged(scanned, request), images)
    return images


def _all(
    one: Callable[[int, Scale], str | None], scanned: Scan, extents: Mapping[int, Extent]
) -> tuple[list[str | None], dict[str, int]]:
    """Calls ``one`` for each file, in parallel; of images of more than 8 bits, whose extents it puts into ``extents``,
    a second time when their scale is known, unless that is the one that they were decoded at. Returns what is wrong
    with each file, None for nothing, and what is recorded of the scale. Errors: UserError where the memory does not do.
    """
    with warnings.catch_warnings(), own_limit(), ThreadPoolExecutor(workers()) as pool:
        # What PIL warns of (a huge image, odd metadata) is either an error here or of no consequence.
        warnings.simplefilter("ignore")
        try:
            problems: list[str | None] = []
            count = len(scanned.files)
            for start in range(0, count, AT_ONCE):
                some = range(start, min(start + AT_ONCE, count))
                for problem in pool.map(lambda position: one(position, FULL), some):
                    problems.append(problem)
                    tell(len(problems), count)
            deep = {position: extents[position] for position in sorted(extents) if problems[position] is None}
            scale, pixel_range = _scale(scanned, deep)
            again = list(deep) if scale != FULL else []
            for position, problem in zip(again, pool.map(lambda position: one(position, scale), again), strict=True):
                problems[position] = problem
        except MemoryError:
            raise UserError(f"not enough memory to decode the images in {str(scanned.root)!r}") from None
    return problems, pixel_range


def _scale(scanned: Scan, deep: Mapping[int, Extent]) -> tuple[Scale, dict[str, int]]:
    """Returns the scale of images of more than 8 bits, and what is recorded of it. Where there is train/, its images
    alone decide; class folders alone are split only later, and differently by each seed: there all of them do.
    """
    trained = [extent for position, extent in deep.items() if scanned.parts[position] in ("train", "")]
    scale = scale_of(trained or deep.values())
    if not deep:
        return scale, {}
    beyond = sum(extent.beyond(scale) for extent in deep.values())
    return scale, describe_range(scale.black, scale.white, len(deep), beyond)


def _take(take: Callable[[int], None], resize: int, width: int, height: int, crop_mode: str = "center") -> None:
    """Takes room for an image as it is in the file, or as it is resized: a thin one grows."""
    if crop_mode == "center":
        take(max(width * height, resize * resize * max(width, height) // min(width, height)))
    else:
        take(max(width * height, math.prod(resized(width, height, resize, crop_mode))))


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
