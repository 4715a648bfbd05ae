"""pytest plugin: one benchmark for each cell and task of a grid, with pytest-benchmark's fixture as the clock.

Options carry the prefix ``--tl-``. A test function that asks for the fixture ``tl_run`` is parametrised: once for
each cell whose task is the function's name. Nothing heavy is imported until such a function is collected, so that
other test suites in the same environment pay nothing.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tlbench.errors import UserError
from tlbench.grid.axes import AXES, parse_axis
from tlbench.grid.cell import Cell
from tlbench.grid.grid import Grid, load_grid
from tlbench.grid.settings import SETTINGS, Settings, parse_given

if TYPE_CHECKING:
    from tlbench.campaign.steps import Needs, Step
    from tlbench.records.plan import Plan
    from tlbench.records.record import Record
    from tlbench.records.resuming import Identity
    from tlbench.records.run_folder import Store


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("tlbench", "tlbench: transfer-learning benchmarks (pytest bench/ --benchmark-only)")
    group.addoption("--tl-grid", metavar="FILE", help="TOML grid (default: quick.toml beside the benchmarks)")
    for axis in AXES.values():
        group.addoption(f"--tl-{axis.option}", metavar="VALUE[,VALUE…]", help=axis.help)
    group.addoption("--tl-out", metavar="DIR", help="the run's folder (default: results/<date and time>)")
    group.addoption("--tl-resume", metavar="RUN", help="go on with a run; axes that are given add cells to it")
    group.addoption("--tl-rerun", metavar="WHAT", help="with --tl-resume, measure again what is noisy, diverged, …")
    group.addoption(
        "--tl-plugin",
        metavar="FILE",
        action="append",
        default=[],
        help="Python file or module with backbones, policies, heads, data sets or plots of yours, for isolated cells "
        "too; may be repeated",
    )
    for name, setting in SETTINGS.items():
        group.addoption(f"--tl-{name}", metavar=setting.metavar, help=setting.help)


class Session:
    """What the benchmarks of one pytest session share. Errors of all that reads options: UserError."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.records: list[Record] = []
        """Of this session."""
        self._block: int | None = None
        self._open = ExitStack()

    def option(self, name: str) -> Any:
        """What was given as ``--tl-NAME``."""
        return self.config.getoption(f"--tl-{name}")

    @cached_property
    def pairs_only(self) -> bool:
        """Whether ``-m speedup`` asks for what can be held against another device."""
        chosen = self.config.getoption("-m") or ""
        return bool(re.search(rf"\b{MARKER}\b", chosen)) and not re.search(rf"\bnot\s+{MARKER}\b", chosen)

    @cached_property
    def _begun(self) -> tuple[Store | None, Plan, list[Record]]:
        """The store of a run that goes on, what is to be measured, and the records that are there. All is checked."""
        from tlbench.campaign import campaign, check
        from tlbench.campaign.plugins import load_plugins
        from tlbench.records.plan import Plan

        load_plugins(self.option("plugin"))
        axes = {
            name: parse_axis(name, text)
            for name, axis in AXES.items()
            if (text := self.option(axis.option)) is not None
        }
        values = parse_given({name: text for name in SETTINGS if (text := self.option(name)) is not None})
        given, run = self.option("grid"), self.option("resume")
        if run is None:
            if self.option("rerun") is not None:
                raise UserError("--tl-rerun chooses what of a run to measure again: name the run with --tl-resume RUN")
            settings = Settings(**values)
            grid = load_grid(given) if given else self._default_grid()
            if self.pairs_only and grid.axes.get("device", (Cell.device,)) == (Cell.device,):
                grid = grid.with_axes({"device": ("available",)})
            grid = grid.with_axes(axes)
            return None, Plan(grids=(check.check(grid, settings),), settings=settings, versions={}, started=""), []
        if self.option("out") is not None:
            raise UserError("--tl-resume goes on in the run's own folder: leave --tl-out away")
        file = load_grid(given) if given else None
        change = (lambda first: (file or first).with_axes(axes)) if axes or file else None
        store, plan, loaded = campaign.go_on(run, values, change)
        for line in loaded.damaged:
            self.config.issue_config_time_warning(UserWarning(f"set aside {line}"), stacklevel=2)
        return store, plan, loaded.records

    def _default_grid(self) -> Grid:
        folders = [Path(arg.partition("::")[0]) for arg in self.config.args]
        for folder in [*folders, self.config.rootpath / "bench"]:
            path = (folder if folder.is_dir() else folder.parent) / "grids" / "quick.toml"
            if path.is_file():
                return load_grid(path)
        return Grid()

    @property
    def plan(self) -> Plan:
        return self._begun[1]

    @property
    def earlier(self) -> list[Record]:
        """The records that a run that goes on had."""
        return self._begun[2]

    @cached_property
    def steps(self) -> list[Step]:
        """Every measurement, in order."""
        from tlbench.campaign.steps import steps

        return steps(self.plan.grids[0], self.plan.settings, self.plan.grids[1:])

    @cached_property
    def paired(self) -> set[Cell]:
        """Cells that are also measured on another device."""
        cells = {step.cell for step in self.steps}
        kinds: dict[Cell, set[Cell]] = {}
        for cell in cells:
            kinds.setdefault(replace(cell, device=""), set()).add(cell)
        return {cell for alike in kinds.values() if len(alike) > 1 for cell in alike}

    @cached_property
    def left(self) -> list[Step]:
        """Those that are still to be measured."""
        from tlbench.campaign.steps import left, parse_rerun

        return left(self.steps, self.earlier, parse_rerun(self.option("rerun")))

    @cached_property
    def _needs(self) -> Needs:
        from tlbench.campaign.steps import Needs

        return Needs(self.left)

    @cached_property
    def store(self) -> Store:
        """Opened at the first use, so that a run of which every test is deselected leaves no folder."""
        from tlbench.records.run_folder import new_run

        store, plan, _ = self._begun
        if store is None:
            store = new_run(self.option("out"))
            store.describe(plan.grids[0], plan.settings)
        else:
            store.extend(plan.grids[-1])
        return store

    @property
    def is_open(self) -> bool:
        """Whether there is a folder to measure into."""
        return "store" in vars(self)

    @cached_property
    def isolated(self) -> Callable[..., Record] | None:
        """What runs a cell in a process of its own; None where cells run in this one."""
        from tlbench.campaign.campaign import measuring
        from tlbench.campaign.stop import Stop

        if self.plan.settings.isolate == "none":
            return None
        return self._open.enter_context(measuring(self.plan.settings, Stop(), self.option("plugin")))

    def run(self, step: Step, clock: Callable[..., None] | None = None) -> Record:
        """Measures a step and keeps its record."""
        from tlbench.campaign import campaign
        from tlbench.campaign import steps as steps_module
        from tlbench.campaign.stop import held
        from tlbench.measure import cell as run
        from tlbench.records.resuming import check_same_input

        settings = self.plan.settings
        measure = self.isolated or (partial(run.run_cell, clock=clock) if clock else run.run_cell)
        if clock is not None and self.isolated is None:
            # The fixture times one measurement a test, so there is no second try for a noisy one here.
            settings = replace(settings, retry_noisy=0)
        record = campaign.run_step(
            step, settings, measure, steps_module.siblings(self.plan.grids), self._needs.after(step)
        )
        check_same_input(record, [*self.earlier, *self.records])
        with held():
            record = self.store.append(record)
            self.records.append(record)
        return record

    @cached_property
    def _twins(self) -> dict[int, list[Step]]:
        """By block, what is left of the two measurements whose difference is the noise floor."""
        twins: dict[int, list[Step]] = {}
        for step in self.left:
            if step.role == "aa":
                twins.setdefault(step.block, []).append(step)
        return twins

    def enter(self, block: int) -> None:
        """Measures one twin before the first cell of a block, and the other of the block before."""
        if block == self._block:
            return
        if self._block is not None:
            self._run_twins(self._block)
        self._block = block
        if len(self._twins.get(block, ())) > 1:
            self.run(self._twins[block].pop())

    def finish(self) -> None:
        """Measures the twins that are left of blocks that are done."""
        from tlbench.campaign.steps import left

        undone = {s.block for s in left(self.steps, [*self.earlier, *self.records]) if s.role == "cell"}
        for block in list(self._twins):
            if block == self._block or block not in undone:
                self._run_twins(block)

    def _run_twins(self, block: int) -> None:
        for step in self._twins.pop(block, ()):
            self.run(step)

    def close(self) -> None:
        """Ends the processes of isolated cells."""
        self._open.close()


