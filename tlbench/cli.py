"""The command line: list, show, run, report, export, env. Heavy imports wait until a command needs them."""

from __future__ import annotations

import inspect
import json
import shlex
import signal
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tlbench import __version__
from tlbench.errors import NotApplicable, Unavailable, UserError, lookup
from tlbench.grid import AXES, Cell, Grid, load_grid, parse_axis
from tlbench.record import SETTINGS, Settings, parse_given

if TYPE_CHECKING:
    from rich.console import Console
    from torch import nn

    from tlbench.backbones.base import StageCost
    from tlbench.duel import Duel
    from tlbench.record import Record
    from tlbench.replay import Replay
    from tlbench.suite import Step

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Which backbone, freeze policy and head for my images on my hardware, and what does each cost?",
)

Runs = Annotated[
    list[Path],
    typer.Argument(metavar="RUN…", help="folders of runs, their names under results/, or records.jsonl files"),
]


def main() -> None:
    """The entry point: a user's mistake is one line on standard error and exit status 2."""
    try:
        app()
    except (UserError, NotApplicable, Unavailable) as error:
        print(f"tlbench: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except BrokenPipeError:  # `tlbench export … | head`
        sys.stderr.close()
        raise SystemExit(141) from None


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tlbench {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    pass


def _console(stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False)


# --- list -----------------------------------------------------------------------------------------------------


def _list_backbones(pattern: str | None) -> list[dict[str, Any]]:
    from tlbench.backbones import list_backbones

    return list_backbones(pattern)


def _list_policies(_: str | None) -> list[dict[str, Any]]:
    from tlbench.policies import POLICIES, form

    return [{"policy": form(n), "trains": p.summary, "source": p.source} for n, p in POLICIES.items()]


def _list_heads(_: str | None) -> list[dict[str, Any]]:
    from tlbench.heads import HEADS

    return [{"head": name, "what it is": head.summary} for name, head in HEADS.items()]


def _list_datasets(_: str | None) -> list[dict[str, Any]]:
    from tlbench.data import DATASETS

    return [{"dataset": name, "what it is": dataset.summary} for name, dataset in DATASETS.items()]


LISTS: dict[str, Callable[[str | None], list[dict[str, Any]]]] = {
    "backbones": _list_backbones,
    "policies": _list_policies,
    "heads": _list_heads,
    "datasets": _list_datasets,
}


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(help=", ".join(LISTS))],
    pattern: Annotated[str | None, typer.Argument(help="only names that match, such as 'resnet*'")] = None,
) -> None:
    """What can be chosen on an axis."""
    from rich.table import Table

    rows = lookup(LISTS, "list", what)(pattern)
    if pattern:
        from fnmatch import fnmatch

        rows = [row for row in rows if fnmatch(str(next(iter(row.values()))), f"*{pattern.strip('*')}*")]
        if not rows:
            raise UserError(f"no {what} match {pattern!r}; `tlbench list {what}` shows all")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for key, value in rows[0].items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        table.add_column(key.replace("_", " "), justify="right" if number else "left")
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    _console().print(table)


def _cell(value: Any) -> str:
    from rich.markup import escape

    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else escape(str(value))


# --- show -----------------------------------------------------------------------------------------------------


