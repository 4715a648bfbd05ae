"""A run goes on where it stopped: only what is missing runs, and its figures equal those of a run in one go."""

import os
import random
import re
import signal
import time
from collections import Counter
from dataclasses import replace

import pytest
from bits import results
from conftest import save_image
from processes import children, gone, start
from records import failure, record
from tiers import sweep

import tlbench
from tlbench.campaign import campaign, measuring, steps
from tlbench.campaign.asked import Asked
from tlbench.errors import UserError
from tlbench.grid.grid import Grid
from tlbench.grid.settings import Settings
from tlbench.measure import cell as run_module
from tlbench.records.plan import RUN, Plan, load_start
from tlbench.records.record import STATUSES
from tlbench.records.resuming import current, identity
from tlbench.records.run_folder import RECORDS, Store, load

TINY = {
    "--weights": "random",
    "--image-size": "32",
    "--epochs": "2",
    "--batch-size": "8",
    "--layout": "contiguous",
    "--threads": "1",
    "--twins": "0",  # how many there are depends on how long the cells took
}


def options(*tables: dict[str, str]) -> list[str]:
    return [f"{name}={value}" for table in tables for name, value in table.items()]


@pytest.fixture
def measured(monkeypatch):
    """Cells are not run: each gives the record that `becomes` makes of it. Keeps the names of those that were asked
    for, in order.
    """

    class Measured(list):
        def becomes(self, fake):
            return fake

        def __call__(self, cell, settings, *_, place):
            self.append(place.name)
            fake = record(freeze=cell.freeze, backbone=cell.backbone)
            fake = replace(fake, id=place.name, cell=cell, settings=settings, block=place.block, role=place.role)
            return self.becomes(fake)

    def no_report(records, folder):
        found.reported = [r.id for r in records]
        return folder / "report.html"

    found = Measured()
    monkeypatch.setattr(run_module, "run_cell", found)
    monkeypatch.setattr("tlbench.report.write_report", no_report)
    return found


GRID = ["--freeze=linear_probe,full", "--seeds=0,1", "--isolate=none", "--threads=1"]
NAMES = [f"resnet18-{freeze}-linear-digits-cpu-s{seed}" for freeze in ("linear_probe", "full") for seed in (0, 1)]
ORDER = [*NAMES]


@pytest.fixture
def begun(command, measured, tmp_path):
    """A finished run of four cells."""
    status, _, err = command("run", *GRID, "--out", tmp_path / "run")
    assert status == 0, err
    assert measured == ORDER
    measured.clear()
    return tmp_path / "run"


def lines(folder):
    return (folder / RECORDS).read_bytes().splitlines(keepends=True)


def keep(folder, *positions):
    """Only these lines of the records."""
    (folder / RECORDS).write_bytes(b"".join(lines(folder)[position] for position in positions))


def test_a_finished_run_has_nothing_left(begun, command, measured):
    before = lines(begun)
    status, out, _ = command("run", "--resume", begun)
    assert status == 0
    assert measured == []
    assert measured.reported == ORDER
    assert "4 of 4 measurements are there, 0 are left" in out
    assert lines(begun) == before


@pytest.mark.parametrize("kept", [(), (0,), (0, 1), (1,), (0, 3), (1, 2, 3), (0, 1, 2)], ids=str)
def test_only_what_is_missing_runs(kept, begun, command, measured):
    keep(begun, *kept)
    before = lines(begun)
    assert command("run", "--resume", begun)[0] == 0
    assert Counter(measured) == Counter(ORDER) - Counter(ORDER[position] for position in kept)
    assert lines(begun)[: len(kept)] == before
    assert Counter(measured.reported) == Counter(ORDER)


def test_a_run_can_be_named_as_it_lies_in_results(begun, command, measured, tmp_path, monkeypatch):
    (tmp_path / "results").mkdir()
    begun.rename(tmp_path / "results" / "mine")
    monkeypatch.chdir(tmp_path)
    keep(tmp_path / "results" / "mine", 0)
    assert command("run", "--resume", "mine")[0] == 0
    assert measured == ORDER[1:]


