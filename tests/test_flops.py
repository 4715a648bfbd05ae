"""FLOPs in a record: of the forward pass, of a training step, and of what is kept and so not in an epoch."""

from dataclasses import replace

import pytest
import torch
from randomise import no_initialisation
from tiers import sweep
from torch.nn import functional
from torchvision import models

from tlbench.analysis.frame import row
from tlbench.backbones.base import without_values
from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.machine.kept import KEPT
from tlbench.measure import build
from tlbench.measure import cell as run
from tlbench.policies.freezing import apply, cut
from tlbench.policies.parse import parse_policy
from tlbench.train.flops import count_flops, step_flops

QUICK = Settings(throughput_rounds=1, throughput_batches=1, latency_rounds=1)


@pytest.fixture
def without_initialisation():
    """Models whose weights are whatever memory holds; what is kept of them must reach no other test."""
    with no_initialisation():
        yield
    KEPT.forget_weights()


PUBLISHED = {
    "vit_b_16": models.ViT_B_16_Weights.IMAGENET1K_V1,
    "swin_t": models.Swin_T_Weights.IMAGENET1K_V1,
    "convnext_tiny": models.ConvNeXt_Tiny_Weights.IMAGENET1K_V1,
    "resnet50": models.ResNet50_Weights.IMAGENET1K_V1,
    "efficientnet_b0": models.EfficientNet_B0_Weights.IMAGENET1K_V1,
}
"""torchvision's metadata counts a multiplication and an addition as one."""


@pytest.mark.exhaustive
@pytest.mark.parametrize("backbone", sweep(PUBLISHED, {"efficientnet_b0"}))
@pytest.mark.usefixtures("without_initialisation")
def test_the_forward_pass_in_a_record_is_what_torchvision_publishes(backbone):
    cell = Cell(task="infer", backbone=backbone, weights="random", freeze="none", dataset="synthetic", batch_size=1,
                layout="contiguous")  # fmt: skip
    record = run.run_cell(cell, QUICK)
    assert record.status == "ok", record.reason
    assert record.flops["forward"] == pytest.approx(2e9 * PUBLISHED[backbone].meta["_ops"], rel=0.01)
    assert record.flops["forward"] == sum(stage["flops"] for stage in record.stages)


SMALL = Cell(backbone="resnet18", weights="random", image_size=32, train_size=20, epochs=1, layout="contiguous")


@pytest.mark.parametrize(
    ("freeze", "ratio"), [("linear_probe", 1.00), ("last_1", 1.42), ("full", 2.94)], ids=lambda value: str(value)
)
@pytest.mark.usefixtures("without_initialisation")
def test_a_training_step_over_the_forward_pass(freeze, ratio):
    """At the 224 px of the published figures, on shapes alone."""
    policy = parse_policy(freeze)
    built = build.build(replace(SMALL, image_size=224, train_size=10), Settings(), policy)
    step = step_flops(built.model, policy.phases(built.described, 1)[0], 224, built.stages)
    assert step / sum(stage.flops for stage in built.stages) == pytest.approx(ratio, abs=0.01)


RATIOS = [("linear_probe", 1.0, 1.001), ("full", 2.8, 3.0)]


@pytest.mark.exhaustive
@pytest.mark.parametrize(("freeze", "least", "most"), RATIOS)
def test_the_ratio_in_a_record(freeze, least, most):
    record = run.run_cell(replace(SMALL, freeze=freeze), Settings(prefix="off"))
    assert least <= record.flops["train_step"][freeze] / record.flops["forward"] <= most
    assert record.flops["prefix"] == {freeze: 0}


@pytest.mark.exhaustive
def test_what_is_kept_is_not_in_an_epoch():
    record = run.run_cell(SMALL, Settings(prefix="on"))
    assert record.status == "ok", record.reason
    assert record.prefix["boundaries"] == [len(record.stages) - 1]
    head = record.stages[-1]["flops"]
    kept = sum(stage["flops"] for stage in record.stages[:-1])
    assert record.flops["prefix"] == {"linear_probe": kept}
    assert record.flops["train_step"]["linear_probe"] - kept == 2 * head  # its forward pass and its weight's gradient
    made = row(replace(record, ceiling_flops_per_second=1e9))
    assert made["flops_prefix"] == kept
    assert made["ceiling_share"] == pytest.approx(2 * head * made["images_per_second"] / 1e9)


@pytest.mark.exhaustive
def test_a_phase_that_trains_what_was_kept_takes_nothing_of_it():
    record = run.run_cell(replace(SMALL, freeze="lp_ft", epochs=2), Settings(prefix="on"))
    assert record.flops["prefix"]["linear_probe"] > 0
    assert record.flops["prefix"]["fine_tune"] == 0
    assert row(record)["flops_prefix"] == record.flops["prefix"]["linear_probe"] / 2  # the mean over the epochs


def test_attention_is_counted_whatever_kernel_computes_it():
    q, k, v = torch.rand(3, 1, 2, 8, 16).unbind()
    products = 2 * 2 * (2 * 8 * 8 * 16)  # two of them, of two heads
    assert count_flops(lambda: functional.scaled_dot_product_attention(q, k, v)) == products


@pytest.mark.exhaustive
@pytest.mark.parametrize("freeze", ["linear_probe", "last_1", "norm", "full", "lp_ft"])
@pytest.mark.parametrize("backbone", sweep(["resnet18", "efficientnet_b0", "vit_b_16", "densenet121"], {"resnet18"}))
@pytest.mark.usefixtures("without_initialisation")
def test_a_step_counted_from_the_cut_is_the_whole_step(backbone, freeze):
    """Against a count of the whole model at once, forward and backward."""
    policy, size = parse_policy(freeze), 224 if backbone == "vit_b_16" else 64
    built = build.build(replace(SMALL, backbone=backbone, image_size=size, train_size=10), Settings(), policy)
    for phase in policy.phases(built.described, 2):
        counted = step_flops(built.model, phase, size, built.stages)
        whole = without_values(built.model)
        apply(whole, phase)
        boundary = cut(whole)

        def step(whole=whole, boundary=boundary):
            with torch.no_grad():
                x = whole[:boundary](torch.empty(2, 3, size, size, device="meta"))
            whole[boundary:](x).sum().backward()

        assert counted == count_flops(step) // 2
