"""What names and messages may do to whoever reads them: formulas, control characters, links, markup."""

import csv
import io
import json
import sys
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import failure, record

from tlbench.analysis.frame import read_csv, write_csv
from tlbench.analysis.stats import Interval
from tlbench.campaign.duel_side import Side
from tlbench.campaign.replay import Difference, Replay
from tlbench.cli.repeating import _print_duel, _print_replay
from tlbench.console import new_console
from tlbench.errors import printable
from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.machine.formulas import guarded, unguarded
from tlbench.machine.markdown import markdown
from tlbench.records.run_folder import Store
from tlbench.report import _json, write_report
from tlbench.report.markup import code

UNSEEN = {
    "colour": "\x1b[31mred\x1b[0m", "title": "\x1b]0;owned\x07", "back": "good\x08\x08\x08\x08evil",
    "return": "good\revil",
    "C1": "\x9b31m", "NUL": "a\0b", "bidi": "a\u202egpj.exe", "isolate": "\u2066x\u2069", "no width": "re\u200bsnet",
    "BOM": "\ufeffresnet", "soft": "re\xadsnet", "tags": "x\U000e0041", "line": "a\u2028b", "half": "a\udcffb",
    "DEL": "a\x7fb", "marks": "\u200fx\u200e",
}  # fmt: skip
FORMULAS = [
    *("=1+1.pth", "+1+1.pth", "-1+1.pth", "@SUM(A1).pth", "\t=1+1", "\r=1+1", "\n=1+1", '=HYPERLINK("http://x";"y")'),
    *(
        "=cmd|' /C calc'!A0",
        " =1+1",
        "\xa0=1+1",
        "\uff1d1+1",
        "\uff0b1",
        "\uff0d1",
        "\uff20x",
        "-",
        "'quoted",
        "''twice",
    ),
]
BEHIND_A_SEMICOLON = ["x;=cmd|'/C calc'!A0", "x; +1;-2", "a;'=1", "a;''b", "x;\xa0@sum"]
"""Cells of their own to a spreadsheet that takes the semicolon for what lies between them."""


@pytest.mark.parametrize("text", UNSEEN.values(), ids=list(UNSEEN))
def test_nothing_unseen_is_shown(text, capsys, tmp_path):
    raw = set(text) & {c for c in text if printable(c) != c}
    assert raw
    console = new_console(force_terminal=False, width=200)
    console.print(f"a {text} b", markup=False)
    file = io.StringIO()
    write_csv([{"reason": text}], file, ("reason",))
    shown = [printable(text), markdown(text), code(text), capsys.readouterr().out, file.getvalue(), _json([text])]
    for one in shown:
        assert not raw & set(one)
    assert json.loads(_json({text: [text]})) == {printable(text, keep="\n"): [printable(text, keep="\n")]}


@pytest.mark.parametrize("text", ["résumé Ж 中 🐈", "a\xa0b", "e\u0301", "👩\u200d🔬", "हिन्दी", "x\tb\n"])
def test_what_is_writing_stays(text):
    assert printable(text, keep="\n\t") == text


@pytest.mark.parametrize("text", FORMULAS, ids=ascii)
def test_a_formula_is_a_text_to_a_spreadsheet_and_the_name_when_read_again(text):
    file = io.StringIO()
    write_csv([{"weights": text, "loss": -0.5, "count": 3}], file, ("weights", "loss", "count"))
    cells = next(csv.DictReader(io.StringIO(file.getvalue())))
    assert cells["weights"].startswith("'")
    assert (cells["loss"], cells["count"]) == ("-0.5", "3")
    assert read_csv(io.StringIO(file.getvalue())) == [{"weights": printable(text), "loss": "-0.5", "count": "3"}]


@pytest.mark.parametrize("text", BEHIND_A_SEMICOLON, ids=ascii)
def test_nor_is_what_stands_behind_a_semicolon(text):
    file = io.StringIO()
    write_csv([{"weights": text}], file, ("weights",))
    line = file.getvalue().splitlines()[1]
    assert all(part.strip(' \xa0"')[:1] not in ("=", "+", "-", "@") for part in line.split(";"))
    assert read_csv(io.StringIO(file.getvalue())) == [{"weights": printable(text)}]


@given(st.text(alphabet=";='+- ab\xa0@", max_size=12))
def test_whatever_is_written_is_read_again(text):
    assert unguarded(guarded(text)) == text


