"""A kept model in the formats of other programs: torch.export's program, and ONNX.

Both take images as `KeptModel.preprocess` gives them, (n, 3, S, S) uint8, and give logits (n, classes): scaling and
normalising are inside, so that nobody can do them otherwise. n is free. They compute in fp32, also where the cell was
measured, and the kept model computes, in another precision.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from tlbench.errors import Unavailable, UserError, unknown
from tlbench.kept.model import KeptModel
from tlbench.kept.saving import PART

TOLERANCE = 1e-4
"""Largest difference of a logit, as a share of the largest one, to the kept model's in fp32."""
EXAMPLES = 3
"""Images that a model is traced with: 1 would be taken for a constant."""


class WholeModel(nn.Module):
    """Scales, normalises and classifies images (n, 3, S, S) uint8."""

    mean: Tensor
    std: Tensor

    def __init__(self, kept: KeptModel) -> None:
        super().__init__()
        given = kept.card.preprocessing
        self.register_buffer("mean", torch.tensor(given.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(given.std).view(1, 3, 1, 1))
        self.model = kept.model

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits (n, classes)."""
        found: Tensor = self.model(((images.float() / 255) - self.mean) / self.std)
        return found


def write_format(kept: KeptModel, name: str, folder: Path) -> Path:
    """Writes a kept model that lies on the CPU, in a format of `FORMATS`, into a folder; returns the file.

    What was written is loaded and held against the model in fp32 before it has its name. Errors: UserError for an
    unknown format, one that cannot hold this model, or a folder that cannot be written; Unavailable without a package
    that it needs.
    """
    if name not in FORMATS:
        raise unknown("format", name, list(FORMATS))
    images = _examples(kept)
    whole = WholeModel(kept).eval().to(memory_format=torch.contiguous_format)
    with torch.inference_mode():
        wanted = whole(images)
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=f".{name}.", suffix=PART) as aside:
            path, found = FORMATS[name](whole, images, Path(aside))
            _check_equal(found, wanted, name)
            for file in sorted(Path(aside).iterdir(), reverse=True):  # the model after the weights beside it
                file.replace(folder / file.name)
    except (Unavailable, UserError):
        raise
    except OSError as error:
        raise UserError(f"cannot write the model as {name} to {str(folder)!r}: {error.strerror or error}") from None
    except Exception as error:  # what exporters raise for an operation that they do not know has no kind of its own
        first = (str(error).strip().splitlines() or [""])[0]
        raise UserError(f"the model cannot be written as {name}: {type(error).__name__}: {first[:200]}") from None
    return folder / path.name


def _check_equal(found: Tensor, wanted: Tensor, name: str) -> None:
    """Raises UserError where a format gives other logits (n, classes) than the model in fp32."""
    apart = _apart(found, wanted)
    if not apart <= TOLERANCE:
        raise UserError(
            f"the model as {name} gives logits that are {apart:.1g} of the largest one apart; it was not kept"
        )


def about_precision(kept: KeptModel, name: str) -> str:
    """Says how far logits in a format are from the kept model's own, where that computes in another precision than
    fp32; empty where it does not.
    """
    if kept.precision == "fp32":
        return ""
    images = _examples(kept)
    with torch.inference_mode():
        written = WholeModel(kept).eval()(images)
    share = _apart(written, torch.from_numpy(kept.logits(images)))
    return (
        f"the model as {name} computes in fp32, the kept model in {kept.precision}: its logits are {100 * share:.2g} % "
        "of the largest one apart from the kept model's own"
    )


def _examples(kept: KeptModel) -> Tensor:
    """Returns random images (`EXAMPLES`, 3, S, S) uint8, always the same."""
    size = kept.card.preprocessing.size
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (EXAMPLES, 3, size, size), generator=generator, dtype=torch.uint8)


def _apart(found: Tensor, wanted: Tensor) -> float:
    """Returns the largest difference of logits (n, classes), as a share of the largest wanted one."""
    return float((found - wanted).abs().max() / wanted.abs().max().clamp(min=1e-12))


def _exported(whole: nn.Module, images: Tensor, folder: Path) -> tuple[Path, Tensor]:
    """Writes the program of torch.export, for `torch.export.load`."""
    path = folder / "model.pt2"
    batch = torch.export.Dim("n", min=1)
    with torch.no_grad():
        program = torch.export.export(whole, (images,), dynamic_shapes=({0: batch},))
    content = io.BytesIO()
    torch.export.save(program, content)  # not into the file: where a disk is full, torch ends the process (SIGABRT)
    path.write_bytes(content.getbuffer())
    return path, torch.export.load(path).module()(images).detach()


def _onnx(whole: nn.Module, images: Tensor, folder: Path) -> tuple[Path, Tensor]:
    """Writes ONNX, for onnxruntime and others."""
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise Unavailable(f"the format onnx needs the package {error.name}; run pip install 'tlbench[onnx]'") from None
    path = folder / "model.onnx"
    batch = torch.export.Dim("n", min=1)
    program = torch.onnx.export(
        whole,
        (images,),
        dynamo=True,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: batch},),
        verbose=False,
    )
    assert program is not None
    program.save(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return path, torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


FORMATS: dict[str, Callable[[nn.Module, Tensor, Path], tuple[Path, Tensor]]] = {
    "exported": _exported,
    "onnx": _onnx,
}
"""Name -> (model, images (n, 3, S, S) uint8, folder) -> the file, and its logits of these images."""
