"""Measures one grid with two versions of tlbench in turns, block by block, each in processes of its own: what the
machine does to both of them in a block cancels in the ratio.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import tlbench
from tlbench.errors import UserError
from tlbench.records.run_folder import RESULTS

BLOCKS = 3
START = "from tlbench.cli import main; main()"
ASK = "import tlbench, torch; print(tlbench.__file__); print(tlbench.__version__); print(torch.__version__)"
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

    def run(self, code: str, *arguments: str, output: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Runs Python code; what it prints is returned, or written to a file."""
        variables = {**self.environment}
        variables.pop("PYTHONPATH", None)
        if self.source is not None:
            variables["PYTHONPATH"] = str(self.source)
        command = [str(self.python), "-P", "-c", code, *arguments]
        if output is None:
            return subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
        with output.open("a") as file:
            return subprocess.run(command, env=variables, stdout=file, stderr=subprocess.STDOUT, text=True, check=False)

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
    (default: `BLOCKS`). Odd blocks take the versions the other way round, so that neither is always first.
    Errors: UserError where a version cannot be had, or a run ends without records.
    """
    blocks = int(options["blocks"]) if re.fullmatch(r"[1-9]\d*", options.get("blocks", "")) else None
    if blocks is None and "blocks" in options:
        raise UserError(f"--blocks: {options['blocks']!r} is not a whole number of at least 1")
    folder = out or RESULTS / datetime.now().strftime("against-%Y-%m-%dT%H-%M-%S")
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"results folder {str(folder)!r} is not empty; choose a new one with --out")
    with _version(against) as other:
        sides = {"base": other, "new": _this_version()}
        for name, version in sides.items():
            say(f"{name}: {version.checked()}")
        folder.mkdir(parents=True, exist_ok=True)
        rest = {name: text for name, text in options.items() if name != "blocks"}
        return _in_turns(sides, _arguments(grid, rest, plugins), blocks or BLOCKS, folder, say)


def _in_turns(
    sides: Mapping[str, Version], arguments: Sequence[str], blocks: int, folder: Path, say: Say
) -> tuple[list[Path], list[Path]]:
    made: dict[str, list[Path]] = {"base": [], "new": []}
    began, done = time.monotonic(), 0
    for block in range(blocks):
        for name in ("base", "new") if block % 2 == 0 else ("new", "base"):
            left = ""
            if done:
                seconds = (time.monotonic() - began) / done * (2 * blocks - done)
                left = f", about {timedelta(seconds=round(seconds))} left"
            say(f"block {block + 1} of {blocks}: {name}{left}")
            made[name].append(_measure(sides[name], arguments, folder / f"{name}-{block + 1}", folder / "log.txt"))
            done += 1
    return made["base"], made["new"]


def _measure(version: Version, arguments: Sequence[str], folder: Path, log: Path) -> Path:
    """Measures one block with one version. Errors: UserError where it leaves no records."""
    twins = ["--twins", "0"] if "--twins" in version.run(START, "run", "--help").stdout else []
    ended = version.run(START, "run", *arguments, *twins, "--out", str(folder), output=log)
    if ended.returncode not in (0, 1):  # 1: a cell failed, which its record says
        last = " / ".join(log.read_text(errors="replace").strip().splitlines()[-LINES:])
        raise UserError(f"{version.name} ended with status {ended.returncode}: {last}; all of it is in {str(log)!r}")
    return folder


def _arguments(grid: Path | None, options: Mapping[str, str], plugins: Sequence[str]) -> list[str]:
    given = [f"--{name}={text}" for name, text in options.items()]
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
    with tempfile.TemporaryDirectory(prefix="tlbench-against-") as folder:
        checkout = Path(folder) / "checkout"
        added = _git(repository, "worktree", "add", "--detach", str(checkout), commit)
        if added.returncode:
            raise UserError(f"--against {text!r} cannot be checked out: {added.stderr.strip().splitlines()[-1]}")
        try:
            yield Version(name=f"{text} ({commit[:8]})", python=Path(sys.executable), source=checkout)
        finally:
            _git(repository, "worktree", "remove", "--force", str(checkout))


def _git(repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(["git", "-C", str(repository), *arguments], capture_output=True, text=True, check=False)
    except OSError as error:
        raise UserError(f"--against needs git: {error.strerror}") from None