SESSION = pytest.StashKey[Session]()


MARKER = "speedup"
UNPAIRED = "no cell of this grid is measured on two devices: needs a CUDA GPU that torch can use beside the CPU"


class Refused(pytest.exit.Exception, KeyboardInterrupt):  # type: ignore[misc, name-defined]
    """Ends the session with one line while tests are collected. A plain ``pytest.exit`` counts there as an error of
    the file, with a traceback for every file; what is a KeyboardInterrupt as well is let through.
    """


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        f"{MARKER}: cells that are measured on two devices; `-m {MARKER}` measures the grid on the CPU and the GPU",
    )
    config.stash[SESSION] = Session(config)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "tl_run" not in metafunc.fixturenames:
        return
    session = metafunc.config.stash[SESSION]
    try:
        found = [step for step in session.steps if step.role == "cell" and step.cell.task == metafunc.function.__name__]
        _ = session.left
        idle = metafunc.config.getoption("--collect-only") or (session.pairs_only and not session.paired)
        if not idle:
            _ = session.store
    except UserError as error:
        raise Refused(str(error), 2) from None
    blocks = session.plan.settings.blocks > 1
    ids = [f"{step.name}-block{step.block}" if blocks else step.name for step in found]
    marks = [_marks(step, session) for step in found]
    steps = [pytest.param(step, id=id_, marks=own) for step, id_, own in zip(found, ids, marks, strict=True)]
    metafunc.parametrize("tl_step", steps)


