"""The classification sets of torchvision, and what each is: splits, classes, arguments, files. Nothing here imports
torch, so that they can be listed and named at once; a test holds the table against torchvision itself.

Sizes of downloads are what their hosts said of them once: about. One file, since it is one table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Value = str | int | bool
Arguments = Mapping[str, Value]
Keywords = Mapping[str, Any]
"""Keywords of a class of torchvision."""
Pieces = Mapping[str, Sequence[Keywords]]
"""train, val, test, or empty for all that is divided by seed -> what the class is called with, once or more often."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """Says what may be given for an argument."""

    choices: Sequence[Value]
    default: Value | None = None
    """None: it has to be given."""
    own: bool = False
    """It is no keyword of torchvision's class."""

    @property
    def words(self) -> str:
        """Says what may be given."""
        if isinstance(self.choices, range):
            return f"{self.choices[0]} to {self.choices[-1]}"
        return ", ".join(map(str, self.choices))


@dataclass(frozen=True, kw_only=True)
class Named:
    """Describes a data set of torchvision."""

    summary: str
    classes: int | Callable[[Arguments], int]
    pieces: Callable[[Arguments], Pieces]
    files: Callable[[Arguments], Sequence[str]]
    """Arguments -> files and folders below the root that all have to be there; of ``a|b`` one of the two."""
    options: Mapping[str, Option] = field(default_factory=dict)
    megabytes: Callable[[Arguments], float] | None = None
    """What is downloaded; None where torchvision downloads nothing."""
    archives: Callable[[Arguments], Sequence[str]] = lambda arguments: ()
    """What is downloaded and unpacked, below the root: where it is there already, nothing is downloaded."""
    page: str = ""
    """Where it comes from."""
    photographs: bool = True
    """Near copies are looked for."""
    note: str = ""
    """What else there is to say of its splits."""
    needs: str = ""
    """A package that torchvision reads it with."""
    hashed: bool = True
    """torchvision has the hash of what it downloads, and downloads anew what is half there."""


# --- how rows are written -------------------------------------------------------------------------------------


def _split(*parts: str, **called: str) -> Callable[[Arguments], Pieces]:
    """Returns pieces for classes that take ``split``; ``called`` gives torchvision's own word for a part."""
    return lambda arguments: {part: ({"split": called.get(part, part)},) for part in parts}


def _train(arguments: Arguments) -> Pieces:
    return {"train": ({"train": True},), "test": ({"train": False},)}


def _whole(arguments: Arguments) -> Pieces:
    return {"": ({},)}


def _at(*paths: str) -> Callable[[Arguments], Sequence[str]]:
    """Returns paths with arguments in their places: ``labels/train{partition}.txt``."""
    return lambda arguments: [path.format(**arguments) for path in paths]


def _mb(number: float) -> Callable[[Arguments], float]:
    return lambda arguments: number


def _of(option: str, table: Mapping[Any, Any]) -> Callable[[Arguments], Any]:
    """Returns what a table says of the value of an argument."""
    return lambda arguments: table[arguments[option]]


_IDX = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def _idx(name: str, summary: str, megabytes: float, page: str) -> Named:
    """Returns the row of a set in MNIST's format."""
    return Named(
        summary=summary,
        classes=10,
        pieces=_train,
        files=_at(*(f"{name}/raw/{file}" for file in _IDX)),
        megabytes=_mb(megabytes),
        archives=_at(*(f"{name}/raw/{file}.gz" for file in _IDX)),
        page=page,
        photographs=False,
    )


