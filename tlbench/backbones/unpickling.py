"""Reads the pickle inside a checkpoint without importing or calling anything that it names.

torch's own reader of weights refuses a whole checkpoint for a path, a numpy scalar or a settings object beside the
weights. Here a name becomes a thing only where the table below has it: the functions that put tensors together, and the
types that these take. Every other one is an inert `Unknown`, which keeps what a dictionary would and runs nothing.
The module is what `torch.load` takes as a ``pickle_module``: it has `Unpickler` and `load`.
"""

from __future__ import annotations

import pickletools
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import IO, Any

import torch
from torch import Tensor

from tlbench.backbones.unknown import Name, Unknown


def _tensor(storage: Any, offset: int, size: Any, stride: Any, *_: object) -> Tensor:
    made: Tensor = torch._utils._rebuild_tensor(storage, offset, size, stride)
    return made


def _same(data: Any, *_: object) -> Any:
    """Returns a parameter's tensor: hooks, gradients and attributes are left."""
    return data


def _of_type(function: Any, kind: Any, args: Any, *_: object) -> Any:
    """Returns a tensor with attributes; one of a subclass is unknown, since only its code gives it a meaning."""
    if kind in (torch.Tensor, _same) and function in FUNCTIONS.values():
        return function(*args)
    return kind.made() if isinstance(kind, Name) else Unknown("tensor")


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": OrderedDict,
    "torch.Size": torch.Size,
    "torch.device": torch.device,
    "torch.serialization._get_layout": torch.serialization._get_layout,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": torch._utils._rebuild_tensor_v3,
    "torch._utils._rebuild_qtensor": torch._utils._rebuild_qtensor,
    "torch._utils._rebuild_sparse_tensor": torch._utils._rebuild_sparse_tensor,
    "torch._utils._rebuild_meta_tensor_no_storage": torch._utils._rebuild_meta_tensor_no_storage,
    "torch._utils._rebuild_parameter": _same,
    "torch._utils._rebuild_parameter_with_state": _same,
    "torch.nn.parameter.Parameter": _same,
    "torch._tensor._rebuild_from_type_v2": _of_type,
}
"""Names that are called, with what is called for them."""
NAMED = (torch.dtype, torch.layout, torch.qscheme, torch.memory_format)
"""Types of torch's constants, which a pickle gives by name."""


