"""A table of checkpoints as tools write them: what of each is taken, with equal weights, and why others are refused."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import enum
import functools
import gzip
import inspect
import json
import os
import pathlib
import pickle
import random
import re
import sys
import tarfile
import types
import zipfile
from collections import OrderedDict, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tlbench.backbones import CUSTOM, Custom, check_weights, load_backbone, parse_checkpoint
from tlbench.backbones.base import InputSpec, Parts, stages_of
from tlbench.backbones.cutting import flatten, named
from tlbench.campaign.check import check
from tlbench.campaign.checkpoints import about_checkpoint
from tlbench.campaign.moved import moved_to
from tlbench.errors import NotApplicable, UserError
from tlbench.grid.cell import Cell
from tlbench.grid.grid import Grid
from tlbench.grid.settings import Settings
from tlbench.hashing import hash_tensors
from tlbench.measure.cell import run_cell
from tlbench.measure.shared_weights import load_weights
from tlbench.records.identity import place_of, same_place


class Tiny(nn.Module):
    """A ResNet's names on a few weights."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.layer1 = nn.Sequential(nn.Conv2d(4, 4, 3))
        self.fc = nn.Linear(4, classes)

    def forward(self, x):
        return self.fc(self.layer1(self.bn1(self.conv1(x))).mean([2, 3]))


class Wide(Tiny):
    """Another model, of the same names."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = nn.Sequential(nn.Conv2d(4, 8, 3))
        self.fc = nn.Linear(8, 10)


def parts(m):
    pool = ("pool", nn.AdaptiveAvgPool2d(1))
    return Parts(
        body=[named(m, "conv1", "bn1"), named(m, "layer1")],
        neck=[pool, flatten()],
        head=named(m, "fc"),
        features=m.fc.in_features,
    )


SPEC = InputSpec(size=8, resize=8, mean=(0, 0, 0), std=(1, 1, 1), interpolation="bilinear")


@pytest.fixture(autouse=True)
def backbones(monkeypatch):
    monkeypatch.setitem(CUSTOM, "tiny", Custom(build=Tiny, input=SPEC, parts=parts))
    monkeypatch.setitem(CUSTOM, "wide", Custom(build=Wide, input=SPEC, parts=parts))


def model_of(seed: int, classes: int = 10) -> Tiny:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Tiny(classes)
        for tensor in model.state_dict().values():
            tensor.copy_(torch.rand(tensor.shape) if tensor.is_floating_point() else torch.tensor(7))
    return model


MODEL, OTHER = model_of(1), model_of(2)
S, E = MODEL.state_dict(), OTHER.state_dict()
"""The weights that are to be taken, and others beside them."""


def under(prefix, state=None):
    return OrderedDict((prefix + key, value) for key, value in (S if state is None else state).items())


def bare(state=None):
    return OrderedDict(
        (key, value) for key, value in (S if state is None else state).items() if not key.startswith("fc.")
    )


def averaged(model):
    """As torch's AveragedModel saves one: `n_averaged`, and the model's names after `module.`."""
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9)).state_dict()


def adam():
    optimizer = torch.optim.AdamW(MODEL.parameters())
    MODEL(torch.zeros(1, 3, 8, 8)).sum().backward()
    optimizer.step = functools.partial(type(optimizer).step, optimizer)
    state = optimizer.state_dict()
    for place, p in enumerate(MODEL.parameters()):
        state["state"][place] = {"step": torch.tensor(1.0), "exp_avg": torch.zeros_like(p)}
    MODEL.zero_grad(set_to_none=True)
    return state


# --- objects of libraries that are not installed where the file is read ----------------------------------------


@contextlib.contextmanager
def library(name: str, **classes: type):
    """Makes a module while a file is written; it is gone when the file is read."""
    made = types.ModuleType(name)
    for one, base in classes.items():
        kind = type(one, (base,), {"__module__": name})
        setattr(made, one, kind)
    before = {key: sys.modules.get(key) for key in _parents(name)}
    for key in before:
        sys.modules.setdefault(key, types.ModuleType(key))
    sys.modules[name] = made
    try:
        yield made
    finally:
        for key, module in before.items():
            if module is None:
                sys.modules.pop(key, None)


def _parents(name):
    pieces = name.split(".")
    return [".".join(pieces[: n + 1]) for n in range(len(pieces))]


def yacs(path):
    """Swin's official main.py keeps its whole configuration, a dict of its own kind, in the checkpoint."""
    with library("yacs.config", CfgNode=dict) as made:
        config = made.CfgNode(MODEL=made.CfgNode(TYPE="swin"))
        config.frozen = True
        torch.save({"model": S, "optimizer": adam(), "max_accuracy": 81.2, "epoch": 3, "config": config}, path)


def omegaconf(path):
    with library("omegaconf.dictconfig", DictConfig=object) as made:
        config = made.DictConfig()
        config._content = {"lr": 0.1, "parent": config}
        torch.save({"state_dict": under("model."), "hyper_parameters": config, "hparams_type": made.DictConfig}, path)


