"""A screen looks at training images alone, says what it finds of each backbone, and is remembered for reports."""

import csv
import itertools
import resource
import shutil
import signal
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import save_image

from tlbench.analysis import screens, transferability
from tlbench.analysis.screens import Screened
from tlbench.campaign import screening
from tlbench.cli.screening import _write
from tlbench.errors import UserError
from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.machine.cache import cache_folder
from tlbench.machine.kept import KEPT
from tlbench.measure import build as building
from tlbench.measure.build import build
from tlbench.measure.cell import run_cell
from tlbench.measure.place import Place
from tlbench.policies.parse import parse_policy
from tlbench.report.plots.screen import screen_picture
from tlbench.report.screened import foretold
from tlbench.train.activations import Prefix

CELL = Cell(weights="random", image_size=32, layout="contiguous", train_size=60, batch_size=16)


def test_patterns_stand_for_names_each_once():
    found = screening.wanted(["efficientnet_lite*", "resnet18", "efficientnet_lite0"])
    assert found[:2] == ["efficientnet_lite0", "efficientnet_lite1"]
    assert found[-1] == "resnet18"
    assert len(found) == len(set(found))
    with pytest.raises(UserError, match="no backbone matches"):
        screening.wanted(["nothing*"])


def test_rows_are_the_scores_of_the_training_images_features():
    ((row, images),) = screening.screen(screening.cells(["resnet18"], CELL), Settings())
    built = build(Cell(**{**vars(CELL), "backbone": "resnet18"}), Settings(prefix="off"))
    with torch.inference_mode():
        found = built.model[:-1].eval()(built.sources["train"].normalise(built.data.train.batch(torch.arange(60))[0]))
    given = transferability.task(found.numpy(), built.data.train.classes)
    assert (row.images, row.features, row.image_size) == (60, 512, 32)
    assert images == built.data.images_sha256
    assert row.logme == pytest.approx(transferability.logme(given), rel=1e-4)
    assert row.ridge == transferability.ridge_accuracy(given)
    assert row.knn == transferability.knn_accuracy(given)
    assert row.ridge != row.knn
    assert row.parameters == 11_176_512


def test_no_image_of_validation_or_test_is_looked_at(monkeypatch):
    seen = []
    before = torch.nn.Conv2d.forward

    def forward(self, images):
        seen.extend([len(images)] if self.in_channels == 3 else ())
        return before(self, images)

    monkeypatch.setattr(torch.nn.Conv2d, "forward", forward)
    for prefix in ("off", "auto"):
        seen.clear()
        KEPT.forget()
        ((row, _),) = screening.screen(screening.cells(["resnet18"], CELL), Settings(prefix=prefix))
        assert row.images == 60
        assert 60 <= sum(seen) <= 70  # building counts operations on an image or two


def test_a_backbone_that_cannot_be_had_costs_its_row_alone():
    cells = screening.cells(["resnet18", "mobilenet_v3_small"], CELL)
    rows = [
        row for row, _ in screening.screen([Cell(**{**vars(cells[0]), "weights": "pretrained"}), cells[1]], Settings())
    ]
    assert rows[0].problem
    assert rows[0].ridge is None
    assert rows[0].parameters
    assert not rows[1].problem
    assert rows[1].ridge is not None


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "CUDA out of memory"),
        (MemoryError(), "not enough memory"),
        (ValueError, "weights"),
    ],
    ids=["on a GPU", "in main memory", "a damaged file of weights"],
)
def test_a_backbone_that_breaks_off_costs_its_row_alone(error, said, monkeypatch):
    """One that had no room cost the table of all that were looked at before it."""
    before = screening.features_of

    def features_of(built):
        if built.cell.backbone == "resnet18":
            raise error
        return before(built)

    def load_weights(cell, real=building.load_weights):
        if cell.backbone == "resnet18":
            raise UserError("the weights in 'resnet18.pth' are damaged")
        return real(cell)

    if error is ValueError:
        monkeypatch.setattr(building, "load_weights", load_weights)
    else:
        monkeypatch.setattr(screening, "features_of", features_of)
    rows = [row for row, _ in screening.screen(screening.cells(["resnet18", "mobilenet_v3_small"], CELL), Settings())]
    assert said in rows[0].problem
    assert rows[0].ridge is None
    assert rows[1].ridge is not None
    assert not rows[1].problem


