"""pytest plugin: one benchmark for each cell and task of a grid, with pytest-benchmark's fixture as the clock.

Options carry the prefix ``--tl-``. A test function that asks for the fixture ``tl_run`` is parametrised: once for
each cell of the task that its name tells (`tlbench.pytest_plugin.collecting`). Nothing heavy is imported until such a
function is collected, so that other test suites in the same environment pay nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import pytest

from tlbench.errors import UserError, printable
from tlbench.grid.axes import AXES
from tlbench.grid.settings import SETTINGS
from tlbench.pytest_plugin import collecting
from tlbench.pytest_plugin.bench import EXTRA_INFO, MARKER, UNPAIRED, Bench
from tlbench.pytest_plugin.clock import PedanticClock, show
from tlbench.pytest_plugin.terminal import outlive_terminal, print_run

if TYPE_CHECKING:
    from tlbench.campaign.steps import Step
    from tlbench.records.record import Record
    from tlbench.records.resuming import Identity


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("tlbench", "tlbench: transfer-learning benchmarks (pytest bench/ --benchmark-only)")
    group.addoption("--tl-grid", metavar="FILE", help="TOML grid (default: quick.toml beside the benchmarks)")
    for axis in AXES.values():
        group.addoption(f"--tl-{axis.option}", metavar="VALUE[,VALUE…]", help=_help(axis.help))
    group.addoption("--tl-out", metavar="DIR", help="the run's folder (default: results/<date and time>)")
    group.addoption("--tl-resume", metavar="RUN", help="go on with a run; axes that are given add cells to it")
    group.addoption("--tl-rerun", metavar="WHAT", help="with --tl-resume, measure again what is noisy, diverged, …")
    group.addoption(
        "--tl-download",
        action="store_true",
        help="download data sets of torchvision:NAME and hf:NAME that are not here",
    )
    group.addoption(
        "--tl-plugin",
        metavar="FILE",
        action="append",
        default=[],
        help="Python file or module with backbones, policies, heads, data sets or plots of yours, for isolated cells "
        "too; may be repeated",
    )
    for name, setting in SETTINGS.items():
        action = "append" if setting.repeats else "store"
        group.addoption(f"--tl-{name}", metavar=setting.metavar, action=action, help=_help(setting.help))


def _help(text: str) -> str:
    """Writes a text as argparse reads it, which takes a per cent sign for the beginning of a value."""
    return text.replace("%", "%%")


BENCH = pytest.StashKey[Bench]()
pytest_pycollect_makeitem = collecting.make_items


AT_ONCE = (
    "tlbench: benchmarks time one cell after the other, so none was measured: run them without -n, or with -n 0; for "
    "several at a time `tlbench run --engine ray`, after which `pytest --tl-resume RUN` shows the table"
)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Takes in what a worker of pytest-xdist has to say at its end."""
    if why := getattr(node, "workeroutput", {}).get(MARKER):
        node.config.stash[REFUSED] = why


REFUSED = pytest.StashKey[str]()
"""Why nothing of tlbench was measured in this session."""


class Refused(pytest.exit.Exception, KeyboardInterrupt):  # type: ignore[misc, name-defined]
    """Ends the session with one line while tests are collected. A plain ``pytest.exit`` counts there as an error of
    the file, with a traceback for every file; what is a KeyboardInterrupt as well is let through.
    """


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        f"{MARKER}: cells that are measured on two devices; `-m {MARKER}` measures the grid on the CPU and the GPU",
    )
    config.stash[BENCH] = Bench(config)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "tl_run" not in metafunc.fixturenames:
        return
    if (told := getattr(metafunc.config, "workeroutput", None)) is not None:  # a worker of pytest-xdist
        told[MARKER] = AT_ONCE
        metafunc.parametrize("tl_step", [])
        return
    bench, task = metafunc.config.stash[BENCH], collecting.task_of(metafunc.function.__name__)
    try:
        cell_steps = [s for s in bench.campaign.planned if s.role == "cell" and task in (None, s.cell.task)]
        idle = metafunc.config.getoption("--collect-only") or (bench.pairs_only and not bench.paired)
        if not idle:
            _ = bench.store  # what cannot be written, or another process measures, is found before anything runs
    except UserError as error:
        raise Refused(str(error), 2) from None
    blocks = bench.settings.blocks > 1
    ids = [f"{step.name}-block{step.block}" if blocks else step.name for step in cell_steps]
    marks = [_marks(step, bench) for step in cell_steps]
    steps = [
        pytest.param(step, id=id_, marks=step_marks)
        for step, id_, step_marks in zip(cell_steps, ids, marks, strict=True)
    ]
    metafunc.parametrize("tl_step", steps)