def settings_object(path):
    with library("my_project.options", Options=object) as made:
        options = made.Options()
        options.device = torch.device("cuda:0")
        options.dtype = torch.float16
        torch.save({"state_dict": S, "options": options}, path)


class Colour(enum.Enum):
    RED = 1


def beside(**more):
    return lambda: {"state_dict": S, **more}


LIGHTNING = {
    "epoch": 3,
    "global_step": 120,
    "pytorch-lightning_version": "2.4.0",
    "loops": {"fit_loop": {"state_dict": {}}},
    "callbacks": {
        "ModelCheckpoint{'monitor': 'val_loss'}": {"best_model_score": torch.tensor(0.3), "best_k_models": {}}
    },
    "lr_schedulers": [{"base_lrs": [0.1]}],
    "hparams_name": "kwargs",
    "hyper_parameters": {"root": pathlib.PurePosixPath("/data"), "lr": 0.1},
}
ARGS = argparse.Namespace(data_path=pathlib.PurePosixPath("/d"), lr=0.1, model="resnet18", distributed=True, gpu=0)


class Case:
    """A file, what of it is to be taken, and what is to be said."""

    def __init__(self, content, name="own.pth", *, taken=None, averaged=False, key=None, notes=(), **options):
        self.content, self.name, self.key, self.options = content, name, key, options
        self.taken, self.averaged, self.notes = taken, averaged, notes

    def write(self, folder: Path) -> str:
        path = folder / self.name
        content = self.content
        if callable(content):
            if inspect.signature(content).parameters:
                content(path)
                return self.spec(path)
            content = content()
        torch.save(content, path, **self.options)
        return self.spec(path)

    def spec(self, path):
        return f"{path}?key={self.key}" if self.key else str(path)


def safe(state):
    return lambda path: save_file({key: value.contiguous() for key, value in state.items()}, path, {"format": "pt"})


def odd_counters():
    return {k: v.reshape(1).int() if k.endswith("num_batches_tracked") else v for k, v in S.items()}


def with_attributes():
    state = OrderedDict((key, nn.Parameter(v) if v.is_floating_point() else v) for key, v in S.items())
    state["conv1.weight"].learning_rate = "slow"
    return state


def counted_by_thop():
    return {
        **S,
        "total_ops": torch.zeros(1),
        "layer1.total_params": torch.zeros(1),
        "layer1.0.total_ops": torch.zeros(1),
    }


def without_counters():
    return {k: v for k, v in S.items() if not k.endswith("num_batches_tracked")}


def as_functions(path):
    torch.save({"state_dict": S, "collate": functools.partial(max, default=0), "sample": random.Random(1).sample}, path)


def ema_hook():
    """mmcv's hook keeps averages under names of its own beside the model's."""
    other = {f"ema_backbone_{key.replace('.', '_')}": value for key, value in bare(E).items()}
    return {
        "meta": {"epoch": 3},
        "state_dict": {**under("backbone.", bare()), "head.fc.weight": torch.zeros(5, 4), **other},
    }


