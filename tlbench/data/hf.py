"""Data sets of Hugging Face's library ``datasets``: by their name on the hub, saved to disk, or a folder of files.

Images are read as they are encoded; the library decodes none. One that is not on this disk is downloaded only where
that is asked for (`fetch`). One file, since whoever changes how a column is found changes what errors say of it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from tlbench.data import Parts, Request, folder, listing
from tlbench.data.held import Content, Held
from tlbench.data.levels import NAMES, PARTS, split_names
from tlbench.data.listing import Listed
from tlbench.data.members import Lying, Member, scan_of, stamp_of_all
from tlbench.data.named import parse_call
from tlbench.data.scan import Scan, Stamp, once
from tlbench.data.store import Images, Known
from tlbench.errors import UserError, nearest, text_of

IMAGES = ("image", "img", "picture", "photo", "file", "path", "file_name")
"""Names that a column of images may have where no column has their type."""
LABELS = ("label", "labels", "class", "target", "category", "y")
"""Names that a column of labels may have where no column, or more than one, has their type."""
SURE = 2
"""So many of these names mean a label whatever the column's type."""
ARGUMENTS = ("image", "label", "config", *PARTS)
HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)
SAVED = ("dataset_dict.json", "state.json")
"""Files that ``save_to_disk`` leaves: of several splits, and of one."""
BY_HAND = (
    "without a network save it on another machine with its save_to_disk(FOLDER), copy the folder, and give hf:FOLDER"
)
ROOM = 100
"""How many names a message lists at most."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Holds a data set of Hugging Face's as it was asked for."""

    whole: str
    """As it is written, with ``hf:``."""
    name: str
    """A name on the hub, or a path."""
    given: Mapping[str, str]
    """Argument -> value: columns, the configuration, and which split of theirs is which here."""

    @property
    def local(self) -> bool:
        """Tells whether it is a folder on this disk."""
        return os.path.isdir(os.path.expanduser(self.name))


def parse(path: str) -> Asked:
    """Reads what follows ``hf:``. Errors: UserError for an unknown argument, and for what is neither a folder nor a
    name.
    """
    whole = f"hf:{path}"
    if path and os.path.exists(os.path.expanduser(path)):
        asked = Asked(whole=whole, name=path, given={})
    else:
        name, given = parse_call(path, whole)
        asked = Asked(whole=whole, name=name, given=given)
    if not asked.name:
        raise UserError(f"dataset {whole!r} names no data set; write hf:OWNER/NAME, or hf:PATH of one on this disk")
    for key in asked.given:
        if key not in ARGUMENTS:
            guess = nearest(key, ARGUMENTS)
            hint = f"; did you mean {guess!r}?" if guess else "."
            raise UserError(f"data set {whole!r} has no argument {key!r}{hint} It takes {', '.join(ARGUMENTS)}")
    if not asked.local and os.path.exists(os.path.expanduser(asked.name)):
        raise UserError(f"data set {whole!r}: {asked.name!r} is a file; give its folder, or list:{asked.name}")
    if not asked.local and not _may_be_on_the_hub(asked.name):
        raise UserError(
            f"data set {whole!r}: folder {asked.name!r} does not exist, and a name on the hub is OWNER/NAME; give one "
            "of the two"
        )
    return asked


def is_name(path: str) -> bool:
    """Tells whether a path is a name on the hub."""
    plain = os.path.expanduser(path)
    name = path if os.path.exists(plain) else path.partition("(")[0].strip()
    return not os.path.exists(os.path.expanduser(name)) and _may_be_on_the_hub(name)


def _may_be_on_the_hub(name: str) -> bool:
    return not name.startswith((".", "~", "/")) and HUB_NAME.fullmatch(name) is not None


def places(path: str) -> Sequence[str] | None:
    """Returns the folder of a data set that lies in one, whether it is there or not; None for a name on the hub."""
    if is_name(path):
        return None
    plain = os.path.expanduser(path)
    return [plain if os.path.exists(plain) else os.path.expanduser(path.partition("(")[0].strip())]


def load(request: Request) -> tuple[Images, Parts]:
    """Decodes the images, and splits them. Errors: UserError for what is not here, or cannot be read."""
    return folder.load(request, scan)


