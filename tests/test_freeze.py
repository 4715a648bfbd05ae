"""Frozen means: no gradient, not in the optimizer, in eval mode, and bit for bit the same afterwards."""

import pytest
import torch
from models import RECIPE, Pictures, phases_of, tiny, trained
from torch import nn

from tlbench import freeze
from tlbench.train import evaluate, make_optimizer

POLICIES = ["linear_probe", "last_1", "last_2", "norm", "full", "linear_probe+bn=adapt", "full+bn=freeze"]


def apply(model: nn.Sequential, text: str):
    phase = phases_of(model, text)[0]
    freeze.apply(model, phase)
    return phase


@pytest.mark.parametrize("text", POLICIES)
def test_training_moves_exactly_what_the_policy_names(text):
    torch.manual_seed(0)
    model = tiny()
    phase = apply(model, text)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    trained(model, text)
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == set(phase.scales)


@pytest.mark.parametrize("text", POLICIES)
def test_the_frozen_part_keeps_its_hash(text):
    model = tiny()
    phases = phases_of(model, text)
    frozen = freeze.untouched(model, phases)
    before = freeze.fingerprint(model, frozen)
    trained(model, text, epochs=2)
    assert freeze.fingerprint(model, frozen) == before


def test_the_hash_catches_a_frozen_trunk_left_in_train_mode():
    model = tiny()
    phase = apply(model, "linear_probe")
    frozen = freeze.untouched(model, [phase])
    before = freeze.fingerprint(model, frozen)
    model.train()  # the wrong implementation: requires_grad=False alone
    with torch.no_grad():
        model(Pictures().images[:4].float())
    assert freeze.fingerprint(model, frozen) != before


@pytest.mark.parametrize(
    ("text", "training"),
    [
        ("linear_probe", set()),
        ("last_1", {"stage2.bn", "stage2.dropout"}),
        ("norm", {"stem.bn", "stage1.bn", "stage2.bn"}),
        ("full+bn=freeze", {"stem.dropout", "stage1.dropout", "stage2.dropout"}),
        ("linear_probe+bn=adapt", {"stem.bn", "stage1.bn", "stage2.bn"}),
    ],
)
def test_modes_of_batch_norm_and_dropout(text, training):
    model = tiny()
    apply(model, text)
    kinds = (nn.BatchNorm2d, nn.Dropout)
    assert {name for name, m in model.named_modules() if isinstance(m, kinds) and m.training} == training


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("linear_probe", "head"),
        ("last_1", "stage2"),
        ("last_2", "stage1"),
        ("norm", "stem"),
        ("full", "stem"),
        ("linear_probe+bn=adapt", "stem"),
    ],
)
def test_the_cut(text, cut):
    model = tiny()
    apply(model, text)
    assert [name for name, _ in model.named_children()][freeze.cut(model)] == cut


@pytest.mark.parametrize("text", POLICIES)
def test_the_optimizer_holds_exactly_what_trains(text):
    model = tiny()
    with torch.no_grad():  # equal tensors: a comparison by value would drop one of them
        model.stage2.conv.weight.copy_(model.stage1.conv.weight)
    phase = apply(model, text)
    ids = [id(p) for group in make_optimizer(model, phase, RECIPE).param_groups for p in group["params"]]
    assert len(ids) == len(set(ids))
    assert set(ids) == {id(p) for p in model.parameters() if p.requires_grad}


def test_evaluation_between_epochs_does_not_thaw_or_freeze_anything():
    model = tiny()
    phase = apply(model, "last_1")
    modes = {name: m.training for name, m in model.named_modules()}
    evaluate(model, Pictures(), 20, 8)
    assert not any(m.training for m in model.modules())
    trained(model, [phase])
    assert {name: m.training for name, m in model.named_modules()} == modes


def test_a_shared_parameter_is_counted_once():
    model = tiny()
    model.stage2.conv.weight = model.stage1.conv.weight
    described = freeze.describe(model)
    assert sum(p.numel for p in described.params) == sum(p.numel() for p in model.parameters())


def test_norm_layers_are_found_by_type():
    model = nn.Sequential(nn.Sequential(nn.GroupNorm(1, 3), nn.LayerNorm(4)), nn.Sequential(nn.BatchNorm2d(3)))
    assert {p.kind for p in freeze.describe(model).params} == {"norm"}