_LFW = {"original": "lfw", "funneled": "lfw_funneled", "deepfunneled": "lfw-deepfunneled"}
_LFW_FILES = {"original": "lfw.tgz", "funneled": "lfw-funneled.tgz", "deepfunneled": "lfw-deepfunneled.tgz"}
_IMAGENETTE = {"full": "imagenette2", "320px": "imagenette2-320", "160px": "imagenette2-160"}
_EMNIST = {"byclass": 62, "bymerge": 47, "balanced": 47, "letters": 26, "digits": 10, "mnist": 10}
_INAT = dict.fromkeys(("2021_train", "2021_train_mini", "2021_valid"), 10_000)
_INAT |= {"2019": 1_010, "2018": 8_142, "2017": 5_089}
_INAT_MB = {"2021_train": 224_000 + 8_400, "2021_train_mini": 42_000 + 8_400, "2021_valid": 8_400}
_INAT_MB |= {"2019": 75_000, "2018": 120_000, "2017": 186_000}
_INAT_KINDS = {"kingdom": 3, "phylum": 13, "class": 51, "order": 273, "family": 1_103, "genus": 4_884, "super": 6}
_AIRCRAFT = "fgvc-aircraft-2013b/data"
_QMNIST = [f"QMNIST/raw/qmnist-{p}-{w}" for p in ("train", "test") for w in ("images-idx3-ubyte", "labels-idx2-int")]
_EMNIST_FILES = [f"{p}-{w}-ubyte" for p in ("train", "test") for w in ("images-idx3", "labels-idx1")]
_VGG = "www.robots.ox.ac.uk/~vgg/data/"


def _inat_versions(arguments: Arguments) -> list[str]:
    version = str(arguments["version"])
    return [version, "2021_valid"] if version.startswith("2021_train") else [version]


def _inat_pieces(arguments: Arguments) -> Pieces:
    parts = [""] if len(versions := _inat_versions(arguments)) == 1 else ["train", "val"]
    return {part: ({"version": version},) for part, version in zip(parts, versions, strict=True)}


def _inat_classes(arguments: Arguments) -> int:
    kind, version = str(arguments["target_type"]), arguments["version"]
    return _INAT[str(version)] if kind == "full" else _INAT_KINDS[kind]


def _svhn(arguments: Arguments) -> Pieces:
    more: list[Keywords] = [{"split": "extra"}] if arguments["extra"] else []
    return {"train": ({"split": "train"}, *more), "test": ({"split": "test"},)}


def _stl10(arguments: Arguments) -> Pieces:
    fold = {} if arguments["folds"] == "all" else {"folds": arguments["folds"]}
    return {"train": ({"split": "train", **fold},), "test": ({"split": "test"},)}


def _aircraft(arguments: Arguments) -> Pieces:
    parts = ("train", "val", "test") if arguments["split"] == "train" else ("train", "test")
    return {part: ({"split": arguments["split"] if part == "train" else part},) for part in parts}


def _places(arguments: Arguments) -> list[str]:
    size, variant = "256" if arguments["small"] else "large", str(arguments["split"]).removeprefix("train-")
    lists = [f"places365_train_{variant}.txt", "places365_val.txt"]
    return ["categories_places365.txt", *lists, f"data_{size}_{variant}", f"val_{size}"]


def _places_archives(arguments: Arguments) -> list[str]:
    size, variant = "256" if arguments["small"] else "large", str(arguments["split"]).removeprefix("train-")
    return [f"filelist_places365-{variant}.tar", f"train_{size}_places365{variant}.tar", f"val_{size}.tar"]


def _yes_or_no(default: bool, own: bool = False) -> Option:
    return Option(choices=(True, False), default=default, own=own)


_PCAM = [f"pcam/camelyonpatch_level_2_split_{part}_{what}.h5" for part in ("train", "valid", "test") for what in "xy"]


# --- the table ------------------------------------------------------------------------------------------------

