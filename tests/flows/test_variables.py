"""The environment variables of a job: what it may set, and what a workflow hears of those it lacks."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from flows import diagnosis
from flows.contract.spec import ExecutionSpec
from flows.snakemake_process.events import ErrorRaised
from flows.workspace.workspace import Workspace
from tests.flows.executions import execute, write_workflow

NEEDS_A_VARIABLE = """
    envvars: "AWS_PROFILE"

    rule greet:
        output: "greeting.txt"
        shell: "echo $AWS_PROFILE $GREETING > {output}"
    """


def test_a_job_sets_variables_of_snakemake_and_the_rules(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GREETING", "from the worker")
    workflow = write_workflow(tmp_path / "greets", NEEDS_A_VARIABLE)

    done = execute(workspace, workflow, env={"AWS_PROFILE": "lab", "GREETING": "moin, {all}"})

    assert done.exit_code == 0
    assert (workspace.work / "greeting.txt").read_text() == "lab moin, {all}\n"


def test_the_error_about_an_undefined_variable_says_how_to_set_it(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "of the service")
    failed = execute(workspace, write_workflow(tmp_path / "lacks", NEEDS_A_VARIABLE))

    error = diagnosis.of_workflow(failed.of(ErrorRaised), failed.exit_code, "")

    assert "AWS_PROFILE" in error.message
    assert '"env": {"AWS_PROFILE": "…"}' in error.resolution
    assert '"secrets": {"AWS_PROFILE": "name-of-a-block"}' in error.resolution
    assert "hides" in error.resolution
    assert error.section == "variables"


@pytest.mark.parametrize(
    "name", ["PATH", "PYTHONPATH", "LD_PRELOAD", "PREFECT_API_URL", "JOBS_HOME", "UV_CACHE_DIR"]
)
@pytest.mark.parametrize("field", ["env", "secrets"])
def test_a_variable_of_the_service_is_refused_by_name(name: str, field: str) -> None:
    with pytest.raises(ValidationError, match=f"a job can't set {name}"):
        ExecutionSpec.model_validate({"engine": "mock", field: {name: "value"}})
