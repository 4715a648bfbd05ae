"""`tlbench.run` measures what the command line measures, from scripts, threads, event loops and notebooks."""

import asyncio
import inspect
import os
import re
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pandas as pd
import pytest
from records import failure, record

import tlbench
import tlbench.plots
from tlbench.api.keywords import HELP, OWN, SWITCHES, Axes, Keywords, Measuring, Own, in_python, keyword, options_of
from tlbench.campaign.asked import parse_asked
from tlbench.campaign.isolate import Workers
from tlbench.campaign.stop import SIGNALS, Stop
from tlbench.errors import UserError
from tlbench.grid.axes import AXES
from tlbench.grid.settings import SETTINGS
from tlbench.records.plan import load_start
from tlbench.records.run_folder import Store
from tlbench.report import plots

ROOT = Path(__file__).parents[1]

# --- keywords -------------------------------------------------------------------------------------------------


def test_the_typed_keywords_are_the_tables():
    assert list(get_type_hints(Axes)) == [keyword(axis.option) for axis in AXES.values()]
    assert list(get_type_hints(Measuring)) == [keyword(option) for option in SETTINGS]
    assert set(get_type_hints(Own)) == set(OWN)
    assert set(get_type_hints(Keywords)) == set(HELP)


def test_what_is_on_or_off_is_typed_as_a_truth_value_too():
    def takes_bool(hint):
        return hint is bool or any(map(takes_bool, get_args(hint)))

    on_or_off = {keyword(axis.option) for axis in AXES.values() if axis.choices and "on" in axis.choices}
    assert {name for name, hint in get_type_hints(Axes).items() if takes_bool(hint)} == on_or_off
    assert {name for name, hint in get_type_hints(Measuring).items() if takes_bool(hint)} == set(SWITCHES)


def test_help_and_editors_see_every_keyword():
    assert {*inspect.signature(tlbench.run).parameters} == {"images", *HELP}
    assert all(f"\n{name}: {text}" in tlbench.run.__doc__ for name, text in HELP.items())
    assert {"run", "Run", "load", "frame", "plots"} <= set(dir(tlbench))


PYTHON = {
    "seeds": [(range(3), "0-2"), ("0-1,4", "0,1,4"), ([0, "2-3"], "0,2,3")],
    "backbone": [(["resnet18", "vgg16"], "resnet18,vgg16"), (pd.Series(["resnet18", "vgg16"]), "resnet18,vgg16")],
    "dataset": [(Path("a,b"), r"folder:a\,b"), (["folder:a,b", Path("c")], r"folder:a\,b,folder:c")],
    "weights": [(Path("a.pt"), "a.pt"), (["auto", Path("a.pt")], "auto,a.pt")],
    "freeze": [(("full", "lora(r=8,alpha=16)"), "full,lora(r=8,alpha=16)")],
    "epochs": [(3, "3"), (np.int64(3), "3")],
    "image_size": [(np.array([32, 64]), "32,64"), (np.array(32), "32")],
    "lr": [([0.1, "auto"], "0.1,auto"), (np.float32(0.5), "0.5"), (1, "1")],
    "fused": [(True, "on"), ([True, "auto"], "on,auto")],
    "compile": [(False, "off"), ("reduce-overhead", "reduce-overhead")],
    "deterministic": [(False, "off"), ("on", "on")],
    "prefix": [(True, "on"), ("auto", "auto")],
    "prefix_ram": [(10**9, "1GB"), ("1GB", "1GB")],
    "cell_timeout": [(5, "5"), (None, None)],
    "twins": [(np.int32(2), "2")],
}


@pytest.mark.parametrize(
    ("name", "value", "text"), [(name, *pair) for name, pairs in PYTHON.items() for pair in pairs], ids=str
)
def test_python_values_mean_what_the_command_line_means(name, value, text):
    option = {keyword(axis.option): axis.option for axis in AXES.values()} | {keyword(s): s for s in SETTINGS}
    asked, told = parse_asked(options_of(None, {name: value})), parse_asked({option[name]: text})
    assert (asked.axes, asked.settings) == (told.axes, told.settings)


