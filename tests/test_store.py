"""Records and their store: strict JSON, checksums, torn lines, full disks, several processes, starting and resuming."""

import ast
import errno
import json
import os
import pickle
import resource
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tlbench
from tlbench.errors import UserError
from tlbench.grid.axes import AXES
from tlbench.grid.cell import Cell
from tlbench.grid.grid import Grid
from tlbench.grid.settings import Settings
from tlbench.records import lines, strict_json
from tlbench.records import plan as plan_module
from tlbench.records.lines import decode, encode
from tlbench.records.plan import RUN, Plan, load_start, versions
from tlbench.records.record import STATUSES, Record, Round
from tlbench.records.resuming import AGAIN, FINAL, RESUME, SameInput, current, identity, todo
from tlbench.records.run_folder import RECORDS, Store, find_run, load, new_run, resume_run


def make(**changes) -> Record:
    record = Record(
        id="x",
        cell=Cell(),
        settings=Settings(),
        status="ok",
        started="2026-01-01T00:00:00+00:00",
        suite_version="0",
        rounds=(Round(phase="full", seconds=0.1, samples=10, loss=0.5),),
        latency_seconds=(0.1, 0.2),
        weights={"source": "random"},
    )
    return replace(record, **changes)


def message(call, *arguments, **options):
    """The text of the UserError, which must be one line that a terminal shows as it is."""
    with pytest.raises(UserError) as caught:
        call(*arguments, **options)
    assert str(caught.value).isprintable(), ascii(str(caught.value))
    return str(caught.value)


# --- one record, one line -------------------------------------------------------------------------------------

TEXTS = ["", 'ü "quoted"\nsecond line', "\u2028\u2029\x85", "\0\x1b[31m", "\udcff no text", "🐈 <script>", "\\u0000\\"]


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_a_record_comes_back_equal(text):
    record = make(reason=text, id=text, accuracy_test=1 / 3, environment={text: [text, 1, None, True, 0.1]})
    line = encode(record)
    assert decode(line) == record
    assert line.isascii()
    assert line.splitlines() == [line[:-1]]


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**63), 2**63))
def test_every_bit_of_a_number_comes_back(number, whole):
    record = decode(encode(make(loss_test=number, total_parameters=whole)))
    assert repr(record.loss_test) == repr(number)
    assert record.total_parameters == whole


def test_json_has_raw_seconds():
    data = json.loads(encode(make()))
    assert data["rounds"][0]["seconds"] == 0.1
    assert data["latency_seconds"] == [0.1, 0.2]


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_is_no_strict_json(number):
    with pytest.raises(ValueError, match="JSON"):
        encode(make(accuracy_test=number))


@pytest.mark.parametrize(
    "changes",
    [
        {"accuracy_test": "0.5"},
        {"accuracy_test": float("nan")},
        {"total_parameters": 1.5},
        {"total_parameters": True},
        {"reason": None},
        {"environment": {"x": {1, 2}}},
        {"environment": {"x": b"bytes"}},
        {"samples": {"train": "many"}},
        {"rounds": (Round(phase="full", seconds=float("inf"), samples=1),)},
    ],
    ids=str,
)
def test_a_record_that_cannot_be_written_becomes_a_failed_one(changes, tmp_path):
    """A mistake of ours in one cell must not end the grid, nor leave a wrong number."""
    store = Store(tmp_path)
    written = store.append(make(**changes))
    assert written.status == "failed"
    assert "cannot be written" in written.reason
    assert (written.key, written.id) == (make().key, "x")
    assert written.accuracy_test is None
    assert written.rounds == ()
    assert load(tmp_path).records == [written]


def test_append_gives_back_what_it_wrote(tmp_path):
    assert Store(tmp_path).append(make()) == make()


def test_fields_of_a_newer_version_are_ignored_but_a_newer_schema_is_refused():
    data = make().to_dict()
    assert Record.from_dict({**data, "invented_later": 1}) == make()
    assert decode(lines.seal({**data, "invented_later": {"x": [1]}})) == make()
    with pytest.raises(ValueError, match="newer"):
        Record.from_dict({**data, "schema": 99})
    with pytest.raises(ValueError, match="schema 99 is newer"):
        decode(lines.seal({**data, "schema": 99, "id": 5}))


