"""The verdict, and the pick under limits."""

import io
import shlex
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from images import with_images
from records import RANDOM, example_run, failure, record
from rich.console import Console

from tlbench.analysis.commands import command as command_for
from tlbench.analysis.commands import hindrance
from tlbench.analysis.folded import images_of
from tlbench.analysis.frame import rows
from tlbench.analysis.noise import noise_floors
from tlbench.analysis.recommend import Limits, parse_bytes, parse_seconds, parse_share, recommend
from tlbench.analysis.summary import summarise
from tlbench.analysis.verdict import verdicts
from tlbench.errors import UserError
from tlbench.grid.axes import AXES, parse_axis
from tlbench.grid.cell import Cell
from tlbench.grid.grid import Grid
from tlbench.grid.settings import SETTINGS
from tlbench.grid.values import join_values, split_values
from tlbench.policies.parse import parse_policy
from tlbench.records.definitions import definitions
from tlbench.records.run_folder import Store
from tlbench.report.details import details_of, machines_of
from tlbench.report.terminal import print_recommendation
from tlbench.report.terminal.recommendation import told


def cell(policy, accuracies, times=(1.0, 1.0, 1.0), **given):
    """A configuration with one record a seed."""
    return [
        record(seconds=(t,) * 3, accuracies=(0, 0, a), freeze=policy, seed=seed, **given)
        for seed, (a, t) in enumerate(zip(accuracies, times, strict=True))
    ]


def picks(records):
    (scope,) = verdicts(summarise(rows(records)), noise_floors(rows(records)))
    return {pick.question: pick for pick in scope.picks}


# --- the verdict ----------------------------------------------------------------------------------------------


def test_a_clear_winner_is_decided():
    found = picks([*cell("full", (0.95, 0.96, 0.95)), *cell("norm", (0.80, 0.81, 0.80))])
    assert found["accurate"].row["freeze"] == "full"
    assert found["accurate"].standing == "decided"
    assert found["accurate"].command == ""


def test_the_winner_is_chosen_on_validation_data_and_never_on_the_test_split():
    chosen = [replace(r, accuracy_test=0.5) for r in cell("full", (0.95, 0.96, 0.95))]
    tempting = [replace(r, accuracy_test=0.99) for r in cell("norm", (0.80, 0.81, 0.80))]
    assert picks([*chosen, *tempting])["accurate"].row["freeze"] == "full"


def test_what_may_be_chance_is_called_a_tie():
    found = picks(
        [*cell("full", (0.95, 0.91, 0.93)), *cell("norm", (0.92, 0.94, 0.90)), *cell("bias", (0.5, 0.51, 0.5))]
    )
    assert found["accurate"].standing == "tied"
    assert [row["freeze"] for row in found["accurate"].ties] == ["norm"]
    assert "--freeze full,norm" in found["accurate"].command
    assert "--seeds 3,4" in found["accurate"].command


def test_one_seed_decides_nothing_and_says_what_to_run():
    found = picks([*cell("full", (0.95,), (1.0,)), *cell("norm", (0.5,), (1.0,))])
    assert found["accurate"].standing == "cannot say"
    assert "one seed" in found["accurate"].reason
    assert "--seeds 1,2,3,4" in found["accurate"].command


def test_one_seed_does_not_tell_which_lie_within_a_point():
    """Nothing is known of any cell then; naming one that is 45 points behind would say the opposite."""
    found = picks([*cell("full", (0.95,), (9.0,)), *cell("norm", (0.5,), (1.0,))])["cheapest"]
    assert (found.standing, found.maybe) == ("cannot say", ())
    assert "nor is which cheaper ones lie within a point" in found.reason


@pytest.mark.exhaustive
def test_a_tie_in_time_below_the_noise_floor():
    twins = [record(seconds=(t,) * 3, role="aa", block=b, freeze="last_1") for b in (0, 1, 2) for t in (1.0, 1.08)]
    cells = [*cell("full", (0.905,) * 12, (1.0,) * 12), *cell("norm", (0.9,) * 12, (1.02,) * 12)]
    cells = [with_images(r, 20_000) for r in cells]
    assert picks(cells)["accurate"].standing == "decided"
    assert picks(cells)["cheapest"].standing == "decided"
    found = picks([*cells, *twins])["cheapest"]
    assert found.standing == "tied"
    assert "within the noise of the times" in found.reason
    assert "--blocks" in found.command


