"""Processes that are tied to the one that has started them: what ends it ends them, and nothing else does."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from processes import BOOT, gone

from tlbench.campaign import isolate as worker
from tlbench.campaign import lifeline
from tlbench.campaign.isolate import Workers
from tlbench.campaign.stop import Stop
from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.measure.place import Place

ROOT = Path(worker.__file__).parents[2]
PATHS = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
CHILD = """
import subprocess, sys, time
from tlbench.campaign import lifeline
{before}
lifeline.tie_to(int(sys.argv[1]))
other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
print(other.pid, flush=True)
{then}
"""
PARENT = """
import subprocess, sys, time
from tlbench.campaign.lifeline import lifeline
{before}
line = lifeline()
code = open(sys.argv[1]).read()
child = subprocess.Popen(
    [sys.executable, "-c", code, str(line)], pass_fds=(line,), start_new_session=True, stdout=subprocess.PIPE, text=True
)
print(child.pid, child.stdout.readline(), flush=True)
{then}
"""
SLEEPS = "time.sleep(1000)"
HANGS = "import re; re.match('(a*)*b', 'a' * 60)  # holds the interpreter's lock, as a hang in a library may"
NO_KERNEL = "lifeline.fcntl = None  # as where the kernel tells nothing: it is not Linux"


@pytest.fixture
def family(tmp_path):
    """``family(child=…, parent=…)``: a parent that lives on, and the numbers of its child and of the child's child."""
    parents, found = [], []

    def start(child: str = "", then: str = SLEEPS, parent: str = ""):
        (tmp_path / "child.py").write_text(CHILD.format(before=child, then=then))
        code = PARENT.format(before=parent, then=SLEEPS)
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "child.py")],
            stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": PATHS},
        )  # fmt: skip
        parents.append(process)
        found.extend(map(int, process.stdout.readline().split()))
        return process, found[-2:]

    yield start
    for process in parents:
        process.kill()
        process.wait()
        process.stdout.close()
    for pid in found:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


@pytest.mark.parametrize(
    ("child", "then"), [("", SLEEPS), ("", HANGS), (NO_KERNEL, SLEEPS)], ids=["", "hung", "thread"]
)
def test_a_parent_that_is_killed_takes_its_child_and_all_that_it_has_started_with_it(family, child, then):
    parent, pids = family(child=child, then=then)
    assert not gone(pids, seconds=0.3)
    parent.kill()
    parent.wait()
    assert gone(pids, seconds=5)


FORKS = """
import os
lifeline()
if os.fork() == 0:
    time.sleep(1000)
"""


def test_a_copy_of_the_parent_does_not_keep_the_child_alive(family):
    parent, pids = family(parent=FORKS)
    (copy,) = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()[:1]
    parent.kill()
    parent.wait()
    try:
        assert gone(pids, seconds=5)
    finally:
        os.kill(int(copy), signal.SIGKILL)


def test_a_worker_outlives_the_thread_that_has_started_it(monkeypatch):
    """The kernel's own signal to children whose parent dies comes when a *thread* ends: engines run tasks in such."""
    monkeypatch.setattr(worker, "_BOOT", BOOT)
    monkeypatch.setattr(worker, "POLL_SECONDS", 0.02)
    settings, place, records = Settings(isolate="backbone"), Place(name="the cell"), []
    with Workers(settings, Stop()) as workers:

        def ask() -> None:
            records.append(workers.run_cell(Cell(backbone="pass"), settings, place=place))

        for _ in range(2):
            thread = threading.Thread(target=ask)
            thread.start()
            thread.join()
            (one,) = workers._alive.values()
            time.sleep(0.2)
            assert not one.has_ended()
        assert one.cells == 2, "the same process"
    assert [record.status for record in records] == ["ok", "ok"]


def test_one_pipe_is_for_all():
    before = set(os.listdir("/proc/self/fd"))
    ends = {lifeline.lifeline() for _ in range(10)}
    assert len(ends) == 1
    assert len(set(os.listdir("/proc/self/fd")) - before) <= 2
