"""Policies as people write them: ``last_2+bn=freeze``, ``lora(r=8,alpha=16)``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from tlbench.errors import NotApplicable, UserError, unknown
from tlbench.policies.base import BN_MODES, SCALE, Argument, Arguments, Outline, Phase, Policy
from tlbench.policies.table import POLICIES

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Expression:
    """Holds a parsed policy name, such as ``last_2+bn=freeze``."""

    text: str
    name: str
    """The row of the table: ``last_K``."""
    policy: Policy
    arguments: Arguments
    place: str = ""
    """What stands for K or NAME."""
    bn: str | None = None
    explicit: frozenset[str] = frozenset()
    """Names of the arguments that were written, not left at their defaults."""

    @property
    def defaults(self) -> Mapping[str, float]:
        """Returns the defaults of the recipe: the policy's, and what its arguments say of the rates."""
        scale = {"backbone_factor": self.arguments[SCALE]} if SCALE in self.arguments else {}
        return {**self.policy.defaults, **scale}

    def phases(self, model: Outline, epochs: int) -> tuple[Phase, ...]:
        """Returns what trains when, at least one epoch a phase.

        Errors: NotApplicable when the policy means nothing for this model or this number of epochs; ValueError for a
        policy that gives no phase, or one that names what the model does not have.
        """
        phases = self._build(model, epochs)
        self._check_names(model, phases)
        if len(phases) > epochs:
            raise NotApplicable(f"{self.text}: {len(phases)} phases need at least {len(phases)} epochs, not {epochs}")
        self._check_shared(model, phases, epochs)
        return tuple(replace(phase, bn=self.bn) for phase in phases) if self.bn else phases

    def _check_names(self, model: Outline, phases: Sequence[Phase]) -> None:
        """Raises ValueError for what only a policy from outside would do."""
        if not phases:
            raise ValueError(f"the policy {self.text} gives no phase, so there is nothing to train")
        known = {param.name for param in model.params}
        for phase in phases:
            if strange := [name for name in phase.scales if name not in known]:
                raise ValueError(
                    f"the policy {self.text} names {strange[0]!r} in its phase {phase.name}, but the model has no such "
                    "parameter"
                )

    def inject(self, model: nn.Sequential, size: int) -> Any:
        """Puts the policy's adapter, where it has one, into a model for images of ``size`` px, in place; returns what
        the adapter's `merge` takes. Errors: NotApplicable, Unavailable.
        """
        return self.policy.adapter.inject(model, self.arguments, size) if self.policy.adapter else None

    def owns(self, name: str) -> bool:
        """Tells whether a parameter, by its name, is one that the adapter has put into the model."""
        return self.policy.adapter is not None and self.policy.adapter.owns(name)

    def _build(self, model: Outline, epochs: int) -> tuple[Phase, ...]:
        given: dict[str, Any] = {**self.arguments, **({"place": self.place} if self.place else {})}
        return tuple(self.policy.build(model, given, epochs))

    def _check_shared(self, model: Outline, phases: Sequence[Phase], epochs: int) -> None:
        """Raises NotApplicable where one tensor in two places would not get the same treatment from both."""

        def treatment(of: Sequence[Phase], name: str) -> list[tuple[float | None, float | None]]:
            return [(phase.scales.get(name), (phase.ends or {}).get(name)) for phase in of]

        for alias in model.aliases:
            seen_there = replace(model, params=tuple(alias if p.name == alias.name else p for p in model.params))
            if treatment(phases, alias.name) != treatment(self._build(seen_there, epochs), alias.name):
                raise NotApplicable(
                    f"{self.text}: {alias.name} is one tensor that {alias.group} uses, too, "
                    "and the policy treats the two places differently"
                )


def form(name: str) -> str:
    """Says how a policy is written, with its arguments at their defaults: ``layer_decay(0.75)``."""
    arguments = POLICIES[name].arguments
    if not arguments:
        return name
    if len(arguments) == 1:
        return f"{name}({next(iter(arguments.values())).default:g})"
    return f"{name}({','.join(f'{key}={a.default:g}' for key, a in arguments.items())})"


_EARLIER = re.compile(r"(.+)@\d+")
"""How records of another meaning of a name are shown: ``layer_decay(0.5)@1``."""
_PLACES = {"_K": r"_(?P<place>\d{1,4})", "_NAME": r"_(?P<place>\w+)"}


