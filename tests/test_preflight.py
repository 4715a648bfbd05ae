"""What a run says before anything trains fits on a screen, whatever the data set is like, and nothing of it is lost."""

import io
import shutil

import pytest
from conftest import save_image
from hypothesis import given, settings
from hypothesis import strategies as st
from named_roots import dtd
from rich.console import Console

from tlbench.campaign.asked import parse_asked
from tlbench.campaign.campaign import begin
from tlbench.campaign.outlook_lines import IN_FULL, ROOM, fold, folded, in_full, preflight
from tlbench.campaign.steps import Step
from tlbench.grid.cell import Cell
from tlbench.machine.kept import KEPT
from tlbench.progress import print_outlook

SMALL = {"backbone": "resnet18", "weights": "random", "image-size": "32", "threads": "1"}
FOUR = ["images", "splits", "copies", "files"]


@pytest.fixture(autouse=True)
def nothing_kept():
    KEPT.images.forget()
    yield
    KEPT.images.forget()


def printed(lines):
    """The lines as a log has them."""
    file = io.StringIO()
    print_outlook(Console(file=file, width=10_000, color_system=None), lines)
    return file.getvalue().splitlines()


def fits(lines, data_sets=1):
    shown = printed(lines)
    assert len(shown) <= (8 if data_sets == 1 else 4 + (4 if data_sets == 2 else 2) * data_sets), shown
    assert max(map(len, shown)) <= 160, shown


def told(root, dataset, **options):
    """What a run of these options says before anything trains, and what its file has."""
    campaign = begin(parse_asked({**SMALL, "dataset": dataset, "out": str(root / "run"), **options}))
    try:
        return preflight(campaign), (root / "run" / IN_FULL).read_text(encoding="utf-8")
    finally:
        campaign.release()


# --- kinds of data sets ---------------------------------------------------------------------------------------


def plain(root):
    for part, count in (("train", 8), ("val", 4)):
        for color, label in ((20, "dark"), (180, "light")):
            for n in range(count):
                save_image(root / part / label / f"{n}.jpg", color, seed=count * 100 + n)
    return f"folder:{root}", {}


def troubled(root):
    """Copies across splits, photographs under two classes, files that are not read, a class that val lacks, nested
    folders whose names are long, and a train size beyond what there is."""
    plain(root)
    for n in range(4):
        shutil.copy(root / f"train/dark/{n}.jpg", root / f"val/dark/copy-of-{n}.jpg")
        shutil.copy(root / f"train/dark/{n}.jpg", root / f"train/light/the-same-under-another-class-{n}.jpg")
        save_image(root / "train" / "neither-dark-nor-light" / ("sub-folder-" * 5) / f"{n}.png", 100, seed=50 + n)
        (root / "train/dark" / f"{n}.gif").write_bytes(b"GIF89a")
        (root / "train/dark" / f"broken-{n}.jpg").write_bytes(b"no image")
    (root / "notes").mkdir()
    return f"folder:{root}", {"bad-images": "skip", "train-size": "50,100,all", "seeds": "0-2"}


def in_folds(root):
    for n in range(12):
        for color, label in ((20, "dark"), (180, "light")):
            save_image(root / label / f"{n}.jpg", color, seed=n)
    return f"folder:{root}", {"folds": "3"}


def few(root):
    in_folds(root)
    return f"folder:{root}", {}


def listed(root):
    plain(root)
    rows = [f"{path.relative_to(root)},{path.parent.name},{path.parts[-3]}" for path in sorted(root.rglob("*.jpg"))]
    (root / "all.csv").write_text("\n".join(["file,label,split", *rows]) + "\n")
    return f"list:{root}/all.csv", {}


def named(root):
    dtd(root)
    return "torchvision:DTD", {"data-root": str(root)}


def bundled(root):
    return "digits", {"train-size": "100"}


KINDS = [plain, troubled, in_folds, few, listed, named, bundled]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_run_says_what_it_will_measure_in_eight_lines(kind, tmp_path):
    dataset, options = kind(tmp_path / "images")
    lines, whole = told(tmp_path, dataset, **options)
    fits(lines)
    labels = [label for label, _ in lines]
    assert labels[0] == "images"
    assert labels[-3:] in (["cells", "weights", "time"], ["weights", "note", "time"])
    assert all(f"{label} " in whole for label in ("images", "splits", "cells", "each", "weights", "results", "time"))


def test_what_is_warned_of_is_shown_and_all_of_it_is_in_the_file(tmp_path):
    dataset, options = troubled(tmp_path / "images")
    lines, whole = told(tmp_path, dataset, **options)
    said = dict(lines)
    assert "4 more could not be read and are left out" in said["images"]
    assert said["copies"].startswith("4 images of the test split are copies of training")
    assert "more on " in said["note"]
    assert IN_FULL in said["note"]
    for words in ("sub-folder-sub-folder", "under two classes", "4 .gif", "--train-size 100 takes all", "not used: "):
        assert words in whole, words
    kept = [line for line in printed(lines) if "…" not in line]
    assert kept, "not every line is cut"