@pytest.mark.exhaustive
def test_the_cheapest_is_within_one_point():
    cells = [
        *cell("full", (0.950, 0.951, 0.950) * 4, (9.0, 9.1, 9.2) * 4),
        *cell("norm", (0.945, 0.946, 0.945) * 4, (3.0, 3.1, 3.2) * 4),
        *cell("bias", (0.930, 0.931, 0.930) * 4, (1.0, 1.1, 1.2) * 4),
    ]
    found = picks([with_images(r, 20_000) for r in cells])
    assert found["accurate"].row["freeze"] == "full"
    assert found["accurate"].standing == "decided"
    assert found["cheapest"].row["freeze"] == "norm"
    assert found["cheapest"].standing == "decided"


def test_what_only_may_be_within_one_point_is_not_picked_for_being_cheap():
    """By the estimates norm is within a point; by the interval of so few images that cannot be said."""
    cells = [
        *cell("full", (0.950, 0.951, 0.950), (9.0, 9.1, 9.2)),
        *cell("norm", (0.941, 0.942, 0.941), (3.0, 3.1, 3.2)),
    ]
    found = picks([with_images(r, 200) for r in cells])["cheapest"]
    assert found.row["freeze"] == "full"
    assert found.standing == "cannot say"
    assert [row["freeze"] for row in found.maybe] == ["norm"]
    assert "may lie within one point, which the intervals cannot say" in found.reason


def test_where_seeds_have_other_splits_one_image_is_said_of_all_of_them():
    records = [*cell("full", (0.95,) * 3), *cell("norm", (0.92,) * 3)]
    records = [with_images(r, {0: 18, 1: 32, 2: 25}[r.cell.seed]) for r in records]
    found = picks(records)["accurate"]
    assert "one validation image is 3.1 to 5.6 points of one seed's accuracy" in found.reason
    # A failed record is none that the accuracy is of.
    one = replace(records[0], status="failed", samples={**records[0].samples, "val": 3})
    assert images_of(summarise(rows([one, *records[1:3]]))[0], "val_images") == (25, 32)


def test_seeds_that_are_proposed_are_above_all_that_are_known():
    tied = [r for n in (3, 4) for r in (*one_seed("full", n, 0.95 - n / 100), *one_seed("norm", n, 0.9))]
    found = picks(tied)
    assert "--seeds 5,6,7" in found["accurate"].command
    others = one_seed("bias", 9, 0.1) + one_seed("bias", 8, 0.1)
    found = picks(tied + others)
    assert "--seeds 10,11,12" in found["accurate"].command


def one_seed(freeze, seed, accuracy):
    (made,) = cell(freeze, (accuracy,), (1.0,))
    return [replace(made, cell=replace(made.cell, seed=seed))]


def overwritten(path="ck.pth"):
    """Two configurations that differ in what lay at one path, and cannot be told apart."""
    made = []
    for number, accuracies in enumerate([(0.95, 0.91, 0.93), (0.92, 0.94, 0.90)]):
        weights = {"sha256": f"{number}abcdef0" * 8, "pretrained": True, "source": path}
        made += [
            replace(r, cell=replace(r.cell, weights=path), weights=weights, started=f"{number}{r.started}")
            for r in cell("full", accuracies)
        ]
    return made


def test_what_two_hashes_at_one_path_need_is_said_and_no_command_proposed():
    records = overwritten("d/ck.pth")
    found = picks(records)["accurate"]
    assert found.standing == "tied"
    assert found.command == ""
    what = "to run them again takes the weights 0abcdef0 and 1abcdef0, which were all d/ck.pth"
    assert what in found.reason
    assert what in picks(records)["cheapest"].reason or picks(records)["cheapest"].command == ""
    recommended = recommend(summarise(rows(records)), Limits())
    assert (recommended.command, what in recommended.hindrance) == ("", True)
    # The other content of the path may be that of a cell which is no contender.
    others = [replace(r, accuracy_val=0.2, accuracy_test=0.2) for r in records[3:]]
    third = cell("norm", (0.92, 0.94, 0.90))
    assert picks([*records[:3], *third, *others])["accurate"].command == ""
    # And of one cell's own command.
    table = summarise(rows(records))
    details = details_of(table, machines_of(rows(records)))
    assert all(one["c"].startswith("# cannot be run again: ") for one in details["cells"].values())


def test_a_comma_in_a_path_is_written_so_that_it_is_read_as_one():
    records = [replace(r, cell=replace(r.cell, dataset="folder:d,1")) for r in cell("full", (0.9,), (1.0,))]
    words = shlex.split(command_for([records[0]]))
    written = words[words.index("--dataset") + 1]
    assert written == r"folder:d\,1"
    assert parse_axis("dataset", written) == ("folder:d,1",)


