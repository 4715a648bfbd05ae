"""What is the same thing and what is not, for everything that puts records together: by hashes, never by names."""

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import save_image
from records import record

from tlbench.analysis.compare import compare, parse_gate
from tlbench.analysis.figures import Row
from tlbench.analysis.frame import rows
from tlbench.analysis.matching import align
from tlbench.analysis.sides import read_run, read_runs
from tlbench.analysis.speedup import speedups
from tlbench.analysis.summary import summarise
from tlbench.backbones import load_backbone, original
from tlbench.campaign import replay
from tlbench.campaign.asked import parse_asked
from tlbench.campaign.campaign import begin
from tlbench.campaign.check import check
from tlbench.errors import UserError
from tlbench.grid.cell import Cell
from tlbench.grid.grid import Grid
from tlbench.grid.settings import Settings
from tlbench.measure.cell import run_cell
from tlbench.records.identity import Facts, differences, place_of, same_place
from tlbench.records.plan import Plan
from tlbench.records.record import Record
from tlbench.records.resuming import SameInput
from tlbench.records.run_folder import Store, load
from tlbench.report import write_report

BACKBONE = "mobilenet_v3_small"
CELL = Cell(backbone=BACKBONE, image_size=32, epochs=1, batch_size=16, layout="contiguous")


def kept(made: Record) -> Record:
    """As it comes back from the disk."""
    return Record.from_dict(json.loads(json.dumps(made.to_dict(), allow_nan=False)))


