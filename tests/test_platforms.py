"""Other systems: every module is imported, and a run's folder written, where what Linux alone has is not there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import tlbench
from tlbench.pytest_plugin import AT_ONCE

CODE = """
import sys, os, signal, faulthandler, pkgutil, importlib, shutil
import torch, torchvision, numpy, PIL.Image, rich.console, typer, pytest, matplotlib, matplotlib.figure, jinja2, tomllib
import concurrent.futures, multiprocessing, tempfile, subprocess, socket, urllib.request, sklearn, scipy.ndimage, timm
for name in {modules!r}:
    sys.modules[name] = None
for home, names in ((os, {calls!r}), (signal, ("SIGKILL", "SIGUSR1", "SIGHUP")), (faulthandler, ("register",))):
    for name in names:
        if hasattr(home, name):
            delattr(home, name)
import tlbench
names = [one.name for one in pkgutil.walk_packages(tlbench.__path__, "tlbench.")]
# What they are for has versions of its own for Windows, or none, which does not load without what Unix has.
names = [name for name in names if not name.startswith(("tlbench.engines.ray", "tlbench.engines.submitit"))]
for name in names:
    importlib.import_module(name)
print(len(names))
from pathlib import Path
from tlbench.machine import environment, locks, memory, noise
assert memory.free_bytes() > 0
assert environment.environment()["volatile"]["now"]["load_1min"] is None
assert environment.stable()["memory_bytes"] is None
assert noise.read_machine().switches is None
sys.path.insert(0, {tests!r})
from records import record
from tlbench.records.run_folder import Store, load
from tlbench.records.plan import Plan
from tlbench.grid.grid import Grid
from tlbench.grid.settings import Settings
store = Store(sys.argv[1])
store.describe(Plan(grids=(Grid(),), settings=Settings()))
assert "no locks" in store.hold()
store.append(record())
store.append(record(seed=1))
assert len(load(store.folder).records) == 2
store.release()
from tlbench.machine.history import Past, read_past, remember
remember(Past(run="r", machine="m", device="cpu"))
assert read_past("m", "cpu")
with open(Path(sys.argv[1]) / "room", "wb+") as file:
    locks.reserve(file, 3_000_000)
    assert file.seek(0, 2) == 3_000_000
"""
MODULES = ("fcntl", "resource", "termios", "pwd", "grp", "tty", "pty", "syslog")
CALLS = (
    "posix_fallocate", "posix_fadvise", "getloadavg", "sysconf", "sched_getaffinity", "pread", "pwrite", "killpg",
    "fork",
    "getuid", "geteuid", "statvfs", "uname", "setsid", "mkfifo", "get_blocking", "fchmod",
)  # fmt: skip


def test_every_module_is_imported_without_what_only_unix_has(tmp_path):
    code = CODE.format(modules=MODULES, calls=CALLS, tests=str(Path(__file__).parent))
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "run"],
        capture_output=True, text=True, check=False,
        env={**os.environ, "TLBENCH_CACHE": str(tmp_path / "cache")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= len(list(Path(tlbench.__file__).parent.rglob("*.py"))) - 20


def test_no_module_imports_what_only_unix_has_without_asking():
    """Only inside `try`: what this very test could not hide would be found on the other system alone."""
    for path in Path(tlbench.__file__).parent.rglob("*.py"):
        for line in path.read_text(encoding="utf-8").splitlines():
            assert line not in {f"import {name}" for name in MODULES}, path


@pytest.mark.exhaustive
def test_workers_of_xdist_measure_nothing_and_leave_no_folder(tmp_path):
    pytest.importorskip("xdist")
    (tmp_path / "bench_it.py").write_text("def train(tl_run):\n    tl_run()\n")
    words = ["-m", "pytest", "-p", "no:cacheprovider", "-q", "-n", "2", "-o", "python_functions=train", "bench_it.py"]
    done = subprocess.run(
        [sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(Path(tlbench.__file__).parents[1])},
    )  # fmt: skip
    assert done.returncode == 2
    assert [line for line in done.stdout.splitlines() if "without -n" in line] == [AT_ONCE]
    assert not (tmp_path / "results").exists()
