"""What the folders of a person's images are, by their names and by what lies in them: splits, classes, or neither."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tlbench.data.inside import Inside, holds_images, images_below, look
from tlbench.data.leaves import leaves, plain, short_names
from tlbench.errors import UserError

LAYOUT = "expected PATH/train/CLASS/*.jpg and PATH/val/CLASS/*.jpg, or PATH/CLASS/*.jpg"
PARTS = ("train", "val", "test")
NAMES: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
"""What the folders of splits are called, in capitals or not: what timm, fastai (``valid``), Ultralytics
(``validation``) and Hugging Face (``dev``, ``testing``) look for.
"""
EITHER = ("eval", "evaluation")
"""Names of the validation images for timm, of the test images for Hugging Face: of the split that is not there."""
LIKE = {
    split: re.compile(rf"(?<![^\W\d_])({'|'.join(names)})(val|set|data|images|imgs)?(?![^\W\d_])")
    for split, names in NAMES.items()
}
"""Names that look like those of splits and are none: ``training_set``, ``seg_test``, ``trainval``."""
ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar")
NAMED = 3
"""How many names a line lists."""


@dataclass(frozen=True, kw_only=True)
class Levels:
    """Says what the folders of a data set are."""

    classes: tuple[str, ...]
    """Sorted, in Unicode's composed form: one name whichever system has written it."""
    splits: Mapping[str, str]
    """train, val and test, as far as they are there -> the name of the folder. One split without a name stands for
    images that are to be divided, from the class folders alone (its folder has no name either) or from train/ alone.
    """
    folders: Mapping[tuple[str, str], str]
    """(split, class) -> the class folder, below the data set's own."""
    unlabelled: tuple[str, ...]
    """Of val and test, those whose folder has no class folders."""
    remarks: tuple[str, ...]
    """What is not used of what is there, in lines."""


def read_levels(root: Path, leaf: bool = False) -> Levels:
    """Says what the folders are; nothing of the class folders is read, but for the folders in them where the innermost
    ones are the classes (``leaf``). These are named by themselves, or by their path below the split where a split has
    two of that name; a class of another split is the one of that name.

    Errors: UserError naming what is missing, or can be read in two ways, and the layout that is expected.
    """
    top = look(root)
    named = split_names(top.folders)
    inside = {name: look(root / name) for names in named.values() for name in names}
    rest = [name for name in top.folders if name not in inside]
    if not any(inside[name].folders for name in named.get("train", ())):
        # A class may be called train. Two that are called like splits are splits whose labels lie somewhere else.
        if "train" in named and (len(named) > 1 or not any(images_below(root / name) for name in rest)):
            raise _without_classes(root, named["train"][0], inside[named["train"][0]])
        return _of_classes(root, top, leaf)
    for names in named.values():
        if len(names) > 1:
            raise UserError(
                f"dataset folder {str(root)!r} has {names[0]!r} and {names[1]!r}, two folders for one split; "
                "leave one of them, and move the other away"
            )
    held = {split: named[split][0] for split in PARTS if split in named}
    lone = _only_images(inside[held["test"]], inside[held["train"]]) if "test" in held else ""
    splits = {split: name for split, name in held.items() if inside[name].folders and not (split == "test" and lone)}
    if len(splits) == 1:
        _check_no_class(root, held["train"], rest)
        _check_no_splits(root / held["train"], inside[held["train"]].folders)
    found = {
        split: _classes(root, name, inside[name].folders, leaf, least=2 if split == "train" else 1)
        for split, name in splits.items()
    }
    called = _names(found.values(), leaf)
    classes = {called[one]: written for one, written in found["train"].items()}
    folders = {}
    for split, name in splits.items():
        for one, written in found[split].items():
            if called[one] not in classes:
                raise _not_in_train(root, name, written, found["train"])
            folders[split if len(splits) > 1 else "", called[one]] = os.path.join(name, written)
    return Levels(
        classes=tuple(sorted(classes)),
        splits=splits if len(splits) > 1 else {"": held["train"]},
        folders=folders,
        unlabelled=tuple(split for split in held if split not in splits),
        remarks=(
            *_remarks(top, {name: inside[name] for name in held.values()}, rest),
            *_about_images(held, lone),
            *_about_places(splits, found, called),
        ),
    )