def test_a_torn_line_is_named_and_its_cell_runs_again(begun, command, measured):
    whole = lines(begun)
    (begun / RECORDS).write_bytes(b"".join(whole[:3]) + whole[3][:200])
    status, _, err = command("run", "--resume", begun)
    assert status == 0
    assert "set aside" in err
    assert "records.jsonl:4" in err
    assert measured == ORDER[3:]
    assert [r.id for r in load(begun).records] == ORDER


@pytest.mark.exhaustive
@pytest.mark.parametrize("status", STATUSES)
def test_what_runs_again_depends_on_the_status(status, begun, command, measured):
    found = load(begun).records
    keep(begun, 0, 1, 2)
    Store(begun).append(replace(found[3], status=status, reason="because"))
    command("run", "--resume", begun)
    assert measured == ([] if status in ("ok", "not_applicable", "diverged") else [NAMES[3]])
    statuses = [r.status for r in current(load(begun).records)]
    assert statuses.count("ok") == 4 - (status != "ok" and not measured)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("rerun", "again"),
    [
        ("noisy", [1]),
        ("noisy,diverged", [1, 2]),
        ("throttled", []),
        ("drifting", [3]),
        ("diverged", [2]),
        ("ok", [0, 1, 3]),
    ],
)
def test_more_runs_again_on_request(rerun, again, begun, command, measured):
    changes = {1: {"validity": "noisy"}, 2: {"status": "diverged"}, 3: {"validity": "drifting"}}
    found = load(begun).records
    keep(begun)
    store = Store(begun)
    for position, one in enumerate(found):
        store.append(replace(one, **changes.get(position, {})))
    command("run", "--resume", begun, "--rerun", rerun)
    assert measured == [ORDER[position] for position in again]
    assert len(load(begun).records) == 4 + len(again)
    assert Counter(measured.reported) == Counter(ORDER)


def test_axes_that_are_given_add_cells(begun, command, measured):
    assert command("run", "--resume", begun, "--seeds", "1,2")[0] == 0
    assert measured == [name.replace("s1", "s2") for name in NAMES if name.endswith("s1")]
    measured.clear()
    keep(begun, *range(4))
    assert command("run", "--resume", begun)[0] == 0
    assert measured == [*(name.replace("s1", "s2") for name in NAMES if name.endswith("s1"))]
    assert len(load_start(begun).plan.grids) == 2


def test_a_grid_file_adds_its_cells(begun, command, measured, tmp_path):
    (tmp_path / "g.toml").write_text('backbone = "vgg11"\nepochs = 2')
    assert command("run", "--resume", begun, "--grid", tmp_path / "g.toml", "--freeze", "norm_bias")[0] == 0
    assert len(measured) == 1
    assert measured[0].startswith("vgg11-norm_bias-linear-digits-cpu-s0")


def test_cells_that_are_there_already_add_nothing(begun, command, measured):
    before = (begun / RUN).read_bytes()
    assert command("run", "--resume", begun, "--seeds", "1", "--freeze", "full")[0] == 0
    assert measured == []
    assert (begun / RUN).read_bytes() == before


def test_the_cells_that_are_left_can_be_listed_without_a_change(begun, command, measured):
    keep(begun, 0, 1)
    before = (begun / RUN).read_bytes(), lines(begun)
    status, out, _ = command("run", "--resume", begun, "--seeds", "0,1,2", "--dry-run")
    assert status == 0
    assert out.splitlines() == [f"train {name}" for name in [*NAMES[2:], NAMES[0][:-1] + "2", NAMES[2][:-1] + "2"]]
    assert measured == []
    assert ((begun / RUN).read_bytes(), lines(begun)) == before


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--threads=2", ["threads was 1, now it is 2"]),
        ("--bad-images=skip", ["bad_images was 'fail', now it is 'skip'"]),
        ("--blocks=2", ["blocks was 1, now it is 2"]),
        ("--deterministic=off", ["deterministic was True, now it is False"]),
    ],
)
def test_a_changed_setting_is_refused_by_its_name(option, words, begun, command, measured):
    keep(begun, 0)
    before = lines(begun)
    status, out, err = command("run", "--resume", begun, option)
    assert status == 2
    assert not out
    assert len(err.splitlines()) == 1
    for word in words:
        assert word in err
    assert measured == []
    assert lines(begun) == before


