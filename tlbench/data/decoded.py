"""Decoded images kept on the disk for later runs, by what is in their files, so that nothing is decoded twice.

A file holds the images of one data set as they were decoded for one size, and behind the pixels what is known of each:
the SHA-256 of the file that it was decoded from, that of its pixels, its look. A run on the same folder takes all of
them; after a change, or elsewhere, those whose content is known. Whatever else decides pixels is in the file's name:
the size, how a photograph is brought to it, how it is decoded, and the code that does. What is torn or damaged is found
out by the hashes, and decoded anew. One file, since whoever writes it has to know what is read.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tlbench.data import facts
from tlbench.data.decoded_folder import ENDING, MARK, NAME, folder, look, make_way, remove
from tlbench.data.depth import Scale
from tlbench.data.held import Held, identity_of
from tlbench.data.looks import Looks
from tlbench.data.store import workers
from tlbench.data.streaming import Easing, Pixels
from tlbench.machine import locks
from tlbench.machine.scratch import Scratch, open_plain, write_all

if TYPE_CHECKING:
    from tlbench.data import Request

DEEP = 4
"""What is said of an image beside `tlbench.data.scaled.SCALED` and `COULD`: it has more than 8 bits a value."""
MOST_FILES = 8
"""Most files that are searched for images of a data set: those of the same folder first, then those used last."""
TAIL = 8 + 32 + len(MARK)
"""Last bytes of a file: the length of the description before them, its SHA-256, and a mark."""
OF_IMAGE, REST = 2048, 65_536
"""Bytes that the description takes for an image and beside them, about, at most."""
AT_ONCE = 64
"""Images that a thread compares before it looks for more work."""
OF_LOOKS = ("grey", "colour", "usable", "plain", "small")
Stamp = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Says what is known of each of n images beside its pixels."""

    contents: tuple[bytes, ...]
    """SHA-256 of the file that each was decoded from."""
    digests: tuple[bytes, ...]
    """SHA-256 of its pixels."""
    flags: NDArray[np.uint8]
    """(n,) sums of `SCALED`, `COULD` and `DEEP`."""
    extents: NDArray[np.int64]
    """(n, 2) least and largest value of those that are `DEEP`."""
    scale: Scale
    """What these were read at."""
    looks: Looks
    paths: tuple[str, ...]
    stamps: NDArray[np.int64]
    """(n, 3) size and times of each file, by which it is known without being read."""
    seconds: float
    """What decoding one of them took a thread."""


@dataclass(frozen=True, kw_only=True)
class Pack:
    """Holds a file of decoded images."""

    path: Path
    file: FileIO
    pixels: Pixels
    """(n, 3, S, S), mapped from the file; nobody can write there."""
    rows: Rows


# --- names ----------------------------------------------------------------------------------------------------


def recipe_of(request: Request) -> str:
    """Returns 16 hexadecimal digits for all that decides the pixels of a file but what is in it."""
    asked = request.size, request.resize, request.interpolation, request.crop_mode, request.fill, request.decode
    return _short((facts.code(), asked))


def final_of(request: Request, root: Hashable, everything: Hashable) -> Path:
    """Returns the file that holds a data set's images. ``root`` names the folder, ``everything`` also each file in it,
    as it is now.
    """
    return folder() / f"{recipe_of(request)}-{_short(root)}-{_short(everything, 32)}{ENDING}"


def _short(key: Hashable, digits: int = 16) -> str:
    return hashlib.sha256(repr(key).encode(errors="surrogatepass")).hexdigest()[:digits]


def at_most(count: int, size: int) -> int:
    """Returns the bytes of a file of so many images, with as much as its description may take."""
    return count * (3 * size * size + OF_IMAGE) + REST


# --- reading --------------------------------------------------------------------------------------------------


def read(path: Path) -> Pack | None:
    """Returns a file of decoded images, of which the description is checked, and the pixels are not yet; None where
    there is none. One that is torn is removed.
    """
    try:
        file = open_plain(path)
    except OSError:
        return None
    try:
        rows, shape = _description(file)
        pixels = np.memmap(file, np.uint8, "r", shape=shape)
    except (OSError, ValueError, KeyError, TypeError) as error:
        if not isinstance(error, OSError):
            forget(path, file)
        file.close()
        return None
    with suppress(OSError):
        os.utime(path)  # those used longest ago give way
    return Pack(path=path, file=file, pixels=pixels, rows=rows)


def forget(path: Path, file: FileIO) -> None:
    """Removes a file that is damaged, but not a sound one that another process has put into its place."""
    with suppress(OSError):
        if os.path.samestat(os.fstat(file.fileno()), path.lstat()):
            path.unlink()


