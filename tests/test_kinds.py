"""A file that somebody takes for a run's records is named for what it is."""

import io
import json

import pytest
from PIL import Image
from records import record

from tlbench.analysis.frame import rows, write_csv
from tlbench.records.kinds import kind_of
from tlbench.records.lines import encode
from tlbench.records.run_folder import Store


def picture(ending):
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, ending)
    return file.getvalue()


def table():
    text = io.StringIO()
    write_csv(rows([record()]), text)
    return text.getvalue().encode()


TORN = encode(record()).encode()[:900]
LONG = b'{"schema": 1, "cell": {"backbone": "' + b"x" * 9000
FILES = {
    "photo.jpg": (picture("JPEG"), "an image"),
    "photo.png": (picture("PNG"), "an image"),
    "photo.webp": (picture("WEBP"), "an image"),
    "photo.tif": (picture("TIFF"), "an image"),
    "export.csv": (table(), "a table that tlbench has written"),
    "bench.json": (b'{\n    "machine_info": {\n', "JSON of pytest-benchmark"),
    "other.json": (b'{\n    "a": 1\n}', "JSON of another kind"),
    "list.json": (b"[1, 2]", "JSON of another kind"),
    "report.html": (b"<!DOCTYPE html>\n<html>", "a page, such as a report"),
    "README.md": (b"# What this is\n\nA text, of two lines\n", "a text"),
    "badge.md": (b"[![tests](https://example.org/a.svg)](https://example.org)\n", "a text"),
    "grid.toml": (b'[grid]\nbackbone = "resnet18"\n', "a text"),
    "tables.toml": (b"[[grid]]\nseed = 1\n", "a text"),
    "log.txt": ("ü".encode() * 4096, "a text"),
    "nested.json": (b"[\n  [true, null]\n]", "JSON of another kind"),
    "labels.csv": (b"file,label\na.jpg,cat\n", "a table in CSV"),
    "labels.tsv": (b"file\tlabel\na.jpg\tcat\n", "a table in TSV"),
    "figure.svg": (b'<?xml version="1.0"?>\n<!DOCTYPE svg>\n<svg xmlns="x">\n</svg>\n', "an SVG"),
    "bare.svg": (b'<svg xmlns="x"/>\n', "an SVG"),
    "report.parquet": (b"PAR1" + bytes(20), "a Parquet file"),
    "weights.pth": (b"PK\x03\x04" + bytes(20), "a ZIP archive or a checkpoint"),
}


@pytest.mark.parametrize("asked", ["summary", "report"])
@pytest.mark.parametrize("name", FILES)
def test_it_is_said_what_a_file_is(name, asked, command, tmp_path):
    content, what = FILES[name]
    (tmp_path / name).write_bytes(content)
    status, out, err = command(asked, tmp_path / name)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert f"which is {what}" in err
    assert "not a run" in err
    assert "Expecting" not in err
    assert "JSON object" not in err


def test_a_plan_is_not_its_run(command, tmp_path):
    Store(tmp_path / "run").append(record())
    (tmp_path / "run" / "run.json").write_text(json.dumps({"schema": 1, "grids": []}) + "\n")
    assert "the plan of a run; name its folder" in command("summary", tmp_path / "run" / "run.json")[2]


@pytest.mark.parametrize("content", [b"", b"not a record\n" * 3, LONG, TORN])
@pytest.mark.parametrize("name", ["records.jsonl", "copy.jsonl"])
def test_of_what_may_have_been_records_nothing_is_said(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    assert kind_of(tmp_path / name) == ""
