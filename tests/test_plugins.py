"""One file from outside, examples/plugin.py, adds one of everything: it is listed, shown, run, measured by pytest and
drawn in the report, with nothing else touched.
"""

import hashlib
import html
import re
import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import test_data
import test_freeze
import test_heads
import test_policies
import test_policy_matrix
import torch
from records import record
from tiers import sweep
from torch import nn

from tlbench.analysis.commands import command as command_of
from tlbench.analysis.commands import reading
from tlbench.backbones import CUSTOM, load_backbone
from tlbench.campaign.plugins import load_plugins
from tlbench.data import DATASETS, Dataset, check_dataset
from tlbench.errors import UserError
from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.heads import HEADS
from tlbench.machine.kept import KEPT
from tlbench.measure import build as build_module
from tlbench.measure import cell as cell_module
from tlbench.measure.cell import run_cell
from tlbench.measure.place import Place
from tlbench.policies import freezing
from tlbench.policies.base import Adapter, Phase, Policy
from tlbench.policies.parse import fixed_weights, parse_policy
from tlbench.policies.table import POLICIES
from tlbench.records.plan import load_start
from tlbench.records.run_folder import Store, load
from tlbench.report.plots import PLOTS

ROOT = Path(__file__).parents[1]
TABLES = (CUSTOM, POLICIES, HEADS, DATASETS, PLOTS)
GRID = {
    "backbone": "mynet", "freeze": "linear_probe,convolutions,factors", "head": "normed,centroid", "dataset": "stripes",
    "weights": "random", "image-size": "32", "epochs": "2", "batch-size": "16", "layout": "contiguous", "threads": "1",
}  # fmt: skip


EXAMPLE = ROOT / "examples" / "plugin.py"


@pytest.fixture(autouse=True)
def tables():
    """Whatever a test adds to the tables goes again."""
    before = [dict(table) for table in TABLES]
    KEPT.forget()  # a backbone of the same name may have been another file's
    yield
    KEPT.forget()
    for table, rows in zip(TABLES, before, strict=True):
        table.clear()
        table.update(rows)
    sys.modules.pop("mine", None)


@pytest.mark.exhaustive
def test_the_readme_s_own_code_is_a_plugin(tmp_path):
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Add your own")[2].partition("\n## ")[0]
    blocks = re.findall(r"```python\n(.*?)```", text, re.S)
    assert len(blocks) == 2
    path = tmp_path / "mine.py"
    path.write_text("\n".join(blocks), encoding="utf-8")
    load_plugins([str(path)])
    record = run_cell(
        Cell(backbone="mynet", weights="random", freeze="convolutions", image_size=32, train_size=20, epochs=1),
        Settings(),
    )
    assert (record.status, record.reason) == ("ok", "")
    for block in blocks:
        shown = block.partition("\n\n\n")[2].strip()
        assert shown in EXAMPLE.read_text(encoding="utf-8"), "examples/plugin.py has it, too"


@pytest.fixture
def plugin(tmp_path):
    path = tmp_path / "mine.py"
    shutil.copy(EXAMPLE, path)
    return path


@pytest.fixture
def loaded(plugin):
    load_plugins([str(plugin)])
    return sys.modules["mine"]


def options(prefix: str, **changes: str) -> list[str]:
    return [f"--{prefix}{name}={value}" for name, value in {**GRID, **changes}.items()]


