"""How a cell computes: device, precision, memory layout, determinism. One place sets them, so that a record's words
are what ran."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tlbench.errors import NotApplicable

LAYOUTS = ("contiguous", "channels_last")
GAIN = 0.95
"""channels_last is taken when a step takes at most this share of the default layout's time."""
CALIBRATION_IMAGES, CALIBRATION_ROUNDS = 8, 5

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Compute:
    """What decides how the same arithmetic is carried out."""

    device: torch.device
    precision: str = "fp32"
    channels_last: bool = False

    def autocast(self) -> AbstractContextManager[Any]:
        """The context of every forward pass."""
        dtype = _AUTOCAST.get(self.precision)
        return torch.autocast(self.device.type, dtype=dtype) if dtype else contextlib.nullcontext()

    def arrange(self, images: Tensor) -> Tensor:
        """Images or maps (N, C, H, W) in the layout of this cell; what has other dimensions stays as it is."""
        if self.channels_last and images.ndim == 4:
            return images.contiguous(memory_format=torch.channels_last)
        return images

    def place(self, model: nn.Module) -> None:
        """Moves a model to the device, in this layout."""
        model.to(self.device)
        if self.channels_last:
            model.to(memory_format=torch.channels_last)

    def scaler(self) -> torch.amp.GradScaler | None:
        """fp16 has so few exponents that small gradients vanish unless the loss is scaled up."""
        return torch.amp.GradScaler(self.device.type) if self.precision == "fp16" else None


def check_precision(precision: str, device: torch.device) -> None:
    """Errors: NotApplicable where the device does not have it."""
    if precision == "tf32" and device.type != "cuda":
        raise NotApplicable("tf32 is a mode of CUDA's matrix units; a CPU has fp32, bf16 and fp16")
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise NotApplicable("this GPU has no bf16; use fp16")


def set_matmul_precision(precision: str) -> None:
    """fp32 means fp32: torch's default lets cuDNN round to TF32."""
    tf32 = precision == "tf32"
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32


@contextlib.contextmanager
def deterministic(wanted: bool) -> Iterator[list[str]]:
    """torch's deterministic algorithms, on or off, for a cell. Yields a list that fills up with the operations that
    have no deterministic form on this device; they run all the same, and the record names them.
    """
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark, fill = torch.backends.cudnn.benchmark, _options.fill_uninitialized_memory
    # cuBLAS reads it when it starts; without it its results differ from run to run.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    set_deterministic(wanted)
    found: list[str] = []
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.filterwarnings("always", message=f".*{_NOT_DETERMINISTIC}")
            yield found
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.benchmark = benchmark
        _options.fill_uninitialized_memory = fill
    for warning in caught:
        text = str(warning.message)
        if _NOT_DETERMINISTIC not in text:  # somebody else's
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
        elif text.split()[0] not in found:
            found.append(text.split()[0])


def set_deterministic(wanted: bool) -> None:
    """From now on, for the whole process."""
    torch.use_deterministic_algorithms(wanted, warn_only=True)
    # A help for finding faulty operations, which writes all new memory twice: 2 to 5 % of a training step.
    _options.fill_uninitialized_memory = False
    torch.backends.cudnn.benchmark = not wanted


_options: Any = torch.utils.deterministic
_NOT_DETERMINISTIC = "does not have a deterministic implementation"


# --- memory ---------------------------------------------------------------------------------------------------

ALLOCATORS = {
    "keep": "freed memory stays with the process: the next step does not have to ask the kernel for it again",
    "system": "as the C library does it: every large tensor is mapped and unmapped anew",
}
# glibc's mallopt(3).
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_GLIBC = {
    "keep": {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1, _M_TOP_PAD: 64 * 2**20},
    "system": {_M_MMAP_MAX: 65_536, _M_TRIM_THRESHOLD: 128 * 2**10, _M_TOP_PAD: 0},
}


