"""What "equal bit for bit" means in these tests: of what a cell computes, and of a model and its stages."""

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

from tlbench.records.record import Record

NONE: Mapping[int, Tensor] = MappingProxyType({})


def results(record: Record) -> tuple:
    """All that a cell computes, to the last bit."""
    return (
        record.status,
        record.weights.get("sha256"),
        record.data_sha256,
        tuple((r.phase, r.loss, r.loss_val, r.accuracy_val) for r in record.rounds),
        (record.accuracy_val, record.accuracy_test, record.loss_test, record.predictions_sha256),
        (record.frozen_sha256_before, record.frozen_sha256_after),
    )


def finished(record: Record) -> tuple:
    """The same of a cell that must have gone well."""
    assert (record.status, record.reason) == ("ok", "")
    return results(record)


@torch.no_grad()
def run_stages(stages: nn.Sequential, images: Tensor) -> list[Tensor]:
    """What goes into each stage, and at the end what comes out of the last; in the mode that they are in.

    Errors: AssertionError for a stage that writes into its input. Every input is kept to the end: a later stage may
    write into a view of it.
    """
    kept, x = [], images
    for stage in stages:
        kept.append((x, x.clone()))
        x = stage(x)
    for (now, before), name in zip(kept, stages._modules, strict=True):
        assert torch.equal(now, before), f"the input of {name} was overwritten"
    return [*(now for now, _ in kept), x]


@torch.no_grad()
def check_stages(stages: nn.Sequential, images: Tensor, expected: Tensor, inside: Mapping[int, Tensor] = NONE) -> int:
    """Stages in eval mode against the model that they are made of: they compute ``expected``, and no stage knows
    more than what it is given. Each is run a second time, the last one first, on the same input: its output must be the
    same, so that a cut at any boundary gives what the whole gives.

    ``inside``: id of a module -> its output inside the model. Returns the number of stages that end in one of these.
    """
    *inputs, output = run_stages(stages.eval(), images)
    assert torch.equal(output, expected), "the output of the whole"
    compared, after = 0, output
    for (name, stage), x in zip(reversed(stages._modules.items()), reversed(inputs), strict=True):
        assert torch.equal(stage(x), after), f"cut before {name}"
        last = id(next(reversed(stage._modules.values()), stage))
        if last in inside:  # not a function between the model's modules
            assert torch.equal(after, inside[last]), f"output of {name}"
            compared += 1
        after = x
    return compared