def check_run(folder: Path) -> None:
    """Every cell of `GRID` is measured or means nothing, and the report has the plot."""
    records = [record for record in load(folder).records if record.role == "cell"]
    found = {(r.cell.freeze, r.cell.head): (r.status, r.reason) for r in records}
    assert len(found) == len(records) == 6
    for (freeze, head), (status, reason) in found.items():
        if head == "centroid" and freeze != "linear_probe":
            assert status == "not_applicable"
        else:
            assert (status, reason) == ("ok", "")
    by_policy = {r.cell.freeze: r for r in records if r.cell.head == "normed"}
    head = 2 * 64 + 64 * 2 + 2
    assert by_policy["linear_probe"].trainable_parameters == head
    assert by_policy["factors"].trainable_parameters == head + 8 + 64
    assert by_policy["factors"].cut == "stem"
    assert by_policy["convolutions"].trainable_parameters == head + (27 + 1) * 8 + (72 + 1) * 64
    assert all(r.frozen_sha256_before == r.frozen_sha256_after for r in by_policy.values())
    assert all(r.accuracy_test is not None for r in by_policy.values())
    assert "Trainable parameters" in (folder / "report.html").read_text(encoding="utf-8")
    assert (folder / "figures" / "sizes.svg").exists()


@pytest.mark.exhaustive
@pytest.mark.parametrize("isolate", sweep(["backbone", "none"], {"none"}))
def test_a_run(isolate, command, plugin, tmp_path):
    status, out, err = command(
        "run", f"--plugin={plugin}", *options("", isolate=isolate), "--out", tmp_path / "run"
    )  # fmt: skip
    assert status == 0, out + err
    check_run(tmp_path / "run")


@pytest.mark.exhaustive
def test_pytest(plugin, tmp_path, monkeypatch, capsys):
    shutil.copy(ROOT / "bench" / "test_train.py", tmp_path / "test_train.py")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "test_train", raising=False)  # tests/ has a file of this name
    status = pytest.main(
        [
            "--benchmark-only", "-o", "python_functions=trai[n] infe[r]", "--rootdir=.", "--import-mode=importlib",
            "-p", "no:cacheprovider", "-p", "no:unraisableexception", f"--tl-plugin={plugin}", *options("tl-"),
            "--tl-out=run",
        ]
    )  # fmt: skip
    assert status == 0, capsys.readouterr().out
    check_run(tmp_path / "run")


@pytest.mark.exhaustive
def test_a_report_with_the_plugin_and_without_it(command, plugin, tables, tmp_path):
    """What a plugin's policies left behind can be read where the plugin is not."""
    grid = options("", freeze="factors", head="normed", isolate="none")
    assert command("run", f"--plugin={plugin}", *grid, "--out", tmp_path / "run")[0] == 0
    for table in TABLES:
        for name in [*table]:
            if name in ("mynet", "factors", "normed", "stripes", "sizes"):
                del table[name]
    for name, plugins in (("without", []), ("with", [f"--plugin={plugin}"])):
        status, out, err = command("report", tmp_path / "run", "--out", tmp_path / name, *plugins)
        assert status == 0, out + err
        page = (tmp_path / name / "report.html").read_text(encoding="utf-8")
        assert "factors" in page
        assert (tmp_path / name / "figures" / "sizes.svg").exists() == ("By policy." in page) == (name == "with")


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("backbones", ["mynet", "64"]),
        ("policies", ["factors", "convolutions", "IA3, Liu 2022"]),
        ("heads", ["normed", "centroid"]),
        ("datasets", ["stripes", "noise, plain or striped"]),
    ],
)
def test_lists(what, words, command, plugin, monkeypatch):
    monkeypatch.setenv("COLUMNS", "240")
    before = command("list", what)[1]
    status, out, err = command("list", what, "--plugin", plugin)
    assert status == 0, err
    for word in words:
        assert word in out
    assert not any(re.search(rf"^{word}\b", before, re.M) for word in words)


def test_show(command, plugin):
    status, out, err = command("show", "mynet", "--freeze=factors", "--head=normed", "--plugin", plugin)
    assert status == 0, err
    assert "Scaled" in out
    assert f"factors: {8 + 64 + 2 * 64 + 64 * 23 + 23:,} trainable parameters" in out
    assert "cut at stem, frozen prefix: none" in out


