"""What a kept model is: the card beside its weights. Nothing here imports torch."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from tlbench.errors import UserError
from tlbench.machine.markdown import markdown
from tlbench.machine.scratch import write_aside
from tlbench.records import strict_json
from tlbench.records.lines import seal, unseal

FORMAT = 1
FEWEST = 19
"""Validation images that sets of classes need at a coverage of 95 %."""
CARD, WEIGHTS, README = "card.json", "model.safetensors", "README.md"
VALIDATION, OUT_OF_FOLD = "validation", "out-of-fold"
PIECE = 2**20
"""Bytes of a weight file that are hashed at a time."""


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Says how a photograph becomes the model's input, as it did for what the model was trained on."""

    size: int
    """Pixels a side of the input."""
    resize: int
    """Pixels before the centre is cut out, of the side that ``crop_mode`` says."""
    interpolation: str
    crop_mode: str
    fill: tuple[int, ...]
    """Red, green and blue of what a photograph does not reach."""
    mean: tuple[float, ...]
    """Of each channel, after division by 255."""
    std: tuple[float, ...]
    decode: str = "exact"
    """How large photographs are decoded (`tlbench.grid.choices.DECODE`)."""
    pixel_range: Mapping[str, int] = field(default_factory=dict)
    """What is black and what is white in images of more than 8 bits (`tlbench.data.pixel_range`)."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Holds what sets of classes go by: the scores of images that the models which gave them were not trained on."""

    scores: tuple[float, ...]
    """1 - probability of the right class, ascending: of each validation image that is no copy of a training image, or
    of all images of a cross-validation."""
    images: int
    """Images that there were; more than are kept where these were drawn among them."""
    kind: str = VALIDATION
    """`VALIDATION`: this model's scores of validation images; `OUT_OF_FOLD`: those of each image by the model of its
    fold, where this one is trained on all of them (`tlbench.kept.folds`)."""
    test: Mapping[str, Any] = field(default_factory=dict)
    """How often sets held the right class on the test images: coverage, covered, images, decided, right (of those
    decided), short (whether that falls short beyond chance). Empty without test images."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """Says what a kept model is, where it comes from and what was measured of it."""

    format: int = FORMAT
    made: str
    """UTC, ISO 8601."""
    suite_version: str
    run: str
    """Name of the run's folder."""
    record: str
    """Id of the record."""
    key: str
    """Key of its cell."""
    cell: Mapping[str, Any]
    classes: tuple[str, ...]
    """Names of the classes, in the order of the outputs."""
    preprocessing: Preprocessing
    channels_last: bool
    """Memory layout that the record was measured in."""
    batch_size: int
    weights_sha256: str
    """SHA-256 of the weight file."""
    initial_weights: Mapping[str, Any]
    """What the backbone began with (`tlbench.backbones.base.WeightsInfo`)."""
    licence: str
    """What is known of the licence of these weights."""
    plugins: Mapping[str, str] = field(default_factory=dict)
    """Plugins that the model needs, as in a record."""
    measured: Mapping[str, Any]
    """Of this model: accuracy_val, accuracy_test, predictions_sha256 (of the test images, as it was trained), samples;
    kept_predictions_sha256 (of the same by what was written here), predicted_otherwise (images where these differ).
    Of one that is trained on all images of a cross-validation: samples, predicted_otherwise, and out_of_fold, which is
    of the folds' models: accuracy, low, high (95 %), images, folds, seeds."""
    recorded: Mapping[str, Any]
    """accuracy_val, accuracy_test and predictions_sha256 of the record that it was made from; empty where that is of a
    fold, whose model is another."""
    calibration: Calibration
    environment: Mapping[str, Any]
    """Versions of what it was made with."""


