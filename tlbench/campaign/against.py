"""Measures one grid with two versions of tlbench in turns, block by block, each in processes of its own: what the
machine does to both of them in a block cancels in the ratio. One file, since what may be gone on with is a matter of
what was begun.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

import tlbench
from tlbench.campaign import lifeline
from tlbench.campaign.asked import parse_asked
from tlbench.campaign.campaign import begin
from tlbench.campaign.stop import despite_hangup, held, install, name_of, restore
from tlbench.errors import UserError
from tlbench.machine.scratch import NAME, remove_orphans, write_aside
from tlbench.records.holder import LOCK, Holder, holder_of
from tlbench.records.run_folder import RESULTS, load, unwritable

BLOCKS = 3
START = "from tlbench.cli import main; main()"
TIED = "import runpy, sys; runpy.run_path(sys.argv.pop(1))['tie_to'](int(sys.argv.pop(1)))\n"
"""Has a process end with this one, however that ends: its first arguments are the file of `lifeline` and the end of its
pipe. The file is this version's, since another one may have none.
"""
ASK = "import tlbench, torch; print(tlbench.__file__); print(tlbench.__version__); print(torch.__version__)"
HASH = """
import hashlib, pathlib, tlbench
root, digest = pathlib.Path(tlbench.__file__).parent, hashlib.sha256()
for file in sorted(root.rglob("*.py")):
    digest.update(str(file.relative_to(root)).encode() + file.read_bytes())
