"""What lay between two parts that were right each by itself: each of these was wrong once."""

import json
from dataclasses import fields, replace

import numpy as np
import pytest
from conftest import save_image
from images import with_classes
from PIL import Image
from records import record

import tlbench
from tlbench.analysis.classes import classes_of
from tlbench.analysis.frame import rows
from tlbench.analysis.metrics import calibration_error
from tlbench.analysis.summary import summarise
from tlbench.analysis.suspects import suspects_of
from tlbench.analysis.verdict import verdicts
from tlbench.campaign import check as checking
from tlbench.campaign.asked import parse_asked
from tlbench.campaign.campaign import begin
from tlbench.campaign.fitting import fit
from tlbench.errors import UserError
from tlbench.grid.cell import SINCE, Cell
from tlbench.grid.grid import Grid
from tlbench.grid.settings import SETTINGS, Settings
from tlbench.kept.model import load_model
from tlbench.measure.cell import run_cell
from tlbench.records.lines import seal, unseal
from tlbench.records.plan import Plan, load_start
from tlbench.records.run_folder import Store, load
from tlbench.report.share import shared

TINY = {"backbone": "mobilenet_v3_small", "weights": "random", "image-size": "32", "epochs": "1", "twins": "0",
        "layout": "contiguous", "batch-size": "16", "isolate": "none"}  # fmt: skip
NEWER = ("logits", "thumbnails", "data_root", "data_ram_bytes", "data_disk_bytes", "metric", "also_test", "corrupt")
"""Settings that 0.1.0 began without."""


def measured(out, **given):
    campaign = begin(parse_asked({**TINY, "out": str(out), **given}))
    assert campaign.run() is None
    return campaign, load(out).records


def test_old_choices_of_rates_are_told_from_new_ones_whatever_came_before():
    """Names are looked up once for all records that say the same: rates are part of what they say."""
    plain = record(lr=0.01, seed=1)
    old = record(lr="auto", seed=2, definitions=plain.definitions)
    assert [row.source.cell.lr for row in rows([plain, old])] == [0.01, "auto@1"]


def test_a_run_keeps_nothing_where_it_measures_nothing(command):
    status, _, err = command("run", "--dry-run", "--keep=best")
    assert status == 2
    assert err == "tlbench: --keep: a dry run trains no model that could be kept; leave one of the two away\n"
    with pytest.raises(UserError, match="keep: a plan trains no model"):
        tlbench.plan(dataset="digits", keep="best")


def test_a_run_that_began_before_these_settings_and_axes_were_there_goes_on(tmp_path):
    Store(tmp_path).describe(Plan(grids=(Grid(),), settings=Settings()))
    path = tmp_path / "run.json"
    data = unseal(path.read_text())
    for name in NEWER:
        del data["settings"][name]
    for grid in data["grids"]:
        for name in SINCE:
            grid.pop(name, None)
    path.write_text(seal(data))
    start = load_start(tmp_path)
    assert start.plan.settings == Settings()
    assert start.plan.grids[0].axes == Grid().axes
    assert set(NEWER) <= {setting.field for setting in SETTINGS.values() if setting.guards}
    assert set(NEWER) <= {field.name for field in fields(Settings)}


@pytest.fixture
def large(tmp_path):
    """Class folders of photographs that may be decoded at a fraction."""
    for label, color in (("dark", 20), ("light", 180)):
        for n in range(12):
            save_image(tmp_path / "large" / label / f"{n}.jpg", color, (400, 300), seed=n)
    return tmp_path / "large"


def test_two_ways_of_decoding_are_one_run_and_one_verdict(large, tmp_path):
    _, records = measured(tmp_path / "run", dataset=f"folder:{large}", decode="exact,scaled", folds="off")
    assert [one.status for one in records] == ["ok", "ok"], [one.reason for one in records]
    assert len({one.images_sha256 for one in records}) == 2
    (scope,) = verdicts(summarise(rows(records)))
    assert len(scope.rows) == 2