@app.command()
def show(
    backbone: Annotated[str, typer.Argument(help="a name of `tlbench list backbones`")],
    freeze: Annotated[str, typer.Option(help=AXES["freeze"].help)] = Cell.freeze,
    head: Annotated[str, typer.Option(help=AXES["head"].help)] = Cell.head,
    classes: Annotated[int, typer.Option(min=1, help="classes of the new head")] = 23,
    image_size: Annotated[int | None, typer.Option(min=8, help=AXES["image_size"].help)] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="images in the summary's input")] = 32,
    epochs: Annotated[int, typer.Option(min=1, help="epochs that a schedule's phases are laid out over")] = 10,
) -> None:
    """A backbone with a new head under a freeze policy: layers, shapes, parameters, what trains."""
    from tlbench.backbones import check_backbone
    from tlbench.heads import HEADS
    from tlbench.policies import parse_policy

    check_backbone(backbone)
    lookup(HEADS, "head", head)
    policy = parse_policy(freeze)
    from torchinfo import summary

    from tlbench import freeze as freezing
    from tlbench.backbones import load_backbone
    from tlbench.backbones.base import stage_costs
    from tlbench.job import assemble, image_size_of
    from tlbench.train import plan_epochs, step_flops

    loaded = load_backbone(backbone, "random")  # shapes and counts do not depend on the weights
    model = assemble(loaded, head, classes)
    size = image_size_of(Cell(backbone=backbone, image_size=image_size), loaded)
    if policy.policy.adapter == "lora":
        from tlbench.adapters import inject_lora

        inject_lora(model, policy.arguments, size)
    described = freezing.describe(model, loaded.group_of)
    phases = policy.phases(described, epochs)
    freezing.apply(model, phases[0])
    # Without data on the meta device: a summary at any batch size costs no memory and no time.
    report = summary(
        model.to("meta"),
        input_size=(batch_size, 3, size, size),
        col_names=["input_size", "output_size", "num_params", "trainable"],
        col_width=20,
        row_settings=["var_names"],
        device="meta",
        mode="eval",  # each phase below sets its own modes
        verbose=0,
    )
    typer.echo(str(report))
    names = [name for name, _ in model.named_children()]
    total = sum(p.numel for p in described.params)
    plan = plan_epochs(phases, epochs)
    costs = stage_costs(model, size)
    _stage_table(model, costs)
    for phase in phases:
        count = sum(p is phase for p in plan)
        freezing.apply(model, phase)
        cut = freezing.cut(model)
        when = f" for {count} of {epochs} epochs" if len(phases) > 1 else ""
        typer.echo(
            f"{phase.name}{when}: {freezing.count_trainable(described, phase):,} trainable parameters of {total:,}; "
            f"{step_flops(model, phase, size, costs) / 1e9:.3g} GFLOP a training image; "
            f"cut at {names[cut]}, frozen prefix: {', '.join(names[:cut]) or 'none'}"
        )
    if loaded.note:
        typer.echo(f"Note: {loaded.note}")


def _stage_table(model: nn.Sequential, costs: Iterable[StageCost]) -> None:
    """Parameters, what of them trains, and forward FLOPs for one image, of each stage and the head."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("stage")
    for heading in ("parameters", "trainable", "forward GFLOP"):
        table.add_column(heading, justify="right")
    counted: set[int] = set()
    for cost, (name, stage) in zip(costs, model.named_children(), strict=True):
        own = {id(p): p.numel() for p in stage.parameters() if p.requires_grad and id(p) not in counted}
        counted |= own.keys()
        table.add_row(name, f"{cost.parameters:,}", f"{sum(own.values()):,}", f"{cost.flops / 1e9:.3g}")
    _console().print(table)


# --- run ------------------------------------------------------------------------------------------------------


def _with_axes(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command one option for each axis of the grid and each setting, from the tables that know them."""
    signature = inspect.signature(command, eval_str=True)
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    options = {name: (axis.option, "VALUE[,…]", axis.help) for name, axis in AXES.items()}
    options |= {_argument(name): (name, setting.metavar, setting.help) for name, setting in SETTINGS.items()}
    added = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[str | None, typer.Option(f"--{option}", metavar=metavar, help=help_text)],
        )
        for name, (option, metavar, help_text) in options.items()
    ]
    command.__signature__ = signature.replace(parameters=[*added, *own])  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in [*added, *own]}
    return command


def _argument(option: str) -> str:
    return f"setting_{option.replace('-', '_')}"


