"""A kept model, loaded: photographs in, classes out. One import for Python: ``tlbench.load_model``."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from tlbench.backbones import load_backbone
from tlbench.data import Request
from tlbench.data.budget import Budget
from tlbench.data.decode import own_limit, read_photograph
from tlbench.data.decoding import fitted, resized_of, take_room
from tlbench.data.depth import FULL, Scale, in_eight_bits
from tlbench.data.scaled import Photograph, wanted
from tlbench.data.store import workers
from tlbench.data.streaming import Streamed
from tlbench.errors import NotApplicable, Unavailable, UserError, lookup
from tlbench.grid.cell import Cell
from tlbench.heads import HEADS
from tlbench.kept import conformal
from tlbench.kept.card import VALIDATION, Card, check_weights, read_card
from tlbench.machine.arithmetic import Arithmetic
from tlbench.machine.device import resolve_devices, resolved
from tlbench.policies.base import HEAD
from tlbench.policies.parse import parse_policy
from tlbench.records.record import cell_of

TOP = 5
BATCH = 32
"""Photographs that are in memory at a time."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Says what a model makes of one photograph."""

    file: str
    """The file as it was given; empty for an image that was no file."""
    name: str | None = None
    """The class; None where it is left undecided, or the file cannot be read."""
    probability: float | None = None
    """Softmax of the likeliest class."""
    top: tuple[tuple[str, float], ...] = ()
    """The likeliest classes with their probabilities, at most `TOP`."""
    inside: tuple[str, ...] | None = None
    """With ``coverage``: the classes that hold the right one in that share of cases, likeliest first."""
    problem: str = ""
    """Why the file cannot be read; empty where it could be."""


