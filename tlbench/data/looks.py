"""What images look like when small, and which of them look like copies of each other.

An image's look is its thumbnail. Candidates are found by the real-valued form of the DCT perceptual hash (Zauner,
"Implementation and Benchmarking of Perceptual Image Hash Functions", 2010): its lowest coefficients, normalised and not
cut to bits, in a k-d tree. Each candidate gets a second look: the thumbnails are registered onto each other and must
agree in their detail. The thresholds were set on 397 and 5,421 photographs: of copies that were re-encoded down to
quality 10, made three times smaller, mirrored or cropped by one pixel all agree, of those cropped by four pixels 98 to
100 %, by 2 % of width and height 95 to 98 %; and no two photographs but nine pairs of one scene a moment apart.

Small images have less to agree in. Of 1,500 photographs made so small, these copies agreed: mirrored, JPEG of quality
50, one column cropped, one pixel cropped all round; and so many of their 1.1 million pairs that are no copies:

=====  ========  =======  ==========  =========  =====
18 px    99.3 %   74.5 %      94.1 %     34.3 %  3
24 px    99.3 %   96.4 %      99.0 %     81.4 %  1
32 px   100.0 %   88.9 %      99.5 %     95.8 %  none
48 px   100.0 %  100.0 %      99.7 %     99.7 %  none
=====  ========  =======  ==========  =========  =====
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float32]
Pairs = NDArray[np.int64]
"""(n, 2) positions of two images each."""

SIDE = 32
"""Pixels a side of a thumbnail, which a smaller image is enlarged to."""
SMALLEST = 16
"""Pixels of the shorter side below which an image has no look: it has no detail that could tell it from another. Below
`SIDE` a figure on a plain ground (`PLAIN`) has none either: scanned digits of 28 pixels are too much alike.
"""
COLOURS = 8
"""Pixels a side of its colours."""
LEAST_CONTRAST = 5.0
"""Standard deviation of the grey values, of 255, below which an image is as good as blank, and has no look."""
COEFFICIENTS, INDEXED = 5, 3
"""The lowest of the DCT a side, without the very first, the mean: 24, and 8 of them are in the tree."""
NEAR, CLOSE = 0.2, 0.25
"""Most distance of a candidate in the tree, and in all coefficients. With 2 % of width and height cut off: 0.19."""
WHOLE, DETAIL = 0.965, 0.935
"""Least correlation of registered thumbnails, and of their detail."""
SMALL = 40
SMALL_WHOLE, SMALL_DETAIL = 0.95, 0.87
"""Pixels of the shorter side below which a thumbnail shows the image's own pixels, whose detail encoding changes, and
what it must have in common with another then.
"""
PLAIN, PLAIN_DETAIL = 0.18, 0.955
"""Share of pixels within 2 of one grey value from which an image is no more than a figure on a plain ground, and what
its detail must have in common with another's: of 1,797 scanned digits, 14 pairs agree, not 92.
"""
COLOUR = 12.0
"""Most root mean square difference of the colours, of 255. Cropping 2 %: 5. One that has no colour agrees with all."""
MOST_CANDIDATES = 100
"""Candidates an image: where there are more, all images look alike (scans of one pose), and looks tell nothing."""
SAMPLE = 1000
"""Images of which candidates are counted to tell that."""
CHUNK = 512


class Looks:
    """Holds the looks of ``count`` images, 1,155 bytes each."""

    def __init__(self, count: int) -> None:
        self.grey = np.zeros((count, SIDE, SIDE), np.uint8)
        self.colour = np.zeros((count, COLOURS, COLOURS, 2), np.uint8)
        """The two chroma channels of YCbCr."""
        self.usable = np.zeros(count, bool)
        self.plain = np.zeros(count, bool)
        self.small = np.zeros(count, bool)

    def take(self, position: int, image: Image.Image) -> None:
        """Takes the look of an image, RGB as it was decoded; threads may do so at once."""
        if min(image.size) < SMALLEST:
            return
        small = image.resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0).convert("YCbCr")
        pixels = np.asarray(small, np.uint8)
        self.grey[position] = pixels[..., 0]
        block = SIDE // COLOURS
        self.colour[position] = pixels[..., 1:].reshape(COLOURS, block, COLOURS, block, 2).mean((1, 3)).round()
        ground = np.convolve(np.bincount(pixels[..., 0].ravel(), minlength=256), np.ones(5)).max()
        plain = self.plain[position] = ground >= PLAIN * SIDE**2
        self.small[position] = min(image.size) < SMALL
        self.usable[position] = pixels[..., 0].std() >= LEAST_CONTRAST and not (plain and min(image.size) < SIDE)

    def of(self, positions: Sequence[int]) -> Looks:
        """Returns the looks of some images, in the order given."""
        part = Looks(0)
        chosen = list(positions)
        part.grey, part.colour = self.grey[chosen], self.colour[chosen]
        part.usable, part.plain, part.small = self.usable[chosen], self.plain[chosen], self.small[chosen]
        return part

    def copies(self, among: NDArray[np.int64]) -> Pairs | None:
        """Returns the pairs of ``among``, positions, that are copies of one photograph; the first of each pair stands
        before the second in ``among``. None where all look so much alike that it cannot be told.

        100,000 photographs take a minute.
        """
        from scipy.spatial import cKDTree

        among = among[self.usable[among]]
        if len(among) < 2:
            return np.empty((0, 2), np.int64)
        low = np.concatenate([_low(_normal(self.grey[part])) for part in _chunks(among)])
        tree = cKDTree(low[:, IN_TREE])
        found = []
        for mirrored in (False, True):
            opposite = low * MIRROR if mirrored else low
            other = cKDTree(opposite[:, IN_TREE]) if mirrored else tree
            some = low[:: -(-len(low) // SAMPLE), IN_TREE]
            if other.query_ball_point(some, NEAR, return_length=True).mean() > MOST_CANDIDATES:
                return None
            if mirrored:
                near = tree.sparse_distance_matrix(other, NEAR, output_type="ndarray")
                pairs = np.stack([near["i"], near["j"]], 1).astype(np.int64)
                pairs = pairs[pairs[:, 0] < pairs[:, 1]]
            else:
                pairs = tree.query_pairs(NEAR, output_type="ndarray").astype(np.int64)
            for part in _chunks(pairs):
                close = part[((low[part[:, 0]] - opposite[part[:, 1]]) ** 2).sum(1) <= CLOSE**2]
                found.append(close[self._agree(among[close], mirrored)])
        together = np.concatenate([np.empty((0, 2), np.int64), *found])
        return np.asarray(among[np.unique(together, axis=0)], np.int64)

    def _agree(self, pairs: Pairs, mirrored: bool) -> NDArray[np.bool_]:
        """Tells which pairs, (n, 2), are copies, the second mirrored where that is asked for."""
        flip = slice(None, None, -1 if mirrored else 1)
        a, b = _normal(self.grey[pairs[:, 0]]), _normal(self.grey[pairs[:, 1]][:, :, flip])
        agree = _same_colours(self.colour[pairs[:, 0]], self.colour[pairs[:, 1]][:, :, flip])
        if agree.any():
            small = self.small[pairs[agree]].any(1)
            least = np.where(self.plain[pairs[agree]].all(1), PLAIN_DETAIL, np.where(small, SMALL_DETAIL, DETAIL))
            a, (b, inside) = a[agree], _registered(a[agree], b[agree])
            whole, detail = _correlation(a, b, inside), _correlation(_detail(a), _detail(b), inside)
            agree[agree] = (whole >= np.where(small, SMALL_WHOLE, WHOLE)) & (detail >= least)
        return agree


def _chunks(rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    return (rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK))


def _normal(grey: NDArray[np.uint8]) -> Floats:
    """Returns thumbnails (n, 32, 32) with mean 0 and length 1."""
    plain = grey.astype(np.float32)
    plain -= plain.mean((1, 2), keepdims=True)
    plain /= np.maximum(np.sqrt((plain**2).sum((1, 2), keepdims=True)), 1e-9)
    return plain


def _same_colours(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.bool_]:
    one, other = a.astype(np.float32) - 128, b.astype(np.float32) - 128
    apart = np.sqrt(((one - other) ** 2).mean((1, 2, 3)))
    grey = np.minimum(np.abs(one).max((1, 2, 3)), np.abs(other).max((1, 2, 3))) <= 2
    return np.asarray((apart <= COLOUR) | grey)


# --- the perceptual hash --------------------------------------------------------------------------------------


def _basis() -> Floats:
    """Returns the waves of the lowest coefficients of the orthonormal DCT-II: (32 · 32, 24)."""
    k, n = np.arange(COEFFICIENTS)[:, None], np.arange(SIDE)
    waves = np.sqrt(np.where(k, 2, 1) / SIDE) * np.cos(np.pi * (n + 0.5) * k / SIDE)
    products = np.einsum("uy,vx->yxuv", waves, waves).reshape(SIDE * SIDE, -1)
    return np.asarray(products[:, 1:], np.float32)


BASIS = _basis()
IN_TREE = [n - 1 for n in range(1, COEFFICIENTS**2) if max(divmod(n, COEFFICIENTS)) < INDEXED]
MIRROR = np.array([(-1) ** (n % COEFFICIENTS) for n in range(1, COEFFICIENTS**2)], np.float32)
"""Signs of the coefficients of a mirrored image: those of odd waves from left to right turn round."""


def _low(normal: Floats) -> Floats:
    return np.asarray(normal.reshape(len(normal), -1) @ BASIS)


# --- the second look ------------------------------------------------------------------------------------------

PIXELS = np.arange(SIDE, dtype=np.float32)
ACROSS = (PIXELS - (SIDE - 1) / 2) / (SIDE / 2)
"""Place along a side, from -1 to 1."""
STEPS = 4
MOST_MOVED = 2.5
"""Pixels of a thumbnail by which registration may shift, and stretch at the border."""


def _registered(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """Returns ``b`` (n, 32, 32) shifted and stretched along both axes so that it fits ``a`` best, and the pixels that
    are known of it: Gauss-Newton on the squared difference, a gain and an offset with it (Lucas and Kanade, 1981).
    """
    n = len(a)
    moved = np.zeros((n, 4), np.float32)
    for _ in range(STEPS):
        warped, inside = _warped(b, moved)
        dy, dx = np.gradient(warped, axis=(1, 2))
        columns = (dx, dx * ACROSS, dy, dy * ACROSS[:, None], warped, np.ones_like(warped))
        jacobian = (np.stack(columns, -1) * inside[..., None]).reshape(n, -1, 6)
        wanted = (a * inside).reshape(n, -1, 1)
        normal = jacobian.transpose(0, 2, 1) @ jacobian
        # A little damped: in an image of stripes a shift along them changes nothing.
        normal += 1e-6 * np.trace(normal, axis1=1, axis2=2)[:, None, None] * np.eye(6, dtype=np.float32)
        solved = np.linalg.solve(normal, jacobian.transpose(0, 2, 1) @ wanted)[..., 0]
        gain = np.where(np.abs(solved[:, 4:5]) < 0.2, 1, solved[:, 4:5])
        moved = np.clip(moved + np.clip(solved[:, :4] / gain, -1, 1), -MOST_MOVED, MOST_MOVED)
    return _warped(b, moved)


def _warped(b: Floats, moved: Floats) -> tuple[Floats, Floats]:
    """Returns ``b`` read at moved places, bilinearly, and 1 where these lie in the image, else 0."""
    x = PIXELS + moved[:, 0:1] + moved[:, 1:2] * ACROSS
    y = PIXELS + moved[:, 2:3] + moved[:, 3:4] * ACROSS
    inside_x, inside_y = (np.abs(place - (SIDE - 1) / 2) <= SIDE / 2 for place in (x, y))
    inside = (inside_y[:, :, None] & inside_x[:, None, :]).astype(np.float32)
    warped = _weights(y) @ b @ _weights(x).transpose(0, 2, 1)
    return np.asarray(warped), np.asarray(inside)


def _weights(places: Floats) -> Floats:
    """Returns what each of the pixels adds at each place: (n, 32 places, 32 pixels)."""
    return np.asarray(np.maximum(0, 1 - np.abs(np.clip(places, 0, SIDE - 1)[:, :, None] - PIXELS)), np.float32)


def _detail(images: Floats) -> Floats:
    """Returns images less what is blurred in them: edges, by which two photographs of alike things differ."""
    from scipy.ndimage import gaussian_filter

    return np.asarray(images - gaussian_filter(images, (0, 1.5, 1.5)))


def _correlation(a: Floats, b: Floats, inside: Floats) -> Floats:
    """Returns Pearson's correlation of pixels inside, (n,)."""
    count = inside.sum((1, 2), keepdims=True)
    one = (a - (a * inside).sum((1, 2), keepdims=True) / count) * inside
    other = (b - (b * inside).sum((1, 2), keepdims=True) / count) * inside
    spread = np.sqrt((one**2).sum((1, 2)) * (other**2).sum((1, 2)))
    return np.asarray((one * other).sum((1, 2)) / np.maximum(spread, 1e-9), np.float32)
