"""A cell in, a record out: `run_cell` builds, warms up, times and evaluates a cell."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import tlbench
from tlbench.errors import NotApplicable, Unavailable, UserError
from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.machine import ceiling, environment
from tlbench.machine import device as device_module
from tlbench.machine.clock import Clock, plain_clock
from tlbench.machine.noise import validity
from tlbench.machine.process import deterministic, own_garbage, release_memory, set_allocator, set_matmul_precision
from tlbench.measure.evaluation import DivergedAfter
from tlbench.measure.inference import _infer
from tlbench.measure.timed import _first_line
from tlbench.measure.training import _train
from tlbench.records.record import Record
from tlbench.train.loop import Diverged

KEEP = {
    "all": "activations of the frozen prefix stay in memory as far as the budget goes",
    "pretrained": "those of pretrained weights stay, which cells of other seeds share",
    "nothing": "the cell gives those that it used back",
}


@own_garbage()
def run_cell(
    cell: Cell,
    settings: Settings,
    clock: Clock = plain_clock,
    *,
    name: str | None = None,
    siblings: Iterable[str] = (),
    keep: str = "all",
    block: int = 0,
    role: str = "cell",
) -> Record:
    """Runs one cell. Whatever happens to it becomes a record with a status and a reason.

    ``siblings`` are the other freeze policies of the grid: what they will need of the frozen prefix is computed in
    the same pass. ``keep`` (`KEEP`) is what stays in memory of the frozen prefix for later cells. Errors: UserError
    alone, for bad input that shows only now (a broken image file).
    """
    started, begin = datetime.now(UTC), time.perf_counter()
    device = torch.device(cell.device)
    facts: dict[str, Any] = {}
    used = None
    before = environment.volatile(device)
    try:
        if settings.threads:
            torch.set_num_threads(settings.threads)
        set_matmul_precision(cell.precision)
        allocator = set_allocator(settings.allocator)
        release_memory()
        with deterministic(settings.deterministic) as facts["nondeterministic"]:
            used = environment.settings(allocator)
            if cell.task == "train":
                _train(cell, settings, clock, facts, siblings, keep)
            else:
                _infer(cell, settings, clock, facts)
        status, reason = "ok", ""
    except UserError:
        raise
    except (Exception, KeyboardInterrupt) as error:
        status, reason = _status_of(error, cell, facts)
        if status == "oom" and device.type == "cuda":
            torch.cuda.empty_cache()
    rounds = tuple(facts.get("rounds", ()))
    verdict, why = validity(
        [r.phase for r in rounds],
        [r.seconds for r in rounds],
        [r.noisy for r in rounds],
        [r.throttled for r in rounds],
    )
    follows = environment.arithmetic(cell.precision, facts.get("layout", {}).get("chosen"), cell.compile)
    return Record(
        id=name or cell.id,
        cell=cell,
        settings=settings,
        status=status,
        reason=reason,
        started=started.isoformat(timespec="seconds"),
        wall_seconds=time.perf_counter() - begin,
        suite_version=tlbench.__version__,
        suite_commit=environment.suite_commit(),
        block=block,
        role=role,
        validity=verdict,
        validity_reason=why,
        ceiling_flops_per_second=ceiling.ceiling(device, cell.precision),
        environment=environment.environment(device, used=used, follows=follows, before=before),
        **{**facts, "rounds": rounds, "nondeterministic": tuple(facts.get("nondeterministic", ()))},
    )


def _status_of(error: BaseException, cell: Cell, facts: dict[str, Any]) -> tuple[str, str]:
    """The status and the reason that an error gives a record."""
    if isinstance(error, NotApplicable):
        return "not_applicable", str(error)
    if isinstance(error, Unavailable):
        return "skipped", str(error)
    if isinstance(error, Diverged):
        epoch = len(facts.get("rounds", ())) + (not isinstance(error, DivergedAfter))
        return "diverged", f"epoch {epoch}: {error}" if epoch else str(error)
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", "stopped by the user"
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error):
        in_use = device_module.memory_in_use(torch.device(cell.device))
        used = f"with {in_use / 1e9:.2f} GB in use: " if in_use else ""
        return "oom", f"batch size {cell.batch_size}, {used}{_first_line(error) or type(error).__name__}"
    where = traceback.extract_tb(error.__traceback__)[-1]
    return "failed", f"{type(error).__name__}: {_first_line(error)} ({Path(where.filename).name}:{where.lineno})"
