"""torchvision's classifiers as stages: one short function a family, keyed on the model's class.

``Sequential(*children()[:-1])`` is silently different for half of the architectures, because what happens between
the modules (flattening, a functional ReLU, a class token) is not among the children. Each function here names it.
One file, since it is one table.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torchvision import models

from tlbench.backbones import weights as checkpoints
from tlbench.backbones.base import Anatomy, Call, InputSpec, Named, Parts, anatomy
from tlbench.backbones.cutting import (
    blocks,
    children,
    class_token,
    each,
    flatten,
    has_stride,
    is_pool,
    mean,
    named,
    pool,
    prefixed,
    split_after,
    split_before,
    starting,
    with_last,
)
from tlbench.errors import UserError


def alexnet(m: models.AlexNet) -> Parts:
    convs = split_before(children(m.features), lambda q: isinstance(q, nn.Conv2d))
    convs[-1] += [*named(m, "avgpool"), flatten()]
    fc = prefixed("classifier", children(m.classifier))
    return Parts(
        body=[*convs, fc[:3], fc[3:6]],
        neck=[],
        head=fc[6:],
        features=m.classifier[6].in_features,
        blocks=blocks(m.features),
    )


def vgg(m: models.VGG) -> Parts:
    convs = split_after(children(m.features), is_pool)
    convs[-1] += [*named(m, "avgpool"), flatten()]
    fc = prefixed("classifier", children(m.classifier))
    return Parts(
        body=[*convs, fc[:2], fc[2:5]],
        neck=[],
        head=fc[5:],
        features=m.classifier[6].in_features,
        blocks=blocks(m.features),
    )


def resnet(m: models.ResNet) -> Parts:
    return Parts(
        body=[named(m, "conv1", "bn1", "relu", "maxpool"), *each(named(m, "layer1", "layer2", "layer3", "layer4"))],
        neck=[*named(m, "avgpool"), flatten()],
        head=named(m, "fc"),
        features=m.fc.in_features,
        blocks=[[m.conv1, m.bn1], *blocks(m.layer1, m.layer2, m.layer3, m.layer4)],
    )


def densenet(m: models.DenseNet) -> Parts:
    # The functional ReLU after `features` is in place in torchvision; torch.relu leaves a cached activation alone.
    f = children(m.features)
    dense: list[list[nn.Module]] = []
    for name, module in f[4:-1]:
        if name.startswith("transition"):
            dense[-1].append(module)
        else:
            dense += blocks(module.children())
    return Parts(
        body=[f[:4], f[4:6], f[6:8], f[8:10], f[10:]],
        neck=[("relu", Call(torch.relu)), ("pool", Call(pool)), flatten()],
        head=named(m, "classifier"),
        features=m.classifier.in_features,
        blocks=[[module for _, module in f[:4]], *dense],  # not the last norm: it counts with the head
    )


class TransformInput(nn.Module):
    """Changes the ImageNet normalisation into the one of the original (TensorFlow) weights, (x - 0.5) / 0.5."""

    SCALES = ((0.229, 0.485), (0.224, 0.456), (0.225, 0.406))

    def forward(self, x: Tensor) -> Tensor:
        planes = [x[:, i : i + 1] * (std / 0.5) + (mean - 0.5) / 0.5 for i, (std, mean) in enumerate(self.SCALES)]
        return torch.cat(planes, 1)


def _transform(m: nn.Module) -> Named:
    return [("transform_input", TransformInput())] if m.transform_input else []


def googlenet(m: models.GoogLeNet) -> Parts:
    return Parts(
        body=[
            [*_transform(m), *named(m, "conv1", "maxpool1")],
            named(m, "conv2", "conv3", "maxpool2"),
            [*starting(m, "inception3"), *named(m, "maxpool3")],
            [*starting(m, "inception4"), *named(m, "maxpool4")],
            starting(m, "inception5"),
        ],
        neck=[*named(m, "avgpool"), flatten()],
        head=named(m, "dropout", "fc"),
        features=m.fc.in_features,
        blocks=[[m.conv1], [m.conv2, m.conv3], *blocks(module for _, module in starting(m, "inception"))],
    )


def inception(m: models.Inception3) -> Parts:
    return Parts(
        body=[
            [*_transform(m), *starting(m, "Conv2d_1", "Conv2d_2"), *named(m, "maxpool1")],
            [*starting(m, "Conv2d_3", "Conv2d_4"), *named(m, "maxpool2")],
            starting(m, "Mixed_5"),
            starting(m, "Mixed_6"),
            starting(m, "Mixed_7"),
        ],
        neck=[*named(m, "avgpool"), flatten()],
        head=named(m, "dropout", "fc"),
        features=m.fc.in_features,
        blocks=[
            [module for _, module in starting(m, "Conv2d_1", "Conv2d_2")],
            [module for _, module in starting(m, "Conv2d_3", "Conv2d_4")],
            *blocks(module for _, module in starting(m, "Mixed")),
        ],
    )


def mobilenet_v2(m: models.MobileNetV2) -> Parts:
    return Parts(
        body=split_before(children(m.features), has_stride),
        neck=[("pool", Call(pool)), flatten()],
        head=children(m.classifier),
        features=m.classifier[-1].in_features,
        blocks=with_last(blocks(m.features[:-1]), m.features[-1]),
    )


def mobilenet_v3(m: models.MobileNetV3) -> Parts:
    return Parts(
        body=split_before(children(m.features), has_stride),
        neck=[*named(m, "avgpool"), flatten(), *prefixed("classifier", children(m.classifier, 0, 2))],
        head=children(m.classifier, 2),
        features=m.classifier[-1].in_features,
        blocks=blocks(m.features),
    )


def mnasnet(m: models.MNASNet) -> Parts:
    layers = children(m.layers)
    return Parts(
        body=[layers[:8], *each(layers[8:13]), layers[13:]],
        neck=[("mean", Call(mean))],
        head=children(m.classifier),
        features=m.classifier[-1].in_features,
        blocks=with_last([[*m.layers[:3]], [*m.layers[3:8]], *blocks(*m.layers[8:14])], *m.layers[14:]),
    )


def shufflenet(m: models.ShuffleNetV2) -> Parts:
    return Parts(
        body=[named(m, "conv1", "maxpool"), *each(named(m, "stage2", "stage3")), named(m, "stage4", "conv5")],
        neck=[("mean", Call(mean))],
        head=named(m, "fc"),
        features=m.fc.in_features,
        blocks=with_last([[m.conv1], *blocks(m.stage2, m.stage3, m.stage4)], m.conv5),
    )


def squeezenet(m: models.SqueezeNet) -> Parts:
    # The original head is a 1x1 convolution, ReLU and pooling; a new head sees the pooled maps.
    return Parts(
        body=split_after(children(m.features), is_pool),
        neck=[],
        head=[*children(m.classifier), flatten()],
        features=m.classifier[1].in_channels,
        blocks=blocks(m.features),
        pool=[("pool", Call(pool)), flatten()],
    )


def efficientnet(m: models.EfficientNet) -> Parts:
    return Parts(
        body=each(children(m.features)),
        neck=[*named(m, "avgpool"), flatten()],
        head=children(m.classifier),
        features=m.classifier[-1].in_features,
        blocks=with_last([[m.features[0]], *blocks(*m.features[1:-1])], m.features[-1]),
    )


def regnet(m: models.RegNet) -> Parts:
    return Parts(
        body=[named(m, "stem"), *each(children(m.trunk_output))],
        neck=[*named(m, "avgpool"), flatten()],
        head=named(m, "fc"),
        features=m.fc.in_features,
        blocks=[[m.stem], *blocks(*(stage.children() for stage in m.trunk_output))],
    )


def _four_stages(features: Named) -> list[Named]:
    """Cuts features into a stem and four stages; each downsampling layer belongs to the stage after it."""
    return [features[:1], features[1:2], features[2:4], features[4:6], features[6:]]


def _downsampled(features: nn.Sequential) -> list[list[nn.Module]]:
    """Returns the blocks of such features; each downsampling layer counts with the first block after it."""
    stem, *layers = features
    of_stages = [blocks(stage.children()) for stage in layers[::2]]
    for (first, *_), downsampling in zip(of_stages[1:], layers[1::2], strict=True):
        first.append(downsampling)
    return [[stem], *(block for stage in of_stages for block in stage)]


def convnext(m: models.ConvNeXt) -> Parts:
    return Parts(
        body=_four_stages(children(m.features)),
        neck=[*named(m, "avgpool"), *prefixed("classifier", children(m.classifier, 0, 2))],
        head=children(m.classifier, 2),
        features=m.classifier[-1].in_features,
        blocks=_downsampled(m.features),
    )


def swin(m: models.SwinTransformer) -> Parts:
    return Parts(
        body=_four_stages(children(m.features)),
        neck=named(m, "norm", "permute", "avgpool", "flatten"),
        head=named(m, "head"),
        features=m.head.in_features,
        blocks=with_last(_downsampled(m.features), m.norm),
    )


class ViTEmbedding(nn.Module):
    """Maps images (N, 3, S, S) to tokens (N, 1 + patches, C), with the model's own parameters."""

    def __init__(self, m: models.VisionTransformer) -> None:
        super().__init__()
        self.conv_proj = m.conv_proj
        self.class_token = m.class_token
        self.pos_embedding = m.encoder.pos_embedding
        self.dropout = m.encoder.dropout

    def forward(self, x: Tensor) -> Tensor:
        patches = self.conv_proj(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(len(x), -1, -1), patches], dim=1)
        embedded: Tensor = self.dropout(tokens + self.pos_embedding)
        return embedded