def test_a_kept_model_decodes_photographs_as_its_cell_did(large, tmp_path):
    _, (made,) = measured(tmp_path / "run", dataset=f"folder:{large}", decode="scaled", folds="off")
    model = load_model(fit(made, tmp_path / "run").folder)
    assert model.card.preprocessing.decode == "scaled"
    from tlbench.backbones import input_of
    from tlbench.measure.images import load_images

    data = load_images(made.cell, made.settings, input_of("mobilenet_v3_small"), 32)
    for position in data.test.positions[:3]:
        assert np.array_equal(model.preprocess(large / data.files[position]), data.test.pixels[position])


def test_what_else_is_tested_on_is_downloaded_too(monkeypatch):
    asked = []
    monkeypatch.setattr(checking, "fetch_where_asked", lambda datasets: asked.extend(datasets))
    with pytest.raises(UserError):
        checking.check(Grid(), Settings(also_test=("s=torchvision:SVHN",)))
    assert asked == ["digits", "torchvision:SVHN"]


def test_seeds_are_added_to_data_sets_that_were_put_into_folds_as_well(tmp_path):
    for label, color in (("dark", 20), ("light", 180)):
        for n in range(10):
            save_image(tmp_path / "few" / label / f"{n}.jpg", color, seed=n)
    both = rf"digits,folder:{tmp_path / 'few'}"
    campaign, _ = measured(tmp_path / "run", dataset=both, **{"train-size": "20"})
    assert len(campaign.planned) == 1 + 5
    campaign.release()
    again = begin(parse_asked({"resume": str(tmp_path / "run"), "seeds": "0,1"}))
    try:
        assert len(again.left) == 1 + 5
        assert {step.cell.seed for step in again.left} == {1}
    finally:
        again.release()


def folded(block=0, count=5, **given):
    """Records of the folds of one seed, of different images."""
    made = []
    for n in range(1, count + 1):
        one = with_classes(record(cell=Cell(fold=f"{n}of{count}", seed=0), block=block), classes=7, images=21, **given)
        splits = {
            name: replace(split, images=split.images + np.uint8(n)) for name, split in one.per_image.splits.items()
        }
        made.append(replace(one, per_image=type(one.per_image)(splits)))
    return made


def test_figures_of_folds_are_of_all_images_together():
    made = folded()
    (row,) = summarise(rows(made))
    parts = [one.per_image.split("test") for one in made]
    labels, logits = (np.concatenate([getattr(part, name) for part in parts]) for name in ("labels", "logits"))
    assert row["ece_test"] == pytest.approx(calibration_error(labels, logits))
    recalls = [np.mean(np.concatenate([part.correct[part.labels == label] for part in parts])) for label in range(7)]
    assert row["balanced_accuracy_test"] == pytest.approx(np.mean(recalls))


def test_blocks_add_no_images_to_a_class():
    one = rows([with_classes(record())])
    three = rows([with_classes(record(block=block)) for block in range(3)])
    assert classes_of(one) == classes_of(three)


def test_folds_are_one_split_of_a_class():
    assert {found.images for found in classes_of(rows(folded()))} == {(15, 15)}


def test_labels_are_ranked_only_where_all_folds_are_there():
    made = folded()
    assert len(suspects_of(summarise(rows(made))).rows) == 5 * 21
    with pytest.raises(UserError, match="fold 3 of 5 of seed 0 was not measured"):
        suspects_of(summarise(rows([one for one in made if one.cell.fold != "3of5"])))


def test_a_model_is_kept_without_what_else_its_cell_was_tested_on(tmp_path):
    for n in range(6):
        save_image(tmp_path / "other" / "0" / f"{n}.jpg", 20 * n, seed=n)
        save_image(tmp_path / "other" / "1" / f"{n}.jpg", 20 * n, seed=n + 9)
    cell = Cell(backbone="mobilenet_v3_small", weights="random", image_size=32, train_size=40, epochs=1, batch_size=16,
                layout="contiguous")  # fmt: skip
    made = run_cell(cell, Settings(also_test=(f"phone=folder:{tmp_path / 'other'}",), corrupt=("noise",)))
    assert made.other_tests
    (tmp_path / "other").rename(tmp_path / "gone")
    assert fit(made, tmp_path / "run").held.outcome == "equal"


