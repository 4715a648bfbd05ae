"""Corrected labels: the images stay as they are, and what is corrected is told."""

import hashlib
import io
from dataclasses import replace

import made_engine
import pytest
from conftest import save_image
from named_roots import dtd
from records import record

from tlbench.analysis.frame import rows, write_csv
from tlbench.analysis.summary import summarise
from tlbench.campaign.nodes import differences, facts, question
from tlbench.data import Request, load_data
from tlbench.data.relabel import read_corrections
from tlbench.errors import UserError
from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.machine.kept import KEPT
from tlbench.measure.cell import run_cell
from tlbench.records.lines import decode, encode
from tlbench.records.run_folder import Store


@pytest.fixture
def shots(tmp_path):
    for n in range(8):
        for label, color in (("dark", 20), ("light", 180)):
            save_image(tmp_path / "shots" / label / f"{n}.png", color, (24, 20), seed=n + color)
    return tmp_path / "shots"


def load(root, path="", **more):
    request = Request(size=16, resize=16, interpolation="bilinear", seed=0, relabel=str(path), **more)
    return load_data(f"folder:{root}", request)


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_labels_are_corrected_and_all_else_stays(shots, tmp_path):
    before = load(shots)
    path = write(
        tmp_path / "fix.csv", "file,given,class\ndark/3.png,dark,light\nlight/1.png,light,\ndark/0.png,dark,dark\n"
    )
    after = load(shots, path)
    changed = [f for f, a, b in zip(before.files, before.labels, after.labels, strict=True) if a != b]
    assert changed == ["dark/3.png"]
    assert after.classes[after.labels[after.files.index("dark/3.png")]] == "light"
    assert {p: after.positions[p].tolist() for p in after.positions} == {
        p: before.positions[p].tolist() for p in before.positions
    }
    assert after.identities == before.identities
    assert after.images_sha256 != before.images_sha256
    assert after.pixels_sha256 == before.pixels_sha256 == before.images_sha256
    assert after.relabelled == {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "images": 1}
    assert before.relabelled == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file,given,class\ndark/3.png,dark,light,x\n", "line 2: 4 columns where there are 3"),
        ("file,class,class\ndark/3.png,dark,light\n", "two columns 'class'"),
        ("file,file,class\ndark/3.png,a,light\n", "two columns 'file'"),
        ('file,class\ndark/3.png,light\n"dark/4.png,light\ndark/5.png,light\n', "no CSV"),
    ],
)
def test_rows_that_may_mean_something_else_are_refused(text, words, shots, tmp_path):
    """They were left out, or the last column won, without a word."""
    with pytest.raises(UserError, match=words):
        read_corrections(str(write(tmp_path / "fix.csv", text)))


def test_a_class_with_spaces_at_its_end_can_be_corrected_to(tmp_path):
    for n in range(8):
        for label, color in (("a b ", 20), ("light", 180)):
            save_image(tmp_path / "shots" / label / f"{n}.png", color, (24, 20), seed=n + color)
    after = load(tmp_path / "shots", write(tmp_path / "fix.csv", "file,class\nlight/3.png,a b \n"))
    assert after.classes[after.labels[after.files.index("light/3.png")]] == "a b "


def test_a_run_that_goes_on_with_new_corrections_has_the_same_images(shots, tmp_path, command):
    """Cells of 16 and of 17 images stood in one table."""
    asked = ["--backbone=resnet18", "--weights=random", "--freeze=linear_probe", "--head=ridge", "--image-size=32"]
    run = str(tmp_path / "run")
    assert command("run", shots, *asked, "--folds=off", "--isolate=none", "--out", run)[0] in (0, 1)
    fix = write(tmp_path / "fix.csv", "file,class\ndark/3.png,light\n")
    save_image(shots / "dark" / "new.png", 30, (24, 20), seed=99)
    status, _, err = command("run", "--resume", run, "--relabel", fix)
    assert status == 2
    assert "changed since this run measured them" in err
    (shots / "dark" / "new.png").unlink()
    status, _, err = command("run", "--resume", run, "--relabel", fix)
    assert status in (0, 1)
    assert "16 images in 2 classes (1 label corrected)" in " ".join(err.split())


def test_folds_stay_as_they_are(shots, tmp_path):
    path = write(tmp_path / "fix.csv", "file,class\ndark/3.png,light\n")
    for number in (1, 2):
        before, after = (load(shots, p, fold=(number, 2)) for p in ("", path))
        assert before.positions["test"].tolist() == after.positions["test"].tolist()


def test_a_photograph_under_two_classes_is_told_no_more_when_it_is_corrected(shots, tmp_path):
    (shots / "light" / "copy.png").write_bytes((shots / "dark" / "3.png").read_bytes())
    assert len(load(shots).mixed) == 1
    after = load(shots, write(tmp_path / "fix.csv", "file,class\nlight/copy.png,dark\n"))
    assert (after.mixed, after.copies["mixed"]) == ((), 0)