def test_the_same_settings_may_be_repeated_and_what_guards_a_run_may_change(begun, command, measured):
    keep(begun, 0)
    assert command("run", "--resume", begun, "--threads=1", "--max-failures=7")[0] == 0
    assert measured == ORDER[1:]
    settings = [r.settings for r in load(begun).records]
    assert settings == [Settings(threads=1), *[Settings(threads=1, max_failures=7)] * 3]


def test_a_run_that_is_done_is_decided_anew_where_another_metric_is_asked_for(begun, command, measured):
    """No record is written that could say so."""
    status, out, _ = command("run", "--resume", begun, "--threads=1", "--metric=macro_f1")
    assert status == 0
    assert measured == []
    assert "Decided by macro F1 on the validation images, not by accuracy." in " ".join(out.split())


def test_images_that_have_changed_are_not_mixed_into_a_run(begun, command, measured):
    keep(begun, 0, 1)
    Store(begun).append(replace(load(begun).records[1], id="x", data_sha256="a"))
    measured.becomes = lambda fake: replace(fake, data_sha256="b")
    status, _, err = command("run", "--resume", begun)
    assert status == 2
    assert "the images of" in err
    assert "have changed since 'x'" in err
    assert len(lines(begun)) == 4  # another seed splits other images off, so its record was kept


def test_a_run_without_a_plan_cannot_go_on(command, tmp_path):
    Store(tmp_path / "old").append(record())
    status, _, err = command("run", "--resume", tmp_path / "old")
    assert status == 2
    assert "no run.json" in err
    assert len(lines(tmp_path / "old")) == 1


@pytest.mark.parametrize("blocks", sweep([1, 3], {1}))
def test_blocks_go_on_in_the_order_in_which_they_began(blocks, command, measured, tmp_path):
    grid = [*GRID, f"--blocks={blocks}", "--out", tmp_path / "run"]
    assert command("run", *grid)[0] == 0
    every = list(measured)
    assert len(every) >= 4 * blocks
    for kept in range(len(every)):
        keep(tmp_path / "run", *range(kept))
        measured.clear()
        assert command("run", "--resume", tmp_path / "run")[0] == 0
        assert measured == every[kept:]


def test_what_a_run_does_not_say_cannot_be_asked_for(tmp_path):
    with pytest.raises(UserError, match="did you mean 'noisy'"):
        steps.parse_rerun("nosiy")
    with pytest.raises(UserError, match="there is no such folder"):
        campaign.begin(Asked(resume=str(tmp_path / "x")))


def test_records_may_come_in_any_order_from_anywhere(tmp_path):
    """Whoever measures the steps, the run is done when each has its record."""
    plan = Plan(grids=(Grid(axes={"seed": (0, 1)}),), settings=Settings(blocks=2))
    begun = campaign.Campaign(asked=Asked(out=tmp_path / "run"), plan=plan)
    assert begun.left == begun.undone == begun.planned
    assert not (tmp_path / "run").exists()
    for number, step in enumerate(reversed(begun.planned), start=1):
        begun.take(replace(record(), id=step.name, cell=step.cell, block=step.block, role=step.role))
        assert len(begun.undone) == len(begun.planned) - number
    assert load(tmp_path / "run").records == begun.records == begun.current()
    begun.release()
    again = campaign.begin(Asked(resume=str(tmp_path / "run")))
    assert (again.planned, again.left) == (begun.planned, [])


def test_a_step_is_known_by_what_its_record_is_known_by():
    grid = Grid(axes={"seed": (0, 1)})
    for step in steps.steps(Plan(grids=(grid,), settings=Settings(blocks=2))):
        made = replace(record(), cell=step.cell, block=step.block, role=step.role)
        assert identity(made) == step.identity


