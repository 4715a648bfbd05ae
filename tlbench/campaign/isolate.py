"""Runs cells in processes of their own: what crashes, hangs or takes all memory there takes no other cell with it.

The parent sends a line of JSON for each measurement; the child answers that it has begun, and with the record. The
child writes nothing into the run's folder: whatever kills either of them, only whole records of the parent's are there.
One file, since whoever changes what a worker is asked or answers changes what is done with it.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import secrets
import selectors
import signal
import socket
import subprocess
import sys
import time
from base64 import b64decode
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import tlbench
from tlbench.backbones.network import UNREACHABLE
from tlbench.backbones.sources import name_of_source
from tlbench.campaign import ahead
from tlbench.campaign.answers import Answers, Damaged
from tlbench.campaign.lifeline import lifeline
from tlbench.campaign.plugins import one_line
from tlbench.campaign.stop import Stop, as_it_ended, name_of, why_stopped
from tlbench.errors import UserError
from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.machine import layouts
from tlbench.measure.place import Place
from tlbench.records.definitions import definitions
from tlbench.records.images import from_bytes
from tlbench.records.lines import decode
from tlbench.records.record import Record

ISOLATION = {
    "backbone": "a process for each backbone; it keeps loaded weights, decoded images and frozen activations",
    "cell": "a new process for each cell",
    "none": "all cells in this process",
}
ALIVE = 3
"""Processes that are kept at the same time: an idle one holds memory."""
START_SECONDS = 600
"""Longest time for a process to import torch; beyond it something is stuck."""
GRACE_SECONDS = 10
"""Time that a cell has to give up when the run is stopped."""
POLL_SECONDS = 0.5
CHUNKS = 16
"""Most pieces that are read of a pipe before the clock is looked at again."""
TAIL_BYTES = 4096
"""Last bytes of a process's output, which are kept for the record."""


# --- the parent's side ----------------------------------------------------------------------------------------


def _process_of(cell: Cell) -> tuple[str, str]:
    """Returns what cells of one process share. The CPU's cells have another than CUDA's: its libraries would count in
    their memory.
    """
    return cell.backbone, cell.device


def _shares(device: str, other: str) -> bool:
    """Tells whether processes on these devices must not live at the same time. An idle one holds a GPU's memory, and
    there would be a foreign process on it; which of two names is which GPU, no one here knows.
    """
    return device != "cpu" and other != "cpu"


