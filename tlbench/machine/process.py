"""How this process is set for a cell: determinism, matrix precision, the allocator, memory given back."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import warnings
from collections.abc import Iterator
from typing import Any

import torch


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
