"""Large photographs and large sets: what decoding at a fraction changes, and what a first run and the next one take.

    python bench/decoding.py pixels FOLDER [FOLDER …] [--size 64]     how far pixels differ from exact decoding
    python bench/decoding.py accuracies FOLDER [FOLDER …] [--seeds 5] how far accuracies move
    python bench/decoding.py enlarge FOLDER INTO [--megapixels 12]    a set of small photographs made large, for both
    python bench/decoding.py first [FOLDER] [--photographs 1000]      the first probe, the next run, a plain epoch
    python bench/decoding.py small [--photographs 100000]             many small files: listing, decoding, the next run
    python bench/decoding.py memory [--photographs 4000]              resident memory with a fourth of what a set takes

FOLDER is one of class folders, or ``made``: photographs of 12 megapixels with detail of every size and a sensor's
noise. The last three make their own, in a temporary folder that goes, unless `first` gets one. A busy machine shows in
all times.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

TWELVE_MEGAPIXELS = (4000, 3000)
CLASSES = ("left", "right")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=sorted(WHAT))
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--size", type=int, default=224, help="pixels a side (accuracies, pixels)")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--photographs", type=int)
    parser.add_argument("--most", type=int, default=400, help="photographs of a folder that pixels are compared of")
    parser.add_argument("--megapixels", type=float, default=12)
    given = parser.parse_args()
    WHAT[given.what](given)


# --- photographs ----------------------------------------------------------------------------------------------


def made(folder: Path, count: int, size: tuple[int, int] = TWELVE_MEGAPIXELS) -> Path:
    """Writes made-up photographs of two classes with all processors: detail of every size, and a sensor's noise."""
    with ProcessPoolExecutor() as pool:
        list(pool.map(_one_made, *zip(*((folder, number, size) for number in range(count)), strict=True), chunksize=8))
    return folder


