"""Cells that may have had others of their run beside them: these are no strangers, and the times stand apart."""

import io
import json
import threading
from dataclasses import replace

import pandas as pd
import pytest
from records import record

from tlbench.analysis.compare import compare, parse_gate
from tlbench.analysis.efficiency import freeze_efficiency
from tlbench.analysis.frame import COLUMNS, EXPORT_COLUMNS, frame, read_csv, rows, rows_of, with_seldom, write_csv
from tlbench.analysis.noise import noise_floors, told
from tlbench.analysis.sides import read_run
from tlbench.analysis.speedup import speedups
from tlbench.analysis.summary import summarise
from tlbench.analysis.times import flagged
from tlbench.analysis.verdict import verdicts
from tlbench.campaign.campaign import run_step
from tlbench.campaign.steps import Step, parse_rerun
from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.machine import noise as machine_noise
from tlbench.machine import usage
from tlbench.machine.noise import SHARED, Noise, Watch, noisy, read_machine, validity, witnessing
from tlbench.measure.cell import run_cell
from tlbench.measure.place import ALONE, Place
from tlbench.progress.words import finished
from tlbench.records.lines import decode, encode
from tlbench.records.run_folder import Store
from tlbench.report import write_report
from tlbench.report.noise_words import of_scope

CELL = Cell(
    backbone="mobilenet_v3_small", weights="random", image_size=32, train_size=32, epochs=1, batch_size=16,
    layout="contiguous",
)  # fmt: skip
SETTINGS = Settings(threads=1, latency_rounds=2, throughput_rounds=3)
BESIDE = Place(name="a cell", shared=True, node="gpu-3", engine="ray")


def shared(**given):
    """A record of a cell that shared its node."""
    return replace(record(**given), shares_node=True, validity="shared", validity_reason=SHARED)


# --- the witness ------------------------------------------------------------------------------------------------


def test_on_a_shared_machine_this_process_alone_is_the_witness(monkeypatch):
    monkeypatch.setattr(machine_noise, "_stalled", lambda: 3.0)
    monkeypatch.setattr(machine_noise, "waited_seconds", lambda: 0.5)
    with witnessing(True):
        seen = read_machine()
        with witnessing(False):
            assert read_machine().stalled_seconds == 3.0
    assert (seen.stalled_seconds, seen.waited_seconds) == (None, 0.5)
    after = read_machine()
    assert (after.stalled_seconds, after.waited_seconds) == (3.0, None)


def test_what_the_kernel_tells_of_this_process(tmp_path, monkeypatch):
    monkeypatch.setattr(usage, "THREADS", tmp_path)
    assert usage.waited_seconds() is None
    for name, text in {"1": "900 1500000000 7\n", "2": "1 500000000 2\n", "3": "nonsense", "4": None}.items():
        (tmp_path / name).mkdir()
        if text is not None:
            (tmp_path / name / "schedstat").write_text(text)
    assert usage.waited_seconds() == 2.0
    monkeypatch.setattr(usage, "THREADS", tmp_path / "missing")
    assert usage.waited_seconds() is None


@pytest.mark.parametrize(
    ("seen", "word"),
    [
        (Noise(pressure=None, switches=9999, waited=0.0), ""),  # what it waited is known, and knows better
        (Noise(pressure=None, switches=0, waited=0.5), "for 50% of it, the process waited for a processor"),
        (Noise(pressure=None, switches=0, foreign=2, shared=True), ""),
        (Noise(pressure=None, switches=0, foreign=2), "2 other processes on the GPU"),
    ],
)
def test_cells_of_the_same_run_are_no_strangers(seen, word):
    assert noisy(seen, 1.0, limit=0.02) == word


def test_a_watch_sees_what_this_process_waited():
    readings = iter([
        machine_noise.Reading(seconds=float(n), stalled_seconds=None, switches=0, waited_seconds=0.25 * n, foreign=1)
        for n in range(2)
    ])  # fmt: skip
    with witnessing(True):
        watch = Watch(lambda: None, lambda: next(readings))
        watch.setup()
        watch.close()
    (seen,) = watch.rounds
    assert (seen.pressure, seen.waited, seen.shared) == (None, 0.25, True)


@pytest.mark.parametrize(("beside", "joules"), [(False, 7.0), (True, None)])
def test_the_energy_of_a_package_is_no_cell_s_that_shares_it(beside, joules):
    reading = machine_noise.Reading(seconds=0.0, stalled_seconds=None, switches=0)
    readings = iter([replace(reading, energy_joules=1.0), replace(reading, seconds=1.0, energy_joules=8.0)])
    with witnessing(beside):
        watch = Watch(lambda: None, lambda: next(readings))
        watch.setup()
        watch.close()
    assert watch.rounds[0].energy_joules == joules


def test_times_of_a_shared_node_are_called_that_and_nothing_else():
    six = ["full"] * 6
    assert validity(six, [1.0] * 5 + [9.0], ["x"] * 6, ["hot"] * 6, {"noisy": "y"}, shared=True) == (
        "shared", f"{SHARED}; 6 of 6 rounds: x",
    )  # fmt: skip
    assert validity(six, [1.0] * 6, [""] * 6, shared=True) == ("shared", SHARED)
    assert validity([], [], [], shared=True) == ("ok", ""), "what measured nothing has no times"