def describe(request: Request, decode: bool) -> tuple[Known, Parts] | None:
    """Returns what `load` does without the pixels, as `tlbench.data.folder.describe`."""
    return folder.describe(request, decode, scan)


def count_classes(path: str) -> int:
    """Counts the classes. Errors: as `load`."""
    return len(scan(path).classes)


def listed(path: str) -> Listed:
    """Counts the images; none is decoded. Errors: as `load`."""
    return listing.listed(scan(path))


def split_of(path: str) -> str:
    """Says how a data set is split. Errors: as `load`."""
    parts = set(scan(path).parts)
    if "train" not in parts:
        return "not split: about 70/15/15 within each class, by seed"
    if len(parts) == len(PARTS):
        return "train, val and test as they are in the data set"
    part, missing = ("val", "test") if "val" in parts else ("test", "val")
    why = f"there is no {missing} with labels"
    return f"{part} is what is tested on ({why}); validation images are cut from train, by seed"


def remarks_of(path: str) -> Sequence[str]:
    """Says, in lines, what there is to know of the images. Errors: as `load`."""
    return scan(path).remarks


def scan(path: str) -> Scan:
    """Lists the images. Errors: UserError for what is not here, and for columns and splits that are not found."""
    return once(("hf", os.getcwd(), path), lambda: _scan(parse(path)))


def _scan(asked: Asked) -> Scan:
    with _quiet() as library:
        splits = _opened(asked, library)
        named, remarks = _by_part(asked, splits)
        first = next(iter(named.values()))[1]
        image, label = _image_column(asked, first, library), _label_column(asked, first, library)
        remarks += _passed_over(first, image, label, library)
        members: list[Member] = []
        classes: dict[str, None] = {}
        for part, (split, table) in named.items():
            labels, order = _labels(asked, split, table, label, library)
            if labels is None:
                remarks.append(f"not used: split {split!r}, whose images have no labels")
                continue
            images = _images(asked, split, table, image, library)
            members += [Member(part, name, one) for name, one in zip(labels, images, strict=True)]
            if part in ("train", ""):
                classes = dict.fromkeys(order)
    parts = {member.part for member in members}
    if parts == {"train"}:  # what else there was has no labels
        members = [Member("", member.label, member.image) for member in members]
    stamp = _stamp(table for _, table in named.values())
    lying = Lying(name=asked.whole, root=_root(asked, members), stamp=stamp, column=image)
    return scan_of(lying, members, classes, remarks)


# --- the library ----------------------------------------------------------------------------------------------


@contextmanager
def _quiet() -> Iterator[Any]:
    """Yields the library, which shows no progress of its own within. Errors: UserError where it is not installed."""
    try:
        import datasets
    except ImportError:
        raise UserError("hf: needs the library datasets: pip install 'tlbench[hf]'") from None
    shown = datasets.is_progress_bar_enabled()
    level = datasets.logging.get_verbosity()
    try:
        datasets.disable_progress_bars()
        datasets.logging.set_verbosity_error()
        yield datasets
    finally:
        datasets.logging.set_verbosity(level)
        if shown:
            datasets.enable_progress_bars()


@contextmanager
def _without_network() -> Iterator[None]:
    """Has the library ask no host within: what is not in its cache is not there."""
    import datasets.config
    import huggingface_hub.constants

    with ExitStack() as stack:
        modules: tuple[Any, ...] = (datasets.config, huggingface_hub.constants)
        for module in modules:
            before = module.HF_HUB_OFFLINE
            stack.callback(setattr, module, "HF_HUB_OFFLINE", before)
            module.HF_HUB_OFFLINE = True
        yield


def _opened(asked: Asked, library: Any) -> dict[str, Any]:
    """Returns split -> table. Errors: UserError where it cannot be had."""
    config = asked.given.get("config")
    try:
        if asked.local:
            path = os.path.expanduser(asked.name)
            if any(os.path.exists(os.path.join(path, name)) for name in SAVED):
                if config:
                    raise UserError(f"data set {asked.whole!r}: what was saved has no configurations; leave it away")
                found = library.load_from_disk(path)
            else:
                found = library.load_dataset(path, config)
        else:
            with _without_network():
                found = library.load_dataset(asked.name, config)
    except (UserError, MemoryError):
        raise
    except Exception as error:
        raise _cannot(asked, library, error) from None
    tables = dict(found) if isinstance(found, library.DatasetDict) else {str(found.split or "train"): found}
    return {split: table.with_format(None) for split, table in tables.items()}


