"""What a freeze policy is made of: the parameters that it may look at, and the phases that it gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

HEAD = "head"
NECK = "neck"
BN_MODES = ("freeze", "adapt")
SCALE = "scale"


@dataclass(frozen=True, kw_only=True)
class Param:
    """Says what a policy may know of one parameter."""

    name: str
    """The name as in ``model.named_parameters()``: ``stage1.layer1.0.conv1.weight``."""
    group: str
    """The stage that it belongs to, or ``head``."""
    kind: str
    """norm (scale or shift of a normalisation layer, found by type), conv, linear, adapter (what the policy's adapter
    has put into the model) or other."""
    is_bias: bool
    numel: int
    is_batch_norm: bool = False
    """Whether it is scale or shift of a BatchNorm, which is one kind of ``norm``."""
    blocks_below_head: int | None = None
    """How many blocks lie from its own up to the head, its own included, where they are finer than stages."""


@dataclass(frozen=True, kw_only=True)
class Outline:
    """Shows the model as a policy sees it: its parameters in order, and its groups from the input to the neck."""

    groups: tuple[str, ...]
    """The groups with parameters, without the head."""
    params: tuple[Param, ...]
    aliases: tuple[Param, ...] = ()
    """Further places of shared tensors: the name that the tensor has in `params`, with the group and the kind of
    the other place."""

    @property
    def stages(self) -> tuple[str, ...]:
        """Returns the groups that count as stages. A neck belongs to the stage below it: it trains when that does."""
        return tuple(group for group in self.groups if group != NECK)

    def depth(self, group: str) -> int:
        """Returns a group's place from the input, 0 first; the neck counts with the last stage, the head lies above."""
        if group == HEAD:
            return len(self.stages)
        return self.stages.index(group) if group != NECK else len(self.stages) - 1

    def below_head(self, param: Param) -> int:
        """Returns how many blocks (stages, where no finer ones are known) lie from a parameter's own up to the head,
        its own included; 0 for the head and for what counts with it.
        """
        if param.blocks_below_head is not None:
            return param.blocks_below_head
        return len(self.stages) - self.depth(param.group)

    def select(self, trains: Callable[[Param], bool]) -> dict[str, float]:
        """Gives scale 1 to the chosen parameters and the head, which always trains."""
        return {p.name: 1.0 for p in self.params if p.group == HEAD or trains(p)}


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Describes one part of a training run. A parameter that `scales` does not name is frozen."""

    name: str
    scales: Mapping[str, float]
    """Parameter name -> factor on the learning rate: the head's own, or the backbone's."""
    share: float = 1.0
    """Share of the epochs."""
    bn: str = "trained"
    """What BatchNorm's running statistics do: ``trained`` (adapt in the layers that train), ``freeze`` (hold
    still everywhere), ``adapt`` (adapt everywhere, as in a loop that only sets ``requires_grad=False``)."""
    fresh: bool = False
    """Whether it starts with a new optimizer and schedule of its own, rather than going on with the run's."""
    ends: Mapping[str, float] | None = None
    """Parameter name -> fraction of the run at which its cosine schedule reaches zero; None: 1 for all."""
    anchor: float = 0.0
    """alpha of the penalty alpha / 2 ||w - w0||^2 on the backbone, which then has no weight decay (L2-SP)."""
    by_gradient: bool = False
    """Scales and the optimizer's state are renewed every epoch: each tensor's relative gradient norm over the largest
    (Auto-RGN)."""


@dataclass(frozen=True, kw_only=True)
class Argument:
    """Describes a number that can be written into a policy's name: ``layer_decay(0.65)``, ``lora(r=8)``."""

    default: float
    least: float
    most: float
    whole: bool = False

    def parse(self, text: str) -> float:
        """Reads the number. Errors: ValueError saying what was expected."""
        expected = f"a {'whole ' if self.whole else ''}number from {self.least:g} to {self.most:g}"
        try:
            value = float(int(text)) if self.whole else float(text)
        except ValueError:
            raise ValueError(expected) from None
        if not self.least <= value <= self.most:
            raise ValueError(expected)
        return value


Arguments = Mapping[str, float]
Build = Callable[[Outline, Arguments, int], Sequence[Phase]]
"""(model, arguments, epochs) -> phases."""


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """Describes what a policy puts into the model before it looks at it: low-rank factors, bottlenecks, scales, …"""

    inject: Callable[[nn.Sequential, Arguments, int], Any]
    """(stages and head, arguments, side of the images in pixels) changes the model in place, so that it computes what
    it did before; returns what `merge` takes. What it adds belongs to the stage of the nearest module around it.
    Errors: NotApplicable for a model that has no place for it, Unavailable without a package that it needs.
    """
    owns: Callable[[str], bool]
    """Whether a parameter of the changed model, by its name, is one that was added."""
    merge: Callable[[Any], nn.Sequential] | None = None
    """What `inject` returned -> the plain model, with what was learned in its weights; None: it stays as it is."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Describes a policy: a row of the table."""

    summary: str
    source: str
    build: Build
    arguments: Mapping[str, Argument]
    """The arguments written in parentheses, in order."""
    optimizer: str = "adamw"
    """The default of ``--optimizer auto``."""
    defaults: Mapping[str, float] = field(default_factory=dict)
    """Defaults of the recipe, where they differ from the optimizer's: ``lr_factor`` (on its learning rate),
    ``backbone_factor`` (the backbone's rate over the head's), ``weight_decay``, ``warmup``.
    """
    schedule: str | None = None
    """The only learning-rate schedule it is defined for."""
    weights: str | None = None
    """The only initial weights it is defined for: ``random``."""
    adapter: Adapter | None = None
    """What is put into the model before the policy looks at it."""
    departs: str = ""
    """Where it departs from the source that it is named after; empty where it does not."""
    version: int = 1
    """Counts the meanings that the name has had. One more where the same text trains differently: records of another
    version are shown under ``name@1`` and never put together with new ones."""
    examples: tuple[str, ...] = ()
    """Texts that it is tested with, where its name with the default arguments is none (``last_K``)."""


NO_ARGUMENTS: Mapping[str, Argument] = {}
