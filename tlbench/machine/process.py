"""How this process is set for a cell: determinism, matrix precision, the allocator, memory given back."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True, kw_only=True)
class Process:
    """Says how the process is set while `set_up` lasts."""

    allocator: str | None
    """What is in force, of `ALLOCATORS`; None where it cannot be set."""
    caught: list[warnings.WarningMessage]

    @property
    def nondeterministic(self) -> tuple[str, ...]:
        """Names the operations so far that have no deterministic form on their device; they ran all the same."""
        texts = [str(warning.message) for warning in self.caught]
        return tuple(dict.fromkeys(text.split()[0] for text in texts if _NOT_DETERMINISTIC in text))


@contextlib.contextmanager
def set_up(threads: int | None, precision: str, deterministic: bool, allocator: str) -> Iterator[Process]:
    """Sets the process up for a cell, and puts back what was set before.

    ``threads`` within an operation (None: as many as there are), ``precision`` of the grid, torch's ``deterministic``
    algorithms, ``allocator`` of `ALLOCATORS`. This is the one place that does so, so that a record's words are what
    ran.
    """
    before = _State.now()
    # cuBLAS reads it when it starts; without it its results differ from run to run.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    try:
        apply(threads, precision, deterministic)
        with warnings.catch_warnings(record=True) as caught:
            warnings.filterwarnings("always", message=f".*{_NOT_DETERMINISTIC}")
            yield Process(allocator=set_allocator(allocator), caught=caught)
    finally:
        before.restore()
    for warning in caught:
        if _NOT_DETERMINISTIC not in str(warning.message):  # somebody else's
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def apply(threads: int | None, precision: str, deterministic: bool) -> None:
    """Sets threads, precision and determinism from now on; for cells that take turns within one `set_up`."""
    if threads and torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
        torch.ones(2**18).add_(1)  # the threads start here, not in a timed call
    # fp32 means fp32: torch's default lets cuDNN round to TF32.
    tf32 = precision == "tf32"
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    # A help for finding faulty operations, which writes all new memory twice: 2 to 5 % of a training step.
    _options.fill_uninitialized_memory = False
    torch.backends.cudnn.benchmark = not deterministic


@dataclass(frozen=True, kw_only=True)
class _State:
    """Remembers what `set_up` changes, as it was before."""

    threads: int
    matmul_precision: str
    cudnn_tf32: bool
    deterministic: bool
    warn_only: bool
    benchmark: bool
    fill: bool
    allocator: str

    @classmethod
    def now(cls) -> _State:
        return cls(
            threads=torch.get_num_threads(),
            matmul_precision=torch.get_float32_matmul_precision(),
            cudnn_tf32=torch.backends.cudnn.allow_tf32,
            deterministic=torch.are_deterministic_algorithms_enabled(),
            warn_only=torch.is_deterministic_algorithms_warn_only_enabled(),
            benchmark=torch.backends.cudnn.benchmark,
            fill=_options.fill_uninitialized_memory,
            allocator=_in_force[-1],
        )

    def restore(self) -> None:
        if torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        torch.set_float32_matmul_precision(self.matmul_precision)
        torch.backends.cudnn.allow_tf32 = self.cudnn_tf32
        torch.use_deterministic_algorithms(self.deterministic, warn_only=self.warn_only)
        torch.backends.cudnn.benchmark = self.benchmark
        _options.fill_uninitialized_memory = self.fill
        set_allocator(self.allocator)


_options: Any = torch.utils.deterministic
_NOT_DETERMINISTIC = "does not have a deterministic implementation"


# --- memory ---------------------------------------------------------------------------------------------------

ALLOCATORS = {
    "keep": "freed memory stays with the process: the next step does not have to ask the kernel for it again",
    "system": "as the C library does it: the largest tensors are mapped and unmapped anew, every time",
}
# glibc's mallopt(3).
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -2, -3, -4
_MB = 2**20
_GLIBC = {
    "keep": {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1, _M_TOP_PAD: 64 * _MB},
    # Whatever is set ends the library's own adjustment of its thresholds, for as long as the process lives. These are
    # the values at which it ends where tensors are large.
    "system": {
        _M_MMAP_MAX: 65_536, _M_MMAP_THRESHOLD: 32 * _MB, _M_TRIM_THRESHOLD: 64 * _MB, _M_TOP_PAD: 128 * 2**10,
    },
}  # fmt: skip


_in_force = ["system"]
"""What was asked for last; a process starts with the C library's own ways."""
_ever_set: set[str] = set()
"""What was ever set in this process."""


def set_allocator(wanted: str) -> str | None:
    """Tells the C library how to treat freed memory, from now on; a process in which nothing else was ever asked for
    than ``system`` is left alone.

    Returns what is in force; None where it cannot be set (no glibc). By default memory beyond 32 MiB costs a page fault
    for every 4 kB, every time, and so does what the library gave back to the kernel (`bench/inference.py` has how much
    that is). What is computed is the same.
    """
    _in_force[:] = [wanted]
    if wanted == "system" and not _ever_set:
        return wanted
    _ever_set.add(wanted)
    try:
        libc = ctypes.CDLL(None)
        done = sum(libc.mallopt(option, value) for option, value in _GLIBC[wanted].items()) == len(_GLIBC[wanted])
    except (OSError, AttributeError):
        return None
    return wanted if done else None


@contextlib.contextmanager
def own_garbage() -> Iterator[None]:
    """Frees what a cell leaves behind at its end, and lets a collection inside look only at what was made inside.

    The modules and caches of the process are 300,000 objects, which took 0.2 s at every collection, and as
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
