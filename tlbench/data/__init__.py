"""Data sets as decoded images in memory, split into train, validation and test. torch is imported for tensors alone.

`load_data` hands a `Request` to a row of `DATASETS`, which gives decoded images (`store`) and the positions of each
split; these become `Data`. Images are decoded, resized and cut once, to uint8, as ``weights.transforms()`` of
torchvision would do it; scaling and normalisation happen on the device. Splits are index tensors into one store, so
another seed costs nothing. One file, since whoever adds a data set has to know all of it.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlbench.errors import UserError, unknown

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from tlbench.data.depth import Scale
    from tlbench.data.listing import Listed
    from tlbench.data.named import Offer
    from tlbench.data.store import Images, Known
    from tlbench.data.streaming import Streamed

Parts = dict[str, list[int]]
"""Part of a data set -> the positions of its images in the store."""
BAD_IMAGES = {
    "fail": "stop before training, naming the files",
    "skip": "leave them out; the record counts them",
}


@dataclass(frozen=True, kw_only=True)
class Request:
    """Says what a cell asks for."""

    size: int
    """Pixels a side of the images."""
    resize: int
    """Pixels before the centre is cut out: of the shorter side, unless ``crop_mode`` says other."""
    interpolation: str
    """``bilinear``, ``bicubic``, ``nearest`` or ``lanczos``."""
    seed: int
    crop_mode: str = "center"
    """How a photograph is brought to its size: ``center``, ``squash`` or ``border`` (`tlbench.data.store.fit`)."""
    fill: tuple[int, int, int] = (0, 0, 0)
    """Red, green and blue of what a photograph does not reach."""
    bad_images: str = "fail"
    """What becomes of images that cannot be read (`BAD_IMAGES`)."""
    decode: str = "exact"
    """How large photographs are decoded: ``exact``, ``scaled`` or ``auto`` (`tlbench.data.scaled`)."""
    ram_bytes: int | None = None
    """Memory that decoded images may take; None: a share of what is free (`tlbench.data.rooms`)."""
    disk_bytes: int | None = None
    """Room on the disk that they may take, those kept for later runs among them; None: a share of what is free."""
    path: str = ""
    """What follows the name and a colon, for a data set that takes a path."""
    fold: tuple[int, int] | None = None
    """Number of a fold, from 1, and of how many (`tlbench.data.folds`); 0: none is left out; None: the data set's own
    split. No data set gets to see it, nor the next one."""
    relabel: str = ""
    """CSV file of corrected labels (`tlbench.data.relabel`); empty without one."""
    undivided: bool = False
    """Nothing is trained on it: its test split alone is wanted, what would be split by seed may be that as a whole, and
    no part need have an image of each class."""
    scale: Scale | None = None
    """What images of more than 8 bits are read at, where those that a model was trained on have decided; None: these
    images decide."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Describes a data set: a row of the table."""

    summary: str
    load: Callable[[Request], tuple[Images, Parts]]
    """Request -> images, and positions in train, val and test. Errors: UserError for whatever is wrong with them."""
    describe: Callable[[Request, bool], tuple[Known, Parts] | None] | None = None
    """The same without the pixels, where an earlier time has kept what it found; else what `load` gives, or None where
    the second argument says that nothing is to be decoded. Where there is no such function, `load` is asked."""
    listed: Callable[[str], Listed] | None = None
    """What can be said of a path by the names of its files, without opening any."""
    files: Callable[[str], Iterable[tuple[str, Path]]] | None = None
    """Names and places of all files of a data set at a path, where these are not just all in the folder there."""
    classes: int | Callable[[str], int]
    """The number of classes, or what counts them at a path without decoding anything, and raises a UserError for what
    is wrong there already.
    """
    split: str | Callable[[str], str] = ""
    """How it is split, in words, or what says it of a path; empty where that is not known."""
    remarks: Callable[[str], Sequence[str]] = lambda path: ()
    """Says, in lines, what at a path is not read as it stands there."""
    takes_path: bool = False
    """It is written ``NAME:PATH``."""
    form: str = ""
    """How it is written where that is not ``NAME`` or ``NAME:PATH``: ``torchvision:NAME``."""
    is_name: Callable[[str], bool] = lambda path: False
    """Tells whether a path is a name, which means the same on every machine, and no place on a disk."""
    places: Callable[[str], Sequence[str] | None] = lambda path: _places(path) if path else None
    """Returns the files and folders on this disk that what a path names lies in, none where it is not there; None for
    what lies in no place of its own."""
    fetch: Callable[[str, Callable[[str], None]], None] | None = None
    """Downloads what a path names where it is not on this disk, and tells its second argument, before, how large that
    is. Errors: UserError."""
    offers: Callable[[], Iterable[Offer]] | None = None
    """What a list of all data sets shows, where the row is several by name."""
    read_by_check: bool = False
    """Checking a grid loads it, since an image that cannot be read would be found only then."""
    of_files: bool = False
    """Its images are files, so that a request says how they are decoded and where they lie."""
    measures_accuracy: bool = True