def _only_images(test: Inside, train: Inside) -> str:
    """Names the folder that holds all of a test split's images, and no class: they have no labels (test/images/).
    Empty where there is none.
    """
    classes = {unicodedata.normalize("NFC", name) for name in train.folders}
    alone = test.folders[0] if len(test.folders) == 1 else ""
    return "" if unicodedata.normalize("NFC", alone) in classes else alone


def _about_images(held: Mapping[str, str], lone: str) -> list[str]:
    if not lone:
        return []
    return [f"not used: {held['test']}/, whose only folder, {lone!r}, is no class of {held['train']}/"]


def _about_places(
    splits: Mapping[str, str], found: Mapping[str, Mapping[str, str]], names: Mapping[str, str]
) -> Iterable[str]:
    """Says which classes lie at another place in a split than in train/."""
    place_of = {names[one]: one for one in found["train"]}
    moved = [(splits[split], one) for split, classes in found.items() for one in classes if place_of[names[one]] != one]
    if moved:
        name, one = moved[0]
        yield (
            f"class folders at another place than in {splits['train']}/, taken for the same class by their name: "
            f"{len(moved):,}, such as {f'{name}/{one}'!r} for {place_of[names[one]]!r}"
        )


def split_names(folders: Iterable[str]) -> dict[str, list[str]]:
    """Returns split -> the folders that are called so."""
    named: dict[str, list[str]] = {}
    either = []
    for name in folders:
        if name.casefold() in EITHER:
            either.append(name)
        for split, written in NAMES.items():
            if name.casefold() in written:
                named.setdefault(split, []).append(name)
    if either:
        named.setdefault("val" if "test" in named and "val" not in named else "test", []).extend(either)
    return named


# --- classes --------------------------------------------------------------------------------------------------


def _of_classes(root: Path, top: Inside, leaf: bool) -> Levels:
    """Says what the folders are where they are classes. Errors: UserError."""
    if not top.folders:
        raise UserError(f"dataset folder {str(root)!r} has no class folders{_instead(top)}; {LAYOUT}")
    _check_no_splits(root, top.folders)
    classes = _classes(root, "", top.folders, leaf)
    names = _names([classes], leaf)
    return Levels(
        classes=tuple(sorted(names.values())),
        splits={"": ""},
        folders={("", names[one]): written for one, written in classes.items()},
        unlabelled=(),
        remarks=tuple(_remarks(top, {}, ())),
    )


def _names(splits: Collection[Collection[str]], leaf: bool) -> dict[str, str]:
    """Returns what the folders of the splits' classes are called: as they are, or by the last part of their path."""
    return short_names(splits) if leaf else {one: one for classes in splits for one in classes}


def _classes(root: Path, inner: str, folders: Sequence[str], leaf: bool, least: int = 2) -> dict[str, str]:
    """Returns class -> its folder as it is written, of a split or of the data set itself (``inner``), which has these
    folders, and ``least`` classes. Errors: UserError.
    """
    folder = root / inner
    shown = f"dataset folder {str(folder)!r}"
    names = leaves(root, inner) if leaf else folders
    if not names:
        raise UserError(f"{shown} has no class folders; {LAYOUT}")
    if len(names) < least and leaf:
        raise UserError(f"{shown} has only one innermost folder, {names[0]!r}; a classifier needs at least two classes")
    if len(names) < least:
        deeper = len(look(folder / names[0]).folders) > 1
        meant = f"; did you mean {str(folder / names[0])!r}?" if deeper else f"; {LAYOUT}"
        raise UserError(f"{shown} has only one class folder, {names[0]!r}; a classifier needs at least two{meant}")
    found: dict[str, str] = {}
    for name in names:
        one = plain(name)
        if one in found:
            # In ASCII, since the two look the same on a screen.
            raise UserError(
                f"{shown} has two class folders of one name, which Unicode writes in two ways: {found[one]!a} and "
                f"{name!a}; put their images into one of them"
            )
        found[one] = name
    return dict(sorted(found.items()))