def checkpoint(path: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    torch.save(original(BACKBONE)[0].state_dict(), path)
    return path


def store(folder: Path, records) -> Path:
    made = Store(folder)
    for one in records:
        made.append(replace(one, started=folder.name))  # else equal figures of two runs were copies
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Images of two classes, and a checkpoint."""
    root = tmp_path_factory.mktemp("identity")
    for label, color in (("dark", 20), ("light", 180)):
        for n in range(20):
            save_image(root / "photos" / label / f"{n}.png", color, seed=n + color)
    checkpoint(root / "ck.pth", 1)
    return root


class Runs:
    """Real records of two seeds: of the home as it is, of the home changed in one thing, and of its copy."""

    def __init__(self, home: Path) -> None:
        photos, ck = home / "photos", home / "ck.pth"
        self.cell = replace(CELL, dataset=f"folder:{photos}", weights=str(ck))
        self.base = self._measured(self.cell)
        self.other: dict[str, list[Record]] = {}

        shutil.copytree(home, home.parent / f"{home.name}-aside")
        checkpoint(ck, 2)
        self.other["overwritten checkpoint"] = self._measured(self.cell)
        shutil.copy(home.parent / f"{home.name}-aside/ck.pth", ck)

        for n in range(4):
            (photos / "dark" / f"{n}.png").unlink()
        self.other["removed images"] = self._measured(self.cell)
        shutil.copytree(home.parent / f"{home.name}-aside/photos", photos, dirs_exist_ok=True)

        for path in (photos / "light").iterdir():
            save_image(path, 0, seed=int(path.stem))
        self.other["blackened class"] = self._measured(self.cell)
        shutil.copytree(home.parent / f"{home.name}-aside/photos", photos, dirs_exist_ok=True)

        self.auto = [replace(r, cell=replace(r.cell, weights="auto")) for r in self.base]
        plain = self._measured(replace(self.cell, weights="random"))
        self.other["random in place of pretrained"] = [replace(r, cell=replace(r.cell, weights="auto")) for r in plain]

        self.new_place = home.parent / f"{home.name}-moved"
        shutil.copytree(home.parent / f"{home.name}-aside", self.new_place)
        moved = replace(
            self.cell, dataset=f"folder:{self.new_place}/photos", weights=str(self.new_place / "ck.pth"), freeze="full"
        )
        self.moved = self._measured(replace(moved, freeze="linear_probe"))

    @staticmethod
    def _measured(cell: Cell) -> list[Record]:
        made = [kept(run_cell(replace(cell, seed=seed), Settings(threads=1, prefix="off"))) for seed in (0, 1)]
        assert [r.status for r in made] == ["ok", "ok"], made[0].reason
        return made

    def pair(self, name: str) -> tuple[list[Record], list[Record]]:
        """The records of the home as it was, and of the home after this happened to it."""
        return (self.auto if "random" in name else self.base), self.other[name]


@pytest.fixture(scope="module")
def runs(home):
    return Runs(home)


UNLIKE = {
    "overwritten checkpoint": ("weights of ck.pth: {base.weights} and {new.weights}", "weights"),
    "removed images": ("images of folder:{place}: {base.images} and {new.images}", "images"),
    "blackened class": ("images of folder:{place}: {base.images} and {new.images}", "images"),
    "random in place of pretrained": (f"weights of {BACKBONE}: {{base.weights}} and random", "weights"),
}
"""What happened -> how it is named, and what has changed."""


@pytest.fixture(params=UNLIKE)
def unlike(request, runs, home):
    """Records before and after, how the difference is named, and what has changed."""
    base, new = runs.pair(request.param)
    text, what = UNLIKE[request.param]
    facts = [Facts.of(side) for side in (base, new)]
    short = [replace(f, weights=f.weights[:8], images=f.images[:8]) for f in facts]
    return base, new, text.format(base=short[0], new=short[1], place=home / "photos"), what


def together(*sides) -> list[Row]:
    return [row for n, side in enumerate(sides) for row in rows(side, f"run {n}")]


# --- other things under the same name -------------------------------------------------------------------------


@pytest.mark.exhaustive
def test_a_summary_keeps_them_apart_and_names_them(unlike):
    base, new, _, what = unlike
    alone, mixed = summarise(together(base)), summarise(together(base, new))
    assert len(mixed) == 2
    assert [row["records"] for row in mixed] == [2, 2]
    assert mixed[0]["values"] == alone[0]["values"]
    assert mixed[0]["configuration"] != mixed[1]["configuration"]
    names = [row["dataset"] if what == "images" else row["weights_sha256"] for row in mixed]
    assert names[0] != names[1]


@pytest.mark.exhaustive
def test_a_comparison_refuses_and_says_why(unlike, tmp_path, command):
    base, new, line, _ = unlike
    old, other = store(tmp_path / "old", base), store(tmp_path / "new", new)
    status, _, err = command("compare", old, other)
    assert status == 2
    assert line in err
    assert len(err.splitlines()) == 1


@pytest.mark.exhaustive
def test_a_gate_on_them_cannot_say_and_no_average_has_them(unlike, tmp_path, command):
    base, new, line, _ = unlike
    same = [replace(record(seed=seed), images_sha256="ab" * 32) for seed in (0, 1, 2)]
    old, other = store(tmp_path / "old", [*base, *same]), store(tmp_path / "new", [*new, *same])
    found = compare([read_run(old)], [read_run(other)], [parse_gate("epoch_seconds:10%")], noise_floor=0.05)
    assert found.exit_status == 2
    assert [change.cell.split(" · ")[0] for change in found.changes] == ["train resnet18"]
    assert found.overall["epoch_seconds"].estimate == 1
    assert list(found.unlike) == [line]
    assert (found.only_base, found.only_new) == ((), ())
    status, out, _ = command("compare", old, other, "--fail-on", "epoch_seconds:10%", "--noise-floor", "5%")
    assert status == 2
    assert line in " ".join(out.split())
    assert command("compare", old, other, "--noise-floor", "5%")[0] == 0


@pytest.mark.exhaustive
def test_a_recommendation_does_not_choose_among_other_images(unlike, tmp_path, command):
    base, new, _, what = unlike
    status, out, err = command("recommend", store(tmp_path / "a", base), store(tmp_path / "b", new))
    if what == "images":
        assert status == 2
        assert "several data sets" in err
        assert all(f"(images {side[0].images_sha256[:8]})" in err for side in (base, new))
    else:
        # So few images show of neither that it learned anything: both are named, and neither is a pick.
        assert status == 1
        assert "No cell can be recommended." in out
        assert out.count("mobilenet_v3_small") == 2


@pytest.mark.exhaustive
def test_a_report_names_both(unlike, tmp_path, command):
    base, new, _, what = unlike
    status, _, err = command("report", store(tmp_path / "a", base), store(tmp_path / "b", new))
    assert status == 0, err
    text = (tmp_path / "report-of-a+b/report.md").read_text()
    if what == "images":
        assert all(f"images {side[0].images_sha256[:8]}" in text.replace("\\", "") for side in (base, new))
    else:
        assert "random" in text or all(side[0].weights["sha256"][:8] in text for side in (base, new))
    assert command("summary", tmp_path / "a", tmp_path / "b")[0] == 0


@pytest.mark.exhaustive
def test_a_run_takes_none_of_the_other(unlike):
    base, new, _, what = unlike
    with pytest.raises(UserError, match=f"the {what} of .* have changed since .* was measured in this run"):
        SameInput(base).check(new[1])
    SameInput(base).check(base[0])


@pytest.mark.exhaustive
def test_a_replay_refuses_before_it_runs(unlike, runs, monkeypatch):
    """The home is as it was, so it is another than that of the changed records."""
    base, new, line, _ = unlike
    if base is runs.auto:  # whose weights are not at hand: random ones do not stand in for them
        assert replay.replay(base[0]).outcome == replay.IMPOSSIBLE
        return
    monkeypatch.setattr(replay.run, "run_cell", lambda *a, **k: pytest.fail("it was run"))
    found = replay.replay(new[0])
    assert found.outcome == replay.IMPOSSIBLE
    what, (now, then) = line.rsplit(": ", 1)[0], line.rsplit(": ", 1)[1].split(" and ")
    assert found.reason.endswith(f": {then} and {now}")
    assert what.split(" of ")[0] in found.reason


# --- the same thing under another name ------------------------------------------------------------------------


@pytest.mark.exhaustive
def test_a_moved_folder_is_the_same_data_everywhere(runs, tmp_path, command):
    (row,) = summarise(together(runs.base, runs.moved))
    assert row["records"] == 4
    assert row["dataset"] == runs.base[0].cell.dataset
    old, new = store(tmp_path / "old", runs.base), store(tmp_path / "new", runs.moved)
    found = compare([read_run(old)], [read_run(new)], noise_floor=0.05)
    assert (found.only_base, found.only_new, found.unlike) == ((), (), {})
    assert {change.metric for change in found.changes} >= {"epoch_seconds", "accuracy_test"}
    assert command("recommend", old, new)[0] == 1  # not 2: one data set, of which so few images show no learning
    status, out, _ = command("summary", old, new)
    assert status == 0
    assert out.count("Verdict for") == 1


@pytest.mark.exhaustive
def test_two_spellings_are_one_data_set(runs, home, monkeypatch):
    monkeypatch.chdir(home)
    monkeypatch.setenv("HOME", str(home))
    spellings = ["folder:photos", "folder:./photos", f"folder:{home}/photos", "folder:~/photos", "folder:photos/"]
    assert all(same_place(spellings[0], other) for other in spellings)
    assert place_of("folder:./photos") == place_of("folder:photos/") == "folder:photos"
    respelled = [replace(r, cell=replace(r.cell, dataset=s, weights="./ck.pth")) for s in spellings for r in runs.base]
    (row,) = summarise(rows(respelled))
    assert (row["records"], row["seeds"]) == (2 * len(spellings), 2)
    older = [replace(r, images_sha256=None) for r in respelled]
    assert len(summarise(rows(older))) == 1
    for spelling in spellings[1:]:
        grid = Grid(axes={"dataset": ("folder:photos", spelling), "backbone": (BACKBONE,), "weights": ("random",)})
        with pytest.raises(UserError, match="one place under two names"):
            check(grid, Settings())


@pytest.mark.exhaustive
def test_a_replay_takes_the_new_place(runs, home, tmp_path, command):
    old = store(tmp_path / "run", runs.base[:1])
    home.rename(home.parent / "gone")
    try:
        assert command("replay", old)[0] == 2
        where = f"--dataset=folder:{runs.new_place}/photos", f"--weights={runs.new_place}/ck.pth"
        status, out, err = command("replay", old, *where)
        assert status == 0, out + err
        assert out.startswith("equal")
        status, out, _ = command("replay", old, where[0], f"--weights={checkpoint(tmp_path / 'ck.pth', 5)}")
        assert status == 2
        assert f"{home}/ck.pth and {tmp_path}/ck.pth: {runs.base[0].weights['sha256'][:8]} and " in out
    finally:
        (home.parent / "gone").rename(home)


@pytest.fixture
def begun(tmp_path):
    """A run of two cells whose images and checkpoint have moved away since; and where they are now."""
    for label, color in (("dark", 20), ("light", 180)):
        for n in range(12):
            save_image(tmp_path / "old/photos" / label / f"{n}.png", color, seed=n)
    checkpoint(tmp_path / "old/ck.pth", 1)
    asked = {
        "dataset": f"folder:{tmp_path}/old/photos", "weights": f"{tmp_path}/old/ck.pth", "backbone": BACKBONE,
        "image-size": "32", "epochs": "1", "freeze": "linear_probe", "threads": "1", "folds": "off",
        "out": str(tmp_path / "run"),
    }  # fmt: skip
    begin(parse_asked(asked)).run()
    (tmp_path / "old").rename(tmp_path / "new")
    return tmp_path


def resumed(home, where, **asked):
    given = {"resume": str(home / "run"), "dataset": f"folder:{home}/{where}/photos", **asked}
    return begin(parse_asked({**given, "weights": f"{home}/{where}/ck.pth"}))


@pytest.mark.exhaustive
def test_a_run_goes_on_at_the_new_place_and_again_without_being_told(begun):
    with pytest.raises(UserError, match=r"is not there any more, .*; --dataset folder:PATH says"):
        begin(parse_asked({"resume": str(begun / "run")}))
    campaign = resumed(begun, "new")
    assert campaign.left == []
    campaign.release()
    campaign = resumed(begun, "new", seeds="1")
    assert [step.cell.seed for step in campaign.left] == [1]
    campaign.run()
    last = load(begun / "run").records[-1]
    assert last.status == "ok", last.reason
    assert last.cell.dataset == f"folder:{begun}/old/photos"
    assert last.places == {"dataset": f"folder:{begun}/new/photos", "weights": f"{begun}/new/ck.pth"}
    assert begin(parse_asked({"resume": str(begun / "run")})).left == []
    (row,) = summarise(rows([r for r in load(begun / "run").records if r.role == "cell"]))
    assert row["seeds"] == 2
    assert replay.replay(last).outcome == replay.EQUAL  # at the place where it was measured


def test_a_run_refuses_other_images_or_weights_at_the_new_place(begun):
    (first, *_) = load(begun / "run").records
    save_image(begun / "new/photos/dark/0.png", 90)
    with pytest.raises(UserError) as refused:
        resumed(begun, "new")
    text = str(refused.value)
    assert f"images of folder:{begun}/old/photos and folder:{begun}/new/photos: {first.images_sha256[:8]} and " in text
    assert "\n" not in text
    save_image(begun / "new/photos/dark/0.png", 20, seed=0)
    checkpoint(begun / "new/ck.pth", 2)
    with pytest.raises(UserError, match=f"ck.pth: {first.weights['sha256'][:8]} and "):
        resumed(begun, "new")


@pytest.mark.exhaustive
def test_what_is_still_there_makes_another_data_set_a_new_one(begun):
    shutil.copytree(begun / "new", begun / "old")
    save_image(begun / "new/photos/dark/0.png", 90)
    given = {"resume": str(begun / "run"), "dataset": f"folder:{begun}/old/../old/photos,folder:{begun}/new/photos"}
    campaign = begin(parse_asked(given))
    assert {step.cell.dataset for step in campaign.left} == {f"folder:{begun}/new/photos"}


def test_the_new_place_is_taken_though_the_old_one_is_there_with_other_content(begun):
    shutil.copytree(begun / "new", begun / "old")
    save_image(begun / "old/photos/dark/0.png", 90)
    checkpoint(begun / "old/ck.pth", 2)
    campaign = resumed(begun, "new", seeds="1")
    assert campaign.places == {
        "dataset": {f"folder:{begun}/old/photos": f"folder:{begun}/new/photos"},
        "weights": {f"{begun}/old/ck.pth": f"{begun}/new/ck.pth"},
    }
    assert not [note for note in campaign.notes if "changed" in note]
    campaign.run()
    last = load(begun / "run").records[-1]
    assert (last.status, last.cell.seed, last.reason) == ("ok", 1, "")
    assert last.places == {"dataset": f"folder:{begun}/new/photos", "weights": f"{begun}/new/ck.pth"}
    again = begin(parse_asked({"resume": str(begun / "run"), "seeds": "2"}))
    assert again.places == campaign.places, "it is known without being told"
    again.release()
    back = begin(parse_asked({"resume": str(begun / "run"), "dataset": f"folder:{begun}/old/photos"}))
    assert back.places["dataset"] == {}, "unless someone says otherwise"
    assert any("changed since this run measured them" in note for note in back.notes)


@pytest.mark.parametrize("options", [[], ["--dry-run"], ["--dry-run", "--seeds", "0,1"]])
def test_a_run_whose_images_and_checkpoint_have_changed_says_so_whatever_is_left(begun, command, options):
    (begun / "new").rename(begun / "old")
    first = load(begun / "run").records[0]
    assert "changed since" not in command("run", "--resume", begun / "run", *options)[2]
    save_image(begun / "old/photos/dark/0.png", 90)
    checkpoint(begun / "old/ck.pth", 2)
    status, _, err = command("run", "--resume", begun / "run", *options)
    assert status == 0, err
    assert f"images of folder:{begun}/old/photos: {first.images_sha256[:8]} and " in err
    assert f"weights of {begun}/old/ck.pth: {first.weights['sha256'][:8]} and " in err
    assert err.count("changed since this run measured them: ") == 2


def test_inference_is_measured_once_whatever_is_trained_beside_it():
    first = Grid(axes={"task": ("train", "infer"), "epochs": (3,)})
    plan = Plan(grids=(first,), settings=Settings()).extended(Grid(axes={"task": ("train", "infer"), "epochs": (5,)}))
    assert Counter(cell.task for cell in plan.cells()) == {"train": 2, "infer": 1}


# --- records that know less -----------------------------------------------------------------------------------


def old(one: Record) -> Record:
    return replace(one, images_sha256=None)


@pytest.mark.exhaustive
def test_an_older_run_stays_whole_and_is_never_mixed_with_other_images(runs):
    before, after = runs.pair("removed images")
    assert len(summarise(together([old(r) for r in before]))) == 1
    mixed = summarise(together([old(r) for r in before], [old(r) for r in after]))
    assert [row["records"] for row in mixed] == [2, 2]
    assert len({row["dataset"] for row in mixed}) == 2
    assert len({row["configuration"] for row in mixed}) == 2
    assert len(summarise(together([old(r) for r in before], after))) == 2


@pytest.mark.exhaustive
def test_an_older_run_at_another_place_is_one_where_a_split_says_so(runs):
    other = replace(runs.moved[1], cell=replace(runs.moved[1].cell, seed=5), data_sha256="ab" * 32)
    for order in ([*runs.moved, other], [other, *runs.moved]):
        (row,) = summarise(together([old(r) for r in runs.base], [old(r) for r in order]))
        assert (row["records"], row["seeds"], row["dataset"]) == (5, 3, runs.base[0].cell.dataset)


@pytest.mark.exhaustive
def test_an_older_record_is_known_by_a_newer_one_of_the_same_split(runs):
    (row,) = summarise(together([old(r) for r in runs.base], runs.moved))
    assert row["records"] == 4
    assert row["images_sha256"] == runs.base[0].images_sha256


@pytest.mark.exhaustive
def test_a_run_that_an_older_version_began_is_one(runs):
    (row,) = summarise(rows([old(runs.base[0]), runs.base[1]], "run"))
    assert row["records"] == 2


@pytest.mark.exhaustive
def test_splits_that_differ_at_one_seed_are_not_averaged(runs):
    other = [replace(r, data_sha256="cd" * 32 if r.cell.seed else r.data_sha256) for r in runs.base]
    assert [row["records"] for row in summarise(together(runs.base, other))] == [2, 2]
    assert differences(Facts.of(runs.base), Facts.of(other)) == [
        f"split of {runs.cell.dataset} at seed 1: {runs.base[1].data_sha256[:8]} and cdcdcdcd"
    ]


@pytest.mark.exhaustive
def test_random_weights_pool_over_seeds_and_whatever_was_asked_for(runs):
    plain = runs.other["random in place of pretrained"]
    assert plain[0].weights["sha256"] != plain[1].weights["sha256"]
    asked = [replace(r, cell=replace(r.cell, weights="random")) for r in plain]
    (row,) = summarise(together(plain, asked))
    assert (row["records"], row["weights_sha256"]) == (4, "random")


@pytest.mark.exhaustive
def test_a_cell_that_failed_early_goes_with_its_others(runs):
    failed = replace(runs.base[1], status="failed", reason="x", weights={}, images_sha256=None, data_sha256=None)
    (row,) = summarise(rows([runs.base[0], failed]))
    assert (row["records"], row["status"]) == (2, "failed")


def test_a_speed_up_is_not_taken_over_other_weights():
    cpu = record(images_sha256="a")
    gpu = record(device="cuda", images_sha256="a")
    other = replace(gpu, weights={**gpu.weights, "sha256": "11" * 32})
    assert [len(one.pairs) for one in speedups(summarise(rows([cpu, gpu])))] == [1]
    (found,) = speedups(summarise(rows([cpu, other])))
    assert (found.pairs, found.unlike) == ((), ("weights of resnet18: 00000000 and 11111111",))


# --- pytest-benchmark's JSON ----------------------------------------------------------------------------------


def benchmarks(path, records, name="train[m-s{}]", told=True):
    """The part of pytest-benchmark's JSON that is read, as the plugin writes it."""
    found = [
        {
            "fullname": f"bench/test_train.py::{name.format(r.cell.seed)}",
            "extra_info": {"identity": Facts.of([r]).to_dict()} if told else {},
            "stats": {"median": r.rounds[0].seconds},
        }
        for r in records
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine_info": {}, "benchmarks": found, "datetime": path.name}))
    return path


@pytest.mark.exhaustive
def test_json_is_matched_by_what_was_measured(unlike, tmp_path, command):
    base, new, line, _ = unlike
    one, other = benchmarks(tmp_path / "a.json", base), benchmarks(tmp_path / "b.json", new)
    status, _, err = command("compare", one, other)
    assert status == 2
    assert line in err


@pytest.mark.exhaustive
def test_two_image_sizes_in_json_are_two_cells(runs, tmp_path, command):
    larger = [replace(r, image_size=64, images_sha256="ef" * 32) for r in runs.base]
    one, other = benchmarks(tmp_path / "x/a.json", runs.base), benchmarks(tmp_path / "x/b.json", larger)
    status, _, err = command("compare", one, other)
    assert status == 2
    assert "image size: 32 and 64 px" in err
    assert [len(v["epoch_seconds"]) for v in read_run(tmp_path / "x").values.values()] == [2, 2]


@pytest.mark.exhaustive
def test_json_of_renamed_tests_and_a_run_hold_the_same_cells(runs, tmp_path):
    one = benchmarks(tmp_path / "a.json", runs.base)
    renamed = benchmarks(tmp_path / "b.json", runs.moved, name="train[renamed-s{}]")
    for other in (renamed, store(tmp_path / "run", runs.moved)):
        found = compare([read_run(one)], [read_run(other)], noise_floor=0.05)
        assert {change.cell for change in found.changes} == {"bench/test_train.py::train[m]"}
        assert found.cautions == ()


@pytest.mark.exhaustive
def test_json_that_does_not_say_is_matched_by_name_with_a_warning(runs, tmp_path, command):
    told = benchmarks(tmp_path / "a.json", runs.base)
    silent = benchmarks(tmp_path / "b.json", runs.base, told=False)
    status, out, _ = command("compare", told, silent)
    assert status == 0
    assert "b.jsondoesnotsaywhatitstestsmeasured" in "".join(out.split()), "a long path is broken"
    assert align([read_run(told)], [read_run(told)]).cautions == ()


@pytest.mark.exhaustive
def test_each_file_is_a_run(runs, tmp_path):
    for n in range(3):
        benchmarks(tmp_path / "x" / f"{n}.json", runs.base)
    assert [Path(run.name).name for run in read_runs(tmp_path / "x")] == ["0.json", "1.json", "2.json"]
    assert len(read_runs(store(tmp_path / "run", runs.base))) == 1


@pytest.mark.exhaustive
def test_what_is_no_identity_is_said(runs, tmp_path):
    path = benchmarks(tmp_path / "a.json", runs.base)
    for wrong in ({"axes": 3}, [], {"axes": "x"}):
        data = json.loads(path.read_text())
        data["benchmarks"][0]["extra_info"]["identity"] = wrong
        (tmp_path / "b.json").write_text(json.dumps(data))
        with pytest.raises(UserError, match="is not pytest-benchmark's JSON"):
            read_run(tmp_path / "b.json")


# --- a run that was resumed -----------------------------------------------------------------------------------


@pytest.mark.exhaustive
def test_the_same_folder_gives_one_pick(runs, tmp_path, command):
    """Earlier tries of a cell count nowhere: with them, the worse cell would look better."""
    good = runs.base[0]
    bad = replace(good, accuracy_val=0.0, accuracy_test=0.0)
    run = store(tmp_path / "run", [bad, good])
    status, out, err = command("recommend", run)
    assert status == 1  # the cell is judged, and learned nothing that shows
    assert "1 earlier record superseded" in err
    assert command("recommend", store(tmp_path / "plain", [good]))[1] == out
    again = store(tmp_path / "again", [replace(r, started="later") for r in (bad, good)])
    assert [change.verdict for change in compare([read_run(run)], [read_run(again)]).changes] != []
    path = write_report(load(run).records[1:], tmp_path / "out")
    assert path.exists()


@pytest.mark.exhaustive
def test_a_run_is_given_once_under_whatever_name(runs, tmp_path, command, monkeypatch):
    run = store(tmp_path / "run", runs.base)
    monkeypatch.chdir(tmp_path)
    status, _, err = command("summary", run, "run")
    assert status == 2
    assert "given twice" in err
    assert command("summary", "run", "run/records.jsonl")[0] == 2


def test_what_is_loaded_is_hashed_before_anything_random_is_added(home):
    for seed in (0, 1):
        loaded = load_backbone(BACKBONE, str(home / "ck.pth"), seed=seed).weights
        assert loaded.pretrained
        assert loaded.sha256 == load_backbone(BACKBONE, str(home / "ck.pth")).weights.sha256
