"""Backbones of which only shapes are wanted: nothing is drawn for them."""

import pytest
import torch
from torchvision import models

from tlbench.backbones import load_backbone, shapes_of
from tlbench.backbones.undrawn import undrawn


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_lite0", "vit_b_16", "timm:convnext_atto"])
def test_shapes_without_weights_are_those_with_them(name):
    drawn, plain = load_backbone(name, "random"), shapes_of(name)
    assert {key: value.shape for key, value in plain.stages.state_dict().items()} == {
        key: value.shape for key, value in drawn.stages.state_dict().items()
    }
    for field in ("name", "features", "input", "groups", "group_of", "below_head", "note"):
        assert getattr(plain, field) == getattr(drawn, field), field


@pytest.mark.parametrize("name", ["resnet18", "vit_b_16", "swin_t"])
def test_no_weight_is_drawn_where_none_is_wanted(name):
    before = torch.get_rng_state()
    with undrawn():
        getattr(models, name)()
    assert torch.equal(before, torch.get_rng_state())
    torch.nn.Linear(2, 2)
    assert not torch.equal(before, torch.get_rng_state())