@app.command()
@_with_axes
def run(
    *,
    grid: Annotated[Path | None, typer.Option(help="TOML file with the axes; options override it")] = None,
    out: Annotated[Path | None, typer.Option(help="the run's folder (default: results/<date and time>)")] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN", help="go on with a run; axes that are given add cells to it")
    ] = None,
    rerun: Annotated[
        str | None,
        typer.Option(metavar="WHAT[,…]", help="with --resume, measure again what is noisy, drifting, diverged, …"),
    ] = None,
    plugin: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Python file or module with backbones of yours; may be repeated"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="list the cells, run nothing")] = False,
    **given: str | None,
) -> None:
    """Trains and times every combination of the axes; one record a cell, then a report.

    Each axis takes comma-separated values: --backbone resnet18,vgg16 --freeze linear_probe,full

    Ctrl-C keeps what is finished; --resume goes on with what is missing, was interrupted or has failed.
    """
    axes = {name: parse_axis(name, text) for name in AXES if (text := given[name]) is not None}
    values = parse_given({name: text for name in SETTINGS if (text := given[_argument(name)]) is not None})
    if resume is not None and out is not None:
        raise UserError("--resume goes on in the run's own folder: leave --out away")
    if rerun is not None and resume is None:
        raise UserError("--rerun chooses what of a run to measure again: name the run with --resume RUN")
    file = load_grid(grid) if grid else None
    from tlbench import suite
    from tlbench.store import Plan, current, new_run
    from tlbench.worker import load_plugins

    plugins = plugin or []
    redo = suite.parse_rerun(rerun)
    load_plugins(plugins)
    if resume is None:
        settings = Settings(**{"isolate": "backbone", **values})
        checked = suite.check((file or Grid()).with_axes(axes), settings)
        store, plan, earlier = None, Plan(grids=(checked,), settings=settings, versions={}, started=""), []
    else:
        change = (lambda first: (file or first).with_axes(axes)) if axes or file else None
        store, plan, loaded = suite.go_on(resume, values, change)
        earlier = loaded.records
        for line in loaded.damaged:
            print(f"tlbench: set aside {line}", file=sys.stderr)
    planned = suite.steps(plan.grids[0], plan.settings, plan.grids[1:])
    missing = suite.left(planned, earlier, redo)
    if dry_run:
        _list_cells(missing, plan.settings.blocks)
        return
    console = _console()
    if store is None:
        store = new_run(out)
        store.describe(plan.grids[0], plan.settings)
    else:
        store.extend(plan.grids[-1])
        console.print(
            f"{len(planned) - len(missing)} of {len(planned)} measurements are there, {len(missing)} are left"
        )
    with _Progress(len(missing)) as progress:
        outcome = suite.run_grid(
            plan.grids[0],
            plan.settings,
            store,
            progress.start,
            progress.finish,
            added=plan.grids[1:],
            earlier=earlier,
            redo=redo,
            plugins=plugins,
        )
    records = current([*earlier, *outcome.records])
    if outcome.interrupted:
        done = len(planned) - len(suite.left(planned, records))
        _print_stopped(console, f"{done} of {len(planned)}", store.folder, plugins)
        raise typer.Exit(128 + (outcome.signal or signal.SIGINT))
    from tlbench.report import write_report
    from tlbench.summary import print_summary

    print_summary(console, records, write_report(records, store.folder))
    if outcome.stopped:
        console.print(f"Stopped before its end: {outcome.stopped}", markup=False, soft_wrap=True)
    if outcome.stopped or {record.status for record in records} & {*suite.FAILURES, "diverged"}:
        raise typer.Exit(1)


def _list_cells(steps: Sequence[Step], blocks: int) -> None:
    for step in steps:
        if step.role == "cell":
            typer.echo(f"{step.cell.task} {step.name}" + (f" block {step.block}" if blocks > 1 else ""))


def _print_stopped(console: Console, done: str, folder: Path, plugins: Sequence[str]) -> None:
    """What is there, and the commands that go on from it."""
    again = shlex.join(["tlbench", "run", "--resume", str(folder), *(f"--plugin={name}" for name in plugins)])
    for line in (
        f"Stopped: {done} measurements are finished and kept in {folder}",
        f"To go on: {again}",
        f"Report of what is there: {shlex.join(['tlbench', 'report', str(folder)])}",
    ):
        console.print(line, markup=False, soft_wrap=True)


