"""The pooling of the prefix's pass: torch's values, whatever the window and the map."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiers import sweep
from torch import nn
from torch.nn import functional

from tlbench.backbones import load_backbone
from tlbench.machine.arithmetic import Arithmetic
from tlbench.machine.kept import KEPT
from tlbench.train import activations
from tlbench.train.activations import Prefix
from tlbench.train.pooling import faster_pooling

SPECIAL = (0.0, -0.0, math.inf, -math.inf, math.nan)


@st.composite
def pools(draw):
    kernel = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    pool = nn.MaxPool2d(
        kernel_size=kernel if draw(st.booleans()) else kernel[0],
        stride=draw(st.none() | st.integers(1, 6) | st.tuples(st.integers(1, 6), st.integers(1, 6))),
        padding=draw(st.integers(0, min(kernel) // 2)),
        dilation=draw(st.sampled_from([1, 1, 1, 2])),
        ceil_mode=draw(st.booleans()),
    )
    smallest = 2 * max(kernel)  # a window with its gaps fits
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 3), *[st.integers(smallest, smallest + 12)] * 2))
    x = torch.randn(shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 99))))
    for value in draw(st.lists(st.sampled_from(SPECIAL), max_size=3)):
        x.view(-1)[draw(st.integers(0, x.numel() - 1))] = value
    return pool, x.to(draw(st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64])))


@pytest.mark.exhaustive
@given(pools())
def test_the_values_are_those_of_torch(case):
    pool, x = case
    expected = pool(x)
    with torch.inference_mode(), faster_pooling(nn.Sequential(pool)):
        found = pool(x)
    assert found.dtype == expected.dtype
    assert torch.equal(found.isnan(), expected.isnan())
    assert torch.equal(found.nan_to_num(), expected.nan_to_num())


def test_the_map_itself_is_never_written_to():
    for pool in (nn.MaxPool2d(1), nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(3, 1, 1), nn.MaxPool2d(2)):
        x = torch.randn(2, 3, 9, 9)
        before = x.clone()
        with torch.inference_mode(), faster_pooling(pool):
            pool(x)
        assert torch.equal(x, before)


@pytest.mark.parametrize(
    ("pool", "change"),
    [
        (nn.MaxPool2d(3), lambda x: x.to(memory_format=torch.channels_last)),  # torch's own is fast there
        (nn.MaxPool2d(3), lambda x: x.requires_grad_()),
        (nn.MaxPool2d(3), lambda x: x[0]),
        (nn.MaxPool2d(3), lambda x: x.transpose(2, 3)),
        (nn.MaxPool2d(3, return_indices=True), lambda x: x),
        (nn.MaxPool2d(2, dilation=2), lambda x: x),
        (nn.MaxPool2d(2, padding=1, stride=3), lambda x: x[..., :3, :3].contiguous()),  # no slice meets every window
    ],
)
def test_what_it_is_not_made_for_goes_to_torch(pool, change, monkeypatch):
    x = change(torch.randn(2, 3, 12, 12))
    calls = []
    real = functional.max_pool2d
    monkeypatch.setattr(functional, "max_pool2d", lambda *a, **k: calls.append(1) or real(*a, **k))
    with faster_pooling(pool):
        pool(x)
    assert calls


def test_afterwards_the_model_is_as_before():
    model = nn.Sequential(nn.MaxPool2d(2), nn.Sequential(nn.MaxPool2d(3)))

    def enter_and_fail():
        with faster_pooling(model), faster_pooling(model):  # one within the other
            assert "forward" in vars(model[0])
            raise KeyError

    with pytest.raises(KeyError):
        enter_and_fail()
    assert not any("forward" in vars(module) for module in model.modules())


NAMES = ["resnet18", "vgg11", "googlenet", "squeezenet1_1", "inception_v3", "densenet121"]


@pytest.mark.parametrize("name", sweep(NAMES, {"resnet18", "squeezenet1_1"}))
def test_a_prefix_is_equal_with_and_without_it(name, monkeypatch):
    backbone = load_backbone(name, "random", seed=0)
    size = backbone.input.size if backbone.input.fixed_size else 80
    images = torch.randint(0, 256, (3, 3, size, size), dtype=torch.uint8)

    def stored(key):
        found = Prefix(
            stages=backbone.stages,
            images=images,
            prepare=lambda chunk, _: chunk.float() / 255,
            arithmetic=Arithmetic(device=torch.device("cpu")),
            key=key,
        ).at(len(backbone.stages))
        return found.activations

    KEPT.activations.forget()
    fast = stored("fast")
    monkeypatch.setattr(nn.MaxPool2d, "forward", _counted := _Counted())
    monkeypatch.setattr(activations, "faster_pooling", lambda model: torch.no_grad())
    plain = stored("plain")
    KEPT.activations.forget()
    assert torch.equal(fast, plain)
    assert _counted.calls > 0


class _Counted:
    """torch's own forward, counted."""

    def __init__(self):
        self.calls, self.forward = 0, nn.MaxPool2d.forward

    def __get__(self, pool, kind):
        self.calls += 1
        return self.forward.__get__(pool, kind)