# --- a record ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def beside():
    return run_cell(CELL, SETTINGS, place=BESIDE)


def test_a_record_tells_engine_and_node_and_that_the_node_was_shared(beside):
    assert (beside.status, beside.reason) == ("ok", "")
    assert (beside.engine, beside.node, beside.shares_node) == ("ray", "gpu-3", True)
    assert beside.validity == "shared"
    back = decode(encode(beside))
    assert (back.engine, back.node, back.shares_node) == ("ray", "gpu-3", True)
    assert encode(back) == encode(beside)
    assert "its times are of a node that it may have shared" in finished(beside)
    assert parse_rerun("shared")(beside), "it can be measured again, alone"


def test_a_record_of_one_machine_says_none_of_it():
    assert ALONE.where == {"engine": "", "node": "", "shares_node": False}
    assert not {"engine", "node", "shares_node"} & json.loads(encode(record())).keys()
    assert decode(encode(record())) == record()


def test_a_cell_that_has_its_node_to_itself_takes_no_pass_that_was_timed_beside_others():
    settings = replace(SETTINGS, prefix="on")
    cell = replace(CELL, seed=1)
    first = run_cell(cell, settings, place=BESIDE)
    taken = run_cell(cell, settings, place=BESIDE)
    alone = run_cell(cell, settings)
    after = run_cell(cell, settings)
    assert [r.prefix["shared"] for r in (first, taken, alone, after)] == [False, True, False, True]
    assert len({r.predictions_sha256 for r in (first, taken, alone, after)}) == 1
    assert first.prefix["noisy"] == SHARED != alone.prefix["noisy"]


def test_a_cell_in_another_thread_is_as_in_the_main_one(beside):
    found = []
    thread = threading.Thread(target=lambda: found.append(run_cell(CELL, SETTINGS, place=BESIDE)))
    thread.start()
    thread.join()
    assert found[0].predictions_sha256 == beside.predictions_sha256
    assert found[0].environment["settings"] == beside.environment["settings"]


def test_a_shared_cell_is_not_measured_again_for_it(beside):
    calls = []

    def measure(cell, settings, *, place):
        calls.append(place)
        return beside

    made = run_step(Step(cell=CELL, name="x"), replace(SETTINGS, retry_noisy=3), measure)
    assert (len(calls), made.attempts) == (1, 1)


# --- analysis ---------------------------------------------------------------------------------------------------


def test_times_are_of_cells_that_had_the_node_to_themselves_and_accuracies_of_all():
    table = rows([record(seconds=(1.0,) * 3, seed=0), shared(seconds=(9.0,) * 3, seed=1, accuracies=(0.1, 0.2, 0.3))])
    (one,) = summarise(table)
    assert (one["epoch_seconds"], one["units"]) == (1.0, 1)
    assert (one["accuracy_test"], one["seeds"]) == (pytest.approx(0.6), 2)
    assert one["validity"] == "shared"
    assert one["validity_reason"] == f"1 of 2, left out of the times: {SHARED}"
    assert flagged(one) == ""


def test_times_of_a_run_that_shared_its_nodes_are_there_and_marked():
    (one,) = summarise(rows([shared(seconds=(n,) * 3, seed=seed) for seed, n in enumerate((1.0, 1.1))]))
    assert one["epoch_seconds"] == pytest.approx(1.1**0.5)
    assert (one["validity"], flagged(one)) == ("shared", "shared")
    assert one["validity_reason"] == f"2 of 2, all there is: {SHARED}"


def test_beside_times_of_cells_that_were_alone_there_are_none_of_cells_that_were_not():
    alone, other = summarise(rows([record(freeze="full"), shared(freeze="last_1"), shared(task="infer", head="mlp")]))[
        :2
    ]
    assert alone["training_seconds"]
    assert other["accuracy_val"] == alone["accuracy_val"]
    timed = ("epoch_seconds", "epoch_seconds_low", "training_seconds", "images_per_second", "energy_joules")
    assert [other[name] for name in timed] == [None] * len(timed)
    assert other["peak_memory_bytes"], "which nobody shares"
    assert "which are of cells that had their node to themselves" in other["validity_reason"]


def test_a_noisy_time_of_a_cell_that_was_alone_counts_before_a_shared_one():
    noisy_one = replace(record(seconds=(2.0,) * 3), validity="noisy", validity_reason="x")
    (one,) = summarise(rows([noisy_one, shared(seconds=(9.0,) * 3, seed=1)]))
    assert (one["epoch_seconds"], one["validity"]) == (2.0, "noisy")
    assert one["validity_reason"] == f"2 of 2, all there is: x; {SHARED}"


