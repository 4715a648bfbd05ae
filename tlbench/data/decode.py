"""One image file, whatever it may be -> an upright RGB image, or one line that says why not."""

from __future__ import annotations

import errno
import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from io import BufferedReader
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from tlbench.data import heif
from tlbench.data.budget import NoRoom
from tlbench.data.depth import FULL, Extent, Scale, eight_bits, is_deep, storage
from tlbench.data.held import Content, Held, picture_of
from tlbench.data.scaled import Photograph, Wanted, draft, takes_all, turned

MOST_PIXELS = 2**28
"""An image of more is refused before it is decoded. Cameras of telephones make 200 million."""
FORMATS = ("JPEG", "MPO", "PNG", "GIF", "WEBP", "AVIF", "JPEG2000", "BMP", "DIB", "PPM", "TIFF")
"""What is decoded, whatever the name says: nothing that starts another program (EPS would start Ghostscript)."""
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
ON_ITS_SIDE = (
    Image.Transpose.TRANSPOSE,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
)


class NotAnImage(ValueError):
    """Says what is wrong with the content of a file: it stays so while neither the file nor the decoders change."""


_limit = threading.Lock()
_users: list[int | None] = []


@contextmanager
def own_limit() -> Iterator[None]:
    """Lets `read_image` alone say what is too large: PIL refuses photographs of twice 89 million pixels."""
    with _limit:
        _users.append(Image.MAX_IMAGE_PIXELS)
        Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        with _limit:  # threads decode at the same time: the last of them puts back what the first has found
            first = _users.pop(0)
            if _users:
                _users[0] = first
            else:
                Image.MAX_IMAGE_PIXELS = first


def read_image(
    file: Path | Held,
    take: Callable[[int, int], None] = lambda *size: None,
    scale: Scale = FULL,
    tell: Callable[[Extent], None] = lambda extent: None,
) -> Image.Image:
    """Returns an image as `read_photograph` does, decoded whole. Errors: ValueError."""
    return read_photograph(file, take, scale, tell).image


def read_photograph(
    file: Path | Held,
    take: Callable[[int, int], None] = lambda *size: None,
    scale: Scale = FULL,
    tell: Callable[[Extent], None] = lambda extent: None,
    wanted: Wanted | None = None,
) -> Photograph:
    """Returns an image as RGB, upright (as its EXIF orientation says). Transparency is dropped, as torchvision's loader
    does; of an animation or of pages the first counts; values of more than 8 bits are read at a ``scale``, and ``tell``
    gets their extent where the file does not say their range (`tlbench.data.depth`). A JPEG is decoded at a fraction of
    its size where that leaves what is ``wanted`` (`tlbench.data.scaled`); without it, and of other formats, all pixels
    are.

    ``take`` is called with width and height before anything is decoded, and may wait for room (`tlbench.data.budget`).

    Errors: ValueError, one line that says why, for anything that is no readable image; `NotAnImage` where that lies in
    the content. Links are followed, as everywhere: subsets are made of them.
    """
    content: Path | Content | None = None
    try:
        content = _content(file)
        if not isinstance(content, Path | bytes):
            take(content.shape[1], content.shape[0])
            picture = picture_of(content)
            return Photograph(image=picture, size=picture.size)
        with _opened(content) as image:
            width, height = image.size
            if not width * height:
                raise ValueError("it has no pixels")
            if width * height > MOST_PIXELS:
                raise ValueError(f"{width} x {height} pixels are too many (a decompression bomb?)")
            stored = storage(image)
            kind = image.format or ""
            box = draft(image, wanted(width, height)) if wanted is not None else None
            room = (width, height) if takes_all(image) else image.size
            take(room[0] * 2 if is_deep(image, stored) else room[0], room[1])
            # Only then is the orientation asked for: TIFFs are turned upright while they are loaded.
            image.load()
            rgb = _rgb(eight_bits(image, stored, partial(_opened, content), scale, tell))
            turn = _turn(image)
            upright = rgb if turn is None else rgb.transpose(turn)
            if box is None:
                return Photograph(image=upright, size=upright.size, format=kind)
            size = (height, width) if turn in ON_ITS_SIDE else (width, height)
            return Photograph(image=upright, size=size, box=turned(box, rgb.size, turn), format=kind)
    except MemoryError:
        raise
    except Exception as error:  # a decoder may raise anything when it is fed a broken file
        kind_of_error = NotAnImage if _lasts(error, content is not None) else ValueError
        raise kind_of_error(_reason(error, file)) from None


def _lasts(error: Exception, opened: bool) -> bool:
    """Tells whether what went wrong lies in the content of a file. PIL says so by errors of the system's kind as well,
    which have no number; a package that cannot be imported and memory that is short pass. Before there is any content
    (``opened``), only a ValueError is about it: the row has no image.
    """
    if isinstance(error, UnidentifiedImageError):  # which has the file's name in it
        return opened
    if isinstance(error, ImportError | NoRoom) or "memory" in str(error).casefold():
        return False
    if isinstance(error, OSError):
        return opened and error.errno is None
    return opened or isinstance(error, ValueError)


def _content(file: Path | Held) -> Path | Content:
    """Returns the file that is meant, links followed, or what is no file of its own. Errors: OSError, ValueError."""
    if isinstance(file, Held):
        return file.read()
    file.stat()  # raises for a circle of links what `resolve` has an error of its own for
    real = file.resolve(strict=True)
    if not real.is_file():
        raise ValueError("it is no file")
    return real


@contextmanager
def _opened(real: Path | bytes) -> Iterator[ImageFile]:
    # Not by its name, for which PIL maps some into memory: grey TIFFs that lie on their side come out scrambled, and a
    # file that is cut short meanwhile kills the process.
    with (
        io.BufferedReader(io.BytesIO(real)) if isinstance(real, bytes) else open(real, "rb") as file,
        Image.open(file, formats=_formats_of(file)) as image,
    ):
        yield image


def _formats_of(file: BufferedReader[Any]) -> tuple[str, ...]:
    """Returns the formats that a file is tried as. A HEIC is known by its first bytes, so that pillow-heif is imported
    only for one, and whether it was makes no difference to other files.
    """
    return _formats() + (heif.formats() if heif.is_heif(file.peek(12)[:12]) else ())


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "La":  # multiplied by its transparency, which PIL turns into RGB only when it is not
        image = image.convert("LA")
    return image.convert("RGB")


def _turn(image: Image.Image) -> Image.Transpose | None:
    try:
        return UPRIGHT.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # metadata that cannot be read turn no image: other readers do not even look at them
        return None


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _beginning(file: Path | Held) -> bytes:
    """Returns the first bytes of a file; of an array one for each of its pixels' rows."""
    if isinstance(file, Path):
        with open(file, "rb") as opened:
            return opened.read(12)
    content = file.read()
    return content[:12] if isinstance(content, bytes) else bytes(len(content))


def _reason(error: Exception, file: Path | Held) -> str:
    """Gives the reason in one line without control characters: an image's bytes may have chosen the text."""
    if isinstance(error, UnidentifiedImageError):
        begin = _beginning(file)
        if not len(begin):
            return "it is empty"
        missing = heif.is_heif(begin) and not heif.installed()
        return f"it is no image, or of a format that is not read{f' (a HEIC: {heif.INSTALL})' if missing else ''}"
    linked = isinstance(file, Path) and file.is_symlink()
    if isinstance(error, OSError) and error.errno in (errno.ENOENT, errno.ELOOP) and linked:
        return "it is a link that leads nowhere"
    text = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return "".join(c if c.isprintable() else " " for c in text)[:200]
