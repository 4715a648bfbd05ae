"""How far a rule is off, learned from the logs of what was measured over what it said: a mean, and what each backbone,
each policy and each pair of them is further off, every one drawn towards 0 as far as little speaks for it.

These are the best linear predictions of random effects (Robinson 1991, "That BLUP is a good thing"): with one
observation its deviation goes to whatever usually varies most, so that one cell of a kind that is known to be odd, such
as a probe of half a second, says little of all others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median

Kind = tuple[str, str]
"""Backbone and policy."""
LATEST = 5
"""Observations of one kind that count: the latest, by their median."""
SWEEPS = 40
"""Most times that the effects are gone through; a few suffice where kinds are well mixed."""
CLOSE = 1e-6


@dataclass(frozen=True, kw_only=True)
class Spreads:
    """Says how far the rule is usually off: standard deviations of logs."""

    mean: float
    """Of all cells together."""
    backbone: float
    policy: float
    """Of a policy that `odd` does not name."""
    pair: float
    """Of a backbone with a policy, beyond both."""
    noise: float
    """Of a single measurement."""
    odd: Mapping[str, float] = field(default_factory=dict)
    """Policies of which the rule knows less."""

    def of_policy(self, policy: str) -> float:
        """Returns how far the rule is usually off for a policy; what follows a plus sign is looked up, too."""
        plain, *more = policy.split("+")
        return max(self.odd.get(plain, self.policy), *(self.odd.get(f"+{one}", 0.0) for one in more), 0.0)


def nothing(kind: Kind) -> float:
    """Returns 0: the rule is right until something is measured."""
    return 0.0


class Effects:
    """Predicts the log of what a kind takes over what the rule says."""

    def __init__(
        self,
        told: Iterable[tuple[str, str, float]],
        spreads: Spreads,
        prior: Callable[[Kind], float] = nothing,
        known: Effects | None = None,
        again: Spreads | None = None,
    ) -> None:
        """``told``: backbone, policy and log of each measurement, oldest first. ``prior`` is what is predicted before
        anything of this is known. Where ``known`` has measured a backbone, policy or pair, they vary by ``again`` only,
        where that is less.
        """
        seen: dict[Kind, list[float]] = {}
        for backbone, policy, value in told:
            seen.setdefault((backbone, policy), []).append(value)
        self._spreads, self._prior, self._known, self._again = spreads, prior, known, again
        self._observed = {
            kind: (median(values[-LATEST:]) - prior(kind), min(len(values), LATEST)) for kind, values in seen.items()
        }
        self._mean = 0.0
        self._backbones: dict[str, float] = {}
        self._policies: dict[str, float] = {}
        self._pairs: dict[Kind, float] = {}
        self._fit()

    def __bool__(self) -> bool:
        return bool(self._observed)

    def knows_backbone(self, backbone: str) -> bool:
        """Tells whether anything was measured of a backbone."""
        return backbone in self._backbones

    def knows_policy(self, policy: str) -> bool:
        """Tells whether anything was measured of a policy."""
        return policy in self._policies

    def knows(self, kind: Kind) -> bool:
        """Tells whether a kind was measured."""
        return kind in self._observed

    def log(self, kind: Kind) -> float:
        """Returns the log of how many times as long as by the rule a kind takes."""
        own = self._mean + self._backbones.get(kind[0], 0.0) + self._policies.get(kind[1], 0.0)
        return self._prior(kind) + own + self._pairs.get(kind, 0.0)

    def spread(self, kind: Kind) -> float:
        """Returns the standard deviation that is left of that log: what varied by kinds that were not measured, less
        by those that were; about, since effects are taken for independent.
        """
        _, count = self._observed.get(kind, (0.0, 0))
        noise = self._spreads.noise
        pair = _left(self._pair(kind), noise, count)
        backbone = _left(self._backbone(kind[0]), noise + self._spreads.pair, self._count(0, kind[0]))
        policy = _left(self._policy(kind[1]), noise + self._spreads.pair, self._count(1, kind[1]))
        mean = _left(self._mean_spread, noise + self._spreads.backbone, len(self._observed))
        if count:  # what was measured of the kind itself tells the sum of all
            return math.hypot(pair, noise)
        return math.sqrt(pair**2 + backbone**2 + policy**2 + mean**2 + noise**2)

    def _count(self, place: int, name: str) -> int:
        return sum(1 for kind in self._observed if kind[place] == name)

    # --- how far each varies ----------------------------------------------------------------------------------

    @property
    def _mean_spread(self) -> float:
        return self._least(bool(self._known), "mean")

    def _backbone(self, name: str) -> float:
        known = self._known is not None and self._known.knows_backbone(name)
        return self._least(known, "backbone")

    def _policy(self, name: str) -> float:
        known = self._known is not None and self._known.knows_policy(name)
        usual = self._spreads.of_policy(name)
        return min(self._again.of_policy(name), usual) if self._again and known else usual

    def _pair(self, kind: Kind) -> float:
        known = self._known is not None and self._known.knows(kind)
        return self._least(known, "pair")

    def _least(self, known: bool, name: str) -> float:
        usual: float = getattr(self._spreads, name)
        return min(getattr(self._again, name), usual) if self._again and known else usual

    # --- fitting ----------------------------------------------------------------------------------------------

    def _fit(self) -> None:
        """Minimises the squared errors over the noise's variance and the squared effects over their own, one effect
        after another (a convex problem: each sweep comes nearer).
        """
        if not self._observed:
            return
        weights = {kind: count / self._spreads.noise**2 for kind, (_, count) in self._observed.items()}
        backbones: dict[str, list[Kind]] = {}
        policies: dict[str, list[Kind]] = {}
        for kind in self._observed:
            backbones.setdefault(kind[0], []).append(kind)
            policies.setdefault(kind[1], []).append(kind)
        # A pair's own effect is integrated out: a kind varies by it and by its noise.
        whole = {kind: 1 / (1 / weights[kind] + self._pair(kind) ** 2) for kind in weights}
        for _ in range(SWEEPS):
            moved = self._sweep(whole, backbones, policies)
            if moved < CLOSE:
                break
        for kind, (value, _) in self._observed.items():
            rest = value - self._mean - self._backbones[kind[0]] - self._policies[kind[1]]
            share = self._pair(kind) ** 2 / (self._pair(kind) ** 2 + 1 / weights[kind])
            self._pairs[kind] = rest * share

    def _sweep(
        self, weights: Mapping[Kind, float], backbones: Mapping[str, list[Kind]], policies: Mapping[str, list[Kind]]
    ) -> float:
        """Sets each effect to what is best given the others. Returns the largest change."""

        def rest(kind: Kind) -> float:
            own = self._mean + self._backbones.get(kind[0], 0.0) + self._policies.get(kind[1], 0.0)
            return self._observed[kind][0] - own

        def best(kinds: Iterable[Kind], before: float, spread: float) -> float:
            of = [(weights[kind], rest(kind) + before) for kind in kinds]
            return sum(w * r for w, r in of) / (sum(w for w, _ in of) + 1 / max(spread, 1e-6) ** 2)

        moved = 0.0
        for table, groups, spread in (
            (self._backbones, backbones, self._backbone),
            (self._policies, policies, self._policy),
        ):
            for name, kinds in groups.items():
                before = table.get(name, 0.0)
                table[name] = best(kinds, before, spread(name))
                moved = max(moved, abs(table[name] - before))
        before = self._mean
        self._mean = best(weights, before, self._mean_spread)
        return max(moved, abs(self._mean - before))


def _left(spread: float, noise: float, count: int) -> float:
    """Returns what is left of a spread after so many measurements with that noise."""
    if spread <= 0:
        return 0.0
    return math.sqrt(1 / (1 / spread**2 + count / noise**2))
