"""What pyproject.toml says of the packages that tlbench needs."""

import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
NEEDED = [*PROJECT["dependencies"], *EXTRAS["test"]]
"""What is there wherever the tests run."""
ASKED = sorted({*NEEDED, *(line for lines in EXTRAS.values() for line in lines)})


@pytest.mark.parametrize("line", ASKED)
def test_a_lower_bound_is_a_version_that_is_not_above_the_one_that_is_tested(line):
    asked = Requirement(line)
    (bound,) = asked.specifier
    assert bound.operator == ">=", "and no upper one, which would keep others from newer versions"
    try:
        installed = version(asked.name)
    except PackageNotFoundError:
        assert line not in NEEDED
        pytest.skip(f"{asked.name} is not installed")
    assert Version(bound.version).release <= Version(installed).release


def test_a_package_has_one_lower_bound_wherever_it_is_named():
    names = [Requirement(line).name for line in ASKED]
    assert sorted(set(names)) == sorted(names)
