"""Runs whose batches are jobs of submitit's, on this machine and on a stand-in for Slurm: what comes of them is what
one machine measures, whatever becomes of a job or of the driver.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import slurm_stand_in
from bits import results
from processes import children, gone, start, wait_for

from tlbench.campaign import batches
from tlbench.campaign.asked import parse_asked
from tlbench.campaign.at_node import plain_batch
from tlbench.campaign.campaign import begin
from tlbench.campaign.engine import Batch, Began, Impossible, Lost, Refused, Setup, Task, Wanted
from tlbench.campaign.steps import Step
from tlbench.campaign.stop import Stop
from tlbench.engines import make_engine
from tlbench.errors import UserError
from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.machine.scratch import write_aside
from tlbench.records.resuming import identity
from tlbench.records.run_folder import RECORDS, load

submitit = pytest.importorskip("submitit", reason="submitit is not installed: pip install 'tlbench[submitit]'")
from tlbench.engines import submitit as engine_module  # noqa: E402
from tlbench.engines.submitit import make  # noqa: E402
from tlbench.engines.submitit_node import MOST_STARTS, BatchJob  # noqa: E402

ASKED = {
    "backbone": "resnet18",
    "freeze": "linear_probe,last_1",
    "head": "linear,mlp",
    "seeds": "0",
    "weights": "random",
    "dataset": "digits",
    "image-size": "32",
    "train-size": "40",
    "epochs": "1",
    "batch-size": "8",
    "layout": "contiguous",
    "threads": "1",
    "twins": "0",
    "isolate": "backbone",
}
HERE = {"cluster": "local", "jobs": "1"}
OPTIONS = [f"--engine-option={name}={value}" for name, value in HERE.items()]


def wanted(**options):
    return Wanted(engine="submitit", options=options)


def prepared(out, where):
    """A campaign, and the engine that it is measured by."""
    return begin(replace(parse_asked({**ASKED, "out": out}), engine=where)), make(where)


def of(run):
    return {identity(r): results(r) for r in load(run).records}


def once(run, alone):
    """Whether a run has each identity of another one once, with its results."""
    return Counter(identity(r) for r in load(run).records) == Counter(list(alone)) and of(run) == alone


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The results without an engine."""
    campaign = begin(parse_asked({**ASKED, "out": tmp_path_factory.mktemp("alone") / "run"}))
    assert campaign.run() is None
    return of(campaign.store.folder)


@pytest.fixture(autouse=True)
def one_batch_a_prefix(monkeypatch):
    """So that a batch has more than one cell."""
    monkeypatch.setattr(batches, "PIECES", 1)


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Its states, in a folder."""
    monkeypatch.setattr(engine_module, "PATIENCE_SECONDS", 1.0)
    # What it knows of the jobs of the test before, which have the same numbers.
    monkeypatch.setattr(submitit.SlurmJob, "watcher", type(submitit.SlurmJob.watcher)(delay_s=600))
    return slurm_stand_in.install(tmp_path / "slurm", monkeypatch)


def started(run):
    """Process number of the job that has begun last, or is to begin: between two of them there is none."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with contextlib.suppress(OSError, IndexError, ValueError):
            return json.loads(sorted(run.glob("spool/*/start-*"), key=os.path.getmtime)[-1].read_bytes())["pid"]
        time.sleep(0.05)
    raise AssertionError("no job has begun")


# --- here -----------------------------------------------------------------------------------------------------


def test_a_run_of_jobs_is_the_run_without_an_engine(alone, tmp_path):
    campaign, engine = prepared(tmp_path / "run", wanted(cluster="local", jobs="2"))
    assert campaign.run(engine=engine) is None
    assert once(tmp_path / "run", alone)
    found = load(tmp_path / "run").records
    assert {r.engine for r in found} == {"submitit"}
    assert all(r.node and r.shares_node for r in found)
    assert not {"jobs", "spool"} & set(os.listdir(tmp_path / "run"))


@pytest.mark.parametrize("how", ["the job is told", "what holds the job is killed"])
def test_a_job_that_is_interrupted_goes_on_with_what_is_left(alone, tmp_path, how):
    run, came = tmp_path / "run", []
    campaign, engine = prepared(run, wanted(**HERE))

    def first(record):
        came.append(record)
        if len(came) != 1:
            return
        if how == "the job is told":
            os.kill(started(run), signal.SIGUSR2)
        else:  # submitit's local executor takes its own signal for no one's
            next(iter(engine._placed.values())).job._interrupt()

    assert campaign.run(on_record=first, engine=engine) is None
    assert once(run, alone)
    assert not (run / "spool").exists()