def set_allocator(wanted: str) -> str | None:
    """How the C library treats freed memory, from now on. Returns what is in force; None where it cannot be set (no
    glibc). By default a convolution's output of some megabytes costs a page fault for every 4 kB, every time: forward
    passes of EfficientNet-Lite0 at 224 px took 2.5 times as long. What is computed is the same.
    """
    try:
        libc = ctypes.CDLL(None)
        done = sum(libc.mallopt(option, value) for option, value in _GLIBC[wanted].items()) == len(_GLIBC[wanted])
    except (OSError, AttributeError):
        return None
    return wanted if done else None


@contextlib.contextmanager
def own_garbage() -> Iterator[None]:
    """For a cell: what it leaves behind is freed at its end, and a collection inside looks only at what was made
    inside. The modules and caches of the process are 300,000 objects, which took 0.2 s at every collection, and as
    often as Python began one of its own in a timed round.
    """
    gc.collect(1)  # the young ones
    gc.freeze()
    try:
        yield
    finally:
        release_memory()
        gc.unfreeze()


def release_memory() -> None:
    """Gives memory that was freed back to the system, so that a cell does not start with what others left."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


# --- the layout, measured once per backbone and machine ---------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Which memory layout a backbone gets, and why."""

    chosen: str
    requested: str
    contiguous_seconds: float | None = None
    """Median of a training step of `CALIBRATION_IMAGES` images, where it was measured."""
    channels_last_seconds: float | None = None


def cache_folder() -> Path:
    """Where measured layouts and stored activations are kept: ``$TLBENCH_CACHE``, or ``$XDG_CACHE_HOME/tlbench``."""
    given = os.environ.get("TLBENCH_CACHE")
    home = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(os.path.expanduser(given or os.path.join(home, "tlbench")))


def choose_layout(requested: str, key: str, measure: Callable[[], tuple[float, float]]) -> Layout:
    """The layout of a backbone. ``auto`` measures both once for a key (backbone, image size, precision, machine) and
    keeps the result in the cache folder: a choice that could change from run to run would change the last bits.

    ``measure`` gives the seconds of a step in the default layout and in channels_last.
    """
    if requested != "auto":
        return Layout(chosen=requested, requested=requested)
    path = cache_folder() / "layouts.json"
    known = _read_layouts(path)
    if key not in known:
        plain, last = measure()
        known = {**_read_layouts(path), key: [plain, last]}
        with contextlib.suppress(OSError):  # a read-only home: measured again next time
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
                json.dump(known, file, indent=1)
            os.replace(file.name, path)
    plain, last = known[key]
    chosen = "channels_last" if last <= GAIN * plain else "contiguous"
    return Layout(chosen=chosen, requested="auto", contiguous_seconds=plain, channels_last_seconds=last)


def _read_layouts(path: Path) -> dict[str, list[float]]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {
            str(key): [float(plain), float(last)]
            for key, (plain, last) in found.items()
            if 0 < plain < float("inf") and 0 < last < float("inf")
        }
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def measure_layouts(
    build: Callable[[], nn.Module], size: int, device: torch.device, precision: str
) -> tuple[float, float]:
    """Median seconds of a forward and backward pass in the default layout and in channels_last, taken in turn.

    ``build`` gives a fresh model each time; ``size`` is pixels a side.
    """
    steps = []
    with torch.random.fork_rng(devices=[]):
        for channels_last in (False, True):
            compute = Compute(device=device, precision=precision, channels_last=channels_last)
            model = build()
            compute.place(model)
            model.train()
            images = compute.arrange(torch.rand(CALIBRATION_IMAGES, 3, size, size).to(device))
            steps.append((model, compute, images))
        seconds: list[list[float]] = [[], []]
        for _ in range(CALIBRATION_ROUNDS):
            for times, step in zip(seconds, steps, strict=True):
                times.append(_step(*step))
    # The first round of each warms up.
    plain, last = (statistics.median(times[1:]) for times in seconds)
    return plain, last


def _step(model: nn.Module, compute: Compute, images: Tensor) -> float:
    begin = time.perf_counter()
    with compute.autocast():
        loss = model(images).float().square().mean()
    loss.backward()
    model.zero_grad(set_to_none=True)
    if compute.device.type == "cuda":
        torch.cuda.synchronize(compute.device)
    return time.perf_counter() - begin


def layout_facts(layout: Layout) -> dict[str, Any]:
    """For the record."""
    return asdict(layout)
