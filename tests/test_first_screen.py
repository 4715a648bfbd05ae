"""The first screen: one sentence that is true of the figures and needs no manual, and what it never recommends."""

import io
import random
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from images import identities, results, with_images
from records import RANDOM, example_run, failure, record
from rich.console import Console

from tlbench.analysis.frame import rows
from tlbench.analysis.learning import ignorance, learned_nothing
from tlbench.analysis.noise import noise_floors
from tlbench.analysis.recommend import Limits, recommend
from tlbench.analysis.scores import standings
from tlbench.analysis.summary import summarise
from tlbench.analysis.verdict import verdicts
from tlbench.records.images import PerImage, SplitResults
from tlbench.records.run_folder import Store, load
from tlbench.report import contents, headline, verdict_words, wording
from tlbench.report.terminal import print_recommendation, verdict_text
from tlbench.report.terminal.summary import print_summary

COUNTED = {"train": 60, "val": 100, "test": 106}
"""Images of the most frequent class among the 200 validation and 200 test images of hand-made records."""


def cell(policy, accuracies, seconds=1.0, **given):
    """A configuration with one record a seed."""
    return [
        record(seconds=(seconds * (1 + 0.01 * seed),) * 3, accuracies=(0, 0, a), freeze=policy, seed=seed, **given)
        for seed, a in enumerate(accuracies)
    ]


def quiet(records):
    """The records of a machine whose noise earlier runs tell: 2 % between equal cells."""
    return [replace(r, machine_noise={"pairs": 20, "pair_log_sd": 0.02}) for r in records]


def scope_of(records):
    (scope,) = verdicts(summarise(rows(records)), noise_floors(rows(records)))
    return scope


def said(records):
    return headline.headline(scope_of(records))


HIGH, LOW = (0.95, 0.96, 0.95), (0.80, 0.81, 0.80)


# --- the sentence ---------------------------------------------------------------------------------------------


def test_what_is_decided_is_recommended_with_what_is_cheaper():
    common = {"backbone": "efficientnet_lite2", "dataset": "folder:photos"}
    text = said(quiet([*cell("last_1", HIGH, 9.0, **common), *cell("linear_probe", LOW, 1.0, **common)]))
    assert re.sub(r"\d+ to \d+", "LOW to HIGH", text) == (
        "Use efficientnet_lite2 with last_1 (it trains the last stage and the head) and a linear head: 95 % (LOW to "
        "HIGH over seeds alone) on your test images, 27 seconds of training; linear_probe (it trains the head alone) "
        "is 15 points worse and 9 times cheaper to train."
    )


def test_the_pick_is_by_validation_and_never_by_test():
    chosen = [replace(r, accuracy_test=0.5) for r in cell("full", HIGH)]
    tempting = [replace(r, accuracy_test=0.99) for r in cell("norm", LOW, 0.1)]
    text = said(quiet([*chosen, *tempting]))
    assert text.startswith("Use resnet18 with full")
    assert (
        "norm (it trains scale and shift of the normalisation layers, and the head) is 49 points better on the test"
        in text
    )
    assert "by which nothing is chosen" in text


def test_a_tie_names_what_cannot_be_told_and_the_cheapest_of_it():
    made = quiet([*cell("full", (0.95, 0.91, 0.93), 9.0), *cell("norm", (0.92, 0.94, 0.90), 3.0)])
    text = said(made)
    assert text.startswith("It cannot be said yet which of full and norm (both resnet18 · linear) is best; ")
    assert "resnet18 with norm (it trains scale and shift of the normalisation layers, and the head)" in text
    assert "is the cheapest of them: " in text


def test_the_cheapest_of_a_tie_is_no_claim_where_times_do_not_tell():
    text = said([*cell("full", (0.95, 0.91, 0.93), 1.0), *cell("norm", (0.92, 0.94, 0.90), 1.0)])
    assert "took the least training time of them" in text
    assert "cheapest" not in text


def test_one_that_is_tied_but_came_out_far_behind_is_not_named_for_being_cheap():
    """81 classes and 296 validation images: 70 % could not be told from 82 %, and was what the verdict named."""
    made = quiet([*cell("full", (0.95, 0.85, 0.93), 9.0), *cell("norm", (0.92, 0.80, 0.89), 3.0)])
    scope = scope_of(made)
    assert scope.picks[0].standing == "tied"
    assert scope.cheapest_tie.row["freeze"] == "full"
    text = headline.headline(scope)
    assert "is best; resnet18 with full (it trains everything) and a linear head came out first: " in text
    assert "3 times cheaper to train" in text