DRIVER = """
import sys
from tlbench.campaign import batches
from tlbench.engines import submitit
batches.PIECES, submitit.SILENT_SECONDS, submitit.BEAT_SECONDS = 1, 3.0, 0.5
from tlbench.cli import main
main()
"""


def test_jobs_end_without_their_driver_and_what_they_have_measured_is_kept(alone, tmp_path):
    run = tmp_path / "run"
    words = [f"--{name}={value}" for name, value in {**ASKED, "out": run, "engine": "submitit"}.items()]
    with (tmp_path / "log").open("wb") as log:
        driver = subprocess.Popen([sys.executable, "-c", DRIVER, "run", *words, *OPTIONS], stdout=log, stderr=log)
    wait_for(lambda: list(run.glob("spool/*/start-*")), driver)
    driver.kill()
    driver.wait()
    job = started(run)
    until = time.monotonic() + 120
    while not any("measured" in path.read_text() for path in run.glob("spool/*/0*.json")):
        os.utime(run / "spool" / "driver")
        assert time.monotonic() < until
        time.sleep(0.1)
    os.utime(run / "spool" / "driver", (1, 1))
    cells = children(job)
    assert gone([job, *cells], 30)
    assert (run / RECORDS).read_bytes() == b""
    shutil.copytree(next(run.glob("spool/*/")), run / "spool" / "another")  # as a job that was given up may have left

    campaign = begin(parse_asked({"resume": str(run), "isolate": "backbone"}))
    assert any("jobs have measured" in note for note in campaign.notes)
    assert campaign.run() is None
    assert once(run, alone)
    assert Counter(r.engine for r in load(run).records)["submitit"] >= 1  # a quick job is done before it looks
    assert not (run / "spool").exists()


def test_a_run_that_is_stopped_keeps_what_was_measured_and_ends_its_jobs(alone, tmp_path):
    run = tmp_path / "run"
    words = [f"--{name}={value}" for name, value in {**ASKED, "out": run, "engine": "submitit"}.items()]
    driver = start("run", *words, *OPTIONS, cwd=tmp_path, log=tmp_path / "log")
    wait_for(lambda: (run / RECORDS).exists() and (run / RECORDS).read_bytes(), driver)
    left = [started(run), *children(started(run))]
    driver.terminate()
    assert driver.wait(60) == 143
    assert gone(left, 30)
    found = of(run)
    assert found
    assert found.items() <= alone.items()
    assert "Stopped: " in (tmp_path / "log").read_text()
    assert not (run / "spool").exists()


def test_jobs_that_say_nothing_end_the_run(tmp_path):
    campaign, engine = prepared(tmp_path / "run", wanted(cluster="local", local_python="python-that-is-not-there"))
    with pytest.raises(UserError, match=r"3 jobs ended before they measured anything, the last: job .* is in") as told:
        campaign.run(engine=engine)
    assert "\n" not in str(told.value)
    assert (tmp_path / "run" / "jobs").is_dir()


# --- Slurm ----------------------------------------------------------------------------------------------------


def test_slurm_requeues_what_is_left_of_a_job(alone, slurm, tmp_path):
    run, came = tmp_path / "run", []
    campaign, engine = prepared(
        run, wanted(jobs="1", slurm_partition="gpu", slurm_setup="module() { :; }", timeout_min="90")
    )

    def first(record):
        came.append(record)
        if len(came) == 1:
            next(iter(engine._placed.values())).job._interrupt(timeout=True)

    assert campaign.run(on_record=first, engine=engine) is None
    assert once(run, alone)
    assert {r.node for r in load(run).records} == {"node1"}
    assert not {"jobs", "spool"} & set(os.listdir(run))
    assert not (slurm / "2.sh").exists()
    script = (slurm / "1.sh").read_text()
    for line in ("--partition=gpu", "--time=90", "--cpus-per-task=1", "--requeue", "--job-name=tlbench"):
        assert f"#SBATCH {line}\n" in script
    assert "--cpus-per-task=1" in next(line for line in script.splitlines() if line.startswith("srun"))


def opened(where, folder, **setup):
    folder.mkdir(exist_ok=True)
    engine = make(where)
    engine.open(Setup(settings=Settings(threads=1), folder=folder, run="r", wanted=where, **setup), Stop())
    return engine


def batch_of(number, device="cpu"):
    cell = Cell(backbone="resnet18", dataset="digits", device=device)
    return Batch(number=number, tasks=(Task(number=10 * number, step=Step(cell=cell, name="c")),))