@pytest.mark.parametrize("isolate", ["none", "a process"])
@pytest.mark.parametrize("then", ["interrupted", "failed", "oom"])
def test_a_repetition_that_fails_does_not_undo_what_was_finished(then, isolate):
    answers = [replace(record(), validity="noisy"), replace(record(), status=then)]

    def measure(*_, **__):
        if then == "interrupted" and isolate == "none" and len(answers) == 1:
            raise KeyboardInterrupt
        return answers.pop(0)

    (step,) = [step for step in steps.steps(Plan(grids=(Grid(),), settings=Settings())) if step.role == "cell"]
    kept = measuring.run_step(step, Settings(retry_noisy=3), measure)
    assert (kept.status, kept.validity, kept.attempts) == ("ok", "noisy", 1)


def test_noisy_cells_are_repeated_as_often_as_asked():
    (step,) = [step for step in steps.steps(Plan(grids=(Grid(),), settings=Settings())) if step.role == "cell"]
    noisy, quiet = replace(record(), validity="noisy"), record()
    for answers, attempts in (([noisy] * 9, 4), ([noisy, quiet, quiet], 2), ([quiet] * 2, 1)):
        made, again = iter(answers), []

        def measure(*_, place, made=made, again=again):
            again.append(place.again)
            return next(made)

        kept = measuring.run_step(step, Settings(retry_noisy=3), measure)
        assert kept.attempts == attempts
        assert again == [False, True, True, True][:attempts]
        assert kept.validity == answers[attempts - 1].validity


@pytest.mark.exhaustive
def test_real_cells_go_on_to_the_same_bit(command, photos, tmp_path, monkeypatch):
    monkeypatch.setattr("tlbench.report.write_report", lambda records, folder: folder / "report.html")
    grid = options(TINY, {"--dataset": f"folder:{photos}", "--backbone": "mobilenet_v3_small", "--isolate": "none"})
    assert command("run", *grid, "--freeze=linear_probe,full", "--out", tmp_path / "run")[0] == 0
    whole = {identity(r): results(r) for r in load(tmp_path / "run").records}
    keep(tmp_path / "run", 0)
    assert command("run", "--resume", tmp_path / "run")[0] == 0
    again = load(tmp_path / "run").records
    assert len(again) == 2
    assert {identity(r): results(r) for r in again} == whole


# --- what is in the way ---------------------------------------------------------------------------------------


def full(folder):
    os.symlink("/dev/full", folder / RECORDS)


def missing(folder):
    folder.rmdir()


def folder_there(folder):
    (folder / RECORDS).mkdir()


@pytest.mark.parametrize(
    ("happens", "word"),
    [(full, "No space left"), (missing, "No such file"), (folder_there, "Is a directory")],
)
def test_a_folder_that_takes_no_more_ends_the_run_with_one_line(happens, word, command, measured, tmp_path):
    folder, aside = tmp_path / "run", tmp_path / "aside"

    def becomes(fake):
        if len(measured) == 3:
            aside.mkdir()
            for path in folder.iterdir():
                path.rename(aside / path.name)
            happens(folder)
        return fake

    measured.becomes = becomes
    status, _, err = command("run", *GRID, "--out", folder)
    assert status == 2
    line = err.strip().splitlines()[-1]
    assert line.startswith("tlbench: cannot write to")
    assert word in line
    assert "Traceback" not in err
    assert len(measured) == 3
    assert [r.id for r in load(aside).records] == ORDER[:2]
    measured.clear()
    measured.becomes = lambda fake: fake
    assert command("run", "--resume", aside)[0] == 0
    assert measured == ORDER[2:]