def _one_made(folder: Path, number: int, size: tuple[int, int]) -> None:
    generator = np.random.default_rng(number)
    width, height = size
    quarter = width // 4, height // 4
    coarse, cells = np.full((quarter[1], quarter[0], 3), 128, np.float32), 8
    while cells == 8 or cells < min(quarter) // 2:  # each octave has half of the variance of the one before
        field = generator.integers(0, 256, (cells, cells * width // height, 3), dtype=np.uint8)
        layer = Image.fromarray(field).resize(quarter, Image.Resampling.BICUBIC)
        coarse += (np.asarray(layer, np.float32) - 128) * (8 / cells) ** 0.5 / 2
        cells *= 2
    whole = Image.fromarray(coarse.clip(0, 255).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    pixels = np.asarray(whole, np.int16) + np.resize(_fine(), (height, width, 3))
    half = slice(0, width // 2) if number % 2 else slice(width // 2, width)
    pixels[:, half] -= 30
    path = folder / CLASSES[number % 2] / f"{number}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=92)


@cache
def _fine() -> np.ndarray:
    """Returns detail of one to a few pixels, and 5 grey levels of noise, as in a dim room: (512, 1021, 3)."""
    generator = np.random.default_rng(0)
    fields = [generator.normal(0, 8, (512 // side + 1, 1021 // side + 1, 3)) for side in (2, 4)]
    two, four = (
        np.kron(field, np.ones((side, side, 1)))[:512, :1021] for field, side in zip(fields, (2, 4), strict=True)
    )
    return (two + four + generator.normal(0, 5, (512, 1021, 3))).astype(np.int16)


def enlarge(given: argparse.Namespace) -> None:
    """Writes each photograph of a folder at so many megapixels, with a sensor's noise, under the same name."""
    source, into = given.folders
    files = [path for path in sorted(source.rglob("*")) if path.suffix.lower() in (".jpg", ".jpeg", ".png")]
    with ProcessPoolExecutor() as pool:
        jobs = [(path, into / path.relative_to(source).with_suffix(".jpg"), given.megapixels) for path in files]
        list(pool.map(_one_enlarged, *zip(*jobs, strict=True), chunksize=8))
    print(f"{len(files):,} photographs of {given.megapixels:g} MP in {into}")


def _one_enlarged(path: Path, final: Path, megapixels: float) -> None:
    image = Image.open(path).convert("RGB")
    factor = (megapixels * 1e6 / (image.width * image.height)) ** 0.5
    size = round(image.width * factor), round(image.height * factor)
    pixels = np.asarray(image.resize(size, Image.Resampling.LANCZOS), np.float32)
    noise = np.random.default_rng(0).normal(0, 5, (256, 1021, 3)).astype(np.float32)
    final.parent.mkdir(parents=True, exist_ok=True)
    noisy = (pixels + np.resize(noise, pixels.shape)).clip(0, 255).astype(np.uint8)
    Image.fromarray(noisy).save(final, quality=92)


@contextmanager
def _folder(path: Path) -> Iterator[Path]:
    """Yields a folder of photographs; makes some for ``made``."""
    if str(path) != "made":
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        yield made(Path(folder) / "made", 40)


# --- what changes ---------------------------------------------------------------------------------------------


def pixels(given: argparse.Namespace) -> None:
    """Prints how far pixels differ from those of exact decoding, by how many times as large what was decoded is."""
    from functools import partial

    from tlbench.data import Request
    from tlbench.data.decode import own_limit, read_photograph
    from tlbench.data.decoding import fitted
    from tlbench.data.scaled import wanted
    from tlbench.data.store import resized

    resize = round(given.size * 256 / 224)
    print(
        "set          decode  decoded at  photographs  mean difference  99th percentile  largest   (grey levels of 255)"
    )
    for path in given.folders:
        with _folder(path) as folder, own_limit():
            files = [one for one in sorted(folder.rglob("*")) if one.suffix.lower() in (".jpg", ".jpeg")]
            rows: dict[tuple[str, int], list[np.ndarray]] = {}
            for file in files[:: -(-len(files) // given.most)]:
                for decode in ("scaled", "auto"):
                    asked = Request(size=given.size, resize=resize, interpolation="bicubic", seed=0, decode=decode)
                    photo = read_photograph(file, wanted=wanted(decode, partial(resized, resize=resize)))
                    if photo.box is None:
                        rows.setdefault((decode, 1), []).append(np.zeros(1, np.int16))
                        continue
                    part = round(photo.size[0] / photo.image.width)
                    exact = fitted(read_photograph(file), asked).astype(np.int16)
                    rows.setdefault((decode, part), []).append(np.abs(fitted(photo, asked) - exact).ravel())
            for (decode, part), differences in sorted(rows.items()):
                every = np.concatenate(differences)
                told = f"{every.mean():15.2f}  {np.percentile(every, 99):15.0f}  {every.max():7}" if part > 1 else ""
                print(f"{path.name[:12]:12} {decode:7} 1/{part:<9} {len(differences):11}  {told}", flush=True)


def accuracies(given: argparse.Namespace) -> None:
    """Prints test accuracies with either decoding, the half width of their interval over images, and the difference on
    the same images and seeds with its own.
    """
    from tlbench.grid.cell import Cell
    from tlbench.grid.settings import Settings
    from tlbench.measure.cell import run_cell

    print("set          policy        exact           scaled          scaled - exact   auto - exact   (%, 95 %)")
    for path in given.folders:
        for policy in ("linear_probe", "last_1"):
            right: dict[str, list[np.ndarray]] = {}
            for seed in range(given.seeds):
                for decode in ("exact", "scaled", "auto"):
                    cell = Cell(
                        backbone=given.backbone, freeze=policy, dataset=f"folder:{path}", seed=seed, decode=decode,
                        epochs=given.epochs, image_size=given.size,
                    )  # fmt: skip
                    record = run_cell(cell, Settings())
                    if record.status != "ok":
                        sys.exit(f"{cell.id}: {record.status}: {record.reason}")
                    right.setdefault(decode, []).append(record.per_image.split("test").correct.astype(float))
            every = {decode: _together(several) for decode, several in right.items()}
            shown = every["exact"], every["scaled"], *(every[mode] - every["exact"] for mode in ("scaled", "auto"))
            print(f"{path.name[:12]:12} {policy:12}", *map(_with_interval, shown), sep="  ", flush=True)


def _together(several: list[np.ndarray]) -> np.ndarray:
    """Returns what is right as (seeds, images); where seeds draw other splits, each image of each seed by itself."""
    alike = len({len(one) for one in several}) == 1
    return np.stack(several) if alike else np.concatenate(several)[None]


def _with_interval(values: np.ndarray) -> str:
    """Writes the mean of (seeds, images) and the half width of its interval over images, of the seeds that there
    are."""
    of_images = values.mean(0)
    half = 1.96 * of_images.std(ddof=1) / len(of_images) ** 0.5
    return f"{100 * values.mean():6.2f} ± {100 * half:5.2f}"


# --- what it takes --------------------------------------------------------------------------------------------


def first(given: argparse.Namespace) -> None:
    """Prints what the first probe takes on photographs of 12 MP, and what it is to take at most; then the next run,
    with another size of batch and another policy; then a plain loop's first epoch.
    """
    count = given.photographs or 1000
    with tempfile.TemporaryDirectory() as home:
        begin = time.perf_counter()
        folder = given.folders[0] if given.folders else made(Path(home) / "photographs", count)
        if not given.folders:
            print(f"{count:,} photographs of 12 MP made in {time.perf_counter() - begin:.0f} s", flush=True)
        before = _processor_seconds()
        once = scaled_pass(folder)
        used = _processor_seconds() - before
        print(f"one pass of scaled decoding, nothing else: {once:.1f} s ({used:.1f} s of processors)", flush=True)
        common = ["--decode", "scaled", "--epochs", str(given.epochs), "--backbone", given.backbone]
        for name, options in (
            ("first probe", ["--freeze", "linear_probe"]),
            ("next run", ["--freeze", "last_1", "--batch-size", "16"]),
        ):
            seconds, processors, records, decoded = run(Path(home), folder, [*common, *options])
            prefix = sum(record.get("prefix", {}).get("seconds", 0.0) for record in records[:1])
            allowed = f"; at most 1.3 x ({once:.1f} + {prefix:.1f}) = {1.3 * (once + prefix):.1f} s" * (name[0] == "f")
            print(
                f"{name}: {seconds:.1f} s ({processors:.1f} s of processors), {decoded:,} files decoded{allowed}",
                flush=True,
            )
        print(f"a plain loop's first epoch: {plain_epoch(folder, given.backbone):.1f} s", flush=True)


def scaled_pass(folder: Path) -> float:
    """Returns the seconds that all files take to be decoded by Pillow's draft and resized, with all processors."""

    def one(path: Path) -> None:
        with Image.open(path) as image:
            image.draft("RGB", (512, 512))
            image.convert("RGB").resize((341, 256), Image.Resampling.BICUBIC)

    files = list(folder.rglob("*.jpg"))
    begin = time.perf_counter()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(one, files))
    return time.perf_counter() - begin


COUNTED = """
import os
from tlbench.data import decoding

real = decoding.read_photograph


def counted(*given, **more):
    with open({marks!r}, "ab", buffering=0) as file:
        file.write(b".")
    return real(*given, **more)


decoding.read_photograph = counted
"""
"""A plugin, so that every process of a run tells which files it decodes."""


def run(home: Path, folder: Path, options: list[str]) -> tuple[float, float, list[dict], int]:
    """Runs `tlbench run` as a person does. Returns its seconds, those of processors, its records, and how many files
    were decoded by it.
    """
    marks, out, plugin = home / "marks", home / f"run{time.monotonic_ns()}", home / "counted.py"
    plugin.write_text(COUNTED.format(marks=str(marks)), encoding="utf-8")
    marks.write_bytes(b"")
    words = ["run", str(folder), *options, "--plugin", str(plugin), "--out", str(out)]
    begin, before = time.perf_counter(), _processor_seconds()
    done = subprocess.run(
        [sys.executable, "-m", "tlbench", *words], capture_output=True, text=True, check=False,
        env={**os.environ, "TLBENCH_CACHE": str(home / "cache")},
    )  # fmt: skip
    seconds, processors = time.perf_counter() - begin, _processor_seconds() - before
    if done.returncode:
        sys.exit(f"tlbench run failed:\n{done.stderr[-2000:]}\n{done.stdout[-2000:]}")
    records = [json.loads(line) for line in (out / "records.jsonl").read_text(encoding="utf-8").splitlines()]
    return seconds, processors, records, len(marks.read_bytes())


def _processor_seconds() -> float:
    """Returns what this process and its children have used of processors: what a busy machine changes little."""
    return sum(os.times()[:4])


def plain_epoch(folder: Path, backbone: str) -> float:
    """Returns the seconds of a first epoch as tutorials write it: ImageFolder, a DataLoader with a worker a processor,
    a frozen backbone that each image goes through, and a new head.
    """
    import torch
    from torchvision import datasets, transforms

    from tlbench.backbones import load_backbone

    taken = load_backbone(backbone, "auto")
    prepare = transforms.Compose(
        [
            transforms.Resize(taken.input.resize), transforms.CenterCrop(taken.input.size), transforms.ToTensor(),
            transforms.Normalize(taken.input.mean, taken.input.std),
        ]
    )  # fmt: skip
    loader = torch.utils.data.DataLoader(
        datasets.ImageFolder(folder, prepare), batch_size=32, shuffle=True, num_workers=os.cpu_count() or 1
    )
    stages, head = taken.stages.eval(), None
    begin = time.perf_counter()
    for images, labels in loader:
        with torch.no_grad():
            features = stages(images).flatten(1)
        if head is None:
            head = torch.nn.Linear(features.shape[1], len(CLASSES))
            optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(head(features), labels).backward()
        optimizer.step()
    return time.perf_counter() - begin


def small(given: argparse.Namespace) -> None:
    """Prints what many small files take: to be listed, decoded, and taken by the next run."""
    from tlbench.data import Request, load_data, scan
    from tlbench.machine.kept import KEPT

    count = given.photographs or 100_000
    with tempfile.TemporaryDirectory() as home:
        os.environ["TLBENCH_CACHE"] = f"{home}/cache"
        folder = made(Path(home) / "small", count, (48, 36))
        begin = time.perf_counter()
        scan.scan(str(folder))
        print(f"{count:,} files of 48 x 36 listed: {time.perf_counter() - begin:.1f} s", flush=True)
        asked = Request(size=32, resize=36, interpolation="bilinear", seed=0)
        for name in ("decoded", "taken by the next run"):
            KEPT.images.forget()
            begin = time.perf_counter()
            load_data(f"folder:{folder}", asked)
            print(f"{name}: {time.perf_counter() - begin:.1f} s", flush=True)


MEMORY = """
import sys
from pathlib import Path
from tlbench.grid.cell import Cell
from tlbench.grid.settings import Settings
from tlbench.measure.cell import run_cell
folder, backbone, ram, disk = sys.argv[1:5]
budgets = {"data_ram_bytes": int(ram) or None, "data_disk_bytes": int(disk) if disk != "-" else None}
cell = Cell(backbone=backbone, freeze="full", dataset=f"folder:{folder}", epochs=1, image_size=224, weights="random")
record = run_cell(cell, Settings(**budgets))
assert record.status == "ok", record.reason
lines = Path("/proc/self/status").read_text().splitlines()
most = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
print(most, record.rounds[0].seconds, record.rounds[0].loss.hex(), record.images_where)
"""


def memory(given: argparse.Namespace) -> None:
    """Prints the most resident memory, the seconds of an epoch and its loss: of a set in memory, of one that needs four
    times the memory that it may take, and of one that the disk has no room for either.
    """
    count = given.photographs or 4000
    with tempfile.TemporaryDirectory() as home:
        folder = made(Path(home) / "photographs", count, (320, 240))
        needed = count * 3 * 224 * 224
        for name, ram, disk in (
            ("memory", 2 * needed, 0),
            ("a fourth", needed // 4, "-"),
            ("and no disk", needed // 4, 0),
        ):
            done = subprocess.run(
                [sys.executable, "-c", MEMORY, str(folder), given.backbone, str(ram), str(disk)],
                capture_output=True, text=True, check=True,
                env={**os.environ, "TLBENCH_CACHE": f"{home}/cache-{name}"},
            )  # fmt: skip
            most, seconds, loss, *where = done.stdout.split()
            print(
                f"{name}: {int(most) / 1e9:.2f} GB resident at the most, of {needed / 1e9:.2f} GB of pixels with "
                f"{ram / 1e9:.2f} GB for them; an epoch {float(seconds):.1f} s, its loss {loss}; {' '.join(where)}",
                flush=True,
            )


WHAT = {
    "pixels": pixels,
    "accuracies": accuracies,
    "enlarge": enlarge,
    "first": first,
    "small": small,
    "memory": memory,
}

if __name__ == "__main__":
    main()
