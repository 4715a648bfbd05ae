"""Reads the classification sets of torchvision with torchvision's own classes; images become members of a `Scan`.

Where an image is a file, its path is taken and the file is read as any other here; else its pixels are. CIFAR's files
are pickles: torchvision itself reads them, after it has found their MD5 to be that of the authors' files.
"""

from __future__ import annotations

import inspect
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlbench.data import Parts, Request, folder, listing, named
from tlbench.data.data_root import root_of_data
from tlbench.data.held import Held
from tlbench.data.listing import Listed
from tlbench.data.members import Lying, Member, scan_of, stamp_of_all
from tlbench.data.named import Chosen
from tlbench.data.scan import Scan, once
from tlbench.data.store import Images, Known
from tlbench.data.torchvision_table import Keywords
from tlbench.errors import UserError, text_of

Labelled = tuple[int, Path | Held]
"""The number of a class, as torchvision counts, and an image of it."""
EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""FER2013's classes, which its files have as numbers."""


def load(request: Request) -> tuple[Images, Parts]:
    """Decodes the images, and splits them. Errors: UserError for what is not here, or cannot be read."""
    return folder.load(request, scan)


def describe(request: Request, decode: bool) -> tuple[Known, Parts] | None:
    """Returns what `load` does without the pixels, as `tlbench.data.folder.describe`."""
    return folder.describe(request, decode, scan)


def listed(path: str) -> Listed:
    """Counts the images; none is decoded. Errors: as `load`."""
    return listing.listed(scan(path))


def remarks_of(path: str) -> Sequence[str]:
    """Says, in lines, what there is to know of the images. Errors: as `load`."""
    return scan(path).remarks


def scan(path: str) -> Scan:
    """Lists the images. Errors: UserError for what is not here, or is not what torchvision takes for it."""
    return once(("torchvision", str(root_of_data()), os.getcwd(), path), lambda: _scan(named.parse(path)))


def _scan(chosen: Chosen) -> Scan:
    root = named.check_present(chosen)
    lying = Lying(
        name=chosen.text,
        root=root,
        stamp=stamp_of_all(_files(root, chosen)),
        photographs=chosen.row.photographs,
    )
    members: list[Member] = []
    classes: dict[str, None] = {}
    for part, several in chosen.pieces.items():
        for number, keywords in enumerate(several):
            with _as_user_errors(chosen, root):
                made = make(chosen, root, keywords)
                names = _names(chosen, made)
                place = f"{chosen.name}/{part or 'all'}{f'-{number + 1}' * (number > 0)}"
                read = list(_read(chosen, made, root, place))
                new = [Member(part, names(label), image) for label, image in read]
            if read and isinstance(read[0][1], Path):  # torchvision takes some as the file system gives them
                new.sort(key=lambda member: str(member.image))
            members += new
            if part in ("train", ""):
                classes |= dict.fromkeys(names(label) for label in sorted({label for label, _ in read}))
    members, remarks = _with_enough(chosen, members)
    # torchvision numbers the classes of Omniglot as the file system lists their folders.
    return scan_of(lying, members, sorted(classes) if chosen.name == "Omniglot" else classes, remarks)


def make(chosen: Chosen, root: Path, keywords: Keywords, download: bool = False) -> Any:
    """Returns an instance of torchvision's class, whose images are paths where they are files.

    Errors: whatever the class raises.
    """
    import torchvision.datasets

    kind = getattr(torchvision.datasets, chosen.name)
    takes = inspect.signature(kind).parameters
    more: dict[str, Any] = {"loader": str} if "loader" in takes or chosen.name == "ImageNet" else {}
    if "download" in takes:
        more["download"] = download
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return kind(str(root), **keywords, **more)


@contextmanager
def _as_user_errors(chosen: Chosen, root: Path) -> Iterator[None]:
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        if chosen.row.needs and isinstance(error, RuntimeError | ImportError) and chosen.row.needs in str(error):
            raise UserError(f"{chosen.text} needs {chosen.row.needs}: pip install {chosen.row.needs}") from None
        why = " ".join(text_of(error).split())[:200].replace("You can use download=True to download it", "").strip(" .")
        raise UserError(
            f"{chosen.text} in {str(root)!r} cannot be read: torchvision says {why!r} ({type(error).__name__}); where "
            f"its files are damaged or others, move them away and get them anew: {named.ways(chosen, root)}"
        ) from None


def _files(root: Path, chosen: Chosen) -> Iterable[Path]:
    """Returns the files, not the folders, that a data set needs."""
    every = (root / one for either in chosen.row.files(chosen.arguments) for one in either.split("|"))
    return [path for path in every if path.is_file()]


