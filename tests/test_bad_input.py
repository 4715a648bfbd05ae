"""Bad input gives one clear line (the value, the choices, the next step) and exit status 2, before any training."""

import contextlib
import io
import sys
from unittest import mock

import pytest
import torch
from conftest import save_image
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from randomise import no_initialisation
from records import record

from tlbench import cli
from tlbench.campaign import check
from tlbench.campaign import check as check_module
from tlbench.campaign import isolate as worker_module
from tlbench.grid.axes import AXES
from tlbench.grid.grid import Grid
from tlbench.grid.settings import SETTINGS, Settings
from tlbench.measure import cell as run_module
from tlbench.records.plan import RUN, Plan
from tlbench.records.run_folder import RECORDS, Store


def folder(root, **splits):
    """A folder made of ``split/class`` -> count of images."""
    for name, count in splits.items():
        path = root / name.replace("__", "/")
        path.mkdir(parents=True, exist_ok=True)
        for n in range(count):
            save_image(path / f"{n}.jpg", seed=n)
    return root


def broken(root):
    folder(root, train__a=4, train__b=4, val__a=2, val__b=2)
    whole = (root / "train/a/0.jpg").read_bytes()
    (root / "train/a/0.jpg").write_bytes(whole[: len(whole) // 2])
    return f"--dataset=folder:{root}"


def checkpoint(root):
    root.mkdir(parents=True)
    torch.save({"conv1.weight": torch.zeros(1)}, root / "w.pth")
    return f"--weights={root / 'w.pth'}"


def grid(text):
    def write(root):
        root.mkdir(parents=True)
        (root / "g.toml").write_text(text)
        return f"--grid={root / 'g.toml'}"

    return write


def occupied(root):
    """A folder below a file is unwritable for everyone, root included."""
    root.mkdir(parents=True)
    (root / "file").write_text("")
    return f"--out={root / 'file' / 'run'}"


def text_as(name):
    def write(root):
        root.mkdir(parents=True)
        (root / name).write_text("no weights")
        return f"--weights={root / name}"

    return write


def plugin(text):
    def write(root):
        root.mkdir(parents=True)
        (root / "mine.py").write_text(text)
        return f"--plugin={root / 'mine.py'}"

    return write


def begun(root):
    """A run of one cell, with a record."""
    store = Store(root)
    store.describe(Plan(grids=(Grid(),), settings=Settings()))
    store.append(record())
    return root


def taken(root):
    return f"--out={begun(root)}"


def resumed(change=lambda root: None, *more):
    def go_on(root):
        change(begun(root))
        return [f"--resume={root}", *more]

    return go_on


def bytes_as(name, content):
    def write(root):
        root.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
        return f"--grid={root / name}"

    return write


def text_images(root):
    folder(root, train__a=4, train__b=4, val__a=2, val__b=2)
    (root / "train/a/0.jpg").write_text("a text, whatever its name")
    return f"--dataset=folder:{root}"


CASES = {
    # --- names
    "backbone": ("--backbone=resnet81", ["'resnet81'", "did you mean 'resnet18'"]),
    "backbone of timm": ("--backbone=timm:resnet81", ["timm", "'resnet81'", "did you mean"]),
    "tag of weights": ("--backbone=resnet18@V9", ["'V9'", "IMAGENET1K_V1"]),
    "no backbone": ("--backbone=", ["axis 'backbone'", "''", "a name"]),
    "blank among backbones": ("--backbone=resnet18,,vgg16", ["axis 'backbone'", "''"]),
    "policy": ("--freeze=linear-probe", ["'linear-probe'", "did you mean 'linear_probe'", "full"]),
    "argument of a policy": ("--freeze=lora(r=0)", ["'lora(r=0)'", "r is '0'", "from 1"]),
    "unknown argument": ("--freeze=lora(rank=4)", ["'rank'", "r"]),
    "argument twice": ("--freeze=lora(r=4,r=8)", ["r is given twice"]),
    "too many arguments": ("--freeze=layer_decay(0.5,1,2)", ["3 arguments are too many"]),
    "open parenthesis": ("--freeze=lora(r=4", ["'lora(r=4'"]),
    "option of a policy": ("--freeze=full+bn=maybe", ["'bn=maybe'", "+bn=freeze or +bn=adapt"]),
    "head": ("--head=mpl", ["'mpl'", "did you mean 'mlp'", "linear"]),
    "markup": ("--head=[red]mlp[/red]", ["'[red]mlp[/red]'"]),
    "a name of two lines": ("--head=mlp\nlinear", [r"'mlp\nlinear'"]),
    "a name that colours the terminal": ("--head=\x1b[31mmlp", [r"'\x1b[31mmlp'"]),
    "an endless name": ("--head=" + "x" * 5000, ["unknown head"]),
    "dataset": ("--dataset=digit", ["'digit'", "did you mean 'digits'", "folder"]),
    "folder without its prefix": (
        lambda root: f"--dataset={folder(root, a=1)}",
        ["is a folder", "did you mean 'folder:"],
    ),
    "train size of digits": (["--dataset=digits", "--train-size=100,9"], ["train size 9 is less", "10 classes"]),
    "data set of torchvision": ("--dataset=torchvision:CIFAR11", ["'CIFAR11'", "did you mean 'CIFAR10'"]),
    "data set without its kind": ("--dataset=cifar10", ["'cifar10'", "did you mean 'torchvision:CIFAR10'"]),
    "as timm writes it": ("--dataset=torch/cifar11", ["'cifar11'", "did you mean 'CIFAR10'"]),
    "data set of no classes": ("--dataset=torchvision:CelebA", ["'torchvision:CelebA'", "40 attributes"]),
    "argument of a data set": ("--dataset=torchvision:DTD(part=2)", ["'part'", "did you mean 'partition'", "1 to 10"]),
    "value of its argument": ("--dataset=torchvision:DTD(partition=11)", ["partition is '11'", "1 to 10"]),
    "argument it needs": ("--dataset=torchvision:EMNIST", ["needs split", "byclass, bymerge, balanced"]),
    "data set that is not here": ("--dataset=torchvision:EuroSAT", ["'eurosat/2750' is missing", "--download"]),
    "data root": (["--dataset=torchvision:EuroSAT", "--data-root=none-such"], ["--data-root 'none-such'", "exist"]),
    "data root of no name": ("--data-root=", ["--data-root", "a name"]),
    "download of what has none": (["--dataset=digits", "--download"], ["--download", "nothing of digits"]),
    "name on the hub": ("--dataset=hf:a/b/c", ["'a/b/c' does not exist", "OWNER/NAME"]),
    "nothing of the hub": ("--dataset=hf:", ["names no data set", "hf:OWNER/NAME"]),
    "argument of hf": ("--dataset=hf:owner/name(labels=y)", ["'labels'", "did you mean 'label'"]),
    "path of what has none": ("--dataset=digits:photos", ["'digits:photos'", "'folder:photos'"]),
    "device": ("--device=gpu", ["'gpu'", "cpu", "cuda"]),
    "second cpu": ("--device=cpu:1", ["'cpu:1'"]),
    "task": ("--task=training", ["'training'", "did you mean 'train'"]),
    "precision": ("--precision=fp8", ["'fp8'", "fp16"]),
    "layout": ("--layout=nchw", ["'nchw'", "contiguous", "channels_last"]),
    "compile": ("--compile=yes", ["'yes'", "off", "on"]),
    "fused": ("--fused=maybe", ["'maybe'", "auto"]),
    "optimizer": ("--optimizer=adamv", ["'adamv'", "did you mean 'adamw'"]),
    "schedule": ("--schedule=linear", ["'linear'", "cosine", "constant"]),
    "augmentation": ("--augment=flips", ["'flips'", "did you mean 'flip'"]),
    "axis value twice": ("--backbone=resnet18,resnet18", ["'backbone'", "'resnet18'", "twice"]),
    # --- numbers
    "epochs": ("--epochs=many", ["'many'", "whole number"]),
    "no epochs": ("--epochs=0", ["'0'", "from 1"]),
    "half an epoch": ("--epochs=1.5", ["'1.5'", "whole number"]),
    "epochs without end": ("--epochs=99999999999", ["'99999999999'"]),
    "a number of endless digits": ("--epochs=" + "9" * 5000, ["whole number"]),
    "the same number twice": ("--epochs=1,01", ["'epochs'", "twice"]),
    "seed": ("--seeds=-1", ["'-1'", "whole number"]),
    "batch size": ("--batch-size=0", ["'0'", "at least 1"]),
    "image size": ("--image-size=7", ["'7'", "from 8"]),
    "train size": ("--train-size=1", ["'1'", "at least 2"]),
    "learning rate": ("--lr=fast", ["'fast'", "or auto"]),
    "negative learning rate": ("--lr=-1", ["'-1'", "above 0"]),
    "learning rate that is no number": ("--lr=nan", ["'nan'"]),
    "endless learning rate": ("--backbone-lr=inf", ["'inf'"]),
    "weight decay": ("--weight-decay=101", ["'101'", "to 100"]),
    "warmup": ("--warmup=2", ["'2'", "from 0 to 1"]),
    "no patience": ("--patience=0", ["'0'", "from 1", "or off"]),
    "patience": ("--patience=none", ["'none'", "or off"]),
    "label smoothing": ("--label-smoothing=x", ["'x'", "from 0 to 1"]),
    "class weights": ("--class-weights=balance", ["'balance'", "balanced", "none"]),
    "sampler": ("--sampler=random", ["'random'", "shuffle", "balanced"]),
    "no train size": ("--train-size=50,alll", ["'alll'", "or all"]),
    "all twice": ("--train-size=all,ALL", ["'all' twice"]),
    "momentum": ("--bn-momentum=2", ["'2'", "or auto or keep"]),
    # --- settings
    "threads": ("--threads=0", ["--threads", "'0'", "from 1"]),
    "blocks": ("--blocks=x", ["--blocks", "'x'"]),
    "noisy cells": ("--retry-noisy=-1", ["--retry-noisy", "'-1'"]),
    "views": ("--views=1.0", ["--views", "'1.0'"]),
    "switch": ("--deterministic=yes", ["--deterministic", "'yes'", "on or off"]),
    "detail": ("--detail=1", ["--detail", "on or off"]),
    "bad images": ("--bad-images=ignore", ["'ignore'", "fail, skip"]),
    "allocator": ("--allocator=keeep", ["'keeep'", "did you mean 'keep'"]),
    "prefix": ("--prefix=maybe", ["'maybe'", "auto, on, off"]),
    "memory for the prefix": ("--prefix-ram=lots", ["--prefix-ram", "'lots'", "50MB"]),
    "disk for the prefix": ("--prefix-disk=-1GB", ["--prefix-disk", "'-1GB'"]),
    "isolation": ("--isolate=cells", ["'cells'", "did you mean 'cell'", "backbone"]),
    "timeout": ("--cell-timeout=soon", ["--cell-timeout", "'soon'", "whole number"]),
    "timeout without a process": (["--cell-timeout=9", "--isolate=none"], ["--cell-timeout needs --isolate"]),
    "limit without a process": (["--memory-limit=9GB", "--isolate=none"], ["--memory-limit needs --isolate"]),
    "memory limit": ("--memory-limit=4XB", ["--memory-limit", "'4XB'", "2GB"]),
    "failures": ("--max-failures=0", ["--max-failures", "'0'", "at least 1"]),
    "metric": ("--metric=balanced", ["'balanced'", "balanced_accuracy", "macro_f1"]),
    "logits": ("--logits=some", ["--logits", "'some'", "on or off"]),
    # --- grid files
    "grid key": (grid("backbones = 'resnet18'"), ["'backbones'", "did you mean 'backbone'"]),
    "grid type": (grid("epochs = 'x'"), ["g.toml", "'x'", "whole number"]),
    "grid table": (grid("[epochs]\nx = 1"), ["g.toml", "epochs"]),
    "grid switch": (grid("epochs = true"), ["g.toml", "True", "whole number"]),
    "grid date": (grid("backbone = 2026-01-01"), ["g.toml", "a name"]),
    "grid without values": (grid("backbone = []"), ["g.toml", "no value"]),
    "grid value twice": (grid("seeds = [1, 1]"), ["g.toml", "twice"]),
    "grid key twice": (grid("epochs = 1\nepochs = 2"), ["g.toml", "not TOML"]),
    "grid syntax": (grid("epochs = ["), ["g.toml", "not TOML"]),
    "deep grid": (grid("epochs = " + "[" * 50_000), ["g.toml", "not TOML"]),
    "binary grid": (bytes_as("g.toml", b"\xff\xfe\x00"), ["g.toml", "not TOML"]),
    "missing grid": ("--grid=none.toml", ["'none.toml'", "does not exist"]),
    "folder as grid": ("--grid=.", ["'.'", "cannot be read"]),
    # --- images
    "folder without path": ("--dataset=folder:", ["folder:PATH"]),
    "comma of a folder": (
        lambda root: f"--dataset=folder:{folder(root / 'a,b', x=3, y=3)}",
        ["a,b' is one folder", "whose comma is written as"],
    ),
    "archive as folder": (
        lambda root: f"--dataset=folder:{save_image(root / 'x.png').rename(root / 'x.zip')}",
        ["unpack"],
    ),
    "missing folder": ("--dataset=folder:none-such", ["none-such", "does not exist"]),
    "empty folder": (lambda root: f"--dataset=folder:{folder(root, x=0).joinpath('x')}", ["class"]),
    "single class": (
        lambda root: f"--dataset=folder:{folder(root, train__a=3, val__a=2)}",
        ["only one class", "'a'"],
    ),
    "class without images": (
        lambda root: f"--dataset=folder:{folder(root, train__a=3, train__b=0, val__a=2, val__b=2)}",
        ["'train/b'", "no image"],
    ),
    "broken JPEG": (broken, ["0.jpg", "train"]),
    "text as JPEG": (text_images, ["0.jpg", "train"]),
    "file as folder": (lambda root: f"--dataset=folder:{save_image(root / 'x.jpg')}", ["x.jpg"]),
    # --- checkpoints
    "missing checkpoint": ("--weights=none.pth", ["none.pth"]),
    "weights": ("--weights=pretrain", ["'pretrain'", "did you mean 'pretrained'"]),
    "folder as checkpoint": ("--weights=.", ["'.'"]),
    "checkpoint of another kind": (text_as("w.txt"), ["w.txt", "safetensors"]),
    "text as checkpoint": (text_as("w.pth"), ["w.pth", "cannot be read"]),
    "text as safetensors": (text_as("w.safetensors"), ["w.safetensors", "cannot be read"]),
    "checkpoint that does not fit": (checkpoint, ["w.pth", "conv1.weight"]),
    # --- runs
    "results folder": (occupied, ["cannot write to results folder", "--out"]),
    "a run that is there": (taken, ["already holds a run", "--resume"]),
    "no run to go on with": ("--resume=none-such", ["'none-such'", "no such folder"]),
    "a run without a name": ("--resume=", ["''"]),
    "a run elsewhere by its name": ("--resume=../x", ["'../x'"]),
    "no plan": (resumed(lambda root: (root / RUN).unlink()), ["no run.json"]),
    "damaged plan": (resumed(lambda root: (root / RUN).write_text("{}")), ["run.json", "damaged"]),
    "records as a run": (lambda root: f"--resume={begun(root) / RECORDS}", ["records.jsonl"]),
    "changed setting": (resumed(lambda root: None, "--blocks=5"), ["blocks was 1, now it is 5"]),
    "added cells that cannot be": (resumed(lambda root: None, "--head=mpl"), ["did you mean 'mlp'"]),
    "two folders": (resumed(lambda root: None, "--out=other"), ["--resume", "--out"]),
    "again without a run": ("--rerun=noisy", ["--rerun", "--resume RUN"]),
    "again what": (resumed(lambda root: None, "--rerun=nosiy"), ["'nosiy'", "did you mean 'noisy'"]),
    "missing plugin": ("--plugin=none.py", ["'none.py'", "FileNotFoundError"]),
    "plugin that fails": (plugin("import no_such_module"), ["mine.py", "ModuleNotFoundError", "no_such_module"]),
    "plugin that exits": (plugin("raise SystemExit(0)"), ["mine.py", "SystemExit"]),
}
if not torch.cuda.is_available():
    CASES["no GPU"] = ("--device=cuda", ["'cuda'", "no CUDA GPU", "cpu"])


def test_the_table_is_long_enough():
    assert len(CASES) >= 135 + (not torch.cuda.is_available())


@pytest.fixture(autouse=True)
def nothing_expensive(monkeypatch):
    def train(*_, **__):
        raise AssertionError("training started")

    monkeypatch.setattr(run_module, "run_cell", train)
    monkeypatch.setattr(worker_module, "Worker", train)
    monkeypatch.setattr(check_module, "start_ahead", lambda *_: None)  # it imports, and measures nothing


def files(root):
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file() and path.suffix != ".pyc"}


@pytest.mark.parametrize("case", CASES)
def test_run(case, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made, words = CASES[case]
    made = made(tmp_path / "input") if callable(made) else made
    own = [made] if isinstance(made, str) else made
    before = files(tmp_path)
    status, out, err = command("run", *([] if "--resume" in own[0] else BASIS), *own)
    assert status == 2, err
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("tlbench: ")
    assert lines[0].isprintable()
    for word in words:
        assert word.lower() in err.lower(), err
    assert not out
    assert files(tmp_path) == before, "something was written or lost"
    assert not list(tmp_path.glob("results/*"))


BASIS = ["--backbone=resnet18", "--image-size=32"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["show", "resnet81"], ["'resnet81'", "resnet18"]),
        (["show", "resnet18", "--freeze", "norms"], ["'norms'", "'norm'"]),
        (["show", "resnet18", "--head", "x"], ["'x'", "linear"]),
        (["show", "vgg16", "--freeze", "norm"], ["norm", "no normalisation layer"]),
        (["show", "vit_b_16", "--image-size", "64"], ["vit_b_16", "224"]),
        (["list", "backbone"], ["'backbone'", "'backbones'"]),
        (["list", "backbones", "zzz"], ["'zzz'"]),
        (["export", "none-such"], ["'none-such'"]),
        (["report", "none-such"], ["'none-such'"]),
        (["export", ".", "--format", "xlsx"], ["xlsx", "csv"]),
    ],
)
def test_other_commands(args, words, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with no_initialisation():
        status, _, err = command(*args)
    assert status == 2
    assert len(err.strip().splitlines()) == 1
    for word in words:
        assert word in err


MISUSE = {
    "an option": (["run", "--backbones=resnet18"], "tlbench run has no option --backbones; did you mean --backbone? "),
    "one like none": (["fits", "--zzzzzz"], "tlbench fits has no option --zzzzzz; tlbench fits --help lists them"),
    "one of the program": (["--versoin"], "tlbench has no option --versoin; did you mean --version? "),
    "one without its value": (["run", "--epochs"], "option '--epochs' requires an argument; tlbench run --help shows"),
    "a switch with a value": (["run", "--dry-run=1"], "option '--dry-run' does not take a value"),
    "a name for a folder": (["run", "resnet18"], "resnet18"),
    "a number": (["show", "resnet18", "--classes=0"], "invalid value for '--classes': "),
    "no number": (["screen", "--threads=x"], "invalid value for '--threads': "),
    "nothing": (["show"], "missing argument 'BACKBONE'; tlbench show --help shows how"),
    "no memory": (["fits", "resnet18"], "missing option '--memory'; tlbench fits --help shows how"),
    "a command": (["plna"], "unknown command 'plna'; did you mean 'plan'? Choose from: list, show, screen, plan, "),
    "another one": (["rum", "--epochs=1"], "unknown command 'rum'; did you mean 'run'? Choose from: list, show, "),
    "one like none of them": (["zzzzzz"], "unknown command 'zzzzzz'. Choose from: list, show, "),
    "one that colours the terminal": (["\x1b[31mrun"], r"unknown command '\x1b[31mrun'"),
}
"""Command lines that cannot be read -> what is said of them."""


@pytest.mark.parametrize("case", MISUSE)
def test_what_is_no_command_or_option(case, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    args, words = MISUSE[case]
    status, out, err = command(*args)
    assert status == 2
    assert words in err
    assert err.startswith("tlbench: ")
    assert len(err.splitlines()) == 1
    assert not out
    assert not list(tmp_path.iterdir())


# --- whatever is made up ----------------------------------------------------------------------------------------

WORDS = st.sampled_from(
    ["resnet18", "vgg16", "full", "linear_probe", "lora(r=2)", "mlp", "digits", "folder:", "cpu", "auto", "random",
     "train", "infer", "on", "off", "0", "1", "8", "0.5", "-1", "1e400", "nan", "4GB", "fp32", "none", "backbone"]
)  # fmt: skip
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12) | WORDS
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**70) | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=4,
)
KEYS = st.sampled_from([axis.option for axis in AXES.values()]) | TEXTS