@cache
def _pattern(name: str) -> re.Pattern[str]:
    text = re.escape(name)
    for word, place in _PLACES.items():
        if text.endswith(word):
            text = text.removesuffix(word) + place
    return re.compile(text + r"(?:\((?P<arguments>[^()]*)\))?", re.ASCII)


def parse_policy(text: str) -> Expression:
    """Reads a policy: its name with its arguments, optionally followed by ``+bn=freeze`` or ``+bn=adapt``.

    Errors: UserError with the nearest match and the choices.
    """
    if earlier := _EARLIER.fullmatch(text):
        parse_policy(earlier[1])
        raise UserError(
            f"freeze policy {text!r} is another meaning of {earlier[1]}: its records are read, not run again"
        )
    name, *options = text.split("+")
    bn = None
    for option in options:
        key, _, value = option.partition("=")
        if key != "bn" or value not in BN_MODES or bn is not None:
            raise UserError(f"freeze policy {text!r}: unknown option {option!r}; use +bn=freeze or +bn=adapt")
        bn = value
    matches = [(key, match) for key in POLICIES if (match := _pattern(key).fullmatch(name))]
    if name in POLICIES and name.endswith(tuple(_PLACES)):
        example = next(iter(POLICIES[name].examples), "last_1")
        raise UserError(
            f"freeze policy {text!r} is a form: write a value in the place of its capitals, as in {example}"
        )
    if not matches:
        raise unknown("freeze policy", text, [form(name) for name in POLICIES], shown=len(POLICIES))
    # A row with a name of its own comes before one with a place that takes any: a plugin's `stage_x` and `stage_NAME`.
    key, match = min(matches, key=lambda pair: "place" in pair[1].groupdict())
    policy = POLICIES[key]
    given = _parse_arguments(text, policy.arguments, match["arguments"])
    return Expression(
        text=text,
        name=key,
        policy=policy,
        arguments={**{name: a.default for name, a in policy.arguments.items()}, **given},
        place=match.groupdict().get("place") or "",
        bn=bn,
        explicit=frozenset(given),
    )


def is_policy(text: str) -> bool:
    """Tells whether a text is a policy here, where a run's plugins may not be loaded."""
    try:
        parse_policy(text)
    except UserError:
        return False
    return True


def fixed_weights(text: str) -> str | None:
    """Names the only initial weights that a policy is defined for; None for any, and for a text that is no policy."""
    return _fixed_weights(text, tuple(POLICIES))


@cache
def _fixed_weights(text: str, _: tuple[str, ...]) -> str | None:
    """Keeps the answer, since a grid asks for every cell; asks anew where a plugin has added to the table."""
    try:
        return parse_policy(text).policy.weights
    except UserError:
        return None


def place_in_table(text: str) -> int:
    """Returns the position of an expression's row, 0 first; after all of them where a plugin brought the policy."""
    earlier = _EARLIER.fullmatch(text)
    try:
        return list(POLICIES).index(parse_policy(earlier[1] if earlier else text).name)
    except UserError:
        return len(POLICIES)


def _parse_arguments(text: str, accepted: Mapping[str, Argument], given: str | None) -> dict[str, float]:
    """Reads what stands in the parentheses, by position or by name, each argument once."""
    values: dict[str, float] = {}
    if given is None:
        return values
    parts = [part.strip() for part in given.split(",")]
    if len(parts) > len(accepted):
        takes = ", ".join(accepted) or "none"
        raise UserError(f"freeze policy {text!r}: {len(parts)} arguments are too many; it takes {takes}")
    for part, position in zip(parts, accepted, strict=False):
        key, sep, value = part.partition("=")
        key, value = (key.strip(), value.strip()) if sep else (position, part)
        if key not in accepted:
            raise UserError(f"freeze policy {text!r}: unknown argument {key!r}; it takes {', '.join(accepted)}")
        if key in values:
            raise UserError(f"freeze policy {text!r}: {key} is given twice; give each argument once")
        try:
            values[key] = accepted[key].parse(value)
        except ValueError as expected:
            raise UserError(f"freeze policy {text!r}: {key} is {value!r}, not {expected}") from None
    return values
