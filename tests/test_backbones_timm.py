"""timm's classifiers through their common interface: one or two of every kind of trunk, pooling and classifier."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import pytest
import timm
import torch
from bits import check_stages, run_stages
from huggingface_hub import constants
from randomise import buffers_kept, no_initialisation, randomise
from safetensors.torch import save_file
from tiers import sweep
from torch import Tensor, nn

from tlbench import backbones
from tlbench.backbones import check_backbone, load_backbone, timm_list, timm_stages
from tlbench.backbones import timm as adapter
from tlbench.backbones.base import Backbone, InputSpec, Split, WeightsInfo, stage_costs
from tlbench.backbones.network import UNREACHABLE
from tlbench.campaign.entrants import timm_at_hand
from tlbench.errors import NotApplicable, Unavailable, UserError
from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.measure.build import assemble
from tlbench.measure.cell import run_cell
from tlbench.policies import freezing
from tlbench.policies.parse import parse_policy

SPEC = InputSpec(size=8, resize=8, mean=(0, 0, 0), std=(1, 1, 1), interpolation="bicubic")
ANY = 64
"""Pixels a side where a model takes any size."""

LISTED: dict[str, int | None] = {
    # name -> pixels a side, None for the only one that the model takes
    "cs3darknet_focus_s": ANY,
    "cspnext_tiny": ANY,
    "cait_xxs24_224": None,
    "coat_tiny": None,  # features of several scales
    "convit_tiny": None,
    "csatv2": 128,  # without a grouping of timm's
    "deit_tiny_patch16_224": None,
    "densenet121": ANY,
    "dla46x_c": ANY,  # classifies by a convolution
    "dpn48b": ANY,
    "edgenext_xx_small": ANY,
    "efficientformerv2_s0": None,  # two classifiers, averaged
    "efficientvit_b0": ANY,
    "efficientvit_m0": None,  # a norm layer in the classifier
    "eva02_tiny_patch14_224": None,  # no classifier: features alone
    "fasternet_t0": ANY,
    "fastvit_t8": ANY,
    "ghostnet_050": ANY,
    "gmlp_ti16_224": None,
    "hgnetv2_b0": ANY,
    "hrnet_w18_small": ANY,
    "iformer_t": ANY,
    "levit_128s": None,
    "mobilenetv3_small_050": ANY,
    "mobilenetv4_conv_small_035": ANY,
    "mobilevit_xxs": ANY,
    "pit_ti_224": None,
    "poolformerv2_s12": ANY,
    "pvt_v2_b0": ANY,
    "regnetx_002": ANY,
    "repghostnet_050": ANY,
    "repvit_m1": ANY,
    "resnet18.a1_in1k": ANY,
    "resnetv2_18": ANY,
    "rexnet_100": ANY,
    "shvit_s1": ANY,
    "starnet_s050": ANY,
    "swiftformer_xs": None,
    "test_byobnet": ANY,
    "test_convnext": ANY,
    "test_efficientnet": ANY,
    "test_mambaout": ANY,
    "test_coatnet": None,
    "test_nfnet": ANY,
    "test_resnet": ANY,
    "test_vit": None,
    "test_vit_relpos": None,
    "visformer_tiny": None,
    "vit_tiny_r_s16_p8_224": None,
    "ese_vovnet19b_slim_dw": ANY,
    "xcit_nano_12_p8_224": None,
}
MODELS = {name: size for name, size in LISTED.items() if timm.is_model(name)}
YOUNGER = {"cspnext_tiny", "csatv2", "iformer_t", "test_coatnet", "test_vit_relpos"}
"""Those that the oldest timm which pyproject.toml allows does not have."""

FEW = {
    *("efficientvit_m0", "mobilenetv3_small_050", "pit_ti_224", "resnet18.a1_in1k", "swiftformer_xs", "test_convnext"),
    "test_vit",
}
"""A trunk that cannot be cut, a norm layer in the classifier, two classifiers, and the usual kinds."""

UNCUT = {
    "cait_xxs24_224",
    "coat_tiny",
    "convit_tiny",
    "eva02_tiny_patch14_224",
    "hrnet_w18_small",
    "levit_128s",
    "pit_ti_224",
    "visformer_tiny",
    "xcit_nano_12_p8_224",
}
"""What happens between their modules cannot be written as a sequence."""


def test_the_list_is_wide_enough():
    families = {timm.models.model_entrypoint(name).__module__ for name in MODELS}
    assert LISTED.keys() - MODELS.keys() <= YOUNGER
    assert len(MODELS) >= 40
    assert len(families) >= 25


@dataclass
class Case:
    name: str
    images: Tensor
    logits: Tensor
    """Of the randomised model itself."""
    hidden: int
    parameters: dict[int, str]
    """Of the model without its classifier, by id."""
    split: Split
    backbone: Backbone


@pytest.fixture(scope="module", params=sweep(MODELS, FEW))
def case(request):
    name, size = request.param, MODELS[request.param]
    with no_initialisation():
        model = timm.create_model(name)
    randomise(model).eval()
    spec = adapter.input_spec(model)
    assert spec.fixed_size == (size is None)
    spec = replace(spec, size=size or spec.size)
    images = torch.randn(3, 3, spec.size, spec.size, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        logits = model(images)
    hidden = model.head_hidden_size
    split = timm_stages.split(model, spec)
    parameters = {id(p): n for n, p in model.named_parameters()}
    backbone = Backbone(
        name=f"timm:{name}",
        stages=split.stages,
        features=split.features,
        input=spec,
        weights=WeightsInfo(requested="random", source="random", pretrained=False, sha256=""),
        groups=split.groups,
        group_of=split.group_of,
        below_head=split.below_head,
        note=split.note,
    )
    return Case(name, images, logits, hidden, parameters, split, backbone)


@torch.no_grad()
def test_features_and_head_reproduce_the_model(case):
    assert case.logits.isfinite().all()
    assert not torch.equal(case.logits[0], case.logits[1])
    features = case.split.stages.eval()(case.images)
    assert features.shape == (len(case.images), case.hidden)
    assert case.split.features == case.hidden
    assert torch.equal(case.split.head(features), case.logits)


def test_every_cut_of_the_trunk_is_exact_and_leaves_its_input_untouched(case):
    assert (case.split.note is not None) == (case.name in UNCUT)
    assert len(case.split.stages) <= 2 if case.split.note else len(case.split.stages) >= 4
    with torch.no_grad():
        features = case.split.stages.eval()(case.images)
    check_stages(case.split.stages, case.images, features)
    with buffers_kept(case.split.stages):
        run_stages(case.split.stages.train(), case.images)


def test_the_stages_hold_each_parameter_once(case):
    held = [id(p) for stage in case.split.stages for p in stage.parameters()]
    assert len(held) == len(set(held))
    assert set(held) == set(case.parameters)
    assert set(case.split.group_of) == {name for name, _ in case.split.stages.named_parameters()}
    assert {*case.split.group_of.values()} == {*case.split.groups}
    assert case.split.groups[0] == "stem"
    if case.split.note is None:  # then the groups are the stages
        assert {n: g for n, g in case.split.group_of.items() if n.partition(".")[0] != g} == {}


def test_a_training_step_of_a_linear_probe_moves_the_head_alone(case):
    model = assemble(case.backbone, "linear", 5)
    (phase,) = parse_policy("linear_probe").phases(freezing.describe(model, case.backbone.group_of), 1)
    freezing.apply(model, phase)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert sum(p.numel() for p in trained.values()) == case.split.features * 5 + 5
    before = {name: t.clone() for name, t in model.state_dict().items()}
    loss = nn.functional.cross_entropy(model(case.images), torch.tensor([0, 1, 2]))
    loss.backward()
    torch.optim.SGD(trained.values(), lr=1.0).step()
    moved = {name for name, t in model.state_dict().items() if not torch.equal(t, before[name])}
    assert moved == set(trained)
    assert all(name.startswith("head.") for name in moved)


@pytest.mark.exhaustive
def test_costs_are_counted_without_values(case):
    size = case.images.shape[-1]
    costs = stage_costs(assemble(case.backbone, "linear", 5), size)
    assert [c.name for c in costs] == [*(name for name, _ in case.split.stages.named_children()), "head"]
    assert sum(c.parameters for c in costs[:-1]) == sum(p.numel() for p in case.split.stages.parameters())
    assert sum(c.flops for c in costs[:-1]) > 0
    assert costs[-1].flops == 2 * case.split.features * 5


# --- what goes wrong ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("timm:resnet81", ["timm model 'resnet81'", "did you mean 'resnet"]),
        ("timm:resnet18.a9_in1k", ["'resnet18.a9_in1k'", "resnet18.a1_in1k"]),
        ("timm:resnet18@a1_in1k", ["'timm:resnet18@a1_in1k'", "timm:resnet18.a1_in1k"]),
        ("timm:", ["timm model ''"]),
    ],
)
def test_a_name_that_timm_does_not_know(name, words):
    with pytest.raises(UserError) as error:
        backbones.check_backbone(name)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("crossvit_tiny_240", None),  # a classifier for each scale
        ("deit_tiny_distilled_patch16_224", None),  # a classifier for each token
        pytest.param(
            *("efficientvim_m1", 64),
            marks=pytest.mark.skipif(not timm.is_model("efficientvim_m1"), reason="this timm does not have it"),
        ),
    ],
)
def test_a_classifier_that_one_layer_cannot_replace(name, size):
    model = timm.create_model(name)
    spec = adapter.input_spec(model)
    with pytest.raises(NotApplicable, match="no linear classifier on pooled features; choose another"):
        timm_stages.split(model, replace(spec, size=size or spec.size))


def test_a_model_that_classifies_nothing():
    with pytest.raises(NotApplicable, match="Identity is no image classifier"):
        timm_stages.split(
            nn.Identity(), InputSpec(size=8, resize=8, mean=(0, 0, 0), std=(1, 1, 1), interpolation="bicubic")
        )


@pytest.mark.exhaustive
def test_such_a_model_is_a_record_of_its_own_and_not_the_end_of_the_run():
    record = run_cell(Cell(backbone="timm:deit_tiny_distilled_patch16_224", weights="random"), Settings())
    assert record.status == "not_applicable"
    assert "VisionTransformerDistilled" in record.reason


class Net(nn.Module):
    """timm's interface, small enough to go wrong in one way at a time."""

    def __init__(self, first=None):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.stages = nn.Sequential(nn.Sequential(first or nn.ReLU(), nn.Conv2d(4, 4, 1)), nn.Conv2d(4, 4, 1))
        self.fc = nn.Linear(4, 2)

    def forward_features(self, x):
        return self.stages(self.stem(x))

    def forward_head(self, x, pre_logits=False):
        return x.mean((2, 3)) if pre_logits else self.fc(x.mean((2, 3)))

    def forward(self, x):
        return self.forward_head(self.forward_features(x))

    def get_classifier(self):
        return self.fc

    def reset_classifier(self, classes):
        self.fc = nn.Identity()


