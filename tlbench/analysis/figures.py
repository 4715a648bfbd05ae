"""The figures of a record: one row for each, which says all there is to say about it.

`Row` is the table, a field a figure, in the order of the columns of a tidy frame. What a figure means, where it comes
from, how it is averaged over seeds and blocks, how it is written and where it is shown stand beside its type; frames,
summaries, the report's table, comparisons and speed-ups take it from there. Nothing here imports anything heavy.
One file, since it is one table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal

from tlbench.analysis import derived as of
from tlbench.analysis.image_figures import READERS_OF_IMAGES, of_logits, of_predictions
from tlbench.analysis.record_source import Source
from tlbench.records import identity
from tlbench.records.record import Record

Kind = Literal["text", "list", "number", "count", "share", "seconds", "milliseconds", "speed", "bytes", "flops"]
"""Says what a value is, and by that how it is written (`tlbench.report.wording`). Speed is in images a second."""
Average = Literal["first", "same", "mean", "finished", "seeds", "units", "most"]
"""Says how a configuration's records become one value.

first: the same for all of them, so the first that is known. mean: over the records with valid times. finished: the mean
over all records that are ok. seeds: the mean over seeds, with Student's t. units: the geometric mean over blocks or
seeds of valid times, with Student's t on logs. most: the highest.
"""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure is a row of the table: one column of a frame."""

    name: str
    meaning: str
    kind: Kind = "text"
    value: Callable[[Source], Any] | None = None
    """Function that takes it from a record; None where it is a configuration's alone."""
    axis: bool = False
    """An axis of the grid with a column of its own; the others share the column ``variant``."""
    average: Average | None = None
    """How records are averaged; None where it is no figure of a configuration."""
    in_use: bool = False
    """A figure of inference; shown with the training cells of the same model as well, as ``inference_NAME``."""
    heading: str = ""
    """Heading in the report's table; empty where it is not in it. A table has no units, so they stand here."""
    hidden: bool = False
    """Shown in that table only when asked for."""
    better: Literal["", "lower", "higher"] = ""
    compared: str = ""
    """Name in a comparison of two runs; empty where runs are not compared by it."""
    speedup: tuple[str, str] | None = None
    """The task whose speed-ups are taken from it, and what they are speed-ups of."""
    seldom: bool = False
    """A column of a table only where some record has it, as those of an engine's."""

    @property
    def timed(self) -> bool:
        """Tells whether it is a time or a speed: compared by its ratio, and subject to the noise floor."""
        return self.average == "units"

    @property
    def points(self) -> bool:
        """Tells whether it is an accuracy: compared by its difference, in points of a hundred, on the same seeds."""
        return self.average == "seeds"

    @property
    def sign(self) -> int:
        """Returns 1 where more is worse, -1 where more is better."""
        return 1 if self.better == "lower" else -1

    @property
    def numeric(self) -> bool:
        return self.kind not in ("text", "list")


def figure(meaning: str, kind: Kind = "text", value: Callable[[Source], Any] | None = None, **rest: Any) -> Any:
    """Returns a field of `Row`. Without ``value`` it reads the record's field of its name; of an axis, the cell's."""
    return field(metadata={"figure": Figure(name="", meaning=meaning, kind=kind, value=value, **rest)})