def _with_enough(chosen: Chosen, members: list[Member]) -> tuple[list[Member], list[str]]:
    """Leaves out the classes with fewer images than are asked for; says so in a line."""
    least = chosen.arguments.get("min_images")
    if not isinstance(least, int):
        return members, []
    counts = Counter(member.label for member in members)
    kept = [member for member in members if counts[member.label] >= least]
    left_out = sum(count < least for count in counts.values())
    classes = f"{left_out:,} class{'es' * (left_out != 1)}"
    return kept, [f"not used: {classes} of fewer than {least} images (min_images)"] if left_out else []


# --- what each class gives ------------------------------------------------------------------------------------


def _names(chosen: Chosen, made: Any) -> Callable[[int], str]:
    """Returns what gives the name of a class by its number."""
    name = chosen.name
    if name in ("ImageNet", "Imagenette"):  # two classes of ImageNet are called crane
        return lambda label: f"{made.wnids[label]} {made.classes[label][0]}"
    if name == "INaturalist":
        kind = str(chosen.arguments["target_type"])
        return lambda label: str(made.category_name(kind, label)).replace(os.sep, "/")
    if name == "LFWPeople":
        people = {number: person for person, number in made.class_to_idx.items()}
        return people.__getitem__
    if name == "GTSRB":
        return "{:05d}".format
    known: Sequence[str] = {
        "FER2013": EMOTIONS,
        "PCAM": ("normal", "tumour"),
        "OxfordIIITPet": getattr(made, "bin_classes", ()),
    }.get(name, ())
    if name == "OxfordIIITPet" and chosen.arguments["target_types"] == "category":
        known = made.classes
    if name == "Omniglot":
        known = made._characters
    if name in ("Caltech101", "Caltech256"):
        known = made.categories
    known = known or getattr(made, "classes", ())
    return lambda label: str(known[label]).replace(os.sep, "/") if known else str(label)


def _read(chosen: Chosen, made: Any, root: Path, place: str) -> Iterator[Labelled]:
    """Yields the images of an instance, with the numbers of their classes. ``place`` begins the names of those that
    are no files.
    """
    if chosen.name == "GTSRB":
        for path, label in made._samples:  # torchvision numbers the folders anew where some are not there
            yield int(Path(path).parent.name if made._split == "train" else label), Path(path)
    elif chosen.name == "OxfordIIITPet":
        labels = made._labels if chosen.arguments["target_types"] == "category" else made._bin_labels
        yield from zip(labels, made._images, strict=True)
    elif chosen.name in ("Caltech101", "Caltech256"):
        yield from _caltech(made, root, chosen.name)
    elif chosen.name == "PCAM":
        yield from _patches(made, place)
    elif getattr(made, "loader", getattr(made, "_loader", None)) is str:
        for number in range(len(made)):
            path, label = made[number]
            yield int(label), Path(path)
    else:
        labels = _labels(made)
        source = _Pixels(made)
        yield from ((label, Held(f"{place}/{number:06}", number, source)) for number, label in enumerate(labels))


class _Pixels:
    """Gives the pixels of images that an instance holds."""

    def __init__(self, made: Any) -> None:
        self._made = made

    def __call__(self, number: int) -> NDArray[np.uint8]:
        return np.asarray(self._made[number][0])


def _labels(made: Any) -> list[int]:
    """Returns the number of each image's class. Errors: ValueError where some have none."""
    labels = getattr(made, "targets", getattr(made, "labels", None))
    if labels is None:
        labels = [made[number][1] for number in range(len(made))]
    if any(label is None for label in labels):
        raise ValueError("its images have no labels")
    numbers = np.asarray(labels)
    return [int(label) for label in (numbers if numbers.ndim == 1 else numbers[:, 0])]


def _caltech(made: Any, root: Path, name: str) -> Iterator[Labelled]:
    """Yields images by the paths that torchvision opens, which has these nowhere else."""
    of_101 = name == "Caltech101"
    base = root / name.lower() / ("101_ObjectCategories" if of_101 else "256_ObjectCategories")
    for label, number in zip(made.y, made.index, strict=True):
        file = f"image_{number:04d}.jpg" if of_101 else f"{label + 1:03d}_{number:04d}.jpg"
        yield label, base / made.categories[label] / file


def _patches(made: Any, place: str) -> Iterator[Labelled]:
    """Yields PCAM's patches from files that stay open: torchvision opens two for every image."""
    folder_of, files = Path(made._base_folder), made._FILES[made._split]
    with made.h5py.File(folder_of / files["targets"][0], "r") as targets:
        labels = np.asarray(targets["y"]).reshape(-1).tolist()
    pixels = made.h5py.File(folder_of / files["images"][0], "r")["x"]

    def source(number: int) -> NDArray[np.uint8]:
        return np.asarray(pixels[number])

    yield from ((label, Held(f"{place}/{number:06}", number, source)) for number, label in enumerate(labels))
