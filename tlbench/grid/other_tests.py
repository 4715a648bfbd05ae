"""How other tests than the test images are written: another data set, corruptions. Nothing here imports torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from tlbench.data.corruptions import CORRUPTIONS
from tlbench.data.named import canonical
from tlbench.errors import UserError, lookup
from tlbench.grid.values import join_values, quoted, split_values

NAME = re.compile(r"[A-Za-z0-9](?:[\w+-]*[A-Za-z0-9])?", re.ASCII)
TAKEN = ("train", "val", "test", "results", "corrupted", "all", *CORRUPTIONS)
"""Names that mean something else where results are kept or shown."""
ALL = "all"
EXPECTED = "NAME=DATASET, such as phone=folder:photos/phone"


def parse_also_test(value: object) -> tuple[str, ...]:
    """Reads data sets to test on as well, as ``NAME=DATASET`` each: one, several, or a mapping of names.

    Errors: ValueError saying what is expected; UserError for a name that stands twice or means something else.
    """
    if isinstance(value, Mapping):
        value = [f"{name}={dataset}" for name, dataset in value.items()]
    given = [value] if isinstance(value, str) else value
    if not isinstance(given, Iterable):
        raise ValueError(EXPECTED)
    found: dict[str, str] = {}
    for text in given:
        name, equals, dataset = text.partition("=") if isinstance(text, str) else ("", "", "")
        name, dataset = name.strip(), dataset.strip()
        if not (equals and dataset and NAME.fullmatch(name)):
            raise ValueError(EXPECTED)
        if name in TAKEN:
            raise UserError(f"--also-test: {name!r} means something else; choose another name for {dataset}")
        if name in found:
            raise UserError(f"--also-test has the name {name!r} twice, for {found[name]} and {dataset}")
        found[name] = canonical(dataset)
    return tuple(f"{name}={dataset}" for name, dataset in found.items())


def named(text: str) -> tuple[str, str]:
    """Returns the name and the data set of one of `parse_also_test`'s texts."""
    name, _, dataset = text.partition("=")
    return name, dataset


def parse_corrupt(value: object) -> tuple[str, ...]:
    """Reads kinds of corruptions, in the order of their table; ``all`` stands for all of them.

    Errors: ValueError saying what is expected; UserError for a name that is not in the table.
    """
    words = split_values(value) if isinstance(value, str) else value
    if not isinstance(words, Iterable) or isinstance(words, Mapping):
        raise ValueError(f"all, or some of {', '.join(CORRUPTIONS)}")
    words = list(words)
    for word in words:
        if not isinstance(word, str):
            raise ValueError(f"all, or some of {', '.join(CORRUPTIONS)}")
        lookup({ALL: None, **dict.fromkeys(CORRUPTIONS)}, "corruption", word)
    if len(set(words)) < len(words):
        raise UserError(f"--corrupt has a name twice in {quoted(','.join(words))}; give each once")
    return tuple(name for name in CORRUPTIONS if name in words or ALL in words)


def written(values: Iterable[str]) -> str:
    """Writes corruptions as `parse_corrupt` reads them."""
    values = list(values)
    return ALL if set(values) == set(CORRUPTIONS) else join_values(values)