@pytest.mark.parametrize(
    ("asked", "settings", "device", "there", "not_there"),
    [
        ({}, {"threads": 2}, "cpu", ["cpus-per-task=2", "time=240"], ["gpus", "exclusive", "mem"]),
        ({}, {}, "cpu", ["exclusive"], ["cpus-per-task", "gpus"]),
        ({"slurm_exclusive": "false"}, {}, "cpu", [], ["exclusive"]),
        ({}, {}, "cuda", ["gpus-per-node=1"], ["exclusive", "cpus-per-task"]),
        ({"slurm_gres": "gpu:a100:1"}, {}, "cuda", ["gres=gpu:a100:1"], ["gpus-per-node"]),
        ({}, {"memory_limit_bytes": 6 * 2**30}, "cpu", ["mem=8GB"], []),
        ({"slurm_mem_per_cpu": "3G"}, {"memory_limit_bytes": 6 * 2**30}, "cpu", ["mem-per-cpu=3G"], ["mem="]),
        ({"slurm_cpus_per_task": "4"}, {"threads": 2}, "cpu", ["cpus-per-task=4"], ["cpus-per-task=2"]),
        ({"slurm_additional_parameters": "reservation=r,hold"}, {}, "cpu", ["reservation=r", "hold", "requeue"], []),
    ],
)
def test_what_a_job_asks_slurm_for(slurm, tmp_path, asked, settings, device, there, not_there):
    (slurm / "idle").touch()
    (tmp_path / "run").mkdir()
    engine = make(wanted(**asked))
    engine.open(Setup(settings=Settings(**settings), folder=tmp_path / "run", devices=(device,)), Stop())
    engine.submit(batch_of(1, device=device))
    engine.close()
    script = (slurm / "1.sh").read_text()
    assert all(f"#SBATCH --{line}\n" in script for line in there)
    assert not [line for line in not_there if f"--{line}" in script]


def heard(engine, seconds=20):
    until = time.monotonic() + seconds
    while not (events := engine.wait(0.5)):
        assert time.monotonic() < until
    return events


