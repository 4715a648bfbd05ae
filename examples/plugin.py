"""One of everything that a file of yours can add, to be copied from: a backbone, a policy, an adapter with its policy,
a head, a training-free head, a data set and a plot.

    tlbench run --plugin examples/plugin.py --backbone mynet --freeze convolutions --head normed --dataset stripes
"""

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

from tlbench.backbones import CUSTOM, Custom
from tlbench.backbones.base import InputSpec, Parts
from tlbench.data import DATASETS, Dataset
from tlbench.data.splits import divide
from tlbench.data.store import make_images
from tlbench.heads import HEADS, Fitted, Head, linear
from tlbench.policies.base import Adapter, Phase, Policy
from tlbench.policies.table import POLICIES
from tlbench.report.plots import PLOTS
from tlbench.report.plots.look import Plot


class MyNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.block = nn.Conv2d(3, 8, 3, stride=2), nn.Conv2d(8, 64, 3, stride=2)
        self.pool, self.fc = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1)), nn.Linear(64, 1000)

    def forward(self, images):
        return self.fc(self.pool(self.block(self.stem(images))))


def stages(m):  # lists of (name, module), sharing the model's modules
    return Parts(
        body=[[("stem", m.stem)], [("block", m.block)]], neck=[("pool", m.pool)], head=[("fc", m.fc)], features=64
    )


CUSTOM["mynet"] = Custom(
    build=MyNet,
    parts=stages,
    input=InputSpec(size=64, resize=64, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bilinear"),
)


def convolutions(model, arguments, epochs):
    return [Phase(name="convolutions", scales=model.select(lambda p: p.kind == "conv"))]


POLICIES["convolutions"] = Policy(summary="convolutions and the head", source="mine", build=convolutions, arguments={})


class Scaled(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer, self.factors = layer, nn.Parameter(torch.ones(layer.out_channels, 1, 1))

    def forward(self, x):
        return self.layer(x) * self.factors


def put_in(model, arguments, size):
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2d):
                setattr(parent, name, Scaled(child))


def factors(model, arguments, epochs):
    return [Phase(name="factors", scales=model.select(lambda p: p.kind == "adapter"), bn="freeze")]


POLICIES["factors"] = Policy(
    summary="a learned factor a channel, and the head", source="IA3, Liu 2022", build=factors, arguments={},
    adapter=Adapter(inject=put_in, owns=lambda name: name.endswith(".factors")),
)  # fmt: skip


def normed(features, classes):
    return nn.Sequential(nn.LayerNorm(features), nn.Linear(features, classes))


def centroid(x, y, x_val, y_val):
    means = np.stack([x[y == label].mean(0) for label in range(y.max() + 1)])
    return Fitted(weight=means, bias=-(means**2).sum(1) / 2)


HEADS["normed"] = Head(summary="a normalised linear layer", build=normed)
HEADS["centroid"] = Head(summary="training-free: the nearest mean", build=linear, fit=centroid)


def stripes(request):
    pixels = np.random.default_rng(0).integers(0, 200, (60, 3, request.size, request.size), np.uint8)
    pixels[30:, :, ::2] += 50
    images = make_images(pixels, [0] * 30 + [1] * 30, ["plain", "striped"])
    return images, divide(range(60), images.labels, images.classes, {"val": 0.2, "test": 0.2}, request.seed)


DATASETS["stripes"] = Dataset(summary="noise, plain or striped", load=stripes, classes=2)


def sizes(rows):
    figure = Figure(layout="constrained")
    known = [row for row in rows if row["trainable_parameters"]]
    figure.subplots().barh([row["freeze"] for row in known], [row["trainable_parameters"] for row in known])
    return figure


PLOTS["sizes"] = Plot(title="Trainable parameters", caption="By policy.", draw=sizes)
