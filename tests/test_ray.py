"""Runs on real Ray: what comes of them is what one machine measures, whatever is lost on the way."""

import os
import random
import signal
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from bits import results
from conftest import save_image
from processes import gone, start

from tlbench.campaign.asked import parse_asked
from tlbench.campaign.campaign import begin
from tlbench.campaign.engine import Wanted
from tlbench.errors import UserError
from tlbench.records.plan import RUN
from tlbench.records.resuming import identity
from tlbench.records.run_folder import load

ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'tlbench[ray]'")
from ray.cluster_utils import Cluster  # noqa: E402

from tlbench.engines.ray import Needs, Spot, make  # noqa: E402

KILLS = int(os.environ.get("TLBENCH_DRIVER_KILLS", "2"))
TINY = {
    "weights": "random",
    "image-size": "32",
    "epochs": "1",
    "batch-size": "8",
    "layout": "contiguous",
    "threads": "1",
    "twins": "0",
    "isolate": "backbone",
}
GRID = {
    "backbone": "resnet18,mobilenet_v3_small",
    "freeze": "linear_probe,last_1,full",
    "head": "linear,mlp",
    "seeds": "0,1",
}
FAULTS = """
import os, signal, time
from torch import nn
from tlbench.heads import HEADS
from dataclasses import replace

def build(*arguments, **words):
    what = os.environ.get("TLBENCH_TEST_FAULT", "")
    raise SystemError(what)

def ends(*arguments, **words):
    os.kill(os.getpid(), signal.SIGKILL)

def hangs(*arguments, **words):
    time.sleep(1000)

HEADS["ends"] = replace(HEADS["linear"], build=ends)
HEADS["hangs"] = replace(HEADS["linear"], build=hangs)
"""


def options(*tables):
    return [f"--{name}={value}" for table in tables for name, value in table.items()]


@pytest.fixture(scope="module", autouse=True)
def photos(tmp_path_factory):
    """A few images, which all cells take."""
    home = tmp_path_factory.mktemp("photos")
    for split, count in (("train", 10), ("val", 4)):
        for label, color in (("dark", 20), ("light", 180)):
            for n in range(count):
                save_image(home / split / label / f"{n}.jpg", color, seed=n)
    TINY["dataset"] = f"folder:{home}"


@pytest.fixture(scope="module")
def alone(photos, tmp_path_factory):
    """The results of the grid without an engine."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    campaign = begin(parse_asked({**TINY, **GRID, "out": folder}))
    assert campaign.run() is None
    found = {identity(r): results(r) for r in load(folder).records}
    assert len(found) == 24
    return found


@pytest.fixture(scope="module")
def cluster():
    """A head without processors, to which nodes can be added."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture(scope="module")
def nodes(cluster):
    """Two nodes of one processor, which stay: to add one takes some seconds."""
    added = [cluster.add_node(num_cpus=1) for _ in range(2)]
    cluster.wait_for_nodes()
    return added


@pytest.fixture
def lost(cluster, nodes):
    """Removes a third node, which was added for this test, when it is called."""
    node = cluster.add_node(num_cpus=1, resources={"third": 1})
    cluster.wait_for_nodes()

    def remove():
        if node in cluster.worker_nodes:
            cluster.remove_node(node, allow_graceful=False)

    yield remove
    remove()


@pytest.fixture(autouse=True)
def disconnected():
    """Each run connects itself."""
    yield
    ray.shutdown()


def on(cluster, **wanted):
    return Wanted(engine="ray", address=cluster.address, **wanted)


def measure(asked, wanted, on_record=lambda record: None):
    campaign = begin(replace(parse_asked(asked), engine=wanted))
    assert campaign.run(on_record=on_record, engine=make(wanted)) is None
    return load(campaign.store.folder).records


def test_a_node_is_lost_and_every_cell_is_measured_once(alone, cluster, lost, tmp_path):
    came = []

    def third(record):
        came.append(record)
        if len(came) == 3:
            lost()

    found = measure({**TINY, **GRID, "out": tmp_path / "run"}, on(cluster), third)
    assert Counter(map(identity, found)) == Counter(alone.keys())
    assert {identity(r): results(r) for r in found} == alone
    assert {r.engine for r in found} == {"ray"}
    assert len({r.node for r in found}) in (2, 3)
    assert all(r.shares_node for r in found)


def test_what_crashes_or_hangs_is_a_record_and_the_others_go_on(cluster, nodes, tmp_path):
    (tmp_path / "faults.py").write_text(FAULTS)
    asked = {**TINY, "backbone": "resnet18", "head": "linear,ends,hangs", "cell-timeout": "20"}
    asked |= {"plugin": [str(tmp_path / "faults.py")], "out": tmp_path / "run"}
    found = measure(asked, on(cluster))
    assert Counter((r.cell.head, r.status) for r in found) == {
        ("linear", "ok"): 1,
        ("ends", "failed"): 1,
        ("hangs", "timeout"): 1,
    }
    assert "SIGKILL" in next(r.reason for r in found if r.cell.head == "ends")


