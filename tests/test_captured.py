"""Steps as CUDA graphs: what is captured and replayed trains as the steps themselves do. A CPU has no graphs, so here a
replay takes the captured step again, from the same places in memory.
"""

from dataclasses import replace

import pytest
import torch
from digits import few_digits

from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.measure import build
from tlbench.measure.cell import run_cell
from tlbench.train import captured, loop

CELL = Cell(
    backbone="mobilenet_v3_small", weights="random", image_size=32, train_size=40, epochs=3, batch_size=16,
    layout="contiguous", fused="on",
)  # fmt: skip
SETTINGS = Settings(throughput_rounds=2, throughput_batches=1, latency_rounds=3)
GRAPH = captured.CHOICE


@pytest.fixture
def replays(monkeypatch):
    """Captures on the CPU. Holds the steps of each graph that was captured, and how often each was replayed."""
    made = []

    def capture(step):
        loss, count = torch.zeros(()), [0]
        made.append(count)

        def replay():
            count[0] += 1
            loss.copy_(step())

        return loss, replay

    monkeypatch.setattr(captured, "capture", capture)
    monkeypatch.setattr(loop, "check_capture", lambda *_: None)
    monkeypatch.setattr(build, "check_choice", lambda *_: None)
    return made


@pytest.mark.parametrize(
    "given",
    [
        {"freeze": "linear_probe", "head": "linear"},
        {"freeze": "linear_probe", "head": "mlp", "label_smoothing": 0.1},
        {"freeze": "last_1", "class_weights": "balanced", "sampler": "balanced", "label_smoothing": 0.1},
        {"freeze": "linear_probe", "optimizer": "sgd", "schedule": "constant"},
        {"freeze": "last_1", "weight_decay": 0.1},
        {"freeze": "last_1", "optimizer": "sgd", "warmup": 0.5},
        {"freeze": "linear_probe", "precision": "bf16"},
    ],
    ids=lambda given: "-".join(map(str, given.values())),
)
def test_replayed_steps_train_as_the_steps_do(replays, given):
    cell = replace(CELL, **given)
    with few_digits():
        plain, graph = (run_cell(replace(cell, compile=choice), SETTINGS) for choice in ("off", GRAPH))
    assert (plain.status, plain.reason) == ("ok", "")
    assert (graph.status, graph.reason) == ("ok", "")
    assert [one.loss for one in graph.rounds] == pytest.approx([one.loss for one in plain.rounds], rel=1e-5)
    assert graph.predictions_sha256 == plain.predictions_sha256
    assert graph.accuracy_val == plain.accuracy_val
    assert graph.frozen_sha256_after == plain.frozen_sha256_after
    assert graph.compile_seconds > 0
    assert plain.compile_seconds is None
    assert sum(count for (count,) in replays) > 0


def test_each_size_of_batch_is_captured_once_and_every_timed_step_is_a_replay(replays, monkeypatch):
    eager = []
    step = loop.Trainer.step
    monkeypatch.setattr(loop.Trainer, "step", lambda self, *rest: eager.append(1) or step(self, *rest))
    with few_digits():
        record = run_cell(replace(CELL, freeze="linear_probe", compile=GRAPH), SETTINGS)
    assert record.status == "ok"
    assert len(replays) == 2 * 2  # 16 and 8 images, in the warm-up and in the training
    assert eager == []


def test_a_graph_that_computes_something_else_fails_the_cell(replays, monkeypatch):
    def capture(step):
        loss = torch.zeros(())
        return loss, lambda: loss.copy_(step() * 1.001)

    monkeypatch.setattr(captured, "capture", capture)
    with few_digits():
        record = run_cell(replace(CELL, freeze="linear_probe", compile=GRAPH), SETTINGS)
    assert record.status == "failed"
    assert "the CUDA graph of a step gives another loss than the step itself" in record.reason


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "needs a CUDA device, not cpu"),
        ({"task": "infer", "freeze": "none", "epochs": 1}, "is of training steps"),
    ],
)
def test_where_there_is_nothing_to_capture_it_is_said(given, words):
    with few_digits():
        record = run_cell(replace(CELL, **{"freeze": "linear_probe", "compile": GRAPH, **given}), SETTINGS)
    assert record.status == "not_applicable"
    assert words in record.reason


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"freeze": "full"}, "stored activations that lie on the GPU"),
        ({"freeze": "linear_probe"}, "stored activations that lie on the GPU"),  # they lie in main memory
    ],
)
def test_only_steps_on_stored_activations_on_the_device_are_captured(given, words, monkeypatch):
    monkeypatch.setattr(build, "check_choice", lambda *_: None)
    with few_digits():
        record = run_cell(replace(CELL, compile=GRAPH, **given), SETTINGS)
    assert record.status == "not_applicable"
    assert words in record.reason


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("head", ["linear", "mlp"])
@pytest.mark.parametrize("freeze", ["linear_probe", "last_1"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_graph_of_cudas_own_trains_as_the_steps_do(freeze, head, optimizer):
    cell = replace(CELL, freeze=freeze, head=head, optimizer=optimizer, device="cuda")
    with few_digits():
        plain, graph = (run_cell(replace(cell, compile=choice), SETTINGS) for choice in ("off", GRAPH))
    assert (graph.status, graph.reason) == ("ok", "")
    assert [one.loss for one in graph.rounds] == pytest.approx([one.loss for one in plain.rounds], rel=1e-4)
