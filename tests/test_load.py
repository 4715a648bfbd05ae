"""Many records and many images: work that grows with their number and no faster, and nothing that is done twice.

Times and memory of 50,000 records and 100,000 images are measured by `bench/load.py`; here the work is counted.
"""

import errno
import gc
import importlib.util
import io
import json
import os
import random
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, features
from records import example_run, record
from rich.console import Console

from tlbench.analysis import figures, learning, stats, summary
from tlbench.analysis.compare import compare
from tlbench.analysis.figures import Row, column
from tlbench.analysis.frame import row, rows, write_csv
from tlbench.analysis.record_source import Source
from tlbench.analysis.repetitions import Sides
from tlbench.analysis.sides import METRICS, Run, read_run
from tlbench.analysis.summary import summarise
from tlbench.backbones import input_of
from tlbench.campaign.asked import parse_asked
from tlbench.campaign.campaign import begin
from tlbench.campaign.check import check, decode_images
from tlbench.cli.app import read_records
from tlbench.cli.comparing import read_sides
from tlbench.data import decode as decode_module
from tlbench.data import decoding, facts, scan
from tlbench.data.budget import NoRoom
from tlbench.errors import NotApplicable
from tlbench.grid.cell import Cell
from tlbench.grid.grid import Grid
from tlbench.grid.settings import Settings
from tlbench.grid.values import written_size
from tlbench.machine import locks
from tlbench.machine.kept import KEPT
from tlbench.measure.images import describe_images
from tlbench.progress.decoding import Decoding
from tlbench.records import arrays as packing
from tlbench.records import images, lines, resuming, strict_json
from tlbench.records.alike import CUTS
from tlbench.records.images import SplitResults
from tlbench.records.lines import decode, encode, read, read_file
from tlbench.records.run_folder import Store, load
from tlbench.report.plots import PLOTS, draw
from tlbench.report.plots.draw import with_more


@pytest.fixture
def counted(monkeypatch):
    """Counts the calls of functions: ``counted(module, "name")``, then the counter it gives by that name."""
    calls, lock = Counter(), threading.Lock()

    def count(owner, name):
        original = getattr(owner, name)

        def counting(*arguments, **words):
            with lock:
                calls[name] += 1
            return original(*arguments, **words)

        monkeypatch.setattr(owner, name, counting)
        return calls

    return count


def bench(name):
    """A script of bench/ as a module."""
    path = Path(__file__).resolve().parents[1] / "bench" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"bench_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- lines ----------------------------------------------------------------------------------------------------

STAGES = tuple({"name": f"stage {n}", "parameters": n, "flops": 2.5 * n, "shape": [64, n]} for n in range(5))
ENVIRONMENT = {
    "stable": {"os": "Linux", "cpu_count": 2, "torch": "2.11.0", "ü": "\u2028\udcff"},
    "settings": {"threads": 2, "variables": {}},
    "arithmetic": {"tf32_matmul": False},
    "volatile": {"before": {"load_1min": 0.5}, "after": {"load_1min": 0.25}},
}


def seeds(count=6, **given):
    changing = {"volatile": {"after": {"load_1min": 1e-5}}}
    return [
        record(
            seed=seed % 3, block=seed // 3, **{"stages": STAGES, "environment": {**ENVIRONMENT, **changing}, **given}
        )
        for seed in range(count)
    ]


ALIKE = {
    "seeds of a cell": seeds(),
    "the example": example_run(policies=("linear_probe", "norm"), seeds=(0, 1)),
    "no stages": seeds(stages=()),
    "no environment": seeds(environment={}),
    "an environment in another order": seeds(environment=dict(reversed(ENVIRONMENT.items()))),
    "an environment that says more": seeds(environment={**ENVIRONMENT, "zones": 1}),
    "an environment without what changes": seeds(environment={"stable": {"os": "Linux"}}),
    "what changes is no mapping": seeds(environment={"stable": {"os": "Linux"}, "volatile": None}),
    "names of parts deeper down": seeds(prefix={"settings": None, "stages": None, "environment": {"volatile": 1}}),
    "texts of parts in texts": seeds(reason='"settings":null "stages":[] "environment":{"stable":{'),
    "several backbones in turns": [r for n in range(3) for r in seeds(2, stages=STAGES[n:])],
    "several settings in turns": [
        replace(r, settings=Settings(threads=n)) for n in (1, 2, 1) for r in seeds(2, environment=ENVIRONMENT)
    ],
    "whole numbers and fractions": [*seeds(2, lr=1.0), *seeds(2, lr=1), *seeds(2, recipe={"lr": True})],
    "minus zero": [*seeds(2, recipe={"lr": 0.0}), *seeds(2, recipe={"lr": -0.0})],
}


