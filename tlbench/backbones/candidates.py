"""Which tensors of a file may be a model's: its entries, prefixes of names, and how each differs from the model."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tlbench.backbones.reading import shown
from tlbench.backbones.unknown import Unknown

KNOWN = ("", "state_dict", "model_state_dict", "model", "net", "network", "module", "weights", "params")
"""What most tools call the entry with the weights, the first ones first; the empty name is the file itself."""
AVERAGES = re.compile(r"(?:^|_)(?:ema|swa|avg|averaged?|momentum|target|teacher|shadow)(?:_|$|\d)|^encoder_k$|^key_")
"""Names of weights that are an average over the training, or follow others slowly."""
STUDENT = re.compile(r"(?:^|_)student(?:_|$)")
"""Beside a teacher, which follows it and is what those who train so evaluate."""
WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""What torch.compile, FSDP and activation checkpointing put into names, anywhere."""
LEFT = ("total_ops", "total_params", "relative_position_index", "relative_coords_table", "attn_mask", "_extra_state")
"""Last parts of names that are no weights: what thop counted, what sizes decide, what is no tensor."""
COUNTER = "num_batches_tracked"
OLD_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.((?:[12])\.\w+)$")
AUXILIARY = ("aux1.", "aux2.", "auxlogits.")
DEPTH = 4
"""How deep entries of entries are searched."""
PREFIXES = 8
"""How many prefixes are tried, those first after which most names are the model's."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """Says what a model's tensors are called."""

    tensors: Mapping[str, Tensor]
    head: tuple[str, ...]
    """Names of the modules that a new head replaces, as far up as nothing else is in them."""
    in_head: frozenset[str]
    """Names of tensors of the head."""

    @property
    def body(self) -> list[str]:
        """Returns the names that a checkpoint has to have."""
        return [key for key in self.tensors if not self.of_head(key) and not key.endswith(COUNTER)]

    def of_head(self, name: str) -> bool:
        """Tells whether a tensor, of this model or of another, is called like the head's."""
        return name in self.in_head or any(name.startswith(f"{module}.") for module in self.head)


def target_of(model: nn.Module, head: Iterable[nn.Module]) -> Target:
    """Returns what a model's tensors are called; the head is given by the layers that a new one replaces."""
    layers = list(head)
    replaced = {id(p) for layer in layers for p in layer.parameters()}
    names = {id(module): name for name, module in model.named_modules()}
    found = [names[id(layer)] for layer in layers if names.get(id(layer)) and any(True for _ in layer.parameters())]
    return Target(
        tensors=model.state_dict(),
        head=tuple(dict.fromkeys(_outermost(model, name, replaced) for name in found)),
        in_head=frozenset(name for name, p in model.named_parameters() if id(p) in replaced),
    )


def _outermost(model: nn.Module, name: str, replaced: set[int]) -> str:
    """Returns the name of the largest module around the head in which nothing else has parameters."""
    while above := name.rpartition(".")[0]:
        module = model.get_submodule(above)
        if any(id(p) not in replaced for p in module.parameters()) or next(module.buffers(), None) is not None:
            break
        name = above
    return name


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Holds the tensors of one entry whose names begin with one prefix, and how they differ from a model's."""

    entry: tuple[str, ...]
    prefix: str
    state: Mapping[str, Any]
    """Name without the prefix -> tensor, or what lies in a tensor's place."""
    others: tuple[str, ...]
    """Names in the entry that do not begin with the prefix."""
    counted: bool
    """Whether torch's AveragedModel has counted beside them."""
    metadata: Mapping[str, Any] | None
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    shapes: list[str] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)

    @property
    def parts(self) -> tuple[str, ...]:
        """Returns the parts of its name."""
        inner = tuple(self.prefix.split(".")[:-1])
        return (*self.entry, *inner)

    @property
    def name(self) -> str:
        """Returns its name for a person."""
        return ".".join(shown(part) for part in self.parts)

    @property
    def fits(self) -> bool:
        """Tells whether every name and shape is the model's."""
        return not (self.missing or self.unexpected or self.shapes)

    @property
    def averaged(self) -> bool:
        """Tells whether these are averages, by what they are called or counted with."""
        return self.counted or any(AVERAGES.search(part.lower()) for part in self.parts)

    @property
    def rank(self) -> tuple[int, int]:
        """Returns its place among those that fit: trained before averaged, but a teacher before its student; then by
        what most tools call it.
        """
        of_student = any(STUDENT.search(part.lower()) for part in self.parts)
        first = self.entry[0] if self.entry else ""
        return (2 if of_student else int(self.averaged)), KNOWN.index(first) if first in KNOWN else len(KNOWN)