def write_card(folder: Path, card: Card) -> None:
    """Writes the card, and the same in words. Errors: OSError."""
    data = asdict(card)
    write_aside(folder / CARD, seal(_plain(data)).encode("utf-8", "surrogateescape"))  # a folder's name is any bytes
    write_aside(folder / README, in_words(card).encode("utf-8", "backslashreplace"))


def read_card(folder: str | Path) -> Card:
    """Reads the card of a model folder. Errors: UserError for a folder that is none, or whose card is damaged."""
    place = Path(os.path.expanduser(folder))
    path = place / CARD
    if not path.is_file():
        below = sorted((*place.glob(f"model*/{CARD}"), *place.glob(f"models/*/{CARD}")), key=os.path.getmtime)
        hint = f"did you mean {str(below[-1].parent)!r}?" if below else "`tlbench fit RUN` makes one of a run"
        raise UserError(f"{str(folder)!r} is no folder of a kept model: it has no {CARD}; {hint}")
    try:
        data = unseal(path.read_text(encoding="utf-8", errors="surrogateescape"))
        if isinstance(data.get("format"), int) and data["format"] > FORMAT:
            raise ValueError(f"format {data['format']} is newer than this tlbench reads ({FORMAT}): upgrade tlbench")
        strict_json.check(Card, data)
        return _card_of(data)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"cannot read {str(path)!r}: {error}; make the model again with tlbench fit") from None


def check_weights(folder: Path, card: Card) -> Path:
    """Returns the weight file. Errors: UserError where it is missing, or is another than the card's."""
    path = folder / WEIGHTS
    try:
        digest = hash_file(path)
    except OSError as error:
        raise UserError(f"cannot read {str(path)!r}: {error.strerror}; make the model again with tlbench fit") from None
    if digest != card.weights_sha256:
        raise UserError(
            f"{str(path)!r} is not what its card describes: its SHA-256 is {digest[:12]}…, not "
            f"{card.weights_sha256[:12]}…; it was changed or damaged: make the model again with tlbench fit"
        )
    return path


