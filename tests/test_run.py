"""A cell in, a record out: on real images, with real pretrained weights."""

import gc
import signal
import weakref
from dataclasses import replace

import pytest
import torch
from bits import finished as results
from randomise import no_initialisation
from tiers import sweep

from tlbench.campaign import steps as steps_module
from tlbench.campaign.asked import Asked
from tlbench.campaign.campaign import Campaign
from tlbench.errors import UserError
from tlbench.grid.cell import Cell
from tlbench.grid.grid import Grid
from tlbench.grid.settings import Settings
from tlbench.machine import device
from tlbench.machine.clock import plain_clock
from tlbench.machine.kept import KEPT
from tlbench.measure import cell as cell_module
from tlbench.measure import outcome, timed, training
from tlbench.measure.build import Building
from tlbench.measure.place import Place
from tlbench.measure.warm_up import WarmUp
from tlbench.policies.base import Phase, Policy
from tlbench.policies.table import POLICIES
from tlbench.records.plan import Plan
from tlbench.records.record import Record
from tlbench.records.run_folder import load
from tlbench.train import evaluate, loop
from tlbench.train.loop import Trainer

QUICK = Settings(throughput_rounds=2, throughput_batches=1, latency_rounds=3)
CELL = Cell(
    backbone="resnet18", weights="random", image_size=32, train_size=40, epochs=2, batch_size=16, layout="contiguous"
)
BACKBONES = ["resnet18", "resnet50", "vgg16", "mobilenet_v3_small", "efficientnet_lite0"]


def run_cell(**changes) -> Record:
    return cell_module.run_cell(replace(CELL, **changes), QUICK)


@pytest.mark.exhaustive
@pytest.mark.parametrize("freeze", sweep(["linear_probe", "last_1", "norm", "full"], {"norm"}))
@pytest.mark.parametrize("backbone", sweep(BACKBONES, {"mobilenet_v3_small"}))
def test_the_frozen_part_is_the_same_before_and_after(backbone, freeze):
    record = run_cell(
        backbone=backbone, freeze=freeze, epochs=1, train_size=20, image_size=64 if "lite" in backbone else 32
    )
    if (backbone, freeze) == ("vgg16", "norm"):
        assert record.status == "not_applicable"
        assert "no normalisation layer" in record.reason
        return
    assert (record.status, record.reason) == ("ok", "")
    assert record.frozen_sha256_before == record.frozen_sha256_after
    assert record.frozen_sha256_before


def test_a_training_record_is_complete():
    record = run_cell()
    assert record.status == "ok"
    assert len(record.rounds) == 2
    assert [r.samples for r in record.rounds] == [40, 40]
    assert all(r.seconds > 0 and r.loss > 0 and 0 <= r.accuracy_val <= 1 for r in record.rounds)
    assert record.accuracy_val == record.rounds[-1].accuracy_val
    assert 0 <= record.accuracy_test <= 1
    assert record.trainable_parameters == 512 * 10 + 10
    assert record.classes == 10
    assert record.samples["train"] == 40
    assert record.cut == "head"
    assert record.weights["source"] == "random"
    assert len(record.weights["sha256"]) == 64
    assert record.peak_memory_bytes > 0
    assert record.environment["stable"]["torch"] == torch.__version__


def test_an_inference_record_is_complete():
    record = run_cell(task="infer", freeze="none")
    assert record.status == "ok"
    assert len(record.latency_seconds) == 3
    assert [r.samples for r in record.rounds] == [16, 16]
    assert record.accuracy_test is None


def test_synthetic_data_reports_no_accuracy():
    record = run_cell(dataset="synthetic")
    assert record.status == "ok"
    assert record.accuracy_test is None
    assert record.accuracy_val is None
    assert record.predictions_sha256 is None


@pytest.mark.exhaustive
@pytest.mark.parametrize("freeze", sweep(["linear_probe", "full"], {"linear_probe"}))
def test_the_same_cell_again_is_equal_bit_for_bit(freeze):
    first = run_cell(freeze=freeze, backbone="efficientnet_lite0", weights="auto", image_size=64)
    torch.rand(7)  # the state that the cell before left must not matter
    again = run_cell(freeze=freeze, backbone="efficientnet_lite0", weights="auto", image_size=64)
    assert first.weights["pretrained"]
    assert results(first) == results(again)


@pytest.mark.exhaustive
@pytest.mark.parametrize(("freeze", "warmup"), [("full", 0.1), ("freeze_out", 0.0)])
def test_a_cell_that_says_nothing_of_warm_up_takes_the_policy_s(freeze, warmup):
    assert run_cell(freeze=freeze, epochs=2).recipe["warmup"] == warmup
    assert run_cell(freeze=freeze, epochs=2, warmup=0.3).recipe["warmup"] == 0.3


@pytest.mark.exhaustive
def test_another_seed_is_another_run():
    assert results(run_cell(seed=0)) != results(run_cell(seed=1))