def _instead(top: Inside) -> str:
    """Says what a folder without class folders has."""
    archives = [name for name in top.others if name.lower().endswith(ARCHIVES)]
    if archives:
        return f" (but an archive, {archives[0]!r}: unpack it)"
    return f" (but {count_images(len(top.images))}: each class is a folder)" if top.images else ""


def _check_no_splits(root: Path, names: Sequence[str]) -> None:
    """Raises UserError where folders that would be taken for classes are splits, or hold them: ImageFolder walks into
    the folders of a class, so that all splits would be one class, or each of them one.
    """
    shown = f"dataset folder {str(root)!r}"
    named = split_names(names)
    if len(names) > 1 and sum(map(len, named.values())) == len(names):
        why = f"; did you mean {str(root)!r}?" if "train" in named else f", but no train/ with class folders; {LAYOUT}"
        raise UserError(f"{shown} has {names[0]!r} and {names[1]!r}, which are names of splits{why}")
    if len(names) == 1 or any(holds_images(root / name) for name in names):
        return
    like = {split: name for name in names for split, pattern in LIKE.items() if pattern.search(name.casefold())}
    for split in ("val", "test"):
        if "train" in like and like.get(split, like["train"]) != like["train"]:
            raise UserError(
                f"{shown}: {like['train']!r} and {like[split]!r} look like splits; call them train/ and {split}/, or "
                f"give the folder of one of them; {LAYOUT}"
            )
    inner = [split_names(look(root / name).folders) for name in names]
    if all("train" in found and len(found) > 1 for found in inner):
        raise UserError(
            f"{shown}: {names[0]!r} and the others hold splits of their own; a split holds the classes, not a "
            f"class the splits: {LAYOUT}"
        )


def _check_no_class(root: Path, train: str, rest: Sequence[str]) -> None:
    """Raises UserError where train/ is the only split that has classes, but may as well be a class of this name."""
    for name in rest:
        if images_below(root / name):
            raise UserError(
                f"dataset folder {str(root)!r}: {train!r} holds folders, as a split does, and stands beside {name!r}, "
                "which holds images, as a class does; move one of the two away"
            )


def _without_classes(root: Path, train: str, inside: Inside) -> UserError:
    if not inside.images:
        return UserError(f"dataset folder {str(root / train)!r} has no class folders; {LAYOUT}")
    return UserError(
        f"dataset folder {str(root)!r}: {train!r} holds {count_images(len(inside.images))}, but no class folders; "
        f"where a list tells what they show, write list:PATH with the list's path; otherwise {LAYOUT}"
    )


def _not_in_train(root: Path, split: str, name: str, classes: Mapping[str, str]) -> UserError:
    alike = [one for one in classes.values() if _plain(one) == _plain(name)]
    alike += [one for one in classes.values() if not alike and os.path.basename(one) == os.path.basename(name)]
    hint = f" (which has {alike[0]!a} for {name!a})" if alike else ""
    return UserError(
        f"dataset folder {str(root)!r}: class folder {name!r} is in {split}/, but not in train/{hint}; no model can "
        "learn it: give both the same name, or move it away"
    )


def _plain(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold().strip()


# --- what is said ---------------------------------------------------------------------------------------------


def _remarks(top: Inside, splits: Mapping[str, Inside], rest: Sequence[str]) -> Iterable[str]:
    """Says what of the folders is not used: of the data set's own, of its splits, and the rest beside them."""
    for where, inside in {"the folder itself": top, **{f"{name}/": inside for name, inside in splits.items()}}.items():
        if inside.images and inside.folders:
            yield f"not used: {count_images(len(inside.images))} right in {where}, outside of the class folders"
    for name, inside in splits.items():
        if not inside.folders:
            but = f", but {count_images(len(inside.images))}" if inside.images else ""
            yield f"not used: {name}/, which has no class folders{but}"
    if rest:
        yield f"not looked into, beside the splits: {some_of(rest)}"


def count_images(count: int) -> str:
    """Writes ``1 image``, ``1,200 images``."""
    return f"{count:,} image{'s' * (count != 1)}"


def some_of(names: Sequence[str]) -> str:
    """Writes the first few of some names, as they may safely be shown."""
    return ", ".join([*map(repr, names[:NAMED]), *(["…"] if len(names) > NAMED else [])])
