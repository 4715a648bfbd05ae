"""Every figure is called with any frame of `tlbench.load`, and shows itself or says what is missing."""

import io
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from images import leading
from PIL import Image
from records import example_run, failure, record
from tiers import sweep

import tlbench
from tlbench.analysis.frame import rows, rows_of
from tlbench.errors import UserError
from tlbench.frame import COLUMNS
from tlbench.plots import PLOTS, Picture, Plot, freeze_efficiency
from tlbench.records.run_folder import Store

FEW = ("freeze_efficiency",)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs with two devices, twins and a failure."""
    folders = [tmp_path_factory.mktemp("runs") / name for name in "ab"]
    for folder, seeds in zip(folders, ((0, 1), (2,)), strict=True):
        store = Store(folder)
        made = example_run(
            backbones=("efficientnet_lite0", "resnet18"), policies=("linear_probe", "full", "lp_ft"), seeds=seeds,
            heads=("linear",), devices=("cpu", "cuda"), batch_sizes=(8, 32), epochs=4,
        )  # fmt: skip
        for one in [*leading(made), record(role="aa"), failure("failed", "x", freeze="norm", epochs=3)]:
            weights = {**one.weights, "sha256": "0a" * 32}
            store.append(replace(one, started=f"2026-01-0{1 + seeds[0]}T00:00:00+00:00", weights=weights))
    return folders


@pytest.fixture(scope="module")
def data(runs):
    return tlbench.load(*runs)


CHANGED = {
    "as it is": lambda data, _: data,
    "copied": lambda data, _: data.query("freeze != 'lp_ft' or freeze == 'lp_ft'").copy(),
    "put together": lambda _, runs: pd.concat(map(tlbench.load, runs)),
    "numbered anew": lambda data, _: data.reset_index(),
    "indexed": lambda data, _: data.set_index(["backbone", "freeze"]),
    "with a column more": lambda data, _: data.assign(mine=1),
    # Left to itself, an older pandas rounds the last digit away.
    "read from CSV": lambda data, _: pd.read_csv(io.StringIO(data.to_csv(index=False)), float_precision="round_trip"),
    "read from Parquet": lambda data, _: _parquet(data),
    "of other types": lambda data, _: data.convert_dtypes(),
    "floats for whole numbers": lambda data, _: data.astype({"seed": float, "batch_size": float, "epochs": float}),
}


def _parquet(data):
    content = io.BytesIO()
    data.to_parquet(content)
    return pd.read_parquet(content)


@pytest.mark.parametrize("how", CHANGED)
def test_a_frame_that_went_through_pandas_holds_the_same(how, data, runs):
    """Never another number or text; a CSV file does not tell an empty text from none."""
    for before, after in zip(rows_of(data), rows_of(CHANGED[how](data, runs)), strict=True):
        optional = {"weights_reason"} if how == "read from CSV" else set()
        assert {name: after[name] or None if name in optional else after[name] for name in COLUMNS} == {
            name: before[name] or None if name in optional else before[name] for name in COLUMNS
        }


OF_A_RUN_OF_ITS_OWN = ("label_efficiency", "elsewhere")


@pytest.mark.parametrize("name", sweep([name for name in PLOTS if name not in OF_A_RUN_OF_ITS_OWN], FEW))
def test_every_figure_is_called_with_a_frame(name, data, runs):
    """Whatever the frame went through, its rows are the same: one such frame stands for all, and tests/test_plots.py
    holds what is drawn from rows.
    """
    picture = PLOTS[name](CHANGED["read from CSV"](data, runs))
    assert isinstance(picture, Picture)
    assert picture.figure is not None, picture


def test_by_name_and_as_an_attribute(data):
    assert freeze_efficiency is PLOTS["freeze_efficiency"] is tlbench.plots.freeze_efficiency
    assert set(PLOTS) <= set(dir(tlbench.plots))
    with pytest.raises(AttributeError, match="there is no figure 'nothing'; there are: accuracy_against_cost"):
        _ = tlbench.plots.nothing
    assert tlbench.frame.COLUMNS


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))


def test_it_shows_itself_on_white(data):
    picture = PLOTS["throughput"](data)
    image = pixels(picture._repr_png_())
    assert (image[..., 3] == 255).all()  # nothing of a dark page shines through
    assert (image[[0, 0, -1, -1], [0, -1, 0, -1], :3] == 255).all()
    assert picture._repr_html_() is None
    assert "Throughput" in repr(picture)


def test_it_says_what_is_missing():
    data = tlbench.frame.frame(rows([record()]))
    picture = PLOTS["latency"](data)
    assert picture._repr_png_() is None
    told = "Latency of one image: not drawn, since no inference cell finished; run with --task train,infer"
    assert repr(picture) == told
    assert picture._repr_html_() == f"<p>{told}</p>"
    with pytest.raises(UserError, match="not drawn, since no inference cell finished"):
        picture.savefig("latency.png")


@pytest.mark.parametrize("name", PLOTS)
@pytest.mark.parametrize("what", ["columns", "rows"])
def test_of_too_little_it_says_what_is_missing(what, name, data):
    few = data[["backbone", "freeze", "accuracy_test"]] if what == "columns" else data.iloc[:0]
    picture = PLOTS[name](few)
    assert picture.figure is None
    if what == "columns":
        assert "the frame lacks columns of tlbench.load's: task, weights, head" in repr(picture)


@pytest.mark.parametrize("wrong", ["results/RUN", 3, pd.Series([1.0])], ids=["a path", "a number", "a column"])
def test_what_is_no_frame(wrong):
    with pytest.raises(UserError, match=r"a frame that tlbench\.load gives, not from"):
        PLOTS["latency"](wrong)


def test_a_plot_of_a_plugin_is_called_too(data, monkeypatch):
    def draw(summary):
        figure = mpl.figure.Figure()
        figure.suptitle(f"{len(summary)} configurations")
        return figure

    monkeypatch.setitem(PLOTS, "mine", Plot(title="Mine", caption="", draw=draw))
    assert pixels(tlbench.plots.mine(data)._repr_png_()).any()


RUDE = {
    "text.usetex": True, "font.size": 30, "figure.facecolor": "black", "savefig.facecolor": "black",
    "savefig.transparent": True, "axes.facecolor": "black", "savefig.bbox": "tight", "savefig.dpi": 10,
    "lines.linewidth": 9, "figure.constrained_layout.use": False,
}  # fmt: skip


@pytest.mark.parametrize("name", ["latency", pytest.param("heat_map", marks=pytest.mark.exhaustive)])
def test_a_users_settings_change_nothing(name, data):
    plain = PLOTS[name](data)._repr_png_()
    with mpl.rc_context(RUDE):
        before = dict(mpl.rcParams)
        assert PLOTS[name](data)._repr_png_() == plain
        assert dict(mpl.rcParams) == before


def test_a_file_is_as_it_is_shown(data, tmp_path):
    picture = PLOTS["throughput"](data)
    picture.savefig(tmp_path / "x.png")
    assert pixels((tmp_path / "x.png").read_bytes()).shape == pixels(picture._repr_png_()).shape
    with pytest.raises(UserError, match=r"cannot write .*choose another file"):
        picture.savefig(tmp_path / "none" / "x.png")


@pytest.mark.exhaustive
def test_no_backend_is_needed(runs):
    """A notebook names one that this process may not have."""
    code = f"import tlbench; print(len(tlbench.plots.heat_map(tlbench.load({str(runs[0])!r}))._repr_png_()))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "MPLBACKEND": "not_there", "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 1000


def test_twins_are_in_a_frame_only_when_asked_for(runs):
    plain, all_of_them = tlbench.load(runs[0]), tlbench.load(runs[0], twins=True)
    assert set(plain.role) == {"cell"}
    assert all_of_them.role.value_counts()["aa"] == 1
    assert len(all_of_them) == len(plain) + 1
