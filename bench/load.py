"""What many records and many images cost: user seconds, seconds from shell to prompt, and the most memory of each
command, of all its processes together.

    python bench/load.py [FOLDER] [--records N] [--images N] [--only WORD]

Made-up runs of N records (50,000) are put into FOLDER (default: a temporary one), once as 500 configurations of 20
seeds in 5 blocks and once as 5,000 configurations of 10 seeds, each with a second run of the same cells to compare it
with; and N images (100,000) of 16 x 16 pixels, all of them different. Runs and images that are there are taken as they
are. ``--only`` leaves the commands that have WORD in their names.
"""

import argparse
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from tlbench.grid.cell import Cell
from tlbench.records import lines
from tlbench.records.record import Record

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

RUN = "from tlbench.cli import command; command()"
CHECK = """
import sys
from tlbench.campaign.check import check
from tlbench.grid.grid import Grid
from tlbench.grid.settings import Settings
axes = {"dataset": (f"folder:{sys.argv[1]}",), "weights": ("random",), "image_size": (32,), "seed": (0, 1, 2)}
check(Grid(axes=axes), Settings(), print)
"""
HEADS, POLICIES = ("linear", "mlp"), ("linear_probe", "last_1", "last_2", "norm", "full")
CLASSES = 10
DETAIL = {"data": 0.01, "forward": 0.02, "backward": 0.04, "optimizer": 0.01, "launch": 0.002}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--records", type=int, default=50_000)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="tlbench-load-"))
    print(f"{'':44}  user s  wall s  peak MB")
    for shape in ((500, 20, 5), (5000, 10, 1)):
        few, seeds, blocks = (max(1, shape[0] * given.records // 50_000), *shape[1:])
        runs = [folder / f"{shape[0]} configurations {side}" for side in ("a", "b")]
        for number, run in enumerate(runs):
            make_run(run, few, seeds, blocks, number)
        for name, words in commands(runs, folder / "report").items():
            show(f"{shape[0]} configurations: {name}", RUN, words, given.only)
    photos = folder / "photos"
    make_images(photos, given.images)
    shutil.rmtree(folder / "cache", ignore_errors=True)
    os.environ["TLBENCH_CACHE"] = str(folder / "cache")
    dry = ["run", str(photos), "--dry-run", "--backbone=resnet18", "--freeze=full", "--weights=random"]
    show("images: --dry-run", RUN, dry, given.only)
    show("images: the first check", CHECK, [str(photos)], given.only)
    show("images: a second check", CHECK, [str(photos)], given.only)
    show("images: --dry-run after it", RUN, [*dry, "--image-size=32", "--seeds=0-2"], given.only)
    if given.folder is None:
        shutil.rmtree(folder)


def commands(runs: list[Path], report: Path) -> dict[str, list[str]]:
    a, b = map(str, runs)
    return {
        "report": ["report", a, f"--out={report}"],
        "summary": ["summary", a],
        "compare": ["compare", a, b],
        "export": ["export", a],
        "export json": ["export", a, "--format=json"],
        "recommend": ["recommend", a],
        "speedup": ["speedup", a],
        "efficiency": ["efficiency", a],
    }


def show(name: str, program: str, words: list[str], only: str) -> None:
    """Runs Python code in a process of its own, and prints what that took."""
    if only not in name:
        return
    began = time.monotonic()
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen([sys.executable, "-c", program, *words], stdout=out, stderr=out)
        together = Together(process.pid)
        together.start()
        _, status, used = os.wait4(process.pid, 0)
        together.over.set()
        together.join()
        took = time.monotonic() - began
        out.seek(0)
        last = out.read().decode(errors="replace").strip().splitlines()[-1:]
    failed = (
        "" if os.waitstatus_to_exitcode(status) in (0, 1) else f"  exit {os.waitstatus_to_exitcode(status)}: {last}"
    )
    print(
        f"{name:44}{used.ru_utime:8.1f}{took:8.1f}{max(together.most, used.ru_maxrss / 1e3):9.0f}{failed}", flush=True
    )


class Together(threading.Thread):
    """Looks at a process and those that it has begun, four times a second."""

    def __init__(self, process: int) -> None:
        super().__init__(daemon=True)
        self._process = process
        self.over = threading.Event()
        self.most = 0.0
        """The most memory of all of them, in MB; what they share counts once."""

    def run(self) -> None:
        while not self.over.wait(0.25):
            with suppress(OSError):  # each may end at any moment
                begun = Path(f"/proc/{self._process}/task/{self._process}/children").read_text().split()
                self.most = max(self.most, sum(self._megabytes(one) for one in (self._process, *begun)))

    @staticmethod
    def _megabytes(process: int | str) -> float:
        with suppress(OSError):
            for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    return int(line.split()[1]) / 1e3
        return 0.0


# --- records --------------------------------------------------------------------------------------------------


def make_run(folder: Path, configurations: int, seeds: int, blocks: int, number: int) -> None:
    """Writes a run of made-up records; nothing where there is one. ``number`` tells runs of the same cells apart."""
    if folder.exists():
        return
    folder.mkdir(parents=True)
    aside = folder / "records.part"
    with aside.open("w", encoding="ascii") as file:
        file.writelines(lines_of(configurations, seeds, blocks, number))
    aside.rename(folder / "records.jsonl")


def lines_of(configurations: int, seeds: int, blocks: int, number: int = 0) -> Iterator[str]:
    """Yields the lines of a run: training cells, and one of inference for every ten configurations of them."""
    plain = [plain_record(place) for place in range(configurations)]
    draw = random.Random(number)
    for block in range(blocks):
        for place, data in enumerate(plain):
            for seed in range(seeds):
                yield lines.seal(measured(data, place, seed, block, draw))
            if place % 10 == 0:
                yield lines.seal(inference(data, block, draw))


def plain_record(place: int) -> dict[str, Any]:
    """Returns the data of a configuration's record, to be varied by seed and block."""
    from records import record

    rest, policy = divmod(place, len(POLICIES))
    rest, head = divmod(rest, len(HEADS))
    backbone, width = divmod(rest, 5)
    made: Record = record(
        seconds=(1.0,) * 5, accuracies=(0.5,) * 5, backbone=f"timm:model_{backbone}", freeze=POLICIES[policy],
        head=HEADS[head], batch_size=8 * 2**width, dataset="folder:photos",
    )  # fmt: skip
    made = replace(
        made, classes=23, samples={"train": 1000, "val": 250, "test": 250}, detail=DETAIL,
        largest_class={"train": 120, "val": 30, "test": 30}, images_sha256=f"{backbone:064x}",
        environment=environment(),
        weights={**made.weights, "sha256": f"{backbone:064x}", "requested": "auto", "reason": None},
        recipe={**made.recipe, "schedule": "cosine", "weight_decay": 0.01, "warmup": 0.0, "augment": "none"},
        flops={"forward": 1.8e9, "train_step": {POLICIES[policy]: 5.4e9 / (1 + policy)}, "prefix": {}},
        ceiling_flops_per_second=1.5e11, suite_commit="0" * 40, layout={"chosen": "contiguous", "seconds": {}},
        prefix={"seconds": 1.5, "images": 1500, "where": "memory", "bytes": 10**7, "fills": [f"{backbone}"]},
        stages=tuple(
            {"name": f"stage {n}", "parameters": 10**5 * n, "flops": 2e8 + backbone, "shape": [64, 56, 56]}
            for n in range(12)
        ),
        copies={"exact": 0, "near": 0, "uncompared": 0, "groups": 0, "largest": 0, "apart": 0, "mixed": 0},
        leaked_images={"val": 0, "test": 0}, repeated_images={"val": 0, "test": 0},
    )  # fmt: skip
    return made.to_dict()


def environment() -> dict[str, Any]:
    """Returns an environment of as many facts as a real one has."""
    from records import CPU

    return {
        "stable": {**CPU["stable"], **{f"fact_{n}": f"value {n} of this machine" for n in range(22)}},
        "settings": {**CPU["settings"], "deterministic_algorithms": True, "cudnn_benchmark": False, "workers": 0},
        "arithmetic": {"matmul_precision": "highest", "tf32_matmul": False, "memory_format": "contiguous"},
        "volatile": {},
    }


def volatile(draw: random.Random) -> dict[str, Any]:
    return {**{f"changing_{n}": draw.random() for n in range(11)}, "gpu_clocks_locked": None}


def measured(data: dict[str, Any], place: int, seed: int, block: int, draw: random.Random) -> dict[str, Any]:
    """Returns a record of a training cell."""
    good = 0.5 + 0.4 * random.Random(place).random()
    step = 0.2 + random.Random(-place).random()
    rounds = [
        {
            **one, "seconds": step * draw.lognormvariate(0, 0.02), "samples": 1000, "loss": draw.random(),
            "accuracy_val": round(250 * good * (1 - 0.3**epoch)) / 250, "pressure": draw.random() / 100,
            "evaluation_seconds": draw.random(), "loss_val": draw.random(),
        }
        for epoch, one in enumerate(data["rounds"], start=1)
    ]  # fmt: skip
    right = [round(250 * min(1.0, good + draw.gauss(0, 0.01))) / 250 for _ in range(2)]
    return varied(data, seed, block, draw) | {
        "rounds": rounds,
        "accuracy_val": right[0],
        "accuracy_test": right[1],
        "data_sha256": f"{seed:064x}",
        "predictions_sha256": f"{draw.getrandbits(256):064x}",
        "validity": "noisy" if draw.random() < 0.02 else "ok",
    }


def inference(data: dict[str, Any], block: int, draw: random.Random) -> dict[str, Any]:
    """Returns the record of the inference cell of a configuration's model."""
    asked = {**data["cell"], "task": "infer", "freeze": "none", "epochs": 1}
    one = {**data["rounds"][0], "phase": "throughput", "samples": 64, "loss": None, "accuracy_val": None}
    return varied({**data, "cell": asked}, 0, block, draw) | {
        "rounds": [{**one, "seconds": 0.1 * draw.lognormvariate(0, 0.02)} for _ in range(10)],
        "latency_seconds": [0.01 * draw.lognormvariate(0, 0.1) for _ in range(300)],
        "recipe": {}, "accuracy_val": None, "accuracy_test": None, "trainable_parameters": None, "cut": None,
    }  # fmt: skip


def varied(data: dict[str, Any], seed: int, block: int, draw: random.Random) -> dict[str, Any]:
    cell = Cell(**{**data["cell"], "seed": seed})
    return {
        **data,
        "id": cell.id,
        "key": cell.key,
        "cell": dict(vars(cell)),
        "block": block,
        "started": f"2026-01-{1 + draw.randrange(28):02}T{draw.randrange(24):02}:00:00+00:00",
        "wall_seconds": 10 * draw.random(),
        "environment": {**data["environment"], "volatile": {"before": volatile(draw), "after": volatile(draw)}},
    }


# --- images ---------------------------------------------------------------------------------------------------


def make_images(folder: Path, count: int, side: int = 16) -> None:
    """Writes PNG files of noise in class folders; nothing where the folder is there."""
    if folder.exists():
        return
    aside = folder.with_suffix(".part")
    shutil.rmtree(aside, ignore_errors=True)
    draw = random.Random(0)
    for label in range(CLASSES):
        (aside / f"class {label}").mkdir(parents=True)
    for number in range(count):
        rows = b"".join(b"\0" + draw.randbytes(3 * side) for _ in range(side))
        (aside / f"class {number % CLASSES}" / f"{number:06}.png").write_bytes(png(rows, side))
    aside.rename(folder)


def png(rows: bytes, side: int) -> bytes:
    """Returns a PNG file of rows of RGB, each with a 0 before it."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 0)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )


if __name__ == "__main__":
    main()