class Lost(Exception):
    """A process ended, or had to be ended, without a record."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Workers:
    """Holds the processes of a run. `run_cell` is `tlbench.measure.cell.run_cell` in one of them."""

    def __init__(
        self,
        settings: Settings,
        stop: Stop,
        plugins: Iterable[str] = (),
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """``environ`` is the environment of the processes; None: that of this one."""
        self._settings, self._stop, self._plugins = settings, stop, list(plugins)
        self._environ = environ
        self._alive: OrderedDict[tuple[str, str], Worker] = OrderedDict()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        for key in list(self._alive):
            self._end(key)
        if self._environ is None:
            ahead.drop()

    def run_cell(self, cell: Cell, settings: Settings, *, place: Place) -> Record:
        """Runs a cell as `tlbench.measure.cell.run_cell` does; there is a record whatever becomes of the process.

        Errors: UserError, as it was raised there.
        """
        key, worker = _process_of(cell), self._worker(cell)
        fresh = worker.cells == 0
        began = time.monotonic()
        record = self._measure(worker, cell, settings, place)
        most = None if place.most_seconds is None else place.most_seconds - (time.monotonic() - began)
        if record.status == "oom" and not fresh and self._stop.signal is None and (most is None or most > 0):
            # What earlier cells left in that process may be what was too much.
            self._end(key)
            worker = self._worker(cell)
            record = self._measure(worker, cell, settings, replace(place, most_seconds=most))
        if record.status == "oom" or worker.broken or settings.isolate == "cell":
            self._end(key)
        return record

    def _worker(self, cell: Cell) -> Worker:
        """Returns the process for a cell, started if need be. Errors: UserError when none can be started."""
        key = _process_of(cell)
        if os.name != "posix":
            raise UserError("processes for cells need Linux or macOS; use --isolate none (pytest: --tl-isolate none)")
        if key in self._alive and self._alive[key].has_ended():  # killed while it had nothing to do
            self._end(key)
        if key not in self._alive:
            for other in [other for other in self._alive if _shares(other[1], key[1])]:
                self._end(other)
            while len(self._alive) >= ALIVE:
                self._end(next(iter(self._alive)))
            try:
                self._alive[key] = self._started_ahead() or Worker(self._environ, limited=_is_limited(self._settings))
            except OSError as error:
                raise UserError(f"cannot start a process for cells: {error.strerror}; use --isolate none") from None
        self._alive.move_to_end(key)
        return self._alive[key]

    def _started_ahead(self) -> Worker | None:
        if self._environ is not None:  # it was started with this process's
            return None
        worker: Worker | None = ahead.take()
        return worker

    def _end(self, key: tuple[str, str]) -> None:
        if worker := self._alive.pop(key, None):
            worker.end()

    def _measure(self, worker: Worker, cell: Cell, settings: Settings, place: Place) -> Record:
        began = time.time()
        request = {
            "cell": asdict(cell),
            "settings": asdict(settings),
            "place": asdict(place),
            "layouts": layouts.told(),
        }
        try:
            worker.prepare(self._settings, self._plugins, self._stop)
            record = worker.ask(request, _end_of(settings, place), self._stop)
            return as_it_ended(record, self._stop.signal)
        except Lost as lost:
            self._end(_process_of(cell))
            record = record_of_lost(cell, settings, place, lost.status, str(lost), began)
            return replace(record, output=worker.output(), environment=worker.environment)
        except BaseException:
            self._end(_process_of(cell))
            raise


@dataclass(frozen=True, kw_only=True)
class End:
    """Says when a measurement is ended that is not done."""

    seconds: float | None = None
    """Seconds from its beginning; None: never."""
    status: str = "timeout"
    """Status of its record then."""
    reason: str = ""


def _end_of(settings: Settings, place: Place) -> End:
    """Returns the end of a measurement: that of the budget which it is a part of, or the longest time of a cell."""
    most, budget = settings.cell_timeout_seconds, place.most_seconds
    if budget is not None and (most is None or budget < most):
        return End(seconds=budget, status="stopped", reason=f"the budget ended after {budget:.0f} s of it")
    return End(seconds=most, reason=f"took longer than --cell-timeout {most} s") if most else End()


def record_of_lost(cell: Cell, settings: Settings, place: Place, status: str, reason: str, began: float) -> Record:
    """Returns the record of a cell that was being measured, since ``began`` (seconds since 1970), by what is lost."""
    return Record(
        id=place.name or cell.id,
        cell=cell,
        settings=settings,
        status=status,
        reason=reason,
        started=datetime.fromtimestamp(began, UTC).isoformat(timespec="seconds"),
        wall_seconds=max(time.time() - began, 0.0),
        suite_version=tlbench.__version__,
        block=place.block,
        role=place.role,
        **place.where,
        definitions=definitions(cell),
    )


def _is_limited(settings: Settings) -> bool:
    """Tells whether the memory of processes is limited."""
    return settings.memory_limit_bytes is not None


def start_ahead(settings: Settings, backbone: str) -> None:
    """Starts a process for the first cell, of this backbone as far as is known, where that is wanted now
    (`tlbench.campaign.ahead`) and cells have processes of their own.
    """
    if settings.isolate != "none" and os.name == "posix":
        ahead.start(lambda: Worker(library=name_of_source(backbone), limited=_is_limited(settings)))


class Worker:
    """A worker is a child process, from the parent's side."""

    def __init__(self, environ: Mapping[str, str] | None = None, library: str = "", limited: bool = False) -> None:
        """``environ`` is its environment (None: that of this process); ``library`` a row of
        `tlbench.backbones.sources.SOURCES`, of which it imports beforehand what building a backbone takes; ``limited``:
        its memory will be, so that it maps none in vain (`tlbench.machine.usage.one_arena`).
        """
        self.cells = 0
        """Cells that it was asked for so far."""
        self.broken = False
        """Whether CUDA takes no more work from it."""
        self.environment: dict[str, Any] = {}
        """Environment that the child described for the cell that it began last."""
        self._ready, self._prepared = False, False
        word = secrets.token_hex(16)
        self._tail, self._answers = b"", Answers(word)
        self._killed_before = _out_of_memory_kills()
        line = lifeline()
        requests, self._requests = os.pipe()
        self._replies, replies = os.pipe()
        self._written, output = os.pipe()
        self._files, files = socket.socketpair()
        theirs = (line, requests, replies, files.fileno())
        try:
            self._process = subprocess.Popen(
                # -P: a file of the current folder must not take the place of a library's module.
                [sys.executable, "-P", "-c", _BOOT, json.dumps(sys.path), *map(str, theirs)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=theirs,
                env=environ,
                start_new_session=True,  # the terminal's Ctrl-C is for the parent, which passes it on once
            )
        except BaseException:
            self._close()
            raise
        finally:
            files.close()
            for pipe in (requests, replies, output):
                os.close(pipe)
        self._selector = selectors.DefaultSelector()
        for pipe in (self._replies, self._written):
            os.set_blocking(pipe, False)
            self._selector.register(pipe, selectors.EVENT_READ)
        self._send({"word": word, "library": library, "limited": limited})

    def prepare(self, settings: Settings, plugins: Sequence[str], stop: Stop) -> None:
        """Tells it what all cells of the run have in common, once, and hands it the decoded images; until it is ready
        for that, chores are done that wait (`tlbench.campaign.ahead`). Errors: Lost.
        """
        if self._prepared:
            return
        self._prepared = True
        while not (self._ready or self.has_ended() or stop.signal is not None) and ahead.do_a_chore():
            self._read(0.0)
        from tlbench.data.store import loans

        self._send(
            {
                "plugins": list(plugins),
                "memory_limit": settings.memory_limit_bytes,
                "unreachable": UNREACHABLE,
                "images": [name for name, loan in loans().items() if self._hand_over(loan)],
                "layouts": layouts.told(),
            }
        )
        self._files.close()

    def _hand_over(self, files: Sequence[int]) -> bool:
        """Gives it open files, which it takes when it is told what they are; False where that cannot be."""
        try:
            socket.send_fds(self._files, [b"."], files)
        except OSError:  # it is dead, which the next reading finds, or decodes what it is not lent
            return False
        return True

    def look(self, spec: str, backbones: Sequence[str]) -> dict[str, Any] | None:
        """Has it load a checkpoint into backbones before it is prepared, and keep what it has loaded last. Returns what
        `tlbench.campaign.checkpoints.Looked` holds; None where it ended without an answer. Errors: UserError as there.
        """
        with contextlib.suppress(Lost):
            answer = self._before({"look": {"spec": spec, "backbones": list(backbones)}}, ahead.do_a_chore)
            return None if answer is None else answer["looked"]
        return None

    def profile(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Has it measure a profile (`tlbench.campaign.profiling`), in place of cells. Errors: Lost; UserError there."""
        answer = self._before({"profile": asked}, patient=True)
        if answer is not None:
            return dict(answer["profiled"])
        raise Lost(*self._how_it_ended()) if self.has_ended() else Lost("timeout", _not_started())

    def _before(
        self, message: Mapping[str, Any], chore: Callable[[], bool] = lambda: False, patient: bool = False
    ) -> dict[str, Any] | None:
        """Returns its answer to what is asked before it is prepared; chores are done meanwhile. None where it has ended
        without one, or takes longer than a start may; one that has started may take its time where this is ``patient``.

        Errors: Lost where its answer is damaged; UserError as it was raised there.
        """
        self._send(message)
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until or (patient and self._ready):
            ended = self.has_ended()  # looked at before reading, so that its answer is not passed over
            for answer in self._read(0.0 if chore() else POLL_SECONDS):
                if "user_error" in answer:
                    raise UserError(answer["user_error"])
                return answer
            if ended:
                break
        return None

    def ask(self, request: Mapping[str, Any], end: End, stop: Stop) -> Record:
        """Returns the record of one measurement. Errors: Lost, to be followed by `end`; UserError as in the child."""
        self.cells += 1
        self._tail = b""
        self._killed_before = _out_of_memory_kills()
        self._send(request)
        deadline, late = time.monotonic() + START_SECONDS, _not_started()
        status, told = "timeout", False
        while True:
            ended = self.has_ended()  # looked at before reading, so that its last answer is not passed over
            for answer in self._read():
                if "user_error" in answer:
                    raise UserError(answer["user_error"])
                if answer["number"] != self.cells:  # of a copy of the process that an earlier cell has left
                    continue
                if "record" in answer:
                    self.broken = answer.get("broken", False)
                    UNREACHABLE.update(answer.get("unreachable", {}))
                    layouts.hear(answer.get("layouts", {}))
                    record = decode(answer["record"])
                    known = "images" in answer
                    return replace(record, per_image=from_bytes(b64decode(answer["images"]))) if known else record
                self.environment = answer["began"]
                deadline = time.monotonic() + end.seconds if end.seconds is not None else float("inf")
                status, late = end.status, end.reason
            if stop.signal is not None and not told:
                told, deadline = True, time.monotonic() + GRACE_SECONDS
                self._signal(signal.SIGINT)
            if told and (ended or time.monotonic() > deadline):
                raise Lost("interrupted", why_stopped(stop.signal))
            if ended:
                raise Lost(*self._how_it_ended())
            if time.monotonic() > deadline:
                if status == "stopped":
                    raise Lost(status, late)
                self._signal(signal.SIGUSR1)  # it writes down where it is
                self._wait_for_output()
                raise Lost(status, self._with_words(late))

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def output(self) -> str:
        """Returns the last that the process wrote, as lines of printable text."""
        text = self._tail.decode("utf-8", "replace").replace("\r", "\n").replace("\t", "    ")
        text = "".join(char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in text)
        lines = [line.rstrip() for line in text.splitlines()]
        return "\n".join(line for line in lines if line and not line.startswith("Extension modules:"))

    def end(self) -> None:
        """Kills it, with whatever it has started: it holds nothing that is not in the parent's hands or on the disk."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._selector.close()
        self._close()

    def _close(self) -> None:
        self._files.close()
        for pipe in (self._requests, self._replies, self._written):
            with contextlib.suppress(OSError):
                os.close(pipe)

    def _send(self, message: Mapping[str, Any]) -> None:
        line = memoryview(json.dumps(message).encode() + b"\n")
        try:
            while line:
                line = line[os.write(self._requests, line) :]
        except BrokenPipeError:
            pass  # it is dead, which the next reading finds

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def _read(self, seconds: float | None = None) -> list[dict[str, Any]]:
        """Returns the answers that have come since; waits so long for them (None: a moment). Output goes to the tail.
        Errors: Lost.
        """
        answers: list[dict[str, Any]] = []
        for key, _ in self._selector.select(POLL_SECONDS if seconds is None else seconds):
            chunk: bytes | None = None
            for _ in range(CHUNKS):  # who writes without end must not keep us from the clock
                if not (chunk := _read_some(key.fd)):
                    break
                if key.fd == self._written:
                    self._tail = (self._tail + chunk)[-TAIL_BYTES:]
                else:
                    answers += self._told(chunk)
            if chunk == b"":  # closed
                self._selector.unregister(key.fd)
        return answers

    def _told(self, chunk: bytes) -> list[dict[str, Any]]:
        """Returns the answers that some more bytes of the pipe complete; what is none is output. Errors: Lost."""
        try:
            answers, stray = self._answers.take(chunk)
        except Damaged as damaged:
            self._hear(damaged.before)
            raise Lost("failed", DAMAGED) from None
        self._hear(answers)
        self._tail = (self._tail + stray)[-TAIL_BYTES:]
        self._ready = self._ready or any("ready" in answer for answer in answers)
        return [answer for answer in answers if "ready" not in answer]

    def _hear(self, answers: Sequence[Mapping[str, Any]]) -> None:
        """Takes in what the process says of itself, at once: what is damaged may come right behind it."""
        for answer in answers:
            if "began" in answer and answer.get("number") == self.cells:
                self.environment = answer["began"]

    def _wait_for_output(self) -> None:
        until, length = time.monotonic() + 2, -1
        while time.monotonic() < until and len(self._tail) != length:
            length = len(self._tail)
            self._read()

    def _how_it_ended(self) -> tuple[str, str]:
        code = self._process.returncode
        if code == -signal.SIGKILL and _out_of_memory_kills() > self._killed_before:
            return "oom", "the kernel killed its process, because the machine was out of memory"
        status = "oom" if any(word in self._tail for word in _OUT_OF_MEMORY) else "failed"
        how = f"was ended by {name_of(-code)}" if code < 0 else f"ended with exit status {code}"
        return status, self._with_words(f"its process {how}")

    def _with_words(self, reason: str) -> str:
        lines = self.output().splitlines()
        # Where Python dumps a stack, the place is its first line.
        places = [after for before, after in itertools.pairwise(lines) if "most recent call first" in before]
        last = places[-1] if places else lines[-1] if lines else ""
        heads = [line for line in lines if line.startswith("Fatal Python error")][-1:]
        words = ", ".join(one_line(word.strip()) for word in [*heads, last] if word)
        return f"{reason}; it last wrote: {words}" if words else reason


DAMAGED = "what its process answered did not arrive whole: the cell's code, or a library, wrote to the pipe of the run"
_OUT_OF_MEMORY = (b"MemoryError", b"bad_alloc", b"allocate memory", b"CUDA out of memory")


def _not_started() -> str:
    return f"its process did not start within {START_SECONDS} s"


def _read_some(pipe: int) -> bytes | None:
    """Returns some bytes of a pipe; b'' at its end, None where there is nothing yet."""
    try:
        return os.read(pipe, 65536)
    except BlockingIOError:
        return None


def _out_of_memory_kills() -> int:
    """Counts the processes that the kernel has killed for want of memory so far; 0 where it does not tell."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


# --- the child's side -----------------------------------------------------------------------------------------

_BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from tlbench.campaign.child import main; main()"
