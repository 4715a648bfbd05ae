"""Whether sets of classes keep their promise ("holds the right class in 95 % of cases"), on a run's own test images.

    python bench/sets.py RUN [--id ID] [--coverage 0.95] [--unknown 10] [--retrain 1]

Of the cell that the verdict names, or of `--id`, from its kept logits; nothing is trained but with `--retrain`:

- *halves*: one random half of the test images calibrates, the other is asked, 1,000 times. Here the promise must hold,
  whatever the model is worth, since both halves are drawn alike;
- *as it comes*: the validation images calibrate, as in a model of `tlbench fit`, and all test images are asked. Where
  test images are not like validation images, this falls short, and how far is what a person has to know;
- *unknown, masked*: some classes are taken out of the answers, and test images of these are asked, drawn anew 20 times.
  A frozen backbone has not learnt them, but a trained one has: then this flatters;
- *unknown, trained without them* (`--retrain N`): the cell is trained again on images of the other classes alone, N
  times, which is what meeting an unknown class really is.

A run in folds has no such model: each fold's is another one, which has not seen its own images. It is refused.

Undecided is an image whose set is not exactly one class. Test images calibrate nothing that is kept.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tlbench.campaign.fitting import chosen
from tlbench.errors import UserError
from tlbench.kept import conformal
from tlbench.records.images import SplitResults
from tlbench.records.record import Record
from tlbench.records.run_folder import load

DRAWS = 20
"""Choices of unknown classes that are masked."""
NEEDED = "the logits of validation and test images (--logits off left them out, or an older version)"

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Held:
    """Says how often sets held the right class."""

    what: str
    calibrated: int
    """Images that sets were calibrated on."""
    asked: int
    coverage: float | None
    """The share of images whose set holds their class; of several trials the mean. None where no set can."""
    spread: tuple[float, float] | None = None
    """What 95 of 100 trials lie between."""
    undecided: float
    """The share of images whose set is not exactly one class."""
    empty: float
    """The share of images whose set is no class at all."""
    remark: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="folder of a run, or its name in results/")
    parser.add_argument("--id", help="of a record (default: the one that `tlbench fit` takes)")
    parser.add_argument("--coverage", type=float, default=conformal.DEFAULT)
    parser.add_argument("--halves", type=int, default=1000, help="random halves (default 1000)")
    parser.add_argument("--unknown", type=int, default=10, help="classes held out (default 10)")
    parser.add_argument("--retrain", type=int, default=0, help="times that the cell is trained without some classes")
    given = parser.parse_args()
    try:
        conformal.check_coverage(given.coverage)
        record = chosen(load(given.run).records, given.id)
        check_whole(record)
        val, test = results_of(record)
        print(f"{record.id}: {len(val.labels)} validation and {len(test.labels)} test images\n")
        rows = [halves(test, given.coverage, given.halves), as_it_comes(val, test, given.coverage)]
        if classes_left(test, given.unknown) < 2:
            print(f"unknown classes: left out; {given.unknown} of {width(test)} classes leave no choice among others\n")
        else:
            rows += masked(val, test, given.coverage, given.unknown)
            for number in range(given.retrain):
                rows += retrained(record, given.coverage, given.unknown, number)
    except UserError as error:
        raise SystemExit(str(error)) from None
    print("\n".join(table(rows, given.coverage)))


def check_whole(record: Record) -> None:
    """Raises UserError for a record of a fold: what its model does on the images of one fold says nothing of the model
    of all images that `tlbench fit` makes, nor of the sets that this promises.
    """
    if record.cell.fold is not None:
        raise UserError(
            f"the record {record.id!r} is of a fold ({record.cell.fold}), whose model alone it tells of; give a run "
            "that was measured with --folds off"
        )


def results_of(record: Record) -> tuple[SplitResults, SplitResults]:
    """Returns what a record's model said of validation and test images. Errors: UserError where it keeps no logits."""
    kept = record.per_image
    found = [kept.split(name) if kept is not None else None for name in ("val", "test")]
    val, test = found
    if val is None or test is None or val.logits is None or test.logits is None:
        raise UserError(f"the record {record.id!r} lacks {NEEDED}; run it again")
    return val, test


def width(results: SplitResults) -> int:
    """Returns the number of classes that were answered among."""
    assert results.logits is not None
    return int(results.logits.shape[1])


