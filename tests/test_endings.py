"""Exit statuses: an example of each line of docs/exit-status.md, on the command line and under pytest; and what used to
end a run with 0, with a traceback, or not at all.

One file, since the table in the document has one place where it is true.
"""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from records import record
from test_gate_faults import benchmarks
from test_isolation import PLUGIN, TINY
from test_speedup import pair

from tlbench.campaign import check as check_module
from tlbench.campaign import replay as replaying
from tlbench.campaign.asked import Asked
from tlbench.campaign.campaign import Campaign, begin
from tlbench.campaign.plugins import load_plugins
from tlbench.cli.table import COMMANDS
from tlbench.data import DATASETS, Dataset, decoded_folder, lent, store
from tlbench.errors import UnknownName, UserError, no_exit
from tlbench.grid.cell import Cell
from tlbench.grid.grid import Grid
from tlbench.grid.settings import Settings
from tlbench.machine import disk
from tlbench.machine.interrupts import LINE
from tlbench.machine.kept import KEPT
from tlbench.measure import build
from tlbench.measure import cell as cell_module
from tlbench.measure.cell import LOST
from tlbench.records.plan import Plan
from tlbench.records.run_folder import Store, load
from tlbench.train.loop import Trainer

ROOT = Path(__file__).parents[1]
DOCUMENT = (ROOT / "docs" / "exit-status.md").read_text(encoding="utf-8")

# --- cells that are not measured ----------------------------------------------------------------------------------


def bad(status, reason="because"):
    """Changes that make a record one of a cell that came to nothing."""
    return {"status": status, "reason": reason, "rounds": (), "accuracy_val": None, "accuracy_test": None}


def where(part, changes, others=None):
    """What becomes of the cells whose names have a part, and of the others."""
    return lambda place: changes if part in place.name else others or {}


def signalled(number):
    """A cell during which a signal comes."""

    def end(place):
        signal.raise_signal(number)
        return {}

    return end


@pytest.fixture
def cells(monkeypatch):
    """Cells are not measured: ``cells.end`` says what becomes of each. Keeps the names of those asked for."""

    class Cells(list):
        end = staticmethod(lambda place: {})

        def __call__(self, cell, settings, clock=None, *, place):
            self.append(place.name)
            changes = self.end(place)
            if clock is not None:
                clock(lambda: None, lambda: None, 3, [])
            own = {"id": place.name, "cell": cell, "settings": settings, "block": place.block, "role": place.role}
            return replace(record(freeze=cell.freeze), **{**own, **changes})

    found = Cells()
    monkeypatch.setattr(cell_module, "run_cell", found)
    monkeypatch.setattr("tlbench.report.write_report", lambda records, folder, *_: folder / "report.html")
    return found


# --- runs ---------------------------------------------------------------------------------------------------------

