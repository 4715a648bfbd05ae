"""Metrics beside accuracy: equal to scikit-learn's and torchmetrics', in frames, tables and commands; and as what
decides a verdict."""

import io
import warnings
from contextlib import redirect_stdout
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from images import identities, with_images
from records import record
from simulations import metrics as simulation

import tlbench
from tlbench.analysis import metrics
from tlbench.analysis.classes import classes_of
from tlbench.analysis.deciding import deciding
from tlbench.analysis.frame import EXPORT_COLUMNS, SELDOM, rows, rows_of, with_seldom
from tlbench.analysis.learning import learned_nothing
from tlbench.analysis.recommend import Limits, recommend
from tlbench.analysis.summary import summarise
from tlbench.analysis.verdict import verdicts
from tlbench.errors import UserError
from tlbench.records.images import PerImage, SplitResults
from tlbench.records.run_folder import Store
from tlbench.report import write_report
from tlbench.report.headline import headline
from tlbench.report.terminal.recommendation import told
from tlbench.report.terminal.summary import verdict_text

CASES = settings(max_examples=50, deadline=None)
"""As many random cases as the promise names."""


@st.composite
def answers(draw):
    """Labels, logits and the number of classes of a random split: classes of uneven sizes, some of them empty."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    classes, images = draw(st.integers(2, 30)), draw(st.integers(1, 200))
    labels = rng.choice(classes, images, p=rng.dirichlet(np.full(classes, draw(st.sampled_from([0.2, 1.0, 10.0])))))
    logits = rng.normal(size=(images, classes)) * draw(st.sampled_from([0.1, 1.0, 5.0]))
    logits[np.arange(images), labels] += draw(st.sampled_from([0.0, 1.0, 4.0]))
    return labels, logits, classes


def softmax(logits):
    return np.exp(metrics.log_probabilities(logits))


# --- equal to others' -----------------------------------------------------------------------------------------


@CASES
@given(answers())
def test_what_predictions_tell_equals_scikit_learn(case):
    from sklearn import metrics as theirs

    labels, logits, classes = case
    said, every = logits.argmax(1), range(classes)
    matrix = metrics.confusion_matrix(labels, said, classes)
    found = metrics.by_class(matrix)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that have no images or were never named
        assert np.array_equal(matrix, theirs.confusion_matrix(labels, said, labels=every))
        assert metrics.balanced_accuracy(labels, said) == pytest.approx(
            theirs.balanced_accuracy_score(labels, said), abs=1e-6
        )
        assert metrics.macro_f1(labels, said) == pytest.approx(theirs.f1_score(labels, said, average="macro"), abs=1e-6)
        precision, recall, f1, images = theirs.precision_recall_fscore_support(
            labels, said, labels=every, zero_division=0
        )
    assert found.images.tolist() == images.tolist()
    assert np.nan_to_num(found.recall) == pytest.approx(recall, abs=1e-6)
    assert found.precision == pytest.approx(precision, abs=1e-6)
    assert np.nan_to_num(found.f1) == pytest.approx(f1, abs=1e-6)


@CASES
@given(answers())
def test_what_logits_tell_equals_scikit_learn(case):
    from sklearn import metrics as theirs

    labels, logits, classes = case
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of five classes or fewer, which all are among the first five
        top = theirs.top_k_accuracy_score(labels, logits, k=5, labels=range(classes)) if classes > 2 else 1.0
    assert metrics.top_accuracy(labels, logits) == pytest.approx(top, abs=1e-6)
    loss = theirs.log_loss(labels, softmax(logits), labels=range(classes))
    assert metrics.negative_log_likelihood(labels, logits) == pytest.approx(loss, abs=1e-6)


@CASES
@given(answers())
def test_all_of_them_equal_torchmetrics(case):
    torch, theirs = pytest.importorskip("torch"), pytest.importorskip("torchmetrics.functional.classification")
    labels, logits, classes = case
    said = logits.argmax(1)
    given_labels, probabilities = torch.from_numpy(labels), torch.from_numpy(softmax(logits))
    answers = torch.from_numpy(said)
    matrix = theirs.multiclass_confusion_matrix(answers, given_labels, classes)
    assert metrics.confusion_matrix(labels, said, classes).tolist() == matrix.tolist()
    f1 = theirs.multiclass_f1_score(answers, given_labels, classes, average="macro")
    assert metrics.macro_f1(labels, said) == pytest.approx(f1.item(), abs=1e-6)
    recall = theirs.multiclass_accuracy(answers, given_labels, classes, average="none")
    there = np.bincount(labels, minlength=classes) > 0  # of a class without images it is 0 there
    assert metrics.balanced_accuracy(labels, said) == pytest.approx(recall.numpy()[there].mean(), abs=1e-6)
    if classes > metrics.TOP:
        top = theirs.multiclass_accuracy(torch.from_numpy(logits), given_labels, classes, top_k=5, average="micro")
        assert metrics.top_accuracy(labels, logits) == pytest.approx(top.item(), abs=1e-6)
    error = theirs.multiclass_calibration_error(probabilities, given_labels, classes, n_bins=15, norm="l1")
    assert metrics.calibration_error(labels, logits) == pytest.approx(error.item(), abs=1e-6)


def test_what_is_certain_has_a_bin_of_its_own_as_in_torchmetrics():
    torch, theirs = pytest.importorskip("torch"), pytest.importorskip("torchmetrics.functional.classification")
    logits = np.array([[0.0, -99.0], [0.0, -99.0], [0.0, -4.0], [0.0, -3.5]])
    labels = np.array([0, 1, 0, 0])
    error = theirs.multiclass_calibration_error(
        torch.from_numpy(softmax(logits)), torch.from_numpy(labels), 2, n_bins=15, norm="l1"
    )
    assert metrics.calibration_error(labels, logits) == pytest.approx(error.item(), abs=1e-6)
    assert metrics.reliability(labels, logits).images.tolist() == [0] * 14 + [2, 2]


def test_of_equal_logits_the_lower_class_comes_first():
    logits = np.zeros((2, 8))
    assert metrics.top_accuracy(np.array([4, 5]), logits) == 0.5
    assert metrics.top_accuracy(np.array([0, 1]), logits, top=1) == 0.5


# --- a metric as a mean over images ---------------------------------------------------------------------------


@CASES
@given(answers(), st.sampled_from(["balanced_accuracy", "macro_f1"]))
def test_its_values_have_it_as_their_mean_and_say_what_each_image_adds(case, name):
    """What an image adds is the metric's derivative by the image's weight, which scikit-learn's weights give."""
    from sklearn import metrics as theirs

    labels, logits, _ = case
    said = logits.argmax(1)
    judged = metrics.DECIDING[name].judge(labels, said)
    assert judged.mean == pytest.approx(getattr(metrics, name)(labels, said), abs=1e-9)
    assert 0 <= judged.doubt <= 1

    def weighted(weights):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if name == "macro_f1":
                return theirs.f1_score(labels, said, average="macro", sample_weight=weights)
            return theirs.balanced_accuracy_score(labels, said, sample_weight=weights)

    image, step = len(labels) // 2, 1e-5
    up, down = np.ones(len(labels)), np.ones(len(labels))
    up[image] += step
    down[image] -= step
    slope = (weighted(up) - weighted(down)) / (2 * step)
    assert (judged.values[image] - judged.mean) / len(labels) == pytest.approx(slope, abs=1e-5)