def _cannot(asked: Asked, library: Any, error: Exception) -> UserError:
    why = " ".join(text_of(error).split())[:200] or type(error).__name__
    if asked.local:
        return UserError(f"data set {asked.whole!r} cannot be read: datasets says: {why} ({type(error).__name__})")
    if "config" in why.casefold() and isinstance(error, ValueError):  # it is there, in several configurations
        return UserError(f"data set {asked.whole!r}: {why}; name one: hf:{asked.name}(config=…)")
    cache = library.config.HF_DATASETS_CACHE
    return UserError(
        f"data set {asked.whole!r} is not in Hugging Face's cache, {str(cache)!r} (HF_HOME names another place); "
        f"--download fetches it; {BY_HAND}"
    )


def _stamp(tables: Iterator[Any]) -> Stamp:
    """Returns what changes when the tables do: the library gives files of other content another name."""
    files, names = [], ""
    for table in tables:
        own = [Path(file["filename"]) for file in table.cache_files]
        files += own
        # Small tables may be in memory alone, by a setting of the library's: then its word for the content has to do.
        names += "".join(f"{file.parent.name}/{file.name}\0" for file in own) or f"{table._fingerprint}\0"
    device, inode, size, written, changed, _ = stamp_of_all(files)
    return device, inode, size, written, changed ^ int.from_bytes(sha256(names.encode()).digest()[:6]), 1


def _root(asked: Asked, members: Sequence[Member]) -> Path:
    """Returns the folder that images are shown below: the data set's own, or what files elsewhere have in common."""
    root = Path(os.path.abspath(os.path.expanduser(asked.name))) if asked.local else Path(asked.name)
    files = [member.image for member in members if isinstance(member.image, Path)]
    if all(file.is_relative_to(root) for file in files):
        return root
    return Path(os.path.commonpath([file.parent for file in files]))


def _images(asked: Asked, split: str, table: Any, column: str, library: Any) -> list[Path | Held]:
    """Returns the images of a split: files where the table has but their paths, else what it holds of each row."""
    source = _Encoded(asked, table, column, library)
    held = [Held(f"{split}/{number:06}", number, source) for number in range(len(table))]
    if not held or source.path(0) is None:
        return list(held)
    return [Path(path) if (path := source.path(one.number)) is not None else one for one in held]


class _Encoded:
    """Gives encoded images of one split."""

    def __init__(self, asked: Asked, table: Any, column: str, library: Any) -> None:
        self._column = column
        try:
            self._table = table.select_columns([column]).cast_column(column, library.Image(decode=False))
        except Exception as error:
            raise UserError(
                f"data set {asked.whole!r}: column {column!r} holds no images, but {_kind(table.features[column])} "
                f"({type(error).__name__}); name another: image=COLUMN of {_columns(table)}"
            ) from None

    def __call__(self, number: int) -> Content:
        found = self._table[number][self._column]
        if found is None or (found["bytes"] is None and not found["path"]):
            raise ValueError("the row has no image")
        return Path(found["path"]).read_bytes() if found["bytes"] is None else bytes(found["bytes"])

    def path(self, number: int) -> str | None:
        """Returns the absolute path of an image that is a file on this disk; None where the table holds its bytes."""
        found = self._table[number][self._column]
        if found is None or found["bytes"] is not None or not os.path.isfile(found["path"] or ""):
            return None
        return os.path.abspath(str(found["path"]))


# --- splits ---------------------------------------------------------------------------------------------------


