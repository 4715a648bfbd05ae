"""The frozen prefix's activations: kept once, shared, and never a reason for another result."""

import pickle
import tempfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from bits import finished as results
from digits import FEW
from tiers import sweep

from tlbench.analysis.derived import Source, evaluation_seconds, shared_seconds, training_seconds
from tlbench.campaign import check
from tlbench.campaign.asked import Asked
from tlbench.campaign.campaign import Campaign
from tlbench.grid.cell import Cell
from tlbench.grid.grid import Grid
from tlbench.grid.settings import Settings
from tlbench.machine.arithmetic import Arithmetic
from tlbench.machine.kept import KEPT
from tlbench.measure import cell as cell_module
from tlbench.measure import timed, training
from tlbench.measure.build import build
from tlbench.measure.frozen import fill_prefix
from tlbench.measure.outcome import evaluate_split, make_trainer
from tlbench.measure.place import Place
from tlbench.measure.rates import recipe_of
from tlbench.policies.parse import parse_policy
from tlbench.records.plan import Plan
from tlbench.train import activations
from tlbench.train.activations import Prefix
from tlbench.train.chunks import chunk_of
from tlbench.train.stored import Budget

CELL = Cell(
    backbone="resnet18", weights="random", image_size=32, train_size=40, epochs=2, batch_size=16, layout="contiguous"
)
OFF = Settings(prefix="off")
# One of a family: batch norm, layer norm, dense blocks, tokens, pooling after the head.
FAMILIES = [
    "resnet18", "mnasnet0_5", "densenet121", "mobilenet_v3_small", "efficientnet_b0", "regnet_y_400mf", "convnext_tiny",
    "swin_t", "shufflenet_v2_x0_5", "squeezenet1_1",
]  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("TLBENCH_CACHE", str(tmp_path / "cache"))
    KEPT.activations.forget()
    yield
    KEPT.activations.forget()


def step_losses(cell, settings):
    built = build(cell, settings, policy := parse_policy(cell.freeze))
    (phase,) = policy.phases(built.described, cell.epochs)
    trainer = make_trainer(built, built.model, [phase], recipe_of(built, policy))
    trainer.start_epoch()
    assert (trainer.stored is not None) == (settings.prefix != "off")
    trainer.run_epoch()
    return trainer.losses


@pytest.mark.parametrize("freeze", sweep(["linear_probe", "last_1"], {"last_1"}))
@pytest.mark.parametrize("backbone", sweep(FAMILIES, {"shufflenet_v2_x0_5"}))
def test_the_store_gives_the_losses_of_the_live_path(backbone, freeze):
    # Large enough for BatchNorm to have values to average: on 1 x 1 maps it magnifies the last bits from step to step.
    cell = replace(CELL, backbone=backbone, freeze=freeze, image_size=64, optimizer="sgd", lr=1e-3, batch_size=20)
    live = step_losses(cell, OFF)
    assert len(live) == 2
    assert step_losses(cell, Settings(prefix="on")) == pytest.approx(live, rel=1e-5)


POLICIES = ["lp_ft", "gradual", "freeze_out", "norm", "linear_probe+bn=adapt", "first_1", "full", "stage_2"]


@pytest.mark.exhaustive
@pytest.mark.parametrize("freeze", POLICIES)
def test_no_policy_takes_activations_that_training_has_moved_on_from(freeze):
    cell = replace(CELL, freeze=freeze, epochs=7 if freeze in ("gradual", "freeze_out") else 3)
    live = cell_module.run_cell(cell, OFF)
    kept = cell_module.run_cell(cell, Settings(), place=Place(siblings=("linear_probe", "last_1", "last_3")))
    assert [r.loss for r in kept.rounds] == pytest.approx([r.loss for r in live.rounds], rel=1e-3)
    assert kept.loss_test == pytest.approx(live.loss_test, rel=1e-2)
    assert live.prefix == {}
    assert bool(kept.prefix) == (freeze in ("lp_ft", "gradual", "stage_2"))