def _description(file: FileIO) -> tuple[Rows, tuple[int, ...]]:
    """Returns what is known of the images of a file, and the shape of its pixels. Errors: ValueError, KeyError or
    TypeError where it is not what it says; OSError.
    """
    end = file.seek(0, os.SEEK_END)
    if end < TAIL:
        raise ValueError("it is torn")
    file.seek(end - TAIL)
    tail = _read(file, TAIL)
    begin = end - TAIL - int.from_bytes(tail[:8], "little")
    if not tail.endswith(MARK) or begin < 0:
        raise ValueError("it has no end")
    file.seek(begin)
    packed = _read(file, end - TAIL - begin)
    if hashlib.sha256(packed).digest() != tail[8:40]:
        raise ValueError("its description has changed")
    with np.load(io.BytesIO(packed), allow_pickle=False) as arrays:
        found: dict[str, Any] = {name: arrays[name] for name in arrays.files}
    rest = json.loads(found["rest"].tobytes())
    count, size = int(rest["count"]), int(rest["size"])
    if count * 3 * size * size != begin:
        raise ValueError("it is longer or shorter than it says")
    looks = Looks(0)
    for name in OF_LOOKS:
        setattr(looks, name, found[name])
    rows = Rows(
        contents=tuple(map(bytes, found["contents"])),
        digests=tuple(map(bytes, found["digests"])),
        flags=found["flags"],
        extents=found["extents"],
        scale=Scale(black=int(rest["black"]), bits=int(rest["bits"])),
        looks=looks,
        paths=tuple(rest["paths"]),
        stamps=found["stamps"],
        seconds=float(rest["seconds"]),
    )
    if {len(rows.contents), len(rows.digests), len(rows.paths), len(rows.flags), len(rows.stamps)} != {count}:
        raise ValueError("it does not tell of all its images")
    return rows, (count, 3, size, size)


def _read(file: FileIO, size: int) -> bytes:
    """Returns so many bytes. Errors: ValueError where there are fewer; OSError."""
    content = bytearray(size)
    rest = memoryview(content)
    while rest:
        if not (count := file.readinto(rest)):
            raise ValueError("it is torn")
        rest = rest[count:]
    return bytes(content)


def damaged(pack: Pack, stays: bool) -> list[int]:
    """Returns the images of a file whose pixels are not what was decoded, by all processors. ``stays``: all of it then
    lies in this process's memory.
    """
    easing = None if stays else Easing(pack.pixels)

    def compared(start: int) -> list[int]:
        bad = []
        for row in range(start, min(start + AT_ONCE, len(pack.pixels))):
            pixels = pack.pixels[row]
            if hashlib.sha256(pixels.data).digest() != pack.rows.digests[row]:
                bad.append(row)
            if easing is not None:
                easing.touch(pixels.nbytes)
        return bad

    with ThreadPoolExecutor(workers()) as pool:
        return [row for bad in pool.map(compared, range(0, len(pack.pixels), AT_ONCE)) for row in bad]


# --- what earlier runs have decoded ---------------------------------------------------------------------------


class Earlier:
    """Finds images that earlier runs have decoded for the same recipe, by what is in their files."""

    def __init__(self, final: Path, files: Sequence[Path | Held], stamps: Sequence[Stamp | None]) -> None:
        """``final`` is the file that the images will be kept in, ``stamps`` as `tlbench.data.scan.Scan` has them."""
        self._files, self._stamps = files, stamps
        self._rows: dict[bytes, list[tuple[Pack, int]]] = {}
        self._known: dict[tuple[str, Stamp], bytes] = {}
        self.seconds = 0.0
        """What decoding one of them took a thread."""
        for path in _same_recipe(final)[:MOST_FILES]:
            if (pack := read(path)) is not None:
                self._add(pack)

    def _add(self, pack: Pack) -> None:
        rows = pack.rows
        self.seconds = self.seconds or rows.seconds
        for row, (content, path, stamp) in enumerate(zip(rows.contents, rows.paths, rows.stamps.tolist(), strict=True)):
            self._rows.setdefault(content, []).append((pack, row))
            self._known.setdefault((path, tuple(stamp)), content)

    def __bool__(self) -> bool:
        return bool(self._rows)

    def content(self, position: int) -> bytes:
        """Returns the SHA-256 of a file, which is read only where its size and times are not those of one that is
        known; nothing where there is nothing to find by it, or it cannot be read, as its decoder will say.
        """
        stamp = self._stamps[position]
        if not self._rows or stamp is None:
            return b""
        file_or_held = self._files[position]
        if isinstance(file_or_held, Held):  # its stamp is that of all of them
            try:
                return identity_of(file_or_held)
            except (OSError, ValueError):
                return b""
        if known := self._known.get((str(file_or_held), stamp[2:5])):
            return known
        try:
            with open(file_or_held, "rb", opener=_without_waiting) as file:
                if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    return hashlib.file_digest(file, "sha256").digest()
        except OSError:
            pass
        return b""

    def find(self, content: bytes, scale: Scale | None = None) -> tuple[Pack, int] | None:
        """Returns where an image lies with such content; with ``scale``, of more than 8 bits and read at that."""
        for pack, row in self._rows.get(content, ()):
            if scale is None or not pack.rows.flags[row] & DEEP or pack.rows.scale == scale:
                return pack, row
        return None


