"""What a node says of itself, and what of it is another than the driver's."""

from dataclasses import asdict

import pytest
from conftest import save_image
from made_engine import campaign

from tlbench.campaign import at_node
from tlbench.campaign.at_node import AtNode, event_of, plain_event
from tlbench.campaign.engine import Batch, Lost, Wanted
from tlbench.campaign.nodes import DOWNLOAD, differences, facts, question
from tlbench.engines import ENGINES, Row, check_engine
from tlbench.errors import UserError
from tlbench.grid.settings import Settings

HASH, OTHER = "a" * 64, "b" * 64
ASKED = {"datasets": ["digits"], "weights": [], "plugins": [], "room": 0}


def said(**changes):
    return {"versions": {"torch": "2"}, "images": {}, "weights": {}, "plugins": {}, "room": None, **changes}


WEIGHTS = [
    (HASH, HASH, ""),
    (HASH, OTHER, "others"),
    (HASH, "missing", "missing"),
    (HASH, DOWNLOAD, ""),
    (DOWNLOAD, DOWNLOAD, ""),
    (DOWNLOAD, HASH, ""),  # a node of an earlier run has downloaded them
    (DOWNLOAD, "missing", "missing"),
    (DOWNLOAD, "random", "random"),
    ("random", "random", ""),
    ("random", HASH, "others"),
]


@pytest.mark.parametrize(("here", "there", "line"), WEIGHTS)
def test_weights_that_are_or_may_be_the_same(here, there, line):
    lines = differences(said(weights={"r": here}), said(weights={"r": there}), ASKED)
    assert (line in "; ".join(lines)) if line else lines == []


@pytest.mark.parametrize(
    ("there", "line"),
    [
        (said(), ""),
        (said(versions={"torch": "3"}), "torch is 3 there, 2 here"),
        (said(versions={}), "torch is not installed there, 2 here"),
        (said(room=5), "are free for decoded images"),
        ({"error": "it cannot run tlbench: no module"}, "no module"),
    ],
)
def test_what_is_another_is_a_line(there, line):
    lines = differences(said(), there, {**ASKED, "room": 10})
    assert (line in "; ".join(lines)) if line else lines == []


def test_files_of_another_size_are_other_images(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.jpg").write_bytes(b"1")
    asked = {**ASKED, "datasets": [f"folder:{tmp_path}"]}
    before = facts(asked)["images"]
    assert facts(asked)["images"] == before
    (tmp_path / "a" / "1.jpg").write_bytes(b"12")
    assert facts(asked)["images"] != before
    assert facts({**ASKED, "datasets": ["folder:/not/there"]})["images"] == {"folder:/not/there": ""}


PLUGIN = """
from dataclasses import replace
from tlbench.data import DATASETS
DATASETS["mine"] = replace(DATASETS["digits"])
"""


def test_a_node_knows_the_data_set_of_a_plugin_that_travels(tmp_path, monkeypatch):
    from tlbench.data import DATASETS

    monkeypatch.setattr("tlbench.data.DATASETS", DATASETS)
    setup = {
        "settings": {},
        "folder": str(tmp_path),
        "plugins": [{"name": "mine.py", "source": PLUGIN}],
        "asked": {"ask": {**ASKED, "datasets": ["mine"]}, "here": {}},
    }
    monkeypatch.chdir(tmp_path)
    at = AtNode(setup, "here")
    try:
        assert at.facts()["images"] == {"mine": "mine"}
    finally:
        at.close()
        DATASETS.pop("mine", None)


def test_what_a_node_cannot_do_is_lost_and_no_end_of_the_run(tmp_path, monkeypatch):
    setup = {"settings": {}, "folder": str(tmp_path), "plugins": [], "asked": {}, "engine": "x", "shared": True}
    monkeypatch.chdir(tmp_path)
    at = AtNode({**setup, "siblings": [], "environ": {}}, "here")
    monkeypatch.setattr(AtNode, "_ready", lambda self, batch: 1 / 0)
    (event,) = at.measure({"number": 7, "tasks": [], "layouts": {}})
    assert event_of(event) == Lost(batch=7, reason="here: ZeroDivisionError: division by zero")
    assert plain_event(event_of(event)) == event


IGNORED = [
    (Wanted(engine="plain", exclusive=True), "keeps no neighbours away"),
    (Wanted(engine="plain", cpus=2.0), "does not heed --cpus"),
    (Wanted(engine="plain", gpus=1.0), "does not heed --gpus"),
    (Wanted(engine="ray", exclusive=True, cpus=2.0), "leave --cpus away"),
    (Wanted(engine="ray", gpus=1.0), "there is none"),
]


@pytest.mark.parametrize(("wanted", "said"), IGNORED)
def test_what_an_engine_would_ignore_is_refused(wanted, said, monkeypatch):
    monkeypatch.setitem(ENGINES, "plain", Row(summary="", make=lambda wanted: None))
    with pytest.raises(UserError, match=said):
        check_engine(wanted, Settings(isolate="backbone"), {"cpu"})


def test_gpus_are_for_cells_on_cuda():
    check_engine(Wanted(engine="ray", gpus=1.0), Settings(isolate="backbone"), {"cpu", "cuda"})


def test_images_of_files_need_no_room_on_a_node(tmp_path):
    """On one machine they are never refused for want of it: at the worst they are decoded on the way."""
    for name in ("a", "b"):
        for number in range(4):
            save_image(tmp_path / "photos" / name / f"{number}.png", 50, seed=number)
    axes = {"dataset": (f"folder:{tmp_path}/photos",), "image_size": (5000,), "freeze": ("full",)}
    one = campaign(tmp_path / "run", axes)
    assert question(one)["room"] == 0
    one.release()


def test_what_a_node_alone_knows_to_be_secret_is_in_no_word_of_its_failures(monkeypatch):
    monkeypatch.setenv("NODE_API_KEY", "sk-only-here-0123456789")
    setup = {"settings": asdict(Settings()), "plugins": {}, "engine": "ray", "shared": False, "folder": ""}
    for error in (RuntimeError, UserError):
        node = AtNode(setup, "n1")

        def broken(batch, error=error):
            raise error("refused: sk-only-here-0123456789")

        monkeypatch.setattr(node, "_ready", broken)
        monkeypatch.setattr(at_node, "batch_of", lambda plain: Batch(number=1, tasks=(), layouts={}))
        (said,) = list(node.measure({"number": 1}))
        assert "sk-only-here" not in str(said)
        assert "refused" in str(said)