HALF = {key: value.half() if value.is_floating_point() else value for key, value in S.items()}
EXACT = {key: value.half().float() if value.is_floating_point() else value for key, value in S.items()}
TRAINED = {"optimizer": {"state": {}, "param_groups": []}, "epoch": 3}
ACCEPTED = {
    # Endings and forms
    "plain": Case(S),
    "no ending": Case(S, "weights"),
    "another ending": Case(S, "best.model"),
    ".ckpt": Case(S, "last.ckpt"),
    ".pth.tar that is none": Case(S, "checkpoint.pth.tar"),
    ".safetensors": Case(safe(S), "model.safetensors"),
    "safetensors by another name": Case(safe(S), "pytorch_model.bin"),
    "torch.save by the name .safetensors": Case(S, "model.safetensors"),
    "as before torch 1.6": Case(S, _use_new_zipfile_serialization=False),
    "as before torch 1.6, no ending": Case(
        {"state_dict": S}, "w", taken="state_dict", _use_new_zipfile_serialization=False
    ),
    "pickle protocol 4": Case(S, pickle_protocol=4),
    "pickle protocol 5, before 1.6": Case(S, pickle_protocol=5, _use_new_zipfile_serialization=False),
    "parameters with attributes": Case(with_attributes),
    # Prefixes
    "DataParallel": Case(under("module."), taken="module"),
    "model.": Case(under("model."), taken="model"),
    "net.": Case(under("net."), taken="net"),
    "compiled": Case(under("_orig_mod.")),
    "DDP, then compiled": Case(under("_orig_mod.module."), taken="module"),
    "compiled, then DDP": Case(under("module._orig_mod."), taken="module"),
    "one layer compiled": Case({k.replace("layer1.", "layer1._orig_mod."): v for k, v in S.items()}),
    "FSDP": Case({f"_fsdp_wrapped_module.{k.replace('1.0', '1._fsdp_wrapped_module.0')}": v for k, v in S.items()}),
    "activation checkpointing": Case({k.replace("1.0", "1._checkpoint_wrapped_module.0"): v for k, v in S.items()}),
    "three prefixes": Case(under("learner.module.backbone."), taken="learner.module.backbone"),
    "FasterRCNN's backbone": Case(
        {**under("backbone.body.", bare()), "backbone.fpn.inner.0.weight": torch.zeros(1), "rpn.w": torch.zeros(1)},
        taken="backbone.body",
        notes=["leaves out backbone.fpn.inner.0.weight, rpn"],
    ),
    # Tools
    "torchvision's train.py": Case(
        {"model": S, "lr_scheduler": {"last_epoch": 3}, "args": ARGS, **TRAINED}, taken="model"
    ),
    "torchvision's train.py, EMA too": Case(
        lambda: {"model": S, "model_ema": averaged(OTHER), "args": ARGS, "optimizer": adam()},
        taken="model",
        notes=[r"takes model; model_ema.module would fit as well \(\?key=model_ema.module\)"],
    ),
    "torchvision's EMA": Case(
        lambda: {"model": E, "model_ema": averaged(MODEL), "args": ARGS},
        key="model_ema",
        taken="model_ema.module",
        averaged=True,
        notes=["takes model_ema.module, averaged weights"],
    ),
    "timm's train.py": Case(
        {
            "arch": "r",
            "state_dict": S,
            "state_dict_ema": E,
            "args": ARGS,
            "version": 2,
            "metric": np.float64(71.3),
            **TRAINED,
        },
        "model_best.pth.tar",
        taken="state_dict",
        notes=["state_dict_ema would fit as well"],
    ),
    "timm's EMA": Case(
        {"state_dict": E, "state_dict_ema": S, "version": 2},
        key="state_dict_ema",
        taken="state_dict_ema",
        averaged=True,
    ),
    "EMA alone": Case({"state_dict_ema": S}, taken="state_dict_ema", averaged=True, notes=["averaged weights"]),
    "ema": Case({"ema": S, "step": 3}, taken="ema", averaged=True),
    "Lightning": Case({"state_dict": under("model."), **LIGHTNING}, "epoch=3-step=120.ckpt", taken="state_dict.model"),
    "Lightning with a loss of weights": Case(
        {"state_dict": {**under("net."), "criterion.weight": torch.ones(10)}, **LIGHTNING},
        "last.ckpt",
        taken="state_dict.net",
        notes=["leaves out criterion, beside state_dict.net"],
    ),
    "Lightning with OmegaConf": Case(omegaconf, "hydra.ckpt", taken="state_dict.model"),
    "Lightning's WeightAveraging": Case(
        {"state_dict": under("model."), "current_model_state": under("model.", E), **LIGHTNING},
        "averaged.ckpt",
        taken="state_dict.model",
        notes=[r"current_model_state.model would fit as well"],
    ),
    "fastai with its optimizer": Case(lambda: {"model": S, "opt": adam()}, taken="model"),
    "PyTorch's ImageNet example": Case(
        {"arch": "r", "state_dict": under("module."), "best_acc1": torch.tensor(71.0), "scheduler": {}, **TRAINED},
        "checkpoint.pth.tar",
        taken="state_dict.module",
    ),
    "MoCo": Case(
        {
            "state_dict": {
                **under("module.encoder_k.", E),
                **under("module.encoder_q."),
                "module.queue": torch.zeros(4, 9),
                "module.queue_ptr": torch.zeros(1).long(),
            },
            **TRAINED,
        },
        taken="state_dict.module.encoder_q",
        notes=["module.encoder_k would fit as well", "leaves out module.encoder_k.conv1.weight"],
    ),
    "MoCo's other encoder": Case(
        {"state_dict": {**under("module.encoder_q.", E), **under("module.encoder_k.")}},
        key="encoder_k",
        taken="state_dict.module.encoder_k",
        averaged=True,
    ),
    "MoCo with a head of two layers": Case(
        {
            "encoder_q.fc.0.weight": torch.zeros(4, 4),
            "encoder_q.fc.2.weight": torch.zeros(9, 4),
            **under("encoder_q.", bare()),
        },
        taken="encoder_q",
        notes=[r"own head \(fc.0.weight \(4, 4\), fc.2.weight \(9, 4\)\)"],
    ),
    "MoCo v3": Case(
        {"state_dict": {**under("module.base_encoder."), **under("module.momentum_encoder.", E)}},
        taken="state_dict.module.base_encoder",
    ),
    "DINO": Case(
        {
            "student": {**under("module.backbone.", bare(E)), "module.head.mlp.0.weight": torch.zeros(3)},
            "teacher": {**under("backbone.", bare()), "head.mlp.0.weight": torch.zeros(3)},
            "dino_loss": {"center": torch.zeros(1, 5)},
            "args": ARGS,
            **TRAINED,
        },
        taken="teacher.backbone",
        averaged=True,
        notes=["student.module.backbone would fit as well", "leaves out head"],
    ),
    "DINO's student": Case(
        {"student": under("module.backbone.", bare()), "teacher": under("backbone.", bare(E))},
        key="student",
        taken="student.module.backbone",
    ),
    "BYOL": Case(
        {**under("online_encoder.net."), **under("target_encoder.net.", E)},
        taken="online_encoder.net",
    ),
    "solo-learn": Case(
        {"state_dict": {**under("backbone."), **under("momentum_backbone.", E), "projector.0.weight": torch.zeros(2)}},
        "byol.ckpt",
        taken="state_dict.backbone",
    ),
    "OpenMMLab with an EMA hook": Case(ema_hook, taken="state_dict.backbone"),
    "Swin's main.py with yacs": Case(yacs, taken="model"),
    "DeepSpeed": Case(
        {"module": S, "buffer_names": [], "ds_version": "0.9"}, "mp_rank_00_model_states.pt", taken="module"
    ),
    "Ignite": Case({"model": S, "trainer": {"iteration": 1}, "optimizer": {}}, taken="model"),
    "Hugging Face's Trainer": Case(safe(under("model.")), "model.safetensors", taken="model"),
    "Accelerate": Case(under("model."), "pytorch_model.bin", taken="model"),
    "catalyst": Case({"model_state_dict": S, "epoch_metrics": {}, "checkpoint_data": {}}, taken="model_state_dict"),
    "AveragedModel": Case(lambda: averaged(MODEL), "swa.pt", taken="module", averaged=True),
    "AveragedModel of DDP": Case(
        lambda: {"n_averaged": torch.tensor(3), **under("module.module.")}, taken="module.module", averaged=True
    ),
    "a tuple of state dict and epoch": Case((S, 3), taken="0"),
    "one model under two names": Case({**under("net."), **under("alias.net.")}, taken="net"),
    "a nested entry": Case(
        {"checkpoint": {"model": {"weights": under("module.")}}}, taken="checkpoint.model.weights.module"
    ),
    # Beside the weights
    "a numpy scalar": Case(beside(best=np.float64(0.7)), taken="state_dict"),
    "a numpy array and a random state": Case(beside(rng=np.random.RandomState(1).get_state()), taken="state_dict"),
    "numpy's generator": Case(beside(rng=np.random.default_rng(1)), taken="state_dict"),
    "a path": Case(beside(root=Path("data")), taken="state_dict"),
    "a Namespace": Case(beside(args=ARGS), taken="state_dict"),
    "a Namespace, before torch 1.6": Case(beside(args=ARGS), taken="state_dict", _use_new_zipfile_serialization=False),
    "a Namespace, and a type without a storage of its own": Case(
        beside(args=ARGS, seen=torch.zeros(3, dtype=torch.uint32)), taken="state_dict"
    ),
    "a defaultdict": Case(beside(history=defaultdict(list, loss=[1, 2])), taken="state_dict"),
    "a date": Case(beside(at=datetime.datetime(2024, 1, 2)), taken="state_dict"),
    "an enum": Case(beside(colour=Colour.RED), taken="state_dict"),
    "functions and methods": Case(as_functions, taken="state_dict"),
    "an object of the script's own": Case(settings_object, taken="state_dict"),
    "weights in a defaultdict": Case(lambda: {"state_dict": defaultdict(int, S)}, taken="state_dict"),
    # Heads
    "a head of other classes": Case(
        lambda: model_of(1, 37).state_dict() | bare(), notes=[r"own head \(fc.weight \(37, 4\), fc.bias \(37,\)\)"]
    ),
    "a head of layers": Case(
        {**bare(), "fc.1.weight": torch.zeros(5, 4)}, notes=[r"own head \(fc.1.weight \(5, 4\)\)"]
    ),
    "a head without a bias": Case({**bare(), "fc.weight": torch.zeros(10, 4)}, notes=["own head"]),
    "a head in int8": Case(
        {**bare(), "fc.weight": torch.zeros(10, 4).char(), "fc.bias": S["fc.bias"]}, notes=["own head"]
    ),
    "no head": Case(bare()),
    # Numbers
    "half": Case(HALF, notes=["holds float16, loaded as float32"]),
    "double": Case(
        lambda: {k: v.double() if v.is_floating_point() else v for k, v in S.items()}, notes=["holds float64"]
    ),
    "counters of another shape": Case(odd_counters),
    "counted by thop": Case(counted_by_thop),
    "channels_last": Case({**S, "conv1.weight": S["conv1.weight"].contiguous(memory_format=torch.channels_last)}),
    "views of one storage": Case(lambda: {k: torch.stack([v, v])[1] for k, v in S.items()}),
    "a column of a larger tensor": Case({**S, "bn1.weight": torch.stack([S["bn1.weight"]] * 2, 1)[:, 1]}),
    "words among the tensors": Case({**S, "arch": "resnet18", "epoch": 3, "layer1.0._extra_state": None}),
}
NAMES = {
    "spaces": "my best weights.pth",
    "a comma": "lr=0,1.pth",
    "a question mark": "is it good?.pth",
    "brackets": "w[1](2).pth",
    "letters of many languages": "gewichte-ü-重み.pth",
    "a percent sign and a dollar": "50%$HOME.pth",
    "a dot at its beginning": ".pth",
    "what looks like a key": "own.pth?key=ema",
}


