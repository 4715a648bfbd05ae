"""Chooses what of a file is a model's weights, loads it, and says what was taken and what was left.

What fits in every name and shape below the head is taken; of several, what was trained before what was averaged, and
what is called as most tools do.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tlbench.backbones.candidates import COUNTER, Candidate, Target, candidates_of, entries_of, why_unusable
from tlbench.backbones.reading import about, shown
from tlbench.backbones.unknown import Unknown
from tlbench.errors import NotApplicable, UserError

MOST = 10_000
"""How many mappings of a file are looked at: one that holds itself has no end of them."""


class DoesNotFit(NotApplicable):
    """A checkpoint is of another model: the pair means nothing, though each of the two may with others."""


@dataclass(frozen=True, kw_only=True)
class Taken:
    """Says which tensors of a file were loaded."""

    name: str | None
    """As ``?key=`` takes it: the entry of the file, and the prefix of the names; None where it is the file itself."""
    averaged: bool
    notes: tuple[str, ...]
    """What a person should know: what else would have fitted, what was left out, what was converted."""


def load_content(model: nn.Module, content: object, what: str, target: Target, key: str | None = None) -> Taken:
    """Loads what fits out of a file's content into a whole model, whatever head it has; ``key`` chooses.

    Errors: DoesNotFit naming the first five missing, unexpected and wrongly shaped names, and their counts; UserError
    where there are no weights, where a key or a choice is wrong or lacking, or where tensors are none to compute with.
    """
    mappings = itertools.islice(entries_of(content), MOST)
    entries = [(path, state) for path, state in mappings if any(isinstance(v, Tensor) for v in state.values())]
    if not entries:
        raise UserError(f"{what} cannot be read ({_no_tensors(content)})")
    found = [one for path, state in entries for one in candidates_of(path, state, target, key)]
    if key is not None:
        found = [one for one in found if _within(key.split("."), one.parts)]
        if not found:
            raise UserError(f"{what} has no weights called {key!r}; it has: {_choices(entries)}")
    fitting = [one for one in found if one.fits]
    if not fitting:
        nearest = min(found, key=lambda one: len(one.missing) + len(one.unexpected) + len(one.shapes))
        _check_usable(nearest, what)
        parts = [
            _few("missing", nearest.missing),
            _few("unexpected", nearest.unexpected),
            _few("wrongly shaped", nearest.shapes),
        ]
        of = f" (its {nearest.name})" if nearest.name else ""
        raise DoesNotFit(f"{what}{of} does not fit: {'; '.join(part for part in parts if part)}")
    chosen = _best(fitting, what, target)
    _check_usable(chosen, what)
    heads = _load(model, chosen, target)
    return Taken(
        name=chosen.name or None, averaged=chosen.averaged, notes=tuple(_notes(chosen, fitting, target, heads))
    )


def _no_tensors(content: object) -> str:
    """Says why there is nothing to load."""
    for path, state in itertools.islice(entries_of(content), MOST):
        for name, value in state.items():
            if isinstance(value, Unknown) and "numpy" in value.name and "reconstruct" in value.name:
                where = ".".join(shown(part) for part in (*path, name))
                return f"{where} is a NumPy array; save tensors instead"
    return about(content)


def _check_usable(one: Candidate, what: str) -> None:
    if one.unusable:
        listed = ", ".join(one.unusable[:3]) + (f", … ({len(one.unusable)} in all)" if len(one.unusable) > 3 else "")
        of = f" (its {one.name})" if one.name else ""
        raise UserError(f"{what}{of} cannot be used: {listed}; save plain tensors of floating-point weights")


def _within(wanted: Sequence[str], parts: Sequence[str]) -> bool:
    """Tells whether a key's parts stand in a name in a row."""
    joined = [piece for part in parts for piece in part.split(".")]
    return any(joined[at : at + len(wanted)] == [*wanted] for at in range(len(joined) - len(wanted) + 1))


def _best(fitting: Sequence[Candidate], what: str, target: Target) -> Candidate:
    """Returns the first of those that fit. Errors: UserError where several are as good, and not the same."""
    ordered = sorted(fitting, key=lambda one: (one.rank, len(one.parts)))
    best = ordered[0]
    rivals = [one for one in ordered[1:] if one.rank == best.rank and not _equal(one, best, target)]
    if rivals:
        names = [one.name or "the file itself" for one in (best, *rivals)]
        raise UserError(f"{what} holds several weights that fit, {', '.join(names[:6])}; choose by ?key={names[0]}")
    return best


