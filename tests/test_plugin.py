"""The pytest plugin: options, going on with a run, isolated cells, what pytest-benchmark shows of them."""

import errno
import io
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

import pytest
from bits import results
from conftest import save_image
from records import record
from tiers import sweep
from typer.testing import CliRunner

from tlbench.analysis.compare import compare
from tlbench.analysis.sides import read_run
from tlbench.cli.table import app
from tlbench.grid.axes import AXES
from tlbench.grid.settings import SETTINGS
from tlbench.measure import cell as run_module
from tlbench.records.identity import Facts
from tlbench.records.plan import load_start
from tlbench.records.run_folder import RECORDS, load

BENCH = Path(__file__).parent.parent / "bench"
GRID = ["--tl-freeze=linear_probe,full", "--tl-seeds=0,1", "--tl-threads=1", "--tl-out=run"]
NAMES = [f"resnet18-{freeze}-linear-digits-cpu-s{seed}" for freeze in ("linear_probe", "full") for seed in (0, 1)]
ORDER = NAMES


class Session:
    """What became of the tests of one session of pytest."""

    def __init__(self):
        self.outcomes, self.warnings = Counter(), []
        self.status, self.text = None, ""

    def pytest_runtest_logreport(self, report):
        if report.when == "call" or report.outcome == "skipped":
            self.outcomes[report.outcome] += 1

    def pytest_warning_recorded(self, warning_message):
        self.warnings.append(str(warning_message.message))


@pytest.fixture
def bench(tmp_path, monkeypatch, capsys):
    """Runs the benchmarks in this process: ``bench(option, …) -> Session``."""
    shutil.copy(BENCH / "test_train.py", tmp_path / "test_train.py")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tlbench.report.write_report", lambda records, folder: folder / "report.html")
    for name in ("test_train", "test_inference"):  # tests/ has a file of this name, whose module would be taken for it
        monkeypatch.delitem(sys.modules, name, raising=False)

    def run(*options):
        # Looking for unraisable exceptions collects garbage five times, here with all that the outer session holds.
        session = Session()
        session.status = pytest.main(
            [
                "--benchmark-only", "-o", "python_functions=trai[n] infe[r]", "--rootdir=.", "--import-mode=importlib",
                "-p", "no:cacheprovider", "-p", "no:unraisableexception", "-s", "-rs", *options,
            ],
            plugins=[session],
        )  # fmt: skip
        session.text = "".join(capsys.readouterr())
        return session

    return run


@pytest.fixture
def measured(monkeypatch):
    """Cells are not run: each gives the record that `becomes` makes of it. Keeps the names of those asked for."""

    class Measured(list):
        def becomes(self, fake):
            return fake

        def __call__(self, cell, settings, clock=None, *, place):
            self.append(place.name)
            if clock is not None:
                clock(lambda: None, lambda: None, 3, [])
            return self.becomes(
                replace(
                    record(freeze=cell.freeze),
                    id=place.name,
                    cell=cell,
                    settings=settings,
                    block=place.block,
                    role=place.role,
                )
            )

    found = Measured()
    monkeypatch.setattr(run_module, "run_cell", found)
    return found


def keep(folder, *positions):
    lines = (folder / RECORDS).read_bytes().splitlines(keepends=True)
    (folder / RECORDS).write_bytes(b"".join(lines[position] for position in positions))


# --- going on with a run --------------------------------------------------------------------------------------


def test_a_run_is_begun_with_a_plan(bench, measured, tmp_path):
    assert bench(*GRID).outcomes == {"passed": 4}
    assert measured == ORDER
    plan = load_start(tmp_path / "run").plan
    assert plan.grids[0].axes["freeze"] == ("linear_probe", "full")
    assert plan.settings.threads == 1
    assert plan.settings.isolate == "none"


def test_own_images_are_the_same_cells_under_pytest_and_on_the_command_line(bench, measured, tmp_path):
    """The pixels, epochs and images of the first grid are for its digits."""
    shutil.copy(BENCH / "test_inference.py", tmp_path / "test_inference.py")
    shutil.copytree(BENCH / "grids", tmp_path / "grids")
    for number in range(8):
        for label, color in (("dark", 20), ("light", 180)):
            save_image(tmp_path / "photos" / label / f"{number}.png", color, seed=number)
    session = bench("--tl-dataset=folder:photos", "--tl-out=run", "--tl-twins=0", ".")
    plain = CliRunner().invoke(app, ["run", "photos", "--dry-run"])
    # 8 cells of inference, and 32 of training in five folds each, since one split would test on one or two photographs.
    assert (session.outcomes, plain.exit_code) == ({"passed": 8 + 32 * 5}, 0)
    assert sorted(measured) == sorted(line.partition(" ")[2] for line in plain.stdout.splitlines())
    assert not any("64px" in name for name in measured)
    assert {(c.image_size, c.train_size, c.epochs) for c in load_start(tmp_path / "run").plan.cells()} == {
        (None, None, 5), (None, None, 1),
    }  # fmt: skip
    assert "the grid's epochs 3, image-size 64, train-size 600 are for digits" in plain.stderr


