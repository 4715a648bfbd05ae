"""What was found in the files of a data set, kept in the cache folder so that a later check decodes none of them.

It is kept under the hash of all that decides it: the path, size and times of every file, what was asked of the images,
and the code that decodes and compares them. The pixels are not kept.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
from collections.abc import Hashable
from contextlib import suppress
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from PIL import ImageFile, features

import tlbench
from tlbench.data import heif
from tlbench.data.facts_folder import ENDING, files, folder
from tlbench.data.store import IN_HEX, Images, Known
from tlbench.machine.scratch import remove_orphans, write_aside

MOST = 20
"""Most data sets of which facts are kept, those used last: some 10 MB for 100,000 images."""
NUMBERS = ("labels", "origins", "shape")
"""Fields of `Known` that hold whole numbers."""
CODECS = ("jpg", "libjpeg_turbo", "zlib", "libtiff", "webp", "avif", "jpg_2000")
"""Libraries that Pillow decodes with, which a system may replace under it."""
CODE = (
    *("decode.py", "held.py", "depth.py", "folder.py", "store.py", "looks.py", "copies.py", "facts.py"),
    *("pixel_range.py", "heif.py", "scaled.py", "decoding.py"),
)
"""Files beside this one that decide what is found in an image."""


def read(key: Hashable) -> Known | None:
    """Returns what was found of images; None where nothing is kept of them as they are now. A file that is damaged is
    passed over: all of it can be found again.
    """
    path = _path(key)
    try:
        content = path.read_bytes()
        digest, packed = content[:32], content[32:]
        if hashlib.sha256(packed).digest() != digest:
            return None
        with np.load(io.BytesIO(packed), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        with suppress(OSError):
            os.utime(path)  # it was used
    except (OSError, ValueError):
        return None
    values: dict[str, Any] = json.loads(arrays["rest"].tobytes())
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    values |= {name: tuple(map(bytes, arrays[name])) for name in IN_HEX}
    values |= {name: tuple(arrays[name].tolist()) for name in NUMBERS}
    return Known(**values)


def keep(key: Hashable, images: Images) -> None:
    """Keeps what was found of images. Where the cache cannot be written, a later check finds it again."""
    known = {f.name: getattr(images, f.name) for f in fields(Known)}
    arrays: dict[str, Any] = {name: np.array(known.pop(name), np.int64) for name in NUMBERS}
    for name in IN_HEX:
        several = known.pop(name)
        arrays[name] = np.frombuffer(b"".join(several), np.uint8).reshape(len(several), -1 if several else 0)
    arrays["rest"] = np.frombuffer(json.dumps(known).encode(), np.uint8)
    file = io.BytesIO()
    np.savez(file, **arrays)
    packed = file.getvalue()
    with suppress(OSError):
        folder().mkdir(parents=True, exist_ok=True)
        write_aside(_path(key), hashlib.sha256(packed).digest() + packed)
        _forget_the_oldest()


def _forget_the_oldest() -> None:
    remove_orphans(folder())
    for path in files()[:-MOST]:
        path.unlink(missing_ok=True)


def _path(key: Hashable) -> Path:
    # A plugin may have PIL take files that end too early.
    key = (key, ImageFile.LOAD_TRUNCATED_IMAGES) if ImageFile.LOAD_TRUNCATED_IMAGES else key
    return folder() / f"{hashlib.sha256(repr((code(), key)).encode(errors='surrogatepass')).hexdigest()}{ENDING}"


@cache
def code() -> str:
    """Returns a hash of what decodes images and compares them: the same files may say another thing to other code."""
    there = {*features.codecs, *features.modules, *features.features}
    codecs = [features.version(name) for name in CODECS if name in there]
    versions = [tlbench.__version__, PIL.__version__, np.__version__, platform.machine(), *codecs, heif.installed()]
    digest = hashlib.sha256(" ".join(map(str, versions)).encode())
    for name in CODE:
        with suppress(OSError):  # of a package that is no folder, the version has to do
            digest.update(Path(__file__).with_name(name).read_bytes())
    return digest.hexdigest()
