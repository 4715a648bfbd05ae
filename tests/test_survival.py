"""What is measured survives what follows: a report that fails in part, a process that is killed, a terminal that is
gone.

With ``TLBENCH_SURVIVAL_KILLS=100`` report and run are killed so many times each, as `.ci/long` does.
"""

import contextlib
import errno
import io
import json
import os
import pty
import random
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import matplotlib as mpl
import pandas as pd
import pytest
import survivors
from matplotlib.figure import Figure
from records import example_run, record

import tlbench
from tlbench import cli, console
from tlbench.analysis.frame import rows
from tlbench.campaign.stop import Stop, despite_hangup
from tlbench.cli import output
from tlbench.console import IN_ASCII, Steady, legible
from tlbench.errors import UserError
from tlbench.measure import cell as run_module
from tlbench.records.run_folder import Store, load
from tlbench.report import contents, notebook, plots, together, write_report
from tlbench.report.plots import look
from tlbench.report.together import WHOLE, replace_together, settle

KILLS = int(os.environ.get("TLBENCH_SURVIVAL_KILLS", "0"))
SHORT = {"report": 4, "run": 2}


@pytest.fixture
def no_figures(monkeypatch):
    monkeypatch.setattr(plots, "PLOTS", {})


@pytest.fixture
def one_figure(monkeypatch):
    """One figure that is drawn in no time."""
    monkeypatch.setattr(plots, "PLOTS", {"mine": plots.Plot(title="Mine", caption="", draw=lambda rows: Figure())})


