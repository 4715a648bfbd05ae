"""One pass over the files of a data set: each is decoded, or taken from what earlier runs have decoded."""

from __future__ import annotations

import hashlib
import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tlbench.data.budget import Budget
from tlbench.data.decode import NotAnImage, own_limit, read_photograph
from tlbench.data.decoded import DEEP, OF_LOOKS, Earlier, Rows, Stamp
from tlbench.data.depth import FULL, Extent, Scale
from tlbench.data.held import Held, identity_of
from tlbench.data.looks import Looks
from tlbench.data.rooms import Room
from tlbench.data.scaled import COULD, SCALED, Photograph, brought, could, wanted
from tlbench.data.store import RESAMPLING, Known, fit, resized
from tlbench.data.streaming import DECODED, Pixels, Streamed
from tlbench.errors import LostInput

if TYPE_CHECKING:
    from tlbench.data import Request


class Pass:
    """Goes over files, and holds what was found in them, by position in the list of files."""

    def __init__(
        self,
        files: Sequence[Path | Held],
        stamps: Sequence[Stamp | None],
        request: Request,
        room: Room,
        earlier: Earlier,
    ) -> None:
        self._files, self._stamps, self._request, self._room, self._earlier = files, stamps, request, room, earlier
        self.asked = request.scale
        """What images of more than 8 bits are to be read at; None: their own extents decide."""
        self._budget = Budget()
        count = len(files)
        self.looks = Looks(count)
        self.identities = [b""] * count
        """SHA-256 of each file: of it, not of the pixels, since decoders differ by a bit, and splits must not."""
        self.flags = np.zeros(count, np.uint8)
        self.extents: dict[int, Extent] = {}
        """Of images of more than 8 bits."""
        self.scales: dict[int, Scale] = {}
        """What each of these was read at."""
        self.seconds: dict[int, float] = {}
        """What decoding took, of those that were."""
        self.may_pass: set[int] = set()
        """Those with which something is wrong that lies not in their content: the system could not read them."""

    def one(self, position: int, scale: Scale) -> str | None:
        """Decodes a file, whose values of more than 8 bits are read at a ``scale``. Returns what is wrong with it, None
        for nothing; threads may ask at the same time.
        """
        try:
            content = self._earlier.content(position)
            if not (content and self._taken(position, content, scale)):
                begin = time.perf_counter()
                self._decode(position, scale)
                if not content:
                    content = identity_of(self._files[position])
                self.seconds[position] = time.perf_counter() - begin
            self.identities[position] = content
        except (OSError, ValueError) as error:
            if not (isinstance(error, NotAnImage) and self._can_be_read(position)):
                self.may_pass.add(position)
            return (error.strerror or type(error).__name__) if isinstance(error, OSError) else str(error)
        return None

    def _can_be_read(self, position: int) -> bool:
        """Tells whether the system reads a file to its end: some decoders say of a disk that fails what they say of a
        broken file. What a library has in its place was read before it was decoded.
        """
        file = self._files[position]
        try:
            if isinstance(file, Path) and file.is_file():  # a pipe never ends
                identity_of(file)
        except OSError:
            return False
        return True

    def _taken(self, position: int, content: bytes, scale: Scale) -> bool:
        """Takes an image that an earlier run has decoded; False where there is none, or it is not what it was."""
        # At first any scale will do: which one it has to be is known when all files were looked at.
        again = position in self.scales
        if (found := self._earlier.find(content, scale if again else None)) is None:
            return False
        pack, row = found
        rows = pack.rows
        if self._room.put(position, pack.pixels[row]) != rows.digests[row]:
            return False
        for name in OF_LOOKS:
            getattr(self.looks, name)[position] = getattr(rows.looks, name)[row]
        self.flags[position] = rows.flags[row]
        if rows.flags[row] & DEEP:
            self.extents[position] = Extent(*map(int, rows.extents[row]))
            self.scales[position] = rows.scale
        return True

    def _decode(self, position: int, scale: Scale) -> None:
        request = self._request
        size_of = partial(resized_of, request)
        with self._budget.room() as take:
            photo = read_photograph(
                self._files[position],
                partial(take_room, take, request.resize, crop_mode=request.crop_mode),
                scale,
                partial(self._learn, position, scale),
                wanted(request.decode, size_of),
            )
            try:
                pixels = fitted(photo, request)
            except ValueError as error:  # it is too long and thin
                raise NotAnImage(str(error)) from None
            self._room.put(position, pixels)
            self.looks.take(position, photo.image)
            kind = SCALED if photo.box is not None else COULD if could(photo, size_of) else 0
            self.flags[position] = kind | (DEEP if position in self.extents else 0)

    def _learn(self, position: int, scale: Scale, extent: Extent) -> None:
        self.extents[position], self.scales[position] = extent, scale

    def rows(self, kept: Sequence[int], digests: Sequence[bytes], scale: Scale, looks: Looks) -> Rows:
        """Returns what is known of the images that are ``kept``, of which those of more than 8 bits have a scale."""
        extents = [self.extents.get(position, Extent(0, 0)) for position in kept]
        stamps = [(self._stamps[position] or (0,) * 5)[2:5] for position in kept]
        return Rows(
            contents=tuple(self.identities[position] for position in kept),
            digests=tuple(digests),
            flags=self.flags[list(kept)],
            extents=np.array(extents, np.int64).reshape(-1, 2),
            scale=scale,
            looks=looks,
            paths=tuple(str(self._files[position]) for position in kept),
            stamps=np.array(stamps, np.int64).reshape(-1, 3),
            seconds=self.decode_seconds,
        )

    @property
    def decode_seconds(self) -> float:
        """Returns what decoding an image took a thread; 0 where none was."""
        return sum(self.seconds.values()) / len(self.seconds) if self.seconds else self._earlier.seconds

    def counted(self, kept: Sequence[int]) -> dict[str, int]:
        """Counts photographs that were decoded at a fraction of their size, or could have been."""
        flags = self.flags[list(kept)]
        counts = {"scaled": int((flags & SCALED > 0).sum()), "could": int((flags & COULD > 0).sum())}
        return {name: count for name, count in counts.items() if count}


