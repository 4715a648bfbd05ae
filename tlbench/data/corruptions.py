"""Corruptions of images, by which a model is tested on what it was not trained for. numpy and PIL are imported late:
the names are asked for by the command line.

Five kinds of ImageNet-C (Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations", ICLR 2019) at three strengths, the severities 1, 3 and 5 of its five. An image x of S x S pixels, uint8,
at the size that the model takes and after the crop, becomes, with c by strength and x / 255 in 0 to 1:

- ``noise``: x / 255 + c z, with z standard normal for each pixel and channel; c = 0.08, 0.18, 0.38.
- ``blur``: a Gaussian blur whose standard deviation is c S / 224 pixels; c = 1, 3, 6.
- ``jpeg``: written as a JPEG of quality c, and read again; c = 25, 15, 7.
- ``brightness``: V + c in HSV, at most 1: V is the largest of a pixel's three channels, each of them is multiplied by
  min(V + c, 1) / V, and black becomes grey of c; c = 0.1, 0.3, 0.5.
- ``contrast``: (x / 255 - m) c + m, with m the channel's mean over the image; c = 0.4, 0.2, 0.05.

What comes out is cut off at 0 and 1 and becomes the nearest of 0 to 255.

The same image gets the same corruption in any order, process, batch size and number of threads, since nothing but its
pixels, the kind and the strength decides: z comes from numpy's PCG64, whose seed is the SHA-256 of these. Another
version of numpy or Pillow may give other bits; a run names both.

ImageNet-C differs in this: it corrupts at 224 pixels, so that at other sizes the blur is in proportion here; noise and
JPEG are of pixels, and so look coarser where there are fewer of them. Its blur is a lens out of focus (the Gaussian is
one of its extra corruptions, and Pillow's, three box blurs, stands in for it), it cuts off decimals where this rounds,
and it stores what came out as a JPEG of quality 85 once more. So figures are not those of ImageNet-C.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Picture = NDArray[np.uint8]
    """(3, S, S)."""

STRENGTHS = (1, 2, 3)
REFERENCE = 224
"""Pixels a side at which a blur is what its number says."""
MARK = "@"
"""What stands between a kind and its strength; no test that a person names has it in its name."""


@dataclass(frozen=True, kw_only=True)
class Corruption:
    """Describes a kind of corruption: a row of the table."""

    summary: str
    amounts: tuple[float, float, float]
    """c of each strength."""
    apply: Callable[[Picture, float], Picture]
    """Takes an image (3, S, S) uint8 and c; returns another image."""


def _rounded(values: NDArray[np.float32]) -> Picture:
    """Returns values, 255 for white, as whole numbers; they are overwritten."""
    import numpy as np

    np.clip(np.rint(values, out=values), 0, 255, out=values)
    return values.astype(np.uint8)


def _noise(image: Picture, amount: float) -> Picture:
    import hashlib

    import numpy as np

    digest = hashlib.sha256(f"noise {amount} {image.shape} ".encode() + image.tobytes()).digest()
    generator = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))
    values = generator.standard_normal(image.shape, dtype=np.float32)
    values *= np.float32(255 * amount)
    values += image
    return _rounded(values)


def _blur(image: Picture, amount: float) -> Picture:
    import numpy as np
    from PIL import Image, ImageFilter

    # In place of a copy that follows the strides of a transposed array, one that PIL reads row by row.
    picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
    blurred = picture.filter(ImageFilter.GaussianBlur(amount * image.shape[-1] / REFERENCE))
    return np.ascontiguousarray(np.asarray(blurred).transpose(2, 0, 1))


def _jpeg(image: Picture, amount: float) -> Picture:
    import io

    import numpy as np
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(file, "JPEG", quality=int(amount))
    with Image.open(file, formats=("JPEG",)) as read:
        return np.ascontiguousarray(np.asarray(read.convert("RGB")).transpose(2, 0, 1))


def _brightness(image: Picture, amount: float) -> Picture:
    import numpy as np

    largest = image.max(axis=0).astype(np.float32)
    raised = np.minimum(largest + np.float32(255 * amount), np.float32(255))
    values = image * (raised / np.maximum(largest, 1))
    return _rounded(np.where(largest > 0, values, raised))


def _contrast(image: Picture, amount: float) -> Picture:
    import numpy as np

    # A sum of whole numbers is the same in any order.
    means = image.sum(axis=(1, 2), dtype=np.int64, keepdims=True) / (image.shape[1] * image.shape[2])
    values: NDArray[np.float32] = ((image - means) * amount + means).astype(np.float32)
    return _rounded(values)


CORRUPTIONS: dict[str, Corruption] = {
    "noise": Corruption(
        summary="Gaussian noise of 0.08, 0.18, 0.38 of white", amounts=(0.08, 0.18, 0.38), apply=_noise
    ),
    "blur": Corruption(summary="Gaussian blur of 1, 3, 6 pixels in 224", amounts=(1.0, 3.0, 6.0), apply=_blur),
    "jpeg": Corruption(summary="JPEG of quality 25, 15, 7", amounts=(25.0, 15.0, 7.0), apply=_jpeg),
    "brightness": Corruption(
        summary="brighter by 0.1, 0.3, 0.5 of white", amounts=(0.1, 0.3, 0.5), apply=_brightness
    ),
    "contrast": Corruption(
        summary="0.4, 0.2, 0.05 of the contrast", amounts=(0.4, 0.2, 0.05), apply=_contrast
    ),
}  # fmt: skip
"""Kind -> what it does."""


def names_of(kinds: Iterable[str]) -> list[str]:
    """Returns the names of the tests of some kinds, each at every strength.

    >>> names_of(["blur"])
    ['blur@1', 'blur@2', 'blur@3']
    """
    return [f"{kind}{MARK}{strength}" for kind in kinds for strength in STRENGTHS]


def kind_of(name: str) -> str:
    """Returns the kind of a corruption's name; empty for the name of anything else.

    >>> kind_of("blur@2"), kind_of("phone")
    ('blur', '')
    """
    kind, mark, _ = name.partition(MARK)
    return kind if mark else ""


def corrupted(images: NDArray[np.uint8], kind: str, strength: int, threads: int = 1) -> NDArray[np.uint8]:
    """Returns images (n, 3, S, S) uint8 corrupted, each by itself; ``strength`` is one of `STRENGTHS`. The number of
    threads decides nothing but the time.
    """
    import numpy as np

    row = CORRUPTIONS[kind]
    amount = row.amounts[STRENGTHS.index(strength)]
    found = np.empty_like(images)

    def one(position: int) -> None:
        found[position] = row.apply(np.ascontiguousarray(images[position]), amount)

    if threads > 1 and len(images) > 1:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(one, range(len(images))))
    else:
        for position in range(len(images)):
            one(position)
    return found