def _equal(one: Candidate, other: Candidate, target: Target) -> bool:
    return all(
        isinstance(one.state[name], Tensor)
        and isinstance(other.state[name], Tensor)
        and one.state[name].dtype == other.state[name].dtype
        and torch.equal(one.state[name], other.state[name])
        for name in target.body
    )


def _load(model: nn.Module, chosen: Candidate, target: Target) -> bool:
    """Loads the tensors; returns whether the head's were among them, which they are where all have its shapes."""
    head = [name for name in target.tensors if target.of_head(name)]
    heads = all(_same_kind(chosen.state.get(name), target.tensors[name]) for name in head)
    given = {name: value for name, value in chosen.state.items() if name in target.tensors}
    given = {name: value for name, value in given.items() if isinstance(value, Tensor)}
    if not heads:
        given = {name: value for name, value in given.items() if not target.of_head(name)}
    for name in [name for name in given if name.endswith(COUNTER)]:
        given[name] = given[name].reshape(target.tensors[name].shape)
    full: Any = OrderedDict({**target.tensors, **given})
    # Some modules (MNASNet) read a version from it.
    full._metadata = chosen.metadata or getattr(target.tensors, "_metadata", None)
    model.load_state_dict(full)
    return heads


def _same_kind(value: object, expected: Tensor) -> bool:
    return isinstance(value, Tensor) and not why_unusable(value, expected, "") and value.shape == expected.shape


def _notes(chosen: Candidate, fitting: Sequence[Candidate], target: Target, heads: bool) -> Iterator[str]:
    """Yields what a person should know of the choice."""
    if chosen.averaged:
        yield f"takes {chosen.name or 'the file'}, averaged weights"
    others = [one.name or "the file itself" for one in fitting if one is not chosen and not _equal(one, chosen, target)]
    if others:
        first = next(name for name in others)
        yield f"takes {chosen.name or 'the file itself'}; {', '.join(others[:4])} would fit as well (?key={first})"
    head = [name for name, value in chosen.state.items() if target.of_head(name) and isinstance(value, Tensor)]
    if head and not heads:
        listed = [f"{shown(name)} {tuple(_shape(chosen.state[name]))}" for name in head[:4]]
        yield f"leaves out its own head ({', '.join(listed)}{', …' if len(head) > 4 else ''})"
    if chosen.prefix and chosen.others:
        outside = (name if _shared(name, chosen.prefix) else name.partition(".")[0] for name in chosen.others)
        names = [shown(name) for name in dict.fromkeys(outside) if name != "n_averaged"]
        if names:
            yield f"leaves out {', '.join(names[:4])}{', …' if len(names) > 4 else ''}, beside {chosen.name}"
    kinds = {chosen.state[name].dtype for name in target.body} - {target.tensors[name].dtype for name in target.body}
    if kinds:
        yield f"holds {', '.join(sorted(str(kind).removeprefix('torch.') for kind in kinds))}, loaded as float32"


def _shape(value: Tensor) -> Sequence[int]:
    return () if value.is_nested else value.shape


def _shared(name: str, prefix: str) -> bool:
    """Tells whether a name begins with the first part of a prefix, and is named by more than that."""
    return name.partition(".")[0] == prefix.partition(".")[0]


def _choices(entries: Sequence[tuple[tuple[str, ...], Mapping[str, Any]]]) -> str:
    """Names the entries that hold tensors, and the first parts of the names in each."""
    names = []
    for path, state in entries:
        firsts = dict.fromkeys(name.partition(".")[0] for name, value in state.items() if isinstance(value, Tensor))
        names.append(".".join(shown(part) for part in path) or f"names beginning with {', '.join([*firsts][:6])}")
    return "; ".join(names[:8])


def _few(kind: str, keys: list[str]) -> str:
    if not keys:
        return ""
    return f"{len(keys)} {kind} ({', '.join(shown(key) for key in keys[:5])}{', …' if len(keys) > 5 else ''})"
