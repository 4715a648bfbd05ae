"""Says from Python what a grid will cost: `plan` takes the keywords of `tlbench.run` and measures none of its cells."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from tlbench.api.keywords import Keywords, in_python, options_of
from tlbench.console import say
from tlbench.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


def plan(images: str | Path | None = None, /, **given: Unpack[Keywords]) -> pd.DataFrame:
    """Returns what each cell of a grid will cost, a row each: ``prefix_seconds`` (of the frozen layers, at the first
    cell that needs them), ``epoch_seconds``, ``total_seconds`` and ``peak_memory_bytes``, the latter two with the ends
    (``_low``, ``_high``) that hold in nine of ten, ``fits`` (yes, perhaps, no) and what tells (``by``).

    Backbones of which this machine has no profile are profiled by a few steps on random images, and that is kept.
    ``frame.attrs`` has the ``seconds`` of the whole, and ``seconds_low`` and ``seconds_high``.

    Errors: UserError in one line, naming the value, the choices and the next step, for what cannot be measured.
    """
    import pandas as pd

    from tlbench.api.calling import with_hint
    from tlbench.campaign.asked import parse_asked
    from tlbench.campaign.campaign import begin
    from tlbench.campaign.foretelling import foretell

    if given.get("keep") is not None:
        raise UserError("keep: a plan trains no model that could be kept; leave it away")
    try:
        asked = parse_asked(options_of(images, given)).or_first_grid()
        if asked.resume is None:
            asked = replace(asked, settings={"isolate": "backbone", **asked.settings})
        campaign = begin(replace(asked, measures=False))
        try:
            found = foretell(campaign, say)
        except UserError as error:
            raise UserError(with_hint(str(error), campaign)) from None
    except UserError as error:
        raise UserError(in_python(str(error))) from None
    frame = pd.DataFrame([row.values() for row in found.rows])
    low, high = found.interval
    frame.attrs |= {"seconds": found.seconds, "seconds_low": low, "seconds_high": high}
    return frame
