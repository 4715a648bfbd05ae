"""Bad input gives one clear line (the value, the choices, the next step) and exit status 2, before any training."""

import os
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import save_image

from tlbench import run as run_module


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
    root.mkdir(parents=True)
    (root / "file").write_text("")
    return f"--out={root / 'file' / 'run'}"


def read_only(root):
    # A folder below a file is unwritable for everyone, root included.
    return occupied(root)


CASES = {
    "backbone": ("--backbone=resnet81", ["'resnet81'", "did you mean 'resnet18'"]),
    "policy": ("--freeze=linear-probe", ["'linear-probe'", "did you mean 'linear_probe'", "full"]),
    "head": ("--head=mpl", ["'mpl'", "did you mean 'mlp'", "linear"]),
    "dataset": ("--dataset=digit", ["'digit'", "did you mean 'digits'", "folder"]),
    "device": ("--device=gpu", ["'gpu'", "cpu", "cuda"]),
    "task": ("--task=training", ["'training'", "did you mean 'train'"]),
    "axis value twice": ("--backbone=resnet18,resnet18", ["'backbone'", "'resnet18'", "twice"]),
    "epochs": ("--epochs=many", ["'many'", "whole number"]),
    "seed": ("--seeds=-1", ["'-1'", "whole number"]),
    "grid key": (grid("backbones = 'resnet18'"), ["'backbones'", "did you mean 'backbone'"]),
    "grid type": (grid("epochs = 'x'"), ["g.toml", "'x'", "whole number"]),
    "grid syntax": (grid("epochs = ["), ["g.toml", "not TOML"]),
    "missing grid": ("--grid=none.toml", ["'none.toml'", "does not exist"]),
    "folder without path": ("--dataset=folder:", ["folder:PATH"]),
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
    "missing checkpoint": ("--weights=none.pth", ["none.pth"]),
    "checkpoint that does not fit": (checkpoint, ["w.pth", "conv1.weight"]),
    "results folder": (occupied, ["cannot write to results folder", "--out"]),
}
if not torch.cuda.is_available():
    CASES["no GPU"] = ("--device=cuda", ["'cuda'", "no CUDA GPU", "cpu"])


@pytest.fixture(autouse=True)
def nothing_expensive(monkeypatch):
    def train(*_):
        raise AssertionError("training started")

    monkeypatch.setattr(run_module, "run_cell", train)


@pytest.mark.parametrize("case", CASES)
def test_run(case, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make, words = CASES[case]
    option = make(tmp_path / "input") if callable(make) else make
    status, out, err = command("run", "--backbone=resnet18", "--image-size=32", option)
    assert status == 2, err
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    assert "Traceback" not in err
    for word in words:
        assert word.lower() in err.lower(), err
    assert not out
    assert not list(tmp_path.glob("results/*/*"))


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
    status, _, err = command(*args)
    assert status == 2
    assert len(err.strip().splitlines()) == 1
    for word in words:
        assert word in err


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("--tl-backbone=resnet81", ["did you mean 'resnet18'"]),
        ("--tl-dataset=folder:none-such", ["does not exist"]),
        ("--tl-out=file/run", ["cannot write to results folder"]),
    ],
)
def test_the_pytest_plugin(case, words, tmp_path):
    (tmp_path / "file").write_text("")
    shutil.copy(os.path.join(os.path.dirname(__file__), "../bench/test_train.py"), tmp_path / "test_train.py")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "test_train.py", "--benchmark-only", "-o", "python_functions=trai[n]", case],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    for word in words:
        assert word in done.stdout + done.stderr
