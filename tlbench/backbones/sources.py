"""Where backbones come from, as a table: whose a name is, and how those of a source are checked, built and cut.

Nothing here imports torch before a backbone is built.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tlbench.backbones import custom, known, lite
from tlbench.backbones.custom import CUSTOM
from tlbench.backbones.known import BACKBONES
from tlbench.errors import UserError, unknown

if TYPE_CHECKING:
    from torch import nn

    from tlbench.backbones.base import Anatomy

TIMM = "timm:"


@dataclass(frozen=True, kw_only=True)
class Source:
    """Describes where some backbones come from: a row of the table. Names come without ``@TAG``, except where they are
    built or opened.
    """

    names: Callable[[], Iterable[str]]
    """Names that a list shows and an error suggests."""
    owns: Callable[[str], bool]
    """Whether a name is one of this source's, right or wrong."""
    check: Callable[[str, str | None], None]
    """(name, tag or None). Errors: UserError for an unknown name or tag, with the nearest match."""
    row: Callable[[str], dict[str, Any]]
    """What a list shows of a name, without building anything."""
    build: Callable[[str, bool], tuple[nn.Module, str]]
    """(name, pretrained) -> the whole original model, and the source of its weights: ``random``, or what a record says
    of pretrained ones. Errors: Unavailable where these cannot be had, before anything random is drawn.
    """
    open_up: Callable[[str, nn.Module], Anatomy]
    """(name, model as `build` gave it) -> its input and its parts."""
    ready: Callable[[], object] = lambda: None
    """Imports what `build` would import first: libraries that take a while."""


HUB = ("timm/", "hf_hub:timm/", "hf-hub:timm/")
"""How timm and its hub write what is `TIMM` here."""
OWN = ("torchvision:", "torchvision/", "torchvision.models.", "models.", "pytorch/vision:")
"""How names of torchvision's are written elsewhere that are written here without anything before them."""


def _check_known(name: str, tag: str | None) -> None:
    if name not in BACKBONES:
        if of_timm := _of_timm(name):
            raise UserError(f"unknown backbone {name!r}, but timm has it: write {of_timm}")
        _check_hub(name)
        plain = _without(OWN, name)
        if plain != name and plain in BACKBONES:
            raise UserError(f"unknown backbone {name!r}; torchvision's are written as they are: {plain}")
        raise unknown("backbone", name, names())
    if tag is not None and tag not in BACKBONES[name].weights:
        raise unknown(f"weights tag of {name}", tag, BACKBONES[name].weights)


def _of_timm(name: str) -> str | None:
    """Returns how a model of timm's is written that someone has named as timm or its hub does; None where timm has
    none of this name.
    """
    from tlbench.backbones import timm_list

    plain = _without(HUB, name)
    return f"{TIMM}{plain}" if plain.partition(".")[0] in timm_list.known() else None


def _without(prefixes: Iterable[str], name: str) -> str:
    """Returns a name without the first of some prefixes that it has."""
    return name.removeprefix(next((prefix for prefix in prefixes if name.startswith(prefix)), ""))


def _check_hub(name: str) -> None:
    """Raises UserError for a name of a hub that is no model of timm's."""
    from tlbench.backbones import timm_list

    if name.startswith(HUB):
        plain = f"{TIMM}{_without(HUB, name)}"
        raise unknown("backbone", plain, [f"{TIMM}{one}" for one in timm_list.known()])
    if name.startswith(("hf_hub:", "hf-hub:")):
        raise UserError(
            f"backbone {name!r} is on the hub, but not timm's own; download its weights, and give the file with "
            "--weights to the backbone that they are of"
        )


def _no_tag(name: str, tag: str | None, how: str) -> None:
    if tag is not None:
        raise UserError(
            f"backbone {f'{name}@{tag}'!r}: only torchvision's weights are chosen by @TAG; choose these by {how}"
        )


def _check_custom(name: str, tag: str | None) -> None:
    _no_tag(name, tag, "--weights PATH")


def _check_timm(name: str, tag: str | None) -> None:
    _no_tag(name, tag, "a dot: timm:resnet18.a1_in1k")
    once = _without((*HUB, TIMM), name.removeprefix(TIMM))
    if once != name.removeprefix(TIMM):
        raise UserError(f"backbone {name!r} says twice that it is timm's; write {TIMM}{once}")
    from tlbench.backbones import timm

    timm.check(name)


def _build_timm(name: str, pretrained: bool) -> tuple[nn.Module, str]:
    from tlbench.backbones import timm

    return timm.build(name, pretrained)


def _open_timm(name: str, model: nn.Module) -> Anatomy:
    from tlbench.backbones import timm

    return timm.open_up(name, model)


def _import_timm() -> None:
    from tlbench.machine.lean import importing

    with importing():
        import timm  # noqa: F401


def _build_torchvision(name: str, pretrained: bool) -> tuple[nn.Module, str]:
    built: tuple[nn.Module, str] = _torchvision().build(name, pretrained)
    return built


def _open_torchvision(name: str, model: nn.Module) -> Anatomy:
    anatomy: Anatomy = _torchvision().open_up(name, model)
    return anatomy


def _torchvision() -> Any:
    from tlbench.machine.lean import importing

    with importing():
        from tlbench.backbones import torchvision
    return torchvision


SOURCES: dict[str, Source] = {
    "custom": Source(
        names=lambda: CUSTOM,
        owns=lambda name: name in CUSTOM,
        check=_check_custom,
        row=custom.row,
        build=custom.build,
        open_up=custom.open_up,
    ),
    "timm": Source(
        names=lambda: (),  # more than a thousand: `timm.list_models()` has them
        owns=lambda name: name.startswith(TIMM),
        check=_check_timm,
        row=lambda name: {"backbone": name},
        build=_build_timm,
        open_up=_open_timm,
        ready=_import_timm,
    ),
    "wheels": Source(
        names=lambda: lite.MODELS,
        owns=lambda name: name in lite.MODELS,
        check=_check_known,
        row=known.row,
        build=lite.build,
        open_up=lite.open_up,
        ready=_import_timm,
    ),
    "torchvision": Source(
        names=lambda: [name for name in BACKBONES if name not in lite.MODELS],
        owns=lambda name: True,  # the last row: what no other source knows is looked up here, and not found
        check=_check_known,
        row=known.row,
        build=_build_torchvision,
        open_up=_open_torchvision,
        ready=_torchvision,
    ),
}
"""Name -> source, in the order in which they are asked whose a backbone is."""


def source_of(name: str) -> Source:
    """Returns the source of a backbone, whose name may end in ``@TAG``."""
    return SOURCES[name_of_source(name)]


def name_of_source(name: str) -> str:
    """Returns the row of `SOURCES` that a backbone is of, whose name may end in ``@TAG``."""
    base = name.partition("@")[0]
    return next(row for row, source in SOURCES.items() if source.owns(base))


def names() -> list[str]:
    """Returns the names of all sources, sorted."""
    return sorted({name for source in SOURCES.values() for name in source.names()})
