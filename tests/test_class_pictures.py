"""What a report shows of classes: what is taken for what, reliability, class by class, and the surest mistakes."""

import base64
import hashlib
import io
import json
import os
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from images import leading, with_classes
from PIL import Image
from records import example_run, record

import tlbench
from tlbench.analysis import metrics, mistakes
from tlbench.analysis.answers import Answers, answers_of, leaders, reliability
from tlbench.analysis.frame import frame, rows
from tlbench.analysis.summary import summarise
from tlbench.analysis.verdict import verdicts
from tlbench.errors import NotApplicable
from tlbench.grid.settings import Settings
from tlbench.records.images import IDENTITY_BYTES
from tlbench.records.run_folder import Store
from tlbench.report import class_pictures, plots, thumbnails, write_report
from tlbench.report.class_pictures import of_picks, pair_in_words
from tlbench.report.disclosure import ALL
from tlbench.report.plots import PLOTS
from tlbench.report.plots.look import as_svg
from tlbench.report.thumbnails import Thumbnails, roots_of


def made(labels, predictions, classes=None, seeds=None, logits=None):
    """Answers of a model for images of their own, or of several seeds for the same ones."""
    labels, predictions = np.array(labels, np.int64), np.array(predictions, np.int64)
    classes = classes or int(max(labels.max(), predictions.max())) + 1
    count = len(labels) if seeds is None else len(labels) // len(set(seeds))
    images = np.arange(len(labels)) % count
    return Answers(
        classes=tuple(f"c{n}" for n in range(classes)), labels=labels, predictions=predictions, images=images,
        seeds=np.zeros(len(labels), np.int64) if seeds is None else np.array(seeds),
        identities=np.zeros((len(labels), 16), np.uint8), files=(), logits=logits, trained=(),
    )  # fmt: skip


def one_row(records):
    (row,) = summarise(rows(records))
    return row


def trained(*seeds, **given):
    return [with_classes(record(seed=seed, freeze="full"), **given) for seed in seeds]


def loaded(folder, records):
    """The frame of a run of these records."""
    store = Store(folder)
    for one in records:
        store.append(one)
    return tlbench.load(folder)


def shown(records, disclosure=ALL):
    """What is shown of the classes of the only cell."""
    found = of_picks(verdicts(summarise(rows(records))), disclosure)
    return next(iter(found.values()), None)


# --- numbers --------------------------------------------------------------------------------------------------

PAIRS = st.integers(1, 20).flatmap(
    lambda classes: st.lists(st.tuples(*[st.integers(0, classes - 1)] * 2), min_size=1, max_size=60)
)


@settings(max_examples=60, deadline=None)
@given(PAIRS)
def test_mistakes_are_those_of_the_confusion_matrix(pairs):
    labels, predictions = zip(*pairs, strict=True)
    answers = made(labels, predictions)
    count = len(answers.classes)
    matrix = metrics.confusion_matrix(answers.labels, answers.predictions, count)
    found = mistakes.mistaken(answers)
    assert {(one.true, one.predicted): one.count for one in found} == {
        (y, x): matrix[y, x] for y, x in zip(*matrix.nonzero(), strict=True) if x != y
    }
    assert [one.count for one in found] == sorted((one.count for one in found), reverse=True)
    assert all(one.asked == matrix[one.true].sum() for one in found)
    order = mistakes.side_by_side(range(count), found)
    assert sorted(order) == list(range(count))
    counts = mistakes.counts_among(order, answers)
    assert np.array_equal(counts[:, :-1], matrix[np.ix_(order, order)])
    assert not counts[:, -1].any()
    few = mistakes.most_mistaken(found, 4)
    assert len(few) == len(set(few)) <= 4
    if few:
        some = mistakes.counts_among(few, answers)
        assert np.array_equal(some.sum(axis=1), matrix[few].sum(axis=1))


