"""Imports matplotlib, whatever the environment says of a screen.

A notebook names its own backend in $MPLBACKEND, which its subprocesses inherit (``!tlbench run``); where that backend
is not installed, importing matplotlib fails. Our figures need none. Whoever draws in this process besides has it still,
if it is there.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

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