@pytest.mark.parametrize("case", ALIKE)
def test_lines_read_together_say_what_each_says_by_itself(case):
    written = [encode(one) for one in ALIKE[case]]
    loaded = read("".join(written).encode(), "x")
    assert not loaded.damaged
    assert list(map(repr, loaded.records)) == [repr(decode(line)) for line in written]
    assert list(map(encode, loaded.records)) == written


CHANGES = {
    "a figure": lambda line: line.replace('"accuracy_test":0.9', '"accuracy_test":0.8'),
    "the settings": lambda line: line.replace('"deterministic":true', '"deterministic":false'),
    "a stage": lambda line: line.replace('"parameters":3', '"parameters":4'),
    "the environment": lambda line: line.replace('"cpu_count":2', '"cpu_count":3'),
    "infinity": lambda line: line.replace('"accuracy_test":0.9', '"accuracy_test":1e999'),
    "NaN": lambda line: line.replace('"accuracy_test":0.9', '"accuracy_test":NaN'),
    "a key twice": lambda line: line.replace('"status":"ok"', '"status":"failed","status":"ok"'),
    "settings twice": lambda line: line.replace('"status":"ok"', '"settings":null,"status":"ok"'),
    "no settings": lambda line: line.replace('"settings":{', '"settinks":{', 1),
    "stages of nothing": lambda line: line.replace('"stages":[', '"stages":null,"stagez":['),
    "more at the end": lambda line: line + "{}",
}


@pytest.mark.parametrize("case", CHANGES)
def test_a_changed_line_among_others_is_refused_for_the_same_reason(case):
    written = [encode(one).strip() for one in seeds()]
    written[3] = CHANGES[case](written[3])
    assert written[3] != encode(seeds()[3]).strip()
    with pytest.raises(ValueError) as caught:
        decode(written[3])
    loaded = read("\n".join([*written, ""]).encode(), "x")
    assert loaded.damaged == [f"x:4: {caught.value}"]
    assert [r.cell.seed for r in loaded.records] == [0, 1, 2, 1, 2]


@pytest.mark.parametrize(
    "change",
    [
        lambda line: json.dumps(json.loads(line)),
        lambda line: json.dumps(dict(reversed(json.loads(line).items()))),
        lambda line: line.replace("0.9", "9e-1"),
    ],
)
def test_a_line_that_says_the_same_in_another_way_is_read_among_others(change):
    written = [encode(one).strip() for one in seeds()]
    other = [*written[:3], change(written[3]), *written[4:]]
    assert list(map(repr, read("\n".join(other).encode(), "x").records)) == list(map(repr, seeds()))


def test_what_lines_have_in_common_is_parsed_and_kept_once(counted):
    content = "".join(map(encode, seeds(60))).encode()
    calls = counted(lines, "unseal")
    found = read(content, "x").records
    assert calls["unseal"] == 0
    assert len(found) == 60
    assert len({id(one.settings) for one in found}) == 1
    assert len({id(one.stages) for one in found}) == 1
    assert len({id(one.environment["stable"]) for one in found}) == 1
    assert len({id(one.weights) for one in found}) == 1
    assert len({id(one.cell) for one in found}) == 3, "of three seeds in twenty blocks"


@pytest.mark.parametrize("count", [20, 60])
def test_what_lines_have_in_common_costs_the_same_however_many_there_are(count, counted):
    """Each further line costs a few small pieces that are parsed anew, and nothing that is parsed strictly."""
    anew = len([kept for kept in CUTS.values() if not kept]) - 1  # the last two follow each other
    content = "".join(map(encode, seeds(count))).encode()
    calls = counted(strict_json, "loads")
    counted(strict_json, "loads_plainly")
    assert len(read(content, "x").records) == count
    blocks = count // 3 + 1
    assert calls["loads"] <= len(CUTS) - anew + 2 + blocks, "of three seeds, whose cells differ, in some blocks"
    assert calls["loads_plainly"] == count, "what is another in every line is parsed at once"