def test_what_is_taken_for_each_other_stands_side_by_side():
    labels = [0] * 10 + [9] * 10 + [4] * 10 + [7] * 10 + [1, 2, 3, 5, 6, 8]
    predictions = [9] * 6 + [0] * 4 + [9] * 10 + [7] * 3 + [4] * 7 + [7] * 10 + [1, 2, 3, 5, 6, 8]
    order = mistakes.side_by_side(range(10), mistakes.mistaken(made(labels, predictions)))
    assert abs(order.index(0) - order.index(9)) == 1
    assert abs(order.index(4) - order.index(7)) == 1
    assert {*order[:2]} == {0, 9}  # what is mistaken most comes first


def test_pairs_in_words():
    answers = made([0] * 40 + [1], [0] * 28 + [1] * 12 + [0])
    names = ("Golden-Delicious", "Granny-Smith")
    assert [pair_in_words(pair, names) for pair in mistakes.mistaken(answers)] == [
        "12 of 40 Golden-Delicious were taken for Granny-Smith",
        "1 of 1 Granny-Smith was taken for Golden-Delicious",
    ]


def test_class_by_class_the_worst_first_and_without_images_last():
    names = [f"class {n}" for n in range(12)]
    found = shown([with_classes(record(seed=n), 12, 10, gain=1.0, names=names) for n in (0, 1)])["classes"]
    assert {line[0] for line in found} == set(names)
    known = [line[4] for line in found[:10]]
    assert known == sorted(known)
    assert known[0] < known[-1]
    assert [line[3:6] for line in found[10:]] == [["0", None, "no images"]] * 2
    assert all(line[1:4] == [7, 1, "1"] for line in found[:10])
    for line in found[:10]:
        assert (line[7] == "") == (line[4] == 1)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 12), st.floats(0.1, 20))
def test_reliability_is_what_the_metrics_say(seed, classes, scale):
    rng = np.random.default_rng(seed)
    logits = (scale * rng.normal(size=(50, classes))).astype(np.float16)
    labels = rng.integers(0, classes, 50)
    answers = made(labels, logits.argmax(axis=1), classes, logits=logits)
    found = reliability(answers)
    assert len(found.bins) == metrics.BINS
    assert sum(one.count for one in found.bins) == 50
    assert found.ece == pytest.approx(metrics.calibration_error(labels, logits))
    assert found.nll == pytest.approx(metrics.negative_log_likelihood(labels, logits))
    assert found.right == pytest.approx((logits.argmax(axis=1) == labels).mean())
    for n, one in enumerate(found.bins):
        assert not one.count or n / 15 - 1e-6 <= one.confidence <= (n + 1) / 15 + 1e-6


def test_the_surest_mistakes_name_an_image_once():
    logits = np.log([[0.1, 0.9], [0.3, 0.7], [0.8, 0.2], [0.02, 0.98], [0.6, 0.4], [0.7, 0.3]])
    answers = made([0, 0, 0] * 2, logits.argmax(axis=1), seeds=[0] * 3 + [1] * 3, logits=logits)
    found = mistakes.surest_mistakes(answers, 12)
    assert [(one.wrong, one.models, round(one.confidence, 2)) for one in found] == [(2, 2, 0.98), (1, 2, 0.7)]
    assert len(mistakes.surest_mistakes(answers, 1)) == 1


def test_copies_of_an_image_are_images_of_their_own():
    logits = np.log([[0.1, 0.9], [0.1, 0.9]])
    answers = made([0, 0], [1, 1], logits=logits)
    copies = replace(answers, images=np.zeros(2, np.int64), files=("a/1.jpg", "a/copy of 1.jpg"))
    assert [(one.wrong, one.models) for one in mistakes.surest_mistakes(copies, 12)] == [(1, 1)]


# --- what the records tell ------------------------------------------------------------------------------------


def test_answers_of_all_seeds_are_counted_together(tmp_path):
    again = replace(trained(1)[0], block=1)  # a second measurement of seed 1 counts once
    for table in (rows(trained(0, 1)), loaded(tmp_path, [*trained(0, 1), again])):
        (row,) = summarise(table) if isinstance(table, list) else plots.look.summary_of(table)
        answers = answers_of(row)
        assert answers.models == 2
        assert len(answers.labels) == 120
        assert set(answers.asked.tolist()) == {12}
        assert answers.trained == (7,) * 10
        assert answers.classes[3] == "class 3"


