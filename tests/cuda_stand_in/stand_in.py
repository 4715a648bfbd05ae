"""A CUDA device that lives in the host's memory. `runtime.cpp` gives it memory and no kernels; the dispatch mode here
runs every operation on a CPU view of that memory, refuses arguments on different devices as CUDA does, and counts
copies between the devices and waits for results, by the line of tlbench that asked for them.

A cell on it computes what it computes on the CPU, to the last bit, when each tensor is where it belongs. It says
nothing about CUDA's own kernels: their rounding, their determinism, their speed, graphs. Importing it puts it in force,
in this thread alone: in another one a kernel is launched, and that is an error.
"""

import collections
import ctypes
import traceback

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

COPIES = collections.Counter()
"""How often something crossed between the devices or was waited for: (what, where) -> times."""

MIXES = {"copy_", "_to_copy", "index", "index_put_", "_index_put_impl_", "index_put", "set_"}
"""Operations that take tensors of different devices on CUDA, too."""
NATIVE = {
    "as_strided_", "squeeze_", "swapdims_", "t_", "transpose_", "unsqueeze_",
    "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "resize_", "set_",
    "_has_compatible_shallow_copy_type", "_pin_memory", "is_pinned", "record_stream",
}  # fmt: skip
"""Operations that launch no kernel, so that torch's own do on the device's memory."""
WAITS = {"_local_scalar_dense", "_unique2", "masked_select", "nonzero", "unique_dim"}
"""Operations whose result the host has to know before it goes on."""


def start():
    """Puts the stand-in in force. It does not start CUDA, since some tests look whether that was done."""
    torch.autograd.set_multithreading_enabled(False)  # the device's own backward thread would not have the mode
    torch.backends.cudnn.enabled = False
    _fused_attention(False)
    MODE.__enter__()


def stop():
    """Leaves the device without operations; shapes can still be worked out on it."""
    MODE.__exit__(None, None, None)
    torch.backends.cudnn.enabled = True
    _fused_attention(True)


def _fused_attention(wanted):
    """These kernels are chosen by the device before an operation comes to the mode."""
    for kind in ("flash", "mem_efficient", "cudnn"):
        getattr(torch.backends.cuda, f"enable_{kind}_sdp")(wanted)


def count(what):
    for frame in reversed(traceback.extract_stack()):
        if "/tlbench/" in frame.filename:
            COPIES[what, f"{frame.filename.rpartition('/tlbench/')[2]}:{frame.lineno} {frame.name}"] += 1
            return
    COPIES[what, "elsewhere"] += 1


def on_cpu(tensor):
    """The same memory as a CPU tensor."""
    storage = tensor.untyped_storage()
    size = storage.nbytes()
    if size == 0 or tensor.numel() == 0:
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
    memory = (ctypes.c_byte * size).from_address(storage.data_ptr())
    flat = torch.frombuffer(memory, dtype=torch.uint8).untyped_storage()
    return torch.empty(0, dtype=tensor.dtype).set_(flat, tensor.storage_offset(), tensor.shape, tensor.stride())


def on_cuda(tensor):
    """A copy on the device."""
    new = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cuda:0")
    if tensor.numel():
        on_cpu(new).copy_(tensor)
    return new


class StandIn(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if torch.is_inference_mode_enabled():  # there, composite operations come here before they are taken apart
            with self:
                done = func.decompose(*args, **kwargs)
            if done is not NotImplemented:
                return done
        tensors = []
        tree_map(lambda x: tensors.append(x) if isinstance(x, torch.Tensor) else None, (args, kwargs))
        wanted = kwargs.get("device")
        wanted = None if wanted is None else torch.device(wanted).type
        has_cuda = any(t.device.type == "cuda" for t in tensors)
        name = func._schema.name.partition("::")[2]
        if (not has_cuda and wanted != "cuda") or name in NATIVE or is_view(func):
            return func(*args, **kwargs)
        if has_cuda:
            self.check(name, args, tensors)
        self.watch(name, args, tensors, wanted)
        return self.run(func, args, kwargs, to_cpu=wanted == "cpu" or name == "_local_scalar_dense")

    @staticmethod
    def check(name, args, tensors):
        """Errors: RuntimeError where CUDA would not take these tensors together. A scalar may be anywhere."""
        elsewhere = [t for t in tensors if t.device.type != "cuda" and t.ndim > 0]
        if elsewhere and name not in MIXES:
            found = ", ".join(f"{t.device} {tuple(t.shape)}" for t in tensors)
            raise RuntimeError(f"Expected all tensors to be on the same device, but {name} got {found}")
        if name == "index" and args[0].device.type == "cpu":
            raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")

    @staticmethod
    def watch(name, args, tensors, wanted):
        source = target = None
        if name == "copy_":
            source, target = args[1].device.type, args[0].device.type
        elif name == "_to_copy" and wanted is not None:
            source, target = args[0].device.type, wanted
        elif name == "index" and any(t.device.type == "cpu" and t.ndim > 0 for t in tensors):
            source, target = "cpu", "cuda"
        if source != target:
            count(f"copy to {target}")
        elif name in WAITS:
            count(f"wait for {name}")

    @staticmethod
    def run(func, args, kwargs, to_cpu):
        """The operation on views; an argument that it gives back (in place, ``out=``) is given back as it came."""
        given = {}

        def to_view(x):
            if isinstance(x, torch.Tensor) and x.device.type == "cuda":
                view = on_cpu(x)
                given[id(view)] = (view, x)  # the view is kept, so that no other object gets its id
                return view
            if isinstance(x, torch.device) and x.type == "cuda":
                return torch.device("cpu")
            if isinstance(x, torch.Generator) and x.device.type == "cuda":
                return None
            return x

        def back(x):
            if not isinstance(x, torch.Tensor):
                return x
            if id(x) in given:
                return given[id(x)][1]
            return x if to_cpu else on_cuda(x)

        args, kwargs = tree_map(to_view, (args, dict(kwargs)))
        if kwargs.get("device") is not None:
            kwargs["device"] = torch.device("cpu")
            kwargs.pop("pin_memory", None)
        return tree_map(back, func(*args, **kwargs))


def is_view(func):
    shares = any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)
    return shares and not func._schema.is_mutable


MODE = StandIn()
start()  # at import, so that it does not matter whether this module or torch is imported first
