"""Takes the figures of a record from it: what is derived from raw seconds and counts is computed here. One file, since
what a figure is taken from is looked for in one place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from operator import attrgetter
from statistics import fmean, median
from typing import Any

from tlbench.analysis.record_source import NOTHING, Source
from tlbench.data.corruptions import kind_of
from tlbench.grid.axes import AXES, TRAINING_ONLY
from tlbench.grid.cell import Cell
from tlbench.grid.grid import without_training
from tlbench.records import identity
from tlbench.records.identity import BY_HASH, changed_fields, weights_name
from tlbench.records.machine import short_hash

P95_IMAGES, P99_IMAGES = 20, 299
"""Single images that a percentile needs."""
LEAST_EPOCHS = 4
"""Epochs that a spread needs."""


def part(field: str, name: str) -> Callable[[Source], Any]:
    """Returns the reader of one value of a field of the record that holds a mapping."""
    mapping = attrgetter(field)
    return lambda source: (mapping(source.record) or NOTHING).get(name)


def weights_label(source: Source) -> str:
    """Says what the cell started from; before that is known, what was asked for."""
    return weights_name(source.record)


def majority(split: str) -> Callable[[Source], float | None]:
    """Returns the reader of the share of a split that its most frequent class has; None where it was not counted."""

    def read(source: Source) -> float | None:
        largest, images = source.mapping("largest_class").get(split), source.mapping("samples").get(split)
        return largest / images if largest and images else None

    return read


def each_round(name: str) -> Callable[[Source], list[Any]]:
    """Returns the reader of a field of every timed round, in order."""
    told = attrgetter(name)
    return lambda source: list(map(told, source.record.rounds))


def gpu_clocks_locked(source: Source) -> bool | None:
    """Tells whether somebody had set the GPU's clocks; None on a CPU, and where the GPU does not tell."""
    found = source.record.environment.get("volatile", {}).get("after", {}).get("gpu_clocks_locked")
    return found if isinstance(found, bool) else None


# --- times ----------------------------------------------------------------------------------------------------


def epoch_seconds(source: Source) -> float | None:
    """Returns the seconds of the median epoch."""
    return median(epochs) if (epochs := source.epochs) else None


def own_seconds(source: Source) -> float | None:
    """Returns the seconds of all rounds of training, which the cell measured itself."""
    return sum(source.seconds) if source.training and source.rounds else None


def shared_seconds(source: Source) -> float | None:
    """Returns what computing the training images' activations took, which cells with the same frozen prefix share.

    Older records tell the seconds of the whole pass alone: of these, the training images' share is taken.
    """
    if not source.training or not source.rounds:
        return None
    prefix = source.mapping("prefix")
    if (known := prefix.get("training_seconds")) is not None:
        return float(known)
    share = 1.0
    if prefix.get("images") and not prefix.get("views"):
        share = min(1.0, source.mapping("samples").get("train", prefix["images"]) / prefix["images"])
    return float(prefix.get("seconds") or 0) * share


def tuning_seconds(source: Source) -> float | None:
    """Returns the seconds that choosing its learning rates took a cell: trainings and evaluations of all trials; None
    where they were given.
    """
    known = [float(trial.get("seconds") or 0.0) for trial in source.record.lr_trials]
    return sum(known) if source.training and known else None


def epochs_used(source: Source) -> int | None:
    """Returns how many epochs a training took that may stop early; None where none could, or it did not finish."""
    return None if source.record.best_epoch is None else len(source.rounds)


def training_seconds(source: Source) -> float | None:
    """Returns the seconds of all rounds of training, of storing what they take of the prefix, of compiling, and of
    choosing the learning rates: a cell is charged what it cost.
    """
    own, shared = own_seconds(source), shared_seconds(source)
    more = (source.record.compile_seconds or 0.0) + (tuning_seconds(source) or 0.0)
    return None if own is None or shared is None else own + shared + more


def evaluation_seconds(source: Source) -> float | None:
    """Returns what evaluation took: after each epoch, on the test images, in other tests, and their share of the
    frozen prefix.
    """
    known = [r.evaluation_seconds for r in source.rounds if r.evaluation_seconds is not None]
    if source.record.test_seconds is not None:
        known.append(source.record.test_seconds)
    tests = [one.get("seconds") for one in source.mapping("other_tests").values()]
    known += [float(seconds) for seconds in tests if isinstance(seconds, float | int)]
    if not source.training or not known:
        return None
    prefix = source.mapping("prefix")
    return sum(known) + float(prefix.get("seconds") or 0) - (shared_seconds(source) or 0)


def fill_names(source: Source) -> list[str] | None:
    """Returns the names of the passes that computed the kept activations; None where a record does not tell."""
    prefix = source.mapping("prefix")
    if not prefix.get("seconds"):
        return []
    names = prefix.get("fills")
    return [str(name) for name in names] if names and all(names) else None


def images_per_second(source: Source) -> float | None:
    """Returns the images a second of the median round."""
    if not source.single_phase or not source.rounds:
        return None
    speeds = [r.samples / r.seconds for r in source.rounds if r.seconds > 0]
    return median(speeds) if speeds else None


def percentile_ms(share: float, least: int) -> Callable[[Source], float | None]:
    """Returns the reader of a percentile of single images, in milliseconds, or None for fewer than it needs."""

    def read(source: Source) -> float | None:
        seconds = source.record.latency_seconds
        return 1000 * quantile(seconds, share) if len(seconds) >= least else None

    return read


def quantile(values: Sequence[float], share: float) -> float:
    """Interpolates linearly between the order statistics, as numpy does by default."""
    return quantiles(values, [share])[0]