def test_every_csv_is_written_so(tmp_path, command):
    store = Store(tmp_path / "run")
    store.append(record(weights="=1+1.pth", initial={"source": "=1+1.pth", "pretrained": True, "sha256": "ab"}))
    store.append(failure("failed", "@SUM(A1)", freeze="full"))
    write_report([record(weights="=1+1.pth", initial={"source": "=1+1.pth", "pretrained": True})], tmp_path / "run")
    _, out, _ = command("export", tmp_path / "run")
    for text in (out, (tmp_path / "run" / "report.csv").read_text()):
        for cells in csv.reader(io.StringIO(text)):
            assert not [cell for cell in cells if cell.startswith(("=", "@"))]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("see https://example.org", r"see https\://example.org"),
        ("HTTP://x", r"HTTP\://x"),
        ("www.example.org", r"www\.example.org"),
        ("mailto:a", r"mailto\:a"),
        ("anna@example.org", "anna<span>@</span>example.org"),
        ("ask @anna", "ask <span>@</span>anna"),
        ("layer_decay@1", r"layer\_decay@1"),
        ("<script>&amp;", r"\<script\>\&amp;"),
        ("$x$ and $y$", r"\$x\$ and \$y\$"),
        ("- item", r"\- item"),
        ("1. item", r"1\. item"),
        ("2) item", r"2\) item"),
        ("# head", r"\# head"),
        ("[a](b) ![c](d)", r"\[a\](b) !\[c\](d)"),
        ("a|b", r"a\|b"),
        ("-0.5", "-0.5"),
        ("12.5", "12.5"),
    ],
)
def test_nothing_becomes_markup(text, expected):
    assert markdown(text) == expected


def test_a_hostile_record_leaves_a_harmless_report(tmp_path, command):
    name = "".join(UNSEEN.values()).replace("\0", "").encode("utf-8", "ignore").decode()
    store = Store(tmp_path)
    for each in (
        record(dataset=f"folder:/{name}", initial={"source": name, "pretrained": True, "sha256": "ab"}),
        failure("failed", f"RuntimeError: unexpected key {name} https://evil.example", freeze="full"),
    ):
        store.append(each)
    write_report([record(dataset=f"folder:/{name}"), failure("failed", name, freeze="full")], tmp_path)
    outputs = [
        path.read_text("utf-8") for path in tmp_path.rglob("*.*") if path.suffix in (".md", ".html", ".csv", ".svg")
    ]
    outputs += [command("summary", tmp_path)[1], command("export", tmp_path)[1]]
    for text in outputs:
        assert printable(text, keep="\n\t") == text


# --- what commands print ----------------------------------------------------------------------------------------

HOSTILE = "a\x1b[31mb\u202ec"


def test_names_of_columns_are_written_as_their_texts():
    file = io.StringIO()
    names = ("=1+1", "accuracy_on_x;=1+1", f"accuracy_on_{HOSTILE}")
    write_csv([dict.fromkeys(names, 0.5)], file, names)
    assert next(csv.reader(io.StringIO(file.getvalue()))) == ["'=1+1", "accuracy_on_x;'=1+1", printable(names[2])]
    assert list(read_csv(io.StringIO(file.getvalue()))[0]) == [*names[:2], printable(names[2])]


def test_a_replay_tells_texts_of_a_record_as_they_are(capsys):
    difference = Difference(what=HOSTILE, recorded=HOSTILE, now=HOSTILE, tolerated=False)
    found = Replay(
        record=record(id=HOSTILE), outcome="different", differences=(difference,),
        machine={HOSTILE: (HOSTILE, HOSTILE)}, reason=HOSTILE,
    )  # fmt: skip
    _print_replay(found)
    out = capsys.readouterr().out
    assert printable(out, keep="\n") == out
    assert out.count(printable(HOSTILE)) == 8


def test_a_duel_tells_names_as_they_are(capsys):
    sides = {key: Side(cell=Cell(weights=f"{key}{HOSTILE}.pth"), settings=Settings()) for key in "ab"}
    found = SimpleNamespace(
        **sides, seconds=lambda key: 1.0, blocks=[SimpleNamespace(a=(1.0,), noisy=())],
        ratio=Interval(estimate=1.0, low=0.9, high=1.1, n=2),
        verdict=SimpleNamespace(outcome="cannot say", reason=HOSTILE), validity="noisy", validity_reason=HOSTILE,
        floor=SimpleNamespace(seen=0.1, relative=0.1),
    )  # fmt: skip
    _print_duel(found)
    out = capsys.readouterr().out
    assert printable(out, keep="\n") == out
    assert out.count(printable(HOSTILE)) == 4


def test_where_a_report_is_can_be_read_by_programs_and_by_people(tmp_path, command, monkeypatch):
    store = Store(tmp_path / f"run{HOSTILE}")
    store.append(record())
    path = str(store.folder / "report.html")
    assert command("report", store.folder)[1] == f"{path}\n", "a script takes it as it is"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert command("report", store.folder)[1] == f"{printable(path)}\n"
    shared = str(store.folder / "shared" / "report.html")
    assert command("report", store.folder, "--share")[1] == f"{printable(shared)}\n"
