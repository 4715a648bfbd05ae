"""Which records are of one machine: whichever of equal devices they used, and whatever an engine had them inherit."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import CUDA, record

import tlbench
from tlbench.analysis.frame import rows
from tlbench.analysis.summary import summarise
from tlbench.grid.settings import Settings
from tlbench.machine.nvidia import Gpu, profile_in
from tlbench.machine.variables import ENGINES_SET, WHICH_DEVICES, clean_environment, kept, of_machine, set_by_engines
from tlbench.records.machine import machine_differences, machine_key, machine_of, settings_of
from tlbench.records.record import Record

# --- which of equal devices -------------------------------------------------------------------------------------


def on_gpu(number: int, **given: object) -> Record:
    """As records are today: the device is beside the identity."""
    after = {"visible_devices": {"CUDA_VISIBLE_DEVICES": str(number)}, "gpu_uuid": f"GPU-{number}", "gpu_index": number}
    return record(device="cuda", environment={**CUDA, "volatile": {"before": {}, "after": after}}, **given)


def of_old(**variables: str) -> Record:
    """As records were: the device is among the settings."""
    settings = {**CUDA["settings"], "variables": variables}
    return record(device="cuda", environment={**CUDA, "settings": settings})


def test_eight_equal_gpus_are_one_machine():
    records = [on_gpu(number, seed=number) for number in range(8)]
    assert len({machine_key(one) for one in records}) == 1
    assert machine_differences(records) == {}
    (one,) = summarise(rows(records))
    assert one["seeds"] == 8


@pytest.mark.parametrize("name", WHICH_DEVICES)
def test_records_of_older_versions_are_of_the_same_machine_whichever_device_they_name(name):
    old = [of_old(**{name: "3", "OMP_NUM_THREADS": "2"}), of_old(**{name: "5", "OMP_NUM_THREADS": "2"})]
    plain = of_old(OMP_NUM_THREADS="2")
    assert {machine_key(one) for one in old} == {machine_key(plain)}
    assert name not in json.dumps(machine_of(old[0]))
    assert name not in json.dumps(settings_of(old[0]))


@pytest.mark.parametrize("fact", ["gpu", "gpu_memory_bytes", "driver", "gpu_power_limit_watts", "gpu_mig_profile"])
def test_devices_that_differ_in_what_they_are_are_two_machines(fact):
    one, other = (replace(on_gpu(0), environment={**CUDA, "stable": {**CUDA["stable"], fact: n}}) for n in (1, 2))
    assert machine_key(one) != machine_key(other)


@pytest.mark.parametrize(
    ("name", "profile"),
    [
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "1g.10gb"),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb+me", "1g.5gb+me"),
        ("NVIDIA H200", None),
        ("", None),
    ],
)
def test_a_part_of_a_gpu_is_known_by_its_profile(name, profile):
    class Library:
        def nvmlDeviceGetHandleByUUID(self, uuid):
            return "handle"

        def nvmlDeviceGetName(self, handle):
            return name.encode()

        def nvmlDeviceGetIndex(self, handle):
            return 5

    assert profile_in(name) == profile
    assert Gpu(Library(), "GPU-0").mig_profile() == profile
    assert Gpu(Library(), "GPU-0").index() == 5
    assert Gpu(None, "GPU-0").mig_profile() is None


# --- what engines set -------------------------------------------------------------------------------------------

RAY = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "3", "RAY_JOB_ID": "7"}
DASK = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_TRIM_THRESHOLD_": "65536"}


def test_what_an_engine_has_set_is_out_and_everything_else_is_as_it_is():
    others = {"PATH": "/bin", "NVIDIA_TF32_OVERRIDE": "0"}
    assert clean_environment({**others, **RAY}, {}) == {**others, "CUDA_VISIBLE_DEVICES": "3", "RAY_JOB_ID": "7"}
    assert clean_environment({**others, **DASK}, {}) == others


def test_what_the_driver_had_itself_is_as_it_was_there():
    driver = {"OMP_NUM_THREADS": "4", "MALLOC_ARENA_MAX": "2", "SECRET": "x", "CUDA_VISIBLE_DEVICES": "0,1"}
    found = clean_environment({**RAY, **DASK}, driver)
    assert found == {
        "OMP_NUM_THREADS": "4", "MALLOC_ARENA_MAX": "2", "CUDA_VISIBLE_DEVICES": "3", "RAY_JOB_ID": "7",
    }  # fmt: skip
    assert set_by_engines(driver) == {"OMP_NUM_THREADS": "4", "MALLOC_ARENA_MAX": "2"}, "nothing else leaves the driver"


TEXTS = st.dictionaries(st.sampled_from([*ENGINES_SET, *WHICH_DEVICES, "PATH", "MKL_DYNAMIC"]), st.sampled_from("123"))


@given(TEXTS, TEXTS)
def test_the_identity_of_what_an_engine_starts_is_the_drivers(worker, driver):
    cleaned = clean_environment(worker, driver)
    assert set_by_engines(cleaned) == set_by_engines(driver)
    assert of_machine(set_by_engines(cleaned)) == of_machine(set_by_engines(driver))
    assert {k: v for k, v in cleaned.items() if k not in ENGINES_SET} == {
        k: v for k, v in worker.items() if k not in ENGINES_SET
    }
    assert clean_environment(cleaned, driver) == cleaned


# --- what the settings override ---------------------------------------------------------------------------------


def with_variables(threads: int | None, allocator: str, **variables: str) -> Record:
    environment = {**CUDA, "settings": {"threads": 2, "allocator": allocator, "variables": variables}}
    return record(environment=environment, settings=Settings(threads=threads))


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "MKL_NUM_THREADS"])
def test_a_number_of_threads_that_the_settings_give_is_the_only_one(name):
    keys = {machine_key(with_variables(2, "system", **v)) for v in ({}, {name: "1"}, {name: "9"})}
    assert len(keys) == 1
    keys = {machine_key(with_variables(None, "system", **v)) for v in ({}, {name: "1"}, {name: "9"})}
    assert len(keys) == 3, "where the settings give none, they are what decides"


def test_the_allocator_that_keeps_memory_overrides_what_libraries_would_read():
    variables = {"MALLOC_TRIM_THRESHOLD_": "65536"}
    assert machine_key(with_variables(1, "keep", **variables)) == machine_key(with_variables(1, "keep"))
    assert machine_key(with_variables(1, "system", **variables)) != machine_key(with_variables(1, "system"))
    assert machine_key(with_variables(1, "keep", MALLOC_ARENA_MAX="1")) != machine_key(with_variables(1, "keep"))


def test_rows_that_share_an_environment_and_not_their_settings_are_told_apart():
    old = with_variables(None, "keep", OMP_NUM_THREADS="1")
    both = [old, replace(old, settings=Settings(threads=2))]
    assert [row.machine for row in rows(both)] == [machine_key(one) for one in both]
    assert len(machine_differences(both)) == 1


CODE = """
import json, sys
from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.measure.cell import run_cell
from tlbench.records.machine import machine_key
cell = Cell(backbone="mobilenet_v3_small", weights="random", image_size=32, train_size=32, batch_size=16, freeze="full",
            epochs=1, layout="contiguous")