def test_a_part_that_writes_into_its_input_is_not_cut():
    class InPlace(nn.Module):
        def forward(self, x):
            return x.mul_(2)

    assert timm_stages.split(Net(), SPEC).note is None
    assert timm_stages.split(Net(nn.ReLU(inplace=True)), SPEC).note is None  # its flag is turned off
    assert "cannot be cut" in timm_stages.split(Net(InPlace()), SPEC).note


def test_a_parameter_between_the_modules_is_not_cut_off_even_while_it_is_zero():
    class Between(Net):
        def __init__(self):
            super().__init__()
            self.shift = nn.Parameter(torch.zeros(4, 1, 1))

        def forward_features(self, x):
            return self.stages(self.stem(x) + self.shift)

    split = timm_stages.split(Between(), SPEC)
    assert "cannot be cut" in split.note
    assert "trunk.shift" in split.group_of


def test_a_head_of_zeros_hides_no_other_features():
    class Scaled(Net):
        def __init__(self):
            super().__init__()
            nn.init.zeros_(self.fc.weight)

        def forward_head(self, x, pre_logits=False):
            return x.mean((2, 3)) if pre_logits else self.fc(2 * x.mean((2, 3)))

    model = Scaled()
    fc = model.fc
    with pytest.raises(NotApplicable, match="no linear classifier"):
        timm_stages.split(model, SPEC)
    assert not fc.weight.any()  # only for the comparison


