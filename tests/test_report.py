"""Reports from hand-made records: golden Markdown and CSV, the same numbers everywhere, nothing hidden, nothing run."""

import csv
import json
import math
import os
import re
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from goldens import golden
from records import example_run, failure, record
from tiers import sweep

import tlbench
from tlbench import report
from tlbench.analysis.frame import COLUMNS
from tlbench.analysis.summary import SUMMARY
from tlbench.errors import UserError
from tlbench.records.run_folder import Store
from tlbench.report import plots, write_report

MADE = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
EVIL = "<script>alert(1)</script>"


def small_run():
    """Two policies over two seeds, inference, an A/A pair, one failure, one flagged record: a little of everything."""
    cells = [
        record(
            seconds=(t, 1.1 * t, t), accuracies=(0.5, 0.7, a), accuracy_test=a - 0.02, freeze=policy, seed=seed, **given
        )
        for policy, seed, t, a, given in (
            ("linear_probe", 0, 1.0, 0.80, {}),
            ("linear_probe", 1, 1.1, 0.82, {}),
            ("full", 0, 4.0, 0.95, {"trainable_parameters": 11_181_642}),
            ("full", 1, 4.4, 0.94, {"validity": "noisy", "validity_reason": "pressure of 5 % in 1 of 3 rounds"}),
        )
    ]
    twins = [record(seconds=(t,) * 3, role="aa", freeze="full", seed=9) for t in (1.0, 1.02)]
    other = [
        record(task="infer", seconds=(0.5, 0.5, 0.5), latency=[n / 1000 for n in range(1, 41)]),
        failure("failed", "RuntimeError: a | b", freeze="norm", epochs=3),
        failure("not_applicable", "norm: vgg16 has no normalisation layers", backbone="vgg16", freeze="norm", epochs=3),
    ]
    return [*cells, *twins, *other]


@pytest.fixture
def no_figures(monkeypatch):
    """Where figures do not matter they need not be drawn."""
    monkeypatch.setattr(plots, "PLOTS", {})


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    write_report(small_run(), folder, ["a run"] * len(small_run()), MADE)
    return folder


def write_example(folder):
    records = example_run(devices=("cpu", "cuda"))
    write_report(records, folder, [f"run on {r.cell.device}" for r in records], MADE)
    return folder


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The report of the example with all its figures, which take most of the time."""
    return write_example(tmp_path_factory.mktemp("drawn"))


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """The same with two figures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "PLOTS", {name: plots.PLOTS[name] for name in ("speedup", "accuracy_against_cost")})
        return write_example(tmp_path_factory.mktemp("example"))