def toml(value):
    """As TOML, near enough: what is wrong with it is also input."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{quoted(key)} = {toml(item)}" for key, item in value.items()) + "}"
    return quoted(value) if isinstance(value, str) else str(value)


def quoted(text):
    escaped = "".join(f"\\U{ord(c):08x}" if not c.isprintable() or c in '"\\' else c for c in text)
    return f'"{escaped}"'


def invoke(*args):
    """As the fixture `command`, which hypothesis cannot use. Loads no data and no weights."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["tlbench", *args]),
        mock.patch.object(check, "load_images"),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            cli.main()
        except SystemExit as done:
            return done.code or 0, out.getvalue(), err.getvalue()
    return 0, out.getvalue(), err.getvalue()


def is_clear(status, out, err):
    assert status in (0, 2), err
    assert "Traceback" not in err
    if status == 2 and err.startswith("tlbench: "):
        assert err.count("\n") == 1
        assert err.strip().isprintable()
        assert not out


MADE_UP = settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))


@pytest.mark.exhaustive
@MADE_UP
@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_a_grid_file_that_is_made_up(tmp_path_factory, table):
    path = tmp_path_factory.getbasetemp() / "made-up.toml"
    path.write_text("\n".join(f"{quoted(key)} = {toml(value)}" for key, value in table.items()), encoding="utf-8")
    is_clear(*invoke("run", "--dry-run", f"--grid={path}"))


