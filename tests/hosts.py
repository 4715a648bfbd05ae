"""Stands for the hosts of torchvision's data sets: archives in a folder, which torchvision's own classes download and
unpack. Works in processes of their own, which are made to be killed half way."""

import filecmp
import os
import shutil
import tarfile
import time
import zipfile
from pathlib import Path
from unittest import mock

from named_roots import BUILD

from tlbench.data.data_root import data_root
from tlbench.data.fetching import fetch
from tlbench.data.named import parse

HALF = 3
"""Files that have been unpacked when half a set is there."""


def pack(text: str, folder: Path) -> list[str]:
    """Makes the archives of a data set in ``folder``/host. Returns what is in the root when all is unpacked."""
    whole, host, chosen = folder / "whole", folder / "host", parse(text)
    BUILD[chosen.name](whole)
    host.mkdir()
    (archive,) = chosen.row.archives(chosen.arguments)
    base = whole / Path(archive).parent
    (whole / archive).unlink(missing_ok=True)  # of Omniglot an empty one is made
    needed = {file.removeprefix(f"{Path(archive).parent}/").partition("/")[0]
              for file in chosen.row.files(chosen.arguments) if file != archive}  # fmt: skip
    members = [path for top in sorted(needed) for path in sorted((base / top).rglob("*")) if path.is_file()]
    if archive.endswith(".zip"):
        with zipfile.ZipFile(host / Path(archive).name, "w") as packed:
            for path in members:
                packed.write(path, path.relative_to(base))
    else:
        with tarfile.open(host / Path(archive).name, "w:gz") as packed:
            for path in members:
                packed.add(path, path.relative_to(base))
    return sorted([archive, *(str(path.relative_to(whole)) for path in members)])


def found(root: Path) -> list[str]:
    """All files below a root, hidden ones too."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def stand_in(host: Path, log: Path, pause=lambda what, count: None):
    """Has torchvision find its archives in a folder, and their hashes right where they are those; what is downloaded
    or unpacked goes into a log. ``pause`` is called before each file, and in the middle of a download."""

    def retrieve(url, filename, *_, **__):
        content = (host / Path(filename).name).read_bytes()
        write(f"downloads {Path(filename).name}")
        with open(filename, "wb") as file:
            file.write(content[: len(content) // 2])
            file.flush()
            pause("download", 0)
            file.write(content[len(content) // 2 :])

    def write(line):
        with log.open("a") as file:
            file.write(f"{os.getpid()} {line}\n")

    def unpack(archive, folder, compression):
        write(f"unpacks {Path(archive).name}")
        if str(archive).endswith(".zip"):
            with zipfile.ZipFile(archive) as packed:
                for count, name in enumerate(packed.namelist()):
                    pause("unpack", count)
                    packed.extract(name, folder)
            return
        with tarfile.open(archive) as packed:
            for count, member in enumerate(packed):
                pause("unpack", count)
                packed.extract(member, folder, filter="data")

    def agrees(path, md5, **_):
        return filecmp.cmp(path, host / Path(path).name, shallow=False)

    utils = "torchvision.datasets.utils."
    return mock.patch.multiple(
        utils.rstrip("."), _urlretrieve=retrieve, _get_redirect_url=lambda url, **_: url, check_md5=agrees,
        _ARCHIVE_EXTRACTORS={".zip": unpack, ".tar": unpack},
    )  # fmt: skip


def fetches(text, folder, where=""):
    """Downloads a data set; at the ``where`` ("download", "unpack") it stops half way until it may go on, or for ever.
    What is said goes into the log, too."""
    root, log = folder / "root", folder / "log"

    def pause(what, count):
        if what == where and count == HALF * (what == "unpack"):
            (folder / "half").touch()
            while not (folder / "go").exists():
                time.sleep(0.01)

    def say(line):
        with log.open("a") as file:
            file.write(f"{os.getpid()} said {line}\n")

    with stand_in(folder / "host", log, pause), data_root(str(root)):
        fetch([f"torchvision:{text}"], say)


def put_by_hand(folder: Path, text: str) -> Path:
    """Puts the archive where a person would. Returns its place."""
    chosen = parse(text)
    (archive,) = chosen.row.archives(chosen.arguments)
    place = folder / "root" / archive
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(folder / "host" / place.name, place)
    return place
