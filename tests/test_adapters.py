"""Low-rank factors through peft: what they go into, that they start at nothing, and that merging loses nothing."""

import copy
import sys
from collections import OrderedDict

import pytest
import torch
from models import Pictures, phases_of, trained
from randomise import randomise
from test_pitfalls import small_swin, small_vit, staged
from tiers import sweep
from torch import nn
from torchvision import models as torchvision_models

from tlbench.analysis.frame import rows
from tlbench.analysis.summary import summarise
from tlbench.errors import NotApplicable, Unavailable
from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.measure.cell import run_cell
from tlbench.policies import freezing
from tlbench.policies.lora import ADAPTER, inject_lora, merge
from tlbench.policies.parse import parse_policy
from tlbench.report import wording
from tlbench.report.terminal import summary


def small_resnet() -> nn.Module:
    return torchvision_models.ResNet(torchvision_models.resnet.BasicBlock, [1, 1, 1, 1])


def small_regnet() -> nn.Module:
    """With convolutions in 2, 4 and 8 groups."""
    setting = torchvision_models.regnet.BlockParams([1] * 4, [16, 32, 64, 64], [8] * 4, [1.0] * 4, [2] * 4)
    return torchvision_models.RegNet(setting)


BUILDERS = {
    "resnet": (small_resnet, 32),
    "regnet": (small_regnet, 32),
    "mobilenet_v3": (lambda: torchvision_models.mobilenet_v3_small(), 32),
    "vit": (small_vit, 16),
    "swin": (small_swin, 32),
}


def adapted(name: str, text: str = "lora(r=4)"):
    build, size = BUILDERS[name]
    torch.manual_seed(0)
    model = staged(randomise(build()))
    model.head = nn.Sequential(model.head)
    plain = copy.deepcopy(model)
    tuner = inject_lora(model, parse_policy(text).arguments, size)
    return model, plain, tuner, size


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", sweep(BUILDERS, {"vit"}))
def test_the_model_is_the_same_before_training(name):
    model, plain, _, size = adapted(name)
    images = torch.rand(2, 3, size, size)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(images), plain.eval()(images))


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", sweep(BUILDERS, {"vit"}))
def test_merging_keeps_what_was_learned_and_removes_every_factor(name):
    model, plain, tuner, size = adapted(name)
    trained(model, "lora(r=4)", 2, source=Pictures(size=size))
    images = torch.rand(4, 3, size, size)
    with torch.no_grad():
        before = model.eval()(images)
        merged = merge(tuner).eval()
        after = merged(images)
        unadapted = plain.eval()(images)
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-4 * float(before.abs().max()))
    assert not torch.allclose(before, unadapted, rtol=1e-3, atol=1e-3 * float(before.abs().max())), "nothing learned"
    assert merged.state_dict().keys() == plain.state_dict().keys()
    assert {n: p.shape for n, p in merged.named_parameters()} == {n: p.shape for n, p in plain.named_parameters()}
    head = [n for n in plain.state_dict() if n.startswith("head.")]
    assert freezing.fingerprint(merged, head) != freezing.fingerprint(plain, head)


def factors(model: nn.Module) -> set[str]:
    """Modules that got factors."""
    return {name.partition(".lora_")[0] for name, _ in model.named_parameters() if ".lora_" in name}


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", sweep(BUILDERS, {"vit"}))
def test_every_factor_gets_a_gradient(name):
    """A factor beside a layer that is never called would be counted and learn nothing."""
    model, _, _, size = adapted(name)
    freezing.apply(model, phases_of(model, "lora(r=4)", 1)[0])
    model(torch.rand(4, 3, size, size)).square().sum().backward()
    for parameter_name, parameter in model.named_parameters():
        if ".lora_" in parameter_name:
            assert parameter.grad is not None, parameter_name