# --- a loss that is no number ---------------------------------------------------------------------------------


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("dataset", "reason"),
    [
        ("photos", r"epoch (\d): after it, the loss on the val images is (nan|inf)"),
        ("synthetic", r"epoch (\d): the loss became (nan|inf) at step \d+ of \d+"),
    ],
)
def test_a_cell_that_diverges_says_when_and_is_not_tried_again(dataset, reason, command, photos, tmp_path, monkeypatch):
    monkeypatch.setattr("tlbench.report.write_report", lambda records, folder: folder / "report.html")
    data = {"--dataset": f"folder:{photos}" if dataset == "photos" else dataset, "--train-size": "16"}
    grid = options(TINY, data, {"--backbone": "mobilenet_v3_small", "--isolate": "none"})
    # Rates this high overflow after a few steps.
    wild = ["--freeze=full", "--optimizer=sgd", "--lr=1000", "--backbone-lr=1000", "--schedule=constant", "--warmup=0"]
    status, out, err = command("run", *grid, *wild, "--epochs=9", "--out", tmp_path / "run")
    assert status == 1
    found = [r for r in load(tmp_path / "run").records if r.role == "cell"]
    assert [r.status for r in found] == ["diverged"]
    said = re.fullmatch(reason, found[0].reason)
    assert said, found[0].reason
    assert len(found[0].rounds) == int(said[1]) - (dataset == "synthetic")
    assert all(r.loss < float("inf") for r in found[0].rounds)
    assert found[0].accuracy_test is None
    assert "1/1 mobilenet_v3_small (random weights) full linear: DIVERGED" in " ".join(err.split())
    assert found[0].reason in " ".join(out.split())
    before = lines(tmp_path / "run")
    assert command("run", "--resume", tmp_path / "run")[0] == 1
    assert lines(tmp_path / "run") == before


# --- killed ---------------------------------------------------------------------------------------------------

KILLED_RUNS = int(os.environ.get("TLBENCH_KILLED_RUNS", "0"))
"""With 30, the grid has 12 cells and the moments differ every time; some 40 minutes on two cores."""
GRID_TO_KILL = {"--backbone": "mobilenet_v3_small", "--freeze": "linear_probe,full", "--seeds": "0"}
if KILLED_RUNS:
    GRID_TO_KILL = {
        "--backbone": "mobilenet_v3_small,resnet18",
        "--freeze": "linear_probe,last_1,full",
        "--seeds": "0,1",
    }
MOST_KILLS = 5 if KILLED_RUNS else 2
REPORTED = re.compile(r"^\d+/\d+ .+: \d+\.\d % on test", re.MULTILINE)


@pytest.fixture(scope="module")
def in_one_go(tmp_path_factory):
    """The options of a grid; its results in one go, in one process; the seconds that takes."""
    home = tmp_path_factory.mktemp("in-one-go")
    for split, count in (("train", 10), ("val", 4)):
        for label, color in (("dark", 20), ("light", 180)):
            for n in range(count):
                save_image(home / "photos" / split / label / f"{n}.jpg", color, seed=n)
    grid = options(TINY, GRID_TO_KILL, {"--dataset": f"folder:{home / 'photos'}"})
    begin = time.monotonic()
    process = start("run", *grid, "--isolate=none", f"--out={home / 'run'}", cwd=home, log=home / "log")
    assert process.wait() == 0, (home / "log").read_text()
    records = load(home / "run").records
    assert len(records) == (12 if KILLED_RUNS else 2)
    return grid, {identity(r): results(r) for r in records}, time.monotonic() - begin