def hash_file(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes. Errors: OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def in_words(card: Card) -> str:
    """Returns the card as Markdown for people, in which names that others have chosen are texts and nothing else."""
    cell, test = card.cell, card.calibration.test
    model = ", ".join(markdown(cell[name]) for name in ("backbone", "freeze", "head"))
    lines = [
        f"# {model}: {len(card.classes)} classes",
        "",
        f"Made by tlbench {card.suite_version} on {card.made} from {_origin(card)} of {markdown(card.run)}.",
        "",
        f"- Classes: {', '.join(map(markdown, card.classes))}",
        *_accuracy(card),
        f"- Input: {card.preprocessing.size} px a side, cut from the middle of the photograph "
        f"({card.preprocessing.crop_mode}, {card.preprocessing.interpolation})",
        f"- Initial weights: {markdown(card.initial_weights.get('source', 'not known'))}; {markdown(card.licence)}",
    ]
    if len(card.calibration.scores) < FEWEST:
        lines.append(f"- No sets of classes (--coverage): {_why_no_sets(card.calibration)}")
    elif card.calibration.kind == OUT_OF_FOLD:
        lines.append(f"- Sets of classes: {guarantee_in_words(card)}")
    elif test:
        lines.append(f"- Sets of classes: {coverage_in_words(test)}")
    lines += [
        "",
        "Predict from the command line with `tlbench predict THIS_FOLDER IMAGES`, from Python with",
        "`tlbench.load_model(THIS_FOLDER).predict([...])`.",
        "",
    ]
    return "\n".join(lines)


def _origin(card: Card) -> str:
    """Says which record it is made from, or what stands for those of its folds."""
    if (folds := out_of_fold(card)) is None:
        return markdown(card.record)
    return f"the {folds['folds']} folds of {markdown(card.record)}"


def _accuracy(card: Card) -> list[str]:
    """Says in lines how accurate the model is, or those of its folds are."""
    if out_of_fold(card) is not None:
        return [f"- Trained on {_trained_on(card)}", f"- Accuracy: {fold_in_words(card)}"]
    made = card.measured
    known = [name for name in ("accuracy_val", "accuracy_test") if made.get(name) is not None]
    share = {name: f"{100 * made[name]:.1f} %" for name in known}
    return [
        f"- Accuracy on validation images: {share.get('accuracy_val', 'not known')}; on test images: "
        f"{share.get('accuracy_test', 'not known')}"
    ]


def _trained_on(card: Card) -> str:
    count, size = card.measured["samples"]["train"], card.cell.get("train_size")
    if size is not None:
        return f"{count:,} images, as --train-size {size} has it, of all folds"
    return f"all {count:,} images"


def out_of_fold(card: Card) -> Mapping[str, Any] | None:
    """Returns what the folds of a model of all images have told; None for another model."""
    told: Mapping[str, Any] | None = card.measured.get("out_of_fold")
    return told


def fold_in_words(card: Card) -> str:
    """Says how accurate the models of the folds were, and that this is another one; empty for one of a split."""
    if (told := out_of_fold(card)) is None:
        return ""
    if told["accuracy"] is None:
        return "not known; this model is trained on all images"
    known = told["low"] is not None and told["high"] is not None
    interval = f" ({100 * told['low']:.1f} to {100 * told['high']:.1f})" if known else ""
    seeds = f" and {told['seeds']} seeds" if told["seeds"] > 1 else ""
    return (
        f"{100 * told['accuracy']:.1f} %{interval} of {told['images']:,} images, each by a model that had not seen it: "
        f"of the models of {told['folds']} folds{seeds}. This one is trained on all images, so that none is left to "
        "test it on; it has seen more, and is as a rule no worse"
    )


def guarantee_in_words(card: Card) -> str:
    """Says what sets of classes promise that go by the scores of folds' models."""
    told = out_of_fold(card) or {}
    return (
        f"they go by what the models of {told.get('folds', 'the')} folds said of {len(card.calibration.scores):,} "
        "images that they had not seen. Asked for 95 %, they hold the right class of new images like these in about "
        "95 % of cases, as long as this model is about as sure of new images as those were. That is no proof: what is "
        "proven (CV+, Barber et al. 2021) is 90 % for 95 %, less a little, and of sets that ask the models of all folds"
    )


def _why_no_sets(calibration: Calibration) -> str:
    if calibration.kind == OUT_OF_FOLD and not calibration.scores:
        return "the folds' logits were not kept (--logits off, or files that are gone)"
    what = "images" if calibration.kind == OUT_OF_FOLD else "validation images"
    return f"these need {FEWEST} {what}, and there are too few"


def coverage_in_words(test: Mapping[str, Any]) -> str:
    """Says how often sets held the right class on the test images."""
    wanted = f"{100 * test['coverage']:g} %"
    text = (
        f"asked to hold the right class in {wanted} of cases, they did on {test['covered']:,} of {test['images']:,} "
        f"test images ({100 * test['covered'] / test['images']:.1f} %); of {test['decided']:,} of them the set is one "
        "class"
    )
    if test["short"]:
        text += (
            f"; that falls short of {wanted} beyond chance: the test images are not like those that it was calibrated "
            "on, and new ones may not be either"
        )
    return text


def _card_of(data: Mapping[str, Any]) -> Card:
    values = _known(Card, data)
    values["preprocessing"] = Preprocessing(**_tuples(_known(Preprocessing, values["preprocessing"])))
    values["calibration"] = Calibration(**_tuples(_known(Calibration, values["calibration"])))
    known = values["initial_weights"]
    values["initial_weights"] = {**known, "notes": tuple(known.get("notes", ()))}
    return Card(**_tuples(values))


def _known(kind: type[Any], data: Mapping[str, Any]) -> dict[str, Any]:
    names = {one.name for one in fields(kind)}
    return {name: value for name, value in data.items() if name in names}


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
