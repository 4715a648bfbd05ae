"""What four commands print at 80 columns, to the last space. ``UPDATE_GOLDEN=1 pytest tests/test_terminal.py`` writes
the files in golden/ anew; typer, rich and torchinfo have a part in them.
"""

import sys
from dataclasses import replace
from importlib.metadata import version

import pytest
from goldens import GOLDEN, golden
from records import example_run, record

from tlbench.records.run_folder import Store


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch, tmp_path):
    """A plain terminal, whatever this one is like, in a folder where runs have short names."""
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("FORCE_COLOR", "NO_COLOR", "PY_COLORS", "CLICOLOR_FORCE", "TTY_COMPATIBLE", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(
        sys.modules["__main__"], "__package__", None, raising=False
    )  # `python -m pytest` is no part of it
    monkeypatch.chdir(tmp_path)


def times(made, factor):
    return replace(made, rounds=tuple(replace(one, seconds=factor * one.seconds) for one in made.rounds))


def run(name, slow=None):
    """An example run of two blocks with an A/A pair in each; one policy may take longer."""
    backbones, policies = ("mobilenet_v3_small", "resnet18"), ("linear_probe", "full")
    made = example_run(backbones=backbones, policies=policies, blocks=(0, 1))
    first = record(seconds=(0.5,) * 5, accuracies=(0.5,) * 5, freeze="full", image_size=64, seed=9)
    twins = [replace(times(first, factor), role="aa", block=b) for b in (0, 1) for factor in (1, 1.01)]
    store = Store(name)
    for one in (replace(each, started=name) for each in (*made, *twins)):  # else the runs shared what is equal
        store.append(times(one, 1.5) if one.cell.freeze == slow and one.role == "cell" else one)
    return name


def test_run_help(command):
    status, out, err = command("run", "--help")
    assert (status, err) == (0, "")
    if tuple(map(int, version("typer").split(".")[:2])) >= (0, 29):
        assert out == golden("run-help.txt", out)
    else:  # an older one sets paragraphs and arguments otherwise
        assert options(out) == options((GOLDEN / "run-help.txt").read_text(encoding="utf-8"))


def options(text):
    return text[text.index("─ Options ─") :]


def test_show(command):
    status, out, err = command("show", "resnet18", "--freeze", "last_1")
    assert (status, err) == (0, "")
    assert out == golden("show.txt", out)


def test_summary(command):
    status, out, err = command("summary", run("monday"))
    assert (status, err) == (0, "")
    assert out == golden("summary.txt", out)


def test_compare(command):
    gate = ("--fail-on", "epoch_seconds:10%", "--noise-floor", "5%")
    status, out, err = command("compare", run("monday"), run("friday", slow="full"), *gate)
    assert (status, err) == (1, "")
    assert out == golden("compare.txt", out)