def table(folder):
    with (folder / "report.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


class Page(HTMLParser):
    """The cells of the table with id rows, and the elements and texts of the whole page."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.headings, self.tags, self.texts, self.links = [], [], [], [], []
        self.table = self.cell = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        if tag == "table":
            self.table = attrs.get("id")
        elif tag == "tr" and self.table == "rows":
            self.rows.append([])
        elif tag == "th" and self.table == "rows":
            self.headings.append(attrs["data-name"])
        elif tag == "td" and self.table == "rows":
            self.cell = {"value": attrs.get("data-v"), "ends": None, "text": ""}
            self.rows[-1].append(self.cell)
        elif tag == "small" and self.cell is not None:
            self.cell["ends"] = attrs.get("data-i")
        elif tag == "a":
            self.links.append(attrs.get("href", attrs.get("xlink:href")))

    def handle_endtag(self, tag):
        if tag == "td":
            self.cell = None
        if tag in ("td", "th", "li", "p", "h2", "h3", "dt", "dd", "div", "summary"):
            self.texts.append(" ")

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] not in ("style", "script"):
            self.texts.append(data)
        if self.cell is not None:
            self.cell["text"] += data


parsed = lru_cache(maxsize=4)(Page)  # many tests look at the same two reports


def page(folder):
    return parsed((folder / "report.html").read_text(encoding="utf-8"))


# --- golden ---------------------------------------------------------------------------------------------------


@pytest.mark.exhaustive
def test_golden_markdown(small):
    text = (
        (small / "report.md").read_text(encoding="utf-8").replace(f"tlbench {tlbench.__version__}", "tlbench VERSION")
    )
    assert text == golden("report.md", text)


def test_golden_csv(small):
    """Numbers to nine digits: the last ones may differ between versions of numpy and scipy."""
    text = (small / "report.csv").read_text(encoding="utf-8")
    expected = list(csv.reader(golden("report.csv", text).splitlines()))
    found = list(csv.reader(text.splitlines()))
    assert found[0] == expected[0] == list(SUMMARY)
    assert len(found) == len(expected)
    for line, wanted in zip(found[1:], expected[1:], strict=True):
        for name, value, golden_value in zip(SUMMARY, line, wanted, strict=True):
            try:
                assert float(value) == pytest.approx(float(golden_value), rel=1e-9), name
            except ValueError:
                assert value == golden_value, name


# --- the same numbers everywhere ------------------------------------------------------------------------------


@pytest.mark.parametrize("run", sweep(["small", "example"], {"small"}))
def test_every_number_of_the_page_is_the_csvs(run, request):
    folder = request.getfixturevalue(run)
    made, lines = page(folder), table(folder)
    rows = [row for row in made.rows if row]
    assert len(rows) == len(lines) > 3
    compared = 0
    for row, line in zip(rows, lines, strict=True):
        for name, cell in zip(made.headings, row, strict=True):
            if cell["value"] is not None:
                assert cell["value"] == line[name]
                shown = cell["text"].split()[0].replace(",", "")
                # What is shown is the raw value, rounded: its first digits, whatever the unit.
                digits = shown.replace(".", "").lstrip("0")
                value = f"{float(line[name]):.15e}".replace(".", "")
                close = {f"{float(value[:1] + '.' + value[1:16]):.{n}e}" for n in range(len(digits) + 1)}
                assert any(c.replace(".", "").split("e")[0].rstrip("0") == digits.rstrip("0") for c in close), (
                    name,
                    line[name],
                    shown,
                )
                compared += 1
            elif name in SUMMARY and line[name] == "":
                assert cell["text"].strip() == "–"
            if cell["ends"] is not None:
                assert cell["ends"].split() == [line[f"{name}_low"], line[f"{name}_high"]]
    assert compared > 20


@pytest.mark.parametrize("run", sweep(["small", "example"], {"small"}))
def test_the_verdict_recomputed(run, request):
    """An independent few lines over the CSV: best validation mean, one within a point, most images/s."""
    folder = request.getfixturevalue(run)
    expected, within = [], []
    groups = {}
    for line in table(folder):
        groups.setdefault((line["dataset"], line["device"], line["machine"]), []).append(line)
    for lines in groups.values():
        trained = [x for x in lines if x["task"] == "train" and x["status"] == "ok" and x["accuracy_val"]]
        best = max(trained, key=lambda x: float(x["accuracy_val"]))
        near = [x for x in trained if float(x["accuracy_val"]) >= float(best["accuracy_val"]) - 0.01]
        within.append({line["configuration"] for line in near})
        inferring = [x for x in lines if x["task"] == "infer" and x["status"] == "ok"]
        fastest = max(inferring, key=lambda x: float(x["images_per_second"]))
        expected += [best, fastest]
    text = (folder / "report.html").read_text(encoding="utf-8")
    picked = re.findall(r'<p class="answer"><a href="#cell-(\w+)">', text)
    assert picked[::3] == [line["configuration"] for line in expected[::2]]
    assert picked[2::3] == [line["configuration"] for line in expected[1::2]]
    # What surely is within a point depends on intervals: of those that by their estimates are, the leader at the worst.
    assert all(cheapest in near for cheapest, near in zip(picked[1::3], within, strict=True))


def test_parquet_holds_the_csv_and_the_records(small):
    data = pd.read_parquet(small / "report.parquet")
    assert list(data.columns) == list(SUMMARY)
    for line, (_, row) in zip(table(small), data.iterrows(), strict=True):
        for name in ("accuracy_val", "epoch_seconds", "images_per_second", "accuracy_val_low"):
            assert (line[name] == "" and math.isnan(row[name])) or float(line[name]) == row[name]
    records = pd.read_parquet(small / "records.parquet")
    assert list(records.columns) == list(COLUMNS)
    assert len(records) == len(small_run())
    assert list(records["round_seconds"].iloc[0]) == [1.0, 1.1, 1.0]


def test_without_pyarrow_the_report_says_how_to_get_parquet(tmp_path, monkeypatch, no_figures):
    write_report(small_run(), tmp_path)
    assert (tmp_path / "report.parquet").exists()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    write_report(small_run(), tmp_path)
    assert not list(tmp_path.glob("*.parquet"))
    assert "Parquet files as well after pip install 'tlbench[parquet]'" in seen(tmp_path)
    assert "tlbench[parquet]" in (tmp_path / "report.md").read_text(encoding="utf-8")


@pytest.mark.exhaustive
def test_figures_lie_beside_the_report_as_png_and_svg(drawn):
    names = {path.stem for path in (drawn / "figures").glob("*.svg")}
    assert names == {path.stem for path in (drawn / "figures").glob("*.png")}
    assert names == set(plots.PLOTS) - {
        *("throughput_against_batch_size", "label_efficiency", "confusion", "reliability", "elsewhere")
    }
    text = (drawn / "report.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\(figures/(\w+)\.png\)", text)) == names
    for plot in plots.PLOTS.values():
        assert plot.title in seen(drawn)


@pytest.mark.exhaustive
def test_a_figure_of_an_earlier_report_does_not_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "PLOTS", {"speedup": plots.PLOTS["speedup"]})
    drawn = tmp_path / "figures" / "speedup.png"
    write_report(example_run(devices=("cpu", "cuda"), seeds=(0,)), tmp_path)
    assert drawn.exists()
    write_report(small_run(), tmp_path)
    assert not drawn.exists()


def test_figures_that_are_drawn_beside_the_rest_are_the_same(tmp_path, monkeypatch):
    """Of a large run a copy of the process draws them; here of a small one, a figure of which cannot be drawn."""

    def fails(rows):
        raise RuntimeError(f"drawn by {os.getpid()}")

    broken = replace(plots.PLOTS["latency"], draw=fails)
    monkeypatch.setattr(plots, "PLOTS", {"throughput": plots.PLOTS["throughput"], "latency": broken})
    monkeypatch.setattr(threading, "active_count", lambda: 1)  # pytest-xdist has one
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    found = []
    for many in (10**9, 0):
        monkeypatch.setattr(report, "MANY", many)
        lines = []
        write_report(small_run(), tmp_path / f"{many}", "run", datetime(2026, 1, 2, tzinfo=UTC), tell=lines.append)
        files = {path.name: path.read_bytes() for path in (tmp_path / f"{many}").rglob("*") if path.is_file()}
        by = re.search(r"the report lacks the figure 'Latency.*drawn by (\d+)", " ".join(lines))[1]
        found.append((by, {name: content.replace(b"drawn by " + by.encode(), b"") for name, content in files.items()}))
    assert found[0][1] == found[1][1]
    assert found[0][0] == str(os.getpid())
    if hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) > 1:
        assert found[1][0] != str(os.getpid())


# --- nothing is hidden ----------------------------------------------------------------------------------------


def seen(folder):
    return " ".join("".join(page(folder).texts).split())


def test_the_verdict_comes_first_and_every_part_is_there(example):
    text = seen(example)
    parts = ["Verdict for digits on cpu", "Verdict for digits on cuda", "Configurations", "Figures", "Flagged records",
             "Failures and skips", "Environment"]  # fmt: skip
    places = [text.index(part, text.index("Verdict for")) for part in parts]
    assert places == sorted(places)


def test_failures_skips_and_flags_show_with_their_reasons(example):
    text = seen(example)
    assert "skipped: no pretrained weights; put them into place" in text
    assert "failed: seed 0: batch size 32: out of memory; seed 1, 2: RuntimeError: x" in text
    assert "noisy: train resnet18-full-linear-digits-cpu-s1: pressure above 2 % in 2 of 5 rounds" in text
    assert "Times of 4 configurations are flagged" in text


@pytest.mark.exhaustive
def test_what_freezing_does_not_buy_has_its_reason(tmp_path):
    flops = {"full": 3e9, "norm": 2e9, "linear_probe": 1e9}
    step = {"data": 0.001, "forward": 0.010, "backward": 0.020, "optimizer": 0.002, "launch": 0.003}
    seconds = {"full": 3.0, "norm": 2.9, "linear_probe": 1.0}
    write_report(
        [
            record(
                freeze=freeze, seconds=(seconds[freeze],) * 3, flops={"forward": 1e9, "train_step": {freeze: value}},
                detail=step,
            )
            for freeze, value in flops.items()
        ],
        tmp_path,
    )  # fmt: skip
    line = "resnet18 · norm · linear: 1.03 of 1.50"
    assert line in seen(tmp_path)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert text.count(" of 1.50\n") == 1
    assert " of 3.00\n" not in text
    assert (tmp_path / "figures" / "freeze_efficiency.svg").exists()


def test_random_weights_are_named_at_the_top_and_once(example):
    text = seen(example)
    note = "Random weights, not pretrained: resnet18, and so no pick beside others."
    assert text.index(note) < text.index("Configurations")
    assert text.count(note) == 1
    assert "random: resnet18 since no network" in text


def test_what_is_wrong_with_the_images_is_told(tmp_path, no_figures):
    cells = [record(repeated_images={"val": 0, "test": 7}), record(freeze="full", dropped_images=2)]
    write_report(
        [*cells, record(dataset="folder:photos", passed_over_files=1, passed_over_endings={".gif": 1})], tmp_path
    )
    text = seen(tmp_path)
    assert "digits: up to 7 images in the test split with the same pixels as a training image; what" in text
    assert "digits: 2 images left out, since they cannot be read." in text
    assert "folder:photos: 1 file beside the images passed over, being no images by their names." in text
    assert "folder:photos: pictures that are not read, by ending: 1 .gif." in text
    assert "validation split with" not in text


def test_unequal_budgets_are_told(tmp_path, no_figures):
    write_report([record(), record(freeze="full", seconds=(1.0,) * 7, accuracies=(0.5,) * 7)], tmp_path)
    assert "Cells were trained for different numbers of epochs: 3, 7." in seen(tmp_path)


def test_the_noise_stands_above_the_table(small, example):
    text = seen(small)
    assert "Noise of times on cpu: noisy: a cell measured twice comes out up to" in text
    assert text.index("Noise of times") < text.index("Configurations")
    assert "Noise of times on cuda: unknown: no cell was measured twice" in seen(example)


def test_what_differs_between_machines_is_told_with_both_values(example):
    text = seen(example)
    assert "What differs between the machines" in text
    assert "gpu – Example GPU" in text


def test_a_verdict_that_cannot_be_given_says_what_to_run(tmp_path, no_figures):
    write_report([record(), record(freeze="full", accuracies=(0, 0, 0.95))], tmp_path)
    text = seen(tmp_path)
    assert "Not decided: one seed tells no spread" in text
    assert "tlbench run --task train --backbone resnet18 --freeze full,linear_probe" in text
    assert "Fastest at inference none: inference was not measured; a run with --task train,infer does" in text


def test_speed_ups_stand_by_policy(example):
    text = seen(example)
    assert "cuda over cpu" in text
    ratio = re.search(r"policy linear_probe: ([\d.]+) \([\d.]+ to [\d.]+\) times as fast", text)
    assert float(ratio[1]) == pytest.approx(40, rel=0.1)


def test_ties_are_called_ties(example):
    assert "Tied with efficientnet_lite0 · full · mlp" in seen(example)


def test_figures_that_cannot_be_drawn_say_why(small):
    assert "Speed-up: no cell was measured on two devices or precisions" in seen(small)


# --- one self-contained page ----------------------------------------------------------------------------------


def test_the_page_loads_nothing(example):
    for tag, attrs in page(example).tags:
        for name in ("src", "href", "xlink:href", "action", "data", "poster", "srcset"):
            value = attrs.get(name) or ""
            assert value.startswith(("#", "data:")) or not value, (tag, name, value)
        assert tag not in ("iframe", "object", "embed", "base")
    text = (example / "report.html").read_text(encoding="utf-8")
    assert "@import" not in text
    assert "url(http" not in text


def test_links_lead_somewhere(example):
    made = page(example)
    ids = {attrs["id"] for _, attrs in made.tags if "id" in attrs}
    details = details_of(example)
    for link in made.links:
        target = link.removeprefix("#")
        assert target in ids or target.removeprefix("cell-") in details["cells"], link


def test_no_id_stands_twice(example):
    ids = [attrs["id"] for _, attrs in page(example).tags if "id" in attrs]
    own = [
        name for name in ids if not re.fullmatch(r"[mpC][\w-]+|DejaVu.*", name)
    ]  # definitions in figures are named by content
    assert len(own) == len(set(own))


def details_of(folder):
    text = (folder / "report.html").read_text(encoding="utf-8")
    return json.loads(re.search(r'<script type="application/json" id="details">(.*?)</script>', text, re.DOTALL)[1])


def test_the_section_of_a_cell_has_curves_environment_and_command(small):
    details = details_of(small)
    cells = {cell["n"]: cell for cell in details["cells"].values()}
    cell = cells["train resnet18 · full · linear"]
    assert cell["c"].startswith(
        "tlbench run --task train --backbone resnet18 --freeze full --head linear --dataset digits"
    )
    assert "--seeds 0,1" in cell["c"]
    assert [run["s"] for run in cell["r"]] == [[4.0, 4.4, 4.0], [4.4, 4.84, 4.4]]
    assert [run["a"] for run in cell["r"]] == [[0.5, 0.7, 0.95], [0.5, 0.7, 0.94]]
    assert cell["r"][1]["validity"] == "noisy"
    assert details["machines"][cell["m"]]["cpu_model"] == "Example CPU"
    assert cells["infer resnet18 · linear"]["r"][0]["q"][10] == 20.5


@pytest.mark.exhaustive
def test_names_are_text_wherever_they_come_from(tmp_path):
    """A class folder's path, a run, a reason, a checkpoint, a GPU."""
    environment = {"stable": {"cpu_model": EVIL, EVIL: EVIL}, "settings": {"threads": 1}}
    initial = {"source": EVIL, "pretrained": True, "reason": EVIL}
    given = {
        "weights": EVIL,
        "initial": initial,
        "environment": environment,
        "validity": "noisy",
        "validity_reason": EVIL,
    }
    records = [record(dataset=f"folder:{EVIL}", seed=n, **given) for n in (0, 1)]
    records.append(failure("failed", f"{EVIL}: {EVIL}", dataset=f"folder:{EVIL}", freeze="full", epochs=3))
    write_report(records, tmp_path, [EVIL] * 3)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert EVIL not in text
    scripts = [attrs for tag, attrs in page(tmp_path).tags if tag == "script"]
    assert len(scripts) == 2
    assert EVIL in seen(tmp_path)
    assert EVIL not in (tmp_path / "report.md").read_text(encoding="utf-8")
    for path in (tmp_path / "figures").glob("*.svg"):
        assert "<script" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["a|b", "`x`", "*b* _c_", "[l](http://x)", "line\nbreak", "\\", "~~s~~"])