class Unpickler:
    """Reads one pickle of any protocol. `torch.load` makes a subclass and sets `persistent_load`."""

    persistent_load: Callable[[Any], Any]

    def __init__(self, file: IO[bytes], **_: object) -> None:
        self.file = file
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Returns what a name stands for: a function of the table, a constant of torch's, or a `Name`."""
        if (known := FUNCTIONS.get(f"{module}.{name}")) is not None:
            return known
        if (module, name) == ("torch", "Tensor"):
            return torch.Tensor
        if (module, name) == ("torch.storage", "UntypedStorage"):
            return torch.UntypedStorage  # of types that have no storage of their own, as unsigned ones
        if module == "torch" and isinstance(constant := vars(torch).get(name), NAMED):
            return constant
        return Name(module, name)

    def load(self) -> Any:
        """Returns the object. Errors: Hostile; ValueError, IndexError, KeyError, … for what is damaged."""
        for operation, argument, _ in pickletools.genops(self.file):
            name = operation.name
            if name == "STOP":
                return self.stack.pop()
            if name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name]())
            elif (handle := _HANDLERS.get(name)) is not None:
                handle(self, argument)
            elif argument is not None and name in _VALUES:
                self.stack.append(argument)
            elif name not in ("PROTO", "FRAME"):
                raise ValueError(f"the operation {name} has no place in a checkpoint")
        raise ValueError("the pickle has no end")

    # --- what the operations do: each takes its argument -------------------------------------------------------

    def mark(self, _: object) -> None:
        """Begins a list of items."""
        self.marks.append(self.stack)
        self.stack = []

    def items(self) -> list[Any]:
        """Returns what was put onto the stack since the last mark."""
        items, self.stack = self.stack, self.marks.pop()
        return items

    def gather(self, kind: Callable[[list[Any]], Any]) -> None:
        """Makes one object of the items since the last mark."""
        items = self.items()
        self.stack.append(kind(items))

    def last(self, count: int) -> None:
        """Makes a tuple of the last objects."""
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def extend(self, items: list[Any]) -> None:
        """Adds items to a list or a set; an unknown object does not keep them."""
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif isinstance(target, set):
            target.update(items)
        elif not isinstance(target, Unknown):
            raise ValueError(f"items for a {type(target).__name__}")

    def set_items(self, items: list[Any]) -> None:
        """Sets keys and values of a dictionary, or of an unknown object."""
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise ValueError(f"keys for a {type(target).__name__}")
        target.update(_pairs(items))

    def put(self, place: int | None) -> None:
        """Remembers the last object."""
        self.memo[len(self.memo) if place is None else place] = self.stack[-1]

    def named(self, module: str, name: str) -> None:
        """Puts what a name stands for onto the stack; pickles of torch.save have those of Python 2."""
        module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        self.stack.append(self.find_class(module, name))

    def call(self, function: Any, args: Any) -> None:
        """Puts the result of a function of the table onto the stack, or what stands for that of another."""
        if isinstance(function, Name):
            made: Any = function.made()
        elif isinstance(function, Unknown):
            made = Unknown(function.name)
        elif any(function is known for known in FUNCTIONS.values()):
            made = function(*args)
        else:
            raise ValueError(f"a call of {type(function).__name__}")
        self.stack.append(made)

    def reduce(self, _: object) -> None:
        """Calls a function with arguments."""
        args, function = self.stack.pop(), self.stack.pop()
        self.call(function, args)

    def new_object_with_keywords(self, _: object) -> None:
        """Makes an object of a class; keywords are only of use to classes that are not looked up."""
        self.stack.pop()
        self.reduce(None)

    def build(self, _: object) -> None:
        """Gives an object its state, of which a state dict's versions are all that matters here."""
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Unknown):
            target.is_module = isinstance(state, Mapping) and {"_parameters", "_modules"} <= state.keys()
        elif isinstance(target, OrderedDict):
            if isinstance(state, Mapping) and "_metadata" in state:
                target._metadata = state["_metadata"]  # type: ignore[attr-defined]
        elif isinstance(target, Tensor):
            raise ValueError("a tensor in the form of torch before 0.4")

    def global_name(self, argument: str) -> None:
        """Looks a name up that is written out."""
        module, name = argument.split(" ", 1)
        self.named(module, name)

    def stack_name(self, _: object) -> None:
        """Looks a name up that lies on the stack."""
        name, module = self.stack.pop(), self.stack.pop()
        self.named(str(module), str(name))

    def instance(self, argument: str) -> None:
        """Makes an object of a class whose name is written out (protocol 0)."""
        args = self.items()
        self.global_name(argument)
        self.call(self.stack.pop(), args)

    def class_and_args(self, _: object) -> None:
        """Makes an object of the class below its arguments (protocol 1)."""
        kind, *args = self.items()
        self.call(kind, args)

    def persistent(self, argument: object = None) -> None:
        """Asks torch for a storage; a class whose source was saved along, before torch 1.6, is only a name."""
        known = self.stack.pop() if argument is None else argument
        if isinstance(known, tuple) and len(known) > 1 and known[0] == "module":
            self.stack.append(known[1])
        else:
            self.stack.append(self.persistent_load(known))


def _pairs(items: list[Any]) -> dict[Any, Any]:
    return dict(zip(items[::2], items[1::2], strict=True))


_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
"""Operations whose argument is the value."""
_HANDLERS: dict[str, Callable[[Unpickler, Any], Any]] = {
    "MARK": Unpickler.mark,
    "POP": lambda self, _: self.stack.pop() if self.stack else self.items(),
    "POP_MARK": lambda self, _: self.items(),
    "DUP": lambda self, _: self.stack.append(self.stack[-1]),
    "TUPLE": lambda self, _: self.gather(tuple),
    "LIST": lambda self, _: self.gather(list),
    "DICT": lambda self, _: self.gather(_pairs),
    "FROZENSET": lambda self, _: self.gather(frozenset),
    "TUPLE1": lambda self, _: self.last(1),
    "TUPLE2": lambda self, _: self.last(2),
    "TUPLE3": lambda self, _: self.last(3),
    "APPEND": lambda self, _: self.extend([self.stack.pop()]),
    "APPENDS": lambda self, _: self.extend(self.items()),
    "ADDITEMS": lambda self, _: self.extend(self.items()),
    "SETITEM": lambda self, _: self.set_items([self.stack.pop(-2), self.stack.pop()]),
    "SETITEMS": lambda self, _: self.set_items(self.items()),
    "MEMOIZE": Unpickler.put,
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), Unpickler.put),
    **{name: lambda self, place: self.stack.append(self.memo[place]) for name in ("GET", "BINGET", "LONG_BINGET")},
    "GLOBAL": Unpickler.global_name,
    "STACK_GLOBAL": Unpickler.stack_name,
    "REDUCE": Unpickler.reduce,
    "NEWOBJ": Unpickler.reduce,
    "NEWOBJ_EX": Unpickler.new_object_with_keywords,
    "BUILD": Unpickler.build,
    "INST": Unpickler.instance,
    "OBJ": Unpickler.class_and_args,
    "PERSID": Unpickler.persistent,
    "BINPERSID": Unpickler.persistent,
}


def load(file: IO[bytes], **options: object) -> Any:
    """Returns the object of the pickle that begins where the file stands; errors as `Unpickler.load`."""
    return Unpickler(file, **options).load()