def _without_waiting(name: str, flags: int) -> int:
    return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))  # a pipe would keep us


def _same_recipe(final: Path) -> list[Path]:
    """Returns the files of the recipe of one: those of its folder first, then those used last."""
    own = NAME.fullmatch(final.name)
    assert own is not None
    found = []
    for one in look().stored:
        name = NAME.fullmatch(one.path.name)
        if name is not None and name["recipe"] == own["recipe"]:
            found.append((name["root"] != own["root"], -one.used, one.path))
    return [path for *_, path in sorted(found)]


# --- writing --------------------------------------------------------------------------------------------------


class Filling:
    """Holds room in a file for images that are being decoded, from its making to `publish` or `drop`."""

    def __init__(self, final: Path, count: int, size: int) -> None:
        """Makes it. Errors: OSError, with nothing left behind."""
        folder().mkdir(parents=True, exist_ok=True)
        self.scratch = Scratch(final)
        try:
            locks.reserve(self.scratch.file, at_most(count, size))  # a full disk would kill us at some later write
            self.pixels: Pixels = np.memmap(self.scratch.file, np.uint8, "r+", shape=(count, 3, size, size))
        except BaseException:
            self.drop()
            raise

    def publish(self, rows: Rows) -> None:
        """Makes the first images, which ``rows`` tells of, known to later runs. Errors: OSError."""
        file, (_, *image) = self.scratch.file, self.pixels.shape
        file.seek(len(rows.contents) * int(np.prod(image)))
        _finish(self.scratch, rows, image[-1])

    def drop(self) -> None:
        """Removes what was not published; the pixels stay what they are. A second time nothing happens."""
        self.scratch.drop()


def keep(final: Path, pixels: Pixels, rows: Rows, budget: int | None) -> None:
    """Keeps images that are in memory for later runs, within ``budget`` bytes (`tlbench.data.decoded_folder.make_way`).
    Where there is no room for them a later run decodes them again.
    """
    count, size = len(pixels), pixels.shape[-1]
    if not make_way(at_most(count, size), budget):
        return
    with suppress(OSError):
        folder().mkdir(parents=True, exist_ok=True)
        scratch = Scratch(final)
        try:
            locks.reserve(scratch.file, at_most(count, size))
            scratch.file.seek(0)
            write_all(scratch.file, pixels.reshape(-1).data)
            _finish(scratch, rows, size)
        finally:
            scratch.drop()


def _finish(scratch: Scratch, rows: Rows, size: int) -> None:
    """Writes what is known of the images behind their pixels, and gives the file its name; what it replaces goes."""
    told = {
        "count": len(rows.contents),
        "size": size,
        "black": rows.scale.black,
        "bits": rows.scale.bits,
        "paths": rows.paths,
        "seconds": rows.seconds,
    }
    arrays: dict[str, Any] = {name: getattr(rows.looks, name) for name in OF_LOOKS}
    for name in ("contents", "digests"):
        arrays[name] = np.frombuffer(b"".join(getattr(rows, name)), np.uint8).reshape(-1, 32)
    arrays |= {"flags": rows.flags, "extents": rows.extents, "stamps": rows.stamps}
    arrays["rest"] = np.frombuffer(json.dumps(told).encode(), np.uint8)
    file = io.BytesIO()
    np.savez(file, **arrays)
    packed = file.getvalue()
    tail = len(packed).to_bytes(8, "little") + hashlib.sha256(packed).digest() + MARK
    write_all(scratch.file, packed + tail)
    scratch.file.truncate()
    scratch.publish(sync=False)  # what a crash tears is found out by its hashes
    own = NAME.fullmatch(scratch.final.name)
    for one in look().stored:  # the same folder as it was before
        other = NAME.fullmatch(one.path.name)
        same = own and other and own.group("recipe", "root") == other.group("recipe", "root")
        if same and one.path != scratch.final:
            remove(one)
