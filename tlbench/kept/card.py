"""What a kept model is: the card beside its weights. Nothing here imports torch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from tlbench.errors import UserError
from tlbench.machine.scratch import write_aside
from tlbench.records import strict_json
from tlbench.records.lines import seal, unseal

FORMAT = 1
FEWEST = 19
"""Validation images that sets of classes need at a coverage of 95 %."""
CARD, WEIGHTS, README = "card.json", "model.safetensors", "README.md"
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
    """Holds what sets of classes go by: the scores of validation images, which no weight was trained on."""

    scores: tuple[float, ...]
    """1 - probability of the right class, ascending, of each validation image that is no copy of a training image."""
    images: int
    """Validation images that there were; more than are kept where these were drawn among them."""
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
    kept_predictions_sha256 (of the same by what was written here), predicted_otherwise (images where these differ)."""
    recorded: Mapping[str, Any]
    """accuracy_val, accuracy_test and predictions_sha256 of the record that it was made from."""
    calibration: Calibration
    environment: Mapping[str, Any]
    """Versions of what it was made with."""


def write_card(folder: Path, card: Card) -> None:
    """Writes the card, and the same in words. Errors: OSError."""
    data = asdict(card)
    write_aside(folder / CARD, seal(_plain(data)).encode())
    write_aside(folder / README, in_words(card).encode())


def read_card(folder: str | Path) -> Card:
    """Reads the card of a model folder. Errors: UserError for a folder that is none, or whose card is damaged."""
    place = Path(folder).expanduser()
    path = place / CARD
    if not path.is_file():
        raise UserError(
            f"{str(folder)!r} is no folder of a kept model: it has no {CARD}; `tlbench fit RUN` makes one of a run"
        )
    try:
        data = unseal(path.read_text(encoding="utf-8"))
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
    """Returns the card as Markdown for people."""
    cell, made, test = card.cell, card.measured, card.calibration.test
    share = {name: f"{100 * made[name]:.1f} %" for name in ("accuracy_val", "accuracy_test") if made.get(name)}
    lines = [
        f"# {cell['backbone']}, {cell['freeze']}, {cell['head']}: {len(card.classes)} classes",
        "",
        f"Made by tlbench {card.suite_version} on {card.made} from {card.record} of {card.run}.",
        "",
        f"- Classes: {', '.join(card.classes)}",
        f"- Accuracy on validation images: {share.get('accuracy_val', 'not known')}; on test images: "
        f"{share.get('accuracy_test', 'not known')}",
        f"- Input: {card.preprocessing.size} px a side, cut from the middle of the photograph "
        f"({card.preprocessing.crop_mode}, {card.preprocessing.interpolation})",
        *_about_fold(card),
        f"- Initial weights: {card.initial_weights.get('source', 'not known')}; {card.licence}",
    ]
    if test:
        lines.append(f"- Sets of classes: {coverage_in_words(test)}")
    elif len(card.calibration.scores) < FEWEST:
        lines.append(f"- No sets of classes (--coverage): these need {FEWEST} validation images, and there are too few")
    lines += [
        "",
        "Predict from the command line with `tlbench predict THIS_FOLDER IMAGES`, from Python with",
        "`tlbench.load_model(THIS_FOLDER).predict([...])`.",
        "",
    ]
    return "\n".join(lines)


def _about_fold(card: Card) -> list[str]:
    """Says in a line, or none, that the model is that of one fold."""
    if (said := fold_in_words(card)) == "":
        return []
    return [f"- {said[0].upper()}{said[1:]}"]


def fold_in_words(card: Card) -> str:
    """Says that a model is that of a fold of a cross-validation; empty where it is of a split."""
    if not (fold := card.cell.get("fold")):
        return ""
    number, _, folds = str(fold).partition("of")
    samples = card.measured.get("samples", {})
    return (
        f"fold {number} of {folds}: trained on {samples.get('train', 0):,} of {sum(samples.values()):,} images; train "
        "once more with --folds off for a model of a larger share of them"
    )


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
