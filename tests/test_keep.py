"""A model that is kept is the one that was measured, in any process, and nothing else is loaded in its place."""

import csv
import errno
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import SafetensorError
from tiers import sweep

import tlbench
from tlbench.campaign import fitting
from tlbench.campaign.fitting import chosen, fit
from tlbench.cli.output import write_table
from tlbench.errors import UserError
from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.kept import conformal, formats, saving
from tlbench.kept.card import CARD, WEIGHTS, Calibration, in_words, read_card, write_card
from tlbench.kept.formats import TOLERANCE, write_format
from tlbench.kept.model import KeptModel, load_model
from tlbench.machine import scratch
from tlbench.machine.markdown import markdown
from tlbench.measure.cell import run_cell
from tlbench.records.run_folder import Store

CELL = Cell(
    backbone="mobilenet_v3_small", weights="random", image_size=32, train_size=40, epochs=1, batch_size=16,
    layout="contiguous", dataset="digits",
)  # fmt: skip
BACKBONES = (
    "mobilenet_v3_small",
    "resnet18",
    "efficientnet_lite0",
    "convnext_tiny",
    "vgg11_bn",
    "timm:resnet10t.c3_in1k",
)
POLICIES = ("linear_probe", "last_1", "full", "lora(r=2,alpha=4)")


