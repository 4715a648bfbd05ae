"""Runs of the command line that are killed at random moments and go on, with one cache folder between them: two at a
time, each the first process of a PID namespace of its own, as in two containers; or one, on a disk as small as its
activations.

A script, since it forks: one import of torch serves all runs. ``python shared_cache.py FOLDER CACHE RUNS KILLS HOW``
has at least RUNS of them and KILLS kills, HOW being `containers` or `one`; it says what became of them.
"""

import contextlib
import ctypes
import os
import random
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

CLONE_NEWPID = 0x20000000
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None, use_errno=True)
KILLED = 128 + signal.SIGKILL
GRID = [
    "run", "--task=train", "--dataset=digits", "--backbone=mobilenet_v3_small", "--weights=random", "--seeds=0",
    "--image-size=32", "--train-size=100", "--epochs=1", "--batch-size=16",
    "--layout=contiguous", "--threads=1", "--twins=0", "--isolate=none",
]  # fmt: skip
ON_DISK = "--prefix-ram=1000"
POLICIES = ["linear_probe"]
"""Where there are many kills, last_1 as well: one pass fills two files then."""
MOST = 4
"""Kills of one run."""


def start(arguments, folder, cache, namespace):
    """Begins a run. Returns the numbers of a process that ends as the run does, and of the run's own."""
    sys.stdout.flush()
    told, tells = os.pipe()
    helper = os.fork()
    if helper:
        os.close(tells)
        with open(told, encoding="ascii") as file:
            number = file.read()
        assert number.isdigit(), "no namespace"
        return helper, int(number)
    try:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if namespace and LIBC.unshare(CLONE_NEWPID):
            raise OSError(ctypes.get_errno(), "unshare")
        child = os.fork()
        if not child:
            os.close(tells)
            LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            assert os.getpid() == 1 or not namespace
            run(arguments, folder, cache)
        os.write(tells, str(child).encode())
        os.close(tells)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os._exit(code if code >= 0 else 128 - code)
    except BaseException:
        traceback.print_exc()
        os._exit(99)


def run(arguments, folder, cache):
    """The command line, in the process that this is; it does not come back."""
    code = 99
    try:
        log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(folder)
        os.environ["TLBENCH_CACHE"] = str(cache)
        sys.argv = ["tlbench", *arguments]
        from tlbench import cli

        try:
            cli.main()
            code = 0
        except SystemExit as done:
            code = done.code if isinstance(done.code, int) else 0 if done.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


class Run:
    """One run, begun again as often as it is killed."""

    def __init__(self, folder, cache, options=(), namespace=False):
        self.folder, self.cache, self.options, self.namespace = folder, cache, options, namespace
        self.kills = 0
        folder.mkdir()

    def begin(self, until=float("inf")):
        self.until = until
        there = (self.folder / "run" / "run.json").exists()
        how = (
            ["run", "--resume=run"] if there else [*GRID, f"--freeze={','.join(POLICIES)}", *self.options, "--out=run"]
        )
        self.helper, self.own = start(how, self.folder, self.cache, self.namespace)

    def ended(self):
        """Whether it has come to its end, killed if its time has come; it must not end in any other way."""
        if self.until < time.monotonic():
            self.until = float("inf")
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.own, signal.SIGKILL)
        done, status = os.waitpid(self.helper, os.WNOHANG)
        if not done:
            return None
        code = os.waitstatus_to_exitcode(status)
        assert code in (0, KILLED), f"exit status {code}: {(self.folder / 'log').read_text()}"
        self.kills += code == KILLED
        return code == 0

    def results(self):
        """Of each cell, what it computed, to the last bit; all there exactly once."""
        from bits import finished

        from tlbench.records.resuming import identity
        from tlbench.records.run_folder import load

        loaded = load(self.folder / "run")
        assert len(loaded.damaged) <= self.kills
        found = {identity(record): finished(record) for record in loaded.records}
        assert len(found) == len(loaded.records) == len(POLICIES), [record.id for record in loaded.records]
        return found


def in_one_go(folder, cache, *options):
    """The results of a run that nobody disturbs, and the seconds it takes."""
    one, begin = Run(folder, cache, options), time.monotonic()
    one.begin()
    while not one.ended():
        time.sleep(0.01)
    return one.results(), time.monotonic() - begin


def prepare():
    """Imports what runs need, and leaves out what is none of this: reports."""
    import sklearn.datasets
    import torch
    import torchvision  # noqa: F401
    from digits import few_digits

    import tlbench.cli.running
    import tlbench.measure.cell
    import tlbench.report

    assert sklearn.datasets
    torch.set_num_threads(1)
    tlbench.report.write_report = lambda records, folder, *_, **__: folder / "report.html"
    return few_digits()


def main():
    folder, cache = map(Path, sys.argv[1:3])
    runs, kills, how = int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
    namespaces = how == "containers"
    POLICIES.extend(["last_1"] * (kills > 10))
    chance = random.Random(runs if kills <= 10 else None)
    with prepare():
        stored, seconds = in_one_go(folder / "stored", folder / "own", "--prefix=on", ON_DISK)
        assert list((folder / "own" / "prefix").glob("*.activations")), "nothing lay on the disk"
        allowed = [stored]
        if not namespaces:  # where there is no room, a cell computes them anew in each epoch
            allowed.append(in_one_go(folder / "live", folder / "own", "--prefix=off")[0])
        options = ["--prefix=on" if namespaces else "--prefix=auto", ON_DISK]
        going, done, killed = [], 0, 0

        def wanted():
            return killed + sum(one.kills for one in going) < kills

        def begin(one):
            more = one.kills < MOST and wanted()
            one.begin(time.monotonic() + chance.uniform(0, seconds) if more else float("inf"))

        while going or done < runs or wanted():
            while len(going) < (2 if namespaces else 1) and (done + len(going) < runs or wanted()):
                # Where the disk is small, results lie on it as well.
                place = (folder if namespaces else cache) / f"run{done + len(going)}"
                going.append(Run(place, cache / "cache", options, namespaces))
                begin(going[-1])
            for one in list(going):
                ended = one.ended()
                if ended is False:
                    begin(one)
                elif ended:
                    for cell, found in one.results().items():
                        assert found in [results[cell] for results in allowed], f"{cell}: {found}"
                    going.remove(one)
                    done, killed = done + 1, killed + one.kills
                    shutil.rmtree(one.folder)
                    disturb(cache, chance)
            time.sleep(0.01)
    print(f"{done} runs, {killed} kills: all as in one go")


def disturb(cache, chance):
    """Has those that follow compute some of it anew."""
    from tlbench.train import inventory

    os.environ["TLBENCH_CACHE"] = str(cache / "cache")
    here = inventory.look()
    print({kind: len(getattr(here, kind)) for kind in ("stored", "filling", "orphans", "older", "others")})
    assert not here.older
    assert not here.others
    if chance.random() < 0.7:
        inventory.clear()


if __name__ == "__main__":
    main()