BROKEN = [
    ("list", "heads"), ("show", "resnet18"), ("run", "--dry-run"), ("report", "none"), ("summary", "none"),
    ("recommend", "none"), ("compare", "none", "none"), ("compare", "--against=HEAD"), ("speedup", "none"),
    ("efficiency", "none"), ("export", "none"), ("duel", "backbone=resnet18", "backbone=mynet"),
]  # fmt: skip


@pytest.mark.parametrize("arguments", BROKEN)
def test_a_plugin_that_cannot_be_imported(arguments, command, tmp_path):
    """Whatever names a backbone, a policy, a head, a data set or a plot takes plugins."""
    (tmp_path / "mine.py").write_text("1 / 0")
    status, _, err = command(*arguments, "--plugin", tmp_path / "mine.py")
    assert status == 2
    assert "mine.py' cannot be imported: ZeroDivisionError" in err


@pytest.mark.parametrize("raising", ["policy", "backbone"])
def test_what_raises_in_a_plugin_is_one_line(raising, loaded, command):
    """As `tlbench show` says it: with the line of the plugin's file."""

    def raises(*_):
        raise RuntimeError("in two\nlines")

    POLICIES["raises"] = Policy(summary="", source="", build=raises, arguments={})
    CUSTOM["raises"] = replace(CUSTOM["mynet"], build=raises)
    chosen = {"policy": ("mynet", "--freeze=raises"), "backbone": ("raises",)}[raising]
    status, _, err = command("show", *chosen)
    assert status == 2
    assert re.fullmatch(r"tlbench: .*raises.* cannot be shown: RuntimeError: in two lines \(.*\.py, line \d+\)\n", err)


# --- what a run was made with ---------------------------------------------------------------------------------


@pytest.fixture
def here(plugin, monkeypatch, tmp_path):
    """Makes the plugin's folder the current one, where it is mine.py."""
    monkeypatch.chdir(tmp_path)
    return plugin


@pytest.fixture
def fake_cells(monkeypatch):
    """Cells are not run: each gives a finished record."""

    def run_cell(cell, settings, *, place, **_):
        made = record(freeze=cell.freeze)
        return replace(made, id=place.name, cell=cell, settings=settings, block=place.block, role=place.role)

    monkeypatch.setattr(cell_module, "run_cell", run_cell)


MADE = ["run", *options("", freeze="convolutions", head="normed", isolate="none", twins="0"), "--out=run"]


def forget():
    """Takes the plugin's rows out of the tables, as a new process would begin."""
    for table in TABLES:
        for name in ("mynet", "factors", "convolutions", "normed", "centroid", "stripes", "sizes"):
            table.pop(name, None)


@pytest.fixture
def made(here, fake_cells, command, monkeypatch):
    """A run of one cell that needs the plugin, which is not loaded any more."""
    monkeypatch.setattr("tlbench.report.write_report", lambda records, folder: folder / "report.html")
    status, out, err = command(*MADE, "--plugin=mine.py")
    assert status == 0, out + err
    forget()


def test_a_run_knows_its_plugins(made, here):
    sha256 = hashlib.sha256(here.read_bytes()).hexdigest()
    assert load_start(Path("run")).plan.plugins == {"mine.py": sha256}
    assert [dict(one.plugins) for one in load("run").records] == [{"mine.py": sha256}]


def test_it_goes_on_with_them(made, command):
    status, out, err = command("run", "--resume=run", "--seeds=0,1")
    assert status == 0, out + err
    assert [one.cell.seed for one in load("run").records] == [0, 1]
    assert load_start(Path("run")).plan.plugins.keys() == {"mine.py"}
    forget()
    _, out, err = command("replay", "run")
    assert (err, "unknown" in out) == ("", False)


