"""Data sets as they are named: ``torchvision:DTD(partition=2)``, ``hf:owner/name(label=breed)``, timm's spellings.

Nothing here imports torch or reads an image.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from tlbench.data.data_root import check_root, root_of_data
from tlbench.data.torchvision_table import OTHERS, TABLE, Arguments, Named, Option, Pieces, Value
from tlbench.data.unpacking import half_there, mark_of
from tlbench.errors import UserError, nearest, unknown

KIND = "torchvision"
AS_GIVEN = "train, val and test as its authors split it"
VAL_IS_CUT = "test as its authors split it; validation images are cut from train, by seed"
VAL_IS_TEST = "val is what is tested on, since no test split has labels; validation images are cut from train, by seed"
ALL_IS_CUT = "not split by its authors: about 70/15/15 within each class, by seed"


@dataclass(frozen=True, kw_only=True)
class Offer:
    """Says of a data set what a list of all shows."""

    name: str
    classes: int | None
    """None where that depends on what it is called with."""
    splits: str
    here: bool
    """It lies on this disk."""
    summary: str


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """Holds a data set of torchvision with its arguments."""

    name: str
    row: Named
    arguments: Mapping[str, Value]

    @property
    def text(self) -> str:
        """Writes it with the arguments that are not at their defaults."""
        given = [f"{k}={v}" for k, v in self.arguments.items() if v != self.row.options[k].default]
        return f"{KIND}:{self.name}" + (f"({','.join(given)})" if given else "")

    @property
    def pieces(self) -> Pieces:
        """Returns part -> keywords of torchvision's class, for each time that it is called."""
        shared = {name: value for name, value in self.arguments.items() if not self.row.options[name].own}
        pieces = self.row.pieces(self.arguments)
        return {part: tuple({**shared, **one} for one in several) for part, several in pieces.items()}

    @property
    def classes(self) -> int:
        """Returns how many classes it has as its authors have published it."""
        return self.row.classes if isinstance(self.row.classes, int) else self.row.classes(self.arguments)

    @property
    def splits(self) -> str:
        """Says how it is split."""
        parts = set(self.pieces)
        rule = ALL_IS_CUT if parts == {""} else AS_GIVEN if len(parts) == 3 else VAL_IS_CUT
        rule = VAL_IS_TEST if parts == {"train", "val"} else rule
        return f"{rule}; {self.row.note}" if self.row.note else rule


# --- how it is written ----------------------------------------------------------------------------------------

ELSEWHERE = "--data-root names another folder"
_CALL = re.compile(r"(?P<name>.*?)\s*(?:\((?P<arguments>.*)\))?\s*", re.DOTALL)


def parse_call(text: str, whole: str) -> tuple[str, dict[str, str]]:
    """Splits ``NAME(argument=value,…)`` into the name and its arguments. ``whole`` is what errors call it.

    Errors: UserError for what is not written so.
    """
    found = _CALL.fullmatch(text)
    assert found is not None, "it matches any text"
    name, inner = found["name"], found["arguments"]
    if "(" in name or ")" in name:
        raise UserError(f"data set {whole!r}: its parentheses do not fit; write NAME(argument=value,argument=value)")
    given: dict[str, str] = {}
    for part in (inner or "").split(","):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not part.strip() and not (inner or "").strip():
            continue
        if not equals or not key or not value:
            raise UserError(f"data set {whole!r}: {part.strip()!r} is no argument; write argument=value")
        if key in given:
            raise UserError(f"data set {whole!r}: {key} is given twice")
        given[key] = value
    return name, given


def parse(path: str) -> Chosen:
    """Reads what follows ``torchvision:``. Errors: UserError with the nearest match and the choices."""
    whole = f"{KIND}:{path}"
    name, given = parse_call(path, whole)
    if not name:
        raise UserError(f"dataset {whole!r} names no data set; write {KIND}:NAME, such as {KIND}:CIFAR10")
    if name not in TABLE:
        other = nearest(name, OTHERS)
        if other is not None and _plain(other) == _plain(name):
            raise UserError(f"dataset {whole!r} cannot be trained on as it is: {OTHERS[other]}")
        raise unknown("data set of torchvision", name, TABLE, shown=len(TABLE))
    row = TABLE[name]
    for key in given:
        if key not in row.options:
            raise _no_such_argument(whole, name, key)
    values = {key: _value(whole, key, option, given.get(key)) for key, option in row.options.items()}
    return Chosen(name=name, row=row, arguments=values)


def _no_such_argument(whole: str, name: str, key: str) -> UserError:
    options = TABLE[name].options
    if not options:
        return UserError(f"data set {whole!r}: {name} has no argument {key!r}; it takes none")
    guess = nearest(key, options)
    hint = f"; did you mean {guess!r}?" if guess else "."
    takes = "; ".join(f"{one} ({option.words})" for one, option in options.items())
    return UserError(f"data set {whole!r}: {name} has no argument {key!r}{hint} It takes {takes}")


def _value(whole: str, key: str, option: Option, text: str | None) -> Value:
    if text is None and option.default is None:
        example = f"{whole.partition('(')[0]}({key}={option.choices[0]})"
        raise UserError(f"data set {whole!r} needs {key}, one of {option.words}: {example}")
    if text is None:
        assert option.default is not None
        return option.default
    plain = text.strip("'\"").casefold()
    for choice in option.choices:
        if str(choice).casefold() == plain:
            return choice
    raise UserError(f"data set {whole!r}: {key} is {text!r}, and must be one of: {option.words}")


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name).casefold()


ALIASES = {"inat": "INaturalist"}
"""What timm calls a data set of torchvision, where that is not its name in other letters."""