def test_one_cell_a_node_at_a_time(alone, cluster, nodes, tmp_path):
    asked = {**TINY, **GRID, "backbone": "resnet18", "seeds": "0", "out": tmp_path / "run"}
    running, most = Counter(), Counter()
    wanted = on(cluster, exclusive=True)
    campaign = begin(replace(parse_asked(asked), engine=wanted))
    engine = make(wanted)

    def wait(seconds, plain=engine.wait):
        events = plain(seconds)
        for event in events:
            node = getattr(event, "node", None)
            if type(event).__name__ == "Began":
                running[node] += 1
                most[node] = max(most[node], running[node])
                nodes_of[event.task] = node
            elif type(event).__name__ == "Measured":
                running[nodes_of[event.task]] -= 1
        return events

    nodes_of = {}
    engine.wait = wait
    assert campaign.run(engine=engine) is None
    found = load(tmp_path / "run").records
    assert set(most.values()) == {1}
    assert not any(r.shares_node for r in found)
    assert {identity(r): results(r) for r in found}.items() <= alone.items()


def test_a_node_that_has_other_images_is_named(cluster, nodes, tmp_path, monkeypatch):
    wanted = on(cluster)
    asked = {**TINY, "backbone": "resnet18", "out": tmp_path / "run"}
    campaign = begin(replace(parse_asked(asked), engine=wanted))
    engine = make(wanted)
    plain = engine.ask

    def ask():
        told = {name: dict(facts) for name, facts in plain().items()}
        first = next(iter(told.values()))
        first["images"] = dict.fromkeys(first["images"], "f" * 64)
        first["versions"] = {**first["versions"], "torch": "2.11.0"}
        return told

    engine.ask = ask
    with pytest.raises(UserError, match=r"torch is 2\.11\.0 there.*images of 'folder:.*' are others") as raised:
        campaign.run(engine=engine)
    assert str(raised.value).count("\n") == 1
    assert "--skip-bad-nodes" in str(raised.value)
    wanted = replace(wanted, skip_bad_nodes=True)
    campaign = begin(replace(parse_asked({"resume": str(tmp_path / "run")}), engine=wanted))
    engine = make(wanted)
    plain, engine.ask = engine.ask, ask
    assert campaign.run(engine=engine) is None
    assert len(load(tmp_path / "run").records) == 1
    assert any("left out" in note for note in campaign.notes)


def test_more_gpus_than_any_node_has(cluster, nodes, tmp_path):
    engine = make(on(cluster, gpus=2))
    from tlbench.campaign.engine import Setup
    from tlbench.campaign.stop import Stop
    from tlbench.grid.settings import Settings

    with pytest.raises(UserError, match=r"no node has 2 GPUs .*the most are 0 GPUs and 1"):
        engine.open(Setup(settings=Settings(threads=1), devices=("cuda",)), Stop())
    engine.close()


def test_no_node_is_left(cluster, nodes, tmp_path, monkeypatch):
    """Of two processors, which the others do not have."""
    monkeypatch.setattr("tlbench.engines.ray.NO_NODE_SECONDS", 1.0)
    node = cluster.add_node(num_cpus=2)
    cluster.wait_for_nodes()
    wanted = on(cluster, cpus=2)
    asked = {**TINY, "backbone": "resnet18", "seeds": "0,1,2", "out": tmp_path / "run"}
    campaign = begin(replace(parse_asked(asked), engine=wanted))

    def lose(record):
        if node in cluster.worker_nodes:
            cluster.remove_node(node, allow_graceful=False)

    with pytest.raises(UserError, match=r"no node is left .* what is measured is kept"):
        campaign.run(on_record=lose, engine=make(wanted))
    assert len(load(tmp_path / "run").records) >= 1


@pytest.mark.parametrize(
    ("address", "said"),
    [("somewhere", "give HOST:PORT"), ("ray://x:1y", "give HOST:PORT"), ("127.0.0.1:9", "nobody answers there")],
)
def test_an_address_of_nobody(address, said):
    ray.shutdown()
    engine = make(Wanted(engine="ray", address=address))
    from tlbench.campaign.engine import Setup
    from tlbench.campaign.stop import Stop
    from tlbench.grid.settings import Settings

    with pytest.raises(UserError, match=said):
        engine.open(Setup(settings=Settings(threads=1)), Stop())


FITS = [
    (Needs(cpus=2.0), {"CPU": 7.0}, 3),
    (Needs(cpus=None), {"CPU": 7.0}, 1),
    (Needs(cpus=None), {}, 0),
    (Needs(cpus=1.0), {"GPU": 1.0}, 0),
    (Needs(cpus=1.0, gpus=1.0), {"CPU": 8.0, "GPU": 2.0}, 2),
    (Needs(cpus=1.0, gpus=0.5), {"CPU": 8.0, "GPU": 1.0}, 2),
    (Needs(cpus=1.0, memory=4_000), {"CPU": 8.0, "memory": 9_000.0}, 2),
    (Needs(cpus=1.0, memory=4_000), {"CPU": 8.0}, 0),
]


