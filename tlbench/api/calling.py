"""Measures from Python: `run` takes the axes and settings of ``tlbench run`` as keywords, and returns a `Run`."""

from __future__ import annotations

import inspect
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack, get_type_hints

from tlbench.api.finished import Run
from tlbench.api.keywords import HELP, Keywords, in_python, options_of
from tlbench.campaign.ahead import starting
from tlbench.campaign.plugins import again_by
from tlbench.console import say, surviving
from tlbench.errors import UserError

if TYPE_CHECKING:
    from tlbench.campaign.campaign import Campaign


@starting()
def run(images: str | Path | None = None, /, **given: Unpack[Keywords]) -> Run:
    """Trains and times every combination of the axes, as ``tlbench run`` does, and returns the finished `Run`.

    ``run("photos", backbone=["resnet18", "efficientnet_lite0"], freeze="full", seeds=range(3))`` measures a folder of
    images, ``dataset="folder:photos"`` is the same. An axis takes a value or several; the command line's texts mean
    what they mean there, switches are True or False as well. Progress goes to standard error; a notebook shows it.

    Ctrl-C, or a notebook's interrupt, ends it in good order: what is finished is kept, the way to go on is printed,
    and KeyboardInterrupt is raised. Cells that fail are no error: their records say why. Each backbone's cells are
    measured in a process of their own; ``isolate="none"`` takes this one, which knows what it has added to the tables.

    Errors: UserError in one line, naming the value, the choices and the next step, for what cannot be measured.
    """
    from tlbench.campaign.asked import parse_asked
    from tlbench.campaign.campaign import begin
    from tlbench.console import new_console
    from tlbench.progress import decoding_shown
    from tlbench.records.counting import aside

    try:
        asked = parse_asked(options_of(images, given)).or_first_grid()
        if asked.resume is None:
            asked = replace(asked, settings={"isolate": "backbone", **asked.settings})
        with decoding_shown(new_console(stderr=True)):
            campaign = begin(asked)
    except UserError as error:
        raise UserError(in_python(str(error))) from None
    for line in aside(campaign.damaged):
        say(line)
    _measure(campaign)
    return _finished(campaign, campaign.asked.keep)


@starting()
def find(
    images: str | Path | None = None,
    /,
    *,
    budget: str | float | None = None,
    max_latency_ms: float | None = None,
    **given: Unpack[Keywords],
) -> Run:
    """Finds the best cell for images within a budget of time, as ``tlbench find`` does, and returns the finished `Run`.

    ``find("photos", budget="20m", keep="best")`` races the usual backbones whose pretrained weights are here, four
    policies and two heads (docs/find.md names them). ``budget`` is a text such as ``2h``, or seconds, of everything;
    with ``resume`` of all times together. ``max_latency_ms`` leaves out what takes longer for one image. The other
    keywords are those of `run`, but for what a race chooses itself: task, seeds, blocks, twins, retry_noisy, grid,
    rerun.

    Errors: UserError in one line, naming the value, the choices and the next step; KeyboardInterrupt, as `run`.
    """
    from tlbench.campaign.asked import parse_asked
    from tlbench.campaign.finding import Sought, begin_race, check_options
    from tlbench.cli.finding import race_progress
    from tlbench.console import new_console
    from tlbench.progress import decoding_shown
    from tlbench.records.counting import aside

    began = time.monotonic()
    try:
        options = options_of(images, given)
        check_options(options)
        with decoding_shown(new_console(stderr=True)):
            racing = begin_race(parse_asked(options), Sought(budget=budget, max_latency_ms=max_latency_ms), began)
    except UserError as error:
        raise UserError(in_python(str(error))) from None
    campaign = racing.campaign
    for line in aside(campaign.damaged):
        say(line)
    begun = campaign.store.folder
    try:
        with race_progress(racing) as progress:
            stopped_by = campaign.run(progress.start, progress.finish)
    except UserError as error:
        raise UserError(with_hint(in_python(str(error)), campaign)) from None
    _raise_stopped(stopped_by, f"what is finished is kept in {begun}; tlbench.find(resume={str(begun)!r}) goes on")
    try:
        return _finished(campaign, racing.keep, racing.why_not_kept)
    finally:
        racing.write()  # the making of the model is of the budget, too


