"""What lies in a file of weights, whatever it is called: its content decides how it is read. Nothing in it is run."""

from __future__ import annotations

import tarfile
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from tlbench.backbones import unpickling
from tlbench.backbones.unknown import Hostile, Unknown
from tlbench.errors import UserError

OTHERS: dict[bytes, str] = {
    b"\x89HDF": "it is an HDF5 file, as Keras writes them; tlbench reads weights of torch",
    b"\x93NUMPY": "it is a NumPy array; save a state dict with torch.save or safetensors",
    b"GGUF": "it is a GGUF file of a language model; give weights of torch or safetensors",
    b"\x1f\x8b": "it is compressed with gzip; unpack it",
    b"BZh": "it is compressed with bzip2; unpack it",
    b"\xfd7zXZ": "it is compressed with xz; unpack it",
    b"\x28\xb5\x2f\xfd": "it is compressed with zstd; unpack it",
    b"7z\xbc\xaf": "it is a 7z archive; unpack it",
    b"Rar!": "it is a RAR archive; unpack it",
    b"version https://git-lfs": "it only points to a file in Git LFS; run git lfs pull",
    b"\x7fELF": "it is a program",
    b"\xff\xd8\xff": "it is a photograph",
    b"\x89PNG": "it is a picture",
}
"""First bytes of what people mistake for a checkpoint -> what it is, and what to do."""
PARTS: dict[str, str] = {
    "constants.pkl": "it is a TorchScript program; save its state_dict() instead",
    "extern_modules": "it is a package of torch.package, which holds code; save its model's state_dict() instead",
    "archive_format": "it is a program of torch.export; save its model's state_dict() instead",
    "serialized_exported_program.json": "it is a program of torch.export; save its model's state_dict() instead",
    "model.weights.h5": "it is a model of Keras; tlbench reads weights of torch",
    "MANIFEST.json": "it is an archive of TorchServe; unpack it, and give the checkpoint in it",
}
"""Names in a zip archive that torch.save does not write -> what the archive is, and what to do."""


def read_content(path: Path, damaged: str) -> Any:
    """Returns what a file of torch.save or safetensors holds, on the CPU; objects of unknown types are `Unknown`.

    Errors: UserError ``damaged`` with the reason, in one line.
    """
    try:
        head = _first_bytes(path)
    except OSError as error:
        raise UserError(f"{damaged} (it cannot be opened: {error.strerror or error})") from None
    reason = _other(path, head)
    try:
        if not reason:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what is wrong with the file is said below, in one line
                return _safetensors(path) if _is_safetensors(head) else _torch(path)
    except Hostile as error:
        reason = f"it holds more than tensors ({error}), and tlbench never runs code from a checkpoint"
    except Exception as error:  # torch.load raises many kinds for a damaged file
        first = (str(error).strip().splitlines() or [type(error).__name__])[0].partition(". ")[0]
        reason = f"it is cut off or damaged: {first[:200]}"
    raise UserError(f"{damaged} ({reason})")


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(512)


def _is_safetensors(head: bytes) -> bool:
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**28


def _safetensors(path: Path) -> Any:
    from safetensors.torch import load_file

    return load_file(path)


def _torch(path: Path) -> Any:
    """Returns what torch.save has written: by torch's own reader of weights; where that refuses what lies beside the
    weights, by one that replaces it.
    """
    # As an open file: by its path, torch goes by its name.
    with path.open("rb") as file:
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except UnpicklingError:
            file.seek(0)
            return torch.load(file, map_location="cpu", weights_only=False, pickle_module=unpickling)


def _other(path: Path, head: bytes) -> str:
    """Says what a file is that holds no weights of torch's or safetensors; empty where it may."""
    if not head:
        return "it is empty"
    if not any(head):
        return "its first bytes are all zero: it was never written; copy or download it again"
    for start, what in OTHERS.items():
        if head.startswith(start):
            return what
    if _is_safetensors(head):
        return ""
    if head.startswith(b"PK"):
        return _other_archive(path)
    if head[257:262] == b"ustar" or (head[:1] == b"\x80" and tarfile.is_tarfile(path)):
        return "it is a tar archive; unpack it, and give the checkpoint in it"
    if head.startswith(b"\x80"):
        return "" if _MAGIC in head[:40] else "it is a pickle that torch.save has not written; write it with torch.save"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "torch.save has not written it: it is a page of the web, perhaps that of an error or a log-in"
    if text.startswith((b"{", b"[")):
        return "it is text in JSON, such as an index or a configuration; give the file beside it that holds the weights"
    if head.startswith(b"\x08") and (b"pytorch" in head or b"onnx" in head):
        return "it is an ONNX model; tlbench reads weights of torch"
    return "torch.save has not written it, nor safetensors"


_MAGIC = bytes.fromhex("6cfc9c46f9206aa85019")
"""The number that files of torch.save begin with in the form before 1.6, as a pickle writes it."""


def _other_archive(path: Path) -> str:
    """Says what a zip archive is that torch.save has not written; empty where it has, or where its list is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return ""  # torch says what is wrong
    for part, what in PARTS.items():
        if any(name.rpartition("/")[2] == part for name in names):
            return what
    if any(name.endswith("data.pkl") for name in names):
        return ""
    if any(name.endswith(".npy") for name in names):
        return "it is an archive of NumPy arrays (.npz); save a state dict with torch.save or safetensors"
    held = next((name for name in names if name.endswith((".pth", ".pt", ".safetensors", ".ckpt", ".bin"))), "")
    return f"it is a zip archive that holds {held[:80]!r}; unpack it" if held else "it is a zip archive without weights"


def about(content: object) -> str:
    """Says what an object is that no weights were found in."""
    if isinstance(content, Unknown):
        if content.is_module:
            return f"it is a whole model ({content.name}), which needs its code; save its state_dict() instead"
        if not content:
            return f"it is no state dict but an object of {content.name}"
    if isinstance(content, Mapping) and content:
        whole = [f"{key} is a whole model ({v.name})" for key, v in content.items() if _is_model(v)]
        if whole:
            return f"{whole[0]}, which needs its code; save its state_dict() instead"
        return f"no state dict: a mapping of {', '.join(shown(key) for key in [*content][:5])}, without tensors by name"
    kind = "an empty one" if isinstance(content, Mapping) else type(content).__name__
    return f"no state dict: a mapping from parameter names to tensors was expected, not {kind}"


def _is_model(value: object) -> bool:
    return isinstance(value, Unknown) and value.is_module


def shown(name: object, longest: int = 100) -> str:
    """Writes a name out of a file for a person: in one line, without control characters, and not at any length."""
    text = str(name)
    text = text if text.isprintable() else repr(text)[1:-1]
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
