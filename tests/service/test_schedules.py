"""Registered workflows that run by themselves, at the times of a schedule."""

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from deployments.local import LocalStack
from tests.flows.executions import write_workflow
from tests.support import JobsClient, Json, wait_until

SNAKEFILE = """
configfile: "config.yaml"

rule copy:
    input: config["source"]
    output: "copied"
    shell: "cp {input} {output}"
"""
SCHEMA = """
type: object
properties:
  source: {type: string}
  depth: {type: integer, minimum: 1}
"""
FAR_AWAY = {"cron": "0 6 1 1 *", "timezone": "Europe/Zurich"}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    source.write_text("first")
    return source


@pytest.fixture
def name(jobs: JobsClient, tmp_path: Path, source: Path) -> Iterator[str]:
    """The name of a registered workflow. It leaves no schedule behind."""
    workflow = write_workflow(tmp_path / "copying", SNAKEFILE)
    (workflow / "config.yaml").write_text(f"source: {source}\ndepth: 1\n")
    (workflow / "schemas").mkdir()
    (workflow / "schemas" / "config.schema.yaml").write_text(SCHEMA)
    name = f"copying-{uuid4().hex[:8]}"
    made = jobs.http.put(f"/workflows/{name}/versions/1", json={"workflow": {"path": str(workflow)}})
    assert made.status_code == 201, made.text
    yield name
    for each in jobs.http.get(f"/workflows/{name}/schedules").json()["items"]:
        jobs.http.delete(f"/workflows/{name}/schedules/{each['slug']}")


def put(jobs: JobsClient, name: str, slug: str, **fields: object) -> httpx.Response:
    return jobs.http.put(f"/workflows/{name}/schedules/{slug}", json=fields)


def jobs_of(jobs: JobsClient, name: str, **filters: object) -> list[Json]:
    return list(jobs.items("/jobs", workflow=name, **filters))


def test_a_schedule_makes_jobs_until_it_is_deleted(jobs: JobsClient, name: str) -> None:
    made = put(jobs, name, "often", interval_seconds=2, parameters={"config": {"depth": 3}, "cores": 2})
    assert made.status_code == 201, made.text

    def two_have_completed() -> bool:
        return len(jobs_of(jobs, name, status="completed")) >= 2

    wait_until(two_have_completed, "two jobs of the schedule have completed")
    assert jobs.http.delete(f"/workflows/{name}/schedules/often").status_code == 204
    assert jobs.http.delete(f"/workflows/{name}/schedules/often").status_code == 404
    wait_until(lambda: not jobs_of(jobs, name, status=["pending", "running"]), "none is open any more")
    assert {job["status"] for job in jobs_of(jobs, name)} == {"completed"}
    assert jobs_of(jobs, name)[0]["workflow"] == {"name": name, "version": "1"}


def test_the_same_request_changes_nothing_and_another_one_replaces(
    jobs: JobsClient, prefect_api: httpx.Client, name: str
) -> None:
    assert put(jobs, name, "yearly", **FAR_AWAY).status_code == 201
    deployment = prefect_api.get(f"/deployments/name/snakemake-job/{name}").json()
    (before,) = deployment["schedules"]
    assert before["schedule"]["cron"] == "0 6 1 1 *"
    assert before["schedule"]["timezone"] == "Europe/Zurich"

    assert put(jobs, name, "yearly", **FAR_AWAY).status_code == 200
    assert prefect_api.get(f"/deployments/{deployment['id']}").json()["schedules"] == [before]

    changed = put(jobs, name, "yearly", rrule="FREQ=YEARLY", active=False)
    assert changed.status_code == 200
    (listed,) = jobs.http.get(f"/workflows/{name}/schedules").json()["items"]
    assert listed == changed.json()
    assert (listed["cron"], listed["rrule"], listed["active"]) == (None, "FREQ=YEARLY", False)

    version = {"workflow": {"path": deployment["parameters"]["workflow"]["path"]}, "cores": 2}
    assert jobs.http.put(f"/workflows/{name}/versions/2", json=version).status_code == 201
    assert jobs.http.get(f"/workflows/{name}/schedules").json()["items"] == [listed]


