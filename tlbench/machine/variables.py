"""Which environment variables a record keeps: those of a list, since a variable of any other name may hold a secret.

A beginning such as ``NVIDIA_`` is no list: it took in ``NVIDIA_API_KEY``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import PurePath

from tlbench.machine.credentials import HIDDEN, without_credentials

_NAMES = {
    "how many threads compute, and on which processors they run": """
        OMP_NUM_THREADS OMP_THREAD_LIMIT OMP_DYNAMIC OMP_NESTED OMP_MAX_ACTIVE_LEVELS OMP_PROC_BIND OMP_PLACES
        OMP_SCHEDULE MKL_NUM_THREADS MKL_DOMAIN_NUM_THREADS MKL_DYNAMIC MKL_THREADING_LAYER MKL_NUM_STRIPES
        OPENBLAS_NUM_THREADS GOTO_NUM_THREADS BLIS_NUM_THREADS VECLIB_MAXIMUM_THREADS GOMP_CPU_AFFINITY
        KMP_AFFINITY KMP_HW_SUBSET KMP_HIDDEN_HELPER_AFFINITY KMP_TEAMS_THREAD_LIMIT KMP_DEVICE_THREAD_LIMIT
        TORCHINDUCTOR_COMPILE_THREADS
    """,
    "how threads wait for each other": """
        OMP_WAIT_POLICY OMP_STACKSIZE GOMP_SPINCOUNT GOMP_STACKSIZE KMP_BLOCKTIME KMP_LIBRARY KMP_TPAUSE
        KMP_USER_LEVEL_MWAIT KMP_STACKSIZE KMP_FORKJOIN_BARRIER KMP_PLAIN_BARRIER KMP_REDUCTION_BARRIER
    """,
    "which kernels of a library run": """
        ATEN_CPU_CAPABILITY MKL_ENABLE_INSTRUCTIONS MKL_DEBUG_CPU_TYPE MKL_INTERFACE_LAYER OPENBLAS_CORETYPE
        DNNL_MAX_CPU_ISA DNNL_CPU_ISA_HINTS DNNL_PRIMITIVE_CACHE_CAPACITY ONEDNN_MAX_CPU_ISA
        ONEDNN_CPU_ISA_HINTS ONEDNN_PRIMITIVE_CACHE_CAPACITY TORCH_MKLDNN_MATMUL_MIN_DIM
        TORCH_BLAS_PREFER_CUBLASLT TORCH_BLAS_PREFER_HIPBLASLT TORCH_LINALG_PREFER_CUSOLVER
        TORCH_LINALG_PREFER_MAGMA TORCH_CUDNN_V8_API_DISABLED TORCH_CUDNN_V8_API_LRU_CACHE_LIMIT
        TORCH_CUDNN_USE_HEURISTIC_MODE_B TORCH_CUDNN_SDPA_ENABLED PYTORCH_TUNABLEOP_ENABLED
        PYTORCH_TUNABLEOP_TUNING CUDA_FORCE_PTX_JIT CUDA_DISABLE_PTX_JIT
    """,
    "which results are computed to the last bit": """
        NVIDIA_TF32_OVERRIDE TORCH_ALLOW_TF32_CUBLAS_OVERRIDE CUBLAS_WORKSPACE_CONFIG CUBLASLT_WORKSPACE_SIZE
        CUBLAS_EMULATE_SINGLE_PRECISION CUBLAS_EMULATE_DOUBLE_PRECISION MKL_CBWR KMP_DETERMINISTIC_REDUCTION
        KMP_FORCE_REDUCTION DNNL_DEFAULT_FPMATH_MODE ONEDNN_DEFAULT_FPMATH_MODE
    """,
    "which of equal GPUs are used, and in which order": """
        CUDA_VISIBLE_DEVICES CUDA_DEVICE_ORDER NVIDIA_VISIBLE_DEVICES ROCR_VISIBLE_DEVICES HIP_VISIBLE_DEVICES
        GPU_DEVICE_ORDINAL
    """,
    "how much of a GPU there is": """
        CUDA_MPS_ACTIVE_THREAD_PERCENTAGE CUDA_MPS_PINNED_DEVICE_MEM_LIMIT
    """,
    "how work reaches a GPU": """
        CUDA_LAUNCH_BLOCKING CUDA_DEVICE_MAX_CONNECTIONS
        CUDA_DEVICE_DEFAULT_PERSISTING_L2_CACHE_PERCENTAGE_LIMIT CUDA_SCALE_LAUNCH_QUEUES CUDA_AUTO_BOOST
        CUDA_CACHE_DISABLE CUDA_MODULE_DATA_LOADING TORCH_CUDNN_V8_API_DEBUG CUDNN_ERRATA_JSON_FILE
    """,
    "what torch.compile makes of a model": """
        TORCH_COMPILE_DISABLE TORCHDYNAMO_DISABLE TORCHINDUCTOR_FREEZING TORCHINDUCTOR_MAX_AUTOTUNE
        TORCHINDUCTOR_MAX_AUTOTUNE_GEMM TORCHINDUCTOR_MAX_AUTOTUNE_POINTWISE TORCHINDUCTOR_CPP_WRAPPER
        TORCHINDUCTOR_FX_GRAPH_CACHE TORCHINDUCTOR_CUDAGRAPHS TORCHINDUCTOR_COORDINATE_DESCENT_TUNING
        TORCHINDUCTOR_FORCE_DISABLE_CACHES PYTORCH_JIT PYTORCH_NVFUSER_DISABLE
    """,
    "how memory is taken and given back": """
        PYTORCH_CUDA_ALLOC_CONF PYTORCH_ALLOC_CONF PYTORCH_NO_CUDA_MEMORY_CACHING MALLOC_CONF MALLOC_ARENA_MAX
        MALLOC_MMAP_MAX_ MALLOC_MMAP_THRESHOLD_ MALLOC_TRIM_THRESHOLD_ MALLOC_TOP_PAD_ MALLOC_PERTURB_
        MALLOC_CHECK_ GLIBC_TUNABLES LD_PRELOAD MKL_DISABLE_FAST_MM MKL_FAST_MEMORY_LIMIT
    """,
    "whether a library writes about every call, which takes time": """
        MKL_VERBOSE DNNL_VERBOSE ONEDNN_VERBOSE CUDNN_LOGINFO_DBG CUDNN_LOGDEST_DBG CUDNN_LOGLEVEL_DBG
        CUBLAS_LOGINFO_DBG CUBLASLT_LOG_LEVEL TORCH_LOGS TORCH_SHOW_CPP_STACKTRACES
    """,
}
VARIABLES: dict[str, str] = {name: reason for reason, names in _NAMES.items() for name in names.split()}
"""Exact name of a variable that changes how fast torch computes, or what -> what it decides. Those that libraries set
themselves when they are first used (``KMP_INIT_AT_FORK``, ``CUDA_MODULE_LOADING``) are left out: the second cell of a
process would seem to be of another machine than the first."""
WHICH_DEVICES = tuple(_NAMES["which of equal GPUs are used, and in which order"].split())
"""Variables that choose among devices. An engine gives each of its workers another one of eight equal GPUs, which are
one machine: what a device is (its model, memory, driver, power limit) tells machines apart, its number does not."""
OVERRIDDEN = {
    "threads": ("OMP_NUM_THREADS", "MKL_NUM_THREADS"),
    "keep": ("MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_"),
}
"""What `tlbench.machine.process.set_up` sets anew -> the variables that say nothing where it does: a number of threads,
and the allocator that keeps freed memory."""
ENGINES_SET = (
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "BLIS_NUM_THREADS"),
    *("VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS", "NUMEXPR_MAX_THREADS", "NUMBA_NUM_THREADS", "TBB_NUM_THREADS"),
    *("OMP_PROC_BIND", "OMP_PLACES", "KMP_AFFINITY", "GOMP_CPU_AFFINITY"),
    *("MALLOC_ARENA_MAX", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_TOP_PAD_"),
)
"""Variables that engines set in their workers as they see fit: threads by the processors that a task has asked for, and
how memory is given back."""
FILES = ("LD_PRELOAD", "CUDNN_LOGDEST_DBG", "CUDNN_ERRATA_JSON_FILE")
"""Variables of which the names of files are kept, without the folders, which name people."""
LONGEST = 200
"""Characters of a value; no setting is longer."""
_GPU = re.compile(r"\b(?:GPU|MIG)-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.IGNORECASE)
_LONG_WORD = re.compile(r"(?=[A-Za-z_/+-]*\d)(?=[\d_/+-]*[A-Za-z])[A-Za-z0-9_/+-]{24,}")


def kept(variables: Mapping[str, str]) -> dict[str, str]:
    """Returns what a record keeps of an environment, sorted by name; of a value that looks like a credential, whatever
    its name, only that there is one.
    """
    return {name: _value(name, variables[name]) for name in sorted(VARIABLES.keys() & variables.keys())}


def of_machine(variables: Mapping[str, str]) -> dict[str, str]:
    """Returns what a record keeps of an environment that tells machines apart."""
    return {name: value for name, value in kept(variables).items() if name not in WHICH_DEVICES}


def of_devices(variables: Mapping[str, str]) -> dict[str, str]:
    """Returns what a record keeps of an environment that says which of equal devices were used."""
    return {name: value for name, value in kept(variables).items() if name in WHICH_DEVICES}


def set_by_engines(variables: Mapping[str, str]) -> dict[str, str]:
    """Returns those of `ENGINES_SET` that an environment has: of the driver of a run, taken before its engine starts,
    they are what `clean_environment` is to give every worker.
    """
    return {name: variables[name] for name in ENGINES_SET if name in variables}


def clean_environment(variables: Mapping[str, str], driver: Mapping[str, str]) -> dict[str, str]:
    """Returns the environment in which an engine's worker is to start the process that measures: what engines set is as
    in the environment of the run's ``driver``, there or not there, and everything else as it is.

    Libraries read these variables when they are loaded, and some of what they decide cannot be changed afterwards: how
    many threads there are by default, what OpenBLAS takes, how memory is given back. A cell would be computed, and
    named, after whatever engine has placed it.
    """
    others = {name: value for name, value in variables.items() if name not in ENGINES_SET}
    return {**others, **set_by_engines(driver)}


@lru_cache(maxsize=1000)  # of 50,000 records, most have the same
def _value(name: str, value: str) -> str:
    if name in FILES:
        value = ":".join(PurePath(one).name for one in re.split(r"[:\s]+", value) if one)
    odd = len(value) > LONGEST or not value.isprintable() or without_credentials(value, {}) != value
    return HIDDEN if odd or _LONG_WORD.search(_GPU.sub("", value)) else value
