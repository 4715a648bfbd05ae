"""Engines as a person asks for them: one of one's own in a file; and what is wrong with what was asked, in a clear
line, before anything is measured.
"""

import builtins
import importlib
import re
import socket
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from bits import results

from tlbench.campaign import isolate as worker_module
from tlbench.engines import ENGINES, Row
from tlbench.errors import UserError
from tlbench.records.resuming import identity
from tlbench.records.run_folder import load

EXAMPLE = Path(__file__).parents[1] / "examples" / "own_engine.py"
TINY = ("--backbone=resnet18", "--weights=random", "--dataset=digits", "--image-size=32", "--train-size=40",
        "--epochs=1", "--batch-size=8", "--layout=contiguous", "--threads=1")  # fmt: skip


@pytest.fixture(autouse=True)
def engines():
    """Whatever a test adds to the table goes again."""
    before = dict(ENGINES)
    yield
    ENGINES.clear()
    ENGINES.update(before)
    sys.modules.pop("own_engine", None)


# --- one of one's own -------------------------------------------------------------------------------------------


def test_an_engine_of_ones_own_measures_the_same(command, tmp_path):
    grid = (*TINY, "--freeze=linear_probe,full", "--seeds=0,1")
    found = {}
    for name, more in {"here": (), "there": (f"--plugin={EXAMPLE}", "--engine=futures")}.items():
        status, out, err = command("run", *grid, "--twins=0", *more, "--out", tmp_path / name)
        assert status == 0, out + err
        found[name] = load(tmp_path / name).records
    here, there = ({identity(r): results(r) for r in records} for records in found.values())
    assert len(there) == len(found["there"]) == 4
    assert here == there
    assert {(r.engine, r.node) for r in found["there"]} == {("futures", "worker 1"), ("futures", "worker 2")}
    assert all(r.predictions_sha256 for r in found["there"])
    assert all(r.shares_node for r in found["there"])
    assert [(r.engine, r.node, r.shares_node) for r in found["here"]] == [("", "", False)] * 4


def test_an_engine_of_ones_own_is_an_engine_like_others(command, tmp_path, no_processes):
    """The table is asked once plugins are loaded; its options are checked by its row."""
    own = (f"--plugin={EXAMPLE}", *TINY, "--out", tmp_path / "run")
    status, _, err = command("run", *own, "--engine=future")
    assert (status, err.count("\n")) == (2, 1)
    assert "unknown engine 'future'; did you mean 'futures'?" in err
    status, _, err = command("run", *own, "--engine=futures", "--engine-option=worker=3")
    assert (status, err.count("\n")) == (2, 1)
    assert "unknown option of the engine futures 'worker'; did you mean 'workers'?" in err
    assert not (tmp_path / "run").exists()


def test_the_example_is_short():
    code = [line for line in EXAMPLE.read_text(encoding="utf-8").partition('"""\n')[2].splitlines() if line.strip()]
    assert len(code) <= 60


def test_help_names_every_engine(command):
    _, out, _ = command("run", "--help")
    words = " ".join(
        re.sub("[^a-z(): ,'-]", "", out.partition("--engine ")[2].partition("--engine-address")[0]).split()
    )
    for name in ENGINES:
        assert name in words
    assert "plugin" in words


# --- bad input --------------------------------------------------------------------------------------------------


@pytest.fixture
def no_processes(monkeypatch):
    def start(*_, **__):
        raise AssertionError("a process for cells was started")

    monkeypatch.setattr(worker_module, "Worker", start)


@pytest.fixture
def hidden(monkeypatch):
    """Hides modules, as if they were not installed."""

    def hide(*names):
        real = builtins.__import__

        def imported(name, *arguments, **words):
            if name.partition(".")[0] in names:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            return real(name, *arguments, **words)

        for name in [name for name in sys.modules if name.partition(".")[0] in names or "tlbench.engines." in name]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setattr(builtins, "__import__", imported)

    return hide


def closed_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