STEP_PARTS = ("data", "forward", "backward", "optimizer")


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Row(Mapping[str, Any]):
    """A row is one record, flat; what is unknown is None. ``row[name]`` is for names that are not known before.

    Of a record (`taken_from`), each figure is taken from it when it is first asked for: most readers ask for a few.
    """

    task: str = figure("train or infer", axis=True, average="first", heading="task")
    backbone: str = figure(
        "name, with the weights' tag after @ where one was asked for", axis=True, average="first", heading="backbone"
    )
    weights: str = figure(
        "pretrained, random, or the checkpoint's file name: what the cell really started from",
        value=of.weights_label, axis=True, average="first", heading="weights",
    )  # fmt: skip
    freeze: str = figure(
        "freeze policy; none for inference, which does not depend on it", axis=True, average="first", heading="freeze"
    )
    head: str = figure("what is put on the pooled features", axis=True, average="first", heading="head")
    dataset: str = figure("digits, synthetic, folder:PATH, list:PATH", axis=True, average="first", heading="data set")
    device: str = figure("cpu, cuda, cuda:1, …", axis=True, average="first", heading="device")
    precision: str = figure("fp32, …", axis=True, average="first", heading="precision")
    seed: int = figure("of split, head, batch order and stochastic layers", "count", axis=True)
    status: str = figure("ok, skipped, not_applicable, failed, oom, timeout, diverged, interrupted")
    reason: str = figure("why the status is not ok")
    total_parameters: int | None = figure(
        "of backbone and head, before the policy adds any", "count", average="first", heading="parameters"
    )
    trainable_parameters: int | None = figure(
        "that train in any phase, added ones included", "count", average="first", heading="trainable parameters"
    )
    epoch_seconds: float | None = figure(
        "median over the epochs; empty for a schedule, whose phases differ, and for training-free heads",
        "seconds", of.epoch_seconds, average="units", better="lower", heading="epoch, s", compared="seconds an epoch",
        speedup=("train", "an epoch of training"),
    )  # fmt: skip
    training_seconds: float | None = figure(
        "all rounds of training, what computing the training images' kept activations took, compiling, and choosing "
        "the learning rates (--lr auto)",
        "seconds", of.training_seconds, average="units", better="lower", heading="training, s",
        compared="seconds of training", speedup=("train", "the whole training"),
    )  # fmt: skip
    accuracy_val: float | None = figure(
        "share of the validation images classified correctly after training",
        "share", average="seeds", better="higher", heading="validation accuracy", compared="validation accuracy",
    )  # fmt: skip
    accuracy_test: float | None = figure(
        "share of the test images, looked at once",
        "share", average="seeds", better="higher", heading="test accuracy", compared="test accuracy",
    )  # fmt: skip
    images_per_second: float | None = figure(
        "of the median round: training, or inference in batches; empty where epoch_seconds is",
        "speed", of.images_per_second, average="units", better="higher", in_use=True, heading="images/s",
        compared="images a second", speedup=("infer", "inference in batches"),
    )  # fmt: skip
    latency_p50_ms: float | None = figure(
        "of one image at batch size 1",
        "milliseconds", of.percentile_ms(0.50, least=1), average="units", better="lower", in_use=True,
        heading="latency p50, ms", compared="median latency", speedup=("infer", "inference of one image"),
    )  # fmt: skip
    latency_p95_ms: float | None = figure(
        "of one image at batch size 1",
        "milliseconds", of.percentile_ms(0.95, least=of.P95_IMAGES), average="units", better="lower", in_use=True,
        heading="p95, ms", compared="95th percentile of latency",
    )  # fmt: skip
    peak_memory_bytes: int | None = figure(
        "CUDA: allocated by torch; CPU: resident in the process",
        "bytes", average="most", better="lower", in_use=True, heading="memory", compared="peak memory",
    )  # fmt: skip

    # --- beyond the export

    key: str = figure("16 hexadecimal digits that identify the cell", value=attrgetter("key"))
    id: str = figure("the cell's readable name")
    run: str = figure("folder of the run", value=lambda source: source.run)
    started: str = figure("UTC")
    wall_seconds: float | None = figure("the whole cell, building, warming up and evaluating included", "seconds")
    latency_p99_ms: float | None = figure(
        "empty below 299 single images, which a 95 % bound needs",
        "milliseconds", of.percentile_ms(0.99, least=of.P99_IMAGES), average="units", better="lower",
    )  # fmt: skip
    loss_test: float | None = figure("mean cross-entropy on the test images", "number", average="finished")
    weights_requested: str = figure(
        "as the grid says: auto, pretrained, random, a path", value=attrgetter("cell.weights"), average="first"
    )
    weights_source: str | None = figure(
        "name of the weights enum, of a package, a path, or random", value=of.part("weights", "source"), average="first"
    )
    weights_reason: str | None = figure(
        "why auto fell back to random weights", value=of.part("weights", "reason"), average="first"
    )
    image_size: int | None = figure(
        "pixels a side, resolved", "count", lambda source: source.record.image_size or source.cell.image_size,
        axis=True, average="first", heading="pixels",
    )  # fmt: skip
    batch_size: int = figure("images in a batch", "count", axis=True, average="first", heading="batch")
    epochs: int | None = figure(
        "of training", "count", lambda source: source.cell.epochs if source.training else None,
        axis=True, average="first", heading="epochs",
    )  # fmt: skip
    train_images: int | None = figure("in the training split", "count", of.part("samples", "train"), average="first")
    val_images: int | None = figure("in the validation split", "count", of.part("samples", "val"), average="first")
    test_images: int | None = figure("in the test split", "count", of.part("samples", "test"), average="first")
    dropped_images: int = figure("left out because they could not be read", "count")
    passed_over_files: int = figure("beside the images, no images by their names", "count")
    repeated_val_images: int | None = figure(
        "validation images whose pixels are also in the training split", "count", of.part("repeated_images", "val")
    )
    repeated_test_images: int | None = figure(
        "test images whose pixels are also in the training split", "count", of.part("repeated_images", "test")
    )
    leaked_val_images: int | None = figure(
        "validation images that are copies, exact or near, of training images that were used",
        "count", of.part("leaked_images", "val"),
    )  # fmt: skip
    leaked_test_images: int | None = figure(
        "test images that are copies, exact or near, of training images that were used, or of validation images",
        "count", of.part("leaked_images", "test"),
    )  # fmt: skip
    accuracy_val_clean: float | None = figure(
        "validation accuracy without leaked_val_images; none where there are none",
        "share", average="finished", heading="validation accuracy without copies",
    )  # fmt: skip
    accuracy_test_clean: float | None = figure(
        "test accuracy without leaked_test_images; none where there are none",
        "share", average="finished", heading="test accuracy without copies",
    )  # fmt: skip
    exact_copies: int | None = figure(
        "images with the file or the pixels of an earlier image of the data set", "count", of.part("copies", "exact")
    )
    near_copies: int | None = figure(
        "other images that look like an earlier one: re-encoded, resized, mirrored, cropped by a few pixels; none "
        "where that was not looked for",
        "count", of.part("copies", "near"),
    )  # fmt: skip
    uncompared_images: int | None = figure(
        "images too small or too plain to be compared by their looks; none where that was not done",
        "count", of.part("copies", "uncompared"),
    )  # fmt: skip
    copy_groups: int | None = figure("photographs that are there more than once", "count", of.part("copies", "groups"))
    copy_groups_apart: int | None = figure(
        "of these, those in more than one split", "count", of.part("copies", "apart")
    )
    copy_groups_mixed: int | None = figure(
        "of these, those in more than one class", "count", of.part("copies", "mixed")
    )
    classes: int | None = figure("of the data set", "count", average="first")
    optimizer: str | None = figure(
        "as used", value=of.part("recipe", "optimizer"), average="first", heading="optimizer", hidden=True
    )
    lr: float | None = figure(
        "learning rate of the head, as used; none where seeds have chosen different ones",
        "number", of.part("recipe", "lr"), average="same", heading="learning rate", hidden=True,
    )  # fmt: skip
    backbone_lr: float | None = figure(
        "learning rate of the backbone, as used; none where seeds have chosen different ones",
        "number",
        of.part("recipe", "backbone_lr"),
        average="same",
    )
    cut: str | None = figure(
        "first stage that trains or adapts; what lies before it is the frozen prefix",
        average="first", heading="trains from",
    )  # fmt: skip
    phases: Mapping[str, float] | None = figure("seconds an epoch by phase, for schedules", value=of.phases)
    lr_trials: int | None = figure(
        "pairs of learning rates that --lr auto tried first; none where the rate was given",
        "count", lambda source: len(source.record.lr_trials) if source.training else None, average="first",
    )  # fmt: skip
    variant: str = figure(
        "the cell's other axes that are not at their defaults: train-size=150, lr=0.01",
        value=of.variant, average="first", heading="other settings",
    )  # fmt: skip
    block: int = figure("of the shuffled block that the record was measured in", "count")
    role: str = figure("cell, or aa: one of two identical cells that measure the noise floor")
    validity: str | None = figure(
        "ok, noisy, throttled, drifting, shared", value=lambda source: source.record.validity or None
    )
    validity_reason: str | None = figure("why it is not ok", value=lambda source: source.record.validity_reason or None)
    shares_node: bool | None = figure(
        "whether other cells of the run may have been measured on its node at the same time",
        value=lambda source: source.record.shares_node or None, seldom=True,
    )  # fmt: skip
    engine: str | None = figure(
        "what has placed the cell on its node", value=lambda source: source.record.engine or None, seldom=True
    )
    node: str | None = figure("name of that node", value=lambda source: source.record.node or None, seldom=True)
    fold: str | None = figure(
        "of a cross-validation: 1of5 is tested on the first of five parts of all images",
        value=attrgetter("cell.fold"), seldom=True,
    )  # fmt: skip
    split_seed: int | None = figure(
        "seed of splits and folds, where it was given apart from that of training",
        "count", attrgetter("cell.split_seed"), seldom=True,
    )  # fmt: skip
    relabelled_images: int | None = figure(
        "images whose label was corrected by a file", "count", of.part("relabelled", "images"), seldom=True
    )
    tuning_seconds: float | None = figure(
        "of training: choosing the learning rates by --lr auto, evaluation included",
        "seconds", of.tuning_seconds, average="mean", heading="choosing rates, s", hidden=True, seldom=True,
    )  # fmt: skip
    epochs_used: int | None = figure(
        "epochs that were trained, where --patience may stop early",
        "number", of.epochs_used, average="finished", heading="epochs used", seldom=True,
    )  # fmt: skip
    best_epoch: int | None = figure(
        "the one of these, 1 first, whose weights are kept: with --patience that of the best validation accuracy",
        "number", average="finished", heading="best epoch", hidden=True, seldom=True,
    )  # fmt: skip
    memory_format: str | None = figure(
        "of activations and weights, as used: contiguous, channels_last",
        value=of.part("layout", "chosen"), average="first",
    )  # fmt: skip
    flops_forward: float | None = figure(
        "floating-point operations of the forward pass, an image", "flops", of.part("flops", "forward"), average="first"
    )
    flops_train_step: float | None = figure(
        "of a training step, an image; of a schedule, the mean over its epochs",
        "flops", of.flops("train_step"), average="first", heading="training FLOPs an image",
    )  # fmt: skip
    flops_prefix: float | None = figure(
        "of the part of the frozen prefix whose output is kept, an image", "flops", of.flops("prefix"), average="first"
    )
    added_parameters: int | None = figure(
        "that the policy has put into the model, beyond the total",
        "count", average="first", heading="added parameters", hidden=True,
    )  # fmt: skip
    own_seconds: float | None = figure(
        "of training: its rounds, which the cell measured itself",
        "seconds", of.own_seconds, average="units", better="lower", heading="own, s", hidden=True,
    )  # fmt: skip
    shared_seconds: float | None = figure(
        "of training: the training images' share of the pass that computed the frozen prefix, one measurement for all "
        "cells that take it",
        "seconds", of.shared_seconds, average="mean", heading="shared, s", hidden=True,
    )  # fmt: skip
    compile_seconds: float | None = figure(
        "what torch.compile took, of training or before inference; empty where nothing is compiled",
        "seconds", average="mean", heading="compiling, s", hidden=True,
    )  # fmt: skip
    evaluation_seconds: float | None = figure(
        "on validation images after each epoch, on test images and in other tests, with their share of the frozen "
        "prefix; no part of training",
        "seconds", of.evaluation_seconds, average="mean", heading="evaluation, s", hidden=True,
    )  # fmt: skip
    fills: Sequence[str] | None = figure(
        "names of the passes that computed the frozen prefix; None where an older record does not tell",
        "list", of.fill_names,
    )  # fmt: skip
    prefix_where: str | None = figure(
        "where the frozen prefix's output is kept: memory, disk; none where it is computed anew",
        value=of.part("prefix", "where"), average="first",
    )  # fmt: skip
    prefix_seconds: float | None = figure(
        "one-off cost of computing and storing it",
        "seconds", of.part("prefix", "seconds"), average="mean", heading="prefix, s", hidden=True,
    )  # fmt: skip
    prefix_bytes: int | None = figure(
        "its size", "bytes", of.part("prefix", "bytes"), average="first", heading="prefix size", hidden=True
    )
    data_seconds: float | None = figure(
        "of a training step: loading, moving and normalising the batch",
        "seconds", of.part("detail", "data"), average="mean",
    )  # fmt: skip
    forward_seconds: float | None = figure(
        "of a training step: forward pass and loss", "seconds", of.part("detail", "forward"), average="mean"
    )
    backward_seconds: float | None = figure(
        "of a training step: backward pass", "seconds", of.part("detail", "backward"), average="mean"
    )
    optimizer_seconds: float | None = figure(
        "of a training step: the optimizer's update", "seconds", of.part("detail", "optimizer"), average="mean"
    )
    ceiling_flops_per_second: float | None = figure(
        "of a large matrix product in the same precision and thread count, in the same run", "flops"
    )
    ceiling_share: float | None = figure(
        "floating-point operations a second achieved over the ceiling, which a convolution may exceed",
        "share", of.ceiling_share, average="mean", heading="share of the ceiling", hidden=True,
    )  # fmt: skip
    gpu_clocks_locked: bool | None = figure(
        "whether somebody had set the GPU's clocks; empty on a CPU", value=of.gpu_clocks_locked, average="first"
    )
    energy_joules: float | None = figure(
        "of the timed rounds", "number", average="mean", heading="energy, J", hidden=True
    )
    round_phase: Sequence[str] = figure("phase of each timed round", "list", of.each_round("phase"))
    round_seconds: Sequence[float] = figure("seconds of each timed round, in order", "list", of.each_round("seconds"))
    round_samples: Sequence[int] = figure("images of each timed round", "list", of.each_round("samples"))
    round_loss: Sequence[float | None] = figure("mean training loss of each epoch", "list", of.each_round("loss"))
    round_accuracy_val: Sequence[float | None] = figure(
        "validation accuracy after each epoch", "list", of.each_round("accuracy_val")
    )
    latency_ms: Sequence[float] = figure(
        "milliseconds of each single image", "list", lambda source: [1000 * s for s in source.record.latency_seconds]
    )
    epoch_iqr_seconds: float | None = figure(
        "spread of the epochs: third minus first quartile; spread, not an interval",
        "seconds", of.epoch_iqr_seconds, average="mean", heading="epoch IQR, s", hidden=True,
    )  # fmt: skip
    machine: str = figure(
        "short hash of what must agree before records are averaged: hardware, libraries, settings",
        value=lambda source: source.machine, average="first", heading="machine", hidden=True,
    )  # fmt: skip
    hardware: str = figure(
        "short hash of hardware and libraries alone, without torch's settings", value=of.hardware, average="first"
    )
    configuration: str = figure(
        "short hash of what may be averaged over seeds and blocks: the axes that matter for the task, the image size, "
        "the hashes of weights and images (where they are unknown, what was asked for), the machine",
        value=of.configuration, average="first",
    )  # fmt: skip
    inference: str = figure(
        "short hash of what inference depends on, which a training cell shares with its inference cell",
        value=of.inference, average="first",
    )  # fmt: skip
    images_sha256: str | None = figure(
        "of classes, decoded pixels and labels, whatever the split; none in older records", average="first"
    )
    weights_sha256: str | None = figure(
        "of the pretrained weights as they were loaded, or random",
        value=lambda source: identity.weights_of(source.record), average="first",
    )  # fmt: skip
    split_sha256: str | None = figure("of images and split", value=attrgetter("record.data_sha256"))
    initial_sha256: str | None = figure(
        "of the backbone's initial weights, random ones included", value=of.part("weights", "sha256")
    )

    image_results: Mapping[str, Any] | None = figure(
        "where the results on single images lie; none where the record has none",
        value=lambda source: source.record.per_image and source.record.per_image.place,
    )
    majority_share: float | None = figure(
        "share of the test images that are of their most frequent class, which is what always naming it scores; from "
        "results on single images where the record has no counts; none where neither tells",
        "share", of.majority("test"), average="finished", heading="most frequent class, test",
    )  # fmt: skip
    majority_share_val: float | None = figure(
        "the same of the validation images",
        "share", of.majority("val"), average="finished", heading="most frequent class, validation", hidden=True,
    )  # fmt: skip

    # --- from results on single images; none where a record has none
    balanced_accuracy_val: float | None = figure(
        "mean of the classes' accuracies on the validation images, in which each class counts the same",
        "share", of_predictions("balanced_accuracy", "val"), average="seeds", better="higher",
        heading="balanced accuracy, validation", hidden=True, seldom=True,
    )  # fmt: skip
    balanced_accuracy_test: float | None = figure(
        "the same of the test images",
        "share", of_predictions("balanced_accuracy", "test"), average="seeds", better="higher",
        heading="balanced accuracy, test", hidden=True, seldom=True,
    )  # fmt: skip
    macro_f1_val: float | None = figure(
        "mean of the classes' F1 on the validation images",
        "share", of_predictions("macro_f1", "val"), average="seeds", better="higher",
        heading="macro F1, validation", hidden=True, seldom=True,
    )  # fmt: skip
    macro_f1_test: float | None = figure(
        "the same of the test images",
        "share", of_predictions("macro_f1", "test"), average="seeds", better="higher",
        heading="macro F1, test", hidden=True, seldom=True,
    )  # fmt: skip
    worst_class_test: str | None = figure(
        "class with the lowest accuracy on the test images",
        value=of_predictions("worst_class", "test"), seldom=True,
    )  # fmt: skip
    worst_class_accuracy_test: float | None = figure(
        "its accuracy", "share", of_predictions("worst_class_accuracy", "test"), seldom=True
    )
    top5_accuracy_val: float | None = figure(
        "share of the validation images whose class is among the five most likely; none of five classes or fewer",
        "share", of_logits("top5_accuracy", "val"), average="finished", seldom=True,
    )  # fmt: skip
    top5_accuracy_test: float | None = figure(
        "the same of the test images",
        "share", of_logits("top5_accuracy", "test"), average="finished",
        heading="top-5 accuracy, test", hidden=True, seldom=True,
    )  # fmt: skip
    nll_val: float | None = figure(
        "mean negative log-likelihood (cross-entropy) of the validation images, from the kept logits",
        "number", of_logits("nll", "val"), average="finished", seldom=True,
    )  # fmt: skip
    nll_test: float | None = figure(
        "the same of the test images",
        "number", of_logits("nll", "test"), average="finished", heading="NLL, test", hidden=True,
        seldom=True,
    )  # fmt: skip
    ece_val: float | None = figure(
        "expected calibration error on the validation images: how far the probability of the most likely class is from "
        "how often it is right, in 15 bins of equal width",
        "share", of_logits("ece", "val"), average="finished", seldom=True,
    )  # fmt: skip
    ece_test: float | None = figure(
        "the same of the test images",
        "share", of_logits("ece", "test"), average="finished", heading="calibration error, test",
        hidden=True, seldom=True,
    )  # fmt: skip
    other_tests: Mapping[str, float] | None = figure(
        "accuracy on each test beside the test images, by its name: of --also-test, and as noise@2 of --corrupt",
        value=of.other_tests, seldom=True,
    )  # fmt: skip
    accuracy_corrupted: float | None = figure(
        "mean accuracy on the corrupted test images, over the kinds and strengths that --corrupt has tested",
        "share", of.accuracy_corrupted, average="finished", heading="test accuracy, corrupted", seldom=True,
    )  # fmt: skip

    # --- no column

    record: Record | None = None
    """What the figures are taken from; None in a row that comes from a frame."""
    source: Source | None = field(default=None, repr=False)

    @classmethod
    def taken_from(cls, source: Source) -> Row:
        """Returns the row of a record."""
        row = object.__new__(cls)
        object.__setattr__(row, "record", source.record)
        object.__setattr__(row, "source", source)
        return row

    if not TYPE_CHECKING:  # to which every name would be one of a row

        def __getattr__(self, name: str) -> Any:
            """Takes a figure that was not asked for yet."""
            source = self.source
            if name not in READERS or source is None:
                raise AttributeError(f"a row has no {name!r}")
            value = READERS[name](source)
            object.__setattr__(self, name, value)
            return value

    @property
    def has_valid_times(self) -> bool:
        return self.validity in VALID

    def __getitem__(self, name: str) -> Any:
        if name.startswith(ON):
            return (self.other_tests or {}).get(name.removeprefix(ON))
        if name not in IN_ROW:
            raise KeyError(name)
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return iter(IN_ROW)

    def __len__(self) -> int:
        return len(IN_ROW)


