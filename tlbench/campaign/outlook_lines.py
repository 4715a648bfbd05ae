"""Folds what a run says before anything trains into at most eight lines of a data set, of 160 characters each; what has
no room there is in full in a file of the run's folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tlbench.campaign.campaign import Campaign
from tlbench.campaign.outlook import Line, outlook
from tlbench.campaign.steps import Step
from tlbench.machine.credentials import without_credentials
from tlbench.machine.scratch import write_aside

WIDTH, LABEL = 160, 9
"""Characters of a line at most, and of the column before it that says what it is about."""
ROOM = WIDTH - LABEL
FEW = 2
"""So many data sets have four lines each; of more, each has two."""
MOST_NAMES = 4
"""Most backbones that a line on weights names."""
IN_FULL = "preflight.txt"
"""The file, in the run's folder."""
COMMON = ("note", "cells", "each", "weights", "results", "time")
"""What a line on the whole run is about; the others are on the data set that the last `images` line names."""


def preflight(campaign: Campaign, chosen: Sequence[Step] | None = None) -> list[Line]:
    """Says what a run is about to measure (`outlook`), in lines that fit on a screen: four on a data set, four on the
    run; of more than two data sets two on each. Everything is in full in the run's folder, which is made; where that
    cannot be written, it is said in full.
    """
    folder = campaign.store.folder
    lines = outlook(campaign, chosen, folder)
    if campaign.seconds_left is not None:  # a race takes its budget, and not what all of its cells would
        lines = [line for line in lines if line[0] != "time"]
    if all(label == "note" for label, _ in lines):  # nothing is left to measure
        return lines
    text = without_credentials(in_full(lines))
    try:
        write_aside(folder / IN_FULL, text.encode("utf-8", "surrogateescape"))
    except OSError:
        return lines
    return folded(lines)


def in_full(lines: Sequence[Line]) -> str:
    """Returns the lines as a file has them, each whole."""
    return "".join(f"{label:{LABEL}}{text}\n" for label, text in lines)


def folded(lines: Sequence[Line]) -> list[Line]:
    """Returns an outlook in at most eight lines where it is of one data set. What is warned of comes first in its line;
    the last but one says what is not shown whole, and where that is.
    """
    blocks, common = _apart(lines)
    page = _Page()
    for block in blocks:
        alarming, plain = block.copies()
        if len(blocks) <= FEW:
            page.add("images", block.of("images"))
            page.add("splits", block.of("splits"))
            page.add("copies", [*alarming, *plain])
            page.add("files", block.files())
        else:
            page.add("images", block.of("images"))
            page.add("about it", [*alarming, *block.files(), *plain, *block.of("splits")])
    page.add("cells", [*common.of("cells"), *common.of("each")])
    weights = common.of("weights")
    page.add("weights", [_few_names(text) for text in weights], whole=all(_few_names(text) == text for text in weights))
    time = common.of("time")
    end = ("time", "; ".join([*time, *_places(common.of("results"), ROOM - sum(len(text) + 2 for text in time))]))
    return [*page.lines, *page.remainder(common.of("note")), end]


@dataclass
class _Block:
    """Holds what is said of one data set, or of the whole run: what a line is about -> its texts."""

    texts: dict[str, list[str]] = field(default_factory=dict)

    def of(self, label: str) -> list[str]:
        return self.texts.get(label, [])

    def copies(self) -> tuple[list[str], list[str]]:
        """Returns what is wrong with copies, and then how many there are and what else is said of the data set."""
        count, *others = self.of("copies") or [""]
        alarming = [text for text in others if not text.startswith("--")]
        return alarming, [text for text in [count, *others] if text and text not in alarming]

    def files(self) -> list[str]:
        """Returns what is not read as it stands there; then how the rest is."""
        known = {"images", "splits", "copies", "depth", "decode"}
        remarks = [text for label, texts in self.texts.items() if label not in known for text in texts]
        return [*remarks, *self.of("depth"), *(f"--decode {text}" for text in self.of("decode"))]