@example([")", "(,)"])
@given(st.lists(st.text(r"ab,()\ ", min_size=1).map(str.strip).filter(bool), min_size=1, max_size=4))
def test_values_are_read_as_they_were_written(values):
    assert split_values(join_values(values)) == values


def test_where_one_image_is_more_than_a_point_it_says_so():
    found = picks([with_images(r, 36) for r in (*cell("full", (0.95,) * 3), *cell("norm", (0.92,) * 3))])
    assert "one validation image is 2.8 points of one seed's accuracy" in found["accurate"].reason
    assert found["accurate"].standing == "tied"


def test_more_seeds_are_not_advised_where_the_images_are_too_few():
    cells = [with_images(r, 100, shift) for shift, name in ((0, "full"), (30, "norm")) for r in cell(name, (0.9,) * 3)]
    found = picks(cells)["accurate"]
    assert found.standing == "tied"
    assert found.command == ""
    assert "more seeds cannot tell them apart on these 100 validation images" in found.reason


def test_images_decide_what_seeds_alone_would_decide_too_soon():
    """Every seed says 1 point more, so that seeds alone leave no doubt; on 100 images that is one image."""
    cells = [*cell("full", (0.91,) * 5, (1.0,) * 5), *cell("norm", (0.90,) * 5, (1.0,) * 5)]
    assert picks([with_images(r, 100) for r in cells])["accurate"].standing == "tied"
    assert picks(cells)["accurate"].standing == "tied"  # of older records the number of images is known


def test_the_fastest_at_inference():
    records = [record(task="infer", backbone=b, seconds=(s, s), latency=[s] * 30, block=n, initial=RANDOM)
               for b, s in (("resnet18", 1.0), ("vgg16", 2.0)) for n in (0, 1)]  # fmt: skip
    found = picks(records)
    assert found["fastest"].row["backbone"] == "resnet18"
    assert found["fastest"].standing == "decided"
    assert found["accurate"].standing == "nothing"
    assert "--task train,infer" in found["accurate"].reason


def test_a_seed_that_failed_makes_its_cell_no_candidate():
    good, bad = cell("norm", (0.8, 0.8, 0.8)), cell("full", (0.99, 0.99, 0.99))[:2]
    records = [*good, *bad, failure("diverged", "nan", freeze="full", seed=2, epochs=3)]
    (scope,) = verdicts(summarise(rows(records)))
    assert scope.picks[0].row["freeze"] == "norm"
    assert [row["freeze"] for row in scope.left_out] == ["full"]


def test_data_without_labels_has_no_most_accurate_cell():
    records = [
        replace(r, accuracy_val=None, accuracy_test=None) for r in cell("full", (0.1, 0.1, 0.1), dataset="synthetic")
    ]
    found = picks(records)["accurate"]
    assert found.row is None
    assert "synthetic" in found.reason


def test_each_data_set_and_device_has_a_verdict_of_its_own():
    records = [*example_run(devices=("cpu", "cuda"), seeds=(0,)), *example_run(dataset="folder:x", seeds=(0,))]
    scopes = verdicts(summarise(rows(records)))
    assert [(s.dataset, s.device) for s in scopes] == [("digits", "cpu"), ("digits", "cuda"), ("folder:x", "cpu")]
    for scope in scopes:
        assert {(r["dataset"], r["device"]) for r in scope.rows} == {(scope.dataset, scope.device)}


def test_unequal_budgets_are_seen():
    records = [*cell("full", (0.9,), (1.0,)), record(seconds=(1.0,) * 9, accuracies=(0.9,) * 9, freeze="norm")]
    (scope,) = verdicts(summarise(rows(records)))
    assert scope.budgets == {"epochs": (3, 9)}


def test_the_noise_floor_is_that_of_the_place_it_was_measured_in():
    made = [record(seconds=(t,) * 3, role="aa", device="cuda") for t in (1.0, 1.1)]
    ((place, floor),) = noise_floors(rows([*made, record()])).items()
    assert place[0] == "cuda"
    assert floor.seen == pytest.approx(0.1)
    assert noise_floors(rows([replace(r, validity="noisy") for r in made])).keys() == {place}
    assert noise_floors(rows(made[:1])) == {}


# --- commands -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "made",
    [
        record(),
        record(task="infer"),
        record(freeze="lora(r=4,alpha=8)", lr=0.01, backbone_lr=1e-5, train_size=50, augment="flip", precision="bf16"),
        record(
            dataset="folder:/a b/it's", weights="/x y/z.pt", image_size=64, batch_size=8, lr="auto",
            definitions=definitions(Cell(lr="auto")),
        ),
    ],
)  # fmt: skip
def test_a_command_runs_the_very_cell_again(made):
    words = shlex.split(command_for([made]))
    assert words[:2] == ["tlbench", "run"]
    options = dict(zip(words[2::2], words[3::2], strict=True))
    assert {o.removeprefix("--") for o in options} <= {*SETTINGS, *(axis.option for axis in AXES.values())}
    by_option = {f"--{axis.option}": name for name, axis in AXES.items()}
    grid = Grid(axes={by_option[o]: parse_axis(by_option[o], text) for o, text in options.items() if o in by_option})
    (again,) = grid.expand()
    assert again == made.cell


