"""`tlbench report --share`: no file of it names a folder, the host or the user."""

import html
import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from images import with_images
from records import failure, record

from tlbench.analysis import raced
from tlbench.analysis.frame import rows_of
from tlbench.analysis.raced import Entrant, Raced, contender
from tlbench.grid.grid import Grid
from tlbench.grid.settings import Settings
from tlbench.records.plan import Plan
from tlbench.records.run_folder import Store, load
from tlbench.report import share
from tlbench.report.share import shared, write_shared

USER, HOST = "annabelle", "gpu-box-17"
HOME = f"/home/{USER}"
PLACES = [USER, HOST, "secret-project", "/home", "/mnt", "lustre", "C:\\Users"]
TEXTS = [
    f"FileNotFoundError: {HOME}/secret-project/data/cats/1.jpg",
    f"OSError: cannot read '{HOME}/secret-project/with a space/x.pth'",
    f'File "{HOME}/secret-project/plugin.py", line 3, in build',
    "cannot write to /mnt/lustre/secret-project/out: no room",
    f"ssh {USER}@{HOST}: refused",
    f"{HOST}.example.org did not answer",
    "C:\\Users\\annabelle\\secret-project\\net.py:7: error",
    f"see file://{HOME}/secret-project/log.txt",
    "~annabelle/secret-project/notes",
    "~/secret-project/notes",
]


@pytest.fixture(autouse=True)
def known(monkeypatch):
    monkeypatch.setenv("HOME", HOME)
    monkeypatch.setenv("USER", USER)
    monkeypatch.setenv("LOGNAME", USER)
    monkeypatch.setattr("platform.node", lambda: HOST)


def told(**given):
    source = {"source": f"{HOME}/secret-project/x.pth", "requested": f"{HOME}/secret-project/x.pth", "sha256": "ab"}
    one = record(
        dataset=f"folder:{HOME}/secret-project/cats", weights=f"{HOME}/secret-project/x.pth",
        initial={**source, "pretrained": True, "reason": TEXTS[0]}, **given,
    )  # fmt: skip
    environment = {**one.environment, "stable": {**one.environment["stable"], "container": f"{HOST} of {USER}"}}
    return replace(one, environment=environment, prefix={"notes": TEXTS}, places={"dataset": f"folder:{HOME}/cats"})


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_names_no_place(text):
    one = shared([replace(failure("failed", text), output=text)])[0]
    for said in (one.reason, one.output):
        assert not [place for place in PLACES if place in said]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rsync nas:/mnt/lustre/secret-project/x failed", "rsync nas:x failed"),
        ("PYTHONPATH=/a/b:/home/anna/lib: no module", "PYTHONPATH=b:lib: no module"),
        ("folder:/mnt/secret-project/photos is gone", "folder:photos is gone"),
    ],
)
def test_a_path_behind_a_colon_is_one(text, said):
    assert shared([failure("failed", text)])[0].reason == said


@pytest.mark.parametrize(
    "text",
    [
        "612 images/s, 24/30 left",
        "https://example.org/a/b.html",
        "RuntimeError: size 3/4 of torch.Size([1, 2])",
        "a / b",
    ],
)
def test_what_is_no_place_stays(text):
    assert shared([failure("failed", text)])[0].reason == text


def test_two_data_sets_of_one_name_stay_two():
    given = ["folder:/a/cats", "folder:/b/cats", "folder:/a/dogs", "digits", "folder:cats/"]
    assert [one.cell.dataset for one in shared([record(dataset=name) for name in given])] == [
        "folder:cats", "folder:cats-2", "folder:dogs", "digits", "folder:cats-3",
    ]  # fmt: skip
    assert [one.cell.weights for one in shared([record(weights=w) for w in ("auto", "/a/x.pth", "b/x.pth")])] == [
        "auto", "x.pth", "x.pth-2",
    ]  # fmt: skip


