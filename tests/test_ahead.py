"""A process that is started ahead: who gets it, what it is asked before a cell, and what is done while it starts."""

import json
import os
import socket
import subprocess
import sys
import textwrap
import time

import pytest
import torch
from bits import finished
from processes import BOOT, gone
from torchvision import models

from tlbench.campaign import ahead, child, isolate
from tlbench.campaign.check import check
from tlbench.campaign.isolate import Worker, Workers
from tlbench.campaign.stop import Stop
from tlbench.data import lent
from tlbench.errors import UserError
from tlbench.grid.cell import Cell
from tlbench.grid.grid import Grid
from tlbench.grid.settings import Settings
from tlbench.measure.place import Place
from tlbench.records.run_folder import load

SETTINGS, PLACE = Settings(isolate="backbone"), Place(name="the cell")


class Fake:
    def __init__(self):
        self.ended = self.was_killed = False

    def has_ended(self):
        return self.was_killed

    def end(self):
        self.ended = True


# --- who gets it ----------------------------------------------------------------------------------------------


def test_one_process_is_started_and_ends_where_nobody_takes_it():
    made = []

    def make():
        made.append(Fake())
        return made[-1]

    ahead.start(make)
    assert made == []
    assert ahead.take() is None
    with ahead.starting():
        for _ in range(2):
            ahead.start(make)
        assert not made[0].ended
    assert len(made) == 1
    assert made[0].ended
    with ahead.starting():
        ahead.start(make)
        assert ahead.take() is made[1]
        assert ahead.take() is None
        ahead.start(make)
    assert len(made) == 2
    assert not made[1].ended, "it is of who has taken it"


@pytest.mark.parametrize("what", ["a variable", "the folder", "where modules are", "it was killed"])
def test_what_would_be_another_process_now_is_not_taken(what, tmp_path, monkeypatch):
    with ahead.starting():
        ahead.start(Fake)
        process = ahead.started()
        if what == "a variable":
            monkeypatch.setenv("OMP_NUM_THREADS", "7")
        elif what == "the folder":
            monkeypatch.chdir(tmp_path)
        elif what == "where modules are":
            monkeypatch.syspath_prepend(tmp_path)
        else:
            process.was_killed = True
        assert ahead.take() is None
    assert process.ended


def test_a_machine_that_starts_no_process_says_so_when_one_is_needed():
    def make():
        raise BlockingIOError(11, "Resource temporarily unavailable")

    with ahead.starting():
        ahead.start(make)
        assert ahead.take() is None


@pytest.fixture
def workers(monkeypatch):
    """Workers whose processes are without torch; what is said of a backbone is run by them."""
    monkeypatch.setattr(isolate, "_BOOT", BOOT)
    monkeypatch.setattr(isolate, "POLL_SECONDS", 0.02)
    with ahead.starting(), Workers(SETTINGS, Stop(), ["a plugin"]) as opened:
        yield opened


def test_the_first_cell_gets_it_and_it_is_told_what_any_is(workers):
    isolate.start_ahead(SETTINGS, "resnet18")
    first = ahead.started()
    code = "changes['environment'] = {'setup': setup, 'pid': __import__('os').getpid()}"
    told = [workers.run_cell(Cell(backbone=code + end), SETTINGS, place=PLACE).environment for end in ("", "; pass")]
    assert told[0]["pid"] == first._process.pid != told[1]["pid"]
    assert told[0]["setup"]["plugins"] == ["a plugin"]
    for one in told:
        one["setup"].pop("word")
    assert told[0]["setup"] == told[1]["setup"]


def test_cells_of_this_process_start_none(workers):
    isolate.start_ahead(Settings(isolate="none"), "resnet18")
    assert ahead.started() is None


def test_it_ends_with_a_run_that_did_not_need_it(workers):
    isolate.start_ahead(SETTINGS, "resnet18")
    pid = ahead.started()._process.pid
    workers.__exit__()
    assert ahead.started() is None
    assert gone([pid])


def test_one_that_dies_before_its_first_cell_costs_no_cell(workers):
    isolate.start_ahead(SETTINGS, "resnet18")
    process = ahead.started()._process
    process.kill()
    process.wait()
    assert workers.run_cell(Cell(backbone="pass"), SETTINGS, place=PLACE).status == "ok"


# --- chores ---------------------------------------------------------------------------------------------------


def test_chores_are_done_until_a_process_is_ready_and_never_while_it_measures(monkeypatch):
    slow = BOOT.replace("; child()", "; import time; time.sleep(1); child()")
    monkeypatch.setattr(isolate, "_BOOT", slow)
    monkeypatch.setattr(isolate, "POLL_SECONDS", 0.02)
    done = []

    def chore():
        done.append(len(done))
        time.sleep(0.3)
        raise ValueError("said when it is needed")

    with ahead.starting([chore] * 50), Workers(SETTINGS, Stop()) as opened:
        assert opened.run_cell(Cell(backbone="import time; time.sleep(0.5)"), SETTINGS, place=PLACE).status == "ok"
        assert 1 <= len(done) < 20
        before = len(done)
        opened.run_cell(Cell(backbone="import time; time.sleep(0.5)"), SETTINGS, place=PLACE)
        assert len(done) == before
    assert not ahead.do_a_chore()


# --- images ---------------------------------------------------------------------------------------------------


