"""Inference: one benchmark for each backbone and head; a round is one image (throughput is in the extra info)."""

import pytest

from tlbench.machine.clock import now


@pytest.mark.benchmark(timer=now)
def infer(tl_run):
    tl_run()
