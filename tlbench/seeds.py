"""Seeds from names, so that adding an axis value moves no other cell's seed."""

from __future__ import annotations

import hashlib


def seed_for(seed: int, *names: str) -> int:
    """Returns a seed in [0, 2**63) for one purpose, such as ``seed_for(0, "head-init", "resnet18", "linear")``.

    Hashed rather than added up: neighbouring seeds give unrelated streams.
    """
    # A class named after a folder may hold bytes that are no text, which Python keeps as surrogates.
    digest = hashlib.sha256("\x00".join([str(seed), *names]).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") >> 1
