"""All 80 classifiers of torchvision as stages: equal to the model bit for bit, at every boundary.

Weights, BatchNorm statistics and tokens are random: at their defaults (a head of zeros, a scale of one) too much is
equal by chance.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from randomise import buffers_kept, no_initialisation, randomise
from torch import Tensor, nn
from torchvision import models

from tlbench import backbones
from tlbench.backbones import load_backbone, original, torchvision
from tlbench.backbones.base import Parts, join, stage_costs, stages_of
from tlbench.measure.build import assemble
from tlbench.policies import freezing
from tlbench.policies.parse import parse_policy

NAMES = models.list_models(module=models)
SMALL = 150_000_000
"""Parameters up to which train mode is compared with the model, too."""
PATCHES = {"vit_b_16": 16, "vit_b_32": 32, "vit_l_16": 16, "vit_l_32": 32, "vit_h_14": 14}
CLASSES = 1000


def test_there_are_80():
    assert len(NAMES) == 80
    assert set(NAMES) < set(backbones.BACKBONES)


@dataclass
class Case:
    """A randomised model, its parts, and what the model itself computes before anything is made of the parts."""

    model: nn.Module
    parts: Parts
    images: Tensor
    logits: Tensor
    outputs: dict[int, Tensor]
    """id of a module -> its output inside the model, as it was before later modules overwrote it."""
    train: tuple[Tensor, dict[str, Tensor]] | None
    """Logits and buffers after one pass in train mode."""


def build(name: str) -> tuple[nn.Module, Parts, int]:
    """The model, its parts, and a small size that it takes: odd, so that borders differ from one another."""
    if name in PATCHES:  # built for fewer patches; the family function is the same
        size = 3 * PATCHES[name]
        model = models.get_model(name, weights=None, image_size=size)
        return model, torchvision.family_of(model)(model), size
    model, parts, spec = original(name)
    return model, parts, spec.size if spec.fixed_size else max(spec.min_size, 33)


@torch.no_grad()
def run_in_train_mode(model: nn.Module, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits and buffers after the pass; the model's own buffers are put back."""
    with buffers_kept(model):
        torch.manual_seed(1)
        logits = model.train()(images)
        return logits, {str(i): buffer.clone() for i, buffer in enumerate(model.buffers())}


@pytest.fixture(scope="module", params=NAMES)
def case(request):
    with no_initialisation():
        model, parts, size = build(request.param)
    randomise(model)
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(2))
    outputs: dict[int, Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda m, _, output: outputs.update({id(m): output.clone()}))
        for stage in [*parts.body, parts.neck]
        for _, module in stage[-1:]
    ]
    with torch.no_grad():
        logits = model.eval()(images)
    for hook in hooks:
        hook.remove()
    small = sum(p.numel() for p in model.parameters()) < SMALL
    return Case(model, parts, images, logits, outputs, run_in_train_mode(model, images) if small else None)


@torch.no_grad()
def test_the_stages_are_the_model_at_every_boundary(case):
    """Each activation is the one inside the model, and what follows makes the model's logits of it."""
    assert case.logits.isfinite().all()
    assert not torch.equal(case.logits[0], case.logits[1])  # the images, not the biases alone
    staged = join(case.parts).eval()
    x, compared = case.images, 0
    for cut, (name, stage) in enumerate(staged.named_children()):
        assert torch.equal(staged[cut:](x), case.logits), f"cut before {name}"
        x = stage(x)
        if id(stage[-1]) in case.outputs:  # not a function between the model's modules
            assert torch.equal(x, case.outputs[id(stage[-1])]), f"output of {name}"
            compared += 1
    assert compared >= 3


def test_every_parameter_and_buffer_lies_in_exactly_one_stage(case):
    for tensors in (nn.Module.parameters, nn.Module.buffers):
        held = [id(t) for stage in join(case.parts) for t in tensors(stage)]
        assert len(held) == len(set(held))
        assert set(held) == {id(t) for t in tensors(case.model)}


@torch.no_grad()
@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
def test_what_follows_a_boundary_leaves_its_input_untouched(case, train):
    # The stages of a model are those of `join`, except where a new head needs another pooling.
    for staged in (join(case.parts), *([stages_of(case.parts)] if case.parts.pool else [])):
        staged.train(train)
        kept = []
        with buffers_kept(staged):
            x = case.images
            for stage in staged:
                # Every input is kept to the end: a later stage may write into a view of it.
                kept.append((x, x.clone()))
                x = stage(x)
        for (now, before), name in zip(kept, staged._modules, strict=True):
            assert torch.equal(now, before), f"the input of {name} was overwritten"