CASES = {
    "unknown": (["--engine=rai"], ["unknown engine 'rai'; did you mean 'ray'?", "local, ray, submitit"]),
    "no name": (["--engine="], ["unknown engine ''", "local, ray, submitit"]),
    "an address of this machine": (["--engine=local", "--engine-address=a:1"], ["local", "--engine-address"]),
    "an address of Slurm": (
        ["--engine=submitit", "--engine-address=a:1"], ["submitit has no address", "leave --engine-address away"]
    ),
    "an address of no engine": (["--engine-address=a:1"], ["--engine-address", "name it, such as --engine ray"]),
    "an option of no engine": (["--engine-option=a=1"], ["--engine-option", "name it, such as --engine ray"]),
    "an option without a value": (
        ["--engine=ray", "--engine-option=autoscale"], ["--engine-option 'autoscale'", "give NAME=VALUE"]
    ),
    "an option without a name": (["--engine=ray", "--engine-option==8"], ["--engine-option '=8'", "give NAME=VALUE"]),
    "an option of another engine": (
        ["--engine=ray", "--engine-option=slurm_partition=gpu"],
        ["unknown option of the engine ray 'slurm_partition'", "autoscale"],
    ),
    "an option of this machine": (["--engine=local", "--engine-option=a=1"], ["local has no options", "a=…"]),
    **{
        f"--{name} {text}": (["--engine=ray", f"--{name}={text}"], [f"--{name} '{text}'", "a whole number, or a part"])
        for name in ("cpus", "gpus")
        for text in ("0", "-1", "x", "1.5", "nan", "inf", "1e9", "")
    },
    "processors of this machine": (["--cpus=2"], ["--cpus", "one cell runs at a time", "--engine ray"]),
    "GPUs of this machine": (["--gpus=2"], ["--gpus", "one cell runs at a time", "--engine ray"]),
    "alone on this machine": (["--exclusive"], ["--exclusive", "one cell runs at a time", "--engine ray"]),
    "bad nodes of this machine": (["--skip-bad-nodes"], ["--skip-bad-nodes", "one cell runs at a time"]),
    "no processes": (["--engine=ray", "--isolate=none"], ["--engine ray", "leave --isolate none away"]),
    "no noise": (["--engine=ray", "--retry-noisy=1"], ["--retry-noisy", "--engine ray", "--exclusive"]),
}  # fmt: skip


def fails(command, tmp_path, *words):
    """Returns the only line of a command that cannot be; nothing is written."""
    status, out, err = command("run", *TINY, *words, "--out", tmp_path / "run")
    assert (status, out) == (2, ""), err
    (line,) = err.splitlines()
    assert line.startswith("tlbench: ")
    assert line.isprintable()
    assert not (tmp_path / "run").exists()
    return line


@pytest.mark.parametrize("case", CASES)
def test_bad_input(case, command, tmp_path, no_processes):
    words, expected = CASES[case]
    line = fails(command, tmp_path, *words)
    for word in expected:
        assert word in line


def is_there(row):
    return find_spec(row.make.partition(":")[0]) is not None


@pytest.mark.parametrize("engine", [name for name, row in ENGINES.items() if row.extra and is_there(row)])
def test_an_engine_that_is_not_installed(engine, command, tmp_path, hidden, no_processes):
    hidden(engine)
    line = fails(command, tmp_path, f"--engine={engine}")
    assert re.search(rf"--engine {engine} needs a package that is not here \(.*'{engine}[\w.]*'\)", line)
    assert f"pip install 'tlbench[{engine}]'" in line


def test_an_engine_that_does_not_answer_leaves_no_folder(command, tmp_path, monkeypatch, no_processes):
    """The same command, with an address that does answer, is no run that goes on."""
    asked = []

    def reach(wanted):
        asked.append(wanted.address)
        raise UserError(f"--engine-address {wanted.address}: nobody answers there")

    monkeypatch.setitem(ENGINES, "far", Row(summary="", make=lambda wanted: None, addressed=True, reach=reach))
    line = fails(command, tmp_path, "--engine=far", "--engine-address=nowhere:1")
    assert "nobody answers there" in line
    assert asked == ["nowhere:1"]
    status, _, err = command("run", *TINY, "--engine=far", "--engine-address=nowhere:1", "--dry-run")
    assert (status, asked) == (0, ["nowhere:1"]), err


ADDRESSES = {
    "nowhere": "give HOST:PORT",
    ":6379": "give HOST:PORT",
    "host:": "give HOST:PORT",
    "host:port": "give HOST:PORT",
    "127.0.0.1:99999999": "nobody answers",
    "127.0.0.1:{closed}": "nobody answers",
    "no-such-host.invalid:6379": "nobody answers",
}


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_that_is_none(address, command, tmp_path, no_processes):
    pytest.importorskip("ray")
    expected, address = ADDRESSES[address], address.format(closed=closed_port())
    line = fails(command, tmp_path, "--engine=ray", f"--engine-address={address}")
    assert f"--engine-address {address}: " in line
    assert expected in line
    assert not importlib.import_module("ray").is_initialized()