def test_no_speedup_and_no_efficiency_between_both_conditions():
    flops = {"train_step": {"full": 2e9, "last_1": 1e9}}
    mixed = summarise(rows([shared(device="cpu", flops=flops), record(device="cuda", flops=flops)]))
    assert [pair for one in speedups(mixed) for pair in one.pairs] == []
    mixed = summarise(rows([record(freeze="full", flops=flops), shared(freeze="last_1", flops=flops)]))
    assert freeze_efficiency(mixed) == []
    alike = summarise(rows([shared(freeze="full", flops=flops), shared(freeze="last_1", flops=flops)]))
    assert len(freeze_efficiency(alike)) == 1


def test_pairs_of_a_shared_node_tell_no_noise_of_one_that_is_not():
    def pair(make, **given):
        return [make(seconds=(1.0,) * 3, **given), make(seconds=(2.0,) * 3, role="aa", **given)]

    both = rows([*pair(record), *pair(shared, freeze="last_1")])
    (floor,) = noise_floors(both).values()
    assert floor.n == 1
    assert noise_floors(rows(pair(shared)))
    assert told(rows(pair(shared)), "run") == []
    assert [past.pairs for past in told(both, "run")] == [past.pairs for past in told(rows(pair(record)), "run")]


@pytest.fixture
def sides(tmp_path):
    def run(name, make, factor):
        store = Store(tmp_path / name)
        for seed in range(3):
            store.append(make(seconds=(factor, factor, factor + seed / 9), seed=seed, started=f"{name}{seed}"))
        return read_run(tmp_path / name)

    return run


def test_runs_of_both_conditions_are_compared_by_their_accuracies_alone(sides):
    alone, beside = sides("alone", record, 1.0), sides("beside", shared, 5.0)
    for base, new in ((alone, beside), (beside, alone)):
        found = compare([base], [new], [parse_gate("epoch_seconds:10%")])
        assert found.changes == ()
        assert found.exit_status == 2
        assert any("of nodes that cells shared" in line for line in found.cautions)
        (change,) = compare([base], [new]).changes
        assert (change.metric, change.verdict) == ("accuracy_test", "same")


def test_runs_of_one_condition_are_compared_by_their_times(sides):
    found = compare([sides("a", shared, 1.0)], [sides("b", shared, 5.0)])
    assert {change.metric for change in found.changes} == {"epoch_seconds", "training_seconds", "accuracy_test"}
    assert found.cautions == ()


# --- what is shown ----------------------------------------------------------------------------------------------

MIXED = [
    record(freeze="full"), record(freeze="full", task="infer", latency=(0.1,) * 30),
    replace(shared(freeze="last_1"), engine="ray", node="gpu-3"), shared(freeze="norm", task="infer", head="mlp"),
]  # fmt: skip


def test_columns_are_there_only_where_some_record_has_them():
    plain, mixed = rows([record()]), rows(MIXED)
    assert with_seldom(EXPORT_COLUMNS, plain) == EXPORT_COLUMNS
    assert list(frame(plain).columns) == list(COLUMNS)
    assert with_seldom(EXPORT_COLUMNS, mixed) == (*EXPORT_COLUMNS, "shares_node", "engine", "node")
    text = io.StringIO()
    write_csv(mixed, text, with_seldom(EXPORT_COLUMNS, mixed))
    text.seek(0)
    assert [(r["shares_node"], r["engine"], r["node"]) for r in read_csv(text)] == [
        ("", "", ""), ("", "", ""), ("True", "ray", "gpu-3"), ("True", "", ""),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "through", [lambda data: data, lambda data: pd.read_csv(io.StringIO(data.to_csv(index=False)))]
)
def test_a_frame_tells_the_conditions_apart_as_records_do(through):
    for records in (MIXED, MIXED[:1]):
        known, back = rows(records), rows_of(through(frame(rows(records))))
        for name in ("shares_node", "engine", "node"):
            assert [row[name] for row in back] == [row[name] for row in known]
        assert [r["epoch_seconds"] for r in summarise(back)] == [r["epoch_seconds"] for r in summarise(known)]


def test_what_would_keep_neighbours_away_is_said_of_a_run_that_had_some():
    """``--twins`` would measure a cell twice beside others, which tells nothing of it."""
    for made, hint, other in ((shared, "--exclusive", "--twins"), (record, "--twins", "--exclusive")):
        records = [made(seed=seed, freeze=policy) for seed in (0, 1) for policy in ("full", "norm")]
        (scope,) = verdicts(summarise(rows(records)))
        said = of_scope(scope)
        assert hint in said
        assert other not in said


@pytest.mark.parametrize("records", [MIXED, MIXED[2:]], ids=["mixed", "shared"])
def test_a_report_of_shared_nodes_says_so(records, tmp_path):
    lines = []
    write_report(records, tmp_path, tell=lines.append)
    assert lines == []
    text = (tmp_path / "report.md").read_text()
    assert "flagged (2 shared)" in text
    assert SHARED in (tmp_path / "report.csv").read_text()


def test_the_summary_marks_them(capsys, monkeypatch):
    from tlbench.console import new_console
    from tlbench.report.terminal.summary import print_summary

    monkeypatch.setenv("COLUMNS", "120")
    print_summary(new_console(), MIXED)
    out = capsys.readouterr().out
    assert "resnet18 &" in out
    assert "& times flagged as shared: other cells of the run may have been measured on the same node meanwhile" in out
