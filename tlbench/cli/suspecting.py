"""The command `suspects`: labels that models contradict which have not seen the images."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from tlbench.cli.app import Plugins, load, read_rows
from tlbench.cli.output import write_table
from tlbench.errors import UserError, printable


def suspects(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="folder of a run in folds, or its name under results/ (latest)")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="CSV file (default: standard output)")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(metavar="DATASET", help="which data set, where there are several")
    ] = None,
    plugin: Plugins = None,
) -> None:
    """Ranks all images, the most suspect label first: a CSV file with the likelier class and how sure that is.

    It takes the predictions of a run with --folds 5, in which every image is judged by a model that has not seen it.

    Write the right class into the column class where the given one is wrong; tlbench run --relabel FILE measures again
    with these corrections. The images are never touched.
    """
    from tlbench.analysis.frame import write_csv
    from tlbench.analysis.summary import summarise
    from tlbench.analysis.suspects import COLUMNS, suspects_of
    from tlbench.report.wording import label

    load(plugin)
    found = suspects_of(summarise(read_rows([run])), dataset)
    if out is None:
        write_csv(found.rows, sys.stdout, tuple(COLUMNS))
    else:
        _check_none_lost(out, found.rows)
        try:
            text = io.StringIO(newline="")
            write_csv(found.rows, text, tuple(COLUMNS))
            write_table(out, text.getvalue().encode("utf-8", "backslashreplace"))
        except OSError as error:
            raise UserError(f"cannot write to {str(out)!r}: {error.strerror}") from None
    models = f"{found.seeds} models" if found.seeds > 1 else "a model"
    said = (
        f"{found.contradicted:,} of {len(found.rows):,} images look more like another class to {models} of "
        f"{label(found.configuration)} that had not seen them"
    )
    for line in filter(None, (said, found.note)):
        print(printable(line), file=sys.stderr)


def _check_none_lost(out: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Raises UserError where a list that is there has corrections that the new one lacks."""
    from tlbench.data.relabel import WrongRow, of_files, read_corrections

    if not out.is_file():  # a pipe would be waited for
        return
    try:
        there = read_corrections(str(out))
    except WrongRow as error:
        raise UserError(f"{str(out)!r} may have corrections: {error}; mend it, or write to another file") from None
    except UserError:
        return  # it corrects nothing
    known = of_files(there, [row["file"] for row in rows])
    kept = {row["file"]: row["class"] for row in rows}
    lost = len(there.classes) - sum(kept[file] == name for file, name in known.items())
    if lost:
        raise UserError(
            f"{str(out)!r} has {lost:,} corrected classes that the new list lacks; write that to another file, or run "
            f"with --relabel {out} first"
        )