def test_of_several_that_are_tied_the_cheapest_within_a_point_of_the_first_is_named():
    made = quiet(
        [
            *cell("full", (0.95, 0.85, 0.93), 9.0),
            *cell("last_1", (0.945, 0.846, 0.926), 6.0),
            *cell("norm", (0.92, 0.80, 0.89), 3.0),
        ]
    )
    text = said(made)
    assert re.search(r"with last_1 \(.*\) and a linear head is the cheapest of those that came out within a", text)


def test_many_that_are_tied_are_counted():
    policies = ("full", "norm", "bias", "last_1", "last_2")
    text = said([r for p in policies for r in cell(p, (0.95, 0.91, 0.93))])
    assert re.search(r"which of these 5 cells \(all resnet18 · linear\), \S+, \S+ and 3 more, is best", text)


def test_one_seed_tells_no_spread():
    text = said([*cell("full", (0.95,), 9.0), *cell("norm", (0.5,), 1.0)])
    assert text.startswith("One seed cannot tell which of the 2 cells is best; resnet18 with full")
    assert re.search(r"95 % \(\d+ to \d+ by the number of images alone, with one seed\) on the test images", text)
    assert "was 45 points lower here, which may be chance with one seed," in text
    assert "trained 9 times as fast, measured once on a machine whose noise is unknown" in text
    assert "cheaper" not in text


def test_a_difference_of_times_within_the_noise_is_no_claim():
    loud = [
        replace(r, machine_noise={"pairs": 20, "pair_log_sd": 3.0})
        for r in (*cell("full", HIGH, 9.0), *cell("norm", LOW))
    ]
    assert "trained 9 times as fast, which the noise of the times may explain" in said(loud)


def test_flagged_times_are_called_so():
    made = [*cell("full", HIGH, 9.0), *cell("norm", LOW)]
    made = [replace(r, validity="drifting", validity_reason="x") for r in made]
    text = said(quiet(made))
    assert "27 seconds of training (a time flagged as drifting)" in text
    assert "trained 9 times as fast, by times that are flagged as unsteady" in text


def test_what_cannot_be_told_apart_is_called_so():
    """Decided by the validation images, of one accuracy on the test images."""
    made = [
        with_images(replace(r, accuracy_test=0.9), 200)
        for r in (*cell("full", HIGH * 4, 9.0), *cell("norm", (0.60, 0.61, 0.60) * 4, 1.0))
    ]
    text = said(quiet(made))
    assert text.startswith("Use resnet18 with full")
    assert "cannot be told apart from it in accuracy (the same here) and is 9 times cheaper to train" in text


@pytest.mark.parametrize(
    ("classes", "share", "guessing"), [(4, 0.7, "; guessing among 4 classes gets 25.0 %"), (2, 0.5, "")]
)
def test_chance_stands_beside_the_majority_where_it_is_less(classes, share, guessing):
    largest = {split: round(100 * share) for split in ("train", "val", "test")}
    made = record(classes=classes, samples=dict.fromkeys(largest, 100), largest_class=largest)
    (row,) = summarise(rows([made]))
    (said,) = verdict_words.baselines([row])
    assert said.startswith("Always naming the most frequent class gets ")
    assert said.endswith(f" right{guessing}")


@pytest.mark.parametrize(
    ("records", "text"),
    [
        ([record(task="infer")], "no cell was trained; a run with --task train,infer trains as well. At inference, "),
        ([failure("failed", "boom")], "recommended: no training cell finished; the failures below say why."),
        ([replace(record(), accuracy_val=None, accuracy_test=None, rounds=())], "labels that mean anything"),
        ([replace(record(), accuracy_val=None)], "no validation accuracy is known, and nothing is chosen by"),
        ([record()], "Only one cell was trained, so that there is nothing to choose: resnet18 with linear_probe"),
        (cell("full", HIGH)[:1] + [replace(r, rounds=()) for r in cell("norm", LOW)[:1]], "One seed cannot tell"),
    ],
    ids=["only inference", "only failures", "no labels", "no validation", "one cell", "no time"],
)  # fmt: skip
def test_where_there_is_nothing_to_choose_it_says_why(records, text):
    assert text in said(records)


