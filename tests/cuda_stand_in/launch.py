"""Builds the stand-in's libraries and runs a command under it, with all Python processes that the command starts.

python tests/cuda_stand_in/launch.py python -m pytest tests/test_device.py
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent


def compiler():
    """The system's C++ compiler, or None."""
    return shutil.which(os.environ.get("CXX", "")) or shutil.which("c++") or shutil.which("g++")


def headers():
    """The folder of CUDA's headers that came with torch, or None. They are of torch's major version, since that decides
    how the structures which torch reads lie in memory.
    """
    folders = []
    for package, inside in (("nvidia", "*/include"), ("triton", "backends/nvidia/include")):
        spec = importlib.util.find_spec(package)
        for root in (spec and spec.submodule_search_locations) or ():
            folders += sorted(Path(root).glob(inside))
    for folder in folders:
        if all((folder / name).is_file() for name in ("cuda.h", "cuda_runtime_api.h", "crt/host_defines.h")):
            version = re.search(r"define CUDART_VERSION\s+(\d+)", (folder / "cuda_runtime_api.h").read_text())
            if version and str(int(version[1]) // 1000) == torch.version.cuda.partition(".")[0]:
                return folder
    return None


def lacking():
    """Why the stand-in cannot be built here, or None."""
    if sys.platform != "linux":
        return "the CUDA stand-in is preloaded as Linux does it"
    if torch.version.cuda is None:
        return f"torch {torch.__version__} was built without CUDA"
    if compiler() is None:
        return "the CUDA stand-in needs a C++ compiler (apt install g++)"
    if headers() is None:
        return f"no headers of CUDA {torch.version.cuda} came with torch"
    return None


def build(folder):
    """Builds the libraries into a folder and returns the environment of a process that has the stand-in."""
    for source, library in (("runtime.cpp", "runtime.so"), ("driver.cpp", "libcuda.so.1")):
        command = [compiler(), "-O1", "-shared", "-fPIC", f"-I{headers()}", HERE / source, "-o", Path(folder) / library]
        subprocess.run(command, check=True)
    before = os.environ.get("PYTHONPATH")
    return {
        **os.environ,
        "LD_PRELOAD": str(Path(folder) / "runtime.so"),
        "LD_LIBRARY_PATH": str(folder),
        "PYTHONPATH": str(HERE) + (os.pathsep + before if before else ""),
        "OMP_NUM_THREADS": "1",
    }


if __name__ == "__main__":
    if reason := lacking():
        sys.exit(reason)
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(subprocess.run(sys.argv[1:], env=build(folder), check=False).returncode)