def test_accuracy_is_the_images_themselves():
    judged = metrics.judge_accuracy(np.array([0, 1, 1]), np.array([0, 1, 0]))
    assert (judged.values.tolist(), judged.doubt) == ([True, True, False], 0.0)


def test_few_images_of_a_class_leave_more_doubt():
    few = metrics.judge_balanced(np.array([0] * 99 + [1]), np.array([0] * 99 + [1]))
    many = metrics.judge_balanced(np.array([0, 1] * 50), np.array([0, 1] * 50))
    assert few.doubt > 10 * many.doubt > 0


@pytest.mark.parametrize("metric", ["balanced_accuracy", "macro_f1"])
@pytest.mark.parametrize("sizes", ["uneven", "rare"])
def test_its_interval_covers_and_equal_cells_are_seldom_decided(metric, sizes):
    world = simulation.World(sizes=simulation.SIZES[sizes], seeds=3, luck=1.0, recall=0.8)
    assert simulation.covered(world, metric, 120) >= 0.90
    assert simulation.falsely_decided(replace(world, cells=2), metric, 60) <= 0.10


# --- records --------------------------------------------------------------------------------------------------

NAMES = ("ant", "bee", "cat", "dog", "eel", "fox", "gnu")


def judged_record(predictions, seed=0, logits=True, **given):
    """A record of these predictions of both splits' images: of class 0 there are many, of the others few; of the last
    none. ``predictions``: (label, image of the class) -> class.
    """
    labels = np.repeat(np.arange(len(NAMES)), (300, 60, 40, 40, 30, 30, 0)).astype(np.uint8)
    places = np.concatenate([np.arange(n) for n in np.bincount(labels, minlength=len(NAMES))])
    said = np.array([predictions(int(c), int(i)) for c, i in zip(labels, places, strict=True)], np.uint8)
    scores = -np.abs(np.arange(len(NAMES))[None, :] - said[:, None]).astype(np.float16)
    splits = {
        split: SplitResults(
            images=identities(split, labels.size), labels=labels, predictions=said, classes=NAMES,
            logits=scores if logits else None,
        )
        for split in ("val", "test")
    }  # fmt: skip
    accuracy = float((labels == said).mean())
    made = record(accuracies=(0, 0, accuracy), seed=seed, **given)
    samples = {"train": 100, "val": labels.size, "test": labels.size}
    return replace(made, per_image=PerImage(splits), samples=samples, classes=len(NAMES))