# --- measuring ------------------------------------------------------------------------------------------------


def _measure(campaign: Campaign) -> None:
    """Measures what is left. Errors: KeyboardInterrupt where a signal ended it; UserError, as `Campaign.run`."""
    from tlbench.campaign.twins import ROLE
    from tlbench.cli.running import progress_of

    begun = campaign.store.folder  # made before the first cell, so that its name can be said whatever happens
    try:
        with progress_of(campaign) as progress:
            stopped_by = campaign.run(progress.start, progress.finish)
    except UserError as error:
        raise UserError(with_hint(in_python(str(error)), campaign)) from None
    done = f"{len(campaign.planned) - len(campaign.undone)} of {len(campaign.planned)} measurements are finished"
    _raise_stopped(stopped_by, f"{done} and kept in {begun}; tlbench.run(resume={str(begun)!r}) goes on")
    if campaign.plan.settings.twins and not any(record.role == ROLE for record in campaign.current()):
        say("twins: no finished cell has timed rounds of its own, none was measured again")
    if why := campaign.reason_to_stop:
        say(f"stopped before its end: {in_python(why)}; {done}")


def _raise_stopped(stopped_by: int | None, words: str) -> None:
    """Raises KeyboardInterrupt where a signal has ended a run, with words on what is there and how it goes on."""
    if stopped_by is None:
        return
    told = f"stopped: {words}"
    say(told)
    if stopped_by != signal.SIGINT:
        signal.raise_signal(stopped_by)  # whoever sent it meant this process
    raise KeyboardInterrupt(told)


def _finished(campaign: Campaign, keep: str | None, why_not: Callable[[], str] = lambda: "") -> Run:
    """Returns what was measured, with the picked cell's model kept where that is wanted; that this fails is said, and
    costs nothing else.
    """
    made = Run(campaign.store.folder, campaign.asked.settings.get("metric"))
    if keep is not None:
        again = again_by("fit", made.folder, campaign.asked.plugins)
        with surviving("the model is not kept", f"{again} makes it"):
            from tlbench.campaign.ending import is_there, shortcomings
            from tlbench.campaign.fitting import Moved, keep_best

            if (lacking := shortcomings(campaign)) and not is_there(campaign):
                raise UserError(f"the model is not kept: {lacking[0]}")
            if why := why_not():
                raise UserError(f"the model is not kept: {why}; {again} makes it")
            moved = Moved(places=campaign.places, data_root=campaign.plan.settings.data_root)
            keep_best(made.records, made.folder, moved)
    return made


def with_hint(message: str, campaign: Campaign) -> str:
    """Adds what to do to the error that a process of its own does not know a name that the check has found."""
    if not message.startswith("unknown ") or campaign.plan.settings.isolate == "none":
        return message
    return (
        f"{message}; this process knows it, those that measure do not: put it into a file and give plugins=FILE, or "
        "measure here with isolate='none'"
    )


# --- what editors and help show -------------------------------------------------------------------------------


def _signature() -> inspect.Signature:
    hints = get_type_hints(Keywords)
    plain = inspect.signature(run)
    first = [p for p in plain.parameters.values() if p.kind is p.POSITIONAL_ONLY]
    named = [inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hints[n]) for n in HELP]
    return plain.replace(parameters=[*first, *named])


run.__signature__ = _signature()  # type: ignore[attr-defined]
run.__doc__ = inspect.cleandoc(run.__doc__ or "") + "\n\n" + "\n".join(f"{name}: {text}" for name, text in HELP.items())
