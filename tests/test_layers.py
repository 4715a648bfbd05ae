"""The order of imports inside the package is one-way: a module may import only what stands above it here."""

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tlbench

PACKAGE = Path(tlbench.__file__).parent
ORDER = [
    ["__init__"],
    ["errors", "hashing", "seeds"],
    ["machine", "console"],
    ["backbones", "data"],
    ["heads", "policies"],
    ["grid"],
    ["train", "records"],
    ["measure", "analysis"],
    ["kept"],
    ["campaign", "report", "progress"],
    ["engines"],
    ["cli", "pytest_plugin"],
    ["api", "frame", "plots", "__main__"],
]
"""Rooms (folders, and the few files at the top), from the ground up. Rooms on one floor do not see each other.
"""
LEVEL = {name: level for level, names in enumerate(ORDER) for name in names}


def unit(path: Path) -> str:
    """The room or the file at the top that a file belongs to."""
    part = path.relative_to(PACKAGE).parts[0]
    return part.removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Units of tlbench that a file imports anywhere, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "tlbench":
            names = [f"tlbench.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [node.module or ""]
        else:
            continue
        for name in names:
            if name.startswith("tlbench."):
                part = name.split(".")[1]
                # `from tlbench import __version__` names an attribute, not a module
                found.add(part if part in LEVEL or (PACKAGE / part).exists() else "__init__")
    return found


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=[str(p.relative_to(PACKAGE)) for p in FILES])
def test_imports_point_upwards(path):
    here = unit(path)
    if path == PACKAGE / "__init__.py":
        return  # it names for type checkers what `test_light_modules` sees that it does not import
    assert here in LEVEL, f"{here} has no place in the order; add it to ORDER"
    for other in imported(path) - {here}:
        assert LEVEL[other] < LEVEL[here], f"{here} must not import {other}"


def module_of(path: Path) -> str:
    """Its dotted name."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_on_loading(path: Path) -> set[str]:
    """Modules of tlbench that a file imports when it is imported itself."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tlbench"):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name for name in names if name in MODULES} or {node.module}
    return found


MODULES = {module_of(path): path for path in FILES}


def test_no_module_needs_itself():
    """Inside a room as well, imports go round in no circle."""
    needs = {name: imported_on_loading(path) for name, path in MODULES.items()}
    list(graphlib.TopologicalSorter(needs).static_order())  # raises CycleError, which names the circle


def test_every_room_has_a_floor():
    assert {unit(path) for path in FILES} == set(LEVEL)


@pytest.mark.parametrize("path", FILES, ids=[str(p.relative_to(PACKAGE)) for p in FILES])
def test_a_long_file_says_why(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    doc = ast.get_docstring(ast.parse("\n".join(lines))) or ""
    assert len(lines) <= 300 or "One file" in doc, f"{len(lines)} lines, and no reason in its first ones"


BENCH = sorted((PACKAGE.parent / "bench").rglob("*.py"))


@pytest.mark.parametrize("path", [*FILES, *BENCH], ids=lambda path: str(path.relative_to(PACKAGE.parent)))
def test_a_function_can_be_read_on_a_screen(path):
    """At most 60 lines, and 6 parameters but for commands, whose parameters are what a person may say."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            lines = node.end_lineno - node.lineno + 1
            assert lines <= 60, f"{node.name} has {lines} lines"
            names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            command = "cli" in path.parts and not node.name.startswith("_")
            assert command or len(names) - (names[:1] in (["self"], ["cls"])) <= 6, f"{node.name} takes {names}"


def test_no_module_is_called_run():
    assert not [path for path in FILES if path.stem == "run"], "tlbench.run is to be a function"


@pytest.mark.parametrize(
    "module",
    [
        "__init__",
        "api.calling",
        "api.finished",
        "frame",
        "cli.table",
        "pytest_plugin",
        "heads",
        "backbones",
        "data",
        "policies.parse",
        "grid.grid",
        "grid.settings",
        "records.run_folder",
        "analysis.frame",
        "analysis.summary",
        "campaign.plugins",
        "progress",
    ],
)
def test_light_modules_import_neither_torch_nor_pandas(module):
    code = (
        f"import sys, tlbench.{module}\n"
        "heavy = {'torch', 'torchvision', 'timm', 'pandas', 'matplotlib', 'sklearn', 'scipy'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"tlbench.{module} imports {done.stderr}"


@pytest.mark.exhaustive
def test_a_grid_of_bundled_data_is_checked_without_models_and_images():
    """What a listing of 10,000 cells waits for is torch alone."""
    code = (
        "import sys\n"
        "from tlbench.campaign.check import check\n"
        "from tlbench.grid.grid import Grid\n"
        "from tlbench.grid.settings import Settings\n"
        "check(Grid(axes={'dataset': ('digits', 'synthetic'), 'train_size': (600,)}), Settings())\n"
        "heavy = {'torchvision', 'timm', 'pandas', 'matplotlib', 'sklearn', 'scipy'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"the check imports {done.stderr}"


FRAGMENT = re.compile(
    r"(Of|For|As|In|None|What|Whether|How|Where|To|Why|Those|At|From|Its|Errors:|By|With|Also|One|All|Each|Since)\s"
)
COMMANDS = {"list_", "show", "run", "report", "summary", "recommend", "classes", "compare", "speedup", "export",
            "cache", "env", "duel", "replay", "efficiency"}  # fmt: skip
"""Their docstrings are the help that people read."""


@pytest.mark.parametrize("path", FILES, ids=[str(p.relative_to(PACKAGE)) for p in FILES])
def test_docstrings_are_sentences(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not (unit(path) == "cli" and node.name in COMMANDS):
            text = ast.get_docstring(node) or ""
            assert not FRAGMENT.match(text), f"{node.name}: {text[:60]!r} is a fragment; begin with a verb"