def greedy(label, image):
    """Names the frequent class too often: right on all of its images, on a fifth of the others."""
    return label if label == 0 or image % 5 == 0 else 0


def fair(label, image):
    """Is right on two in three of every class."""
    return label if image % 3 else (label + 1) % (len(NAMES) - 1)


def contest(**given):
    """Two configurations: by accuracy the first is a little ahead, by balanced accuracy the second is far ahead."""
    return [
        *(judged_record(greedy, seed, freeze="full", **given) for seed in range(3)),
        *(judged_record(fair, seed, freeze="norm", **given) for seed in range(3)),
    ]


def by(records, metric):
    return deciding(records, metric)


def test_a_frame_has_them_and_none_where_nothing_tells():
    made = judged_record(greedy)
    (row,) = rows([made])
    assert row.balanced_accuracy_test == pytest.approx((1 + 5 * 0.2) / 6)
    assert row.worst_class_test == "bee"
    assert row.worst_class_accuracy_test == pytest.approx(0.2)
    assert row.top5_accuracy_test < 1
    assert row.nll_test > 0
    assert 0 < row.ece_test < 1
    assert row.macro_f1_val == row.macro_f1_test
    (bare,) = rows([replace(made, per_image=None)])
    assert [bare[name] for name in ("balanced_accuracy_test", "nll_test", "worst_class_test")] == [None] * 3
    (old,) = rows([judged_record(greedy, logits=False)])
    assert old.balanced_accuracy_test == row.balanced_accuracy_test
    assert (old.nll_test, old.ece_val, old.top5_accuracy_test) == (None, None, None)


def test_results_that_do_not_fit_their_record_tell_nothing():
    (row,) = rows([replace(judged_record(greedy), accuracy_test=0.1)])
    assert row.balanced_accuracy_test is None
    assert row.balanced_accuracy_val is not None


