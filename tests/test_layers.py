"""The order of imports inside the package is one-way: a module may import only what stands above it here."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import tlbench

PACKAGE = Path(tlbench.__file__).parent
ORDER = [
    ["__init__"],
    ["errors", "hashing", "layers", "seeds", "stats", "stop", "strict", "timing"],
    ["policies", "heads", "pooling", "sensors"],
    ["grid"],
    ["record", "adapters"],
    ["store", "backbones", "data", "freeze", "compute"],
    ["prefix"],
    ["train", "device", "frame"],
    ["job"],
    ["run"],
    ["worker"],
    ["suite", "recommend", "speedup", "efficiency"],
    ["compare", "duel", "replay"],
    ["wording"],
    ["plots"],
    ["report", "summary"],
    ["pytest_plugin", "cli"],
]
LEVEL = {name: level for level, names in enumerate(ORDER) for name in names}


def unit(path: Path) -> str:
    """The module or subpackage of tlbench that a file belongs to."""
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
    assert here in LEVEL, f"{here} has no place in the order; add it to ORDER"
    for other in imported(path) - {here}:
        assert LEVEL[other] < LEVEL[here], f"{here} must not import {other}"


@pytest.mark.parametrize("module", ["cli", "pytest_plugin", "frame", "policies", "heads", "grid", "backbones", "data"])
def test_light_modules_import_neither_torch_nor_pandas(module):
    code = (
        f"import sys, tlbench.{module}\n"
        "heavy = {'torch', 'torchvision', 'timm', 'pandas', 'matplotlib', 'sklearn', 'scipy'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"tlbench.{module} imports {done.stderr}"


def test_a_grid_of_bundled_data_is_checked_without_models_and_images():
    """What a listing of 10,000 cells waits for is torch alone."""
    code = (
        "import sys, tlbench.suite as suite, tlbench.grid as grid, tlbench.record as record\n"
        "suite.check(grid.Grid(axes={'dataset': ('digits', 'synthetic'), 'train_size': (600,)}), record.Settings())\n"
        "heavy = {'torchvision', 'timm', 'pandas', 'matplotlib', 'sklearn', 'scipy'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"the check imports {done.stderr}"