def test_ids_that_tell_two_places_apart_name_neither():
    axes = {"dataset": ("folder:/x/anna/photos", "folder:/x/bert/photos"), "weights": ("carl/w.pth", "dora/w.pth")}
    grid = Grid(axes=axes)
    made = [replace(record(), cell=cell, id=grid.id_of(cell)) for cell in grid.expand()]
    assert any("anna" in one.id and "carl" in one.id for one in made)
    told = [one.id for one in shared(made)]
    assert len(set(told)) == 4
    assert not [one for one in told if re.search("anna|bert|carl|dora", one)], told


def test_last_parts_of_paths_name_neither_user_nor_host():
    grid = Grid(axes={"weights": (f"{USER}-best.pth", f"/x/{HOST}/{HOST}.pth"), "dataset": (f"folder:/data/{USER}",)})
    settings = Settings(data_root=f"/data/{USER}", also_test=(f"phone-of-{USER}=folder:/phones/{USER}",))
    tests = {f"phone-of-{USER}": {"accuracy": 0.5, "dataset": f"folder:/phones/{USER}"}, "blur@2": {"accuracy": 0.5}}
    told = shared(
        [
            replace(
                record(settings=settings), cell=cell, id=grid.id_of(cell), plugins={f"/x/{USER}.py": "ab"},
                places={"dataset": f"folder:/moved/{USER}"}, other_tests=tests,
            )
            for cell in grid.expand()
        ]
    )  # fmt: skip
    assert {one.cell.dataset for one in told} == {"folder:[user]"}
    assert [one.cell.weights for one in told] == ["[user]-best.pth", "[host].pth"]
    assert [set(one.other_tests) for one in told] == 2 * [{"phone-of-[user]", "blur@2"}]
    assert told[0].settings.also_test == ("phone-of-[user]=folder:[user]-2",), "another folder of the same name"
    assert len({one.id for one in told}) == 2
    for one in told:
        assert not re.search("annabelle|gpu.box.17", repr(one))


def test_names_that_differ_by_what_is_left_out_stay_apart(monkeypatch):
    monkeypatch.setenv("SUDO_USER", "bert")
    given = ["folder:/a/annabelle-cats", "folder:/a/bert-cats", "folder:/a/cats", "folder:/b/annabelle-cats"]
    grid = Grid(axes={"dataset": tuple(given)})
    told = shared([replace(record(), cell=cell, id=grid.id_of(cell)) for cell in grid.expand()])
    assert sorted(one.cell.dataset for one in told) == [
        "folder:[user]-cats", "folder:[user]-cats-2", "folder:[user]-cats-3", "folder:cats",
    ]  # fmt: skip
    assert len({one.id for one in told}) == 4
    assert not [one.id for one in told if re.search("annabelle|bert", one.id)]


@pytest.mark.parametrize("name", ["digits", "folder", "random"])
def test_what_is_ours_keeps_its_name_whoever_is_called_so(name, monkeypatch):
    monkeypatch.setenv("USER", name)
    given = [record(dataset="digits", weights="random"), record(dataset="folder:/a/cats", weights="auto")]
    told = [(one.cell.dataset, one.cell.weights) for one in shared(given)]
    assert told == [("digits", "random"), ("folder:cats", "auto")]


def test_a_shared_page_of_names_with_user_and_host_has_neither(tmp_path):
    runs = []
    for number, name in enumerate((f"{HOST}-night", f"{USER}-night", "day")):
        store = Store(tmp_path / "somewhere" / name)
        store.append(with_images(record(seed=number, dataset=f"folder:/data/{USER}", weights=f"{USER}.pth"), 40))
        runs.append(str(store.folder))
    records = [one for run in runs for one in load(Path(run)).records]
    write_shared(records, tmp_path / "shared", runs)
    page = (tmp_path / "shared" / "report.html").read_text()
    for name in ("[host]-night", "[user]-night", "folder:[user]"):
        assert name in page
    parquet = pytest.importorskip("pyarrow.parquet")
    for path in (tmp_path / "shared").rglob("*.*"):
        content = path.read_bytes()
        if path.suffix == ".parquet":
            content = json.dumps(parquet.read_table(path).to_pylist(), default=str).encode()
        for place in PLACES:
            assert place.encode() not in content, path.name


