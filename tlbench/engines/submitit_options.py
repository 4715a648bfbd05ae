"""What a job is asked to be: the engine's own options, and those that are handed on to submitit."""

from __future__ import annotations

import io
import math
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import submitit

from tlbench.campaign.engine import Setup, Wanted
from tlbench.errors import UserError, lookup, text_of, unknown

CLUSTERS: dict[str, Any] = {
    "slurm": submitit.SlurmExecutor,
    "local": submitit.LocalExecutor,
    "debug": submitit.DebugExecutor,
}
"""Option ``cluster`` -> what runs the jobs: Slurm, processes of this machine, this process."""
OWN = ("cluster", "jobs")
SHARED: dict[str, type] = {
    "timeout_min": int,
    "mem_gb": float,
    "cpus_per_task": int,
    "gpus_per_node": int,
    "name": str,
}
"""Parameters that submitit has for every cluster. (Of the others, a batch is one process on one node.)"""
TIMEOUT_MIN = 240
"""Minutes of a job; what is left of it then is requeued."""
JOBS = 32
"""Jobs that are queued or running on a cluster."""
REQUEUED = 1_000_000
"""Times that submitit requeues a job: `tlbench.engines.submitit_node.MOST_STARTS` says when that leads nowhere."""
MEMORY = ("mem", "mem_gb", "mem_per_cpu", "mem_per_gpu")
GPUS = ("gpus_per_node", "gpus_per_task", "num_gpus", "gres")
"""Parameters that say the same thing in several ways: one that is given stands for all of them."""
MORE = "slurm_additional_parameters"
"""Parameter for all that submitit has no parameter for."""
FLAGS = ("slurm_use_srun",)
"""Parameters that submitit itself reads a False of."""
OWN_GB = 2.0
"""Memory of a job beyond the limit of its cells: the process that decodes images and hands them on."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Holds the options, read."""

    cluster: str = "slurm"
    jobs: int | None = None
    python: str | None = None
    """Command that starts Python in a job (a container's, for example)."""
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def here(self) -> bool:
        """Tells whether jobs are processes of this machine."""
        return self.cluster != "slurm"

    def says(self, *names: str) -> Any:
        """Returns the value of a parameter that goes by one of these names; None where it was not given."""
        known = (self.parameters.get(name) for plain in names for name in (plain, f"{self.cluster}_{plain}"))
        return next((value for value in known if value is not None), None)

    def exclude(self, executor: Any, nodes: set[str]) -> None:
        """Has an executor's next jobs go elsewhere. Errors: UserError where there is no other node."""
        if self.here:
            raise UserError(f"{', '.join(sorted(nodes))}: no other node is there; mend it")
        given = self.says("exclude")
        _update(executor, {"slurm_exclude": ",".join([*([str(given)] if given else []), *sorted(nodes)])})


def parse(wanted: Wanted) -> Options:
    """Reads the options. Errors: UserError."""
    given = dict(wanted.options)
    cluster = given.pop("cluster", "slurm")
    lookup(CLUSTERS, "cluster of submitit", cluster)
    jobs = given.pop("jobs", None)
    if jobs is not None and not (jobs.isdecimal() and int(jobs) > 0):
        raise UserError(f"--engine-option jobs={jobs}: give how many jobs may be queued or running, such as jobs=32")
    if wanted.gpus is not None and wanted.gpus != int(wanted.gpus):
        raise UserError(f"--gpus {wanted.gpus:g}: a job gets whole GPUs; give 1 or more")
    python = given.pop(f"{cluster}_python", None)
    choices = _choices()
    for name in given:
        if name not in choices:
            raise unknown("option of the engine submitit", name, [*OWN, *choices], shown=60)
    parameters = {name: _value(name, text) for name, text in given.items()}
    if isinstance(time := parameters.get("slurm_time"), str):
        raise UserError(f"--engine-option slurm_time={time}: give whole minutes, such as timeout_min=240")
    options = Options(cluster=cluster, jobs=int(jobs) if jobs else None, python=python, parameters=parameters)
    if wanted.exclusive:
        _check_exclusive(options)
    return options