def contents_of(folder):
    """Name -> bytes of all files of a report, and whatever else lies there."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- a part that fails ----------------------------------------------------------------------------------------


def fail(*_, **__):
    raise ValueError("no good\nat all")


def break_figure(patch):
    patch.setitem(plots.PLOTS, "bad", plots.Plot(title="Bad", caption="", draw=fail))


def break_matplotlib(patch):
    patch.delattr("tlbench.report.plots")
    patch.setitem(sys.modules, "tlbench.report.plots", None)


def break_page(patch):
    page = tlbench.report._page
    patch.setattr("tlbench.report._page", lambda name, given: fail() if "html" in name else page(name, given))


PARTS = {
    "a figure": (break_figure, {"figures/bad.png", "figures/bad.svg"}, "the figure 'Bad'"),
    "its PNG": (lambda patch: patch.setattr("tlbench.report._png", fail), {"figures/mine.png"}, "figures/mine.png"),
    "matplotlib": (
        break_matplotlib,
        {"figures/mine.png", "figures/mine.svg"},
        "its figures: matplotlib does not start",
    ),
    "the page": (break_page, {"report.html"}, "report.html"),
    "all pages": (
        lambda patch: patch.setattr(contents, "context", fail),
        {"report.html", "report.md"},
        "report.html and report.md",
    ),
    "CSV": (lambda patch: patch.setattr("tlbench.report.write_csv", fail), {"report.csv"}, "report.csv"),
    "Parquet": (
        lambda patch: patch.setattr("pyarrow.parquet.write_table", fail),
        {"report.parquet", "records.parquet"},
        "report.parquet",
    ),
}
ALL = {"report.html", "report.md", "report.csv", "report.parquet", "records.parquet"}
ALL |= {f"figures/{name}.{ending}" for name in ("mine", "bad") for ending in ("png", "svg")}


def test_figures_of_somebody_else_stay(tmp_path, one_figure):
    (tmp_path / "figures").mkdir()
    own = [tmp_path / "figures" / f"architecture.{ending}" for ending in ("png", "svg")]
    for path in own:
        path.write_text("own")
    for _ in range(2):
        write_report([record()], tmp_path)
        assert [path.read_text() for path in own] == ["own", "own"]


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_cannot_be_made_costs_that_part_and_a_line(part, tmp_path, monkeypatch, one_figure, capsys):
    break_it, missing, words = PARTS[part]
    for name in ALL:  # an earlier report had all of them: none of its files stays beside new ones
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("earlier")
    (tmp_path / "report.html").write_text('earlier <figure id="figure-mine"> <figure id="figure-bad">')
    break_it(monkeypatch)
    path = write_report([record()], tmp_path)
    there = contents_of(tmp_path)
    if part != "a figure":
        missing = missing | {"figures/bad.png", "figures/bad.svg"}
    assert set(there) == ALL - missing
    assert not any(content.startswith(b"earlier") for content in there.values())
    assert path == tmp_path / next(name for name in ("report.html", "report.md", "report.csv") if name not in missing)
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith(f"tlbench: the report lacks {words}")
    if part not in ("matplotlib",):
        assert "ValueError: no good (test_survival.py, line" in told[0]
    assert len(told) == (2 if part == "Parquet" else 1), "a line for each file"
    if part in ("a figure", "matplotlib"):
        assert re.search(r"Bad|All figures", there["report.html"].decode())
        assert "Not drawn" in there["report.md"].decode()
    if part == "its PNG":
        assert "](figures/mine.svg)" in there["report.md"].decode()
    if part == "Parquet":
        assert "pip install" not in there["report.html"].decode()


def test_where_nothing_can_be_made_the_earlier_report_stays(tmp_path, monkeypatch, no_figures):
    write_report([record()], tmp_path)
    before = contents_of(tmp_path)
    for part in ("all pages", "CSV", "Parquet"):
        PARTS[part][0](monkeypatch)
    with pytest.raises(UserError, match="no part of the report can be made: the report lacks"):
        write_report([record(), record(seed=1)], tmp_path)
    assert contents_of(tmp_path) == before


# --- files that come into place together ------------------------------------------------------------------------

OLD = {"report.html": b"old", "report.csv": b"old", "figures/a.png": b"old", "figures/gone.png": b"old"}
NEW = {"report.html": b"new", "report.md": b"new", "report.csv": b"new", "figures/a.png": b"new"}
EARLIER = {*OLD, *NEW}


class Killed(BaseException):
    """Stands for SIGKILL."""


def old_report(folder):
    (folder / "records.jsonl").write_bytes(b"records")
    replace_together(folder, OLD, ())
    assert contents_of(folder) == OLD | {"records.jsonl": b"records"}


def test_a_process_that_is_killed_at_any_step_leaves_the_old_report_or_the_new_one(tmp_path):
    """At each of the calls that change a folder, whichever comes k-th."""
    ends = []
    for last in range(100):
        folder = tmp_path / str(last)
        folder.mkdir()
        old_report(folder)
        try:
            with pytest.MonkeyPatch.context() as patch:
                killed_after(last, patch)
                replace_together(folder, NEW, EARLIER)
        except Killed:
            there = contents_of(folder)
            assert there["report.html"] in (b"old", b"new")
            assert {content for name, content in there.items() if "/" not in name} <= {b"old", b"new", b"records"}
            settle(folder)
            there = {name: content for name, content in contents_of(folder).items() if not name.startswith(".report-")}
            assert there in (OLD | {"records.jsonl": b"records"}, NEW | {"records.jsonl": b"records"}), last
            ends.append(there["report.html"])
            replace_together(folder, NEW, EARLIER)
        assert contents_of(folder) == NEW | {"records.jsonl": b"records"}
        assert {path.name for path in folder.iterdir()} == {*NEW, "figures", "records.jsonl"} - {"figures/a.png"}
        if len(ends) == last:
            break
    assert ends == sorted(ends, reverse=True), "from some step on it is the new one"
    assert {*ends} == {b"old", b"new"}
    assert len(ends) > 10


def killed_after(steps, patch):
    """Lets so many calls that change a folder through, and from then on none."""
    left = [steps]

    def counted(call):
        def counting(*given, **words):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return call(*given, **words)

        return counting

    for owner, name in ((os, "replace"), (os, "rename"), (Path, "write_bytes"), (Path, "unlink"), (Path, "mkdir")):
        patch.setattr(owner, name, counted(getattr(owner, name)))
    remove = shutil.rmtree  # what is dead cleans nothing up
    patch.setattr(together.shutil, "rmtree", lambda *given, **words: remove(*given, **words) if left[0] >= 0 else None)


def test_a_command_that_reads_a_run_brings_what_was_left_into_place(tmp_path, command):
    Store(tmp_path).append(record())
    (tmp_path / WHOLE / "figures").mkdir(parents=True)
    for name in ("report.html", "figures/a.svg", "records.jsonl", "figures/x.py"):
        (tmp_path / WHOLE / name).write_text("new")
    (tmp_path / WHOLE / together.GONE).write_text(json.dumps(["report.md", "records.jsonl", "../x", "mine.txt"]))
    for name in ("report.md", "mine.txt"):
        (tmp_path / name).write_text("old")
    records = (tmp_path / "records.jsonl").read_bytes()
    assert command("export", tmp_path)[0] == 0
    left = contents_of(tmp_path)
    assert left == {"report.html": b"new", "figures/a.svg": b"new", "mine.txt": b"old", "records.jsonl": records}
    assert not (tmp_path / WHOLE).exists(), "what is no report's is not moved"


def test_what_a_dead_process_left_aside_is_removed_and_what_a_living_one_fills_is_not(tmp_path):
    dead, living = (tmp_path / f".report-{name}.part" for name in ("dead", "living"))
    for path in (dead, living):
        path.mkdir()
        (path / "report.html").write_text("half")
    with together._locked(living):
        assert replace_together(tmp_path, NEW, ()) == []
        assert not dead.exists()
        assert living.exists()
    replace_together(tmp_path, NEW, ())
    assert not living.exists()


@contextlib.contextmanager
def largest_file(size):
    """As the closest that a user without privileges can come to a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_has_no_room_is_left_out_and_without_room_for_the_page_nothing_changes(tmp_path):
    old_report(tmp_path)
    with largest_file(10_000):
        lost = replace_together(tmp_path, {**NEW, "figures/b.png": bytes(20_000)}, {*EARLIER, "figures/b.png"})
        assert lost == [("figures/b.png", "File too large")]
        there = contents_of(tmp_path)
        assert there == NEW | {"records.jsonl": b"records"}
        with pytest.raises(OSError, match="File too large"):
            replace_together(tmp_path, {"report.html": bytes(20_000), "report.md": b"newer"}, EARLIER)
    assert contents_of(tmp_path) == there