def test_a_sentence_without_times_has_none():
    made = [replace(r, rounds=()) for r in (*cell("full", HIGH), *cell("norm", LOW))]
    text = said(made)
    assert text.startswith("Use resnet18 with full")
    assert "of training" not in text
    assert "cheaper" not in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.351, "0.35 seconds"), (1.0, "1 second"), (22.4, "22 seconds"), (240, "4 minutes"), (99.7, "100 seconds"),
     (7500, "2.1 hours"), (60.0 * 110, "1.8 hours"), (4.04, "4 seconds")],
)  # fmt: skip
def test_times_as_they_are_said(seconds, text):
    assert headline.spoken(seconds) == text


def test_no_accuracy_is_rounded_to_all_or_nothing():
    made = quiet([with_images(r, 1000) for r in (*cell("full", (0.997,) * 3), *cell("norm", LOW))])
    assert "99.7 % (" in said(made)
    assert "100 %" not in said(made)


# --- what knows nothing ---------------------------------------------------------------------------------------


def test_a_record_counts_its_most_frequent_classes():
    (row,) = summarise(rows([record(largest_class=COUNTED)]))
    assert (row["majority_share"], row["majority_share_val"]) == (0.53, 0.5)
    assert ignorance(row).kind == "majority"


def test_results_on_single_images_tell_where_a_record_does_not():
    labels = np.array([0] * 70 + [1] * 30, dtype=np.uint8)
    results = SplitResults(images=identities("test", 100), labels=labels, predictions=np.zeros(100, np.uint8))
    made = replace(record(), accuracy_test=0.7, per_image=PerImage({"test": results}))
    (row,) = summarise(rows([made]))
    assert row["majority_share"] == 0.7
    assert row["majority_share_val"] is None


def test_older_records_fall_back_to_chance_and_say_so():
    (row,) = summarise(rows([record(classes=4)]))
    assert row["majority_share"] is None
    assert (ignorance(row).share, ignorance(row).kind) == (0.25, "chance")
    assert verdict_words.baselines([row]) == [
        "Guessing gets 25.0 % right (these records do not say how many images each class has)"
    ]
    (row,) = summarise(rows([record(classes=None)]))
    assert ignorance(row) is None
    assert verdict_words.baselines([row]) == []


@pytest.mark.parametrize(
    ("accuracies", "nothing"),
    [((0.55,), True), ((0.40,), True), ((0.70,), False), ((0.55, 0.54, 0.56), True), ((0.70, 0.71, 0.70), False)],
)
def test_what_may_be_the_most_frequent_class_has_learned_nothing(accuracies, nothing):
    """Of 200 images Wilson's interval of 55 % reaches down to 48 %."""
    made = cell("full", accuracies, largest_class=COUNTED)
    for records in (made, [with_images(r, 200) for r in made]):
        (row,) = summarise(rows(records))
        assert learned_nothing(row) == nothing


def test_it_is_judged_by_validation_images():
    (row,) = summarise(rows([replace(record(accuracies=(0, 0, 0.9), largest_class=COUNTED), accuracy_test=0.5)]))
    assert not learned_nothing(row)
    (row,) = summarise(rows([replace(record(accuracies=(0, 0, 0.5), largest_class=COUNTED), accuracy_test=0.9)]))
    assert learned_nothing(row)


def test_what_cannot_be_held_against_anything_is_not_accused():
    unknown = [
        record(accuracies=(0, 0, 0.1), classes=None),
        record(accuracies=(0, 0, 0.1), samples={}, freeze="norm"),
        record(task="infer"),
    ]
    assert not any(map(learned_nothing, summarise(rows(unknown))))


def ignorant_run():
    """One that learned, one just as accurate within a point that is cheap but knows nothing, and one worse."""
    return [
        *cell("full", (0.75, 0.76, 0.75), 9.0, largest_class=COUNTED),
        *cell("linear_probe", (0.51, 0.50, 0.52), 1.0, largest_class=COUNTED),
        *cell("norm", (0.50, 0.50, 0.50), 0.5, largest_class=COUNTED),
    ]


def test_what_learned_nothing_is_never_picked_and_is_named():
    scope = scope_of(quiet(ignorant_run()))
    assert [pick.row and pick.row["freeze"] for pick in scope.picks] == ["full", "full", None]
    text = headline.headline(scope)
    assert text.startswith("Use resnet18 with full (it trains everything) and a linear head, the only one that learned")
    (aside,) = verdict_words.set_aside(scope.candidates)
    assert "linear_probe" in aside
    assert "norm" in aside


