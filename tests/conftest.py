"""Fixtures for all tests."""

import itertools
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from digits import few_digits
from hypothesis import settings
from PIL import Image
from tiers import is_long

from tlbench import cli

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # A shell starts what ends in `&` like this, and children inherit it; tests that press Ctrl-C would wait for ever.
    signal.signal(signal.SIGINT, signal.default_int_handler)


if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    # `nohup` starts what follows like this; tests that close a terminal would find that nothing has to be done.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Runs the whole suite with one worker a core, and what is named on the command line in this process.

    Each worker computes with one thread: two would wait for each other. `-n 0` runs everything here.
    """
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS and not config.option.collectonly
    a_worker = "PYTEST_XDIST_WORKER" in os.environ  # it would begin workers of its own, and these theirs
    if whole and not a_worker and getattr(config.option, "numprocesses", 0) is None:
        config.option.numprocesses, config.option.dist = "auto", "worksteal"
        os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_configure(config: pytest.Config) -> None:
    """Tries fewer examples of each property while somebody writes; the whole suite tries them all."""
    settings.register_profile("quick", max_examples=25)
    if config.option.markexpr == "not exhaustive":
        settings.load_profile("quick")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what is too long for every change; by name on the command line it runs all the same."""
    long = [item for item in items if is_long(item.nodeid, item.get_closest_marker("exhaustive") is not None)]
    for item in long:
        item.add_marker(pytest.mark.long)
    named = any("::" in argument for argument in config.args)
    if long and not named and "TLBENCH_LONG" not in os.environ:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in set(long)]


@pytest.fixture(scope="session")
def homes(tmp_path_factory):
    """New folders, one after the other. `mktemp` looks through all that there are, some thousand times."""
    root = tmp_path_factory.mktemp("homes")
    return (root / str(number) for number in itertools.count())


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path_factory, homes):
    """Weights come from an empty cache, never from this machine's; a download fails at once, everywhere alike."""
    home = next(homes)
    for name in ("TORCH_HOME", "HF_HOME"):
        (home / name).mkdir(parents=True)
        monkeypatch.setenv(name, str(home / name))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TLBENCH_CACHE", str(tmp_path_factory.getbasetemp() / "tlbench-cache"))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")


@pytest.fixture(autouse=True)
def no_worker(monkeypatch):
    """Sessions of pytest that a test begins measure; what they would inherit from a worker turns that off."""
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)


@pytest.fixture(scope="session", autouse=True)
def digits():
    """The first few hundred images of the data set ``digits`` stand for all, but in processes of their own."""
    with few_digits():
        yield


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs the command line in this process: ``command("run", …) -> (exit status, standard output, error)``."""

    def run(*args: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tlbench", *map(str, args)])
        status = 0
        try:
            cli.main()
        except SystemExit as done:
            status = done.code if isinstance(done.code, int) else 0 if done.code is None else 1
        out, err = capsys.readouterr()
        return status, out, err

    return run


def save_image(path: Path, color: int = 100, size: tuple[int, int] = (40, 32), seed: int = 0) -> Path:
    """A real JPEG (or whatever the name says) of noise around one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 60, (size[1], size[0], 3))
    Image.fromarray((noise + color).clip(0, 255).astype(np.uint8)).save(path)
    return path


@pytest.fixture
def photos(tmp_path):
    """A folder of two classes in train/ and val/, 8 and 4 images each, that a head can tell apart."""
    root = tmp_path / "photos"
    for split, count in (("train", 8), ("val", 4)):
        for label, color in (("dark", 20), ("light", 180)):
            for n in range(count):
                save_image(root / split / label / f"{n}.jpg", color, seed=n)
    return root
