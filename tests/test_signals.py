"""Ctrl-C and SIGTERM: once ends a run in good order, twice at once; whatever is finished is kept."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from processes import children, gone, start, wait_for
from records import failure
from test_isolation import PLUGIN, TINY

from tlbench.campaign.stop import NOTICE, OWN_INTERRUPT, SIGNALS, Stop, as_it_ended, held, name_of, why_stopped
from tlbench.machine.interrupts import LINE, STATUS, CtrlC
from tlbench.records.run_folder import load

# --- handlers -------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def handlers_are_restored():
    before = [signal.getsignal(number) for number in SIGNALS]
    yield
    after = [signal.getsignal(number) for number in SIGNALS]
    for number, handler in zip(SIGNALS, before, strict=True):
        signal.signal(number, handler)
    assert after == before


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_noted_and_the_second_left_to_the_system(number, capfd):
    with Stop() as stop:
        assert stop.signal is None
        signal.raise_signal(number)
        assert stop.signal == number
        assert [signal.getsignal(each) for each in SIGNALS] == [signal.SIG_DFL] * 2
    assert NOTICE.decode().replace("\r", "") in capfd.readouterr().err.replace("\r", "")


@pytest.mark.parametrize("number", SIGNALS)
def test_a_cell_in_this_process_is_abandoned(number):
    def cell():
        with stop.measuring():
            signal.raise_signal(number)
            time.sleep(1)

    with Stop() as stop, pytest.raises(KeyboardInterrupt):
        cell()
    assert stop.signal == number


def test_a_cell_is_not_begun_any_more():
    with Stop() as stop:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt), stop.measuring():
            raise AssertionError("begun")


@pytest.mark.parametrize(
    ("number", "status", "ended", "why"),
    [
        (signal.SIGINT, "interrupted", "interrupted", "stopped by the user"),
        (signal.SIGTERM, "interrupted", "interrupted", "stopped by a signal (SIGTERM)"),
        (signal.SIGTERM, "failed", "interrupted", "stopped by a signal (SIGTERM)"),
        (signal.SIGTERM, "ok", "ok", "x"),
        (None, "failed", "failed", "x"),
        (None, "interrupted", "failed", OWN_INTERRUPT),
    ],
)
def test_who_has_stopped_a_cell_is_said(number, status, ended, why):
    """A scheduler that takes its node back is no user."""
    record = as_it_ended(failure(status, "x"), number)
    assert (record.status, record.reason) == (ended, why)


def test_a_record_is_written_whole_before_a_signal_counts():
    written = []

    def write():
        with held():
            written.append(1)
            signal.raise_signal(signal.SIGINT)
            time.sleep(0.01)
            written.append(2)

    with pytest.raises(KeyboardInterrupt):
        write()
    assert written == [1, 2]
    with Stop() as stop:
        with held():
            signal.raise_signal(signal.SIGTERM)
            assert stop.signal is None
        assert stop.signal == signal.SIGTERM


def test_what_is_ignored_stays_ignored():
    """As under nohup."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Stop() as stop, held():
            signal.raise_signal(signal.SIGINT)
            assert stop.signal is None
            assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_in_another_thread_nothing_is_handled_and_nothing_fails():
    failed = []

    def work():
        try:
            with Stop() as stop, stop.measuring(), held():
                pass
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert failed == []


TORN = """
import signal
try:
    signal.raise_signal(signal.SIGINT)
    whole = True
except BaseException:  # as libraries do
    whole = False
"""


def test_what_a_cell_imports_is_not_torn_and_the_cell_ends_all_the_same(tmp_path, monkeypatch):
    (tmp_path / "torn_by_ctrl_c.py").write_text(TORN)
    monkeypatch.syspath_prepend(tmp_path)
    reached = []

    def cell():
        with stop.measuring():
            import torn_by_ctrl_c

            reached.append(torn_by_ctrl_c.whole)
            time.sleep(20)

    alarm = signal.getsignal(signal.SIGALRM)
    begin = time.monotonic()
    with Stop() as stop, pytest.raises(KeyboardInterrupt):
        cell()
    assert reached == [True]
    assert time.monotonic() - begin < 15
    assert signal.getsignal(signal.SIGALRM) == alarm
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_cell_that_catches_the_interrupt_is_ended_once_more(monkeypatch):
    monkeypatch.setattr("tlbench.campaign.stop.SWALLOWED_SECONDS", 0.1)
    caught = []

    def cell():
        with stop.measuring():
            for _ in range(3):
                try:
                    if not caught:
                        signal.raise_signal(signal.SIGINT)
                    time.sleep(20)
                except BaseException as error:
                    caught.append(error)
            time.sleep(20)

    with Stop() as stop, pytest.raises(KeyboardInterrupt):
        cell()
    assert len(caught) == 3


def test_a_cell_that_takes_the_signals_for_itself_gives_them_back():
    with Stop() as stop:
        with stop.measuring():
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.raise_signal(signal.SIGINT)
        assert stop.signal == signal.SIGINT


# --- Ctrl-C of a command -----------------------------------------------------------------------------------------