def test_where_none_learned_it_says_so():
    made = cell("norm", (0.51, 0.50, 0.52), largest_class=COUNTED)
    text = said(made)
    assert text.startswith("No cell learned anything that shows: the best, resnet18 with norm")
    assert text.endswith("and always naming the most frequent class gets 50.0 % right.")
    found = recommend(summarise(rows(made)), Limits())
    assert found.pick is None
    assert [reason.kind for one in found.excluded for reason in one.reasons] == ["learned nothing"]


def terminal(records, width=80):
    file = io.StringIO()
    print_summary(Console(file=file, width=width, highlight=False), records)
    return file.getvalue()


def test_it_is_said_in_table_verdict_and_report():
    text = terminal(ignorant_run())
    assert re.search(r"resnet18 ° +norm", text)
    assert not re.search(r"resnet18 ° +full", text)
    assert "° learned nothing that shows" in text
    assert "Always naming the most frequent class gets 53.0 % of the test images and 50.0 %" in text
    assert "where always naming the most frequent class gets 53.0 %" in " ".join(text.split())
    table = rows(ignorant_run())
    page = contents.context(table, contents.ordered(table), contents.datetime(2026, 1, 1))
    place = [column.name for column in page["columns"]].index("status")
    status = [cells[place]["text"] for cells in page["rows"]]
    assert status == ["ok", "ok, learned nothing", "ok, learned nothing"]
    assert any(note.startswith("Always naming the most frequent class") for note in page["notes"])


# --- random weights -------------------------------------------------------------------------------------------


def test_random_weights_are_never_recommended_beside_pretrained_ones():
    made = [*cell("full", HIGH, initial=RANDOM), *cell("full", LOW, 9.0, backbone="efficientnet_lite0")]
    scope = scope_of(made)
    assert scope.picks[0].row["backbone"] == "efficientnet_lite0"
    text = headline.headline(scope)
    assert "only one cell with pretrained weights was trained" in text.lower()
    assert "resnet18 (random weights) · full · linear came out higher here (95.3 % against 80.3 %" in text
    found = recommend(summarise(rows(made)), Limits())
    assert found.pick["backbone"] == "efficientnet_lite0"
    assert [reason.kind for one in found.excluded for reason in one.reasons] == ["random weights"]


def test_where_only_random_weights_were_at_hand_nothing_is_recommended():
    text = said([*cell("full", HIGH, initial=RANDOM), *cell("norm", LOW, initial=RANDOM)])
    assert text.startswith(
        "Nothing can be recommended, since no pretrained weights were at hand; of the cells with random"
    )


def test_the_only_one_of_them_that_learned_is_not_recommended_either():
    made = [
        *cell("full", HIGH, initial=RANDOM, largest_class=COUNTED),
        *cell("norm", (0.5, 0.5, 0.5), initial=RANDOM, largest_class=COUNTED),
    ]
    text = said(made)
    assert text.startswith("Nothing can be recommended, since no pretrained weights were at hand; of the cells with")
    assert "resnet18 (random weights) with full" in text
    assert "is the only one that learned anything that shows" in text
    summary, file = summarise(rows(made)), io.StringIO()
    print_recommendation(Console(file=file, width=200, highlight=False), recommend(summary, Limits()), summary)
    assert "No pretrained weights were at hand: it is the best of random weights, and no advice." in file.getvalue()


def test_where_they_alone_were_asked_for_they_may_be():
    made = [*cell("full", HIGH, initial=RANDOM, weights="random"), *cell("norm", LOW, initial=RANDOM, weights="random")]
    assert said(made).startswith("Use resnet18 (random weights) with full")


# --- words of what flatters, of noise, of times ---------------------------------------------------------------


def test_a_head_that_chooses_on_validation_images_is_told():
    (row,) = summarise(rows([record(head="logreg")]))
    assert verdict_words.chosen_by_it(row) == ", which also chose its C and so flatters it"
    (row,) = summarise(rows([record(lr_trials=({"lr": 0.1},))]))
    assert verdict_words.chosen_by_it(row) == ", which also chose its learning rate and so flatters it"
    (row,) = summarise(rows([record()]))
    assert verdict_words.chosen_by_it(row) == ""


