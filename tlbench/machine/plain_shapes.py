"""Keeps out of a process what torch imports for sizes that are not known yet, and for kernels in Triton: nobody has
either where shapes are counted on, and together they take as long to import as torchvision.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tlbench.machine.imports import imported, later

SHAPES = "torch.fx.experimental.symbolic_shapes"


def _plain(value: Any) -> bool:
    """Tells whether a value is a number, a truth or a shape, with nothing unknown in it."""
    return type(value) in (int, bool) or (isinstance(value, tuple | list) and all(type(part) is int for part in value))


def asked(name: str, answer: Callable[..., Any] | None) -> Callable[..., Any]:
    """Returns what stands in for a question of torch about sizes: it answers for plain values, and has torch answer for
    all others.
    """

    def ask(*values: Any, **words: Any) -> Any:
        if answer is not None and not words and all(map(_plain, values)):
            return answer(*values)
        return getattr(imported(SHAPES), name)(*values, **words)

    return ask


def _itself(value: Any) -> Any:
    return value


ANSWERS: Mapping[str, Callable[..., Any] | None] = {
    "expect_true": _itself,
    "guard_or_false": _itself,
    "guard_or_true": _itself,
    "guard_size_oblivious": _itself,
    "statically_known_true": _itself,
    "is_nested_int": lambda size: False,
    "sym_and": lambda *truths: all(truths),
    "sym_or": lambda *truths: any(truths),
    "sym_eq": lambda one, other: [*one] == [*other] if isinstance(one, tuple | list) else one == other,
    # Asked of nothing plain.
    "guarding_hint_or_throw": None,
    "has_guarding_hint": None,
}
"""Question of torch's -> what it answers of plain values."""


def _class_of(module: str, name: str) -> type:
    """Returns what stands in for a class, of which there is nothing before its module is imported."""

    class Instances(type):
        def __instancecheck__(cls, one: Any) -> bool:
            real = getattr(sys.modules.get(module), name, cls)
            return real is not cls and isinstance(one, real)

    return Instances(name, (), {})


CLASSES = {"triton.runtime.jit": "JITFunction", "sympy": "Basic"}
"""Module -> the class of it that torch asks whether something is of."""


@contextmanager
def on_plain_shapes() -> Iterator[None]:
    """Lets torch work out shapes, and count FLOPs, without importing what it needs for sizes that are not known yet."""
    modules: dict[str, dict[str, Any]] = {"triton": {}, "triton.runtime": {}}
    modules |= {module: {name: _class_of(module, name)} for module, name in CLASSES.items()}
    modules[SHAPES] = {name: asked(name, answer) for name, answer in ANSWERS.items()}
    with later(modules):
        yield
