"""What is known of a backbone without building it, and backbones from outside the package."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch
from bits import check_stages
from randomise import no_initialisation
from torch import nn
from torchvision import models

from tlbench.backbones import (
    BACKBONES,
    CUSTOM,
    Custom,
    check_backbone,
    generate,
    list_backbones,
    lite,
    load_backbone,
)
from tlbench.backbones import torchvision as family_table
from tlbench.backbones.base import InputSpec, join
from tlbench.backbones.known import at_hand
from tlbench.backbones.weights import hub_folder
from tlbench.errors import UserError
from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.machine.kept import KEPT
from tlbench.measure.cell import run_cell

NAMES = models.list_models(module=models)


def test_the_table_is_complete():
    assert sorted(BACKBONES) == sorted([*NAMES, *lite.MODELS])


@pytest.mark.parametrize("name", lite.MODELS)
def test_a_row_is_what_the_model_itself_says(name, monkeypatch):
    """FLOPs of one; all else of all. Those of torchvision are in test_backbones.py."""
    if name != "efficientnet_lite1":
        monkeypatch.setattr(generate, "stage_costs", lambda stages, size: [])
    with no_initialisation():
        described = asdict(generate.describe(name))
    row = asdict(BACKBONES[name])
    if name != "efficientnet_lite1":
        del described["flops"], row["flops"]
        assert BACKBONES[name].flops > 1e7
    assert row == described


def names_of(pattern=None):
    return [row["backbone"] for row in list_backbones(pattern)]


def test_patterns():
    assert names_of() == [*BACKBONES]
    assert set(names_of("vit")) == {n for n in BACKBONES if "vit" in n}
    assert "maxvit_t" in names_of("vit")
    assert "maxvit_t" not in names_of("vit*")
    assert names_of("vit_*_16") == ["vit_b_16", "vit_l_16"]
    assert names_of("vgg1[13]") == ["vgg11", "vgg13"]
    assert names_of("resnet18") == ["resnet18"]
    assert names_of("none such") == []


def test_a_row_for_people():
    (row,) = list_backbones("resnet18")
    assert row == {
        "backbone": "resnet18",
        "parameters": 11_689_512,
        "features": 512,
        "image_size": 224,
        "stages": 5,
        "top1": 69.758,
        "at_hand": False,
    }


def test_weights_are_at_hand_where_loading_finds_them(monkeypatch):
    assert not at_hand(BACKBONES["resnet18"])
    path = hub_folder() / BACKBONES["resnet18"].file
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    assert at_hand(BACKBONES["resnet18"])
    assert [row["backbone"] for row in list_backbones() if row["at_hand"] and "lite" not in row["backbone"]] == [
        "resnet18"
    ]
    assert at_hand(BACKBONES["efficientnet_lite0"])  # a dependency


@pytest.mark.parametrize(("torch_home", "cache_home"), [("here", None), (None, "there"), ("here", "there")])
def test_the_cache_is_where_torch_looks(torch_home, cache_home, monkeypatch, tmp_path):
    for name, value in (("TORCH_HOME", torch_home), ("XDG_CACHE_HOME", cache_home)):
        monkeypatch.delenv(name, raising=False)
        if value:
            monkeypatch.setenv(name, str(tmp_path / value))
    path = hub_folder() / BACKBONES["resnet18"].file
    assert tmp_path in path.parents
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    assert at_hand(BACKBONES["resnet18"])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet81", ["unknown backbone 'resnet81'", "did you mean 'resnet18'"]),
        ("resnet50@IMAGENET1K_V9", ["weights tag of resnet50 'IMAGENET1K_V9'", "IMAGENET1K_V2, IMAGENET1K_V1"]),
        ("", ["unknown backbone ''"]),
    ],
)
def test_an_unknown_name(name, words):
    with pytest.raises(UserError) as error:
        check_backbone(name)
    assert all(word in str(error.value) for word in words)


# --- from outside the package ---------------------------------------------------------------------------------

SPEC = InputSpec(size=32, resize=36, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bilinear")


class MyNet(nn.Module):
    """Somebody's own architecture."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 16, 3, stride=2)
        self.fc = nn.Linear(16, 1000)

    def forward(self, x):
        return self.fc(self.conv2(self.bn1(self.conv1(x)).relu()).mean((2, 3)))