def _marks(step: Step, session: Session) -> list[pytest.MarkDecorator]:
    if step.cell in session.paired:
        return [pytest.mark.speedup]
    if session.pairs_only and not session.paired:
        return [pytest.mark.speedup, pytest.mark.skip(reason=UNPAIRED)]
    return []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of a run that goes on, what is there is skipped. Blocks are interleaved: all tasks of one before the next, each
    in its shuffled order.
    """
    found = ((item, _identity_of(item)) for item in items)
    measured = {item: identity for item, identity in found if identity is not None}
    if not measured:
        return
    session = config.stash[SESSION]
    missing = {step.identity for step in session.left}
    for item, identity in measured.items():
        if identity not in missing:
            item.add_marker(pytest.mark.skip(reason=f"already measured in {session.option('resume')}"))
    if session.plan.settings.blocks > 1:
        place = {step.identity: position for position, step in enumerate(session.steps)}
        rest = [item for item in items if item not in measured]
        items[:] = [*rest, *sorted(measured, key=lambda item: place[measured[item]])]


def _identity_of(item: pytest.Item) -> Identity | None:
    """Of the step that a test measures; None where it measures none (the grid has no cell of its task)."""
    params = getattr(getattr(item, "callspec", None), "params", {})
    return getattr(params.get("tl_step"), "identity", None)


class PedanticClock:
    """pytest-benchmark as a `tlbench.machine.clock.Clock`: its pedantic mode times the first measurement of a cell, so
    that its table, JSON and comparison show those rounds. It works once a test; further measurements of the cell
    are timed by the plain clock.
    """

    def __init__(self, benchmark: Any) -> None:
        self.benchmark = benchmark
        self.used = False

    def __call__(
        self, setup: Callable[[], None], target: Callable[[], None], rounds: int, seconds: list[float]
    ) -> None:
        from tlbench.machine.clock import plain_clock

        if self.used:
            plain_clock(setup, target, rounds, seconds)
            return
        self.used = True
        try:
            self.benchmark.pedantic(target, setup=setup, rounds=rounds, iterations=1, warmup_rounds=0)
        finally:
            if self.benchmark.stats is not None:
                seconds.extend(self.benchmark.stats.stats.data)


def show(benchmark: Any, seconds: Sequence[float]) -> None:
    """Gives pytest-benchmark the times of a cell that ran in another process."""
    if not seconds:
        return
    readings = iter([reading for second in seconds for reading in (0.0, second)])
    benchmark._timer = lambda: next(readings)
    benchmark.pedantic(lambda: None, rounds=len(seconds), iterations=1, warmup_rounds=0)


@pytest.fixture
def tl_run(tl_step: Step, benchmark: Any, request: pytest.FixtureRequest) -> Callable[[], Record]:
    """Runs the test's cell with pytest-benchmark as the clock, stores the record and returns it.

    A cell that is not applicable or misses something skips the test; one that failed fails it.
    """
    session = request.config.stash[SESSION]
    benchmark.group = tl_step.cell.task

    def run() -> Record:
        from tlbench.analysis.frame import row
        from tlbench.campaign.campaign import too_many

        if benchmark.disabled:
            # Nothing is timed then, so there is nothing to record.
            benchmark.pedantic(lambda: None)
            pytest.skip("pytest-benchmark is disabled, so this cell is not measured")
        try:
            session.enter(tl_step.block)
            record = session.run(tl_step, PedanticClock(benchmark))
        except UserError as error:
            pytest.exit(str(error), returncode=2)
        if session.isolated:
            show(benchmark, record.latency_seconds or [r.seconds for r in record.rounds])
        if stopped := too_many(session.records, session.plan.settings):
            request.session.shouldfail = stopped
        shown = row(record)
        benchmark.extra_info.update({key: shown[key] for key in EXTRA_INFO if shown.get(key) is not None})
        if record.status == "interrupted":
            raise KeyboardInterrupt
        if record.status in ("skipped", "not_applicable"):
            benchmark.skipped = True
            pytest.skip(f"{record.status}: {record.reason}")
        if record.status != "ok":
            pytest.fail(f"{record.status}: {record.reason}", pytrace=False)
        return record

    return run


EXTRA_INFO = (
    "status",
    "weights",
    "accuracy_val",
    "accuracy_test",
    "total_parameters",
    "trainable_parameters",
    "images_per_second",
    "latency_p50_ms",
    "latency_p95_ms",
    "peak_memory_bytes",
)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    ours = session.config.stash.get(SESSION, None)
    if ours is None:
        return
    try:
        if ours.is_open and exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            ours.finish()
    except UserError as error:
        print(error)
    finally:
        ours.close()


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: Any, exitstatus: int, config: pytest.Config) -> None:
    session = config.stash.get(SESSION, None)
    if session is None or not session.is_open:
        return
    from tlbench.records.resuming import current

    records = current([*session.earlier, *session.records])
    if not records:
        return
    from rich.console import Console

    from tlbench.analysis.frame import rows
    from tlbench.analysis.speedup import speedups
    from tlbench.analysis.summary import summarise
    from tlbench.report import write_report
    from tlbench.report.terminal import print_speedups, print_summary

    terminalreporter.section("tlbench")
    terminalreporter.flush()
    console = Console(file=terminalreporter._tw._file)
    try:
        path = write_report(records, session.store.folder)
        if session.paired:
            print_speedups(console, speedups(summarise(rows(records))))
        print_summary(console, records, path)
    except UserError as error:
        console.print(str(error), markup=False)
    if exitstatus == pytest.ExitCode.INTERRUPTED:
        console.print(
            f"Stopped; what is finished is kept. To go on: the same command with "
            f"--tl-resume {shlex.quote(str(session.store.folder))}",
            markup=False,
            soft_wrap=True,
        )