def quantiles(values: Sequence[float], shares: Iterable[float]) -> list[float]:
    """Returns several quantiles of values, which are sorted once."""
    ordered = sorted(values)
    return [_interpolated(ordered, share) for share in shares]


def _interpolated(ordered: Sequence[float], share: float) -> float:
    position = share * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def epoch_iqr_seconds(source: Source) -> float | None:
    """Returns the third less the first quartile of the epochs, in seconds."""
    epochs = source.epochs
    if len(epochs) < LEAST_EPOCHS:
        return None
    first, third = quantiles(epochs, (0.25, 0.75))
    return third - first


def phases(source: Source) -> dict[str, float] | None:
    """Returns the median seconds of each phase's rounds; phases cost different amounts, so none are pooled."""
    if not source.training or source.single_phase:
        return None
    seconds_of: dict[str, list[float]] = {}
    for r in source.rounds:
        seconds_of.setdefault(r.phase, []).append(r.seconds)
    return {name: median(seconds) for name, seconds in seconds_of.items()} or None


# --- other tests ---------------------------------------------------------------------------------------------


def other_tests(source: Source) -> dict[str, float] | None:
    """Returns the accuracy of each test beside the test images; None where there was none."""
    tests = source.mapping("other_tests")
    known = {name: value for name, one in tests.items() if isinstance(value := one.get("accuracy"), float | int)}
    return known or None


def accuracy_corrupted(source: Source) -> float | None:
    """Returns the mean accuracy over all corruptions that were tested; None where none was."""
    found = [value for name, value in (other_tests(source) or {}).items() if kind_of(name)]
    return fmean(found) if found else None


# --- work -----------------------------------------------------------------------------------------------------


def flops(name: str) -> Callable[[Source], float | None]:
    """Returns the reader of operations an image; of a schedule, whose phases differ, the mean over its epochs."""

    def read(source: Source) -> float | None:
        counted = source.mapping("flops").get(name)
        if not isinstance(counted, Mapping):
            return counted if isinstance(counted, int | float) else None
        by_epoch = [counted[r.phase] for r in source.rounds if r.phase in counted]
        return fmean(by_epoch) if by_epoch and len(by_epoch) == len(source.rounds) else None

    return read


def ceiling_share(source: Source) -> float | None:
    """Divides the operations a second by the ceiling: of a training step less what is kept, or of a forward pass."""
    work = flops("train_step")(source) if source.training else source.mapping("flops").get("forward")
    kept = flops("prefix")(source) if source.training else None
    speed, ceiling = images_per_second(source), source.record.ceiling_flops_per_second
    if work is None or speed is None or not ceiling:
        return None
    return math.prod([work - (kept or 0), speed, 1 / ceiling])


# --- what the cell is -----------------------------------------------------------------------------------------


_DEFAULTS = [(name, axis, getattr(Cell(), name)) for name, axis in AXES.items() if name in vars(Cell())]


def changed_axes(cell: Cell, without: Container[str] = ()) -> dict[str, str]:
    """Maps each axis that matters for the cell's task and is not at its default to ``train-size=150``."""
    values = vars(cell)
    return {
        name: f"{axis.option}={axis.alike(value) if axis.alike is not None else value}"
        for name, axis, default in _DEFAULTS
        if (value := values[name]) != default
        and name not in without
        and not (axis.training_only and cell.task == "infer")
    }


def variant(source: Source) -> str:
    """Writes the axes that are not at their defaults and have no column of their own."""
    cell = source.cell
    if id(cell) not in source.known.variants:
        from tlbench.analysis.figures import NAMED

        source.known.variants[id(cell)] = " ".join(changed_axes(cell, without=NAMED).values())
    return source.known.variants[id(cell)]


def configuration(source: Source) -> str:
    """Returns a short hash that is the same for all that may be averaged over seeds and blocks.

    That of a record whose images are unknown is as its own version made it: it names a row of reports that exist.
    """
    return _once(source.known.configurations, source, _configuration)


def _configuration(source: Source) -> str:
    cell, record = without_training(source.cell), source.record
    if record.images_sha256 is None:
        asked = changed_fields(cell, ("seed",))
        return short_hash({**asked, "machine": source.machine, "source": record.weights.get("source")})
    return short_hash({**changed_fields(cell, BY_HASH), **_same_thing(source)})


def inference(source: Source) -> str:
    """Returns a short hash that a training cell shares with the inference cell of the same model; of a record whose
    images are unknown as `configuration`.
    """
    return _once(source.known.inferences, source, _inference)


def _inference(source: Source) -> str:
    if source.record.images_sha256 is None:
        return short_hash({**changed_fields(source.cell, ("task", *TRAINING_ONLY)), "machine": source.machine})
    same = _same_thing(source)
    same["images"] = source.record.relabelled.get("images_sha256", same["images"])
    return short_hash({**changed_fields(source.cell, ("task", *TRAINING_ONLY, *BY_HASH)), **same})


def _once(known: dict[tuple[Any, ...], str], source: Source, make: Callable[[Source], str]) -> str:
    """Returns a hash of the record's cell and of what `_same_thing` says, made once for records that agree in both."""
    record = source.record
    place = id(source.cell), source.machine, record.images_sha256, id(record.weights), record.image_size
    if place not in known:
        known[place] = make(source)
    return known[place]


def _same_thing(source: Source) -> dict[str, Any]:
    """Returns what stands for the fields of the cell that no axis is compared by."""
    record = source.record
    return {
        "machine": source.machine,
        "images": record.images_sha256,
        "weights": identity.weights_label(record),
        "image_size": record.image_size,
    }


def hardware(source: Source) -> str:
    """Returns a short hash that two records share if hardware and libraries are the same, whatever torch's settings."""
    return source.hardware
