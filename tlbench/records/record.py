"""What a cell leaves behind: one `Record`, one line of strict JSON. Nothing here imports torch.

Raw seconds and raw counts are stored; everything derived from them is computed in `tlbench.analysis.derived`.
One file, since its fields are one list.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, make_dataclass
from operator import contains, itemgetter
from typing import Any, get_type_hints

from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.records import strict_json

SCHEMA = 1

STATUSES = {
    "ok": "finished; its figures can be used",
    "skipped": "something it needs is not here (weights, a device); the reason says how to get it",
    "not_applicable": "means nothing for this backbone (`norm` without normalisation layers)",
    "failed": "raised an error; the reason names it",
    "oom": "ran out of memory",
    "timeout": "was stopped because it took longer than --cell-timeout allows",
    "diverged": "the loss became infinite or not a number",
    "interrupted": "stopped before it finished, by the user or a signal; the reason says which",
    "stopped": "was ended with the budget of `tlbench find`, before it finished",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """Holds one timed round: an epoch of training, or a few batches of inference."""

    phase: str
    """Name of the policy's phase, or ``throughput``."""
    seconds: float
    samples: int
    """Images processed; the last, smaller batch counts its real size."""
    trainable_parameters: int = 0
    loss: float | None = None
    """Mean training loss over the epoch's images."""
    accuracy_val: float | None = None
    """Share of validation images classified correctly after this epoch."""
    loss_val: float | None = None
    evaluation_seconds: float | None = None
    """What the evaluation on the validation images after this epoch took; it is no part of ``seconds``."""
    event_seconds: float | None = None
    """CUDA events around the round: the device's own time, beside the wall time."""
    pressure: float | None = None
    """Share of the round that something runnable waited for a processor (Linux's pressure stall information)."""
    switches: int | None = None
    """Times that this process was made to give up its processor."""
    noisy: str = ""
    """Why the round is not to be trusted; empty when it is."""
    throttled: str = ""
    """What held the processors or the GPU back; empty when nothing did."""
    clock_mhz: int | None = None
    """The GPU's clock at the end of the round."""