def test_top_five_of_few_classes_is_left_empty():
    made = with_images(record(), 50)
    val = replace(made.per_image.split("val"), logits=np.zeros((50, 2), np.float16))
    (row,) = rows([replace(made, per_image=PerImage({"val": val}))])
    assert row.balanced_accuracy_val == pytest.approx(row.accuracy_val, abs=0.02)
    assert row.top5_accuracy_val is None
    assert row.nll_val == pytest.approx(np.log(2))


def test_they_are_columns_where_some_record_has_them(tmp_path):
    plain = rows([record()])
    assert with_seldom(EXPORT_COLUMNS, plain) == EXPORT_COLUMNS
    store = Store(tmp_path / "run")
    for one in contest():
        store.append(one)
    data = tlbench.load(tmp_path / "run")
    new = [name for name in data.columns if name in SELDOM]
    assert new[:4] == ["balanced_accuracy_val", "balanced_accuracy_test", "macro_f1_val", "macro_f1_test"]
    assert data["ece_test"].notna().all()
    again = rows_of(data)
    assert again[0].balanced_accuracy_test == pytest.approx(data["balanced_accuracy_test"][0])


def test_a_configuration_averages_them_and_has_the_interval_of_what_decides():
    made = contest()
    (first, second) = summarise(rows(made))
    assert first["balanced_accuracy_val"] < second["balanced_accuracy_val"]
    assert first["balanced_accuracy_val_low"] is None
    assert first["nll_test"] > 0
    (first, _) = summarise(rows(by(made, "balanced_accuracy")))
    assert first["balanced_accuracy_val_low"] < first["balanced_accuracy_val"] < first["balanced_accuracy_val_high"]
    assert first["accuracy_val_low"] is not None


# --- what decides ---------------------------------------------------------------------------------------------


def test_the_metric_that_is_asked_for_decides():
    made = contest()
    (scope,) = verdicts(summarise(rows(made)))
    assert (scope.metric.name, scope.picks[0].row["freeze"]) == ("accuracy", "full")
    assert "Decided by" not in headline(scope)
    for metric, words in (("balanced_accuracy", "balanced accuracy"), ("macro_f1", "macro F1")):
        (scope,) = verdicts(summarise(rows(by(made, metric))))
        pick = scope.picks[0]
        assert (pick.row["freeze"], pick.standing) == ("norm", "decided")
        text = verdict_text(by(made, metric))
        assert f"Decided by {words} on the validation images, not by accuracy." in text
        assert f"Best in {words}: " in text
        assert f"validation {words} 6" in text
        assert f"{words} on the test images" in text


def test_what_the_cells_were_measured_for_decides_and_can_be_overruled():
    asked = [replace(one, settings=replace(one.settings, metric="balanced_accuracy")) for one in contest()]
    (scope,) = verdicts(summarise(rows(asked)))
    assert scope.metric.name == "balanced_accuracy"
    (scope,) = verdicts(summarise(rows(by(asked, "accuracy"))))
    assert scope.metric.name == "accuracy"


def test_a_run_that_went_on_is_decided_as_it_was_asked_last():
    first, *others = contest()
    later = replace(
        first, started="2026-02-01T00:00:00+00:00", settings=replace(first.settings, metric="balanced_accuracy")
    )
    (scope,) = verdicts(summarise(rows([*others, later])))
    assert scope.metric.name == "balanced_accuracy"


def test_runs_that_were_asked_for_different_ones_are_refused():
    made = contest()
    other = by(made[3:], "macro_f1")
    summary = summarise(rows([*made[:3], *other], ["a"] * 3 + ["b"] * 3))
    with pytest.raises(UserError, match=r"'a' by accuracy, 'b' by macro_f1; choose one with --metric"):
        verdicts(summary)


