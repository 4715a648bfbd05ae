"""Other tests than the test images: other data sets, matched by the names of classes, and corruptions. They are looked
at once, at the end; training knows nothing of them.
"""

import io
import json
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
from bits import finished
from conftest import save_image
from digits import few_digits
from images import results, with_images
from matplotlib.figure import Figure
from PIL import Image
from records import record
from test_resume import GRID, begun, measured  # noqa: F401 - fixtures

import tlbench
from tlbench.analysis import elsewhere, stats
from tlbench.analysis.commands import command as command_for
from tlbench.analysis.frame import EXPORT_COLUMNS, frame, read_csv, rows, rows_of, with_seldom, write_csv
from tlbench.analysis.summary import SUMMARY, summarise
from tlbench.analysis.verdict import verdicts
from tlbench.api.keywords import options_of
from tlbench.campaign.asked import parse_asked
from tlbench.campaign.check import check
from tlbench.campaign.other_tests import about_untested, untested
from tlbench.campaign.replay import EQUAL, replay
from tlbench.data import Request, describe_data
from tlbench.data.corruptions import CORRUPTIONS, corrupted, names_of
from tlbench.data.elsewhere import describe_elsewhere, load_elsewhere
from tlbench.errors import UserError
from tlbench.grid.cell import Cell
from tlbench.grid.grid import Grid, load_grid
from tlbench.grid.other_tests import parse_also_test
from tlbench.grid.settings import Settings
from tlbench.machine.kept import KEPT
from tlbench.measure import cell as cell_module
from tlbench.measure.place import Place
from tlbench.records.images import PerImage
from tlbench.records.record import Record
from tlbench.records.run_folder import Store, load
from tlbench.report import write_report
from tlbench.report.columns import columns_of
from tlbench.report.elsewhere_words import sentences, table_of
from tlbench.report.plots import PLOTS

REQUEST = Request(size=16, resize=16, interpolation="bilinear", seed=0)
COLORS = {"dark": 20, "light": 180, "grey": 100}