UNSAID = (
    "shares_node", "engine", "node", "passed_over_endings", "relabelled", "scaled_images", "other_tests", "best_epoch",
)  # fmt: skip
"""Fields that are written only where they say something: on one machine those of an engine do not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """Holds everything known about one run of one cell. Unknown is None, never 0."""

    schema: int = SCHEMA
    id: str
    cell: Cell
    settings: Settings
    status: str
    reason: str = ""
    started: str
    """UTC, ISO 8601."""
    wall_seconds: float | None = None
    """Seconds of the whole cell, building, warming up and evaluating included."""
    suite_version: str
    suite_commit: str | None = None
    """The suite's commit, followed by ``+`` where its files were changed since."""
    weights: Mapping[str, Any] = field(default_factory=dict)
    """source, sha256 of the initial backbone weights, pretrained, reason (why not, under ``auto``); of a checkpoint
    also taken (which entry of the file), averaged, notes (`tlbench.backbones.base.WeightsInfo`)."""
    image_size: int | None = None
    classes: int | None = None
    samples: Mapping[str, int] = field(default_factory=dict)
    """Images in train, val and test."""
    largest_class: Mapping[str, int] = field(default_factory=dict)
    """Images of the most frequent class in train, val and test: what always naming that class has right. Empty in
    records of versions that did not count them."""
    dropped_images: int = 0
    """Images left out because they could not be read."""
    passed_over_files: int = 0
    """Files beside the images that are none by their names."""
    passed_over_endings: Mapping[str, int] = field(default_factory=dict)
    """Of these files, how many are pictures by their endings, which are not read (``.gif``); empty without any."""
    pixel_range: Mapping[str, int] = field(default_factory=dict)
    """What is black and what is white in images of more than 8 bits, how many there are, and how many of them go beyond
    (`tlbench.data.pixel_range`). Empty without any, and in records of versions that knew 16 bits alone."""
    scaled_images: int = 0
    """Photographs of the data set that were decoded at a fraction of their size, as the cell's ``decode`` has it
    (`tlbench.data.scaled`)."""
    repeated_images: Mapping[str, int] = field(default_factory=dict)
    """Images of val and of test whose pixels are also in train."""
    copies: Mapping[str, int] = field(default_factory=dict)
    """Copies of photographs in the data set, counted (`tlbench.data.copies.KINDS`). Empty in records of versions that
    split by position; those that count them split by content."""
    leaked_images: Mapping[str, int] = field(default_factory=dict)
    """Images of val that are copies, exact or near, of training images that the cell uses; of test, of those or of
    validation images."""
    data_sha256: str | None = None
    """SHA-256 of the data set's content and split."""
    images_sha256: str | None = None
    """SHA-256 of classes, decoded pixels and labels, the same for every seed; None in records of older versions."""
    relabelled: Mapping[str, Any] = field(default_factory=dict)
    """Of a file of corrected labels its SHA-256, and how many images got another label. Empty without one."""
    places: Mapping[str, str] = field(default_factory=dict)
    """Field of the cell -> where its data set or checkpoint was, when that had moved since the run began."""
    images_where: str = ""
    """Where the images lay from which batches are made: memory, a mapped file, decoded on the way, or the device's
    name. Empty in records of versions that had them in memory always."""
    total_parameters: int | None = None
    """Of backbone and head, before the policy adds any."""
    trainable_parameters: int | None = None
    """Parameters that train in any phase, added ones included."""
    added_parameters: int | None = None
    """Parameters that the policy has put into the model, beyond the total."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """Optimizer, learning rates, decay, schedule, augmentation as used, every default resolved."""
    lr_trials: tuple[Mapping[str, Any], ...] = ()
    """With ``--lr auto``: each pair of rates that was tried (lr, backbone_lr), its validation accuracy and loss, and
    the seconds it took."""
    compile_seconds: float | None = None
    """What torch.compile took, before anything was timed: the first calls of each batch shape less the second ones.
    None where nothing was compiled."""
    cut: str | None = None
    """First stage with anything that trains or adapts; the stages before it are the frozen prefix."""
    rounds: tuple[Round, ...] = ()
    latency_seconds: tuple[float, ...] = ()
    """Seconds of each single-image forward pass."""
    latency_noisy: int = 0
    """The number of these passes that were noisy."""
    best_epoch: int | None = None
    """With ``--patience``: the epoch (1 first) whose weights were kept, which all figures of accuracy are of."""
    accuracy_val: float | None = None
    accuracy_test: float | None = None
    accuracy_val_clean: float | None = None
    """``accuracy_val`` without the `leaked_images`; None where there are none, or nothing else."""
    accuracy_test_clean: float | None = None
    loss_test: float | None = None
    test_seconds: float | None = None
    """What the one evaluation on the test images took."""
    predictions_sha256: str | None = None
    """SHA-256 of the predicted classes of the test images, in order."""
    other_tests: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Other tests than the test images, by the name that ``--also-test`` gave them, or as ``noise@2`` of ``--corrupt``
    (`tlbench.data.corruptions`): accuracy, loss (None where it is no number), images, seconds, predictions_sha256. Of
    another data set also dataset, loading_seconds, classes (that it has images of), missing (classes of the training
    set that it has none of), unknown (classes that the training set has not), left_out_images (of these), seen_images
    (left out, being files that were trained on or chosen by), dropped_images and data_sha256 (of what identifies the
    tested images, and their classes)."""
    block: int = 0
    """Which repeat of the grid it belongs to."""
    role: str = "cell"
    """``cell``, or ``aa``: one of two identical measurements whose difference is the noise floor."""
    validity: str = "ok"
    """ok, noisy, throttled, drifting, shared: whether its times can be trusted."""
    validity_reason: str = ""
    shares_node: bool = False
    """Whether other cells of the run may have been measured on its node at the same time. Its times are of another
    condition than those of a cell that had the node to itself: nothing averages, compares or tests both together."""
    engine: str = ""
    """What has placed it on its node; empty where nothing has, as on one machine."""
    node: str = ""
    """Name of that node."""
    attempts: int = 1
    """Measurements it took; all but the last were noisy."""
    layout: Mapping[str, Any] = field(default_factory=dict)
    """Chosen memory layout; where it was measured, seconds of a step in either, and the key of what that was."""
    nondeterministic: tuple[str, ...] = ()
    """Operations that have no deterministic form on the device."""
    prefix: Mapping[str, Any] = field(default_factory=dict)
    """The kept activations of the frozen prefix (`tlbench.train.prefix.PrefixUse`): seconds of the pass that computed
    them, the share of it that training takes, the names of the passes, bytes, where, notes."""
    flops: Mapping[str, Any] = field(default_factory=dict)
    """For one image: forward (all stages and the head), train_step (by phase), prefix (by phase: what of the step is
    kept, and so not in an epoch)."""
    stages: tuple[Mapping[str, Any], ...] = ()
    """Each stage and the head: name, parameters, and for one image the FLOPs of its forward pass and the shape of what
    it hands on.
    """
    ceiling_flops_per_second: float | None = None
    """A large matrix product in the run's precision and thread count, measured in the same run."""
    detail: Mapping[str, float] = field(default_factory=dict)
    """Seconds of a training step by part: data, forward, backward, optimizer; and launch: what forward and backward
    take however few the images."""
    energy_joules: float | None = None
    """Joules of the timed rounds (inference: in batches), where processors, or the GPU on CUDA, tell them."""
    frozen_sha256_before: str | None = None
    frozen_sha256_after: str | None = None
    peak_memory_bytes: int | None = None
    """CUDA: most memory allocated in a step. CPU: most resident memory of the process in a step, libraries, data and
    kept activations included."""
    baseline_memory_bytes: int | None = None
    """The same measure before the model was built."""
    output: str = ""
    """Where its process died: the last that it wrote."""
    definitions: Mapping[str, int] = field(default_factory=dict)
    """Which meaning of their names its policy (``freeze``) and its head had, where not the first
    (`tlbench.records.definitions`)."""
    environment: Mapping[str, Any] = field(default_factory=dict)
    plugins: Mapping[str, str] = field(default_factory=dict)
    """Plugins that were loaded, as they were named -> SHA-256 of the file, empty for a module without one."""
    machine_noise: Mapping[str, Any] = field(default_factory=dict)
    """What earlier runs told of this device's noise when the run began (`tlbench.analysis.noise.known`)."""
    images: Mapping[str, str] = field(default_factory=dict)
    """Names of the files with the results on single images (`tlbench.records.images`); empty where none were kept."""
    per_image: Any = field(default=None, repr=False, compare=False)
    """These results (`tlbench.records.images.PerImage`), or None. They are no part of the record's line."""

    @property
    def key(self) -> str:
        """Returns the cell's key."""
        return self.cell.key

    def to_dict(self) -> dict[str, Any]:
        """Returns plain lists, dicts, numbers and texts, ready for strict JSON."""
        data = {name: getattr(self, name) for name in _WRITTEN}
        for name in UNSAID:
            if not data[name]:
                del data[name]
        # Not `asdict`, which copies every text and number of it: that took longer than all else of writing a record.
        data["cell"], data["settings"] = self.cell.said, dict(vars(self.settings))
        data["rounds"] = [{name: getattr(one, name) for name in _OF_ROUND} for one in self.rounds]
        return {**data, "key": self.key}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Record:
        """Makes a record of what `to_dict` wrote. Fields that a newer version added are ignored; cell and settings may
        be there as such, and a tuple of rounds.

        Errors: ValueError when it is no record or of a newer schema.
        """
        try:
            if int(data["schema"]) > SCHEMA:
                raise ValueError(f"schema {data['schema']} is newer than this tlbench reads ({SCHEMA})")
            values = _known(cls, data)
            values["per_image"] = None
            values["cell"] = cell_of(values["cell"])
            values["settings"] = settings_of(values["settings"])
            rounds = values.get("rounds", ())
            values["rounds"] = rounds if type(rounds) is tuple else tuple(map(_round_of, rounds))
            values["lr_trials"] = tuple(values.get("lr_trials", ()))
            values["stages"] = tuple(values.get("stages", ()))
            values["nondeterministic"] = tuple(values.get("nondeterministic", ()))
            values["latency_seconds"] = tuple(map(float, values.get("latency_seconds", ())))
            record = _record_of(values)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a record: {error}") from None
        if record.status not in STATUSES:
            raise ValueError(f"not a record: unknown status {record.status!r}")
        return record


