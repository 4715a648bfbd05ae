"""A name whose meaning has changed: old records keep the old one, and are never put together with new ones."""

from dataclasses import replace

import pytest
from records import record

from tlbench.analysis.commands import command, to_decide
from tlbench.analysis.compare import compare
from tlbench.analysis.frame import rows
from tlbench.analysis.grouping import identity
from tlbench.analysis.sides import read_run
from tlbench.analysis.summary import summarise
from tlbench.campaign.replay import IMPOSSIBLE, replay
from tlbench.errors import UserError
from tlbench.grid.cell import Cell
from tlbench.heads import HEADS
from tlbench.policies.parse import parse_policy, place_in_table
from tlbench.policies.table import POLICIES
from tlbench.records.definitions import check_same_meaning, definitions, meant, outdated, said
from tlbench.records.record import Record
from tlbench.records.run_folder import Store

CHANGED = {"layer_decay", "auto_rgn", "gradual"}


def old(**axes):
    return record(**axes)


def new(**axes):
    made = record(**axes)
    return replace(made, definitions=definitions(made.cell))


def test_the_versions_of_the_tables():
    assert {name for name, policy in POLICIES.items() if policy.version > 1} == CHANGED
    assert {name for name, head in HEADS.items() if head.version > 1} == {"nearest_mean", "logreg"}


@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        ({"freeze": "layer_decay(0.5)+bn=freeze"}, {"freeze": 2}),
        ({"freeze": "full"}, {}),
        ({"head": "logreg"}, {"head": 2}),
        ({"task": "infer", "freeze": "layer_decay", "head": "nearest_mean"}, {"head": 2}),
        ({"freeze": "of_a_plugin"}, {}),
    ],
)
def test_a_record_keeps_the_versions_above_1(axes, expected):
    assert definitions(Cell(**axes)) == expected


def test_a_record_without_versions_has_the_first_meaning():
    before = Record.from_dict({k: v for k, v in old(freeze="layer_decay").to_dict().items() if k != "definitions"})
    assert meant(before).freeze == "layer_decay@1"
    assert meant(new(freeze="layer_decay")).freeze == "layer_decay"
    assert meant(old(freeze="full")) == old(freeze="full").cell
    assert meant(old(head="logreg")).head == "logreg@1"
    inference = replace(before, cell=replace(before.cell, task="infer"))  # of a policy that it does not depend on
    assert meant(inference).freeze == "layer_decay"
    assert "layer_decay means something else since then (version 1 there, 2 here)" in said(before)


def test_a_later_version_is_told_as_well():
    later = replace(old(freeze="layer_decay"), definitions={"freeze": 3})
    assert outdated(later) == {"freeze": ("layer_decay", 3, 2)}
    assert meant(later).freeze == "layer_decay@3"


def test_both_meanings_are_two_rows_everywhere():
    table = rows([old(freeze="layer_decay"), new(freeze="layer_decay", seed=1), old(freeze="full"), new(freeze="full")])
    assert [row.freeze for row in table] == ["layer_decay@1", "layer_decay", "full", "full"]
    assert identity(table[0]) != identity(table[1])
    assert identity(table[2]) == identity(table[3])
    assert table[0].configuration != table[1].configuration
    assert table[2].configuration == table[3].configuration
    summary = summarise(table)
    assert sorted(row["freeze"] for row in summary) == ["full", "layer_decay", "layer_decay@1"]
    assert place_in_table("layer_decay@1") == place_in_table("layer_decay")


def test_no_command_is_given_for_what_cannot_be_run_again():
    summary = summarise(rows([old(freeze="layer_decay"), new(freeze="full")]))
    assert to_decide(summary, "accuracy_val") == ""
    assert command([old(freeze="layer_decay")]).startswith("# cannot be run again: layer_decay means something else")
    assert to_decide([row for row in summary if row["freeze"] == "full"], "accuracy_val").startswith("tlbench run")


def test_a_replay_of_another_meaning_refuses_in_one_line():
    said_no = replay(old(head="nearest_mean"))
    assert said_no.outcome == IMPOSSIBLE
    assert said_no.reason == "nearest_mean means something else since then (version 1 there, 2 here)"


def test_a_run_does_not_go_on_in_another_meaning():
    earlier = [old(freeze="layer_decay(0.5)"), new(freeze="gradual")]
    with pytest.raises(UserError, match="and layer_decay means something else since then"):
        check_same_meaning([Cell(freeze="layer_decay", seed=7)], earlier)
    check_same_meaning([Cell(freeze="full"), Cell(freeze="gradual"), Cell(task="infer")], earlier)


def test_an_earlier_meaning_cannot_be_asked_for():
    with pytest.raises(UserError, match=r"is another meaning of layer_decay\(0.5\): its records are read"):
        parse_policy("layer_decay(0.5)@1")
    with pytest.raises(UserError, match="unknown freeze policy 'nothing'"):
        parse_policy("nothing@1")


def test_two_runs_are_not_compared_across_a_meaning(tmp_path):
    sides = {}
    for name, make in (("before", old), ("after", new)):
        store = Store(tmp_path / name)
        for freeze in ("layer_decay", "full"):
            store.append(replace(make(freeze=freeze), started=name))
        sides[name] = read_run(tmp_path / name)
    found = compare([sides["before"]], [sides["after"]])
    assert {change.cell.split(" · ")[1] for change in found.changes} == {"full"}
    assert any("layer_decay@1" in name for name in found.only_base)
    assert any("layer_decay" in name and "@" not in name for name in found.only_new)
