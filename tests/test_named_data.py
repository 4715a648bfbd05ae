"""torchvision's classification sets by name: each in its own format, its splits, what a name or root lacks."""

import inspect
import os
import re
from collections import Counter
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision.datasets
from named_roots import BUILD, COUNTS, PEOPLE, SIZE, checksums_agree
from PIL import Image

import tlbench
from tlbench.campaign.asked import parse_asked
from tlbench.campaign.campaign import begin
from tlbench.campaign.nodes import facts
from tlbench.data import DATASETS, Request, check_dataset, describe_data, load_data, named, parse_dataset
from tlbench.data import torchvision_sets as sets
from tlbench.data.data_root import data_root, root_of_data
from tlbench.data.named import canonical
from tlbench.data.torchvision_table import OTHERS, TABLE
from tlbench.errors import UserError
from tlbench.grid.axes import parse_axis
from tlbench.machine.kept import KEPT

SPLITS = ("train", "val", "test")
GIVEN, NO_VAL, NO_TEST, NONE = "as given", "val is cut", "val is the test", "all is cut"
RULES = {
    "DTD": (GIVEN, {part: [{"split": part}] for part in SPLITS}),
    "Flowers102": (GIVEN, {part: [{"split": part}] for part in SPLITS}),
    "FGVCAircraft": (GIVEN, {part: [{"split": part}] for part in SPLITS}),
    "RenderedSST2": (GIVEN, {part: [{"split": part}] for part in SPLITS}),
    "PCAM": (GIVEN, {part: [{"split": part}] for part in SPLITS}),
    "CLEVRClassification": (NO_TEST, {"train": [{"split": "train"}], "val": [{"split": "val"}]}),
    "Country211": (GIVEN, {"train": [{"split": "train"}], "val": [{"split": "valid"}], "test": [{"split": "test"}]}),
    "Food101": (NO_VAL, {"train": [{"split": "train"}], "test": [{"split": "test"}]}),
    "GTSRB": (NO_VAL, {"train": [{"split": "train"}], "test": [{"split": "test"}]}),
    "SVHN": (NO_VAL, {"train": [{"split": "train"}], "test": [{"split": "test"}]}),
    "STL10": (NO_VAL, {"train": [{"split": "train"}], "test": [{"split": "test"}]}),
    "FER2013": (NO_VAL, {"train": [{"split": "train"}], "test": [{"split": "test"}]}),
    "StanfordCars": (NO_VAL, {"train": [{"split": "train"}], "test": [{"split": "test"}]}),
    "OxfordIIITPet": (NO_VAL, {"train": [{"split": "trainval"}], "test": [{"split": "test"}]}),
    "Imagenette": (NO_TEST, {"train": [{"split": "train"}], "val": [{"split": "val"}]}),
    "ImageNet": (NO_TEST, {"train": [{"split": "train"}], "val": [{"split": "val"}]}),
    "Places365(small=true)": (
        NO_TEST,
        {"train": [{"split": "train-standard", "small": True}], "val": [{"split": "val", "small": True}]},
    ),
    **{
        name: (NO_VAL, {"train": [{"train": True}], "test": [{"train": False}]})
        for name in ("CIFAR10", "CIFAR100", "MNIST", "FashionMNIST", "KMNIST", "QMNIST", "USPS")
    },
    "EMNIST(split=letters)": (
        NO_VAL,
        {"train": [{"split": "letters", "train": True}], "test": [{"split": "letters", "train": False}]},
    ),
    **{name: (NONE, {"": [{}]}) for name in ("Caltech101", "Caltech256", "EuroSAT", "SUN397", "Omniglot")},
    "SEMEION": (NONE, {"": [{"download": False}]}),
    "INaturalist": (NO_TEST, {"train": [{"version": "2021_train"}], "val": [{"version": "2021_valid"}]}),
    "LFWPeople(min_images=3)": (NONE, {"": [{}]}),
    # arguments
    "DTD(partition=2)": (GIVEN, {part: [{"split": part, "partition": 2}] for part in SPLITS}),
    "FGVCAircraft(split=trainval)": (NO_VAL, {"train": [{"split": "trainval"}], "test": [{"split": "test"}]}),
    "FGVCAircraft(annotation_level=manufacturer)": (
        GIVEN,
        {part: [{"split": part, "annotation_level": "manufacturer"}] for part in SPLITS},
    ),
    "SVHN(extra=true)": (NO_VAL, {"train": [{"split": "train"}, {"split": "extra"}], "test": [{"split": "test"}]}),
    "STL10(folds=3)": (NO_VAL, {"train": [{"split": "train", "folds": 3}], "test": [{"split": "test"}]}),
    "OxfordIIITPet(target_types=binary-category)": (
        NO_VAL,
        {p: [{"split": s, "target_types": "binary-category"}] for p, s in (("train", "trainval"), ("test", "test"))},
    ),
    "Imagenette(size=160px)": (NO_TEST, {part: [{"split": part, "size": "160px"}] for part in ("train", "val")}),
    "INaturalist(version=2019)": (NONE, {"": [{"version": "2019"}]}),
    "INaturalist(target_type=kingdom)": (
        NO_TEST,
        {p: [{"version": v, "target_type": "kingdom"}] for p, v in (("train", "2021_train"), ("val", "2021_valid"))},
    ),
    "Omniglot(background=false)": (NONE, {"": [{"background": False}]}),
}
"""Data set -> the rule that it is split by, and what torchvision's class is called with for each part."""
WORDS = {GIVEN: named.AS_GIVEN, NO_VAL: named.VAL_IS_CUT, NO_TEST: named.VAL_IS_TEST, NONE: named.ALL_IS_CUT}