# --- weights --------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """An empty Hugging Face cache without a network, and no attempt so far. The hub's client read its environment
    when it was imported."""
    monkeypatch.setattr(adapter, "_failed", {})
    monkeypatch.setattr(adapter, "check_reachable", lambda url: None)
    UNREACHABLE.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_random_weights_are_the_same_whether_a_download_failed_before_or_not(hub):
    random, first, second = (load_backbone("timm:test_vit", weights) for weights in ("random", "auto", "auto"))
    assert random.weights.sha256 == first.weights.sha256 == second.weights.sha256
    assert not first.weights.pretrained
    assert "not at hand" in first.weights.reason
    assert load_backbone("timm:test_vit", "random", seed=1).weights.sha256 != random.weights.sha256


def attempts(monkeypatch, error):
    """Names of the models whose weights the network is asked for; it answers with an error."""
    names = []
    real = timm.create_model

    def create(name, pretrained=False, **options):
        if pretrained and not constants.HF_HUB_OFFLINE:
            names.append(name)
            raise error
        return real(name, pretrained=pretrained, **options)

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(timm, "create_model", create)
    return names


@pytest.mark.parametrize(
    ("error", "asked"),
    [
        (RuntimeError("no such file\nmore"), ["test_resnet.r160_in1k", "test_vit"]),
        (ConnectionRefusedError("refused"), ["test_resnet.r160_in1k"]),  # nor will the next one be answered
    ],
)
def test_one_failed_attempt_a_run(error, asked, hub, monkeypatch):
    names = attempts(monkeypatch, error)
    for name in ("test_resnet.r160_in1k", "test_vit", "test_resnet.r160_in1k"):
        with pytest.raises(Unavailable) as caught:
            load_backbone(f"timm:{name}", "pretrained")
        assert f"timm/{name.partition('.')[0]}.r160_in1k" in str(caught.value)
        assert str(error).partition("\n")[0] in str(caught.value)
        assert "Hugging Face cache" in str(caught.value)
        assert "--weights random" in str(caught.value)
        assert "\n" not in str(caught.value)
    assert names == asked
    assert not constants.HF_HUB_OFFLINE


def test_weights_in_the_hubs_cache_are_loaded_without_a_network(hub, monkeypatch):
    names = attempts(monkeypatch, ConnectionRefusedError("refused"))
    model = randomise(timm.create_model("test_resnet"), seed=6)
    folder = hub / "models--timm--test_resnet.r160_in1k"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    (folder / "snapshots" / ("0" * 40)).mkdir(parents=True)
    save_file(model.state_dict(), folder / "snapshots" / ("0" * 40) / "model.safetensors")
    backbone = load_backbone("timm:test_resnet", "pretrained")
    assert backbone.weights.pretrained
    assert backbone.weights.source == "timm/test_resnet.r160_in1k"
    assert names == []
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model.eval().fc(backbone.stages.eval()(images)), model(images))


def test_weights_that_another_timm_has_left_are_passed_over(hub):
    """A race without --backbone ended in a traceback."""
    (hub / "models--timm--resnet18.of_next_year_in1k").mkdir(parents=True)
    assert timm_at_hand() == []


def test_a_model_without_published_weights():
    with pytest.raises(Unavailable, match="timm has no pretrained weights for botnet50ts_256"):
        load_backbone("timm:botnet50ts_256", "pretrained")


def test_a_checkpoint_of_a_timm_model(tmp_path):
    model = randomise(timm.create_model("test_resnet", num_classes=7), seed=5)
    torch.save({"state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}}, tmp_path / "own.pth")
    backbone = load_backbone("timm:test_resnet", str(tmp_path / "own.pth"))
    assert backbone.weights.source == str(tmp_path / "own.pth")
    assert backbone.weights.pretrained
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        features = backbone.stages.eval()(images)
        assert torch.equal(model.eval().fc(features), model(images))


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("backbone", "cut"),
    sweep([("timm:test_vit", "stage6"), ("timm:levit_128s", "trunk")], {("timm:test_vit", "stage6")}),
)
def test_a_cell_on_a_cut_and_on_an_uncut_trunk(backbone, cut):
    cell = Cell(
        backbone=backbone, weights="random", freeze="last_1", dataset="synthetic", train_size=16, epochs=1, batch_size=8
    )
    record = run_cell(cell, Settings())
    assert (record.status, record.reason) == ("ok", "")
    assert record.cut == cut
    assert record.frozen_sha256_before == record.frozen_sha256_after


# --- the list -------------------------------------------------------------------------------------------------


def test_timms_models_are_listed_with_parameters_size_and_what_is_at_hand(command, monkeypatch, tmp_path):
    """As they stand in a cache of the hub: a snapshot of one of them, and nothing of the others."""
    place = tmp_path / "models--timm--resnet26.bt_in1k"
    for path, text in {"refs/main": "0" * 40, f"snapshots/{'0' * 40}/model.safetensors": ""}.items():
        (place / path).parent.mkdir(parents=True)
        (place / path).write_text(text)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    status, out, err = command("list", "backbones", "--timm", "resnet[12]?")
    assert (status, err) == (0, "")
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines()}
    assert rows["backbone"] == ["parameters", "image", "size", "weights", "at", "hand"]
    assert rows["timm:resnet18"] == ["11,689,512", "224", "a1_in1k", "no"]
    assert rows["timm:resnet26"] == ["15,995,176", "224", "bt_in1k", "yes"]
    assert set(rows) == {"backbone", *(f"timm:{name}" for name in timm.list_models("resnet[12]?"))}


def test_a_pattern_with_a_dot_lists_weights(command, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)  # pytest-xdist sets it
    out = command("list", "backbones", "--timm", "resnet18.*")[1]
    assert [line.split()[0] for line in out.splitlines()[1:]] == [
        f"timm:{name}" for name in timm.list_models("resnet18.*", pretrained=True)
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("policies", "--timm=*"), "--timm lists timm's backbones: tlbench list backbones --timm 'resnet*'"),
        (("backbones", "--timm=none-such"), "no model of timm's matches 'none-such'"),
    ],
)
def test_what_timm_does_not_have_is_one_line(arguments, words, command):
    status, _, err = command("list", *arguments)
    assert (status, err.count("\n")) == (2, 1)
    assert words in err


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "mixer_s32_224"])
def test_parameters_are_those_of_the_model(name):
    """Counted without memory for them, which is how the file was made."""
    built = sum(p.numel() for p in timm.create_model(name).parameters())
    assert built == timm_list.count(name) == timm_list.known()[name]


def test_a_model_that_asks_for_values_while_it_is_built_is_counted(monkeypatch):
    """As some of an older timm's do, and any of a newer one's may; the meta device has no values."""
    built = []

    def create(name, pretrained):
        built.append(name)
        return nn.Linear(2, 3, bias=torch.linspace(0, 1, 3)[1].item() > 0)

    monkeypatch.setattr(timm, "create_model", create)
    assert timm_list.count("any") == 9
    assert set(built) == {"any"}


def test_what_the_file_does_not_know_is_counted(monkeypatch):
    known = timm_list.known()["resnet10t"]
    monkeypatch.setattr(timm_list, "known", dict)
    assert [row["parameters"] for row in timm_list.rows("timm:resnet10t")] == [known]


@pytest.mark.parametrize("prefix", ["", "timm/", "hf_hub:timm/", "hf-hub:timm/"])
@pytest.mark.parametrize("name", ["resnet26", "resnet18.a1_in1k"])
def test_an_unknown_name_that_timm_has_is_told_how_to_write_it(prefix, name):
    with pytest.raises(
        UserError, match=re.escape(f"unknown backbone '{prefix}{name}', but timm has it: write timm:{name}")
    ):
        check_backbone(prefix + name)
    check_backbone(f"timm:{name}")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("timm/resnet81", "unknown backbone 'timm:resnet81'; did you mean 'timm:resnet"),
        ("hf_hub:timm/resnet81.a1_in1k", "unknown backbone 'timm:resnet81.a1_in1k'; did you mean 'timm:resnet"),
        ("hf-hub:somebody/model", "is on the hub, but not timm's own; download its weights"),
        ("hf_hub:somebody/resnet18", "give the file with --weights to the backbone"),
        ("timm:timm/resnet18", "says twice that it is timm's; write timm:resnet18"),
        ("timm:hf-hub:timm/resnet18.a1_in1k", "write timm:resnet18.a1_in1k"),
        ("timm:timm:resnet18", "write timm:resnet18"),
        ("torchvision:resnet18", "torchvision's are written as they are: resnet18"),
        ("torchvision/vgg16", "written as they are: vgg16"),
        ("torchvision.models.vit_b_16", "written as they are: vit_b_16"),
        ("models.resnet50", "written as they are: resnet50"),
        ("pytorch/vision:resnet18", "written as they are: resnet18"),
        ("torchvision:resnet26", "unknown backbone 'torchvision:resnet26'"),
        ("resnet18.a1_in1k", "but timm has it: write timm:resnet18.a1_in1k"),
    ],
)
def test_names_as_others_write_them_are_told_how_to_write_them(name, words):
    with pytest.raises(UserError, match=re.escape(words)) as caught:
        check_backbone(name)
    assert "\n" not in str(caught.value)