GRID = ["--weights=random", "--freeze=linear_probe,full", "--threads=1"]
RUN = ["run", "--backbone=resnet18", *GRID, "--isolate=none", "--out=run"]
TWICE = [*RUN, "--twins=1"]
ONCE = [*RUN, "--twins=0"]
RUNS = {
    "all came out": (ONCE, lambda place: {}, 0, "Report: run/report.html"),
    "some are skipped": (ONCE, where("full", bad("skipped")), 0, "skipped"),
    "some are not applicable": (ONCE, where("full", bad("not_applicable")), 0, "Report"),
    "one failed": (ONCE, where("full", bad("failed")), 1, "failed"),
    "one diverged": (ONCE, where("full", bad("diverged")), 1, "diverged"),
    "one ran out of memory": (ONCE, where("full", bad("oom")), 1, "oom"),
    "one took too long": (ONCE, where("full", bad("timeout")), 1, "timeout"),
    "one interrupted itself": (ONCE, where("probe", bad("interrupted")), 1, "raised by the cell's own code"),
    "all are skipped": (ONCE, lambda place: bad("skipped"), 1, "No cell was measured: all are skipped"),
    "none is applicable": (ONCE, lambda place: bad("not_applicable"), 1, "No cell was measured: all are not"),
    "the budget ended": (
        ONCE, lambda place: bad("stopped"), 1,
        "the budget ended before the first was done; tlbench find --resume run --budget TIME goes on",
    ),
    "the budget ended beside one that cannot be": (
        ONCE, where("full", bad("stopped"), bad("not_applicable")), 1, "the budget ended before the first was done;",
    ),
    "a repetition failed": (
        TWICE, where("A/A", bad("failed")), 1,
        "1 cell measured once more, to see how far times differ, came to nothing; it is resnet18-",
    ),
    "a repetition diverged": (TWICE, where("A/A", bad("diverged")), 1, ", diverged: because"),
    "too many failed": ([*ONCE, "--max-failures=1"], lambda place: bad("failed"), 1, "Stopped before its end: 1 cell"),
    "nothing to measure it with": ([*ONCE, "--dataset=folder:none"], lambda place: {}, 2, "does not exist"),
    "other images": (ONCE, where("full", {"data_sha256": "b"}, {"data_sha256": "a"}), 2, "have changed since"),
    "Ctrl-C": (ONCE, signalled(signal.SIGINT), 130, "Stopped: 0 of 2 measurements are finished"),
    "SIGTERM": (ONCE, signalled(signal.SIGTERM), 143, "Stopped: 0 of 2 measurements are finished"),
    "listed": ([*ONCE, "--dry-run"], None, 0, "train resnet18-"),
}  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_a_run(name, cells, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, cells.end, status, words = RUNS[name]
    given, out, err = command(*arguments)
    assert given == status, out + err
    assert words in " ".join((out + err).split())
    assert "Traceback" not in out + err


def test_a_repetition_that_failed_is_not_hidden_by_one_that_did_not(cells, command, tmp_path, monkeypatch):
    """Of one cell, measured again three times; nor is it forgotten when the run goes on, which tries again."""
    monkeypatch.chdir(tmp_path)
    cells.end = lambda place: bad("failed") if place.role == "aa" and len(cells) == 3 else {}
    alone = ["run", "--backbone=resnet18", *GRID[::2], "--freeze=full", "--isolate=none", "--twins=3", "--out=run"]
    status, out, _ = command(*alone)
    assert status == 1
    assert "1 cell measured once more" in out
    assert [r.status for r in load("run").records] == ["ok", "ok", "failed", "ok"]
    cells.end = lambda place: {}
    status, out, _ = command("run", "--resume", "run")
    assert status == 0, out
    assert [r.status for r in load("run").records] == ["ok", "ok", "failed", "ok", "ok"]
    assert command("run", "--resume", "run")[0] == 0
    assert len(cells) == 5, "nothing is left"


# --- commands -----------------------------------------------------------------------------------------------------


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """What the commands below read."""
    monkeypatch.chdir(tmp_path)
    mine = Store(tmp_path / "mine")
    for one in pair():
        mine.append(one)
    tests = {(f"cell{n}", seed): {"accuracy_test": 0.9} for n in range(9) for seed in range(4)}
    worse = {key: {"accuracy_test": 0.5 + 0.001 * key[1]} for key in tests}
    for name, made in (("old", tests), ("same", tests), ("worse", worse)):
        benchmarks(tmp_path / f"{name}.json", made)
    (tmp_path / "leaves.py").write_text("import sys\nsys.exit(0)\n")
    plan = Plan(grids=(Grid(),), settings=Settings())
    begun = {name: Store(tmp_path / name) for name in ("left", "held", "finished")}
    for one in begun.values():
        one.describe(plan)
    for cell, name in plan.cells().items():
        begun["finished"].append(replace(record(), cell=cell, id=name))
    begun["held"].hold()
    yield
    begun["held"].release()


def leave(*_):
    raise SystemExit(0)


GATE = ("--fail-on", "accuracy_test:1%")
ENDINGS = {
    "the version": (("--version",), 0, "tlbench "),
    "help": (("run", "--help"), 0, "Exit status 0"),
    "a list": (("list", "policies"), 0, "linear_probe"),
    "a table": (("summary", "mine"), 0, "resnet18"),
    "an export": (("export", "mine"), 0, "accuracy_val"),
    "a gate that passes": (("compare", "old.json", "same.json", *GATE), 0, ""),
    "a speed-up that is reached": (("speedup", "mine", "--min=2"), 0, ""),
    "a pick": (("recommend", "mine", "--device=cpu"), 0, ""),
    "a run that is finished": (("status", "finished"), 0, "It is finished"),
    "a run that is measured": (("status", "held"), 0, "0 of 1 measurements are done, 1 left Measured by process"),
    "equal": (("replay", "mine", replaying.EQUAL), 0, "equal"),
    "close": (("replay", "mine", replaying.CLOSE), 0, "within tolerance"),
    "a gate that fails": (("compare", "old.json", "worse.json", *GATE), 1, ""),
    "a speed-up that is missed": (("speedup", "mine", "--min=50"), 1, ""),
    "no pick": (("recommend", "mine", "--device=cpu", "--min-accuracy=99.9%"), 1, ""),
    "a run that nobody measures": (("status", "left"), 1, "No process measures it now To go on: tlbench run --resume"),
    "different": (("replay", "mine", replaying.DIFFERENT), 1, "different"),
    "a gate that cannot say": (("compare", "old.json", "same.json", "--fail-on", "epoch_seconds:5%"), 2, ""),
    "a speed-up of nothing": (("speedup", "mine", "--axis=precision", "--min=2"), 2, "no two finished cells"),
    "cannot be rebuilt": (("replay", "mine", replaying.IMPOSSIBLE), 2, "cannot be rebuilt"),
    "an unknown name": (("show", "resnet81"), 2, "did you mean"),
    "an unknown option": (("run", "--backbones=resnet18"), 2, "has no option --backbones"),
    "an unknown command": (("measure",), 2, "unknown command 'measure'"),
    "no command": ((), 2, "Usage"),
    "no such run": (("summary", "none"), 2, "none"),
    "the status of no run": (("status", "none"), 2, "none"),
    "a plugin that ends the program": (("list", "heads", "--plugin=leaves.py"), 2, "SystemExit: 0"),
    "a data set that does": (("run", "--dataset=leaves"), 2, "cannot be read: SystemExit: 0"),
    "one that does when it is counted": (("run", "--dataset=uncounted", "--dry-run"), 2, "wants to end the program"),
    "Ctrl-C": (("summary", "interrupted"), 130, LINE.decode().strip()),
    "Ctrl-C that is caught": (("summary", "caught"), 130, LINE.decode().strip()),
    "an interrupt of its own": (("summary", "own"), 130, LINE.decode().strip()),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_a_command(name, runs, command, monkeypatch):
    lines = []

    def write(file, text, real=os.write):
        return lines.append(text) if file == 2 else real(file, text)

    monkeypatch.setattr(os, "write", write)
    monkeypatch.setitem(DATASETS, "leaves", Dataset(summary="", load=leave, classes=2, read_by_check=True))
    monkeypatch.setitem(DATASETS, "uncounted", Dataset(summary="", load=leave, classes=leave))

    def replay(one, threads, places, data_root, outcome=ENDINGS[name][0][-1:]):
        return replaying.Replay(record=one, outcome=outcome[0])

    def read(paths, real=sys.modules["tlbench.cli.reporting"].read_records):
        if str(paths[0]) == "own":
            raise KeyboardInterrupt
        if str(paths[0]) == "interrupted":
            signal.raise_signal(signal.SIGINT)
        try:
            if str(paths[0]) == "caught":
                signal.raise_signal(signal.SIGINT)
        except BaseException:
            return real([Path("mine")])
        return real(paths)

    monkeypatch.setattr(replaying, "replay", replay)
    monkeypatch.setattr("tlbench.cli.reporting.read_records", read)
    arguments, status, words = ENDINGS[name]
    if arguments[:1] == ("replay",):
        arguments = arguments[:-1]
    given, out, err = command(*arguments)
    text = out + err + b"".join(lines).decode()
    assert given == status, text
    assert words in " ".join(text.split())
    assert "Traceback" not in text
    assert given != 130 or text.count(LINE.decode()) == 1


def test_no_exit_but_ours():
    with no_exit():
        pass
    with pytest.raises(UserError, match=r"SystemExit 3, test_endings.py:\d+"), no_exit():
        raise SystemExit(3)
    with pytest.raises(UserError, match=r"\(SystemExit, "), no_exit():
        raise SystemExit
    with pytest.raises(KeyboardInterrupt), no_exit():
        raise KeyboardInterrupt


# --- processes ----------------------------------------------------------------------------------------------------


def run_shell(line, tmp_path, **files):
    """Has a shell run a line in which TLBENCH stands for the command; returns its standard output and error."""
    for name, text in files.items():
        (tmp_path / f"{name}.py").write_text(text)
    tlbench = f"{sys.executable} -c 'from tlbench.cli import command; command()'"
    done = subprocess.run(
        ["bash", "-c", line.replace("TLBENCH", tlbench)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    return done.stdout, done.stderr


IMPORTED = """
import os, signal, time
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(30)
except BaseException:  # as libraries do
    pass
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_what_a_shell_sees(tmp_path):
    """Statuses of signals are the shell's word; where a plugin turns SIGPIPE on again, a reader that is gone counts."""
    files = {
        "imported": IMPORTED,
        "pipe": "import signal\nsignal.signal(signal.SIGPIPE, signal.SIG_DFL)\n",
    }
    line = (
        "TLBENCH list heads --plugin=imported.py; echo $?; "
        "(sleep 0.1; TLBENCH list policies --plugin=pipe.py; echo $? >&2) | true"
    )
    out, err = run_shell(line, tmp_path, **files)
    assert out.split() == ["130"], err
    assert err.splitlines() == [LINE.decode().strip(), "141"]


MOMENTS = int(os.environ.get("TLBENCH_INTERRUPTS", "1"))
"""How often each command below is interrupted at a random moment; `.ci/long` does it more often."""
BEGUN = "from tlbench.cli import command; import os; os.write(1, b'begun\\n'); command()"
"""What is interrupted before, in its first hundredth of a second, is Python that starts."""
LASTING = {
    "env": ["env"],
    "run": ["run", "--dataset=synthetic", "--backbone=mobilenet_v3_small", *GRID, "--isolate=none", "--image-size=32"],
}


@pytest.mark.parametrize("name", LASTING)
def test_ctrl_c_at_any_moment(name, tmp_path):
    """Most of them come while something is imported: 130, no traceback, at once."""
    stopped = 0
    for number in range(MOMENTS):
        wait = random.Random(f"{name}{number}").uniform(0.05, 0.8)
        process = subprocess.Popen(
            [sys.executable, "-c", BEGUN, *LASTING[name]], cwd=tmp_path, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert process.stdout.readline() == "begun\n"
            time.sleep(wait)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
            process.wait()
        assert "Traceback" not in err, wait
        assert "RecursionError" not in err, wait
        if process.returncode != 0:  # it was quicker
            assert process.returncode == 130, (wait, err)
            assert LINE.decode() in err or "Stopping; what is finished is kept" in err, wait
            stopped += 1
    assert stopped > 0, "all were quicker"


# --- pytest -------------------------------------------------------------------------------------------------------

BENCH = "def train(tl_run):\n    tl_run()\n"
SESSION = ["--tl-backbone=resnet18", *(option.replace("--", "--tl-", 1) for option in GRID), "--tl-out=run"]
PLAIN = [*SESSION, "--tl-twins=0"]
SESSIONS = {
    "all came out": (PLAIN, lambda place: {}, 0, "Report: run/report.html"),
    "some are skipped": (PLAIN, where("full", bad("skipped")), 0, "skipped: because"),
    "nothing is asked for": ([*PLAIN, "--collect-only"], None, 0, "train["),
    "benchmarks are off": ([*PLAIN, "--benchmark-disable"], None, 0, "pytest-benchmark is disabled"),
    "benchmarks are skipped": ([*PLAIN, "--benchmark-skip"], None, 0, "2 skipped"),
    "one failed": (PLAIN, where("full", bad("failed")), 1, "failed: because"),
    "all are skipped": (PLAIN, lambda place: bad("skipped"), 1, "No cell was measured: all are skipped"),
    "a repetition failed": ([*SESSION, "--tl-twins=1"], where("A/A", bad("failed")), 1, "1 cell measured once more"),
    "too many failed": ([*PLAIN, "--tl-max-failures=1"], lambda place: bad("oom"), 1, "(--max-failures 1)"),
    "no pair of devices": ([*PLAIN, "-m", "speedup"], None, 1, "No cell was measured: no cell of this grid"),
    "bad input": ([*PLAIN, "--tl-head=none"], None, 2, "unknown head 'none'"),
    "a data set that ends the program": ([*PLAIN, "--tl-dataset=leaves"], None, 2, "cannot be read: SystemExit: 0"),
    "other images": (PLAIN, where("full", {"data_sha256": "b"}, {"data_sha256": "a"}), 2, "have changed since"),
    "a repetition of other images": (
        [*SESSION, "--tl-twins=1"], where("A/A", {"data_sha256": "b"}, {"data_sha256": "a"}), 2, "have changed since"
    ),
    "Ctrl-C": (PLAIN, signalled(signal.SIGINT), 2, "KeyboardInterrupt"),
    "an internal error": ([*PLAIN, "breaks"], lambda place: {}, 3, "INTERNALERROR"),
    "an unknown option": ([*PLAIN, "--tl-none=1"], None, 4, "unrecognized arguments"),
    "nothing is chosen": ([*PLAIN, "-k", "nothing"], None, 5, "deselected"),
}  # fmt: skip


class Breaks:
    def pytest_runtest_protocol(self):
        raise ValueError("of another plugin")


@pytest.mark.parametrize("name", SESSIONS)
def test_a_session_of_pytest(name, cells, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setitem(DATASETS, "leaves", Dataset(summary="", load=leave, classes=2, read_by_check=True))
    (tmp_path / "bench_it.py").write_text(BENCH)
    options, cells.end, status, words = SESSIONS[name]
    broken = "breaks" in options
    given = pytest.main(
        [
            *(option for option in options if option != "breaks"), "bench_it.py", "--rootdir=.", "-s", "-rs",
            "-o", "python_functions=train", "-o", "python_files=bench_it.py", "--import-mode=importlib",
            "-p", "no:cacheprovider", "-p", "no:unraisableexception",
        ],
        plugins=[Breaks()] if broken else [],
    )  # fmt: skip
    out, err = capsys.readouterr()
    assert given == status, out + err
    assert words in out + err
    assert status == 3 or "Traceback" not in out + err


@pytest.mark.parametrize("name", ["all came out", "all are skipped"])
def test_a_session_of_more_cells_than_are_held(name, cells, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tlbench.campaign.campaign.MANY", 1)
    test_a_session_of_pytest(name, cells, tmp_path, monkeypatch, capsys)


# --- the document -------------------------------------------------------------------------------------------------


def test_the_table_has_an_example_of_each_of_its_lines():
    lines = re.findall(r"^\| ([\d, ]+) \|", DOCUMENT, re.M)
    told = {int(number) for line in lines for number in line.split(",")}
    own = {status for *_, status, _ in (*RUNS.values(), *ENDINGS.values())}
    under_pytest = {status for *_, status, _ in SESSIONS.values()}
    assert told == own | under_pytest | {141}
    assert own == {0, 1, 2, 130, 143}
    assert under_pytest == {0, 1, 2, 3, 4, 5}
    assert len(RUNS) + len(ENDINGS) + len(SESSIONS) >= 25


def test_it_is_found(command):
    assert "(docs/exit-status.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert "docs/exit-status.md" in command("--help")[1]
    for name in COMMANDS.keys() & {"run", "status", "compare", "speedup", "replay", "recommend", "duel"}:
        assert "exit status" in " ".join(command(name, "--help")[1].lower().split()), name


# --- cells that end in other ways -----------------------------------------------------------------------------------

CELL = Cell(weights="random", dataset="synthetic", image_size=32, epochs=1, train_size=20, layout="contiguous")


@pytest.fixture
def plugin(tmp_path):
    (tmp_path / "mine.py").write_text(PLUGIN)
    return f"--plugin={tmp_path / 'mine.py'}"


@pytest.fixture
def no_report(monkeypatch):
    monkeypatch.setattr("tlbench.report.write_report", lambda records, folder, *_: folder / "report.html")


@pytest.mark.parametrize("isolate", ["none", pytest.param("backbone", marks=pytest.mark.exhaustive)])
def test_a_model_that_ends_the_program_is_a_failed_cell(isolate, command, plugin, no_report, tmp_path):
    status, out, err = command(
        "run", plugin, *TINY, "--backbone=exits,good", f"--isolate={isolate}", "--out", tmp_path / "run"
    )
    assert status == 1, out + err
    exits, good = load(tmp_path / "run").records
    assert (exits.cell.backbone, exits.status) == ("exits", "failed")
    assert re.fullmatch(r"SystemExit 0: its code wanted to end the program \(mine.py:\d+\)", exits.reason)
    assert (good.cell.backbone, good.status) == ("good", "ok")


@pytest.mark.parametrize("isolate", ["none", pytest.param("backbone", marks=pytest.mark.exhaustive)])
def test_images_that_vanish_fail_their_own_cells(isolate, command, plugin, photos, no_report, tmp_path, monkeypatch):
    other = Path(shutil.copytree(photos, tmp_path / "other"))

    def vanish(*arguments, real=Campaign.run):
        shutil.rmtree(other)
        return real(*arguments)

    monkeypatch.setattr(Campaign, "run", vanish)
    status, out, err = command(
        "run", plugin, *TINY, "--backbone=good", f"--dataset=folder:{other},folder:{photos}", f"--isolate={isolate}",
        "--freeze=linear_probe,full", "--out", tmp_path / "run",
    )  # fmt: skip
    assert status == 1, out + err
    records = load(tmp_path / "run").records
    assert sorted((Path(r.cell.dataset).name, r.status) for r in records) == [
        ("other", "failed"), ("other", "failed"), ("photos", "ok"), ("photos", "ok"),
    ]  # fmt: skip
    for one in records:
        if one.status == "failed":
            assert one.reason.startswith(f"{LOST}dataset folder '{other}' does not exist")
            assert one.environment


@pytest.mark.parametrize("what", ["load_weights", "load_images"])
def test_what_cannot_be_loaded_any_more_is_a_failed_cell(what, monkeypatch):

    def lost(*_):
        raise UserError("gone")

    def unknown(*_):
        raise UnknownName("unknown backbone 'x'", "backbone")

    monkeypatch.setattr(build, what, lost)
    made = cell_module.run_cell(CELL, Settings())
    assert (made.status, made.reason) == ("failed", f"{LOST}gone")
    monkeypatch.setattr(build, what, unknown)
    with pytest.raises(UnknownName):
        cell_module.run_cell(CELL, Settings())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
@pytest.mark.parametrize(("error", "status"), [(SystemExit(7), 7), (ValueError("x"), 1)])
def test_a_copy_of_the_process_that_a_cell_has_forked_goes_no_further(error, status, monkeypatch):
    ended = []

    def run_epoch(self, *order, real=Trainer.run_epoch):
        if not ended:
            own = os.getpid()
            copy = os.fork()
            if os.getpid() != own:
                raise error
            ended.append(os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1]))
        return real(self, *order)

    monkeypatch.setattr(Trainer, "run_epoch", run_epoch)
    assert cell_module.run_cell(CELL, Settings()).status == "ok"
    assert ended == [status]


# --- room for decoded images --------------------------------------------------------------------------------------


@pytest.fixture
def little(monkeypatch):
    """Memory has no room for images, the cache none, and the temporary folder 200 kB."""
    KEPT.images.forget()
    monkeypatch.setattr(decoded_folder, "_free", lambda: 0)
    monkeypatch.setattr(store, "free_bytes", lambda: 1000)
    monkeypatch.setattr(store, "room_in", lambda folder: 200_000 - KEPT.images.bytes(store.DISK))
    yield
    KEPT.images.forget()
    lent._borrowed.clear()


def test_what_does_not_fit_is_refused_before_anything_is_reserved(little, monkeypatch):
    monkeypatch.setattr(store.locks, "reserve", None)
    with pytest.raises(UserError, match=r"100 images of 32 px need 0\.0 GB; .* a tenth is left to others; use a sm"):
        store.allocate(100, 32)


def test_images_in_files_make_room_for_each_other(little):
    def make():
        return store.make_images(store.allocate(40, 32), [0] * 40, ["a"])

    first = store.remember("a", make)
    assert isinstance(first.pixels, np.memmap)
    del first
    store.remember("b", make)
    assert list(KEPT.images) == ["b"]
    assert KEPT.images.bytes() == 0
    assert KEPT.images.bytes(store.DISK) == 40 * 3 * 32 * 32


def test_a_disk_that_says_nothing_of_its_room_is_asked_by_the_file(little, monkeypatch):
    monkeypatch.setattr(store, "room_in", lambda folder: None)
    assert isinstance(store.allocate(100, 32), np.memmap)


def grid_of(photos, *sizes):
    return Grid(axes={"dataset": (f"folder:{photos}",), "backbone": ("resnet18",), "image_size": sizes})


def test_it_is_said_where_images_lie_that_memory_has_no_room_for(little, photos):
    said = []
    check_module.check(grid_of(photos, 32), Settings(), said.append)
    (line,) = [line for line in said if "decoded images" in line]
    assert line.startswith(
        "decoded images lie in a file that goes with the run; "
        f"those of folder:{photos} take 73.7 kB, and memory has 250 B for them;"
    )
    assert "TMPDIR names another folder" in line


@pytest.mark.parametrize("size", [224, None])
def test_another_size_of_the_grid_is_looked_at_beforehand(size, little, photos):
    said = []
    check_module.check(grid_of(photos, 32, size), Settings(), said.append)
    (line,) = [line for line in said if " at 224 px " in line]
    assert "images are decoded anew" in line


def test_images_in_memory_are_nothing_to_speak_of(photos):
    said = []
    check_module.check(grid_of(photos, 32, 224), Settings(), said.append)
    assert not [line for line in said if "decoded images" in line]


MOUNTED = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:26 / /tmp rw,nosuid shared:2 - tmpfs tmpfs rw,size=1000k
31 30 0:27 / /tmp/a\\040b rw - ext4 /dev/sdb1 rw
32 22 0:28 / /temporary rw - ext4 /dev/sdc1 rw
"""


@pytest.mark.parametrize(
    ("folder", "in_memory"),
    [("/tmp", True), ("/tmp/x", True), ("/tmp/a b", False), ("/temporary/x", False), ("/", False), ("/home", False)],
)
def test_a_temporary_folder_may_be_memory(folder, in_memory, tmp_path, monkeypatch):
    (tmp_path / "mounts").write_text(MOUNTED)
    monkeypatch.setattr(disk, "MOUNTS", str(tmp_path / "mounts"))
    monkeypatch.setattr(os.path, "realpath", lambda path, **_: path)
    monkeypatch.setattr(disk, "free_bytes", lambda: 5)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=100))
    assert disk.lies_in_memory(folder) == in_memory
    assert disk.room_in(folder) == (5 if in_memory else 100)


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="needs files in memory")
def test_a_full_disk_does_not_keep_images_from_being_lent(photos, monkeypatch):
    """What is known of them needs no file on it; where even memory takes none, the others decode themselves."""
    KEPT.images.forget()
    with lent.lending():
        check_module.check(grid_of(photos, 32), Settings(isolate="backbone"))
    lent._described.clear()
    monkeypatch.setattr("tempfile.TemporaryFile", None)
    assert len(store.loans()) == 1
    lent._described.clear()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "memfd_create", full, raising=False)
    monkeypatch.setattr("tempfile.TemporaryFile", full)
    assert store.loans() == {}
    KEPT.images.forget()


def test_begin_lets_nothing_end_the_program(monkeypatch):
    monkeypatch.setattr("tlbench.campaign.campaign.check", leave)
    with pytest.raises(UserError, match="wants to end the program"):
        begin(Asked(grid=Grid()))


class Unspeakable(RuntimeError):
    def __str__(self):
        raise ValueError("no words")


class Odd(BaseException):
    pass


@pytest.mark.parametrize("error", [Unspeakable(), Odd("odd"), RecursionError("deep")], ids=lambda e: type(e).__name__)
def test_whatever_a_cell_raises_is_a_record(error, monkeypatch):
    def run_epoch(self, *order):
        raise error

    monkeypatch.setattr(Trainer, "run_epoch", run_epoch)
    made = cell_module.run_cell(CELL, Settings())
    assert made.status == "failed"
    assert made.reason.startswith(f"{type(error).__name__}: ")


def test_a_cell_that_goes_to_another_folder_comes_back(monkeypatch, tmp_path):
    """The run's folder may be a relative path, and so may those of the images."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()

    def run_epoch(self, *order):
        os.chdir(tmp_path / "elsewhere")
        raise ValueError

    monkeypatch.setattr(Trainer, "run_epoch", run_epoch)
    assert cell_module.run_cell(CELL, Settings()).status == "failed"
    assert Path.cwd() == tmp_path
    (tmp_path / "goes.py").write_text("import os\nos.chdir('elsewhere')\n")
    load_plugins(["goes.py"])
    assert Path.cwd() == tmp_path


def test_a_thread_that_a_plugin_leaves_running_does_not_keep_a_command_from_ending(tmp_path):
    (tmp_path / "left.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), name='left').start()\n"
    )
    code = "import tlbench.cli as cli; cli.PATIENCE_SECONDS = 0.2; cli.command()"
    done = subprocess.run(
        [sys.executable, "-c", code, "list", "heads", "--plugin=left.py"],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0
    assert "linear" in done.stdout
    assert done.stderr == "tlbench: ended, though threads of a plugin or a library go on: 'left'\n"
