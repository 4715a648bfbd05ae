"""Numbers that hold: the frozen part is proven still, and what cannot be trusted is nowhere shown as if it could."""

import json
from dataclasses import replace

import pytest
import torch
from records import failure, record
from tiers import sweep

from tlbench.analysis.frame import row, rows
from tlbench.analysis.summary import summarise
from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.machine.kept import KEPT
from tlbench.measure import cell
from tlbench.records.run_folder import RECORDS, Store, load
from tlbench.train import activations
from tlbench.train.loop import Trainer

CELL = Cell(
    backbone="mobilenet_v3_small", weights="random", image_size=32, train_size=40, epochs=2, batch_size=16,
    layout="contiguous",
)  # fmt: skip
REASON = "the frozen part changed during training"


@pytest.fixture(scope="module")
def run_with_a_drift(tmp_path_factory):
    """A run of two cells; in the second one a frozen BatchNorm drifts, as in a common tutorial loop."""
    folder = tmp_path_factory.mktemp("drift")
    store = Store(folder)
    store.append(cell.run_cell(CELL, Settings(prefix="off")))
    with pytest.MonkeyPatch.context() as patch:

        def run_epoch(self, *order, real=Trainer.run_epoch):
            result = real(self, *order)
            norm = next(m for m in self.model.modules() if isinstance(m, torch.nn.BatchNorm2d))
            norm.running_mean += 1e-6
            return result

        patch.setattr(Trainer, "run_epoch", run_epoch)
        store.append(cell.run_cell(replace(CELL, seed=1, head="mlp"), Settings(prefix="off")))
    return folder


@pytest.mark.exhaustive
def test_a_part_that_drifts_by_one_bit_fails_its_record(run_with_a_drift):
    still, drifted = load(run_with_a_drift).records
    assert (still.status, drifted.status) == ("ok", "failed")
    assert still.frozen_sha256_before == still.frozen_sha256_after
    assert drifted.frozen_sha256_before != drifted.frozen_sha256_after
    assert REASON in drifted.reason
    assert len(drifted.rounds) == 2  # what was measured is kept, and is no result
    assert (drifted.accuracy_val, drifted.accuracy_test) == (None, None)


def test_the_drift_is_in_the_table_with_its_reason_and_without_figures(run_with_a_drift):
    still, drifted = summarise(rows(load(run_with_a_drift).records))
    assert (still["status"], drifted["status"]) == ("ok", "failed")
    assert REASON in drifted["reason"]
    assert drifted["records_ok"] == 0
    for figure in ("accuracy_val", "accuracy_test", "epoch_seconds", "training_seconds", "images_per_second"):
        assert still[figure] is not None
        assert drifted[figure] is None


@pytest.mark.exhaustive
def test_the_drift_is_in_the_terminal_and_in_every_report(command, run_with_a_drift):
    status, out, _ = command("summary", run_with_a_drift)
    assert status == 0
    assert REASON in " ".join(out.split())
    assert command("report", run_with_a_drift)[0] == 0
    for name in ("report.html", "report.md", "report.csv"):
        assert REASON in (run_with_a_drift / name).read_text(encoding="utf-8"), name


# --- traps ----------------------------------------------------------------------------------------------------


def test_a_failed_cell_with_good_figures_is_never_among_the_good():
    """It failed after its timing, so that its times look valid and better than all others."""
    good, bad = record(seconds=(1.0,) * 3), record(seconds=(0.1,) * 3, seed=1)
    bad = replace(bad, status="failed", reason="boom")
    (summary,) = summarise(rows([good, bad]))
    assert summary["status"] == "failed"
    assert summary["epoch_seconds"] == pytest.approx(1.0)
    assert summary["records_ok"] == 1


def test_phases_are_not_pooled_into_one_median():
    made = record(seconds=(1.0, 1.0, 9.0), accuracies=(0.5, 0.6, 0.7), freeze="lp_ft")
    phases = ("linear_probe", "linear_probe", "fine_tune")
    rounds = tuple(replace(r, phase=p) for r, p in zip(made.rounds, phases, strict=True))
    shown = row(replace(made, rounds=rounds))
    assert (shown["epoch_seconds"], shown["images_per_second"]) == (None, None)
    assert shown["phases"] == {"linear_probe": 1.0, "fine_tune": 9.0}


def test_the_last_smaller_batch_counts_its_real_images():
    made = cell.run_cell(replace(CELL, batch_size=32), Settings())  # 40 images: 32 and 8
    assert [r.samples for r in made.rounds] == [40, 40]
    fastest = max(40 / r.seconds for r in made.rounds)
    assert row(made)["images_per_second"] <= fastest


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_none_is_not_written(tmp_path, value):
    store = Store(tmp_path)
    written = store.append(replace(record(), loss_test=value))
    assert written.status == "failed"
    for line in (tmp_path / RECORDS).read_text().splitlines():
        json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert summarise(rows(load(tmp_path).records))[0]["status"] == "failed"


def test_a_failure_without_figures_has_none():
    (summary,) = summarise(rows([failure("failed", "boom")]))
    assert [summary[f] for f in ("accuracy_val", "epoch_seconds", "peak_memory_bytes")] == [None] * 3


@pytest.mark.exhaustive
def test_the_cost_of_determinism_is_visible():
    """The same figures, apart: whether torch was held to deterministic algorithms is in the record, and keeps rows
    from being averaged over both.
    """
    on, off = (cell.run_cell(CELL, Settings(deterministic=wanted)) for wanted in (True, False))
    assert (on.settings.deterministic, off.settings.deterministic) == (True, False)
    assert [r["records"] for r in summarise(rows([on, off]))] == [1, 1]


PREFIXES = {
    "live": Settings(prefix="off"),
    "memory": Settings(prefix="on"),
    "disk": Settings(prefix="on", prefix_ram_bytes=1),
}


@pytest.mark.exhaustive
@pytest.mark.parametrize("prefix", sweep(PREFIXES, {"memory"}))
def test_weights_that_an_earlier_cell_changed_behind_the_suite_s_back_fail_the_next(prefix, monkeypatch, tmp_path):
    """Cells of a grid get copies of one loaded backbone: what is hashed before training is that one's own."""
    monkeypatch.setenv("TLBENCH_CACHE", str(tmp_path))
    KEPT.forget()
    settings = PREFIXES[prefix]
    good = cell.run_cell(CELL, settings)
    assert good.status == "ok"
    activations.discard({file.stem.rpartition("-")[0] for file in (tmp_path / "prefix").glob("*.activations")})
    KEPT.activations.forget()
    (key,) = KEPT.backbones
    kept = KEPT.backbones.get(key)
    with torch.no_grad():
        for parameter in kept.stages.parameters():
            parameter.add_(0.1)  # one weight alone may be lost in rounding: untrained features are next to nothing
    spoiled = cell.run_cell(CELL, settings)
    assert (spoiled.status, REASON in spoiled.reason) == ("failed", True)
    assert [r.loss for r in spoiled.rounds] != [r.loss for r in good.rounds]
    # And that one alone: weights are loaded anew, and no activations of the changed ones are left.
    again = cell.run_cell(CELL, settings)
    assert [r.loss for r in again.rounds] == [r.loss for r in good.rounds]
    assert again.predictions_sha256 == good.predictions_sha256
    KEPT.forget()