def test_two_data_sets_have_four_lines_each_and_more_have_two(tmp_path):
    places = []
    for name in ("a", "b", "c"):
        places.append(troubled(tmp_path / name)[0])
    options = {"bad-images": "skip"}
    two, _ = told(tmp_path / "two", ",".join(places[:2]), **options)
    fits(two, 2)
    assert [label for label, _ in two].count("images") == 2
    three, whole = told(tmp_path / "three", ",".join(places), **options)
    fits(three, 3)
    assert [label for label, _ in three][:6] == ["images", "about it"] * 3
    assert all("are copies of training" in line for label, line in three if label == "about it")
    assert whole.count("under two classes") == 3


def test_a_run_prints_these_lines_and_a_dry_run_all_of_them(tmp_path, command, monkeypatch):
    from records import RANDOM, record

    def run_cell(cell, settings, clock=None, *, place):
        return record(cell=cell, initial=RANDOM)

    monkeypatch.setattr("tlbench.measure.cell.run_cell", run_cell)
    dataset, _ = troubled(tmp_path / "images")
    options = [f"--{name}={value}" for name, value in SMALL.items()]
    options += ["--bad-images=skip", "--isolate=none", "--twins=0", "--dataset", dataset]
    _, _, err = command("run", *options, "--out", str(tmp_path / "run"))
    before = err[: err.index("1/1 ")].splitlines()
    assert len(before) <= 8
    assert max(map(len, before)) <= 160
    whole = (tmp_path / "run" / IN_FULL).read_text()
    _, _, dry = command("run", *options, "--dry-run")
    assert len(dry.splitlines()) > 8
    for line in dry.splitlines():
        words = line[9:]
        assert words in whole or "results/" in words or line.startswith("time"), words


def test_where_the_file_cannot_be_written_all_of_it_is_printed(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tlbench.campaign.outlook_lines.write_aside", full)
    dataset, options = troubled(tmp_path / "images")
    campaign = begin(parse_asked({**SMALL, "dataset": dataset, "out": str(tmp_path / "run"), **options}))
    try:
        assert "under two classes" in " ".join(text for _, text in preflight(campaign))
    finally:
        campaign.release()


# --- folding --------------------------------------------------------------------------------------------------

TEXTS = st.lists(st.text("ab ;:,x", min_size=1, max_size=400), max_size=5)


@settings(max_examples=200, deadline=None)
@given(TEXTS, st.integers(20, 200))
def test_what_is_folded_fits_and_says_whether_it_is_whole(texts, room):
    text, whole = fold(texts, room)
    assert len(text) <= room
    assert whole == (len("; ".join(texts)) <= room)
    assert not whole or text == "; ".join(texts)
    assert bool(text) == any(texts) or not whole


LABELS = ("splits", "copies", "decode", "depth", "folder", "note", "weights", "cells", "each")


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(LABELS), st.text("ab ;:,x", min_size=1, max_size=500)), max_size=30),
    st.text("abc/", min_size=1, max_size=300),
)
def test_whatever_is_said_fits(said, folder):
    lines = [("images", "photos: 7 images"), *said, ("results", folder), ("time", "about 3 minutes")]
    made = folded(lines)
    fits(made)
    assert made[-1][0] == "time"
    for label, text in said:
        if not any(text in line for _, line in made):
            assert IN_FULL in dict(made)["note"], (label, text)
    assert all(text in in_full(lines) for _, text in lines)


def test_long_notes_leave_room_for_where_they_are():
    notes = [("note", f"note {n}: {'word ' * 30}") for n in range(9)]
    said = dict(folded([("images", "x"), *notes, ("results", "r"), ("time", "t")]))["note"]
    assert said.startswith("note 0: word")
    assert said.endswith(f"; more on notes: {IN_FULL} in the run's folder")
    assert len(said) <= ROOM


def test_many_backbones_are_counted():
    names = ", ".join(f"backbone_{n}" for n in range(40))
    made = dict(folded([("images", "x"), ("weights", f"{names}: pretrained"), ("time", "t")]))
    assert made["weights"] == "backbone_0, backbone_1 and 38 more: pretrained"
    assert "more on weights" in made["note"]


def test_of_a_run_with_nothing_left_the_notes_are_whole(tmp_path):
    campaign = begin(parse_asked({**SMALL, "dataset": "digits", "out": str(tmp_path / "run")}))
    campaign.notes = [f"note {n}: {'word ' * 40}" for n in range(9)]
    try:
        assert [text for _, text in preflight(campaign, [])] == campaign.notes
        assert not (tmp_path / "run" / IN_FULL).exists()
        assert preflight(campaign, [Step(cell=Cell(dataset="digits"), name="x")])
    finally:
        campaign.release()
