"""What is known of a cell while it is measured, and the fields of its record that follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from tlbench.data.levels import PARTS
from tlbench.data.scan import unread_endings
from tlbench.grid.cell import SINCE
from tlbench.measure.build import Building
from tlbench.measure.fitting import HeadFit
from tlbench.measure.frozen import kept_flops
from tlbench.measure.inference import Inference
from tlbench.measure.other_tests import OtherTests
from tlbench.measure.outcome import TestResult
from tlbench.measure.phases import TrainingPlan
from tlbench.measure.rates import Trial
from tlbench.measure.timed import Measured
from tlbench.records.images import PerImage
from tlbench.train.prefix import PrefixUse
from tlbench.train.recipe import Recipe


class Findings:
    """Holds what is known of one cell so far. Each part is put here when it is finished: an error loses none."""

    def __init__(self) -> None:
        self.building = Building()
        self.plan: TrainingPlan | None = None
        self.prefix: PrefixUse | None = None
        self.lr_trials: tuple[Trial, ...] = ()
        self.recipe: Recipe | None = None
        self.peak_memory_bytes: int | None = None
        self.compile_seconds: float | None = None
        self.measured: Measured | None = None
        """Owns the rounds, which it may have begun only."""
        self.detail: dict[str, float] = {}
        self.frozen_sha256_after: str | None = None
        self.best_epoch: int | None = None
        self.accuracy_val: float | None = None
        self.accuracy_val_clean: float | None = None
        self.test: TestResult | None = None
        self.per_image: PerImage | None = None
        self.other_tests = OtherTests()

    def fields(self) -> dict[str, Any]:
        """Returns what is known, as fields of `tlbench.records.record.Record`; what is not known is left out.

        The values are plain: nothing of the model is held by them. Errors: RuntimeError of a device that is lost.
        """
        return _known({**self._of_building(), **self._of_training(), **self._of_outcome(), **self._of_rounds()})

    def fields_despite_errors(self) -> dict[str, Any]:
        """Returns as much of `fields` as can still be told of a cell that failed."""
        values: dict[str, Any] = {}
        for part in (self._of_building, self._of_training, self._of_outcome, self._of_rounds):
            with suppress(Exception):
                values |= part()
        return _known(values)

    def _of_outcome(self) -> dict[str, Any]:
        """Says what came of it."""
        return {
            "peak_memory_bytes": self.peak_memory_bytes,
            "compile_seconds": self.compile_seconds,
            "detail": self.detail,
            "best_epoch": self.best_epoch,
            "accuracy_val": self.accuracy_val,
            "accuracy_val_clean": self.accuracy_val_clean,
            "per_image": self._per_image(),
            "other_tests": dict(self.other_tests.figures),
            **{name: value for name, value in vars(self.test or TestResult()).items() if name != "evaluation"},
        }

    def _per_image(self) -> PerImage | None:
        """Returns what is known of single images, those of other tests among them."""
        if self.per_image is None or not self.other_tests.splits:
            return self.per_image
        return PerImage({**(self.per_image.splits or {}), **self.other_tests.splits})

    def _of_rounds(self) -> dict[str, Any]:
        """Says what was timed; to tell, a GPU is asked once more."""
        if self.measured is None:
            return {}
        values: dict[str, Any] = {"rounds": self.measured.rounds(), "energy_joules": self.measured.energy()}
        if isinstance(self.measured, Inference):
            values["latency_seconds"] = self.measured.latency_seconds
            values["latency_noisy"] = self.measured.latency_noisy
        return values

    def _of_building(self) -> dict[str, Any]:
        """Says what the cell was made of."""
        building = self.building
        values: dict[str, Any] = {
            "baseline_memory_bytes": building.baseline_memory_bytes,
            "image_size": building.image_size,
            "total_parameters": building.total_parameters,
        }
        if building.backbone is not None:
            values["weights"] = asdict(building.backbone.weights)
        if (data := building.data) is not None:
            values |= {
                "classes": len(data.classes),
                "data_sha256": data.sha256,
                "images_sha256": data.images_sha256,
                "dropped_images": len(data.dropped),
                "passed_over_files": len(data.passed_over),
                "passed_over_endings": unread_endings(data.passed_over),
                "pixel_range": dict(data.pixel_range),
                # What inference of the same images is known by, whose labels are no matter.
                "relabelled": {**data.relabelled, "images_sha256": data.pixels_sha256} if data.relabelled else {},
                "scaled_images": data.decoding.get("scaled", 0),
                "repeated_images": dict(data.repeated),
                "copies": dict(data.copies),
                "leaked_images": {part: len(places) for part, places in data.leaked.items()},
                "images_where": building.images_where,
                "samples": {"train": len(data.train), "val": len(data.val), "test": len(data.test)},
                "largest_class": {part: int(getattr(data, part).labels.bincount().max()) for part in PARTS},
            }
        if building.layout is not None:
            values["layout"] = asdict(building.layout)
        if building.built is not None:
            values["stages"] = tuple(asdict(cost) for cost in building.built.stages)
        return values

    def _of_training(self) -> dict[str, Any]:
        """Says what the policy made of it, and the recipe; of inference, its FLOPs alone."""
        built, plan = self.building.built, self.plan
        if built is None:
            return {}
        forward = sum(stage.flops for stage in built.stages)
        if plan is None:
            return {"flops": {"forward": forward}} if built.cell.task == "infer" else {}
        prefix = self.prefix.to_dict() if self.prefix is not None else {}
        kept = self.prefix.boundaries if self.prefix is not None else ()
        values: dict[str, Any] = {
            "trainable_parameters": plan.trainable_parameters,
            "added_parameters": plan.added_parameters,
            "frozen_sha256_before": plan.frozen_sha256,
            "frozen_sha256_after": self.frozen_sha256_after,
            "flops": {
                "forward": forward,
                "train_step": plan.step_flops,
                "prefix": kept_flops(built, plan.phases, plan.boundaries, kept),
            },
            "cut": built.names[plan.boundaries[0]],
            "prefix": prefix,
            "lr_trials": tuple(asdict(trial) for trial in self.lr_trials),
        }
        if self.recipe is not None:
            values["recipe"] = said(asdict(self.recipe))
        elif isinstance(self.measured, HeadFit) and self.measured.fitted is not None:
            weighed = said({"class_weights": built.cell.class_weights})
            values["recipe"] = {**self.measured.fitted.chosen, **weighed}
        return values


def said(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a recipe without the choices that are newer than the first records and were not made: a cell that is run
    again says what its record says.
    """
    return {name: value for name, value in recipe.items() if name not in SINCE or value != SINCE[name]}


def _known(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