def classes_left(results: SplitResults, unknown: int) -> int:
    """Returns how many classes are left without the unknown ones."""
    return width(results) - unknown


# --- known classes --------------------------------------------------------------------------------------------


def halves(test: SplitResults, coverage: float, trials: int) -> Held:
    """Returns how often sets hold the right class of one half of the test images, calibrated on the other."""
    shares = conformal.softmax(_logits(test))
    labels = test.labels.astype(np.int64)
    scores = 1 - shares[np.arange(len(labels)), labels]
    chance, half = np.random.default_rng(0), len(labels) // 2
    found = np.empty((trials, 3))
    for trial in range(trials):
        order = chance.permutation(len(labels))
        limit = conformal.limit_of(np.sort(scores[order[:half]]).tolist(), coverage)
        asked = order[half:]
        sizes = conformal.sets_of(shares[asked], limit).sum(1)
        found[trial] = (scores[asked] <= limit).mean(), (sizes != 1).mean(), (sizes == 0).mean()
    low, high = np.quantile(found[:, 0], [0.025, 0.975])
    return Held(
        what=f"{trials:,} halves", calibrated=half, asked=len(labels) - half, coverage=float(found[:, 0].mean()),
        spread=(float(low), float(high)), undecided=float(found[:, 1].mean()), empty=float(found[:, 2].mean()),
    )  # fmt: skip


def as_it_comes(val: SplitResults, test: SplitResults, coverage: float) -> Held:
    """Returns how often sets that validation images calibrate hold the right class of test images, as a card has it."""
    shares, labels = conformal.softmax(_logits(test)), test.labels.astype(np.int64)
    scores = conformal.scores_of(conformal.softmax(_logits(val)), val.labels.astype(np.int64)).tolist()
    held = _asked(shares, labels, scores, coverage, "as it comes")
    if coverage != conformal.DEFAULT or len(scores) < conformal.fewest(coverage):
        return held
    short = conformal.held_against(scores, shares, labels)["short"]
    return replace(held, remark="falls short beyond chance" if short else "within chance")


def _asked(
    shares: Floats, labels: NDArray[np.int64] | None, scores: Sequence[float], coverage: float, what: str
) -> Held:
    """Returns how sets of a calibration do on images; without ``labels`` none of their classes can be in a set."""
    limit = conformal.limit_of(scores, coverage)
    inside = conformal.sets_of(shares, limit)
    sizes = inside.sum(1)
    return Held(
        what=what,
        calibrated=len(scores),
        asked=len(shares),
        coverage=None if labels is None else float(inside[np.arange(len(labels)), labels].mean()),
        undecided=float((sizes != 1).mean()),
        empty=float((sizes == 0).mean()),
    )


def _logits(results: SplitResults) -> NDArray[np.float16]:
    assert results.logits is not None
    return results.logits


# --- unknown classes ------------------------------------------------------------------------------------------


def masked(val: SplitResults, test: SplitResults, coverage: float, unknown: int) -> list[Held]:
    """Returns how sets do on test images of classes that are taken out of the answers, and on those of the others."""
    chance = np.random.default_rng(0)
    trials = [_masked(val, test, coverage, chance.permutation(width(test))[:unknown]) for _ in range(DRAWS)]
    return [_mean(some, name) for some, name in zip(zip(*trials, strict=True), ("unknown", "known"), strict=True)]


def _masked(val: SplitResults, test: SplitResults, coverage: float, out: NDArray[np.int64]) -> tuple[Held, Held]:
    kept = np.setdiff1d(np.arange(width(test)), out)
    place = np.full(width(test), -1)
    place[kept] = np.arange(len(kept))

    def of(results: SplitResults) -> tuple[Floats, NDArray[np.int64]]:
        return conformal.softmax(_logits(results)[:, kept]), place[results.labels.astype(np.int64)]

    (calibrating, right), (asked, labels) = of(val), of(test)
    scores = conformal.scores_of(calibrating[right >= 0], right[right >= 0]).tolist()
    known = labels >= 0
    return (
        _asked(asked[~known], None, scores, coverage, "unknown"),
        _asked(asked[known], labels[known], scores, coverage, "known"),
    )