def _check_exclusive(options: Options) -> None:
    """Raises UserError where options take away that a cell has its node to itself, which its record says."""
    if options.here:
        if options.jobs is not None and options.jobs > 1:
            raise UserError(
                f"--exclusive --engine-option jobs={options.jobs}: jobs of this machine would share it; leave one of "
                "the two away"
            )
        return
    more = options.parameters.get(MORE, {})
    said = {"slurm_exclusive": options.says("exclusive"), f"{MORE}=exclusive": more.get("exclusive")}
    wrong = [f"{name}={value}" for name, value in said.items() if value is not None and value is not True]
    wrong += [f"{MORE}={name}" for name in ("oversubscribe", "share") if more.get(name, False) is not False]
    if wrong:
        raise UserError(
            f"--exclusive --engine-option {wrong[0]}: other jobs could be on the node; leave one of the two away"
        )


def check_there(options: Options) -> None:
    """Raises UserError where no job can be submitted from here."""
    lacking = [name for name in ("sbatch", "srun") if options.cluster == "slurm" and shutil.which(name) is None]
    if lacking:
        raise UserError(
            f"--engine submitit: no Slurm is here ({lacking[0]} is not on the PATH); run this where jobs are "
            "submitted, or try it on this machine by --engine-option cluster=local"
        )


def _choices() -> list[str]:
    """Returns the names of what is handed on: what one cluster knows stands for it on every one, which ignores it."""
    own = [
        f"{cluster}_{name}"
        for cluster, executor in CLUSTERS.items()
        for name in sorted(executor._valid_parameters())
        if name not in ("nodes", "ntasks_per_node", "stderr_to_stdout")
    ]
    return [*SHARED, *own, *(f"{cluster}_python" for cluster in CLUSTERS if cluster != "debug")]


def _value(name: str, text: str) -> Any:
    """Reads a value as submitit wants it. Errors: UserError."""
    plain = name.partition("_")[2]
    if plain in ("setup", "teardown"):
        return [text]
    if plain == "srun_args":
        return shlex.split(text)
    if plain == "additional_parameters":
        pairs = [part.partition("=") for part in shlex.split(text.replace(",", " "))]
        return {key: _number(value) if equals else True for key, equals, value in pairs}
    value = _number(text)
    kind = SHARED.get(name)
    if kind is int and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise UserError(f"--engine-option {name}={text}: give a whole number above 0")
    if kind is float and (not isinstance(value, int | float) or isinstance(value, bool) or not value > 0):
        raise UserError(f"--engine-option {name}={text}: give a number above 0")
    return text if kind is str else value