def test_nothing_a_person_reads_speaks_of_a_a():
    twins = [record(seconds=(t,) * 3, role="aa", freeze="full", seed=9) for t in (1.0, 1.02)]
    texts = [terminal([*example_run(), *twins]), verdict_text([*example_run(), *twins])]
    assert not any("A/A" in text for text in texts)
    assert all("pair of equal cells" in " ".join(text.split()) for text in texts)


def test_a_noise_beyond_all_measure_is_said_in_words():
    twins = [record(seconds=(t,) * 3, role="aa", freeze="full", seed=9) for t in (1.0, 30.0)]
    text = " ".join(terminal([*cell("full", HIGH), *twins]).split())
    assert "Noise of the times: noisy: too noisy to say from times which cell is faster; run again while" in text


def test_noisy_and_drifting_have_marks_of_their_own():
    made = [replace(record(freeze=p), validity=v) for p, v in (("full", "noisy"), ("norm", "drifting"), ("bias", "ok"))]
    text = terminal(made)
    assert re.search(r"resnet18 ! +full", text)
    assert re.search(r"resnet18 ~ +norm", text)
    assert "! times flagged as noisy" in text
    assert "~ times flagged as drifting" in text


@pytest.mark.parametrize("width", [80, 100, 160])
def test_the_column_that_rows_are_sorted_by_is_always_there(width):
    made = example_run(heads=("linear", "dropout_linear"), backbones=("efficientnet_lite0", "mobilenet_v3_small"))
    text = terminal(made, width)
    assert "val %" in text
    assert "infer img/s" in text
    values = [float(v) for v in re.findall(r"linear +[\d.]+ ±[\d.]+ +([\d.]+) ±", text)]
    assert values == sorted(values, reverse=True)
    assert len(values) > 5
    assert all(len(line) <= width or line.strip().startswith("tlbench run") for line in text.splitlines())


def test_an_interval_that_says_nothing_is_written_in_words():
    text = terminal([record(accuracies=(0, 0, a), seed=n) for n, a in enumerate((0.1, 0.9))])
    assert "50.0 ±?" in text
    assert "±50" not in text
    assert "±?: anything: too few to tell" in text


def test_images_a_second_are_of_one_task_in_a_column():
    table = rows([record(), record(task="infer")])
    summary = contents.ordered(table)
    page = contents.context(table, summary, contents.datetime(2026, 1, 1))
    headings = [column.heading for column in page["columns"]]
    assert "images/s" not in headings
    train, infer = (headings.index(f"{task}, images/s") for task in ("training", "inference"))
    of_training, of_inference = page["rows"]
    assert (of_training[infer]["text"], of_inference[train]["text"]) == ("–", "–")
    assert "–" not in (of_training[train]["text"], of_inference[infer]["text"])


def test_a_limit_held_against_a_flagged_time_is_no_flat_word():
    noisy = [replace(r, validity="noisy") for r in cell("full", HIGH, 9.0)]
    summary = summarise(rows([*noisy, *cell("norm", LOW)]))
    above, within = "training time of 27.3 s (a time flagged as noisy) is above 20.0 s", "Uncertain: training time of"
    for limit, words in ((20, above), (30, within)):
        file = io.StringIO()
        found = recommend(summary, Limits(max_training_seconds=limit))
        print_recommendation(Console(file=file, width=200, highlight=False), found, summary)
        assert words in file.getvalue()
        assert "(flagged as noisy)" in file.getvalue() or limit == 20


def test_the_text_of_a_verdict_begins_with_its_sentence():
    made = [*cell("full", HIGH), *cell("norm", LOW)]
    lines = verdict_text(made).splitlines()
    assert lines[0] == said(made)
    assert [line.partition(":")[0] for line in lines if line[0] != " "][1:4] == [
        "Most accurate", "Cheapest shown to be within one point of it", "Fastest at inference",
    ]  # fmt: skip


def test_the_fastest_is_one_that_may_be_recommended():
    """A model whose cells know nothing is the fastest of all; its speed stands in the table."""
    models = {"mobilenet_v3_small": 0.1, "resnet18": 1.0}
    fast = [record(task="infer", backbone=name, seconds=(s,) * 3) for name, s in models.items()]
    made = [*fast, *cell("full", HIGH), *cell("full", (0.11, 0.1, 0.1), backbone="mobilenet_v3_small")]
    assert scope_of(made).picks[2].row["backbone"] == "resnet18"
    assert scope_of(made[:-3]).picks[2].row["backbone"] == "mobilenet_v3_small"
    assert scope_of([*fast, *made[-3:]]).picks[2].row["backbone"] == "resnet18"


