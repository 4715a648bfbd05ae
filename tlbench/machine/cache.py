"""Where this machine keeps what was measured or computed once."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Returns the folder of layouts and activations: ``$TLBENCH_CACHE``, or ``$XDG_CACHE_HOME/tlbench``.

    It may not exist yet, and for a user without a home it never does: nothing is kept then.
    """
    folder = os.environ.get("TLBENCH_CACHE") or os.path.join(_home(), "tlbench")
    folder = os.path.expanduser(folder)
    if folder.startswith("~" + os.sep):  # there is no home; a folder called ~ must not be made wherever we are
        return Path(os.devnull, "tlbench")
    return Path(folder)


def _home() -> str:
    """Returns the folder of all caches. The XDG specification has what is no absolute path passed over."""
    given = os.path.expanduser(os.environ.get("XDG_CACHE_HOME", ""))
    return given if os.path.isabs(given) else "~/.cache"