FILES = [
    "cannot read 'patients/Jane Doe 1961.jpg': truncated",
    "UnidentifiedImageError: cannot identify image file 'Jane Doe 1961.HEIC'",
    "what it needs cannot be had any more: 'ward-7/Jane Doe/scan.dcm' is gone",
    "OSError: image file is truncated: ward-7/JaneDoe.png",
    f"FileNotFoundError: {HOME}/Jane_Doe.webp",
    'KeyError: "Jane Doe\'s.npy"',
    "ValueError: 'ward-7/Jane Doe' has no images",
    "data set 'folder:ward-7' lost 'Jane Doe.tif' and 'Jane Doe.gif'",
]


@pytest.mark.parametrize("text", FILES)
def test_no_file_of_a_data_set_is_named_in_a_reason(text):
    """Nor the folders that it lies in: these are often names of people, too."""
    said = shared([failure("failed", text)])[0].reason
    assert not re.search(r"ward-7/|Jane.Doe.*(jpg|heic|dcm|png|webp|npy|tif|gif)", said, re.IGNORECASE), said
    assert said.split()[0] == text.split()[0]


@pytest.mark.parametrize(
    "text",
    [
        "AttributeError: module 'torch.nn' has no attribute 'Linear.weight'",
        "can't be: it isn't a/b of 'c'",
        "unknown backbone 'resnet19'; did you mean 'resnet18'?",
        "see 'https://example.org/a/b.jpeg2000'",
        "SKIPPED, put resnet18-f37072fd.pth into it",
        "the plugin 'mine.py' has changed",
    ],
)
def test_what_names_no_file_of_data_stays(text):
    assert shared([failure("failed", text)])[0].reason == text


REASONS = {
    "a path": (f"failed: FileNotFoundError: {HOME}/secret-project/cats/1.jpg", "FileNotFoundError: [file]"),
    "a quoted path": (f"failed: cannot read '{HOME}/secret-project/with a space/x.pth'", "cannot read 'x.pth'"),
    "a file": ("failed: cannot identify 'Jane & \"Doe\".jpg'", "cannot identify '[file]'"),
    "a folder in Markdown's signs": (f"failed: {HOME}/secret_project_*/x.pth: no room", "failed: x.pth: no room"),
    "several lines": (f"not applicable: cannot read '{HOME}/secret-project/x.pth':\nno room", "cannot read 'x.pth'"),
    "a line that colours": (f"failed: \x1b[31m {HOME}/secret-project/y.pth", "y.pth"),
}


@pytest.mark.parametrize("case", REASONS)
def test_what_a_race_says_of_a_failed_cell_names_no_file_either(case, tmp_path):
    """It stands in the race's own file, which no record tells of."""
    reason, left = REASONS[case]
    store = Store(tmp_path / "run")
    store.describe(Plan(grids=(Grid(),), settings=Settings()))
    good, bad = with_images(record(), 40), failure("failed", "x", freeze="full")
    for one in (good, bad):
        store.append(one)
    entrants = (
        Entrant(name="resnet18 linear_probe linear", key=contender(good.cell), expected_seconds=1.0, rung=1),
        Entrant(name="resnet18 full", key=contender(bad.cell), expected_seconds=1.0, out="failed", reason=reason),
    )
    raced.write(store.folder, Raced(budget_seconds=60.0, spent_seconds=50.0, entrants=entrants, ended=True))
    write_shared(load(store.folder).records, tmp_path / "shared", 2 * [str(store.folder)])
    for name, unescaped in (("report.html", html.unescape), ("report.md", lambda text: text.replace("\\", ""))):
        text = unescaped((tmp_path / "shared" / name).read_text())
        assert "of a budget of 60.0 s" in text
        assert left in text
        for place in [*PLACES, "secret", "Jane", str(tmp_path)]:
            assert place not in text