def test_what_had_no_room_is_said_in_a_line(tmp_path, no_figures, capsys):
    with largest_file(5_000):
        with pytest.raises(
            UserError, match=r"cannot write the report to .*: File too large; what is there stays; .*--out"
        ):
            write_report([record()], tmp_path)
        assert contents_of(tmp_path) == {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tlbench.report._page", lambda *_: "small")
        patch.setattr("tlbench.report._csv", lambda *_: "x" * 40_000)
        with largest_file(30_000):
            write_report([record()], tmp_path)
    assert "report.csv" not in contents_of(tmp_path)
    assert "tlbench: the report lacks report.csv" in capsys.readouterr().err


IN_THE_WAY = {
    "a folder": ("report.md", lambda path: path.mkdir(), "Is a directory"),
    "a file": ("figures", lambda path: path.write_text("mine"), "Not a directory"),
}


@pytest.mark.parametrize("what", IN_THE_WAY)
def test_what_is_in_the_way_stays_and_costs_its_part(what, tmp_path):
    name, make, reason = IN_THE_WAY[what]
    make(tmp_path / name)
    lost = replace_together(tmp_path, NEW, EARLIER)
    assert lost == [(other, reason) for other in NEW if other.startswith(name)]
    assert (tmp_path / "report.html").read_bytes() == b"new"
    assert (tmp_path / name).is_dir() == (what == "a folder")


def test_links_are_replaced_not_followed(tmp_path):
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    run = tmp_path / "run"
    run.mkdir()
    (run / "report.html").symlink_to(mine)
    replace_together(run, NEW, EARLIER)
    assert mine.read_text() == "mine"
    assert (run / "report.html").read_bytes() == b"new"


# --- names ------------------------------------------------------------------------------------------------------

MONEY = "$x^$ a$b$"
FEW = ("accuracy_against_cost", "heat_map", "latency", "step_time", "throughput")
"""Together they have what all have: titles, legends, ticks, names of lines, words at a point."""


def costly_run():
    """Every name that a person may choose has dollars in it."""
    made = example_run(
        backbones=("resnet18", "efficientnet_lite0"), policies=("full",), heads=("linear",), seeds=(0, 1)
    )
    made = [replace(one, weights={**one.weights, "pretrained": True}) for one in made]
    both = [
        replace(one, cell=replace(one.cell, dataset=f"folder:/data/{name}", weights=f"/w/{weights}.pth"))
        for one in made
        for name, weights in ((MONEY, "$x^$"), ("b$", "$x^$"))
    ]
    return [*both, *(replace(one, cell=replace(one.cell, backbone="my$net$")) for one in both)]


@pytest.mark.parametrize("name", FEW)
def test_a_dollar_is_drawn_as_it_is(name):
    figure = plots.PLOTS[name].draw(contents.ordered(rows(costly_run())))
    svg = look.as_svg(figure, name)
    texts = [text.get_text() for text in figure.findobj(mpl.text.Text)]
    assert any("$" in text for text in texts)
    for text in re.findall(r"\S*\$\S*", " ".join(texts)):
        assert text in svg, "not typeset, and not cut"


def test_a_notebook_shows_a_name_as_it_is():
    """Its HTML is searched for mathematics, its text for what no screen shows."""
    made = [replace(one, cell=replace(one.cell, weights=f"/w/{MONEY}\udce9.pth")) for one in costly_run()[:4]]
    shown = notebook.table_html(made, "a run", "Run: a$b$")
    plain = re.sub(r"<(table|div|pre) class=\"tex2jax_ignore mathjax_ignore\"", "", shown)
    assert MONEY in shown
    assert not re.search(r"<(table|div|pre)\b", plain)
    for text in (
        shown,
        notebook.table(made, "a run"),
        notebook.verdict(made, "a run"),
        notebook.preformatted("\udce9"),
    ):
        text.encode("utf-8")
        assert "\udce9" not in text


def test_a_plugins_figure_draws_dollars_and_not_a_users_settings(tmp_path, monkeypatch):
    def draw(summary):
        figure = Figure(figsize=(2, 1))
        axes = figure.subplots()
        axes.set_title(MONEY)
        axes.plot([0, 1], [0, 1])
        return figure

    monkeypatch.setattr(plots, "PLOTS", {"mine": plots.Plot(title="Mine", caption="", draw=draw)})
    write_report([record()], tmp_path / "plain")
    rude = {"text.usetex": True, "path.sketch": (1, 100, 2), "axes.facecolor": "red", "text.parse_math": True}
    with mpl.rc_context(rude):
        write_report([record()], tmp_path / "rude")
        picture = plots.PLOTS["mine"]([])
        assert picture._repr_png_()
    for name in ("mine.png", "mine.svg"):
        plain, drawn = ((tmp_path / run / "figures" / name).read_bytes() for run in ("plain", "rude"))
        assert plain == drawn
    assert MONEY.encode() in drawn


def test_a_path_that_is_no_text(tmp_path, command, monkeypatch):
    """A folder of Latin-1 names, on a file system that takes them."""
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")

    def draw(summary):
        figure = Figure(figsize=(2, 1))
        figure.suptitle(summary[0]["dataset"])
        return figure

    monkeypatch.setattr(plots, "PLOTS", {"mine": plots.Plot(title="Mine", caption="", draw=draw)})
    store = Store(folder)
    place = f"folder:/data/{folder.name}"
    for seed in (0, 1):
        made = record(dataset=place, weights=f"/w/{folder.name}.pth", seed=seed, initial={
            "source": f"/w/{folder.name}.pth", "pretrained": True, "sha256": "ab"})  # fmt: skip
        store.append(replace(made, output=f"warning of {folder.name}", dropped_images=1))
    assert load(folder).records[0].cell.dataset == place
    out = tmp_path / "out"
    for words in (("report", folder, "--out", out), ("report", folder, "--share", "--out", tmp_path / "shared"),
                  ("summary", folder), ("export", folder), ("export", folder, "--format", "json")):  # fmt: skip
        status, said, err = command(*words)
        assert (status, err) == (0, ""), words
        if words[0] == "summary":
            assert r"caf\udce9" in said
    assert [cell["dataset"] for cell in json.loads(said)] == [place] * 2
    for path in (*out.rglob("*.*"), *(tmp_path / "shared").rglob("*.*")):
        if path.suffix in (".html", ".md", ".csv", ".svg"):
            text = path.read_text(encoding="utf-8")
            assert r"caf\udce9" in text.replace("\\\\", "\\")
    for name in ("report.parquet", "records.parquet"):
        assert set(pd.read_parquet(out / name)["dataset"]) == {r"folder:/data/caf\udce9"}
    write_report(load(folder).records, folder)  # into itself, and a figure for a notebook
    assert plots.PLOTS["mine"](tlbench.load(folder))._repr_png_()


@pytest.mark.parametrize("name", ["exp:1", "s3:bucket", "a b:c d/2", "~a#b?c=d%41"])
def test_a_folders_name_is_no_address(name, tmp_path, command, monkeypatch, one_figure):
    monkeypatch.chdir(tmp_path)
    Store(name).append(record())
    status, out, err = command("report", name)
    assert (status, err) == (0, "")
    assert out == f"{name}/report.html\n"
    assert set(contents_of(tmp_path / name)) == {"records.jsonl", *ALL} - {"figures/bad.png", "figures/bad.svg"}
    assert len(pd.read_parquet(io.BytesIO(Path(name, "report.parquet").read_bytes()))) == len(tlbench.load(name)) == 1


# --- runs -------------------------------------------------------------------------------------------------------


@pytest.fixture
def measured(monkeypatch):
    """Cells are not run: each gives a record, and `before` is called with its number."""
    found = SimpleNamespace(names=[], before=lambda number: None)

    def run_cell(cell, settings, *_, place):
        found.before(len(found.names))
        found.names.append(place.name)
        made = record(freeze=cell.freeze)
        return replace(made, id=place.name, cell=cell, settings=settings, block=place.block, role=place.role)

    monkeypatch.setattr(run_module, "run_cell", run_cell)
    return found


GRID = [
    "--freeze=linear_probe,full",
    "--seeds=0,1",
    "--isolate=none",
    "--threads=1",
    "--twins=0",
    "--layout=contiguous",
]
AFTERWARDS = {
    "the report": ("tlbench.report.write_report", 1, "no report is written: ValueError: no good ("),
    "the summary": ("tlbench.report.terminal.print_summary", 0, "the summary cannot be printed: ValueError: no good ("),
    "the progress": ("tlbench.progress.RunProgress.finish", 0, "what came of a cell cannot be shown: ValueError: no"),
    "what is expected": (
        "tlbench.analysis.expectation.Expectation.learn", 0, "the time that is left is not corrected: ValueError: no"
    ),
    "the memory": ("tlbench.campaign.memory.Memory.keep", 0, "what the run has told of the machine is not kept for"),
    "the noise": ("tlbench.campaign.memory.Memory.of", 0, "what is known of the machine's noise is not in the record"),
}  # fmt: skip


@pytest.mark.parametrize("what", AFTERWARDS)
def test_a_run_outlives_what_follows_its_measurements(what, command, measured, no_figures, tmp_path, monkeypatch):
    name, status, words = AFTERWARDS[what]
    monkeypatch.setattr(name, fail)
    ended, out, err = command("run", *GRID, "--out", tmp_path / "run")
    assert ended == status, err
    assert f"tlbench: {words}" in err
    assert "Traceback" not in err
    assert len(load(tmp_path / "run").records) == 4
    assert (tmp_path / "run" / "report.html").exists() == (what != "the report")
    assert ("Verdict for" in out) == (what != "the summary")


def test_the_summary_comes_before_the_report_is_made(command, measured, tmp_path, monkeypatch, capsys):
    def write(records, folder):
        assert "Verdict for" in capsys.readouterr().out
        return folder / "report.html"

    monkeypatch.setattr("tlbench.report.write_report", write)
    status, out, err = command("run", *GRID, "--out", tmp_path / "run")
    assert (status, out) == (0, f"Report: {tmp_path}/run/report.html\n"), err


def test_a_report_that_has_no_room_is_a_line_of_a_run(command, measured, no_figures, tmp_path):
    def less(number):
        if number == 3:
            size = (tmp_path / "run" / "records.jsonl").stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 5_000, before[1]))

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    measured.before = less
    try:
        status, out, err = command("run", *GRID, "--out", tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert status == 1
    assert "Verdict for" in out
    assert "tlbench: cannot write the report to" in err
    assert len(load(tmp_path / "run").records) == 4
    assert not list((tmp_path / "run").glob(".report-*"))


# --- terminals --------------------------------------------------------------------------------------------------


def full():
    return open("/dev/full", "w", encoding="utf-8")


def hung_up():
    """A terminal whose other side is closed: writing is an input/output error."""
    ours, theirs = os.openpty()
    os.close(ours)
    return os.fdopen(theirs, "w", encoding="utf-8")


def unread():
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w", encoding="utf-8")


def closed():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    stream.close()
    return stream


class Dying(io.StringIO):
    """A stream without a file, which fails from some moment on."""

    dead = False

    def write(self, text):
        if self.dead:
            raise OSError(errno.EIO, "Input/output error")
        return super().write(text)


def dying():
    stream = Dying()
    stream.dead = True
    return stream


LOST = {"full": full, "hung up": hung_up, "unread": unread, "closed": closed, "without a file": dying}


@pytest.mark.parametrize("how", LOST)
def test_a_stream_that_cannot_be_written_costs_its_words(how):
    stream = Steady(LOST[how]())
    for _ in range(2):
        assert stream.write("x" * 100_000) == 100_000
        stream.flush()
    assert isinstance(stream.error, OSError | ValueError)
    shown = console.new_console(file=stream)
    shown.print("more")
    with contextlib.suppress(ValueError):
        stream.stream.close()  # nothing is left in it that would fail now


def test_a_terminal_that_does_not_wait_is_waited_for():
    """Another program has left it so."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with os.fdopen(writer, "w", encoding="utf-8") as file, os.fdopen(reader, "rb") as read:
        stream = Steady(file)
        got = []
        thread = threading.Thread(target=lambda: (time.sleep(0.2), got.append(read.read())))
        thread.start()
        for _ in range(300):
            stream.write("x" * 1000)
        stream.write("y")
        stream.flush()
        assert stream.error is None
        file.close()
        thread.join(10)
    assert got[0].endswith(b"y")


@pytest.mark.parametrize(
    ("out", "err"), [("full", "full"), *(("as it is", how) for how in ("full", "hung up", "closed", "unread"))]
)
def test_a_run_outlives_its_terminal(out, err, measured, no_figures, tmp_path, monkeypatch):
    said = io.StringIO()
    streams = said if out == "as it is" else LOST[out](), LOST[err]()
    monkeypatch.setattr(sys, "argv", ["tlbench", "run", *GRID, "--out", str(tmp_path / "run")])
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", streams[0])
        patch.setattr(sys, "stderr", streams[1])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    assert ended.value.code == 0
    assert len(load(tmp_path / "run").records) == 4
    assert (tmp_path / "run" / "report.html").exists()
    assert ("Report: " in said.getvalue()) == (out == "as it is")


def test_words_that_are_lost_are_said_where_they_can_be(measured, no_figures, tmp_path, monkeypatch):
    said = io.StringIO()
    monkeypatch.setattr(sys, "argv", ["tlbench", "run", *GRID, "--out", str(tmp_path / "run")])
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", full())
        patch.setattr(sys, "stderr", said)
        with pytest.raises(SystemExit) as ended:
            cli.main()
    assert ended.value.code == 0
    lines = [line for line in said.getvalue().splitlines() if "cannot write" in line]
    assert lines == [
        "tlbench: cannot write to standard output: No space left on device; what the command leaves in files is there "
        "all the same"
    ]


@pytest.mark.parametrize(
    ("words", "status"), [(("summary",), 2), (("export",), 2), (("recommend",), 2), (("report",), 0)], ids=str
)
def test_a_result_that_cannot_be_printed_is_an_error_and_a_file_is_there(
    words, status, no_figures, tmp_path, monkeypatch
):
    Store(tmp_path / "run").append(record())
    said = io.StringIO()
    monkeypatch.setattr(sys, "argv", ["tlbench", *words, str(tmp_path / "run")])
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", full())
        patch.setattr(sys, "stderr", said)
        with pytest.raises(SystemExit) as ended:
            cli.main()
    assert ended.value.code == status
    assert said.getvalue().count("cannot write to standard output: No space left on device") == 1
    assert (tmp_path / "run" / "report.html").exists() == (words == ("report",))


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_terminal_of_few_characters_is_given_others(encoding, command, tmp_path, monkeypatch):
    store = Store(tmp_path)
    for one in example_run(backbones=("resnet18",), policies=("linear_probe", "full"), heads=("linear",)):
        store.append(replace(one, cell=replace(one.cell, dataset="folder:/data/фото")))
    for words in (("summary",), ("recommend",)):
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in "oe")
        monkeypatch.setattr(sys, "argv", ["tlbench", *words, str(tmp_path)])
        with monkeypatch.context() as patch, contextlib.suppress(SystemExit):
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            cli.main()
        text = (out.buffer.getvalue() + err.buffer.getvalue()).decode(encoding)
        assert "Traceback" not in text
        if encoding == "ascii" and words == ("summary",):
            assert "+/-" in text
            assert r"\u0444" in text
            assert "\N{PLUS-MINUS SIGN}" not in text


@pytest.mark.parametrize("columns", ["0", "1", "7"])
def test_a_terminal_that_calls_itself_that_narrow_is_given_lines_all_the_same(columns, command, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    Store(tmp_path).append(record())
    status, out, err = command("summary", tmp_path)
    assert (status, err) == (0, "")
    assert "Verdict for" in out
    assert max(map(len, out.splitlines())) <= console.NARROW or "tlbench run" in out


def test_every_character_that_we_print_has_one_of_ascii():
    assert all(text.isascii() for text in IN_ASCII.values())
    assert legible("84.0 ±2 · a…", "ascii") == "84.0 +/-2 / a..."
    assert legible("84.0 ±2 · a…", "utf-8") == "84.0 ±2 · a…"
    assert legible("caf\udce9", None) == r"caf\udce9"


def test_a_path_goes_to_a_program_as_the_bytes_that_it_is(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", stream)
    with output.lasting_output():
        print("caf\udce9 ±")
    assert stream.buffer.getvalue() == b"caf\xe9 \xc2\xb1\n"
    assert stream.errors == "strict"


def test_what_is_opened_does_not_take_the_place_of_a_closed_standard_error(tmp_path):
    """Else what a library writes there would be written into the records."""
    process = survivors.begin(survivors.without_standard_error, str(tmp_path))
    process.join(60)
    assert process.exitcode > 2


# --- signals ----------------------------------------------------------------------------------------------------


def test_a_hangup_is_no_wish_to_stop():
    before = signal.getsignal(signal.SIGHUP)
    with Stop() as stop:
        signal.raise_signal(signal.SIGHUP)
        with stop.measuring():
            signal.raise_signal(signal.SIGHUP)
    assert stop.signal is None
    assert signal.getsignal(signal.SIGHUP) == before


@pytest.mark.parametrize("own", [signal.SIG_IGN, lambda *_: None], ids=["nohup", "a program's own"])
def test_what_was_said_of_a_hangup_stays(own):
    before = signal.signal(signal.SIGHUP, own)
    try:
        with despite_hangup(), Stop():
            assert signal.getsignal(signal.SIGHUP) == own
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_stop_that_nobody_can_be_told_of_is_one(monkeypatch):
    def gone(*_):
        raise OSError(errno.EIO, "Input/output error")

    with Stop() as stop:
        monkeypatch.setattr(os, "write", gone)
        signal.raise_signal(signal.SIGTERM)
        assert stop.signal == signal.SIGTERM


def test_a_run_whose_window_is_closed_goes_on(tmp_path):
    """The kernel sends SIGHUP, and whatever is written is an error from then on."""
    ours, theirs = pty.openpty()
    process = survivors.begin(
        survivors.run, [*survivors.GRID, f"--out={tmp_path / 'run'}"], tmp_path / "cache", None, 0.1, os.ttyname(theirs)
    )
    seen = b""
    while b"1/6" not in seen:
        assert select.select([ours], [], [], 60)[0], seen
        seen += os.read(ours, 4096)
    os.close(theirs)
    os.close(ours)
    process.join(60)
    assert process.exitcode == 0
    loaded = load(tmp_path / "run")
    assert (len(loaded.records), loaded.damaged) == (survivors.CELLS, [])
    assert (tmp_path / "run" / "report.html").exists()


# --- kills ------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path):
    """A file system of little room, of which some is left: `small(kilobytes)`."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(tmp_path)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("only a privileged user can mount a file system")

    def leave(kilobytes):
        (tmp_path / "rest").unlink(missing_ok=True)
        free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
        (tmp_path / "rest").write_bytes(bytes(max(0, free - 1024 * kilobytes)))
        return tmp_path

    try:
        yield leave
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def wait_until(condition, seconds=60):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def killed(process, seconds):
    """Waits so long, and kills it. Returns the exit status of one that had ended."""
    process.join(seconds)
    process.kill()
    process.join()
    return None if process.exitcode == -signal.SIGKILL else process.exitcode


@pytest.mark.parametrize("room", ["enough", "little"])
def test_a_report_that_is_killed_at_any_moment_is_the_old_one_or_the_new(room, small, tmp_path_factory, one_figure):
    chance = random.Random(None if KILLS else room)
    wanted = [tmp_path_factory.mktemp("wanted") for _ in range(2)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "PLOTS", {})
        survivors.one_figure()
        for which, folder in enumerate(wanted):
            survivors.report_of(which, folder)
    whole = [contents_of(folder) for folder in wanted]
    size = sum(map(len, whole[1].values())) // 1024
    folder = small(4 * size if room == "enough" else size + size // 3) / "run"
    found = set()
    for _ in range(KILLS or SHORT["report"]):
        process = survivors.begin(survivors.report_for_ever, str(folder))
        wait_until(lambda: found or (folder / "report.html").exists())
        assert killed(process, chance.uniform(0.05, 1)) is None
        settle(folder)
        there = {name: content for name, content in contents_of(folder).items() if not name.startswith(".report-")}
        if room == "enough":
            assert there in [{}, *whole]
        else:
            assert any(there.items() <= each.items() for each in whole), "what is there is of one making"
        assert not there or "report.html" in there
        found.add(len(there))
    assert max(found) > 1
    small(4 * size)
    replace_together(folder, {"report.html": b""}, ())
    assert not [name for name in os.listdir(folder) if name.startswith(".report-")], "the next one removes what is left"


@pytest.mark.parametrize("room", [2000, 150], ids=["enough", "little"])
def test_a_run_that_is_killed_at_any_moment_keeps_its_records_and_a_whole_report(room, small, tmp_path_factory):
    chance = random.Random(None if KILLS else room)
    log = tmp_path_factory.mktemp("log") / "log"
    kills, number, known = 0, 0, {}
    while True:
        out = small(room) / f"run{number}"
        how = [f"--resume={out}"] if (out / "run.json").exists() else [*survivors.GRID, f"--out={out}"]
        done = kills >= (KILLS or SHORT["run"])
        process = survivors.begin(survivors.run, how, small(room) / "cache", log)
        ended = killed(process, 120 if done else chance.uniform(0.3, 3))
        loaded = load(out) if (out / "records.jsonl").exists() else SimpleNamespace(records=[], damaged=[])
        there = {one.id: one for one in loaded.records}
        assert known.items() <= there.items(), "no record is lost, and none is changed"
        assert len(there) == len(loaded.records)
        known = there
        check_whole(out)
        if ended is None:
            kills += 1
            continue
        assert ended in ((0,) if room == 2000 else (0, 1)), log.read_text()
        assert len(known) == survivors.CELLS
        if done:
            break
        shutil.rmtree(out)
        number, known = number + 1, {}


def check_whole(folder):
    """Checks that all files of a report, if there is one, are of one making."""
    if not folder.exists():
        return
    settle(folder)
    names = {path.name for path in folder.glob("report.*")}
    assert not names or "report.html" in names
    said = {
        re.search(r"(\d+) records, (\d+) configurations", (folder / name).read_text("utf-8")).groups()
        for name in names & {"report.html", "report.md"}
    }
    assert len(said) <= 1
    if "report.csv" in names:
        assert len(pd.read_csv(folder / "report.csv")) == int(next(iter(said))[1])
    if (folder / "records.parquet").exists():
        assert len(pd.read_parquet(folder / "records.parquet")) == int(next(iter(said))[0])