def test_settings_that_are_not_at_their_defaults_are_in_the_command():
    made = record()
    settings = replace(made.settings, threads=2, deterministic=False, bad_images="skip")
    text = command_for([replace(made, settings=settings)])
    assert "--threads 2" in text
    assert "--deterministic off" in text
    assert "--bad-images skip" in text


def test_policies_of_the_example_run_are_real():
    for made in example_run(seeds=(0,)):
        if made.cell.task == "train":
            parse_policy(made.cell.freeze)


# --- the pick under limits ------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path):
    """Three policies: the better, the slower."""
    store = Store(tmp_path / "run")
    for made in [
        *cell("full", (0.95, 0.96, 0.95), (90.0, 91.0, 92.0), peak_memory_bytes=3 * 10**9),
        *cell("norm", (0.90, 0.91, 0.90), (30.0, 31.0, 32.0), peak_memory_bytes=10**9),
        *cell("linear_probe", (0.80, 0.81, 0.80), (10.0, 11.0, 12.0), peak_memory_bytes=5 * 10**8),
        failure("oom", "too big", freeze="bias", epochs=3),
        record(task="infer", latency=[n / 1000 for n in range(1, 101)]),
    ]:
        store.append(made)
    return store.folder


@pytest.mark.parametrize(
    ("options", "pick", "runner_up"),
    [
        ((), "full", "norm"),
        (("--max-memory", "2GB"), "norm", "linear_probe"),
        (("--max-training", "1min"), "linear_probe", None),
        (("--max-training", "2min"), "norm", "linear_probe"),
        (("--min-accuracy", "85%"), "full", "norm"),
        (("--min-accuracy", "0.92"), "full", None),
        (("--max-latency-ms", "100"), "full", "norm"),
    ],
)
def test_the_pick_under_limits(run, command, options, pick, runner_up):
    status, out, _ = command("recommend", run, *options)
    assert status == 0
    assert f"Pick: resnet18 · {pick} · linear" in out
    assert (f"Runner-up: resnet18 · {runner_up} · linear" in out) if runner_up else ("Runner-up" not in out)


def test_what_excluded_each_of_the_others(run, command):
    _, out, _ = command("recommend", run, "--max-training", "100s", "--max-memory", "800MB", "--min-accuracy", "85%")
    text = " ".join(out.split())
    assert "No cell keeps to the limits." in text
    assert (
        "resnet18 · full · linear: peak memory of 3.00 GB is above 800 MB; training time of 4 min 33 s is above 100 s"
        in text
    )
    assert "resnet18 · norm · linear: peak memory of 1.00 GB is above 800 MB" in text
    assert "resnet18 · linear_probe · linear: validation accuracy of 80.3 % is below 85.0 %" in text
    assert "resnet18 · bias · linear: oom: too big" in text


def test_no_cell_within_the_limits_is_exit_status_one(run, command):
    status, out, _ = command("recommend", run, "--max-latency-ms", "1")
    assert status == 1
    assert "p95 latency of 95.0 ms is above 1.00 ms" in " ".join(out.split())


def test_an_unmeasured_latency_keeps_to_no_limit(tmp_path):
    found = recommend(summarise(rows(cell("full", (0.9,), (1.0,)))), Limits(max_latency_ms=1e9))
    assert found.pick is None
    (reason,) = found.excluded[0].reasons
    assert (reason.kind, reason.figure) == ("unknown", "latency_p95_ms")
    assert "--task train,infer" in told(found.excluded[0].row, reason)


def test_a_limit_inside_the_interval_is_a_caveat():
    found = recommend(summarise(rows(cell("full", (0.90, 0.95, 0.85)))), Limits(min_accuracy=0.89))
    assert found.pick is not None
    assert "its interval reaches" in told(found.pick, found.caveats[0])