def test_a_verdict_s_title_says_pixels_images_and_epochs_where_they_are_not_the_defaults():
    five, seven = (dict.fromkeys(("seconds", "accuracies"), (0.5,) * epochs) for epochs in (5, 7))
    for made, title in (
        ([record(**five), record(freeze="full", **five)], "digits on cpu"),
        ([record(image_size=64, train_size=600)], "digits on cpu, at 64 px, 600 training images, 3 epochs"),
        ([record(), record(**seven)], "digits on cpu"),  # each says its own
        ([record(), record(task="infer")], "digits on cpu, at 3 epochs"),
    ):
        scope = scope_of(made)
        assert wording.scope_title(scope, [scope]) == title


@pytest.mark.parametrize("what", ["summary", "recommend", "classes", "efficiency"])
def test_every_table_says_pixels_images_and_epochs_where_they_are_not_the_defaults(what, command):
    """A table of accuracies at 64 px was read as one at 224."""
    published = Path(__file__).parent.parent / "results" / "published" / "quick-cpu"
    status, out, _ = command(what, published)
    assert status == 0
    assert "64 px, 600 training images, 3 epochs" in " ".join(out.split())


def test_a_speed_up_says_pixels_images_and_epochs_where_they_are_not_the_defaults(tmp_path, command):
    store = Store(tmp_path)
    for device in ("cpu", "cuda"):
        store.append(record(image_size=64, train_size=600, device=device))
    status, out, _ = command("speedup", tmp_path)
    assert status == 0
    assert "1 matched pair, at 64 px, 600 training images, 3 epochs" in " ".join(out.split())


@pytest.mark.parametrize(("weights", "standing"), [("random", "decided"), ("pretrained", "alone")])
def test_what_is_no_advice_is_not_in_the_colour_of_what_is_decided(weights, standing):
    made = [
        *cell("full", (0.9, 0.91, 0.9), initial=RANDOM, weights=weights),
        *cell("norm", LOW, initial=RANDOM, weights=weights),
    ]
    assert scope_of(made).picks[0].standing == "decided"
    table = rows(made)
    page = contents.context(table, contents.ordered(table), contents.datetime(2026, 1, 1))
    assert page["scopes"][0]["picks"][0]["standing"] == standing


def test_flagged_records_are_named_without_a_code():
    twin = replace(record(role="aa", validity="noisy", validity_reason="busy"), id="A/A resnet18-x")
    table = rows([record(), twin])
    page = contents.context(table, contents.ordered(table), contents.datetime(2026, 1, 1))
    assert [one["name"] for one in page["flagged"]] == ["train resnet18-x (measured a second time)"]


# --- the order of rows --------------------------------------------------------------------------------------------


def test_a_verdict_does_not_go_by_the_order_of_the_rows():
    """A page that sorts its table said that nothing was decided where the terminal said what to use."""
    published = Path(__file__).parent.parent / "results" / "published" / "groceries-cpu"
    summary = summarise(rows(load(published).records))
    said = set()
    for seed in range(6):
        mixed = list(summary)
        random.Random(seed).shuffle(mixed)
        (scope,) = verdicts(mixed)
        said.add((scope.picks[0].standing, *sorted(row["freeze"] + row["backbone"] for row in scope.picks[0].ties)))
        found = {row["freeze"] + row["backbone"]: (one.at_least, one.at_most) for row, one in standings(mixed)}
        said.add(tuple(sorted(found.items())))
    assert len(said) == 2


def test_the_most_frequent_class_of_folds_is_that_of_all_their_images():
    """Of five images each some class is the most frequent, so that cells at 80 % were said to have learned nothing."""
    made = []
    for number, labels in enumerate(([0, 0, 0, 1, 0], [1, 1, 0, 1, 1]), start=1):
        split = results([True] * 5)
        split = replace(split, labels=np.array(labels, np.uint8), predictions=np.array(labels, np.uint8))
        made.append(
            replace(
                record(fold=f"{number}of2", accuracies=(0.1, 0.2, 1.0)),
                per_image=PerImage({"val": split, "test": split}),
                samples={"train": 20, "val": 5, "test": 5},
                largest_class={"train": 10, "val": 4, "test": 4},
            )
        )
    (row,) = summarise(rows(made))
    assert (row["majority_share"], row["majority_share_val"]) == (0.5, 0.5)
