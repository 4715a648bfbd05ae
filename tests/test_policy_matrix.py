"""Every policy on one backbone of each family: what moved is what the policy names, bit for bit, and the FLOPs of
training follow the mask. The pictures are as small as the models allow, and one or two batches make an epoch.
"""

import copy
from functools import lru_cache
from itertools import pairwise

import pytest
import torch
from models import Pictures, examples
from randomise import no_initialisation, randomise
from tiers import sweep
from torch import nn
from torchvision import models as torchvision_models

from tlbench.backbones import CUSTOM, Custom, load_backbone
from tlbench.backbones.base import Backbone, InputSpec
from tlbench.errors import NotApplicable
from tlbench.measure.build import assemble
from tlbench.policies import freezing
from tlbench.policies.base import Phase
from tlbench.policies.parse import parse_policy
from tlbench.policies.table import POLICIES
from tlbench.train.flops import count_flops
from tlbench.train.loop import Batching, Trainer, plan_epochs
from tlbench.train.recipe import resolve

CLASSES, SIZE, IMAGES, BATCH = 23, 32, 6, 3
BACKBONES = [
    "resnet18",
    "vgg11_bn",
    "densenet121",
    "mobilenet_v3_small",
    "efficientnet_b0",
    "regnet_y_400mf",
    "convnext_tiny",
    "swin_t",
    "vit_b_16",
    "shufflenet_v2_x0_5",
    "squeezenet1_1",
    "googlenet",
]
EXPRESSIONS = {
    "linear_probe": ("linear_probe", "linear_probe+bn=adapt"),
    "full": ("full", "full(1)+bn=freeze"),
    "lp_ft": ("lp_ft",),
    "freeze_out": ("freeze_out",),
    "layer_decay": ("layer_decay",),
    "l2_sp": ("l2_sp",),
    "lora": ("lora(r=4)",),
}
"""What stands for a row of the table, where it is not the row's own examples."""
TEXTS = [text for name in POLICIES for text in EXPRESSIONS.get(name, examples(name))]
CELLS = [(backbone, text) for backbone in BACKBONES for text in TEXTS]
FEW = {
    *(("mobilenet_v3_small", text) for text in ("linear_probe", "last_1", "norm", "full", "lp_ft")),
    ("vit_b_16", "last_1"), ("squeezenet1_1", "norm"),
}  # fmt: skip
EPOCHS = {"freeze_out": 4}
"""Where it is not one for each phase, which is what all others get."""
MANY = 50
RATES = {"full(1)+bn=freeze": 0.01, "auto_rgn": 1e6}
"""Learning rates other than 0.1. Auto-RGN's span many orders of magnitude, and the least must still move a last bit; it
takes a single step, so that nothing is computed with what the largest makes of the weights."""
NOT_APPLICABLE = {("squeezenet1_1", "norm"): "no normalisation layer"}
KNOWN = {
    *("linear_probe", "last_K", "first_K", "stage_NAME", "norm", "bias", "norm_bias", "full", "lp_ft", "gradual"),
    *("freeze_out", "layer_decay", "l2_sp", "lora", "auto_rgn", "scratch"),
}
"""Rows that mean something for every other backbone here; of one that is not among them only its own word is known."""
FUNCTIONAL = ("swin_t", "vit_b_16")
"""Their attention projects with functions, which hooks on modules do not see."""