@pytest.mark.exhaustive
def test_no_file_of_a_shared_report_names_place_host_or_user(tmp_path, command, monkeypatch):
    home = tmp_path / USER / "secret-project"
    home.mkdir(parents=True)
    monkeypatch.chdir(home)
    store = Store(home / "run-7")
    store.describe(Plan(grids=(Grid(),), settings=Settings()))
    for one in (
        told(), told(seed=1, images_sha256="aa"), told(seed=2, images_sha256="bb"),
        told(task="infer", latency=(0.1,) * 20),
        replace(failure("failed", TEXTS[1], freeze="full"), output=TEXTS[2], validity_reason=TEXTS[3]),
        replace(told(freeze="norm"), validity="noisy", validity_reason=TEXTS[4]),
    ):  # fmt: skip
        store.append(one)
    status, out, err = command("report", home / "run-7", "--share")
    assert status == 0, err
    assert Path(out.strip()) == home / "run-7" / "shared" / "report.html"
    kinds = set()
    for path in (home / "run-7" / "shared").rglob("*.*"):
        kinds.add(path.suffix)
        if path.suffix == ".parquet":
            parquet = pytest.importorskip("pyarrow.parquet")
            content = json.dumps(parquet.read_table(path).to_pylist(), default=str).encode()
        else:
            content = path.read_bytes()
        for place in [*PLACES, str(tmp_path), os.path.basename(tmp_path)]:
            assert place.encode() not in content, path.name
    assert kinds >= {".html", ".md", ".csv", ".svg", ".png"}
    assert command("report", home / "run-7", "--share", "--out", home / "run-7")[0] == 2


def test_where_images_plugins_and_named_sets_lie_and_nodes_are_not_told(tmp_path, monkeypatch):
    home = tmp_path / USER / "secret-project"
    home.mkdir(parents=True)
    store = Store(home / "run-7")
    settings = Settings(data_root=f"{HOME}/secret-project/data")
    store.describe(Plan(grids=(Grid(),), settings=settings))
    for seed, node in enumerate((f"{HOST}.lan", "lustre-node-2")):
        one = with_images(record(seed=seed, settings=settings), 40)
        reason = f"node {node} went away, as {node.partition('.')[0]} does"
        one = replace(one, plugins={f"{HOME}/secret-project/mine.py": "ab" * 32}, node=node, engine="ray",
                      validity="noisy", validity_reason=reason)  # fmt: skip
        store.append(one)
    write_shared(load(store.folder).records, tmp_path / "shared", 2 * [str(store.folder)])
    parquet = pytest.importorskip("pyarrow.parquet")
    for path in (tmp_path / "shared").rglob("*.*"):
        content = path.read_bytes()
        if path.suffix == ".parquet":
            content = json.dumps(parquet.read_table(path).to_pylist(), default=str).encode()
        for place in [*PLACES, str(tmp_path)]:
            assert place.encode() not in content, path.name
    page = (tmp_path / "shared" / "report.html").read_text()
    assert "--plugin mine.py" in page, "its name is told"
    assert "http://www.w3.org/2000/svg" in page
    rows_of(pd.read_parquet(tmp_path / "shared" / "records.parquet"))  # from which figures are drawn
    (told,) = {r.plugins.popitem()[0] for r in shared([replace(one, plugins=dict(one.plugins))])}
    assert told == "mine.py"


def test_a_current_folder_at_the_root_takes_no_slashes_from_the_page(tmp_path, monkeypatch):
    """Every // of a page was taken for a folder's name."""
    store = Store(tmp_path / "run")
    store.append(with_images(record(), 40))
    records = load(store.folder).records
    monkeypatch.setattr(share.Path, "cwd", classmethod(lambda kind: kind("/")))
    write_shared(records, tmp_path / "shared", [str(store.folder)])
    page = (tmp_path / "shared" / "report.html").read_text()
    assert "http://www.w3.org/2000/svg" in page
    assert "  // " in page, "comments of its script"