def stages_with(state):
    model = Tiny()
    model.load_state_dict({**model.state_dict(), **state})
    return stages_of(parts(model)).state_dict()


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_checkpoint_that_other_tools_read(name, tmp_path):
    case = ACCEPTED[name]
    spec = case.write(tmp_path)
    check_weights(spec)
    backbone = load_backbone("tiny", spec)
    info = backbone.weights
    expected = stages_with(EXACT if name == "half" else S)
    for key, value in backbone.stages.state_dict().items():
        assert torch.equal(value, expected[key]), key
    assert info.sha256 == hash_tensors(expected.items())
    assert (info.source, info.requested, info.pretrained) == (spec, spec, True)
    assert (info.taken, info.averaged) == (case.taken, case.averaged)
    assert len(info.notes) >= len(case.notes)
    for note in case.notes:
        assert any(re.search(note, one) for one in info.notes), info.notes
    if not case.notes:
        said = [one for one in info.notes if not one.startswith(("takes", "leaves out"))]
        assert not said, said
    assert all("\n" not in note for note in info.notes)


# --- what is refused, each with its line ------------------------------------------------------------------------


def script(path):
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), str(path))


def cut(write, keep=0.6):
    def cut_off(path):
        write(path)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * keep)])

    return cut_off


def saved(content, **options):
    make = content if inspect.isfunction(content) else lambda: content
    return lambda path: torch.save(make(), path, **options)


