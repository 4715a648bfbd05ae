"""Layer-wise decay by blocks: timm's own scales on timm's models, and its twin's on torchvision's."""

import math
from collections import Counter, OrderedDict

import pytest
import timm
from randomise import no_initialisation
from tiers import sweep
from timm.optim import param_groups_layer_decay
from torch import nn

from tlbench.backbones import load_backbone, timm_stages
from tlbench.backbones import timm as adapter
from tlbench.measure.build import assemble
from tlbench.policies import freezing
from tlbench.policies.parse import parse_policy

DECAY = 0.75
OF_TIMM = [
    "vit_tiny_patch16_224",
    "resnet18",
    "convnext_atto",
    "swin_tiny_patch4_window7_224",
    "efficientnet_b0",
    "densenet121",
    "regnety_002",
    "vgg11_bn",
    "mobilenetv3_small_050",
]
TWINS = {
    "vit_b_16": "vit_base_patch16_224",
    "resnet18": "resnet18",
    "convnext_tiny": "convnext_tiny",
    "swin_t": "swin_tiny_patch4_window7_224",
    "efficientnet_b0": "efficientnet_b0",
    "efficientnet_v2_s": "tf_efficientnetv2_s",
    "densenet121": "densenet121",
    "regnet_y_400mf": "regnety_004",
    "mobilenet_v2": "mobilenetv2_100",
    "mobilenet_v3_small": "mobilenetv3_small_100",
    "mnasnet1_0": "mnasnet_100",
    "vgg11_bn": "vgg11_bn",
    "inception_v3": "inception_v3",
}
"""torchvision's name -> timm's of the same architecture."""
FEW = ["resnet18", "mobilenet_v3_small", "regnet_y_400mf"]


def of_timm(name: str) -> list[tuple[float, nn.Parameter]]:
    """Scale and parameter, of all of a model's with its classifier, by timm's own function."""
    with no_initialisation():  # an older timm asks for values while it builds some, which the meta device has none of
        model = timm.create_model(name)
    groups = param_groups_layer_decay(model, layer_decay=DECAY)
    return [(group["lr_scale"], p) for group in groups for p in group["params"]]


def ours(name: str) -> dict[str, tuple[float, int]]:
    """Parameter name -> scale and size, of a backbone with a new head of one class."""
    with no_initialisation():
        backbone = load_backbone(name, "random")
    model = assemble(backbone, "linear", 1000)
    outline = freezing.describe(model, backbone.group_of, below_head=backbone.below_head)
    (phase,) = parse_policy(f"layer_decay({DECAY})").phases(outline, 1)
    return {p.name: (phase.scales[p.name], p.numel) for p in outline.params}


@pytest.mark.parametrize("name", sweep(OF_TIMM, ["resnet18", "convnext_atto"]))
def test_the_scale_of_every_parameter_of_timms_models_is_timms(name):
    whole = timm.create_model(name)
    groups = param_groups_layer_decay(whole, layer_decay=DECAY)
    theirs = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    assert theirs.keys() == {id(p) for p in whole.parameters()}
    classifier = {id(p) for p in whole.get_classifier().parameters()}
    assert {theirs[one] for one in classifier} == {1}
    split = timm_stages.split(whole, adapter.input_spec(whole))  # of the model's own parameters
    model = nn.Sequential(OrderedDict([*split.stages.named_children(), ("head", nn.Linear(split.features, 2))]))
    outline = freezing.describe(model, split.group_of, below_head=split.below_head)
    (phase,) = parse_policy(f"layer_decay({DECAY})").phases(outline, 1)
    found = {id(p): phase.scales[n] for n, p in model.named_parameters() if not n.startswith("head.")}
    assert found.keys() == theirs.keys() - classifier
    assert found == {one: theirs[one] for one in found}
    assert len(set(found.values())) > 5
    assert phase.scales["head.weight"] == phase.scales["head.bias"] == 1


@pytest.mark.parametrize("name", sweep(list(TWINS), FEW))
def test_torchvisions_models_have_the_scales_of_timms_twin(name):
    """So many parameters at each scale; the two lay some out differently (one bias of q, k and v, or three)."""
    mine, theirs = Counter(), Counter()
    for scale, numel in ours(name).values():
        mine[scale] += numel
    for scale, parameter in of_timm(TWINS[name]):
        theirs[scale] += parameter.numel()
    assert mine == theirs


def test_the_embedding_of_a_vision_transformer_lies_13_blocks_below_its_head():
    scales = ours("vit_b_16")
    assert scales["stem.embedding.class_token"][0] == pytest.approx(0.75**13)
    assert scales["stage1.encoder_layer_0.ln_1.weight"][0] == pytest.approx(0.75**12)
    assert scales["neck.ln.weight"][0] == 0.75


@pytest.mark.exhaustive
def test_low_rank_factors_count_with_the_layer_that_they_are_beside():
    """An adapter moves the layers' own parameters as well."""
    backbone = load_backbone("resnet18", "random")
    model = assemble(backbone, "linear", 3)
    pytest.importorskip("peft")
    policy = parse_policy("lora(r=2)")
    policy.inject(model, 32)
    outline = freezing.describe(model, backbone.group_of, policy.owns, backbone.below_head)
    for param in outline.params:
        if "layer3.0" in param.name:
            assert outline.below_head(param) == 4
        if param.group == "head":
            assert outline.below_head(param) == 0


def test_a_backbone_without_a_list_of_blocks_counts_its_stages():
    model = assemble(load_backbone("resnet18", "random"), "linear", 3)
    outline = freezing.describe(model)
    depths = {p.group: outline.below_head(p) for p in outline.params}
    assert depths == {"stem": 5, "stage1": 4, "stage2": 3, "stage3": 2, "stage4": 1, "head": 0}
    assert math.isclose(parse_policy("layer_decay").phases(outline, 1)[0].scales["stem.conv1.weight"], 0.75**5)