class KeptModel:
    """A kept model: `predict` takes photographs; `model` is the plain `nn.Sequential`, in evaluation mode."""

    def __init__(self, card: Card, model: nn.Sequential, arithmetic: Arithmetic, folder: Path) -> None:
        self.card, self.model, self.folder = card, model, folder
        self._arithmetic = arithmetic

    @property
    def classes(self) -> tuple[str, ...]:
        """Returns the names of the classes, in the order of the logits."""
        return self.card.classes

    @property
    def precision(self) -> str:
        """Returns the precision that it computes in, which its cell was measured in: fp32, bf16, fp16."""
        return self._arithmetic.precision

    def preprocess(self, image: str | Path | Image.Image) -> NDArray[np.uint8]:
        """Returns a photograph as the model was trained on it: (3, S, S) uint8, upright, RGB. A file is decoded as
        those were; of an image in memory, which somebody else has decoded and turned, all pixels are taken.

        Errors: ValueError, in a line, for a file that is no readable image, or values of no known range.
        """
        if isinstance(image, Image.Image):
            upright = in_eight_bits(image, self._scale).convert("RGB")
            return fitted(Photograph(image=upright, size=upright.size), self._request)
        return self._read_file(Path(image))

    def normalise(self, images: Tensor) -> Tensor:
        """Returns images (n, 3, S, S) uint8 as the model takes them: float, scaled, normalised, on its device."""
        given, layout = self.card.preprocessing, torch.contiguous_format
        if self._arithmetic.channels_last:
            layout = torch.channels_last
        mean, std = (
            torch.tensor(value, device=self._arithmetic.device).view(1, 3, 1, 1) for value in (given.mean, given.std)
        )
        moved = images.to(self._arithmetic.device)
        return moved.to(torch.float32, memory_format=layout).div_(255).sub_(mean).div_(std)

    def logits(self, images: Tensor) -> NDArray[np.float32]:
        """Returns logits (n, classes) of images (n, 3, S, S) uint8, as `preprocess` gives them."""
        with torch.inference_mode(), self._arithmetic.autocast():
            found: NDArray[np.float32] = self.model(self.normalise(images)).float().cpu().numpy()
        return found

    def logits_of(self, images: Tensor | Streamed, index: Tensor) -> NDArray[np.float32]:
        """Returns logits (n, classes) of those images of a store (M, 3, S, S) uint8 that ``index`` (n,) names, in
        batches of the size that the cell was measured with.
        """
        parts = [self.logits(images.index_select(0, some)) for some in index.split(self.card.batch_size)]
        return np.concatenate(parts) if parts else np.empty((0, len(self.classes)), np.float32)

    def hash_of(self, logits: NDArray[Any]) -> str:
        """Returns the SHA-256 of predicted classes, as a record's ``predictions_sha256``."""
        return hashlib.sha256(logits.argmax(1).astype(np.int64).tobytes()).hexdigest()

    def predict(
        self,
        images: Iterable[str | Path | Image.Image],
        *,
        coverage: float | None = None,
        threshold: float | None = None,
    ) -> list[Prediction]:
        """Returns a prediction for each photograph, in order; a file that cannot be read has a ``problem``.

        ``coverage`` 0.95: an image is decided where the set of classes that holds the right one in 95 % of cases is one
        class (`tlbench.kept.conformal`). ``threshold`` 0.8: where the probability of the likeliest is at least that.

        Errors: UserError for a single photograph that is in no list, a coverage or threshold that is no share, or a
        coverage that this model cannot give.
        """
        if isinstance(images, str | Path | Image.Image):
            raise UserError(f"predict takes a list of photographs: predict([{images!r}]) for this one")
        limit = None if coverage is None else self.limit(coverage)
        if threshold is not None and not 0 <= threshold <= 1:
            raise UserError(f"threshold {threshold:g} is not from 0 to 1: it is a probability")
        return list(self._predicted(images, limit, threshold))

    def limit(self, coverage: float) -> float:
        """Returns what a class's score may be in sets of this coverage. Errors: UserError where it cannot be given."""
        scores = self.card.calibration.scores
        found = conformal.limit_of(scores, coverage)
        if found == float("inf"):
            what = "validation images" if self.card.calibration.kind == VALIDATION else "images with logits"
            raise UserError(
                f"coverage {coverage:g} needs {conformal.fewest(coverage)} {what} to be calibrated on, and this model "
                f"has {len(scores)}; ask for less, or use --threshold"
            )
        return found

    def _predicted(
        self, images: Iterable[str | Path | Image.Image], limit: float | None, threshold: float | None
    ) -> Iterator[Prediction]:
        with warnings.catch_warnings(), own_limit(), ThreadPoolExecutor(workers()) as pool:
            warnings.simplefilter("ignore")  # what PIL warns of is an error here or of no consequence
            for some in _batches(images, BATCH):
                read = list(pool.map(self._read, some))
                pixels = [one for one in read if not isinstance(one, str)]
                logits = self.logits(torch.from_numpy(np.stack(pixels))) if pixels else np.empty((0, 1))
                said = iter(conformal.softmax(logits))
                for image, one in zip(some, read, strict=True):
                    file = "" if isinstance(image, Image.Image) else str(image)
                    if isinstance(one, str):
                        yield Prediction(file=file, problem=one)
                    else:
                        yield self._said(file, next(said), limit, threshold)

    def _read(self, image: str | Path | Image.Image) -> NDArray[np.uint8] | str:
        """Returns pixels, or why there are none."""
        try:
            if isinstance(image, Image.Image):
                return self.preprocess(image)
            with self._budget.room() as take:
                asked = self._request
                return self._read_file(Path(image), partial(take_room, take, asked.resize, crop_mode=asked.crop_mode))
        except FileNotFoundError:
            return "there is no such file"
        except (OSError, ValueError) as error:
            return (error.strerror or type(error).__name__) if isinstance(error, OSError) else str(error)

    def _said(
        self, file: str, probabilities: NDArray[np.float64], limit: float | None, threshold: float | None
    ) -> Prediction:
        order = np.argsort(-probabilities, kind="stable")
        best = float(probabilities[order[0]])
        inside = None
        if limit is not None:
            held = conformal.sets_of(probabilities[None], limit)[0]
            inside = tuple(self.classes[n] for n in order if held[n])
        decided = (inside is None or len(inside) == 1) and (threshold is None or best >= threshold)
        return Prediction(
            file=file,
            name=self.classes[order[0]] if decided else None,
            probability=best,
            top=tuple((self.classes[n], float(probabilities[n])) for n in order[:TOP]),
            inside=inside,
        )

    def _read_file(self, file: Path, take: Callable[[int, int], None] = lambda *size: None) -> NDArray[np.uint8]:
        """Returns the pixels of a file. Errors: as `preprocess`."""
        least = wanted(self._request.decode, partial(resized_of, self._request))
        return fitted(read_photograph(file, take, self._scale, wanted=least), self._request)

    @cached_property
    def _request(self) -> Request:
        given = self.card.preprocessing
        red, green, blue = given.fill
        return Request(
            size=given.size,
            resize=given.resize,
            interpolation=given.interpolation,
            seed=0,
            crop_mode=given.crop_mode,
            fill=(red, green, blue),
            decode=given.decode,
        )

    @cached_property
    def _budget(self) -> Budget:
        return Budget()

    @cached_property
    def _scale(self) -> Scale:
        known = self.card.preprocessing.pixel_range
        if not known:
            return FULL
        return Scale(black=known["black"], bits=(known["white"] - known["black"]).bit_length())