BACKBONE = """
from torchvision.models import resnet
from tlbench.backbones import CUSTOM, Custom
from tlbench.backbones.base import InputSpec

CUSTOM["resnet10"] = Custom(
    build=lambda: resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1]),
    input=InputSpec(size=32, resize=36, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bilinear"),
)
"""

FAMILY = """
from tlbench.backbones.base import Call, Parts
from tlbench.backbones.cutting import mean, named
from tlbench.backbones.torchvision import FAMILIES

def my_stages(m):
    relu = ("relu", Call(torch.relu))
    return Parts(
        body=[[*named(m, "conv1", "bn1"), relu], named(m, "conv2")],
        neck=[("mean", Call(mean))],
        head=named(m, "fc"),
        features=m.fc.in_features,
    )

FAMILIES[MyNet] = my_stages
"""


@pytest.fixture
def outside(monkeypatch):
    """Runs a snippet; takes back what it added to the tables."""
    monkeypatch.setattr("tlbench.backbones.CUSTOM", CUSTOM)
    custom, families = dict(CUSTOM), dict(family_table.FAMILIES)

    def run(code, **names):
        assert len([line for line in code.splitlines() if line.strip()]) < 15
        exec(code, {"torch": torch, "MyNet": MyNet, **names})

    KEPT.forget()  # what is kept is known by its name
    yield run
    KEPT.forget()
    for table, before in ((CUSTOM, custom), (family_table.FAMILIES, families)):
        table.clear()
        table.update(before)


def cell(**changes):
    return Cell(**{"weights": "random", "freeze": "last_1", "train_size": 40, "epochs": 1, "batch_size": 20, **changes})


@pytest.mark.exhaustive
def test_a_backbone_of_a_known_family(outside):
    outside(BACKBONE)
    check_backbone("resnet10")
    record = run_cell(cell(backbone="resnet10"), Settings())
    assert (record.status, record.reason) == ("ok", "")
    assert record.cut == "stage4"
    assert record.image_size == 32
    with pytest.raises(UserError, match="did you mean 'resnet10'"):
        check_backbone("resnet100")


@pytest.mark.exhaustive
def test_a_family_of_ones_own(outside):
    outside(FAMILY)
    CUSTOM["mynet"] = Custom(build=MyNet, input=SPEC)
    backbone = load_backbone("mynet", "random")
    assert backbone.groups == ("stem", "stage1")
    model = MyNet().eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        logits = model(images)
    check_stages(join(family_table.FAMILIES[MyNet](model)), images, logits)
    record = run_cell(cell(backbone="mynet"), Settings())
    assert (record.status, record.reason) == ("ok", "")
    assert record.trainable_parameters == 8 * 16 * 9 + 16 + 16 * 10 + 10
    assert record.frozen_sha256_before == record.frozen_sha256_after


def test_a_class_without_a_family(outside):
    CUSTOM["mynet"] = Custom(build=MyNet, input=SPEC)
    with pytest.raises(UserError, match=r"no stages are known of MyNet; add FAMILIES\[MyNet\]"):
        load_backbone("mynet", "random")


def test_a_subclass_has_its_parents_stages(outside):
    class Wider(models.ResNet):
        pass

    CUSTOM["wider"] = Custom(build=lambda: Wider(models.resnet.BasicBlock, [1, 1, 1, 1]), input=SPEC)
    assert load_backbone("wider", "random").groups == ("stem", "stage1", "stage2", "stage3", "stage4")
