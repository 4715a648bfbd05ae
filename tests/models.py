"""Small staged models, so that most tests need no real backbone."""

from collections import OrderedDict

import torch
from torch import nn

from tlbench.machine.arithmetic import Arithmetic
from tlbench.policies import freezing
from tlbench.policies.base import Phase
from tlbench.policies.parse import form, parse_policy
from tlbench.policies.table import POLICIES
from tlbench.train.loop import Batching, Trainer, plan_epochs
from tlbench.train.recipe import resolve


def tiny(classes: int = 3, width: int = 4) -> nn.Sequential:
    """Stem, two stages with BatchNorm and dropout, a parameter-free neck and a head."""

    def stage(inputs: int) -> nn.Sequential:
        return nn.Sequential(
            OrderedDict(
                conv=nn.Conv2d(inputs, width, 3, padding=1),
                bn=nn.BatchNorm2d(width),
                relu=nn.ReLU(),
                dropout=nn.Dropout(0.5),
            )
        )

    model = nn.Sequential(
        OrderedDict(
            stem=stage(3),
            stage1=stage(width),
            stage2=stage(width),
            neck=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1)),
            head=nn.Sequential(nn.Linear(width, classes)),
        )
    )
    # BatchNorm at its defaults hides errors: 1 x + 0 is what no BatchNorm gives.
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.normal_(module.running_mean)
            nn.init.normal_(module.bias)
    return model


class Pictures:
    """Random images (uint8) as a `tlbench.train.source.Source` that keeps no activations."""

    arithmetic = Arithmetic(device=torch.device("cpu"))
    place = torch.device("cpu")

    def __init__(self, samples: int = 20, classes: int = 3, size: int = 8, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.images = torch.randint(256, (samples, 3, size, size), generator=generator, dtype=torch.uint8)
        self.labels = torch.randint(classes, (samples,), generator=generator)

    def __len__(self) -> int:
        return len(self.labels)

    def raw(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.images[positions], self.labels[positions]

    def follow(self, batches: object) -> None:
        """All of them are in memory."""

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        return images.float().div_(255).sub_(0.5).div_(0.25)

    def stored(self, boundary: int, epoch: int | None) -> None:
        return None


RECIPE = resolve(parse_policy("full"), "adamw", None, None, {})
"""Every default of AdamW."""


def examples(name: str) -> tuple[str, ...]:
    """How a row of the table of policies is written in tests."""
    return POLICIES[name].examples or (form(name),)


def phases_of(model: nn.Sequential, text: str, epochs: int = 10) -> tuple[Phase, ...]:
    """The phases of a policy for a staged model."""
    policy = parse_policy(text)
    return policy.phases(freezing.describe(model, owns=policy.owns), epochs)


def trainer(model: nn.Sequential, plan: list[Phase] | str, epochs: int = 1, **options) -> Trainer:
    """A training run on `Pictures`: ``plan`` is the phase of each epoch, or a policy's name."""
    if isinstance(plan, str):
        plan = plan_epochs(phases_of(model, plan, epochs), epochs)
    source = options.pop("source", None) or Pictures()
    batching = Batching(size=options.pop("batch_size", 8), seed=options.pop("seed", 0))
    return Trainer(model, plan, source=source, batching=batching, **{"recipe": RECIPE, **options})


def trained(model: nn.Sequential, plan: list[Phase] | str, epochs: int = 1, **options) -> Trainer:
    """The same, run to its end."""
    run = trainer(model, plan, epochs, **options)
    for _ in run.plan:
        run.start_epoch()
        run.run_epoch()
    return run