@dataclass(frozen=True, kw_only=True)
class Split:
    """Holds one part of a data set; its tensors are made when they are asked for."""

    pixels: NDArray[np.uint8] | Streamed
    """The store of all splits, (M, 3, S, S), or what brings its images where memory has no room for them."""
    positions: NDArray[np.int64]
    """(n,) positions in the store."""
    classes: NDArray[np.int64]
    """(n,) the class of each."""

    def __len__(self) -> int:
        return len(self.positions)

    @cached_property
    def images(self) -> Tensor | Streamed:
        """Returns the store of all splits, (M, 3, S, S) uint8: the same memory, no copy; or what brings its images."""
        import numpy as np
        import torch

        if not isinstance(self.pixels, np.ndarray):
            return self.pixels
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that what other processes share cannot be written
            return torch.from_numpy(self.pixels)

    @cached_property
    def index(self) -> Tensor:
        """Returns (n,) positions in the store, int64."""
        import torch

        return torch.from_numpy(self.positions)

    @cached_property
    def labels(self) -> Tensor:
        """Returns (n,) classes, int64."""
        import torch

        return torch.from_numpy(self.classes)

    def batch(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Returns images (b, 3, S, S) uint8 and labels (b,) at positions of this split."""
        return self.images.index_select(0, self.index[positions]), self.labels[positions]


@dataclass(frozen=True, kw_only=True)
class Described:
    """Says what a data set is to a cell, whether its pixels are at hand or not."""

    name: str
    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    """(M,) the class of each image of the store."""
    positions: Mapping[str, NDArray[np.int64]]
    """train, val, test -> (n,) positions in the store."""
    sha256: str
    """SHA-256 of classes, pixels, labels and splits."""
    images_sha256: str
    """SHA-256 of classes, pixels and labels of the store that the splits share."""
    pixels_sha256: str
    """The same, of labels as the data set has them: what does not depend on labels is shared by it."""
    measures_accuracy: bool
    identities: Sequence[bytes]
    """What identifies each image of the store, whatever its size there (`tlbench.data.store.Images`)."""
    repeated: Mapping[str, int]
    """Images of val and of test whose pixels are also in train: what a copy earns there is no accuracy."""
    copies: Mapping[str, int]
    """Copies of photographs in the whole data set, whatever of it the cell trains on, by the names in
    `tlbench.data.copies.KINDS`."""
    leaked: Mapping[str, tuple[int, ...]]
    """Part -> the places in val, and in test, of copies of training images that the cell uses (in test, of
    validation images too)."""
    alike: bool = False
    """All images look so much alike that near copies could not be told."""
    mixed: tuple[str, ...] = ()
    """Photographs that are there under two classes: two files of each."""
    dropped: tuple[str, ...] = ()
    """Images left out because they could not be read, each with the reason."""
    passed_over: tuple[str, ...] = ()
    """Other files in the class folders, which are no images by their names (`.gif`, as torchvision's ImageFolder)."""
    pixel_range: Mapping[str, int] = field(default_factory=dict)
    """What black and white are in images of more than 8 bits (`tlbench.data.pixel_range`); empty without any."""
    files: tuple[str, ...] = ()
    """Path of each image of the store below the data set's root, as that calls it; empty where there are none."""
    relabelled: Mapping[str, Any] = field(default_factory=dict)
    """Of a file of corrected labels its SHA-256, and how many images got another label; empty without one."""
    decoding: Mapping[str, int] = field(default_factory=dict)
    """Photographs that were decoded at a fraction of their size, or could have been (`tlbench.data.store.Known`)."""
    decode_seconds: float = 0.0
    """What decoding one image took a thread, about; 0 where that is not known."""


@dataclass(frozen=True, kw_only=True)
class Data(Described):
    """Holds a data set ready for a cell."""

    train: Split
    val: Split
    test: Split


def _digits(request: Request) -> tuple[Images, Parts]:
    from tlbench.data import digits

    return digits.load(request)


def _folder(request: Request) -> tuple[Images, Parts]:
    from tlbench.data import folder

    return folder.load(request)


def _describe_folder(request: Request, decode: bool) -> tuple[Known, Parts] | None:
    from tlbench.data import folder

    return folder.describe(request, decode)


def _list_folder(path: str) -> Listed:
    from tlbench.data import listing, scan

    return listing.listed(scan.scan(path))


def _count_folder(path: str) -> int:
    from tlbench.data import folder

    return folder.count_classes(path)


def _split_of_folder(path: str) -> str:
    from tlbench.data import scan

    return scan.split_of(path)


def _remarks_of_folder(path: str) -> Sequence[str]:
    from tlbench.data import scan

    return scan.remarks_of(path)


def _list(request: Request) -> tuple[Images, Parts]:
    from tlbench.data import folder, lists

    return folder.load(request, lists.scan_list)


def _describe_list(request: Request, decode: bool) -> tuple[Known, Parts] | None:
    from tlbench.data import folder, lists

    return folder.describe(request, decode, lists.scan_list)


def _list_list(path: str) -> Listed:
    from tlbench.data import listing, lists

    return listing.listed(lists.scan_list(path))


def _files_of_list(path: str) -> Iterable[tuple[str, Path]]:
    from tlbench.data import lists

    return lists.files_of(path)


def _count_list(path: str) -> int:
    from tlbench.data import lists

    return len(lists.scan_list(path).classes)


def _split_of_list(path: str) -> str:
    from tlbench.data import lists

    return lists.scan_list(path).how_split


def _remarks_of_list(path: str) -> Sequence[str]:
    from tlbench.data import lists

    return lists.scan_list(path).remarks


def _places(path: str) -> list[str]:
    from tlbench.data.options import places_of

    return [os.path.expanduser(place) for place in places_of(path)]


def _in(module: str, name: str) -> Callable[..., Any]:
    """Returns a function of a module beside this one, which is imported when it is called."""

    def call(*arguments: Any) -> Any:
        return getattr(import_module(f"tlbench.data.{module}"), name)(*arguments)

    return call


def _synthetic(request: Request) -> tuple[Images, Parts]:
    from tlbench.data import synthetic

    return synthetic.load(request)


DATASETS: dict[str, Dataset] = {
    "digits": Dataset(
        summary="scikit-learn's 1,797 scanned digits, 10 classes; bundled",
        load=_digits,
        classes=10,
        split="about 70/15/15 within each class, by seed",
    ),
    "folder": Dataset(
        summary="folder:PATH, your images: train/ and val/ (optionally test/) of class folders, or class folders alone",
        load=_folder,
        describe=_describe_folder,
        listed=_list_folder,
        classes=_count_folder,
        takes_path=True,
        read_by_check=True,
        of_files=True,
        split=_split_of_folder,
        remarks=_remarks_of_folder,
    ),
    "list": Dataset(
        summary="list:PATH, your images by lists of paths and labels: csv, tsv, jsonl, parquet, or lines",
        load=_list,
        describe=_describe_list,
        listed=_list_list,
        files=_files_of_list,
        classes=_count_list,
        takes_path=True,
        read_by_check=True,
        of_files=True,
        split=_split_of_list,
        remarks=_remarks_of_list,
    ),
    "synthetic": Dataset(
        summary="random images, 10 classes; for throughput, without accuracy",
        load=_synthetic,
        measures_accuracy=False,
        classes=10,
        split="256 to train on, 64 to validate on, 64 to test on",
    ),
    "torchvision": Dataset(
        summary="torchvision:NAME(argument=value), the classification sets of torchvision, below --data-root",
        form="torchvision:NAME",
        load=_in("torchvision_sets", "load"),
        describe=_in("torchvision_sets", "describe"),
        listed=_in("torchvision_sets", "listed"),
        remarks=_in("torchvision_sets", "remarks_of"),
        classes=_in("named", "count_classes"),
        split=_in("named", "split_of"),
        places=_in("named", "places"),
        offers=_in("named", "offers"),
        fetch=_in("fetching", "fetch_torchvision"),
        is_name=lambda path: True,
        takes_path=True,
        read_by_check=True,
        of_files=True,
    ),
    "hf": Dataset(
        summary="hf:OWNER/NAME(image=COLUMN,label=COLUMN) of Hugging Face's hub, or hf:PATH of one saved to disk",
        form="hf:NAME",
        load=_in("hf", "load"),
        describe=_in("hf", "describe"),
        listed=_in("hf", "listed"),
        remarks=_in("hf", "remarks_of"),
        classes=_in("hf", "count_classes"),
        split=_in("hf", "split_of"),
        places=_in("hf", "places"),
        fetch=_in("hf", "fetch"),
        is_name=_in("hf", "is_name"),
        takes_path=True,
        read_by_check=True,
        of_files=True,
    ),
}


def check_dataset(dataset: str, train_sizes: Iterable[int | None] = ()) -> None:
    """Raises UserError for an unknown name, a folder that is not laid out as it must be, or a training set with fewer
    images than classes. Decodes nothing.
    """
    name, path = parse_dataset(dataset)
    classes = DATASETS[name].classes
    if callable(classes):
        classes = classes(path)
    from tlbench.data.splits import check_count

    for count in train_sizes:
        if count is not None:
            check_count(count, classes)


def check_decode(dataset: str, choices: Iterable[str]) -> None:
    """Raises UserError where a data set that has no files is to be decoded in another way than exactly."""
    name, _ = parse_dataset(dataset)
    other = [choice for choice in choices if choice != "exact"]
    if other and not DATASETS[name].of_files:
        raise UserError(
            f"--decode {other[0]} is for photographs in files, and {name!r} has none; use --decode exact with it, or "
            "another data set"
        )


def check_dataset_commas(datasets: Sequence[str]) -> None:
    """Raises UserError where several data sets are one folder whose name has a comma."""
    for begin, first in enumerate(datasets):
        name, _, path = first.partition(":")
        if name not in DATASETS or not DATASETS[name].takes_path or os.path.exists(os.path.expanduser(path)):
            continue
        for end in range(begin + 2, len(datasets) + 1):
            for joint in (",", ", "):
                whole = joint.join([path, *datasets[begin + 1 : end]])
                if os.path.isdir(os.path.expanduser(whole)):
                    written = f"{name}:{whole}".replace(",", "\\,")
                    raise UserError(f"{whole!r} is one folder, whose comma is written as \\,: '{written}'")


def parse_dataset(dataset: str) -> tuple[str, str]:
    """Splits a text into a name of the table and a path. Errors: UserError with the nearest match."""
    name, _, path = dataset.partition(":")
    if name not in DATASETS:
        if os.path.isdir(os.path.expanduser(dataset)):  # false, not an error, for whatever is no path
            raise UserError(f"dataset {dataset!r} is a folder; did you mean {_with_path(dataset)!r}?")
        if os.path.isfile(os.path.expanduser(dataset)):
            raise UserError(f"dataset {dataset!r} is a file; a list of images is written {f'list:{dataset}'!r}")
        if (by_name := _by_name(dataset)) is not None:
            raise UserError(f"unknown dataset {dataset!r}; did you mean {by_name!r}? `tlbench list datasets` shows all")
        raise unknown("dataset", name, [form_of(key) for key in DATASETS])
    if path and not DATASETS[name].takes_path:
        raise UserError(f"dataset {name!r} takes no path, but got {dataset!r}; did you mean {_with_path(path)!r}?")
    return name, path


def names_a_path(text: str) -> bool:
    """Tells whether a text is a data set that takes a path, with its name: ``folder:photos``, no path alone."""
    name, colon, _ = text.partition(":")
    return bool(colon) and name in DATASETS and DATASETS[name].takes_path


def plain_name(dataset: str) -> str:
    """Writes a data set in one way: a path without dots and slashes that mean nothing, its options as they are."""
    name, path = parse_dataset(dataset)
    if not DATASETS[name].takes_path:
        return dataset
    from tlbench.data.options import apart

    plain, options = apart(path)
    return f"{name}:{Path(plain)}{options}"


def form_of(name: str) -> str:
    """Says how a data set of the table is written: ``folder:PATH``."""
    row = DATASETS[name]
    return row.form or (f"{name}:PATH" if row.takes_path else name)


def _by_name(dataset: str) -> str | None:
    """Says how a data set may have been meant that is known by a name: ``cifar10``, or as timm writes it."""
    from tlbench.data import named

    return named.meant(dataset)


def _with_path(path: str) -> str:
    """Says how a path may have been meant: as that of the first data set that takes one."""
    return f"{next(name for name, row in DATASETS.items() if row.takes_path)}:{path}"


def load_data(dataset: str, request: Request, train_size: int | None = None) -> Data:
    """Returns the data set as a cell asks for it; at most ``train_size`` training images, stratified.

    Errors: UserError for whatever is wrong with the data set or its images.
    """
    from tlbench.data.streaming import taken_from

    name, path = parse_dataset(dataset)
    images, parts = DATASETS[name].load(_of_data_set(request, path))
    found = _described(dataset, images, parts, request, train_size)
    pixels = taken_from(images)
    splits: dict[str, Any] = {
        part: Split(pixels=pixels, positions=positions, classes=found.labels[positions])
        for part, positions in found.positions.items()
    }
    return Data(**vars(found), **splits)


def describe_data(
    dataset: str, request: Request, train_size: int | None = None, *, decode: bool = True
) -> Described | None:
    """Returns what `load_data` does, without the pixels. Nothing is decoded where an earlier time has kept what it
    found; None where something would have to be and ``decode`` is not wanted.

    Errors: as `load_data`.
    """
    name, path = parse_dataset(dataset)
    row, asked = DATASETS[name], _of_data_set(request, path)
    if row.describe is None:
        return load_data(dataset, request, train_size) if decode else None
    found = row.describe(asked, decode)
    return None if found is None else _described(dataset, *found, request, train_size)


def _of_data_set(request: Request, path: str) -> Request:
    """Returns what a data set is asked: folds and corrections are made here, the same for all of them."""
    return replace(request, path=path, fold=None, relabel="")


def _described(dataset: str, images: Known, parts: Parts, request: Request, train_size: int | None) -> Described:
    name = parse_dataset(dataset)[0]
    import numpy as np

    from tlbench.data.copies import count_copies, leaks
    from tlbench.data.splits import subset

    row, seed = DATASETS[name], request.seed
    if request.fold is not None:
        from tlbench.data.folds import fold_parts

        parts = fold_parts(images, parts, request.fold, seed)
    pixels_sha256, relabelled = images.sha256, dict[str, Any]()
    if request.relabel:  # after the split, so that images stay where they were when labels are corrected
        from tlbench.data.relabel import relabel

        images, relabelled = relabel(images, request.relabel, parts["train"])
    copies = count_copies(images, parts)
    if train_size is not None:
        known = (images.labels, images.classes)
        chosen = subset(parts["train"], *known, train_size, seed, images.identities)
        parts = {**parts, "train": chosen}
    leaked = leaks(images, parts)  # of what is trained on: a copy of an image that no model sees leaks nothing

    digest = hashlib.sha256(images.sha256.encode())
    positions, repeated = {}, {}
    train = {images.digests[position] for position in parts["train"]}
    for part in ("train", "val", "test"):
        positions[part] = np.array(parts[part], np.int64)
        digest.update(f"{part}:".encode() + positions[part].tobytes())
        if part != "train":
            repeated[part] = sum(images.digests[position] in train for position in parts[part])
    return Described(
        name=plain_name(dataset),
        classes=images.classes,
        labels=np.array(images.labels, np.int64),
        positions=positions,
        sha256=digest.hexdigest(),
        images_sha256=images.sha256,
        pixels_sha256=pixels_sha256,
        measures_accuracy=row.measures_accuracy,
        identities=images.identities or images.digests,
        repeated=repeated,
        copies=copies,
        leaked=leaked,
        alike=images.alike,
        mixed=images.mixed,
        dropped=images.dropped,
        passed_over=images.passed_over,
        pixel_range=images.pixel_range,
        files=images.files,
        relabelled=relabelled,
        decoding=images.decoding,
        decode_seconds=images.decode_seconds,
    )
