"""What all commands have in common: their help, tables in a pipe, and the names of runs."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from records import example_run

from tlbench.cli.table import COMMANDS
from tlbench.policies.table import POLICIES
from tlbench.records.run_folder import Store

LONG = "folder:a-place-with-a-long-name-that-would-take-up-a-line-of-a-terminal-by-itself"


@pytest.fixture
def runs(monkeypatch, tmp_path):
    """Two runs under results/, of which "new" is the last."""
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("old", "new")):
        store = Store(Path("results") / name)
        for one in example_run(backbones=("resnet18", "mobilenet_v3_small"), policies=("linear_probe", "full")):
            cell = replace(one.cell, dataset=LONG)
            store.append(replace(one, cell=cell, id=cell.id, started=name))
        os.utime(store.path, (1_000_000_000 + number, 1_000_000_000 + number))


def test_the_package_is_the_command():
    """An environment that is not activated, and a notebook's `!{sys.executable} -m tlbench`."""
    done = subprocess.run([sys.executable, "-m", "tlbench", "list", "nothing"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "'nothing'" in done.stderr


# --- help -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*COMMANDS, ""])
def test_help_shows_what_a_person_types(name, command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    status, out, err = command(*name.split(), "--help")
    assert (status, err) == (0, "")
    for kind in ("bool", "str", "path", "int", "float", "list", "Path"):
        assert f"<{kind}" not in out, "a type in place of a name"
    assert not re.search(r"\.\.\.\s|[{}]", out.partition("\n\n")[0]), "brackets of the library's"


@pytest.mark.parametrize("name", [*COMMANDS, ""])
def test_a_paragraph_of_help_ends_its_lines_where_the_terminal_does(name, command, monkeypatch):
    """Where those of the docstring end, it was ragged."""
    monkeypatch.setenv("COLUMNS", "2000")
    said = command(*name.split(), "--help")[1].partition("\N{BOX DRAWINGS LIGHT ARC DOWN AND RIGHT}")[0]
    paragraphs = [one for one in re.split(r"\n\s*\n", said) if one.strip()]
    assert len(paragraphs) >= 2, "usage, and what it does"
    assert not [one for one in paragraphs if "\n" in one.strip()]


def test_no_option_is_suggested_that_help_does_not_show(command):
    status, _, err = command("find", "--dry-run")
    assert status == 2
    assert "rerun" not in err


def test_a_usage_line(command):
    assert "report [OPTIONS] RUN…" in command("report", "--help")[1]
    assert "run [OPTIONS] [PATH]" in command("run", "--help")[1]


# --- tables in a pipe -----------------------------------------------------------------------------------------


@pytest.fixture
def piped(monkeypatch):
    """No terminal, and nobody says how wide it would be."""
    for name in ("COLUMNS", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)


def test_a_row_of_a_list_is_a_line(command, piped):
    lines = command("list", "policies")[1].splitlines()
    assert len(lines) == 1 + len(POLICIES)
    for line, policy in zip(lines[1:], POLICIES.values(), strict=True):
        assert policy.summary in line
        assert policy.departs in line


@pytest.mark.parametrize("arguments", [("summary", "new"), ("recommend", "new"), ("compare", "old", "new")])
def test_a_row_of_a_run_is_a_line_with_all_its_figures(arguments, command, piped, runs):
    lines = command(*arguments)[1].splitlines()
    assert max(map(len, lines)) > 100
    names = [line for line in lines if re.match(r"(resnet18|mobilenet_v3_small)\b", line)]
    if arguments[0] != "recommend":
        assert {tuple(line.split()[:1]) for line in names} == {("resnet18",), ("mobilenet_v3_small",)}
    assert not [line for line in lines if line.endswith("…") and not line.startswith("…")]


def test_a_terminal_that_says_its_width_has_it(command, monkeypatch, runs):
    monkeypatch.setenv("COLUMNS", "80")
    assert max(len(line) for line in command("list", "policies")[1].splitlines()) <= 80


# --- latest ---------------------------------------------------------------------------------------------------

TAKES_RUNS = [
    ("summary", "latest"), ("report", "latest", "--out", "report"), ("recommend", "latest"), ("export", "latest"),
    ("efficiency", "latest"), ("compare", "old", "latest"), ("compare", "old", "--", "latest"),
    ("summary", "old", "latest"),
]  # fmt: skip


@pytest.mark.parametrize("arguments", TAKES_RUNS, ids=" ".join)
def test_latest_is_the_run_that_was_written_last(arguments, command, runs, monkeypatch):
    monkeypatch.setattr("tlbench.report.write_report", lambda records, folder, names, **_: (folder, len(records)))
    said = command(*arguments)
    assert said[0] in (0, 1), said
    named = command(*["new" if word == "latest" else word for word in arguments])
    assert said[1].replace("latest", "new") == named[1].replace("latest", "new")
    assert "report latest" not in said[1], "a command that is printed names the run"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("speedup", "latest"), "no two finished cells differ in their device alone"),
        (("replay", "latest", "--id=none"), "no record has the id 'none'"),
        (("duel", "none", "none", "--run=latest"), "'none'"),
        (("run", "--resume=latest"), "holds no run that could go on"),
    ],
)
def test_latest_is_found_by_what_would_measure(arguments, words, command, runs):
    status, _, err = command(*arguments)
    assert status == 2
    assert words in err
    assert "there is no such folder" not in err


def test_there_may_be_no_latest_run(command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert "cannot read run 'latest'" in command("summary", "latest")[2]
