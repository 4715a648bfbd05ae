"""Grid: expansion, ids, keys, TOML and command-line axes."""

import os
import re
import string
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlbench.backbones import lite
from tlbench.campaign.asked import Asked, parse_asked
from tlbench.errors import UserError
from tlbench.grid.axes import AXES, parse_axis
from tlbench.grid.cell import Cell, short_name
from tlbench.grid.grid import FIRST, SHAPE, Grid, load_grid, without_training
from tlbench.grid.values import size, split_values
from tlbench.machine.device import resolve_devices
from tlbench.policies.parse import parse_policy
from tlbench.progress.words import Names
from tlbench.records.run_folder import find_run


def test_expand_is_the_product_of_the_axes():
    grid = Grid(axes={"backbone": ("a", "b"), "freeze": ("full", "norm"), "head": ("linear", "mlp")})
    cells = grid.expand()
    assert len(cells) == len(set(cells)) == 8
    assert {cell.task for cell in cells} == {"train"}


def test_ids_tell_places_of_one_last_name_apart():
    """`fit --id` and `replay --id` found two cells by one id, and a run's lines were the same for both."""
    grid = Grid(
        axes={
            "dataset": ("folder:shop1/photos", "folder:shop2/photos", "digits"),
            "weights": ("a/best.pth", "b/best.pth", "auto"),
        }
    )
    cells = grid.expand()
    assert len({grid.id_of(cell) for cell in cells}) == len(cells) == 9
    assert grid.id_of(cells[0]) == "resnet18-linear_probe-linear-folder:photos-cpu-s0-shop1_photos-a_best.pth"
    names = Names(cells)
    assert len({names.of(cell) for cell in cells}) == 9
    assert names.of(cells[0]) == "resnet18 linear_probe linear a/best.pth shop1/photos"
    alike = Grid(axes={"dataset": ("folder:my photos", "folder:my_photos", "folder:my-photos")})
    assert len(set(map(alike.id_of, alike.expand()))) == 3
    plain = Grid(axes={"dataset": ("folder:shop1/photos", "folder:shop1/other")})
    assert plain.id_of(plain.expand()[0]) == "resnet18-linear_probe-linear-folder:photos-cpu-s0"


def test_a_tilde_that_no_shell_has_expanded_is_the_home(tmp_path, monkeypatch):
    """Of ``--out=~/run`` a folder called ~ was made."""
    monkeypatch.setenv("HOME", str(tmp_path))
    asked = parse_asked({"out": "~/run", "plugin": ["~/mine.py"]})
    assert (asked.out, asked.plugins) == (f"{tmp_path}/run", (f"{tmp_path}/mine.py",))
    (tmp_path / "run").mkdir()
    assert find_run("~/run") == tmp_path / "run"
    assert parse_asked({"resume": "~/run"}).resume == f"{tmp_path}/run"
    (tmp_path / "grid.toml").write_text('backbone = "resnet18"')
    assert parse_asked({"grid": "~/grid.toml"}).grid is not None


def test_inference_is_measured_once_for_each_backbone_and_head():
    grid = Grid(
        axes={
            "task": ("train", "infer"),
            "backbone": ("a", "b"),
            "freeze": ("full", "norm"),
            "head": ("linear", "mlp"),
            "seed": (0, 1, 2),
        }
    )
    cells = grid.expand()
    assert len([c for c in cells if c.task == "train"]) == 24
    inference = [c for c in cells if c.task == "infer"]
    assert len(inference) == 4
    assert {c.freeze for c in inference} == {"none"}


def test_the_id_reads_as_the_readme_says():
    assert Cell(backbone="resnet18").id == "resnet18-linear_probe-linear-digits-cpu-s0"
    assert Cell(task="infer", freeze="none").id == "resnet18-linear-digits-cpu-s0"


def test_ids_name_every_axis_that_varies():
    grid = Grid(axes={"weights": ("auto", "random"), "batch_size": (8, 16), "task": ("train", "infer")})
    ids = [(c.task, grid.id_of(c)) for c in grid.expand()]
    assert len(set(ids)) == len(ids)
    assert ("train", "resnet18-linear_probe-linear-digits-cpu-s0-random-b16") in ids


@pytest.mark.parametrize("name", [name for name in AXES if name != "task"])
def test_an_id_tells_the_axes_that_it_is_said_to_tell(name):
    """The task is told by the name of the test or the word before the id."""
    assert (Cell(**{name: "77"}).id != Cell().id) == AXES[name].in_id