@pytest.mark.exhaustive
@pytest.mark.parametrize("rank", sweep([1, 3, 4, 8, 576], {8}))
@pytest.mark.parametrize("name", ["regnet", "mobilenet_v3"])
def test_grouped_convolutions_are_left_out_whatever_the_rank(name, rank):
    """Depthwise ones, and those in groups, which peft takes where the groups divide the rank but cannot merge."""
    model, plain, _, _ = adapted(name, f"lora(r={rank})")
    layers = {n: m for n, m in plain.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    grouped = {n for n, m in layers.items() if isinstance(m, nn.Conv2d) and m.groups > 1}
    assert grouped
    assert factors(model) == {n for n in layers if n not in grouped and not n.startswith("head.")}


def test_attention_is_adapted_in_a_vit():
    model, plain, _, _ = adapted("vit")
    attention = {n for n, m in plain.named_modules() if isinstance(m, nn.MultiheadAttention)}
    assert len(attention) == 4
    assert {f"{n}.{projection}" for n in attention for projection in ("in_proj", "out_proj")} <= factors(model)


def test_attention_of_another_kind_is_left_alone():
    class Cross(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
            self.linear = nn.Linear(4, 4)

        def forward(self, x):
            tokens = x.flatten(2).transpose(1, 2)
            return self.linear(self.attention(tokens, tokens + 1, tokens, need_weights=False)[0]).mean(1)

    model = nn.Sequential(OrderedDict(stem=nn.Conv2d(3, 4, 1), stage1=Cross(), head=nn.Sequential(nn.Linear(4, 2))))
    inject_lora(model, parse_policy("lora").arguments, 8)
    assert factors(model) == {"stem", "stage1.linear"}


def test_the_frozen_weights_keep_every_bit():
    model, _, _, size = adapted("vit")
    phases = phases_of(model, "lora(r=4)", 2)
    frozen = freezing.untouched(model, phases)
    before = freezing.fingerprint(model, frozen)
    trained(model, "lora(r=4)", 2, source=Pictures(size=size))
    assert freezing.fingerprint(model, frozen) == before


def test_swins_attention_is_left_out_because_it_goes_past_its_layers():
    model, plain, _, _ = adapted("swin")
    linear = {n for n, m in plain.named_modules() if isinstance(m, nn.Linear | nn.Conv2d) and not n.startswith("head.")}
    assert factors(model) == {n for n in linear if ".attn." not in n}


def test_a_name_that_ends_like_another_is_not_taken_for_it():
    """peft's lists match by the end of a name; here `conv` is depthwise in one place and plain in the other."""
    inner = nn.Sequential(OrderedDict(conv=nn.Conv2d(4, 4, 3, padding=1, groups=4)))
    model = nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(3, 4, 3, padding=1),
            stage1=inner,
            neck=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1)),
            head=nn.Sequential(nn.Linear(4, 3)),
        )
    )
    inject_lora(model, parse_policy("lora(r=4)").arguments, 8)
    assert factors(model) == {"conv"}


@pytest.mark.parametrize("name", sweep(BUILDERS, {"vit"}))
def test_factors_belong_to_the_stage_of_the_layer_that_they_adapt(name):
    model, plain, _, _ = adapted(name)
    # As for a trunk of timm's that cannot be cut: groups that the children's names do not tell.
    group_of = {n: "odd" if n.startswith("stage1.") else n.partition(".")[0] for n, _ in plain.named_parameters()}
    described = freezing.describe(model, group_of, ADAPTER.owns)
    for param in described.params:
        expected = "odd" if param.name.startswith("stage1.") else param.name.partition(".")[0]
        assert param.group == expected, param.name
        assert (param.kind == "adapter") == (".lora_" in param.name), param.name
    assert described.groups == tuple(dict.fromkeys(g for g in group_of.values() if g != "head"))


def test_a_backbone_without_a_layer_for_factors_is_not_applicable():
    model = nn.Sequential()
    model.stem, model.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1)), nn.Sequential(nn.Linear(3, 2))
    with pytest.raises(NotApplicable, match="no layer that takes low-rank factors"):
        inject_lora(model, parse_policy("lora").arguments, 8)


@pytest.mark.parametrize("line", ["from os import what_is_gone", "import none_such"])
def test_a_peft_that_cannot_be_imported_is_not_called_missing(line, monkeypatch, tmp_path):
    """An old one imports what a new transformers does not have."""
    (tmp_path / "peft.py").write_text(line)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "peft"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    with pytest.raises(Unavailable, match="is here, but cannot be imported; run pip install --upgrade peft") as error:
        inject_lora(nn.Sequential(), {}, 32)
    assert line.split()[-1] in str(error.value)


def test_without_peft_the_next_step_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(Unavailable, match=r"pip install 'tlbench\[lora\]'"):
        inject_lora(staged(small_resnet()), parse_policy("lora").arguments, 32)


@pytest.mark.exhaustive
def test_there_is_one_count_of_parameters(command):
    """The total before the factors are there, what trains while they are, and how many they are: in record and show."""
    text = "lora(r=256)"
    cell = Cell(backbone="resnet18", weights="random", freeze=text, train_size=16, image_size=32, epochs=1)
    made = run_cell(cell, Settings(prefix="off"))
    assert made.status == "ok", made.reason
    head = 512 * 10 + 10
    assert made.total_parameters == 11_176_512 + head
    assert made.trainable_parameters == made.added_parameters + head
    assert made.added_parameters > 9e6
    out = command("show", "resnet18", "--freeze", text, "--classes", 10, "--image-size", 32)[1]
    said = f"{made.trainable_parameters:,} trainable parameters, adds {made.added_parameters:,} to the model's "
    assert f"lora: {said}{made.total_parameters:,};" in " ".join(out.split())
    row = summarise(rows([made]))[0]
    assert row["added_parameters"] == made.added_parameters
    short = wording.short
    assert (
        summary.TRAIN["trainable"][1](row)
        == f"{short(made.trainable_parameters)} (adds {short(made.added_parameters)})"
    )


@pytest.mark.exhaustive
def test_a_policy_without_an_adapter_adds_nothing():
    cell = Cell(backbone="resnet18", weights="random", freeze="norm", train_size=16, image_size=32, epochs=1)
    made = run_cell(cell, Settings(prefix="off"))
    assert made.added_parameters == 0
    assert "adds" not in summary.TRAIN["trainable"][1](summarise(rows([made]))[0])
