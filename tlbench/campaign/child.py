"""Runs isolated cells in a process of their own: requests come in, records go out. It writes nothing into the run's
folder, so that whatever kills it damages no record.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import signal
import socket
import sys
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from tlbench.backbones.network import UNREACHABLE
from tlbench.campaign.answers import Answering
from tlbench.campaign.leaving import leaving
from tlbench.campaign.lifeline import tie_to
from tlbench.campaign.plugins import load_plugins
from tlbench.data.lent import accept
from tlbench.errors import UserError
from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.machine import layouts
from tlbench.machine.imports import uncollected
from tlbench.machine.usage import limit_data, one_arena
from tlbench.measure.place import Place
from tlbench.records.images import to_bytes
from tlbench.records.lines import encode
from tlbench.records.record import Record

PARTS: dict[str, Callable[..., Any]] = {"cell": Cell, "settings": Settings, "place": Place}
"""Key of a request -> what it becomes here."""


def main() -> None:
    """Serves requests until the parent closes the pipe."""
    line, requests, replies, files = map(int, sys.argv[2:])
    tie_to(line)
    _hear_signals()
    _be_killed_first()
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)
    for pipe in (requests, replies, files):
        os.set_inheritable(pipe, False)
    with open(requests, encoding="utf-8") as lines:
        first = json.loads(next(lines))
        answering = Answering(replies, first["word"])
        if first["limited"]:
            one_arena()
        try:
            _import(first["library"])
            answering.send(ready=True)
            setup = _setup(lines, answering.send)
            with socket.socket(fileno=files) as handed:
                _prepare(setup, handed)
            _serve(lines, answering.send)
        except UserError as error:
            answering.send(user_error=str(error))


def _import(library: str) -> None:
    """Imports what cells take, and what building a backbone of a source takes that is known already."""
    with uncollected():
        import tlbench.measure.cell  # noqa: F401
        from tlbench.backbones.sources import SOURCES

        if library:
            with contextlib.suppress(Exception):  # the cell that builds one says what is wrong
                SOURCES[library].ready()


def _setup(requests: IO[str], reply: Callable[..., None]) -> Mapping[str, Any]:
    """Returns what all cells of the run have in common; what is asked before that is told, is answered. Errors:
    UserError.
    """
    for line in requests:
        message: Mapping[str, Any] = json.loads(line)
        if "look" in message:
            from tlbench.campaign.checkpoints import look

            reply(looked=asdict(look(**message["look"], keep=True)))
        elif "profile" in message:
            from tlbench.campaign.profiling import answer

            reply(profiled=answer(message["profile"]))
        else:
            return message
    sys.exit(0)  # the parent has no cell for this process


def _prepare(setup: Mapping[str, Any], handed: socket.socket) -> None:
    """Makes this process what the run needs it to be. Errors: UserError."""
    load_plugins(setup["plugins"])
    UNREACHABLE.update(setup["unreachable"])
    for name in setup["images"]:
        _, loan, _, _ = socket.recv_fds(handed, 1, 2)
        if len(loan) == 2:  # not where this process may open no more files
            for file in loan:
                os.set_inheritable(file, False)
            accept({name: loan})
    layouts.hear(setup["layouts"])
    if setup["memory_limit"] is not None:
        _limit_memory(setup["memory_limit"])


def _serve(requests: IO[str], reply: Callable[..., None]) -> None:
    """Answers requests until there are no more, or until CUDA takes no more work from this process.

    Errors: UserError; any other error ends the process, and its traceback becomes the reason.
    """
    from tlbench.machine.device import broken_context
    from tlbench.measure import cell as run

    for number, line in enumerate(requests, start=1):
        request = json.loads(line)
        layouts.hear(request.get("layouts", {}))  # another process of the run may have measured since
        cell, settings, place = (kind(**request[key]) for key, kind in PARTS.items())
        reply(number=number, began=_environment(cell, settings))
        record = run.run_cell(cell, settings, place=place, **leaving(place))
        broken = bool(broken_context())
        told = {"broken": broken, "unreachable": UNREACHABLE, "layouts": layouts.told()}
        reply(number=number, record=encode(record), **told, **_images(record))
        if broken:
            return


def _images(record: Record) -> dict[str, str]:
    """Returns what is known of single images as a part of an answer; nothing where nothing is."""
    if record.per_image is None:
        return {}
    return {"images": b64encode(to_bytes(record.per_image.splits)).decode("ascii")}


def _environment(cell: Cell, settings: Settings) -> dict[str, Any]:
    """Returns the environment as the cell's record would describe it. Should it never come to one, what stands in for
    it must not seem to be of another machine.
    """
    import torch

    from tlbench.machine import environment as machine
    from tlbench.machine.process import set_up

    device = torch.device(cell.device)
    with set_up(settings.threads, cell.precision, settings.deterministic, settings.allocator, device) as process:
        return machine.environment(device, used=machine.settings(process.allocator))


def _hear_signals() -> None:
    """Lets the signals through that have a cell give up: an engine's process may have started this one with them held
    back.
    """
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})


def _be_killed_first() -> None:
    """Offers this process first to a kernel that has run out of memory."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _limit_memory(limit: int) -> None:
    """Limits heap and private maps, which is what a cell takes: the address space also holds libraries and
    reservations.

    Errors: UserError when the process has taken more already.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    taken = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData:"))
    if taken >= limit:
        raise UserError(
            f"--memory-limit of {limit / 1e6:,.0f} MB: a process takes {taken / 1e6:,.0f} MB before it builds "
            "anything; give more"
        )
    limit_data(limit)
