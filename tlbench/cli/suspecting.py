"""The command `suspects`: labels that models contradict which have not seen the images."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from tlbench.cli.app import Plugins, load, read_rows
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
        try:
            with out.open("w", encoding="utf-8", newline="") as file:
                write_csv(found.rows, file, tuple(COLUMNS))
        except OSError as error:
            raise UserError(f"cannot write to {str(out)!r}: {error.strerror}") from None
    models = f"{found.seeds} models" if found.seeds > 1 else "a model"
    said = (
        f"{found.contradicted:,} of {len(found.rows):,} images look more like another class to {models} of "
        f"{label(found.configuration)} that had not seen them"
    )
    print(printable(said), file=sys.stderr)