def photos(root, start=0, **counts):
    """Class folders of so many images each; ``train__dark=4`` makes train/dark."""
    for place, count in counts.items():
        folder = root / place.replace("__", "/")
        for n in range(start, start + count):
            save_image(folder / f"{n}.png", COLORS.get(folder.name, 60), seed=n)
    return root


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """What is trained on: two classes."""
    root = tmp_path_factory.mktemp("own")
    photos(root, 0, train__dark=8, train__light=8)
    photos(root, 100, val__dark=4, val__light=4)
    return photos(root, 200, test__dark=5, test__light=5)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Another data set: one class of the first, one that it does not have, and one that is told apart by capitals."""
    return photos(tmp_path_factory.mktemp("other"), 300, dark=6, grey=3, Light=2)


def described(root):
    found = describe_data(f"folder:{root}", REQUEST)
    assert found is not None
    return found


# --- classes and images ---------------------------------------------------------------------------------------


def test_classes_are_matched_by_name_and_the_others_are_counted(own, other):
    found, split = load_elsewhere(f"folder:{other}", REQUEST, described(own))
    assert found.missing == ("light",)
    assert found.unknown == ("Light", "grey")
    assert (found.classes, found.left_out, found.seen, found.dropped) == (1, 5, 0, 0)
    assert split.labels.tolist() == [0] * 6
    assert split.batch(split.index[:1] * 0)[0].shape == (1, 3, 16, 16)
    without = describe_elsewhere(f"folder:{other}", REQUEST, described(own))
    assert without is not None
    assert without.sha256 == found.sha256


def test_a_label_is_that_of_the_training_set(own, tmp_path):
    root = photos(tmp_path, 300, another=2, light=3, dark=1)
    _, split = load_elsewhere(f"folder:{root}", REQUEST, described(own))
    assert sorted(split.labels.tolist()) == [0, 1, 1, 1]
    bright = split.batch(split.index.new_tensor(range(4)))[0].float().mean(dim=(1, 2, 3))
    assert bool((bright[split.labels == 1] > 150).all())


def test_a_data_set_with_its_own_test_split_is_tested_on_that(own, tmp_path):
    root = photos(tmp_path, 300, train__dark=5, train__light=5, val__dark=2, val__light=2, test__dark=1, test__light=3)
    found, _ = load_elsewhere(f"folder:{root}", REQUEST, described(own))
    assert len(found.labels) == 4
    (tmp_path / "test").rename(tmp_path / "away")
    found, _ = load_elsewhere(f"folder:{root}", REQUEST, described(own))
    assert len(found.labels) == 4, "val/ in the place of test/"
    shutil.rmtree(tmp_path / "val")
    shutil.rmtree(tmp_path / "away")
    found, _ = load_elsewhere(f"folder:{root}", REQUEST, described(own))
    assert len(found.labels) == 10, "all, since none is trained on"


def test_files_that_were_trained_on_or_chosen_by_are_left_out(own, tmp_path):
    root = photos(tmp_path, 300, dark=2, light=2)
    shutil.copy(own / "train/dark/0.png", root / "dark/copy of train.png")
    shutil.copy(own / "val/light/100.png", root / "light/copy of val.png")
    shutil.copy(own / "test/light/200.png", root / "light/copy of test.png")
    found, _ = load_elsewhere(f"folder:{root}", REQUEST, described(own))
    assert (len(found.labels), found.seen) == (5, 2)


def test_a_data_set_split_by_seed_tests_what_the_seed_left_for_the_test():
    with few_digits():
        found, split = load_elsewhere("digits", REQUEST, own := described_digits())
    assert sorted(found.positions.tolist()) == sorted(own.positions["test"].tolist())
    assert found.seen == len(own.positions["train"]) + len(own.positions["val"])
    assert split.labels.tolist() == own.labels[found.positions].tolist()


def described_digits():
    found = describe_data("digits", REQUEST)
    assert found is not None
    return found


NOTHING_LEFT = {
    "no class": (lambda root, own: photos(root, 300, a=2, b=2), "none of the classes that are trained"),
    "capitals": (lambda root, own: photos(root, 300, Dark=2, LIGHT=2), "'Dark' is 'dark' there"),
    "all seen": (lambda root, own: shutil.copytree(own / "train", root / "all"), "all of them were trained on"),
}


@pytest.mark.parametrize("case", NOTHING_LEFT)
def test_where_nothing_is_left_it_is_an_error(case, own, tmp_path):
    make, words = NOTHING_LEFT[case]
    root = make(tmp_path, own)
    with pytest.raises(UserError) as error:
        load_elsewhere(f"folder:{root}", REQUEST, described(own))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


# --- how they are written -------------------------------------------------------------------------------------


def test_the_command_line_python_and_a_grids_file_mean_the_same(tmp_path):
    texts = ("phone=folder:a b", "web=folder:c,d")
    told = parse_asked({"also-test": list(texts), "corrupt": "jpeg,noise"}).settings
    assert told == {"also_test": texts, "corrupt": ("noise", "jpeg")}
    for given in (
        {"also_test": {"phone": "folder:a b", "web": "folder:c,d"}, "corrupt": ["noise", "jpeg"]},
        {"also_test": list(texts), "corrupt": "noise,jpeg"},
    ):
        assert parse_asked(options_of(None, given)).settings == told
    for text in (
        'also_test = ["phone=folder:a b", "web=folder:c,d"]\ncorrupt = "noise,jpeg"\n',
        'corrupt = ["jpeg", "noise"]\n[also-test]\nphone = "folder:a b"\nweb = "folder:c,d"\n',
    ):
        (tmp_path / "g.toml").write_text(text)
        assert parse_asked({"grid": tmp_path / "g.toml"}).settings == told
    assert parse_asked({"grid": tmp_path / "g.toml", "corrupt": "blur"}).settings == {**told, "corrupt": ("blur",)}
    assert parse_asked({"corrupt": "all"}).settings == {"corrupt": tuple(CORRUPTIONS)}
    assert load_grid(tmp_path / "g.toml").with_axes({"seed": (1,)}).settings == told


def test_a_path_in_python_is_a_folder(tmp_path):
    asked = parse_asked(options_of(None, {"also_test": {"phone": tmp_path}}))
    assert asked.settings == {"also_test": (f"phone=folder:{tmp_path}",)}
    assert parse_asked(options_of(None, {"also_test": {}})).settings == {}


BAD = {
    "no name": (["--also-test=folder:x"], ["'folder:x'", "NAME=DATASET"]),
    "no data set": (["--also-test=phone="], ["'phone='", "NAME=DATASET"]),
    "a strange name": (["--also-test=my phone=digits"], ["NAME=DATASET"]),
    "a name that is taken": (["--also-test=test=digits"], ["'test' means something else"]),
    "a corruption's name": (["--also-test=noise=digits"], ["'noise' means something else"]),
    "twice": (["--also-test=a=digits", "--also-test=a=folder:x"], ["the name 'a' twice"]),
    "no such data set": (["--also-test=a=digts"], ["--also-test a:", "did you mean 'digits'"]),
    "no such folder": (["--also-test=a=folder:none"], ["--also-test a:", "does not exist"]),
    "no labels": (["--also-test=a=synthetic"], ["synthetic has no labels that mean anything"]),
    "nothing learned": (
        ["--dataset=synthetic", "--corrupt=all"],
        ["--corrupt", "synthetic has none that"],
    ),
    "nothing trained": (["--task=infer", "--corrupt=all"], ["--corrupt tests what was trained, and nothing is"]),
    "a kind": (["--corrupt=nois"], ["did you mean 'noise'"]),
    "no kind": (["--corrupt="], ["unknown corruption ''"]),
    "a kind twice": (["--corrupt=blur,blur"], ["has a name twice"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_before_anything_is_trained(case, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given, words = BAD[case]
    status, out, err = command("run", "--freeze=linear_probe", "--weights=random", "--dry-run", *given)
    assert (status, out) == (2, ""), err
    assert len(err.strip().splitlines()) == 1, err
    for word in words:
        assert word in err
    assert not list(tmp_path.iterdir())


def test_other_classes_are_found_before_anything_is_trained(own, tmp_path, other):
    grid = Grid(axes={"dataset": (f"folder:{own}",), "weights": ("random",), "image_size": (16,)})
    said = []
    check(grid, Settings(also_test=(f"phone=folder:{other}",), corrupt=("blur",)), said.append)
    (line,) = [line for line in said if line.startswith("also tested on")]
    assert line.startswith("also tested on, phone: 6 images of 1 class of folder:")
    assert "no image of 1 class ('light')" in line
    assert "left out: 5 images of 2 classes ('Light', 'grey') that are not trained" in line
    photos(tmp_path, 300, a=2, b=2)
    for decode in (True, False):
        with pytest.raises(UserError, match=r"^--also-test phone: .*none of the classes"):
            check(grid, Settings(also_test=(f"phone=folder:{tmp_path}",)), decode=decode)


def test_a_broken_image_is_found_before_anything_is_trained(own, tmp_path):
    photos(tmp_path, 300, dark=3, light=3)
    (tmp_path / "dark/300.png").write_bytes(b"no image")
    grid = Grid(axes={"dataset": (f"folder:{own}",), "weights": ("random",), "image_size": (16,)})
    settings = Settings(also_test=(f"phone=folder:{tmp_path}",))
    with pytest.raises(UserError, match=r"^--also-test phone: 1 of 6 images .* cannot be read"):
        check(grid, settings)
    said = []
    check(grid, replace(settings, bad_images="skip"), said.append)
    assert any("1 cannot be read" in line for line in said)


def test_settings_come_through_a_pipe_as_they_were():
    """Processes and nodes are told them as JSON, which has no tuples."""
    settings = Settings(also_test=("phone=folder:a", "web=folder:b"), corrupt=("blur",))
    assert Settings(**json.loads(json.dumps(asdict(settings)))) == settings


# --- measured -------------------------------------------------------------------------------------------------

CELL = Cell(
    backbone="mobilenet_v3_small", weights="random", image_size=32, epochs=1, batch_size=8, layout="contiguous",
    freeze="full",
)  # fmt: skip


@pytest.fixture(scope="module")
def tested(own, other):
    """(a cell, its record without other tests, its record with two data sets and two corruptions)"""
    cell = replace(CELL, dataset=f"folder:{own}")
    also = (f"phone=folder:{other}", f"same=folder:{own}")
    plain = cell_module.run_cell(cell, Settings(threads=1))
    full = cell_module.run_cell(cell, Settings(threads=1, also_test=also, corrupt=("noise", "contrast")))
    assert (plain.status, full.status) == ("ok", "ok"), full.reason
    return cell, plain, full


def test_training_and_the_test_are_the_same_with_and_without(tested):
    _, plain, full = tested
    assert finished(full) == finished(plain)
    assert full.predictions_sha256 == plain.predictions_sha256
    assert full.key == plain.key
    assert plain.other_tests == {}
    assert "other_tests" not in plain.to_dict()


def test_what_a_record_says_of_other_tests(tested, own, other):
    _, _, full = tested
    assert list(full.other_tests) == ["phone", "same", *names_of(["noise", "contrast"])]
    phone = full.other_tests["phone"]
    assert (phone["dataset"], phone["images"], phone["classes"]) == (f"folder:{other}", 6, 1)
    assert (phone["missing"], phone["unknown"], phone["left_out_images"]) == (["light"], ["Light", "grey"], 5)
    assert phone["seconds"] > 0
    same = full.other_tests["same"]
    assert (same["accuracy"], same["images"]) == (full.accuracy_test, full.samples["test"])
    assert same["loss"] == pytest.approx(full.loss_test)
    assert same["predictions_sha256"] == full.predictions_sha256
    for name in names_of(["noise", "contrast"]):
        assert full.other_tests[name]["images"] == full.samples["test"]
    back = Record.from_dict(json.loads(json.dumps(full.to_dict(), allow_nan=False)))
    assert back.other_tests == full.other_tests
    assert back.settings == full.settings


def test_its_seconds_are_of_evaluation(tested):
    _, _, full = tested
    (row,) = rows([full])
    spent = sum(one["seconds"] for one in full.other_tests.values())
    assert row.evaluation_seconds > spent > 0
    assert row.training_seconds < full.wall_seconds - spent


def test_single_images_are_kept_beside_the_records(tested, tmp_path):
    _, _, full = tested
    store = Store(tmp_path)
    store.append(full)
    (back,) = load(tmp_path).records
    test = back.per_image.split("test")
    for name, one in full.other_tests.items():
        found = back.per_image.split(name)
        assert float(found.correct.mean()) == one["accuracy"]
    assert np.array_equal(back.per_image.split("noise@2").images, test.images)
    assert back.images["noise@2"] == back.images["test"], "one file for all that are of the same images"
    assert back.per_image.problem == ""


def test_a_cell_comes_out_again(tested):
    _, _, full = tested
    found = replay(full)
    assert (found.outcome, found.differences) == (EQUAL, ())
    changed = replace(full, other_tests={**full.other_tests, "phone": {**full.other_tests["phone"], "accuracy": 2.0}})
    assert [one.what for one in replay(changed).differences] == ["accuracy on phone"]


def test_images_that_are_gone_fail_the_cell_and_lose_nothing_else(tested, tmp_path, own):
    cell, plain, _ = tested
    photos(tmp_path, 300, dark=2, light=2)
    settings = Settings(threads=1, also_test=(f"gone=folder:{tmp_path / 'none'}",))
    made = cell_module.run_cell(cell, settings)
    assert made.status == "failed"
    assert "--also-test gone" in made.reason
    assert "does not exist" in made.reason
    assert made.accuracy_test == plain.accuracy_test


def test_what_frozen_stages_make_of_test_images_is_kept_for_other_cells(own, other, monkeypatch):
    """A probe with another head runs its backbone on no test image again, and says what it would have said."""
    KEPT.activations.forget()
    calls = []

    def counted(*arguments):
        calls.append(len(arguments[0]))
        return corrupted(*arguments)

    monkeypatch.setattr("tlbench.train.corrupted.corrupted", counted)
    asked = Settings(threads=1, also_test=(f"phone=folder:{other}",), corrupt=("blur",))
    cell = replace(CELL, dataset=f"folder:{own}", freeze="linear_probe")
    first = cell_module.run_cell(cell, asked)
    assert sum(calls) == 3 * first.samples["test"]
    calls.clear()
    second = cell_module.run_cell(replace(cell, head="mlp", batch_size=5), asked)
    fitted = cell_module.run_cell(replace(cell, head="nearest_mean"), asked)
    assert calls == []
    for kept in (second, fitted):
        plain = cell_module.run_cell(kept.cell, replace(asked, prefix="off"))
        assert plain.predictions_sha256 == kept.predictions_sha256
        for name, one in kept.other_tests.items():
            assert plain.other_tests[name]["predictions_sha256"] == one["predictions_sha256"]
            assert plain.other_tests[name]["loss"] == pytest.approx(one["loss"], rel=1e-5)
    assert sum(calls) == 6 * first.samples["test"]


def test_what_is_kept_of_tests_goes_with_the_prefix_and_never_in_its_place(own, monkeypatch):
    KEPT.activations.forget()
    cell = replace(CELL, dataset=f"folder:{own}", freeze="linear_probe")
    asked = Settings(threads=1, corrupt=("contrast",))
    cell_module.run_cell(cell, asked, place=Place(keep="nothing"))
    assert len(KEPT.activations) == 0
    monkeypatch.setattr("tlbench.measure.other_tests.has_room", lambda plain, needed: False)
    cell_module.run_cell(cell, asked)
    assert len(KEPT.activations) == 1, "the prefix that the cell was timed with"
    KEPT.activations.forget()


def test_a_head_that_is_fitted_is_tested_too(own):
    cell = replace(CELL, dataset=f"folder:{own}", freeze="linear_probe", head="ridge")
    made = cell_module.run_cell(cell, Settings(threads=1, corrupt=("blur",)))
    assert made.status == "ok", made.reason
    assert list(made.other_tests) == names_of(["blur"])


def test_an_adapter_is_tested_merged(own):
    cell = replace(CELL, backbone="resnet18", dataset=f"folder:{own}", freeze="lora(r=2)")
    made = cell_module.run_cell(cell, Settings(threads=1, also_test=(f"same=folder:{own}",)))
    assert made.status == "ok", made.reason
    assert made.other_tests["same"]["predictions_sha256"] == made.predictions_sha256


def test_a_data_set_without_labels_is_tested_on_nothing():
    made = cell_module.run_cell(replace(CELL, dataset="synthetic", train_size=16), Settings(corrupt=("blur",)))
    assert made.status == "ok", made.reason
    assert made.other_tests == {}


@pytest.mark.exhaustive
def test_processes_and_pytest_get_the_tests(command, own, other, tmp_path):
    options = [
        f"--dataset=folder:{own}", "--backbone=mobilenet_v3_small", "--weights=random", "--image-size=32",
        "--epochs=1", "--freeze=linear_probe", "--twins=0", "--threads=1", f"--also-test=phone=folder:{other}",
        "--corrupt=blur",
    ]  # fmt: skip
    status, out, err = command("run", *options, "--out", tmp_path / "run")
    assert status == 0, err
    (made,) = load(tmp_path / "run").records
    assert list(made.other_tests) == ["phone", *names_of(["blur"])]
    assert made.per_image.split("phone") is not None
    assert "accuracy elsewhere" in out
    assert "also tested on, phone: 6 images" in err


# --- going on -------------------------------------------------------------------------------------------------


def test_a_run_goes_on_with_other_tests_and_says_what_lacks_them(begun, command, measured):  # noqa: F811
    status, _, err = command("run", "--resume", begun, "--corrupt=blur")
    assert (status, measured) == (0, [])
    told = " ".join(err.split())
    assert "4 measurements of this run were not tested on blur@1, blur@2, blur@3: tlbench run" in told
    assert " --resume RUN --rerun untested measures them anew" in told
    tests = {name: {"accuracy": 0.5} for name in names_of(["blur"])}
    measured.becomes = lambda fake: replace(fake, other_tests=tests)
    status, _, err = command("run", "--resume", begun, "--corrupt=blur", "--rerun=untested")
    assert (status, len(measured)) == (0, 4), err
    assert "not tested" not in err
    measured.clear()
    assert command("run", "--resume", begun, "--corrupt=blur", "--rerun=untested")[0] == 0
    assert measured == []


def test_what_a_record_lacks():
    made = record(other_tests={"phone": {"dataset": "folder:a", "accuracy": 0.5}})
    assert untested(made, Settings(also_test=("phone=folder:a",))) == []
    assert untested(made, Settings(also_test=("phone=folder:b",))) == ["phone"]
    assert untested(made, Settings(corrupt=("blur",))) == names_of(["blur"])
    assert untested(record(task="infer"), Settings(corrupt=("blur",))) == []
    assert about_untested([made], Settings(also_test=("phone=folder:a",))) == []
    (line,) = about_untested([made], Settings(corrupt=("noise", "blur")))
    assert line.startswith("1 measurement of this run was not tested on noise@1, noise@2")


def test_a_run_of_an_older_version_goes_on(begun, command, measured):  # noqa: F811
    from tlbench.records.lines import seal, unseal

    data = unseal((begun / "run.json").read_bytes().decode())
    data.pop("checksum", None)
    for name in ("also_test", "corrupt"):
        del data["settings"][name]
    (begun / "run.json").write_text(seal(data))
    assert command("run", "--resume", begun)[0] == 0
    assert measured == []


def test_the_command_of_a_record_asks_for_them_again():
    made = record()
    asked = Settings(also_test=("phone=folder:a b", "web=folder:c"), corrupt=("noise", "blur"))
    text = command_for([replace(made, settings=asked)])
    assert "--also-test 'phone=folder:a b' --also-test web=folder:c --corrupt noise,blur" in text
    assert "--corrupt all" in command_for([replace(made, settings=Settings(corrupt=tuple(CORRUPTIONS)))])


# --- tables and words -----------------------------------------------------------------------------------------

IMAGES = 400


def cells(elsewhere_of, test_of, seeds=3, names=("phone",)):
    """Records of policies: policy -> accuracy elsewhere, policy -> accuracy on the test images."""
    made = []
    for policy, accuracy in test_of.items():
        for seed in range(seeds):
            one = with_images(record(freeze=policy, seed=seed, accuracies=(0.1, 0.2, accuracy)), IMAGES)
            splits, tests = dict(one.per_image.splits), {}
            for name in names:
                right = np.roll(np.arange(IMAGES) < round(elsewhere_of[policy] * IMAGES), 3 * seed)
                splits[name] = results(right, "test", start=5000)
                tests[name] = {"dataset": "folder:phone", "accuracy": float(right.mean()), "images": IMAGES}
            made.append(replace(one, per_image=PerImage(splits), other_tests=tests))
    return made


TEST = {"linear_probe": 0.85, "full": 0.95}
ORDERS = {
    "other order": ({"linear_probe": 0.8, "full": 0.6}, TEST, 3, "the order is another: resnet18 · linear_probe"),
    "same": ({"linear_probe": 0.6, "full": 0.8}, TEST, 3, "the pick stays ahead, with 80.0 %"),
    "fall behind": (
        {"linear_probe": 0.6, "full": 0.8}, {"linear_probe": 0.9475, "full": 0.95}, 3,
        "the pick stays ahead, with 80.0 %; resnet18 · linear_probe · linear falls behind it beyond chance (60.0 %), "
        "and cannot be told from it on the test images.",
    ),
    "cannot say": ({"linear_probe": 0.705, "full": 0.7}, TEST, 3, "cannot be said whether the order is another"),
    "behind": (
        {"linear_probe": 0.8, "full": 0.6}, {"linear_probe": 0.9475, "full": 0.95}, 3,
        "is ahead of the pick, resnet18 · full · linear, beyond chance (80.0 against 60.0 %); on the test images the "
        "two cannot be told apart",
    ),
    "one seed": ({"linear_probe": 0.8, "full": 0.6}, TEST, 1, "one seed tells no spread"),
}  # fmt: skip


@pytest.mark.parametrize("case", ORDERS)
def test_the_verdict_says_where_the_order_is_another(case):
    there, here, seeds, words = ORDERS[case]
    (scope,) = verdicts(summarise(rows(cells(there, here, seeds))))
    (one,) = scope.elsewhere
    assert one.standing == {"one seed": "cannot say", "fall behind": "same"}.get(case, case)
    (text,) = sentences(scope)
    assert text.startswith("On the images of phone")
    assert words in text
    assert text.endswith(".")


def test_without_other_tests_nothing_is_said():
    (scope,) = verdicts(summarise(rows([with_images(record(seed=s)) for s in range(3)])))
    assert (scope.elsewhere, sentences(scope), table_of(scope)) == ((), [], None)


def test_equal_cells_seldom_change_places():
    """Two cells that are equally good everywhere: at most a few of many made-up runs say that they change places."""
    draw, wrong = np.random.default_rng(0), 0
    for _ in range(60):
        scores = []
        for _ in range(2):  # on the test images and elsewhere
            images = np.arange(200)
            hard = draw.random(200)
            cell = {}
            for name in "ab":
                seeds = [(draw.random(200) < 0.5 + 0.5 * hard).astype(float) for _ in range(3)]
                cell[name] = stats.Scores(images=(images,) * 3, correct=tuple(seeds))
            scores.append(cell)
        here, there = (stats.all_pairs(one) for one in scores)
        wrong += any(here.ahead(a, 1 - a) and there.ahead(1 - a, a) for a in (0, 1))
    assert wrong <= 1


def test_pairs_agree_with_the_comparison_with_the_best():
    cell = {"a": np.arange(1000) < 950, "b": np.arange(1000) < 800, "c": np.arange(1000) < 948}
    scores = {
        name: stats.Scores(images=(np.arange(1000),) * 3, correct=(right.astype(float),) * 3)
        for name, right in cell.items()
    }
    pairs = stats.all_pairs(scores)
    assert [pairs.ahead(0, other) for other in (0, 1, 2)] == [False, True, False]
    assert pairs.ahead(2, 1)
    one_seed = {**scores, "a": stats.Scores(images=(np.arange(1000),), correct=(cell["a"].astype(float),))}
    assert not stats.all_pairs(one_seed).ahead(0, 1)


def test_results_that_do_not_fit_are_not_believed():
    made = cells({"linear_probe": 0.8, "full": 0.6}, TEST)
    made = [replace(one, other_tests={"phone": {**one.other_tests["phone"], "accuracy": 0.5}}) for one in made]
    summary = summarise(rows(made))
    (test,) = elsewhere.known_tests(summary)
    found = elsewhere.result(summary[0], test, elsewhere.Numbers())
    assert (found.accuracy, found.scores) == (0.5, None)


def test_one_name_for_two_data_sets_is_two_tests():
    made = cells({"linear_probe": 0.8, "full": 0.6}, TEST)
    made[0] = replace(made[0], other_tests={"phone": {**made[0].other_tests["phone"], "dataset": "folder:new"}})
    labels = [test.label for test in elsewhere.known_tests(summarise(rows(made)))]
    assert labels == ["phone (folder:new)", "phone (folder:phone)"]


def test_a_configuration_that_was_not_tested_is_counted():
    made = cells({"linear_probe": 0.8, "full": 0.6}, TEST)
    made = [replace(one, other_tests={}) if one.cell.freeze == "full" else one for one in made]
    (scope,) = verdicts(summarise(rows(made)))
    (one,) = scope.elsewhere
    assert (one.lacking, one.standing) == (1, "alone")
    told = table_of(scope)
    assert "phone: folder:phone; 400 images; not measured for 1 configuration" in told.notes
    assert ("–", "") in [values[1] for _, _, values in told.rows]


def all_cells():
    names = names_of(["noise", "blur"])
    return cells({"linear_probe": 0.8, "full": 0.6}, TEST, names=("phone", *names))


def test_corruptions_are_means_over_strengths_and_over_all():
    summary = summarise(rows(all_cells()))
    assert [test.label for test in elsewhere.known_tests(summary)] == ["phone", "noise", "blur", "corrupted"]
    assert [test.label for test in elsewhere.known_tests(summary, kinds=False)] == ["phone", "corrupted"]
    (scope,) = verdicts(summary)
    assert [bool(text) for text in sentences(scope)] == [True, True], "of phone, and of all corruptions together"
    assert "On corrupted test images the order is another" in sentences(scope)[1]


def test_columns_of_a_frame_and_of_an_export():
    made = rows(all_cells())
    plain = rows([record()])
    assert with_seldom(EXPORT_COLUMNS, plain) == EXPORT_COLUMNS
    columns = with_seldom(EXPORT_COLUMNS, [*plain, *made])
    on = [f"accuracy_on_{name}" for name in ("phone", *names_of(["noise", "blur"]))]
    assert columns[: len(EXPORT_COLUMNS)] == EXPORT_COLUMNS
    assert columns[-len(on) - 2 :] == ("other_tests", "accuracy_corrupted", *on)
    text = io.StringIO()
    write_csv([*plain, *made], text, columns)
    text.seek(0)
    first, second = read_csv(text)[:2]
    assert (first["accuracy_on_phone"], second["accuracy_on_phone"]) == ("", "0.8")
    assert json.loads(second["other_tests"])["noise@1"] == 0.8
    data = frame([*plain, *made])
    assert data["accuracy_on_phone"].isna().tolist() == [True] + [False] * 6
    assert data["accuracy_corrupted"].iloc[1] == pytest.approx(0.8)
    assert "accuracy_on_phone" not in frame(plain).columns
    (again, *_) = rows_of(data.iloc[1:])
    assert again.other_tests == made[0].other_tests


def test_columns_of_the_summary():
    made, plain = summarise(rows(all_cells())), summarise(rows([record()]))
    assert columns_of(plain) == tuple(SUMMARY)
    assert columns_of(made)[-1] == "accuracy_corrupted"
    assert {row["freeze"]: round(row["accuracy_corrupted"], 6) for row in made} == {"linear_probe": 0.8, "full": 0.6}


def test_the_figure_from_rows_and_from_a_frame():
    made = rows(all_cells())
    for data in (summarise(made), frame(made)):
        figure = PLOTS["elsewhere"].draw(data)
        assert isinstance(figure, Figure)
        titles = [ax.get_title(loc="left") for ax in figure.axes]
        assert [title.partition(" · ")[0] for title in titles] == ["phone", "corrupted test images"]
    picture = tlbench.plots.PLOTS["elsewhere"](frame(rows([record()])))
    assert "--also-test" in picture.missing


def test_the_report_has_the_table(tmp_path):
    write_report(all_cells(), tmp_path)
    page, text = (tmp_path / "report.html").read_text(), (tmp_path / "report.md").read_text()
    for content in (page, text):
        assert "Accuracy elsewhere" in content
        assert "On the images of phone the order is another" in content
        assert "folder:phone" in content
    assert (tmp_path / "figures/elsewhere.svg").exists()
    assert "| configuration | test | phone | noise | blur | corrupted |" in text
    lines = text.splitlines()
    start = lines.index("| configuration | test | phone | noise | blur | corrupted |")
    assert lines[start + 1].startswith("| --- |")
    assert lines[start + 2].startswith("| resnet18 · full · linear | 95.0 % (")


def test_the_terminal_has_the_table(tmp_path, command):
    store = Store(tmp_path)
    for one in all_cells():
        store.append(one)
    status, out, err = command("summary", tmp_path)
    assert status == 0, err
    assert "accuracy elsewhere, %" in out
    assert "On the images of phone the order is another" in " ".join(out.split())


def test_a_report_to_give_away_names_no_folder(tmp_path):
    from tlbench.report.share import write_shared

    asked = Settings(also_test=("phone=folder:/home/somebody/phone",))
    made = [
        replace(
            one,
            settings=asked,
            other_tests={n: {**t, "dataset": "folder:/home/somebody/phone"} for n, t in one.other_tests.items()},
        )
        for one in cells({"linear_probe": 0.8, "full": 0.6}, TEST)
    ]
    write_shared(made, tmp_path, ["run"] * len(made))
    for path in tmp_path.rglob("report.*"):
        assert b"somebody" not in path.read_bytes(), path
    assert "folder:phone" in (tmp_path / "report.md").read_text()


def test_only_what_is_tested_on_is_decoded_and_has_to_be_readable(own, tmp_path, monkeypatch):
    """A set's training images, a million of them maybe, were decoded, and a broken one among them was refused."""
    monkeypatch.setenv("TLBENCH_CACHE", str(tmp_path / "cache"))
    root = photos(tmp_path / "x", 300, train__dark=5, train__light=5, test__dark=1, test__light=3)
    (root / "train/dark/300.png").write_bytes(b"broken")
    _, split = load_elsewhere(f"folder:{root}", REQUEST, described(own))
    assert len(split.images) == 4
    (root / "test/dark/300.png").write_bytes(b"broken")
    found, _ = load_elsewhere(f"folder:{root}", replace(REQUEST, bad_images="skip"), described(own))
    assert (len(found.labels), found.dropped, found.missing) == (3, 1, ("dark",))


