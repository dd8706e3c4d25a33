"""Names that stand in more than one place are the same in all of them."""

import inspect
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from api.settings import Settings
from deployments.local import WORK_POOL
from deployments.settings import LocalSettings
from flows.contract.spec import DEFAULT_GROUP, FLOW_NAME, ExecutionSpec
from flows.job import snakemake_job
from flows.worker.worker import SnakemakeWorker
from flows.workspace.settings import WorkspaceSettings

PROJECT = Path(__file__).parents[2]
TOP_LEVEL = {"flows", "deployments", "api", "infra", "docs", "tests"}
DOCUMENTS = {"README.md", "CHANGELOG.md", "LICENSE"}


def tracked_files() -> list[str]:
    listing = subprocess.run(["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=True)
    return listing.stdout.splitlines()


def prefect_yaml() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((PROJECT / "prefect.yaml").read_text())
    return content


def test_prefect_yaml_offers_the_flow_in_the_pool_of_our_worker() -> None:
    for deployment in prefect_yaml()["deployments"]:
        path, _, function = deployment["entrypoint"].partition(":")
        assert (PROJECT / path).samefile(inspect.getfile(snakemake_job.fn))
        assert function == snakemake_job.fn.__name__
        assert deployment["work_pool"]["name"] == WORK_POOL
    assert snakemake_job.name == FLOW_NAME
    assert SnakemakeWorker.type == WORK_POOL


def test_the_default_group_is_deployed() -> None:
    assert DEFAULT_GROUP in {deployment["name"] for deployment in prefect_yaml()["deployments"]}


def test_the_parameters_of_the_flow_are_the_execution_spec() -> None:
    parameters = inspect.signature(snakemake_job.fn).parameters
    assert list(parameters) == list(ExecutionSpec.model_fields)
    for name, field in ExecutionSpec.model_fields.items():
        assert parameters[name].default == field.get_default(call_default_factory=True), name


def test_programs_agree_on_where_jobs_live_by_default() -> None:
    homes = {
        settings.model_fields["home"].default for settings in (Settings, LocalSettings, WorkspaceSettings)
    }
    assert len(homes) == 1, homes


def test_the_top_level_is_what_the_owner_fixed() -> None:
    folders = {path.split("/")[0] for path in tracked_files() if "/" in path}
    assert {folder for folder in folders if not folder.startswith(".")} <= TOP_LEVEL
    files = {path for path in tracked_files() if "/" not in path and not path.startswith(".")}
    assert files == DOCUMENTS | {"Makefile", "prefect.yaml", "pyproject.toml", "requirements.txt"}


def test_requirements_pin_every_package_and_hold_no_address() -> None:
    lines = (PROJECT / "requirements.txt").read_text().splitlines()
    pinned = re.compile(r"^[A-Za-z0-9_.\[\]-]+==[^ ]+( ; .+)?$")
    assert [line for line in lines if not line.startswith("#") and not pinned.match(line)] == []
    assert not any("://" in line for line in lines)


def test_ci_runs_what_the_readme_tells_everybody_to_run() -> None:
    assert "make test" in (PROJECT / ".ci" / "run").read_text().splitlines()
    assert "make test" in (PROJECT / "README.md").read_text()
    assert "make demo" in (PROJECT / "README.md").read_text()


@pytest.mark.parametrize("document", ["api/SECURITY.md", "api/WES.md"])
def test_the_tests_that_a_table_names_are_there(document: str) -> None:
    """In the file that is named, or anywhere where it is the one before."""
    tests = {path: (PROJECT / path).read_text() for path in tracked_files() if path.startswith("tests/")}
    named = re.findall(r"`([^`\s]*\b(?:test_|Test)\w+)`", (PROJECT / document).read_text())
    assert len(named) > 10
    for name in named:
        parts = name.split("::")
        files = [part for part in parts if part.endswith(".py")]
        texts = [text for path, text in tests.items() if path.endswith(tuple(files) or ".py")]
        for part in parts:
            is_there = any(re.search(rf"^ *(async def|def|class) {part}\b", text, re.M) for text in texts)
            assert is_there or part in (*files, "…"), name
