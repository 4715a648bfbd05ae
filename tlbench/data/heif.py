"""HEIC, the photographs of telephones, read by pillow-heif (the extra ``heic``) where it is installed."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

ENDINGS = (".heic", ".heif")
INSTALL = "pip install 'tlbench[heic]' reads it"
BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"})
"""What such a file says of itself right after ``ftyp`` (ISO/IEC 23008-12). ``mif1`` may as well be an AVIF."""


def is_heif(head: bytes) -> bool:
    """Tells whether a file is one, by its first twelve bytes."""
    return head[4:8] == b"ftyp" and head[8:12] in BRANDS


def installed() -> str:
    """Returns the version of pillow-heif; empty where it is not installed. It is not imported for that."""
    if find_spec("pillow_heif") is None:
        return ""
    try:
        return version("pillow-heif")
    except PackageNotFoundError:  # a folder of that name
        return ""


@cache
def formats() -> tuple[str, ...]:
    """Returns what Pillow calls the format, which it knows from here on; nothing where pillow-heif is not installed.
    Errors: ImportError where it is, and cannot be imported.
    """
    if not installed():
        return ()
    try:
        import pillow_heif
    except ImportError as error:
        raise ImportError(f"pillow-heif, which reads HEIC, cannot be imported: {error}") from None
    pillow_heif.register_heif_opener()
    return ("HEIF",)