def test_what_a_command_reads_is_not_looked_through_for_garbage(tmp_path, monkeypatch):
    for one in seeds(3):
        Store(tmp_path).append(one)
    enabled = []
    monkeypatch.setattr(gc, "freeze", lambda: enabled.append(gc.isenabled()))
    read_records([tmp_path])
    read_sides([tmp_path])
    assert enabled == [False, False], "nor is it before that"
    assert gc.isenabled()


def test_of_a_file_that_grows_what_was_there_is_read(tmp_path):
    path = tmp_path / "records.jsonl"
    written = [encode(one).encode() for one in seeds()]
    path.write_bytes(b"".join(written[:4]))
    size = path.stat().st_size
    with path.open("rb") as file, path.open("ab") as more:
        more.write(written[4] + written[5][:20])
        more.flush()
        assert len(read_file(file, size, "x").records) == 4


def test_nobody_who_measures_waits_for_a_reader(tmp_path, monkeypatch):
    store = Store(tmp_path)
    for one in seeds(3):
        store.append(one)
    free = []

    def look(*arguments):
        with store.path.open("rb") as file:
            free.append(locks.try_lock(file))
        return lines.Loaded(records=[], damaged=[])

    monkeypatch.setattr("tlbench.records.run_folder.read_file", look)
    load(tmp_path)
    assert free == [True]


def test_the_key_of_a_cell_is_made_once_for_all_its_blocks(counted):
    found = read("".join(map(encode, seeds(60))).encode(), "x").records
    calls = counted(resuming, "standard")
    assert resuming.current(found) == found
    assert calls["standard"] <= 2 * 3


def test_what_counts_of_a_run_is_the_same_whatever_hashes_say(monkeypatch):
    """Cells of equal hashes need not be equal."""
    found = [one for n in range(3) for one in example_run(policies=("full", "norm"), seeds=(n % 2,))]
    found += [replace(one, status="failed") for one in found[:5]]
    expected = resuming.current(found)
    assert len(expected) < len(found)
    monkeypatch.setattr(resuming, "hash", lambda value: 0, raising=False)
    assert resuming.current(found) == expected


# --- figures --------------------------------------------------------------------------------------------------


def test_a_figure_is_what_its_reader_takes_from_the_record_whenever_it_is_asked_for():
    records = example_run(policies=("linear_probe", "lp_ft"), seeds=(0,), devices=("cpu", "cuda"))
    table = rows(records, "a run")
    for item, one in zip(reversed(table), reversed(records), strict=True):
        expected = {name: read(Source(record=one, run="a run")) for name, read in figures.READERS.items()}
        assert repr({name: item[name] for name in reversed(figures.FIGURES)}) == repr(dict(reversed(expected.items())))
        assert repr(dict(item)) == repr({**expected, "record": one})
        assert dict(row(one, "a run")) == dict(item)


def test_a_column_is_taken_from_the_records_and_no_row_keeps_it():
    table = rows([record(seed=seed) for seed in range(3)])
    known = table[0].epoch_seconds
    assert column(table, "epoch_seconds") == [known] * 3
    assert [_kept(item) for item in table] == [{"epoch_seconds"}, set(), set()]
    assert column([Row(**{name: table[0][name] for name in figures.FIGURES})], "epoch_seconds") == [known]


def _kept(item):
    found = set()
    for name in figures.READERS:
        with suppress(AttributeError):
            object.__getattribute__(item, name)
            found.add(name)
    return found


@pytest.mark.parametrize("status", ["ok", "failed", "oom"])
def test_runs_are_held_against_each_other_by_the_values_that_a_summary_has(status):
    made = [*example_run(seeds=(0, 1, 2)), *seeds(18, environment=ENVIRONMENT)]
    made = [replace(one, status=status) if n % 5 == 0 else one for n, one in enumerate(made)]
    table = rows(made, "a run")
    columns = {name: column(table, name) for name in METRICS}
    found, whole = summary.values_of(table, columns), summarise(table)
    assert len(found) == len(whole) > 3
    for one, other in zip(found, whole, strict=True):
        assert all(one[name] == other[name] for name in one if name != "values")
        assert one["values"] == {name: value for name, value in other["values"].items() if name in METRICS}


