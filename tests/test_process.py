"""How a cell sets the process up, and that it puts it back."""

import json
import platform
import subprocess
import sys
import warnings

import pytest
import torch
from tiers import sweep

from tlbench.grid.cell import Cell
from tlbench.grid.choices import ALLOCATORS
from tlbench.grid.settings import Settings
from tlbench.machine import process
from tlbench.machine.process import apply, set_allocator, set_up
from tlbench.measure.breakdown import step_parts
from tlbench.measure.build import build
from tlbench.measure.cell import run_cell
from tlbench.measure.rates import recipe_of
from tlbench.policies.parse import parse_policy
from tlbench.train.loop import Trainer

CELL = Cell(
    backbone="mobilenet_v3_small", weights="random", image_size=32, train_size=20, epochs=1, layout="contiguous"
)


def state():
    return (
        torch.get_num_threads(),
        torch.get_float32_matmul_precision(),
        torch.backends.cudnn.allow_tf32,
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
        torch.utils.deterministic.fill_uninitialized_memory,
        process._in_force[-1],
    )


@pytest.fixture
def unusual():
    """A process that is set otherwise than any cell would set it."""
    before = state()
    torch.set_num_threads(before[0] + 1)
    torch.set_float32_matmul_precision("medium")
    set_allocator("system")
    yield
    torch.set_num_threads(before[0])
    torch.set_float32_matmul_precision(before[1])
    set_allocator(before[-1])


@pytest.mark.exhaustive
@pytest.mark.usefixtures("unusual")
def test_a_cell_leaves_the_process_as_it_was():
    before = state()
    record = run_cell(CELL, Settings(threads=1, deterministic=False))
    assert (record.status, record.reason) == ("ok", "")
    assert record.environment["settings"]["threads"] == 1
    assert record.environment["settings"]["allocator"] in ("keep", None)
    assert record.environment["arithmetic"]["matmul_precision"] == "highest"
    assert state() == before


@pytest.mark.usefixtures("unusual")
def test_what_fails_inside_leaves_the_process_as_it_was_too():
    before = state()
    with pytest.raises(RuntimeError, match="on purpose"), set_up(1, "tf32", True, "keep"):  # noqa: PT012
        assert torch.get_num_threads() == 1
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.are_deterministic_algorithms_enabled()
        raise RuntimeError("on purpose")
    assert state() == before


@pytest.mark.usefixtures("unusual")
def test_cells_that_take_turns_share_one_set_up():
    before = state()
    with set_up(1, "fp32", True, "keep"):
        apply(2, "tf32", False)
        assert (torch.get_num_threads(), torch.get_float32_matmul_precision()) == (2, "high")
        assert not torch.are_deterministic_algorithms_enabled()
    assert state() == before


def test_operations_without_a_deterministic_form_are_named_and_other_warnings_pass():
    with pytest.warns(UserWarning, match="something else") as seen, set_up(None, "fp32", True, "keep") as found:  # noqa: PT031
        for _ in range(2):
            warnings.warn("put_ does not have a deterministic implementation, but you set …", stacklevel=1)
        warnings.warn("something else", stacklevel=1)
        assert found.nondeterministic == ("put_",)
    assert len(seen) == 1


def test_every_allocator_can_be_asked_for():
    for name in ALLOCATORS:
        assert set_allocator(name) in (name, None)


FAULTS = """
import json, resource, sys, torch
from tlbench.machine.process import set_allocator

def faults(megabytes, times=20):
    taken = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(3):
        torch.ones(megabytes * 2**18)
    before = taken()
    for _ in range(times):
        torch.ones(megabytes * 2**18)
    return (taken() - before) / times * 4096 / 2**20

for name in sys.argv[1:]:
    if set_allocator(name) is None:
        sys.exit(3)
print(json.dumps([faults(20), faults(80)]))
"""


@pytest.mark.exhaustive
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's ways are known")
def test_left_to_the_system_means_as_in_any_other_process():
    """Megabytes that the kernel has to give anew for each tensor of 20 and 80 MB; setting anything at all ends the
    library's own adjustment, after which a static threshold of 128 kB cost 48 % of an inference."""

    def anew(*names):
        done = subprocess.run([sys.executable, "-c", FAULTS, *names], capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    for names in ((), ("keep", "system")):
        below, beyond = anew(*names)
        assert below < 10, f"{names}: the library adjusts its threshold to tensors that it has seen"
        assert beyond == pytest.approx(80, abs=5), f"{names}: but not beyond 32 MiB"
    assert max(anew("keep")) < 10


# --- the parts of a step ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("freeze", "precision"), sweep([("l2_sp", "fp32"), ("full", "fp16")], {("l2_sp", "fp32")}))
def test_the_parts_are_those_of_the_step_that_is_timed(monkeypatch, freeze, precision):
    """L2-SP's pull and fp16's scaler are in a step, and so in its parts."""
    pulls, steps = [], []
    pull, step = Trainer._pull, Trainer.step

    def counted(self, number, positions, mark):
        parts = []
        loss = step(self, number, positions, lambda part: (parts.append(part), mark(part)))
        steps.append((parts, self.scaler))
        return loss

    monkeypatch.setattr(Trainer, "_pull", lambda self, alpha: (pulls.append(alpha), pull(self, alpha)))
    monkeypatch.setattr(Trainer, "step", counted)
    policy = parse_policy(freeze)
    cell = Cell(**{**vars(CELL), "freeze": freeze, "precision": precision, "batch_size": 10})
    built = build(cell, Settings(), policy)
    seconds = step_parts(built, policy.phases(built.described, 1), recipe_of(built, policy))
    assert set(seconds) == {"data", "forward", "backward", "optimizer", "launch"}
    assert all(parts == ["data", "forward", "backward", "optimizer"] for parts, _ in steps)
    assert len(pulls) == (len(steps) if freeze == "l2_sp" else 0)
    assert all((scaler is not None) == (precision == "fp16") for _, scaler in steps)