@pytest.mark.parametrize("before", [True, False])
def test_a_cell_that_cannot_be_is_told_though_its_job_has_ended(before, slurm, tmp_path, monkeypatch):
    (slurm / "idle").touch()
    engine = opened(wanted(), tmp_path / "run")
    monkeypatch.setattr(engine_module, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(engine_module, "PATIENCE_SECONDS", 0.0)
    engine.submit(batch_of(1))
    (folder,) = (tmp_path / "run" / "spool").glob("*-1")
    if before:
        write_aside(folder / "0001-000001.json", b'{"began": 10, "node": "n7"}')
    write_aside(folder / "0001-000002.json", b'{"user_error": "the images have changed"}')
    (slurm / "1.state").write_text("COMPLETED")
    assert heard(engine)[int(before) :] == [Impossible(reason="the images have changed")]
    engine.close()


def test_what_a_job_wrote_last_is_told_without_its_credentials(slurm, tmp_path, monkeypatch):
    (slurm / "idle").touch()
    engine = opened(wanted(), tmp_path / "run")
    monkeypatch.setattr(engine_module, "LOOK_SECONDS", 0.0)
    engine.submit(batch_of(1))
    (tmp_path / "run" / "jobs" / "1_0_log.err").write_text("cannot read https://me:hunter22@host.example/x\n")
    (slurm / "1.state").write_text("FAILED")
    (lost,) = heard(engine)
    assert "it last wrote: cannot read https://[hidden]@host.example/x" in lost.reason
    engine.close()


@pytest.mark.parametrize(("state", "status"), [("OUT_OF_MEMORY", "oom"), ("NODE_FAIL", ""), ("CANCELLED by 0", "")])
def test_a_job_that_ends_without_a_word_says_why(slurm, tmp_path, monkeypatch, state, status):
    (slurm / "idle").touch()
    engine = opened(wanted(), tmp_path / "run")
    monkeypatch.setattr(engine_module, "LOOK_SECONDS", 0.0)
    engine.submit(batch_of(1))
    (folder,) = (tmp_path / "run" / "spool").glob("*-1")
    write_aside(folder / "0001-000001.json", b'{"began": 10, "node": "n7"}')
    (folder / "start-0001").write_text('{"done": 0, "node": "n7", "pid": 1}')
    assert heard(engine) == [Began(task=10, node="n7")]
    (tmp_path / "run" / "jobs" / "1_0_log.err").write_text("first\nslurmstepd: error: it was this\n")
    (slurm / "1.state").write_text(state)
    (lost,) = heard(engine)
    assert isinstance(lost, Lost)
    assert lost.status == status
    assert (
        lost.reason
        == f"job 1 on n7 ended: {state.lower().replace('_', ' ')}; it last wrote: slurmstepd: error: it was this"
    )
    engine.close()
    assert (tmp_path / "run" / "jobs" / "1_0_log.err").exists()


def test_a_preempted_job_that_nobody_requeues_is_given_up(slurm, tmp_path, monkeypatch):
    (slurm / "idle").touch()
    engine = opened(wanted(), tmp_path / "run")
    monkeypatch.setattr(engine_module, "LOOK_SECONDS", 0.0)
    engine.submit(batch_of(1))
    (slurm / "1.state").write_text("PREEMPTED")
    (folder,) = (tmp_path / "run" / "spool").glob("*-1")
    (folder / "beat").touch()
    assert not engine.wait(1.5)  # it may come back
    os.utime(folder / "beat", (1, 1))
    (lost,) = heard(engine)
    assert "preempted" in lost.reason
    assert (slurm / "1.state").read_text() == "CANCELLED"
    engine.close()


def test_what_slurm_does_not_take_is_said(slurm, tmp_path, capfd):
    (slurm / "refuse").write_text("invalid partition specified: gpus")
    engine = opened(wanted(slurm_partition="gpus"), tmp_path / "run")
    with pytest.raises(
        UserError, match="cannot be submitted: sbatch: error: invalid partition specified: gpus; change"
    ):
        engine.submit(batch_of(1))
    engine.close()
    assert not capfd.readouterr().err


def test_a_cluster_that_takes_no_more_is_asked_again(slurm, tmp_path, monkeypatch):
    monkeypatch.setattr(engine_module, "RETRY_SECONDS", 0.5)
    (slurm / "idle").touch()
    engine = opened(wanted(), tmp_path / "run")
    engine.submit(batch_of(1))
    (slurm / "refuse").write_text("QOSMaxSubmitJobPerUserLimit")
    engine.submit(batch_of(2))
    assert engine.room() == 0
    assert not engine.wait(1.0)
    (slurm / "refuse").unlink()
    engine.wait(1.5)
    assert (slurm / "2.state").exists()
    assert engine.room() == engine.slots - 2
    engine.close()
    assert [(slurm / f"{n}.state").read_text() for n in (1, 2)] == ["CANCELLED"] * 2


def test_jobs_of_a_driver_in_a_job_inherit_nothing_of_it(slurm, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("SLURM_CPU_BIND", "mask")
    monkeypatch.setenv("SBATCH_ACCOUNT", "mine")
    (Path(os.environ["PATH"].split(":")[0]) / "sbatch").write_text(
        f"#!/bin/sh\nenv > {tmp_path}/env\necho Submitted batch job 1\n"
    )
    engine = opened(wanted(), tmp_path / "run")
    engine.submit(batch_of(1))
    given = (tmp_path / "env").read_text()
    assert "SLURM_CPU_BIND" not in given
    assert "SBATCH_ACCOUNT=mine" in given
    assert os.environ["SLURM_CPU_BIND"] == "mask"


# --- a job ----------------------------------------------------------------------------------------------------


@pytest.fixture
def job(slurm, tmp_path):
    """A job that waits, its folder in the spool, and its driver's file."""
    (slurm / "idle").touch()
    engine = opened(wanted(), tmp_path / "run")
    engine.submit(batch_of(1))
    (folder,) = (tmp_path / "run" / "spool").glob("*-1")
    return BatchJob(engine._plain, plain_batch(batch_of(1)), str(folder), engine._session, 60.0), folder


def test_a_job_that_begins_when_nobody_waits_for_it_measures_nothing(job):
    call, folder = job
    driver = folder.parent / "driver"
    os.utime(driver, (time.time() - 61,) * 2)
    assert call().startswith("its driver was not seen for 6")
    driver.write_text("another")
    assert call() == "the run was stopped, or goes on elsewhere"
    shutil.rmtree(folder.parent)
    assert call() == "the run has ended"


def test_a_job_that_gets_nowhere_ends(job):
    call, folder = job
    (folder / "done-7").touch()
    for number in range(MOST_STARTS):
        (folder / f"start-000{number}").write_text('{"done": 1}')
    assert "has begun 4 times" in call()
    words = [json.loads(path.read_bytes()) for path in sorted(folder.glob("0005-*"))]
    assert words[0]["began"] == 10
    assert words[1]["status"] == "failed"


def test_a_cell_that_takes_longer_than_its_job_may_is_a_failed_one(alone, slurm, tmp_path, monkeypatch):
    (slurm / "idle").touch()  # the job's starts are the test's
    run = tmp_path / "run"
    campaign, engine = prepared(run, wanted(jobs="1"))
    real, calls = engine.submit, []

    def submit(batch):
        real(batch)
        calls.append(batch)
        folder = next((run / "spool").glob(f"*-{batch.number}"))
        job = BatchJob(engine._plain, plain_batch(batch), str(folder), engine._session, 60.0)
        if len(calls) == 1:
            for number in range(MOST_STARTS):
                (folder / f"start-000{number}").write_text('{"done": 0, "node": "n7"}')
        job()

    monkeypatch.setattr(engine, "submit", submit)
    assert campaign.run(engine=engine) is None
    found = load(run).records
    assert Counter(map(identity, found)) == Counter(list(alone))
    (failed,) = [r for r in found if r.status != "ok"]
    assert failed.status == "failed"
    assert "timeout_min=MINUTES" in failed.reason
    assert identity(failed) == calls[0].tasks[0].step.identity


@pytest.mark.parametrize("cluster", ["local", "slurm"])
def test_a_node_that_would_measure_something_else_refuses(slurm, tmp_path, cluster):
    asked = {"ask": {"datasets": [], "weights": [], "plugins": [], "room": 0}}
    here = {"versions": {"torch": "0.1"}, "images": {}, "weights": {}, "plugins": {}}
    engine = opened(wanted(cluster=cluster), tmp_path / "run", asked={**asked, "here": here})
    engine.submit(batch_of(1))
    (refused,) = heard(engine, 60)
    assert isinstance(refused, Refused)
    assert refused.batch == 1
    assert "torch is " in refused.lines[0]
    if cluster == "local":
        with pytest.raises(UserError, match="no other node is there"):
            engine.leave_out([refused.node])
    else:
        engine.leave_out([refused.node])
        engine.submit(batch_of(2))
        assert "#SBATCH --exclude=node1\n" in (slurm / "2.sh").read_text()
    engine.close()


# --- bad input ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "said"),
    [
        (
            {"slurm_partitoin": "gpu"},
            "unknown option of the engine submitit 'slurm_partitoin'; did you mean 'slurm_partition'",
        ),
        ({"cluster": "pbs"}, "unknown cluster of submitit 'pbs'. Choose from: slurm, local, debug"),
        ({"jobs": "0"}, "jobs=0: give how many jobs"),
        ({"jobs": "²"}, "jobs=²: give how many jobs"),
        ({"timeout_min": "4h"}, "timeout_min=4h: give a whole number"),
        ({"mem_gb": "much"}, "mem_gb=much: give a number"),
        ({"slurm_time": "04:00:00"}, "give whole minutes, such as timeout_min=240"),
        ({"slurm_nodes": "2"}, "unknown option of the engine submitit 'slurm_nodes'"),
    ],
)
def test_an_option_that_cannot_be_is_one_line(where, said):
    with pytest.raises(UserError) as told:
        make(wanted(**where))
    assert said in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cluster": "local", "jobs": "4"}, "--exclusive --engine-option jobs=4: "),
        ({"slurm_exclusive": "false"}, "--exclusive --engine-option slurm_exclusive=False: "),
        ({"slurm_exclusive": "user"}, "--exclusive --engine-option slurm_exclusive=user: "),
        ({"slurm_additional_parameters": "exclusive=user"}, "slurm_additional_parameters=exclusive=user: "),
        ({"slurm_additional_parameters": "oversubscribe"}, "slurm_additional_parameters=oversubscribe: "),
        ({"cluster": "local", "jobs": "1"}, ""),
        ({"cluster": "local", "slurm_exclusive": "false"}, ""),
        ({"slurm_exclusive": "true", "jobs": "4"}, ""),
    ],
)
def test_what_would_take_exclusivity_away_is_refused(options, said, slurm):
    asked = Wanted(engine="submitit", exclusive=True, options=options)
    if not said:
        make(asked)
        return
    with pytest.raises(UserError) as told:
        make(asked)
    assert said in str(told.value)
    assert "\n" not in str(told.value)


def test_a_part_of_a_gpu_is_no_job_s():
    with pytest.raises(UserError, match=r"--gpus 0.5: a job gets whole GPUs"):
        make(Wanted(engine="submitit", gpus=0.5))


def test_where_there_is_no_slurm_the_way_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        UserError, match=r"no Slurm is here \(sbatch is not on the PATH\).*--engine-option cluster=local"
    ):
        make(wanted())


def test_without_submitit_the_way_to_install_it_is_said(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "submitit"]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.startswith("tlbench.engines.submitit")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UserError, match=r"pip install 'tlbench\[submitit\]'"):
        make_engine(wanted())