def test_a_changed_digit_is_found():
    line = encode(make(accuracy_test=0.5))
    with pytest.raises(ValueError, match="checksum"):
        decode(line.replace('"accuracy_test":0.5', '"accuracy_test":0.9'))


def test_other_spaces_and_another_order_say_the_same():
    data = json.loads(encode(make()))
    assert decode(json.dumps(data, indent=1, sort_keys=True)) == make()


# --- what becomes of a file -----------------------------------------------------------------------------------


def test_a_torn_last_line_is_set_aside_and_not_in_the_way(tmp_path):
    store = Store(tmp_path)
    store.append(make(id="first"))
    with store.path.open("ab") as file:
        file.write(encode(make(id="torn")).encode()[:-40])
    assert "records.jsonl:2" in (only := load(tmp_path).damaged)[0]
    assert "torn: it has no end" in only[0]
    store.append(make(id="second"))
    loaded = load(tmp_path)
    assert [r.id for r in loaded.records] == ["first", "second"]
    assert len(loaded.damaged) == 1
    assert "records.jsonl:2" in loaded.damaged[0]


def test_wherever_a_line_is_torn_the_others_are_there(tmp_path):
    line = encode(make(id="torn")).encode()
    store = Store(tmp_path)
    for length in range(0, len(line) - 1, 37):
        store.path.write_bytes(b"")
        store.append(make(id="first"))
        with store.path.open("ab") as file:
            file.write(line[:length])
        store.append(make(id="second"))
        assert [r.id for r in load(tmp_path).records] == ["first", "second"]
        assert len(load(tmp_path).damaged) == (length > 0)


def test_a_whole_line_without_its_end_is_a_record(tmp_path):
    store = Store(tmp_path)
    store.path.write_text(encode(make(id="first")).rstrip())
    store.append(make(id="second"))
    assert [r.id for r in load(tmp_path).records] == ["first", "second"]
    assert not load(tmp_path).damaged


class Harmful:
    """Makes a file when it is unpickled."""

    def __init__(self, target):
        self.target = str(target)

    def __reduce__(self):
        return open, (self.target, "w")


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_pickle_is_no_record_and_no_run(protocol, tmp_path):
    target = tmp_path / "unpickled"
    content = pickle.dumps(Harmful(target), protocol)
    store = Store(tmp_path / "run")
    store.append(make())
    with store.path.open("ab") as file:
        file.write(content + b"\n" + content)
    assert load(tmp_path / "run").records == [make()]
    assert load(tmp_path / "run").damaged
    (tmp_path / "run" / RUN).write_bytes(content)
    assert "damaged" in message(resume_run, tmp_path / "run")
    assert not target.exists()
    pickle.loads(content)
    assert target.exists(), "the pickle does what it says"


