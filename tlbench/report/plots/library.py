"""Imports what draws, matplotlib and seaborn, whatever the environment says of a screen.

A notebook names its own backend in $MPLBACKEND, which its subprocesses inherit (``!tlbench run``); where that backend
is not installed, importing matplotlib fails. Our figures need none. Whoever draws in this process besides has it still,
if it is there.

In passing, seaborn imports parts of scipy for densities and clusters, which take longer than seaborn does. No figure of
ours has either: they are imported for whoever calls for them.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Any

from tlbench.machine.imports import imported, later, uncollected


def _density(*given: Any, **words: Any) -> Any:
    """Returns scipy's `gaussian_kde` of what is given."""
    return imported("scipy.stats").gaussian_kde(*given, **words)


class _Hierarchy:
    """Stands in for `scipy.cluster.hierarchy`, which is imported for whoever asks for something of it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(imported("scipy.cluster.hierarchy"), name)


LATER: dict[str, dict[str, Any]] = {
    "scipy.stats": {"gaussian_kde": _density},
    "scipy.cluster": {"hierarchy": _Hierarchy()},
}
"""Module -> what is taken of it in passing."""

with uncollected(), later(LATER):
    if "matplotlib" not in sys.modules:
        _named = os.environ.pop("MPLBACKEND", None)
        try:
            import matplotlib as mpl
        finally:
            if _named is not None:
                os.environ["MPLBACKEND"] = _named
        if _named:
            with suppress(ValueError):  # nobody could draw with it here
                mpl.rcParams["backend"] = _named
    import seaborn as sns

__all__ = ["sns"]