def vit(m: models.VisionTransformer) -> Parts:
    layers = children(m.encoder.layers)
    quarter = len(layers) // 4
    embedding = ViTEmbedding(m)
    return Parts(
        body=[[("embedding", embedding)], *(layers[i : i + quarter] for i in range(0, len(layers), quarter))],
        neck=[("ln", m.encoder.ln), ("class_token", Call(class_token)), *children(m.heads, 0, -1)],
        head=children(m.heads, -1),
        features=m.heads[-1].in_features,
        blocks=with_last([[embedding], *blocks(m.encoder.layers)], m.encoder.ln),
    )


def maxvit(m: models.MaxVit) -> Parts:
    return Parts(
        body=[named(m, "stem"), *each(children(m.blocks))],
        neck=prefixed("classifier", children(m.classifier, 0, 5)),
        head=children(m.classifier, 5),
        features=m.classifier[-1].in_features,
        blocks=[[m.stem], *blocks(m.blocks)],  # timm counts its stages
    )


FAMILIES: dict[type[nn.Module], Callable[..., Parts]] = {
    models.AlexNet: alexnet,
    models.VGG: vgg,
    models.ResNet: resnet,
    models.DenseNet: densenet,
    models.GoogLeNet: googlenet,
    models.Inception3: inception,
    models.MobileNetV2: mobilenet_v2,
    models.MobileNetV3: mobilenet_v3,
    models.MNASNet: mnasnet,
    models.ShuffleNetV2: shufflenet,
    models.SqueezeNet: squeezenet,
    models.EfficientNet: efficientnet,
    models.RegNet: regnet,
    models.ConvNeXt: convnext,
    models.SwinTransformer: swin,
    models.VisionTransformer: vit,
    models.MaxVit: maxvit,
}
"""Model class -> its parts. A family from outside the package adds itself here."""