@pytest.mark.parametrize("written", ["file,class\r\ndark\\3.png,light\r\n", "\ufefffile,class\ndark/3.png, light \n"])
def test_files_of_other_systems_are_read(shots, tmp_path, written):
    path = tmp_path / "fix.csv"
    path.write_bytes(written.encode())
    assert load(shots, path).relabelled["images"] == 1


FAULTS = {
    "no such file": (None, "cannot be read: No such file"),
    "no text": (b"\xff\xfe\x00", "no text in UTF-8"),
    "no columns": ("", "no column 'file'"),
    "another column": (
        "file,label\ndark/3.png,light\n",
        "no column 'class' in its first line, but 'file', 'label'",
    ),
    "nothing corrected": ("file,class\ndark/3.png,\n", "corrects nothing"),
    "a class alone": ("file,class\n,light\n", "line 2: a class, but no file"),
    "two classes": (
        "file,class\ndark/3.png,light\ndark/3.png,dark\n",
        "line 3: 'dark/3.png' is 'dark' there, but 'light' in line 2",
    ),
    "unknown file": (
        "file,class\ndark/33.png,light\n",
        "line 2: the data set has no image 'dark/33.png'; did you mean",
    ),
    "unknown class": (
        "file,class\ndark/3.png,ligth\n",
        "line 2: the data set has no class 'ligth'; did you mean 'light'"),
    "a class without images": (
        "file,class\n" + "".join(f"dark/{n}.png,light\n" for n in range(8)),
        "leaves no image of class 'dark' to train on",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_with_corrections_is_one_line_before_anything_trains(fault, shots, tmp_path, command):
    content, words = FAULTS[fault]
    path = tmp_path / "fix.csv"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    options = ["--backbone=resnet18", "--weights=random", "--image-size=32", "--task=train"]
    status, out, err = command("run", shots, *options, f"--relabel={path}", f"--out={tmp_path / 'run'}")
    assert (status, out) == (2, "")
    assert words in err
    assert err.startswith("tlbench: --relabel ")
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_data_set_without_files_cannot_be_corrected(tmp_path, command):
    path = write(tmp_path / "fix.csv", "file,class\n3.png,1\n")
    options = ["--backbone=resnet18", "--weights=random", f"--relabel={path}", f"--out={tmp_path}/x"]
    status, _, err = command("run", *options)
    assert (status, err.count("\n")) == (2, 1)
    assert "does not tell which file" in err


def test_the_record_tells_the_corrections(shots, tmp_path):
    path = write(tmp_path / "fix.csv", "file,class\ndark/3.png,light\n")
    cell = Cell(
        backbone="mobilenet_v3_small", weights="random", image_size=32, epochs=1, batch_size=8, layout="contiguous",
        dataset=f"folder:{shots}", relabel=str(path),
    )  # fmt: skip
    before, after = (run_cell(one, Settings(threads=1)) for one in (replace(cell, relabel=None), cell))
    assert after.relabelled == {
        "sha256": read_corrections(str(path)).sha256, "images": 1, "images_sha256": before.images_sha256,
    }  # fmt: skip
    assert after.prefix["shared"], "what frozen layers compute depends on no label"
    assert decode(encode(after)).relabelled == after.relabelled
    assert "relabelled" not in encode(before)
    table = rows([before, after])
    assert [row.relabelled_images for row in table] == [None, 1]
    summary = summarise(table)
    assert [("relabel=fix.csv" in row["variant"]) for row in summary] == [False, True]


def test_unreadable_corrections_are_user_errors(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_corrections(str(tmp_path))


# --- corrections that have moved ------------------------------------------------------------------------------


@pytest.fixture
def moved(shots, tmp_path):
    """A run of one cell with corrected labels, whose file has moved since: its record, its folder and the new place."""
    old = write(tmp_path / "fix.csv", "file,class\ndark/3.png,light\n")
    cell = Cell(
        backbone="mobilenet_v3_small", weights="random", image_size=32, epochs=1, batch_size=8, layout="contiguous",
        dataset=f"folder:{shots}", relabel=str(old),
    )  # fmt: skip
    made = Store(tmp_path / "run").append(run_cell(cell, Settings(threads=1)))
    (tmp_path / "there").mkdir()
    new = old.rename(tmp_path / "there" / "corrected.csv")
    return made, tmp_path / "run", new


def test_where_corrections_lie_now_can_be_said(moved, command):
    made, folder, new = moved
    for words in (["replay", folder], ["fit", folder, "--id", made.id]):
        status, out, err = command(*words)
        assert status == 2
        assert "cannot be read: No such file" in out + err
        status, out, err = command(*words, "--relabel", new)
        assert status == 0, out + err
        assert "equal" in out or "the same as the record" in out


def test_other_corrections_are_not_the_same_thing(moved, command):
    made, folder, new = moved
    sha = read_corrections(str(new)).sha256
    write(new, "file,class\ndark/4.png,light\n")
    status, out, _ = command("replay", folder, "--relabel", new)
    assert status == 2
    assert f"corrected labels of {made.cell.relabel} and {new}: {sha[:8]} and " in out
    write(new, "file,class,note\ndark/3.png,light,blurred\n")  # another file that says the same
    assert command("replay", folder, "--relabel", new)[0] == 0


def test_a_data_root_is_said_for_named_data_sets(tmp_path, command):
    dtd(tmp_path / "old")
    cell = Cell(
        backbone="mobilenet_v3_small", weights="random", image_size=32, epochs=1, batch_size=8, layout="contiguous",
        dataset="torchvision:DTD",
    )  # fmt: skip
    made = run_cell(cell, Settings(threads=1, data_root=str(tmp_path / "old")))
    assert made.status == "ok", made.reason
    Store(tmp_path / "run").append(made)
    (tmp_path / "old").rename(tmp_path / "new")
    KEPT.images.forget()
    assert command("replay", tmp_path / "run")[0] == 2
    status, out, _ = command("replay", tmp_path / "run", "--data-root", tmp_path / "new")
    assert status == 0, out
    status, out, err = command("fit", tmp_path / "run", "--id", made.id, "--data-root", tmp_path / "new")
    assert status == 0, out + err


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--relabel=there/x.csv", "nothing here was measured with corrected labels"),
        ("--data-root=there", "nothing here is of torchvision:NAME"),
    ],
)
@pytest.mark.parametrize("name", ["replay", "fit"])
def test_a_place_of_what_no_cell_has_is_refused(name, option, words, tmp_path, command):
    made = Store(tmp_path / "run").append(record(dataset="folder:x"))
    status, out, err = command(name, tmp_path / "run", "--id", made.id, option)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert words in err


def test_nodes_are_asked_for_the_corrections(tmp_path, monkeypatch):
    """One that lacks them, or has others, would train on other labels."""
    path = write(tmp_path / "fix.csv", "file,class\na.png,b\n")
    campaign = made_engine.campaign(tmp_path / "run", {"relabel": (None, str(path))})
    asked = question(campaign)
    assert asked["relabel"] == [str(path)]
    asked = {**asked, "weights": []}
    here = facts(asked)
    assert here["relabel"] == {str(path): read_corrections(str(path)).sha256}
    assert differences(here, here, asked) == []
    write(path, "file,class\na.png,c\n")
    (line,) = differences(here, facts(asked), asked)
    assert line.startswith(f"the corrected labels in {str(path)!r} are others (")
    path.unlink()
    (line,) = differences(here, facts(asked), asked)
    assert line == f"the corrected labels in {str(path)!r} are not there"


def test_a_table_of_a_spreadsheet_that_writes_semicolons_is_read(shots, tmp_path):
    path = write(tmp_path / "fix.csv", "file;given;class\ndark/3.png;dark;light\n")
    assert load(shots, path).relabelled["images"] == 1


def test_a_line_without_end_is_one_line_of_refusal(tmp_path):
    with pytest.raises(UserError):
        read_corrections(str(write(tmp_path / "fix.csv", "x" * 200_000)))


@pytest.mark.parametrize("name", ["caf\udce9.png", "a\u200bb.png", "line\nend.png", "x;=1.png", "-1.png"])
def test_a_list_of_suspects_names_every_file_so_that_it_can_be_given_back(shots, tmp_path, name):
    save_image(shots / "dark" / "plain.png", 30, (24, 20), seed=99)
    (shots / "dark" / "plain.png").rename(shots / "dark" / name)
    file = io.StringIO()
    write_csv([{"file": f"dark/{name}", "class": "light"}], file, ("file", "class"))
    assert load(shots, write(tmp_path / "fix.csv", file.getvalue())).relabelled["images"] == 1


def test_a_corrected_training_cell_keeps_its_inference_cell(shots, tmp_path):
    """Labels are no matter to it; their hash was, so that no latency was known."""
    path = write(tmp_path / "fix.csv", "file,class\ndark/3.png,light\n")
    common = {
        "dataset": f"folder:{shots}", "backbone": "mobilenet_v3_small", "weights": "random", "image_size": 32,
        "layout": "contiguous", "batch_size": 4,
    }  # fmt: skip
    settings = Settings(throughput_rounds=1, latency_rounds=2)
    train = run_cell(Cell(**common, relabel=str(path), epochs=1, head="ridge", freeze="linear_probe"), settings)
    infer = run_cell(Cell(**common, task="infer", freeze="none", head="ridge", epochs=1), settings)
    assert (train.status, infer.status) == ("ok", "ok"), (train.reason, infer.reason)
    summary = {row["task"]: row for row in summarise(rows([train, infer]))}
    assert summary["train"]["inference"] == summary["infer"]["inference"]
    assert summary["train"]["inference_latency_p50_ms"] is not None