def _marks(step: Step, bench: Bench) -> list[pytest.MarkDecorator]:
    if step.cell in bench.paired:
        return [pytest.mark.speedup]
    if bench.pairs_only and not bench.paired:
        return [pytest.mark.speedup, pytest.mark.skip(reason=UNPAIRED)]
    return []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skips what a run that goes on has already. Puts all tasks of a block before the next block, each in its order."""
    identities = ((item, _identity_of(item)) for item in items)
    measured = {item: identity for item, identity in identities if identity is not None}
    if not measured:
        return
    campaign = config.stash[BENCH].campaign
    missing = {step.identity for step in campaign.left}
    for item, identity in measured.items():
        if identity not in missing:
            item.add_marker(pytest.mark.skip(reason=f"already measured in {campaign.asked.resume}"))
    if campaign.plan.settings.blocks > 1:
        place = {step.identity: position for position, step in enumerate(campaign.planned)}
        rest = [item for item in items if item not in measured]
        items[:] = [*rest, *sorted(measured, key=lambda item: place[measured[item]])]


def _identity_of(item: pytest.Item) -> Identity | None:
    """Returns the identity of the step that a test measures; None where the grid has no cell of its task."""
    return getattr(_step_of(item), "identity", None)


def _step_of(item: pytest.Item) -> Step | None:
    """Returns the step that a test measures; None where it measures none."""
    step: Step | None = getattr(getattr(item, "callspec", None), "params", {}).get("tl_step")
    return step if hasattr(step, "identity") else None  # pytest's own mark stands for an empty set of cells


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """Says what the session is about to measure, before the first benchmark."""
    bench, option = session.config.stash[BENCH], session.config.option
    steps = [
        step
        for item in session.items
        if (step := _step_of(item)) is not None and item.get_closest_marker("skip") is None
    ]
    if not steps or option.collectonly or getattr(option, "benchmark_disable", False) or not bench.is_open:
        return
    from tlbench.campaign.outlook_lines import preflight
    from tlbench.console import new_console
    from tlbench.progress import print_outlook

    reporter: Any = session.config.pluginmanager.get_plugin("terminalreporter")
    outlive_terminal(session.config, reporter)  # from here on there is something to lose
    if reporter is None:
        return
    reporter.ensure_newline()
    console = new_console(file=reporter._tw._file)  # what is captured is another stream
    print_outlook(console, preflight(bench.campaign, steps))
    if reporter.verbosity >= 0:
        from tlbench.pytest_plugin.following import Following

        bench.following = Following(bench.campaign, steps, reporter)
        session.config.pluginmanager.register(bench.following, "tlbench-following")


@pytest.fixture
def tl_run(tl_step: Step, benchmark: Any, request: pytest.FixtureRequest) -> Callable[[], Record]:
    """Runs the test's cell with pytest-benchmark as the clock, stores the record and returns it.

    A cell that is not applicable or misses something skips the test; one that failed fails it.
    """
    bench = request.config.stash[BENCH]
    benchmark.group = tl_step.cell.task

    def run() -> Record:
        from tlbench.analysis.frame import row
        from tlbench.records.identity import IDENTITY, Facts

        if benchmark.disabled:
            # Nothing is timed then, so there is nothing to record.
            benchmark.pedantic(lambda: None)
            pytest.skip("pytest-benchmark is disabled, so this cell is not measured")
        try:
            record = bench.measure(tl_step, PedanticClock(benchmark))
        except UserError as error:
            pytest.exit(str(error), returncode=2)
        if bench.isolated:
            show(benchmark, record.latency_seconds or [r.seconds for r in record.rounds])
        if why := bench.campaign.reason_to_stop:
            request.session.shouldfail = why
        shown = row(record)
        benchmark.extra_info.update({key: shown[key] for key in EXTRA_INFO if shown.get(key) is not None})
        benchmark.extra_info[IDENTITY] = Facts.of([record]).to_dict()
        if record.status == "interrupted":
            raise KeyboardInterrupt
        if record.status in ("skipped", "not_applicable"):
            benchmark.skipped = True
            pytest.skip(printable(f"{record.status}: {record.reason}"))
        if record.status != "ok":
            pytest.fail(printable(f"{record.status}: {record.reason}"), pytrace=False)
        return record

    return run


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Measures the last twins. What no failed test shows does not end with status 0 (docs/exit-status.md)."""
    if REFUSED in session.config.stash:
        session.exitstatus = pytest.ExitCode.INTERRUPTED
    bench = session.config.stash.get(BENCH, None)
    if bench is None:
        return
    try:
        if bench.is_open and exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            bench.finish()
    except UserError as error:
        session.config.stash[REFUSED] = str(error)
        session.exitstatus = pytest.ExitCode.INTERRUPTED
    finally:
        bench.close()
    if session.exitstatus == pytest.ExitCode.OK and bench.lacking:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    """Returns what the checks have found, and which lines of a run were set aside, as `tlbench run` prints it."""
    bench = config.stash.get(BENCH, None)
    return [f"tlbench: {line}" for line in bench.notes] if bench is not None else []


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_terminal_summary(
    terminalreporter: Any, exitstatus: int, config: pytest.Config
) -> Generator[None, object, object]:
    """Prints verdict and table of a run below what else is printed: also where pytest-benchmark raises, since a time
    has become worse than --benchmark-compare-fail allows. That is one line then, and exit status 1.
    """
    if why := config.stash.get(REFUSED, ""):
        terminalreporter.write_line(why, red=True)
    bench = config.stash.get(BENCH, None)
    if bench is None or not bench.is_open or not bench.campaign.current():
        for line in bench.lacking if bench is not None else ():
            terminalreporter.write_line(line, red=True)
        return (yield)
    from pytest_benchmark.session import PerformanceRegression

    failure = ""
    try:
        result = yield
    except (PerformanceRegression, pytest.UsageError) as error:
        failure, result = str(error), None
    except Exception:
        print_run(bench, terminalreporter, exitstatus)
        raise
    print_run(bench, terminalreporter, exitstatus)
    if failure:
        terminalreporter.ensure_newline()
        terminalreporter.write_line(f"pytest-benchmark: {failure}", red=True, bold=True)
        terminalreporter._session.exitstatus = pytest.ExitCode.TESTS_FAILED
    return result