class _Progress:
    """On standard error a line for each finished cell and the time left: as a live bar, or in the line of a log."""

    def __init__(self, cells: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.progress import TimeRemainingColumn as TimeLeft
        from rich.table import Column

        console = _console(stderr=True)
        self._bar = Progress(
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeLeft(),
            # The one that may be cut off.
            TextColumn(
                "{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)
            ),
            console=console,
            disable=not console.is_terminal,
            expand=True,
            speed_estimate_period=float("inf"),  # the mean of all cells: one may take longer than rich's 30 s
        )
        self._task = self._bar.add_task("", total=cells)

    def __enter__(self) -> _Progress:
        self._bar.start()
        self._bar.advance(self._task, 0)  # the sample that the first cell's time is taken from
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def start(self, step: Step) -> None:
        self._bar.update(self._task, description=f"{step.cell.task} {step.name}")

    def finish(self, record: Record) -> None:
        self._bar.advance(self._task)
        accuracy = "" if record.accuracy_test is None else f", test accuracy {record.accuracy_test:.3f}"
        reason = f": {record.reason}" if record.reason else ""
        if record.validity != "ok":
            reason += f"; {record.validity}: {record.validity_reason}"
        notes = "".join(f"; {note}" for note in record.prefix.get("notes", ()))
        progress = "" if self._bar.console.is_terminal else f"[{self._left()}] "
        self._bar.console.print(
            f"{progress}{record.status} {record.cell.task} {record.id} ({record.wall_seconds:.1f} s{accuracy})"
            f"{reason}{notes}",
            markup=False,
            soft_wrap=True,
        )

    def _left(self) -> str:
        """``7/30, 2:31 left``, from the mean of what is finished."""
        from datetime import timedelta

        task = self._bar.tasks[self._task]
        done, elapsed = int(task.completed), task.elapsed or 0.0
        left = timedelta(seconds=round(elapsed / done * ((task.total or done) - done)))
        return f"{done}/{task.total:.0f}, {left} left"


# --- report, export, env --------------------------------------------------------------------------------------


@app.command()
def report(
    runs: Runs,
    out: Annotated[Path | None, typer.Option(help="folder for the report (default: the first run's)")] = None,
) -> None:
    """Writes report.html, Markdown, CSV, Parquet and figures from the records of one or several runs."""
    from tlbench.report import write_report
    from tlbench.store import find_run

    records, names = _records(runs)
    first = find_run(runs[0])
    typer.echo(write_report(records, out or (first if first.is_dir() else first.parent), names))


@app.command()
def summary(runs: Runs) -> None:
    """The verdict and the table in the terminal."""
    from tlbench.summary import print_summary

    records, names = _records(runs)
    print_summary(_console(), records, runs=names)


@app.command()
def recommend(
    runs: Runs,
    max_latency_ms: Annotated[float | None, typer.Option(min=0, help="p95 of single images, milliseconds")] = None,
    max_memory: Annotated[str | None, typer.Option(metavar="SIZE", help="peak in training, such as 2GB")] = None,
    max_training: Annotated[str | None, typer.Option(metavar="TIME", help="whole training: 90s, 5min, 2h")] = None,
    min_accuracy: Annotated[str | None, typer.Option(metavar="SHARE", help="on validation data: 0.9 or 90%")] = None,
    device: Annotated[str | None, typer.Option(help="only cells on this device")] = None,
    dataset: Annotated[str | None, typer.Option(help="only cells on this data set")] = None,
) -> None:
    """The most accurate cell under limits, the runner-up, and what excluded each of the others.

    Exit status 1 where no cell keeps to the limits.
    """
    from tlbench import recommend as picking
    from tlbench import wording
    from tlbench.frame import summarise
    from tlbench.summary import print_recommendation

    limits = picking.Limits(
        max_latency_ms=max_latency_ms,
        max_memory_bytes=picking.parse_bytes(max_memory) if max_memory is not None else None,
        max_training_seconds=picking.parse_seconds(max_training) if max_training is not None else None,
        min_accuracy=picking.parse_share(min_accuracy) if min_accuracy is not None else None,
        device=device,
        dataset=dataset,
    )
    table = summarise(_rows(runs))
    found = picking.recommend(table, limits, wording.figure)
    print_recommendation(_console(), found, table)
    raise typer.Exit(0 if found.pick is not None else 1)


@app.command()
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
    from tlbench.compare import compare as compare_runs
    from tlbench.compare import parse_gate, read_run
    from tlbench.recommend import parse_share
    from tlbench.summary import print_comparison

    gates = [parse_gate(text) for text in fail_on or ()]
    floor = parse_share(noise_floor) if noise_floor is not None else None
    found = compare_runs(read_run(base), read_run(new), gates, floor)
    print_comparison(_console(), found)
    raise typer.Exit(found.exit_status)


@app.command()
def speedup(
    runs: Runs,
    axis: Annotated[str, typer.Option(help="device or precision")] = "device",
    base: Annotated[str | None, typer.Option(help="what the others are held against (default: cpu, fp32)")] = None,
    least: Annotated[float | None, typer.Option("--min", min=0, help="fail where a cell is less than so fast")] = None,
) -> None:
    """How many times faster one device or precision is than another, on matched cells.

    With --min, exit status 0: every pair is at least so fast; 1: one is not; 2: the intervals cannot say.
    """
    from tlbench import speedup as speeds
    from tlbench.frame import summarise
    from tlbench.summary import print_speedups

    found = speeds.speedups(summarise(_rows(runs)), axis, base)
    console = _console()
    print_speedups(console, found)
    if not any(one.pairs for one in found):
        raise UserError(
            f"no two finished cells differ in their {axis} alone; report a run of each together, "
            f"or run with --{axis} and two values"
        )
    if least is not None:
        status, reasons = speeds.gate(found, least)
        for reason in reasons:
            console.print(reason, markup=False, soft_wrap=True)
        raise typer.Exit(status)


@app.command()
def export(
    runs: Runs,
    format: Annotated[str, typer.Option(help="csv or json")] = "csv",
) -> None:
    """A tidy table of the records on standard output, one row a cell; A/A measurements are left out."""
    from tlbench.frame import without_twins

    writer = lookup(EXPORTS, "format", format)
    writer(without_twins(_rows(runs)))


def _export_csv(table: Sequence[Mapping[str, Any]]) -> None:
    from tlbench.frame import EXPORT_COLUMNS, write_csv

    write_csv(table, sys.stdout, EXPORT_COLUMNS)


def _export_json(table: Sequence[Mapping[str, Any]]) -> None:
    from tlbench.frame import EXPORT_COLUMNS

    plain = [{name: item[name] for name in EXPORT_COLUMNS} for item in table]
    typer.echo(json.dumps(plain, indent=1, allow_nan=False))


EXPORTS: dict[str, Callable[[Sequence[Mapping[str, Any]]], None]] = {"csv": _export_csv, "json": _export_json}


@app.command()
def cache(
    clear: Annotated[bool, typer.Option("--clear", help="remove the stored activations")] = False,
) -> None:
    """What is kept of frozen layers on the disk, for runs whose activations exceed the memory for them."""
    from tlbench.compute import cache_folder
    from tlbench.prefix import clear_files, files

    count, size = clear_files() if clear else files()
    done = "removed" if clear else "there are"
    typer.echo(f"{done} {count} stored activations, {size / 1e6:,.1f} MB, in {cache_folder() / 'prefix'}")


@app.command()
def env() -> None:
    """This machine as every record describes it, with the default settings, as JSON."""
    import torch

    from tlbench.compute import deterministic, set_allocator, set_matmul_precision
    from tlbench.device import environment, settings

    set_matmul_precision(Cell().precision)
    with deterministic(Settings().deterministic):
        used = settings(set_allocator(Settings().allocator))
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        typer.echo(json.dumps(environment(device, used=used), indent=1))


def _records(runs: list[Path]) -> tuple[list[Record], list[str]]:
    """All records of the runs, and the run of each; damaged lines are named on standard error.

    Errors: UserError for a run that is not there or has no record, or one that is given twice.
    """
    from tlbench.store import load

    records: list[Record] = []
    names: list[str] = []
    for run in runs:
        if runs.count(run) > 1:
            raise UserError(f"run {str(run)!r} is given twice; its records would count double")
        loaded = load(run)
        for line in loaded.damaged:
            print(f"tlbench: set aside {line}", file=sys.stderr)
        if not loaded.records:
            raise UserError(f"no records in {str(run)!r}; `tlbench run --out DIR` makes some")
        records += loaded.records
        names += [str(run)] * len(loaded.records)
    return records, names


def _rows(runs: list[Path]) -> list[dict[str, Any]]:
    from tlbench.frame import rows

    return rows(*_records(runs))


# --- replay, duel, efficiency ---------------------------------------------------------------------------------


@app.command()
def duel(
    cell_a: Annotated[str, typer.Argument(metavar="CELL_A", help="backbone=resnet18,freeze=full,… or an id of --run")],
    cell_b: Annotated[str, typer.Argument(metavar="CELL_B", help="the same, for what is held against it")],
    run: Annotated[Path | None, typer.Option(help="a run whose ids and keys may name the cells")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="rounds of each in a block; best a multiple of 6")] = 36,
    blocks: Annotated[int, typer.Option(min=1, help="times to build both anew; an interval needs 2")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="everything that was measured, as JSON")] = False,
) -> None:
    """How many times as long one cell takes as another, measured in turns, round by round, in one process.

    A cell also takes the settings threads, deterministic, prefix and views: backbone=resnet18,threads=1
    A round is an epoch of training, or a few batches of inference.
    """
    from tlbench import duel as duelling
    from tlbench.train import Diverged

    records = _records([run])[0] if run is not None else []
    a, b = (duelling.checked(duelling.parse_side(text, records)) for text in (cell_a, cell_b))
    progress = _console(stderr=True)
    try:
        found = duelling.duel(
            a, b, rounds, blocks, on_block=lambda n: progress.print(f"block {n + 1} of {blocks}", markup=False)
        )
    except (Diverged, MemoryError, RuntimeError) as error:
        print(f"tlbench: the duel stopped: {type(error).__name__}: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=1, allow_nan=False))
    else:
        _print_duel(found)


def _print_duel(found: Duel) -> None:
    from tlbench import duel as duelling
    from tlbench import wording

    name_a, name_b = duelling.names(found.a, found.b)
    for letter, name, key in (("A", name_a, "a"), ("B", name_b, "b")):
        seconds = found.seconds(key)
        typer.echo(f"{letter}  {name}: {wording.milliseconds(1000 * seconds)} an image, {wording.speed(1 / seconds)}")
    counted = f"{len(found.blocks)} blocks of {len(found.blocks[0].a)} rounds"
    typer.echo(f"B takes {wording.ratio(found.ratio)} times as long as A for an image, over {counted}")
    typer.echo(f"{found.verdict.outcome}: {found.verdict.reason}")
    typer.echo(
        f"A/A, measured alike: {100 * found.floor.seen:.2f} % apart, so that differences up to "
        f"{100 * found.floor.relative:.2f} % are noise"
    )
    flagged = [reason for block in found.blocks for reason in block.noisy]
    typer.echo(f"rounds: {sum(map(bool, flagged))} of {len(flagged)} noisy")
    if found.validity != "ok":
        typer.echo(f"{found.validity}: {found.validity_reason}")


@app.command()
def replay(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="folder of a run, or a records.jsonl file")],
    key: Annotated[str | None, typer.Option(help="only the cell with this key")] = None,
    id: Annotated[str | None, typer.Option(help="only cells with this id")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="instead of as many as were recorded")] = None,
) -> None:
    """Runs recorded cells again, from their records alone, and says what came out differently.

    Exit status 0: equal, or within tolerance; 1: different; 2: cannot be rebuilt.
    """
    from tlbench import replay as again

    worst = 0
    for record in again.select(_records([run])[0], key, id):
        found = again.replay(record, threads)
        worst = max(worst, again.EXIT[found.outcome])
        _print_replay(found)
    raise typer.Exit(worst)