def load_model(folder: str | Path, device: str = "cpu") -> KeptModel:
    """Loads a model that ``tlbench fit`` has kept, in evaluation mode. Nothing of the run is needed, and no pickle is
    read; a plugin that it was made with has to be loaded before.

    Errors: UserError for a folder that is none, weights that are not those of the card, or a backbone, policy or head
    that this process does not know.
    """
    device = resolve_devices((device,))[-1]
    place = Path(os.path.expanduser(folder))
    card = read_card(place)
    file = check_weights(place, card)
    cell = cell_of(card.cell)
    try:
        model = network(cell, len(card.classes), card.preprocessing.size)
    except (NotApplicable, Unavailable) as error:
        raise UserError(f"the model in {str(folder)!r} cannot be built here: {error}") from None
    except UserError as error:
        needed = (
            f"; it was made with the plugin {', '.join(card.plugins)}: load it with --plugin" if card.plugins else ""
        )
        raise UserError(f"the model in {str(folder)!r} cannot be built here: {error}{needed}") from None
    from safetensors.torch import load_file

    try:
        model.load_state_dict(load_file(file))
    except RuntimeError as error:
        first = str(error).strip().splitlines()[-1].strip()
        raise UserError(
            f"the weights in {str(file)!r} do not fit {card.cell['backbone']} as it is built here: {first}"
        ) from None
    arithmetic = Arithmetic(
        device=resolved(device), precision=_precision(cell, device), channels_last=card.channels_last
    )
    arithmetic.place(model)
    model.eval()
    return KeptModel(card, model, arithmetic, place)


def _precision(cell: Cell, device: str) -> str:
    """Returns the precision that the record was measured in; tf32 is a mode of CUDA alone."""
    return "fp32" if cell.precision == "tf32" and not device.startswith("cuda") else cell.precision


def network(cell: Cell, classes: int, size: int) -> nn.Sequential:
    """Builds stages and head of a cell without its weights; what its policy puts in and cannot merge is in it.

    Errors: as `tlbench.backbones.load_backbone`.
    """
    backbone = load_backbone(cell.backbone, "random", seed=cell.seed)
    with torch.random.fork_rng(devices=[]):
        head = lookup(HEADS, "head", cell.head).build(backbone.features, classes)
        model = nn.Sequential(OrderedDict([*backbone.stages.named_children(), (HEAD, head)]))
        policy = parse_policy(cell.freeze)
        if policy.policy.adapter is not None and policy.policy.adapter.merge is None:
            policy.inject(model, size)
    return model


def _batches(images: Iterable[Any], size: int) -> Iterator[Sequence[Any]]:
    some: list[Any] = []
    for image in images:
        some.append(image)
        if len(some) == size:
            yield some
            some = []
    if some:
        yield some
