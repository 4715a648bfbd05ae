"""How this process is set for a cell: determinism, matrix precision, the allocator, memory given back."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from tlbench.errors import text_of
from tlbench.machine.folders import same_folder
from tlbench.machine.lean import set_deterministic


@dataclass(frozen=True, kw_only=True)
class Process:
    """Says how the process is set while `set_up` lasts."""

    allocator: str | None
    """What is in force, of ``ALLOCATORS`` of `tlbench.grid.choices`; None where it cannot be set."""
    caught: list[warnings.WarningMessage]
    refused: list[str] = field(default_factory=list)
    """Messages of the errors that `accept` has taken."""

    @property
    def nondeterministic(self) -> tuple[str, ...]:
        """Names the operations so far that gave up determinism on their device; they ran all the same."""
        texts = [*self.refused, *(str(warning.message) for warning in self.caught)]
        return tuple(dict.fromkeys(name for text in texts if (name := nondeterministic_operation(text))))

    def accept(self, error: BaseException) -> bool:
        """Lets run what torch has refused because it has no deterministic form, from now on until `set_up` ends; tells
        whether that is what the error says and was not let run before: what raised it can then be tried again.
        """
        if _lenient[0] or not isinstance(error, RuntimeError) or nondeterministic_operation(text_of(error)) is None:
            return False
        self.refused.append(text_of(error))
        _lenient[0] = True
        torch.set_warn_always(True)  # attention's words come once a process otherwise
        if torch.are_deterministic_algorithms_enabled():
            set_deterministic(True, warn_only=True)
        return True


@contextlib.contextmanager
def set_up(
    threads: int | None, precision: str, deterministic: bool, allocator: str, device: torch.device | None = None
) -> Iterator[Process]:
    """Sets the process up for a cell, and puts back what was set before.

    ``threads`` within an operation (None: as many as there are), ``precision`` of the grid, torch's ``deterministic``
    algorithms, ``allocator`` of ``ALLOCATORS`` in `tlbench.grid.choices`, and the ``device``, which becomes CUDA's
    current one: clocks, events and libraries ask for no other. This is the one place that does so, so that a record's
    words are what ran.
    """
    before = _State.now()
    # cuBLAS reads it when it starts; without it its results differ from run to run.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    _lenient[0] = False
    try:
        apply(threads, precision, deterministic)
        with same_folder(), _current(device), warnings.catch_warnings(record=True) as caught:
            for pattern in _GIVES_UP:
                warnings.filterwarnings("always", message=f".*{pattern}")
            yield Process(allocator=set_allocator(allocator), caught=caught)
    finally:
        before.restore()
    for warning in caught:
        if nondeterministic_operation(str(warning.message)) is None:  # somebody else's
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Lets something run that is no part of the cell: it fails for no operation without a deterministic form, and
    nothing that it warns of is said of the cell.
    """
    strict, lenient = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    set_deterministic(strict, warn_only=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        set_deterministic(strict, warn_only=lenient)


def _current(device: torch.device | None) -> contextlib.AbstractContextManager[Any]:
    if device is None or device.type != "cuda" or device.index is None:
        return contextlib.nullcontext()
    return torch.cuda.device(device)


def apply(threads: int | None, precision: str, deterministic: bool) -> None:
    """Sets threads, precision and determinism from now on; for cells that take turns within one `set_up`."""
    if threads:
        new = torch.get_num_threads() != threads
        # Also where the environment says the same: else MKL would go by what it finds there.
        torch.set_num_threads(threads)
        if new:
            torch.ones(2**18).add_(1)  # the threads start here, not in a timed call
    # fp32 means fp32: torch's default lets cuDNN round to TF32.
    tf32 = precision == "tf32"
    _set_fp32(dict.fromkeys(_FP32, "tf32" if tf32 else "ieee"), ("high" if tf32 else "highest", tf32))
    # Not with warn_only: then attention takes its nondeterministic kernels although it has others (torch 2.14).
    set_deterministic(deterministic, warn_only=_lenient[0])
    # A help for finding faulty operations, which writes all new memory twice: 2 to 5 % of a training step.
    _options.fill_uninitialized_memory = False
    torch.backends.cudnn.benchmark = not deterministic


@dataclass(frozen=True, kw_only=True)
class _State:
    """Remembers what `set_up` changes, as it was before."""

    threads: int
    warn_always: bool
    fp32: dict[str, str]
    older_switches: tuple[str, bool] | None
    deterministic: bool
    warn_only: bool
    benchmark: bool
    fill: bool
    allocator: str

    @classmethod
    def now(cls) -> _State:
        return cls(
            threads=torch.get_num_threads(),
            warn_always=torch.is_warn_always_enabled(),
            fp32=fp32_precision(),
            older_switches=_older_switches(),
            deterministic=torch.are_deterministic_algorithms_enabled(),
            warn_only=torch.is_deterministic_algorithms_warn_only_enabled(),
            benchmark=torch.backends.cudnn.benchmark,
            fill=_options.fill_uninitialized_memory,
            allocator=_in_force[-1],
        )

    def restore(self) -> None:
        if torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        torch.set_warn_always(self.warn_always)
        _set_fp32(self.fp32, self.older_switches)
        set_deterministic(self.deterministic, warn_only=self.warn_only)
        torch.backends.cudnn.benchmark = self.benchmark
        _options.fill_uninitialized_memory = self.fill
        set_allocator(self.allocator)


_options: Any = torch.utils.deterministic
_GIVES_UP = ("does not have a deterministic implementation", "defaults to a non-deterministic algorithm")
"""What torch says of an operation that has no deterministic form, and of attention, which would have one."""
_lenient = [False]
"""Whether operations without a deterministic form run, with a warning, in the present `set_up`."""


def nondeterministic_operation(text: str) -> str | None:
    """Names the operation that gave up determinism, of a warning or an error of torch's; None of any other text."""
    for pattern in _GIVES_UP:
        if pattern in text:
            return text.partition(pattern)[0].strip().rpartition("\n")[2] or "an operation"
    return None


# --- how exact fp32 is ----------------------------------------------------------------------------------------

_backends: Any = torch.backends
_FP32: dict[str, Any] = {
    "cuda matmul": _backends.cuda.matmul,
    "cudnn conv": _backends.cudnn.conv,
    "cudnn rnn": _backends.cudnn.rnn,
    "mkldnn matmul": _backends.mkldnn.matmul,
    "mkldnn conv": _backends.mkldnn.conv,
    "mkldnn rnn": _backends.mkldnn.rnn,
}
"""Library and operation -> where torch keeps how exact its fp32 is."""


def fp32_precision() -> dict[str, str]:
    """Returns how exact fp32 is in each library: ieee, tf32, bf16, or none where nobody has said."""
    return {name: str(where.fp32_precision) for name, where in _FP32.items()}


def _older_switches() -> tuple[str, bool] | None:
    """Returns torch's older switches, of matrix products and of cuDNN; None where they do not agree with the newer."""
    try:
        return torch.get_float32_matmul_precision(), bool(torch.backends.cudnn.allow_tf32)
    except RuntimeError:
        return None


def _set_fp32(wanted: dict[str, str], older: tuple[str, bool] | None) -> None:
    """Sets how exact fp32 is. torch's older switches are set first, since whoever reads one of them (a plugin may)
    gets an error when it does not agree with the newer ones.
    """
    if older is not None:
        with contextlib.suppress(AttributeError, RuntimeError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.set_float32_matmul_precision(older[0])
            torch.backends.cudnn.allow_tf32 = older[1]
    for name, where in _FP32.items():
        where.fp32_precision = wanted[name]


# --- memory ---------------------------------------------------------------------------------------------------

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


def map_nothing_ahead() -> None:
    """Has the C library map no more at a time than it is asked for, from the next `set_allocator` on and for as long as
    the process lives: for who measures what is mapped.
    """
    for options in _GLIBC.values():
        options[_M_TOP_PAD] = 0


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
        with contextlib.suppress(RuntimeError):  # a context that an earlier error broke: `check_context` tells
            torch.cuda.empty_cache()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