@pytest.fixture(autouse=True)
def one_thread():
    """Small operations take longer on several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_every_policy_has_a_cell():
    assert {parse_policy(text).name for text in TEXTS} == set(POLICIES) >= KNOWN


@lru_cache(maxsize=1)  # the cells of one backbone follow each other
def build(name: str) -> tuple[Backbone, nn.Sequential]:
    with no_initialisation(), pytest.MonkeyPatch.context() as patch:
        if name in SMALLER:
            spec = InputSpec(size=SIZE, resize=SIZE, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bilinear")
            patch.setitem(CUSTOM, name, Custom(build=SMALLER[name], input=spec))
        backbone = load_backbone(name, "random")
    model = assemble(backbone, "linear", CLASSES)
    randomise(model)
    return backbone, model


def thin_convnext() -> nn.Module:
    setting = torchvision_models.convnext.CNBlockConfig
    return torchvision_models.ConvNeXt(
        [setting(16, 32, 2), setting(32, 64, 2), setting(64, 128, 2), setting(128, None, 2)]
    )


def thin_vgg11_bn() -> nn.Module:
    """With 64 in place of 4096 channels in its two linear layers, which are 93 % of the parameters."""
    model = torchvision_models.vgg11_bn()
    for index, (inputs, outputs) in {0: (25088, 64), 3: (64, 64), 6: (64, 1000)}.items():
        model.classifier[index] = nn.Linear(inputs, outputs)
    return model


SMALLER = {
    "vgg11_bn": thin_vgg11_bn,
    "densenet121": lambda: torchvision_models.DenseNet(32, (3, 3, 3, 3), 64),
    "convnext_tiny": thin_convnext,
    "swin_t": lambda: torchvision_models.SwinTransformer([4, 4], 32, [2, 2, 2, 2], [1, 2, 4, 8], [7, 7]),
    "vit_b_16": lambda: torchvision_models.VisionTransformer(SIZE, 16, 4, 4, 128, 256),
}
"""Thinner or shorter ones of these families: what moves and what it costs goes by the stages and their layers."""


class Layers:
    """FLOPs of the convolutions and linear layers that were called: of their forward pass, of the gradients of their
    weights, of the gradients of their inputs; and of the input gradients that were not needed.
    """

    def __init__(self, model: nn.Module) -> None:
        self.weights = self.inputs = self.entry = 0
        layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
        self.hooks = [module.register_forward_hook(self.add) for module in layers]

    def remove(self) -> None:
        for hook in self.hooks:
            hook.remove()

    def add(self, module: nn.Module, args: tuple[torch.Tensor], output: torch.Tensor) -> None:
        flops = 2 * output.numel() * module.weight[0].numel()
        self.weights += flops * module.weight.requires_grad
        self.inputs += flops * args[0].requires_grad
        self.entry += flops * (module.weight.requires_grad and not args[0].requires_grad)


def forward_flops(model: nn.Sequential) -> list[int]:
    """Of each child, for one image."""
    flops, x = [], torch.rand(1, 3, SIZE, SIZE)
    model.eval()
    with torch.no_grad():
        for child in model:
            flops.append(count_flops(lambda x=x, child=child: child(x)))
            x = child(x)
    return flops


def cancelled(model: nn.Sequential) -> set[str]:
    """Biases of convolutions that a BatchNorm in train mode follows: it subtracts them again, so that their gradient
    is zero but for rounding, and whether they move is left to the last bit.
    """
    leaves = [(name, module) for name, module in model.named_modules() if not list(module.children())]
    return {
        f"{name}.bias"
        for (name, module), (_, following) in pairwise(leaves)
        if isinstance(module, nn.Conv2d) and module.bias is not None
        if isinstance(following, nn.BatchNorm2d) and following.training
    }


def check_flops(
    phase: Phase, model: nn.Sequential, flops: int, layers: Layers, forward: list[int], functional: bool
) -> None:
    """FLOPs of an epoch against the mask. ``forward``: those of each child's forward passes in it."""
    cut = freezing.cut(model)
    whole, suffix = sum(forward), sum(forward[cut:])
    mask = [p.requires_grad for child in model[cut:] for p in child.parameters()]
    if all(mask):
        # Forward, both gradients, and no gradient for what enters the first layer that trains.
        assert flops == whole + 2 * suffix - layers.entry
    elif set(phase.scales) == {"head.0.weight", "head.0.bias"}:
        assert flops == whole + forward[-1]
    elif functional:
        assert whole < flops < whole + 2 * suffix
    else:
        assert flops == whole + layers.weights + layers.inputs


def check_shares(text: str, ratio: float) -> None:
    """FLOPs of training over those of the forward pass: what they must look like from afar."""
    least, most = {"linear_probe": (1, 1.05), "last_1": (1, 2.7), "full": (2.7, 3)}.get(text, (1, 3))
    assert least <= ratio <= most


@pytest.mark.parametrize(("name", "text"), sweep(CELLS, FEW))
def test_exactly_what_the_policy_names_moves_and_costs(name, text):
    backbone, original = build(name)
    model = copy.deepcopy(original)
    policy = parse_policy(text)
    try:
        policy.inject(model, SIZE)
        described = freezing.describe(model, backbone.group_of, policy.owns, backbone.below_head)
        epochs = EPOCHS.get(text) or len(policy.phases(described, MANY))
        phases = policy.phases(described, epochs)
    except NotApplicable as error:
        assert policy.name not in KNOWN or NOT_APPLICABLE[name, text] in str(error)
        return
    assert (name, text) not in NOT_APPLICABLE
    frozen = freezing.untouched(model, phases)
    untouched = freezing.fingerprint(model, frozen)
    batch_size = BATCH if epochs == 1 and text not in RATES else IMAGES
    recipe = resolve(policy, "adamw", RATES.get(text, 0.1), None, {"warmup": 0.0})
    source = Pictures(IMAGES, CLASSES, SIZE)
    trainer = Trainer(model, plan_epochs(phases, epochs), recipe, source, Batching(size=batch_size, seed=0))
    passes = 2 if text == "auto_rgn" else 1  # it looks at the gradients of the same batches first
    forward = [passes * IMAGES * flops for flops in forward_flops(model)]
    for _ in range(epochs):
        phase = trainer.start_epoch()
        before = {n: p.detach().clone() for n, p in model.named_parameters()}
        layers = Layers(model)
        flops = count_flops(trainer.run_epoch)
        layers.remove()
        moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
        free = cancelled(model)
        assert moved - free == set(phase.scales) - free
        assert moved <= set(phase.scales)
        assert not free or name == "vgg11_bn"
        check_flops(phase, model, flops, layers, forward, functional=name in FUNCTIONAL)
        if epochs == 1:
            check_shares(text, flops / sum(forward))
    assert freezing.fingerprint(model, frozen) == untouched