def plain(text):
    return text.partition("(")[0]


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    monkeypatch.delenv("TLBENCH_DATA", raising=False)
    KEPT.images.forget()
    yield
    KEPT.images.forget()


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A folder for data sets, found by the environment; torchvision finds every hash right."""
    checksums_agree(monkeypatch)
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("TLBENCH_DATA", str(folder))
    return folder


def request_of(text, seed=0, **options):
    size = SIZE.get(plain(text), 12)
    return Request(size=size, resize=size, interpolation="bilinear", seed=seed, **options)


def load(text, **options):
    return load_data(f"torchvision:{text}", request_of(text, **options))


def message(call, *arguments, **options):
    with pytest.raises(UserError) as caught:
        call(*arguments, **options)
    text = str(caught.value)
    assert text.isprintable(), ascii(text)
    return text


def by_torchvision(text, root, keywords):
    """Pixels -> label, as torchvision gives them with its own loader."""
    made = getattr(torchvision.datasets, plain(text))(str(root), **keywords)
    pairs = [made[number] for number in range(len(made))]
    found = {np.asarray(image.convert("RGB")).transpose(2, 0, 1).tobytes(): label for image, label in pairs}
    assert len(found) == len(pairs), "every image is another one"
    return found


def by_tlbench(data):
    """Part -> pixels -> name of the class."""
    return {
        part: {
            split.images[i].numpy().tobytes(): data.classes[label]
            for i, label in zip(split.index.tolist(), split.labels.tolist(), strict=True)
        }
        for part, split in ((part, getattr(data, part)) for part in SPLITS)
    }


# --- every data set, and its splits ---------------------------------------------------------------------------


def test_the_table_has_every_data_set_of_torchvision():
    exported = {n for n in torchvision.datasets.__all__ if inspect.isclass(getattr(torchvision.datasets, n))}
    assert exported == {*TABLE, *OTHERS}, "a new one belongs into TABLE, or with a reason into OTHERS"
    assert not {*TABLE} & {*OTHERS}
    assert {*map(plain, RULES)} == {*TABLE} == {*BUILD}, "each is read, and has its rule"


@pytest.mark.parametrize("name", TABLE)
def test_arguments_are_those_of_torchvision(name):
    takes = inspect.signature(getattr(torchvision.datasets, name)).parameters
    for key, option in TABLE[name].options.items():
        assert option.own or key in takes
        if not option.own and takes[key].default is not inspect.Parameter.empty:
            assert option.default == takes[key].default
        assert option.default is None or option.default in option.choices


@pytest.mark.parametrize("text", RULES)
def test_each_is_read_in_its_own_format_and_split_by_its_rule(text, root):
    BUILD[plain(text)](root)
    rule, pieces = RULES[text]
    theirs = {part: {k: v for keywords in of for k, v in by_torchvision(text, root, keywords).items()}
              for part, of in pieces.items()}  # fmt: skip
    if plain(text) == "LFWPeople":  # Eve has one photograph
        theirs[""] = {k: v for k, v in theirs[""].items() if v != list(PEOPLE).index("Eve_Fox")}
    data = load(text)
    ours = by_tlbench(data)
    assert parse_dataset(f"torchvision:{text}") == ("torchvision", text)
    assert named.split_of(text).startswith(WORDS[rule])
    if rule == GIVEN:
        assert {part: ours[part].keys() for part in SPLITS} == {part: theirs[part].keys() for part in SPLITS}
    elif rule == NONE:
        assert {*ours["train"], *ours["val"], *ours["test"]} == {*theirs[""]}
    else:
        assert ours["test"].keys() == theirs["test" if rule == NO_VAL else "val"].keys()
        assert {*ours["train"], *ours["val"]} == {*theirs["train"]}
    for one, other in (("train", "test"), ("train", "val"), ("val", "test")):
        assert not ours[one].keys() & ours[other].keys()
    counts = [Counter(ours[part].values()) for part in SPLITS]
    assert all(set(count) == set(data.classes) for count in counts), "every part has every class"
    pairs = {(label, ours[part][pixels]) for of in theirs.values() for pixels, label in of.items()
             for part in SPLITS if pixels in ours[part]}  # fmt: skip
    assert len(pairs) == len({label for label, _ in pairs}) == len({name for _, name in pairs}) == len(data.classes)
    order = [data.classes.index(name) for _, name in sorted(pairs)]
    assert order == sorted(order) or plain(text) == "Omniglot", "classes stand in torchvision's order"


@pytest.mark.parametrize("text", ["DTD", "CIFAR10", "EuroSAT"])
def test_another_seed_moves_only_what_is_cut(text, root):
    BUILD[text](root)
    first, other = by_tlbench(load(text)), by_tlbench(load(text, seed=1))
    assert (first["test"] == other["test"]) == (text != "EuroSAT")
    assert (first["val"] == other["val"]) == (text == "DTD")


NAMES = {
    "ImageNet": ("n01440764 tench", "n02979186 cassette player"),
    "OxfordIIITPet": ("Abyssinian", "American Bulldog"),
    "OxfordIIITPet(target_types=binary-category)": ("Cat", "Dog"),
    "CLEVRClassification": ("3", "10"),
    "GTSRB": ("00000", "00001"),
    "FER2013": ("angry", "neutral"),
    "SVHN": ("0", "4"),
    "STL10": ("airplane", "bird"),
    "PCAM": ("normal", "tumour"),
    "EMNIST(split=letters)": ("a", "b"),
    "MNIST": ("0 - zero", "3 - three"),
    "LFWPeople": ("Ann_Bee", "Cy_Dee"),
    "Omniglot": ("Greek/character01", "Greek/character02", "Latin/character01"),
    "INaturalist(target_type=kingdom)": ("Animalia", "Plantae"),
}


@pytest.mark.parametrize("text", NAMES)
def test_classes_have_names(text, root):
    BUILD[plain(text)](root)
    assert load(text).classes == NAMES[text]


def test_identities_are_those_of_the_files_or_of_the_pixels(root):
    import hashlib

    BUILD["Country211"](root)
    BUILD["CIFAR10"](root)
    data = load("Country211")
    files = sorted((root / "country211").rglob("*.jpg"))
    assert {*data.identities} == {hashlib.sha256(file.read_bytes()).digest() for file in files}
    pixels = load("CIFAR10")
    size = Request(size=16, resize=16, interpolation="bilinear", seed=0)
    assert load_data("torchvision:CIFAR10", size).identities == pixels.identities, "whatever they are decoded to"
    assert len({*pixels.identities}) == len(pixels.identities) == 10 * COUNTS["train"] + 2 * COUNTS["test"]


def test_copies_are_found_in_arrays_as_in_files(root, monkeypatch):
    BUILD["STL10"](root)
    file = root / "stl10_binary" / "test_X.bin"
    whole, one = file.read_bytes(), 3 * 96 * 96
    train = (root / "stl10_binary" / "train_X.bin").read_bytes()
    file.write_bytes(train[:one] + whole[one:])
    data = load("STL10")
    assert data.copies["apart"] == 1
    assert data.leaked["test"] == (0,)
    assert "near" in data.copies
    BUILD["SEMEION"](root)
    assert "near" not in load("SEMEION").copies, "drawings of one sign look alike"


def test_what_was_found_is_kept_until_a_file_changes(root):
    BUILD["MNIST"](root)
    request = request_of("MNIST")
    assert describe_data("torchvision:MNIST", request, decode=False) is None
    found = load("MNIST")
    KEPT.images.forget()
    again = describe_data("torchvision:MNIST", request, decode=False)
    assert again.sha256 == found.sha256
    labels = root / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    content = bytearray(labels.read_bytes())
    content[-1], content[8] = content[8], content[-1]
    labels.write_bytes(content)
    assert describe_data("torchvision:MNIST", request, decode=False) is None


def test_a_file_that_cannot_be_read_is_named(root):
    BUILD["Food101"](root)
    (root / "food-101" / "images" / "waffles" / "train0.jpg").write_bytes(b"no image")
    text = message(load, "Food101")
    assert "1 of 16 images" in text
    assert "'food-101/images/waffles/train0.jpg'" in text
    assert len(load("Food101", bad_images="skip").dropped) == 1


def test_one_photograph_a_person_is_left_out_with_a_word(root):
    BUILD["LFWPeople"](root)
    assert "1 class of fewer than 20 images" in sets.remarks_of("LFWPeople")[0]
    assert "has only one class, 'Ann_Bee'" in message(load, "LFWPeople(min_images=22)")


def test_a_class_that_val_lacks_is_said_and_one_that_train_lacks_is_refused(root):
    BUILD["DTD"](root)
    labels = root / "dtd" / "dtd" / "labels"
    kept = [line for line in (labels / "val1.txt").read_text().splitlines() if line.startswith("dotted")]
    (labels / "val1.txt").write_text("\n".join(kept) + "\n")
    data = load("DTD")
    assert {data.classes[label] for label in data.val.labels.tolist()} == {"dotted"}, "by name, not by its own index"
    assert "val has no images of 1 of the 2 classes: 'banded'" in sets.remarks_of("DTD")[0]
    kept = [line for line in (labels / "train1.txt").read_text().splitlines() if line.startswith("dotted")]
    (labels / "train1.txt").write_text("\n".join(kept) + "\n")
    text = message(load, "DTD")
    assert "class 'banded' has images in test, but none in train" in text


# --- what is wrong --------------------------------------------------------------------------------------------

WRONG = {
    "nothing": ("", ["names no data set", "torchvision:CIFAR10"]),
    "unknown": ("CIFAR11", ["'CIFAR11'", "did you mean 'CIFAR10'"]),
    "other letters": ("cifar10", ["did you mean 'CIFAR10'"]),
    "no classes": ("CocoDetection", ["cannot be trained on as it is", "boxes"]),
    "no classes, in small": ("celeba", ["40 attributes"]),
    "folders": ("ImageFolder", ["folder:PATH"]),
    "unknown argument": ("DTD(part=2)", ["no argument 'part'", "did you mean 'partition'", "1 to 10"]),
    "no arguments": ("CIFAR10(train=True)", ["no argument 'train'", "takes none"]),
    "value": ("DTD(partition=11)", ["partition is '11'", "1 to 10"]),
    "word": ("Imagenette(size=320)", ["size is '320'", "320px"]),
    "argument that is needed": ("EMNIST", ["needs split", "byclass", "EMNIST(split=byclass)"]),
    "twice": ("DTD(partition=1,partition=2)", ["given twice"]),
    "no value": ("DTD(partition)", ["'partition' is no argument", "argument=value"]),
    "open": ("DTD(partition=1", ["parentheses"]),
    "missing": ("CIFAR10", ["is not in", "'cifar-10-batches-py/data_batch_1' is missing", "--download", "170 MB"]),
    "missing, by hand": ("SVHN", ["'train_32x32.mat'", "without a network", "'test_32x32.mat'", "--data-root"]),
    "not to be downloaded": ("StanfordCars", ["does not download it", "put it there"]),
    "of one package": ("FER2013", ["'fer2013/fer2013.csv' is missing", "www.kaggle.com"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_name_that_cannot_be_is_one_line_and_status_2(case, root, command):
    text, words = WRONG[case]
    said = message(check_dataset, f"torchvision:{text}")
    for word in words:
        assert word in said
    status, _, err = command("run", f"--dataset=torchvision:{text}", "--dry-run")
    assert status == 2
    assert err.splitlines() == [f"tlbench: {said}"]


def test_a_root_that_is_not_there(tmp_path, command, monkeypatch):
    (tmp_path / "file").write_text("")
    for given, what in ((tmp_path / "none", "does not exist"), (tmp_path / "file", "is no folder")):
        status, _, err = command("run", "--dataset=torchvision:CIFAR10", f"--data-root={given}")
        assert (status, len(err.splitlines())) == (2, 1)
        assert f"--data-root {str(given)!r} {what}" in err
        monkeypatch.setenv("TLBENCH_DATA", str(given))
        assert f"TLBENCH_DATA {str(given)!r} {what}" in message(check_dataset, "torchvision:CIFAR10")
        monkeypatch.delenv("TLBENCH_DATA")


def test_files_that_are_not_the_authors_are_said(tmp_path):
    BUILD["CIFAR100"](tmp_path)
    with data_root(str(tmp_path)):
        text = message(load, "CIFAR100")
    assert "torchvision says 'Dataset not found or corrupted" in text
    assert "damaged" in text


def test_a_set_that_needs_a_package_says_which(root, monkeypatch):
    BUILD["PCAM"](root)
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    assert message(load, "PCAM") == "torchvision:PCAM needs h5py: pip install h5py"


# --- where it lies --------------------------------------------------------------------------------------------


def test_the_root_is_the_option_or_the_environment_or_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TLBENCH_CACHE", str(tmp_path / "cache"))
    assert root_of_data() == tmp_path / "cache" / "data"
    monkeypatch.setenv("TLBENCH_DATA", "~/sets")
    assert root_of_data() == Path("~/sets").expanduser()
    with data_root(str(tmp_path)):
        assert root_of_data() == tmp_path
    assert root_of_data() == Path("~/sets").expanduser()


def test_a_node_is_asked_for_the_files_that_are_below_its_root(root):
    asked = {"datasets": ["torchvision:MNIST"], "weights": [], "plugins": [], "room": 0}
    assert facts(asked)["images"] == {"torchvision:MNIST": ""}
    BUILD["MNIST"](root)
    found = facts(asked)["images"]["torchvision:MNIST"]
    assert len(found) == 64
    assert facts({**asked, "data_root": str(root.parent)})["images"] == {"torchvision:MNIST": ""}
    (root / "MNIST" / "raw" / "train-labels-idx1-ubyte").write_bytes(b"")
    assert facts(asked)["images"]["torchvision:MNIST"] != found


# --- how it is written ----------------------------------------------------------------------------------------

TIMM = {
    "torch/cifar10": "torchvision:CIFAR10",
    "torch/fashion_mnist": "torchvision:FashionMNIST",
    "Torch/inat": "torchvision:INaturalist",
    "torch/DTD(partition=2)": "torchvision:DTD(partition=2)",
    "torch/none-such": "torchvision:none-such",
    "hfds/beans": "hf:beans",
    "HFDS/owner/name": "hf:owner/name",
    "folder:a/b": "folder:a/b",
    "torchvision:MNIST": "torchvision:MNIST",
    "digits": "digits",
}


@pytest.mark.parametrize("text", TIMM)
def test_timm_spellings_are_understood(text):
    assert canonical(text) == TIMM[text]
    assert parse_axis("dataset", text) == (TIMM[text],)


def test_a_folder_called_as_timm_writes_stays_a_folder(tmp_path, monkeypatch):
    (tmp_path / "torch" / "cifar10").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert canonical("torch/cifar10") == "torch/cifar10"


@pytest.mark.parametrize("text", ["cifar10", "CIFAR-10", "torchvision/cifar10", "torch/cifar10", "torchvison:CIFAR10"])
def test_a_name_without_its_kind_is_meant_for_one_of_torchvision(text):
    assert "did you mean 'torchvision:CIFAR10'?" in message(check_dataset, text)


def test_a_path_may_be_any_data_set(command):
    for text in ("torchvision:MNST", "torch/mnst"):
        status, _, err = command("run", text, "--dry-run")
        assert (status, len(err.splitlines())) == (2, 1)
        assert "did you mean 'MNIST'" in err


# --- the list -------------------------------------------------------------------------------------------------


def test_the_list_has_all_with_splits_classes_and_whether_they_are_here(root, command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    BUILD["MNIST"](root)
    BUILD["EMNIST"](root)
    status, out, err = command("list", "datasets")
    assert status == 0, err
    rows = {line.split()[0]: line for line in out.splitlines()}
    for name in TABLE:
        line = rows[f"torchvision:{name}" + "(split=…)" * (name == "EMNIST")]
        assert ("  yes  " in line) == (name in ("MNIST", "EMNIST")), line
        assert "by seed" in line or "as its authors split it" in line
        classes = TABLE[name].classes
        assert not isinstance(classes, int) or f" {classes:,} " in line
    assert "yes" in rows["digits"]
    assert {"folder:PATH", "torchvision:NAME", "hf:NAME"} <= {*rows}
    empty = root.parent / "empty"
    empty.mkdir()
    assert "yes" not in command("list", "datasets", "*MNIST*", f"--data-root={empty}")[1]
    status, _, err = command("list", "heads", "--data-root=x")
    assert (status, len(err.splitlines())) == (2, 1)


VARIANTS = {
    "Imagenette": ["imagenette2-160/train", "imagenette2-160/val"],
    "INaturalist": ["2018"],
    "Omniglot": ["omniglot-py/images_evaluation", "omniglot-py/images_evaluation.zip"],
    "Places365": [
        *("categories_places365.txt", "places365_train_challenge.txt", "places365_val.txt"),
        *("data_256_challenge", "val_256"),
    ],
    "LFWPeople": [f"lfw-py/{name}" for name in ("lfw", "lfw.tgz", "people.txt", "lfw-names.txt")],
    "DTD": ["dtd/dtd/images", *(f"dtd/dtd/labels/{part}7.txt" for part in SPLITS)],
    "FGVCAircraft": [
        "fgvc-aircraft-2013b/data/images",
        *(f"fgvc-aircraft-2013b/data/images_family_{part}.txt" for part in ("trainval", "val", "test")),
    ],
    "EMNIST(split=…)": [
        f"EMNIST/raw/emnist-mnist-{part}-{what}-ubyte"
        for part in ("train", "test")
        for what in ("images-idx3", "labels-idx1")
    ],
}


@pytest.mark.parametrize("name", VARIANTS)
def test_what_is_here_with_other_arguments_alone_is_here(name, root, command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    for path in VARIANTS[name][1:]:
        (root / path).mkdir(parents=True)
    rows = command("list", "datasets", f"*{plain(name)}")[1] if "(" not in name else command("list", "datasets")[1]
    assert "  yes  " not in next(line for line in rows.splitlines() if line.startswith(f"torchvision:{name} "))
    (root / VARIANTS[name][0]).mkdir(parents=True)
    rows = {line.split()[0]: line for line in command("list", "datasets")[1].splitlines()}
    here = {key for key, line in rows.items() if key.startswith("torchvision:") and "  yes  " in line}
    assert here == {f"torchvision:{name}"}


def test_the_list_asks_each_choice_of_each_option_and_stays_small():
    for row in TABLE.values():
        asked = [one for one in named.variants(row) if set(one) == set(row.options)]
        assert len(asked) <= 10
        for key, option in row.options.items():
            if not option.own and len({tuple(row.files({**asked[0], key: choice})) for choice in option.choices}) > 1:
                assert {one[key] for one in asked} == {*option.choices}
    assert len([*named.variants(TABLE["LFWPeople"])]) == 3, "one for each folder, not for each of 1,584 calls"


def test_the_list_needs_no_torch():
    import subprocess
    import sys

    code = (
        "import sys\nfrom tlbench.data.named import offers\nassert len(list(offers())) > 30\n"
        "sys.exit(', '.join({'torch', 'torchvision', 'numpy', 'datasets'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# --- downloads ------------------------------------------------------------------------------------------------


@pytest.fixture
def host(root, monkeypatch):
    """Stands for the network: what is downloaded is made instead, and each time is counted."""
    real, asked = sets.make, []

    def make(chosen, folder, keywords, download=False):
        if download:
            asked.append((chosen.text, dict(keywords)))
            if named.lacking(chosen, folder):
                BUILD[chosen.name](folder)
        return real(chosen, folder, keywords)

    monkeypatch.setattr(sets, "make", make)
    return asked


RUN = ["--task=infer", "--backbone=resnet18", "--weights=random", "--image-size=32", "--isolate=none", "--threads=1"]


def test_nothing_is_downloaded_unless_that_is_asked_for(host, root, command):
    status, _, err = command("run", "--dataset=torchvision:MNIST", *RUN)
    assert (status, host) == (2, [])
    assert "--download fetches it (about 12 MB)" in err


def test_what_is_downloaded_is_said_first(host, capsys):
    asked = parse_asked({"dataset": "torchvision:MNIST", "weights": "random", "image-size": "32", "download": True})
    begin(asked)
    assert [text for text, _ in host] == ["torchvision:MNIST"] * 2
    first = capsys.readouterr().err.splitlines()[0]
    assert first.startswith("tlbench: torchvision:MNIST: downloads about 12 MB from yann.lecun.com/exdb/mnist into ")
    begin(asked)
    assert len(host) == 2, "what is there is not asked for again"
    assert "downloads" not in capsys.readouterr().err


def test_a_mistake_elsewhere_is_found_before_a_download(host, command):
    status, _, err = command("run", "--dataset=torchvision:MNIST", "--download", "--backbone=resnet81")
    assert (status, host) == (2, [])
    assert "resnet81" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--dataset=digits"], ["--download", "nothing of digits is downloaded"]),
        (["--dataset=torchvision:MNIST", "--dry-run"], ["--download", "--dry-run"]),
        (["--dataset=torchvision:StanfordCars"], ["does not download it"]),
        (["--dataset=torchvision:KMNIST"], ["could not be downloaded", "without a network", "KMNIST/raw"]),
    ],
)
def test_a_download_that_cannot_be_is_one_line(arguments, words, root, command):
    status, _, err = command("run", "--download", *arguments, *RUN)
    assert status == 2
    for word in words:
        assert word in err.splitlines()[-1]


def test_without_a_network_the_way_forward_is_said(root, monkeypatch, command):
    def make(*arguments, **options):
        raise URLError("no route to host")

    monkeypatch.setattr(sets, "make", make)
    status, _, err = command("run", "--dataset=torchvision:DTD", "--download", *RUN)
    assert status == 2
    assert "no route to host" in err.splitlines()[-1]
    assert "put it there as 'dtd/dtd-r1.0.1.tar.gz', which --download unpacks" in err
    archive = root / "dtd" / "dtd-r1.0.1.tar.gz"
    archive.parent.mkdir()
    archive.write_bytes(b"")
    assert "its archives are there: --download unpacks them" in message(check_dataset, "torchvision:DTD")


def test_a_disk_without_room_is_said_before(root, monkeypatch):
    from tlbench.data.fetching import fetch

    monkeypatch.setattr("tlbench.data.fetching.room_in", lambda folder: 10**9)
    text = message(fetch, ["torchvision:Food101"], lambda line: None)
    assert "10.0 GB are needed" in text
    assert not list(root.iterdir())


# --- a run ----------------------------------------------------------------------------------------------------


@pytest.mark.exhaustive
def test_a_run_in_processes_of_its_own_finds_the_root(tmp_path, monkeypatch):
    root = tmp_path / "sets"
    root.mkdir()
    BUILD["EuroSAT"](root)
    monkeypatch.chdir(tmp_path)
    run = tlbench.run(
        "torchvision:EuroSAT", data_root=root, backbone="resnet18", weights="random", freeze="linear_probe",
        epochs=1, batch_size=4, image_size=32, threads=1, folds="off", out="run",
    )  # fmt: skip
    (row,) = run.frame.to_dict("records")
    assert (row["status"], row["dataset"], row["classes"]) == ("ok", "torchvision:EuroSAT", 2)


PLUGIN = """
import numpy as np