def test_what_older_records_lack_is_said():
    with pytest.raises(NotApplicable, match="neither names of classes nor logits"):
        answers_of(one_row(trained(0, names=())))
    with pytest.raises(NotApplicable, match="keeps what it answered"):
        answers_of(one_row([record()]))
    with pytest.raises(NotApplicable, match="--logits off"):
        reliability(answers_of(one_row(trained(0, logits=False))))


def test_the_leader_is_chosen_by_validation_images():
    better = with_classes(record(seed=0), gain=6.0)
    lucky = replace(with_classes(record(seed=0, freeze="full"), gain=1.0), accuracy_test=1.0)
    (found,) = leaders(summarise(rows([better, lucky])))
    assert found["freeze"] == better.cell.freeze


# --- figures --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 10, 81, 400])
@pytest.mark.parametrize("name", ["confusion", "reliability"])
def test_figures_of_any_number_of_classes(name, classes, tmp_path):
    picture = PLOTS[name](loaded(tmp_path, trained(0, classes=classes, images=3 * classes)))
    assert picture.figure is not None, picture
    assert picture._repr_png_()


@pytest.mark.parametrize("name", ["confusion", "reliability"])
def test_the_same_bytes_from_rows_and_from_a_frame(name, tmp_path):
    made = trained(0, 1)
    one, other = (PLOTS[name].draw(data) for data in (summarise(rows(made)), loaded(tmp_path, made)))
    assert as_svg(one, name) == as_svg(other, name)


@pytest.mark.parametrize("name", ["confusion", "reliability"])
def test_a_figure_says_what_is_missing(name, tmp_path):
    assert "neither names of classes nor logits" in repr(PLOTS[name](loaded(tmp_path / "old", trained(0, names=()))))
    picture = PLOTS[name](loaded(tmp_path / "off", trained(0, logits=False)))
    assert ("--logits off" in repr(picture)) == (name == "reliability")
    assert "keeps what it answered" in repr(PLOTS[name](frame(rows([record()]))))


def test_all_right_is_drawn(tmp_path):
    every = trained(0, gain=100.0, classes=20)
    assert PLOTS["confusion"](loaded(tmp_path, every)).figure is not None
    found = shown(every)
    assert found["pairs"] == []
    assert "block" not in found
    assert len(found["whole"]["cells"]) == 20


# --- thumbnails -----------------------------------------------------------------------------------------------


def photograph(path, color=(200, 30, 30), size=(300, 200), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path, **options)
    return hashlib.sha256(path.read_bytes()).digest()[:IDENTITY_BYTES]


def opened(image):
    kind, content = image.split(",")
    assert kind == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))


@pytest.fixture
def folder(tmp_path):
    """Sixty photographs of ten classes, as a data set, and what the records keep of them."""
    files = []
    for n in range(60):
        path = tmp_path / "set" / "test" / f"class {n % 10}" / f"{n}.jpg"
        files.append((photograph(path, color=(4 * n, 20, 200 - n)), str(path.relative_to(tmp_path / "set"))))
    return tmp_path / "set", files


def of_folder(folder, **given):
    root, files = folder
    return [with_classes(record(seed=0, dataset=f"folder:{root}"), files=files, gain=1.0, **given)]


def test_thumbnails_are_small_and_of_the_right_images(folder):
    found = shown(of_folder(folder))
    assert len(found["wrong"]) == class_pictures.MOST_IMAGES
    assert found["without"] == []
    for one in found["wrong"]:
        image = opened(one["image"])
        assert max(image.size) == thumbnails.SIDE
        number = int(re.search(r"(\d+)\.jpg", one["file"])[1])
        assert one["true"] == f"class {number % 10}"
        assert np.abs(np.asarray(image)[30, 30].astype(int) - (4 * number, 20, 200 - number)).max() < 12
        assert len(one["image"]) < 10_000
    sure = [float(one["sure"].rstrip(" %")) for one in found["wrong"]]
    assert sure == sorted(sure, reverse=True)