def test_a_schedule_that_plans_first_makes_a_job_only_if_something_is_to_be_done(
    jobs: JobsClient, prefect_api: httpx.Client, name: str, source: Path, tmp_path: Path
) -> None:
    place = tmp_path / "project"
    place.mkdir()
    (place / "config.yaml").write_text(f"source: {source}\n")
    deployment = prefect_api.get(f"/deployments/name/snakemake-job/{name}").json()
    events = {"event": {"name": ["prefect.flow-run.Completed"]},
              "related": {"id": [f"prefect.deployment.{deployment['id']}"]}}  # fmt: skip

    def completed() -> int:
        """How many flow runs of the workflow have completed, those that are removed included."""
        found: int = prefect_api.post("/events/filter", json={"filter": events}).json()["total"]
        return found

    def real() -> list[Json]:
        return [job for job in jobs_of(jobs, name, status="completed") if not job["dry_run"]]

    made = put(jobs, name, "often", interval_seconds=4, only_if_changed=True,
               parameters={"directory": {"path": str(place)}})  # fmt: skip
    assert made.status_code == 201, made.text
    assert "dry_run" not in made.json()["parameters"]

    wait_until(real, "the first plan has made a job")
    before = completed()
    wait_until(lambda: completed() >= before + 3, "three more plans were made")
    assert len(real()) == 1

    source.write_text("second")
    wait_until(lambda: len(real()) == 2, "a changed input has made a job")
    assert (place / "copied").read_text() == "second"
    jobs.http.delete(f"/workflows/{name}/schedules/often")
    wait_until(lambda: all(not job["dry_run"] for job in jobs_of(jobs, name)), "no dry run is left")
    assert len(real()) == 2


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"cron": "0 6 * * 1", "interval_seconds": 60}, "#"),
        ({"cron": "every monday"}, "#"),
        ({"cron": "0 6 * * 1", "timezone": "Mars/Base"}, "#"),
        ({**FAR_AWAY, "parameters": {"config": {"depth": 0}}}, "#/parameters/config/depth"),
        ({**FAR_AWAY, "parameters": {"snakefile": "other"}}, "#/parameters/snakefile"),
        ({**FAR_AWAY, "parameters": {"coers": 2}}, "#/parameters/coers"),
        ({**FAR_AWAY, "parameters": {"dry_run": True}}, "#/parameters/dry_run"),
        ({**FAR_AWAY, "parameters": {"inputs": {"x": {"path": "/etc"}}}}, "#/parameters/inputs/x/path"),
        ({**FAR_AWAY, "only_if_changed": True}, "#"),
    ],
)
def test_a_mistake_is_reported_with_its_place(
    jobs: JobsClient, name: str, fields: Json, pointer: str
) -> None:
    response = put(jobs, name, "wrong", **fields)
    assert response.status_code == 422, response.text
    assert [error["pointer"] for error in response.json()["errors"]] == [pointer]
    assert jobs.http.get(f"/workflows/{name}/schedules").json()["items"] == []


def test_the_command_line_schedules_pauses_and_resumes(
    jobs: JobsClient, stack: LocalStack, name: str
) -> None:
    def run(*arguments: str) -> str:
        done = subprocess.run(
            [str(Path(sys.executable).with_name("prefect-snakemake")), "workflows", *arguments],
            env={**stack.environment, "JOBS_URL": stack.settings.api_url, "COLUMNS": "120"},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("schedule", name, "--slug", "yearly", "--cron", "0 6 1 1 *", "--timezone", "Europe/Zurich",
        "--config", "depth=4")  # fmt: skip
    assert "0 6 1 1 *  Europe/Zurich" in run("schedules", name)
    run("pause", name, "yearly")
    (paused,) = jobs.http.get(f"/workflows/{name}/schedules").json()["items"]
    assert (paused["active"], paused["parameters"]["config"]["depth"]) == (False, 4)
    assert "paused" in run("schedules", name)
    run("resume", name, "yearly")
    assert jobs.http.get(f"/workflows/{name}/schedules").json()["items"][0]["active"] is True
    run("unschedule", name, "yearly")
    assert jobs.http.get(f"/workflows/{name}/schedules").json()["items"] == []


def test_times_that_were_missed_make_one_job(
    jobs: JobsClient, prefect_api: httpx.Client, stack: LocalStack, name: str
) -> None:
    """As after an outage: Prefect has runs of the last hour, which nobody has taken."""
    now = datetime.now(UTC)
    put(jobs, name, "often", interval_seconds=600, parameters={"config": {"depth": 3}})
    deployment = prefect_api.get(f"/deployments/name/snakemake-job/{name}").json()
    hour = {"start_time": (now - timedelta(hours=1)).isoformat(), "end_time": now.isoformat()}
    prefect_api.post(f"/deployments/{deployment['id']}/schedule", json=hour).raise_for_status()

    def all_have_ended() -> list[Json]:
        ended = jobs_of(jobs, name, status=["completed", "cancelled"])
        return ended if len(ended) >= 6 else []

    ended = wait_until(all_have_ended, "the runs of the last hour have ended")
    assert sorted(job["status"] for job in ended) == ["cancelled"] * (len(ended) - 1) + ["completed"]
    (ran,) = (job for job in ended if job["status"] == "completed")
    others = [prefect_api.get(f"/flow_runs/{job['id']}").json() for job in ended if job is not ran]
    assert {run["state"]["name"] for run in others} == {"Skipped"}
    newest = prefect_api.get(f"/flow_runs/{ran['id']}").json()["expected_start_time"]
    assert newest > max(run["expected_start_time"] for run in others)
