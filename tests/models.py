"""Small staged models, so that most tests need no real backbone."""

from collections import OrderedDict

import torch
from torch import nn


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


def source(samples: int = 20, classes: int = 3, size: int = 8, seed: int = 0):
    """Random images as a `tlbench.train.Source`."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(samples, 3, size, size, generator=generator)
    labels = torch.randint(classes, (samples,), generator=generator)
    return lambda positions: (images[positions], labels[positions])
