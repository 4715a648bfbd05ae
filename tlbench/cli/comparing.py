"""The commands that hold one thing against another: compare, speedup, duel, replay."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tlbench.cli.app import Plugins, Runs, new_console, read_records, read_rows
from tlbench.errors import UserError

if TYPE_CHECKING:
    from tlbench.campaign.duel import Duel
    from tlbench.campaign.replay import Replay


def compare(
    base: Annotated[Path, typer.Argument(metavar="BASE", help="a run, or pytest-benchmark's JSON")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="what is held against it")],
    fail_on: Annotated[
        list[str] | None,
        typer.Option(metavar="METRIC:N%", help="fail where a cell gets worse by this much; may be repeated"),
    ] = None,
    noise_floor: Annotated[
        str | None, typer.Option(metavar="N%", help="of times (default: what the runs' A/A pairs measured)")
    ] = None,
) -> None:
    """Matched cells of two runs: ratios with intervals, what changed beyond the noise, what matches nothing.

    Exit status 0: nothing to fail on; 1: a regression; 2: cannot compare, and why.
    """
    from tlbench.analysis.compare import compare as compare_runs
    from tlbench.analysis.compare import parse_gate
    from tlbench.analysis.recommend import parse_share
    from tlbench.analysis.sides import read_run
    from tlbench.report.terminal import print_comparison, print_discordances

    gates = [parse_gate(text) for text in fail_on or ()]
    floor = parse_share(noise_floor) if noise_floor is not None else None
    sides = read_run(base), read_run(new)
    comparison = compare_runs(*sides, gates, floor)
    console = new_console()
    print_comparison(console, comparison)
    print_discordances(console, *sides)
    raise typer.Exit(comparison.exit_status)


def speedup(
    runs: Runs,
    axis: Annotated[str, typer.Option(help="device or precision")] = "device",
    base: Annotated[str | None, typer.Option(help="what the others are held against (default: cpu, fp32)")] = None,
    least: Annotated[float | None, typer.Option("--min", min=0, help="fail where a cell is less than so fast")] = None,
) -> None:
    """How many times faster one device or precision is than another, on matched cells.

    With --min, exit status 0: every pair is at least so fast; 1: one is not; 2: the intervals cannot say.
    """
    from tlbench.analysis import speedup as speeds
    from tlbench.analysis.summary import summarise
    from tlbench.report.terminal import print_speedups

    groups = speeds.speedups(summarise(read_rows(runs)), axis, base)
    console = new_console()
    print_speedups(console, groups)
    if not any(group.pairs for group in groups):
        raise UserError(
            f"no two finished cells differ in their {axis} alone; report a run of each together, "
            f"or run with --{axis} and two values"
        )
    if least is not None:
        status, reasons = speeds.gate(groups, least)
        for reason in reasons:
            console.print(reason, markup=False, soft_wrap=True)
        raise typer.Exit(status)


# --- replay, duel, efficiency ---------------------------------------------------------------------------------


def duel(
    cell_a: Annotated[str, typer.Argument(metavar="CELL_A", help="backbone=resnet18,freeze=full,… or an id of --run")],
    cell_b: Annotated[str, typer.Argument(metavar="CELL_B", help="the same, for what is held against it")],
    run: Annotated[Path | None, typer.Option(help="a run whose ids and keys may name the cells")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="rounds of each in a block; best a multiple of 6")] = 36,
    blocks: Annotated[int, typer.Option(min=1, help="times to build both anew; an interval needs 2")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="everything that was measured, as JSON")] = False,
    plugin: Plugins = None,
) -> None:
    """How many times as long one cell takes as another, measured in turns, round by round, in one process.

    A cell also takes the settings threads, deterministic, prefix and views: backbone=resnet18,threads=1
    A round is an epoch of training, or a few batches of inference.
    """
    from tlbench.campaign import duel as duelling
    from tlbench.campaign.duel_side import checked, parse_side
    from tlbench.campaign.plugins import load_plugins
    from tlbench.train.loop import Diverged

    load_plugins(plugin or [])
    records = read_records([run])[0] if run is not None else []
    a, b = (checked(parse_side(text, records)) for text in (cell_a, cell_b))
    progress = new_console(stderr=True)
    try:
        result = duelling.duel(
            a, b, rounds, blocks, on_block=lambda n: progress.print(f"block {n + 1} of {blocks}", markup=False)
        )
    except (Diverged, MemoryError, RuntimeError) as error:
        print(f"tlbench: the duel stopped: {type(error).__name__}: {error}", file=sys.stderr)
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
        typer.echo(f"{letter}  {name}: {wording.milliseconds(1000 * seconds)} an image, {wording.speed(1 / seconds)}")
    counted = f"{len(result.blocks)} blocks of {len(result.blocks[0].a)} rounds"
    typer.echo(f"B takes {wording.ratio(result.ratio)} times as long as A for an image, over {counted}")
    typer.echo(f"{result.verdict.outcome}: {result.verdict.reason}")
    typer.echo(
        f"A/A, measured alike: {100 * result.floor.seen:.2f} % apart, so that differences up to "
        f"{100 * result.floor.relative:.2f} % are noise"
    )
    flagged = [reason for block in result.blocks for reason in block.noisy]
    typer.echo(f"rounds: {sum(map(bool, flagged))} of {len(flagged)} noisy")
    if result.validity != "ok":
        typer.echo(f"{result.validity}: {result.validity_reason}")


def replay(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="folder of a run, or a records.jsonl file")],
    key: Annotated[str | None, typer.Option(help="only the cell with this key")] = None,
    id: Annotated[str | None, typer.Option(help="only cells with this id")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="instead of as many as were recorded")] = None,
    plugin: Plugins = None,
) -> None:
    """Runs recorded cells again, from their records alone, and says what came out differently.

    Exit status 0: equal, or within tolerance; 1: different; 2: cannot be rebuilt.
    """
    from tlbench.campaign import replay as again
    from tlbench.campaign.plugins import load_plugins

    load_plugins(plugin or [])
    worst = 0
    for record in again.select(read_records([run])[0], key, id):
        replayed = again.replay(record, threads)
        worst = max(worst, again.EXIT[replayed.outcome])
        _print_replay(replayed)
    raise typer.Exit(worst)


MOST_DIFFERENCES = 12


def _print_replay(replayed: Replay) -> None:
    reason = f": {replayed.reason}" if replayed.reason else ""
    compared = f" ({replayed.compared} results)" if replayed.compared else ""
    typer.echo(f"{replayed.outcome}  {replayed.record.cell.task} {replayed.record.id}{compared}{reason}")
    for difference in replayed.differences[:MOST_DIFFERENCES]:
        kept = ", within tolerance" if difference.tolerated else ""
        typer.echo(f"  {difference.what}: {difference.recorded}, now {difference.now}{kept}")
    if len(replayed.differences) > MOST_DIFFERENCES:
        typer.echo(f"  … and {len(replayed.differences) - MOST_DIFFERENCES} more")
    for name, (before, now) in replayed.machine.items():
        typer.echo(f"  machine: {name} was {before}, is {now}")