def test_markdown_shows_names_as_they_are(tmp_path, no_figures, name):
    write_report([record(dataset=f"folder:{name}")], tmp_path, [name])
    lines = (tmp_path / "report.md").read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("| resnet18")]
    head = next(line for line in lines if line.startswith("| backbone"))
    bars = re.compile(r"(?<!\\)(?:\\\\)*\|")
    assert len(rows) == 1
    assert len(bars.findall(rows[0])) == len(bars.findall(head))


# --- any run --------------------------------------------------------------------------------------------------


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "records",
    [
        [failure("interrupted", "stopped by the user", epochs=3)],
        [record(role="aa")],
        [record(task="infer")],
        [replace(record(dataset="synthetic"), accuracy_val=None, accuracy_test=None)],
        [record(environment={})],
    ],
    ids=["interrupted", "only an A/A measurement", "only inference", "no accuracy", "no environment"],
)
def test_a_report_of_a_poor_run(records, tmp_path):
    path = write_report(records, tmp_path)
    assert path == tmp_path / "report.html"
    assert len(table(tmp_path)) == sum(r.role != "aa" for r in records)


@pytest.mark.exhaustive
def test_several_runs_in_one_report(tmp_path, command, no_figures):
    for device in ("cpu", "cuda"):
        store = Store(tmp_path / f"run-{device}")
        for made in example_run(devices=(device,), seeds=(0, 1)):
            store.append(made)
    out = tmp_path / "both"
    status, printed, _ = command("report", tmp_path / "run-cpu", tmp_path / "run-cuda", "--out", out)
    assert status == 0
    assert printed.strip() == str(out / "report.html")
    text = seen(out)
    assert "run-cpu" in text
    assert "run-cuda" in text
    assert "Verdict for digits on cpu" in text
    assert "Verdict for digits on cuda" in text