TABLE: dict[str, Named] = {
    # train, val, test
    "DTD": Named(
        summary="5,640 textures",
        classes=47,
        pieces=_split("train", "val", "test"),
        options={"partition": Option(choices=range(1, 11), default=1)},
        files=_at("dtd/dtd/images", *(f"dtd/dtd/labels/{part}{{partition}}.txt" for part in ("train", "val", "test"))),
        megabytes=_mb(625),
        archives=_at("dtd/dtd-r1.0.1.tar.gz"),
        page=_VGG + "dtd",
    ),
    "Flowers102": Named(
        summary="8,189 photographs of flowers, 6,149 of them to test on",
        classes=102,
        pieces=_split("train", "val", "test"),
        files=_at("flowers-102/jpg", "flowers-102/imagelabels.mat", "flowers-102/setid.mat"),
        megabytes=_mb(345),
        archives=_at("flowers-102/102flowers.tgz"),
        page=_VGG + "flowers/102",
    ),
    "FGVCAircraft": Named(
        summary="10,000 photographs of aircraft",
        classes=_of("annotation_level", {"variant": 100, "family": 70, "manufacturer": 30}),
        pieces=_aircraft,
        options={
            "annotation_level": Option(choices=("variant", "family", "manufacturer"), default="variant"),
            "split": Option(choices=("train", "trainval"), default="train", own=True),
        },
        files=_at(
            f"{_AIRCRAFT}/images",
            *(f"{_AIRCRAFT}/images_{{annotation_level}}_{part}.txt" for part in ("{split}", "val", "test")),
        ),
        megabytes=_mb(2_750),
        archives=_at("fgvc-aircraft-2013b.tar.gz"),
        page=_VGG + "fgvc-aircraft",
        hashed=False,
    ),
    "RenderedSST2": Named(
        summary="9,613 sentences as pictures: do they praise or not",
        classes=2,
        pieces=_split("train", "val", "test"),
        files=_at(*(f"rendered-sst2/{part}" for part in ("train", "valid", "test"))),
        megabytes=_mb(131),
        archives=_at("rendered-sst2.tgz"),
        page="github.com/openai/CLIP, data/rendered-sst2.md",
        photographs=False,
    ),
    "PCAM": Named(
        summary="327,680 patches of tissue: a tumour or none",
        classes=2,
        pieces=_split("train", "val", "test"),
        files=_at(*_PCAM),
        megabytes=_mb(8_000),
        archives=_at(*(f"{file}.gz" for file in _PCAM)),
        page="github.com/basveeling/pcam",
        needs="h5py",
    ),
    "CLEVRClassification": Named(
        summary="85,000 rendered scenes: how many things are in them",
        classes=8,
        pieces=_split("train", "val"),
        files=_at(
            *(f"clevr/CLEVR_v1.0/{p}" for p in ("images/train", "images/val")),
            *(f"clevr/CLEVR_v1.0/scenes/CLEVR_{part}_scenes.json" for part in ("train", "val")),
        ),
        megabytes=_mb(18_000),
        archives=_at("clevr/CLEVR_v1.0.zip"),
        page="cs.stanford.edu/people/jcjohns/clevr",
    ),
    "Country211": Named(
        summary="63,300 photographs by the country they were taken in",
        classes=211,
        pieces=_split("train", "val", "test", val="valid"),
        files=_at("country211/train", "country211/valid", "country211/test"),
        megabytes=_mb(11_300),
        archives=_at("country211.tgz"),
        page="github.com/openai/CLIP, data/country211.md",
    ),
    # train, test
    "Food101": Named(
        summary="101,000 photographs of dishes; those to train on have wrong labels among them",
        classes=101,
        pieces=_split("train", "test"),
        files=_at("food-101/images", "food-101/meta/train.json", "food-101/meta/test.json"),
        megabytes=_mb(5_000),
        archives=_at("food-101.tar.gz"),
        page="data.vision.ee.ethz.ch/cvl/datasets_extra/food-101",
    ),
    "GTSRB": Named(
        summary="39,270 photographs of German traffic signs",
        classes=43,
        pieces=_split("train", "test"),
        files=_at("gtsrb/GTSRB/Training", "gtsrb/GTSRB/Final_Test/Images", "gtsrb/GT-final_test.csv"),
        megabytes=_mb(276),
        archives=_at(
            "gtsrb/GTSRB-Training_fixed.zip",
            *(f"gtsrb/GTSRB_Final_Test_{what}.zip" for what in ("Images", "GT")),
        ),
        page="benchmark.ini.rub.de",
        note="its photographs of one sign are frames of one track, which are not kept together",
    ),
    "SVHN": Named(
        summary="99,289 digits of house numbers, and 531,131 easier ones with extra=true",
        classes=10,
        pieces=_svhn,
        options={"extra": _yes_or_no(False, own=True)},
        files=lambda arguments: [
            f"{part}_32x32.mat" for part in ("train", "test", *(["extra"] if arguments["extra"] else []))
        ],
        megabytes=lambda arguments: 246 + 1_330 * bool(arguments["extra"]),
        page="ufldl.stanford.edu/housenumbers",
    ),
    "STL10": Named(
        summary="13,000 photographs of 96 x 96; folds=0 to 9 trains on 1,000 of the 5,000",
        classes=10,
        pieces=_stl10,
        options={"folds": Option(choices=("all", *range(10)), default="all", own=True)},
        files=lambda arguments: [
            *(f"stl10_binary/{file}.bin" for file in ("train_X", "train_y", "test_X", "test_y", "unlabeled_X")),
            *(["stl10_binary/fold_indices.txt"] if arguments["folds"] != "all" else []),
        ],
        megabytes=_mb(2_640),
        archives=_at("stl10_binary.tar.gz"),
        page="cs.stanford.edu/~acoates/stl10",
    ),
    "FER2013": Named(
        summary="35,887 faces by what they express, 48 x 48 and grey",
        classes=7,
        pieces=_split("train", "test"),
        files=_at("fer2013/fer2013.csv|fer2013/icml_face_data.csv"),
        page="www.kaggle.com/c/challenges-in-representation-learning-facial-expression-recognition-challenge",
        note="the public and the private test images are both tested on",
    ),
    "StanfordCars": Named(
        summary="16,185 photographs of cars",
        classes=196,
        pieces=_split("train", "test"),
        files=_at(
            *(f"stanford_cars/{p}" for p in ("cars_train", "cars_test", "devkit/cars_train_annos.mat")),
            *(f"stanford_cars/{p}" for p in ("devkit/cars_meta.mat", "cars_test_annos_withlabels.mat")),
        ),
        page="a copy of ai.stanford.edu/~jkrause/cars, which is no longer there",
    ),
    # trainval, test
    "OxfordIIITPet": Named(
        summary="7,349 photographs of cats and dogs by breed, or with target_types=binary-category by kind",
        classes=_of("target_types", {"category": 37, "binary-category": 2}),
        pieces=_split("train", "test", train="trainval"),
        options={"target_types": Option(choices=("category", "binary-category"), default="category")},
        files=_at(*(f"oxford-iiit-pet/{p}" for p in ("images", "annotations/trainval.txt", "annotations/test.txt"))),
        megabytes=_mb(811),
        archives=_at("oxford-iiit-pet/images.tar.gz", "oxford-iiit-pet/annotations.tar.gz"),
        page=_VGG + "pets",
    ),
    # train, val
    "Imagenette": Named(
        summary="13,394 photographs of ten easy classes of ImageNet",
        classes=10,
        pieces=_split("train", "val"),
        options={"size": Option(choices=tuple(_IMAGENETTE), default="full")},
        files=lambda a: [f"{_IMAGENETTE[str(a['size'])]}/{part}" for part in ("train", "val")],
        megabytes=_of("size", {"full": 1_560, "320px": 341, "160px": 99}),
        archives=lambda a: [f"{_IMAGENETTE[str(a['size'])]}.tgz"],
        page="github.com/fastai/imagenette",
    ),
    "ImageNet": Named(
        summary="1,331,167 photographs (ILSVRC 2012)",
        classes=1000,
        pieces=_split("train", "val"),
        files=_at("meta.bin|ILSVRC2012_devkit_t12.tar.gz", "train", "val"),
        page="image-net.org",
    ),
    "Places365": Named(
        summary="1,839,960 photographs of places, or 8,062,628 with split=train-challenge; small=true: 256 x 256",
        classes=365,
        pieces=lambda arguments: {"train": ({"split": arguments["split"]},), "val": ({"split": "val"},)},
        options={
            "small": _yes_or_no(False),
            "split": Option(choices=("train-standard", "train-challenge"), default="train-standard", own=True),
        },
        files=_places,
        megabytes=lambda arguments: (
            (24_500 if arguments["small"] else 107_000) * (4.5 if arguments["split"] == "train-challenge" else 1)
        ),
        archives=_places_archives,
        page="places2.csail.mit.edu",
    ),
    # train=True, train=False
    "CIFAR10": Named(
        summary="60,000 photographs of 32 x 32",
        classes=10,
        pieces=_train,
        files=_at(
            *(f"cifar-10-batches-py/data_batch_{n}" for n in range(1, 6)),
            *(f"cifar-10-batches-py/{file}" for file in ("test_batch", "batches.meta")),
        ),
        megabytes=_mb(170),
        archives=_at("cifar-10-python.tar.gz"),
        page="www.cs.toronto.edu/~kriz/cifar.html",
    ),
    "CIFAR100": Named(
        summary="60,000 photographs of 32 x 32",
        classes=100,
        pieces=_train,
        files=_at(*(f"cifar-100-python/{file}" for file in ("train", "test", "meta"))),
        megabytes=_mb(169),
        archives=_at("cifar-100-python.tar.gz"),
        page="www.cs.toronto.edu/~kriz/cifar.html",
    ),
    "MNIST": _idx("MNIST", "70,000 handwritten digits", 12, "yann.lecun.com/exdb/mnist"),
    "FashionMNIST": _idx("FashionMNIST", "70,000 small grey clothes", 31, "github.com/zalandoresearch/fashion-mnist"),
    "KMNIST": _idx("KMNIST", "70,000 handwritten hiragana", 21, "codh.rois.ac.jp/kmnist"),
    "QMNIST": Named(
        summary="120,000 handwritten digits: MNIST with all of its test images",
        classes=10,
        pieces=_train,
        files=_at(*_QMNIST),
        megabytes=_mb(21),
        archives=_at(*(f"{file}.gz" for file in _QMNIST)),
        page="github.com/facebookresearch/qmnist",
        photographs=False,
    ),
    "USPS": Named(
        summary="9,298 digits of postcodes, 16 x 16",
        classes=10,
        pieces=_train,
        files=_at("usps.bz2", "usps.t.bz2"),
        megabytes=_mb(8),
        page="www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/multiclass.html",
        photographs=False,
    ),
    "EMNIST": Named(
        summary="handwritten letters and digits, 70,000 to 814,255 by split",
        classes=_of("split", _EMNIST),
        pieces=_train,
        options={"split": Option(choices=tuple(_EMNIST))},
        files=_at(*(f"EMNIST/raw/emnist-{{split}}-{file}" for file in _EMNIST_FILES)),
        megabytes=_mb(562),
        archives=_at("EMNIST/raw/gzip.zip"),
        page="www.nist.gov/itl/products-and-services/emnist-dataset",
        photographs=False,
        note="images lie on their side, as in the files",
    ),
    # none
    "Caltech101": Named(
        summary="8,677 photographs of things",
        classes=101,
        pieces=_whole,
        files=_at("caltech101/101_ObjectCategories/BACKGROUND_Google"),
        megabytes=_mb(137),
        archives=_at("caltech101/caltech-101.zip"),
        page="data.caltech.edu/records/mzrjq-6wc02",
        note="BACKGROUND_Google is no class",
    ),
    "Caltech256": Named(
        summary="30,607 photographs of things; one class is clutter",
        classes=257,
        pieces=_whole,
        files=_at("caltech256/256_ObjectCategories"),
        megabytes=_mb(1_180),
        archives=_at("caltech256/256_ObjectCategories.tar"),
        page="data.caltech.edu/records/nyy15-4j048",
    ),
    "EuroSAT": Named(
        summary="27,000 patches of land seen from a satellite, 64 x 64",
        classes=10,
        pieces=_whole,
        files=_at("eurosat/2750"),
        megabytes=_mb(94),
        archives=_at("eurosat/EuroSAT.zip"),
        page="github.com/phelber/EuroSAT",
    ),
    "SUN397": Named(
        summary="108,754 photographs of scenes",
        classes=397,
        pieces=_whole,
        files=_at("SUN397/ClassName.txt"),
        megabytes=_mb(39_000),
        archives=_at("SUN397.tar.gz"),
        page="vision.princeton.edu/projects/2010/SUN",
    ),
    "SEMEION": Named(
        summary="1,593 handwritten digits, 16 x 16 in black and white",
        classes=10,
        pieces=_whole,
        files=_at("semeion.data"),
        megabytes=_mb(3),
        page="archive.ics.uci.edu/dataset/178",
        photographs=False,
    ),
    # odd
    "INaturalist": Named(
        summary="photographs of plants and animals: 2.7 million of 2021, 500,000 with version=2021_train_mini",
        classes=_inat_classes,
        pieces=_inat_pieces,
        options={
            "version": Option(choices=tuple(_INAT), default="2021_train"),
            "target_type": Option(choices=("full", *_INAT_KINDS), default="full"),
        },
        files=_inat_versions,
        megabytes=_of("version", _INAT_MB),
        archives=lambda arguments: [f"{version}.tgz" for version in _inat_versions(arguments)],
        page="github.com/visipedia/inat_comp",
    ),
    "Omniglot": Named(
        summary="characters of 50 alphabets, each drawn by 20 people: 30 alphabets, or 20 with background=false",
        classes=_of("background", {True: 964, False: 659}),
        pieces=_whole,
        options={"background": _yes_or_no(True)},
        files=lambda a: [f"omniglot-py/{name}" for name in (f"{_omniglot(a)}.zip", _omniglot(a))],
        megabytes=_of("background", {True: 9.5, False: 6.5}),
        archives=lambda a: [f"omniglot-py/{_omniglot(a)}.zip"],
        page="github.com/brendenlake/omniglot",
        photographs=False,
        note="background and evaluation have no class in common, so that each is divided by itself",
    ),
    "LFWPeople": Named(
        summary="13,233 faces of 5,749 people, of whom those count with min_images photographs or more",
        classes=lambda arguments: 62 if arguments["min_images"] == 20 else 2,
        pieces=_whole,
        options={
            "image_set": Option(choices=tuple(_LFW), default="funneled"),
            "min_images": Option(choices=range(3, 531), default=20, own=True),
        },
        files=lambda a: [
            f"lfw-py/{name}"
            for name in (_LFW[str(a["image_set"])], _LFW_FILES[str(a["image_set"])], "people.txt", "lfw-names.txt")
        ],
        page="vis-www.cs.umass.edu/lfw, or a copy of it",
        note="its own splits have no person in common",
    ),
}
"""Name of torchvision's class -> what it is."""


