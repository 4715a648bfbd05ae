"""What starts with a run: no more is imported than is used, and no image is decoded twice."""

import importlib
import os
import subprocess
import sys
import textwrap
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from records import record

from tlbench.backbones import BACKBONES, input_of
from tlbench.campaign import twins
from tlbench.data import Request, lent, load_data, store
from tlbench.data.copies import _joined
from tlbench.grid.cell import Cell
from tlbench.machine.kept import KEPT
from tlbench.machine.nvidia import has_driver


def folder_of_images(folder):
    """Twelve random images of each of two classes."""
    generator = np.random.default_rng(0)
    for number in range(24):
        place = folder / "ab"[number % 2]
        place.mkdir(exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (40, 48, 3), np.uint8)).save(place / f"{number}.png")


def run_code(code, *arguments):
    """What code prints in a process of its own."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


# --- imports --------------------------------------------------------------------------------------------------

PUBLISHED = Path(__file__).parents[1] / "results/published/quick-cpu"
HEAVY = ("torch", "torchvision", "timm", "pandas", "matplotlib", "sklearn")


def imported_by(names, *arguments):
    """Which of these modules a command has imported at its end."""
    code = f"""
        import sys
        from tlbench.cli import main
        sys.argv[0] = "tlbench"
        try:
            main()
        except SystemExit as done:
            assert not done.code
        print(*["imported:" + name for name in {names} if name in sys.modules])
    """
    words = run_code(code, *arguments)
    return [word.removeprefix("imported:") for word in words if word.startswith("imported:")]


@pytest.mark.parametrize(
    "chosen",
    [
        ("--backbone", "resnet18,efficientnet_lite0"),
        pytest.param((), marks=pytest.mark.skipif(has_driver(), reason="torch is asked for GPUs")),
    ],
    ids=["by its options", "as the first grid"],
)
def test_the_check_of_a_folder_imports_no_torch(chosen, tmp_path):
    folder_of_images(tmp_path)
    assert imported_by(HEAVY, "run", tmp_path, "--dry-run", *chosen) == []


def test_a_report_imports_no_more_of_scipy_and_numpy_than_it_calls(tmp_path):
    parts = ("scipy.special", "seaborn", "scipy.stats", "scipy.cluster", "scipy.spatial", "numpy.f2py", "torch")
    assert imported_by(parts, "report", PUBLISHED, "--out", tmp_path) == ["scipy.special", "seaborn"]


def test_a_summary_imports_no_more_of_numpy_than_it_calls():
    parts = (*HEAVY, "scipy.special", "scipy.stats", "numpy.f2py", "numpy.testing", "numpy.random", "numpy.polynomial")
    assert imported_by(parts, "summary", PUBLISHED) == ["scipy.special"]


@pytest.mark.parametrize("backbone", ["resnet18", "vit_b_16"])
def test_a_backbone_is_shown_by_torch_alone(backbone):
    parts = ("torch", "torch._dynamo", "timm", "pandas", "matplotlib", "scipy")
    assert imported_by(parts, "show", backbone) == ["torch"]


ASKED_LATER = {
    "nothing": ("print('xml.dom' in before)", "False"),
    "what is known": ("from xml.dom import name; print(name)", "known"),
    "more": ("from xml.dom import Node; print(Node.ELEMENT_NODE)", "1"),
    "a part": ("import xml.dom.minidom as part; print(part.__name__)", "xml.dom.minidom"),
    "the module": ("print(imported('xml.dom').Node.ELEMENT_NODE)", "1"),
    "nothing yet": ("import xml.dom as kept", ""),
    "what is not installed": ("print('nothing_of_this_name' in sys.modules)", "False"),
}


@pytest.mark.parametrize("what", ASKED_LATER)
def test_what_is_imported_later_is_there_for_whoever_asks(what):
    within, said = ASKED_LATER[what]
    code = f"""
        import sys
        from tlbench.machine.imports import imported, later
        finders, before, kept = list(sys.meta_path), set(sys.modules), None
        with later({{"xml": {{}}, "xml.dom": {{"name": "known"}}, "nothing_of_this_name": {{}}}}):
            {within}
        assert sys.meta_path == finders
        assert not [name for name, one in sys.modules.items() if type(one).__name__ == "_Later"]
        import xml.dom.minidom
        assert xml.dom is sys.modules["xml.dom"] and xml.dom.__spec__.name == "xml.dom"
        assert kept is None or kept.Node is xml.dom.Node
    """
    assert run_code(code) == said.split()


def test_who_asks_seaborn_for_densities_and_clusters_gets_them():
    code = """
        import sys
        from tlbench.report.plots.library import sns
        assert "scipy.stats" not in sys.modules and "scipy.cluster" not in sys.modules
        import numpy as np
        from matplotlib.figure import Figure
        values = np.random.default_rng(0).normal(size=(6, 4))
        ax = Figure().subplots()
        sns.kdeplot(values[:, 0], ax=ax)
        print(len(ax.lines), sns.clustermap(values).data2d.shape)
        import scipy.stats, scipy.cluster.hierarchy
        print(scipy.stats.__file__ is not None, scipy.cluster.hierarchy.linkage(values).shape)
    """
    assert run_code(code) == ["1", "(6,", "4)", "True", "(5,", "4)"]


COMPILER = ("torch._dynamo", "torch._dynamo.utils", "torch._inductor")


@pytest.mark.parametrize("backbone", ["resnet18", "efficientnet_lite0"])
def test_a_cell_that_compiles_nothing_imports_no_compiler(backbone):
    code = f"""
        import sys
        from tlbench.grid.cell import Cell
        from tlbench.grid.settings import Settings
        from tlbench.measure.cell import run_cell
        cell = Cell(backbone="{backbone}", weights="random", freeze="last_1", dataset="synthetic", epochs=1,
                    image_size=32, train_size=16)
        print(run_cell(cell, Settings()).status, *[name for name in {COMPILER} if name in sys.modules])
    """
    assert run_code(code) == ["ok"]


ASKED = {
    "a function": "import torch; torch._dynamo.reset()",
    "a part": "import torch._dynamo.config as config; config.recompile_limit",
    "a name of a part": "from torch._dynamo.utils import counters; counters['frames']",
    "a part of the stand-in's": "import torch._dynamo.utils; torch._dynamo.utils.counters",
    "compiling": "import torch; torch.compile(lambda x: x + 1, backend='eager')(torch.ones(1))",
}


@pytest.mark.exhaustive
@pytest.mark.parametrize("asked", ASKED)
def test_who_asks_for_the_compiler_gets_it(asked):
    code = f"""
        import sys
        import torch
        from tlbench.machine.lean import _StandIn, without_compiler
        finders = list(sys.meta_path)
        with without_compiler():
            optimizer = torch.optim.SGD([torch.ones(1, requires_grad=True)])
            optimizer.zero_grad()
            assert isinstance(sys.modules["torch._dynamo"], _StandIn)
            {ASKED[asked]}
        assert sys.meta_path == finders
        assert not isinstance(sys.modules["torch._dynamo"], _StandIn)
        assert "__dynamo_disable" not in vars(torch.optim.Optimizer.zero_grad.__wrapped__)
        modules = [m for n, m in sys.modules.items() if n.startswith("torch._dynamo")]
        assert all(m.__spec__ is not None and m.__spec__.name.startswith("torch._dynamo") for m in modules)
        print(sys.modules["torch._dynamo"].utils is sys.modules["torch._dynamo.utils"])
    """
    assert run_code(code) == ["True"]


@pytest.mark.exhaustive
def test_the_compiler_is_told_of_determinism_where_it_is_used():
    code = """
        import torch
        from tlbench.machine.lean import set_deterministic
        from tlbench.train.compiling import own_graphs
        set_deterministic(True)
        assert torch.are_deterministic_algorithms_enabled()
        with own_graphs("on"):
            import torch._inductor.config as config
            print(config.deterministic)
        set_deterministic(False)
        print(config.deterministic, torch.are_deterministic_algorithms_enabled())
        set_deterministic(True, warn_only=True)
        print(torch.is_deterministic_algorithms_warn_only_enabled())
    """
    assert run_code(code) == ["True", "False", "False", "True"]


def test_the_input_of_a_backbone_in_the_table_is_known_without_building_it(monkeypatch):
    monkeypatch.setattr("tlbench.backbones.load_backbone", None)
    assert input_of("resnet18").resize == 256
    assert all(info.input.size == info.image_size for info in BACKBONES.values())


# --- images ---------------------------------------------------------------------------------------------------


def request(size=16):
    return Request(size=size, resize=size, interpolation="bilinear", seed=0)


@pytest.fixture
def empty_shelf():
    KEPT.images.forget()
    yield
    KEPT.images.forget()
    lent._borrowed.clear()


@pytest.mark.parametrize("room", ["memory", "disk"])
def test_lent_images_are_those_that_were_decoded(room, tmp_path, monkeypatch, empty_shelf):
    folder_of_images(tmp_path)
    if room == "disk":
        monkeypatch.setattr(store, "free_bytes", lambda: 0)
    with lent.lending():
        decoded = load_data(f"folder:{tmp_path}", request())
    ((key, loan),) = store.loans().items()
    lent.accept({key: tuple(map(os.dup, loan))})
    (name,) = KEPT.images
    kept = KEPT.images.get(name)
    KEPT.images.forget()
    monkeypatch.setattr("tlbench.data.folder._decode", None)
    again = load_data(f"folder:{tmp_path}", request())
    borrowed = KEPT.images.get(name)
    assert again.sha256 == decoded.sha256
    assert again.identities == decoded.identities
    found, expected = (data.train.images[0 : len(again.labels)].numpy() for data in (again, decoded))
    assert np.array_equal(found, expected)
    for field in fields(kept):
        if field.name not in ("pixels", "memory_bytes"):
            assert getattr(borrowed, field.name) == getattr(kept, field.name), field.name


def test_what_nobody_asked_to_lend_is_not_lent_and_other_images_are_decoded(tmp_path, empty_shelf):
    folder_of_images(tmp_path)
    load_data(f"folder:{tmp_path}", request())
    assert store.loans() == {}
    KEPT.images.forget()
    with lent.lending():
        load_data(f"folder:{tmp_path}", request())
    lent.accept({key: tuple(map(os.dup, loan)) for key, loan in store.loans().items()})
    assert load_data(f"folder:{tmp_path}", request(size=24)).train.images.shape[-1] == 24


def test_files_of_lent_images_are_closed_with_them(tmp_path, empty_shelf):
    folder_of_images(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    with lent.lending():
        load_data(f"folder:{tmp_path}", request())
    assert len(store.loans()) == 1
    assert len(os.listdir("/proc/self/fd")) > before
    KEPT.images.forget()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_named_by_their_first(seed):
    generator = np.random.default_rng(seed)
    pairs = generator.integers(0, 40, (20, 2)).tolist()
    groups = [{position} for position in range(40)]
    for one, other in pairs:
        together = groups[one] | groups[other]
        for position in together:
            groups[position] = together
    assert _joined(40, pairs).tolist() == [min(group) for group in groups]


# --- twins and the end ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("isolate", ["none", "backbone", "cell"])
def test_a_run_of_one_cell_measures_it_once(isolate):
    cell = Cell()
    assert twins.next_twin({cell: "it"}, [replace(record(), cell=cell)], 0, None, isolate) is None
    assert twins.next_twin({cell: "it"}, [replace(record(), cell=cell)], 0, 1, isolate) is not None


def test_the_start_of_a_process_counts_as_a_twin_s_time():
    cells = {Cell(seed=seed): str(seed) for seed in range(30)}
    made = [replace(record(), cell=cell, wall_seconds=1.0) for cell in cells]
    assert twins.next_twin(cells, made, 0, None, "backbone") is not None
    assert twins.next_twin(cells, made, 0, None, "cell") is None
    gone = [Cell(backbone=f"resnet{n}") for n in (34, 50, 101)]
    made += [replace(record(), cell=cell, wall_seconds=0.01) for cell in gone]
    assert twins.next_twin(cells, made, 0, None, "backbone") is None


@pytest.mark.parametrize(("arguments", "status"), [(["--version"], 0), (["show", "nothing"], 2)])
def test_the_quick_end_keeps_words_and_status(arguments, status):
    code = "import atexit; atexit.register(print, 'the end'); from tlbench.cli import command; command()"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert done.stdout.endswith("the end\n")
    assert done.stdout.startswith("tlbench ") if not status else "unknown backbone 'nothing'" in done.stderr


# --- what bench/start.py times ---------------------------------------------------------------------------------


def test_what_the_clocks_of_a_start_are_put_round_is_there(monkeypatch):
    """A function that has moved would be timed as a part of what is round it, without a word."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "bench"))
    start = importlib.import_module("start")
    for module, places in start.WRAPPED.items():
        for owner, function, _ in places:
            found = importlib.import_module(module)
            found = getattr(found, owner) if owner else found
            assert callable(getattr(found, function, None)), f"{module}: {owner} {function}"