@pytest.mark.exhaustive
def test_the_warm_up_does_not_train_the_measured_model(monkeypatch):
    with_warm_up = results(run_cell(freeze="full"))
    monkeypatch.setattr(training, "warm_up", lambda *_: WarmUp(peak_memory_bytes=None, compile_seconds=None))
    assert results(run_cell(freeze="full")) == with_warm_up


def test_evaluation_is_outside_the_timed_call(monkeypatch):
    timed = []
    events = []
    monkeypatch.setattr(
        outcome, "evaluate", lambda *a, real=evaluate.evaluate: (events.append(bool(timed)), real(*a))[1]
    )

    def clock(setup, target, rounds, seconds):
        for _ in range(rounds):
            setup()
            timed.append(1)
            target()
            timed.clear()
            seconds.append(1.0)

    record = cell_module.run_cell(CELL, QUICK, clock)
    assert [r.seconds for r in record.rounds] == [1.0, 1.0]
    assert events == [False, False, False]  # two epochs on validation data, then the test split once


def test_two_clocks_give_the_same_record():
    def fake(setup, target, rounds, seconds):
        plain_clock(setup, target, rounds, seconds)

    assert results(cell_module.run_cell(CELL, QUICK, fake)) == results(cell_module.run_cell(CELL, QUICK))


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (MemoryError("full"), "oom"),
        (torch.OutOfMemoryError("CUDA out of memory"), "oom"),
        (RuntimeError("something\nlong"), "failed"),
        (KeyboardInterrupt(), "interrupted"),
        (SystemExit(0), "failed"),
        (SystemExit(), "failed"),
        (SystemExit("two\nlines"), "failed"),
        (GeneratorExit(), "failed"),
        (pytest.fail.Exception("of another tool"), "failed"),
        (loop.Diverged("the loss became nan at step 1 of 3"), "diverged"),
    ],
)
def test_whatever_happens_in_an_epoch_is_a_record_that_keeps_the_epochs_before(monkeypatch, error, status):
    def run_epoch(self, *order, real=Trainer.run_epoch):
        if self.epoch == 1:
            raise error
        return real(self, *order)

    monkeypatch.setattr(Trainer, "run_epoch", run_epoch)
    record = run_cell()
    assert record.status == status
    assert record.reason
    assert "\n" not in record.reason
    assert len(record.rounds) == 1
    assert record.rounds[0].seconds > 0


def test_a_part_that_drifts_makes_the_record_failed(monkeypatch):
    def run_epoch(self, *order, real=Trainer.run_epoch):
        result = real(self, *order)
        self.model.stem.bn1.running_mean += 1
        return result

    monkeypatch.setattr(Trainer, "run_epoch", run_epoch)
    record = run_cell()
    assert record.status == "failed"
    assert "frozen part changed" in record.reason


def test_pretrained_weights_that_are_not_here_skip_the_cell_with_a_way_forward():
    record = run_cell(weights="pretrained")
    assert record.status == "skipped"
    assert "resnet18-f37072fd.pth" in record.reason
    assert "--weights random" in record.reason


@pytest.mark.exhaustive
def test_a_grid_keeps_what_is_finished_when_it_is_interrupted(tmp_path, monkeypatch):
    grid = Grid(axes={k: (v,) for k, v in vars(CELL).items() if k in Grid().axes} | {"seed": (0, 1, 2)})
    calls = []

    def one(cell, *args, real=cell_module.run_cell, **kwargs):
        calls.append(kwargs["place"].role)
        if len(calls) == 3:
            monkeypatch.setattr(Trainer, "run_epoch", lambda self, *_: signal.raise_signal(signal.SIGINT))
        return real(cell, *args, **kwargs)

    monkeypatch.setattr(cell_module, "run_cell", one)
    Campaign(asked=Asked(out=tmp_path), plan=Plan(grids=(grid,), settings=QUICK)).run()
    assert calls == ["cell", "cell", "cell"]
    assert [r.status for r in load(tmp_path).records if r.role == "cell"] == ["ok", "ok", "interrupted"]


def test_every_block_has_every_cell_once():
    grid = Grid(axes={"backbone": ("resnet18", "vgg16"), "seed": (0, 1, 2)})
    plan = Plan(grids=(grid,), settings=Settings(blocks=3))
    steps = steps_module.steps(plan)
    orders = []
    for block in range(3):
        own = [s for s in steps if s.block == block]
        assert [s.role for s in own] == ["cell"] * 6
        assert {s.cell for s in own} == set(grid.expand())
        orders.append([s.cell for s in own])
    assert orders[0] != orders[1]
    assert steps == steps_module.steps(plan)  # the same order every time


def test_a_size_that_the_backbone_cannot_take_is_not_applicable():
    with no_initialisation():
        record = run_cell(backbone="vit_b_16", image_size=64)
    KEPT.forget_weights()
    assert record.status == "not_applicable"
    assert "224" in record.reason