@pytest.mark.exhaustive
def test_cells_share_what_is_kept_and_their_results_do_not_depend_on_who_came_first():
    settings = Settings(prefix="on")
    cells = [replace(CELL, head=head, seed=seed) for head in ("linear", "mlp") for seed in (0, 1)]
    first = [cell_module.run_cell(cell, settings) for cell in cells]
    assert [r.prefix["shared"] for r in first] == [False, False, True, True]  # each seed has random weights of its own
    KEPT.activations.forget()
    again = [cell_module.run_cell(cell, settings) for cell in reversed(cells)]
    assert [results(r) for r in reversed(again)] == [results(r) for r in first]


@pytest.mark.exhaustive
@pytest.mark.parametrize("train_size", sweep([40, None], {40}))
def test_only_the_images_that_a_cell_uses_are_run_unless_they_are_nearly_all(train_size):
    cell = replace(CELL, train_size=train_size, epochs=1)
    zero, one = (
        cell_module.run_cell(replace(cell, weights="auto", backbone="efficientnet_lite0", seed=s), Settings())
        for s in (0, 1)
    )
    used = sum(zero.samples.values())
    assert zero.prefix["images"] == (used if train_size else FEW)
    assert one.prefix["shared"] == (train_size is None)  # another seed splits the same images
    assert zero.rounds[0].loss == pytest.approx(
        cell_module.run_cell(replace(cell, weights="auto", backbone="efficientnet_lite0"), OFF).rounds[0].loss, rel=1e-4
    )


@pytest.mark.exhaustive
def test_one_pass_fills_the_cuts_of_the_other_policies():
    probe = cell_module.run_cell(
        CELL, Settings(), place=Place(siblings=("linear_probe", "last_1", "lora", "norm", "last_99"))
    )
    last = cell_module.run_cell(replace(CELL, freeze="last_1"), Settings())
    assert not probe.prefix["shared"]
    assert last.prefix["shared"]
    assert last.prefix["seconds"] <= probe.prefix["seconds"]
    KEPT.activations.forget()
    assert results(cell_module.run_cell(replace(CELL, freeze="last_1"), Settings())) == results(last)


@pytest.mark.exhaustive
def test_a_memory_budget_that_is_too_small_moves_the_store_to_the_disk_with_a_word(tmp_path):
    plenty = cell_module.run_cell(CELL, Settings(prefix="on"))
    KEPT.activations.forget()
    small = cell_module.run_cell(CELL, Settings(prefix="on", prefix_ram_bytes=1000))
    assert results(small) == results(plenty)
    assert (plenty.prefix["where"], small.prefix["where"]) == ("memory", "disk")
    assert "lie on the disk" in small.prefix["notes"][0]
    assert len(list((tmp_path / "cache" / "prefix").glob("*.activations"))) == 1
    KEPT.activations.forget()
    third = cell_module.run_cell(CELL, Settings(prefix="on", prefix_ram_bytes=1000))
    assert third.prefix["shared"]  # the file of the run before
    assert results(third) == results(plenty)


@pytest.mark.exhaustive
def test_without_room_anywhere_the_prefix_is_computed_in_every_epoch_with_a_word():
    plenty = cell_module.run_cell(CELL, Settings())
    KEPT.activations.forget()
    none = cell_module.run_cell(CELL, Settings(prefix_ram_bytes=1000, prefix_disk_bytes=1000))
    assert "computed in every epoch" in none.prefix["notes"][0]
    assert [r.loss for r in none.rounds] == pytest.approx([r.loss for r in plenty.rounds], rel=1e-5)
    refused = cell_module.run_cell(CELL, Settings(prefix="on", prefix_ram_bytes=1000, prefix_disk_bytes=1000))
    assert refused.status == "failed"
    assert "--prefix on" in refused.reason


DAMAGES = {
    "a bit": lambda content: content[:5000] + bytes([content[5000] ^ 1]) + content[5001:],
    "torn": lambda content: content[:-5],
    "its description": lambda content: content.replace(b'"seconds": ', b'"seconds": 9'),
    "pickle": lambda content: pickle.dumps({"a": 1}),
}


