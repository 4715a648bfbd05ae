"""A person's own images: an ImageFolder with train/ and val/ (optionally test/), or class folders alone."""

from __future__ import annotations

import os
import warnings
from collections.abc import Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from tlbench.data import Parts, Request, decoded, facts, lent
from tlbench.data.copies import grouped, mixed
from tlbench.data.decode import own_limit
from tlbench.data.decoded import Earlier
from tlbench.data.decoding import Pass, on_the_way, scale_from
from tlbench.data.depth import FULL, Extent, Scale, scale_of
from tlbench.data.pixel_range import describe as describe_range
from tlbench.data.rooms import NOWHERE, place_of, room_for
from tlbench.data.scan import Scan, once, scan
from tlbench.data.splits import HELD_OUT, divide
from tlbench.data.store import Images, Known, make_room, remember, workers
from tlbench.data.streaming import Pixels, Streamed
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

    Without test/, val/ serves as the test split, and validation is cut from train/ by seed. Class folders alone, and a
    train/ alone, are split 70/15/15. Errors: UserError for unreadable images, unless they are to be skipped.
    """
    scanned = scan(request.path)
    images = remember(_key(scanned, request), lambda: _kept(scanned, request) or _decode(scanned, request))
    return images, _split(scanned, images, request.seed)


def describe(request: Request, decode: bool) -> tuple[Known, Parts] | None:
    """Returns what `load` does, but for the pixels, which are decoded only where nothing tells what is in the files;
    None where that is not wanted. Errors: as `load`.
    """
    scanned = scan(request.path)
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
    """Returns all that decides the pixels, and where they lie; the folder itself because links may leave it."""
    return (
        *("folder", scanned.root.resolve(), scanned.files, scanned.stamps, scanned.passed_over, scanned.classes),
        *(*_asked(request), request.ram_bytes, request.disk_bytes),
    )


def _unchanged(scanned: Scan, request: Request) -> Hashable:
    """Returns the same as what another process may find, after the machine was started anew: without the numbers that
    file systems give themselves.
    """
    stamps = tuple(stamp and stamp[2:5] for stamp in scanned.stamps)
    files = tuple(map(str, scanned.files))
    return str(scanned.root.resolve()), files, stamps, scanned.passed_over, scanned.classes, _asked(request)


def _asked(request: Request) -> tuple[Hashable, ...]:
    """Returns what a request says of the pixels."""
    brought = request.size, request.resize, request.interpolation, request.crop_mode, request.fill
    return *brought, request.bad_images, request.decode


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


def _kept(scanned: Scan, request: Request) -> Images | None:
    """Returns the images without decoding any, where an earlier time has kept what is in the files and, where that lies
    anywhere, the pixels; None where it has not. What is damaged is no such thing.
    """
    known = facts.read(_unchanged(scanned, request))
    if known is None:
        return None
    count = len(known.labels)
    if place_of(count, request.size, request.ram_bytes, request.disk_bytes) == NOWHERE:
        return _images(known, _on_the_way(scanned, request, known))
    pack = decoded.read(_final(scanned, request))
    if pack is None or pack.rows.digests != known.digests:
        return None
    fits = make_room(count, request.size, request.ram_bytes)
    if decoded.damaged(pack, stays=fits):
        return None
    # What fits is taken as it lies in the system's memory: a copy takes longer than all else of this.
    pixels = pack.pixels.view(np.ndarray) if fits else pack.pixels
    lent.on_disk(pixels, pack.file)
    return _images(known, pixels)


def _on_the_way(scanned: Scan, request: Request, known: Known) -> Streamed:
    files = [scanned.files[origin] for origin in known.origins]
    return on_the_way(files, request, known, scale_from(known.pixel_range))


def _images(known: Known, pixels: Pixels | Streamed) -> Images:
    """Returns images of which all is known, with their pixels."""
    taken = 0 if isinstance(pixels, np.memmap | Streamed) else pixels.nbytes
    return Images(pixels=pixels, memory_bytes=taken, **vars(known))


def _final(scanned: Scan, request: Request) -> Path:
    """Returns the file that later runs find the decoded images in."""
    return decoded.final_of(request, (str(scanned.root.resolve()), scanned.classes), _unchanged(scanned, request))


def _decode(scanned: Scan, request: Request) -> Images:
    """Decodes all images in parallel, but those that earlier runs have decoded; those that cannot be read are an error
    or left out.
    """
    final = _final(scanned, request)
    with room_for(len(scanned.files), request, final) as room:
        seen = Pass(scanned.files, scanned.stamps, request, room, Earlier(final, scanned.files, scanned.stamps))
        problems, pixel_range = _all(seen, scanned)
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
        _check_some_left(scanned, kept, bad)
        pixels = room.only(kept)
        known = Known(
            shape=(len(kept), 3, request.size, request.size),
            labels=tuple(scanned.labels[position] for position in kept),
            classes=scanned.classes,
            digests=tuple(room.digests),
            origins=tuple(kept),
            dropped=tuple(bad.values()),
            passed_over=scanned.passed_over,
            pixel_range=pixel_range,
            decoding=seen.counted(kept),
            decode_seconds=seen.decode_seconds,
        )
        images = _images(known, _on_the_way(scanned, request, known) if pixels is None else pixels)
        looks = seen.looks.of(kept) if bad else seen.looks
        images = grouped(images, [seen.identities[position] for position in kept], looks)
        names = [repr(str(scanned.files[position].relative_to(scanned.root))) for position in kept]
        images = replace(images, mixed=tuple(f"{names[one]} and {names[other]}" for one, other in mixed(images)))
        if not bad:  # what cannot be read now may be readable the next time, whatever its size and time
            facts.keep(_unchanged(scanned, request), images)
        if seen.seconds or not os.path.exists(final):
            room.keep(final, seen.rows(kept, room.digests, scale_from(pixel_range), looks), request.disk_bytes)
    return images


def _all(seen: Pass, scanned: Scan) -> tuple[list[str | None], dict[str, int]]:
    """Looks at each file, in parallel; at images of more than 8 bits a second time when their scale is known, unless
    that is the one that they were read at. Returns what is wrong with each file, None for nothing, and what is recorded
    of the scale. Errors: UserError where the memory does not do.
    """
    with warnings.catch_warnings(), own_limit(), ThreadPoolExecutor(workers()) as pool:
        # What PIL warns of (a huge image, odd metadata) is either an error here or of no consequence.
        warnings.simplefilter("ignore")
        try:
            problems: list[str | None] = []
            count = len(scanned.files)
            for start in range(0, count, AT_ONCE):
                some = range(start, min(start + AT_ONCE, count))
                for problem in pool.map(lambda position: seen.one(position, FULL), some):
                    problems.append(problem)
                    tell(len(problems), count)
            deep = {position: seen.extents[position] for position in sorted(seen.extents) if problems[position] is None}
            scale, pixel_range = _scale(scanned, deep)
            again = [position for position in deep if seen.scales[position] != scale]
            some_more = pool.map(lambda position: seen.one(position, scale), again)
            for position, problem in zip(again, some_more, strict=True):
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