def test_what_is_added_to_a_run_may_take_another_plugin(made, here, command):
    Path("more.py").write_text("from tlbench.backbones import CUSTOM\nCUSTOM['other'] = CUSTOM['mynet']")
    status, out, err = command("run", "--resume=run", "--backbone=other", "--plugin=more.py")
    assert status == 0, out + err
    assert [[*one.plugins] for one in load("run").records] == [["mine.py"], ["mine.py", "more.py"]]
    assert [*load_start(Path("run")).plan.plugins] == ["mine.py", "more.py"]


def test_every_printed_command_has_them():
    a, b = (
        replace(record(seed=n), plugins={f"{folder}mine.py": "ab", "a module": ""})
        for n, folder in ((0, ""), (1, "new/"))
    )
    assert shlex.split(command_of([a, b]))[-4:] == ["--plugin", "new/mine.py", "--plugin", "a module"]
    assert "--plugin" not in command_of([record()])


@pytest.mark.parametrize("plugin", ["mine.py", "a folder/mine.py", None])
def test_the_command_that_then_reads_the_runs_has_them_too(plugin, tmp_path, command):
    """It was `tlbench report RUN latest` alone, and lost the plugin's figures and the words of its policies."""
    store = Store(tmp_path / "run")
    for seed, freeze, accuracy in ((0, "linear_probe", 0.8), (0, "full", 0.81)):
        made = record(seed=seed, freeze=freeze, accuracies=(accuracy,) * 3)
        store.append(replace(made, plugins={plugin: "ab"} if plugin else {}))
    if plugin:
        (tmp_path / plugin).parent.mkdir(exist_ok=True)
        (tmp_path / plugin).write_text("")
    given = ["--plugin", tmp_path / plugin] if plugin else []
    named = f" --plugin {shlex.quote(plugin)}" if plugin else ""
    _, out, _ = command("summary", tmp_path / "run", *given)
    assert f" latest{named} then takes them together" in " ".join(out.split())
    command("report", tmp_path / "run", *given)
    assert f"tlbench report RUN latest{named}" in (tmp_path / "run/report.md").read_text()
    assert f"tlbench report RUN latest{named}" in html.unescape((tmp_path / "run/report.html").read_text())
    assert reading("tlbench recommend RUN latest", ["# why not"]) == "tlbench recommend RUN latest"


@pytest.mark.parametrize("arguments", [("run", "--resume=run", "--dry-run"), ("replay", "run")])
def test_a_plugin_that_has_moved_or_changed_is_one_line(arguments, made, here, command):
    (here.parent / "new").mkdir()
    moved = here.rename(here.parent / "new" / "mine.py")
    status, _, err = command(*arguments)
    assert status == 2
    assert err == (
        "tlbench: run 'run' was made with the plugin 'mine.py', which is not here; "
        "say where it lies now: --plugin PATH/mine.py\n"
    )
    _, out, err = command(*arguments, "--plugin=new/mine.py")
    assert (err, "unknown" in out) == ("", False)
    forget()
    here.write_text(moved.read_text() + "\n")
    status, _, err = command(*arguments)
    assert status == 2
    assert re.fullmatch(
        r"tlbench: plugin 'mine.py' is not what run 'run' was made with \(\w{8}, now \w{8}\); to take it as it is, "
        r"name it: --plugin mine.py\n",
        err,
    )
    status, _, err = command(*arguments, "--plugin=mine.py")
    said = r"(tlbench: |note     )plugin 'mine.py' is not what run 'run' was made with \(\w{8}, now \w{8}\)\n"
    assert re.fullmatch(said, err)


# --- policies -------------------------------------------------------------------------------------------------


def test_a_policy_is_known_from_the_moment_it_is_there(plugin):
    assert fixed_weights("from_noise") is None
    with pytest.raises(UserError, match="unknown freeze policy 'factors'"):
        parse_policy("factors")
    load_plugins([str(plugin)])
    assert parse_policy("factors+bn=adapt").name == "factors"
    with pytest.raises(UserError, match="did you mean 'factors'"):
        parse_policy("factor")
    POLICIES["from_noise"] = Policy(summary="", source="", build=None, arguments={}, weights="random")
    assert fixed_weights("from_noise") == "random"