@pytest.mark.parametrize(("needs", "node", "fits"), FITS)
def test_what_fits_on_a_node(needs, node, fits):
    assert needs.fits(node) == fits


def test_idle_actors_make_room_for_cells_of_another_device(monkeypatch):
    engine, gone = make(Wanted(engine="ray")), []
    monkeypatch.setattr(engine, "_drop", gone.append)
    idle = Spot(actor=None, kind="cpu", node="here")
    starting = Spot(actor=None, kind="cpu")
    engine._spots = [idle, starting, Spot(actor=None, kind="cuda", node="here")]
    engine._make_room({"cpu", "cuda"})
    engine._make_room(set())
    assert gone == []
    engine._make_room({"cuda"})
    assert gone == [idle]


def test_a_run_without_isolation_goes_on_with_it(cluster, tmp_path):
    asked = {**TINY, "backbone": "resnet18", "isolate": "none", "out": tmp_path / "run"}
    begun = begin(parse_asked(asked))
    assert begun.store.folder == tmp_path / "run"
    begun.release()
    campaign = begin(replace(parse_asked({"resume": str(tmp_path / "run")}), engine=on(cluster)))
    assert campaign.plan.settings.isolate == "backbone"
    campaign.release()


# --- the driver's end -----------------------------------------------------------------------------------------


AGENTS = (b"ray::DashboardAgent", b"ray::RuntimeEnvAgent", b"ray/dashboard/agent.py", b"runtime_env/agent/main.py")
"""What Ray leaves for another minute, to report to nobody that its node is dead."""


def workers(mark: str) -> list[int]:
    """Processes of Ray, and of cells, whose environment has a mark; this one and Ray's agents apart."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            marked = f"TLBENCH_TEST_MARK={mark}".encode() in path.read_bytes()
            command = (path.parent / "cmdline").read_bytes()
            if marked and not any(agent in command for agent in AGENTS):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return [pid for pid in found if pid != os.getpid()]


@pytest.mark.exhaustive
def test_the_driver_is_killed_at_any_moment(alone, tmp_path, monkeypatch):
    """With SIGKILL, until it is done; Ray runs on this machine."""
    mark = f"{os.getpid()}-{tmp_path.name}"
    monkeypatch.setenv("TLBENCH_TEST_MARK", mark)
    chance, log, folder = random.Random(KILLS), tmp_path / "log", tmp_path / "run"
    grid = options(TINY, GRID, {"engine": "ray", "cpus": "1"})
    before: list[bytes] = []
    killed = 0
    for kills in range(KILLS + 1):
        how = (
            [f"--resume={folder}", "--engine=ray", "--cpus=1"]
            if (folder / RUN).exists()
            else [*grid, f"--out={folder}"]
        )
        process = start("run", *how, cwd=tmp_path, log=log)
        if kills == KILLS:
            assert process.wait(timeout=400) == 0, log.read_text()
            break
        until = time.monotonic() + chance.uniform(3, 20)
        while time.monotonic() < until and process.poll() is None:
            time.sleep(0.02)
        process.kill()
        assert process.wait() in (-signal.SIGKILL, 0), log.read_text()
        killed += process.returncode == -signal.SIGKILL
        assert gone(workers(mark), 60)
        lines = (folder / "records.jsonl").read_bytes().splitlines() if folder.exists() else []
        assert lines[: len(before)] == before  # nothing that was there is lost
        before = [line for line in lines if line.endswith(b"}")]
    assert killed > 0, "it was done before the first"
    found = load(folder).records
    assert Counter(identity(r) for r in found if r.status == "ok") == Counter(alone.keys())
    assert {identity(r): results(r) for r in found if r.status == "ok"} == alone


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"])
def test_a_signal_keeps_what_is_measured(number, status, tmp_path, monkeypatch):
    mark = f"{os.getpid()}-{tmp_path.name}"
    monkeypatch.setenv("TLBENCH_TEST_MARK", mark)
    log, folder = tmp_path / "log", tmp_path / "run"
    process = start(
        "run", *options(TINY, GRID, {"engine": "ray", "cpus": "1"}), f"--out={folder}", cwd=tmp_path, log=log
    )
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        if folder.exists() and (folder / "records.jsonl").exists() and load_or_none(folder):
            break
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(timeout=60) == status, log.read_text()
    assert gone(workers(mark), 60)
    assert any(r.status == "ok" for r in load(folder).records)
    assert "To go on: tlbench run --resume" in log.read_text()


def load_or_none(folder):
    try:
        return load(folder).records
    except UserError:
        return None