@pytest.mark.parametrize(
    ("freeze", "size", "status"),
    [("full", 32, "not_applicable"), ("full+bn=freeze", 32, "ok"), ("last_1", 64, "ok")],
)
def test_batches_of_one_image(freeze, size, status):
    """BatchNorm cannot train on one value a channel, to which resnet18 comes at 32 px; at 64 px there are four."""
    record = run_cell(freeze=freeze, image_size=size, batch_size=1, train_size=10, epochs=1)
    assert record.status == status, record.reason
    if status == "not_applicable":
        assert "take --batch-size 2 or more" in record.reason
        assert "full+bn=freeze" in record.reason


def test_a_last_batch_of_one_image_joins_the_one_before_it():
    record = run_cell(freeze="full", batch_size=4, train_size=13, epochs=1)
    assert (record.status, record.rounds[0].samples) == ("ok", 13)


@pytest.mark.skipif(torch.cuda.is_available(), reason="has CUDA")
def test_cuda_where_there_is_none():
    with pytest.raises(UserError, match="no CUDA GPU"):
        device.resolve_devices(("cuda",))
    assert device.resolve_devices(("available",)) == ("cpu",)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_on_cuda():
    record = run_cell(device="cuda")
    assert record.status == "ok"
    assert record.environment["stable"]["gpu"]


class Cycle:
    def __init__(self):
        self.itself = self


@pytest.mark.exhaustive
def test_a_cell_leaves_no_garbage_and_pythons_collector_as_it_was(monkeypatch):
    made = []

    def with_garbage(*args):
        made.append(weakref.ref(Cycle()))
        return build(*args)

    build, frozen = Building.build, gc.get_freeze_count()
    monkeypatch.setattr(Building, "build", with_garbage)
    gc.disable()
    try:
        assert run_cell(epochs=1).status == "ok"
        assert made
        assert made[0]() is None
    finally:
        gc.enable()
    assert gc.get_freeze_count() == frozen


def test_new_memory_is_not_written_twice_in_a_cell_and_torchs_flag_stays(monkeypatch):
    seen = []
    monkeypatch.setattr(
        Trainer, "start_epoch", lambda _: seen.append(torch.utils.deterministic.fill_uninitialized_memory)
    )
    before = torch.utils.deterministic.fill_uninitialized_memory
    run_cell()
    assert seen == [False]
    assert torch.utils.deterministic.fill_uninitialized_memory == before


# --- whatever happens is a record ---------------------------------------------------------------------------------


@pytest.mark.exhaustive
@pytest.mark.parametrize("task", ["train", "infer"])
@pytest.mark.parametrize("asked", ["rounds", "energy"])
def test_a_device_that_is_lost_when_its_rounds_are_read_is_a_record(monkeypatch, task, asked):
    def lost(self):
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(timed.Timed, asked, lost)
    record = run_cell(task=task, freeze="none" if task == "infer" else "linear_probe", epochs=1)
    assert (record.status, record.rounds) == ("failed", ())
    assert "device-side assert" in record.reason
    assert record.weights["source"] == "random"
    assert record.total_parameters


@pytest.mark.parametrize(
    ("phases", "why"),
    [([], "gives no phase"), ([Phase(name="one", scales={"out.weight": 1.0})], "'out.weight' in its phase one")],
)
def test_a_policy_from_outside_that_makes_no_sense_fails_its_own_cells_alone(monkeypatch, phases, why):
    odd = Policy(summary="", source="", build=lambda model, arguments, epochs: phases, arguments={})
    monkeypatch.setitem(POLICIES, "odd", odd)
    record = run_cell(freeze="odd", epochs=1)
    assert record.status == "failed"
    assert why in record.reason
    place = Place(siblings=("odd", "linear_probe"))
    assert cell_module.run_cell(replace(CELL, epochs=1), Settings(), place=place).status == "ok"


@pytest.mark.parametrize("fails", [False, True])
def test_a_cell_s_model_is_free_before_its_record_is_made(monkeypatch, fails):
    """What is measured then, the ceiling, needs memory of its own."""
    models = []
    build = Building.build

    def watched(self, *args):
        built = build(self, *args)
        models.append(weakref.ref(built.model))
        return built

    def ceiling(*_):
        gc.collect()
        models.append(models[0]() is None)

    def run_epoch(self, *order, real=Trainer.run_epoch):
        if fails:
            raise MemoryError("on purpose")
        return real(self, *order)

    monkeypatch.setattr(Building, "build", watched)
    monkeypatch.setattr(Trainer, "run_epoch", run_epoch)
    monkeypatch.setattr(cell_module, "ceiling", ceiling)
    assert run_cell(epochs=1).status == ("oom" if fails else "ok")
    assert models[1:] == [True]