def _by_part(asked: Asked, splits: Mapping[str, Any]) -> tuple[dict[str, tuple[str, Any]], list[str]]:
    """Returns part -> the split that it is and its table, and lines about those that are not used. Errors: UserError
    naming the splits that are none of train, val and test.
    """
    given = {part: asked.given[part] for part in PARTS if part in asked.given}
    for split in given.values():
        if split not in splits:
            guess = nearest(split, splits)
            hint = f"; did you mean {guess!r}?" if guess else "."
            raise UserError(f"data set {asked.whole!r} has no split {split!r}{hint} It has {_listed(splits)}")
    if len(set(given.values())) < len(given):
        raise UserError(f"data set {asked.whole!r}: one split is given for two of train, val and test")
    if given:
        rest = [split for split in splits if split not in given.values()]
        remarks = [f"not used: splits {_listed(rest)}"] if rest else []
        return _in_order(asked, {part: (split, splits[split]) for part, split in given.items()}, splits), remarks
    found = split_names(splits)
    if several := [names for names in found.values() if len(names) > 1]:
        raise UserError(
            f"data set {asked.whole!r} has splits {several[0][0]!r} and {several[0][1]!r} for one; say which: "
            f"hf:{asked.name}(train=SPLIT,test=SPLIT)"
        )
    strange = [split for split in splits if [split] not in found.values()]
    if strange and len(splits) > 1:
        known = ", ".join(name for names in NAMES.values() for name in names)
        raise UserError(
            f"data set {asked.whole!r} has splits {_listed(splits)}, of which {_listed(strange)} is none of {known}; "
            f"say which are which: hf:{asked.name}(train=SPLIT,test=SPLIT)"
        )
    named = {part: (names[0], splits[names[0]]) for part, names in found.items()}
    if len(splits) == 1:
        return {"": next(iter(splits.items()))}, []
    return _in_order(asked, named, splits), []


def _in_order(
    asked: Asked, named: Mapping[str, tuple[str, Any]], splits: Mapping[str, Any]
) -> dict[str, tuple[str, Any]]:
    if "train" not in named:
        raise UserError(
            f"data set {asked.whole!r} has splits {_listed(splits)}, and none to train on; name it: "
            f"hf:{asked.name}(train=SPLIT)"
        )
    if set(named) == {"train"}:
        return {"": named["train"]}
    return {part: named[part] for part in PARTS if part in named}


# --- columns --------------------------------------------------------------------------------------------------


def _image_column(asked: Asked, table: Any, library: Any) -> str:
    """Returns the column of images: named, of their type, or of a usual name. Errors: UserError."""
    typed = [name for name, kind in table.features.items() if isinstance(kind, library.Image)]
    return _column(asked, table, "image", typed, IMAGES)


def _label_column(asked: Asked, table: Any, library: Any) -> str:
    """Returns the column of labels: named, of their type, or of a usual name. Errors: UserError."""
    typed = [name for name, kind in table.features.items() if isinstance(kind, library.ClassLabel)]
    return _column(asked, table, "label", typed, LABELS)


def _passed_over(table: Any, image: str, label: str, library: Any) -> Iterator[str]:
    """Says which columns of the same type are not taken."""
    for what, taken, kind in (("images", image, library.Image), ("labels", label, library.ClassLabel)):
        others = [name for name, feature in table.features.items() if isinstance(feature, kind) and name != taken]
        if others:
            yield f"{what} are those of column {taken!r}; not used: {_listed(others)}"
    typed = library.Image, library.ClassLabel
    rest = [name for name, kind in table.features.items() if name not in (image, label) and not isinstance(kind, typed)]
    if rest:
        yield f"not used: column{'s' * (len(rest) > 1)} {_listed(rest)}"


def _column(asked: Asked, table: Any, what: str, typed: Sequence[str], usual: Sequence[str]) -> str:
    if (given := asked.given.get(what)) is not None:
        if given in table.features:
            return given
        guess = nearest(given, table.features)
        hint = f"; did you mean {guess!r}?" if guess else "."
        raise UserError(f"data set {asked.whole!r} has no column {given!r}{hint} It has {_columns(table)}")
    named = [name for name in usual if name in (typed or table.features)]
    if len(typed) == 1:
        others = [name for name in usual[:SURE] if name in table.features and name != typed[0]]
        if what == "label" and typed[0] not in usual and others:
            raise UserError(
                f"data set {asked.whole!r} has labels in column {typed[0]!r}, by its type, or in {others[0]!r}, by its "
                f"name; name the right one: label={others[0]} or label={typed[0]}"
            )
        return typed[0]
    if named and (typed or len(named) == 1):
        return named[0]
    why = f"no column of {what}s that can be told by its type or name"
    if typed:
        why = f"{len(typed)} columns of {what}s, {_listed(typed)}"
    raise UserError(f"data set {asked.whole!r} has {why}; name it: {what}=COLUMN of {_columns(table)}")


