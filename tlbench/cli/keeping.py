"""The commands of kept models: fit makes one of a run, predict uses it."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tlbench.cli.app import MovedLabels, MovedRoot, Plugins, load, load_with_those_of, read_records
from tlbench.cli.output import write_table
from tlbench.errors import Unavailable, UserError, printable

if TYPE_CHECKING:
    from tlbench.campaign.fitting import Fitted
    from tlbench.kept.model import Prediction


def fit(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="folder of a run, or its name under results/")],
    id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="the cell (default: the one that the verdict names)")
    ] = None,
    pick: Annotated[bool, typer.Option("--pick", help="the cell that the verdict names, which is the default")] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="a new folder for the model (default: RUN/models/<cell>)")
    ] = None,
    format: Annotated[
        str | None, typer.Option(metavar="NAME[,…]", help="also as exported (torch.export), onnx")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(metavar="folder:PATH", help="where the same images lie now, if they have moved")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(metavar="PATH", help="where the same checkpoint lies now, if it has moved")
    ] = None,
    relabel: MovedLabels = None,
    data_root: MovedRoot = None,
    plugin: Plugins = None,
) -> None:
    """Keeps the model of a cell in a folder: of the weights that it has left, or trained again from its record.

    Of a cell that was measured in folds it is one of all images, by the same recipe.

    The folder has the weights (safetensors), a card, and all that `tlbench predict` needs.

    Exit status 0: it is the recorded model; 1: its results are others; 2: it cannot be made.
    """
    from tlbench.campaign import fitting
    from tlbench.campaign.moved import said_to_lie
    from tlbench.campaign.replay import DIFFERENT
    from tlbench.campaign.stop import despite_hangup
    from tlbench.kept.folds import out_of_fold
    from tlbench.kept.saving import check_free
    from tlbench.records.run_folder import find_run

    if pick and id is not None:
        raise UserError("--pick takes the cell that the verdict names, --id the one that you name: give one of them")
    formats = _formats(format)
    folder = find_run(run)
    records = read_records([run])[0]
    record = fitting.chosen(records, id)
    load_with_those_of(run, [record], plugin)
    places = said_to_lie([record], data_root, dataset=dataset, weights=weights, relabel=relabel)
    place = folder if folder.is_dir() else folder.parent
    check_free(fitting.folder_of(record, place, out))
    folds = out_of_fold(records, record)
    why = "" if id is not None else f", {fitting.WHY_THIS[folds is not None]}"
    on = "" if folds is None else " on all images"
    print(f"tlbench: making the model of {printable(record.id)}{on}{why}", file=sys.stderr)
    with despite_hangup():
        fitted = fitting.fit(record, place, out, places, data_root, folds)
        _show_fitted(fitted, formats)
    raise typer.Exit(int(fitted.held.outcome == DIFFERENT))


def _show_fitted(fitted: Fitted, formats: Sequence[str]) -> None:
    """Says what was kept, and writes the other formats beside it. Errors: UserError where a package is missing."""
    from tlbench.campaign import fitting

    typer.echo(printable(str(fitted.folder)))
    for line in fitting.in_words(fitted):
        typer.echo(f"  {printable(line)}")
    for name in formats:
        typer.echo(f"  {printable(str(_write_format(fitted.folder, name)))}")


def _formats(given: str | None) -> list[str]:
    """Returns the names of formats that are wanted beside the model's own. Errors: UserError for an unknown one."""
    from tlbench.errors import unknown
    from tlbench.kept.formats import FORMATS

    names = [name.strip() for name in given.split(",")] if given is not None else []
    for name in names:
        if name not in FORMATS:
            raise unknown("format", name, list(FORMATS))
    return names


def _write_format(folder: Path, name: str) -> Path:
    """Writes a kept model in another format as well, and returns the file; says on standard error where that computes
    in another precision than the model. Errors: UserError where that needs what is not installed.
    """
    from tlbench.kept.formats import about_precision, write_format
    from tlbench.kept.model import load_model

    kept = load_model(folder)
    try:
        path = write_format(kept, name, folder)
    except Unavailable as error:
        raise UserError(f"{error}; the model itself is kept in {str(folder)!r}") from None
    if line := about_precision(kept, name):
        print(f"tlbench: {line}", file=sys.stderr)
    return path