def test_every_field_of_a_cell_is_an_axis_and_its_default_a_choice():
    assert set(AXES) == {field.name for field in fields(Cell)}
    for name, axis in AXES.items():
        axis.check(getattr(Cell(), name))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("augment", "flop", "unknown augmentation 'flop'; did you mean 'flip'?"),
        ("compile", "x", "unknown choice for --compile 'x'. Choose from: off, on"),
        ("optimizer", "adam", "unknown optimizer 'adam'; did you mean 'adamw'? Choose from: auto, adamw, sgd"),
        ("head", "mpl", "unknown head 'mpl'; did you mean 'mlp'?"),
    ],
)
def test_a_value_that_is_no_choice(name, value, said):
    with pytest.raises(UserError) as caught:
        AXES[name].check(value)
    assert str(caught.value).startswith(said)


def test_inference_cells_are_equal_whatever_was_trained():
    grid = Grid(axes={"task": ("infer",), "epochs": (9,), "seed": (3, 4), "lr": (0.1,), "train_size": (50,)})
    (cell,) = grid.expand()
    assert cell.seed == 3
    assert cell != Cell(task="infer", freeze="none", epochs=1)
    assert without_training(cell) == Cell(task="infer", freeze="none", epochs=1)
    trained = Cell(lr=0.1, seed=3)
    assert without_training(trained) == trained


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [("50MB", 50 * 10**6), ("2 gb", 2 * 10**9), ("1.5GiB", 1.5 * 2**30), ("1e9", 10**9), (".5kB", 500), ("7", 7)],
)
def test_sizes(text, bytes_):
    assert size(text) == bytes_


@pytest.mark.parametrize("text", ["2XB", "-1", "1e400", "9" * 30, "", "GB", "1e", "٣GB"])
def test_what_is_no_size(text):
    with pytest.raises(ValueError, match="a size such as 50MB"):
        size(text)


@pytest.mark.parametrize("dataset", ["folder:/a/b [1]/c::d", "folder:.", "folder:/tmp/über bilder\n"])
def test_ids_are_safe_as_pytest_node_ids(dataset):
    name = Cell(dataset=dataset).id
    assert "::" not in name
    assert not set(name) & set("[]/\n ")


def test_the_key_depends_on_every_field():
    base = Cell()
    changed = [
        Cell(**{name: value})
        for name, value in {
            "task": "infer",
            "backbone": "x",
            "weights": "random",
            "freeze": "full",
            "head": "mlp",
            "dataset": "synthetic",
            "device": "cuda",
            "seed": 1,
            "precision": "bf16",
            "epochs": 6,
            "batch_size": 33,
            "image_size": 64,
            "train_size": 9,
        }.items()
    ]
    assert len({c.key for c in [base, *changed]}) == len(changed) + 1
    assert Cell().key == base.key


@pytest.mark.parametrize(
    ("text", "parts"),
    [("a", ["a"]), ("a, b", ["a", "b"]), ("lora(r=8,alpha=1),full", ["lora(r=8,alpha=1)", "full"])],
)
def test_commas_inside_parentheses_do_not_split(text, parts):
    assert split_values(text) == parts


def test_toml_grid(tmp_path):
    path = tmp_path / "g.toml"
    path.write_text('backbone = ["a", "b"]\nseeds = [0, 1]\nbatch_size = 16\nimage-size = 64\n')
    grid = load_grid(path)
    assert grid.axes["backbone"] == ("a", "b")
    assert grid.axes["seed"] == (0, 1)
    assert {(c.batch_size, c.image_size) for c in grid.expand()} == {(16, 64)}


@pytest.mark.parametrize(("name", "training", "inference"), [("quick", 32, 8), ("gpu", 36, 12)])
def test_the_grids_that_come_with_the_suite(name, training, inference):
    cells = load_grid(Path(__file__).parent.parent / "bench" / "grids" / f"{name}.toml").expand()
    assert [sum(c.task == task for c in cells) for task in ("train", "infer")] == [training, inference]


def test_the_first_grid_is_that_of_quick_toml():
    quick = load_grid(Path(__file__).parent.parent / "bench" / "grids" / "quick.toml")
    assert quick == FIRST
    assert quick.named == FIRST.named
    at_hand = [cell for cell in FIRST.expand() if cell.backbone in lite.MODELS]
    assert [sum(c.task == task for c in at_hand) for task in ("train", "infer")] == [24, 6]


@pytest.mark.parametrize(
    ("given", "freed"),
    [
        ({}, []),
        ({"dataset": ("digits",)}, []),
        ({"dataset": ("folder:x",)}, ["epochs", "image_size", "train_size"]),
        ({"dataset": ("digits", "folder:x")}, ["epochs", "image_size", "train_size"]),
        ({"dataset": ("folder:x",), "epochs": (7,)}, ["image_size", "train_size"]),
    ],
)
def test_what_suits_the_grid_s_own_images_is_left_at_its_default_for_others(given, freed):
    assert FIRST.freed_by(given) == freed
    for name, values in FIRST.asked_for(given).axes.items():
        assert values == given.get(name, (getattr(Cell(), name),) if name in freed else FIRST.axes[name]), name


