"""The console that words and tables are printed with, and what keeps a terminal from costing more than its own words.
rich is imported when a console is made.
"""

from __future__ import annotations

import codecs
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tlbench.errors import NotApplicable, Unavailable, UserError, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

WIDE = 10_000
"""Characters of a line that nobody's terminal cuts: a row of a table is a line, for ``grep`` and its like."""
NARROW = 20
"""Characters that a line has room for at least: a terminal may call itself 0 wide, as one that nobody looks at."""

# --- streams --------------------------------------------------------------------------------------------------

IN_ASCII = {
    "–": "-", "—": "-", "−": "-", "‑": "-", "·": "/", "•": "*", "±": "+/-", "×": "x", "…": "...", "°": "o", "µ": "u",
    "≤": "<=", "≥": ">=", "≠": "!=", "≈": "~", "→": "->", "←": "<-", "’": "'", "‘": "'", "“": '"', "”": '"',
    "\xa0": " ", "\u2009": " ", "\u202f": " ", "²": "2", "⁶": "6", "³": "3", "✓": "ok", "━": "-", "╸": "-", "╺": "-",
}  # fmt: skip
"""What we print beside ASCII -> what a terminal without it is given."""
_SPELT = "tlbench.spelt"


def _spelt(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    chars = error.object[error.start : error.end]
    plain = (IN_ASCII.get(char) or char.encode("ascii", "backslashreplace").decode("ascii") for char in chars)
    return "".join(plain), error.end


codecs.register_error(_SPELT, _spelt)


def legible(text: str, encoding: str | None) -> str:
    r"""Writes text with the characters that an encoding has, ASCII where it is not known; what it lacks is spelt out.

    >>> legible("84.0 ±2 · caf\udce9", "ascii")
    '84.0 +/-2 / caf\\udce9'
    """
    encoding = encoding or "ascii"
    return text.encode(encoding, _SPELT).decode(encoding)


class Steady:
    """Writes to a stream whatever becomes of it: what its encoding lacks is spelt out, and once it cannot be written (a
    terminal that is gone, a full disk, a closed pipe) what follows goes nowhere. `error` says why. So nothing that is
    measured ends for the want of a reader.
    """

    def __init__(self, stream: IO[str]) -> None:
        self.stream = stream
        self.error: Exception | None = None

    def write(self, text: str) -> int:
        """Writes text, as `TextIO.write` does."""
        if self.error is None:
            try:
                self._write(text)
            except (OSError, ValueError) as error:  # ValueError: it was closed
                self._lost(error)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Writes several texts, as `TextIO.writelines` does."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Writes what is buffered."""
        if self.error is None:
            try:
                self._flush()
            except (OSError, ValueError) as error:
                self._lost(error)

    def __getattr__(self, name: str) -> Any:
        """Returns whatever else the stream has: its encoding, whether it is a terminal."""
        return getattr(self.stream, name)

    def _write(self, text: str) -> None:
        try:
            self.stream.write(text)
        except UnicodeEncodeError:  # nothing of it was written
            self.stream.write(legible(text, getattr(self.stream, "encoding", None)))
        except BlockingIOError:
            self._flush()

    def _flush(self) -> None:
        try:
            self.stream.flush()
        except BlockingIOError:  # another program left its terminal, which is ours, so that it waits for nobody
            os.set_blocking(self.stream.fileno(), True)
            self.stream.flush()

    def _lost(self, error: Exception) -> None:
        """Sends what is buffered nowhere: Python would try again at its end, and exit with a status of its own."""
        self.error = error
        with suppress(OSError, ValueError, AttributeError):  # a stream without a file
            number = self.stream.fileno()
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, number)
            os.close(nowhere)
        with suppress(OSError, ValueError):
            self.stream.flush()


# --- words ----------------------------------------------------------------------------------------------------


def new_console(**options: Any) -> Console:
    """Returns rich's console, in which a text (a name, the words of a library) moves no cursor and sets no colour: as
    wide as the terminal, or as $COLUMNS says, and as wide as need be where the words go elsewhere. A terminal that
    lacks a character, or is gone, raises nothing.
    """
    from rich.console import Console

    class Shown(Console):
        _steady: Steady | None = None

        def render_str(self, text: str, **how: Any) -> Text:
            """Makes a text of rich's from one that others may have chosen."""
            return super().render_str(printable(text, keep="\n\t"), **how)

        @property
        def file(self) -> Any:
            """Returns the stream that is written to, as a `Steady` one."""
            stream = super().file
            if isinstance(stream, Steady):
                return stream
            if self._steady is None or self._steady.stream is not stream:
                self._steady = Steady(stream)
            return self._steady

        @file.setter
        def file(self, stream: IO[str]) -> None:
            self._file = stream

    console = Shown(highlight=False, emoji=False, **options)
    if not (console.is_terminal or console.is_jupyter) and "COLUMNS" not in os.environ:
        console.width = WIDE
    elif console.width < NARROW:
        console.width = NARROW
    return console


def say(line: str) -> None:
    """Prints a line of what went wrong, or is to be known, on standard error."""
    if sys.stderr is not None:
        stream = Steady(sys.stderr)
        stream.write(printable(f"tlbench: {line}", keep="\n\t") + "\n")
        stream.flush()


# --- what fails beside the point ----------------------------------------------------------------------------------


def because(error: Exception) -> str:
    """Says in a line why something failed: our own words as they are, another's with where it was raised."""
    if isinstance(error, UserError | NotApplicable | Unavailable):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror + (f": {error.filename!r}" if error.filename else "")
    first = next(iter(str(error).strip().splitlines()), "")
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}{': ' * bool(first)}{first}{place}"


@contextmanager
def surviving(what: str, next_step: str = "") -> Iterator[None]:
    """Lets what follows go on where something within fails that what was measured does not depend on: a line says what
    did, why, and the next step.
    """
    try:
        yield
    except Exception as error:
        why = because(error)
        say(why if isinstance(error, UserError) else f"{what}: {why}{'; ' * bool(next_step)}{next_step}")