def test_an_unknown_metric_is_named():
    with pytest.raises(UserError, match="balanced_accuracy"):
        deciding(contest(), "balanced")


def test_a_record_that_does_not_tell_it_is_left_out_and_named():
    made = contest()
    made[4] = replace(made[4], per_image=None)
    (scope,) = verdicts(summarise(rows(by(made, "balanced_accuracy"))))
    assert scope.picks[0].row["freeze"] == "full"
    text = headline(scope)
    assert "Left out, since records without results on single images do not tell it: resnet18 · norm · linear." in text
    found = recommend(summarise(rows(by(made, "balanced_accuracy"))), Limits())
    (out,) = found.excluded
    assert told(out.row, out.reasons[0]) == (
        "its records do not tell its balanced accuracy: results on single images are missing"
    )


def test_where_none_tells_it_nothing_is_recommended():
    made = by([replace(one, per_image=None) for one in contest()], "balanced_accuracy")
    text = verdict_text(made)
    assert text.startswith("Nothing can be recommended: no record tells its balanced accuracy")
    assert recommend(summarise(rows(made)), Limits()).pick is None


def test_a_recommendation_is_by_it():
    summary = summarise(rows(by(contest(), "balanced_accuracy")))
    found = recommend(summary, Limits())
    assert (found.pick["freeze"], found.runner_up["freeze"], found.tied) == ("norm", "full", False)


def test_who_knows_nothing_is_told_by_it():
    """Always naming the frequent class has an accuracy of 60 %, and a balanced one of one in six."""
    made = [judged_record(lambda label, image: 0, seed) for seed in range(3)]
    (row,) = summarise(rows(by(made, "balanced_accuracy")))
    assert row["balanced_accuracy_val"] == pytest.approx(1 / 6)
    assert learned_nothing(row)
    (one,) = summarise(rows(by(made[:1], "balanced_accuracy")))
    assert learned_nothing(one)
    (fine,) = summarise(rows(by([judged_record(fair)], "balanced_accuracy")))
    assert not learned_nothing(fine)


def test_the_metric_is_never_that_of_test_images():
    made = contest()
    tempting = []
    for one in made[:3]:
        splits = one.per_image.splits
        right = replace(splits["test"], predictions=splits["test"].labels)
        tempting.append(replace(one, per_image=PerImage({**splits, "test": right}), accuracy_test=1.0))
    (scope,) = verdicts(summarise(rows(by([*tempting, *made[3:]], "balanced_accuracy"))))
    assert scope.picks[0].row["freeze"] == "norm"


# --- classes --------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = Store("results/run")
    for one in contest():
        store.append(one)
    return "results/run"


def test_classes_have_intervals_and_those_without_images_none():
    found = classes_of(rows(contest()[:3]))
    assert [one.name for one in found] == list(NAMES)
    ant, bee, *_, gnu = found
    assert (ant.accuracy, ant.images) == (1.0, (300, 300))
    assert bee.accuracy == pytest.approx(0.2)
    assert bee.low < bee.accuracy < bee.high
    assert (bee.taken_for, bee.mistaken) == ("ant", pytest.approx(0.8))
    assert (gnu.images, gnu.accuracy, gnu.low, gnu.precision, gnu.f1) == ((0, 0), None, None, None, None)


def test_of_one_seed_the_interval_is_wilsons():
    from tlbench.analysis.stats import wilson

    bee = classes_of(rows(contest()[:1]))[1]
    assert (bee.low, bee.high) == (wilson(12, 60).low, wilson(12, 60).high)