def entries_of(content: object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """Yields the mappings in a file with names as keys, and the path to each."""
    inner: Iterable[tuple[str, object]]
    if isinstance(content, Mapping):
        named = {key: value for key, value in content.items() if isinstance(key, str)}
        if hasattr(content, "_metadata"):
            kept = _Named(named)
            kept.metadata = content._metadata
            named = kept
        yield path, named
        inner = named.items()
    elif isinstance(content, list | tuple) and len(content) <= 16 and not isinstance(content, torch.Size):
        inner = ((str(place), value) for place, value in enumerate(content))
    else:
        return
    if len(path) < DEPTH:
        for key, value in inner:
            if not isinstance(value, Tensor):
                yield from entries_of(value, (*path, key))


class _Named(dict[str, Any]):
    """Holds a state dict's items with the versions of its modules, as torch keeps them."""

    metadata: Any = None


def _plain(name: str) -> str:
    """Returns a name as a model that nothing wraps has it."""
    return OLD_DENSENET.sub(r"\1\2", WRAPPERS.sub("", name))


def candidates_of(path: tuple[str, ...], state: Mapping[str, Any], target: Target, key: str | None) -> list[Candidate]:
    """Returns a candidate for each prefix after which names are the model's, and one for the names as they are."""
    plain = {_plain(name): value for name, value in state.items()}
    body, votes = set(target.body), Counter[str]()
    for name in plain:
        begin = 0
        while True:
            if name[begin:] in body:
                votes[name[:begin]] += 1
            begin = name.find(".", begin) + 1
            if not begin:
                break
    metadata = getattr(state, "metadata", None)
    if key is not None:  # also one that is none of the model's, to say how it differs
        votes.update({name[: name.find(f"{key}.") + len(key) + 1] for name in plain if f".{key}." in f".{name}"})
    prefixes = dict.fromkeys([prefix for prefix, _ in votes.most_common(PREFIXES)] + [""])
    return [_compared(path, prefix, plain, metadata, target) for prefix in prefixes]


def _compared(
    path: tuple[str, ...], prefix: str, plain: Mapping[str, Any], metadata: object, target: Target
) -> Candidate:
    state = {name[len(prefix) :]: value for name, value in plain.items() if name.startswith(prefix)}
    one = Candidate(
        entry=path,
        prefix=prefix,
        state=state,
        others=tuple(name for name in plain if not name.startswith(prefix)),
        counted="n_averaged" in plain,
        metadata=_without(prefix, metadata),
    )
    for name in target.tensors:
        if target.of_head(name):
            continue
        expected = target.tensors[name]
        if name not in state or (name.endswith(COUNTER) and not isinstance(state[name], Tensor)):
            if not name.endswith(COUNTER):  # absent from old checkpoints
                one.missing.append(name)
        elif why := why_unusable(state[name], expected, name):
            one.unusable.append(f"{shown(name)} is {why}")
        elif state[name].shape != expected.shape and not (name.endswith(COUNTER) and state[name].numel() == 1):
            one.shapes.append(f"{name} {tuple(state[name].shape)} instead of {tuple(expected.shape)}")
    one.unexpected.extend(name for name, value in state.items() if _is_unexpected(name, value, target))
    return one


def _is_unexpected(name: str, value: object, target: Target) -> bool:
    if name in target.tensors or target.of_head(name) or not isinstance(value, Tensor):
        return False
    last = name.rpartition(".")[2]
    return not (name.lower().startswith(AUXILIARY) or last in LEFT or last == COUNTER or name == "n_averaged")


def _without(prefix: str, metadata: object) -> Mapping[str, Any] | None:
    """Returns the versions of a state dict's modules, by names without the prefix."""
    if not isinstance(metadata, Mapping):
        return None
    start = prefix.removesuffix(".")
    named = {_plain(f"{name}.").removesuffix("."): value for name, value in metadata.items() if isinstance(name, str)}
    return {name[len(prefix) :]: value for name, value in named.items() if name == start or name.startswith(prefix)}


def why_unusable(value: object, expected: Tensor, name: str) -> str:
    """Says what keeps a value from being computed with; empty where nothing does."""
    if not isinstance(value, Tensor):
        kind = value.name if isinstance(value, Unknown) else type(value).__name__
        return f"no tensor ({shown(kind)})"
    if value.is_nested:
        return "a nested tensor"
    if value.is_quantized:
        return f"quantised ({value.dtype})"
    if value.layout != torch.strided:
        return f"sparse ({value.layout})"
    if value.is_meta:
        return "on the meta device, a shape without values"
    given, wanted = value.dtype, expected.dtype
    whole = not (given.is_floating_point or given.is_complex or given == torch.bool)
    if wanted.is_floating_point:
        return "" if given.is_floating_point and given.itemsize > 1 else f"{given}, where floating point is expected"
    if wanted.is_complex or wanted == torch.bool:
        return "" if given == wanted else f"{given}, where {wanted} is expected"
    counter = name.endswith(COUNTER) and given.is_floating_point
    return "" if whole or counter else f"{given}, where whole numbers are expected"
