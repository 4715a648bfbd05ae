"""The commands that measure recorded cells again: duel, replay."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tlbench.cli.app import MovedLabels, MovedRoot, Plugins, load_with_those_of, new_console, read_records
from tlbench.errors import printable

if TYPE_CHECKING:
    from tlbench.campaign.duel import Duel
    from tlbench.campaign.replay import Replay


def duel(
    cell_a: Annotated[str, typer.Argument(metavar="CELL_A", help="backbone=resnet18,freeze=full,… or an id of --run")],
    cell_b: Annotated[str, typer.Argument(metavar="CELL_B", help="the same, for what is held against it")],
    run: Annotated[Path | None, typer.Option(metavar="RUN", help="a run whose ids and keys may name the cells")] = None,
    rounds: Annotated[
        int, typer.Option(min=1, metavar="N", help="rounds of each in a block; best a multiple of 6")
    ] = 36,
    blocks: Annotated[int, typer.Option(min=1, metavar="N", help="times to build both anew; an interval needs 2")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="everything that was measured, as JSON")] = False,
    plugin: Plugins = None,
) -> None:
    """How many times as long one cell takes as another, measured in turns, round by round, in one process.

    A cell also takes the settings threads, deterministic, prefix and views: backbone=resnet18,threads=1
    A round is an epoch of training, or a few batches of inference.

    Exit status 0: measured, whatever came out; 1: a cell failed; 2: it cannot be measured as asked.
    """
    from tlbench.campaign import duel as duelling
    from tlbench.campaign.duel_side import checked, parse_side
    from tlbench.machine.credentials import without_credentials
    from tlbench.train.loop import Diverged

    records = read_records([run])[0] if run is not None else []
    load_with_those_of(run, records, plugin)
    a, b = (checked(parse_side(text, records)) for text in (cell_a, cell_b))
    progress = new_console(stderr=True)
    try:
        result = duelling.duel(
            a, b, rounds, blocks, on_block=lambda n: progress.print(f"block {n + 1} of {blocks}", markup=False)
        )
    except (Diverged, MemoryError, RuntimeError) as error:
        said = printable(without_credentials(f"{type(error).__name__}: {error}"))
        print(f"tlbench: the duel stopped: {said}", file=sys.stderr)
        raise typer.Exit(1) from None
    if as_json:
        typer.echo(json.dumps(result.to_dict(), indent=1, allow_nan=False))
    else:
        _print_duel(result)


def _print_duel(result: Duel) -> None:
    from tlbench.campaign.duel_side import names
    from tlbench.report import wording

    name_a, name_b = names(result.a, result.b)
    for letter, name, key in (("A", name_a, "a"), ("B", name_b, "b")):
        seconds = result.seconds(key)
        took = f"{wording.milliseconds(1000 * seconds)} an image, {wording.speed(1 / seconds)}"
        typer.echo(f"{letter}  {printable(name)}: {took}")
    counted = f"{len(result.blocks)} blocks of {len(result.blocks[0].a)} rounds"
    typer.echo(f"B takes {wording.ratio(result.ratio)} times as long as A for an image, over {counted}")
    typer.echo(printable(f"{result.verdict.outcome}: {result.verdict.reason}"))
    typer.echo(
        f"A against A, measured in the same way: {100 * (result.floor.seen or 0):.2f} % apart, so that differences up "
        f"to {100 * result.floor.relative:.2f} % are noise"
    )
    flagged = [reason for block in result.blocks for reason in block.noisy]
    typer.echo(f"rounds: {sum(map(bool, flagged))} of {len(flagged)} noisy")
    if result.validity != "ok":
        typer.echo(printable(f"{result.validity}: {result.validity_reason}"))


def replay(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="folder of a run, or a records.jsonl file")],
    key: Annotated[str | None, typer.Option(metavar="KEY", help="only the cell with this key")] = None,
    id: Annotated[str | None, typer.Option(metavar="ID", help="only cells with this id")] = None,
    threads: Annotated[int | None, typer.Option(min=1, metavar="N", help="instead of as many as were recorded")] = None,
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
    """Runs recorded cells again, from their records alone, and says what came out differently.

    Exit status 0: equal, or within tolerance; 1: different; 2: cannot be rebuilt.
    """
    from tlbench.campaign import replay as again
    from tlbench.campaign.moved import said_to_lie
    from tlbench.records.holder import check_free
    from tlbench.records.run_folder import find_run

    check_free(folder if (folder := find_run(run)).is_dir() else folder.parent)
    worst = 0
    selected = again.select(read_records([run])[0], key, id)
    load_with_those_of(run, selected, plugin)
    places = said_to_lie(selected, data_root, dataset=dataset, weights=weights, relabel=relabel)
    for record in selected:
        replayed = again.replay(record, threads, places, data_root)
        worst = max(worst, again.EXIT[replayed.outcome])
        _print_replay(replayed)
    raise typer.Exit(worst)


MOST_DIFFERENCES = 12


def _print_replay(replayed: Replay) -> None:
    """Prints what came out. A record may come from elsewhere, and have any text in it."""
    reason = f": {replayed.reason}" if replayed.reason else ""
    compared = f" ({replayed.compared} results)" if replayed.compared else ""
    typer.echo(printable(f"{replayed.outcome}  {replayed.record.cell.task} {replayed.record.id}{compared}{reason}"))
    for difference in replayed.differences[:MOST_DIFFERENCES]:
        kept = ", within tolerance" if difference.tolerated else ""
        typer.echo(printable(f"  {difference.what}: {difference.recorded}, now {difference.now}{kept}"))
    if len(replayed.differences) > MOST_DIFFERENCES:
        typer.echo(f"  … and {len(replayed.differences) - MOST_DIFFERENCES} more")
    for name, (before, now) in replayed.machine.items():
        typer.echo(printable(f"  machine: {name} was {before}, is {now}"))
