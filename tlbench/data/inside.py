"""What lies right in a folder of a data set, by names: folders, images, other files; what systems leave there is no
part of it.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tlbench.data import heif
from tlbench.errors import UserError, nearest

ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""The endings of torchvision's ImageFolder, so that a peer which uses it sees the same images. What has one of them is
read everywhere, others (`endings`) where their decoder is."""
OF_SYSTEMS = frozenset(
    {
        *("__macosx", "__pycache__", "@eadir", "#recycle", "#snapshot", "$recycle.bin", "lost+found"),
        "system volume information",
    }
)
"""Folders that operating systems, archives and file servers put beside a person's, in small letters."""


@dataclass(frozen=True, kw_only=True)
class Inside:
    """Says what lies right in a folder: names, sorted."""

    folders: tuple[str, ...]
    images: tuple[str, ...]
    others: tuple[str, ...]


def look(folder: Path) -> Inside:
    """Lists what lies right in a folder above the class folders. Errors: UserError where it cannot be read, and for a
    link that leads nowhere.
    """
    folders, images, others = [], [], []
    for entry in entries(folder, repr(str(folder))):
        if is_folder(entry):
            folders.append(entry.name)
        elif is_image(entry.name):
            images.append(entry.name)
        elif leads_nowhere(entry):
            # It may have been a class, and a class less is another task.
            raise UserError(f"folder {str(folder)!r}: {entry.name!r} is a link that leads nowhere; repair or remove it")
        else:
            others.append(entry.name)
    return Inside(folders=tuple(folders), images=tuple(images), others=tuple(others))


def entries(folder: Path, shown: str) -> list[os.DirEntry[str]]:
    """Lists what is in a folder, sorted by name, less what is hidden or of a system (`OF_SYSTEMS`).

    Errors: UserError where it cannot be read; ``shown`` is what it is called there.
    """
    try:
        with os.scandir(folder) as found:
            mine = (e for e in found if not e.name.startswith(".") and e.name.casefold() not in OF_SYSTEMS)
            return sorted(mine, key=lambda e: e.name)
    except OSError as error:
        raise UserError(f"folder {shown} cannot be read: {error.strerror}") from None


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Tells whether an entry is a folder, or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link that leads round in a circle
        return False


@cache
def endings() -> tuple[str, ...]:
    """Returns the endings of files that are read here, in small letters: also AVIF where Pillow has its decoder, and
    HEIC where pillow-heif is installed.
    """
    from PIL import features

    return (*ENDINGS, *([".avif"] if features.check("avif") else []), *(heif.ENDINGS if heif.installed() else ()))


def is_image(name: str) -> bool:
    """Tells whether a file is an image, by its name."""
    return name.lower().endswith(endings())


def leads_nowhere(entry: os.DirEntry[str]) -> bool:
    """Tells whether an entry is a link to what is not there."""
    return entry.is_symlink() and not os.path.exists(entry.path)


def was_a_folder(entry: os.DirEntry[str]) -> bool:
    """Tells whether an entry is a link to what is not there, and may have been one to a folder: its name does not end
    as those of files do, which that of ``Dr.Pepper``, ``No.7`` or ``Vitamin.C`` does not.
    """
    return leads_nowhere(entry) and not _OF_FILES.search(entry.name)


_OF_FILES = re.compile(r"\.(?=[0-9]*[A-Za-z])([a-z0-9]{2,8}|[A-Z0-9]{2,8})$")


def holds_images(folder: Path) -> bool:
    """Tells whether images lie right in a folder; not of one that cannot be read."""
    try:
        with os.scandir(folder) as found:
            return any(is_image(entry.name) and not entry.name.startswith(".") for entry in found)
    except OSError:
        return False


def images_below(folder: Path) -> bool:
    """Tells whether images lie in a folder, however deep; links are not followed."""
    found = (name for _, _, names in os.walk(folder) for name in names)
    return any(is_image(name) and not name.startswith(".") for name in found)


def meant_beside(root: Path) -> str:
    """Asks whether a folder beside the one that is not there is meant; empty where none is called much like it."""
    beside: list[str] = []
    with suppress(OSError, ValueError):
        beside = [entry.name for entry in os.scandir(root.parent) if entry.is_dir() and not entry.name.startswith(".")]
    found = nearest(root.name, beside)
    return f"did you mean {str(root.with_name(found))!r}? " if found is not None and root.name else ""
