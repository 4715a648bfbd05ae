"""Image files of every format, mode and orientation, made for the tests of how they are read."""

import io
import struct
import zlib

import numpy as np
from PIL import Image, features

WIDTH, HEIGHT = 24, 14
ORIENTATION = 0x0112
LONGS = (256, 257, 273, 278, 279)
"""Tags of a TIFF that have 32 bits."""


def picture(mode="RGB", seed=0, size=(WIDTH, HEIGHT)):
    """Colours that run from corner to corner, with some noise, so that no turn and no channel looks like another."""
    y, x = np.mgrid[: size[1], : size[0]]
    pixels = np.stack([x * 200 // size[0], y * 200 // size[1], (x + y) * 200 // sum(size)], -1)
    pixels = (pixels + np.random.default_rng(seed).integers(0, 50, pixels.shape)).astype(np.uint8)
    image = Image.fromarray(pixels)
    if mode in ("RGBA", "LA", "PA"):
        image = image.convert("P" if mode == "PA" else mode.removesuffix("A")).convert(mode)
        image.putalpha(picture("L", seed=seed + 1, size=size))
        return image
    if mode == "LAB":
        return Image.frombytes("LAB", size, pixels.tobytes())
    return image.convert(mode)


def encoded(image, kind, **options):
    """The bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def several(kind, **options):
    """An animation, or several pages."""
    return encoded(picture(), kind, save_all=True, append_images=[picture(seed=7), picture(seed=8)], **options)


def turned(upright, orientation):
    """How a camera stores pixels, (height, width, …), that a tag turns upright: the Exif standard says where the first
    row and the first column belong."""
    across = upright.swapaxes(0, 1)
    return {
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: across,
        6: across[::-1],
        7: across[::-1, ::-1],
        8: across[:, ::-1],
    }.get(orientation, upright)


def tagged(kind, orientation, image, **options):
    """A file with an orientation."""
    if kind == "TIFF":
        return encoded(image, kind, tiffinfo={ORIENTATION: orientation}, **options)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return encoded(image, kind, exif=exif.tobytes(), **options)


def tiff(
    pixels, *, bits=None, photometric=1, planes=1, extra=None, orientation=None, order="<", content=None, packed=False
):
    """A TIFF of any kind of pixels, (height, width) or (height, width, channels), in planes of their own where
    ``planes`` is 2, compressed where ``packed``. ``content`` are the bytes where numpy has no such values."""
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    if content is None:
        stored = np.moveaxis(pixels, -1, 0) if planes == 2 else pixels
        content = np.ascontiguousarray(stored).astype(pixels.dtype.newbyteorder(order)).tobytes()
    strips = channels if planes == 2 else 1
    parts = [content[n * (len(content) // strips) : (n + 1) * (len(content) // strips)] for n in range(strips)]
    parts = [zlib.compress(part) for part in parts] if packed else parts
    tags = {
        256: [pixels.shape[1]],
        257: [pixels.shape[0]],
        258: [bits or pixels.itemsize * 8] * channels,
        259: [8 if packed else 1],
        262: [photometric],
        273: [0] * strips,
        277: [channels],
        278: [pixels.shape[0]],
        279: [len(part) for part in parts],
        284: [planes],
        339: [{"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]] * channels,
    }
    if extra is not None:
        tags[338] = [extra]
    if orientation is not None:
        tags[ORIENTATION] = [orientation]
    sizes = [len(values) * (4 if tag in LONGS else 2) for tag, values in tags.items()]
    place = 8 + 2 + 12 * len(tags) + 4
    start = place + sum(size for size in sizes if size > 4)
    tags[273] = [start + sum(map(len, parts[:n])) for n in range(strips)]
    entries = more = b""
    for tag, values in sorted(tags.items()):
        kind, code = (4, "I") if tag in LONGS else (3, "H")
        value = struct.pack(f"{order}{len(values)}{code}", *values)
        entries += struct.pack(f"{order}HHI", tag, kind, len(values))
        if len(value) > 4:
            entries += struct.pack(f"{order}I", place + len(more))
            more += value
        else:
            entries += value.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(tags))
    return head + entries + struct.pack(f"{order}I", 0) + more + b"".join(parts)


def png(pixels):
    """A PNG of 16-bit values, (height, width) or (height, width, channels); each row but the first is the difference to
    the one above, as most of those that people have."""
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    rows = np.ascontiguousarray(pixels).astype(">u2").view(np.uint8).reshape(len(pixels), -1)
    filtered = np.concatenate([rows[:1], np.diff(rows, axis=0)])
    filters = np.full((len(rows), 1), 2, np.uint8)
    filters[0] = 0
    content = zlib.compress(np.concatenate([filters, filtered], 1).tobytes())
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    head = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, kind, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", content), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def pgm(values, most):
    """A PGM whose header says what white is."""
    return f"P5 {values.shape[1]} {values.shape[0]} {most}\n".encode() + values.astype(">u2").tobytes()


def ppm(values, most):
    """A PPM of 16-bit colours whose header says what white is."""
    return f"P6 {values.shape[1]} {values.shape[0]} {most}\n".encode() + values.astype(">u2").tobytes()


def twelve(values):
    """A TIFF of 12 bits a value: two of them in three bytes."""
    pairs = values.reshape(-1, 2).astype(np.uint16)
    a, b = pairs[:, 0], pairs[:, 1]
    content = np.stack([a >> 4, (a & 15) << 4 | b >> 8, b & 255], 1).astype(np.uint8).tobytes()
    return tiff(values.astype(np.uint16), bits=12, content=content)


def of(mode, kind, **options):
    """What makes a file of one mode."""
    return lambda: encoded(picture(mode), kind, **options)


def pil_reads(make):
    """Tells whether this Pillow reads a file: those before 13 neither YCbCr in a TIFF, which they write, nor grey that
    was multiplied by its transparency."""
    try:
        with Image.open(io.BytesIO(make())) as image:
            image.load()
    except OSError:
        return False
    return True


def palette(transparency, kind="PNG"):
    """What makes a file with a palette of 16 colours, some of them transparent."""
    return lambda: encoded(picture().quantize(16), kind, transparency=transparency)


PLAIN = {
    "JPEG RGB": of("RGB", "JPEG", quality=95),
    "JPEG full colour": of("RGB", "JPEG", subsampling=0),
    "JPEG grey": of("L", "JPEG"),
    "JPEG CMYK": of("CMYK", "JPEG"),
    "JPEG progressive": of("RGB", "JPEG", progressive=True),
    "JPEG progressive grey": of("L", "JPEG", progressive=True, optimize=True),
    "JPEG several": lambda: several("MPO"),
    "PNG 1-bit": of("1", "PNG"),
    "PNG grey": of("L", "PNG"),
    "PNG grey alpha": of("LA", "PNG"),
    "PNG palette": of("P", "PNG"),
    "PNG palette of 4 bits": lambda: encoded(picture().quantize(16), "PNG", bits=4),
    "PNG palette transparent colour": palette(3),
    "PNG palette transparencies": palette(bytes(range(0, 160, 10))),
    "PNG RGB": of("RGB", "PNG"),
    "PNG RGB transparent colour": of("RGB", "PNG", transparency=(10, 20, 30)),
    "PNG grey transparent value": of("L", "PNG", transparency=40),
    "PNG RGBA": of("RGBA", "PNG"),
    "PNG animated": lambda: several("PNG"),
    "TIFF 1-bit": of("1", "TIFF"),
    "TIFF fax": of("1", "TIFF", compression="group4"),
    "TIFF grey": of("L", "TIFF"),
    "TIFF grey, white is zero": lambda: tiff(np.asarray(picture("L")), photometric=0),
    "TIFF grey alpha": of("LA", "TIFF"),
    "TIFF palette": of("P", "TIFF"),
    "TIFF palette alpha": of("PA", "TIFF"),
    "TIFF RGB": of("RGB", "TIFF"),
    "TIFF RGB, most significant byte first": lambda: tiff(np.asarray(picture()), photometric=2, order=">"),
    "TIFF planes": lambda: tiff(np.asarray(picture()), photometric=2, planes=2),
    "TIFF RGBA": of("RGBA", "TIFF"),
    "TIFF RGB premultiplied": lambda: tiff(np.asarray(picture("RGBA")), photometric=2, extra=1),
    "TIFF RGBX": lambda: encoded(picture().convert("RGBX"), "TIFF"),
    "TIFF CMYK": of("CMYK", "TIFF"),
    "TIFF Lab": of("LAB", "TIFF"),
    "TIFF LZW": of("RGB", "TIFF", compression="tiff_lzw"),
    "TIFF deflate": of("L", "TIFF", compression="tiff_adobe_deflate"),
    "TIFF JPEG": of("RGB", "TIFF", compression="jpeg"),
    "TIFF pages": lambda: several("TIFF"),
    "WebP": of("RGB", "WEBP"),
    "WebP lossless": of("RGB", "WEBP", lossless=True),
    "WebP alpha": of("RGBA", "WEBP"),
    "WebP animated": lambda: several("WEBP", lossless=True),
    "BMP RGB": of("RGB", "BMP"),
    "BMP grey": of("L", "BMP"),
    "BMP palette": of("P", "BMP"),
    "BMP 1-bit": of("1", "BMP"),
    "PPM": of("RGB", "PPM"),
    "PGM": of("L", "PPM"),
    "PBM": of("1", "PPM"),
    "GIF": of("P", "GIF"),
    "GIF transparent": palette(3, "GIF"),
    "GIF animated": lambda: several("GIF"),
    **({"TIFF YCbCr": of("YCbCr", "TIFF")} if pil_reads(of("YCbCr", "TIFF")) else {}),
    **({"AVIF": of("RGB", "AVIF")} if features.check("avif") else {}),
    **({"JPEG 2000": of("RGB", "JPEG2000")} if features.check("jpg_2000") else {}),
}
"""A file each: name -> what makes its bytes."""

TURNED = {
    "JPEG": ("JPEG", "RGB", {"quality": 95}),
    "PNG": ("PNG", "RGB", {}),
    "WebP": ("WEBP", "RGB", {"lossless": True}),
    "TIFF": ("TIFF", "RGB", {}),
    "TIFF grey": ("TIFF", "L", {}),
    "TIFF CMYK": ("TIFF", "CMYK", {}),
    "TIFF LZW": ("TIFF", "RGB", {"compression": "tiff_lzw"}),
    "TIFF pages": ("TIFF", "RGB", {"save_all": True, "append_images": [picture(seed=7)]}),
}
"""Kinds of files that may have an orientation: name -> format, mode, and options."""


def on_its_side(kind, mode, options, orientation):
    """What makes a file with an orientation."""
    return lambda: tagged(kind, orientation, picture(mode), **options)


FILES = PLAIN | {
    f"{name}, orientation {n}": on_its_side(*made, n) for name, made in TURNED.items() for n in range(1, 9)
}
"""All that is held against PIL's own way of reading: plain files and turned ones."""