def test_a_folder_of_images_by_itself():
    for images in ("a,b", Path("a,b"), "folder:a,b"):
        assert parse_asked(options_of(images, {})).axes == {"dataset": ("folder:a,b",)}


BAD = {
    "no such keyword": ({"seed": 1}, "unknown keyword 'seed'; did you mean 'seeds'?"),
    "an option": ({"plugin": "x.py"}, "unknown keyword 'plugin'; did you mean 'plugins'?"),
    "a name": ({"backbone": "resnt18"}, "'resnet18'"),
    "a number": ({"epochs": 0}, "axis 'epochs': 0 is not a whole number from 1 to"),
    "a truth value": ({"epochs": True}, "axis 'epochs': True is not a whole number"),
    "a fraction": ({"epochs": 2.5}, "axis 'epochs': 2.5 is not a whole number"),
    "nothing in a list": ({"freeze": []}, "axis 'freeze' has no value"),
    "None in a list": ({"seeds": [None]}, "axis 'seeds': None is not a whole number"),
    "a mapping": ({"dataset": {"a": 1}}, "axis 'dataset': {'a': 1} is not a name"),
    "twice": ({"seeds": [0, 0]}, "axis 'seeds' has the value '0' twice"),
    "a setting": ({"cell_timeout": "x"}, "`cell_timeout`: 'x' is not a whole number of at least 1"),
    "several of one": ({"threads": [1, 2]}, "`threads`: [1, 2] is not a whole number"),
    "rerun alone": ({"rerun": "noisy"}, "`rerun` chooses what of a run to measure again: name the run with `resume`"),
    "out of a run": ({"resume": "r", "out": "o"}, "leave `out` away"),
    "no path": ({"grid": 3}, "grid: 3 is not a path"),
    "no file": ({"grid": "none.toml"}, "grid file 'none.toml' does not exist"),
    "no run": ({"resume": "none"}, "cannot read run 'none'"),
    "no plugin": ({"plugins": ["none.py"]}, "plugin 'none.py' cannot be imported"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given, expected = BAD[kind]
    with pytest.raises(UserError) as error:
        tlbench.run(**given)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)
    assert error.value._render_traceback_() == [f"UserError: {error.value}"]
    assert not list(tmp_path.iterdir())


def test_images_are_named_once():
    with pytest.raises(UserError, match="named twice"):
        tlbench.run("photos", dataset="digits")


def test_an_error_speaks_of_keywords_but_leaves_commands_alone():
    assert in_python("choose another with --out, not --xyz") == "choose another with `out`, not --xyz"
    assert in_python("`tlbench run --out DIR` makes some") == "`tlbench run --out DIR` makes some"


# --- a run, its cells made up -----------------------------------------------------------------------------------


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """Processes of cells give made-up records at once, and this list holds their names. ``measured.before`` is called
    with each name.
    """

    class Measured(list):
        before = staticmethod(lambda name: None)

        def run_cell(self, cell, settings, *, place):
            self.append(place.name)
            self.before(place.name)
            fake = record(freeze=cell.freeze, backbone=cell.backbone, task=cell.task, latency=[0.01] * 30)
            return replace(fake, id=place.name, cell=cell, settings=settings, block=place.block, role=place.role)

    found = Measured()
    monkeypatch.setattr(Workers, "run_cell", lambda _, *given, **words: found.run_cell(*given, **words))
    monkeypatch.setattr("tlbench.measure.cell.run_cell", found.run_cell)
    monkeypatch.setattr(plots, "PLOTS", {"learning_curves": plots.PLOTS["learning_curves"]})  # for quick reports
    monkeypatch.chdir(tmp_path)
    return found


GRID = {"freeze": ["linear_probe", "full"], "seeds": range(2), "weights": "random", "twins": 0, "threads": 1}
NAMES = [f"resnet18-{freeze}-linear-digits-cpu-s{seed}" for freeze in ("linear_probe", "full") for seed in (0, 1)]


def test_a_run_is_the_command_lines(measured, command):
    run = tlbench.run(**GRID, out="a")
    assert measured == NAMES
    texts = ("--freeze=linear_probe,full", "--seeds=0,1", "--weights=random", "--twins=0", "--threads=1", "--out=b")
    assert command("run", *texts)[0] == 0
    assert load_start(Path("a")).plan == load_start(Path("b")).plan
    assert load_start(Path("a")).plan.settings.isolate == "backbone"
    assert {path.name for path in Path("a").iterdir()} <= {path.name for path in Path("b").iterdir()}
    assert [r.id for r in run.records] == [r.id for r in tlbench.Run("b").records] == NAMES


def test_what_a_run_knows(measured):
    run = tlbench.run(**GRID, out="a")
    assert run.folder == Path("a").absolute()
    pd.testing.assert_frame_equal(run.frame, tlbench.load(run.folder))
    assert run.report() == run.folder / "report.html"
    assert run.report().exists()
    assert "Verdict" in str(run.verdict)
    assert "resnet18" in str(run.verdict)
    assert "Most accurate" in [pick["question"] for pick in run.verdict.picks]
    assert run.verdict.picks[0]["backbone"] == "resnet18"
    assert "group" not in run.verdict.picks[0]


def test_the_verdict_is_the_terminals(measured, command):
    run = tlbench.run(**GRID, out="a")
    printed = "".join(command("summary", run.folder)[1].split())  # a long path is broken
    assert "".join(str(run.verdict).split()) in printed


def test_shown_by_itself_it_is_the_table(measured):
    run = tlbench.run(**GRID, out="a")
    heads = ["backbone", "freeze", "head", "test %", "epoch s"]
    for shown in (repr(run), re.sub(r"<[^>]+>", " ", run._repr_html_())):
        assert all(word in shown for word in [*heads, "linear_probe", "full", "5.13 k", str(run.folder)])
        assert "Verdict" not in shown
    assert run._repr_html_().count("<tr>") == 3


def test_nothing_in_a_record_is_html(tmp_path):
    store = Store(tmp_path / "run")
    for one in (record(backbone="<b>[bold]"), failure("failed", "<script>", freeze="full")):
        store.append(one)
    run = tlbench.Run(store.folder)
    shown = run._repr_html_() + run.verdict._repr_html_()
    assert "&lt;b&gt;[bold]" in shown
    assert "&lt;script&gt;" in shown
    assert "<b>" not in shown
    assert "<script>" not in shown


def test_a_run_without_records_says_so(tmp_path):
    run = tlbench.Run(Store(tmp_path / "run").folder)
    assert "no records in" in repr(run)
    assert "no records in" in run._repr_html_()
    with pytest.raises(UserError, match="no records in"):
        _ = run.frame


def test_twins_that_were_asked_for_and_none_came(measured, capsys, monkeypatch):
    monkeypatch.setattr("tlbench.campaign.campaign.next_twin", lambda *_: None)
    tlbench.run(freeze="full", twins=1)
    assert "twins: no finished cell has timed rounds of its own" in capsys.readouterr().err


def test_a_report_leaves_another_run_alone(measured):
    run, other = (tlbench.run(freeze="full", out=name) for name in "ab")
    with pytest.raises(UserError, match="folder of another run"):
        run.report(other.folder)
    assert run.report("elsewhere") == Path("elsewhere/report.html")


def test_resuming_adds_cells_and_measures_nothing_twice(measured):
    first = tlbench.run(freeze="full", seeds=0, out="a")
    del measured[:]
    run = tlbench.run(resume=first.folder, seeds=[0, 1])
    assert measured == ["resnet18-full-linear-digits-cpu-s1"]
    assert len(run.records) == 2
    assert len(tlbench.run(resume=str(run.folder)).records) == 2
    tlbench.run(resume=run.folder, rerun=["failed", "noisy"])
    assert len(measured) == 1


def test_progress_and_what_the_check_found_go_to_standard_error(measured, capsys):
    tlbench.run(**GRID)
    out, err = capsys.readouterr()
    assert out == ""
    assert all(f"{number}/{len(NAMES)} resnet18 " in err for number in range(1, len(NAMES) + 1))


def test_max_failures_is_said(measured, capsys, monkeypatch):
    failed = failure("failed", "boom", freeze="full")
    monkeypatch.setattr(
        Workers, "run_cell", lambda _, cell, settings, place: replace(failed, cell=cell, settings=settings)
    )
    run = tlbench.run(**GRID, max_failures=1)
    assert "stopped before its end: 1 cell has failed (`max_failures` 1)" in capsys.readouterr().err
    assert [r.status for r in run.records] == ["failed"]
    assert "boom" in repr(run)


def test_a_name_that_only_this_process_knows(measured):
    def unknown(_):
        raise UserError("unknown backbone 'mynet'. Choose from: resnet18")

    measured.before = unknown
    with pytest.raises(UserError, match=r"plugins=FILE, or measure here with isolate='none'$"):
        tlbench.run(**GRID)
    with pytest.raises(UserError, match=r"Choose from: resnet18$"):
        tlbench.run(**GRID, isolate="none")


# --- threads, event loops, signals ------------------------------------------------------------------------------


@pytest.mark.parametrize("isolate", ["backbone", "none"])
def test_in_a_thread_and_in_a_running_event_loop(isolate, measured):
    async def cell_of_a_notebook():
        return tlbench.run(**GRID, isolate=isolate, out="loop")

    assert len(asyncio.run(cell_of_a_notebook()).records) == 4
    found = []
    thread = threading.Thread(target=lambda: found.append(tlbench.run(**GRID, isolate=isolate, out="thread")))
    thread.start()
    thread.join()
    assert len(found[0].records) == 4


@pytest.mark.parametrize("isolate", ["backbone", "none"])
def test_an_interrupt_keeps_what_is_finished(isolate, measured, capsys):
    def interrupt(name):
        if name == NAMES[2]:
            signal.raise_signal(signal.SIGINT)

    measured.before = interrupt
    handlers = [signal.getsignal(number) for number in SIGNALS]
    with pytest.raises(KeyboardInterrupt, match=r"tlbench.run\(resume='a'\) goes on"):
        tlbench.run(**GRID, isolate=isolate, out="a")
    assert [signal.getsignal(number) for number in SIGNALS] == handlers
    assert "of 4 measurements are finished and kept in a" in capsys.readouterr().err
    measured.before = lambda name: None
    run = tlbench.run(resume="a")
    assert [r.status for r in run.records] == ["ok"] * 4


def test_a_prompt_survives_the_second_interrupt(monkeypatch):
    """A notebook's kernel holds more than the run."""
    monkeypatch.setattr(sys, "ps1", "In : ", raising=False)
    before = [signal.getsignal(number) for number in SIGNALS]
    with Stop() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.signal == signal.SIGINT
        assert [signal.getsignal(number) for number in SIGNALS] == before


SCRIPT = """
import asyncio
import tlbench

async def measure():
    return tlbench.run(
        backbone="mobilenet_v3_small", weights="random", freeze="last_1", image_size=32, train_size=32, epochs=1,
        batch_size=16, layout="contiguous", threads=1, twins=0, out="run",
    )

run = asyncio.run(measure())
print(run)
print("RECORDS", [r.status for r in run.records], run.frame.accuracy_test.notna().tolist())
"""


def test_a_script_without_a_guard(tmp_path):
    """A process that imported the script again would measure without end. The event loop is as in a notebook."""
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert "RECORDS ['ok'] [True]" in done.stdout
    assert "mobilenet_v3_small *" in done.stdout


# --- what is documented ---------------------------------------------------------------------------------------


def test_the_documented_lines_work(measured, photos, tmp_path, monkeypatch):
    """Those of docs/python.md one after the other, then the README's."""
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.S)
    assert len(blocks) == 4
    blocks = [block for block in blocks if "per_class" not in block]  # these records know no single images
    names: dict = {}
    for block in blocks:
        exec(block, names)
    assert len(names["run"].records) == 12
    assert names["COLUMNS"] is tlbench.frame.COLUMNS
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^run = tlbench\.run\(.*\)$", readme, re.M)
    exec(line, names)
    assert len(names["run"].records) == 4
    (tmp_path / "results" / "RUN").symlink_to(names["run"].folder)
    (call,) = re.findall(r"`(tlbench\.plots\.\w+\(tlbench\.load\(.*?\)\))`", readme)
    assert eval(call, names).figure is not None


def test_an_install_tells_type_checkers_that_it_is_typed():
    assert (Path(tlbench.__file__).parent / "py.typed").exists()
