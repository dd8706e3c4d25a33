"""Environments made by the real uv, from the real index and a directory of wheels."""

import sys
from pathlib import Path

import pytest

from flows.contract.environments import EnvironmentSettings
from flows.contract.spec import EnvironmentSpec
from flows.environments.making import Environments
from tests.conftest import ENVIRONMENTS
from tests.flows.environments.packages import write_wheel

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where uv finds more wheels, `house_greeter` among them; its cache is that of all tests."""
    directory = tmp_path / "wheels"
    write_wheel(directory, "house_greeter", "1.0", "GREETING = 'Moin'\n")
    monkeypatch.setenv("UV_FIND_LINKS", str(directory))
    monkeypatch.setenv("UV_CACHE_DIR", str(ENVIRONMENTS / "cache"))
    return directory


@pytest.fixture
def said() -> list[str]:
    """What was reported for the job's log."""
    return []


@pytest.fixture
def environments(tmp_path: Path, wheels: Path, said: list[str]) -> Environments:
    """Those of a home of its own."""
    return Environments(EnvironmentSettings(), tmp_path / "home", said.append)


GREETER = EnvironmentSpec(packages=("house_greeter", "snakemake ~= 9.27"))
