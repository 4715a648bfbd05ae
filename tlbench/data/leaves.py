"""The innermost folders of a data set, where these are its classes (``folder:PATH?classes=leaf``)."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tlbench.data.inside import entries, is_folder, is_image, was_a_folder
from tlbench.errors import UserError


def leaves(root: Path, inner: str) -> list[str]:
    """Returns the folders below the one at ``inner``, which lies below the root, that have no folder in them; sorted,
    written from ``inner`` on. Links are followed.

    Errors: UserError for what cannot be read, for links that lead nowhere or round in a circle, for a folder that is
    there under two names, and for images beside folders: which of them would be the class?
    """
    real = os.path.realpath(root / inner)
    seen: dict[str, str] = {}
    found: list[str] = []
    left = [("", real, frozenset({os.path.realpath(root), real}))]
    while left:  # no recursion: folders may lie deeper than Python lets functions call each other
        name, real, above = left.pop()
        if real in seen:
            raise UserError(
                f"folder {_below(inner, name)!r} of {str(root)!r} is {_below(inner, seen[real])!r} under another name "
                "(a link), and each innermost folder would be a class; remove one of them"
            )
        seen[real] = name
        folders, images = _inside(root, inner, name)
        if folders and images and name:
            raise UserError(
                f"folder {_below(inner, name)!r} of {str(root)!r} holds images, such as {images[0]!r}, beside folders, "
                f"such as {folders[0]!r}; with classes=leaf a class is a folder without folders: move one of the two"
            )
        if not folders and name:
            found.append(name)
        for folder in reversed(folders):
            deeper = os.path.join(name, folder)
            really = os.path.realpath(root / inner / deeper)
            if really in above:
                raise UserError(
                    f"folder {_below(inner, deeper)!r} of {str(root)!r} is a link that leads back to a folder above "
                    "it; remove it"
                )
            left.append((deeper, really, above | {really}))
    return sorted(found)


def _inside(root: Path, inner: str, name: str) -> tuple[list[str], list[str]]:
    """Returns the names of the folders and of the images right in a folder. Errors: UserError."""
    where = _below(inner, name)
    folders, images = [], []
    for entry in entries(root / inner / name, f"{where!r} of {str(root)!r}"):
        if is_folder(entry):
            folders.append(entry.name)
        elif is_image(entry.name):
            images.append(entry.name)
        elif was_a_folder(entry):
            raise UserError(
                f"folder {where!r} of {str(root)!r}: {entry.name!r} is a link that leads nowhere, and may have been a "
                "class; repair or remove it"
            )
    return folders, images


def _below(inner: str, name: str) -> str:
    return os.path.join(inner, name) or "."


def plain(path: str) -> str:
    """Writes a path as one of a class: with ``/``, in Unicode's composed form."""
    return unicodedata.normalize("NFC", path.replace(os.sep, "/"))


def short_names(splits: Iterable[Iterable[str]]) -> dict[str, str]:
    """Names the class of each path, of those in each split: by its own folder, or by the whole path where a split has
    two folders of that name.

    >>> short_names([["Fruit/Lemon", "Juice/Lemon", "Juice/Plum"], ["Plum"]])
    {'Fruit/Lemon': 'Fruit/Lemon', 'Juice/Lemon': 'Juice/Lemon', 'Juice/Plum': 'Plum', 'Plum': 'Plum'}
    """
    several = [list(paths) for paths in splits]
    last = {path: path.rpartition("/")[2] for paths in several for path in paths}
    counts = [Counter(last[path] for path in paths) for paths in several]
    twice = {name for count in counts for name, number in count.items() if number > 1}
    return {path: path if name in twice else name for path, name in last.items()}