def test_a_name_of_its_own_comes_before_one_with_a_place(loaded):
    POLICIES["stage_heads"] = POLICIES["convolutions"]
    assert parse_policy("stage_heads").name == "stage_heads"
    assert parse_policy("stage_1").name == "stage_NAME"


@pytest.mark.exhaustive
@pytest.mark.parametrize("text", ["convolutions", "factors"])
def test_the_tests_over_the_table_take_a_new_row_as_it_is(text, loaded):
    test_policies.test_how_a_policy_is_written_is_how_it_is_read(text)
    test_policies.test_every_policy_has_one_line_with_its_source()
    backbone = load_backbone("mynet", "random")
    built = backbone, build_module.assemble(backbone, "linear", 3)
    test_freeze.test_trainable_parameters_of_resnet18(built, text)
    for name in ("squeezenet1_1", "shufflenet_v2_x0_5"):
        test_policy_matrix.test_exactly_what_the_policy_names_moves_and_costs(name, text)


def test_the_tests_over_the_tables_take_new_heads_and_data_sets_as_they_are(loaded):
    for name in ("normed", "centroid"):
        test_heads.test_a_head_maps_features_to_logits(name)
    test_heads.test_a_fitted_head_tells_classes_apart("centroid")
    test_data.test_the_table_says_what_each_is("stripes")
    test_data.test_a_training_set_is_refused_without_the_images_as_with_them("stripes")


def test_what_an_adapter_puts_in_is_its_own_and_of_the_stage_around_it(loaded):
    policy = parse_policy("factors")
    backbone = load_backbone("mynet", "random")
    model = build_module.assemble(backbone, "linear", 3)
    policy.inject(model, 32)
    described = freezing.describe(model, backbone.group_of, policy.owns)
    kinds = {p.name: (p.group, p.kind) for p in described.params}
    assert kinds["stem.stem.factors"] == ("stem", "adapter")
    assert kinds["stem.stem.layer.weight"] == ("stem", "conv")
    assert kinds["stage1.block.factors"] == ("stage1", "adapter")
    assert described.groups == backbone.groups


class Bottleneck(nn.Module):
    """A residual bottleneck after a module, with a frozen random part of its own."""

    def __init__(self, module: nn.Module, width: int) -> None:
        super().__init__()
        self.module, self.down, self.up = module, nn.Conv2d(width, 4, 1), nn.Conv2d(4, width, 1)
        self.noise = nn.Parameter(torch.rand(4, 1, 1))

    def forward(self, x):
        x = self.module(x)
        return x + self.up(self.down(x).relu() * self.noise)


def on_top(model, arguments, size):
    model.stage1.block = Bottleneck(model.stage1.block, 64)
    return model


def bottleneck(model, arguments, epochs):
    own = model.select(lambda p: p.kind == "adapter" and not p.name.endswith("noise"))
    return [Phase(name="bottleneck", scales=own)]


@pytest.mark.exhaustive
def test_an_adapter_above_a_frozen_prefix(loaded, tmp_path):
    """Cells that share the loaded weights and the prefix come out as they do alone."""
    torch.save(loaded.MyNet().state_dict(), tmp_path / "net.pth")
    owns = (".down.", ".up.", ".noise")
    adapter = Adapter(inject=on_top, owns=lambda name: any(word in f"{name}." for word in owns))
    POLICIES["bottleneck"] = Policy(summary="", source="", build=bottleneck, arguments={}, adapter=adapter)
    weights = str(tmp_path / "net.pth")
    common = {"backbone": "mynet", "weights": weights, "dataset": "stripes", "epochs": 2, "batch_size": 16}
    settings = Settings(prefix="on")

    def results(seeds, siblings=()):
        made = []
        for seed in seeds:
            for freeze in ("bottleneck", "linear_probe"):
                record = run_cell(Cell(**common, freeze=freeze, seed=seed), settings, place=Place(siblings=siblings))
                assert (record.status, record.reason) == ("ok", "")
                assert record.frozen_sha256_before == record.frozen_sha256_after
                made.append((freeze, record.cut, record.predictions_sha256, [r.loss for r in record.rounds]))
        return made

    together = results((0, 1), siblings=("linear_probe", "bottleneck"))
    assert [cut for _, cut, _, _ in together] == ["stage1", "head"] * 2
    KEPT.forget()
    assert results((0,)) + results((1,)) == together


