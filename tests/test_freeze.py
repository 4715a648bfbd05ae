"""Frozen means: no gradient, not in the optimizer, in eval mode, and bit for bit the same afterwards."""

import copy

import pytest
import torch
from models import RECIPE, Pictures, examples, phases_of, tiny, trained
from randomise import no_initialisation, randomise
from torch import nn

from tlbench.backbones import load_backbone
from tlbench.errors import NotApplicable
from tlbench.measure.build import assemble
from tlbench.policies import freezing
from tlbench.policies.parse import parse_policy
from tlbench.policies.table import POLICIES as TABLE
from tlbench.train.evaluate import evaluate
from tlbench.train.optimizer import make_optimizer

POLICIES = ["linear_probe", "last_1", "last_2", "norm", "full", "linear_probe+bn=adapt", "full+bn=freeze"]


def apply(model: nn.Sequential, text: str):
    phase = phases_of(model, text)[0]
    freezing.apply(model, phase)
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
    frozen = freezing.untouched(model, phases)
    before = freezing.fingerprint(model, frozen)
    trained(model, text, epochs=2)
    assert freezing.fingerprint(model, frozen) == before


def test_the_hash_catches_a_frozen_trunk_left_in_train_mode():
    model = tiny()
    phase = apply(model, "linear_probe")
    frozen = freezing.untouched(model, [phase])
    before = freezing.fingerprint(model, frozen)
    model.train()  # the wrong implementation: requires_grad=False alone
    with torch.no_grad():
        model(Pictures().images[:4].float())
    assert freezing.fingerprint(model, frozen) != before


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
    assert [name for name, _ in model.named_children()][freezing.cut(model)] == cut


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
    evaluate(model, Pictures(), 8)
    assert not any(m.training for m in model.modules())
    trained(model, [phase])
    assert {name: m.training for name, m in model.named_modules()} == modes


def test_a_shared_parameter_is_counted_once():
    model = tiny()
    model.stage2.conv.weight = model.stage1.conv.weight
    described = freezing.describe(model)
    assert sum(p.numel for p in described.params) == sum(p.numel() for p in model.parameters())


def test_norm_layers_are_found_by_type():
    model = nn.Sequential(nn.Sequential(nn.GroupNorm(1, 3), nn.LayerNorm(4)), nn.Sequential(nn.BatchNorm2d(3)))
    assert {p.kind for p in freezing.describe(model).params} == {"norm"}


# --- trainable parameters of every policy on ResNet-18 with 23 classes -----------------------------------------

GOLDEN = {
    "linear_probe": [11_799],
    "linear_probe+bn=adapt": [11_799],
    "last_1": [8_405_527],
    "last_2": [10_505_239],
    "last_3": [11_030_807],
    "last_4": [11_178_775],
    "last_5": [11_188_311],
    "first_1": [21_335],
    "first_2": [169_303],
    "first_5": [11_188_311],
    "stage_stem": [21_335],
    "stage_1": [159_767],
    "stage_2": [537_367],
    "stage_3": [2_111_511],
    "stage_4": [8_405_527],
    "norm": [21_399],
    "bias": [16_599],
    "norm_bias": [21_399],
    "full": [11_188_311],
    "full(1)": [11_188_311],
    "lp_ft": [11_799, 11_188_311],
    "gradual": [11_799, 8_405_527, 10_505_239, 11_030_807, 11_178_775, 11_188_311],
    # Of ten epochs; the stages end at 0.51, 0.59, 0.68, 0.78 and 0.88 of them.
    "freeze_out": [11_188_311, 11_030_807, 10_505_239, 8_405_527, 11_799],
    "layer_decay": [11_188_311],
    "layer_decay(0.65)": [11_188_311],
    "l2_sp": [11_188_311],
    "l2_sp(0.1)": [11_188_311],
    "lora": [299_183],
    "lora(r=4)": [155_491],
    "lora(r=1)": [47_722],
    "lora(8,alpha=32)": [299_183],
    "auto_rgn": [11_178_711],
    "scratch": [11_188_311],
}
NOT_ON_RESNET18 = {
    "last_6": "has 5 stages",
    "first_6": "has 5 stages",
    "stage_5": "stem, stage1, stage2, stage3, stage4",
}


@pytest.fixture(scope="module")
def resnet18():
    with no_initialisation():
        backbone = load_backbone("resnet18", "random")
    return backbone, assemble(backbone, "linear", 23)


def phases_on(resnet18, text: str):
    backbone, model = resnet18
    policy = parse_policy(text)
    if policy.policy.adapter:
        model = copy.deepcopy(model)
        policy.inject(model, 32)
    described = freezing.describe(model, backbone.group_of, policy.owns)
    return described, policy.phases(described, 10), model


KNOWN = {parse_policy(text).name for text in GOLDEN}
OTHERS = [text for name in TABLE if name not in KNOWN for text in examples(name)]
"""Of rows whose figures nobody has worked out."""


@pytest.mark.parametrize("text", [*GOLDEN, *OTHERS])
def test_trainable_parameters_of_resnet18(resnet18, text):
    described, phases, model = phases_on(resnet18, text)
    counts = [freezing.count_trainable(described, phase) for phase in phases]
    assert counts == GOLDEN.get(text, counts)
    for phase, count in zip(phases, counts, strict=True):
        freezing.apply(model, phase)
        assert sum(p.numel() for p in model.parameters() if p.requires_grad) == count


@pytest.mark.parametrize("text", NOT_ON_RESNET18)
def test_stages_that_resnet18_does_not_have(resnet18, text):
    with pytest.raises(NotApplicable, match=NOT_ON_RESNET18[text]):
        phases_on(resnet18, text)


def test_the_golden_figures_by_hand(resnet18):
    """From the published architecture, not from the code under test."""
    head = 512 * 23 + 23
    norms = 2 * (64 + 4 * 64 + (4 * 128 + 128) + (4 * 256 + 256) + (4 * 512 + 512))  # 20 layers, scale and shift
    assert GOLDEN["linear_probe"] == [head]
    assert GOLDEN["norm"] == [norms + head]
    assert GOLDEN["bias"] == [norms // 2 + head]
    assert GOLDEN["auto_rgn"] == [GOLDEN["full"][0] - norms]
    layer4 = 256 * 512 * 9 + 3 * 512 * 512 * 9 + 256 * 512 + 2 * 5 * 512
    assert GOLDEN["last_1"] == [layer4 + head]
    rank = 8
    convolutions = [m for _, m in resnet18[1].named_modules() if isinstance(m, nn.Conv2d)]
    factors = [rank * m.in_channels * m.kernel_size[0] ** 2 + rank * m.out_channels for m in convolutions]
    assert len(factors) == 20
    assert GOLDEN["lora"] == [sum(factors) + head]


def test_names_alone_would_miss_norm_layers(resnet18):
    layers = {name for name, m in resnet18[1].named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert len(layers) == 20
    assert len({name for name in layers if "bn" in name}) == 17


def test_a_frozen_model_in_train_mode_changes_every_buffer(resnet18):
    """The tutorial loop, which `+bn=adapt` reproduces."""
    model = randomise(copy.deepcopy(resnet18[1]))
    before = {n: b.clone() for n, b in model.named_buffers()}
    assert len(before) == 60
    freezing.apply(model, parse_policy("linear_probe+bn=adapt").phases(freezing.describe(model), 1)[0])
    with torch.no_grad():
        model(torch.rand(2, 3, 32, 32))
    assert sum(not torch.equal(b, before[n]) for n, b in model.named_buffers()) == 60
