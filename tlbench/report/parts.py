"""What a report is made of, each part by itself: one that cannot be made costs that part and a line that says why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tlbench.console import because

T = TypeVar("T")


@dataclass(kw_only=True)
class Parts:
    """Collects the files of a report before any of them is written, and what could not be made."""

    clean: Callable[[str], str] | None = None
    """Goes over every text that becomes a file."""
    files: dict[str, bytes] = field(default_factory=dict)
    """Name in the report's folder -> content."""
    lost: list[str] = field(default_factory=list)
    """Lines that say which part there is not, and why."""

    def make(self, what: str, make: Callable[..., T], *given: Any) -> T | None:
        """Returns what ``make(*given)`` makes; None where that failed, which is noted under this name."""
        try:
            return make(*given)
        except Exception as error:
            self.lost.append(f"the report lacks {what}: {because(error)}")
            return None

    def add(self, name: str, make: Callable[..., bytes | str], *given: Any) -> bool:
        """Makes a file of ``make(*given)``. Returns whether that went well."""
        content = self.make(name, make, *given)
        if isinstance(content, str):
            text = content if self.clean is None else self.clean(content)
            # What is left of a path that is no text is spelt out.
            content = text.encode("utf-8", "backslashreplace")
        if content is not None:
            self.files[name] = content
        return content is not None