def family_of(model: nn.Module) -> Callable[..., Parts]:
    """Returns the family's function. Errors: UserError for a class that no family is known of."""
    for kind in type(model).__mro__:
        if kind in FAMILIES:
            return FAMILIES[kind]
    name = type(model).__name__
    raise UserError(f"no stages are known of {name}; add FAMILIES[{name}] in tlbench.backbones.torchvision")


FIXED_SIZE = (models.VisionTransformer, models.MaxVit)
ANY_SIZE = (models.SwinTransformer,)  # its metadata names the training size, but it pads smaller images


def names() -> list[str]:
    """Names torchvision's classifiers."""
    return list(models.list_models(module=models))


def weights_of(name: str, tag: str | None) -> models.WeightsEnum:
    """Returns the weights of a tag, or the default ones."""
    enum = models.get_model_weights(name)
    return enum[tag] if tag else enum.DEFAULT


def top1_of(name: str, tag: str) -> float | None:
    """Returns the ImageNet top-1 accuracy (%) of the weights of a tag, as published; None where there is none, or no
    such tag.
    """
    enum = models.get_model_weights(name) if name in names() else None
    metrics = enum[tag].meta["_metrics"] if enum is not None and tag in enum.__members__ else {}
    found: float | None = metrics.get("ImageNet-1K", {}).get("acc@1")
    return found


def build(name: str, pretrained: bool) -> tuple[nn.Module, str]:
    """Returns the model of ``NAME`` or ``NAME@TAG``, in the configuration that the tag's weights have, and the source
    of its weights: random, or the name of the tag. Errors: Unavailable where pretrained ones cannot be had.
    """
    base, _, tag = name.partition("@")
    enum = weights_of(base, tag or None)
    if not pretrained:
        return build_random(base, enum), "random"
    state = checkpoints.cached_or_downloaded(enum.url)
    model = build_random(base, enum)
    head = [module for _, module in family_of(model)(model).head]
    checkpoints.load_into(model, state, f"the pretrained weights of {base}", head)
    return model, str(enum.name)


def open_up(name: str, model: nn.Module) -> Anatomy:
    """Opens a model up by its family's function and the metadata of the weights."""
    base, _, tag = name.partition("@")
    return anatomy(family_of(model)(model), input_spec(model, weights_of(base, tag or None)))


def build_random(name: str, weights: models.WeightsEnum) -> nn.Module:
    """Returns the model with random weights in the configuration that the pretrained weights have."""
    builder = models.get_model_builder(name)
    options: dict[str, object] = {}
    if name in ("googlenet", "inception_v3"):
        # Auxiliary heads exist for training from scratch on ImageNet only.
        options = {"aux_logits": False, "transform_input": True, "init_weights": True}
    if name.startswith("vit_"):
        options = {"image_size": weights.meta["min_size"][0]}
    model: nn.Module = builder(weights=None, **options)
    return model


def input_spec(model: nn.Module, weights: models.WeightsEnum) -> InputSpec:
    """Reads the input from ``weights.transforms()`` and the weights' metadata."""
    preset = weights.transforms()
    return InputSpec(
        size=preset.crop_size[0],
        resize=preset.resize_size[0],
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        interpolation=preset.interpolation.value,
        fixed_size=isinstance(model, FIXED_SIZE),
        min_size=32 if isinstance(model, ANY_SIZE) else weights.meta["min_size"][0],
    )
