"""scipy's special functions. Not `scipy.stats`, which takes ten times as long to import."""

import numpy as np  # noqa: F401 - before parts of it are looked for

from tlbench.machine.imports import later

PARTS = ("ctypeslib", "f2py", "ma", "polynomial", "random", "testing")
"""Parts of numpy that are imported when somebody asks for them, as scipy does in passing: it copies all of numpy's
names, which takes longer than importing the functions.
"""

with later({f"numpy.{part}": {} for part in PARTS}):
    from scipy import special

__all__ = ["special"]