print(digest.hexdigest())
"""
TURNS, DONE = "against.json", "done"
"""What a folder of runs in turns holds: the question, and in each run's folder a mark that it is finished."""
PATIENCE_SECONDS = 60
"""How long a run that was told to stop may take to keep what it has."""
LINES = 5
"""How much of what a run that failed wrote last is told."""

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Version:
    """A version of tlbench that can be run: an interpreter, and the folder that the package is taken from."""

    name: str
    python: Path
    source: Path | None = None
    """None where it is what the interpreter has installed."""
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    def run(self, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs Python code, and returns what it printed. A terminal that is closed does not end it."""
        return subprocess.run(
            self._command(code, arguments),
            env=self._variables, capture_output=True, text=True, check=False, start_new_session=True,
        )  # fmt: skip

    def measure(self, arguments: Sequence[str], log: Path) -> int:
        """Runs ``tlbench run``, whose words go to a file, and returns its exit status. A signal ends it in good order,
        so that what it has finished is written; what kills this process kills it, too. Errors: UserError where the file
        cannot be written.
        """
        process = None
        code, given, line = START, ["run", *arguments], []
        if os.name == "posix":  # elsewhere no end of a pipe can be handed on
            line = [lifeline.lifeline()]
            code, given = TIED + START, [str(lifeline.__file__), *map(str, line), *given]
        with _writing(log.parent):
            file = log.open("a")
        with file:
            try:
                with held():  # a signal that comes while it starts would leave it behind
                    process = subprocess.Popen(
                        self._command(code, given), env=self._variables, stdout=file, stderr=subprocess.STDOUT,
                        pass_fds=line,
                        start_new_session=True,  # a Ctrl-C reaches this process alone, which hands it on
                    )  # fmt: skip
                return process.wait()
            except BaseException:
                if process is not None:
                    _end(process)
                raise

    def _command(self, code: str, arguments: Sequence[str]) -> list[str]:
        return [str(self.python), "-P", "-c", code, *arguments]

    @property
    def _variables(self) -> dict[str, str]:
        variables = {name: value for name, value in self.environment.items() if name != "PYTHONPATH"}
        return {**variables, "PYTHONPATH": str(self.source)} if self.source is not None else variables

    def code(self) -> str:
        """Returns the SHA-256 of the package's files."""
        return self.run(HASH).stdout.strip()

    def checked(self) -> str:
        """Returns what it is, in words. Errors: UserError where it cannot be run, or is not the one that was meant."""
        try:
            asked = self.run(ASK)
        except OSError as error:
            raise UserError(f"{self.name}: {str(self.python)!r} cannot be run: {error.strerror}") from None
        if asked.returncode:
            last = (asked.stderr.strip().splitlines() or [""])[-1]
            raise UserError(f"{self.name}: tlbench cannot be imported with {str(self.python)!r}: {last}")
        file, version, torch = asked.stdout.split("\n")[:3]
        if self.source is not None and self.source.resolve() not in Path(file).resolve().parents:
            raise UserError(f"{self.name}: tlbench was imported from {file!r}, not from {str(self.source)!r}")
        return f"{self.name}: tlbench {version}, torch {torch}"


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(PATIENCE_SECONDS)
    process.kill()
    process.wait()


@dataclass(frozen=True, kw_only=True)
class Turns:
    """Says what is measured in turns: kept in the folder of the runs, so that the same can go on."""

    against: str
    arguments: tuple[str, ...]
    blocks: int
    grid: str = ""
    """SHA-256 of the grid's file; empty without one."""
    code: Mapping[str, str] = field(default_factory=dict)
    """Side -> SHA-256 of its package's files, as they were when the first block began."""


def measure(
    against: str,
    grid: Path | None,
    options: Mapping[str, str],
    plugins: Sequence[str],
    out: Path | None,
    say: Say = lambda line: None,
) -> tuple[list[Path], list[Path]]:
    """Measures a grid with another version and with this one, in turns; returns the runs' folders, a block each.

    ``options`` are those of ``tlbench run`` by name, without dashes; ``blocks`` says how often both are measured
    (default: `BLOCKS`). Odd blocks take the versions the other way round, so that neither is always first. A folder
    that holds blocks of the same question is gone on with. Errors: UserError where a version cannot be had, the grid
    cannot be measured, the folder cannot be written, or a run leaves no records.
    """
    blocks = _blocks(options)
    rest = {name: text for name, text in options.items() if name != "blocks"}
    given = {**rest, "grid": grid, "plugin": list(plugins)}
    asked = parse_asked({name: value for name, value in given.items() if value}).or_first_grid()
    # As `tlbench run` has it; mistakes are found before all else.
    begin(replace(asked, settings={"isolate": "backbone", **asked.settings}))
    folder = out or RESULTS / datetime.now().strftime("against-%Y-%m-%dT%H-%M-%S")
    content = "" if grid is None else hashlib.sha256(Path(grid).read_bytes()).hexdigest()
    turns = Turns(against=against, arguments=tuple(_arguments(grid, rest, plugins)), blocks=blocks, grid=content)
    before = _check_folder(folder, turns)
    with despite_hangup(), _signals(), _version(against) as other:
        sides = {"base": other, "new": _this_version()}
        for name, version in sides.items():
            say(f"{name}: {version.checked()}")
        turns = replace(turns, code={name: version.code() for name, version in sides.items()})
        _check_code(folder, turns, before)
        with _writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            holder = Holder(folder)  # a second process would move away the block that this one measures
        try:
            with _writing(folder):
                remove_orphans(folder)
                write_aside(folder / TURNS, json.dumps(asdict(turns), indent=1).encode())
            return _in_turns(sides, turns, folder, say)
        except (KeyboardInterrupt, UserError):
            say(f"Finished runs are kept in {folder}; to go on: the same command with --out {shlex.quote(str(folder))}")
            raise
        finally:
            holder.release()


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Makes a UserError of what cannot be written within, into the folder of the runs."""
    try:
        yield
    except OSError as error:
        raise unwritable(folder, error) from None


def _blocks(options: Mapping[str, str]) -> int:
    text = options.get("blocks", str(BLOCKS))
    if not re.fullmatch(r"[1-9]\d*", text, re.ASCII):
        raise UserError(f"--blocks: {text!r} is not a whole number of at least 1")
    return int(text)


def _check_code(folder: Path, turns: Turns, before: Turns | None) -> None:
    """Raises UserError where a folder holds blocks of other code: put together with those to come, they would be of
    neither.
    """
    known = {} if before is None else before.code
    other = [name for name, code in turns.code.items() if known.get(name, code) != code]
    if other:
        raise UserError(
            f"results folder {str(folder)!r} holds blocks of other code of {' and of '.join(other)}: they are not of "
            "one measurement with what would come now; choose a new folder with --out"
        )


def _check_folder(folder: Path, turns: Turns) -> Turns | None:
    """Returns what a folder holds blocks of; None where it holds none. Errors: UserError where these, or other things
    in it, are not of the same question.
    """
    try:
        held = json.loads((folder / TURNS).read_text())
        before = Turns(
            against=held["against"],
            arguments=tuple(held["arguments"]),
            blocks=turns.blocks,
            grid=str(held.get("grid", turns.grid)),  # earlier versions did not say
            code=dict(held.get("code", {})),
        )
    except FileNotFoundError:
        if _holds_others(folder):
            raise UserError(f"results folder {str(folder)!r} is not empty; choose a new one with --out") from None
        return None
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{str(folder / TURNS)!r} cannot be read; choose a new folder with --out") from None
    if replace(before, code={}) != turns:
        raise UserError(
            f"results folder {str(folder)!r} holds runs against {before.against!r} with other options "
            f"({shlex.join(before.arguments)}), or of another content of the grid's file; choose a new one with --out"
        )
    return before


def _holds_others(folder: Path) -> bool:
    """Tells whether a folder holds more than a process leaves there that is killed as it begins. Errors: UserError."""
    try:
        parts = ((name, NAME.fullmatch(name)) for name in os.listdir(folder))
        return any(name != LOCK and (part is None or part["final"] != TURNS) for name, part in parts)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise unwritable(folder, error) from None


def _in_turns(sides: Mapping[str, Version], turns: Turns, folder: Path, say: Say) -> tuple[list[Path], list[Path]]:
    legs = [
        (block, name)
        for block in range(turns.blocks)
        for name in (("base", "new") if block % 2 == 0 else ("new", "base"))
    ]
    left = [leg for leg in legs if not (_place(folder, *leg) / DONE).exists()]
    began = time.monotonic()
    for number, (block, name) in enumerate(left):
        seconds = (time.monotonic() - began) / max(number, 1) * (len(left) - number)
        told = f", about {timedelta(seconds=round(seconds))} left" if number else ""
        say(f"block {block + 1} of {turns.blocks}: {name}{told}")
        _measure(sides[name], turns.arguments, _place(folder, block, name), folder / "log.txt")
    places = {name: [_place(folder, block, name) for block in range(turns.blocks)] for name in sides}
    return places["base"], places["new"]


def _place(folder: Path, block: int, name: str) -> Path:
    return folder / f"{name}-{block + 1}"


def _measure(version: Version, arguments: Sequence[str], folder: Path, log: Path) -> None:
    """Measures one block with one version, from its beginning. Errors: UserError where it leaves no records."""
    if folder.exists():  # a block that was stopped: its other half would be measured in another mood
        if (by := holder_of(folder)) is not None:
            raise UserError(
                f"block {str(folder)!r} is still being measured by {by}; wait for its end, or stop it, and give the "
                "same command again"
            )
        with _writing(folder.parent):
            folder.rename(folder.with_name(f"{folder.name}-stopped-{uuid.uuid4().hex[:8]}"))
    twins = ["--twins", "0"] if "--twins" in version.run(START, "run", "--help").stdout else []
    ended = version.measure([*arguments, *twins, "--out", str(folder)], log)
    try:
        records = load(folder).records
    except UserError:
        records = []
    if ended not in (0, 1) or not records:  # 1: a cell failed, which its record says
        last = " / ".join(log.read_text(errors="replace").strip().splitlines()[-LINES:])
        raise UserError(f"{version.name} ended with status {ended}: {last}; all of it is in {str(log)!r}")
    with _writing(folder.parent):
        (folder / DONE).touch()


class Stopped(KeyboardInterrupt):
    """A signal, of this number, has ended what was being measured."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {name_of(number)}")
        self.number = number