def cell_of(data: Mapping[str, Any] | Cell) -> Cell:
    """Returns the cell that a record names."""
    return data if isinstance(data, Cell) else Cell(**_known(Cell, data))


def settings_of(data: Mapping[str, Any] | Settings) -> Settings:
    """Returns the settings that a record names."""
    return data if isinstance(data, Settings) else Settings(**_known(Settings, data))


def rounds_of(found: object) -> tuple[tuple[Round, ...] | None, int]:
    """Returns the rounds that JSON says, and the number of keys in it. None, and 0, where some of it is not written as
    this version writes it, of another type for certain or maybe, or no number: that takes a closer look.
    """
    if type(found) is not list:
        return None, 0
    rounds = []
    for data in found:
        if type(data) is not dict or tuple(data) != _OF_ROUND:
            return None, 0
        values = tuple(data.values())
        kinds = tuple(map(type, values))
        if kinds not in _NUMBERS_OF_ROUND:
            _NUMBERS_OF_ROUND[kinds] = _numbers(kinds)
        numbers = _NUMBERS_OF_ROUND[kinds]
        if numbers is None or not math.isfinite(sum(numbers(values))):
            return None, 0
        rounds.append(_made_round(values))
    return tuple(rounds), len(_OF_ROUND) * len(rounds)


