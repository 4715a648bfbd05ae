"""What can be chosen on an axis that has a table of its own: name -> what it is. The other tables lie with what they
hold: heads, policies, backbones, data sets.
"""

from __future__ import annotations

TASKS = {
    "train": "train on the data set, one round an epoch; accuracy at the end",
    "infer": "throughput in batches and latency at batch size 1",
}
PRECISIONS = {
    "fp32": "32-bit floating point everywhere",
    "tf32": "fp32, matrix products and convolutions rounded to TF32 on CUDA",
    "bf16": "autocast to bfloat16; weights stay fp32",
    "fp16": "autocast to float16 with a scaled loss; weights stay fp32",
    "bf16_weights": "weights, images and all that is computed in bfloat16, for inference",
}
LAYOUTS = {
    "auto": "the faster one, measured once per backbone and machine",
    "contiguous": "torch's default, NCHW",
    "channels_last": "NHWC in memory",
}
COMPILE = {
    "off": "eager",
    "on": "torch.compile in its mode `default`; shapes are static, and the seconds of compiling count as training",
    "reduce-overhead": "torch.compile, with CUDA graphs",
    "max-autotune": "torch.compile, which tries kernels out, with CUDA graphs",
    "cuda-graph": "no torch.compile: a step of training on activations stored on the GPU is one CUDA graph",
}
FUSED = {
    "auto": "one kernel for the optimizer's step where the device has it",
    "on": "one kernel for the optimizer's step",
    "off": "torch's default step",
}
OPTIMIZERS: dict[str, dict[str, float]] = {
    "adamw": {"lr": 3e-3, "backbone_factor": 0.1, "weight_decay": 0.01},
    "sgd": {"lr": 3e-2, "backbone_factor": 0.1, "weight_decay": 1e-4},
}
"""Defaults: the head's learning rate, the backbone's as a factor of it, weight decay. SGD has momentum 0.9."""
DECODE = {
    "exact": "every pixel of the file, then made smaller",
    "scaled": "JPEGs at 1/2, 1/4 or 1/8 of their size by libjpeg, where that leaves at least twice the pixels a side "
    "that are asked for",
    "auto": "the same where it leaves at least four times as many",
}
SCHEDULES = {"cosine": "falls to 0 along half a cosine", "constant": "stays as it is"}
CLASS_WEIGHTS = {
    "none": "every image counts the same",
    "balanced": "the loss of an image counts n / (k * count of its class), as scikit-learn's `balanced`",
}
SAMPLERS = {
    "shuffle": "every image once an epoch, in an order by seed and epoch",
    "balanced": "as many images an epoch, drawn with replacement so that all classes come as often (oversampling)",
}
AUGMENTATIONS = {
    "none": "the images as they are",
    "flip": "left and right exchanged for half of the images",
    "randaugment": "flip, then two random operations of RandAugment (Cubuk 2020)",
}
ALLOCATORS = {
    "keep": "freed memory stays with the process: the next step does not have to ask the kernel for it again",
    "system": "as the C library does it: the largest tensors are mapped and unmapped anew, every time",
}
PREFIX = {
    "auto": "keep the frozen prefix's activations where there is room for them",
    "on": "keep them, or fail when there is no room",
    "off": "compute the prefix in every epoch",
}