def _apart(lines: Iterable[Line]) -> tuple[list[_Block], _Block]:
    """Returns what is said of each data set, and of the whole run."""
    blocks: list[_Block] = []
    common = _Block()
    for label, text in lines:
        if label == "images":
            blocks.append(_Block())
        block = common if label in COMMON or not blocks else blocks[-1]
        block.texts.setdefault(label, []).append(text)
    return blocks, common


@dataclass
class _Page:
    """Collects lines that fit, and what of them is not there whole."""

    lines: list[Line] = field(default_factory=list)
    cut: dict[str, None] = field(default_factory=dict)

    def add(self, label: str, texts: Sequence[str], whole: bool = True) -> None:
        """Adds a line; no texts are none. ``whole``: the texts are as they were."""
        if texts:
            text, all_of_it = fold(texts, ROOM, after=": " if label == "weights" else "")
            self.lines.append((label, text))
            if not (all_of_it and whole):
                self.cut[_CALLED.get(label, label)] = None

    def remainder(self, notes: Sequence[str]) -> list[Line]:
        """Returns the line of the notes, with what was cut, and where that is; none where there is neither."""
        text, whole = fold(notes, ROOM if not self.cut else ROOM - len(_pointer(self.cut)) - 2)
        if not whole:  # the pointer takes room from the notes
            self.cut["notes"] = None
            text, _ = fold(notes, ROOM - len(_pointer(self.cut)) - 2)
        said = [text] * bool(text)
        if self.cut:
            said.append(_pointer(self.cut))
        return [("note", "; ".join(said))] if said else []


_CALLED: Mapping[str, str] = {"about it": "data sets"}


def _pointer(cut: Iterable[str]) -> str:
    *others, last = cut
    what = f"{', '.join(others)} and {last}" if others else last
    return f"more on {what}: {IN_FULL} in the run's folder"


def fold(texts: Sequence[str], room: int, after: str = "") -> tuple[str, bool]:
    """Joins texts into one of at most ``room`` characters: as many as fit with their first clause alone, and of these
    the first ones with more, or whole; of the first one words at least. Clauses end at a semicolon; where ``after`` is
    given, behind that also at a comma. Returns it, and whether it is all.

    >>> fold(["7 are copies; they count", "none is small"], 32)
    ('7 are copies …; none is small', False)
    """
    joined = "; ".join(texts)
    if len(joined) <= room:
        return joined, True
    forms = [_forms(text, after) for text in texts]
    kept: dict[int, str] = {}
    for number, each in enumerate(forms):
        if _length([*kept.values(), each[-1]]) <= room:
            kept[number] = each[-1]
    if not kept:
        return _words(texts[0], room), False
    for number in kept:
        others = [text for other, text in kept.items() if other != number]
        kept[number] = next(form for form in forms[number] if _length([*others, form]) <= room)
    return "; ".join(kept.values()), False


def _length(texts: Sequence[str]) -> int:
    return len("; ".join(texts))


def _forms(text: str, after: str) -> list[str]:
    """Returns a text whole, and then with fewer and fewer of its clauses."""
    start = text.find(after) + len(after) if after else 0
    ends = [found.start() for found in re.finditer("; |, " if after else "; ", text) if found.start() >= start]
    return [text, *(f"{text[:end]} …" for end in reversed(ends))]


def _words(text: str, room: int) -> str:
    """Returns the first words of a text."""
    words = text[: room - 2].rpartition(" ")[0] or text[: room - 2]
    return f"{words.rstrip(' ,:;(')} …"


def _few_names(text: str) -> str:
    """Returns a line on weights with at most some names of backbones."""
    names, colon, words = text.partition(": ")
    several = names.split(", ")
    if len(several) <= MOST_NAMES or not colon:
        return text
    return f"{several[0]}, {several[1]} and {len(several) - 2:,} more: {words}"


def _places(folders: Sequence[str], room: int) -> list[str]:
    """Says where results go; of a path that has no room its end, as the run's last line says all of it."""
    return [f"results in {_end_of(folder, room - len('results in '))}" for folder in folders]


def _end_of(folder: str, room: int) -> str:
    if len(folder) <= room:
        return folder
    name = f"…/{Path(folder).name}"
    return name if len(name) <= room else f"…{name[-max(room - 1, 1) :]}"
