"""Images that a data set by name has, one by one -> the same `Scan` that a folder gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tlbench.data.held import Held
from tlbench.data.levels import PARTS, some_of
from tlbench.data.scan import Scan, Stamp, stamp_of
from tlbench.errors import UserError


@dataclass(frozen=True, slots=True)
class Member:
    """Names an image, its class and its split."""

    part: str
    """train, val or test; empty for all images of a data set that is divided by seed."""
    label: str
    image: Path | Held


@dataclass(frozen=True, kw_only=True)
class Lying:
    """Says where the images of a data set lie."""

    name: str
    """What errors call the data set."""
    root: Path
    """What paths are shown below."""
    stamp: Stamp
    """What changes when images that are no files of their own do (`stamp_of_all`)."""
    photographs: bool = True
    """Near copies are looked for: drawings of one sign look alike, and are none."""
    column: str = ""
    """Which images of a table these are that may have several of a row."""


def scan_of(lying: Lying, members: Sequence[Member], classes: Iterable[str], remarks: Sequence[str] = ()) -> Scan:
    """Returns what is known of members before any is decoded. ``classes`` gives the order; those without an image are
    left out.

    Errors: UserError where a class is tested that is not trained, and for less than two classes.
    """
    there: dict[str, dict[str, None]] = {}
    for member in members:
        there.setdefault(member.part, {})[member.label] = None
    trained = there.get("train", there.get("", {}))
    for part, labels in there.items():
        if strange := [label for label in labels if label not in trained]:
            raise UserError(
                f"{lying.name}: class {strange[0]!r} has images in {part}, but none in train; no model can learn it"
            )
    names = tuple(label for label in dict.fromkeys(classes) if label in trained)
    if len(names) < 2:
        count = f"only one class, {names[0]!r}" if names else "no images"
        raise UserError(f"{lying.name} in {str(lying.root)!r} has {count}; a classifier needs at least two")
    numbers = {name: number for number, name in enumerate(names)}
    return Scan(
        root=lying.root,
        classes=names,
        files=tuple(member.image for member in members),
        names=tuple(_name_of(member.image, lying.root) for member in members),
        labels=tuple(numbers[member.label] for member in members),
        parts=tuple(member.part for member in members),
        folders={(part, name): f"{part}/{name}" if part else name for part in there for name in names},
        stamps=tuple(stamp_of(m.image) if isinstance(m.image, Path) else lying.stamp for m in members),
        passed_over=(),
        remarks=(*remarks, *_lacking(there, names)),
        how_split="",  # which the table says
        photographs=lying.photographs,
        column=lying.column,
    )


def _name_of(image: Path | Held, root: Path) -> str:
    """Returns what an image is called below the data set's root."""
    if isinstance(image, Held):
        return image.name
    return image.relative_to(root).as_posix() if image.is_relative_to(root) else image.as_posix()


def _lacking(there: Mapping[str, Mapping[str, None]], names: Sequence[str]) -> Iterable[str]:
    for part in PARTS:
        missing = [name for name in names if part in there and name not in there[part]]
        if missing:
            yield f"{part} has no images of {len(missing):,} of the {len(names):,} classes: {some_of(missing)}"


def stamp_of_all(files: Iterable[Path]) -> Stamp:
    """Returns one stamp of several files, which is another one as soon as one of them is written: device and inode of
    the first, the bytes of all, the latest times.
    """
    stamps = [found for file in files if (found := stamp_of(file)) is not None]
    if not stamps:
        return (0, 0, 0, 0, 0, 1)
    size, written, changed = sum(s[2] for s in stamps), max(s[3] for s in stamps), max(s[4] for s in stamps)
    return (*stamps[0][:2], size, written, changed, 1)