def test_files_are_handed_to_a_process_that_is_there_already(monkeypatch, tmp_path):
    monkeypatch.setattr(lent, "_borrowed", {})
    mine, its = socket.socketpair()
    worker = Worker.__new__(Worker)
    worker._files = mine
    names = {"one": b"pixels", "other": b"more"}
    for name, content in names.items():
        (tmp_path / name).write_bytes(content)
        with open(tmp_path / name, "rb") as pixels, open(os.devnull, "rb") as known:
            assert worker._hand_over((pixels.fileno(), known.fileno()))
    setup = {"plugins": [], "unreachable": {}, "images": list(names), "layouts": {}, "memory_limit": None}
    child._prepare(setup, its)
    for name, content in names.items():
        pixels, known = lent._borrowed[name]
        assert os.pread(pixels, 100, 0) == content
        assert not os.get_inheritable(pixels)
        os.close(pixels)
        os.close(known)
    its.close()
    assert not worker._hand_over((0, 0)), "nobody is there"
    mine.close()


# --- a checkpoint ---------------------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    torch.save(models.resnet18(weights=None).state_dict(), tmp_path / "own.pth")
    return str(tmp_path / "own.pth")


def test_a_process_says_of_a_checkpoint_what_this_one_does(checkpoint, tmp_path, monkeypatch):
    (tmp_path / "text.pth").write_text("lr: 0.1")
    torch.save({"other.weight": torch.zeros(3)}, tmp_path / "other.pth")
    grid = Grid.of(Cell(backbone="resnet18", dataset="synthetic", image_size=32))

    def said(spec, backbones):
        lines = []
        try:
            check(grid.with_axes({"weights": (spec,), "backbone": backbones}), SETTINGS, lines.append)
        except UserError as error:
            lines.append(str(error))
        return lines

    asked = []
    look = Worker.look
    monkeypatch.setattr(Worker, "look", lambda self, *given: asked.append(given) or look(self, *given))
    for spec, backbones in (
        (checkpoint, ("resnet18", "resnet34")),
        (str(tmp_path / "text.pth"), ("resnet18",)),
        (str(tmp_path / "other.pth"), ("resnet18", "resnet34")),
    ):
        here = said(spec, backbones)
        assert here
        before = len(asked)
        with ahead.starting():
            assert said(spec, backbones) == here
        assert len(asked) == before + 1


def test_where_it_ends_without_an_answer_this_process_looks(checkpoint, monkeypatch):
    monkeypatch.setattr(isolate, "_BOOT", "import time; time.sleep(0.2)")
    lines = []
    grid = Grid.of(Cell(backbone="resnet18", dataset="synthetic", image_size=32, weights=checkpoint))
    with ahead.starting():
        check(grid.with_axes({"backbone": ("resnet18", "resnet34")}), SETTINGS, lines.append)
        assert ahead.started() is None
    assert any("does not fit resnet34" in line for line in lines)


def test_a_run_from_a_checkpoint_imports_no_torch_here_and_computes_the_same(checkpoint, tmp_path):
    options = ["run", "--dataset", "digits", "--backbone", "resnet18", "--weights", checkpoint, "--freeze", "last_1"]
    options += ["--epochs", "1", "--image-size", "32", "--train-size", "60", "--layout", "contiguous"]
    code = """
        import json, sys
        from tlbench.cli import main
        sys.argv[0] = "tlbench"
        try:
            main()
        except SystemExit as done:
            assert not done.code
        print("torch" in sys.modules, file=sys.stderr)
    """
    found = {}
    for how in ("backbone", "none"):
        command = [sys.executable, "-c", textwrap.dedent(code), *options, "--isolate", how, "--out", tmp_path / how]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stderr.split()[-1] == str(how == "none")
        (record,) = load(tmp_path / how).records
        found[how] = finished(record)
    assert found["backbone"] == found["none"]


# --- what it imports ------------------------------------------------------------------------------------------


def test_the_process_imports_what_a_source_of_backbones_takes():
    from tlbench.backbones.sources import name_of_source

    assert [name_of_source(name) for name in ("resnet18@V1", "timm:x", "efficientnet_lite0")] == [
        "torchvision", "timm", "wheels",
    ]  # fmt: skip
    code = "import sys; from tlbench.campaign.child import _import; _import(sys.argv[1]); print(json.dumps(found()))"
    code = "import json\ndef found():\n return [n for n in ('timm', 'torchvision') if n in sys.modules]\n" + code
    for name in ("custom", "timm", "torchvision"):
        done = subprocess.run([sys.executable, "-c", code, name], capture_output=True, text=True, check=True)
        assert (name in json.loads(done.stdout)) == (name != "custom")


def test_what_every_process_sets_makes_it_no_other_one(monkeypatch):
    """A race measures a few steps itself before its first cell."""
    import torch

    from tlbench.machine.process import set_up

    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    with ahead.starting():
        ahead.start(Fake)
        with set_up(None, "fp32", True, "system", torch.device("cpu")):
            pass
        assert ahead.take() is not None


def test_runs_of_several_threads_have_each_their_own():
    from threading import Event, Thread

    inside, leave = Event(), Event()

    def other():
        with ahead.starting():
            ahead.start(Fake)
            inside.set()
            leave.wait(60)

    thread = Thread(target=other)
    with ahead.starting():
        thread.start()
        assert inside.wait(60)
        assert ahead.started() is None
        ahead.start(Fake)
        mine = ahead.started()
        leave.set()
        thread.join()
        assert ahead.take() is mine
    ahead.start(Fake)
    assert ahead.started() is None