def canonical(text: str) -> str:
    """Returns a data set as it is written here: timm's ``torch/cifar10`` is ``torchvision:CIFAR10``, its
    ``hfds/owner/name`` is ``hf:owner/name``. Anything else stays as it is, and so does a folder of that name.
    """
    kind, slash, name = text.partition("/")
    if not slash or os.path.isdir(os.path.expanduser(text)):
        return text
    if kind.casefold() == "hfds":
        return f"hf:{name}"
    if kind.casefold() in ("torch", KIND):
        plain = _plain(name.partition("(")[0])
        proper = next((one for one in TABLE if _plain(one) == plain), ALIASES.get(plain))
        return f"{KIND}:{proper or name.partition('(')[0]}{''.join(name.partition('(')[1:])}"
    return text


def meant(text: str) -> str | None:
    """Returns how a data set may have been meant that is in no table: ``cifar-10`` is ``torchvision:CIFAR10``."""
    if canonical(text) != text:
        return canonical(text)
    plain = _plain(text.partition("(")[0].rpartition(":")[2])
    proper = next((one for one in TABLE if _plain(one) == plain), None)
    return f"{KIND}:{proper}" if proper else None


# --- whether it is here ---------------------------------------------------------------------------------------


def lacking(chosen: Chosen, root: Path) -> list[str]:
    """Returns what of a data set is not below the root, or not whole: its unpacking has not ended."""
    every = [path.split("|") for path in chosen.row.files(chosen.arguments)]
    absent = [either[0] for either in every if not any(os.path.exists(root / path) for path in either)]
    return absent or [either[0] for either in every if half_there(root, chosen.name, either)]


def variants(row: Named) -> Iterator[Arguments]:
    """Yields all arguments that a data set may be called with, those that lie in the same files once."""
    seen = set()
    for values in product(*(option.choices for option in row.options.values())):
        arguments = dict(zip(row.options, values, strict=True))
        if (files := tuple(row.files(arguments))) not in seen:
            seen.add(files)
            yield arguments


def unpacked_with(chosen: Chosen) -> tuple[list[str], list[str]]:
    """Returns the files that come out of a data set's archives, those of other arguments too; and what is downloaded:
    the archives, or where there are none the files themselves.
    """
    row = chosen.row
    archives = row.archives(chosen.arguments)
    every = [one for one in variants(row) if archives and {*row.archives(one)} <= {*archives}]
    files = dict.fromkeys(file for one in [chosen.arguments, *every] for file in row.files(one))
    return list(files), list(archives) or list(files)


def check_present(chosen: Chosen) -> Path:
    """Returns the root that a data set lies below. Errors: UserError naming the first file that is missing, and how to
    come by it.
    """
    check_root()
    root = root_of_data()
    if half_there(root, chosen.name, chosen.row.files(chosen.arguments)):
        raise UserError(
            f"{chosen.text} in {str(root)!r} is not whole: its unpacking was interrupted, or goes on in another "
            f"process; --download waits for that, and else fetches it again; where you have put it there whole, remove "
            f"{mark_of(chosen.name)!r} there"
        )
    if missing := lacking(chosen, root):
        raise UserError(f"{chosen.text} is not in {str(root)!r}: {missing[0]!r} is missing; {ways(chosen, root)}")
    return root


def ways(chosen: Chosen, root: Path) -> str:
    """Says how to come by a data set that is not there."""
    row = chosen.row
    if row.megabytes is None:
        return f"torchvision does not download it: get it from {row.page}, and put it there; {ELSEWHERE}"
    archives = row.archives(chosen.arguments)
    if archives and all((root / archive).exists() for archive in archives):
        return f"its archives are there: --download unpacks them; {ELSEWHERE}"
    by_hand = " and ".join(map(repr, archives or lacking(chosen, root)))
    then = ", which --download unpacks" if archives else ""
    return (
        f"--download fetches it ({in_words(row.megabytes(chosen.arguments))}); without a network get it from "
        f"{row.page} and put it there as {by_hand}{then}; {ELSEWHERE}"
    )


def in_words(megabytes: float) -> str:
    """Writes the size of a download, which is known about."""
    return f"about {megabytes / 1000:,.3g} GB" if megabytes >= 1000 else f"about {megabytes:,.3g} MB"


def offers() -> Iterable[Offer]:
    """Yields what a list of all data sets shows of torchvision's: one is here that is with any arguments. Errors: none:
    an argument that has to be given stands open.
    """
    root = root_of_data()
    for name, row in TABLE.items():
        needed = [key for key, option in row.options.items() if option.default is None]
        first = {key: o.choices[0] if o.default is None else o.default for key, o in row.options.items()}
        chosen = Chosen(name=name, row=row, arguments=first)
        shown = ",".join(f"{key}=…" for key in needed)
        yield Offer(
            name=f"{KIND}:{name}" + (f"({shown})" if shown else ""),
            classes=None if needed else chosen.classes,
            splits=chosen.splits,
            here=any(not lacking(Chosen(name=name, row=row, arguments=one), root) for one in variants(row)),
            summary=row.summary,
        )


def places(path: str) -> Sequence[str]:
    """Returns the files and folders that a data set lies in, on this disk. Errors: as `parse`."""
    chosen, root = parse(path), root_of_data()
    every = [one for either in chosen.row.files(chosen.arguments) for one in either.split("|")]
    return [str(root / one) for one in every if (root / one).exists()]


def count_classes(path: str) -> int:
    """Returns how many classes a data set has. Errors: UserError for one that is not written as it must be, or is not
    here.
    """
    chosen = parse(path)
    check_present(chosen)
    return chosen.classes


def split_of(path: str) -> str:
    """Says how a data set is split. Errors: as `parse`."""
    return parse(path).splits
