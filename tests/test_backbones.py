"""All 80 classifiers of torchvision as stages: equal to the model bit for bit, at every boundary.

Weights, BatchNorm statistics and tokens are random: at their defaults (a head of zeros, a scale of one) too much is
equal by chance. Each model is built once, and all that is asked of each of the 80 is asked of that one.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import pytest
import torch
from bits import check_stages, run_stages
from randomise import buffers_kept, no_initialisation, randomise
from tiers import sweep
from torch import Tensor, nn
from torchvision import models

from tlbench import backbones
from tlbench.backbones import BACKBONES, generate, load_backbone, original, torchvision
from tlbench.backbones.base import InputSpec, Parts, join, stage_costs, stages_of, without_values
from tlbench.measure.build import assemble
from tlbench.policies import freezing
from tlbench.policies.parse import parse_policy

NAMES = models.list_models(module=models)
FEW = {
    *("alexnet", "efficientnet_b0", "mnasnet0_5", "mobilenet_v3_small", "resnet18", "shufflenet_v2_x0_5"),
    *("squeezenet1_0", "vit_b_32"),
}
SMALL = 150_000_000
"""Parameters up to which train mode is compared with the model, too."""
PATCHES = {"vit_b_16": 16, "vit_b_32": 32, "vit_l_16": 16, "vit_l_32": 32, "vit_h_14": 14}
"""Pixels of a patch. Their images are three a side, and the position embedding is cut off after these."""
CLASSES = 1000


def test_there_are_80():
    assert len(NAMES) == 80
    assert set(NAMES) < set(BACKBONES)
    assert {*FEW, *PATCHES, *STAGES, *COUNTED, *PUBLISHED} < {*NAMES}


@dataclass
class Case:
    """A randomised model, its parts, and what the model itself computes before anything is made of the parts."""

    name: str
    model: nn.Module
    parts: Parts
    images: Tensor
    logits: Tensor
    outputs: dict[int, Tensor]
    """id of a module -> its output inside the model, as it was before later modules overwrote it."""
    train: tuple[Tensor, dict[str, Tensor]] | None
    """Logits and buffers after one pass in train mode."""
    bare: nn.Module
    """The model at the size of its weights, without values, for what does not need any."""
    text: str
    """The bare one as torch shows it, before anything is made of it."""


def shrink(name: str, model: nn.Module, spec: InputSpec) -> int:
    """Pixels of a small image that the model takes from now on: odd, so that borders differ from one another."""
    if name not in PATCHES:
        return spec.size if spec.fixed_size else max(spec.min_size, 33)
    embedding = model.encoder.pos_embedding
    embedding.data = embedding.data[:, : 1 + 3 * 3].clone()
    model.image_size = 3 * PATCHES[name]
    return model.image_size


@torch.no_grad()
def run_in_train_mode(model: nn.Module, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits and buffers after the pass; the model's own buffers are put back."""
    with buffers_kept(model):
        torch.manual_seed(1)
        logits = model.train()(images)
        return logits, {str(i): buffer.clone() for i, buffer in enumerate(model.buffers())}


@pytest.fixture(scope="module", params=sweep(NAMES, FEW))
def case(request):
    with no_initialisation():
        model, parts, spec = original(request.param)
    bare, text = without_values(model), str(model)
    size = shrink(request.param, model, spec)
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
    few = sum(p.numel() for p in model.parameters()) < SMALL
    train = run_in_train_mode(model, images) if few else None
    return Case(request.param, model, parts, images, logits, outputs, train, bare, text)


def test_the_stages_are_the_model_at_every_boundary(case):
    """Each activation is the one inside the model, and what follows makes the model's logits of it."""
    assert case.logits.isfinite().all()
    assert not torch.equal(case.logits[0], case.logits[1])  # the images, not the biases alone
    assert check_stages(join(case.parts), case.images, case.logits, case.outputs) >= 3


def test_every_parameter_and_buffer_lies_in_exactly_one_stage(case):
    for tensors in (nn.Module.parameters, nn.Module.buffers):
        held = [id(t) for stage in join(case.parts) for t in tensors(stage)]
        assert len(held) == len(set(held))
        assert set(held) == {id(t) for t in tensors(case.model)}


def test_train_mode_is_the_same_too_and_leaves_every_input_untouched(case):
    staged = join(case.parts).train()
    with buffers_kept(staged):
        torch.manual_seed(1)
        staged_logits = run_stages(staged, case.images)[-1]
        staged_buffers = [buffer.clone() for buffer in staged.buffers()]
    if case.train is None:
        return  # more than `SMALL` parameters: compared in eval mode
    logits, buffers = case.train
    assert isinstance(logits, Tensor)
    assert logits.shape == (len(case.images), CLASSES)  # no auxiliary heads
    assert torch.equal(staged_logits, logits)
    order = {id(b): str(i) for i, b in enumerate(case.model.buffers())}
    for buffer, found in zip(staged.buffers(), staged_buffers, strict=True):
        assert torch.equal(found, buffers[order[id(buffer)]])
    moves = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in case.model.modules())
    assert moves == any(not torch.equal(buffers[order[id(b)]], b) for b in case.model.buffers())


def test_the_stages_end_in_pooled_features(case):
    stages, staged = stages_of(case.parts), join(case.parts)
    if case.parts.pool:  # a new head needs another pooling
        for train in (True, False):
            with buffers_kept(stages):
                *_, features = run_stages(stages.train(train), case.images)
    else:
        assert [[*map(id, stage)] for stage in stages] == [[*map(id, stage)] for stage in staged[:-1]]
        *_, features, _ = run_stages(staged.eval(), case.images)
    assert features.shape == (len(case.images), case.parts.features)
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