def test_train_mode_is_the_same_too(case):
    if case.train is None:
        pytest.skip(f"more than {SMALL:,} parameters: compared in eval mode")
    logits, buffers = case.train
    assert isinstance(logits, Tensor)
    assert logits.shape == (len(case.images), CLASSES)  # no auxiliary heads
    staged_logits, staged_buffers = run_in_train_mode(join(case.parts), case.images)
    assert torch.equal(staged_logits, logits)
    order = {id(b): str(i) for i, b in enumerate(case.model.buffers())}
    for i, buffer in enumerate(join(case.parts).buffers()):
        assert torch.equal(staged_buffers[str(i)], buffers[order[id(buffer)]])
    moves = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in case.model.modules())
    assert moves == any(not torch.equal(buffers[order[id(b)]], b) for b in case.model.buffers())


@torch.no_grad()
def test_the_stages_end_in_pooled_features(case):
    stages = stages_of(case.parts).eval()
    assert stages(case.images).shape == (len(case.images), case.parts.features)
    assert not any(isinstance(m, nn.Linear) and m.out_features == CLASSES for m in stages.modules())


STAGES = {
    # name -> where each stage begins, the neck's first layer with parameters after a bar
    "alexnet": "features.0 features.3 features.6 features.8 features.10 classifier.1 classifier.4 |",
    "vgg11": "features.0 features.3 features.6 features.11 features.16 classifier.0 classifier.3 |",
    "resnet18": "conv1 layer1 layer2 layer3 layer4 |",
    "densenet121": "features.conv0 features.denseblock1 features.denseblock2 features.denseblock3 "
    "features.denseblock4 |",
    "inception_v3": "Conv2d_1a_3x3 Conv2d_3b_1x1 Mixed_5b Mixed_6a Mixed_7a |",
    "googlenet": "conv1 conv2 inception3a inception4a inception5a |",
    "mobilenet_v2": "features.0 features.2 features.4 features.7 features.14 |",
    "mobilenet_v3_small": "features.0 features.1 features.2 features.4 features.9 | classifier.0",
    "mnasnet0_5": "layers.0 layers.8 layers.9 layers.10 layers.11 layers.12 layers.13 |",
    "shufflenet_v2_x0_5": "conv1 stage2 stage3 stage4 |",
    "squeezenet1_0": "features.0 features.3 features.7 features.12 |",
    "efficientnet_b0": "features.0 features.1 features.2 features.3 features.4 features.5 features.6 features.7 "
    "features.8 |",
    "efficientnet_v2_s": "features.0 features.1 features.2 features.3 features.4 features.5 features.6 features.7 |",
    "regnet_x_400mf": "stem trunk_output.block1 trunk_output.block2 trunk_output.block3 trunk_output.block4 |",
    "convnext_tiny": "features.0 features.1 features.2 features.4 features.6 | classifier.0",
    "swin_t": "features.0 features.1 features.2 features.4 features.6 | norm",
    "vit_b_16": "class_token encoder.layers.encoder_layer_0 encoder.layers.encoder_layer_3 "
    "encoder.layers.encoder_layer_6 encoder.layers.encoder_layer_9 | encoder.ln",
    "maxvit_t": "stem blocks.0 blocks.1 blocks.2 blocks.3 | classifier.2",
}


@pytest.mark.parametrize("name", STAGES)
def test_where_the_stages_begin(name, free):
    model, parts, _ = original(name)
    names = {id(p): n for n, p in model.named_parameters()}
    begins = [min([*names].index(id(p)) for p in stage.parameters()) for stage in join(parts) if [*stage.parameters()]]
    starts = [[*names.values()][begin] for begin in begins]
    stages, _, neck = STAGES[name].partition("|")
    expected = [*stages.split(), *neck.split()]
    assert len(parts.body) == len(stages.split())
    assert len(starts) == len(expected) + 1  # the head
    for start, begin in zip(starts, expected, strict=False):
        assert start == begin or start.startswith(f"{begin}."), (starts, expected)


# --- without a forward pass -----------------------------------------------------------------------------------


@pytest.fixture
def free(monkeypatch):
    """Neither initialisation nor hashing."""
    monkeypatch.setattr(backbones, "hash_tensors", lambda tensors: "0" * 64)
    with no_initialisation():
        yield


