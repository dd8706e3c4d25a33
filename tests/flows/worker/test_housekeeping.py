"""What a worker does beside its jobs."""

import asyncio
import os
import time
from pathlib import Path

import pytest

from flows.contract.environments import SoftwareSettings
from flows.worker.housekeeping import conda_problem, remove_unused


def conda(directory: Path, says: str) -> Path:
    directory.mkdir()
    program = directory / "conda"
    program.write_text(f"#!/bin/sh\necho '{says}'\n")
    program.chmod(0o755)
    return directory


@pytest.mark.parametrize(
    ("says", "problem"),
    [
        ("conda 26.7.1", None),
        ("conda 24.7.1", None),
        ("conda 23.1.0", "is of version 23.1.0; Snakemake needs 24.7.1 or newer."),
        ("Segmentation fault", "does not say its version."),
    ],
)
def test_the_conda_that_the_operator_names_is_checked(tmp_path: Path, says: str, problem: str | None) -> None:
    found = asyncio.run(conda_problem(SoftwareSettings(conda_directory=conda(tmp_path / "bin", says))))
    assert found == problem or (found is not None and problem is not None and found.endswith(problem))


def test_a_directory_without_conda_is_named(tmp_path: Path) -> None:
    found = asyncio.run(conda_problem(SoftwareSettings(conda_directory=tmp_path)))
    assert found == f"JOBS_CONDA_DIRECTORY={tmp_path} has no program `conda`."


def test_where_none_is_named_nothing_is_wrong() -> None:
    assert asyncio.run(conda_problem(SoftwareSettings())) is None


def test_what_no_job_has_used_for_long_is_removed(tmp_path: Path) -> None:
    python = tmp_path / "environments" / "old"
    with_conda = tmp_path / "software" / "default" / "conda" / "abc"
    for directory in (python, with_conda):
        directory.mkdir(parents=True)
    marks = (python.with_suffix(".lock"), with_conda.with_name("abc.env_setup_done"))
    long_ago = time.time() - 200 * 86_400
    for mark in marks:
        mark.touch()
        os.utime(mark, (long_ago, long_ago))
    assert remove_unused(tmp_path) == ["old", "default/abc"]
    assert not python.exists()
    assert not with_conda.exists()
