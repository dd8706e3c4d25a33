"""A job that failed, was cancelled or crashed is resumed: in its directory, and only what is incomplete."""

import shutil
from pathlib import Path

import httpx
import pytest

from deployments.local import LocalStack
from tests.support import JobsClient, Json, flow_process_of, wait_until

SNAKEFILE = """
rule all:
    input: "report.txt"

rule measure:
    output: "measured.txt"
    shell: "echo run >> {config[tally]}; echo 42 > {output}"

rule report:
    input: "measured.txt"
    output: "report.txt"
    shell: "test -e {config[permit]} && cp {input} {output}"
"""


@pytest.fixture
def permit(tmp_path: Path) -> Path:
    return tmp_path / "permit"


@pytest.fixture
def tally(tmp_path: Path) -> Path:
    """A line for every time that the first rule ran."""
    return tmp_path / "tally"


@pytest.fixture
def failed(jobs: JobsClient, tmp_path: Path, permit: Path, tally: Path) -> str:
    """A job whose first rule succeeded and whose second one failed."""
    workflow = tmp_path / "workflow"
    workflow.mkdir()
    (workflow / "Snakefile").write_text(SNAKEFILE)
    config = {"permit": str(permit), "tally": str(tally)}
    job_id = jobs.submit(
        workflow={"path": str(workflow)}, config=config, name="resumed", tags={"kind": "resumed"}
    )
    jobs.wait(job_id, "failed")
    return job_id


def resume(jobs: JobsClient, job_id: str) -> Json:
    response = jobs.http.post(f"/jobs/{job_id}/resume")
    assert response.status_code == 201, response.text
    job: Json = response.json()
    assert response.headers["Location"] == f"/jobs/{job['id']}"
    return job


def test_only_what_is_incomplete_is_done_again(
    jobs: JobsClient, failed: str, permit: Path, tally: Path
) -> None:
    permit.touch()

    resumed = resume(jobs, failed)

    job = jobs.wait(resumed["id"], "completed")
    assert jobs.statuses(job["id"]) == {"all": "completed", "report": "completed", "measure": "skipped"}
    assert tally.read_text() == "run\n"
    assert jobs.http.get(f"/jobs/{job['id']}/outputs/report.txt").text == "42\n"
    assert [output["path"] for output in jobs.items(f"/jobs/{job['id']}/outputs")] == [
        "measured.txt",
        "report.txt",
    ]


def test_a_job_stays_until_the_one_that_resumes_it_has_ended(
    jobs: JobsClient, failed: str, permit: Path, tally: Path
) -> None:
    permit.touch()
    successor = resume(jobs, failed)["id"]

    response = jobs.http.delete(f"/jobs/{failed}")

    assert response.status_code == 409
    assert successor in response.json()["detail"]
    jobs.wait(successor, "completed")
    assert tally.read_text() == "run\n"
    assert jobs.http.delete(f"/jobs/{failed}").status_code == 204
    assert jobs.http.get(f"/jobs/{successor}/outputs/report.txt").text == "42\n"


def test_a_job_says_so_when_nothing_is_left_of_the_one_that_it_resumes(
    stack: LocalStack, jobs: JobsClient, failed: str, permit: Path, tally: Path
) -> None:
    shutil.rmtree(stack.settings.home / "jobs" / failed)
    permit.touch()

    successor = resume(jobs, failed)["id"]

    jobs.wait(successor, "completed")
    assert f"Nothing was kept of job {failed}: this job starts from the beginning." in jobs.log(successor)
    assert tally.read_text() == "run\nrun\n"


def test_the_list_says_which_job_resumed_which(jobs: JobsClient, failed: str) -> None:
    first = resume(jobs, failed)
    jobs.wait(first["id"], "failed")
    second = resume(jobs, first["id"])

    line = {job["id"]: job for job in jobs.items("/jobs", tag="kind:resumed", name="resumed")}
    assert (line[failed]["resumes"], line[failed]["resumed_by"]) == (None, first["id"])
    assert (line[first["id"]]["resumes"], line[first["id"]]["resumed_by"]) == (failed, second["id"])
    assert (line[second["id"]]["resumes"], line[second["id"]]["resumed_by"]) == (first["id"], None)


def test_a_job_is_resumed_once_however_often_it_is_asked_for(jobs: JobsClient, failed: str) -> None:
    assert len({resume(jobs, failed)["id"] for _ in range(5)}) == 1


@pytest.mark.parametrize("ending", ["cancelled", "crashed"])
def test_a_job_that_was_stopped_is_taken_up_where_it_was(
    jobs: JobsClient, prefect_api: httpx.Client, ending: str
) -> None:
    job_id = jobs.submit_workflow("sleeper", cores=4, config={"seconds": 3, "count": 5})
    wait_until(lambda: "completed" in jobs.statuses(job_id).values(), "a rule job is done")
    if ending == "cancelled":
        jobs.http.post(f"/jobs/{job_id}/cancel")
        jobs.wait(job_id, "cancelled")
    else:
        flow_process_of(prefect_api, job_id).kill()
        jobs.wait(job_id, "failed")

    job = jobs.wait(resume(jobs, job_id)["id"], "completed")

    assert "skipped" in jobs.statuses(job["id"]).values()
    for number in range(1, 6):
        text = jobs.http.get(f"/jobs/{job['id']}/outputs/results/{number}.txt").text
        assert text == "begun\nended\n"


def test_what_runs_in_a_directory_keeps_others_out_of_it(
    jobs: JobsClient, prefect_api: httpx.Client, stack: LocalStack
) -> None:
    job_id = jobs.submit_workflow("sleeper", cores=4, config={"seconds": 60})
    jobs.wait_for_running_rule_job(job_id)

    assert jobs.http.post(f"/jobs/{job_id}/resume").status_code == 409

    # Prefect's own clients may do what the facade refuses: make a second job of that directory.
    deployment = prefect_api.get("/deployments/name/snakemake-job/default").json()["id"]
    parameters = prefect_api.get(f"/flow_runs/{job_id}").json()["parameters"]
    second = prefect_api.post(
        f"/deployments/{deployment}/create_flow_run",
        json={
            "parameters": parameters,
            "labels": {"snakemake.resumes": job_id},
            "state": {"type": "SCHEDULED"},
        },
    ).json()["id"]
    intruder = jobs.wait(second, "failed")
    assert "another process runs" in intruder["error"]["message"]
    assert jobs.get(job_id)["status"] == "running"
    jobs.http.post(f"/jobs/{job_id}/cancel")
    jobs.wait(job_id, "cancelled")


@pytest.mark.parametrize(
    ("spec", "status"),
    [
        ({"mock": {"delay_seconds": [0, 0], "success_rate": 1}}, "completed"),
        ({"mock": {"delay_seconds": [0, 0], "success_rate": 0}}, "failed"),
    ],
)
def test_where_nothing_is_left_to_do_it_says_so(jobs: JobsClient, spec: Json, status: str) -> None:
    job_id = jobs.submit(engine="mock", **spec)
    jobs.wait(job_id, status)

    response = jobs.http.post(f"/jobs/{job_id}/resume")

    assert response.status_code == 409
    assert response.json()["resolution"]
