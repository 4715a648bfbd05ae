"""A Slurm of one machine in a few lines: `install` puts sbatch, srun, sacct, scancel and scontrol on a test's PATH.

Jobs start at once. The states lie in a folder, where a test may write others; ``refuse`` there is what sbatch says
instead of taking a job, and ``idle`` has jobs stay as they are, without running them.
"""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

COMMANDS = ("sbatch", "srun", "sacct", "scancel", "scontrol")
VALUES = ("--output", "--error")
"""Options of srun that submitit gives with their value apart."""


def install(folder: Path, patch) -> Path:
    """Returns the folder of the states."""
    states, commands = folder / "states", folder / "bin"
    states.mkdir(parents=True)
    commands.mkdir()
    for name in COMMANDS:
        script = commands / name
        script.write_text(f'#!/bin/sh\nexec {sys.executable} -S {__file__} {name} "$@"\n')
        script.chmod(0o755)
    patch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    patch.setenv("SLURM_STAND_IN", str(states))
    return states


class StandIn:
    def __init__(self) -> None:
        self.states = Path(os.environ["SLURM_STAND_IN"])

    def sbatch(self, script: str) -> None:
        if (refuse := self.states / "refuse").exists():
            sys.exit(f"sbatch: error: {refuse.read_text()}")
        number = len(list(self.states.glob("*.state"))) + 1
        self.set(number, "RUNNING")
        (self.states / f"{number}.sh").write_text(Path(script).read_text())
        if not (self.states / "idle").exists():
            words = [sys.executable, "-S", __file__, "job", str(number)]
            quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            subprocess.Popen(words, start_new_session=True, **quiet)
        print(f"Submitted batch job {number}")

    def job(self, number: str) -> None:
        while True:
            env = {**os.environ, "SLURM_JOB_ID": number, "SLURMD_NODENAME": "node1"}
            code = subprocess.call(["bash", self.states / f"{number}.sh"], env=env)
            if self.get(number) != "REQUEUED":
                break
            self.set(number, "RUNNING")
        if self.get(number) == "RUNNING":
            self.set(number, "FAILED" if code else "COMPLETED")

    def srun(self, *words: str) -> None:
        number, given, rest = os.environ["SLURM_JOB_ID"], {}, list(words)
        while rest[0].startswith("-"):
            name = rest.pop(0)
            if name in VALUES:
                given[name] = rest.pop(0).replace("%j", number).replace("%t", "0")
        for name, end in (("--output", 1), ("--error", 2)):
            os.dup2(os.open(given[name], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), end)
        (self.states / f"{number}.pid").write_text(str(os.getpid()))
        os.execvp(rest[0], rest)

    def scontrol(self, what: str, number: str) -> None:
        assert what == "requeue"
        self.set(number, "REQUEUED")

    def scancel(self, number: str, option: str = "", name: str = "KILL") -> None:
        if not option:
            self.set(number, "CANCELLED")
        with suppress(OSError, ValueError):
            os.kill(int((self.states / f"{number}.pid").read_text()), getattr(signal, f"SIG{name.removeprefix('SIG')}"))

    def sacct(self, *words: str) -> None:
        print("JobID|State|NodeList")
        for option, number in pairwise(words):
            if option == "-j":
                print(f"{number}|{self.get(number)}|node1")

    def get(self, number: str) -> str:
        return (self.states / f"{number}.state").read_text()

    def set(self, number: object, state: str) -> None:
        aside = self.states / f".{number}.{os.getpid()}"
        aside.write_text(state)
        aside.replace(self.states / f"{number}.state")


if __name__ == "__main__":
    getattr(StandIn(), sys.argv[1])(*sys.argv[2:])