def _numbers(kinds: Sequence[type]) -> Callable[[Sequence[Any]], Sequence[float]] | None:
    """Returns what takes the numbers out of the values of a round, of which two at least are there; None where values
    of these types may be none of a round's.
    """
    exact = map(strict_json.exact, get_type_hints(Round).values())
    places = [place for place, kind in enumerate(kinds) if kind is float]
    return itemgetter(*places) if len(places) > 1 and all(map(contains, exact, kinds)) else None


def _round_of(data: Mapping[str, Any]) -> Round:
    if tuple(data) != _OF_ROUND:
        return _with_phase(_known(Round, data))
    return _made_round(data.values())


def _made_round(values: Iterable[Any]) -> Round:
    made = _OpenRound(*values)
    made.phase = sys.intern(made.phase)
    made.__class__ = Round
    round_: Round = made
    return round_


def _with_phase(values: dict[str, Any]) -> Round:
    values["phase"] = sys.intern(values["phase"])  # one text for all rounds of all records
    return Round(**values)


_WRITTEN = tuple(f.name for f in fields(Record) if f.name != "per_image")
_OF_ROUND = tuple(f.name for f in fields(Round))


def _open(kind: type[Any]) -> Any:
    """Returns a class with the same fields, which is not frozen: what it makes of their values, in order, may become
    one of the other class. That takes a fifth of the time of the other's own way.
    """
    return make_dataclass(f"Open{kind.__name__}", [one.name for one in fields(kind)], slots=True)


def _record_of(values: dict[str, Any]) -> Record:
    """Makes a record of its fields. Errors: TypeError where one is missing."""
    try:
        made = _OpenRecord(*_OF_RECORD({**_NOTHING_SAID, **values}))
    except KeyError:
        return Record(**values)  # which says what is missing
    made.__class__ = Record
    record: Record = made
    return record


_OpenRound, _OpenRecord = _open(Round), _open(Record)
_OF_RECORD = itemgetter(*(f.name for f in fields(Record)))
_NOTHING_SAID: Mapping[str, Any] = {
    one.name: one.default if one.default_factory is MISSING else one.default_factory()
    for one in fields(Record)
    if one.default is not MISSING or one.default_factory is not MISSING
}
"""Field -> its default, which all records without it share."""
_NUMBERS_OF_ROUND: dict[tuple[type, ...], Callable[[Sequence[Any]], Sequence[float]] | None] = {}
"""Types of the values of a round -> what `_numbers` says of them."""
_NAMES: dict[type[Any], frozenset[str]] = {
    kind: frozenset(f.name for f in fields(kind)) for kind in (Record, Cell, Settings, Round)
}


def _known(kind: type[Any], data: Mapping[str, Any]) -> dict[str, Any]:
    names = _NAMES[kind]
    if data.keys() <= names:  # all but records of a later version
        return dict(data)
    return {key: value for key, value in data.items() if key in names}
