"""How a cell is measured, and how each setting is written by people. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tlbench.errors import UserError
from tlbench.grid import other_tests
from tlbench.grid.values import quoted, size, whole
from tlbench.grid.values import text as name_of


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Says how a cell is measured; what is measured is in `Cell`."""

    throughput_rounds: int = 10
    """Rounds of the throughput measurement."""
    throughput_batches: int = 2
    """Batches in one of those rounds; the clock is synchronised only at the ends."""
    latency_rounds: int = 300
    """Single images timed one by one: a p99 needs 299 for a 95 % bound."""
    bad_images: str = "fail"
    """What to do about images that cannot be read: fail, or skip (the record counts them)."""
    logits: bool = True
    """Whether the logits of validation and test images are kept beside the record (`tlbench.records.images`)."""
    thumbnails: bool = True
    """Whether reports show small pictures of the images that are surely mistaken, where they still lie there."""
    data_root: str | None = None
    """Folder that data sets lie in which are known by a name; None: that of the environment, or of the cache."""
    threads: int | None = None
    """Threads within an operation; None leaves torch's default."""
    deterministic: bool = True
    """torch's deterministic algorithms, where the device has them."""
    allocator: str = "keep"
    """Whether freed memory stays with the process: keep, system."""
    prefix: str = "auto"
    """Whether the frozen prefix's activations are kept: auto, on, off."""
    prefix_ram_bytes: int | None = None
    """Memory that these activations may take; None: a quarter of what is free."""
    prefix_disk_bytes: int | None = None
    """Room on the disk that they may take beyond that memory; None: a tenth of what is free."""
    data_ram_bytes: int | None = None
    """Memory that decoded images may take; None: a quarter of what is free."""
    data_disk_bytes: int | None = None
    """Room on the disk for decoded images, those kept for later runs among them; None: a tenth of what is free."""
    views: int = 0
    """Augmented views of each image to keep; 0: augmented anew in every epoch, and no prefix is kept."""
    blocks: int = 1
    """Times that each cell is repeated, in shuffled order."""
    twins: int | None = None
    """Cells of each block that are measured once more to see the noise; None: as many as a twentieth of the time
    allows."""
    retry_noisy: int = 0
    """Times that a noisy cell is measured again."""
    noise_limit: float = 0.02
    """Share of a round's time that something runnable had to wait for a processor; beyond it the round is noisy."""
    detail: bool = False
    """Whether a pass of its own measures where a training step's time goes."""
    isolate: str = "none"
    """Which cells share a process: cell, backbone, none."""
    cell_timeout_seconds: int | None = None
    """Seconds after which a cell that runs in a process of its own is stopped; None: never."""
    memory_limit_bytes: int | None = None
    """Main memory that such a process may take; None: whatever there is."""
    max_failures: int | None = None
    """Cells that may fail before the run stops; None: all."""
    metric: str = "accuracy"
    """What decides the verdict, on validation images (`tlbench.analysis.metrics.DECIDING`)."""
    also_test: tuple[str, ...] = ()
    """Other data sets that are tested on once, at the end, as ``NAME=DATASET``."""
    corrupt: tuple[str, ...] = ()
    """Kinds of corruptions of the test images that are tested on then (`tlbench.data.corruptions`)."""

    def __post_init__(self) -> None:
        """Makes tuples of the lists that JSON has."""
        for name in ("also_test", "corrupt"):
            object.__setattr__(self, name, tuple(getattr(self, name)))


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Says how one field of `Settings` is written by a person, the same for the command line and for pytest."""

    field: str
    help: str
    parse: Callable[[object], Any]
    metavar: str = "VALUE"
    guards: bool = False
    """It protects the run, or asks for what decides no other figure, so that it may change when the run is resumed."""
    repeats: bool = False
    """It may be given several times, a value each time."""
    in_grid: bool = False
    """A TOML grid may name it, under the option's name."""
    write: Callable[[Any], str] = str
    """Writes a value as `parse` reads it; of one that repeats, one of its values."""


def _switch(value: object) -> bool:
    if value in ("on", "off"):
        return value == "on"
    raise ValueError("on or off")