def test_a_tidy_frame_of_classes(run):
    data = tlbench.per_class(run)
    assert len(data) == 6 * len(NAMES)
    bee = data[(data["class"] == "bee") & (data["freeze"] == "full") & (data["seed"] == 0)].iloc[0]
    assert (bee["images"], bee["right"], bee["split"]) == (60, 12, "test")
    assert bee["accuracy_low"] < bee["accuracy"] < bee["accuracy_high"]
    assert data[data["class"] == "gnu"]["accuracy"].isna().all()
    averages = data.groupby("id")["accuracy"].mean()
    known = tlbench.load(run).set_index("id")["balanced_accuracy_test"]
    assert averages.to_dict() == pytest.approx(known.to_dict())
    with pytest.raises(UserError, match="val, test"):
        tlbench.per_class(run, split="train")


def test_a_confusion_matrix_by_names(run):
    id = tlbench.load(run)["id"][0]
    data = tlbench.confusion(run, id)
    assert data.loc["bee", "ant"] == 48
    assert (data.index.name, data.columns.name) == ("true", "predicted")
    assert data.to_numpy().sum() == 500
    with pytest.raises(UserError, match="unknown cell"):
        tlbench.confusion(run, "resnet")
    with pytest.raises(UserError, match="name one of the 6 cells"):
        tlbench.confusion(run)


def test_records_without_results_are_left_out_with_a_warning(run):
    store = Store("results/mixed")
    store.append(judged_record(fair))
    store.append(replace(judged_record(fair, 1), per_image=None))
    with pytest.warns(UserWarning, match="1 of 2 records"):
        assert len(tlbench.per_class("results/mixed")) == len(NAMES)
    Store("results/old").append(record())
    with pytest.raises(UserError, match="has results on single test images"):
        tlbench.per_class("results/old")


def test_the_command_shows_the_worst_class_first(run, command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    id = tlbench.load(run)["id"][0]
    status, out, err = command("classes", run, id)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("resnet18 · full · linear: test images of digits, at 3 epochs, 3 seeds")
    assert lines[2].startswith("bee")
    assert "ant, 80.0 %" in lines[2]
    assert "no images" in next(line for line in lines if line.startswith("gnu"))
    assert "balanced accuracy 33.3 %" in out
    assert command("classes", run, "--metric", "balanced_accuracy")[1].startswith("resnet18 · norm")
    status, _, err = command("classes", run, "resnet19-full")
    assert status == 2
    assert "unknown cell 'resnet19-full'" in err


@pytest.mark.parametrize("name", ["summary", "recommend"])
def test_commands_take_the_metric(name, run, command):
    status, out, _ = command(name, run, "--metric", "balanced_accuracy")
    assert status == 0
    assert "Decided by balanced accuracy on the validation images, not by accuracy." in " ".join(out.split())
    status, _, err = command(name, run, "--metric", "f1")
    assert status == 2
    assert "macro_f1" in err


def test_the_table_of_the_terminal_shows_what_decides():
    from rich.console import Console

    from tlbench.report.terminal import print_summary

    text = io.StringIO()
    with redirect_stdout(text):
        print_summary(Console(file=text, width=160), by(contest(), "macro_f1"))
    assert "F1 % test" in text.getvalue()


def test_a_report_of_runs_by_different_metrics_is_refused_and_an_earlier_one_stays(tmp_path, command):
    """It lacked its pages, removed those of an earlier report, and exited with 0."""
    made = contest()
    for name, some in (("a", made[:3]), ("b", by(made[3:], "macro_f1"))):
        store = Store(tmp_path / name)
        for one in some:
            store.append(one)
    assert command("report", tmp_path / "a", tmp_path / "b", "--metric", "accuracy", "--out", tmp_path / "both")[0] == 0
    before = (tmp_path / "both" / "report.html").read_bytes()
    status, _, err = command("report", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "both")
    assert status == 2
    assert "choose one with --metric" in err
    assert (tmp_path / "both" / "report.html").read_bytes() == before


def test_pages_say_by_what_cells_were_chosen(tmp_path):
    page = write_report(by(contest(), "macro_f1"), tmp_path).read_text()
    assert "chosen by macro F1 on validation images" in page
    assert "the best macro F1 on validation images comes first" in page
