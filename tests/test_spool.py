"""The spool: what jobs have left when their driver was killed is taken in once, also of what has moved since."""

import json
from dataclasses import replace

import pytest
from made_engine import campaign, measured

from tlbench.campaign import spool
from tlbench.campaign.at_node import plain_event
from tlbench.campaign.engine import Task
from tlbench.campaign.moved import cell_at
from tlbench.records.run_folder import load

ONE = {"freeze": ("full",), "dataset": ("folder:before",), "layout": ("contiguous",)}


@pytest.fixture
def left(tmp_path):
    """A run of one cell, whose record a job has left in the spool: ``left(**where it lies now) -> Campaign``."""

    def made(earlier=(), **places):
        one = campaign(tmp_path / "run", ONE)
        one.places = {name: {"folder:before": place} for name, place in places.items()}
        step = replace(one.planned[0], cell=cell_at(one.planned[0].cell, one.places))
        event = measured(Task(number=1, step=step))
        if earlier:
            one.take(replace(event.record, cell=one.planned[0].cell))
            one.earlier, one.records = load(one.store.folder).records, []
            one.asked = replace(one.asked, redo=lambda record: True)
        folder = one.store.folder / spool.SPOOL / "a job"
        folder.mkdir(parents=True)
        spool.write_event(folder, 1, 1, plain_event(event))
        return one

    return made


def recovered(one):
    try:
        return spool.recover(one, one.store)
    finally:
        one.release()


def test_what_has_moved_is_taken_in_under_its_name(left):
    one = left(dataset="folder:after")
    found, notes = recovered(one)
    assert [r.cell for r in found] == [one.planned[0].cell]
    assert found[0].places == {"dataset": "folder:after"}
    assert len(notes) == 1
    assert len(load(one.store.folder).records) == 1
    assert not (one.store.folder / spool.SPOOL).exists()


def test_what_was_written_down_is_not_taken_in_again(left):
    """Its driver was killed before it could remove it, and the cell is wanted anew."""
    one = left(earlier=True)
    assert one.left, "else nothing would be taken anyway"
    assert recovered(one) == ([], [])
    assert len(load(one.store.folder).records) == 1
    assert not (one.store.folder / spool.SPOOL).exists()


def test_a_record_that_the_disk_has_damaged_is_measured_again(left):
    one = left()
    (path,) = (one.store.folder / spool.SPOOL / "a job").iterdir()
    event = json.loads(path.read_bytes())
    path.write_text(json.dumps({**event, "record": event["record"].replace("resnet", "vgg", 1)}))
    assert recovered(one) == ([], [])
    assert one.left