def test_what_a_screen_told_is_remembered_by_the_images():
    row = Screened(backbone="a", weights_sha256="1", ridge=0.5)
    screens.keep("f" * 64, [row, Screened(backbone="b", problem="not here")])
    screens.keep("f" * 64, [Screened(backbone="a", weights_sha256="1", ridge=0.7), Screened(backbone="c", ridge=0.1)])
    assert {one.backbone: one.ridge for one in screens.recall("f" * 64)} == {"a": 0.7, "c": 0.1}
    assert screens.recall("0" * 64) == []
    path = screens.folder() / f"{'f' * 64}.json"
    path.write_text(path.read_text().replace("0.7", "0.8"))
    assert screens.recall("f" * 64) == []


def test_the_command_prints_a_table_and_writes_a_file(command, tmp_path):
    status, out, err = command(
        "screen", "--dataset", "digits", "--backbone", "mobilenet_v3_small,shufflenet_v2_x0_5", "--weights", "random",
        "--image-size", "32", "--out", str(tmp_path / "screen"),
    )  # fmt: skip
    assert status == 0, err
    assert "ridge" in out
    assert "LogME" in out
    assert "[2/2]" in err
    rows = list(csv.DictReader((tmp_path / "screen" / "screen.csv").open()))
    assert len(rows) == 2
    assert all(0 <= float(row["ridge"]) <= 1 for row in rows)
    assert float(rows[0]["ridge"]) >= float(rows[1]["ridge"])
    assert (tmp_path / "screen" / "screen.png").stat().st_size > 5000


def test_a_figure_that_is_not_drawn_costs_nothing_but_itself(capsys, monkeypatch, tmp_path):
    """After minutes of looking it was a traceback, and exit status 1."""
    monkeypatch.setitem(sys.modules, "tlbench.report.plots.screen", None)  # as where matplotlib does not start
    _write([Screened(backbone="resnet18", ridge=0.5)], tmp_path)
    out, err = capsys.readouterr()
    assert out == f"{tmp_path / 'screen.csv'}\n"
    assert err.startswith("tlbench: screen.png is not drawn: ")
    assert err.count("\n") == 1
    assert (tmp_path / "screen.csv").read_text().count("\n") == 2


ROW = Screened(backbone="a", weights="random", ridge=0.5, knn=0.5, logme=0.1, top1=60.0, parameters=10, seconds=1.0)


def screened(monkeypatch, rows=(ROW,), before=lambda: None):
    """Stands in for the looking."""

    def screen(cells, settings):
        before()
        yield from ((row, None) for row in rows)

    monkeypatch.setattr(screening, "screen", screen)


def test_a_full_disk_leaves_the_figure_of_before(command, tmp_path, monkeypatch):
    """It was written over in its place, and torn when the disk was full."""
    asked = ("screen", "--dataset", "digits", "--backbone", "resnet18", "--weights", "random", "--out", tmp_path / "x")
    screened(monkeypatch)
    assert command(*asked)[0] == 0
    before = (tmp_path / "x" / "screen.png").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
    try:
        status, out, err = command(*asked)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert status == 2
    assert err.splitlines()[-1] == (
        f"tlbench: cannot write to '{tmp_path / 'x'}': File too large; choose another with --out"
    )
    assert "screen.png" not in out
    assert (tmp_path / "x" / "screen.png").read_bytes() == before
    assert sorted(path.name for path in (tmp_path / "x").iterdir()) == ["screen.csv", "screen.png"]


def test_a_closed_terminal_ends_no_screen_that_leaves_a_folder(command, tmp_path, monkeypatch):
    """What is printed alone goes with the terminal."""
    said = []
    screened(monkeypatch, before=lambda: said.append(signal.getsignal(signal.SIGHUP)))
    asked = ("screen", "--dataset", "digits", "--backbone", "resnet18", "--weights", "random")
    assert command(*asked, "--out", tmp_path / "x")[0] == 0
    assert command(*asked)[0] == 0
    assert callable(said[0])
    assert said[0] is not signal.SIG_DFL
    assert said[1] is signal.SIG_DFL


def test_top1_is_that_of_the_weights_that_a_name_stands_for():
    """Of a tag it was empty."""
    names = ["shufflenet_v2_x0_5", "resnet50@IMAGENET1K_V1", "resnet50@IMAGENET1K_V2", "timm:resnet10t.c3_in1k"]
    asked = Cell(dataset="digits", weights="checkpoint", image_size=32)  # no such weights: nothing is computed
    rows = [screening._screened(replace(asked, backbone=name), Settings())[0] for name in names]
    assert [row.top1 for row in rows] == [60.552, 76.13, 80.858, None]