@pytest.mark.exhaustive
@MADE_UP
@given(st.text(max_size=60) | st.binary(max_size=60))
def test_a_grid_file_that_is_anything(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "anything.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    is_clear(*invoke("run", "--dry-run", f"--grid={path}"))


@pytest.mark.exhaustive
@MADE_UP
@given(
    st.lists(
        st.tuples(
            st.sampled_from([*(axis.option for axis in AXES.values()), *SETTINGS, "rerun", "resume", "plugin"]),
            st.lists(TEXTS, min_size=1, max_size=3).map(",".join),
        ),
        max_size=4,
    )
)
def test_options_that_are_made_up(tmp_path_factory, given_options):
    with contextlib.chdir(tmp_path_factory.getbasetemp()):
        is_clear(*invoke("run", "--dry-run", *(f"--{name}={value}" for name, value in given_options)))


def test_a_folder_of_images_needs_no_option(command, tmp_path):
    for name in "ab":
        for number in range(4):
            save_image(tmp_path / "my, photos" / name / f"{number}.png", seed=number + 10 * (name == "b"))
    folder = tmp_path / "my, photos"
    plain = command("run", folder, "--freeze=linear_probe", "--dry-run")
    assert plain[0] == 0
    spelt = str(folder).replace(",", "\\,")
    assert plain == command("run", f"--dataset=folder:{spelt}", "--freeze=linear_probe", "--dry-run")
    status, _, err = command("run", folder, "--dataset=digits", "--dry-run")
    assert status == 2
    assert "the images are named twice" in err


def test_a_placeholder_for_a_stage_is_no_stage(command):
    status, out, err = command("run", "--dry-run", "--dataset=digits", "--backbone=resnet18", "--freeze=stage_NAME")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "stage_NAME" in err
    assert "write a value in the place of its capitals" in err