def _mean(trials: Sequence[Held], name: str) -> Held:
    """Returns the means of trials; the spread is that of the undecided share where nothing can be covered."""
    covered = [one.coverage for one in trials if one.coverage is not None]
    undecided = np.array([one.undecided for one in trials])
    low, high = 100 * np.quantile(undecided, [0.025, 0.975])
    return Held(
        what=f"{name}, masked",
        calibrated=round(float(np.mean([one.calibrated for one in trials]))),
        asked=round(float(np.mean([one.asked for one in trials]))),
        coverage=float(np.mean(covered)) if covered else None,
        undecided=float(undecided.mean()),
        empty=float(np.mean([one.empty for one in trials])),
        remark=f"{len(trials)} draws, undecided {low:.1f} to {high:.1f} %",
    )


def retrained(record: Record, coverage: float, unknown: int, number: int) -> list[Held]:
    """Returns how sets of a model that was trained without some classes do on test images of these, and of the others.

    Errors: UserError where it cannot be trained; SystemExit for images that lie in no files.
    """
    from peers import listed

    from tlbench.kept.model import load_model

    rows = listed.photographs(record.cell.dataset)
    names = sorted({row.label for row in rows})
    out = set(np.random.default_rng(number).permutation(names)[:unknown].tolist())
    with tempfile.TemporaryDirectory() as folder:
        listed.write((row for row in rows if row.label not in out), Path(folder) / "lists")
        model = load_model(_fitted(record, Path(folder)))
        scores = model.card.calibration.scores
        strangers = [row.file for row in rows if row.label in out and row.part in ("test", "")]
        if not strangers:
            raise UserError(f"no test image is of {', '.join(sorted(out))}: nobody can be asked")
        found = [one.inside for one in model.predict(strangers, coverage=coverage) if not one.problem]
    sizes = np.array([len(inside or ()) for inside in found])
    told = model.card.calibration.test
    stranger = Held(
        what="unknown, trained without", calibrated=len(scores), asked=len(sizes), coverage=None,
        undecided=float((sizes != 1).mean()), empty=float((sizes == 0).mean()), remark=f"draw {number + 1}",
    )  # fmt: skip
    if not told or coverage != conformal.DEFAULT:
        return [stranger]
    known = Held(
        what="known, trained without", calibrated=len(scores), asked=told["images"],
        coverage=told["covered"] / told["images"], undecided=1 - told["decided"] / told["images"],
        empty=float("nan"), remark=f"draw {number + 1}",
    )  # fmt: skip
    return [stranger, known]


def _fitted(record: Record, folder: Path) -> Path:
    """Trains a record's cell on the photographs of lists, and returns the folder of its model. Errors: UserError."""
    from tlbench.kept.saving import Origin, save
    from tlbench.measure.build import BuiltCell
    from tlbench.measure.cell import run_cell
    from tlbench.measure.findings import Findings

    cell = replace(record.cell, dataset=f"list:{folder / 'lists'}?path=image&label=label")
    out, origin = folder / "model", Origin(run="without some classes", record=record)

    def keep(built: BuiltCell, findings: Findings) -> None:
        save(built, findings, out, origin)

    again = run_cell(cell, replace(record.settings, also_test=(), corrupt=()), take=keep)
    if again.status != "ok":
        raise UserError(f"{record.id!r} cannot be trained without some classes: {again.status}: {again.reason}")
    return out


# --- what is shown --------------------------------------------------------------------------------------------


def table(rows: Sequence[Held], coverage: float) -> list[str]:
    """Returns the lines of a table in Markdown."""
    head = ("sets", "calibrated on", "asked", f"held the class, of {100 * coverage:g} %", "undecided", "no class", "")
    return ["| " + " | ".join(cells) + " |" for cells in (head, ("---",) * len(head), *map(tuple, map(_cells, rows)))]


def _cells(held: Held) -> Iterator[str]:
    yield held.what
    yield f"{held.calibrated:,}"
    yield f"{held.asked:,}"
    covered = "–" if held.coverage is None else f"{100 * held.coverage:.1f} %"
    yield covered + (f" ({100 * held.spread[0]:.1f} to {100 * held.spread[1]:.1f})" if held.spread else "")
    yield f"{100 * held.undecided:.1f} %"
    yield "–" if np.isnan(held.empty) else f"{100 * held.empty:.1f} %"
    yield held.remark


if __name__ == "__main__":
    main()