def test_a_list_does_not_take_the_place_of_another_in_what_is_kept_decoded(tmp_path):
    for n in range(12):
        save_image(tmp_path / "x" / f"{n}.jpg", 200 * (n % 2), seed=n)
    for name, names in (("a", range(12)), ("b", range(10))):
        lines = [f"{n}.jpg,{'even' if n % 2 == 0 else 'odd'}" for n in names]
        (tmp_path / "x" / f"{name}.csv").write_text("\n".join(["path,label", *lines]))
    from tlbench.data import decoded_folder

    before = {one.path for one in decoded_folder.look().stored}
    for name in "ab":
        measured(tmp_path / name, dataset=f"list:{tmp_path / 'x' / name}.csv", folds="off")
    assert len({one.path for one in decoded_folder.look().stored} - before) == 2


def test_photographs_of_every_kind_that_is_read_are_predicted(command, tmp_path):
    cell = Cell(backbone="mobilenet_v3_small", weights="random", image_size=32, train_size=40, epochs=1, batch_size=16,
                layout="contiguous")  # fmt: skip
    folder = fit(run_cell(cell, Settings()), tmp_path / "run").folder
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "photos" / "a.webp")
    from tlbench.data.inside import endings

    kinds = [ending for ending in endings() if ending in (".avif", ".heic")]
    for ending in kinds:
        (tmp_path / "photos" / f"b{ending}").write_bytes(b"no image")
    status, out, _ = command("predict", str(folder), str(tmp_path / "photos"))
    assert out.count("\n") == 2 + len(kinds)
    assert status == int(bool(kinds))


def test_two_files_of_corrections_stay_two_in_a_report_to_give_away():
    made = [record(cell=Cell(relabel=f"/home/me/{name}.csv")) for name in ("a", "b", "a")]
    assert [one.cell.relabel for one in shared(made)] == ["corrections.csv", "corrections-2.csv", "corrections.csv"]
    assert "home" not in json.dumps([one.to_dict() for one in shared(made)])


# --- what a person who had the README alone found -------------------------------------------------------------


def test_a_run_that_is_not_finished_says_so_beside_its_verdict(tmp_path, command):
    campaign, _ = measured(tmp_path / "run", **{"train-size": "20"})
    campaign.release()
    assert command("summary", tmp_path / "run")[2] == ""
    begin(parse_asked({"resume": str(tmp_path / "run"), "seeds": "0-2"})).store.release()
    err = command("summary", tmp_path / "run")[2]
    assert "2 of 3 measurements are not finished" in err
    assert "run --resume" in err
    assert command("summary", tmp_path / "run" / "records.jsonl")[0] == 0


def test_where_a_run_that_goes_on_is_written_is_said(tmp_path, command):
    measured(tmp_path / "run", **{"train-size": "20"})[0].release()
    said = command("run", "--resume", tmp_path / "run", "--seeds", "0,1", "--dry-run")
    assert str(tmp_path / "run") in said[1] + said[2]
    assert "<date and time>" not in said[1] + said[2]


def test_two_runs_together_know_what_the_second_knew_of_the_machine():
    from tlbench.analysis.noise import noise_floors

    first = record(started="2026-01-01T00:00:00+00:00", cell=Cell(seed=0))
    second = record(
        started="2026-01-02T00:00:00+00:00", cell=Cell(seed=1), machine_noise={"pairs": 3, "pair_log_sd": 0.02}
    )
    alone = noise_floors(rows([second]))
    both = noise_floors(rows([first, second], ["a", "b"]))
    assert both.keys() == alone.keys()
    assert len(both) == 1


def test_a_model_of_few_images_promises_no_sets(tmp_path, command):
    for label, color in (("dark", 20), ("light", 180)):
        for n in range(10):
            save_image(tmp_path / "few" / label / f"{n}.jpg", color, seed=n)
    _, (made,) = measured(tmp_path / "run", dataset=f"folder:{tmp_path / 'few'}", folds="off")
    kept = fit(made, tmp_path / "run")
    assert not kept.card.calibration.test
    assert "No sets of classes" in (kept.folder / "README.md").read_text()
    status, _, err = command("fit", tmp_path / "run", "--id", made.id)
    assert status == 2
    assert "again" not in err.replace("made again", "")


def test_a_report_says_what_folds_are(tmp_path):
    from tlbench.report import write_report

    write_report(folded(), tmp_path)
    assert "In 5 folds of all images each is tested once" in (tmp_path / "report.md").read_text()