def _labels(asked: Asked, split: str, table: Any, column: str, library: Any) -> tuple[list[str] | None, list[str]]:
    """Returns the class of each row, and all classes in their order; no classes where no row has one.

    Errors: UserError for rows without a label beside others that have one, and for what is no label.
    """
    if column not in table.features:
        return None, []
    kind, values = table.features[column], list(table[column])
    none = (None, "", -1) if _is_class(kind, library) else (None, "")
    missing = [row for row, value in enumerate(values) if value in none]
    if len(missing) == len(values):
        return None, []
    if missing:
        raise UserError(
            f"data set {asked.whole!r}: {len(missing):,} of {len(values):,} rows of split {split!r} have no {column}, "
            f"the first is row {missing[0]:,}; take them out, or name another column: label=COLUMN of {_columns(table)}"
        )
    if _is_class(kind, library):
        return [kind.names[value] for value in values], list(kind.names)
    if any(isinstance(value, bool) or not isinstance(value, int | str) for value in values):
        if all(isinstance(value, bool) for value in values):
            return [str(value) for value in values], ["False", "True"]
        raise UserError(
            f"data set {asked.whole!r}: column {column!r} holds {_kind(kind)}, and labels are classes, texts or whole "
            f"numbers; name another: label=COLUMN of {_columns(table)}"
        )
    return [str(value) for value in values], [str(value) for value in sorted(set(values))]


def _is_class(kind: Any, library: Any) -> bool:
    return isinstance(kind, library.ClassLabel)


def _kind(feature: Any) -> str:
    return str(getattr(feature, "dtype", type(feature).__name__))


def _columns(table: Any) -> str:
    return ", ".join(f"{name} ({_kind(kind)})" for name, kind in list(table.features.items())[:ROOM])


def _listed(names: Sequence[str] | Mapping[str, Any]) -> str:
    return ", ".join(map(repr, list(names)[:ROOM]))


# --- downloading ----------------------------------------------------------------------------------------------


def _check_host(name: str) -> None:
    """Asks the hub once for a data set: the library would ask it for half a minute. Errors: whatever the hub says."""
    from huggingface_hub import HfApi

    from tlbench.data.fetching import TIMEOUT_SECONDS

    HfApi().dataset_info(name, timeout=TIMEOUT_SECONDS)


def fetch(path: str, say: Callable[[str], None]) -> None:
    """Downloads a data set that is not on this disk; ``say`` is told before how large it is. Errors: UserError."""
    from tlbench.data.fetching import check_disk, loudly_bounded
    from tlbench.data.named import in_words

    asked = parse(path)
    if asked.local:
        return
    with _quiet() as library:
        try:
            with _without_network():
                library.load_dataset(asked.name, asked.given.get("config"))
            return
        except Exception:
            pass  # it is not here yet; whatever else is wrong, the download says
        cache = Path(library.config.HF_DATASETS_CACHE)
        try:
            with loudly_bounded():
                _check_host(asked.name)
                info = library.load_dataset_builder(asked.name, asked.given.get("config")).info
                size = info.download_size or 0
                how_much = in_words(size / 1e6) if size else "a size that is not said"
                say(f"{asked.whole}: downloads {how_much} into {str(cache)!r}")
                cache.mkdir(parents=True, exist_ok=True)
                check_disk(asked.whole, cache, size)
                library.load_dataset(asked.name, asked.given.get("config"))
        except UserError:
            raise
        except Exception as error:
            why = " ".join(text_of(error).split())[:200] or type(error).__name__
            raise UserError(f"{asked.whole} could not be downloaded: {why}; {BY_HAND}") from None
