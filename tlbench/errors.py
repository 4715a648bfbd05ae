"""What a user did wrong, in one clear line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")


class UserError(Exception):
    """A mistake of the user's: the message names the value, the choices and the next step.

    Only the command line and the pytest plugin turn it into an exit (status 2).
    """


class NotApplicable(Exception):
    """A combination that means nothing (``norm`` on a backbone without normalisation layers).

    Never the user's mistake: the cell becomes a record of status ``not_applicable`` with this reason.
    """


class Unavailable(Exception):
    """Something a cell needs cannot be had here (pretrained weights without a network).

    The cell becomes a record of status ``skipped``; the message says how to get it into place.
    """


def nearest(name: str, choices: Iterable[str]) -> str | None:
    """The choice that looks most like ``name``, or None when none does."""
    lowered = {choice.lower(): choice for choice in choices}
    found = difflib.get_close_matches(name.lower(), list(lowered), n=1, cutoff=0.6)
    return lowered[found[0]] if found else None


def unknown(kind: str, name: str, choices: Iterable[str], shown: int = 12) -> UserError:
    """The error for a name that is not in a table: value, nearest match, choices.

    >>> str(unknown("head", "mpl", ["linear", "mlp"]))
    "unknown head 'mpl'; did you mean 'mlp'? Choose from: linear, mlp"
    """
    names = list(choices)
    guess = nearest(name, names)
    hint = f"; did you mean '{guess}'?" if guess else "."
    listed = ", ".join(names[:shown]) + (f", … ({len(names)} in all)" if len(names) > shown else "")
    return UserError(f"unknown {kind} {name!r}{hint} Choose from: {listed}")


def lookup(table: Mapping[str, T], kind: str, name: str) -> T:
    """``table[name]``, or a UserError that lists the choices and suggests the nearest."""
    if name in table:
        return table[name]
    raise unknown(kind, name, table)
