"""Freeze policies as data: which parameters train, at which learning-rate scale, in which phase.

A policy sees the model only as a sequence of `Param`: pure functions, testable without torch. `tlbench.freeze`
is the one place that applies a phase to a model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from tlbench.errors import NotApplicable, UserError, unknown

HEAD = "head"


@dataclass(frozen=True, kw_only=True)
class Param:
    """What a policy may know of one parameter."""

    name: str
    """As in ``model.named_parameters()``: ``stage1.layer1.0.conv1.weight``."""
    group: str
    """The stage that it belongs to, or ``head``."""
    kind: str
    """norm (scale or shift of a normalisation layer, found by type), conv, linear or other."""
    is_bias: bool
    numel: int


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One part of a training run. A parameter that `scales` does not name is frozen."""

    name: str
    scales: Mapping[str, float]
    """Parameter name -> factor on the learning rate."""
    share: float = 1.0
    """Of the epochs."""
    bn: str = "trained"
    """What BatchNorm's running statistics do: ``trained`` (adapt in the layers that train), ``freeze`` (hold
    still everywhere), ``adapt`` (adapt everywhere, as in a loop that only sets ``requires_grad=False``)."""


BN_MODES = ("freeze", "adapt")


@dataclass(frozen=True, kw_only=True)
class Model:
    """The model as a policy sees it: groups from the input to the head, and their parameters in order."""

    groups: tuple[str, ...]
    """Without the head."""
    params: tuple[Param, ...]

    def select(self, trains: Callable[[Param], bool]) -> dict[str, float]:
        """Scale 1 for the chosen parameters and the head, which always trains."""
        return {p.name: 1.0 for p in self.params if p.group == HEAD or trains(p)}


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A row of the table."""

    form: str
    """How it is written: ``last_K``."""
    summary: str
    source: str
    phases: Callable[[Model, str], Sequence[Phase]]
    """(model, argument) -> phases; the argument is what stands for ``K`` in the form, else empty."""


@dataclass(frozen=True, kw_only=True)
class Expression:
    """A parsed policy name, such as ``last_2+bn=freeze``."""

    text: str
    policy: Policy
    argument: str = ""
    bn: str | None = None

    def phases(self, model: Model) -> tuple[Phase, ...]:
        """What trains when.

        Errors: NotApplicable when the policy means nothing for this model.
        """
        phases = tuple(self.policy.phases(model, self.argument))
        return tuple(replace(phase, bn=self.bn) for phase in phases) if self.bn else phases


def linear_probe(model: Model, _: str) -> list[Phase]:
    """The head alone, on frozen features (Kornblith 2019)."""
    return [Phase(name="linear_probe", scales=model.select(lambda p: False))]


def last_k(model: Model, argument: str) -> list[Phase]:
    """The last K stages with parameters of their own, whatever lies above them, and the head."""
    k = int(argument)
    # A neck belongs to whatever lies below it: it trains with every K >= 1 and is no stage to count.
    stages = [group for group in model.groups if group != "neck"]
    if not 1 <= k <= len(stages):
        raise NotApplicable(f"last_{k}: this backbone has {len(stages)} stages ({', '.join(stages)})")
    trains = {*stages[-k:], "neck"}
    return [Phase(name=f"last_{k}", scales=model.select(lambda p: p.group in trains))]


def norm(model: Model, _: str) -> list[Phase]:
    """Scale and shift of every normalisation layer, and the head (Frankle 2021)."""
    scales = model.select(lambda p: p.kind == "norm")
    if not any(p.kind == "norm" and p.group != HEAD for p in model.params):
        raise NotApplicable("norm: this backbone has no normalisation layer with parameters")
    return [Phase(name="norm", scales=scales)]


def full(model: Model, _: str) -> list[Phase]:
    """Everything."""
    return [Phase(name="full", scales=model.select(lambda p: True))]


POLICIES: dict[str, Policy] = {
    "linear_probe": Policy(
        form="linear_probe",
        summary="the head alone; the backbone is a fixed feature extractor",
        source="Kornblith 2019",
        phases=linear_probe,
    ),
    "last_K": Policy(form="last_K", summary="the last K stages and the head", source="usual practice", phases=last_k),
    "norm": Policy(
        form="norm",
        summary="scale and shift of the normalisation layers, and the head",
        source="Frankle 2021",
        phases=norm,
    ),
    "full": Policy(form="full", summary="everything", source="usual fine-tuning", phases=full),
}

_PATTERNS = {
    name: re.compile(re.escape(name).replace("_K", r"_(\d{1,4})").replace("_NAME", r"_(\w+)")) for name in POLICIES
}


def parse_policy(text: str) -> Expression:
    """A policy by its name with its arguments, optionally followed by ``+bn=freeze`` or ``+bn=adapt``.

    Errors: UserError with the nearest match and the choices.
    """
    name, *options = text.split("+")
    bn = None
    for option in options:
        key, _, value = option.partition("=")
        if key != "bn" or value not in BN_MODES or bn is not None:
            raise UserError(f"freeze policy {text!r}: unknown option {option!r}; use +bn=freeze or +bn=adapt")
        bn = value
    for key, pattern in _PATTERNS.items():
        if found := pattern.fullmatch(name):
            return Expression(text=text, policy=POLICIES[key], argument="".join(found.groups()), bn=bn)
    raise unknown("freeze policy", text, [policy.form for policy in POLICIES.values()])