def check_where_the_stages_begin(model: nn.Module, parts: Parts, where: str) -> None:
    names = {id(p): n for n, p in model.named_parameters()}
    begins = [min([*names].index(id(p)) for p in stage.parameters()) for stage in join(parts) if [*stage.parameters()]]
    starts = [[*names.values()][begin] for begin in begins]
    stages, _, neck = where.partition("|")
    expected = [*stages.split(), *neck.split()]
    assert len(parts.body) == len(stages.split())
    assert len(starts) == len(expected) + 1  # the head
    for start, begin in zip(starts, expected, strict=False):
        assert start == begin or start.startswith(f"{begin}."), (starts, expected)


# --- without values -------------------------------------------------------------------------------------------


@pytest.fixture
def bare(case, monkeypatch):
    """What is built is there already: the case's model, without values, of which there is nothing to hash."""
    monkeypatch.setattr(torchvision, "build_random", lambda name, weights: case.bare)
    monkeypatch.setattr(backbones, "hash_tensors", lambda tensors: "0" * 64)
    return case


def test_a_linear_probe_trains_features_times_classes_plus_classes(bare):
    backbone = load_backbone(bare.name, "random")
    assert backbone.features == BACKBONES[bare.name].features
    model = assemble(backbone, "linear", 7)
    (phase,) = parse_policy("linear_probe").phases(freezing.describe(model, backbone.group_of), 1)
    freezing.apply(model, phase)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == backbone.features * 7 + 7
    assert {n.partition(".")[0] for n, p in model.named_parameters() if p.requires_grad} == {"head"}
    assert [*dict.fromkeys(backbone.group_of.values())] == [*backbone.groups]
    assert not any(key in n.lower() for n, _ in model.named_parameters() for key in ("aux1", "aux2", "auxlogits"))


def test_random_and_pretrained_models_are_built_alike(case, monkeypatch):
    """Ours against the one that torchvision builds for its weights (which are not loaded here)."""
    monkeypatch.setattr(models.WeightsEnum, "get_state_dict", lambda self, **_: {})
    monkeypatch.setattr(nn.Module, "load_state_dict", lambda self, state: None)
    with no_initialisation():
        theirs = models.get_model(case.name, weights=torchvision.weights_of(case.name, None))
    for name in ("aux1", "aux2", "AuxLogits"):  # for training from scratch alone
        theirs._modules.pop(name, None)
    assert case.text == str(theirs)
    shapes = {k: v.shape for k, v in case.bare.state_dict().items()}
    assert shapes == {k: v.shape for k, v in theirs.state_dict().items()}
    assert getattr(case.bare, "transform_input", None) == getattr(theirs, "transform_input", None)


def test_images_are_prepared_as_the_weights_say(case):
    for weights in models.get_model_weights(case.name):
        spec, preset = torchvision.input_spec(case.bare, weights), weights.transforms()
        assert [spec.size] == preset.crop_size
        assert [spec.resize] == preset.resize_size
        assert [*spec.mean] == [*preset.mean]
        assert [*spec.std] == [*preset.std]
        assert spec.interpolation == preset.interpolation.value
        assert spec.min_size <= spec.size


COUNTED = ["resnet18", "vit_b_32", "swin_v2_t", "squeezenet1_0", "mnasnet0_5", "regnet_y_400mf"]
"""Whose FLOPs are counted again; all else is asked of all."""


def test_a_row_is_what_the_model_itself_says(bare, monkeypatch):
    if bare.name not in COUNTED:
        monkeypatch.setattr(generate, "stage_costs", lambda stages, size: [])
    described, row = asdict(generate.describe(bare.name)), asdict(BACKBONES[bare.name])
    if bare.name not in COUNTED:
        del described["flops"], row["flops"]
        assert BACKBONES[bare.name].flops > 1e7
    assert row == described


PUBLISHED = ["vit_b_16", "swin_t", "swin_v2_t", "convnext_tiny", "resnet50", "efficientnet_b0"]


def test_what_is_known_of_some(bare):
    """Where the stages begin, of one of each family; FLOPs as torchvision publishes them, of a few kinds."""
    model, parts, spec = original(bare.name)
    if bare.name in STAGES:
        check_where_the_stages_begin(model, parts, STAGES[bare.name])
    if bare.name in PUBLISHED:
        check_flops(parts, spec, models.get_model_weights(bare.name).DEFAULT.meta)


def check_flops(parts: Parts, spec: InputSpec, published: dict) -> None:
    """torchvision's metadata counts multiply-adds in 10^9 and includes the ImageNet head."""
    costs = stage_costs(join(parts), spec.size)
    assert sum(c.flops for c in costs) == pytest.approx(2e9 * published["_ops"], rel=0.01)
    assert sum(c.parameters for c in costs) == published["num_params"]
    assert [c.name for c in costs] == [*join(parts)._modules]
    assert costs[-1].flops == 2 * parts.features * CLASSES  # the head's own share


# --- of one model ---------------------------------------------------------------------------------------------


@pytest.fixture
def free(monkeypatch):
    """Neither initialisation nor hashing."""
    monkeypatch.setattr(backbones, "hash_tensors", lambda tensors: "0" * 64)
    with no_initialisation():
        yield


@pytest.mark.parametrize(
    ("tag", "size"), [("IMAGENET1K_V1", 224), ("IMAGENET1K_SWAG_E2E_V1", 384), ("IMAGENET1K_SWAG_LINEAR_V1", 224)]
)
def test_a_tag_decides_the_size_of_a_vision_transformer(tag, size, free):
    backbone = load_backbone(f"vit_b_16@{tag}", "random")
    assert backbone.input.size == size
    assert backbone.input.fixed_size
    assert backbone.stages.stem.embedding.pos_embedding.shape[1] == 1 + (size // 16) ** 2


@pytest.mark.exhaustive
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
