"""A person's own images, decoded and split: an ImageFolder with train/ and val/ (optionally test/), class folders
alone, or what a list names (`tlbench.data.lists`). Data sets by name come this way, too.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from tlbench.data import Parts, Request, decoded, facts, lent
from tlbench.data.copies import grouped, mixed, together
from tlbench.data.decode import own_limit
from tlbench.data.decoded import Earlier
from tlbench.data.decoding import Pass, on_the_way, scale_from
from tlbench.data.depth import FULL, Extent, Scale, scale_of
from tlbench.data.groups import joined
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


def load(request: Request, find: Callable[[str], Scan] = scan) -> tuple[Images, Parts]:
    """Decodes the images once for all seeds, then splits. ``find`` says where they are: in a folder, by a list.

    Without test/, val/ serves as the test split, and validation is cut from train/ by seed. Class folders alone, and a
    train/ alone, are split 70/15/15. Errors: UserError for unreadable images, unless they are to be skipped.
    """
    scanned = _wanted(find(request.path), request)
    images = remember(_key(scanned, request), lambda: _kept(scanned, request) or _decode(scanned, request))
    images = _named(scanned, images)
    return images, _split(scanned, images, request)


def describe(request: Request, decode: bool, find: Callable[[str], Scan] = scan) -> tuple[Known, Parts] | None:
    """Returns what `load` does, but for the pixels, which are decoded only where nothing tells what is in the files;
    None where that is not wanted. Errors: as `load`.
    """
    scanned = _wanted(find(request.path), request)
    known: Known | None = KEPT.images.get(_key(scanned, request))
    if known is None:  # each seed asks for the same
        kept = "facts", find, replace(request, seed=0)  # a list and a folder may have one path
        known = once(kept, lambda: facts.read(_unchanged(scanned, request)))
    if known is None and not decode:
        return None
    if known is None:
        known = remember(_key(scanned, request), lambda: _decode(scanned, request))
    known = _named(scanned, known)
    return known, _split(scanned, known, request)


def _key(scanned: Scan, request: Request) -> Hashable:
    """Returns all that decides the pixels, and where they lie; the folder itself because links may leave it."""
    return (
        # Names, not what they are of: a key must not keep the arrays that images were taken from.
        *("folder", scanned.root.resolve(), tuple(map(str, scanned.files)), scanned.stamps),
        *(scanned.passed_over, scanned.classes),
        *(scanned.labels, scanned.parts),  # a list may say others of the same files
        *(*_asked(request), request.ram_bytes, request.disk_bytes, scanned.column),
    )


def _unchanged(scanned: Scan, request: Request) -> Hashable:
    """Returns the same as what another process may find, after the machine was started anew: without the numbers that
    file systems give themselves.
    """
    stamps = tuple(stamp and stamp[2:5] for stamp in scanned.stamps)
    files = tuple(map(str, scanned.files))
    said = scanned.classes, scanned.labels, scanned.parts
    column = (scanned.column,) if scanned.column else ()  # without one, what earlier versions have kept holds
    return str(scanned.root.resolve()), files, stamps, scanned.passed_over, said, _asked(request), *column


Named = TypeVar("Named", bound=Known)


def _named(scanned: Scan, images: Named) -> Named:
    """Returns images with what is known of them without opening a file: what they are called, and their groups by a
    person's word. Neither is kept with them, since the same pixels may be asked for with other groups.
    """
    own = [scanned.groups[origin] for origin in images.origins] if scanned.groups else []
    return replace(
        images,
        files=tuple(scanned.names[origin] for origin in images.origins),
        together=joined(images.groups, own) if own else (),
    )


def _asked(request: Request) -> tuple[Hashable, ...]:
    """Returns what a request says of the pixels."""
    brought = request.size, request.resize, request.interpolation, request.crop_mode, request.fill
    scale = () if request.scale is None else (request.scale,)
    return *brought, request.bad_images, request.decode, *scale


def _wanted(scanned: Scan, request: Request) -> Scan:
    """Returns what is asked for of a data set: of one that is tested on alone its test split, where it has one, else
    its validation split, else all.
    """
    part = next((part for part in ("test", "val") if part in scanned.parts), "") if request.undivided else ""
    if not part:
        return scanned
    kept = [place for place, its_part in enumerate(scanned.parts) if its_part == part]
    names = ("files", "names", "labels", "parts", "stamps") + ("groups",) * bool(scanned.groups)
    some: dict[str, Any] = {name: tuple(getattr(scanned, name)[place] for place in kept) for name in names}
    return replace(scanned, **some)


def _split(scanned: Scan, images: Known, request: Request) -> Parts:
    parts = [scanned.parts[origin] for origin in images.origins]

    def members(part: str) -> list[int]:
        return [position for position, its_part in enumerate(parts) if its_part == part]

    def cut(part: str, shares: dict[str, float]) -> Parts:
        return divide(members(part), images.labels, images.classes, shares, request.seed, together(images))

    there = set(parts)
    if request.undivided:
        return {"train": [], "val": [], "test": list(range(len(parts)))}
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
    # Two lists of one folder are two data sets, and neither is what the other was before.
    tested = ("tested",) if request.undivided else ()
    root = str(scanned.root.resolve()), scanned.classes, request.path, *tested
    return decoded.final_of(request, root, _unchanged(scanned, request))


def _decode(scanned: Scan, request: Request) -> Images:
    """Decodes all images in parallel, but those that earlier runs have decoded; those that cannot be read are an error
    or left out.
    """
    final = _final(scanned, request)
    with room_for(len(scanned.files), request, final) as room:
        seen = Pass(scanned.files, scanned.stamps, request, room, Earlier(final, scanned.files, scanned.stamps))
        problems, pixel_range = _all(seen, scanned)
        bad = {
            position: f"{scanned.names[position]!r}: {problem}"
            for position, problem in enumerate(problems)
            if problem is not None
        }
        kept = [position for position in range(len(scanned.files)) if position not in bad]
        if bad and request.bad_images == "fail":
            if room.only(kept) is not None and kept:  # whoever repairs these need not wait for the others again
                looks = seen.looks.of(kept)
                room.keep(final, seen.rows(kept, room.digests, scale_from(pixel_range), looks), request.disk_bytes)
            raise UserError(
                f"{len(bad)} of {len(scanned.files)} images in {str(scanned.root)!r} cannot be read: "
                f"{_first(bad.values())}; repair or remove them, or use --bad-images skip"
            )
        if not (kept and request.undivided):
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
        images = grouped(
            images, [seen.identities[position] for position in kept], looks if scanned.photographs else None
        )
        names = [repr(scanned.names[position]) for position in kept]
        images = replace(images, mixed=tuple(f"{names[one]} and {names[other]}" for one, other in mixed(images)))
        if not seen.may_pass:  # what the system cannot read now it may read the next time, whatever its size and time
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
            scale, pixel_range = _scale(scanned, deep, seen.asked)
            again = [position for position in deep if seen.scales[position] != scale]
            some_more = pool.map(lambda position: seen.one(position, scale), again)
            for position, problem in zip(again, some_more, strict=True):
                problems[position] = problem
        except MemoryError:
            raise UserError(f"not enough memory to decode the images in {str(scanned.root)!r}") from None
    return problems, pixel_range


def _scale(scanned: Scan, deep: Mapping[int, Extent], asked: Scale | None) -> tuple[Scale, dict[str, int]]:
    """Returns the scale of images of more than 8 bits, and what is recorded of it. What is tested on has the scale that
    is ``asked`` for, of what was trained on. Where there is train/, its images alone decide; class folders alone are
    split only later, and differently by each seed: there all of them do.
    """
    trained = [extent for position, extent in deep.items() if scanned.parts[position] in ("train", "")]
    scale = asked or scale_of(trained or deep.values())
    if not deep:
        return scale, {}
    beyond = sum(extent.beyond(scale) for extent in deep.values())
    return scale, describe_range(scale.black, scale.white, len(deep), beyond)


def _check_some_left(scanned: Scan, kept: Sequence[int], bad: Mapping[int, str]) -> None:
    """Raises UserError where no image of a class folder is among those kept; ``bad`` says what became of the others."""
    left = {(scanned.parts[p], scanned.labels[p]) for p in kept}
    for part, label in dict.fromkeys(zip(scanned.parts, scanned.labels, strict=True)):
        if (part, label) not in left:
            name = scanned.folders.get((part, scanned.classes[label]))
            in_part = f" in {part}" if part else ""
            what = f"class folder {name!r}" if name else f"class {scanned.classes[label]!r}{in_part}"
            raise UserError(
                f"{what} of {str(scanned.root)!r} has no readable image left: "
                f"{_first(bad[p] for p in bad if (scanned.parts[p], scanned.labels[p]) == (part, label))}"
            )


def _first(texts: Iterable[str]) -> str:
    every = list(texts)
    return "; ".join([*every[:NAMED], *(["…"] if len(every) > NAMED else [])])