def test_a_side_of_a_comparison_keeps_neither_rounds_nor_environments(tmp_path):
    for each in (record(seed=seed, latency=(0.1,) * 30) for seed in range(3)):
        Store(tmp_path).append(each)
    run = read_run(tmp_path)
    (cell,) = run.rows
    assert len(run.values[cell]["epoch_seconds"]) == 3
    kept = [item.record for item in run.rows[cell]]
    assert [(one.cell.seed, one.accuracy_test, one.samples["val"]) for one in kept] == [(n, 0.9, 200) for n in range(3)]
    assert not any(one.rounds or one.latency_seconds or one.environment for one in kept)


def test_a_row_has_nothing_but_its_figures_and_its_record():
    item = row(record())
    assert [*item] == [*figures.FIGURES, "record"]
    assert len(item) == len([*item])
    for name in ("nothing", "keys", "has_valid_times", "source"):
        with pytest.raises(KeyError):
            item[name]
        assert item.get(name) is None
    with pytest.raises(AttributeError):
        _ = item.nothing


def test_an_export_works_out_what_it_writes_and_nothing_else(monkeypatch):
    taken = Counter()

    def counting(name, read):
        def reading(source):
            taken[name] += 1
            return read(source)

        return reading

    monkeypatch.setattr(figures, "READERS", {n: counting(n, r) for n, r in figures.READERS.items()})
    table = rows(example_run(), "a run")
    write_csv(table, io.StringIO())
    assert set(taken) == set(figures.EXPORT_COLUMNS)
    assert set(taken.values()) == {len(table)}
    assert not any(map(_kept, table)), "as none is asked for again"


# --- growth ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [20, 80])
def test_a_configuration_is_looked_through_as_often_however_many_records_it_has(count, counted):
    table = rows(seeds(count, environment=ENVIRONMENT), "a run")
    calls = counted(summary, "_units")
    assert len(summarise(table)) == 1
    assert calls["_units"] <= 2


@pytest.mark.parametrize("count", [5, 20])
def test_cells_of_two_runs_are_listed_as_often_however_many_there_are(count, counted):
    values = {f"train {n}": {"epoch_seconds": {0: 1.0, 1: 1.1}} for n in range(count)}
    calls = counted(Sides, "cells")
    compare([Run(name="a", values=values)], [Run(name="b", values=values)])
    assert calls["cells"] <= 6


def test_whether_a_configuration_learned_anything_is_worked_out_once(counted):
    many = [r for seed in range(3) for r in example_run(policies=("full",), seeds=(seed,))]
    table = summarise(rows(many, "a run"))
    trained = [one for one in table if one["task"] == "train" and one["seeds"] > 1]
    learning._counted_end.cache_clear()
    calls = counted(stats, "accuracy_interval")
    first = [learning.learned_nothing(one) for one in trained]
    assert calls["accuracy_interval"] <= len(trained)
    assert [learning.learned_nothing(dict(one)) for one in trained] == first
    assert calls["accuracy_interval"] <= len(trained)


def test_a_point_of_each_record_copies_no_configuration(counted):
    made = [replace(r, environment=ENVIRONMENT) for r in example_run(policies=("full",), heads=("linear",))]
    table = summarise(rows(made, "a run"))
    point = with_more(table[0], spread=1)
    assert (point["spread"], point["backbone"], point.get("nothing")) == (1, table[0]["backbone"], None)
    calls = counted(draw, "tell")
    PLOTS["noise"].draw(table)
    assert calls["tell"] == len(table), "once a configuration, not once a record"


@pytest.mark.parametrize("shape", [(3, 2, 2), (6, 1, 1)])
def test_the_made_up_records_of_the_benchmark_are_records(shape):
    written = "".join(bench("load").lines_of(*shape))
    loaded = read(written.encode(), "x")
    assert not loaded.damaged
    assert len(summarise(rows(loaded.records, "x"))) == shape[0] + 1


# --- images ---------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def nothing_known(tmp_path, monkeypatch):
    monkeypatch.setenv("TLBENCH_CACHE", str(tmp_path / "cache"))
    KEPT.images.forget()
    yield
    KEPT.images.forget()


@pytest.fixture
def opened(counted):
    """How many images were opened so far."""
    calls = counted(decoding, "read_photograph")
    return lambda: calls["read_photograph"]


