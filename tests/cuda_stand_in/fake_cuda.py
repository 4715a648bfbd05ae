"""Works out the shapes and devices of training steps and an evaluation of many backbones on `cuda`, without computing
them (FakeTensorMode): a tensor that is left on the CPU shows as an error. The exit status is the number of errors.

    python tests/cuda_stand_in/launch.py python tests/cuda_stand_in/fake_cuda.py 'resnet*' timm:test_vit
"""

import copy
import fnmatch
import sys
import time
import warnings

import numpy as np
import stand_in
import torch
from torch._subclasses import FakeTensorMode

from tlbench.backbones import BACKBONES, load_backbone
from tlbench.data import Split
from tlbench.errors import NotApplicable
from tlbench.machine.arithmetic import Arithmetic
from tlbench.measure.build import assemble
from tlbench.policies.freezing import describe
from tlbench.policies.parse import parse_policy
from tlbench.train.loop import Batching, Trainer
from tlbench.train.prefix import Feed
from tlbench.train.recipe import resolve

CUDA = torch.device("cuda", 0)
VARIANTS = (("full", "fp32", False), ("last_1", "bf16", True), ("norm", "fp16", True))
"""Policy, precision, whether channels_last."""
REST = {"schedule": "cosine", "label_smoothing": 0.1, "augment": "flip", "warmup": 0.1, "fused": True}


def faked(model, channels_last):
    """A copy whose parameters and buffers are fake and on `cuda`. Other tensors that hang on it stay as they are, as
    with `Module.to`, which itself cannot swap in fake tensors.
    """

    def put(t):
        new = torch.empty(t.shape, dtype=t.dtype, device=CUDA)
        return new.contiguous(memory_format=torch.channels_last) if channels_last and t.ndim == 4 else new

    parameters = {id(t): torch.nn.Parameter(put(t), t.requires_grad) for t in model.parameters()}
    return copy.deepcopy(model, parameters | {id(t): put(t) for t in model.buffers()})


def check(backbone, model, policy, precision, channels_last):
    """Errors: whatever the operations raise; AssertionError for a tensor on the CPU."""
    expression = parse_policy(policy)
    size, phases = backbone.input.size, expression.phases(describe(model, backbone.group_of), 4)
    with FakeTensorMode(allow_non_fake_inputs=True):
        mine = faked(model, channels_last)
        pixels = np.zeros((8, 3, size, size), np.uint8)
        split = Split(pixels=pixels, positions=np.arange(8), classes=np.zeros(8, np.int64))
        arithmetic = Arithmetic(device=CUDA, precision=precision, channels_last=channels_last)
        feed = Feed(split, backbone.input, arithmetic)
        recipe = resolve(expression, "auto", None, None, REST)
        for phase in phases:
            train(Trainer(mine, [phase], recipe, feed, Batching(size=4, seed=0)), phase)
        mine.eval()
        with torch.inference_mode(), arithmetic.autocast():
            scores = mine(feed.normalise(feed.raw(torch.arange(4))[0]))
        assert scores.device.type == "cuda", f"scores on {scores.device}"
        assert scores.shape[0] == 4, f"scores of shape {tuple(scores.shape)}"


def train(trainer, phase):
    """Takes two steps, as `Trainer` does in an epoch."""
    trainer.scaler = None  # it asks for a value, and there is none
    trainer.epoch, trainer.order, trainer.stored = 0, [torch.arange(4), torch.arange(4, 8)], None
    trainer._start_phase(phase)
    trainer.set_modes()
    for number, positions in enumerate(trainer.order):
        loss = trainer.step(number, positions)
        assert loss.device.type == "cuda", f"loss on {loss.device}"
    for group in trainer.optimizer.param_groups:
        for p in group["params"]:
            assert p.grad is None or p.grad.device.type == "cuda", f"a gradient on {p.grad.device}"


def main():
    stand_in.stop()
    warnings.filterwarnings("ignore")
    patterns = sys.argv[1:] or ["*"]
    names = [name for name in BACKBONES if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]
    errors = 0
    for name in names + [pattern for pattern in patterns if pattern.startswith("timm:")]:
        begin, said = time.monotonic(), []
        backbone = load_backbone(name, "random")
        model = assemble(backbone, "linear", 10)
        for variant in VARIANTS:
            try:
                check(backbone, model, *variant)
                said.append("ok")
            except NotApplicable:
                said.append("not applicable")
            except Exception as error:
                errors += 1
                said.append(f"{type(error).__name__}: {str(error).partition(chr(10))[0][:140]}")
        print(f"{name:36s} {time.monotonic() - begin:5.1f} s  {' | '.join(said)}", flush=True)
    return min(errors, 100)


if __name__ == "__main__":
    sys.exit(main())
