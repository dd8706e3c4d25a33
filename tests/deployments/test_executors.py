"""Clusters that an operator declares: the plugin itself says which settings it has."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from deployments.executors import ExecutorRefused, check_executors
from flows.contract.executors import ClusterExecutor, ExecutorSettings
from flows.contract.options import Options
from tests.conftest import ENVIRONMENTS


def check(declared: dict[str, object], home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBS_EXECUTORS", json.dumps(declared))
    monkeypatch.setenv("JOBS_ENVIRONMENTS_DIRECTORY", str(ENVIRONMENTS))
    check_executors(home, {"default", "lab"}, print)


def test_settings_of_the_plugin_are_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"submit_cmd": "sbatch --parsable", "cancel_cmd": "scancel"}
    check({"lab": {"executor": "cluster-generic", "settings": settings}}, tmp_path, monkeypatch)


def test_each_mistake_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"submit_cmd": 3, "sumbit": "sbatch"}
    with pytest.raises(ExecutorRefused) as refused:
        check({"lab": {"executor": "cluster-generic", "settings": settings}}, tmp_path, monkeypatch)
    assert "executors.lab: 'submit_cmd' must be of type str, not 3." in str(refused.value)
    assert "executors.lab: 'sumbit' is no setting of it; known: cancel_cmd, cancel_nargs" in str(
        refused.value
    )


def test_a_group_that_does_not_exist_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"submit_cmd": "sbatch --parsable"}
    with pytest.raises(ExecutorRefused, match="there is no such group; known: default, lab"):
        check({"lba": {"executor": "cluster-generic", "settings": settings}}, tmp_path, monkeypatch)


def test_prefect_yaml_declares_executors_and_a_variable_replaces_them(tmp_path: Path) -> None:
    file = tmp_path / "prefect.yaml"
    file.write_text(
        "definitions:\n  executors:\n    lab: {executor: slurm, jobs: 7}\n    other: {executor: slurm}\n"
    )
    lab = ClusterExecutor(executor="slurm", jobs=7)
    other = ClusterExecutor(executor="cluster-generic")
    settings = ExecutorSettings(prefect_file=file, executors={"other": other})
    assert (settings.executor_of("lab"), settings.executor_of("other")) == (lab, other)
    assert settings.executor_of("default") is None


def test_a_plugin_that_does_not_exist_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ExecutorRefused, match="its plugin can't be installed"):
        check({"lab": {"executor": "nowhere-to-be-found"}}, tmp_path, monkeypatch)


def test_the_environments_of_clusters_are_made_in_advance() -> None:
    variables = {
        "JOBS_EXECUTORS": json.dumps({"large": {"executor": "cluster-generic"}}),
        "JOBS_ENVIRONMENTS_DIRECTORY": str(ENVIRONMENTS),
    }
    command = [sys.executable, "-m", "deployments", "environments"]
    done = subprocess.run(
        command, env={**os.environ, **variables}, capture_output=True, text=True, check=True
    )
    assert [line.partition(":")[0] for line in done.stdout.splitlines() if ", Python " in line] == [
        "default",
        "snakemake-executor-plugin-cluster-generic",
    ]


def test_what_the_service_sets_itself_is_refused() -> None:
    executor = ClusterExecutor(executor="slurm", settings={"jobname_prefix": "mine", "requeue": True})
    assert executor.refused_settings() == ["jobname_prefix"]


@pytest.mark.parametrize(
    "options",
    [
        Options(default_resources={"slurm_account": "theirs"}),
        Options(set_resources={"map": {"slurm_account": "theirs"}}),
    ],
)
def test_a_job_can_not_set_what_only_the_operator_sets(options: Options) -> None:
    refusal = ClusterExecutor(executor="slurm").refusal(options)
    assert refusal == "only the operator sets these resources of slurm: slurm_account"


def test_a_job_can_name_other_resources() -> None:
    assert ClusterExecutor(executor="slurm").refusal(Options(default_resources={"mem_mb": 1000})) is None