MOST_DIFFERENCES = 12


def _print_replay(found: Replay) -> None:
    reason = f": {found.reason}" if found.reason else ""
    compared = f" ({found.compared} results)" if found.compared else ""
    typer.echo(f"{found.outcome}  {found.record.cell.task} {found.record.id}{compared}{reason}")
    for difference in found.differences[:MOST_DIFFERENCES]:
        kept = ", within tolerance" if difference.tolerated else ""
        typer.echo(f"  {difference.what}: {difference.recorded}, now {difference.now}{kept}")
    if len(found.differences) > MOST_DIFFERENCES:
        typer.echo(f"  … and {len(found.differences) - MOST_DIFFERENCES} more")
    for name, (before, now) in found.machine.items():
        typer.echo(f"  machine: {name} was {before}, is {now}")


@app.command()
def efficiency(runs: Runs) -> None:
    """What freezing buys: the speed-up over `full` that FLOPs promise, the one measured, and why they differ."""
    from rich.table import Table

    from tlbench import wording
    from tlbench.efficiency import REASONS, freeze_efficiency
    from tlbench.frame import summarise

    found = freeze_efficiency(summarise(_rows(runs)))
    if not found:
        raise UserError(
            "no finished policy has a `full` beside it that is equal otherwise; run with --freeze full,linear_probe"
        )
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("cell", overflow="fold")
    for heading in ("promised", "measured", "kept"):
        table.add_column(heading, justify="right")
    table.add_column("falls short for")
    for one in found:
        table.add_row(
            wording.label(one.row),
            wording.number(one.promised),
            wording.ratio(one.measured),
            f"{one.share:.0%}",
            one.reason or "",
        )
    console = _console()
    console.print(table)
    for reason in dict.fromkeys(one.reason for one in found if one.reason):
        console.print(f"{reason}: {REASONS[reason]}", markup=False)