@pytest.mark.exhaustive
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_found_and_computed_again(tmp_path, damage):
    settings = Settings(prefix="on", prefix_ram_bytes=1000)
    right = cell_module.run_cell(CELL, settings)
    (path,) = (tmp_path / "cache" / "prefix").iterdir()
    content = path.read_bytes()
    path.write_bytes(DAMAGES[damage](content))
    assert path.read_bytes() != content
    KEPT.activations.forget()
    again = cell_module.run_cell(CELL, settings)
    assert results(again) == results(right)
    assert not again.prefix["shared"]
    assert any("damaged" in note for note in again.prefix["notes"])


@pytest.mark.exhaustive
def test_an_interrupted_pass_leaves_no_file_that_looks_whole(tmp_path, monkeypatch):
    def stop(self, start, x):
        raise KeyboardInterrupt

    monkeypatch.setattr(activations.Target, "put", stop)
    record = cell_module.run_cell(CELL, Settings(prefix="on", prefix_ram_bytes=1000))
    assert record.status == "interrupted"
    assert not list((tmp_path / "cache" / "prefix").iterdir())
    assert not KEPT.activations


@pytest.mark.exhaustive
def test_stored_views_repeat_and_leave_validation_images_alone():
    cell = replace(CELL, augment="flip", epochs=4)
    two = cell_module.run_cell(cell, Settings(views=2, prefix="on"))
    assert two.prefix["views"] == 2
    assert results(two) == results(cell_module.run_cell(cell, Settings(views=2, prefix="on")))
    plain = cell_module.run_cell(CELL, Settings(prefix="on"))
    assert two.rounds[0].loss != plain.rounds[0].loss
    assert "views" not in cell_module.run_cell(cell, Settings()).prefix  # augmented anew in every epoch