from tlbench.data import DATASETS, Dataset, folder
from tlbench.data.held import Held
from tlbench.data.members import Lying, Member, scan_of

PIXELS = np.random.default_rng(0).integers(0, 256, (30, 12, 12, 3), np.uint8)


def found(path):
    members = [Member("", "ab"[n % 2], Held(f"{n}", n, PIXELS.__getitem__)) for n in range(30)]
    from pathlib import Path
    return scan_of(Lying(name="noise", root=Path("."), stamp=(0, 0, 0, 0, 0, 1)), members, "ab")


DATASETS["noise"] = Dataset(
    summary="noise of a plugin", classes=2, split="cut by seed",
    load=lambda request: folder.load(request, found),
    describe=lambda request, decode: folder.describe(request, decode, found),
)
DATASETS["elsewhere"] = Dataset(
    summary="of a plugin, and not there", classes=2, load=None, places=lambda path: [],
)
DATASETS["moved"] = Dataset(
    summary="of a plugin, and no longer there", classes=2, load=None, places=lambda path: [__file__, __file__ + "/no"],
)
DATASETS["lying"] = Dataset(
    summary="of a plugin, and there", classes=2, load=None, places=lambda path: [__file__],
)
DATASETS["raising"] = Dataset(
    summary="of a plugin, and raises", classes=2, load=None, places=lambda path: 1 / 0,
)
"""


def test_a_plugin_has_a_data_set_that_is_listed_checked_and_used(tmp_path, command, monkeypatch):
    (tmp_path / "mine.py").write_text(PLUGIN)
    plugin = f"--plugin={tmp_path / 'mine.py'}"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    try:
        listed = command("list", "datasets", plugin)[1]
        assert re.search(r"^noise\s+2\s+yes\s+noise of a plugin\s+cut by seed", listed, re.MULTILINE)
        assert re.search(r"^elsewhere\s+2\s+no\s+of a plugin, and not there", listed, re.MULTILINE)
        assert re.search(r"^moved\s+2\s+no\s+of a plugin, and no longer there", listed, re.MULTILINE)
        assert re.search(r"^raising\s+2\s+–\s+of a plugin, and raises", listed, re.MULTILINE)
        assert re.search(r"^lying\s+2\s+yes\s+of a plugin, and there", listed, re.MULTILINE)
        size = Request(size=12, resize=12, interpolation="bilinear", seed=0)
        data = load_data("noise", size)
        assert sum(len(getattr(data, part)) for part in SPLITS) == 30
        assert torch.equal(data.train.images[0], torch.from_numpy(data.train.pixels[0]))
        status, out, err = command("run", plugin, "--dataset=noise", "--task=infer", "--dry-run")
        assert (status, "resnet18-linear-noise" in out) == (0, True), out + err
    finally:
        for name in ("noise", "elsewhere", "moved", "lying", "raising"):
            DATASETS.pop(name, None)


def test_a_palette_picture_of_caltech_is_read_as_any_other(root):
    BUILD["Caltech101"](root)
    path = root / "caltech101" / "101_ObjectCategories" / "accordion" / "image_0001.jpg"
    grey = Image.open(path).convert("L")
    grey.save(path)
    assert load("Caltech101").train.images.shape[1] == 3
    assert os.path.exists(path)