@pytest.mark.exhaustive
@pytest.mark.parametrize("number", range(KILLED_RUNS or 2))
def test_a_run_that_is_killed_at_any_moment_ends_as_if_it_had_not_been(number, in_one_go, tmp_path):
    """With SIGKILL, at random moments, until it is done."""
    grid, expected, seconds = in_one_go
    chance = random.Random(None if KILLED_RUNS else number)
    log, folder = tmp_path / "log", tmp_path / "run"
    isolate = f"--isolate={('backbone', 'none')[number % 2]}"
    kills = 0
    while True:
        how = [f"--resume={folder}"] if (folder / RUN).exists() else [*grid, f"--out={folder}"]
        process = start("run", *how, isolate, cwd=tmp_path, log=log)
        if kills < MOST_KILLS:
            # A busy machine may have held it up; the first comes before it is done.
            until = time.monotonic() + chance.uniform(0, min(seconds, 60) * (1 if kills else 0.5))
            while time.monotonic() < until and process.poll() is None:
                time.sleep(0.02)
        else:
            process.wait()
        own = children(process.pid)
        process.kill()
        if process.wait() != -signal.SIGKILL:
            break
        kills += 1
        assert gone(own), "a child outlived its parent"
        if (folder / RUN).exists():
            there, reported = len(load(folder).records), len(REPORTED.findall(log.read_text()))
            # One more may have been written, but not yet been reported.
            assert reported <= there <= reported + kills
    assert process.returncode == 0, log.read_text()
    assert kills > 0, "it was done before the first"
    loaded = load(folder)
    assert Counter(map(identity, loaded.records)) == dict.fromkeys(expected, 1), "each is there exactly once"
    assert current(loaded.records) == loaded.records
    assert [results(r) for r in loaded.records] == [expected[identity(r)] for r in loaded.records]
    print(f"run {number} ({isolate}): {kills} kills, {len(loaded.damaged)} torn lines")


# --- what reads a run that was resumed ----------------------------------------------------------------------------


@pytest.mark.exhaustive
def test_whatever_reads_a_resumed_run_takes_what_counts(command, tmp_path):
    """Earlier tries of a cell are in the file, and nowhere else: not in a table, a verdict, a comparison or a frame."""
    made = [record(freeze=freeze, seconds=(1.0, 1.0, 1.0)) for freeze in ("linear_probe", "full")]
    plain, resumed = tmp_path / "at_once", tmp_path / "resumed"  # as long: lines are wrapped by their length
    for one in made:
        Store(plain).append(one)
    for one in made:
        Store(resumed).append(replace(failure("failed", "no such kernel"), cell=one.cell, id=one.id))
    Store(resumed).append(replace(made[0], rounds=tuple(replace(r, seconds=9.0) for r in made[0].rounds)))
    for one in made:
        Store(resumed).append(one)
    assert len(load(resumed).records) == 5
    for words in (["export"], ["summary"], ["efficiency"], ["recommend"]):
        (*seen, silent), (*again, said) = (command(*words, run) for run in (plain, resumed))
        assert seen[0] == again[0]
        plainly = ["".join(text.split()) for text in (seen[1], again[1])]  # a long path is broken
        assert plainly[0] == plainly[1].replace(str(resumed), str(plain)), words
        assert said == "tlbench: 3 earlier records superseded by later measurements of the same cells\n" + silent
    command("report", resumed)
    assert "no such kernel" not in (resumed / "report.md").read_text()
    assert len(tlbench.load(resumed)) == 2
    status, _, err = command("compare", plain, resumed)
    assert status == 2
    assert "are the same measurements" in err, "what was superseded does not make a copy another run"
    other = tmp_path / "other"
    for one in made:
        Store(other).append(replace(one, started="2026-02-01T00:00:00+00:00"))
    (*seen, _), (*again, _) = (command("compare", other, run, "--noise-floor", "0.05") for run in (plain, resumed))
    assert seen[0] == 0
    assert seen[1].replace("at_once", "resumed") == again[1]
    assert "no such kernel" not in again[1]


def test_a_run_does_not_go_on_where_a_name_has_changed_its_meaning(tmp_path, command, measured):
    """The faked records keep no version, as those of an older tlbench."""
    options = ["--isolate=none", "--threads=1"]
    assert command("run", f"--out={tmp_path / 'run'}", "--freeze=layer_decay,full", "--seeds=0", *options)[0] == 0
    asked = len(measured)
    assert command("run", f"--resume={tmp_path / 'run'}")[0] == 0, "nothing is left of it"
    status, _, err = command("run", f"--resume={tmp_path / 'run'}", "--freeze=layer_decay", "--seeds=1")
    assert status == 2
    assert len(err.splitlines()) == 1
    assert "layer_decay means something else since then (version 1 there, 2 here); start a new run" in err
    assert len(measured) == asked
    assert command("run", f"--resume={tmp_path / 'run'}", "--freeze=full", "--seeds=1")[0] == 0