def test_it_is_said_once_what_will_be_measured(bench, measured, tmp_path):
    """Before the first benchmark, whatever pytest captures; of what is chosen alone."""
    text = bench(*GRID, "-k", "full", "--capture=fd").text
    assert text.count("RANDOM weights, since") == 1
    assert text.index("cells    2 of training (resnet18 × full × linear × 2 seeds)") < text.index("passed")
    assert "; results in run" in text
    assert "weights " not in bench("--tl-resume=run", "--collect-only").text
    assert "\ncells " not in bench("--tl-resume=run", "-k", "full").text, "all of these are there"


ELSEWHERE = """
def train(tl_run):
    assert tl_run().status == "ok"


class TestMine:
    def infer(self, tl_run):
        tl_run()

    def train(self, tl_run):
        tl_run()


def train_nothing(tl_run):
    raise AssertionError("no test, by its name")


def infer():
    raise AssertionError("no benchmark, without the fixture")
"""


@pytest.mark.parametrize("patterns", ["test", "check_*"])
def test_benchmarks_copied_into_another_project_are_collected(patterns, bench, measured, tmp_path):
    """Whatever it calls a test: `train` and `infer` are tests by the settings of this project alone."""
    shutil.copy(BENCH / "test_inference.py", tmp_path / "test_inference.py")
    own = f"python_functions={patterns}"
    options = ["-o", own, "--tl-backbone=resnet18", "--tl-task=train,infer", "--tl-threads=1", "--tl-twins=0"]
    assert bench(*options, "--tl-out=one").outcomes == {"passed": 2}
    assert len(measured) == 2
    (tmp_path / "test_train.py").unlink()
    (tmp_path / "test_inference.py").unlink()
    (tmp_path / "test_mine.py").write_text(ELSEWHERE)
    session = bench(*options, "--tl-out=two", "test_mine.py")
    assert session.outcomes == {"passed": 3}, session.text


OF_TASK = {"train": "resnet18-linear_probe-linear-digits-cpu-s0", "infer": "resnet18-linear-digits-cpu-s0"}


@pytest.mark.parametrize(
    ("name", "tasks"),
    [
        ("test_train", ["train"]),
        ("test_training_of_mine", ["train"]),
        ("test_inference", ["infer"]),
        ("test_mine", ["train", "infer"]),
    ],
)
def test_a_benchmark_of_ones_own_measures_the_task_of_its_name(name, tasks, bench, measured, tmp_path):
    (tmp_path / "test_train.py").write_text(f"def {name}(tl_run):\n    tl_run()\n")
    axes = ["--tl-backbone=resnet18", "--tl-task=train,infer", "--tl-threads=1", "--tl-twins=0"]
    session = bench("-o", "python_functions=test", *axes)
    assert session.outcomes == {"passed": len(tasks)}, session.text
    assert sorted(measured) == sorted(OF_TASK[task] for task in tasks)


def test_a_task_without_cells_is_one_empty_test(bench, measured, tmp_path):
    shutil.copy(BENCH / "test_inference.py", tmp_path / "test_inference.py")
    assert bench(*GRID).outcomes == {"passed": 4, "skipped": 1}


@pytest.mark.parametrize("kept", [(), (0, 1), (0, 3), (1, 2), (0, 1, 2, 3)], ids=str)
def test_only_what_is_missing_runs(kept, bench, measured, tmp_path):
    bench(*GRID)
    keep(tmp_path / "run", *kept)
    measured.clear()
    there = len(kept)
    done = bench("--tl-resume=run")
    assert done.outcomes == Counter(passed=4 - there, skipped=there)
    if there:
        assert fnmatch(done.text, "*already measured in run*")
    assert Counter(measured) == Counter(ORDER) - Counter(ORDER[position] for position in kept)
    assert sorted(r.id for r in load(tmp_path / "run").records) == sorted(ORDER)
    assert fnmatch(done.text, "*Report: run/report.html*")