SETTINGS: dict[str, Setting] = {
    "threads": Setting(
        field="threads", help="threads within an operation (default: torch's)", parse=whole(1, 4096), metavar="N"
    ),
    "bad-images": Setting(
        field="bad_images", help="images that cannot be read: fail (default), or skip and count them", parse=str
    ),
    "logits": Setting(
        field="logits",
        help="keep validation and test logits beside the record: on (default), off",
        parse=_switch,
        guards=True,
    ),
    "thumbnails": Setting(
        field="thumbnails",
        help="small pictures of mistaken and suspect images in the report: on (default), off",
        parse=_switch,
        guards=True,
    ),
    "data-root": Setting(
        field="data_root",
        help="folder of torchvision:NAME (default: TLBENCH_DATA, or the cache folder)",
        parse=name_of,
        metavar="DIR",
        guards=True,
    ),
    "deterministic": Setting(
        field="deterministic", help="torch's deterministic algorithms: on (default), off", parse=_switch
    ),
    "allocator": Setting(
        field="allocator", help="freed memory: keep it (default), or leave it to the system", parse=str
    ),
    "prefix": Setting(field="prefix", help="keep what the frozen layers compute: auto (default), on, off", parse=str),
    "prefix-ram": Setting(
        field="prefix_ram_bytes", help="memory for it, such as 2GB (default: a quarter of what is free)", parse=size
    ),
    "prefix-disk": Setting(
        field="prefix_disk_bytes", help="disk for what is beyond it (default: a tenth of what is free)", parse=size
    ),
    "data-ram": Setting(
        field="data_ram_bytes",
        help="memory for decoded images, such as 2GB (default: a quarter of what is free)",
        parse=size,
        guards=True,
    ),
    "data-disk": Setting(
        field="data_disk_bytes",
        help="disk for those beyond it and for later runs (default: a tenth of what is free)",
        parse=size,
        guards=True,
    ),
    "views": Setting(
        field="views",
        help="augmented views of each image to keep (default 0: augment anew)",
        parse=whole(0),
        metavar="N",
    ),
    "blocks": Setting(
        field="blocks", help="times to repeat the grid, each in another order (default 1)", parse=whole(1), metavar="N"
    ),
    "twins": Setting(
        field="twins",
        help="cells of each block to measure once more, to see the noise (default: what fits into 5 % of the time)",
        parse=whole(0),
        metavar="N",
        guards=True,
    ),
    "retry-noisy": Setting(
        field="retry_noisy", help="times to measure a noisy cell again (default 0)", parse=whole(0), metavar="N"
    ),
    "detail": Setting(
        field="detail", help="where a training step's time goes, in a pass of its own: on, off (default)", parse=_switch
    ),
    "isolate": Setting(
        field="isolate",
        help="what shares a process: backbone (default of tlbench run), cell, none (default under pytest)",
        parse=str,
        guards=True,
    ),
    "cell-timeout": Setting(
        field="cell_timeout_seconds",
        help="stop an isolated cell that takes longer",
        parse=whole(1),
        metavar="SECONDS",
        guards=True,
    ),
    "memory-limit": Setting(
        field="memory_limit_bytes",
        help="main memory that an isolated process may take, such as 4GB",
        parse=size,
        metavar="SIZE",
        guards=True,
    ),
    "max-failures": Setting(
        field="max_failures",
        help="stop the run when so many cells have failed",
        parse=whole(1),
        metavar="N",
        guards=True,
    ),
    "metric": Setting(
        field="metric",
        help="what decides the verdict: accuracy (default), balanced_accuracy, macro_f1",
        parse=str,
        guards=True,
    ),
    "also-test": Setting(
        field="also_test",
        help="another data set to test on once at the end, classes matched by name; may be repeated",
        parse=other_tests.parse_also_test,
        metavar="NAME=SET",
        guards=True,
        repeats=True,
        in_grid=True,
    ),
    "corrupt": Setting(
        field="corrupt",
        help="test on corrupted test images as well, in three strengths: all, or some of noise, blur, jpeg, "
        "brightness, contrast",
        parse=other_tests.parse_corrupt,
        metavar="NAME[,…]",
        guards=True,
        in_grid=True,
        write=other_tests.written,
    ),
}
"""Option without dashes -> setting."""


def parse_settings(given: Mapping[str, object]) -> Settings:
    """Reads settings from texts by option name. Errors: UserError naming the value and what was expected."""
    return Settings(**parse_given(given))


def parse_given(given: Mapping[str, object]) -> dict[str, Any]:
    """Reads values by field, of the settings that are given. Errors: as `parse_settings`."""
    values = {}
    for name, text in given.items():
        setting = SETTINGS[name]
        try:
            values[setting.field] = setting.parse(text)
        except ValueError as expected:
            raise UserError(f"--{name}: {quoted(text)} is not {expected} ({setting.help})") from None
    return values
