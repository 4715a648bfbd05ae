"""What a cell's process answers, told from whatever else comes out of its pipe: a model, a library or a copy of the
process that it has forked may write there, by the pipe's number.

An answer stands in a frame: a word that nobody else knows, the length of what follows, its hash.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

HEADER = 200
"""Bytes within which a frame's header ends, the word included."""


class Damaged(Exception):
    """An answer has come, and is not what was sent: something else wrote to the pipe at the same time."""

    def __init__(self, before: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__()
        self.before = before
        """The answers that came with it, and before it, whole."""


class Answering:
    """Writes answers to the pipe that this process was given for them."""

    def __init__(self, pipe: int, word: str) -> None:
        self._pipe, self._word = pipe, word
        self._is, self._pid = _identity(pipe), os.getpid()

    def send(self, **answer: Any) -> None:
        """Sends an answer; a copy of the process that a cell has forked ends here, since it was not asked.

        Errors: OSError where the pipe is gone, or its number is another file's by now.
        """
        if os.getpid() != self._pid:
            os._exit(1)
        if _identity(self._pipe) != self._is:
            raise OSError("the pipe to the run was closed by the cell's code, and its number is another file's")
        left = memoryview(frame(self._word, answer))
        while left:
            left = left[os.write(self._pipe, left) :]


def _identity(file: int) -> tuple[int, int]:
    told = os.fstat(file)
    return told.st_dev, told.st_ino


def frame(word: str, answer: Mapping[str, Any]) -> bytes:
    """Returns an answer in its frame, which begins a line of its own."""
    content = json.dumps(answer).encode()
    return f"\n{word} {len(content)} {hashlib.sha256(content).hexdigest()} ".encode() + content + b"\n"


class Answers:
    """Holds what has come out of a process's pipe, and gives the answers in it."""

    def __init__(self, word: str) -> None:
        self._word = f"{word} ".encode()
        self._bytes = bytearray()

    def take(self, chunk: bytes) -> tuple[list[dict[str, Any]], bytes]:
        """Takes in some bytes. Returns the answers that are complete now, and what is no part of any: at most a part
        of a word is kept of it.

        Errors: Damaged.
        """
        self._bytes += chunk
        answers: list[dict[str, Any]] = []
        stray = b""
        while (at := self._bytes.find(self._word)) >= 0:
            stray += self._bytes[:at]
            del self._bytes[:at]
            try:
                content = self._content()
            except Damaged:
                raise Damaged(answers) from None
            if content is None:
                return answers, stray.strip(b"\n")
            answers.append(json.loads(content))
        keep = len(self._word) - 1
        stray += self._bytes[:-keep]
        del self._bytes[:-keep]
        return answers, stray.strip(b"\n")

    def _content(self) -> bytes | None:
        """Takes out the content of the frame that what is here begins with; None as long as it is not all here."""
        parts = self._bytes[:HEADER].split(b" ", 3)
        if len(parts) < 4:
            if len(self._bytes) >= HEADER:
                raise Damaged
            return None
        _, length, digest, _ = parts
        if not length.isdigit() or len(length) > 15:
            raise Damaged
        begin = len(self._word) + len(length) + 1 + len(digest) + 1
        end = begin + int(length)
        if len(self._bytes) < end:
            return None
        content = bytes(self._bytes[begin:end])
        del self._bytes[:end]
        if hashlib.sha256(content).hexdigest().encode() != digest:
            raise Damaged
        return content