def test_axes_add_cells_and_a_torn_line_is_named(bench, measured, tmp_path):
    bench(*GRID)
    with (tmp_path / "run" / RECORDS).open("ab") as file:
        file.write(b'{"torn')
    measured.clear()
    done = bench("--tl-resume=run", "--tl-seeds=1,2")
    assert done.outcomes == {"passed": 2, "skipped": 4}
    assert fnmatch(done.text, "*set aside*records.jsonl:5*")
    assert measured == [name.replace("s1", "s2") for name in NAMES if name.endswith("s1")]


def test_what_is_noisy_runs_again_on_request(bench, measured, tmp_path):
    measured.becomes = lambda fake: replace(fake, validity="noisy" if fake.id == NAMES[1] else "ok")
    bench(*GRID)
    measured.clear()
    assert bench("--tl-resume=run", "--tl-rerun=noisy").outcomes == {"passed": 1, "skipped": 3}
    assert measured == [NAMES[1]]


def test_second_tries_of_a_run_that_goes_on_are_not_left_out_without_a_word(bench, measured, tmp_path):
    """`tlbench run --isolate none --retry-noisy 1` has made it; pytest's own process times each benchmark once."""
    with pytest.MonkeyPatch.context() as unchecked:
        unchecked.setattr("tlbench.pytest_plugin.bench._check_tries", lambda settings: None)
        bench(*GRID, "--tl-retry-noisy=1")
    keep(tmp_path / "run", 0)
    measured.clear()
    for _ in range(2):  # the run is not held by the first that is refused
        done = bench("--tl-resume=run")
        assert done.status == 2
        assert fnmatch(done.text, "*--tl-retry-noisy needs --tl-isolate backbone or cell*")
        assert "another process" not in done.text
    assert measured == []


def test_what_has_failed_runs_again(bench, measured, tmp_path):
    measured.becomes = lambda fake: replace(fake, status="failed" if fake.id == NAMES[1] else "ok", reason="because")
    assert bench(*GRID).outcomes == {"passed": 3, "failed": 1}
    measured.clear()
    measured.becomes = lambda fake: fake
    assert bench("--tl-resume=run").outcomes == {"passed": 1, "skipped": 3}
    assert measured == [NAMES[1]]


def test_each_block_has_its_twins(bench, measured):
    assert bench(*GRID, "--tl-blocks=2", "--tl-twins=2").outcomes == {"passed": 8}
    for block in (measured[:6], measured[6:]):
        assert sorted(block[:4]) == sorted(NAMES)
        assert len({name.removeprefix("A/A ") for name in block[4:]} & set(NAMES)) == 2


def test_a_part_of_a_block_has_twins_too(bench, measured):
    assert bench(*GRID, "--tl-twins=1", "-k", "full").outcomes["passed"] == 2
    assert [name.startswith("A/A ") for name in measured] == [False, False, True]


def test_too_many_failures_stop_the_session(bench, measured):
    measured.becomes = lambda fake: replace(fake, status="oom", reason="because")
    done = bench(*GRID, "--tl-max-failures=3")
    assert done.outcomes == {"failed": 3}
    assert fnmatch(done.text, "*3 cells have failed (--max-failures 3)*")


def test_images_that_have_changed_end_the_session(bench, measured, tmp_path):
    measured.becomes = lambda fake: replace(fake, data_sha256=str(len(measured)))
    done = bench(*GRID)
    assert done.status == 2
    assert fnmatch(done.text, "*the images of*have changed since*")
    assert [r.id for r in load(tmp_path / "run").records] == NAMES[:2]


# --- bad input ------------------------------------------------------------------------------------------------


MISTAKES = [
    (["--tl-backbone=resnet81"], "*did you mean 'resnet18'*"),
    (["--tl-dataset=folder:none-such"], "*does not exist*"),
    (["--tl-out=file/run"], "*cannot write to results folder*"),
    (["--tl-grid=none.toml"], "*does not exist*"),
    (["--tl-threads=x"], "*--threads: 'x' is not a whole number*"),
    (["--tl-resume=none-such"], "*there is no such folder*"),
    (["--tl-resume=x", "--tl-out=y"], "*leave --tl-out away*"),
    (["--tl-rerun=noisy"], "*name the run with --tl-resume RUN*"),
    (["--tl-plugin=none.py"], "*plugin 'none.py' cannot be imported*"),
    (["--tl-cell-timeout=5"], "*--cell-timeout needs --isolate*"),
    (["--tl-retry-noisy=1"], "*--tl-retry-noisy needs --tl-isolate backbone or cell*"),
    (["--tl-isolate=cells"], "*did you mean 'cell'*"),
]