def measured(folder: Path, **changes):
    """The record of a cell, in a run's folder."""
    made = run_cell(replace(CELL, **changes), Settings())
    assert made.status == "ok", made.reason
    return Store(folder).append(made)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of one cell, with its model kept."""
    folder = tmp_path_factory.mktemp("run")
    made = measured(folder)
    return folder, made, fit(made, folder)


def in_a_new_process(folder: Path, images: Path) -> str:
    """SHA-256 of the classes that the kept model gives images of a store, (M, 3, S, S) uint8."""
    code = (
        "import sys, numpy as np, torch\n"
        "from tlbench.kept.model import load_model\n"
        "model, images = load_model(sys.argv[1]), torch.from_numpy(np.load(sys.argv[2]))\n"
        "print(model.hash_of(model.logits_of(images, torch.arange(len(images)))))"
    )
    done = subprocess.run([sys.executable, "-c", code, folder, images], capture_output=True, text=True, check=True)
    return done.stdout.strip()


CASES = [(backbone, policy) for backbone in BACKBONES for policy in POLICIES]


@pytest.mark.parametrize(("backbone", "policy"), sweep(CASES, [("mobilenet_v3_small", "lora(r=2,alpha=4)")]))
def test_a_kept_model_predicts_in_a_new_process_what_the_record_says(backbone, policy, tmp_path):
    made = measured(tmp_path / "run", backbone=backbone, freeze=policy)
    kept = fit(made, tmp_path / "run")
    assert kept.held.outcome == "equal"
    assert kept.card.measured["kept_predictions_sha256"] == made.predictions_sha256
    assert not kept.card.measured["predicted_otherwise"]
    from tlbench.backbones import input_of
    from tlbench.measure.images import load_images

    data = load_images(made.cell, made.settings, input_of(backbone), 32)
    np.save(tmp_path / "test.npy", data.test.images[data.test.index].numpy())
    assert in_a_new_process(kept.folder, tmp_path / "test.npy") == made.predictions_sha256


@pytest.mark.parametrize("changes", [{"head": "ridge"}, {"head": "mlp"}, {"freeze": "lp_ft", "epochs": 2}], ids=str)
def test_other_heads_and_policies_are_kept_too(changes, tmp_path):
    made = measured(tmp_path / "run", **changes)
    assert fit(made, tmp_path / "run").card.measured["kept_predictions_sha256"] == made.predictions_sha256


def test_what_a_policy_has_put_in_and_cannot_merge_is_kept(tmp_path, monkeypatch):
    """No policy of tlbench's own leaves such a part; one from outside may."""
    from tlbench.policies.base import Adapter, Phase, Policy
    from tlbench.policies.table import POLICIES as TABLE

    class Scaled(torch.nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.layer, self.factors = layer, torch.nn.Parameter(torch.ones(layer.out_channels, 1, 1))

        def forward(self, x):
            return self.layer(x) * self.factors

    def put_in(model, arguments, size):
        for parent in list(model.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, torch.nn.Conv2d):
                    setattr(parent, name, Scaled(child))

    def factors(model, arguments, epochs):
        return [Phase(name="factors", scales=model.select(lambda p: p.kind == "adapter"), bn="freeze")]

    adapter = Adapter(inject=put_in, owns=lambda name: name.endswith(".factors"))
    policy = Policy(summary="a factor a channel", source="IA3, Liu 2022", build=factors, arguments={}, adapter=adapter)
    monkeypatch.setitem(TABLE, "factors", policy)
    made = measured(tmp_path, freeze="factors", lr="0.1")
    kept = fit(made, tmp_path)
    assert kept.card.measured["kept_predictions_sha256"] == made.predictions_sha256
    factors_kept = [value for name, value in load_model(kept.folder).model.state_dict().items() if "factors" in name]
    assert len(factors_kept) > 10
    assert any((value != 1).any() for value in factors_kept), "what was learned is in it"


def test_the_folder_holds_no_pickle_and_nothing_else(run):
    _, _, kept = run
    assert sorted(path.name for path in kept.folder.iterdir()) == ["README.md", "card.json", "model.safetensors"]
    assert not [path for path in kept.folder.parent.iterdir() if path.name.startswith(".")]


def test_the_card_says_what_it_is_in_plain_words(run):
    _, made, kept = run
    text = (kept.folder / "README.md").read_text(encoding="utf-8")
    assert markdown(made.id) in text
    assert "linear\\_probe" in text
    assert "licence" in text
    assert read_card(kept.folder) == kept.card


def test_names_in_the_card_are_texts_and_no_markdown(run, tmp_path):
    """A folder may be called anything, and the card is shown wherever the model is given to."""
    hostile = ["<img src=x>", "www.x.org", "@name", "a|b", "*c*", "\x1b[31m", "[d](http://e.org)", "`f`"]
    kept = run[2].card
    card = replace(
        kept, classes=(*hostile, *kept.classes[len(hostile) :]), run=hostile[0], record=hostile[6],
        cell={**kept.cell, "backbone": hostile[4], "head": hostile[5]}, licence=hostile[1],
        initial_weights={**kept.initial_weights, "source": hostile[3]},
    )  # fmt: skip
    write_card(tmp_path, card)
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert f"- Classes: {', '.join(map(markdown, card.classes))}\n" in text
    assert not [name for name in hostile if name in text.replace("<span>@</span>name", "")]
    told = read_card(tmp_path)
    assert (told.classes, told.run, told.record) == (card.classes, card.run, card.record), "the card itself is exact"


# --- what is refused ------------------------------------------------------------------------------------------


def tampered(folder, name, change):
    content = bytearray((folder / name).read_bytes())
    change(content)
    (folder / name).write_bytes(content)


DAMAGE = {
    "a bit of a weight": (WEIGHTS, lambda content: content.__setitem__(-5, content[-5] ^ 1), "is not what its card"),
    "an end cut off": (WEIGHTS, lambda content: content.__delitem__(slice(-100, None)), "is not what its card"),
    "a card's class": (
        CARD,
        lambda content: content.__setitem__(slice(None), content.replace(b'"0"', b'"7"', 1)),
        "checksum",
    ),
    "a card that is no JSON": (CARD, lambda content: content.__delitem__(0), "not JSON"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_what_was_changed_is_refused(case, run, tmp_path):
    name, change, words = DAMAGE[case]
    folder = tmp_path / "model"
    shutil.copytree(run[2].folder, folder)
    tampered(folder, name, change)
    with pytest.raises(UserError, match=words) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


def test_weights_that_are_gone_are_named(run, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(run[2].folder, folder)
    (folder / WEIGHTS).unlink()
    with pytest.raises(UserError, match="safetensors"):
        load_model(folder)


def test_a_folder_that_is_no_model_says_how_one_is_made(tmp_path):
    with pytest.raises(UserError, match="tlbench fit RUN"):
        load_model(tmp_path)


def test_a_newer_format_is_not_guessed_at(run, tmp_path):
    from tlbench.records.lines import seal, unseal

    folder = tmp_path / "model"
    shutil.copytree(run[2].folder, folder)
    data = unseal((folder / CARD).read_text())
    (folder / CARD).write_text(seal({**data, "format": 99}))
    with pytest.raises(UserError, match="newer"):
        load_model(folder)


def test_a_folder_with_something_in_it_is_left_alone(run, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        fit(run[1], run[0], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_two_containers_with_one_process_number_write_at_two_places(tmp_path, monkeypatch):
    """One removed the model that the other was writing."""
    monkeypatch.setattr("os.getpid", lambda: 1)
    assert saving._aside(tmp_path / "model") != saving._aside(tmp_path / "model")


def test_a_thin_image_that_is_to_be_predicted_takes_the_room_that_it_grows_to(run, tmp_path, monkeypatch):
    Image.new("RGB", (2, 600)).save(tmp_path / "thin.png")
    taken, model = [], load_model(run[2].folder)
    real = model._budget.room

    @contextmanager
    def room():
        with real() as take:
            yield lambda pixels: (taken.append(pixels), take(pixels))[1]

    monkeypatch.setattr(model._budget, "room", room)
    assert next(iter(model.predict([tmp_path / "thin.png"]))).name is not None
    resize = model.card.preprocessing.resize
    assert max(taken) == resize * resize * 300


@pytest.mark.parametrize("name", ["~none", "~none/m"])
def test_a_name_that_looks_like_somebodys_home(name, command, tmp_path, monkeypatch):
    """It was a traceback."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir(parents=True)
    status, _, err = command("predict", name, "x.jpg")
    assert (status, err.count("\n")) == (2, 1)
    assert "is no folder of a kept model" in err


@pytest.mark.parametrize("kind", [".", "a link", "what was left half written"])
def test_a_folder_that_is_there_and_empty_takes_the_model(kind, run, tmp_path, monkeypatch):
    """Of some the error came after the training."""
    place = tmp_path / "place"
    place.mkdir()
    if kind == "what was left half written":
        (place / ".place.host-1.part").mkdir()
    (tmp_path / "link").symlink_to(place)
    monkeypatch.chdir(place)
    out = {".": Path("."), "a link": tmp_path / "link"}.get(kind, place)
    fit(run[1], run[0], out)
    assert read_card(place).weights_sha256 == run[2].card.weights_sha256
    assert [path.name for path in place.iterdir() if path.suffix == ".part"] == [".place.host-1.part"] * (
        "half" in kind
    )
    with pytest.raises(UserError, match="not empty"):
        fit(run[1], run[0], out)


@pytest.mark.parametrize(
    ("out", "why"), [("file/model", "Not a directory"), ("nowhere", "a link that leads nowhere"), ("file", "not empty")]
)
def test_a_place_for_a_model_that_is_none_is_said_before_it_trains(out, why, run, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    monkeypatch.setattr("tlbench.campaign.fitting.rebuilt", None)
    with pytest.raises(UserError, match=why):
        fit(run[1], run[0], tmp_path / out)


@pytest.mark.parametrize("kind", ["safetensors", "onnx"])
def test_a_full_disk_is_one_line(kind, run, tmp_path, monkeypatch, command):
    """safetensors has an error of its own for it, and ended in a traceback."""
    if kind == "safetensors":

        def full(*_, **__):
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

        monkeypatch.setattr("safetensors.torch.save_file", full)
        status, _, err = command("fit", run[0], "--id", run[1].id, "--out", tmp_path / "model")
    else:

        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setitem(formats.FORMATS, "onnx", full)
        status, _, err = command(*("fit", run[0], "--id", run[1].id, "--out", tmp_path / "model", "--format", "onnx"))
    assert status == 2, err
    assert "No space left on device" in err.strip().splitlines()[-1]
    assert "Traceback" not in err


def test_images_that_have_changed_give_no_model(photos, tmp_path):
    made = measured(tmp_path / "run", dataset=f"folder:{photos}", train_size=None)
    picture = next(photos.rglob("*.*g"))
    Image.new("RGB", (40, 32), (1, 2, 3)).save(picture)
    with pytest.raises(UserError, match="cannot be made again"):
        fit(made, tmp_path / "run")
    assert not (tmp_path / "run" / "models").exists()


# --- which cell -----------------------------------------------------------------------------------------------


def test_the_cell_is_chosen_by_validation_images_alone():
    from records import record

    cell = replace(CELL, weights="pretrained")
    made = [
        replace(
            record(cell=replace(cell, seed=seed)), id=f"s{seed}", accuracy_val=val, accuracy_test=1 - val,
            largest_class={"val": 10, "test": 10},
        )
        for seed, val in ((0, 0.8), (1, 0.9), (2, 0.9))
    ]  # fmt: skip
    assert chosen(made).id == "s1"  # of equal ones the least seed
    assert chosen(made, id="s2").id == "s2"


def test_an_unknown_id_is_answered_with_the_nearest(run):
    with pytest.raises(UserError, match="did you mean"):
        chosen([run[1]], id=run[1].id[:-1] + "7")


# --- predicting -----------------------------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    chance = np.random.default_rng(0)
    for n in range(3):
        Image.fromarray(chance.integers(256, size=(30, 40, 3), dtype=np.uint8)).save(folder / f"{n}.png")
    return folder


def table(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_each_file_gets_a_row_under_the_name_that_it_was_given(run, pictures, command):
    status, out, _ = command("predict", str(run[2].folder), str(pictures / "1.png"), str(pictures))
    rows = table(out)
    assert status == 0
    assert [row["file"] for row in rows] == [str(pictures / f"{n}.png") for n in (1, 0, 1, 2)]
    assert rows[0] == rows[2]
    assert all(row["class"] == row["class_1"] in "0123456789" for row in rows)
    probabilities = [float(rows[0][f"probability_{n}"]) for n in range(1, 6)]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) <= 1 + 1e-9


@pytest.mark.parametrize(
    ("given", "rows"),
    [
        (["./0.png", ".//1.png", "a/../2.png"], ["./0.png", ".//1.png", "a/../2.png"]),
        (["."], ["./0.png", "./1.png", "./2.png", "./a/3.png"]),
        (["./a/", "a//", "./a/."], ["./a/3.png", "a//3.png", "./a/./3.png"]),
    ],
    ids=str,
)
def test_a_name_is_given_back_to_the_letter(given, rows, run, pictures, command, monkeypatch):
    """`./0.png`, as `find . | xargs` gives it, became `0.png`, which no list of those names can be joined with."""
    (pictures / "a").mkdir()
    shutil.copy(pictures / "0.png", pictures / "a" / "3.png")
    monkeypatch.chdir(pictures)
    status, out, err = command("predict", str(run[2].folder), *given)
    assert status == 0, err
    assert [row["file"] for row in table(out)] == rows


def test_a_file_that_cannot_be_read_is_a_row_with_the_reason(run, pictures, command):
    (pictures / "1.png").write_bytes(b"no image")
    status, out, err = command("predict", str(run[2].folder), str(pictures))
    rows = table(out)
    assert status == 1
    assert "1 of 3 could not be read" in err
    assert [bool(row["problem"]) for row in rows] == [False, True, False]
    assert not rows[1]["class"]


def test_a_photograph_is_not_written_over(run, pictures, command):
    """`-o *.jpg` wrote a table into the first of them."""
    before = (pictures / "1.png").read_bytes()
    status, _, err = command("predict", str(run[2].folder), "-o", str(pictures / "1.png"), str(pictures / "2.png"))
    assert status == 2
    assert "it is a photograph" in err
    assert (pictures / "1.png").read_bytes() == before


def test_a_table_that_cannot_be_written_whole_leaves_the_one_that_is_there(
    run, pictures, command, monkeypatch, tmp_path
):
    out = tmp_path / "p.csv"
    asked = ("predict", str(run[2].folder), str(pictures), "--out", str(out))
    assert command(*asked)[0] == 0
    before = out.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(scratch, "write_all", full)
        status, _, err = command(*asked, "--threshold", "0.9")
    assert (status, err.count("\n")) == (2, 1)
    assert f"cannot write {str(out)!r}: No space left on device" in err
    assert out.read_bytes() == before
    assert [path for path in tmp_path.iterdir() if path.suffix == ".part"] == []
    out.chmod(0o600)
    assert command(*asked, "--threshold", "1.0")[0] == 0
    assert out.read_bytes() != before
    assert out.stat().st_mode & 0o777 == 0o600, "who may read it has not changed"


def test_a_table_that_no_file_can_take_the_place_of_is_written_itself(run, pictures, command, tmp_path):
    """A name may be too long for one beside it; a file may be mounted by itself."""
    out = tmp_path / f"{'n' * 240}.csv"
    out.write_text("old")
    status, _, err = command("predict", str(run[2].folder), str(pictures), "--out", str(out))
    assert status == 0, err
    assert out.read_text().startswith("file,class,")
    assert {path.name for path in tmp_path.iterdir()} == {out.name, "pictures"}


def test_a_table_for_few_eyes_is_so_while_it_is_written(tmp_path, monkeypatch):
    seen, publish = [], scratch.Scratch.publish
    monkeypatch.setattr(
        scratch.Scratch, "publish", lambda one: (seen.append(one.path.stat().st_mode & 0o777), publish(one))
    )
    (tmp_path / "p.csv").touch(0o600)
    write_table(tmp_path / "p.csv", b"new")
    assert seen == [0o600]
    assert (tmp_path / "p.csv").read_bytes() == b"new"


def test_a_table_is_written_through_links_and_to_pipes(run, pictures, command, tmp_path):
    asked = ("predict", str(run[2].folder), str(pictures), "--out")
    printed = command(*asked[:-1])[1]
    (tmp_path / "there.csv").write_text("old")
    (tmp_path / "link.csv").symlink_to("there.csv")
    (tmp_path / "new.csv").symlink_to("made.csv")
    for name, place in {"link.csv": "there.csv", "new.csv": "made.csv"}.items():
        assert command(*asked, str(tmp_path / name))[0] == 0
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / place).read_text() == printed
    os.mkfifo(tmp_path / "pipe")
    reader = subprocess.Popen(["cat", tmp_path / "pipe"], stdout=subprocess.PIPE, text=True)
    assert command(*asked, str(tmp_path / "pipe"))[0] == 0
    assert reader.communicate(timeout=60)[0] == printed


def test_an_empty_name_is_no_folder(run, command):
    status, _, err = command("predict", str(run[2].folder), "")
    assert status == 2
    assert "no file or folder ''" in err


def test_pictures_that_are_not_read_are_counted(run, pictures, command):
    for name in ("a.gif", "b.jfif", "c.jfif", "notes.txt"):
        (pictures / name).write_bytes(b"")
    _, _, err = command("predict", str(run[2].folder), str(pictures))
    assert "not read below" in err
    assert "2 .jfif, 1 .gif" in err


def test_a_prediction_is_of_the_pixels_that_the_cell_was_trained_on(run, tmp_path):
    """Of a file, and of the same image in memory."""
    model = load_model(run[2].folder)
    image = Image.fromarray(np.random.default_rng(1).integers(256, size=(50, 60, 3), dtype=np.uint8))
    image.save(tmp_path / "a.png")
    by_file, by_image = model.predict([tmp_path / "a.png", image])
    assert by_file.top == by_image.top
    assert model.preprocess(image).shape == (3, 32, 32)


def test_an_image_in_memory_of_more_than_8_bits_is_read_as_its_file_is(run, tmp_path):
    """PIL makes white of all that is above 255."""
    model = load_model(run[2].folder)
    deep = np.random.default_rng(1).integers(2**16, size=(50, 60)).astype(np.uint16)
    image = Image.fromarray(deep)
    image.save(tmp_path / "a.png")
    assert np.array_equal(model.preprocess(image), model.preprocess(tmp_path / "a.png"))
    unit = Image.fromarray(np.random.default_rng(1).random((50, 60), np.float32))
    unit.save(tmp_path / "a.tif")
    assert np.array_equal(model.preprocess(unit), model.preprocess(tmp_path / "a.tif"))
    (bad,) = model.predict([Image.fromarray(np.full((50, 60), 7.0, np.float32))])
    assert "floating-point values" in bad.problem


@pytest.mark.parametrize(
    "one", ["photo.jpg", Path("photo.jpg"), Image.new("RGB", (8, 8))], ids=["text", "path", "image"]
)
def test_one_photograph_is_given_in_a_list(one, run):
    """A name was taken letter by letter."""
    with pytest.raises(UserError, match="a list of photographs"):
        load_model(run[2].folder).predict(one)


def test_a_folder_is_read_as_training_would(run, pictures, command, tmp_path):
    """Links to folders were passed over in silence, and a file server's thumbnails classified."""
    (tmp_path / "elsewhere").mkdir()
    (pictures / "2.png").rename(tmp_path / "elsewhere" / "2.png")
    (pictures / "linked").symlink_to(tmp_path / "elsewhere")
    (pictures / "round").symlink_to(pictures)
    for name in ("@eaDir", ".hidden"):
        (pictures / name).mkdir()
        shutil.copy(pictures / "0.png", pictures / name / "0.png")
    status, out, _ = command("predict", str(run[2].folder), str(pictures))
    assert status == 0
    assert [row["file"] for row in table(out)] == [str(pictures / name) for name in ("0.png", "1.png", "linked/2.png")]


def test_python_loads_it_by_one_name(run):
    model = tlbench.load_model(run[2].folder)
    assert model.classes == tuple("0123456789")
    assert not model.model.training


def test_a_threshold_leaves_undecided_what_is_less_probable(run, pictures, command):
    status, out, err = command("predict", str(run[2].folder), str(pictures), "--threshold", "1")
    rows = table(out)
    assert status == 0
    assert "0 of 3 decided, 3 left undecided" in err
    assert all(row["class"] == "" and row["class_1"] for row in rows)


SHARES = np.full((3, 10), 0.01)
SHARES[0, 3] = 0.91
SHARES[1, 1], SHARES[1, 2], SHARES[1, 3:] = 0.46, 0.48, 0.05 / 7
SHARES[2] = 0.1
"""Probabilities of three images: sure of 3; 2 or 1; of no class."""


@pytest.fixture
def calibrated(run, tmp_path, monkeypatch):
    """The model's folder, with scores by which sets of 95 % take what has a probability of 0.45 or more; what it makes
    of three images is `SHARES`."""
    folder = tmp_path / "calibrated"
    shutil.copytree(run[2].folder, folder)
    write_card(folder, replace(run[2].card, calibration=Calibration(scores=(0.1,) * 18 + (0.55,), images=19)))
    monkeypatch.setattr(KeptModel, "logits", lambda self, images: np.log(SHARES[: len(images)]))
    return folder


def test_a_set_of_no_class_or_of_two_leaves_undecided(calibrated, pictures, command):
    status, out, err = command("predict", str(calibrated), str(pictures), "--coverage", "0.95")
    assert status == 0, err
    assert [(row["set"], row["class"], row["class_1"]) for row in table(out)][:2] == [("3", "3", "3"), ("2|1", "", "2")]
    assert [(row["set"], row["class"]) for row in table(out)][2] == ("", "")
    assert "1 of 3 decided, 2 left undecided" in err
    status, out, _ = command("predict", str(calibrated), str(pictures), "--coverage", "0.9")
    assert [row["set"] for row in table(out)] == ["3", "", ""], "fewer cases, smaller sets"


def test_python_is_told_what_is_inside_a_set(calibrated, pictures):
    model, files = load_model(calibrated), sorted(pictures.iterdir())
    found = model.predict(files, coverage=0.95)
    assert [one.inside for one in found] == [("3",), ("2", "1"), ()]
    assert [one.name for one in found] == ["3", None, None]
    assert [one.inside for one in model.predict(files)] == [None] * 3
    both = model.predict(files, coverage=0.95, threshold=0.95)
    assert [one.name for one in both] == [None] * 3, "both have to hold"


def test_sets_go_by_validation_images(tmp_path):
    """By test images they would look right on these, whatever comes after."""
    made = measured(tmp_path / "run", train_size=None)
    kept = fit(made, tmp_path / "run")
    scores = {}
    for part in ("val", "test"):
        told = made.per_image.split(part)
        right = np.arange(len(told.labels)), told.labels
        scores[part] = np.sort(1 - conformal.softmax(told.logits)[right])
    found = np.array(kept.card.calibration.scores)
    assert kept.card.calibration.images == len(found) == len(scores["val"])
    assert np.allclose(found, scores["val"], atol=2e-3)


def test_a_card_says_where_its_sets_fall_short_on_test_images(run, tmp_path):
    """Of images that are not like those of validation, beyond chance; and nothing of it where it is chance."""
    sure, labels = np.full((40, 10), 0.02), np.zeros(40, int)
    sure[:, 0] = 0.82
    scores = conformal.scores_of(sure, labels)
    card = run[2].card
    for right, said in ((40, False), (20, True)):
        there = np.where(np.arange(40) < right, 0, 1)
        test = conformal.held_against(scores.tolist(), sure, there)
        words = in_words(replace(card, calibration=Calibration(scores=tuple(scores), images=40, test=test)))
        assert f"they did on {right} of 40 test images" in words
        short = "that falls short of 95 % beyond chance: the test images are not like those that it was calibrated on"
        assert (short in words) == said


BAD = {
    "coverage": (["--coverage", "1.5"], "coverage 1.5"),
    "threshold": (["--threshold", "7"], "threshold 7"),
    "too few to calibrate on": (["--coverage", "0.99999"], "validation images"),
    "device": (["--device", "gpu"], "gpu"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_predicted_is_one_line(case, run, pictures, command):
    options, words = BAD[case]
    status, out, err = command("predict", str(run[2].folder), str(pictures), *options)
    assert (status, out) == (2, "")
    assert words in err
    assert err.strip().count("\n") == 0


@pytest.mark.parametrize(("out", "why"), [("none/p.csv", "'none' is no folder that"), (".", "it is a folder")])
def test_a_table_that_cannot_be_written_is_said_before_anything_is_predicted(
    out, why, run, pictures, command, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tlbench.kept.model.load_model", None)
    status, _, err = command("predict", str(run[2].folder), str(pictures), "--out", out)
    assert status == 2
    assert err.startswith(f"tlbench: cannot write '{out}': {why}")
    assert list(tmp_path.glob("*.csv")) == []


def test_a_folder_without_images_is_said(run, tmp_path, command):
    (tmp_path / "empty").mkdir()
    status, _, err = command("predict", str(run[2].folder), str(tmp_path / "empty"))
    assert status == 2
    assert "has no images" in err
    status, _, err = command("predict", str(run[2].folder), str(tmp_path / "nowhere.png"))
    assert status == 2
    assert "there is no file" in err


# --- the command ----------------------------------------------------------------------------------------------


def test_fit_keeps_what_the_verdict_names(run, tmp_path, command):
    status, out, err = command("fit", str(run[0]), "--id", run[1].id, "--out", str(tmp_path / "model"))
    assert status == 0, err
    assert out.splitlines()[0] == str(tmp_path / "model")
    assert "to the last bit" in out
    assert read_card(tmp_path / "model").weights_sha256 == run[2].card.weights_sha256


@pytest.mark.parametrize("options", [[], ["--pick"]], ids=str)
def test_fit_without_a_name_keeps_what_the_verdict_names(options, tmp_path, command):
    """Of two seeds the one with the better validation accuracy."""
    folder = tmp_path / "run"
    small = {"backbone": "efficientnet_lite0", "weights": "pretrained", "train_size": 200, "epochs": 6}
    made = [measured(folder, **small, seed=seed) for seed in (0, 1)]
    status, out, err = command("fit", folder, *options)
    assert status == 0, err
    wanted = chosen(made)
    place = Path(out.splitlines()[0])
    assert place.parent == folder / "models"
    assert read_card(place).record == wanted.id
    assert wanted.accuracy_val == max(one.accuracy_val for one in made)
    assert f"making the model of {wanted.id}, " in err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--id", "nothing"], "no record has the id"),
        (["--format", "pickle"], "unknown format"),
        (["--pick", "--id", "x"], "give one of them"),
        (["--dataset", "folder:new"], "--dataset 'folder:new': nothing here was measured on images of a folder"),
        (["--weights", "new.pth"], "--weights 'new.pth': nothing here was measured with a checkpoint file"),
    ],
    ids=str,
)
def test_what_cannot_be_fitted_is_one_line(options, words, run, command):
    moved = options[0] in ("--dataset", "--weights")
    options = [*options, "--id", run[1].id] if moved else options
    status, out, err = command("fit", str(run[0]), *options)
    assert (status, out) == (2, "")
    assert words in err
    if moved:
        assert command("replay", str(run[0]), *options)[::2] == (2, err), "it would say nothing of the new place"


# --- other formats --------------------------------------------------------------------------------------------


def needs_packages_of(name):
    """Skips the test where a format needs what is not installed."""
    for package in ("onnx", "onnxscript", "onnxruntime") if name == "onnx" else ():
        pytest.importorskip(package)


@pytest.mark.parametrize("name", ["exported", "onnx"])
def test_other_formats_give_the_same_logits(name, run, tmp_path):
    needs_packages_of(name)
    model = load_model(run[2].folder)
    path = write_format(model, name, tmp_path)
    images = torch.randint(256, (5, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    if name == "exported":
        found = torch.export.load(path).module()(images).detach().numpy()
    else:
        import onnxruntime

        found = onnxruntime.InferenceSession(path).run(None, {"images": images.numpy()})[0]
    wanted = model.logits(images)
    assert np.abs(found - wanted).max() <= TOLERANCE * np.abs(wanted).max()


SMALL_DISK = """
import resource, sys
from tlbench.errors import UserError
from tlbench.kept.formats import write_format
from tlbench.kept.model import load_model
kept = load_model(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
try:
    write_format(kept, sys.argv[2], __import__("pathlib").Path(sys.argv[3]))
except UserError as error:
    print(error)
"""


@pytest.mark.parametrize("name", ["exported", "onnx"])
def test_a_format_for_which_there_is_no_room_ends_in_one_line_and_leaves_nothing(name, run, tmp_path):
    """torch's own writing of files ended the process by SIGABRT; the torn file lay beside the kept model."""
    needs_packages_of(name)
    told = [sys.executable, "-c", SMALL_DISK, run[2].folder, name, tmp_path]
    done = subprocess.run(told, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1].startswith(f"cannot write the model as {name} to '{tmp_path}': File too large")
    assert not list(tmp_path.iterdir())


def test_a_closed_terminal_ends_no_fit(run, tmp_path, command, monkeypatch):
    def hung_up(*arguments, real=fitting.fit):
        assert signal.getsignal(signal.SIGHUP) is not signal.SIG_DFL
        signal.raise_signal(signal.SIGHUP)
        return real(*arguments)

    monkeypatch.setattr(fitting, "fit", hung_up)
    status, _, err = command("fit", run[0], "--id", run[1].id, "--out", tmp_path / "model")
    assert status == 0, err
    assert load_model(tmp_path / "model")


def test_a_format_of_a_model_in_bf16_says_how_far_it_is_apart(tmp_path, command):
    """It was held against the model in fp32 without a word: the kept model's own logits are others."""
    made = measured(tmp_path / "run", precision="bf16")
    place = tmp_path / "model"
    status, _, err = command("fit", tmp_path / "run", "--id", made.id, "--out", place, "--format", "exported")
    assert status == 0, err
    (line,) = [line for line in err.splitlines() if "fp32" in line]
    model = load_model(place)
    images = formats._examples(model)
    own = model.logits(images)
    found = torch.export.load(place / "model.pt2").module()(images).detach().numpy()
    share = np.abs(found - own).max() / np.abs(own).max()
    assert share > 10 * TOLERANCE, "bf16 is no fp32"
    assert line == (
        f"tlbench: the model as exported computes in fp32, the kept model in bf16: its logits are {100 * share:.2g} % "
        "of the largest one apart from the kept model's own"
    )


def test_a_format_of_a_model_in_fp32_has_nothing_to_say(run):
    assert formats.about_precision(load_model(run[2].folder), "onnx") == ""


def test_the_hash_is_that_of_classes_in_order(run):
    model = load_model(run[2].folder)
    logits = np.eye(10, dtype=np.float32)[[3, 1, 4]]
    assert model.hash_of(logits) == hashlib.sha256(np.array([3, 1, 4], np.int64).tobytes()).hexdigest()


def test_the_card_is_strict_json(run):
    json.loads((run[2].folder / CARD).read_text())