@pytest.mark.exhaustive
def test_an_adapter_that_is_merged_is_checked(loaded):
    def merge(model):
        for parent in list(model.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, loaded.Scaled):
                    with torch.no_grad():
                        child.layer.weight.mul_(child.factors[..., None])
                        child.layer.bias.mul_(child.factors.flatten() * wrong)
                    setattr(parent, name, child.layer)
        return model

    def put_in(model, arguments, size):
        loaded.put_in(model, arguments, size)
        return model

    row = POLICIES["factors"]
    adapter = Adapter(inject=put_in, owns=row.adapter.owns, merge=merge)
    POLICIES["merged"] = Policy(summary="", source="", build=row.build, arguments={}, adapter=adapter)
    cell = Cell(backbone="mynet", weights="random", freeze="merged", dataset="stripes", epochs=2, batch_size=16)
    wrong = 1.0
    record = run_cell(cell, Settings())
    assert (record.status, record.reason) == ("ok", "")
    wrong = 3.0
    record = run_cell(cell, Settings())
    assert record.status == "failed"
    assert "the merged model's logits differ" in record.reason


# --- data sets ------------------------------------------------------------------------------------------------


@pytest.mark.exhaustive
def test_a_data_set_at_a_path(loaded, tmp_path):
    def count(path):
        if path != "here":
            raise UserError(f"nothing at {path!r}")
        return 2

    DATASETS["mine"] = Dataset(summary="", load=loaded.stripes, classes=count, takes_path=True)
    check_dataset("mine:here", [2])
    with pytest.raises(UserError, match="nothing at 'there'"):
        check_dataset("mine:there")
    with pytest.raises(UserError, match="train size 1 is less than"):
        check_dataset("mine:here", [1])
    with pytest.raises(UserError, match=r"folder:PATH, .*mine:PATH"):
        check_dataset("mime")
    with pytest.raises(UserError, match="'stripes' takes no path"):
        check_dataset("stripes:here")
    record = run_cell(
        Cell(backbone="mynet", weights="random", dataset="mine:here", epochs=1, batch_size=16), Settings()
    )
    assert (record.status, record.classes) == ("ok", 2)


@pytest.mark.parametrize("name", ["json", "torch", "random", "tlbench", "pytest", "colorsys", "this"])
def test_a_file_named_like_a_module_takes_its_place_for_nobody(tmp_path, name):
    path = tmp_path / f"{name}.py"
    path.write_text("from tlbench.data import DATASETS\nDATASETS['of_a_plugin'] = DATASETS['synthetic']\n")
    before = sys.modules.get(name)
    load_plugins([str(path)])
    assert "of_a_plugin" in DATASETS
    assert sys.modules.get(name) is before
    found = [one for one in sys.modules if one.startswith(f"tlbench_plugin_{name}_")]
    assert Path(sys.modules[found[0]].__file__) == path
    load_plugins([str(path)])
    assert [one for one in sys.modules if one.startswith(f"tlbench_plugin_{name}_")] == found
    del sys.modules[found[0]]


def test_a_file_with_a_name_of_its_own_keeps_it(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("WHERE = __name__\n")
    for _ in range(2):
        load_plugins([str(path)])
        assert sys.modules["mine"].WHERE == "mine"
