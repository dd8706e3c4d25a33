"""The mirror, seen from outside: what ran in Snakemake is what Prefect and the API show."""

from collections import Counter

import httpx
import pytest

from tests.support import JobsClient, Json


@pytest.fixture(scope="module")
def features(jobs: JobsClient) -> Json:
    """The finished job of the workflow with every feature."""
    job_id = jobs.submit_workflow("features")
    return jobs.wait(job_id, "completed")


def test_every_rule_job_is_there_once_and_completed(jobs: JobsClient, features: Json) -> None:
    tasks = jobs.tasks(features["id"])

    assert features["progress"] == {"done": 21, "total": 21}
    assert Counter(task["name"] for task in tasks).most_common(1)[0][1] == 1
    assert {task["status"] for task in tasks} == {"completed"}
    assert len(tasks) == 21


def test_prefect_has_recorded_exactly_what_the_api_claims(
    jobs: JobsClient, prefect_api: httpx.Client, features: Json
) -> None:
    of_job = {"flow_runs": {"id": {"any_": [features["id"]]}}}
    completed = {"task_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}

    assert prefect_api.post("/task_runs/count", json=of_job).json() == 21
    assert prefect_api.post("/task_runs/count", json=of_job | completed).json() == 21


def test_what_a_checkpoint_adds_hangs_on_the_checkpoint(
    jobs: JobsClient, prefect_api: httpx.Client, features: Json
) -> None:
    graph = prefect_api.get(f"/flow_runs/{features['id']}/graph-v2").json()
    nodes = {node["label"]: node for _, node in graph["nodes"]}
    names = {node["id"]: label for label, node in nodes.items()}

    parents = {label: {names[parent["id"]] for parent in node["parents"]} for label, node in nodes.items()}

    assert len(nodes) == 21
    checkpoint = next(name for name in parents if name.startswith("split_into_chunks"))
    added = [name for name in parents if name.startswith("process_chunk")]
    assert added
    assert all(parents[name] == {checkpoint} for name in added)


def test_output_of_shell_and_script_is_in_the_log_of_the_rule_job(jobs: JobsClient, features: Json) -> None:
    retried = [task for task in jobs.tasks(features["id"]) if task["attempts"] > 1]

    assert len(retried) == 1
    log = jobs.log(features["id"], retried[0]["id"])
    assert "Attempt 1 failed" in log
    assert "Attempt 2" in log


def test_what_is_up_to_date_is_shown_as_skipped(
    jobs: JobsClient, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("done")
    (directory / "Snakefile").write_text('rule one:\n    output: "one.txt"\n    shell: "touch {output}"\n')
    (directory / "one.txt").write_text("made before")

    job = jobs.wait(jobs.submit(workflow={"path": str(directory)}), "completed")

    assert jobs.statuses(job["id"]) == {"one": "skipped"}
    assert job["progress"] == {"done": 1, "total": 1}


def test_forceall_runs_what_is_up_to_date(jobs: JobsClient, tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("forced")
    (directory / "Snakefile").write_text('rule one:\n    output: "one.txt"\n    shell: "touch {output}"\n')
    (directory / "one.txt").write_text("made before")

    job = jobs.wait(jobs.submit(workflow={"path": str(directory)}, options={"forceall": True}), "completed")

    assert jobs.statuses(job["id"]) == {"one": "completed"}