@pytest.mark.parametrize("name", NAMES)
def test_a_linear_probe_trains_features_times_classes_plus_classes(name, free):
    backbone = load_backbone(name, "random")
    assert backbone.features == backbones.BACKBONES[name].features
    model = assemble(backbone, "linear", 7)
    (phase,) = parse_policy("linear_probe").phases(freezing.describe(model, backbone.group_of), 1)
    freezing.apply(model, phase)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == backbone.features * 7 + 7
    assert {n.partition(".")[0] for n, p in model.named_parameters() if p.requires_grad} == {"head"}
    assert [*dict.fromkeys(backbone.group_of.values())] == [*backbone.groups]
    assert not any(key in n.lower() for n, _ in model.named_parameters() for key in ("aux1", "aux2", "auxlogits"))


@pytest.mark.parametrize("name", NAMES)
def test_random_and_pretrained_models_are_built_alike(name, monkeypatch):
    """Ours against the one that torchvision builds for its weights (which are not loaded here)."""
    monkeypatch.setattr(models.WeightsEnum, "get_state_dict", lambda self, **_: {})
    monkeypatch.setattr(nn.Module, "load_state_dict", lambda self, state: None)
    weights = torchvision.weights_of(name, None)
    with no_initialisation():
        theirs = models.get_model(name, weights=weights)
        ours = torchvision.build_random(name, weights)
    for name in ("aux1", "aux2", "AuxLogits"):  # for training from scratch alone
        theirs._modules.pop(name, None)
    assert str(ours) == str(theirs)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}
    assert getattr(ours, "transform_input", None) == getattr(theirs, "transform_input", None)


@pytest.mark.parametrize("name", NAMES)
def test_images_are_prepared_as_the_weights_say(name):
    with no_initialisation():
        model, _, _ = original(name)
    for weights in models.get_model_weights(name):
        spec, preset = torchvision.input_spec(model, weights), weights.transforms()
        assert [spec.size] == preset.crop_size
        assert [spec.resize] == preset.resize_size
        assert [*spec.mean] == [*preset.mean]
        assert [*spec.std] == [*preset.std]
        assert spec.interpolation == preset.interpolation.value
        assert spec.min_size <= spec.size


@pytest.mark.parametrize(
    ("tag", "size"), [("IMAGENET1K_V1", 224), ("IMAGENET1K_SWAG_E2E_V1", 384), ("IMAGENET1K_SWAG_LINEAR_V1", 224)]
)
def test_a_tag_decides_the_size_of_a_vision_transformer(tag, size, free):
    backbone = load_backbone(f"vit_b_16@{tag}", "random")
    assert backbone.input.size == size
    assert backbone.input.fixed_size
    assert backbone.stages.stem.embedding.pos_embedding.shape[1] == 1 + (size // 16) ** 2


# --- costs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["vit_b_16", "swin_t", "swin_v2_t", "convnext_tiny", "resnet50", "efficientnet_b0"])
def test_flops_are_those_of_torchvision(name, free):
    """Its metadata counts multiply-adds in 10^9 and includes the ImageNet head."""
    _, parts, spec = original(name)
    costs = stage_costs(join(parts), spec.size)
    published = models.get_model_weights(name).DEFAULT.meta
    assert sum(c.flops for c in costs) == pytest.approx(2e9 * published["_ops"], rel=0.01)
    assert sum(c.parameters for c in costs) == published["num_params"]
    assert [c.name for c in costs] == [*join(parts)._modules]
    assert costs[-1].flops == 2 * parts.features * CLASSES  # the head's own share


def test_counting_costs_neither_runs_nor_changes_the_model(free):
    _, parts, _ = original("mobilenet_v3_small")
    staged = join(parts).train()
    next(staged.parameters()).requires_grad_(False)
    calls = []
    staged.stem.register_forward_hook(lambda *_: calls.append(1))
    before = [(id(p), p.requires_grad, p.device) for p in staged.parameters()]
    small, large = (sum(c.flops for c in stage_costs(staged, size)) for size in (64, 128))
    assert 3 < large / small < 4.1
    assert staged.training
    assert before == [(id(p), p.requires_grad, p.device) for p in staged.parameters()]


def test_the_cost_of_an_assembled_model_includes_its_head(free):
    backbone = load_backbone("resnet18", "random")
    costs = {c.name: c for c in stage_costs(assemble(backbone, "mlp", 10), 64)}
    assert [*costs] == ["stem", "stage1", "stage2", "stage3", "stage4", "neck", "head"]
    assert costs["head"].parameters == 512 * 512 + 512 + 512 * 10 + 10
    assert costs["head"].flops == 2 * (512 * 512 + 512 * 10)
    assert (costs["neck"].parameters, costs["neck"].flops) == (0, 0)
    # conv1: 7 x 7 x 3 x 64 multiply-adds at 32 x 32 places
    assert costs["stem"].flops == 2 * 7 * 7 * 3 * 64 * 32 * 32
