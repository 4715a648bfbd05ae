"""The commands that hold recorded runs against each other: compare, speedup."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tlbench.cli.app import Plugins, Runs, load, new_console, read_rows
from tlbench.cli.running import argument, with_axes
from tlbench.errors import UserError
from tlbench.grid.axes import AXES
from tlbench.grid.settings import SETTINGS

if TYPE_CHECKING:
    from tlbench.analysis.compare import Comparison
    from tlbench.analysis.sides import Run


NEW_SIDE = "\x1fnew side"
"""Stands for the ``--`` between the runs of two sides, which the parser of options would take away."""


def with_sides(arguments: list[str]) -> list[str]:
    """Returns the command line with the ``--`` of ``compare BASE… -- NEW…`` kept as an argument of its own."""
    if arguments[:1] != ["compare"]:
        return arguments
    return [NEW_SIDE if argument == "--" else argument for argument in arguments]


@partial(with_axes, panel="What --against measures, as of tlbench run")
def compare(
    *,
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="BASE NEW | BASE… -- NEW…", help="runs, or pytest-benchmark's JSON, of both sides"),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="REV|VENV",
            help="measure the grid here and with another version, in turns: a git revision of tlbench, or a virtual "
            "environment",
        ),
    ] = None,
    grid: Annotated[Path | None, typer.Option(metavar="FILE", help="with --against: TOML file with the axes")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="with --against: folder of the runs (default: in results/)")
    ] = None,
    plugin: Plugins = None,
    fail_on: Annotated[
        list[str] | None,
        typer.Option(metavar="METRIC:N%", help="fail where a cell gets worse by more than this; may be repeated"),
    ] = None,
    noise_floor: Annotated[
        str | None, typer.Option(metavar="N%", help="how far apart two runs of the same may come out in a time")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="everything, as JSON")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="everything, as Markdown")] = False,
    **given: str | None,
) -> None:
    """Matched cells of two sides: ratios with intervals, what changed beyond the noise, what matches nothing.

    Runs are the repetitions: several of each side (BASE… -- NEW…), or --against another version, whose blocks are
    measured in turns with this one's. Axes and settings, as of `tlbench run`, are for --against.

    Exit status with --fail-on: 0 every cell stays within the limit; 1 one does not; 2 it cannot be said.
    """
    from tlbench.analysis.compare import compare as compare_sides
    from tlbench.analysis.compare import parse_gate
    from tlbench.analysis.recommend import parse_share

    if as_json and as_markdown:
        raise UserError("--json and --markdown are two forms of the same; give one of them")
    gates = [parse_gate(text) for text in fail_on or ()]
    floor = parse_share(noise_floor) if noise_floor is not None else None
    named = {**{axis.option: given[name] for name, axis in AXES.items()}, **{n: given[argument(n)] for n in SETTINGS}}
    options = {name: text for name, text in named.items() if text is not None}
    if against is not None:
        if runs:
            raise UserError(f"--against measures both sides itself, but got {', '.join(runs)}; leave them away")
        base, new = _measure_in_turns(against, grid, options, plugin or [], out)
    else:
        if measured := [*options, *["grid"] * bool(grid), *["out"] * bool(out)]:
            given_too = ", ".join(f"--{name}" for name in measured)
            raise UserError(f"{given_too} says what to measure, which only --against REV|VENV does")
        base, new = _read_both(runs or [], plugin)
    comparison = compare_sides(base, new, gates, noise_floor=floor, in_turns=against is not None)
    _print_comparison(comparison, as_json, as_markdown)
    raise typer.Exit(comparison.exit_status)


def _read_both(arguments: list[str], plugins: list[str] | None) -> tuple[list[Run], list[Run]]:
    """Reads the runs of both sides. Errors: UserError."""
    base, new = _sides(arguments)
    load(plugins)
    return read_sides(base), read_sides(new)


def _sides(arguments: list[str]) -> tuple[list[Path], list[Path]]:
    """Splits the runs into both sides. Errors: UserError."""
    if arguments.count(NEW_SIDE) == 1:
        at = arguments.index(NEW_SIDE)
        base, new = arguments[:at], arguments[at + 1 :]
    elif NEW_SIDE not in arguments and len(arguments) == 2:
        base, new = arguments[:1], arguments[1:]
    else:
        base, new = [], []
    if not base or not new:
        got = " ".join(repr("--" if one == NEW_SIDE else one) for one in arguments) or "no run"
        raise UserError(f"compare needs two runs, or BASE… -- NEW… with several a side, or --against; got {got}")
    return [Path(one) for one in base], [Path(one) for one in new]


def _measure_in_turns(
    against: str, grid: Path | None, options: dict[str, str], plugins: list[str], out: Path | None
) -> tuple[list[Run], list[Run]]:
    """Measures this version and another one in turns, and reads the runs of both."""
    from tlbench.campaign.against import Stopped, measure

    console = new_console(stderr=True)
    try:
        folders = measure(
            against, grid, options, plugins, out, say=lambda line: console.print(line, markup=False, soft_wrap=True)
        )
    except Stopped as stopped:
        raise typer.Exit(128 + stopped.number) from None
    return read_sides(folders[0]), read_sides(folders[1])


def read_sides(paths: Sequence[Path]) -> list[Run]:
    """Reads the runs of one side. Errors: UserError."""
    from tlbench.analysis.sides import read_runs
    from tlbench.machine.imports import needed_to_the_end

    with needed_to_the_end():
        return [run for path in paths for run in read_runs(path)]


def _print_comparison(comparison: Comparison, as_json: bool, as_markdown: bool) -> None:
    if as_json:
        typer.echo(json.dumps(comparison.to_dict(), indent=1, allow_nan=False, default=str))
    elif as_markdown:
        from tlbench.report.comparison_words import markdown

        typer.echo(markdown(comparison), nl=False)
    else:
        from tlbench.report.terminal import print_comparison

        print_comparison(new_console(), comparison)


def speedup(
    runs: Runs,
    axis: Annotated[str, typer.Option(metavar="AXIS", help="device or precision")] = "device",
    base: Annotated[
        str | None, typer.Option(metavar="VALUE", help="what the others are held against (default: cpu, fp32)")
    ] = None,
    least: Annotated[
        float | None, typer.Option("--min", min=0, metavar="X", help="fail where a cell is less than so fast")
    ] = None,
    plugin: Plugins = None,
) -> None:
    """How many times faster one device or precision is than another, on matched cells.

    With --min, exit status 0: every pair is at least so fast; 1: one is not; 2: the intervals cannot say.
    """
    from tlbench.analysis import speedup as speeds
    from tlbench.analysis.summary import summarise
    from tlbench.report.terminal import pair_names, print_speedups

    load(plugin)
    groups = speeds.speedups(summarise(read_rows(runs)), axis, base)
    console = new_console()
    print_speedups(console, groups)
    if not any(group.pairs for group in groups):
        raise UserError(
            f"no two finished cells differ in their {axis} alone; report a run of each together, "
            f"or run with --{axis} and two values"
        )
    if least is not None:
        named = pair_names(groups)
        status, reasons = speeds.gate(groups, least, lambda pair: f"{named(pair)}, {pair.what}")
        for reason in reasons:
            console.print(reason, markup=False, soft_wrap=True)
        raise typer.Exit(status)