def test_images_of_more_than_8_bits_are_read_as_those_that_were_trained_on(tmp_path, monkeypatch):
    """A model of 12-bit scans saw those of another device, which are darker, four times as bright."""
    monkeypatch.setenv("TLBENCH_CACHE", str(tmp_path / "cache"))
    for place, most in (("own/train", 3000), ("own/val", 3000), ("own/test", 3000), ("dim", 900)):
        for label in ("a", "b"):
            for number in range(6):
                path = tmp_path / place / label / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                noise = np.random.default_rng([most, number, label == "b", len(place)]).integers(
                    0, most // 20, (16, 16)
                )
                values = (most - noise).astype(np.uint16)
                Image.fromarray(values).save(path)
    mine = described(tmp_path / "own")
    assert mine.pixel_range["white"] == 4095
    found, split = load_elsewhere(f"folder:{tmp_path}/dim", REQUEST, mine)
    bright = split.batch(split.index)[0].float().mean()
    assert len(found.labels) == 12
    assert abs(float(bright) - 255 * 878 / 4095) < 2
    alone = described(tmp_path / "dim")
    assert alone.pixel_range["white"] == 1023, "by themselves they have their own scale"


def test_other_ways_to_write_a_data_set_are_read():
    assert parse_also_test("x=torch/cifar10") == ("x=torchvision:CIFAR10",)


def test_one_kind_of_corruption_has_its_sentence():
    (scope,) = verdicts(summarise(rows(cells({"linear_probe": 0.8, "full": 0.6}, TEST, names=names_of(["blur"])))))
    (text,) = sentences(scope)
    assert text.startswith("On corrupted test images (blur) the order is another")


def test_corrupted_images_of_folds_count_alike():
    """Folds did, of 12 and of 13 images, beside an accuracy over images."""
    made = []
    for fold, right, count in (("1of2", 5, 10), ("2of2", 30, 30)):
        one = record(fold=fold, accuracies=(0.1, 0.2, right / count))
        tests = {name: {"accuracy": right / count, "images": count} for name in names_of(["blur"])}
        made.append(replace(one, samples={**one.samples, "test": count}, other_tests=tests))
    (row,) = summarise(rows(made))
    (test,) = elsewhere.known_tests([row])
    found = elsewhere.result(row, test, elsewhere.Numbers())
    assert found.accuracy == pytest.approx(35 / 40) == pytest.approx(row["accuracy_test"])
    assert row["accuracy_corrupted"] == pytest.approx(35 / 40)
    assert found.images == 40
