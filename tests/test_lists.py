"""Lists of images: what is read of them, that they are what a folder is, and the line that refuses each other one."""

import json
import os
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tlbench.campaign.outlook import short_name
from tlbench.data import Request, check_dataset, folder, load_data, parse_dataset
from tlbench.data.list_files import by_split
from tlbench.data.lists import files_of, scan_list
from tlbench.data.options import apart_by_text, shortened, split_options
from tlbench.data.scan import listed_once, scan
from tlbench.data.short_names import data_sets
from tlbench.errors import UserError
from tlbench.grid.cell import Cell
from tlbench.machine.kept import KEPT
from tlbench.records.identity import place_of, same_place
from tlbench.report.share import _name as shared_name


@pytest.fixture(autouse=True)
def nothing_kept():
    KEPT.images.forget()
    yield
    KEPT.images.forget()


COUNT = 8
"""Images of each class."""
CAT = [f"cat/{n}.png" for n in range(COUNT)]
DOG = [f"dog/{n}.png" for n in range(COUNT)]
ALL = CAT + DOG


def place(root, names=ALL):
    """Makes images of one colour each, no two of the same."""
    for number, name in enumerate(names):
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number * 7 % 256, number * 31 % 256, number)).save(file, "PNG")
    return root


def rows(names=ALL, mark=",", label=lambda name: name.split("/")[-2]):
    return "".join(f"{name}{mark}{label(name)}\n" for name in names)


def number(name):
    return {"cat": 10, "dog": 9}[name.split("/")[-2]]


def refusal(call, *arguments):
    """The text of the UserError, which must be one line that a terminal shows as it is."""
    with pytest.raises(UserError) as caught:
        call(*arguments)
    assert str(caught.value).isprintable(), ascii(str(caught.value))
    return str(caught.value)


def load(path, kind="list", seed=0, **options):
    return load_data(f"{kind}:{path}", Request(size=8, resize=8, interpolation="bilinear", seed=seed, **options))


