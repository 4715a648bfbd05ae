"""Records and their store: strict JSON, checksums, torn lines."""

import json
import multiprocessing
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlbench.errors import UserError
from tlbench.grid import Cell
from tlbench.record import Record, Round, Settings
from tlbench.store import Store, decode, encode, load, new_run


def make(**changes) -> Record:
    record = Record(
        id="x",
        cell=Cell(),
        settings=Settings(),
        status="ok",
        started="2026-01-01T00:00:00+00:00",
        suite_version="0",
        rounds=(Round(phase="full", seconds=0.1, samples=10, loss=0.5),),
        latency_seconds=(0.1, 0.2),
        weights={"source": "random"},
    )
    return replace(record, **changes)


def test_a_record_comes_back_equal():
    record = make(reason='ü "quoted"\nsecond line', accuracy_test=1 / 3)
    assert decode(encode(record)) == record
    assert encode(record).count("\n") == 1


def test_not_a_number_is_no_strict_json():
    with pytest.raises(ValueError, match="JSON"):
        encode(make(accuracy_test=float("nan")))


def test_fields_of_a_newer_version_are_ignored_but_a_newer_schema_is_refused():
    data = make().to_dict()
    assert Record.from_dict({**data, "invented_later": 1}) == make()
    with pytest.raises(ValueError, match="newer"):
        Record.from_dict({**data, "schema": 99})


def test_a_torn_last_line_is_set_aside_and_not_in_the_way(tmp_path):
    store = Store(tmp_path)
    store.append(make(id="first"))
    with store.path.open("ab") as file:
        file.write(encode(make(id="torn")).encode()[:-40])
    store.append(make(id="second"))
    loaded = load(tmp_path)
    assert [r.id for r in loaded.records] == ["first", "second"]
    assert len(loaded.damaged) == 1
    assert "records.jsonl:2" in loaded.damaged[0]


def test_a_changed_digit_is_found():
    line = encode(make(accuracy_test=0.5))
    with pytest.raises(ValueError, match="checksum"):
        decode(line.replace('"accuracy_test":0.5', '"accuracy_test":0.9'))


@given(st.binary(max_size=300))
def test_any_line_is_a_record_or_a_value_error(line):
    with pytest.raises(ValueError):
        decode(line.decode("utf-8", "replace"))


@given(st.data())
def test_no_mutated_line_is_silently_taken(data):
    line = encode(make()).strip()
    position = data.draw(st.integers(0, len(line) - 1))
    char = data.draw(st.characters(codec="utf-8"))
    mutated = line[:position] + char + line[position + 1 :]
    try:
        record = decode(mutated)
    except ValueError:
        return
    assert record == make()


def _append(folder, name):
    for n in range(50):
        Store(folder).append(make(id=f"{name}-{n}"))


def test_several_processes_share_a_run(tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_append, args=(tmp_path, name)) for name in "abc"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    loaded = load(tmp_path)
    assert not loaded.damaged
    assert len({r.id for r in loaded.records}) == 150


def test_an_unwritable_folder_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to results folder"):
        Store(tmp_path / "file" / "run")


def test_a_run_is_never_written_over(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = new_run(), new_run()
    assert first.folder != second.folder
    with pytest.raises(UserError, match="already holds a run"):
        new_run(first.folder)


def test_a_missing_run(tmp_path):
    with pytest.raises(UserError, match="cannot read run"):
        load(tmp_path / "none")


def test_json_has_raw_seconds(tmp_path):
    data = json.loads(encode(make()))
    assert data["rounds"][0]["seconds"] == 0.1
    assert data["latency_seconds"] == [0.1, 0.2]
