"""A screen looks at training images alone, says what it finds of each backbone, and is remembered for reports."""

import csv

import numpy as np
import pytest
import torch

from tlbench.analysis import screens, transferability
from tlbench.analysis.screens import Screened
from tlbench.campaign import screening
from tlbench.errors import UserError
from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.measure.build import build
from tlbench.report.plots.screen import screen_picture
from tlbench.report.screened import foretold

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
    assert row.parameters == 11_176_512


def test_no_image_of_validation_or_test_is_looked_at(monkeypatch):
    seen = []
    before = torch.nn.Sequential.forward

    def forward(self, images):
        seen.append(len(images))
        return before(self, images)

    monkeypatch.setattr(screening, "features_of", lambda built: torch.randn(len(built.data.train), 3))
    monkeypatch.setattr(torch.nn.Sequential, "forward", forward)
    list(screening.screen(screening.cells(["resnet18"], CELL), Settings()))
    assert sum(seen) <= 70  # building counts operations on an image or two


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


BAD = {
    "no images": ([], "name the images once"),
    "images twice": (["photos", "--dataset", "digits"], "name the images once"),
    "a pattern of nothing": (["--dataset", "digits", "--backbone", "zzz*"], "no backbone matches"),
    "a wrong name": (["--dataset", "digits", "--backbone", "resnet19"], "did you mean 'resnet18'"),
    "a checkpoint": (["--dataset", "digits", "--weights", "a.pth"], "one's own"),
    "a wrong data set": (["--dataset", "digit"], "did you mean 'digits'"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_screened_is_one_line(case, command):
    options, words = BAD[case]
    status, out, err = command("screen", *options)
    assert (status, out) == (2, "")
    assert words in err


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
    whole = screening.features_of(built).numpy()
    one = screening.features_of(
        build(Cell(**{**vars(CELL), "backbone": "shufflenet_v2_x0_5", "batch_size": 1}), Settings(prefix="off"))
    )
    assert np.allclose(whole, one.numpy(), atol=1e-4)


# --- what a report says of it ---------------------------------------------------------------------------------


def measured(names, accuracies, images="a"):
    from dataclasses import replace

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


def test_few_backbones_or_other_weights_say_nothing():
    screens.keep("b" * 64, [Screened(backbone=name, weights_sha256="other", ridge=0.1) for name in NETS])
    assert foretold(measured(NETS, [0.5, 0.6, 0.7, 0.8, 0.85, 0.9], "b")) == []
    assert foretold(measured(NETS[:4], [0.5, 0.6, 0.7, 0.8], "b")) == []
