"""Begins a race, new or one that goes on: which cells enter, for how long, and what it goes by."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from tlbench.analysis.raced import Raced, read
from tlbench.campaign.asked import Asked
from tlbench.campaign.budget import Budget, parse_budget, seconds_since_start
from tlbench.campaign.campaign import begin
from tlbench.campaign.entrants import ONE_EACH, axes_of, check_alike
from tlbench.campaign.racing import Racing
from tlbench.errors import UserError
from tlbench.grid.axes import AXES
from tlbench.records.run_folder import find_run

CHOSEN = {
    "task": "a race trains, and measures inference where --max-latency-ms asks for it",
    "seeds": "a race chooses its seeds",
    "blocks": "a race chooses what to repeat",
    "twins": "a race measures no cell twice",
    "retry-noisy": "a race goes by accuracies",
    "grid": "name what enters by --backbone, --freeze, --head",
    "rerun": "a race chooses what to measure",
}
"""Option of a run that a race has no room for -> why."""


@dataclass(frozen=True, kw_only=True)
class Sought:
    """Says what a race is to come to."""

    budget: str | float | None = None
    """Time that it may take, as a person writes it; of a race that goes on, all times together. None: as before."""
    max_latency_ms: float | None = None
    """Longest 95th percentile of the latency of single images; None: any."""


def check_options(given: Mapping[str, object], dashes: str = "--") -> None:
    """Raises UserError for an option of a run that means nothing in a race."""
    for name, why in CHOSEN.items():
        if given.get(name) not in (None, [], ()):
            raise UserError(f"{dashes}{name}: {why}; leave it away, or measure a grid")


def begin_race(asked: Asked, sought: Sought, began: float | None = None) -> Racing:
    """Returns the race that someone asks for, checked: a new one, or one that goes on. Its seconds count from
    ``began``, by `time.monotonic`; None: from the start of this process. Nothing is written yet.

    Errors: UserError naming the value, the choices and the next step.
    """
    began = time.monotonic() - seconds_since_start() if began is None else began
    seconds = None if sought.budget is None else parse_budget(sought.budget)
    before = None if asked.resume is None else _earlier(asked.resume)
    _check_latency(sought.max_latency_ms)
    if before is None:
        if seconds is None:
            raise UserError("a race needs a budget: say how long it may take, such as --budget 20m")
        axes = axes_of(asked.axes, with_latency=sought.max_latency_ms is not None)
        asked = replace(asked, axes=axes, settings={"isolate": "backbone", "twins": 0, **asked.settings})
    campaign = begin(asked)
    try:
        cells = campaign.plan.cells()  # of a race that goes on with those that enter now
        check_alike({name: [getattr(cell, name) for cell in cells] for name in (*ONE_EACH, "fold", "weights")})
        if sought.max_latency_ms and not any(step.cell.task == "infer" for step in campaign.planned):
            raise UserError(
                f"--max-latency-ms: the race of {asked.resume!r} began without, so that it measures no latency; "
                "begin a new one with it"
            )
        racing = Racing(
            campaign=campaign,
            budget=Budget(
                seconds=before.budget_seconds if seconds is None and before is not None else float(seconds or 0),
                before=before.spent_seconds if before is not None else 0.0,
                began=began,
            ),
            max_latency_ms=sought.max_latency_ms or (before.max_latency_ms if before is not None else None),
            keep=asked.keep or (before.keep if before is not None else None),
        )
        racing.check_affordable()
    except BaseException:
        campaign.release()
        raise
    campaign.asked = replace(campaign.asked, keep=racing.keep)  # a race that goes on keeps what it began to keep
    campaign.source, campaign.seconds_left = racing, lambda: racing.budget.left
    return racing


def _check_latency(limit: object) -> None:
    """Raises UserError for a longest latency that is none."""
    if limit is None:
        return
    if not isinstance(limit, int | float) or not 0 < limit < math.inf:
        shown = f"{limit:g}" if isinstance(limit, float) else repr(limit)
        raise UserError(f"--max-latency-ms {shown} is not a time above 0, in milliseconds")


def _earlier(run: str) -> Raced:
    """Returns what a race that goes on has come to. Errors: UserError where there is none."""
    folder = find_run(run)
    found = read(folder if folder.is_dir() else folder.parent)
    if found is None:
        raise UserError(f"{run!r} is the run of no race: tlbench run --resume {shlex.quote(run)} goes on with it")
    return found


NOTHING_LEFT = "nothing more is measured; a larger --budget, that of all times together, goes on"


def words_of(racing: Racing) -> list[tuple[str, str]]:
    """Says, in lines as `tlbench.campaign.outlook` has them, what a race is about to do."""
    from tlbench.grid.values import about, taken

    left = max(racing.budget.seconds - racing.budget.spent, 0.0)
    ends = time.strftime("%H:%M", time.localtime(time.time() + left))
    cells = list(racing.cells.values())
    differ = [name for name in ("backbone", "freeze", "head") if len({getattr(c[0], name) for c in cells}) > 1]
    by = f", by {', '.join(AXES[name].option for name in differ)}" if differ else ""
    folds = f", each in {len(cells[0])} folds" if len(cells[0]) > 1 else ""
    spent = f"; {taken(racing.budget.spent)} are spent" if racing.budget.before else ""
    return [
        ("race", f"{len(cells)} cell{'s' * (len(cells) != 1)} enter{'s' * (len(cells) == 1)}{by}{folds}; what falls "
                 "behind on validation images is not continued"),
        ("budget", f"{about(racing.budget.seconds)}{spent}: {f'it ends by {ends}' if left else NOTHING_LEFT}"),
    ]  # fmt: skip