@pytest.fixture
def two_runs(tmp_path, command, no_figures):
    """Two runs, each with its own report."""
    for name in ("one", "two"):
        Store(tmp_path / "results" / name).append(record(epochs=len(name), started=name))
        assert command("report", tmp_path / "results" / name)[0] == 0
    folder = tmp_path / "results"
    own = {name: (folder / name / "report.html").read_bytes() for name in ("one", "two")}
    yield folder
    assert {name: (folder / name / "report.html").read_bytes() for name in own} == own


def test_a_report_of_several_runs_replaces_none_of_a_run(two_runs, command):
    status, printed, _ = command("report", two_runs / "one", two_runs / "two" / "records.jsonl")
    assert status == 0
    assert Path(printed.strip()) == two_runs / "report-of-one+two" / "report.html"
    assert "Verdict for" in seen(two_runs / "report-of-one+two")
    other = two_runs.parent / "elsewhere" / "two"
    Store(other).append(record(started="x"))
    printed = command("report", two_runs / "one", other)[1]
    assert re.search(r"results/report-of-one-and-1-more-[0-9a-f]{8}/report.html$", printed.strip())


@pytest.mark.parametrize(("runs", "out"), [(("one", "two"), "one"), (("one",), "two"), (("one", "two"), "two/../two")])
def test_a_report_is_not_written_over_another_runs_own(two_runs, command, runs, out):
    status, _, err = command("report", *(two_runs / run for run in runs), "--out", two_runs / out)
    assert status == 2
    assert "is the folder of a run, whose own report would be overwritten; choose another with --out" in err


def test_a_run_by_its_name_has_its_report_in_its_own_folder(tmp_path, command, no_figures, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Store(tmp_path / "results" / "monday").append(record())
    status, printed, _ = command("report", "monday")
    assert status == 0
    assert Path(printed.strip()) == Path("results") / "monday" / "report.html"
    assert not (tmp_path / "report.html").exists()


def test_an_unwritable_folder(tmp_path, command):
    Store(tmp_path / "run").append(record())
    (tmp_path / "file").write_text("")
    status, _, err = command("report", tmp_path / "run", "--out", tmp_path / "file" / "x")
    assert status == 2
    assert "cannot write the report" in err
    with pytest.raises(UserError, match="--out"):
        write_report([record()], tmp_path / "file")


@pytest.mark.exhaustive
def test_the_same_records_make_the_same_files(tmp_path):
    for name in ("a", "b"):
        write_report(small_run(), tmp_path / name, ["x"] * len(small_run()), MADE)
    for name in ("report.html", "report.md", "report.csv", "figures/accuracy_against_cost.svg"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