def _number(text: str) -> int | float | bool | str:
    """Reads a text as a number or a yes or no, where it is one."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        if str(value) == text or (kind is float and re.fullmatch(r"-?(0|[1-9]\d*)(\.\d+)?(e[+-]?\d+)?", text.lower())):
            return value if math.isfinite(value) else text
    return text


# --- what a job gets ------------------------------------------------------------------------------------------


def executor_of(options: Options, folder: Path, device: str, setup: Setup, wanted: Wanted) -> Any:
    """Returns what submits jobs for cells of a device. Errors: UserError."""
    if device not in ("cpu", "cuda"):
        raise UserError(f"device {device!r}: which GPU a job gets is for Slurm to choose; give --device cuda")
    # -P: a file of the current folder must not take the place of a library's module.
    python = options.python or f"{shlex.quote(sys.executable)} -P"
    words: dict[str, Any] = {f"{name}_python": python for name in ("slurm", "local")}
    words |= {f"{name}_max_num_timeout": REQUEUED for name in ("slurm", "local")}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        executor = submitit.AutoExecutor(folder=folder, cluster=options.cluster, **words)
    except OSError as error:
        raise UserError(f"cannot write to {str(folder)!r}: {error.strerror}") from None
    asked = _asked(options, device, setup, wanted)
    given = {**asked, **options.parameters}
    given[MORE] = {**asked[MORE], **options.parameters.get(MORE, {})}
    # A False would be written as a word; what is to be left away is not said at all.
    _update(executor, {name: value for name, value in given.items() if value is not False or name in FLAGS})
    if options.cluster == "local" and device == "cuda":
        # It would take the first GPUs of the machine, whichever of them are to be seen here.
        seen = [part for part in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if part.strip().isdigit()]
        if seen:
            executor.parameters["visible_gpus"] = [int(part) for part in seen]
    return executor


def _asked(options: Options, device: str, setup: Setup, wanted: Wanted) -> dict[str, Any]:
    """Returns the parameters of a job where the options do not say others."""
    cpus, gpus = cpus_of(options, setup, wanted), int(wanted.gpus or 1) if device == "cuda" else 0
    asked: dict[str, Any] = {"timeout_min": TIMEOUT_MIN, "name": "tlbench"}
    if cpus is not None:
        asked["cpus_per_task"] = cpus
    if gpus and options.says(*GPUS) is None:
        asked["gpus_per_node"] = gpus
    if (memory := setup.settings.memory_limit_bytes) is not None and options.says(*MEMORY) is None:
        asked["mem_gb"] = round(memory / 2**30 + OWN_GB, 2)
    # Slurm must not requeue by its own default what it was told not to; srun knows of no processors but its own.
    asked[MORE] = {"requeue": True}
    asked["slurm_srun_args"] = ["--ntasks=1", *([f"--cpus-per-task={cpus}"] if cpus is not None else [])]
    if wanted.exclusive or (cpus is None and not gpus):
        asked["slurm_exclusive"] = True
    return asked


def cpus_of(options: Options, setup: Setup, wanted: Wanted) -> int | None:
    """Returns the processors of a job; None where these are the cluster's to choose."""
    given = options.says("cpus_per_task") or wanted.cpus or setup.settings.threads
    return None if given is None else math.ceil(given)


def slots_of(options: Options, setup: Setup, wanted: Wanted) -> int:
    """Returns how many jobs are queued or running at the same time."""
    if options.cluster == "debug" or (options.here and wanted.exclusive):
        return 1
    if options.jobs is not None:
        return options.jobs
    if not options.here:
        return JOBS
    if "cuda" in setup.devices:  # submitit gives each of them the same GPU
        return 1
    every = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(every // (cpus_of(options, setup, wanted) or every), 1)


def _update(executor: Any, parameters: Mapping[str, Any]) -> None:
    """Hands parameters on. Errors: UserError, with submitit's own words."""
    try:
        executor.update_parameters(**parameters)
    except (NameError, ValueError, TypeError, AssertionError) as error:
        why = (text_of(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"--engine submitit: {why[:300]}") from None


INHERITED = ("SLURM_", "SLURMD_", "SRUN_", "SUBMITIT_", "SBATCH_CPU_BIND", "SBATCH_MEM_BIND")
"""Beginnings of variables by which a job that the driver itself runs in would say what its jobs get."""


@contextmanager
def quietly() -> Iterator[None]:
    """Has submitit talk to Slurm, or start a process here, without a word on the terminal from any of them, and without
    what a job that the driver itself is in was given.
    """
    hidden = {}
    if "SLURM_JOB_ID" in os.environ:
        names = [name for name in os.environ if name.startswith(INHERITED) and name != "SLURM_CONF"]
        hidden = {name: os.environ.pop(name) for name in names}
    try:
        with redirect_stderr(io.StringIO()), _without_terminal():
            yield
    finally:
        os.environ.update(hidden)


@contextmanager
def _without_terminal() -> Iterator[None]:
    """Has processes that are started within write their errors nowhere."""
    try:
        terminal = os.dup(2)
    except OSError:  # it was closed
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
        os.close(nowhere)