made = run_cell(cell, Settings(threads=2))
assert made.status == "ok", made.reason
print(json.dumps({
    "threads": made.environment["settings"]["threads"], "machine": machine_key(made), "loss": made.loss_test,
    "losses": [r.loss for r in made.rounds], "predictions": made.predictions_sha256,
}))
"""


@pytest.mark.exhaustive
def test_a_cell_computes_the_same_bits_whatever_its_process_has_inherited():
    plain = {name: value for name, value in os.environ.items() if name not in ENGINES_SET}
    found = []
    for inherited in ({}, {"OMP_NUM_THREADS": "1"}, {**DASK, "OMP_NUM_THREADS": "2"}):
        # What a library reads when it is loaded, and the settings do not override, is for `clean_environment`.
        environ = {**plain, "PYTHONPATH": str(Path(tlbench.__file__).parents[1]), **inherited}
        environ.pop("OPENBLAS_NUM_THREADS", None)
        done = subprocess.run([sys.executable, "-c", CODE], env=environ, capture_output=True, text=True, check=True)
        found.append(json.loads(done.stdout))
    assert found[0]["threads"] == 2
    assert found[0] == found[1] == found[2]


def test_every_variable_that_engines_set_and_records_keep_is_known_by_its_name():
    assert set(WHICH_DEVICES) == set(kept(dict.fromkeys(WHICH_DEVICES, "0")))
    assert not set(ENGINES_SET) & set(WHICH_DEVICES), "which device a worker has is the engine's to say"
