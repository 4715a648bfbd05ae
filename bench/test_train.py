"""Training: one benchmark a cell; a round is an epoch of one training run, so the accuracy belongs to its rounds."""

import pytest

from tlbench.machine.clock import now


@pytest.mark.benchmark(timer=now)
def train(tl_run):
    tl_run()
