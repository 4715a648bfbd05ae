"""What is kept and said of the scale of images of more than 8 bits (`tlbench.data.depth`)."""

from __future__ import annotations

from collections.abc import Mapping


def describe(black: int, white: int, images: int, beyond: int) -> dict[str, int]:
    """Returns what a record keeps: black, white, how many images have that scale, and how many of them, none of which
    is trained on, go beyond it.
    """
    return {"black": black, "white": white, "images": images, "beyond": beyond}


def in_words(described: Mapping[str, int]) -> str:
    """Says what `describe` gave, in a line; nothing for nothing."""
    if not described:
        return ""
    black, white, images, beyond = (described[name] for name in ("black", "white", "images", "beyond"))
    bits = (white - black).bit_length()
    text = (
        f"{images:,} image{'s' * (images != 1)} of more than 8 bits read as {bits} bits: black is {black:,}, white is "
        f"{white:,}, which hold what is trained on"
    )
    if not beyond:
        return text
    are, go = ("is", "goes") if beyond == 1 else ("are", "go")
    return f"{text}; {beyond:,} that {are} not trained on {go} beyond, and {are} cut off there"
