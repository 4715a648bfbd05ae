"""What is below one class folder, however deep, and wherever links lead."""

from __future__ import annotations

import os
from pathlib import Path

from tlbench.data.inside import endings, entries, images_below, is_folder, is_image, was_a_folder
from tlbench.data.levels import LAYOUT
from tlbench.errors import UserError


class ClassFolder:
    """Holds what a class folder has. All below it is of its class, as for torchvision's ImageFolder, and links are
    followed; a folder that is there under several names is looked into once.
    """

    def __init__(self, root: Path, inner: str) -> None:
        """Reads the folder at ``inner``, below the root. Errors: UserError for what cannot be read, and for links that
        lead nowhere or round in a circle.
        """
        self.root, self.inner = root, inner
        self.images: list[Path] = []
        self.others: list[str] = []
        self.deeper: list[str] = []
        """The folders in it that hold images."""
        self.outside: list[str] = []
        """The images that lie outside of the root, behind links."""
        self.again = 0
        """Times that a folder came up which had been looked into."""
        self._base = os.path.join(os.path.realpath(root), "")
        above = frozenset(os.path.realpath(root / part) for part in ("", *_parents(inner)))
        seen: set[str] = set()
        left = [(inner, os.path.realpath(root / inner), above)]
        while left:  # no recursion: folders may lie deeper than Python lets functions call each other
            name, real, above = left.pop()
            if real in above:
                raise UserError(
                    f"folder {name!r} of {str(root)!r} is a link that leads back to a folder above it; remove it"
                )
            if real in seen:
                self.again += 1
                continue
            seen.add(real)
            left += [(*one, above | {real}) for one in reversed(self._read(name, real))]

    def _read(self, name: str, real: str) -> list[tuple[str, str]]:
        """Takes in what lies right in a folder, which is really at ``real``; returns the folders in it, and where these
        really are.
        """
        before, folders = len(self.images), []
        beyond = not real.startswith(self._base)
        for entry in entries(self.root / name, f"{name!r} of {str(self.root)!r}"):
            inner = f"{name}/{entry.name}"
            # A folder called like an image is one where images are in it; else a person means a file that is none.
            if is_image(entry.name) and not (is_folder(entry) and images_below(Path(entry.path))):
                self.images.append(Path(entry.path))
                if beyond or (entry.is_symlink() and not os.path.realpath(entry.path).startswith(self._base)):
                    self.outside.append(inner)
            elif is_folder(entry):
                really = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(real, entry.name)
                folders.append((inner, really))
            elif was_a_folder(entry):
                raise UserError(
                    f"folder {name!r} of {str(self.root)!r}: {entry.name!r} is a link that leads nowhere, and may have "
                    "been a folder of images; repair or remove it"
                )
            else:
                self.others.append(inner)
        if name != self.inner and len(self.images) > before:
            self.deeper.append(name)
        return folders

    def without_images(self) -> UserError:
        """Returns the error of a class that has none."""
        hint = f" (but other files, such as {self.others[0]!r})" if self.others else ""
        return UserError(
            f"class folder {self.inner!r} of {str(self.root)!r} holds no images{hint}; put some there, which end in "
            f"{', '.join(endings())}, or remove it; {LAYOUT}"
        )


def _parents(inner: str) -> list[str]:
    """Returns the folders between the root and a class folder.

    >>> _parents("train/cats")
    ['train']
    """
    parts = Path(inner).parts
    return [os.path.join(*parts[:count]) for count in range(1, len(parts))]