def write(root, files):
    """Writes lists: name -> text, or bytes."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())


# --- forms ----------------------------------------------------------------------------------------------------

HEADED = "path,label\n" + rows()
JSON = "".join(json.dumps({"file_name": name, "label": name[:3]}) + "\n" for name in ALL)
TRAIN = [f"train/{name}" for name in ALL]
TEST = [f"test/{name}" for name in ALL]
SPLITS = "file_name,label,split\n" + "".join(
    f"{name},{name[:3]},{split}\n"
    for name, split in zip(ALL, (["train"] * 4 + ["validation"] * 2 + ["testing"] * 2) * 2, strict=True)
)

FORMS = {
    # name: the lists, what is asked for, the classes, how they are split
    "csv": ({"x.csv": HEADED}, "x.csv", ("cat", "dog"), "one list without splits"),
    "capitals": ({"x.csv": "Image,Class\n" + rows()}, "x.csv", ("cat", "dog"), ""),
    "other order": (
        {"x.csv": "target,no,image\n" + "".join(f"{n[:3]},1,{n}\n" for n in ALL)},
        "x.csv",
        ("cat", "dog"),
        "",
    ),
    "semicolons": ({"x.csv": "path;label\n" + rows(mark=";")}, "x.csv", ("cat", "dog"), ""),
    "tabs in a csv": ({"x.csv": "path\tlabel\n" + rows(mark="\t")}, "x.csv", ("cat", "dog"), ""),
    "tsv": ({"x.tsv": "path\tlabel\n" + rows(mark="\t")}, "x.tsv", ("cat", "dog"), ""),
    "spaces after commas": ({"x.csv": "path, label\n" + rows(mark=", ")}, "x.csv", ("cat", "dog"), ""),
    "byte order mark": ({"x.csv": b"\xef\xbb\xbf" + HEADED.encode()}, "x.csv", ("cat", "dog"), ""),
    "UTF-16": ({"x.csv": HEADED.encode("utf-16")}, "x.csv", ("cat", "dog"), ""),
    "lines of Windows": ({"x.csv": HEADED.replace("\n", "\r\n")}, "x.csv", ("cat", "dog"), ""),
    "empty lines": ({"x.csv": "\n" + HEADED.replace("\n", "\n\n")}, "x.csv", ("cat", "dog"), ""),
    "quoted": ({"x.csv": '"path","label"\n' + "".join(f'"{n}","{n[:3]}"\n' for n in ALL)}, "x.csv", ("cat", "dog"), ""),
    "jsonl": ({"x.jsonl": JSON}, "x.jsonl", ("cat", "dog"), ""),
    "named columns": ({"x.csv": "img,y\n" + rows()}, "x.csv?path=img&label=y", ("cat", "dog"), ""),
    "numbered columns": ({"x.csv": "img,y\n" + rows()}, "x.csv?path=0&label=1", ("cat", "dog"), ""),
    "one of two labels": (
        {"x.csv": "path,class,label\n" + "".join(f"{n},{n[:3]},{n[0]}\n" for n in ALL)},
        "x.csv?label=label",
        ("c", "d"),
        "",
    ),
    "without a header": ({"x.csv": rows()}, "x.csv", ("cat", "dog"), ""),
    "lines": ({"x.txt": rows(mark=" ")}, "x.txt", ("cat", "dog"), ""),
    "lines, no ending": ({"x": rows(mark=" ")}, "x", ("cat", "dog"), ""),
    "lines with tabs": ({"x.txt": rows(mark="\t")}, "x.txt", ("cat", "dog"), ""),
    "path, fine, coarse": (
        {"x.txt": "".join(f"{n}, {number(n)}, 7\n" if n in CAT else f"{n}, {number(n)}, 3\n" for n in ALL)},
        "x.txt?label=1",
        ("9", "10"),
        "",
    ),
    "coarse": (
        {"x.txt": "".join(f"{n}, {number(n)}, {7 if n in CAT else 3}\n" for n in ALL)},
        "x.txt?label=2",
        ("3", "7"),
        "",
    ),
    "label before path": (
        {"x.txt": "".join(f"{n[:3]} {n}\n" for n in ALL)},
        "x.txt?path=1&label=0",
        ("cat", "dog"),
        "",
    ),
    "numbers in their order": ({"x.txt": rows(mark=" ", label=number)}, "x.txt", ("9", "10"), ""),
    "numbers of JSON": (
        {"x.jsonl": "".join(json.dumps({"image": n, "label": float(number(n))}) + "\n" for n in ALL)},
        "x.jsonl",
        ("9", "10"),
        "",
    ),
    "a root": ({"lists/x.csv": HEADED}, "lists/x.csv?root=.", ("cat", "dog"), ""),
    "a root beside the list": (
        {"x.csv": "path,label\n" + "".join(f"{n[4:]},{n[4]}\n" for n in CAT)},
        "x.csv?root=cat",
        tuple("01234567"),
        None,
    ),
    "names without an ending": (
        {"x.csv": "id,breed\n" + "".join(f"{n[:-4]},{n[:3]}\n" for n in ALL)},
        "x.csv?path=id&label=breed&suffix=.png",
        ("cat", "dog"),
        "",
    ),
    "some with the ending": (
        {"x.csv": "path,label\n" + "".join(f"{n if n[4] == '3' else n[:-4]},{n[:3]}\n" for n in ALL)},
        "x.csv?suffix=.png",
        ("cat", "dog"),
        "",
    ),
    "written by Windows": ({"x.csv": HEADED.replace("/", "\\")}, "x.csv", ("cat", "dog"), ""),
    "dots in paths": (
        {"x.csv": "path,label\n" + "".join(f"./cat/../{n},{n[:3]}\n" for n in ALL)},
        "x.csv",
        ("cat", "dog"),
        "",
    ),
    "a split column": (
        {"x.csv": SPLITS},
        "x.csv",
        ("cat", "dog"),
        "train, validation and testing as the list has them",
    ),
    "a split column that is not used": (
        {"x.csv": SPLITS},
        "x.csv?split=none",
        ("cat", "dog"),
        "one list without splits",
    ),
    "a split column of another name": (
        {"x.csv": SPLITS.replace("split", "part", 1)},
        "x.csv?split=part",
        ("cat", "dog"),
        "as the list has them",
    ),
    "train and val": (
        {"x.csv": SPLITS.replace("testing", "train")},
        "x.csv",
        ("cat", "dog"),
        "validation is what is tested on (there is no test); validation images are cut from train, by seed",
    ),
    "all in train": (
        {"x.csv": re.sub("validation|testing", "train", SPLITS)},
        "x.csv",
        ("cat", "dog"),
        "train alone: about 70/15/15",
    ),
    "VTAB": (
        {
            "train800.txt": rows(CAT[:3] + DOG[:3], " "),
            "val200.txt": rows(CAT[3:5] + DOG[3:5], " "),
            "test.txt": rows(CAT[5:] + DOG[5:], " "),
        },
        "train800.txt+val200.txt+test.txt",
        ("cat", "dog"),
        "train800.txt, val200.txt and test.txt as the list has them",
    ),
    "two lists of train": (
        {"train_a.csv": rows(CAT), "train_b.csv": rows(DOG[:5]), "test.csv": rows(DOG[5:])},
        "train_a.csv+train_b.csv+test.csv",
        ("cat", "dog"),
        "test.csv is what is tested on (there is no val)",
    ),
    "joined, split by a column": (
        {"one.csv": SPLITS, "two.csv": "path,label,split\nmore/x.png,dog,train\n"},
        "one.csv+two.csv",
        ("cat", "dog"),
        "",
    ),
    "a folder of lists": (
        {
            "train.txt": rows(CAT[:5] + DOG[:5], " "),
            "val.txt": rows(CAT[5:], " "),
            "test.txt": rows(DOG[5:], " "),
            "classes.csv": "name,id\n",
        },
        ".",
        ("cat", "dog"),
        "train.txt, val.txt and test.txt as the list has them",
    ),
    "a folder of lists, other names": (
        {"train_labels.csv": rows(CAT[:5] + DOG), "test_labels.csv": rows(CAT[5:])},
        ".",
        ("cat", "dog"),
        "test_labels.csv is what is tested on",
    ),
    "Hugging Face": ({"metadata.csv": "file_name,label\n" + rows()}, ".", ("cat", "dog"), "one list without splits"),
    "Hugging Face, jsonl": ({"metadata.jsonl": JSON}, ".", ("cat", "dog"), ""),
    "Hugging Face, a list in each split": (
        {f"{split}/metadata.csv": "file_name,label\n" + rows() for split in ("train", "test")},
        ".",
        ("cat", "dog"),
        "test/metadata.csv is what is tested on (there is no val); validation images are cut from train/",
    ),
    "splits by the first folder": (
        {"metadata.csv": "file_name,label\n" + rows(TRAIN + TEST)},
        ".",
        ("cat", "dog"),
        "test/ is what is tested on",
    ),
    "a folder that is no split": (
        {"x.csv": "file_name,label\n" + rows(TRAIN + TEST + ALL[:1])},
        "x.csv",
        ("cat", "dog"),
        "one list without splits",
    ),
    "first folders that are not used": (
        {"x.csv": "file_name,label\n" + rows(TRAIN + TEST)},
        "x.csv?split=none",
        ("cat", "dog"),
        "one list without splits",
    ),
    "names of numbers": (
        {"x.txt": rows(mark=" ", label=number), "c.csv": "Class Name (str),Class ID (int)\nTabby,10\nPoodle,9\n"},
        "x.txt?classes=c.csv",
        ("Poodle", "Tabby"),
        "",
    ),
    "names of more numbers": (
        {"x.txt": rows(mark=" ", label=number), "c.txt": "9 a big dog\n10 a small cat\n11 a cow\n"},
        "x.txt?classes=c.txt",
        ("a big dog", "a small cat"),
        "",
    ),
    "a name a line": (
        {"x.txt": rows(mark=" ", label=lambda n: number(n) - 9), "c.txt": "the dog\nthe cat\n"},
        "x.txt?classes=c.txt",
        ("the dog", "the cat"),
        "",
    ),
    "a name a line, from 1": (
        {"x.txt": rows(mark=" ", label=lambda n: number(n) - 8), "c.txt": "dog\ncat\n"},
        "x.txt?classes=c.txt",
        ("dog", "cat"),
        "",
    ),
    "names of codes": (
        {"x.csv": rows(label=lambda n: f"n0{number(n)}"), "c.csv": "id,name\nn010,tabby\nn09,poodle\n"},
        "x.csv?classes=c.csv",
        ("tabby", "poodle"),
        "",
    ),
    "a plus in a name": ({"a+b.csv": HEADED}, "a+b.csv", ("cat", "dog"), ""),
    "a question mark in a name": ({"a?label=1.csv": HEADED}, "a?label=1.csv?label=label", ("cat", "dog"), ""),
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place(tmp_path)
    place(tmp_path, TRAIN + TEST)
    return tmp_path


@pytest.mark.parametrize("form", FORMS)
def test_what_is_read_of_a_list(form, here):
    files, path, classes, split = FORMS[form]
    place(here, ["more/x.png"])
    write(here, files)
    scanned = scan_list(path)
    assert scanned.classes == classes
    assert all(file.is_file() for file in scanned.files)
    assert all(
        (here / scanned.root / name).samefile(file) for name, file in zip(scanned.names, scanned.files, strict=True)
    )
    if split is not None:
        assert split in scanned.how_split
        wanted = {"cat": "cat", "dog": "dog", "c": "cat", "d": "dog"} | {
            "10": "cat",
            "9": "dog",
            "7": "cat",
            "3": "dog",
        }
        if set(classes) <= set(wanted):
            for name, label in zip(scanned.names, scanned.labels, strict=True):
                assert wanted[classes[label]] in (name.split("/")[-2], "dog" if name.startswith("more") else "")
    assert scanned.remarks[0].startswith("read as: path from ")
    assert all(line.isprintable() for line in scanned.remarks)


def test_a_parquet_is_what_a_csv_is(here):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(
        pa.table(
            {
                "image": ALL,
                "label": pa.array([number(name) for name in ALL], pa.int64()),
                "kind": pa.array(ALL).dictionary_encode(),
                "box": [[1, 2]] * len(ALL),
            }
        ),
        here / "x.parquet",
    )
    write(here, {"x.csv": "image,label\n" + rows(label=number)})
    one, other = scan_list("x.parquet"), scan_list("x.csv")
    assert (one.files, one.labels, one.classes) == (other.files, other.labels, other.classes)
    pq.write_table(pa.table({"picture": [[1]], "label": [1]}), here / "y.parquet")
    assert "not read, being no texts or numbers: 'picture'" in refusal(scan_list, "y.parquet")
    pq.write_table(pa.table({"path": [*ALL, None], "label": ["a"] * len(ALL) + ["b"]}), here / "z.parquet")
    assert f"1 of {len(ALL) + 1} rows cannot be used: row {len(ALL) + 1}: no path" in refusal(scan_list, "z.parquet")


def test_an_absolute_path_and_a_name_with_spaces(here):
    place(here, ["my pictures/a cat 1.png"])
    write(here, {"sub/x.txt": rows([str(here / name) for name in ALL], " ") + f"{here}/my pictures/a cat 1.png cat\n"})
    scanned = scan_list("sub/x.txt")
    assert scanned.names[0] == "../cat/0.png"
    assert scanned.names[COUNT] == "../my pictures/a cat 1.png"
    assert scanned.classes == ("cat", "dog")


@pytest.mark.parametrize(
    "name", [os.fsdecode(b"bytes \xff\xfe.png"), "ünïcödé 猫.png", "new\u2028line.png", "a;b.png"], ids=ascii
)
def test_a_list_names_files_of_any_name(name, here):
    try:
        place(here, [name])
    except OSError:
        pytest.skip("this file system has no such name")
    write(here, {"x.csv": b"path,label\n" + rows().encode() + os.fsencode(name) + b",cat\n"})
    scanned = scan_list("x.csv")
    assert name in scanned.names
    assert load("x.csv").files == scanned.names


def test_one_name_whichever_system_has_written_it(here):
    place(here, ["caf\u00e9/0.png", "cafe\u0301s/1.png"])
    write(here, {"x.csv": HEADED + "cafe\u0301/0.png,e\u0301\ncaf\u00e9s/1.png,\u00e9\n"})
    scanned = scan_list("x.csv")
    assert scanned.classes == ("cat", "dog", "\u00e9")
    assert scanned.labels.count(2) == 2


# --- a list is what a folder is -------------------------------------------------------------------------------


def test_a_list_in_the_order_of_a_folder_is_that_folder(here):
    """Same images, splits, hashes: whatever is computed from a data set is the same."""
    write(here, {"x.csv": HEADED})
    for seed in (0, 1):
        by_list = load("x.csv", seed=seed)
        (here / "photos").mkdir(exist_ok=True)
        for name in ("cat", "dog"):
            if not (here / "photos" / name).exists():
                (here / name).rename(here / "photos" / name)
                (here / name).symlink_to(here / "photos" / name)
        by_folder = load("photos", "folder", seed=seed)
        assert by_list.sha256 == by_folder.sha256
        assert by_list.files == by_folder.files == tuple(ALL)
        assert by_list.identities == by_folder.identities


NESTED = [
    f"{split}/{name}" for split in ("train", "test") for name in ("a/b/0.png", "a/0.png", "a/b.d/0.png", "b/a/z.png")
]


@given(st.permutations([*NESTED, *(f"train/{name}/{n}.png" for name in ("a", "b") for n in range(5, 9))]))
@settings(max_examples=8, deadline=None)
def test_the_order_of_a_list_is_of_no_consequence(tmp_path_factory, order):
    """And it is that of a folder, whose folders are walked: all hashes are equal."""
    root = place(tmp_path_factory.mktemp("images"), sorted(order))
    write(root, {"x.csv": "path,label,split\n" + "".join(f"{n},{n.split('/')[1]},{n.split('/')[0]}\n" for n in order)})
    by_list, by_folder = load(root / "x.csv"), load(root, "folder")
    assert by_list.files == by_folder.files
    assert by_list.sha256 == by_folder.sha256


@pytest.mark.parametrize("seed", [0, 1])
def test_the_innermost_folders_are_a_list_with_their_names(seed, tmp_path):
    """As the authors of one set give both: the same images, splits and hash, so that the same accuracies come of it."""
    names = [
        f"{split}/{kind}/{n}.png"
        for split in ("train", "test")
        for kind in ("fruit/lemon", "fruit/plum", "juice/orange")
        for n in range(4)
    ]
    root = place(tmp_path / "photos", names)
    for split in ("train", "test"):
        write(root, {f"{split}.csv": "path,label\n" + rows([name for name in names if name.startswith(split)])})
    by_list = load(f"{root}/train.csv+{root}/test.csv", seed=seed)
    by_folder = load(f"{root}?classes=leaf", "folder", seed=seed)
    assert by_list.classes == by_folder.classes == ("lemon", "orange", "plum")
    assert by_list.files == by_folder.files
    assert by_list.sha256 == by_folder.sha256


def test_lists_of_splits_are_the_folder_of_splits(here):
    (here / "photos").mkdir()
    for split in ("train", "test"):
        (here / split).rename(here / "photos" / split)
    for split in ("train", "test"):
        write(here, {f"photos/{split}.txt": "".join(f"{split}/{n}, {number(n)}, 1\n" for n in ALL)})
    by_list, by_folder = load("photos?label=1"), load("photos", "folder")
    assert by_list.classes == ("9", "10")
    names = {"9": "dog", "10": "cat"}
    for part in ("train", "val", "test"):
        of_list, of_folder = (
            {(one.files[p], one.classes[one.labels[p]]) for p in getattr(one, part).index.tolist()}
            for one in (by_list, by_folder)
        )
        assert {(file, names[label]) for file, label in of_list} == of_folder


def test_copies_bad_images_and_facts_are_those_of_a_folder(here):
    (here / "cat/0.png").write_bytes((here / "dog/0.png").read_bytes())
    (here / "dog/1.png").write_text("no image")
    write(here, {"x.csv": HEADED})
    text = refusal(load, "x.csv")
    assert "1 of 16 images" in text
    assert "'dog/1.png': it is no image" in text
    data = load("x.csv", bad_images="skip")
    assert data.mixed == ("'cat/0.png' and 'dog/0.png'",)
    assert data.dropped[0].startswith("'dog/1.png': ")
    assert data.copies["mixed"] == 1
    assert "dog/1.png" not in data.files
    assert len(data.files) == 15


def test_the_same_files_with_other_labels_are_another_data_set(here):
    write(here, {"x.csv": HEADED, "y.csv": "path,label\n" + rows(label=lambda name: f"{int(name[4]) % 2}")})
    assert load("x.csv").sha256 != load("y.csv").sha256


def test_a_row_that_changes_is_seen(here):
    write(here, {"x.csv": HEADED})
    before = load("x.csv")
    write(here, {"x.csv": HEADED.replace("cat/0.png,cat", "cat/0.png,dog")})
    assert load("x.csv").images_sha256 != before.images_sha256


# --- what is refused ------------------------------------------------------------------------------------------

TOP = "path,label\n"


def after(line):
    """The good list with one line more."""
    return {"x.csv": HEADED + line + "\n"}


LAST = len(ALL) + 2
"""The line after the good ones."""
BAD = {
    # name: the lists, what is asked for, words of the line
    "no list": ({}, "", ["dataset 'list:' names no list; expected list:FILE"]),
    "not there": ({}, "none.csv", ["list 'none.csv' does not exist"]),
    "not there, with options": ({}, "none.csv?label=1", ["list 'none.csv' does not exist"]),
    "one of two not there": ({"train.csv": HEADED}, "train.csv+test.csv", ["list 'test.csv' does not exist"]),
    "empty": ({"x.csv": ""}, "x.csv", ["list 'x.csv' has no rows"]),
    "blank": ({"x.csv": "\n\n  \n"}, "x.csv", ["has no rows"]),
    "names of columns alone": ({"x.csv": TOP}, "x.csv", ["no rows beneath the names of its columns, 'path', 'label'"]),
    "an image": ({}, "cat/0.png", ["is no text"]),
    "a zip": ({"x.zip": b"PK"}, "x.zip", ["ends in .zip, which is not read; save it as .csv"]),
    "a sheet": ({"x.xlsx": b"PK"}, "x.xlsx", ["ends in .xlsx, which is not read"]),
    "a pickle": ({"x.pkl": b"\x80\x04"}, "x.pkl", ["ends in .pkl, which is not read"]),
    "a JSON document": ({"x.json": "[]"}, "x.json", ["is one JSON document; write a JSON object a line"]),
    "no JSON": ({"x.jsonl": '{"path": 1}\n{"path"\n'}, "x.jsonl", ["line 2 is no JSON"]),
    "JSON of something else": ({"x.jsonl": "[1]\n"}, "x.jsonl", ["line 1 is no JSON object"]),
    "no parquet": ({"x.parquet": "no"}, "x.parquet", ["cannot be read as parquet"]),
    "an open quotation": (after('"cat/1.png,cat'), "x.csv", [f"line {LAST} is not to be read as a table"]),
    "no names of columns that are known": (
        {"x.csv": "a,b\n" + rows()},
        "x.csv",
        ["no column for the path", "'a', 'b'", "?path=COLUMN"],
    ),
    "no label": (
        {"x.csv": "path,b\n" + rows()},
        "x.csv",
        ["no column for the label: none of 'path', 'b' is called label"],
    ),
    "no column": ({"x.csv": HEADED}, "x.csv?label=labl", ["no column 'labl' for label; did you mean 'label'?"]),
    "no such column": ({"x.csv": HEADED}, "x.csv?label=7", ["has no column 7 for label: it has 2, 0 to 1"]),
    "names of columns without a header": (
        {"x.txt": rows(mark=" ")},
        "x.txt?label=y",
        ["no names of columns", "label=y finds none"],
    ),
    "one column for both": ({"x.csv": HEADED}, "x.csv?path=path&label=path", ["cannot be both the path and the label"]),
    "two labels": (
        {"x.csv": "path,label,class\n" + "".join(f"{n},1,2\n" for n in ALL)},
        "x.csv",
        ["has 'label' and 'class', both may be the label; say which: ?label=label"],
    ),
    "two columns of one name": (
        {"x.csv": "path,label,label\n" + "".join(f"{n},1,2\n" for n in ALL)},
        "x.csv",
        ["two columns 'label'"],
    ),
    "one column": ({"x.txt": "".join(f"{n}\n" for n in ALL)}, "x.txt", ["has one column, such as 'cat/0.png'"]),
    "three columns": (
        {"x.txt": "".join(f"{n}, 1, 2\n" for n in ALL)},
        "x.txt",
        ["3 columns without names, such as 'cat/0.png', '1', '2'; say which is the label: ?label=1 or ?label=2"],
    ),
    "the label first": (
        {"x.txt": rows(mark=" ")},
        "x.txt?label=0",
        ["label in column 0; say which is the path: ?path=1"],
    ),
    "a short row": (after("cat/1.png"), "x.csv", [f"line {LAST}: 1 column where there are 2"]),
    "a long row": (after("cat/1.png,cat,x"), "x.csv", [f"1 of 17 rows cannot be used: line {LAST}: 3 columns where"]),
    "a row without a path": (after(",cat"), "x.csv", [f"line {LAST}: no path"]),
    "a row without a label": (after("more.png,"), "x.csv", [f"line {LAST}: no label for 'more.png'"]),
    "no label in JSON": (
        {"x.jsonl": JSON + '{"file_name": "cat/1.png"}\n'},
        "x.jsonl",
        ["line 17: no label for 'cat/1.png'"],
    ),
    "an image that is not there": (
        after("cat/99.png,cat"),
        "x.csv",
        [f"line {LAST}: 'cat/99.png' is not there; paths are relative to '.'"],
    ),
    "many that are not there": (
        {"x.csv": TOP + rows([f"cat/{n}.png" for n in range(50)])},
        "x.csv",
        ["42 of 50 rows cannot be used: line 10: 'cat/8.png' is not there; line 11: ", "; …"],
    ),
    "another root": (
        {"lists/x.csv": HEADED},
        "lists/x.csv",
        ["16 of 16 rows", "line 2: 'cat/0.png' is not there", "did you mean ?root=.?"],
    ),
    "no endings": (
        {"x.csv": TOP + rows([n[:-4] for n in ALL])},
        "x.csv",
        ["'cat/0' is not there", "did you mean ?suffix=.png?"],
    ),
    "a root and endings": (
        {"x.csv": TOP + rows([n[4:-4] for n in CAT], label=lambda n: n)},
        "x.csv",
        ["did you mean ?root=cat&suffix=.png?"],
    ),
    "a folder for an image": (after("cat,cat"), "x.csv", [f"line {LAST}: 'cat' is a folder"]),
    "a broken link": (after("broken.png,cat"), "x.csv", [f"line {LAST}: 'broken.png' is a link that leads nowhere"]),
    "a circle of links": (
        after("circle.png,cat"),
        "x.csv",
        [f"line {LAST}: 'circle.png' is a link that leads round in a circle"],
    ),
    "no name of a file": (after("a" * 5000 + ".png,cat"), "x.csv", ["is no name of a file"]),
    "a row twice": (
        after("cat/0.png,cat"),
        "x.csv",
        [f"line 2 and line {LAST} both have 'cat/0.png'; give each image one row"],
    ),
    "a row twice, written in two ways": (
        after("./dog/../cat/0.png,cat"),
        "x.csv",
        [f"line 2 and line {LAST} both have"],
    ),
    "two labels of one image": (
        after("cat/0.png,dog"),
        "x.csv",
        [f"line 2 and line {LAST} have 'cat/0.png' as 'cat' and as 'dog'"],
    ),
    "one image in two splits": (
        {"x.csv": SPLITS + "cat/0.png,cat,testing\n"},
        "x.csv",
        ["line 2 and line 18 have 'cat/0.png' in train and in test"],
    ),
    "one image in two lists": (
        {"train.csv": rows(), "test.csv": rows(CAT[:1])},
        "train.csv+test.csv",
        ["train.csv line 1 and test.csv line 1 have 'cat/0.png' in train and in test"],
    ),
    "one file in two splits, by a link": (
        {"train.csv": rows(), "test.csv": "link.png,dog\n"},
        "train.csv+test.csv",
        ["'dog/0.png' and 'link.png' are one file under two names (a link) in two splits"],
    ),
    "an unknown split": (
        {"x.csv": SPLITS + "more.png,cat,holdout\n"},
        "x.csv",
        ["line 18: split 'holdout' is none of train, val, test"],
    ),
    "two names of one split": (
        {"x.csv": SPLITS + "more.png,cat,dev\n"},
        "x.csv",
        ["'validation' and 'dev', two names for one split"],
    ),
    "eval beside val and test": (
        {"x.csv": SPLITS + "more.png,cat,eval\n"},
        "x.csv",
        ["'testing' and 'eval', two names for one split"],
    ),
    "no split": ({"x.csv": SPLITS + "more.png,cat,\n"}, "x.csv", ["line 18: no split for 'more.png'"]),
    "another split than the file's": (
        {"train.csv": SPLITS, "test.csv": SPLITS},
        "train.csv+test.csv",
        ["train.csv line 6: split 'validation' in a list of train"],
    ),
    "no train": (
        {"x.csv": SPLITS.replace("train", "validation")},
        "x.csv",
        ["rows of val and test, but none of train", "?split=none"],
    ),
    "a file of no split": (
        {"train.csv": rows(CAT), "x.csv": rows(DOG)},
        "train.csv+x.csv",
        ["the name of 'x.csv' says none of train"],
    ),
    "a file twice": ({"train.csv": HEADED}, "train.csv+train.csv", ["names 'train.csv' twice"]),
    "a folder among files": ({"train.csv": HEADED}, "train.csv+cat", ["'cat' is a folder; name the files in it"]),
    "one class": ({"x.csv": TOP + rows(CAT)}, "x.csv", ["only one class, 'cat'; a classifier needs at least two"]),
    "a class that train lacks": (
        {"x.csv": SPLITS + "train/cat/0.png,cow,testing\n"},
        "x.csv",
        ["line 18: label 'cow' is in test, but not in train; no model can learn it"],
    ),
    "a number in two ways": (
        {"x.csv": TOP + rows(label=number) + "train/cat/0.png,09\n"},
        "x.csv",
        ["labels '9' (line 10) and '09' (line 18) are one number written in two ways"],
    ),
    "a root that is none": (
        {"x.csv": HEADED},
        "x.csv?root=none",
        ["root 'none' is no folder here, nor beside the list"],
    ),
    "an unknown option": (
        {"x.csv": HEADED},
        "x.csv?lable=1",
        ["unknown option of list:PATH 'lable'; did you mean 'label'?"],
    ),
    "an option without a value": ({"x.csv": HEADED}, "x.csv?label=", ["'label=' after the question mark is no option"]),
    "an option twice": ({"x.csv": HEADED}, "x.csv?label=1&label=0", ["gives the option 'label' twice"]),
    "no option": (
        {"x.csv": HEADED},
        "x.csv?leaf",
        ["'leaf' after the question mark is no option", "?key=value&key=value"],
    ),
    "groups of two kinds": ({"x.csv": HEADED}, "x.csv?group=(a)&group_column=label", ["group and group_column"]),
    "no class names": ({"x.csv": HEADED}, "x.csv?classes=none.csv", ["classes 'none.csv' is no file here"]),
    "class names that lack one": (
        {"x.csv": TOP + rows(label=number), "c.csv": "id,name\n9,dog\n"},
        "x.csv?classes=c.csv",
        ["no column with all 2 labels: it lacks '10'"],
    ),
    "class names that are not told apart": (
        {"x.csv": TOP + rows(label=number), "c.csv": "id,name\n9,dog\n10,dog\n"},
        "x.csv?classes=c.csv",
        ["no column that names each label differently"],
    ),
    "class names in no order": (
        {"x.csv": TOP + rows(label=number), "c.txt": "dog\ncat\n"},
        "x.csv?classes=c.txt",
        ["2 names, but labels from 9 to 10"],
    ),
    "class names for names": (
        {"x.csv": HEADED, "c.txt": "dog\ncat\n"},
        "x.csv?classes=c.txt",
        ["one column, but labels are no numbers"],
    ),
    "two columns of labels": (
        {"x.csv": TOP + rows(label=number), "c.csv": "a,b,name\n9,10,dog\n10,9,cat\n"},
        "x.csv?classes=c.csv",
        ["columns 0 and 1"],
    ),
    "a folder without lists": ({}, "cat", ["has no list that is called train"]),
    "a folder with another list": ({"sub/labels.csv": HEADED}, "sub", ["did you mean 'list:sub/labels.csv'?"]),
    "a folder without a list of train": ({"sub/test.csv": HEADED}, "sub", ["has 'test.csv', but no list of train"]),
    "two lists of one split": (
        {"sub/train.csv": HEADED, "sub/train.txt": "x"},
        "sub",
        ["'train.csv' and 'train.txt', two lists for one split"],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_list_is_refused_in_one_line(case, here):
    files, path, words = BAD[case]
    write(here, files)
    (here / "link.png").symlink_to("dog/0.png")
    (here / "broken.png").symlink_to("none.png")
    (here / "circle.png").symlink_to("circle.png")
    if case == "no parquet":
        pytest.importorskip("pyarrow")
    text = refusal(check_dataset, f"list:{path}")
    for word in words:
        assert word in text
    assert refusal(load, path) == text


def test_there_are_as_many_as_were_asked_for():
    assert len(BAD) >= 40
    assert len(FORMS) >= 40


@pytest.mark.parametrize("case", ["a row twice", "an unknown split", "an image that is not there", "a circle of links"])
def test_the_command_ends_with_2_before_anything_trains(case, here, command):
    files, path, words = BAD[case]
    write(here, files)
    (here / "circle.png").symlink_to("circle.png")
    status, _, err = command("run", f"list:{path}", "--backbone=resnet18", "--weights=random", "--threads=1")
    assert status == 2
    assert words[0] in err
    assert not (here / "results").exists()
    assert len(err.strip().splitlines()) == 1, err


NUMBERED = {"x.txt": rows(mark=" ", label=number)}
BESIDE = [
    ({"classes.txt": "9 dog\n10 cat\n"}, "x.txt", "classes.txt"),
    ({"Class Names.csv": "id,name\n9,dog\n10,cat\n"}, "x.txt", "Class Names.csv"),
    ({"classes.txt": "9 dog\n"}, "x.txt", ""),
    ({"classes.txt": "9 dog\n10 cat\n"}, "x.txt?classes=classes.txt", ""),
    ({"notes.txt": "9 dog\n10 cat\n"}, "x.txt", ""),
    ({"labels.csv": TOP + rows(label=number)}, "labels.csv", ""),
    ({"classes.txt": "9 dog\n10 cat\n", "y.txt": rows(mark=" ")}, "y.txt", ""),
    ({}, "x.txt", ""),
]


@pytest.mark.parametrize(("files", "path", "named"), BESIDE)
def test_a_file_that_names_numbered_classes_is_pointed_at(files, path, named, here):
    write(here, {**NUMBERED, **files})
    hints = [line for line in scan_list(path).remarks if "?classes=" in line]
    expected = [f"classes are called by their numbers; {named} beside the list names them: ?classes={named}"]
    assert hints == (expected if named else [])


def test_a_list_is_said_before_a_run(here, command):
    write(here, {"x.csv": SPLITS})
    status, out, err = command(
        "run", "list:x.csv", "--dry-run", "--backbone=resnet18", "--weights=random", "--image-size=32", "--threads=1"
    )
    assert status == 0, err
    lines = [" ".join(line.split()) for line in err.splitlines()]
    assert any("images x.csv: 16 images in 2 classes" in line for line in lines)
    assert "splits train, validation and testing as the list has them" in lines
    assert "list read as: path from 'file_name', label from 'label', split from 'split'" in lines
    assert "list:x.csv" in out


def test_a_file_alone_is_told_how_it_is_written(here):
    write(here, {"x.csv": HEADED})
    assert "a list of images is written 'list:x.csv'" in refusal(parse_dataset, "x.csv")
    assert "a list of images is written 'list:x.csv'" in refusal(scan, "x.csv")


def test_all_files_of_a_list_are_what_nodes_compare(here):
    write(here, {"x.txt": rows(mark=" ", label=number), "c.txt": "9 dog\n10 cat\n"})
    names = [name for name, _ in files_of("x.txt?classes=c.txt")]
    assert names == ["x.txt", "c.txt", *DOG, *CAT]


# --- options of a path ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "path", "options"),
    [
        ("photos", "photos", {}),
        ("photos?classes=leaf", "photos", {"classes": "leaf"}),
        ("x.csv?path=img&label=y", "x.csv", {"path": "img", "label": "y"}),
        ("photos?group=(?:shop|x)_(\\d+)&classes=leaf", "photos", {"group": "(?:shop|x)_(\\d+)", "classes": "leaf"}),
        ("photos?group=a&b", "photos", {"group": "a&b"}),
        ("photos?group=a=b", "photos", {"group": "a=b"}),
        ("here?yes", "here?yes", {}),
        ("here?yes?label=1", "here?yes", {"label": "1"}),
        ("here?key=x", "here?key=x", {}),
        ("a/b?root=c?d", "a/b", {"root": "c?d"}),
    ],
)
def test_options_after_a_path(text, path, options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("here?yes", "here?key=x", "here"):
        (tmp_path / name).mkdir()
    assert split_options(text) == (path, options)


@given(st.text("ab/?&=.", max_size=12))
@settings(max_examples=200)
def test_options_of_any_text_are_read_or_refused(text):
    try:
        path, options = split_options(f"nowhere/{text}")
    except UserError:
        return
    tail = "&".join(f"{key}={value}" for key, value in options.items())
    assert (f"{path}?{tail}" if options else path) == f"nowhere/{text}"
    plain, rest = apart_by_text(text)
    assert plain + rest == text


def test_names_of_data_sets_with_options(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert place_of("folder:./x/../photos?classes=leaf") == "folder:photos?classes=leaf"
    assert same_place("folder:photos?classes=leaf", "folder:./photos?classes=leaf")
    assert not same_place("folder:photos?classes=leaf", "folder:photos")
    assert shared_name("folder:/home/me/photos?classes=leaf") == "folder:photos?classes=leaf"
    assert (
        shared_name("list:/home/me/a.csv+/home/me/b.csv?root=/home/me/x&label=1") == "list:a.csv+b.csv?root=x&label=1"
    )
    assert "-list:a.csv+b.csv_root=x_label=1-" in Cell(dataset="list:c/a.csv+/d/b.csv?root=/e/x&label=1").id
    assert "-folder:photos_classes=leaf-" in Cell(dataset="folder:./a/photos?classes=leaf").id
    assert shortened("?classes=/home/me/c.csv&label=1") == "?classes=c.csv&label=1"
    assert short_name("folder:a/photos?classes=leaf") == "photos?classes=leaf"
    both = {"folder:a/photos?classes=leaf", "folder:a/photos"}
    assert set(data_sets(both).values()) == {"photos?classes=leaf", "photos"}


def test_which_split_a_file_is():
    assert by_split(["train.csv", "val.csv", "test.csv", "train800.csv", "classes.csv"]) == {
        "train": ["train.csv"], "val": ["val.csv"], "test": ["test.csv"]
    }  # fmt: skip
    assert by_split(["trainlist01.txt", "testlist01.txt", "restrain.txt"]) == {
        "train": ["trainlist01.txt"], "test": ["testlist01.txt"]
    }  # fmt: skip


def as_number(name):
    return {"cat": 1, "dog": 0}[name.split("/")[-2]]


@pytest.mark.parametrize("heading", ["class", "classname", "name", "0", "Label"])
def test_a_heading_is_no_class(heading, here):
    """What pandas writes of a column: every class had the name of the one before."""
    write(here, {"x.txt": rows(mark=" ", label=as_number), "c.csv": f"{heading}\ndog\ncat\n"})
    found = scan_list("x.txt?classes=c.csv")
    assert found.classes == ("dog", "cat")
    names = {name.split("/")[-2]: found.classes[label] for name, label in zip(found.names, found.labels, strict=True)}
    assert names == {"cat": "cat", "dog": "dog"}


def test_a_first_name_that_is_needed_is_no_heading(here):
    write(here, {"x.txt": rows(mark=" ", label=as_number), "c.csv": "class\ncat\n"})
    assert scan_list("x.txt?classes=c.csv").classes == ("class", "cat")


@pytest.mark.parametrize("first", ["species", "Text", "target"])
def test_what_may_be_a_heading_or_a_class_is_asked_about(first, here):
    write(here, {"x.txt": rows(mark=" ", label=as_number), "c.csv": f"{first}\ndog\ncat\n", "d.csv": f"{first}\ncat\n"})
    assert "may be a heading or a class" in refusal(scan_list, "x.txt?classes=c.csv")
    assert scan_list("x.txt?classes=d.csv").classes == (first, "cat")


def test_numbers_are_names_that_begin_with_0(here):
    write(here, {"x.txt": rows(mark=" ", label=as_number), "c.txt": "0\n1\n2\n"})
    assert scan_list("x.txt?classes=c.txt").classes == ("0", "1")


def test_synsets_and_their_words_name_classes(here):
    wnid = {"dog": "n02084071", "cat": "n02121620"}
    words = "n02084071 dog, domestic dog, Canis familiaris\nn02121620 cat, true cat\n"
    write(here, {"x.txt": rows(mark=" ", label=lambda name: wnid[name.split("/")[-2]]), "synset_words.txt": words})
    assert set(scan_list("x.txt?classes=synset_words.txt").classes) == {
        "dog, domestic dog, Canis familiaris", "cat, true cat",
    }  # fmt: skip


def test_a_folder_and_a_list_at_one_path_are_two_data_sets(here, monkeypatch, tmp_path):
    """The check took what it knew of the one for the other, the second time."""
    monkeypatch.setenv("TLBENCH_CACHE", str(tmp_path / "cache"))
    write(here, {"metadata.csv": "file_name,label\n" + "".join(f"{name},{int(name[-5]) % 2}\n" for name in ALL)})
    request = Request(size=8, resize=8, interpolation="bilinear", seed=0, path=".")
    for _ in range(2):
        KEPT.images.forget()
        with listed_once():
            classes = [folder.describe(request, True, find)[0].classes for find in (scan, scan_list)]
        assert classes == [("cat", "dog"), ("0", "1")]


# --- what was left out without a word ---------------------------------------------------------------------------


def parted(name):
    return "test" if name.endswith("7.png") else "val" if name.endswith("6.png") else "train"


def table_of(kind, values, pa):
    """A column of values as Arrow has them."""
    return {
        "string_view": lambda: pa.array(values, pa.string_view()),
        "large": lambda: pa.array(values, pa.large_string()),
        "dictionary": lambda: pa.array(values).dictionary_encode(),
        "binary": lambda: pa.array([value.encode() for value in values], pa.binary()),
        "list": lambda: pa.array([[value] for value in values]),
        "struct": lambda: pa.array([{"name": value} for value in values]),
    }[kind]()


@pytest.mark.parametrize("kind", ["string_view", "large", "dictionary", "binary", "list", "struct"])
@pytest.mark.parametrize("column", ["split", "group"])
def test_a_column_of_splits_or_groups_is_read_or_refused(kind, column, tmp_path):
    """One of a type that was not read was dropped without a word, and test images were trained on."""
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    place(tmp_path)
    values = [parted(name) if column == "split" else name[-5] for name in ALL]
    columns = {"path": ALL, "label": [name[:3] for name in ALL], column: table_of(kind, values, pa)}
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    if kind in ("binary", "list", "struct"):
        assert f"column '{column}' holds no texts or numbers" in refusal(scan_list, str(tmp_path / "x.parquet"))
        return
    found = scan_list(str(tmp_path / "x.parquet"))
    if column == "split":
        assert dict(zip(found.names, found.parts, strict=True)) == {n: parted(n) for n in ALL}
    else:
        assert len(set(found.groups)) == COUNT


def test_dates_and_decimals_are_groups_as_texts_are(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import datetime
    import decimal

    import pyarrow.parquet as pq

    place(tmp_path)
    days = [datetime.date(2026, 1, 1 + int(name[-5]) % 4) for name in ALL]
    kinds = {"d": days, "t": [datetime.datetime(one.year, 1, one.day) for one in days]}
    kinds["n"] = [decimal.Decimal(one.day) / 4 for one in days]
    for name, values in kinds.items():
        pq.write_table(
            pa.table({"path": ALL, "label": [one[:3] for one in ALL], "group": values}), tmp_path / f"{name}.parquet"
        )
        assert len(set(scan_list(str(tmp_path / f"{name}.parquet")).groups)) == 4


def test_a_split_that_is_a_list_in_one_line_is_refused_and_other_such_columns_are_named(tmp_path):
    place(tmp_path)
    lines = [{"path": name, "label": name[:3], "split": parted(name), "box": [1, 2]} for name in ALL]
    write(tmp_path, {"x.jsonl": "\n".join(map(json.dumps, lines))})
    assert any("not used: 'box'" in line for line in scan_list(str(tmp_path / "x.jsonl")).remarks)
    lines[3]["split"] = ["train"]
    write(tmp_path, {"x.jsonl": "\n".join(map(json.dumps, lines))})
    assert "column 'split' holds no texts" in refusal(scan_list, str(tmp_path / "x.jsonl"))
    assert scan_list(f"{tmp_path / 'x.jsonl'}?split=none").parts == ("",) * len(ALL)


@pytest.mark.parametrize("written", ["./{}", "{root}/{}", "x/../{}", ".//{}"])
def test_folders_of_splits_are_seen_however_paths_are_written(written, tmp_path):
    names = [f"{parted(name)}/{name}" for name in ALL]
    place(tmp_path, names)
    (tmp_path / "x").mkdir()
    ways = [written.format(name, root=tmp_path) if number % 2 else name for number, name in enumerate(names)]
    write(tmp_path, {"x.csv": "path,label\n" + rows(ways, label=lambda name: "cat" if "cat" in name else "dog")})
    found = scan_list(str(tmp_path / "x.csv"))
    assert dict(zip(found.names, found.parts, strict=True)) == {name: name.partition("/")[0] for name in names}


@pytest.mark.parametrize("second", ["{root}/cat/0.png,dog", "./cat/0.png,cat"])
def test_one_image_in_two_rows_is_found_however_its_path_is_written(second, tmp_path, monkeypatch):
    place(tmp_path)
    monkeypatch.chdir(tmp_path)
    write(tmp_path, {"x.csv": "path,label\n" + rows() + second.format(root=tmp_path) + "\n"})
    assert "give each image one row" in refusal(scan_list, "x.csv")


def test_labels_that_are_no_text_are_refused_by_their_line(tmp_path):
    """All of them were trained, and the model could not be kept."""
    place(tmp_path)
    write(tmp_path, {"x.csv": b"path,label\n" + rows().replace("cat\n", "K\xe4se\n").encode("cp1252")})
    assert "line 2: label 'K\\udce4se' is no text in UTF-8; save the list as UTF-8" in refusal(
        scan_list, str(tmp_path / "x.csv")
    )
    write(tmp_path, {"x.jsonl": "\n".join(json.dumps({"path": name, "label": "\ud800" + name[:3]}) for name in ALL)})
    assert "is no text in UTF-8" in refusal(scan_list, str(tmp_path / "x.jsonl"))


def test_a_key_twice_in_a_line_is_refused(tmp_path):
    place(tmp_path)
    lines = [f'{{"path": "{name}", "label": "dog", "label": "{name[:3]}"}}' for name in ALL]
    write(tmp_path, {"x.jsonl": "\n".join(lines)})
    assert "line 1 has 'label' twice" in refusal(scan_list, str(tmp_path / "x.jsonl"))


def test_two_folders_of_one_split_with_lists_are_refused(tmp_path):
    for part in ("train", "dev", "valid"):
        place(tmp_path / part)
        write(tmp_path, {f"{part}/metadata.csv": "file_name,label\n" + rows()})
    assert "two lists for one split" in refusal(scan_list, str(tmp_path))


def test_names_of_classes_are_not_read_from_yaml(tmp_path):
    """`names:` became the name of the first class."""
    place(tmp_path)
    content = "path,label\n" + rows(label=lambda name: int("dog" in name))
    write(tmp_path, {"x.csv": content, "data.yaml": "names:\n  0: cat\n  1: dog\n"})
    assert "ends in .yaml, which is not read" in refusal(scan_list, f"{tmp_path / 'x.csv'}?classes=data.yaml")