def test_views_never_take_each_others_room(monkeypatch):
    """Each had fitted by itself, so that each drove the others out, and a cell computed them anew in every epoch."""
    cell, ran = replace(CELL, augment="flip", epochs=4), []
    real = Prefix._run
    monkeypatch.setattr(Prefix, "_run", lambda self, wanted, *rest: ran.append(self.key) or real(self, wanted, *rest))
    whole = cell_module.run_cell(cell, Settings(views=3, prefix="on"))
    filled = list(ran)
    assert len(set(filled)) == len(filled) == 4, "the plain images, and each view once"
    KEPT.activations.forget()
    ran.clear()
    tight = cell_module.run_cell(cell, Settings(views=3, prefix="on", prefix_ram_bytes=whole.prefix["bytes"] // 2))
    assert ran == filled
    assert results(tight) == results(whole)
    assert set(tight.prefix["where"].split(", ")) == {"disk", "memory"}


@pytest.mark.exhaustive
def test_augmentation_without_views_keeps_nothing():
    assert cell_module.run_cell(replace(CELL, augment="flip"), Settings()).prefix == {}


# --- who pays for it ---------------------------------------------------------------------------------------------


@pytest.mark.exhaustive
@pytest.mark.parametrize("prefix_ram_bytes", [None, 1], ids=["memory", "disk"])
def test_training_pays_for_training_images_alone(prefix_ram_bytes):
    record = cell_module.run_cell(CELL, Settings(prefix="on", prefix_ram_bytes=prefix_ram_bytes))
    prefix, source = record.prefix, Source(record=record)
    assert prefix["images"] == sum(record.samples.values())
    assert prefix["training_seconds"] == pytest.approx(prefix["seconds"] * 40 / prefix["images"])
    assert shared_seconds(source) == prefix["training_seconds"]
    assert training_seconds(source) == sum(r.seconds for r in record.rounds) + prefix["training_seconds"]
    evaluated = [r.evaluation_seconds for r in record.rounds] + [record.test_seconds]
    assert all(seconds > 0 for seconds in evaluated)
    rest = prefix["seconds"] - prefix["training_seconds"]
    assert evaluation_seconds(source) == pytest.approx(sum(evaluated) + rest)
    older = replace(record, prefix={k: v for k, v in prefix.items() if k not in ("training_seconds", "fills")})
    assert training_seconds(Source(record=older)) == pytest.approx(training_seconds(source))


@pytest.mark.exhaustive
def test_views_are_of_training_images_alone():
    record = cell_module.run_cell(replace(CELL, augment="flip"), Settings(prefix="on", views=1))
    views = [s for key, (s, *_) in KEPT.activations._things.items() if s.images == 40]
    assert record.prefix["training_seconds"] == pytest.approx(sum(s.seconds for s in views))
    assert 0 < record.prefix["training_seconds"] < record.prefix["seconds"]


@pytest.mark.exhaustive
def test_cells_that_share_a_fill_name_it_and_each_block_has_its_own():
    settings = Settings(prefix="on")
    cells = [CELL, replace(CELL, head="mlp")]
    names = [
        [cell_module.run_cell(c, settings, place=Place(block=block)).prefix["fills"] for c in cells] for block in (0, 1)
    ]
    assert names[0][0] == names[0][1] != names[1][0] == names[1][1]


@pytest.mark.exhaustive
@pytest.mark.parametrize("prefix_ram_bytes", [None, 1], ids=["memory", "disk"])
def test_a_noisy_fill_flags_all_that_take_it_and_is_measured_again_with_them(monkeypatch, prefix_ram_bytes):
    settings = Settings(prefix="on", prefix_ram_bytes=prefix_ram_bytes)
    reasons = iter(["something else ran", ""])
    monkeypatch.setattr(activations, "noisy", lambda *_: next(reasons))
    monkeypatch.setattr(timed, "noisy", lambda *_: "")
    first, second = (cell_module.run_cell(replace(CELL, head=head), settings) for head in ("linear", "mlp"))
    assert first.prefix["fills"] == second.prefix["fills"]
    assert {first.validity, second.validity} == {"noisy"}
    assert "something else ran" in first.validity_reason
    again = cell_module.run_cell(CELL, settings, place=Place(again=True))
    assert again.prefix["fills"] != first.prefix["fills"]
    assert again.prefix["noisy"] == ""
    assert [r.loss for r in again.rounds] == [r.loss for r in first.rounds]


@pytest.mark.exhaustive
def test_a_machine_that_stays_noisy_does_not_have_the_prefix_computed_in_every_epoch(monkeypatch):
    passes = []
    monkeypatch.setattr(activations, "noisy", lambda *_: passes.append(1) or "something else ran")
    settings = Settings(prefix="on")
    cell_module.run_cell(CELL, settings)
    again = cell_module.run_cell(CELL, settings, place=Place(again=True))
    assert (len(passes), again.prefix["noisy"]) == (2, "something else ran")


def stages():
    return torch.nn.Sequential(torch.nn.Flatten(1), torch.nn.Linear(12, 5), torch.nn.Linear(5, 2))


WHOLE = chunk_of(2, torch.device("cpu"))


@pytest.mark.parametrize("count", [1, WHOLE, WHOLE + 1, 3 * WHOLE - 1])
def test_every_row_is_the_activation_of_its_image(count):
    torch.manual_seed(0)
    images = torch.randint(256, (count, 3, 2, 2), dtype=torch.uint8)
    model = stages()
    one = Prefix(
        stages=model,
        images=images,
        prepare=lambda x, _: x.float(),
        arithmetic=Arithmetic(device=torch.device("cpu")),
        key="k",
        budget=Budget(),
    )
    stored = one.at(2, also=(1, 3))
    index = torch.randperm(count)
    with torch.no_grad():
        expected = model[:2](images.float())[index]
    torch.testing.assert_close(stored.take(index, torch.device("cpu")), expected)
    assert one.at(3).shared
    assert one.at(0) is None
    assert not stored.take(index, torch.device("cpu")).is_inference()  # autograd must be able to use it


@pytest.mark.exhaustive
def test_maps_are_kept_in_the_layout_of_the_cell():
    cell = replace(CELL, freeze="last_1")
    plain = cell_module.run_cell(cell, Settings(prefix="on"))
    last = cell_module.run_cell(replace(cell, layout="channels_last"), Settings(prefix="on"))
    assert not last.prefix["shared"]
    assert [r.loss for r in last.rounds] == pytest.approx([r.loss for r in plain.rounds], rel=1e-3)


def test_the_cache_command(command, tmp_path):
    cell_module.run_cell(CELL, Settings(prefix="on", prefix_ram_bytes=1000))
    assert "there are 1 stored activations" in command("cache")[1]
    assert "removed 1 stored activations" in command("cache", "--clear")[1]
    assert "there are 0 stored activations" in command("cache")[1]
    assert not list((tmp_path / "cache" / "prefix").glob("*"))


@pytest.mark.parametrize(("pixels", "images"), [(32, 128), (64, 128), (160, 62), (224, 32), (384, 32)])
def test_small_images_go_through_the_prefix_in_larger_batches(pixels, images):
    assert chunk_of(pixels, torch.device("cpu")) == images


@pytest.mark.parametrize(("pixels", "images"), [(32, 256), (224, 256), (384, 87), (1024, 32)])
def test_a_gpu_gets_larger_batches(pixels, images, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=80 * 10**9))
    assert chunk_of(pixels, torch.device("cuda")) == images


@pytest.mark.parametrize(("mode", "expected"), [("on", [40]), ("off", [16, 16, 8])])
def test_kept_activations_are_evaluated_in_the_batches_of_the_prefix(mode, expected):
    built = build(replace(CELL, freeze="last_1"), Settings(prefix=mode), parse_policy("last_1"))
    fill_prefix(built, [4])
    sizes = []
    built.model[-1].register_forward_hook(lambda _, inputs, output: sizes.append(len(output)))
    assert evaluate_split(built, "train", 4) is not None
    assert sizes == expected


# --- how long they stay in memory -----------------------------------------------------------------------------


class Kept:
    """Stands in for a run's folder."""

    run = "a run"

    def __init__(self, folder):
        self.folder = folder

    def append(self, record):
        assert (record.status, record.reason) == ("ok", "")
        return record

    def release(self):
        pass


def kept_while_running(**axes):
    """The number of prefixes in memory after each measurement of a grid, and after the last the records."""
    given = {name: (getattr(CELL, name),) for name in ("backbone", "image_size", "train_size", "layout")}
    grid = check.check(Grid(axes={**given, "epochs": (1,), "dataset": ("digits",), **axes}), Settings())
    counts = []
    campaign = Campaign(asked=Asked(), plan=Plan(grids=(grid,), settings=Settings(twins=0)))
    with tempfile.TemporaryDirectory() as folder:
        campaign.store = Kept(Path(folder))
        campaign.run(on_record=lambda _: counts.append(len({name[:32] for name in KEPT.activations})))
    return counts, [record for record in campaign.records if record.role == "cell"]


@pytest.mark.exhaustive
def test_what_no_later_cell_needs_does_not_pile_up():
    counts, records = kept_while_running(weights=("random",), seed=(0, 1, 2, 3), freeze=("linear_probe",))
    assert counts == [0, 0, 0, 0]
    assert not any(record.prefix["shared"] for record in records)


@pytest.mark.exhaustive
def test_what_a_later_cell_needs_stays():
    counts, records = kept_while_running(weights=("random",), seed=(0, 1), head=("linear", "mlp"))
    assert counts == [1, 2, 1, 0]
    assert [record.prefix["shared"] for record in records] == [False, False, True, True]


@pytest.mark.exhaustive
def test_pretrained_weights_serve_the_cells_of_other_seeds():
    axes = {"backbone": ("efficientnet_lite0",), "train_size": (None,), "image_size": (32,)}
    counts, records = kept_while_running(weights=("pretrained",), seed=(0, 1, 2), layout=("contiguous",), **axes)
    assert counts == [1, 1, 0]
    assert [record.prefix["shared"] for record in records] == [False, True, True]


@pytest.mark.exhaustive
def test_a_sample_of_the_images_is_of_one_seed_even_with_pretrained_weights():
    axes = {"backbone": ("efficientnet_lite0",), "image_size": (32,), "layout": ("contiguous",)}
    counts, records = kept_while_running(weights=("pretrained",), seed=(0, 1, 2), **axes)
    assert counts == [0, 0, 0]
    assert not any(record.prefix["shared"] for record in records)


@pytest.mark.exhaustive
def test_what_a_failed_cell_kept_goes_too(monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("on purpose")

    monkeypatch.setattr(training, "run_epochs", fail)
    assert cell_module.run_cell(CELL, Settings(), place=Place(keep="nothing")).status == "failed"
    assert not KEPT.activations
    assert cell_module.run_cell(CELL, Settings()).status == "failed"
    assert KEPT.activations