@contextmanager
def _signals() -> Iterator[None]:
    """Makes SIGTERM what Ctrl-C is, so that nothing is left behind by it either, and tells which of them it was. An
    import that it tears is torn: the other version's files and process are not to stay.
    """

    def interrupt(number: int, _: object) -> None:
        raise Stopped(number)

    before = install(interrupt)
    try:
        yield
    finally:
        restore(before)


def _arguments(grid: Path | None, options: Mapping[str, str | list[str]], plugins: Sequence[str]) -> list[str]:
    each = ((name, [value] if isinstance(value, str) else value) for name, value in options.items())
    given = [f"--{name}={text}" for name, texts in each for text in texts]  # some repeat
    return [*([f"--grid={grid}"] if grid else []), *given, *(f"--plugin={name}" for name in plugins)]


# --- versions -------------------------------------------------------------------------------------------------


def _this_version() -> Version:
    return Version(name="this version", python=Path(sys.executable), source=Path(tlbench.__file__).parents[1])


@contextmanager
def _version(text: str) -> Iterator[Version]:
    """Yields the version that a person names: a virtual environment, or a git revision, checked out for as long."""
    place = Path(os.path.expanduser(text))
    for inner in ("bin/python", "Scripts/python.exe"):
        if (place / inner).exists():
            yield Version(name=text, python=(place / inner).absolute())
            return
    if place.is_dir():
        raise UserError(f"--against {text!r} is a folder, but no virtual environment: it has no bin/python")
    repository = Path(tlbench.__file__).parents[1]
    found = _git(repository, "rev-parse", "--verify", "--quiet", f"{text}^{{commit}}")
    if found.returncode:
        raise UserError(
            f"--against {text!r} is neither a virtual environment nor a git revision of {str(repository)!r}"
            + (f" ({found.stderr.strip().splitlines()[-1]})" if found.stderr.strip() else "")
        )
    commit = found.stdout.strip()
    try:
        temporary = tempfile.TemporaryDirectory(prefix="tlbench-against-")
    except OSError as error:
        raise UserError(f"--against {text!r} cannot be checked out: no temporary folder: {error.strerror}") from None
    with temporary as folder:
        checkout = Path(folder) / "checkout"
        try:
            with held():  # a signal that tears it would leave it in git's list of worktrees
                added = _git(repository, "worktree", "add", "--detach", str(checkout), commit)
            if added.returncode:
                last = (added.stderr.strip().splitlines() or [f"git ended with status {added.returncode}"])[-1]
                raise UserError(f"--against {text!r} cannot be checked out: {last}")
            yield Version(name=f"{text} ({commit[:8]})", python=Path(sys.executable), source=checkout)
        finally:
            _git(repository, "worktree", "remove", "--force", str(checkout))


def _git(repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(["git", "-C", str(repository), *arguments], capture_output=True, text=True, check=False)
    except OSError as error:
        raise UserError(f"--against needs git: {error.strerror}") from None
