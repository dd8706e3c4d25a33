"""An environment is made once, recorded, found again, and what goes wrong is one sentence."""

import multiprocessing
import os
import platform
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from flows.contract.environments import EnvironmentSettings
from flows.contract.spec import EnvironmentSpec, ErrorKind
from flows.environments.environment import Environment
from flows.environments.making import Environments, requirements_in
from flows.environments.uv import Cancelled, EnvironmentFailure
from tests.flows.environments.conftest import GREETER, PYTHON
from tests.flows.environments.packages import write_nosy_source, write_wheel


def imported(environment: Environment, program: str) -> str:
    return subprocess.run(
        [environment.python, "-c", program], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_it_has_what_was_asked_for_and_the_record_names_every_version(
    environments: Environments, said: list[str]
) -> None:
    environment = environments.get(environments.wanted(GREETER))
    assert imported(environment, "import house_greeter; print(house_greeter.GREETING)") == "Moin"
    assert environment.record.snakemake.startswith("9.27")
    assert "house-greeter==1.0" in environment.record.packages
    assert environment.record.python == imported(
        environment, "import platform as p; print(p.python_version())"
    )
    assert said[0].startswith("Creating the environment ")
    assert "packages, Snakemake 9.27" in said[-1]


def test_a_package_that_is_built_sees_no_variable_that_nobody_has_listed(
    environments: Environments, wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_nosy_source(wheels)
    for name in ("GITHUB_TOKEN", "PREFECT_API_AUTH_STRING", "LAB_COMPILER"):
        monkeypatch.setenv(name, "value")
    monkeypatch.setenv("JOBS_VISIBLE_VARIABLES", "LAB_*")

    nosy = environments.get(
        environments.wanted(EnvironmentSpec(packages=("house_nosy", "snakemake ~= 9.27")))
    )

    seen = imported(nosy, "import house_nosy; print(*house_nosy.SEEN)").split()
    assert "LAB_COMPILER" in seen
    assert {"GITHUB_TOKEN", "PREFECT_API_AUTH_STRING"}.isdisjoint(seen)


def test_a_service_that_lacks_the_package_does_not_get_it(environments: Environments) -> None:
    environments.get(environments.wanted(GREETER))
    with pytest.raises(ModuleNotFoundError):
        __import__("house_greeter")


def test_the_services_own_python_needs_no_place_on_the_path(
    environments: Environments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where pyenv is installed, a `python3.13` on PATH may only say that no version is chosen."""
    shim = tmp_path / "shims" / f"python{PYTHON}"
    shim.parent.mkdir()
    shim.write_text("#!/bin/sh\nexit 127\n")
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", str(shim.parent))

    environment = environments.get(environments.wanted(GREETER))

    assert environment.record.python == platform.python_version()


def test_it_is_made_once_and_then_found(environments: Environments, said: list[str]) -> None:
    first = environments.get(environments.wanted(GREETER))
    said.clear()
    again = environments.get(environments.wanted(GREETER))
    assert again == first
    assert said == []


def test_only_our_part_of_snakemakes_process_is_offered_to_a_snakefile(environments: Environments) -> None:
    environment = environments.get(environments.wanted(GREETER))
    offered = {path.name for path in environment.runtime.iterdir()}
    assert offered == {"flows"}
    assert {path.name for path in (environment.runtime / "flows").iterdir()} == {
        "__init__.py",
        "snakemake_process",
    }


def _make(home: Path, lines: Any) -> None:
    found = Environments(EnvironmentSettings(), home, lines.put)
    found.get(found.wanted(GREETER))


def test_two_jobs_that_need_the_same_new_environment_make_it_once(tmp_path: Path, wheels: Path) -> None:
    spawning = multiprocessing.get_context("spawn")
    lines = spawning.Queue()
    jobs = [spawning.Process(target=_make, args=(tmp_path / "home", lines)) for _ in range(2)]
    for job in jobs:
        job.start()
    said = []
    while any(job.is_alive() for job in jobs) or not lines.empty():
        if not lines.empty():
            said.append(lines.get())
        else:
            time.sleep(0.05)
    assert [job.exitcode for job in jobs] == [0, 0]
    assert sum(line.startswith("Created in ") for line in said) == 1
    assert "Waiting for another job that is creating the same environment." in said


def test_what_a_killed_process_has_left_half_made_is_made_anew(environments: Environments) -> None:
    wanted = environments.wanted(GREETER)
    half = environments.directory / wanted.digest
    (half / "bin").mkdir(parents=True)
    (half / "bin" / "python").write_text("half")
    environment = environments.get(wanted)
    assert imported(environment, "print(1)") == "1"


@pytest.mark.parametrize(
    ("spec", "message", "advice"),
    [
        (
            EnvironmentSpec(packages=("a-package-that-nobody-has-made",)),
            "a-package-that-nobody-has-made was not found",
            "Correct the packages",
        ),
        (
            EnvironmentSpec(packages=("snakemake == 7.32.4",)),
            "Snakemake 7.32.4 is not supported",
            "<10,>=8.30",
        ),
        (
            EnvironmentSpec(packages=("house_greeter",), python="3.99"),
            "not installed where",
            "another version",
        ),
        (EnvironmentSpec(name="absent"), "there is no environment 'absent'", "declare it in prefect.yaml"),
        (EnvironmentSpec(packages=("house_greeter == 2.0",)), "house-greeter==2.0", "Correct the packages"),
    ],
)
def test_what_can_not_be_had_is_said_in_one_sentence(
    environments: Environments, spec: EnvironmentSpec, message: str, advice: str
) -> None:
    with pytest.raises(EnvironmentFailure) as failure:
        environments.get(environments.wanted(spec))
    assert message in str(failure.value)
    assert "\n" not in str(failure.value)
    assert advice in failure.value.resolution
    assert failure.value.kind is ErrorKind.WORKFLOW


def test_an_index_that_can_not_be_reached_is_the_operators_business(
    environments: Environments, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "empty"))
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.delenv("UV_INDEX_URL", raising=False)
    with pytest.raises(EnvironmentFailure, match="the package index can't be reached") as failure:
        environments.get(environments.wanted(GREETER))
    assert failure.value.kind is ErrorKind.SYSTEM


def test_making_ends_soon_when_the_job_is_cancelled(tmp_path: Path, wheels: Path) -> None:
    environments = Environments(EnvironmentSettings(), tmp_path / "home", is_cancelled=lambda: True)
    begun = time.monotonic()
    with pytest.raises(Cancelled):
        environments.get(environments.wanted(GREETER))
    assert time.monotonic() - begun < 10


def test_a_resume_gets_the_very_packages_although_newer_ones_are_there(
    environments: Environments, wheels: Path
) -> None:
    first = environments.get(environments.wanted(GREETER))
    write_wheel(wheels, "house_greeter", "1.1", "GREETING = 'Tach'\n")
    assert environments.get(environments.again(first.record), first.record.digest) == first
    shutil.rmtree(environments.directory / first.record.digest)
    again = environments.get(environments.again(first.record), first.record.digest)
    assert again.record.packages == first.record.packages
    assert imported(again, "import house_greeter; print(house_greeter.GREETING)") == "Moin"


def test_unused_ones_are_removed_by_age_and_those_in_use_are_not(
    environments: Environments, tmp_path: Path
) -> None:
    used = environments.get(environments.wanted(GREETER))
    names = ("unused", "recent")
    for name in names:
        (environments.directory / name).mkdir()
        (environments.directory / f"{name}.lock").touch()
    long_ago = time.time() - 40 * 86_400
    for name in ("unused", used.record.digest):
        os.utime(environments.directory / f"{name}.lock", (long_ago, long_ago))
    # Another process, because this one's own lock is no obstacle to itself only where it is the same file.
    others = Environments(EnvironmentSettings(), tmp_path / "home")
    assert others.remove_unused() == ["unused"]
    assert used.python.exists()
    assert (environments.directory / "recent").exists()


class TestARequirementsFile:
    def test_names_and_versions_are_taken(self, tmp_path: Path) -> None:
        (tmp_path / "requirements.txt").write_text(
            "# of the workflow\nsnakemake ~= 9.27\n\n"
            "pandas >= 2  # tables\npysam[extra] ; python_version > '3'\n"
        )
        assert requirements_in(tmp_path, "requirements.txt") == (
            "snakemake ~= 9.27",
            "pandas >= 2",
            "pysam[extra] ; python_version > '3'",
        )

    @pytest.mark.parametrize(
        "line",
        [
            "--index-url https://example.org/simple",
            "-r other.txt",
            "-e .",
            "./package",
            "thing @ https://example.org/thing.whl",
            "git+https://example.org/thing",
        ],
    )
    def test_where_packages_come_from_is_not(self, tmp_path: Path, line: str) -> None:
        (tmp_path / "requirements.txt").write_text(f"pandas\n{line}\n")
        with pytest.raises(EnvironmentFailure, match="line 2 of requirements") as failure:
            requirements_in(tmp_path, "requirements.txt")
        assert "the operator decides" in failure.value.resolution

    def test_one_outside_of_the_workflow_is_not_read(self, tmp_path: Path) -> None:
        work = tmp_path / "work"
        work.mkdir()
        (tmp_path / "secret.txt").write_text("pandas\n")
        (work / "requirements.txt").symlink_to("../secret.txt")
        with pytest.raises(EnvironmentFailure, match="has no file"):
            requirements_in(work, "requirements.txt")


def test_an_operator_may_keep_jobs_to_the_named_ones(tmp_path: Path) -> None:
    environments = Environments(EnvironmentSettings(job_packages=False), tmp_path)
    with pytest.raises(EnvironmentFailure, match="only named environments") as failure:
        environments.wanted(GREETER)
    assert "default" in failure.value.resolution


def test_the_operator_declares_environments_in_prefect_yaml(tmp_path: Path) -> None:
    file = tmp_path / "prefect.yaml"
    file.write_text(
        "definitions:\n  environments:\n    rnaseq:\n      python: '3.12'\n      packages: [pandas]\n"
    )
    environments = Environments(EnvironmentSettings(prefect_file=file), tmp_path)
    wanted = environments.wanted(EnvironmentSpec(name="rnaseq"))
    assert wanted.python == "3.12"
    assert wanted.packages == ("pandas", "snakemake ~= 9.27")
    assert wanted.blame is ErrorKind.SYSTEM
    assert "pandas" in environments.wanted(None).packages