def test_a_file_that_is_gone_or_another_has_no_thumbnail(folder):
    root, _ = folder
    before = shown(of_folder(folder))["wrong"]
    (root / before[0]["file"]).unlink()
    photograph(root / before[1]["file"], color=(0, 0, 0))
    (root / before[2]["file"]).unlink()
    os.mkfifo(root / before[2]["file"])  # which reading would wait for
    after = shown(of_folder(folder))
    assert [("image" in one) for one in after["wrong"]] == [False] * 3 + [True] * 9
    assert after["without"] == [f"3 images not shown: {thumbnails.GONE}."]


def test_of_images_that_lie_in_no_files_it_is_said(folder, tmp_path):
    """It was said that their files are gone, which never were there."""
    for name in ("torchvision:MNIST", "hf:owner/name(label=x)", f"hf:{tmp_path}(label=x)"):
        made = [replace(one, cell=replace(one.cell, dataset=name), places={}) for one in of_folder(folder)]
        assert shown(made)["without"] == [f"12 images not shown: {thumbnails.HELD}."], name


def test_without_the_data_set_the_mistakes_are_named_alone(folder, tmp_path):
    root, _ = folder
    root.rename(tmp_path / "elsewhere")
    found = shown(of_folder(folder))
    assert len(found["wrong"]) == 12
    assert found["without"] == ["12 images not shown: their data set is not where it was."]
    moved = [replace(one, places={"dataset": f"folder:{tmp_path / 'elsewhere'}"}) for one in of_folder(folder)]
    assert all("image" in one for one in shown(moved)["wrong"])
    assert "12 images not shown: the records name no files" in shown(trained(0, gain=0.5))["without"][0]


def test_reading_for_too_long_ends(folder):
    found = Thumbnails(seconds=-1)
    with pytest.raises(ValueError, match="too long"):
        found.of([folder[0]], "x", b"")