def _omniglot(arguments: Arguments) -> str:
    return "images_background" if arguments["background"] else "images_evaluation"


OTHERS: dict[str, str] = {
    **dict.fromkeys(("ImageFolder", "DatasetFolder"), "it is what folder:PATH reads"),
    **dict.fromkeys(("Kinetics", "HMDB51", "UCF101", "MovingMNIST"), "it holds videos"),
    **dict.fromkeys(("CocoCaptions", "Flickr8k", "Flickr30k", "SBU"), "its images have sentences, not one class"),
    **dict.fromkeys(("CocoDetection", "VOCDetection", "WIDERFace", "Kitti"), "its images have boxes, not one class"),
    **dict.fromkeys(("Cityscapes", "VOCSegmentation", "SBDataset"), "its pixels have classes, not its images"),
    **dict.fromkeys(("LFWPairs", "PhotoTour"), "it holds pairs to compare"),
    **dict.fromkeys(
        ("KittiFlow", "Sintel", "FlyingChairs", "FlyingThings3D", "HD1K", "Kitti2012Stereo", "Kitti2015Stereo",
         "CarlaStereo", "Middlebury2014Stereo", "CREStereo", "FallingThingsStereo", "SceneFlowStereo", "SintelStereo",
         "InStereo2k", "ETH3DStereo"),
        "its images have flow or depth, not one class",
    ),
    "CelebA": "its images have 40 attributes, not one class",
    "FakeData": "it is noise; synthetic is, too",
    **dict.fromkeys(("LSUN", "LSUNClass"), "it is databases (lmdb); unpack them into folders, and give folder:PATH"),
    "VisionDataset": "it is what data sets are made from",
}  # fmt: skip
"""What torchvision.datasets has beside -> why no classifier can be trained on it as it is."""