def checked(root, **options):
    """What a check says and sees, in a process that has no images yet, and keeps none."""
    KEPT.images.forget()
    said, found = [], {}
    axes = {"dataset": (f"folder:{root}",), "weights": ("random",), "image_size": (32,), "seed": (0, 1)}
    check(
        Grid(axes=axes),
        Settings(data_disk_bytes=0),
        said.append,
        lambda name, has: found.update({name: has}),
        **options,
    )
    return said, found[f"folder:{root}"]


DRY = ("--dry-run", "--backbone=resnet18", "--freeze=full", "--weights=random", "--image-size=32")


def test_a_dry_run_opens_no_image(command, photos, opened):
    status, out, err = command("run", photos, *DRY)
    assert (status, opened()) == (0, 0)
    assert len(out.splitlines()) == 1
    size = written_size(sum(file.stat().st_size for file in photos.rglob("*.jpg")))
    said = " ".join(err.split())
    assert f"24 images in 2 classes, {size}: about 14 to train on, about 2 to validate on, 8 to test on" in said
    assert "not looked for: that takes opening the files" in said


def test_a_dry_run_says_what_an_earlier_check_has_found(command, photos, opened):
    said, _ = checked(photos)
    KEPT.images.forget()
    _, _, err = command("run", photos, *DRY)
    assert opened() == 24
    for line in said:
        assert line.removeprefix(f"folder:{photos}: ") in " ".join(err.split())


def test_a_second_check_opens_nothing_and_says_the_same(photos, opened):
    first = checked(photos)
    assert opened() == 24, "once for both seeds"
    assert checked(photos) == first
    assert opened() == 24


def _touched(root):
    os.utime(root / "train/dark/0.jpg", ns=(1, 1))


def _replaced(root):
    Image.new("RGB", (40, 40), (1, 2, 3)).save(root / "train/dark/0.jpg")


ELSEWISE = {
    "another time": _touched,
    "another file of that name": _replaced,
    "another name": lambda root: (root / "train/dark/0.jpg").rename(root / "train/dark/z.jpg"),
    "a file less": lambda root: (root / "train/dark/0.jpg").unlink(),
    "a file more": lambda root: Image.new("RGB", (40, 40), (1, 2, 3)).save(root / "val/light/more.png"),
}


@pytest.mark.parametrize("change", ELSEWISE)
def test_a_folder_that_has_changed_is_opened_again(change, photos, opened):
    checked(photos)
    ELSEWISE[change](photos)
    checked(photos)
    assert opened() == 24 + len([*photos.rglob("*.*")])


def _cut_short(path):
    path.write_bytes(path.read_bytes()[:-1])


def _turned(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [_cut_short, _turned, lambda path: path.write_bytes(b""), Path.unlink])
def test_what_is_kept_and_damaged_is_found_again(harm, photos, opened):
    first = checked(photos)
    (path,) = facts.folder().glob(f"*{facts.ENDING}")
    harm(path)
    assert checked(photos) == first
    assert opened() == 48
    assert checked(photos) == first
    assert opened() == 48, "it was kept anew"


def test_a_cache_that_cannot_be_written_is_no_error(photos, opened, monkeypatch):
    place = photos.parent / "a file"
    place.write_text("")
    monkeypatch.setenv("TLBENCH_CACHE", str(place))
    assert checked(photos) == checked(photos)
    assert opened() == 48


def skipped(root):
    """What is said of bad images that are skipped, in a process that has no images yet; a check sees as many."""
    KEPT.images.forget()
    found, settings = {}, Settings(bad_images="skip", data_disk_bytes=0)
    cell = Cell(dataset=f"folder:{root}", backbone="resnet18", weights="random", image_size=32)
    axes = {"dataset": (cell.dataset,), "backbone": ("resnet18",), "weights": ("random",), "image_size": (32,)}
    check(Grid(axes=axes), settings, see=found.__setitem__)
    said = describe_images(cell, settings, input_of("resnet18"), 32, decode=False)
    assert len(said.dropped) == found[cell.dataset].dropped
    return said.dropped


def _thin(path):
    Image.new("RGB", (100_000, 1)).save(path, "PNG")