@pytest.mark.exhaustive
def test_nothing_in_the_package_runs_what_it_reads():
    """No unpickling, no shell, no evaluation of text."""
    for path in sorted(Path(tlbench.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            where = f"{path.name}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None) or ""}
                if ast.unparse(node) == "from pickle import UnpicklingError":
                    continue  # what torch raises for a file that it does not read
                banned = {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml"}
                assert not banned & {name.split(".")[0] for name in names}, where
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            options = {k.arg: ast.unparse(k.value) for k in node.keywords}
            assert called not in ("eval", "exec", "os.system", "os.popen", "__import__"), where
            assert options.get("shell", "False") == "False", where
            assert options.get("allow_pickle", "False") == "False", where
            if called in ("torch.load", "load_state_dict_from_url", "torch.hub.load_state_dict_from_url"):
                # Ours imports and calls nothing but what builds tensors: tests/test_checkpoints.py.
                assert options.get("weights_only") == "True" or options.get("pickle_module") == "unpickling", where
            assert called not in ("torch.hub.load", "np.fromfile"), where


# --- disks that are full or cannot be written -----------------------------------------------------------------


def fill(store, limit=10_000):
    """Appends until it fails: (records that were reported as written, the error's text)."""
    written = []
    for n in range(limit):
        try:
            written.append(store.append(make(id=f"{n}", environment={"x": "y" * 5000})))
        except UserError as error:
            return written, str(error)
    raise AssertionError("it was never full")


def check_after_a_full_disk(store, written, text):
    assert text.isprintable()
    assert repr(str(store.path)) in text
    assert "are intact" in text
    loaded = load(store.folder)
    assert loaded.records == written
    assert not loaded.damaged, "what did not fit is taken back"
    assert store.path.read_bytes().endswith(b"\n")


def test_a_full_disk(tmp_path):
    """As the closest that a user without privileges can do: a limit on the size of a file."""
    store = Store(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_001, hard))
    try:
        written, text = fill(store)
        again = message(store.append, make(environment={"x": "y" * 5000}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "File too large" in text
    assert "File too large" in again
    assert 10 < len(written) < 30
    check_after_a_full_disk(store, written, text)
    store.append(make(id="later"))
    assert [r.id for r in load(tmp_path).records] == [*(r.id for r in written), "later"]


def test_a_full_tmpfs(tmp_path):
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(tmp_path)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("only a privileged user can mount a file system")
    try:
        store = Store(tmp_path / "run")
        store.describe(Plan(grids=(Grid(),), settings=Settings()))
        written, text = fill(store)
        assert "No space left on device" in text
        assert len(written) > 100
        check_after_a_full_disk(store, written, text)
        (tmp_path / "run" / "rest").write_bytes(b"x" * (os.statvfs(tmp_path).f_bavail * 4096))
        assert "No space left on device" in message(store.extend, Grid(axes={"seed": (1, 2)}))
        assert load_start(store.folder).plan.grids == (Grid(),), "the plan is the old one, whole"
        assert sorted(p.name for p in store.folder.iterdir()) == [RECORDS, "rest", RUN]
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_device_that_is_always_full(tmp_path):
    (tmp_path / RECORDS).symlink_to("/dev/full")
    assert "No space left on device" in message(Store(tmp_path).append, make())


def test_an_unwritable_folder_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file" / "run", tmp_path / "a\nb" / ("x" * 300), "nul\0"):
        text = message(Store, out)
        assert "cannot write to results folder" in text
        assert "--out" in text
        assert message(new_run, out) == text


def test_a_folder_that_may_not_be_written():
    root = Path(tempfile.mkdtemp())  # root's own temporary folders cannot be entered by the user it becomes
    root.chmod(0o755)
    (root / "run").mkdir(mode=0o555)
    before = os.geteuid()
    if not before:
        os.seteuid(65534)
    try:
        for folder in (root / "run", root / "run" / "inner", root / "run" / "a\nb"):
            assert "Permission denied" in message(Store, folder)
    finally:
        os.seteuid(before)
        shutil.rmtree(root)


def test_a_read_only_file_system(tmp_path):
    mounted = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(tmp_path)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("only a privileged user can mount a file system")
    try:
        store = Store(tmp_path / "run")
        store.describe(Plan(grids=(Grid(),), settings=Settings()))
        store.append(make())
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path)], check=True)
        for call in (Store, new_run):
            assert "Read-only file system" in message(call, tmp_path / "other")
        assert "Read-only file system" in message(store.append, make(id="y"))
        assert "Read-only file system" in message(store.extend, Grid(axes={"seed": (5,)}))
        assert load(tmp_path / "run").records == [make()], "it can still be read"
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_folder_that_is_gone_meanwhile(tmp_path):
    store = Store(tmp_path / "run")
    store.path.unlink()
    assert "No such file" in message(store.append, make())


# --- several processes ----------------------------------------------------------------------------------------

WRITER = """
import sys
from dataclasses import replace
from tlbench.records.lines import decode
from tlbench.records.run_folder import Store
store, template, name, count = Store(sys.argv[1]), decode(sys.argv[2]), sys.argv[3], int(sys.argv[4])
for n in range(count):
    store.append(replace(template, id=f"{name}-{n}"))
"""


def writer(folder, name, count):
    return subprocess.Popen([sys.executable, "-c", WRITER, str(folder), encode(make()), name, str(count)])


@pytest.mark.exhaustive
def test_eight_processes_append_a_thousand_records_each(tmp_path):
    writers = [writer(tmp_path, name, 1000) for name in "abcdefgh"]
    assert [one.wait() for one in writers] == [0] * 8
    loaded = load(tmp_path)
    assert not loaded.damaged
    assert len(loaded.records) == 8000
    for name in "abcdefgh":
        own = [r.id for r in loaded.records if r.id.startswith(name)]
        assert own == [f"{name}-{n}" for n in range(1000)]


@pytest.mark.exhaustive
def test_killed_writers_lose_nothing_of_the_others(tmp_path):
    store = Store(tmp_path)
    steady = writer(tmp_path, "steady", 200)
    for n in range(6):
        victim = writer(tmp_path, f"victim{n}", 10**6)
        while f'"victim{n}-{n * 3}"'.encode() not in store.path.read_bytes():
            assert victim.poll() is None
        victim.kill()
        victim.wait()
    assert steady.wait() == 0
    loaded = load(tmp_path)
    assert len(loaded.damaged) <= 6
    for name in ("steady", *(f"victim{n}" for n in range(6))):
        own = [r.id for r in loaded.records if r.id.startswith(f"{name}-")]
        assert own == [f"{name}-{k}" for k in range(len(own))]
        assert own[-1] == "steady-199" if name == "steady" else own


# --- names ----------------------------------------------------------------------------------------------------


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A folder to work in, with results/mine and, beside results/, a run that no name may reach."""
    monkeypatch.chdir(tmp_path)
    Store("results/mine").append(make(id="mine"))
    Store("secret").append(make(id="secret"))
    Path("results/way out").symlink_to("../secret")
    return tmp_path


@pytest.mark.parametrize("name", ["mine", "results/mine", "./results/mine", "results/mine/records.jsonl", "mine/"])
def test_a_run_is_found_by_its_path_and_by_its_name(name, results):
    assert [r.id for r in load(name).records] == ["mine"]
    assert [r.id for r in load(results / name if "results" in name else name).records] == ["mine"]


LEAVING = ["../secret", "mine/../../secret", "x/../mine", "../results/mine", "way out", "way out/records.jsonl"]


@pytest.mark.parametrize("name", [*LEAVING, "", "none", "/none-such", "a" * 300, "a\0b", "new\nline"])
def test_a_name_never_leaves_results(name, results):
    (results / "a/b/c").mkdir(parents=True)
    os.chdir(results / "a/b/c")  # from here, none of them is a path to a run
    assert "cannot read run" in message(find_run, name, results / "results")
    assert "cannot read run" in message(load, name)
    assert find_run("mine", results / "results") == results / "results/mine"


def test_a_path_that_is_there_is_the_users_own(results):
    os.chdir(results / "results")
    assert [r.id for r in load("../secret").records] == ["secret"]
    assert [r.id for r in load("way out").records] == ["secret"]


def test_a_run_that_is_there_wins_over_a_name(results, monkeypatch):
    Store("mine").append(make(id="here"))
    assert [r.id for r in load("mine").records] == ["here"]


@pytest.mark.parametrize(
    "make_it", [Path.mkdir, os.mkfifo, lambda p: p.symlink_to(p.name)], ids=["folder", "fifo", "link to itself"]
)
def test_what_is_no_records_file(make_it, tmp_path):
    make_it(tmp_path / RECORDS)
    assert "cannot read run" in message(load, tmp_path)


def test_a_run_is_never_written_over(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = new_run(), new_run()
    assert first.folder != second.folder
    assert {first.folder.parent, second.folder.parent} == {Path("results")}
    first.describe(Plan(grids=(Grid(),), settings=Settings()))
    second.append(make())
    for store in (first, second):
        before = {p.name: p.read_bytes() for p in store.folder.iterdir()}
        assert "already holds a run" in message(new_run, store.folder)
        assert "already holds a run" in message(store.describe, Plan(grids=(Grid(),), settings=Settings(threads=5)))
        assert {p.name: p.read_bytes() for p in store.folder.iterdir()} == before


def test_a_folder_where_a_run_was_killed_before_it_began_can_be_used(tmp_path):
    Store(tmp_path)
    new_run(tmp_path).describe(Plan(grids=(Grid(),), settings=Settings()))
    assert load_start(tmp_path).plan.grids == (Grid(),)


def test_out_may_be_anywhere(tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    assert new_run("../mine/of own").folder.resolve() == tmp_path / "mine/of own"


# --- starting and resuming ------------------------------------------------------------------------------------

GRID = Grid(axes={"backbone": ("resnet18", "vgg16"), "seed": (0, 1), "lr": (None, "auto", 0.5), "device": ("cpu",)})


def begin(tmp_path, grid=GRID, settings=None):
    store = new_run(tmp_path / "run")
    store.describe(Plan(grids=(grid,), settings=settings or Settings(threads=2)))
    return store


def test_what_a_run_began_with_comes_back(tmp_path):
    store = begin(tmp_path)
    resumed, plan = resume_run(tmp_path / "run", {"threads": 2})
    assert resumed.path == store.path
    assert plan.grids == (GRID,)
    assert plan.settings == Settings(threads=2)
    assert load_start(tmp_path / "run").versions == versions()
    assert list(plan.cells()) == GRID.expand()
    assert plan.cells() == {cell: GRID.id_of(cell) for cell in GRID.expand()}
    assert [cell.key for cell in plan.cells()] == [cell.key for cell in GRID.expand()]


def test_run_json_is_strict_json_and_nothing_else_is_left(tmp_path):
    store = begin(tmp_path)
    data = json.loads((store.folder / RUN).read_text(), parse_constant=lambda text: pytest.fail(text))
    assert data["settings"] == json.loads(json.dumps(asdict(Settings(threads=2))))
    assert sorted(p.name for p in store.folder.iterdir()) == [RECORDS, RUN]


def test_settings_that_differ_are_named(tmp_path):
    begin(tmp_path, settings=Settings(threads=2, bad_images="skip"))
    text = message(resume_run, tmp_path / "run", {"threads": 4, "bad_images": "skip", "throughput_rounds": 3})
    assert "threads was 2, now it is 4" in text
    assert "throughput_rounds was 10, now it is 3" in text
    assert "bad_images" not in text
    assert "start a new run" in text


def test_versions_that_differ_are_named(tmp_path, monkeypatch):
    begin(tmp_path)
    monkeypatch.setattr(tlbench, "__version__", "99.0")
    monkeypatch.setattr(plan_module, "PACKAGES", ("torch", "none-such"))
    text = message(resume_run, tmp_path / "run")
    assert f"tlbench was {versions()['tlbench']}" not in text
    assert "here it is 99.0" in text
    assert "torch was" not in text


def test_a_changed_grid_adds_cells_and_is_remembered(tmp_path):
    store = begin(tmp_path)
    before = (store.folder / RUN).read_bytes()
    store.extend(Grid(axes={**GRID.axes, "seed": (1,)}))
    assert (store.folder / RUN).read_bytes() == before, "it had them all"
    more = Grid(axes={**GRID.axes, "seed": (1, 2), "epochs": (7,)})
    assert store.extend(more) == load_start(store.folder).plan
    cells = load_start(store.folder).plan.cells()
    assert list(cells) == [*GRID.expand(), *more.expand()]
    assert len(set(cells.values())) == len(cells), "names tell them apart"


def test_cells_of_overlapping_grids_are_there_once(tmp_path):
    store = begin(tmp_path)
    plan = store.extend(Grid(axes={**GRID.axes, "seed": (0, 1, 2)}))
    assert len(plan.cells()) == 2 * 3 * 3


@pytest.mark.exhaustive
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_every_grid_comes_back(data, tmp_path_factory):
    def values(name):
        hint = Cell.__dataclass_fields__[name].type
        choices = [st.text(min_size=1)] if "str" in hint else []
        choices += [st.integers(0, 2**31)] if "int" in hint else []
        choices += [st.floats(0, 1000).map(float)] if "float" in hint else []
        choices += [st.none()] if "None" in hint else []
        return st.lists(st.one_of(choices), min_size=1, max_size=3, unique=True).map(tuple)

    names = data.draw(
        st.lists(st.sampled_from([n for n in AXES if n not in ("task", "freeze")]), unique=True, max_size=4)
    )
    grid = Grid(axes={name: data.draw(values(name)) for name in names})
    store = Store(tmp_path_factory.mktemp("run"))
    store.describe(Plan(grids=(grid,), settings=Settings()))
    plan = load_start(store.folder).plan
    assert repr(plan.grids) == repr((grid,))
    assert [cell.key for cell in plan.cells()] == [cell.key for cell in grid.expand()]


def edit(change):
    """A run.json whose checksum fits, and which says something else."""

    def write(folder):
        data = strict_json.loads((folder / RUN).read_text())
        data.pop("checksum")
        change(data)
        (folder / RUN).write_text(lines.seal(data))

    return write


BROKEN_PLANS = {
    "empty": lambda folder: (folder / RUN).write_text(""),
    "torn": lambda folder: (folder / RUN).write_bytes((folder / RUN).read_bytes()[:-30]),
    "no text": lambda folder: (folder / RUN).write_bytes(b"\xff\xfe"),
    "a list": lambda folder: (folder / RUN).write_text("[]"),
    "nested": lambda folder: (folder / RUN).write_text("[" * 100_000),
    "a folder": lambda folder: ((folder / RUN).unlink(), (folder / RUN).mkdir()),
    "changed": lambda folder: (folder / RUN).write_text((folder / RUN).read_text().replace("vgg16", "vgg19")),
    "schema": edit(lambda data: data.update(schema=99)),
    "no settings": edit(lambda data: data.pop("settings")),
    "a setting less": edit(lambda data: data["settings"].pop("threads")),
    "a setting more": edit(lambda data: data["settings"].update(invented=1)),
    "a setting of another type": edit(lambda data: data["settings"].update(threads="2")),
    "an axis less": edit(lambda data: data["grids"][0].pop("backbone")),
    "an axis more": edit(lambda data: data["grids"][0].update(invented=[1])),
    "an axis without values": edit(lambda data: data["grids"][0].update(seed=[])),
    "a value twice": edit(lambda data: data["grids"][0].update(seed=[1, 1])),
    "a value of another type": edit(lambda data: data["grids"][0].update(seed=["1"])),
    "grids of another type": edit(lambda data: data.update(grids={"x": 1})),
    "versions of another type": edit(lambda data: data.update(versions=[1])),
}


@pytest.mark.parametrize("case", BROKEN_PLANS)
def test_a_plan_that_is_not_as_it_was_written_is_refused(case, tmp_path):
    folder = begin(tmp_path).folder
    BROKEN_PLANS[case](folder)
    text = message(resume_run, folder)
    assert RUN in text


@pytest.mark.parametrize("run", ["none", "."])
def test_a_run_that_is_not_there_cannot_go_on(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "run" in message(resume_run, run)


# --- which cells are done -------------------------------------------------------------------------------------


def test_every_status_says_whether_it_runs_again():
    assert set(STATUSES) <= set(RESUME)
    assert {decision for decision, _ in RESUME.values()} == {FINAL, AGAIN}


DONE = ("ok", "not_applicable", "diverged")
"""What comes out again if it is measured again; whatever else may have had a cause that is gone."""


@pytest.mark.parametrize("status", STATUSES)
def test_a_cell_is_done_when_its_status_is_final(status):
    record, missing = make(status=status), make(cell=Cell(seed=1))
    wanted = [identity(record), identity(missing)]
    assert todo(wanted, [record]) == ([1] if status in DONE else [0, 1])


def test_the_latest_record_counts_but_a_finished_cell_stays_finished():
    failed, ok, again = make(status="failed"), make(id="1"), make(id="2")
    stopped = make(status="interrupted")
    assert current([]) == []
    assert current([failed, ok]) == [ok]
    assert current([ok, again]) == [again]
    assert current([ok, stopped]) == [ok]
    assert current([failed, stopped]) == [stopped]
    assert todo([identity(ok)], [ok, stopped]) == []
    assert todo([identity(ok)], [failed, stopped]) == [0]


def test_cells_blocks_and_roles_are_apart():
    records = [make(), make(cell=Cell(seed=1)), make(block=1), make(role="aa")]
    wanted = [identity(r) for r in records]
    assert len(set(wanted)) == 4
    assert current(records) == records
    assert todo(wanted, records[1:3]) == [0, 3]


def test_twins_all_count():
    """A block may measure a cell again more than once, to see the noise; a twin that was stopped tells nothing."""
    cell, first, last = make(), make(id="1", role="aa"), make(id="2", role="aa")
    assert current([cell, first, last]) == [cell, first, last]
    assert current([cell, first, replace(last, status="interrupted")]) == [cell, first]
    assert todo([identity(cell)], [cell, first, last]) == []


def test_what_counts_stands_in_the_order_of_writing():
    a, b = make(status="oom"), make(cell=Cell(seed=1))
    ok = replace(a, status="ok")
    assert current([a, b, ok]) == [b, ok]


def test_noisy_records_run_again_on_request():
    noisy, quiet = make(validity="noisy"), make(cell=Cell(seed=1))
    wanted = [identity(noisy), identity(quiet)]
    assert todo(wanted, [noisy, quiet], redo=lambda r: r.validity != "ok") == [0]
    assert todo(wanted, [noisy, quiet]) == []
    assert todo(wanted, [noisy, quiet, make()], redo=lambda r: r.validity != "ok") == []


def test_a_run_holds_every_record_and_what_counts_is_each_cell_once(tmp_path):
    store = Store(tmp_path)
    store.append(make(status="failed"))
    store.append(make(id="again"))
    records = load(tmp_path).records
    assert len(records) == 2
    assert [r.id for r in current(records)] == ["again"]


def test_images_or_weights_that_changed_are_not_mixed_into_a_run():
    first = make(id="first", data_sha256="a", weights={"sha256": "w"})
    SameInput().check(first)
    for same in (
        replace(first, cell=Cell(freeze="full", head="mlp")),
        replace(first, cell=Cell(seed=1), data_sha256="b", weights={"sha256": "v"}),
        replace(first, data_sha256=None, weights={}, status="failed"),
        replace(first, images_sha256="i"),
    ):
        SameInput([first]).check(same)
    other = replace(first, cell=Cell(freeze="full"), id="other")
    assert "the images of 'other' have changed since 'first' was measured in this run (a, now b)" in message(
        SameInput([first]).check, replace(other, data_sha256="b")
    )
    assert "the initial weights of 'other'" in message(
        SameInput([first]).check, replace(other, weights={"sha256": "v"})
    )


def test_what_no_seed_decides_must_be_the_same_at_every_seed():
    first = make(id="first", data_sha256="a", images_sha256="i", weights={"sha256": "w", "pretrained": True})
    later = replace(first, id="later", cell=Cell(seed=1, freeze="full"), data_sha256="b")
    SameInput([first]).check(later)
    assert "the images of 'later'" in message(SameInput([first]).check, replace(later, images_sha256="j"))
    split = replace(first, id="later", data_sha256="c")
    assert "the split of 'later'" in message(SameInput([first]).check, split)
    assert "the weights of 'later' have changed since 'first' was measured in this run (w, now x)" in message(
        SameInput([first]).check, replace(later, weights={"sha256": "x", "pretrained": True})
    )
    assert "(w, now random)" in message(
        SameInput([first]).check, replace(later, weights={"sha256": "y", "pretrained": False})
    )


def test_thousands_of_records_are_checked_in_no_time():
    """Each against a table of what was measured, not against every record before it."""
    so_far, looked_at = SameInput(), 0
    kind = type(so_far._first)

    class Counting(kind):
        def get(self, *key):
            nonlocal looked_at
            looked_at += 1
            return super().get(*key)

    so_far._first = Counting()
    for seed in range(300):
        so_far.check(make(id=str(seed), cell=Cell(seed=seed), data_sha256=str(seed), weights={"sha256": "w"}))
    assert looked_at <= 4 * 300


def test_every_field_of_a_record_has_a_rule():
    """A new field with an annotation that `strict` does not know would make every record unreadable."""
    for kind in (Record, Cell, Settings, Round):
        names = [f.name for f in fields(kind)]
        for wrong in ({"un": "known"}, object()):
            for name in names:
                try:
                    strict_json.check(kind, {name: wrong})
                except ValueError as error:
                    assert name in str(error)


def test_a_line_that_the_disk_refuses_when_it_is_synced_is_taken_back(tmp_path, monkeypatch):
    """It was said to be lost, and was there: what made room and wrote again had it twice."""
    store = Store(tmp_path)
    store.append(make(id="first"))
    real, failing = os.fsync, [True]

    def sync(number):
        if failing.pop() if failing else False:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(number)

    monkeypatch.setattr(os, "fsync", sync)
    assert "No space left on device" in message(store.append, make(id="second"))
    assert [r.id for r in load(tmp_path).records] == ["first"]
    store.append(make(id="second"))
    assert [r.id for r in load(tmp_path).records] == ["first", "second"]
