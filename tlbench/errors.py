"""The errors that a user sees in one clear line, and the look-up of names in tables, which suggests the nearest one;
and texts as a person may safely see them.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import PurePath
from typing import TypeVar

T = TypeVar("T")


_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff"
    "\ud800-\udfff\U000e0000-\U000e0fff]"
)
"""What no screen shows, and what changes how the rest is shown: control characters (with them the escapes of a
terminal), what turns the direction of writing, what has no width, halves of characters."""


def printable(text: str, keep: str = "") -> str:
    r"""Writes a text that others have chosen so that it shows all of itself, and nothing but itself. ``keep`` are
    characters that stay.

    >>> printable("red \x1b[31m")
    'red \\x1b[31m'
    """
    if text.isascii() and text.isprintable():  # nearly always
        return text
    return _UNSEEN.sub(lambda found: found[0] if found[0] in keep else ascii(found[0])[1:-1], text)


def is_text(text: str) -> bool:
    """Tells whether a text can be written as UTF-8; names of files need not be."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class UserError(Exception):
    """A user made a mistake: the message names the value, the choices and the next step.

    Only the command line and the pytest plugin turn it into an exit (status 2).
    """

    def _render_traceback_(self) -> list[str]:
        """Returns what IPython shows of it: the message alone, since no line of ours tells more."""
        return [f"UserError: {self}"]


class UnknownName(UserError):
    """A name is in no table; `kind` says what it should be the name of."""

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


class LostInput(UserError):
    """Images or weights cannot be had any more that were there when the run was checked: what needs them fails, and
    what needs others goes on.
    """


class NotApplicable(Exception):
    """A combination means nothing (``norm`` on a backbone without normalisation layers).

    Never the user's mistake: the cell becomes a record of status ``not_applicable`` with this reason.
    """


class Unavailable(Exception):
    """Something that a cell needs cannot be had here (pretrained weights without a network).

    The cell becomes a record of status ``skipped``; the message says how to get it into place.
    """


def text_of(error: BaseException) -> str:
    """Returns an error's own words, whatever its code does when it is asked for them."""
    try:
        return str(error)
    except Exception:
        return "it cannot tell why"


def place_of(error: BaseException) -> str:
    """Says where an error was raised: ``mine.py:12``; empty where nothing tells."""
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    return f"{PurePath(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""


@contextmanager
def no_exit() -> Iterator[None]:
    """Turns a SystemExit within, which code that is not ours has raised, into a UserError: the program would end with
    that code's exit status, which is 0 where it gives none, as if all was done.
    """
    try:
        yield
    except SystemExit as error:
        code = "" if error.code is None else f" {error.code!r}"
        raise UserError(
            f"something that was loaded wants to end the program (SystemExit{code}, {place_of(error)}): a plugin or a "
            "library, which must leave that to whoever loads it"
        ) from None


MEANT = {"gpu": "cuda", "nvidia": "cuda"}
"""What people write -> what it is called here, however little the two look alike."""


def nearest(name: str, choices: Iterable[str]) -> str | None:
    """Returns the choice that is meant by ``name``, or looks most like it; None when none does."""
    lowered = {choice.lower(): choice for choice in choices}
    if (meant := MEANT.get(name.lower(), "")) in lowered:
        return lowered[meant]
    matches = difflib.get_close_matches(name.lower(), list(lowered), n=1, cutoff=0.6)
    return lowered[matches[0]] if matches else None


OF_PLUGINS = ("backbone", "freeze policy", "head")
"""Kinds of names that a person's own file may add to."""


def unknown(kind: str, name: str, choices: Iterable[str], shown: int = 12) -> UnknownName:
    """Returns the error for a name that is not in a table: it gives the value, the nearest match and the choices.

    >>> str(unknown("head", "mpl", ["linear", "mlp"]))
    "unknown head 'mpl'; did you mean 'mlp'? Choose from: linear, mlp"
    """
    names = list(choices)
    guess = nearest(name, names)
    guess = None if guess == name else guess  # a form with a place in it (last_K), taken for a name
    hint = f"; did you mean '{guess}'?" if guess else "."
    listed = ", ".join(names[:shown]) + (f", … ({len(names)} in all)" if len(names) > shown else "")
    own = "; one of your own comes with --plugin FILE" if kind in OF_PLUGINS and not guess else ""
    return UnknownName(f"unknown {kind} {name!r}{hint} Choose from: {listed}{own}", kind)


def lookup(table: Mapping[str, T], kind: str, name: str) -> T:
    """Returns ``table[name]``, or raises a UserError that lists the choices and suggests the nearest one."""
    if name in table:
        return table[name]
    raise unknown(kind, name, table)
