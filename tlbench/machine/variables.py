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
    "which GPUs there are, and in which order": """
        CUDA_VISIBLE_DEVICES CUDA_DEVICE_ORDER NVIDIA_VISIBLE_DEVICES CUDA_MPS_ACTIVE_THREAD_PERCENTAGE
        CUDA_MPS_PINNED_DEVICE_MEM_LIMIT
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


@lru_cache(maxsize=1000)  # of 50,000 records, most have the same
def _value(name: str, value: str) -> str:
    if name in FILES:
        value = ":".join(PurePath(one).name for one in re.split(r"[:\s]+", value) if one)
    odd = len(value) > LONGEST or not value.isprintable() or without_credentials(value, {}) != value
    return HIDDEN if odd or _LONG_WORD.search(_GPU.sub("", value)) else value
