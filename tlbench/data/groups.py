"""Groups that a person names, a patient, a shop, a visit: images of one of them stay in one split, as copies do.

They are named by a regular expression on the path of a file, ``?group=(shop\\d+)_``, or by a column of a list.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from tlbench.data.levels import PARTS, count_images, some_of
from tlbench.data.splits import OWN
from tlbench.errors import UserError, printable

NAMED = 3
"""How many files an error names."""


def by_pattern(pattern: str, names: Sequence[str], where: str) -> tuple[str, ...]:
    """Returns each file's group: what the first group in parentheses of a regular expression holds where it is found in
    the file's name, which is its path below the data set's folder, with ``/``.

    Errors: UserError for what is no regular expression or has no parentheses, and naming files without a group.
    """
    try:
        compiled = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise UserError(
            f"group {pattern!r} is no regular expression: {error}; write one whose parentheses hold what images of one "
            "group have in common, such as ?group=(patient\\d+)"
        ) from None
    if not compiled.groups:
        raise UserError(
            f"group {pattern!r} has no parentheses, which hold what images of one group have in common; write "
            f"?group=({pattern})"
        )
    groups = []
    without = []
    for name in names:
        found = compiled.search(name)
        group = (found[1] or "") if found else ""
        if not group:
            without.append(name)
        groups.append(group)
    if without:
        raise UserError(
            f"group {pattern!r} finds none in {count_images(len(without))} of {len(names):,} in {where}: "
            f"{some_of(without)}; each image needs a group, of its own where it has no other"
        )
    return tuple(groups)


def joined(copies: Sequence[bytes], own: Sequence[str]) -> tuple[bytes, ...]:
    """Returns for each image the name of what it stays in one split with: its own group, and whatever has copies of
    that group's images. Named by the lowest own group, so that neither paths nor the order of images matter. The names
    are of 32 bytes and begin with `tlbench.data.splits.OWN`.
    """
    first: dict[bytes | str, bytes | str] = {}

    def of(node: bytes | str) -> bytes | str:
        first.setdefault(node, node)
        while first[node] != node:
            first[node] = node = first[first[node]]
        return node

    for copy, group in zip(copies, own, strict=True):
        first[of(copy)] = of(group)
    lowest: dict[bytes | str, str] = {}
    for group in set(own):
        root = of(group)
        lowest[root] = min(lowest.get(root, group), group)
    named = {root: OWN + _hashed(group)[: 32 - len(OWN)] for root, group in lowest.items()}
    return tuple(named[of(group)] for group in own)


def _hashed(name: str) -> bytes:
    return hashlib.sha256(name.encode(errors="surrogatepass")).digest()


# --- what is said ---------------------------------------------------------------------------------------------


IN_ONE = "; images of one group stay in one split"


def in_words(groups: Sequence[str], source: str, splits: Collection[str]) -> str:
    """Says how groups decide splits; empty without any, and where a person has made all ``splits``. ``source``: where
    they are from.
    """
    if not groups or len(splits) == len(PARTS):
        return ""
    count = len(set(groups))
    plural = "s" * (count != 1)
    return f"{IN_ONE} ({count:,} group{plural}, by {printable(source)})"


def across(groups: Sequence[str], parts: Sequence[str], names: Mapping[str, str]) -> Iterable[str]:
    """Says, in lines, which groups have images in several of the splits that a person has made; ``names`` are those of
    the splits.
    """
    found: dict[str, set[str]] = {}
    for group, part in zip(groups, parts if groups else (), strict=True):
        found.setdefault(group, set()).add(part)
    several = sorted(group for group, its_parts in found.items() if len(its_parts) > 1)
    if several:
        there = [names.get(part, part) for part in PARTS if part in found[several[0]]]
        yield (
            f"{len(several):,} of {len(found):,} groups {'have' if len(several) != 1 else 'has'} images in more than "
            f"one split, such as {several[0]!r} in {' and '.join(there)}: what is tested on is not apart from what is "
            "trained on"
        )