def resized_of(request: Request, width: int, height: int) -> tuple[int, int]:
    """Returns the size that a request brings a photograph of so many pixels to, before its centre is cut out."""
    return resized(width, height, request.resize, request.crop_mode)


def fitted(photo: Photograph, request: Request) -> Pixels:
    """Returns (3, size, size) uint8 of a photograph, as a request has it. Errors: ValueError."""
    resampling = RESAMPLING[request.interpolation]
    image = brought(photo, partial(resized_of, request), resampling)
    return fit(image, request.resize, request.size, resampling, request.crop_mode, request.fill)


def take_room(take: Callable[[int], None], resize: int, width: int, height: int, crop_mode: str = "center") -> None:
    """Takes room for an image as it is in the file, or as it is resized: a thin one grows."""
    if crop_mode == "center":
        take(max(width * height, resize * resize * max(width, height) // min(width, height)))
    else:
        take(max(width * height, math.prod(resized(width, height, resize, crop_mode))))


# --- decoded on the way ---------------------------------------------------------------------------------------


def on_the_way(files: Sequence[Path | Held], request: Request, known: Known, scale: Scale) -> Streamed:
    """Returns images that are decoded each time a batch takes them. ``files`` are those of the images that are known,
    in their order, ``scale`` is what values of more than 8 bits are read at.
    """
    budget = Budget()
    least = wanted(request.decode, partial(resized_of, request))
    warnings.filterwarnings("ignore", module=r"PIL\.")  # of consequence to none: each file was decoded before

    def bring(position: int, row: Pixels) -> None:
        file = files[position]
        try:
            with own_limit(), budget.room() as take:
                room = partial(take_room, take, request.resize, crop_mode=request.crop_mode)
                row[...] = fitted(read_photograph(file, room, scale, wanted=least), request)
        except (OSError, ValueError) as error:
            raise LostInput(f"image {str(file)!r} cannot be read any more: {error}") from None
        if hashlib.sha256(row.data).digest() != known.digests[position]:
            raise LostInput(f"image {str(file)!r} is not what it was when the run began")

    return Streamed(known.shape, bring, DECODED)


def scale_from(pixel_range: Mapping[str, int]) -> Scale:
    """Returns the scale that is recorded of images of more than 8 bits; that of 16 bits without any."""
    if not pixel_range:
        return FULL
    return Scale(black=pixel_range["black"], bits=(pixel_range["white"] - pixel_range["black"]).bit_length())