@pytest.mark.parametrize(("options", "words"), sweep(MISTAKES, MISTAKES[:3]))
def test_bad_input_ends_the_session_before_anything_runs(options, words, bench, measured, tmp_path):
    (tmp_path / "file").write_text("")
    done = bench(*options)
    assert done.status == 2
    assert sum(fnmatch(line, words) for line in done.text.splitlines()) == 1
    assert "Traceback" not in done.text
    assert "ERROR" not in done.text
    assert measured == []
    assert not (tmp_path / "results").exists()


@pytest.mark.exhaustive
def test_a_changed_setting_is_refused(bench, measured, tmp_path):
    bench(*GRID)
    measured.clear()
    done = bench("--tl-resume=run", "--tl-threads=2")
    assert done.status == 2
    assert fnmatch(done.text, "*threads was 1, now it is 2*")
    assert measured == []
    keep(tmp_path / "run", 0)
    assert bench("--tl-resume=run", "--tl-threads=1", "--tl-max-failures=9").outcomes == {"passed": 3, "skipped": 1}


# --- real cells -----------------------------------------------------------------------------------------------


@pytest.mark.exhaustive
def test_isolated_cells_show_their_own_times(bench, tmp_path):
    shutil.copy(BENCH / "test_inference.py", tmp_path / "test_inference.py")
    for split, count in (("train", 8), ("val", 4)):
        for label, color in (("dark", 20), ("light", 180)):
            for n in range(count):
                save_image(tmp_path / "photos" / split / label / f"{n}.jpg", color, seed=n)
    grid = [
        "--tl-backbone=mobilenet_v3_small", "--tl-weights=random", "--tl-image-size=32", "--tl-epochs=3",
        "--tl-batch-size=8", "--tl-layout=contiguous", "--tl-threads=1", "--tl-task=train,infer",
        "--tl-dataset=folder:photos", "--tl-twins=0",
    ]  # fmt: skip
    assert bench(*grid, "--tl-isolate=backbone", "--tl-out=many", "--benchmark-json=many.json").outcomes == {
        "passed": 2
    }
    assert bench(*grid, "--tl-out=one").outcomes == {"passed": 2}
    many, one = load(tmp_path / "many").records, load(tmp_path / "one").records
    assert [results(r) for r in many] == [results(r) for r in one]
    assert [r.settings.isolate for r in many + one] == ["backbone"] * 2 + ["none"] * 2
    shown = json.loads((tmp_path / "many.json").read_text())["benchmarks"]
    by_task = {r.cell.task: r for r in many if r.role == "cell"}
    assert {one["group"]: one["stats"]["data"] for one in shown} == {
        "train": [r.seconds for r in by_task["train"].rounds],
        "infer": list(by_task["infer"].latency_seconds),
    }
    assert len(by_task["train"].rounds) == 3
    for one in shown:
        made = by_task[one["group"]]
        assert one["extra_info"]["key"] == made.key
        assert one["extra_info"]["identity"] == Facts.of([made]).to_dict()
        assert made.images_sha256
    found = compare([read_run(tmp_path / "many.json")], [read_run(tmp_path / "one")], noise_floor=1.0)
    assert len({change.cell for change in found.changes}) == 2
    assert (found.only_base, found.only_new, found.cautions) == ((), (), ())


# --- devices --------------------------------------------------------------------------------------------------


def test_speed_ups_need_two_devices(bench, measured, monkeypatch, tmp_path):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    session = bench(*GRID, "-m", "speedup")
    assert session.outcomes == {"skipped": 4}
    assert "needs a CUDA GPU that torch can use beside the CPU" in session.text
    assert measured == []
    assert not (tmp_path / "run").exists()


def test_speed_ups_are_measured_where_there_are_two_devices(bench, measured, monkeypatch, tmp_path):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    session = bench(*GRID, "-m", "speedup", "--tl-precision=fp32")
    assert session.outcomes == {"passed": 8}
    assert {r.cell.device for r in load(tmp_path / "run").records} == {"cpu", "cuda"}
    assert "cuda over cpu" in session.text