def test_ctrl_c_is_one_line_whoever_catches_it(capfd):
    with pytest.raises(KeyboardInterrupt), CtrlC() as watch:
        signal.raise_signal(signal.SIGINT)
    with CtrlC() as caught, contextlib.suppress(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert watch.came
    assert caught.came
    assert capfd.readouterr().err.count(LINE.decode()) == 2


def test_another_handler_is_left_alone():
    came = []
    before = signal.signal(signal.SIGINT, lambda *_: came.append(1))
    try:
        with CtrlC() as watch:
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (came, watch.came) == ([1], False)


@pytest.mark.parametrize("imported", [True, False])
def test_an_import_ends_the_process_instead_of_being_torn(imported, tmp_path, monkeypatch, capfd):
    (tmp_path / "torn_too.py").write_text(TORN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torn_too", raising=False)
    left = []
    monkeypatch.setattr(os, "_exit", left.append)
    with CtrlC():
        if imported:
            import torn_too  # noqa: F401
        else:
            exec(TORN, {})
    assert left == ([STATUS] if imported else [])
    assert capfd.readouterr().err.count(LINE.decode()) == 1


def test_the_second_one_ends_it_at_once(monkeypatch):
    left = []
    monkeypatch.setattr(os, "_exit", left.append)
    with CtrlC():
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
    assert left == [STATUS]


# --- runs -----------------------------------------------------------------------------------------------------


@pytest.fixture
def begin(tmp_path):
    """Starts a run of two backbones and waits until the first, which does not end by itself, has its turn: after the
    second, which is the witness.
    """
    (tmp_path / "mine.py").write_text(PLUGIN)
    processes = []

    def run(first, isolate):
        grid = [*TINY, f"--backbone={first},good", "--plugin=mine.py", f"--isolate={isolate}", "--out=a run"]
        process = start("run", *grid, cwd=tmp_path, log=tmp_path / "log")
        processes.append(process)
        wait_for((tmp_path / "its-turn").exists, process)
        time.sleep(0.2)
        return process

    run.log = (tmp_path / "log").read_text
    yield run
    for process in processes:
        process.kill()
        process.wait()


DONE: list[tuple[str, str, str]] = []


def kept(folder):
    loaded = load(folder)
    assert loaded.damaged == []
    return [(r.role, r.cell.backbone, r.status) for r in loaded.records]


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("number", "code", "isolate"), [(signal.SIGINT, 130, "backbone"), (signal.SIGTERM, 143, "none")]
)
def test_once_ends_a_run_in_good_order(number, code, isolate, begin, tmp_path, command, monkeypatch):
    process = begin("sleeps", isolate)
    own = children(process.pid)
    process.send_signal(number)
    assert process.wait(timeout=20) == code
    assert gone(own)
    assert kept(tmp_path / "a run") == [*DONE, ("cell", "sleeps", "interrupted")]
    why = {signal.SIGINT: "stopped by the user", signal.SIGTERM: "stopped by a signal (SIGTERM)"}[number]
    assert load(tmp_path / "a run").records[-1].reason == why
    told = begin.log()
    assert "Traceback" not in told
    assert NOTICE.decode().strip() in told
    assert "Stopped: 0 of 2 measurements are finished and kept in a run\n" in told
    assert "To go on: tlbench run --resume 'a run' --plugin=mine.py\n" in told
    assert "Report of what is there: tlbench report 'a run' --plugin=mine.py\n" in told
    assert not (tmp_path / "a run" / "report.html").exists()
    monkeypatch.chdir(tmp_path)
    assert command("run", "--resume", "a run", "--plugin=mine.py", "--dry-run")[1].split()[1].startswith("sleeps-")
    assert command("report", "a run")[0] == 0
    assert (tmp_path / "a run" / "report.html").exists()


@pytest.mark.exhaustive
@pytest.mark.parametrize("isolate", ["backbone", "none"])
def test_twice_ends_it_at_once(isolate, begin, tmp_path):
    """Even where the cell does not give up."""
    process = begin("stays", isolate)
    own = children(process.pid)
    process.send_signal(signal.SIGINT)
    wait_for(lambda: NOTICE.decode().strip() in begin.log(), process)
    time.sleep(1)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=2) == -signal.SIGINT  # a shell shows 130
    assert gone(own)
    assert kept(tmp_path / "a run") == DONE


@pytest.mark.exhaustive
def test_ctrl_c_under_pytest_keeps_what_is_finished_and_reports_it(tmp_path):
    bench = Path(__file__).parent.parent / "bench" / "test_train.py"
    shutil.copy(bench, tmp_path / "test_train.py")
    (tmp_path / "mine.py").write_text(PLUGIN)
    options = [option.replace("--", "--tl-", 1) for option in TINY]
    process = subprocess.Popen(
        [
            sys.executable, "-m", "pytest", "test_train.py", "--benchmark-only", "-o", "python_functions=trai[n]", "-v",
            *options, "--tl-backbone=sleeps,good", "--tl-plugin=mine.py", "--tl-out=a run",
        ],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip
    try:
        wait_for((tmp_path / "its-turn").exists, process)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 2
    assert kept(tmp_path / "a run") == [*DONE, ("cell", "sleeps", "interrupted")]
    assert "the same command with --tl-resume 'a run' in the place of --tl-out" in out
    assert "KeyboardInterrupt" in out  # pytest's own words
    assert "INTERNALERROR" not in out
    assert re.search(r"interrupted: sleeps", out)
    assert (tmp_path / "a run" / "report.html").exists()


def test_a_signal_without_a_name_has_its_number():
    """Those for real time have none: it was a ValueError, and the end of a run."""
    assert name_of(signal.SIGTERM) == "SIGTERM"
    assert why_stopped(40) == "stopped by a signal (signal 40)"