def _figures() -> dict[str, Figure]:
    figures = {}
    for one in fields(Row):
        if (row := one.metadata.get("figure")) is not None:
            by_name = attrgetter(f"cell.{one.name}" if row.axis else f"record.{one.name}")
            figures[one.name] = replace(row, name=one.name, value=row.value or by_name)
    return figures


FIGURES = _figures()
"""Name -> figure, in the order of the columns."""
READERS = {name: one.value for name, one in FIGURES.items() if one.value is not None}
"""Name -> function that takes the figure from a record."""


VALID = (None, "ok")
"""Values of ``validity`` with which times can be trusted."""
ON = "accuracy_on_"
"""What the columns of other tests begin with: ``accuracy_on_phone``. Whatever tests there are have one each."""


def column(table: Iterable[Row], name: str) -> list[Any]:
    """Returns a figure of all rows. What it takes from records the rows do not keep: all figures of 50,000 records
    would be half a gigabyte, and to keep one takes longer than most of them.
    """
    return next(each_column(table, (name,)))


def each_column(table: Iterable[Row], names: Iterable[str]) -> Iterator[list[Any]]:
    """Yields figures of all rows, as `column` returns each."""
    rows = list(table)
    sources = [row.source for row in rows]
    taken, images = all(sources), True
    for name in names:
        read = READERS[name]
        if not taken:
            yield [getattr(row, name) if row.source is None else read(row.source) for row in rows]
            continue
        if images and read in READERS_OF_IMAGES:
            images = any(row.record is not None and row.record.per_image is not None for row in rows)
        known: Any = sources
        yield list(map(read, known)) if images or read not in READERS_OF_IMAGES else [None] * len(rows)


