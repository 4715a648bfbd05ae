"""pytest plugin: one benchmark for each cell and task of a grid, with pytest-benchmark's fixture as the clock.

Options carry the prefix ``--tl-``. A test function that asks for the fixture ``tl_run`` is parametrised: once for
each cell whose task is the function's name. Nothing heavy is imported until such a function is collected, so that
other test suites in the same environment pay nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tlbench.errors import UserError
from tlbench.grid import AXES, Grid, load_grid, parse_axis
from tlbench.record import SETTINGS, parse_settings

if TYPE_CHECKING:
    from tlbench.record import Record, Settings
    from tlbench.store import Store
    from tlbench.suite import Step


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("tlbench", "tlbench: transfer-learning benchmarks (pytest bench/ --benchmark-only)")
    group.addoption("--tl-grid", metavar="FILE", help="TOML grid (default: quick.toml beside the benchmarks)")
    for axis in AXES.values():
        group.addoption(f"--tl-{axis.option}", metavar="VALUE[,VALUE…]", help=axis.help)
    group.addoption("--tl-out", metavar="DIR", help="the run's folder (default: results/<date and time>)")
    for name, setting in SETTINGS.items():
        group.addoption(f"--tl-{name}", metavar=setting.metavar, help=setting.help)


class Session:
    """What the benchmarks of one pytest session share."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self._grid: Grid | None = None
        self._store: Store | None = None
        self.records: list[Record] = []

    @property
    def grid(self) -> Grid:
        """The checked grid of the options. Errors: UserError."""
        if self._grid is None:
            from tlbench.suite import check

            option = self.config.getoption
            given = option("--tl-grid")
            grid = load_grid(given) if given else self._default_grid()
            axes = {
                name: parse_axis(name, text)
                for name, axis in AXES.items()
                if (text := option(f"--tl-{axis.option}")) is not None
            }
            self._grid = check(grid.with_axes(axes), self.settings)
        return self._grid

    def _default_grid(self) -> Grid:
        folders = [Path(arg.partition("::")[0]) for arg in self.config.args]
        for folder in [*folders, self.config.rootpath / "bench"]:
            path = (folder if folder.is_dir() else folder.parent) / "grids" / "quick.toml"
            if path.is_file():
                return load_grid(path)
        return Grid()

    @property
    def store(self) -> Store:
        """Opened at the first use, so that a run of which every test is deselected leaves no folder."""
        if self._store is None:
            from tlbench.store import new_run

            self._store = new_run(self.config.getoption("--tl-out"))
        return self._store

    @property
    def settings(self) -> Settings:
        """Errors: UserError for a value that does not fit."""
        given = {name: self.config.getoption(f"--tl-{name}") for name in SETTINGS}
        return parse_settings({name: text for name, text in given.items() if text is not None})

    def measure_noise(self) -> None:
        """One of the two identical measurements that tell the noise floor."""
        from tlbench.suite import run_step, witness

        record = run_step(witness(self.grid), self.grid, self.settings)
        self.store.append(record)
        self.records.append(record)


SESSION = pytest.StashKey[Session]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[SESSION] = Session(config)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "tl_run" not in metafunc.fixturenames:
        return
    session = metafunc.config.stash[SESSION]
    try:
        from tlbench.suite import steps

        found = [
            step
            for step in steps(session.grid, session.settings)
            if step.role == "cell" and step.cell.task == metafunc.function.__name__
        ]
        if not metafunc.config.getoption("--collect-only"):
            _ = session.store
    except UserError as error:
        pytest.exit(str(error), returncode=2)
    blocks = session.settings.blocks > 1
    ids = [f"{step.name}-block{step.block}" if blocks else step.name for step in found]
    metafunc.parametrize("tl_step", found, ids=ids)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Blocks are interleaved: all tasks of one before the next, each in its shuffled order."""
    measured = [item for item in items if "tl_step" in getattr(item, "callspec", _NO_CALL).params]
    if not measured or config.stash[SESSION].settings.blocks < 2:
        return
    from tlbench.suite import steps

    session = config.stash[SESSION]
    place = {(s.cell, s.block): i for i, s in enumerate(steps(session.grid, session.settings)) if s.role == "cell"}

    def order(item: Any) -> int:
        step = item.callspec.params["tl_step"]
        return place[step.cell, step.block]

    rest = [item for item in items if item not in measured]
    items[:] = [*rest, *sorted(measured, key=order)]


class _NoCall:
    params: Mapping[str, Any] = {}


_NO_CALL = _NoCall()


class PedanticClock:
    """pytest-benchmark as a `tlbench.timing.Clock`: its pedantic mode times the first measurement of a cell, so
    that its table, JSON and comparison show those rounds. It works once a test; further measurements of the cell
    are timed by the plain clock.
    """

    def __init__(self, benchmark: Any) -> None:
        self.benchmark = benchmark
        self.used = False

    def __call__(
        self, setup: Callable[[], None], target: Callable[[], None], rounds: int, seconds: list[float]
    ) -> None:
        from tlbench.timing import plain_clock

        if self.used:
            plain_clock(setup, target, rounds, seconds)
            return
        self.used = True
        try:
            self.benchmark.pedantic(target, setup=setup, rounds=rounds, iterations=1, warmup_rounds=0)
        finally:
            if self.benchmark.stats is not None:
                seconds.extend(self.benchmark.stats.stats.data)


@pytest.fixture
def tl_run(tl_step: Step, benchmark: Any, request: pytest.FixtureRequest) -> Callable[[], Record]:
    """Runs the test's cell with pytest-benchmark as the clock, stores the record and returns it.

    A cell that is not applicable or misses something skips the test; one that failed fails it.
    """
    session = request.config.stash[SESSION]
    benchmark.group = tl_step.cell.task

    def run() -> Record:
        from tlbench.frame import row
        from tlbench.suite import run_step

        if benchmark.disabled:
            # Nothing is timed then, so there is nothing to record.
            benchmark.pedantic(lambda: None)
            pytest.skip("pytest-benchmark is disabled, so this cell is not measured")
        try:
            if not session.records:
                session.measure_noise()
            # The fixture times one measurement a test, so there is no second try for a noisy one here.
            settings = replace(session.settings, retry_noisy=0)
            record = run_step(tl_step, session.grid, settings, PedanticClock(benchmark))
            session.store.append(record)
        except UserError as error:
            pytest.exit(str(error), returncode=2)
        session.records.append(record)
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
    if ours is not None and ours.records and exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        try:
            ours.measure_noise()
        except UserError as error:
            print(error)


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    session = config.stash.get(SESSION, None)
    if session is None or not session.records:
        return
    from rich.console import Console

    from tlbench.report import write_report
    from tlbench.summary import print_summary

    terminalreporter.section("tlbench")
    terminalreporter.flush()
    console = Console(file=terminalreporter._tw._file)
    try:
        path = write_report(session.records, session.store.folder)
        print_summary(console, session.records, path)
    except UserError as error:
        console.print(str(error), markup=False)