def test_only_what_has_a_partner_is_a_speed_up(bench, measured, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert bench(*GRID, "-m", "speedup", "--tl-device=cuda").outcomes == {"skipped": 4}
    assert bench(*GRID, "-m", "not speedup").outcomes == {"passed": 4}


def test_pytests_help_names_every_option():
    """A per cent sign in a help text is the beginning of a value for argparse."""
    done = subprocess.run([sys.executable, "-m", "pytest", "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in (*(axis.option for axis in AXES.values()), *SETTINGS):
        assert f"--tl-{name}" in done.stdout, name


# --- how it gets on -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [(), ("--capture=fd",), ("-v", "--capture=fd")], ids=" ".join)
def test_each_benchmark_says_what_came_of_it_and_how_long_the_rest_takes(options, bench, measured):
    """There were dots alone, for minutes."""
    text = bench(*GRID, *options).text
    lines = [line for line in text.splitlines() if re.match(r"\d/4 ", line)]
    cells = [(policy, seed) for policy in ("linear_probe", "full") for seed in (0, 1)]
    assert [line.partition(":")[0] for line in lines] == [
        f"{place}/4 resnet18 {policy} linear seed {seed}" for place, (policy, seed) in enumerate(cells, start=1)
    ]
    assert all("%" in line for line in lines), lines
    assert [line.endswith(" left") for line in lines] == [True] * 3 + [False]


def test_one_that_fails_says_so_and_quiet_is_quiet(bench, measured):
    measured.becomes = lambda fake: replace(fake, status="oom", reason="because")
    assert bench(*GRID).text.count("OUT OF MEMORY: because") == 4
    measured.becomes = lambda fake: fake
    assert not re.search(r"^1/4 ", bench(*GRID[:-1], "--tl-out=again", "-q").text, re.MULTILINE)


# --- pytest-benchmark's own gate, and what the checks have found ------------------------------------------------


def test_a_regression_leaves_our_report_and_one_line(bench, measured, tmp_path):
    """pytest-benchmark raises in the middle of the summary: what was measured is shown and kept all the same."""
    assert bench(*GRID, "--benchmark-save=first").status == 0
    (saved,) = (tmp_path / ".benchmarks").rglob("*_first.json")
    before = json.loads(saved.read_text())
    for one in before["benchmarks"]:
        one["stats"]["mean"] = 1e-12
    saved.write_text(json.dumps(before))
    done = bench(*GRID[:-1], "--tl-out=again", "--benchmark-compare", "--benchmark-compare-fail=mean:5%")
    assert done.status == 1
    assert "Traceback" not in done.text
    assert "PerformanceRegression" not in done.text
    told = "*Verdict for*Report: again/report.html*pytest-benchmark: Performance has regressed.*4 passed*"
    assert fnmatch(done.text, told)
    assert len(load("again").records) == 4


def test_a_gate_without_what_to_compare_with_leaves_our_report(bench, measured):
    done = bench(*GRID, "--benchmark-compare-fail=mean:5%")
    assert done.status == 1
    assert fnmatch(done.text, "*Report: run/report.html*--benchmark-compare-fail requires valid --benchmark-compare*")


def test_what_the_checks_have_found_is_said_once(bench, measured, photos):
    shutil.copy(photos / "train" / "dark" / "0.jpg", photos / "val" / "dark" / "copy.jpg")
    done = bench("--tl-backbone=resnet18", "--tl-out=run", f"--tl-dataset=folder:{photos}")
    assert done.status == 0, done.text
    assert done.text.count("copies of training or validation images") == 1


def test_a_terminal_that_is_gone_does_not_end_a_session(bench, measured, tmp_path, monkeypatch):
    """As one that is closed, or a full disk that its words go to: pytest itself would end at the next dot."""
    gone = []

    class Terminal(io.StringIO):
        def write(self, text):
            if gone:
                raise OSError(errno.EIO, "Input/output error")
            return super().write(text)

    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    measured.becomes = lambda fake: gone.append(1) or fake
    done = bench(*GRID)
    assert done.status == 0
    assert done.outcomes == {"passed": 4}
    assert "INTERNALERROR" not in terminal.getvalue() + done.text
    assert len(load(tmp_path / "run").records) == 4


@pytest.mark.parametrize("name", ["tlbench.report.write_report", "tlbench.report.terminal.print_summary"])
def test_summary_and_report_cost_each_other_nothing(name, bench, measured, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise ValueError("no good")

    monkeypatch.setattr(name, fail)
    done = bench(*GRID)
    assert done.status == 0
    assert done.outcomes == {"passed": 4}
    assert ": ValueError: no good (test_plugin.py, line" in done.text
    assert ("Verdict for" in done.text) == ("report.write" in name)
    assert ("Report: run/report.html" in done.text) == ("summary" in name)