def test_a_grid_that_names_no_data_set_is_for_any(tmp_path):
    (tmp_path / "g.toml").write_text("image_size = 64\n")
    grid = load_grid(tmp_path / "g.toml").asked_for({"dataset": ("folder:x",)})
    assert grid.axes["image_size"] == (64,)
    assert Asked(grid=load_grid(tmp_path / "g.toml"), axes={"dataset": ("folder:x",)}).about_axes() == []


def test_it_is_said_what_is_left_at_its_default():
    asked = Asked(axes={"dataset": ("folder:d,1",), "epochs": (7,)}).or_first_grid()
    assert asked.about_axes() == [
        "the grid's image-size 64, train-size 600 are for digits: folder:d\\,1 takes the defaults, or what "
        "--image-size, --train-size say"
    ]


@pytest.mark.parametrize("name", SHAPE)
def test_whoever_names_an_axis_that_makes_a_grid_gets_no_first_grid(name):
    assert Asked(axes={name: FIRST.axes[name]}).or_first_grid().grid is None
    assert Asked(axes={"seed": (0, 1)}).or_first_grid().grid is FIRST
    assert Asked(resume="run").or_first_grid().grid is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('backbones = ["a"]', "unknown key in g.toml 'backbones'; did you mean 'backbone'?"),
        ("epochs = 'three'", "'three' is not a whole number from 1 to 1,000,000"),
        ("epochs = 0", "0 is not a whole number from 1 to 1,000,000"),
        ("epochs = true", "True is not a whole number"),
        ("epochs = 1.5", "1.5 is not a whole number"),
        ("backbone = 3", "3 is not a name"),
        ("backbone = []", "axis 'backbone' has no value"),
        ('backbone = ["a", "a"]', "axis 'backbone' has the value 'a' twice"),
        ("backbone = [", "is not TOML"),
        ("[backbone]\na = 1", "is not a name"),
    ],
)
def test_a_wrong_toml_grid_is_one_clear_line(tmp_path, text, message):
    path = tmp_path / "g.toml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load_grid(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_grid_file(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        load_grid(tmp_path / "none.toml")


@given(st.text(max_size=200))
def test_any_toml_text_parses_or_gives_one_clear_line(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("grids") / "g.toml"
    path.write_text(text, encoding="utf-8", newline="")
    try:
        assert load_grid(path).expand()
    except UserError as error:
        assert len(str(error).splitlines()) <= 1


_values = st.one_of(st.integers(), st.floats(allow_nan=False), st.booleans(), st.text(string.ascii_letters, max_size=5))


@given(st.dictionaries(st.sampled_from(sorted(AXES)), st.one_of(_values, st.lists(_values, max_size=3)), max_size=4))
def test_any_axis_values_parse_or_give_one_clear_line(table):
    try:
        grid = Grid(axes={name: parse_axis(name, value) for name, value in table.items()})
    except UserError as error:
        assert str(error)
    else:
        cells = grid.expand()
        assert len({(c.task, grid.id_of(c)) for c in cells}) == len(cells)


def test_seeds_may_be_ranges():
    assert parse_axis("seed", "0-4,7") == (0, 1, 2, 3, 4, 7)
    assert parse_axis("seed", ["1-2", 5]) == (1, 2, 5)
    for bad in ("4-0", "0-1000000", "1-", "-3"):
        with pytest.raises(UserError, match=r"axis 'seeds'"):
            parse_axis("seed", bad)


@pytest.mark.parametrize("form", ["last_K", "first_K", "stage_NAME", "last_K+bn=adapt"])
def test_a_form_is_no_policy_and_is_not_suggested_for_itself(form):
    with pytest.raises(UserError, match="is a form: write a value in the place of its capitals"):
        parse_policy(form)


def test_what_people_call_a_gpu():
    with pytest.raises(UserError, match="did you mean 'cuda'"):
        resolve_devices(("gpu",))


def test_latest_is_the_run_that_was_written_last(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    with pytest.raises(UserError, match="cannot read run 'latest'"):
        find_run("latest", tmp_path)
    for age, name in ((5, "b"), (3, "a")):
        (tmp_path / name / "records.jsonl").write_text("{}")
        os.utime(tmp_path / name / "records.jsonl", ns=(10**18 - age * 10**9,) * 2)
    assert find_run("latest", tmp_path) == tmp_path / "a"
    (tmp_path / "latest").mkdir()
    assert find_run("latest", tmp_path) == tmp_path / "latest"


def test_the_last_part_of_a_path_is_that_of_what_it_leads_to(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "l").symlink_to("a/b")
    (tmp_path / "x").symlink_to("nowhere")
    paths = ["a", "a/", "a/b//", ".", "..", "a/..", "a/.", "l", "l/", "x", "~", "none/here", f"{tmp_path}/l", "l/.."]
    for path in paths:
        name = re.sub(r"[^\w.+@()=,:-]", "_", Path(path).resolve().name)
        assert short_name(f"folder:{path}") == f"folder:{name}"