BROKEN = {
    "no image": lambda path: path.write_bytes(b"no image"),
    "empty": lambda path: path.write_bytes(b""),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:400]),
    "too long and thin": _thin,
    "HEIC, maybe without its decoder": lambda path: path.write_bytes(b"\0\0\0\x18ftypheic" + bytes(40)),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_wrong_with_the_content_of_a_file_is_looked_at_once(case, photos, opened, command):
    """Among 100,000 images one would have all of them looked at anew at each start."""
    BROKEN[case](photos / "train/dark/0.jpg")
    first = skipped(photos)
    assert (len(first), opened()) == (1, 24)
    assert skipped(photos) == first
    assert opened() == 24
    KEPT.images.forget()
    _, _, err = command("run", photos, *DRY, "--bad-images=skip")
    assert opened() == 24
    assert "not looked for" not in err
    assert "1 more could not be read and are left out" in " ".join(err.split())
    Image.new("RGB", (40, 40), (1, 2, 3)).save(photos / "train/dark/0.jpg")
    assert skipped(photos) == ()
    assert opened() == 48


def test_a_folder_whose_path_speaks_of_memory_is_kept_as_others_are(photos, opened):
    """PIL has the path in what it says of a file that is no image."""
    (photos / "train/dark/0.jpg").write_bytes(b"no image")
    place = photos.rename(photos.with_name("memory"))
    for _ in range(2):
        assert len(skipped(place)) == 1
        assert opened() == 24


def test_a_plugin_that_has_pil_take_files_which_end_too_early_changes_what_is_kept(photos, monkeypatch):
    file = photos / "train/dark/0.jpg"
    file.write_bytes(file.read_bytes()[:-20])
    assert len(skipped(photos)) == 1
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert skipped(photos) == ()


class _Fails(io.RawIOBase):
    """A file on a disk that fails after its first bytes."""

    def __init__(self, path):
        self._begin = path.read_bytes()[:100]

    def readable(self):
        return True

    def readinto(self, buffer):
        if not self._begin:
            raise OSError(errno.EIO, "Input/output error")
        count = min(len(buffer), len(self._begin))
        buffer[:count], self._begin = self._begin[:count], self._begin[count:]
        return count


def _raises(error):
    def fail(*_):
        raise error

    return fail


SYSTEM = {
    "not allowed": (_raises(PermissionError(errno.EACCES, "Permission denied")), "Permission denied"),
    "a disk that fails": (_raises(OSError(errno.EIO, "Input/output error")), "Input/output error"),
    "while it is read": (lambda path: io.BufferedReader(_Fails(path), 100), "Input/output error"),
    "vanished": (_raises(FileNotFoundError(errno.ENOENT, "No such file or directory")), "No such file"),
    "PIL without memory": (_raises(OSError("out of memory error when reading image file")), "out of memory"),
    "a package that cannot be imported": (_raises(ImportError("libheif.so.1")), "libheif.so.1"),
    "too large for now": (_raises(NoRoom("to decode it takes 9.0 GB, and 1.0 GB are free")), "are free"),
}


