"""Labels that may be wrong: images whose class is contradicted by models that have not seen them.

Each image of a cross-validation is tested once a seed, by a model that was trained without it. What these models give
to the classes is averaged over seeds; an image is the more suspect, the less probable its own class is (self-confidence
of confident learning: Northcutt, Jiang and Chuang 2021; compared with other scores by Kuan and Mueller 2022). Of scores
that were tried it found the most wrong labels where these are known (docs/data.md). A list to look at, not a verdict:
the hardest images stand high in it, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tlbench.analysis.figures import Row
from tlbench.analysis.folded import fold_number, folds_in
from tlbench.data.relabel import of_files, read_corrections
from tlbench.errors import UserError
from tlbench.records.images import SplitResults

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

COLUMNS: dict[str, str] = {
    "file": "path of the image, relative to the folder of the data set",
    "given": "the class that it has",
    "likelier": "the most probable of the other classes",
    "score": "probability that it is of any other class than the given one, from 0 to 1",
    "class": "write the right class here where the given one is wrong, and give the file to --relabel; what an earlier "
    "list has corrected stands here already",
}
"""Columns of the list -> what they mean."""


@dataclass(frozen=True, kw_only=True)
class Suspects:
    """Holds all images of a data set, the most suspect first."""

    rows: tuple[Mapping[str, Any], ...]
    """With the names of `COLUMNS`; ``image``, the bytes that identify it; and ``contradicted``."""
    configuration: Mapping[str, Any]
    """Whose predictions they are from: a row of `tlbench.analysis.summary.summarise`."""
    seeds: int
    """How many models have judged each image, at the most."""
    note: str = ""
    """What a person should know of corrections that the run was measured with; empty without any."""

    @property
    def contradicted(self) -> int:
        """Returns how many images have another class that is likelier than their own."""
        return sum(row["contradicted"] for row in self.rows)


def suspects_of(summary: Sequence[Mapping[str, Any]], dataset: str | None = None) -> Suspects:
    """Ranks the images of a data set by the most accurate configuration, on validation images, that was measured in
    folds and has logits.

    Errors: UserError where there is none, or several data sets and ``dataset`` does not say which.
    """
    rows = [row for row in summary if row["task"] == "train" and row["status"] == "ok" and folds_in(row)]
    rows = [row for row in rows if row["accuracy_test"] is not None]
    if not rows:
        raise UserError(
            "no finished cell was measured in folds, so that most images were trained on; run with --folds 5, which "
            "tests each image once, by a model that has not seen it"
        )
    names = list(dict.fromkeys(row["dataset"] for row in rows))
    if dataset is not None:
        rows = [row for row in rows if row["dataset"] == dataset]
    if not rows or (dataset is None and len(names) > 1):
        raise UserError(f"which data set? Give --dataset one of: {', '.join(names)}")
    whole = [row for row in rows if not _missing(row)]
    if not whole:
        raise UserError(
            f"{_missing(rows[0])}: only the images of the other folds could be ranked; go on with the run by --resume"
        )
    for row in sorted(whole, key=lambda row: -(row["accuracy_val"] or 0.0)):
        models = _models(row["group"])
        if models:
            ranked, seeds = ranking(models)
            earlier, note = _earlier(row["group"], [one["file"] for one in ranked])
            filled = tuple({**one, "class": earlier.get(one["file"], "")} for one in ranked)
            return Suspects(rows=filled, configuration=row, seeds=seeds, note=note)
    raise UserError(
        "no cell that was measured in folds has the logits of its images (--logits off, an older version, or files "
        "that are gone); run with --folds 5 and --logits on"
    )


def _earlier(group: Iterable[Row], files: Sequence[str]) -> tuple[dict[str, str], str]:
    """Returns the classes that an earlier list has corrected, by file, and what there is to say of it: the new list
    takes its place, and would undo what it lacks.
    """
    records = [item.record for item in group if item.record is not None and item.record.cell.relabel is not None]
    if not records:
        return {}, ""
    record = records[0]
    path = record.places.get("relabel") or record.cell.relabel or ""
    why = "it is another file now"
    try:
        found = read_corrections(path)
    except UserError as error:
        why = str(error).removeprefix(f"--relabel {path!r} ")
    else:
        if found.sha256 == record.relabelled.get("sha256"):
            there = of_files(found, files)
            return there, f"{len(there):,} corrections of {path!r} are in the list, too: it takes that one's place"
    return {}, (
        f"the corrections of {path!r}, which the run was measured with, are not in the list ({why}): add them before "
        "it is given to --relabel in their place"
    )


def _missing(row: Mapping[str, Any]) -> str:
    """Names the folds that a seed of a configuration has no result of; empty where all are there."""
    there: dict[int, set[int]] = {}
    for item in row["group"]:
        if item.status == "ok":
            there.setdefault(item.seed, set()).add(fold_number(item))
    for seed, folds in there.items():
        if lacking := sorted(set(range(1, folds_in(row) + 1)) - folds):
            return f"fold {', '.join(map(str, lacking))} of {folds_in(row)} of seed {seed} was not measured"
    return ""


def _models(group: Iterable[Row]) -> list[SplitResults]:
    """Returns what each fold of each seed said of its test images, once; nothing where some fold does not tell."""
    found: dict[tuple[int, str | None], SplitResults] = {}
    for item in group:
        if item.status != "ok" or item.record is None or (item.seed, item.fold) in found:
            continue
        results = item.record.per_image and item.record.per_image.split("test")
        if not results or results.logits is None or not results.classes:
            return []
        found[item.seed, item.fold] = results
    return list(found.values())


def ranking(models: Sequence[SplitResults]) -> tuple[list[dict[str, Any]], int]:
    """Returns a row for each image, the most suspect first, and how many models have judged one at the most."""
    import numpy as np

    of_image: dict[bytes, list[tuple[SplitResults, int]]] = {}
    for results in models:
        for place, image in enumerate(results.images):
            of_image.setdefault(_key(results, place, image.tobytes()), []).append((results, place))
    shares = {id(results): probabilities(results.logits) for results in models}
    rows = []
    for judged in of_image.values():
        results, place = judged[0]
        mean = np.mean([shares[id(one)][at] for one, at in judged], axis=0, keepdims=True)
        score, likelier = contradiction(mean, results.labels[place : place + 1])
        label = int(results.labels[place])
        image = results.images[place].tobytes()
        rows.append(
            {
                "file": results.files[place] if results.files else f"sha256:{image.hex()}",
                "given": results.classes[label],
                "likelier": results.classes[int(likelier[0])],
                "score": float(f"{score[0]:.5g}"),
                "contradicted": bool(mean[0, likelier[0]] > mean[0, label]),
                "own": float(mean[0, label]),
                "class": "",
                "image": image,
            }
        )
    rows.sort(key=lambda row: (row["own"], row["file"]))  # of which the score says less where it is nearly 1
    return rows, max(map(len, of_image.values()))


def _key(results: SplitResults, place: int, image: bytes) -> bytes:
    """Returns what tells an image from the others: copies under several names may differ in class."""
    return image + results.files[place].encode(errors="surrogatepass") if results.files else image


def probabilities(logits: NDArray[Any] | None) -> NDArray[np.float64]:
    """Returns the softmax of logits (n, classes) in float64."""
    import numpy as np

    assert logits is not None, "only models with logits are asked"
    shifted = logits.astype(np.float64)
    powers = np.exp(shifted - shifted.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return shares


def contradiction(shares: NDArray[np.float64], labels: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Returns for each image how probable it is that it is of another class than its own, (n,) from 0 to 1, and the
    likeliest of these (n,). ``shares`` (n, classes) are probabilities, ``labels`` (n,) the given classes.
    """
    import numpy as np

    rows = np.arange(len(shares))
    own = shares[rows, labels]
    others = shares.copy()
    others[rows, labels] = -1.0
    likelier = others.argmax(axis=1)
    score: NDArray[np.float64] = 1 - own
    return score, likelier