def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="folder of a kept model")],
    images: Annotated[list[str], typer.Argument(metavar="IMAGES…", help="photographs, or folders of them")],
    coverage: Annotated[
        float | None, typer.Option(metavar="SHARE", help="0.95: sets that hold the right class in 95 % of cases")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(metavar="SHARE", help="leave undecided what is less probable than this")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="a CSV file (default: printed)")
    ] = None,
    device: Annotated[str, typer.Option(metavar="DEVICE", help="cpu or cuda")] = "cpu",
    plugin: Plugins = None,
) -> None:
    """Classifies photographs with a kept model: a CSV with a row for each file, as it was given.

    With --coverage or --threshold the class of an image that the model is not sure of stays empty: "I don't know".

    Exit status 0: all were read; 1: some could not be; 2: nothing can be predicted as asked.
    """
    from tlbench.analysis.frame import write_csv
    from tlbench.data.inside import is_image
    from tlbench.kept.card import read_card
    from tlbench.kept.model import TOP, load_model

    given = _with_those_of(model, plugin)
    load(given)
    files = list(_files(images))
    if out is not None and (out.is_dir() or not os.access(out.parent, os.W_OK)):
        why = "it is a folder" if out.is_dir() else f"{str(out.parent)!r} is no folder that can be written to"
        raise UserError(f"cannot write {str(out)!r}: {why}; choose another with --out")
    if out is not None and out.is_file() and (is_image(out.name) or _is_one_of(out, files)):
        raise UserError(f"cannot write {str(out)!r}: it is a photograph; --out takes the name of a CSV file")
    kept = load_model(model, device)
    said = kept.predict(files, coverage=coverage, threshold=threshold)
    top = min(TOP, len(read_card(model).classes))
    columns = _columns(top, coverage is not None, any(one.problem for one in said))
    table = [_row(one) for one in said]
    if out is None:
        write_csv(table, sys.stdout, columns)
    else:
        try:
            text = io.StringIO(newline="")
            write_csv(table, text, columns)
            write_table(out, text.getvalue().encode("utf-8", "surrogateescape"))
        except OSError as error:
            raise UserError(f"cannot write {str(out)!r}: {error.strerror}; choose another with --out") from None
    _tell(said, coverage, threshold)
    raise typer.Exit(int(any(one.problem for one in said)))


def _with_those_of(model: Path, given: list[str] | None) -> list[str]:
    """Returns the plugins to load: those that are given, and those that the model was made with."""
    from tlbench.campaign.plugins import with_those_of
    from tlbench.kept.card import read_card

    names, notes = with_those_of(str(model), [read_card(model).plugins], given or [])
    for line in notes:
        print(f"tlbench: {line}", file=sys.stderr)
    return names


HEAD = b"file,class,"
"""What a table of predictions begins with."""


def _is_one_of(out: Path, files: Sequence[str]) -> bool:
    """Tells whether a file that is there is one of those that are read, and no table of before."""
    with suppress(OSError), out.open("rb") as file:
        if file.read(len(HEAD)) == HEAD:
            return False
    found = out.stat()
    stats = (os.stat(file) for file in files if os.path.exists(file))
    return any(os.path.samestat(found, one) for one in stats)


def _files(images: Sequence[str]) -> Iterator[str]:
    """Yields files as they are given, to the letter (`Path` would make `a.jpg` of `./a.jpg`), and the images below
    folders, sorted, with the folder as it is given; says which pictures there are not read.
    Errors: UserError for what is not there.
    """
    from tlbench.data.inside import endings
    from tlbench.data.scan import unread_endings

    for name in images:
        if not name:  # `Path` would make the working folder of it
            raise UserError("there is no file or folder ''; give photographs, or folders of them")
        if not os.path.lexists(name):
            raise UserError(f"there is no file or folder {name!r}; give photographs, or folders of them")
        if not os.path.isdir(name):
            yield name
            continue
        others: list[str] = []
        found = list(_below(name, others))
        if not found:
            raise UserError(f"folder {name!r} has no images; they end in {', '.join(sorted(endings()))}")
        yield from found
        if unread := unread_endings(others):
            by_ending = ", ".join(f"{number:,} {ending}" for ending, number in unread.items())
            print(f"tlbench: not read below {printable(repr(name))}: {by_ending}", file=sys.stderr)


def _below(folder: str, others: list[str], above: tuple[Path, ...] = ()) -> Iterator[str]:
    """Yields the images below a folder, those that training would find there: links are followed, but in no circle;
    what is hidden or of a system is left out. The names of ``others`` are added there. Errors: UserError for a folder
    that cannot be read.
    """
    from tlbench.data.inside import entries, is_folder, is_image

    real = Path(folder).resolve()
    if real in above:
        return
    for entry in entries(Path(folder), repr(folder)):
        if is_folder(entry):
            yield from _below(os.path.join(folder, entry.name), others, (*above, real))
        elif is_image(entry.name):
            yield os.path.join(folder, entry.name)
        else:
            others.append(entry.name)


def _columns(top: int, sets: bool, problems: bool) -> list[str]:
    ranked = [f"{name}_{n}" for n in range(1, top + 1) for name in ("class", "probability")]
    return ["file", "class", "probability", *ranked, *["set"] * sets, *["problem"] * problems]


def _row(one: Prediction) -> dict[str, Any]:
    best = None if one.probability is None else round(one.probability, DIGITS)
    row: dict[str, Any] = {"file": one.file, "class": one.name, "probability": best, "problem": one.problem}
    for n, (name, probability) in enumerate(one.top, start=1):
        row |= {f"class_{n}": name, f"probability_{n}": round(probability, DIGITS)}
    if one.inside is not None:
        row["set"] = "|".join(one.inside)
    return row


DIGITS = 6
"""Digits of a probability behind the point: further ones depend on which images share a batch."""


def _tell(said: Sequence[Prediction], coverage: float | None, threshold: float | None) -> None:
    """Says on standard error how many were decided."""
    read = [one for one in said if not one.problem]
    if coverage is not None or threshold is not None:
        decided = sum(one.name is not None for one in read)
        print(f"tlbench: {decided} of {len(read)} decided, {len(read) - decided} left undecided", file=sys.stderr)
    if len(read) < len(said):
        print(f"tlbench: {len(said) - len(read)} of {len(said)} could not be read", file=sys.stderr)