@pytest.mark.parametrize("case", SYSTEM)
def test_what_the_system_cannot_read_is_tried_again(case, photos, opened, monkeypatch):
    fail, words = SYSTEM[case]

    def open_(path, *arguments):
        return fail(path) if str(path).endswith("train/dark/0.jpg") else open(path, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(decode_module, "open", open_, raising=False)
        for times in (1, 2):
            (said,) = skipped(photos)
            assert words in said
            assert opened() == 24 * times
    assert skipped(photos) == ()
    assert opened() == 72


def test_a_decoder_that_calls_a_failing_disk_broken_content_is_not_believed(photos, opened, monkeypatch):
    """libtiff does."""
    (photos / "train/dark/0.jpg").write_bytes(b"no image")
    real = decoding.identity_of

    def fails(file):
        if file == photos / "train/dark/0.jpg":
            raise OSError(errno.EIO, "Input/output error")
        return real(file)

    with monkeypatch.context() as patched:
        patched.setattr(decoding, "identity_of", fails)
        for times in (1, 2):
            assert len(skipped(photos)) == 1
            assert opened() == 24 * times
    for _ in range(2):
        assert len(skipped(photos)) == 1
        assert opened() == 72


@pytest.mark.parametrize("decoder", ["avif", "jpg_2000", "webp", "heic"])
def test_what_was_found_without_a_decoder_is_not_taken_where_there_is_one(decoder, monkeypatch):
    """What is wrong with a file may be that nothing here reads it."""
    real, kept = features.version, facts.code()
    monkeypatch.setattr(features, "version", lambda name: "9.9" if name == decoder else real(name))
    if decoder == "heic":
        monkeypatch.setattr(facts.heif, "installed", lambda: "9.9")
    assert facts.code.__wrapped__() != kept


def test_other_code_may_find_other_things(photos, opened, monkeypatch):
    checked(photos)
    monkeypatch.setattr(facts, "code", lambda: "another version")
    checked(photos)
    assert opened() == 48


def test_what_is_kept_stays_in_bounds_and_leaves_nothing_half(photos, monkeypatch):
    monkeypatch.setattr(facts, "MOST", 2)
    for size in range(32, 37):
        axes = {"dataset": (f"folder:{photos}",), "weights": ("random",), "image_size": (size,)}
        check(Grid(axes=axes), Settings())
    assert len(list(facts.folder().iterdir())) == 2


def test_a_backbone_that_takes_no_such_images_stops_neither_check_nor_run(photos, monkeypatch):
    real = input_of

    def one_refuses(name):
        if name == "resnet18":
            raise NotApplicable("it takes images that are not square")
        return real(name)

    monkeypatch.setattr("tlbench.campaign.check.input_of", one_refuses)
    axes = {"dataset": (f"folder:{photos}",), "weights": ("random",), "image_size": (32,)}
    found = {}
    check(Grid(axes={**axes, "backbone": ("resnet18", "resnet34")}), Settings(), see=found.__setitem__)
    assert found[f"folder:{photos}"].images
    check(Grid(axes={**axes, "backbone": ("resnet18",)}), Settings())
    decode_images([Cell(dataset=f"folder:{photos}", backbone="resnet18")], Settings())


def test_the_cache_command_counts_and_clears_what_is_kept_and_nothing_else(photos, command):
    checked(photos)
    other = facts.folder() / "mine.facts"
    other.write_text("")
    assert "beside them: 1 file of what checks found in images" in command("cache")[1]
    assert "removed: 1 file of what checks found in images" in command("cache", "--clear")[1]
    assert list(facts.folder().iterdir()) == [other]
    assert "what checks found" not in command("cache")[1]


def test_what_is_kept_is_all_that_is_known_but_pixels(photos):
    from tlbench.data import Request, describe_data, load_data

    request = Request(size=32, resize=36, interpolation="bilinear", seed=1)
    loaded = load_data(f"folder:{photos}", request, 5)
    KEPT.images.forget()
    known = describe_data(f"folder:{photos}", request, 5, decode=False)
    assert repr(vars(known)) == repr({name: getattr(loaded, name) for name in vars(known)})
    assert describe_data(f"folder:{photos}", replace(request, size=31), decode=False) is None


def test_a_run_after_a_check_decodes_once_for_all_its_processes(photos, opened, monkeypatch):
    checked(photos)
    options = {"dataset": f"folder:{photos}", "weights": "random", "image-size": "32", "freeze": "linear_probe"}
    KEPT.images.forget()
    campaign = begin(parse_asked({**options, "seeds": "0,1", "out": str(photos.parent / "run"), "isolate": "backbone"}))
    assert opened() == 24
    campaign.decode_images()
    campaign.decode_images()
    assert opened() == 48, "the check kept none"
    assert len(KEPT.images) == 1
    KEPT.images.forget()
    decode_images([step.cell for step in campaign.left], Settings(isolate="backbone"))
    assert opened() == 48, "its pixels are on the disk"
    assert len(KEPT.images) == 1
    campaign.release()


def test_a_folder_is_listed_once_by_a_check(photos, counted):
    checked(photos)
    calls = counted(scan, "_scan")
    checked(photos)
    assert calls["_scan"] == 1
    scan.scan(str(photos))
    scan.scan(str(photos))
    assert calls["_scan"] == 3, "outside of a check a folder may change at any time"


LAYOUTS = {
    "all parts": ({"train": 5, "val": 3, "test": 4}, (10, 6, 8), ""),
    "no test": ({"train": 20, "val": 3}, (34, 6, 6), "train val"),
    "no val": ({"train": 20, "test": 3}, (34, 6, 6), "train val"),
    "classes": ({"": 20}, (27, 5, 8), "train val test"),  # of one of five folds
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_images_are_counted_by_the_names_of_their_files(layout, tmp_path):
    counts, expected, about = LAYOUTS[layout]
    for part, count in counts.items():
        for name in ("a", "b"):
            place = tmp_path / "photos" / part / name
            place.mkdir(parents=True)
            for n in range(count):
                (place / f"{n}.png").write_bytes(b"12345")
    _, found = checked(tmp_path / "photos", decode=False)
    assert found.splits == expected
    assert found.about == set(about.split())
    assert (found.images, found.classes) == (2 * sum(counts.values()), 2)
    assert found.bytes == 5 * found.images


# --- how far decoding is --------------------------------------------------------------------------------------


def test_decoding_is_followed_in_a_log():
    clock = iter([0.0, 1.0, 3.0, 10.0, 40.0, 50.0])
    console = Console(file=io.StringIO(), width=80)
    decoding = Decoding(console, lambda: next(clock))
    for done in (1, 10, 100, 200, 500, 1000):
        decoding(done, 1000)
    assert console.file.getvalue().splitlines() == [
        "decoding images: 100 of 1,000, 0:27 left",
        "decoding images: 500 of 1,000, 0:40 left",
    ]


def test_few_images_need_no_word(photos):
    console = Console(file=io.StringIO(), force_terminal=True)
    decoding = Decoding(console)
    from tlbench.data.watching import watched

    with watched(decoding):
        checked(photos)
    assert console.file.getvalue() == ""


def test_decoding_moves_on_a_terminal():
    clock = iter([0.0, 3.0, 4.0, 5.0])
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    decoding = Decoding(console, lambda: next(clock))
    for done in (1, 500, 600, 1000):
        decoding(done, 1000)
    assert " of 1,000, " in console.file.getvalue()
    assert decoding._status is None, "at the end it is gone"


# --- results on single images ---------------------------------------------------------------------------------

WHOLE = [
    {"val.predictions": np.arange(250, dtype=np.uint8), "test.predictions": np.arange(300, dtype=np.uint16)},
    {"images": np.arange(320, dtype=np.uint8).reshape(20, 16), "labels": np.array([3], np.uint32)},
    {"labels": np.zeros(0, np.uint8)},
]


@pytest.mark.parametrize("arrays", WHOLE)
def test_whole_numbers_are_read_as_numpy_reads_them(arrays, monkeypatch):
    content = packing.pack(arrays)
    with np.load(io.BytesIO(content)) as file:
        expected = {name: file[name] for name in file.files}
    monkeypatch.setattr(np, "load", None)
    found = packing.unpack(content)
    assert [(n, a.dtype, a.shape, a.tolist()) for n, a in found.items()] == [
        (n, a.dtype, a.shape, a.tolist()) for n, a in expected.items()
    ]


@pytest.mark.parametrize(
    "array", [np.ones(3), np.ones((2, 2, 2), np.uint8), np.array(3), np.asfortranarray([[1, 2], [3, 4]])]
)
def test_other_arrays_are_left_to_numpy(array):
    assert packing._plainly(packing.pack({"x": array})) is None
    assert np.array_equal(packing.unpack(packing.pack({"x": array}))["x"], array)


def test_a_changed_file_of_results_is_never_other_numbers():
    content = packing.pack(WHOLE[0])
    generator = random.Random(0)
    for _ in range(1500):
        changed = bytearray(content)
        changed[generator.randrange(len(changed))] = generator.randrange(256)
        found = packing._plainly(bytes(changed[: generator.choice((len(changed), generator.randrange(len(changed))))]))
        for name, array in (found or {}).items():
            assert any(np.array_equal(array, one) for one in WHOLE[0].values()), name


def test_a_reader_keeps_no_more_than_it_may(tmp_path, monkeypatch):
    splits = {"val": SplitResults(images=np.zeros((9, 16), np.uint8), labels=np.arange(9), predictions=np.arange(9))}
    names = [
        images.write(tmp_path, {"val": replace(splits["val"], predictions=np.arange(9) + shift)}) for shift in range(20)
    ]
    monkeypatch.setattr(images, "MOST_BYTES", 200)
    reader = images.Reader(tmp_path)
    for _ in range(2):
        for shift, name in enumerate(names):
            assert reader.split(name, "val").predictions.tolist() == list(range(shift, shift + 9))
            assert sum(images._bytes_of(one) for one in reader._read.values()) <= 200
