"""Checks the other tests that a run is asked for (--also-test, --corrupt), and says what of them records lack."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from tlbench.backbones import input_of
from tlbench.backbones.inputs import InputSpec
from tlbench.data import DATASETS, check_dataset, parse_dataset
from tlbench.data.corruptions import names_of
from tlbench.data.elsewhere import Elsewhere, check_classes
from tlbench.data.lent import lending
from tlbench.errors import NotApplicable, UserError, text_of
from tlbench.grid.cell import Cell
from tlbench.grid.grid import Grid
from tlbench.grid.other_tests import named
from tlbench.grid.settings import Settings
from tlbench.measure.images import describe_images, describe_other_images, load_images, load_other_images
from tlbench.records.record import Record

NAMED = 3
"""Most classes that a line names."""


def check_other_tests(grid: Grid, settings: Settings, say: Callable[[str], None], decode: bool) -> None:
    """Checks that each other data set can be read and has classes of each data set that is trained on; ``say`` is told,
    in lines, what of them is left out.

    Errors: UserError naming the test, and what to do about it.
    """
    if not (settings.also_test or settings.corrupt) or "train" not in grid.axes["task"]:
        return
    own = [name for name in grid.axes["dataset"] if DATASETS[parse_dataset(name)[0]].measures_accuracy]
    if not own:
        option = "--also-test" if settings.also_test else "--corrupt"
        raise UserError(
            f"{option} tests what was learned from labels, and {grid.axes['dataset'][0]} has none that mean anything; "
            "leave it away, or train on images with labels"
        )
    for text in settings.also_test:
        name, dataset = named(text)
        try:
            check_dataset(dataset)
            if not DATASETS[parse_dataset(dataset)[0]].measures_accuracy:
                raise UserError(f"{dataset} has no labels that mean anything; name another data set")
            for one in own:
                first = {axis: values[0] for axis, values in grid.axes.items()}
                cell = Cell(**{**first, "dataset": one, "task": "train"})
                among = f" beside {one}" if len(own) > 1 else ""
                for line in _about(cell, settings, dataset, grid.axes["backbone"], decode):
                    say(f"also tested on, {name}{among}: {line}")
        except UserError as error:
            raise UserError(f"--also-test {name}: {error}") from None


def check_trained(grid: Grid, settings: Settings) -> None:
    """Raises UserError where other tests are asked for and nothing is trained that could be tested."""
    if (settings.also_test or settings.corrupt) and "train" not in grid.axes["task"]:
        option = "--also-test" if settings.also_test else "--corrupt"
        raise UserError(f"{option} tests what was trained, and nothing is: leave it away, or add --task train,infer")


def _first_input(backbones: Sequence[str]) -> InputSpec | None:
    for name in backbones:
        with suppress(NotApplicable):
            return input_of(name)
    return None


def _about(cell: Cell, settings: Settings, dataset: str, backbones: Sequence[str], decode: bool) -> list[str]:
    """Says what one other data set has for a cell, and what is left out. Errors: UserError."""
    if (spec := _first_input(backbones)) is None:  # no cell is applicable, as each will say
        return []
    size = cell.image_size or spec.size
    try:
        with lending(settings.isolate != "none"):
            own = describe_images(cell, settings, spec, size, decode=decode)
            if own is not None:
                found = describe_other_images(cell, settings, (spec, size), dataset, own, decode=decode)
                if found is not None:
                    return _lines(found)
        _check_by_name(cell.dataset, dataset)
        return []
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # of a data set from outside, which may raise anything
        raise UserError(f"data set {dataset!r} cannot be read: {type(error).__name__}: {text_of(error)}") from None


def _check_by_name(own: str, other: str) -> None:
    """Raises UserError where the names of the files of two data sets tell already that no class is common."""
    classes = []
    for dataset in (own, other):
        name, path = parse_dataset(dataset)
        if (listed := DATASETS[name].listed) is None:
            return
        classes.append(listed(path).classes)
    check_classes(other, *classes)


def _lines(found: Elsewhere) -> list[str]:
    count = f"{len(found.labels):,} image{'s' * (len(found.labels) != 1)}"
    parts = [f"{count} of {found.classes:,} class{'es' * (found.classes != 1)} of {found.name}"]
    if found.missing:
        parts.append(f"no image of {_classes(found.missing)}")
    if found.unknown:
        them = f"{found.left_out:,} image{'s' * (found.left_out != 1)}"
        parts.append(f"left out: {them} of {_classes(found.unknown)} that {_are(found.unknown)} not trained")
    if found.seen:
        parts.append(f"left out: {found.seen:,} of the very files that are trained on or chosen by")
    if found.dropped:
        parts.append(f"{found.dropped:,} cannot be read")
    return ["; ".join(parts)]


def _are(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _classes(names: Sequence[str]) -> str:
    shown = ", ".join([*map(repr, names[:NAMED]), *(["…"] if len(names) > NAMED else [])])
    return f"{len(names):,} class{'es' * (len(names) != 1)} ({shown})"


def decode_other_images(cell: Cell, settings: Settings) -> None:
    """Decodes the images of the other tests of a cell, so that processes can be lent them. What cannot be read any more
    the cells say themselves.
    """
    for text in settings.also_test:
        with suppress(Exception), lending(settings.isolate != "none"):
            spec = input_of(cell.backbone)
            size = cell.image_size or spec.size
            own = load_images(cell, settings, spec, size)
            load_other_images(cell, settings, (spec, size), named(text)[1], own)


# --- what records lack ----------------------------------------------------------------------------------------


def asked_tests(settings: Settings) -> dict[str, str]:
    """Returns name -> data set of all tests that settings ask for; of a corruption no data set."""
    return {**dict(map(named, settings.also_test)), **dict.fromkeys(names_of(settings.corrupt), "")}


def untested(record: Record, settings: Settings) -> list[str]:
    """Returns the tests that these settings ask for and a finished record lacks, or has of another data set."""
    if record.status != "ok" or record.cell.task != "train" or record.accuracy_test is None:
        return []
    return [
        name
        for name, dataset in asked_tests(settings).items()
        if name not in record.other_tests or (dataset and record.other_tests[name].get("dataset") != dataset)
    ]


def about_untested(records: Sequence[Record], settings: Settings) -> list[str]:
    """Says in a line how many of a run's records lack tests that are asked for now."""
    lacking = [names for record in records if (names := untested(record, settings))]
    if not lacking:
        return []
    tests = list(dict.fromkeys(name for names in lacking for name in names))
    shown = ", ".join(tests[:NAMED]) + (f" and {len(tests) - NAMED} more" if len(tests) > NAMED else "")
    some = f"{len(lacking):,} measurement{'s' * (len(lacking) != 1)}"
    return [f"{some} of this run {'were' if len(lacking) != 1 else 'was'} not tested on {shown}: "
            "tlbench run --resume RUN --rerun untested measures them anew"]  # fmt: skip