def test_images_that_cannot_be_read_may_be_passed_over(command, tmp_path):
    """A screen advised `--bad-images skip`, which it did not have."""
    for n in range(8):
        for label, color in (("dark", 20), ("light", 180)):
            save_image(tmp_path / "shots" / label / f"{n}.png", color, (24, 20), seed=n + color)
    (tmp_path / "shots" / "dark" / "bad.png").write_bytes(b"no image")
    asked = ["screen", str(tmp_path / "shots"), "--backbone=shufflenet_v2_x0_5", "--weights=random", "--image-size=32"]
    status, _, err = command(*asked)
    assert status == 2
    assert "or use --bad-images skip" in err
    status, _, err = command(*asked, "--bad-images=skip")
    assert status == 0
    assert "1 image could not be read and is left out" in err
    assert "'skip'" in command(*asked, "--bad-images=skp")[2]


BAD = {
    "no images": ([], "name the images once"),
    "images twice": (["photos", "--dataset", "digits"], "name the images once"),
    "a pattern of nothing": (["--dataset", "digits", "--backbone", "zzz*"], "no backbone matches"),
    "a wrong name": (["--dataset", "digits", "--backbone", "resnet19"], "did you mean 'resnet18'"),
    "a checkpoint": (["--dataset", "digits", "--weights", "a.pth"], "one's own"),
    "a wrong data set": (["--dataset", "digit"], "did you mean 'digits'"),
    "one of timm's names": (["--dataset", "torch/cifar11"], "did you mean 'CIFAR10'"),
    "two data sets": (["--dataset", "digits,synthetic"], "--dataset digits,synthetic: a screen is of one dataset"),
    "a list that is not there": (["list:none.csv"], "none.csv"),
    "two devices": (["--dataset", "digits", "--device", "cpu,cuda"], "--device cpu,cuda: a screen is of one device"),
    "a wrong device": (["--dataset", "digits", "--device", "gpu"], "did you mean 'cuda'"),
    "no size": (["--dataset", "digits", "--image-size", "9000"], "axis 'image-size': 9000 is not a whole number"),
    "a folder below a file": (["--dataset", "digits", "--out", "file/x"], "cannot write to 'file/x': Not a directory"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_screened_is_one_line(case, command, tmp_path, monkeypatch):
    """Before anything is computed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    monkeypatch.delattr(screening, "screen")
    options, words = BAD[case]
    status, out, err = command("screen", *options)
    assert (status, out) == (2, "")
    assert words in err
    assert len(err.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_devices_that_are_two_are_no_screen(command, monkeypatch):
    """Of ``available`` on a machine with a GPU the first was taken, and the other forgotten."""
    monkeypatch.delattr(screening, "screen")
    monkeypatch.setattr("tlbench.campaign.check._devices", lambda names, elsewhere: ("cpu", "cuda"))
    status, out, err = command("screen", "--dataset", "digits", "--device", "available", "--weights", "random")
    assert (status, out) == (2, "")
    assert err == "tlbench: --device available: a screen is of one device; give cpu or cuda\n"


def test_a_figure_of_nothing_says_so():
    assert "no backbone" in screen_picture([Screened(backbone="a", problem="not here")]).missing


def test_the_figure_has_the_best_at_the_top():
    rows = [Screened(backbone=f"net{n}", ridge=n / 10, knn=n / 20, seconds=1.0) for n in range(3)]
    figure = screen_picture(rows).figure
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names[0].startswith("net2")
    assert figure.axes[0].yaxis_inverted()


def test_features_come_in_the_order_of_the_split():
    built = build(Cell(**{**vars(CELL), "backbone": "shufflenet_v2_x0_5"}), Settings(prefix="off"))
    whole, seconds = screening.features_of(built)
    one, _ = screening.features_of(
        build(Cell(**{**vars(CELL), "backbone": "shufflenet_v2_x0_5", "batch_size": 1}), Settings(prefix="off"))
    )
    assert seconds > 0
    assert np.allclose(whole.numpy(), one.numpy(), atol=1e-4)
    stored = build(Cell(**{**vars(CELL), "backbone": "shufflenet_v2_x0_5"}), Settings(), parse_policy("linear_probe"))
    from_batches_of_the_store, _ = screening.features_of(stored)
    assert np.allclose(whole.numpy(), from_batches_of_the_store.numpy(), atol=1e-4)


# --- what stays for a run -------------------------------------------------------------------------------------


@pytest.fixture
def looked_at(monkeypatch):
    """Images that went through the stem of a backbone, in a list that a test may clear."""
    seen: list[int] = []
    real = Prefix._images_at, Prefix._chunk

    def count(number):
        def call(self, *given):
            found = real[number](self, *given)
            seen.append(len(found))
            return found

        return call

    monkeypatch.setattr(Prefix, "_images_at", count(0))
    monkeypatch.setattr(Prefix, "_chunk", count(1))
    return seen


@pytest.fixture
def colours(tmp_path, monkeypatch):
    """70 photographs in train/ of two classes, few in val/ and test/, in a cache of their own."""
    monkeypatch.setenv("TLBENCH_CACHE", str(tmp_path / "cache"))
    KEPT.forget()
    numbers = itertools.count()
    for part, count in (("train", 35), ("val", 4), ("test", 5)):
        for label, color in (("dark", 20), ("light", 180)):
            for n in range(count):
                save_image(tmp_path / "photos" / part / label / f"{n}.png", color, seed=next(numbers))
    yield f"folder:{tmp_path / 'photos'}"
    KEPT.forget()


def probe(dataset, **given):
    return Cell(
        backbone="shufflenet_v2_x0_5", weights="random", layout="contiguous", image_size=224, dataset=dataset, epochs=1,
        freeze="linear_probe", **given,
    )  # fmt: skip


SAME = ("status", "accuracy_val", "accuracy_test", "loss_test", "predictions_sha256", "frozen_sha256_after")


@pytest.mark.parametrize("siblings", [(), ("last_1",)])
def test_a_probe_takes_the_features_of_a_screen_to_the_last_bit(colours, looked_at, siblings):
    place = Place(siblings=siblings)
    plain = run_cell(probe(colours), Settings(), place=place)
    everything = sum(looked_at)
    assert everything == 88
    shutil.rmtree(cache_folder() / "prefix", ignore_errors=True)
    KEPT.forget()
    looked_at.clear()
    ((row, _),) = screening.screen(screening.cells(["shufflenet_v2_x0_5"], probe(colours)), Settings())
    assert row.images == 70
    assert sum(looked_at) == 70, "no image of another split lies in a batch that is mostly of training images"
    looked_at.clear()
    KEPT.forget()  # a run is another process
    told = run_cell(probe(colours), Settings(), place=place)
    assert [getattr(told, name) for name in SAME] == [getattr(plain, name) for name in SAME]
    assert [r.loss for r in told.rounds] == [r.loss for r in plain.rounds]
    assert [r.accuracy_val for r in told.rounds] == [r.accuracy_val for r in plain.rounds]
    if not siblings:
        assert sum(looked_at) == 88 - 64, "two batches of 32 lie within the training images"
    assert told.prefix["images"] == 88
    assert 0 < told.prefix["screened_seconds"] < told.prefix["seconds"]
    assert "screened_seconds" not in plain.prefix


def test_later_cells_share_the_pass_as_ever(colours, looked_at):
    list(screening.screen(screening.cells(["shufflenet_v2_x0_5"], probe(colours)), Settings()))
    looked_at.clear()
    first = run_cell(probe(colours, head="cosine"), Settings())
    assert sum(looked_at) == 88 - 64
    second = run_cell(probe(colours, head="mlp"), Settings())
    assert sum(looked_at) == 88 - 64
    assert (first.prefix["shared"], second.prefix["shared"]) == (False, True)
    assert second.prefix["seconds"] == first.prefix["seconds"]


def test_other_sizes_and_later_blocks_compute_all(colours, looked_at):
    list(screening.screen(screening.cells(["shufflenet_v2_x0_5"], probe(colours)), Settings()))
    looked_at.clear()
    other = run_cell(replace(probe(colours), image_size=112), Settings())
    assert sum(looked_at) == 88
    assert "screened_seconds" not in other.prefix
    looked_at.clear()
    run_cell(probe(colours), Settings(), place=Place(block=1))
    assert sum(looked_at) == 88, "a block measures its own pass"


def test_a_damaged_file_costs_a_word(colours, looked_at):
    list(screening.screen(screening.cells(["shufflenet_v2_x0_5"], probe(colours)), Settings()))
    (file,) = (cache_folder() / "prefix").iterdir()
    content = bytearray(file.read_bytes())
    content[5000] ^= 1
    file.write_bytes(content)
    looked_at.clear()
    told = run_cell(probe(colours), Settings())
    assert sum(looked_at) == 88
    assert any("damaged" in note for note in told.prefix["notes"])


@pytest.mark.parametrize(("most", "stay"), [(1000, True), (70, True), (40, False)])
def test_a_screen_says_where_its_features_do_not_stay(most, stay, colours, command, monkeypatch):
    """Of more images than it looks at, nothing stays, without a word."""
    monkeypatch.setattr(screening, "MOST_IMAGES", most)
    given = ("--dataset", colours, "--backbone", "shufflenet_v2_x0_5", "--weights", "random")
    status, _, err = command("screen", *given)
    assert status == 0, err
    line = "tlbench: the features do not stay for a run on all training images, of which these 40 are a part"
    assert err.count(line) == err.count("do not stay") == (not stay)


def test_a_screen_of_a_part_of_the_training_images_leaves_nothing(colours, looked_at):
    """Its images lie among others in the batches of a run, and what comes of other batches is not the same."""
    few = replace(probe(colours), train_size=40)
    list(screening.screen(screening.cells(["shufflenet_v2_x0_5"], few), Settings()))
    looked_at.clear()
    run_cell(probe(colours), Settings())
    assert sum(looked_at) == 88


# --- what a report says of it ---------------------------------------------------------------------------------


def measured(names, accuracies, images="a"):
    from records import record

    from tlbench.analysis.frame import rows
    from tlbench.analysis.summary import summarise

    made = [
        replace(
            record(cell=Cell(backbone=name, dataset="digits")), accuracy_val=accuracy, images_sha256=images * 64,
            weights={"source": "x", "pretrained": True, "sha256": name},
        )
        for name, accuracy in zip(names, accuracies, strict=True)
    ]  # fmt: skip
    return summarise(rows(made))


NETS = ("resnet18", "resnet34", "resnet50", "vgg11", "vgg13", "vgg16")


def test_a_report_says_how_the_screen_has_ranked():
    summary = measured(NETS, [0.5, 0.6, 0.7, 0.8, 0.85, 0.9])
    assert foretold(summary) == []
    rows = [
        Screened(backbone=name, weights_sha256=name, ridge=n / 10, parameters=100 - n) for n, name in enumerate(NETS)
    ]
    screens.keep("a" * 64, rows)
    lines = foretold(summary)
    assert lines[0].startswith("Screened, ridge: tau 1.00")
    assert "over 6 backbones" in lines[0]
    assert any("parameters: tau -1.00" in line and "random order" in line for line in lines)


def test_the_page_of_a_later_run_says_how_the_screen_has_ranked(tmp_path):
    from tlbench.report import write_report

    accuracies = [0.5, 0.6, 0.7, 0.8, 0.85, 0.9]
    made = [row["record"] for row in measured(NETS, accuracies, "c")]
    page = write_report(made, tmp_path / "before").read_text(encoding="utf-8")
    assert "Screened, " not in page
    screens.keep("c" * 64, [Screened(backbone=name, weights_sha256=name, ridge=n) for n, name in enumerate(NETS)])
    page = write_report(made, tmp_path / "after").read_text(encoding="utf-8")
    assert "Screened, ridge: tau 1.00" in page


def test_one_that_is_worse_than_model_size_is_said_to_be_whatever_chance_does():
    found = [
        transferability.Ranking(column="logme", backbones=6, tau=0.2, chance=0.3),
        transferability.Ranking(column="parameters", backbones=6, tau=0.9, chance=0.01),
    ]
    line = transferability.in_words(found)[0]
    assert "a random order does as well in 30 % of cases" in line
    assert line.endswith("; no better than model size")


def test_few_backbones_or_other_weights_say_nothing():
    screens.keep("b" * 64, [Screened(backbone=name, weights_sha256="other", ridge=0.1) for name in NETS])
    assert foretold(measured(NETS, [0.5, 0.6, 0.7, 0.8, 0.85, 0.9], "b")) == []
    assert foretold(measured(NETS[:4], [0.5, 0.6, 0.7, 0.8], "b")) == []