def first_known(table: Iterable[Row], name: str) -> Any:
    """Returns a figure of the first row that has it; None where no row has. Rows of records keep nothing of it."""
    read = READERS[name]
    for row in table:
        value = getattr(row, name) if row.source is None else read(row.source)
        if value is not None:
            return value
    return None


def same_known(table: Iterable[Row], name: str) -> Any:
    """Returns a figure of all rows that have it; None where no row has, and where they differ."""
    read = READERS[name]
    values = (getattr(row, name) if row.source is None else read(row.source) for row in table)
    known = {value for value in values if value is not None}
    return known.pop() if len(known) == 1 else None


IN_ROW: dict[str, None] = dict.fromkeys((*FIGURES, "record"))
"""What a row has, in order."""
COLUMNS: dict[str, str] = {name: one.meaning for name, one in FIGURES.items() if not one.seldom}
"""Column of a tidy frame -> what it means."""
SELDOM: dict[str, str] = {name: one.meaning for name, one in FIGURES.items() if one.seldom}
"""Column that a table has behind the others only where some record has it -> what it means."""
EXPORT_COLUMNS = (
    *list(COLUMNS)[: list(COLUMNS).index("key")],
    *("image_size", "epochs", "train_images", "batch_size", "variant", "block", "id", "run", "weights_sha256"),
)
"""Columns of the tidy table of `tlbench export`; the last ones tell rows apart that the others leave alike."""
NAMED = tuple(name for name, one in FIGURES.items() if one.axis)
"""Axes that are columns of their own; the others are in ``variant`` where they are not at their defaults."""
