"""A cell in, a record out: `run_cell` builds, warms up, times and evaluates a cell."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import torch

import tlbench
from tlbench.errors import LostInput, NotApplicable, Unavailable, UserError, place_of, text_of
from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.machine import environment as machine
from tlbench.machine.ceiling import ceiling
from tlbench.machine.clock import Clock, plain_clock
from tlbench.machine.device import check_context, memory_in_use, resolved
from tlbench.machine.noise import validity, witnessing
from tlbench.machine.process import Process, own_garbage, release_memory, set_up
from tlbench.measure.build import BuiltCell
from tlbench.measure.findings import Findings
from tlbench.measure.inference import Inference
from tlbench.measure.outcome import DivergedAfter
from tlbench.measure.place import ALONE, Place
from tlbench.measure.training import train
from tlbench.policies.parse import parse_policy
from tlbench.records.definitions import definitions
from tlbench.records.record import Record
from tlbench.train.compiling import own_graphs
from tlbench.train.loop import Diverged
from tlbench.train.room import leave_device

Take = Callable[[BuiltCell, Findings], None]
"""What is given a trained model and what was found of it."""
LOST = "what it needs cannot be had any more: "
"""Words that the reason of a cell begins with whose images or weights were lost after the run was checked."""


@own_garbage()
def run_cell(
    cell: Cell,
    settings: Settings,
    clock: Clock = plain_clock,
    place: Place = ALONE,
    take: Take | None = None,
) -> Record:
    """Runs one cell. Whatever happens to it becomes a record with a status and a reason.

    ``place`` says where the cell stands in its run. ``take`` is given the trained model with what was found of it, when
    all is measured; what it raises is the cell's error. Errors: UserError alone, for what concerns all cells alike (a
    name that this process does not know).
    """
    started, begin = datetime.now(UTC), time.perf_counter()
    device = torch.device(cell.device)
    before = machine.volatile(device)
    with (
        set_up(settings.threads, cell.precision, settings.deterministic, settings.allocator, device) as process,
        witnessing(place.shared),
    ):
        release_memory()
        used = machine.settings(process.allocator)
        ended = _measure(cell, settings, clock, place, process, take)
        if ended.status == "oom":
            release_memory()  # what the cell held is free now, and what follows needs some
        follows = machine.arithmetic(cell.precision, ended.fields.get("layout", {}).get("chosen"), cell.compile)
        rounds = ended.fields.get("rounds", ())
        verdict, why = validity(
            [r.phase for r in rounds],
            [r.seconds for r in rounds],
            [r.noisy for r in rounds],
            [r.throttled for r in rounds],
            # A cell that measured nothing has no times that its frozen prefix could spoil.
            fill=ended.fields.get("prefix", {}) if rounds else {},
            shared=place.shared,
        )
        return Record(
            id=place.name or cell.id,
            cell=cell,
            settings=settings,
            status=ended.status,
            reason=ended.reason,
            started=started.isoformat(timespec="seconds"),
            wall_seconds=time.perf_counter() - begin,
            suite_version=tlbench.__version__,
            suite_commit=machine.suite_commit(),
            block=place.block,
            role=place.role,
            **place.where,
            validity=verdict,
            validity_reason=why,
            ceiling_flops_per_second=ceiling(device, cell.precision),
            environment=machine.environment(device, used=used, follows=follows, before=before),
            nondeterministic=process.nondeterministic,
            definitions=definitions(cell),
            **ended.fields,
        )


@dataclass(frozen=True, kw_only=True)
class Ended:
    """Says how a cell ended, in plain values: its model and all that belongs to it is free."""

    status: str
    reason: str
    fields: dict[str, Any]
    """Fields of the record."""


def _measure(
    cell: Cell, settings: Settings, clock: Clock, place: Place, process: Process, take: Take | None = None
) -> Ended:
    """Trains the cell or runs its inference, and says how that ended. Errors: UserError.

    It begins anew where something can be done about an error before anything was timed: an operation without a
    deterministic form is let run, and once what earlier cells left on the device makes room. A copy of the process that
    the cell's code has forked, and let run on into ours, ends here: it would write the record once more.
    """
    cleared, own = False, os.getpid()
    while True:
        findings = Findings()
        findings.building.spares_the_device = cleared
        try:
            with own_graphs(cell.compile):
                if cell.task == "infer":
                    _infer(cell, settings, findings, clock)
                else:
                    _train(cell, settings, findings, clock, place)
                    if take is not None and findings.building.built is not None:
                        take(findings.building.built, findings)
            _end_copy(own)
            return Ended(status="ok", reason="", fields=findings.fields())
        except BaseException as error:  # SystemExit as well: the cell's code does not end the run
            _end_copy(own, error)
            if isinstance(error, UserError) and not isinstance(error, LostInput):
                raise
            fields = findings.fields_despite_errors()
            rounds = len(fields.get("rounds", ()))
            again = not rounds and process.accept(error)
            if not (rounds or again or cleared) and is_out_of_memory(error):
                again = cleared = leave_device(resolved(cell.device))
            if not again:
                status, reason = _status_of(error, cell, rounds)
                if status == "failed" and (why := check_context(torch.device(cell.device))):
                    reason += f"; the GPU takes no more work from this process ({why})"
                return Ended(status=status, reason=reason, fields=fields)
        # What a try has kept was measured in it: the next one is no taker of another cell's.
        if (built := findings.building.built) is not None and built.store is not None:
            built.store.forget(pretrained=False, other_seeds=False)
        del findings, built
        release_memory()


def _end_copy(own: int, error: BaseException | None = None) -> None:
    """Ends this process where it is another than the one that began the cell; with the status that it wants to end with
    where it wants to.
    """
    if os.getpid() != own:
        status = error.code if isinstance(error, SystemExit) else error
        os._exit(status if isinstance(status, int) else status is not None)


def _train(cell: Cell, settings: Settings, findings: Findings, clock: Clock, place: Place) -> None:
    expression = parse_policy(cell.freeze)
    built = findings.building.build(cell, settings, expression)
    try:
        train(built, expression, findings, clock, place)
    finally:
        backbone = findings.building.backbone
        if built.store is not None and backbone is not None and place.keep != "all":
            built.store.forget(backbone.weights.pretrained, other_seeds=place.keep == "pretrained")


def _infer(cell: Cell, settings: Settings, findings: Findings, clock: Clock) -> None:
    inference = findings.measured = Inference(findings.building.build(cell, settings))
    findings.peak_memory_bytes = inference.warm_up()
    findings.compile_seconds = inference.compile_seconds
    inference.run(clock)


ONE_VALUE = "Expected more than 1 value per channel"
"""Part of what torch says where BatchNorm trains on a single value."""


def _status_of(error: BaseException, cell: Cell, rounds: int) -> tuple[str, str]:
    """Returns the status and the reason that an error gives a record of so many finished rounds."""
    if isinstance(error, NotApplicable):
        return "not_applicable", str(error)
    if isinstance(error, Unavailable):
        return "skipped", str(error)
    if isinstance(error, Diverged):
        epoch = rounds + (not isinstance(error, DivergedAfter))
        return "diverged", f"epoch {epoch}: {error}" if epoch else str(error)
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", "stopped by the user"
    if isinstance(error, LostInput):
        return "failed", f"{LOST}{error}"
    if isinstance(error, SystemExit):
        code = "" if error.code is None else f" {_first_line(error)}"
        return "failed", f"SystemExit{code}: its code wanted to end the program ({place_of(error)})"
    if cell.batch_size == 1 and ONE_VALUE in str(error):
        return "not_applicable", (
            "BatchNorm has one value a channel to normalise in a batch of one image, which has no variance: take "
            "--batch-size 2 or more, or hold its statistics still with +bn=freeze at the policy (full+bn=freeze)"
        )
    if is_out_of_memory(error):
        in_use = memory_in_use(torch.device(cell.device))
        used = f"with {in_use / 1e9:.2f} GB in use: " if in_use else ""
        return "oom", f"batch size {cell.batch_size}, {used}{_first_line(error) or type(error).__name__}"
    return "failed", f"{type(error).__name__}: {_first_line(error)} ({place_of(error)})"


def is_out_of_memory(error: BaseException) -> bool:
    """Tells whether an error says that there was no memory, of the device or of the machine."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in text_of(error)


def _first_line(error: BaseException) -> str:
    return (text_of(error).strip().splitlines() or [""])[0][:300]
