"""Freeze policies as data: which parameters train, at which learning-rate scale, in which phase.

A policy sees the model only as a sequence of `Param`: pure functions, testable without torch.
`tlbench.policies.freezing` is the one place that applies a phase to a model, `tlbench.train.optimizer` the one that
turns scales into rates. One file, since it is one table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from tlbench.errors import NotApplicable
from tlbench.policies import lora as low_rank
from tlbench.policies.base import HEAD, NECK, NO_ARGUMENTS, SCALE, Argument, Arguments, Outline, Param, Phase, Policy

# --- the policies ---------------------------------------------------------------------------------------------


def _one(name: str, scales: Mapping[str, float]) -> list[Phase]:
    return [Phase(name=name, scales=scales)]


def linear_probe(model: Outline, _: Arguments, epochs: int) -> list[Phase]:
    """Trains the head alone, by steps as every policy (Kornblith 2019 and Kumar 2022 by L-BFGS: the head logreg)."""
    return _one("linear_probe", model.select(lambda p: False))


def full(model: Outline, _: Arguments, epochs: int) -> list[Phase]:
    """Trains everything. The backbone's rate is ``scale`` times the head's (an argument that the recipe looks at)."""
    return _one("full", model.select(lambda p: True))


def scratch(model: Outline, _: Arguments, epochs: int) -> list[Phase]:
    """Trains everything; the grid gives this policy random weights."""
    return _one("scratch", model.select(lambda p: True))


def last_k(model: Outline, arguments: Arguments, epochs: int) -> list[Phase]:
    """Trains the last K stages, the neck and the head: the backward pass ends early and the rest can be cached."""
    k = _k(model, arguments, "last")
    return _one(f"last_{k}", model.select(lambda p: model.depth(p.group) >= len(model.stages) - k))


def first_k(model: Outline, arguments: Arguments, epochs: int) -> list[Phase]:
    """Trains the first K stages and the head (in Lee 2022 the classes stay, and so does the head); the rest is frozen
    but still back-propagated through.
    """
    k = _k(model, arguments, "first")
    return _one(f"first_{k}", model.select(lambda p: p.group != NECK and model.depth(p.group) < k))


def _k(model: Outline, arguments: Arguments, word: str) -> int:
    k = int(arguments["place"])
    if not 1 <= k <= len(model.stages):
        raise NotApplicable(f"{word}_{k}: this backbone has {len(model.stages)} stages ({', '.join(model.stages)})")
    return k


def stage_name(model: Outline, arguments: Arguments, epochs: int) -> list[Phase]:
    """Trains one stage and the head (in Lee 2022 the classes stay, and so does the head)."""
    given = str(arguments["place"])
    name = next((n for n in (given, f"stage{given}") if n in model.groups), None)
    if name is None:
        raise NotApplicable(f"stage_{given}: this backbone has the stages {', '.join(model.groups)}")
    return _one(f"stage_{given}", model.select(lambda p: p.group == name))


def _of_kind(model: Outline, name: str, what: str, trains: Callable[[Param], bool]) -> dict[str, float]:
    if not any(trains(p) and p.group != HEAD for p in model.params):
        raise NotApplicable(f"{name}: this backbone has no {what}")
    return model.select(trains)


def norm(model: Outline, _: Arguments, epochs: int) -> list[Phase]:
    """Trains scale and shift of every normalisation layer, and the head, from pretrained weights (in Frankle 2021
    BatchNorm's, from random ones). BatchNorm normalises with batch statistics and its running ones follow, as there
    (``+bn=freeze`` holds them still).
    """
    return _one("norm", _of_kind(model, "norm", "normalisation layer with parameters", lambda p: p.kind == "norm"))


def bias(model: Outline, _: Arguments, epochs: int) -> list[Phase]:
    """Trains every bias, BatchNorm's shift included, and the head, without TinyTL's lite residual modules. The
    statistics are no bias: they hold still.
    """
    scales = _of_kind(model, "bias", "bias", lambda p: p.is_bias)
    return [Phase(name="bias", scales=scales, bn="freeze")]


def norm_bias(model: Outline, _: Arguments, epochs: int) -> list[Phase]:
    """Trains what `norm` and `bias` train together."""
    scales = _of_kind(model, "norm_bias", "bias or normalisation layer", lambda p: p.is_bias or p.kind == "norm")
    return _one("norm_bias", scales)


LP_FT_HEAD = 0.1
"""Factor on the head's learning rate once everything trains."""


def lp_ft(model: Outline, arguments: Arguments, epochs: int) -> list[Phase]:
    """Trains the head by steps (Kumar 2022 by logistic regression), then everything with a new optimizer and a schedule
    of its own. The head's rate falls to a tenth; the backbone's, which is a tenth of it by default, is what it is in
    `full`.
    """
    share = arguments["share"]
    scales = {p.name: LP_FT_HEAD if p.group == HEAD else 1.0 for p in model.params}
    return [
        replace(linear_probe(model, {}, epochs)[0], share=share),
        Phase(name="fine_tune", scales=scales, share=1 - share, fresh=True),
    ]


def gradual(model: Outline, _: Arguments, epochs: int) -> list[Phase]:
    """Trains the head, then one more stage an epoch from the top, then everything until the end; unlike ULMFiT's code,
    all stages at one rate (there each at the one above it over 2.6), by the run's schedule (there a slanted triangle).

    As there, each phase has an optimizer and a schedule of its own.
    """
    stages = len(model.stages)
    phases = linear_probe(model, {}, epochs)
    phases += [last_k(model, {"place": k}, epochs)[0] for k in range(1, stages + 1)]
    lengths = [1] * stages + [max(1, epochs - stages)]
    return [replace(p, share=n / sum(lengths), fresh=True) for p, n in zip(phases, lengths, strict=True)]


def freeze_out(model: Outline, arguments: Arguments, epochs: int) -> list[Phase]:
    """Trains everything, frozen bottom-up by stages (in FreezeOut by layers): stage i of L learns until
    t_i = (t0 + (1 - t0) i / L)^3 of the run, at the rate 1/2 (lr / t_i) (1 + cos(pi t / t_i)), and leaves the optimizer
    at the end of that epoch.
    """
    t0, top = arguments["t0"], len(model.stages)
    ends = {p.name: (t0 + (1 - t0) * model.depth(p.group) / top) ** 3 for p in model.params}
    phases: list[tuple[set[str], int]] = []  # what still trains, for how many epochs
    for epoch in range(epochs):
        trains = {name for name, end in ends.items() if end > epoch / epochs}
        if phases and phases[-1][0] == trains:
            phases[-1] = (trains, phases[-1][1] + 1)
        else:
            phases.append((trains, 1))
    return [
        Phase(
            name=f"freeze_out_{index}",
            scales={p.name: 1 / ends[p.name] for p in model.params if p.name in trains},
            ends=ends,
            share=count / epochs,
        )
        for index, (trains, count) in enumerate(phases)
    ]


def layer_decay(model: Outline, arguments: Arguments, epochs: int) -> list[Phase]:
    """Trains everything: what lies n blocks below the head at lr d^n, with one rate lr for backbone and head.

    The blocks are those of timm's `param_groups_layer_decay`: of its own models as it counts them, of torchvision's as
    it counts its model of the family (a test holds both). There as here some pretrained layers behind the last block
    count with the head: ConvNeXt's last norm, the hidden layers of VGG's classifier. A backbone from outside that lists
    no blocks is counted by stages.
    """
    return _one("layer_decay", {p.name: arguments["decay"] ** model.below_head(p) for p in model.params})


def l2_sp(model: Outline, arguments: Arguments, epochs: int) -> list[Phase]:
    """Trains everything, pulled towards the initial weights; weight decay on the head alone."""
    return [replace(full(model, {}, epochs)[0], name="l2_sp", anchor=arguments["alpha"])]


def lora(model: Outline, _: Arguments, epochs: int) -> list[Phase]:
    """Trains the low-rank factors of linear and convolution layers (in Hu 2021 of attention's alone), and the head."""
    scales = _of_kind(model, "lora", "layer that takes low-rank factors", lambda p: p.kind == "adapter")
    return [Phase(name="lora", scales=scales, bn="freeze")]


def auto_rgn(model: Outline, _: Arguments, epochs: int) -> list[Phase]:
    """Trains all but BatchNorm, each tensor at the rate of its relative gradient norm; unlike the official code, with
    AdamW (there Adam), by the run's schedule (there a constant rate), at one rate (there the best of five).

    As there, the head is one of the tensors, the rates and the optimizer are renewed every epoch, BatchNorm holds
    still altogether, and one rate stands for backbone and head. BatchNorm is told by its type, there by the letters bn
    in its name, which miss ResNet's shortcuts. A tensor of zeros, which there divides by zero, gets the full rate.
    """
    scales = model.select(lambda p: not p.is_batch_norm)
    return [Phase(name="auto_rgn", scales=scales, by_gradient=True, bn="freeze")]


POLICIES: dict[str, Policy] = {
    "linear_probe": Policy(
        summary="the head alone; the backbone is a fixed feature extractor",
        source="Kornblith 2019, Kumar 2022",
        departs="trained by steps as every policy, not by L-BFGS (the head logreg is)",
        build=linear_probe,
        arguments=NO_ARGUMENTS,
    ),
    "last_K": Policy(
        summary="the last K stages and the head",
        source="usual practice",
        build=last_k,
        arguments=NO_ARGUMENTS,
        examples=("last_1", "last_2"),
    ),
    "first_K": Policy(
        summary="the first K stages and the head (surgical fine-tuning)",
        source="Lee 2022",
        departs="the head is new and trains; there the classes stay, and so does the head",
        build=first_k,
        arguments=NO_ARGUMENTS,
        examples=("first_1",),
    ),
    "stage_NAME": Policy(
        summary="one stage and the head",
        source="Lee 2022",
        departs="as first_K",
        build=stage_name,
        arguments=NO_ARGUMENTS,
        examples=("stage_1",),
    ),
    "norm": Policy(
        summary="scale and shift of the normalisation layers, and the head",
        source="Frankle 2021",
        departs="pretrained weights and every kind of normalisation; there random weights and BatchNorm",
        build=norm,
        arguments=NO_ARGUMENTS,
    ),
    "bias": Policy(
        summary="every bias and the head, without weight decay; normalisation statistics hold still",
        source="BitFit, Ben Zaken 2022; TinyTL, Cai 2020",
        departs="without TinyTL's lite residual modules",
        build=bias,
        arguments=NO_ARGUMENTS,
        defaults={"weight_decay": 0.0},
    ),
    "norm_bias": Policy(
        summary="normalisation layers, every bias and the head",
        source="the union of norm and bias",
        build=norm_bias,
        arguments=NO_ARGUMENTS,
    ),
    "full": Policy(
        summary="everything, the backbone at a tenth of the head's rate; full(1): one rate for all",
        source="usual fine-tuning",
        build=full,
        arguments={SCALE: Argument(default=0.1, least=0.0001, most=10)},
    ),
    "lp_ft": Policy(
        summary="the head for a share of the epochs, then everything, the head at a tenth of its rate",
        source="Kumar 2022",
        departs="the head is trained by steps; there by logistic regression",
        build=lp_ft,
        arguments={"share": Argument(default=0.5, least=0.01, most=0.99)},
    ),
    "gradual": Policy(
        summary="the head, then one more stage an epoch from the top, then everything until the end",
        source="ULMFiT, Howard 2018",
        departs="one rate for all stages, the run's schedule in each phase",
        version=2,
        build=gradual,
        arguments=NO_ARGUMENTS,
    ),
    "freeze_out": Policy(
        summary="everything, frozen bottom-up as training goes on",
        source="FreezeOut, Brock 2017",
        departs="by stages, not by layers",
        build=freeze_out,
        arguments={"t0": Argument(default=0.8, least=0.01, most=1)},
        # The policy is a schedule: a rise at the start is not part of it.
        schedule="cosine",
        defaults={"warmup": 0.0},
    ),
    "layer_decay": Policy(
        summary="everything, the rate falling by a factor a block from the head down",
        source="BEiT, Bao 2022; timm",
        version=2,
        build=layer_decay,
        arguments={"decay": Argument(default=0.75, least=0.01, most=1)},
        defaults={"backbone_factor": 1.0},
    ),
    "l2_sp": Policy(
        summary="everything, pulled towards the initial weights",
        source="Li 2018",
        build=l2_sp,
        arguments={"alpha": Argument(default=0.01, least=0, most=100)},
        # The penalty is part of the loss; Adam would divide it away.
        optimizer="sgd",
    ),
    "lora": Policy(
        summary="low-rank factors in linear and convolution layers, and the head",
        source="Hu 2021",
        departs="factors in every linear and plain convolution layer; there in attention's projections",
        build=lora,
        arguments={
            "r": Argument(default=8, least=1, most=1024, whole=True),
            "alpha": Argument(default=16, least=1, most=4096, whole=True),
        },
        adapter=low_rank.ADAPTER,
    ),
    "auto_rgn": Policy(
        summary="all but BatchNorm, each tensor at the rate of its relative gradient norm, renewed every epoch",
        source="Lee 2022",
        departs="AdamW for Adam, the run's schedule for a constant rate",
        version=2,
        build=auto_rgn,
        arguments=NO_ARGUMENTS,
        defaults={"backbone_factor": 1.0, "warmup": 0.0},
    ),
    "scratch": Policy(
        summary="everything, from random weights: the floor to compare with",
        source="usual practice",
        build=scratch,
        arguments=NO_ARGUMENTS,
        weights="random",
        # No part of it knows anything yet, so all of it has one rate, lower than a lone head's.
        defaults={"lr_factor": 1 / 3, "backbone_factor": 1.0},
    ),
}