def test_a_tie_is_told_with_what_to_run(tmp_path, command):
    store = Store(tmp_path)
    for made in [*cell("full", (0.95, 0.91, 0.93)), *cell("norm", (0.92, 0.94, 0.90))]:
        store.append(made)
    _, out, _ = command("recommend", tmp_path)
    assert "cannot be told from the pick's" in " ".join(out.split())
    assert "tlbench run --task train" in out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--device", "cuda"), "no training cell on device 'cuda' in these runs; there are: cpu"),
        (("--dataset", "x"), "no training cell on dataset 'x'"),
        (("--max-memory", "2XB"), "'2XB' is not a size such as 2GB"),
        (("--max-training", "soon"), "'soon' is not a time"),
        (("--min-accuracy", "90"), "more than all"),
    ],
)
def test_bad_limits(run, command, options, said):
    status, _, err = command("recommend", run, *options)
    assert status == 2
    assert said in err


def test_several_data_sets_need_a_choice(tmp_path, command):
    for name in ("digits", "folder:x"):
        Store(tmp_path / name).append(record(dataset=name))
    runs = (tmp_path / "digits", tmp_path / "folder:x")
    status, _, err = command("recommend", *runs)
    assert status == 2
    assert "choose one with --dataset" in err
    assert command("recommend", *runs, "--dataset", "folder:x")[0] == 0


def test_a_run_without_training(tmp_path, command):
    Store(tmp_path).append(record(task="infer"))
    status, _, err = command("recommend", tmp_path)
    assert status == 2
    assert "--task train" in err


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (parse_bytes, "2GB", 2e9), (parse_bytes, "1.5 GiB", 1.5 * 2**30), (parse_bytes, "7", 7),
        (parse_bytes, "1e3kb", 1e6), (parse_seconds, "90", 90), (parse_seconds, "1.5h", 5400),
        (parse_seconds, "2 min", 120), (parse_seconds, ".5s", 0.5),
        (parse_share, "0.9", 0.9), (parse_share, "90%", 0.9),
    ],
)  # fmt: skip
def test_quantities(parse, text, value):
    assert parse(text) == pytest.approx(value)


@given(st.text(max_size=20), st.sampled_from([parse_bytes, parse_seconds, parse_share]))
def test_any_text_is_a_quantity_or_a_user_error(text, parse):
    try:
        assert parse(text) >= 0
    except UserError as error:
        assert text in str(error) or repr(text) in str(error)


def test_of_ties_the_cheapest_is_named_as_a_verdict_does():
    made = [
        with_images(record(cell=Cell(freeze=freeze, seed=seed), seconds=(seconds,) * 3), shift=seed)
        for freeze, seconds in (("full", 9.0), ("linear_probe", 1.0))
        for seed in range(3)
    ]
    table = summarise(rows(made))
    found = recommend(table, Limits())
    (scope,) = verdicts(table)
    assert found.pick["freeze"] == "full"
    assert found.cheapest_tie["freeze"] == "linear_probe" == scope.cheapest_tie.row["freeze"]


def test_a_tie_far_behind_is_not_named_for_being_cheap():
    measured = (("full", 9.0, (0.95, 0.85, 0.93)), ("linear_probe", 1.0, (0.92, 0.8, 0.89)))
    made = [
        with_images(
            record(cell=Cell(freeze=freeze, seed=seed), seconds=(seconds,) * 3, accuracies=(0, 0, accuracy)), shift=seed
        )
        for freeze, seconds, accuracies in measured
        for seed, accuracy in enumerate(accuracies)
    ]
    table = summarise(rows(made))
    found = recommend(table, Limits())
    (scope,) = verdicts(table)
    assert found.tied
    assert found.cheapest_tie is None
    assert scope.cheapest_tie.row["freeze"] == found.pick["freeze"] == "full"


def test_under_limits_nothing_is_said_of_what_a_verdict_names():
    """It named what `fit` keeps without them."""
    made = [
        with_images(record(cell=Cell(freeze=freeze, seed=seed), seconds=(seconds,) * 3), shift=seed)
        for freeze, seconds in (("full", 9.0), ("last_1", 3.0), ("linear_probe", 1.0))
        for seed in range(3)
    ]
    table = summarise(rows(made))
    words = "it is what a verdict names"
    for limits, said in ((Limits(), True), (Limits(max_training_seconds=20), False), (Limits(device="cpu"), False)):
        file = io.StringIO()
        print_recommendation(Console(file=file, width=10_000), recommend(table, limits), table)
        assert (words in file.getvalue()) is said
        assert "trains in the least time" in file.getvalue()


def test_what_one_has_and_the_other_leaves_at_its_default_is_no_one_command():
    made = [with_images(record(cell=Cell(seed=seed, lr=rate)), shift=seed) for rate in (0.01, None) for seed in (0, 1)]
    table = summarise(rows(made))
    assert "one has --lr, the other what is usual" in hindrance(table, table)
    assert hindrance(table[:1], table) == ""
