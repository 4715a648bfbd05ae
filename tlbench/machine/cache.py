"""Where this machine keeps what was measured or computed once."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Returns the folder of layouts and activations: ``$TLBENCH_CACHE``, or ``$XDG_CACHE_HOME/tlbench``."""
    given = os.environ.get("TLBENCH_CACHE")
    home = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(os.path.expanduser(given or os.path.join(home, "tlbench")))