def archive(path):
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("weights/best.pth", b"x")


def exported(path):
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("m/archive_format", b"pt2")
        out.writestr("m/data/weights/weight_0", b"x")


def tarred(path):
    with tarfile.open(path, "w") as out:
        out.addfile(tarfile.TarInfo("best.pth"))


def legacy_tar(path):
    """A tar whose first byte is that of a pickle: torch's reader of the oldest files would unpack it."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as out:
        member = tarfile.TarInfo("pickle")
        out.addfile(member)
    content = bytearray(path.read_bytes())
    content[0] = 0x80
    content[257:265] = bytes(8)
    content[148:156] = b" " * 8
    content[148:156] = b"%06o\0 " % sum(content[:512])
    path.write_bytes(content)


def foreign_tensor(path):
    with library("torchao.quantization", Int8Tensor=torch.Tensor) as made:
        state = dict(S)
        state["conv1.weight"] = S["conv1.weight"].as_subclass(made.Int8Tensor)
        torch.save(state, path)


def whole_entry(path):
    """As ultralytics keeps models: the object, whose class is not here."""
    torch.save({"epoch": 3, "model": MODEL, "ema": None}, path)


class Run:
    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def quantised():
    weight = torch.quantize_per_tensor(S["conv1.weight"], 0.1, 0, torch.qint8)
    return {**S, "conv1.weight": weight}


def with_conv(value):
    return saved(lambda: {**S, "conv1.weight": value(S["conv1.weight"])})


NOT_USED = r"cannot be used: conv1.weight is "
REFUSED = {
    "a whole model": (
        saved(MODEL),
        r"a whole model \(test_checkpoints.Tiny\), which needs its code; save",
    ),
    "a whole model in an entry": (whole_entry, r"model is a whole model \(test_checkpoints.Tiny\)"),
    "a whole model, before torch 1.6": (saved(MODEL, _use_new_zipfile_serialization=False), "a whole model"),
    "TorchScript": (script, "a TorchScript program; save its state_dict"),
    "torch.export": (exported, "a program of torch.export"),
    "an archive of NumPy": (lambda path: np.savez(path.open("wb"), a=np.zeros(3)), r"NumPy arrays \(.npz\)"),
    "a NumPy array": (lambda path: np.save(path.open("wb"), np.zeros(3)), "a NumPy array"),
    "nothing": (lambda path: path.write_bytes(b""), "it is empty"),
    "zeros": (lambda path: path.write_bytes(bytes(5000)), "all zero: it was never written"),
    "half a file": (cut(saved({"a": torch.zeros(10_000)})), "cut off or damaged"),
    "half a file, before torch 1.6": (
        cut(saved({"a": torch.zeros(10_000)}, _use_new_zipfile_serialization=False)),
        "cut off or damaged",
    ),
    "half a pickle": (cut(saved({"a": [1] * 99, "args": ARGS}, _use_new_zipfile_serialization=False)), "cut off or"),
    "half of safetensors": (cut(safe(S)), "cut off or damaged: .*[Ii]ncomplete"),
    "a page of the web": (lambda path: path.write_text("\n<!DOCTYPE html><html>404</html>"), "a page of the web"),
    "an index of shards": (lambda path: path.write_text(json.dumps({"weight_map": {}})), "text in JSON"),
    "Git LFS": (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "run git lfs pull"),
    "gzip": (lambda path: path.write_bytes(gzip.compress(b"x")), "compressed with gzip; unpack it"),
    "a zip of a checkpoint": (archive, "a zip archive that holds 'weights/best.pth'; unpack it"),
    "a tar of a checkpoint": (tarred, "a tar archive; unpack it"),
    "a tar that begins like a pickle": (legacy_tar, "a tar archive; unpack it"),
    "a plain pickle": (
        lambda path: path.write_bytes(pickle.dumps({"a": 1})),
        "a pickle that torch.save has not written",
    ),
    "HDF5": (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n"), "HDF5 file, as Keras writes them"),
    "ONNX": (lambda path: path.write_bytes(b"\x08\x08\x12\x07pytorch"), "an ONNX model"),
    "text": (lambda path: path.write_text("lr: 0.1"), "torch.save has not written it, nor safetensors"),
    "a list": (saved([1, 2]), "a mapping from parameter names to tensors was expected, not list"),
    "an empty state dict": (saved({}), "not an empty one"),
    "no weights": (saved({"epoch": 1, "net": {}}), "a mapping of epoch, net, without tensors by name"),
    "a tensor": (saved(torch.zeros(3)), "was expected, not Tensor"),
    "an object": (saved(ARGS), "an object of argparse.Namespace"),
    "NumPy arrays as weights": (
        saved(lambda: {k: v.numpy() for k, v in S.items()}),
        "conv1.weight is a NumPy array; save tensors",
    ),
    "quantised": (saved(quantised), NOT_USED + r"quantised \(torch.qint8\)"),
    "on the meta device": (with_conv(lambda w: w.to("meta")), NOT_USED + "on the meta device"),
    "sparse": (with_conv(lambda w: w.to_sparse()), NOT_USED + r"sparse \(torch.sparse_coo\)"),
    "complex": (with_conv(lambda w: w.to(torch.complex64)), NOT_USED + "torch.complex64"),
    "int8": (with_conv(lambda w: w.to(torch.int8)), NOT_USED + "torch.int8, where floating point is expected"),
    "bool": (with_conv(lambda w: w > 0), NOT_USED + "torch.bool"),
    "int64": (with_conv(lambda w: w.long()), NOT_USED + "torch.int64"),
    "float8": (with_conv(lambda w: w.to(torch.float8_e4m3fn)), NOT_USED + "torch.float8_e4m3fn"),
    "a counter that is bool": (
        saved({**S, "bn1.num_batches_tracked": torch.tensor(True)}),
        "bn1.num_batches_tracked is torch.bool, where whole numbers are expected",
    ),
    "a number for a weight": (saved({**S, "bn1.weight": 1.0}), r"bn1.weight is no tensor \(float\)"),
    "a tensor of another library": (foreign_tensor, NOT_USED + r"no tensor \(torchao.quantization.Int8Tensor\)"),
    "two models that fit": (
        saved({**under("left."), **under("right.", E)}),
        r"several weights that fit, left, right; choose by \?key=left",
    ),
}
for form in ({}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}):
    for what, call in {
        "open": (open, "trace", "w"),
        "os.system": (os.system, "touch trace"),
        "eval": (eval, "open('trace', 'w')"),
        "subprocess": (__import__("subprocess").run, ["touch", "trace"]),
    }.items():
        name = f"{what} beside the weights {'' if not form else next(iter(form))}"
        REFUSED[name] = (saved({"state_dict": S, "x": Run(*call)}, **form), "more than tensors .*never runs code")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REFUSED)
def test_a_file_without_weights_to_use(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write, reason = REFUSED[name]
    write(tmp_path / "own.pth")
    with pytest.raises(UserError, match=reason) as error:
        load_backbone("tiny", str(tmp_path / "own.pth"))
    assert str(error.value).startswith(f"checkpoint '{tmp_path / 'own.pth'}' ")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "trace").exists()


CALLED = []


class Recorder:
    """Tells when it is made, and when it is given its state."""

    def __new__(cls):
        CALLED.append("made")
        return super().__new__(cls)

    def __init__(self):
        self.attribute = 1

    def __setstate__(self, state):
        CALLED.append("state")


@pytest.mark.parametrize("form", [{}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}])
def test_what_lies_beside_the_weights_is_never_called(form, tmp_path):
    """A function of a library, which is no reason to refuse the weights: it is not looked up, let alone called."""
    with library("innocent", Recorder=Recorder) as made:
        torch.save({"state_dict": S, "x": made.Recorder()}, tmp_path / "own.pth", **form)
        for _ in range(2):
            called = len(CALLED)
            load_backbone("tiny", str(tmp_path / "own.pth"))
            assert len(CALLED) == called
            torch.load(tmp_path / "own.pth", weights_only=False)
            assert len(CALLED) > called  # what it does where it is looked up


@pytest.mark.parametrize("form", [{}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}])
def test_no_byte_of_a_checkpoint_makes_anything_but_a_line(form, tmp_path):
    """Of the pickle, whose bytes say what is called; those of the tensors are theirs."""
    path = tmp_path / "own.pth"
    torch.save({"state_dict": S, "args": ARGS, "best": np.float64(1)}, path, **form)
    whole = path.read_bytes()
    chosen = random.Random(1)
    for _ in range(60):
        changed = bytearray(whole)
        changed[chosen.randrange(min(len(whole), 1500))] = chosen.randrange(256)
        path.write_bytes(changed)
        with contextlib.suppress(UserError, NotApplicable):
            load_backbone("tiny", str(path))


# --- how checkpoints are named ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_name_of_any_kind(name, tmp_path):
    path = tmp_path / NAMES[name]
    torch.save(S, tmp_path / "plain.pth")
    (tmp_path / "plain.pth").rename(path)
    check_weights(str(path))
    info = load_backbone("tiny", str(path)).weights
    assert (info.sha256, info.taken) == (hash_tensors(stages_with(S).items()), None)


def test_a_tilde_stands_for_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    torch.save({"state_dict_ema": S}, tmp_path / "own.pth")
    cell = Cell(backbone="tiny", weights="~/own.pth?key=state_dict_ema")
    check_weights(cell.weights)
    assert load_weights(cell).weights.taken == "state_dict_ema"
    assert same_place(cell.weights, f"{tmp_path}/own.pth?key=state_dict_ema")


def test_a_home_that_is_not_set(tmp_path, monkeypatch):
    from tlbench.backbones.weights import cached_or_downloaded
    from tlbench.errors import Unavailable

    monkeypatch.delenv("HOME")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as where the user is not listed either
    torch.save(S, tmp_path / "own.pth")
    check_weights(str(tmp_path / "own.pth"))
    with pytest.raises(Unavailable, match=r"put missing.pth into"):
        cached_or_downloaded((tmp_path / "missing.pth").as_uri())


def test_a_link_is_followed_and_a_broken_one_named(tmp_path):
    torch.save(S, tmp_path / "own.pth")
    (tmp_path / "link").symlink_to("own.pth")
    (tmp_path / "broken.pth").symlink_to("gone.pth")
    load_backbone("tiny", str(tmp_path / "link"))
    assert same_place(str(tmp_path / "link"), str(tmp_path / "own.pth"))
    assert same_place(f"{tmp_path}/link?key=ema", f"{tmp_path}/own.pth?key=ema")
    assert not same_place(f"{tmp_path}/link?key=ema", f"{tmp_path}/own.pth")
    with pytest.raises(UserError, match=r"broken.pth' is a link to 'gone.pth', which is not there"):
        check_weights(str(tmp_path / "broken.pth"))


def test_a_colon_in_a_path_is_no_kind_of_data_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "exp:1"
    folder.mkdir()
    torch.save(S, folder / "own.pth")
    assert same_place("./exp:1/own.pth", str(folder / "own.pth"))
    assert place_of("./exp:1/../own.pth") == "own.pth"
    assert place_of("folder:./photos") == "folder:photos"


@pytest.mark.parametrize(
    ("spec", "path", "key"),
    [
        ("a.pth", "a.pth", None),
        ("a.pth?key=ema", "a.pth", "ema"),
        ("runs/1/a?key=state_dict.module.encoder_q", "runs/1/a", "state_dict.module.encoder_q"),
        ("a?b.pth?key=x", "a?b.pth", "x"),
        ("a.pth?key=", "a.pth?key=", None),
        ("a.pth?ema", "a.pth?ema", None),
        ("?key=x", "?key=x", None),
    ],
)
def test_the_two_parts_of_a_name(spec, path, key):
    found = parse_checkpoint(spec)
    assert (found.path, found.key) == (path, key)


def fifo(folder):
    os.mkfifo(folder / "pipe.pth")
    return folder / "pipe.pth"


NO_FILES = {
    "a word": (lambda folder: "pretrainde", "unknown weights 'pretrainde'; did you mean 'pretrained'"),
    "a file": (lambda folder: folder / "gone.ckpt", "gone.ckpt' does not exist; give a file that"),
    "a file without ending": (lambda folder: folder / "gone", "gone' does not exist; give a file that"),
    "a key of nothing": (lambda folder: "gone?key=ema", r"gone\?key=ema' does not exist"),
    "a folder": (lambda folder: folder, "is a folder; give the file in it that holds the weights, such as 'own.pth'"),
    "a pipe": (fifo, "is no regular file"),
    "an address": (lambda folder: "https://a.b/c.pth", "is an address; download the file"),
    "too long a name": (lambda folder: folder / ("x" * 300 + ".pth"), "cannot be opened|does not exist"),
    "a NUL": (lambda folder: f"{folder}/a\0.pth", "cannot be opened|does not exist"),
}


@pytest.mark.parametrize("name", NO_FILES)
def test_what_is_no_file(name, tmp_path):
    torch.save(S, tmp_path / "own.pth")
    given, reason = NO_FILES[name]
    with pytest.raises(UserError, match=reason) as error:
        check_weights(str(given(tmp_path)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "key", "reason"),
    [
        (
            {"state_dict": S, "state_dict_ema": E},
            "emma",
            "no weights called 'emma'; it has: state_dict; state_dict_ema",
        ),
        ({"state_dict": {**under("a."), **under("b.", E)}}, "c", "no weights called 'c'; it has: state_dict"),
        (under("model."), "ema", "it has: names beginning with model"),
    ],
)
def test_a_key_that_chooses_nothing(content, key, reason, tmp_path):
    torch.save(content, tmp_path / "own.pth")
    with pytest.raises(UserError, match=reason):
        load_backbone("tiny", f"{tmp_path}/own.pth?key={key}")


def test_a_key_of_weights_that_do_not_fit(tmp_path):
    torch.save({"generator": S, "discriminator": {"d.weight": torch.zeros(3)}}, tmp_path / "gan.pth")
    with pytest.raises(NotApplicable, match=r"gan.pth' \(its discriminator\) does not fit tiny: \d+ missing"):
        load_backbone("tiny", f"{tmp_path}/gan.pth?key=discriminator")


def test_a_mapping_that_holds_itself(tmp_path):
    content = {"state_dict": S}
    content |= {f"again{n}": content for n in range(200)}
    torch.save(content, tmp_path / "own.pth")
    assert load_backbone("tiny", str(tmp_path / "own.pth")).weights.taken == "state_dict"


def test_names_out_of_a_file_are_shown_in_one_line(tmp_path):
    torch.save({**S, "\x1b[31mlayer9\n.weight": torch.zeros(1), "y" * 5000: torch.zeros(1)}, tmp_path / "own.pth")
    with pytest.raises(NotApplicable) as error:
        load_backbone("tiny", str(tmp_path / "own.pth"))
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 1000


# --- grids ------------------------------------------------------------------------------------------------------


def grid(tmp_path, weights, backbones=("tiny", "wide")):
    return Grid.of(Cell(backbone="tiny", dataset="synthetic", image_size=8)).with_axes(
        {"backbone": backbones, "weights": tuple(weights)}
    )


def test_a_pair_that_does_not_fit_is_not_applicable(tmp_path):
    torch.save({"state_dict": S, "state_dict_ema": E}, tmp_path / "t.pth")
    spec, said = str(tmp_path / "t.pth"), []
    check(grid(tmp_path, ["random", spec]), Settings(), said.append)
    assert any("state_dict_ema would fit as well" in line for line in said)
    assert any(re.search(r"not applicable.*t.pth' .*does not fit wide: .*wrongly shaped", line) for line in said)
    cell = Cell(
        backbone="wide", weights=spec, dataset="synthetic", image_size=8, train_size=20, epochs=1, batch_size=10
    )
    record = run_cell(cell, Settings())
    assert record.status == "not_applicable"
    assert "does not fit wide" in record.reason
    record = run_cell(replace(cell, backbone="tiny"), Settings())
    assert (record.status, record.weights["taken"], record.weights["averaged"]) == ("ok", "state_dict", False)
    record = run_cell(replace(cell, backbone="tiny", weights=f"{spec}?key=state_dict_ema"), Settings())
    assert (record.weights["taken"], record.weights["averaged"]) == ("state_dict_ema", True)
    assert type(record).from_dict(record.to_dict()).weights["taken"] == "state_dict_ema"


def test_a_checkpoint_of_no_backbone_of_the_grid_stops_it_in_one_line(tmp_path):
    torch.save({"other.weight": torch.zeros(3)}, tmp_path / "t.pth")
    with pytest.raises(UserError, match=r"does not fit tiny: .*; nor does it fit wide; give weights of") as error:
        check(grid(tmp_path, ["random", str(tmp_path / "t.pth")]), Settings())
    assert "\n" not in str(error.value)


def test_what_was_taken_is_said_once_for_all_backbones(tmp_path):
    torch.save(under("model.", {**bare(), "fc.weight": torch.zeros(3, 4)}), tmp_path / "t.pth")
    lines = about_checkpoint(str(tmp_path / "t.pth"), ("tiny", "tiny"))
    assert len(lines) == 1
    assert "t.pth' leaves out its own head (fc.weight (3, 4))" in lines[0]


def test_a_comma_that_was_not_written_as_one(tmp_path):
    torch.save(S, tmp_path / "lr=0,1.pth")
    with pytest.raises(UserError, match=r"lr=0,1.pth' are one file, whose comma is written as \\,: '.*lr=0\\,1.pth'"):
        check(grid(tmp_path, [f"{tmp_path}/lr=0", "1.pth"]), Settings())


def test_ids_tell_keys_apart(tmp_path):
    one = grid(tmp_path, [f"{tmp_path}/a.pth", f"{tmp_path}/a.pth?key=ema.b"], ("tiny",))
    ids = {one.id_of(cell) for cell in one.expand()}
    assert len(ids) == 2


def test_a_checkpoint_that_has_moved_keeps_its_key():
    cell = Cell(backbone="tiny", weights="old.pth?key=ema")
    assert moved_to(cell, {"weights": "new.pth"}).weights == "new.pth?key=ema"
    assert moved_to(cell, {"weights": "new.pth?key=state_dict"}).weights == "new.pth?key=state_dict"
    assert moved_to(cell, {"weights": "random"}).weights == "random"


def test_a_file_that_was_replaced_in_the_same_moment_is_read_again(tmp_path):
    path = tmp_path / "own.pth"
    torch.save(S, path)
    cell = Cell(backbone="tiny", weights=str(path))
    first, told = load_weights(cell).weights, path.stat()
    torch.save(E, tmp_path / "new.pth")
    os.utime(tmp_path / "new.pth", ns=(told.st_atime_ns, told.st_mtime_ns))
    os.replace(tmp_path / "new.pth", path)
    assert load_weights(cell).weights.sha256 != first.sha256


def test_there_are_as_many_as_were_asked_for():
    assert len(ACCEPTED) + len(NAMES) >= 60
    assert len(REFUSED) >= 20
