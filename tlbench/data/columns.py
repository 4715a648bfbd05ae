"""Which column of a list is what: found by its name, or named by ``?path=…&label=…``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tlbench.data.levels import some_of
from tlbench.data.tables import Table
from tlbench.errors import UserError, nearest

NAMES: Mapping[str, tuple[str, ...]] = {
    "path": ("path", "file", "file_name", "filename", "image"),
    "label": ("label", "class", "target", "category"),
    "split": ("split",),
    "group_column": ("group",),
}
"""Option that names a column -> what such a column is called where the option is not given, in capitals or not."""
NEEDED = ("path", "label")


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Says where in a row things stand; None for what the list does not have."""

    path: int
    label: int
    split: int | None
    group: int | None
    count: int
    """Cells of a row."""
    header: bool
    """The first row names the columns, and is none itself."""
    names: tuple[str, ...]
    """What the columns are called; numbers, counted from 0, without a header."""
    hidden: tuple[str, ...] = ()
    """Others, which hold no texts or numbers."""

    def in_words(self) -> str:
        """Says what is taken from which column."""
        used = {"path": self.path, "label": self.label, "split": self.split, "group": self.group}
        found = [f"{what} from {self.names[place]!r}" for what, place in used.items() if place is not None]
        rest = [name for place, name in enumerate(self.names) if place not in used.values()] + list(self.hidden)
        return ", ".join(found) + (f"; not used: {some_of(rest)}" if rest else "")


def choose(
    table: Table, options: Mapping[str, str], shown: str, is_image: Callable[[str], bool], ignored: Sequence[str] = ()
) -> Columns:
    """Says which column of a table is what. ``is_image`` tells whether a cell names an image, by which a first row of
    data is told from one of names; ``ignored`` are those of `NAMES` that are not looked for.

    Errors: UserError that lists the columns where one that is needed cannot be told, or one that is named is not there.
    """
    first = table.rows[0][1]
    header = table.names is None and _is_header(table, options, is_image)
    if header and len(table.rows) == 1:
        raise UserError(f"list {shown} has no rows beneath the names of its columns, {_listed(first)}")
    named = table.names if table.names is not None else first if header else None
    names = named if named is not None else tuple(map(str, range(len(first))))
    twice = sorted({name for name in names if names.count(name) > 1 and name})
    if named is not None and (bad := [name for name in twice if _concerns(name, options)]):
        raise UserError(f"list {shown} has two columns {bad[0]!r}; rename one of them")
    found: dict[str, int | None] = {}
    for what in NAMES:
        if what in ignored:
            found[what] = None
        elif what in options:
            found[what] = _asked(options[what], names, what, table, shown)
        else:
            found[what] = _by_name(what, names, shown) if named is not None else None
            if found[what] is None and what not in NEEDED:
                _check_read(what, table, shown)
    if named is None:
        found |= _by_position(found, shown, first)
    for what in NEEDED:
        if found[what] is None:
            raise _not_told(what, names, table, shown)
    path, label = found["path"], found["label"]
    assert path is not None
    assert label is not None
    if path == label:
        raise UserError(f"list {shown}: column {names[path]!r} cannot be both the path and the label")
    return Columns(
        path=path,
        label=label,
        split=found["split"],
        group=found["group_column"],
        count=len(names),
        header=header,
        names=tuple(names) if named is not None else tuple(f"column {name}" for name in names),
        hidden=table.hidden,
    )


def _check_read(what: str, table: Table, shown: str) -> None:
    """Raises UserError where a column says the split or the group, but not as a text: all images would be divided as if
    nobody had said anything.
    """
    if unread := [name for name in table.hidden if name.casefold() in NAMES[what]]:
        ways = "?split=none leaves the splits to tlbench" if what == "split" else "rename the column if it is no group"
        raise UserError(
            f"list {shown}: column {unread[0]!r} holds no texts or numbers (lists, objects or bytes), so that it says "
            f"nothing of a {NAMES[what][0]}; write texts, or {ways}"
        )


def _is_header(table: Table, options: Mapping[str, str], is_image: Callable[[str], bool]) -> bool:
    """Tells whether the first row of a text names the columns."""
    first = table.rows[0][1]
    if any(options.get(what) in first and not str(options[what]).isdecimal() for what in NAMES if what in options):
        return True
    if any(is_image(cell) for cell in first):
        return False
    if any(cell.casefold() in NAMES["path"] + NAMES["label"] for cell in first):
        return True
    numbered = all(options.get(what, "").isdecimal() for what in NEEDED)
    # Where columns are numbered and no row names an image, the first row is no other than the second.
    return not numbered or (len(table.rows) > 1 and any(is_image(cell) for cell in table.rows[1][1]))


def _concerns(name: str, options: Mapping[str, str]) -> bool:
    return name in options.values() or any(name.casefold() in names for names in NAMES.values())


def _asked(value: str, names: Sequence[str], what: str, table: Table, shown: str) -> int:
    """Returns the column that an option names, or numbers. Errors: UserError where there is none such."""
    if value in names:
        return list(names).index(value)
    if value.isdecimal():
        if int(value) < len(names):
            return int(value)
        raise UserError(f"list {shown} has no column {value} for {what}: it has {len(names)}, 0 to {len(names) - 1}")
    if table.names is None and all(name.isdecimal() for name in names):
        raise UserError(
            f"list {shown} has no names of columns, so that {what}={value} finds none; give its number, 0 to "
            f"{len(names) - 1}, as ?{what}=0"
        )
    guess = nearest(value, names)
    hint = f"; did you mean {guess!r}?" if guess else "."
    raise UserError(f"list {shown} has no column {value!r} for {what}{hint} It has {_listed(names)}{_unread(table)}")


def _by_name(what: str, names: Sequence[str], shown: str) -> int | None:
    """Returns the column that is called so. Errors: UserError where several are."""
    places = [place for place, name in enumerate(names) if name.casefold() in NAMES[what]]
    if len(places) > 1:
        several = " and ".join(repr(names[place]) for place in places)
        raise UserError(f"list {shown} has {several}, both may be the {what}; say which: ?{what}={names[places[0]]}")
    return places[0] if places else None


def _by_position(found: Mapping[str, int | None], shown: str, first: Sequence[str]) -> dict[str, int | None]:
    """Returns path and label of a list without names of columns: the first is the path, the other one of two the label.
    Errors: UserError.
    """
    count, path, label = len(first), found["path"], found["label"]
    path = 0 if path is None and label != 0 else path
    if count == 1:
        raise UserError(
            f"list {shown} has one column, such as {first[0]!r}; each line needs a path and a label, and a .csv may "
            "have names of columns on top"
        )
    if label is None and count == 2 and path is not None:
        label = 1 - path
    if label is None:
        numbers = " or ".join(f"?label={number}" for number in range(count) if number != path)
        raise UserError(
            f"list {shown} has {count} columns without names, such as {_listed(first)}; say which is the label: "
            f"{numbers}"
        )
    if path is None:
        raise UserError(f"list {shown} has its label in column 0; say which is the path: ?path=1")
    return {"path": path, "label": label}


def _not_told(what: str, names: Sequence[str], table: Table, shown: str) -> UserError:
    known = ", ".join(NAMES[what])
    return UserError(
        f"list {shown} has no column for the {what}: none of {_listed(names)} is called {known}; name it, as "
        f"?{what}=COLUMN{_unread(table)}"
    )


def _unread(table: Table) -> str:
    return f" (not read, being no texts or numbers: {some_of(table.hidden)})" if table.hidden else ""


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:8])) + (", …" if len(names) > 8 else "")
