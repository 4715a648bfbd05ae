"""Runs that are killed at any moment share a cache: whatever it holds then, accuracies are those of a clean one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

RUNS = int(os.environ.get("TLBENCH_SHARED_CACHE_RUNS", "2"))
"""With 60, they are killed as often as there are runs; some minutes on two cores."""
KILLS = int(os.environ.get("TLBENCH_SMALL_CACHE_KILLS", "2"))
"""Times that runs are killed whose results and cache lie on one small disk; 100 take some minutes."""


def shared(folder, cache, runs, kills, how):
    here = Path(__file__).parent
    paths = os.pathsep.join(filter(None, (str(here), str(here.parent), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, here / "shared_cache.py", folder, cache, str(runs), str(kills), how],
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)
    return done.stdout


@pytest.mark.exhaustive
def test_runs_in_two_pid_namespaces_share_a_cache_and_are_killed(tmp_path):
    try:
        allowed = subprocess.run(["unshare", "--pid", "--fork", "true"], capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no `unshare` here")
    if allowed.returncode:
        pytest.skip(f"PID namespaces may not be made here: {allowed.stderr.decode(errors='replace').strip()}")
    out = shared(tmp_path, tmp_path, RUNS, RUNS if RUNS > 2 else 1, "containers")
    assert "all as in one go" in out


@pytest.mark.exhaustive
def test_runs_are_killed_whose_results_and_cache_fill_a_small_disk(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only a privileged user can mount a file system")
    try:
        out = shared(tmp_path, small, 1, KILLS, "one")
    finally:
        subprocess.run(["umount", str(small)], check=True)
    assert "all as in one go" in out