ODD = {
    "grey of 16 bits": lambda path: Image.fromarray(np.arange(40000, dtype=np.uint16).reshape(200, 200)).save(path),
    "float": lambda path: Image.fromarray(np.linspace(0, 1, 400, dtype=np.float32).reshape(20, 20)).save(path, "TIFF"),
    "with transparency": lambda path: Image.new("RGBA", (50, 300), (9, 9, 9, 0)).save(path),
    "of a palette": lambda path: Image.new("P", (5, 5)).save(path),
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_images_have_thumbnails(kind, tmp_path):
    path = tmp_path / "x.png"
    ODD[kind](path)
    identity = hashlib.sha256(path.read_bytes()).digest()[:16]
    assert max(opened(Thumbnails().of([tmp_path], "x.png", identity)).size) <= 96


def test_a_thumbnail_is_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    identity = photograph(tmp_path / "x.jpg", size=(800, 400), exif=exif)
    assert opened(Thumbnails().of([tmp_path], "x.jpg", identity)).size == (48, 96)


def test_what_is_no_image_is_said(tmp_path):
    (tmp_path / "x.jpg").write_bytes(b"no image")
    with pytest.raises(ValueError, match="it is no image"):
        Thumbnails().of([tmp_path], "x.jpg", hashlib.sha256(b"no image").digest()[:16])
    with pytest.raises(ValueError, match="not where it was"):
        Thumbnails().of([tmp_path], "a\0b", b"x")


def test_roots(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "set" / "images").mkdir(parents=True)
    (tmp_path / "set" / "list.csv").write_text("")
    place = tmp_path / "set"
    assert roots_of([f"folder:{place}", f"folder:{place}?classes=leaf"]) == [place]
    assert roots_of([f"list:{place}/list.csv?label=1&root=images"]) == [place / "images", place]
    (tmp_path / "other.txt").write_text("")
    assert set(roots_of([f"list:{place}/list.csv+other.txt?suffix=.jpg"])) >= {place, tmp_path}
    assert roots_of([f"hf:{place}(image=photo,label=x)"]) == [place]
    assert roots_of(["digits", "", "folder:", "folder:/nowhere"]) == []


# --- the report -----------------------------------------------------------------------------------------------


@pytest.fixture
def few_figures(monkeypatch):
    monkeypatch.setattr(plots, "PLOTS", {name: PLOTS[name] for name in ("confusion", "reliability")})


def cells_of(page):
    details = re.search(r'<script type="application/json" id="details">(.*?)</script>', page, re.DOTALL)[1]
    return json.loads(details)["cells"]


def written(records, folder, **given):
    write_report(records, folder, ["run"] * len(records), **given)
    return {name: (folder / name).read_text(encoding="utf-8") for name in ("report.html", "report.md")}


def test_the_picks_have_sections_of_their_classes(few_figures, folder, tmp_path):
    pages = written(of_folder(folder), tmp_path / "out")
    (cell,) = cells_of(pages["report.html"]).values()
    assert len(cell["k"]["classes"]) == 10
    assert len(cell["k"]["bins"]) == 15
    assert sum(count for count, _, _ in cell["k"]["bins"]) == 60
    assert "Expected calibration error" in cell["k"]["calibration"]
    assert pages["report.html"].count("data:image/jpeg;base64,") == 12
    for text in ("were taken for class", "| class | training images |", "Expected calibration error"):
        assert text in pages["report.md"]
    assert (tmp_path / "out" / "figures" / "confusion.svg").exists()
    assert (tmp_path / "out" / "figures" / "reliability.png").exists()


@pytest.mark.parametrize("how", ["--no-thumbnails", "--share", "--thumbnails off"])
def test_images_are_left_out_where_they_are_not_wanted(how, folder, tmp_path, command, few_figures):
    store = Store(tmp_path / "run")
    settings = Settings(thumbnails=how != "--thumbnails off")
    for one in of_folder(folder):
        store.append(replace(one, settings=settings))
    status, _, err = command("report", tmp_path / "run", *([how] if "off" not in how else []))
    assert status == 0, err
    place = tmp_path / "run" / ("shared" if how == "--share" else "")
    page = (place / "report.html").read_text(encoding="utf-8")
    assert "data:image/jpeg" not in page
    (cell,) = cells_of(page).values()
    assert len(cell["k"]["wrong"]) == 12
    assert cell["k"]["without"] == []
    assert all(("file" in one) == (how != "--share") for one in cell["k"]["wrong"])
    assert (".jpg" in page) == (how != "--share")


def test_a_report_of_older_records_says_so_in_a_line(few_figures, tmp_path):
    pages = written(trained(0, 1, names=(), logits=False), tmp_path)
    lines = [line for line in pages["report.html"].splitlines() if "neither names of classes" in line]
    assert len(lines) == 1
    assert not any("k" in cell for cell in cells_of(pages["report.html"]).values())
    assert "## Classes" not in pages["report.md"]


def test_nothing_of_it_costs_the_report(few_figures, folder, tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("no such luck")

    monkeypatch.setattr(mistakes, "surest_mistakes", broken)
    (cell,) = cells_of(written(of_folder(folder), tmp_path)["report.html"]).values()
    assert "no such luck" in cell["k"]["lacks"]


def test_no_name_of_a_class_is_markup(few_figures, tmp_path):
    evil = [f"<script>alert({n})</script>|`*_\u202e" for n in range(10)]
    pages = written(trained(0, names=evil, gain=1.0), tmp_path)
    assert "<script>alert" not in pages["report.html"]
    assert "\u202e" not in pages["report.html"] + pages["report.md"]
    assert "<script>alert(1)" not in pages["report.md"].replace("\\<", "")


def test_a_run_of_many_cells_shows_a_few(few_figures, tmp_path):
    records = leading(example_run(backbones=("resnet18",), heads=("linear",)))
    cells = cells_of(written(records, tmp_path)["report.html"])
    assert 1 <= sum("k" in cell for cell in cells.values()) <= 3
