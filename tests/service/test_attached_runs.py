"""A Snakemake that somebody starts elsewhere is a job of the service, which it watches and can cancel."""

import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import httpx
import psutil
import pytest

from deployments.local import LocalStack
from flows.contract.environments import EnvironmentSettings
from flows.contract.spec import EnvironmentSpec
from flows.environments.making import Environments
from tests.conftest import ENVIRONMENTS
from tests.flows.executions import write_workflow
from tests.service.attaching import built_wheel, detour, job_named, user_of
from tests.support import WORKFLOWS, JobsClient, Json, wait_until

LOGGER_VERSIONS = ("9.0.0", "9.14.0", "9.27.1")
"""Snakemake 8 has no logger plugins."""
OLDEST_AND_NEWEST = (LOGGER_VERSIONS[0], LOGGER_VERSIONS[-1])

SLEEPING = """
rule all:
    input: expand("{n}.txt", n=range(4))
rule nap:
    output: "{n}.txt"
    shell: "sleep {config[seconds]}; touch {output}"
"""


RETRYING = """
localrules: all
rule all:
    input: "done.txt"
rule twice:
    output: "done.txt"
    log: "twice.log"
    shell: "echo 'on a node' > {log}; [ -e mark ] || {{ touch mark; exit 1; }}; touch {output}"
"""


@pytest.fixture
def workflow(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A directory with a name of its own, which the run has too."""
    name: str = request.node.name
    return tmp_path / name.replace("[", "-").rstrip("]")[:80]


def edges_of(prefect_api: httpx.Client, job_id: str) -> set[tuple[str, str]]:
    graph = prefect_api.get(f"/flow_runs/{job_id}/graph-v2").json()
    names = {node["id"]: node["label"] for _, node in graph["nodes"]}
    return {(names[parent["id"]], node["label"]) for _, node in graph["nodes"] for parent in node["parents"]}


@pytest.fixture(scope="module")
def features(jobs: JobsClient) -> Json:
    """The workflow with every feature, as a job of the service itself."""
    return jobs.wait(jobs.submit_workflow("features"), "completed")


@pytest.mark.parametrize("version", LOGGER_VERSIONS)
def test_it_is_shown_as_a_job_of_the_service_is(
    version: str,
    jobs: JobsClient,
    prefect_api: httpx.Client,
    stack: LocalStack,
    features: Json,
    workflow: Path,
) -> None:
    shutil.copytree(WORKFLOWS / "features", workflow)
    ended = user_of(workflow, stack, version).run()
    assert ended.returncode == 0, ended.stderr
    assert "Prefect:" not in ended.stderr

    job = job_named(jobs, workflow.name)
    assert (job["status"], job["progress"]) == ("completed", features["progress"])
    assert (job["attached"], job["group"], job["snakemake_version"]) == (True, "attached", version)
    assert job["place"].endswith(f":{workflow}")
    assert edges_of(prefect_api, job["id"]) == edges_of(prefect_api, features["id"])
    shown = {task["name"]: task for task in jobs.tasks(job["id"])}
    for own in jobs.tasks(features["id"]):
        task = shown.pop(own["name"])
        for name in ("rule", "wildcards", "status", "attempts", "threads", "inputs", "outputs", "shell"):
            assert task[name] == own[name], f"{name} of {own['name']}"
    assert shown == {}
    retried = next(task for task in jobs.tasks(job["id"]) if task["attempts"] == 2)
    assert "Attempt 1 failed. It will be retried.\n" in jobs.log(job["id"], retried["id"])
    made = next(task for task in jobs.tasks(job["id"]) if task["rule"] == "make_text")
    assert "\nmaking " in jobs.log(job["id"], made["id"])
    assert "Building DAG of jobs..." in jobs.log(job["id"])


@pytest.mark.parametrize("version", OLDEST_AND_NEWEST)
def test_a_failing_rule_fails_it_and_says_why(
    version: str, jobs: JobsClient, stack: LocalStack, workflow: Path
) -> None:
    shutil.copytree(WORKFLOWS / "failing", workflow)
    ended = user_of(workflow, stack, version).run("--keep-going")
    assert ended.returncode == 1

    job = job_named(jobs, workflow.name)
    assert job["status"] == "failed"
    assert (job["error"]["kind"], job["error"]["rule"]) == ("workflow", "proceed")
    assert job["error"]["message"] == "proceed[branch=b] failed: Its command ended with exit code 3."
    assert job["error"]["resolution"]
    statuses = jobs.statuses(job["id"])
    assert statuses.pop("proceed[branch=b]") == "failed"
    assert (statuses.pop("finish[branch=b]"), statuses.pop("join")) == ("cancelled", "cancelled")
    assert Counter(statuses.values()) == {"completed": 10}


@pytest.mark.parametrize("version", OLDEST_AND_NEWEST)
def test_outputs_that_snakemake_rejects_fail_the_rule_job(
    version: str, jobs: JobsClient, stack: LocalStack, workflow: Path
) -> None:
    shutil.copytree(WORKFLOWS / "missing_output", workflow)
    assert user_of(workflow, stack, version).run("--latency-wait", "0").returncode == 1

    job = job_named(jobs, workflow.name)
    failed = next(task for task in jobs.tasks(job["id"]) if task["status"] == "failed")
    assert "missing" in failed["error"].lower()
    assert job["error"]["rule"] == failed["rule"]


def test_a_workflow_without_a_plan_fails_with_the_error(
    jobs: JobsClient, stack: LocalStack, workflow: Path
) -> None:
    shutil.copytree(WORKFLOWS / "missing_input", workflow)
    assert user_of(workflow, stack).run().returncode == 1

    job = job_named(jobs, workflow.name)
    assert (job["status"], job["error"]["kind"]) == ("failed", "workflow")
    assert "MissingInputException" in job["error"]["message"]
    assert jobs.tasks(job["id"]) == []


def test_who_runs_it_again_sees_what_was_up_to_date_and_a_dry_run_is_no_run(
    jobs: JobsClient, stack: LocalStack, workflow: Path
) -> None:
    write_workflow(workflow, SLEEPING)
    user = user_of(workflow, stack)
    user.run("--config", "seconds=0", "--until", "0.txt")
    user.run("--config", "seconds=0", "--logger-prefect-name", f"{workflow.name}-again")
    again = job_named(jobs, f"{workflow.name}-again")
    user.run(
        "--config", "seconds=0", "--logger-prefect-name", f"{workflow.name}-done", "--rerun-triggers", "mtime"
    )
    done = job_named(jobs, f"{workflow.name}-done")
    user.run("--config", "seconds=0", "--logger-prefect-name", f"{workflow.name}-dry", "--dry-run")

    assert Counter(jobs.statuses(again["id"]).values()) == {"completed": 4, "skipped": 1}
    assert (done["status"], done["progress"]) == ("completed", {"done": 5, "total": 5})
    assert set(jobs.statuses(done["id"]).values()) == {"skipped"}
    assert jobs.http.get("/jobs", params={"name": f"{workflow.name}-dry"}).json()["items"] == []


@pytest.mark.parametrize(
    ("options", "password", "reason"),
    [
        (("--logger-prefect-group", "nobody's"), "", "there is no group"),
        ((), "admin:wrong", "HTTP 401"),
    ],
)
def test_where_prefect_refuses_it_there_is_one_line_and_the_workflow_runs(
    options: tuple[str, ...], password: str, reason: str, stack: LocalStack, workflow: Path
) -> None:
    write_workflow(workflow, SLEEPING)
    user = user_of(workflow, stack)
    if password:
        user = replace(user, variables={**user.variables, "PREFECT_API_AUTH_STRING": password})
    ended = user.run("--config", "seconds=0", *options)

    (said,) = [line for line in ended.stderr.splitlines() if line.startswith("Prefect:")]
    assert reason in said
    assert ended.returncode == 0
    assert (workflow / "3.txt").exists()


def test_the_service_has_none_of_its_files_and_resumes_nothing(
    jobs: JobsClient, stack: LocalStack, workflow: Path
) -> None:
    write_workflow(workflow, 'rule one:\n    output: "one.txt"\n    shell: "touch {output}"\n')
    user_of(workflow, stack).run()
    job = job_named(jobs, workflow.name)

    for path in ("outputs", "outputs/one.txt", "ro-crate"):
        answer = jobs.http.get(f"/jobs/{job['id']}/{path}")
        assert answer.status_code == 404
        assert job["place"] in answer.json()["detail"]
    answer = jobs.http.post(f"/jobs/{job['id']}/resume")
    assert (answer.status_code, answer.json()["type"].rpartition(":")[2]) == (409, "not-resumable")
    assert "Run Snakemake again there" in answer.json()["resolution"]
    answer = jobs.http.post("/jobs", json={"engine": "mock", "group": "attached"})
    assert answer.status_code == 422
    assert jobs.http.get(f"/jobs/{job['id']}/graph.svg").status_code == 200
    wes_run = jobs.http.get(f"/ga4gh/wes/v1/runs/{job['id']}").json()
    assert (wes_run["state"], wes_run["request"]["workflow_url"]) == ("COMPLETE", job["place"])
    assert jobs.http.delete(f"/jobs/{job['id']}").status_code == 204


def test_their_group_needs_no_worker(jobs: JobsClient, stack: LocalStack, workflow: Path) -> None:
    write_workflow(workflow, 'rule one:\n    output: "one.txt"\n    shell: "touch {output}"\n')
    user_of(workflow, stack).run()

    assert 'jobs_open{group="attached"' in jobs.http.get("/metrics").text
    assert 'jobs_group_has_worker{group="attached"' not in jobs.http.get("/metrics").text
    is_ready = {part["name"]: part["ready"] for part in jobs.http.get("/readyz").json()["parts"]}
    assert is_ready["workers"]


@pytest.mark.parametrize("group", ["attached", "large"])
def test_a_cancel_stops_it_and_its_rule_jobs(
    group: str, jobs: JobsClient, stack: LocalStack, workflow: Path
) -> None:
    write_workflow(workflow, SLEEPING)
    user = user_of(workflow, stack)
    with user.running("--config", "seconds=60", "--logger-prefect-group", group) as process:
        job = job_named(jobs, workflow.name)
        assert (job["group"], job["status"]) == (group, "running")
        jobs.wait_for_running_rule_job(job["id"])
        assert jobs.http.post(f"/jobs/{job['id']}/cancel").json()["status"] == "cancelling"
        process.wait(30)
        assert process.returncode == 1

    assert jobs.wait(job["id"], "cancelled")
    assert set(jobs.statuses(job["id"]).values()) == {"cancelled"}
    assert not [each for each in psutil.process_iter(["cwd"]) if each.info["cwd"] == str(workflow)]


def test_it_needs_only_its_wheel_and_follows_jobs_on_a_cluster(
    jobs: JobsClient,
    stack: LocalStack,
    workflow: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In an environment of its own, with the executor `cluster-generic` and the shell as the cluster."""
    monkeypatch.setenv("UV_CACHE_DIR", str(ENVIRONMENTS / "cache"))
    settings = EnvironmentSettings(environments_directory=tmp_path / "environments")
    environments = Environments(settings, tmp_path, print)
    spec = EnvironmentSpec(packages=("snakemake-executor-plugin-cluster-generic", "snakemake ~= 9.27"))
    python = environments.get(environments.wanted(spec)).python
    # An earlier wheel may be in the cache.
    uv = Path(sys.executable).with_name("uv")
    install = ("pip", "install", "--quiet", "--no-cache", "--python", python)
    subprocess.run([uv, *install, built_wheel(tmp_path / "wheel")], check=True)
    looking = "from importlib.util import find_spec; print([*map(find_spec, ('prefect', 'httpx', 'flows'))])"
    found = subprocess.run([python, "-I", "-c", looking], capture_output=True, text=True, check=True)
    assert found.stdout == "[None, None, None]\n"

    write_workflow(workflow, RETRYING)
    user = user_of(workflow, stack)
    user = replace(user, python=python, variables={**user.variables, "PYTHONPATH": ""})
    (workflow / "submit").write_text('sh "$1" > cluster.log 2>&1 & echo 4711\n')
    submit = ("--executor", "cluster-generic", "--cluster-generic-submit-cmd", f"sh {workflow}/submit")
    ended = user.run(*submit, "--jobs", "1", "--retries", "1", "--seconds-between-status-checks", "1")
    assert ended.returncode == 0, ended.stderr

    job = job_named(jobs, workflow.name)
    assert (job["status"], job["progress"]) == ("completed", {"done": 2, "total": 2})
    twice = next(task for task in jobs.tasks(job["id"]) if task["rule"] == "twice")
    assert (twice["status"], twice["attempts"], twice["external_id"]) == ("completed", 2, "4711")
    log = jobs.log(job["id"], twice["id"])
    assert "Attempt 1 failed. It will be retried." in log
    assert "\non a node" in log
    assert "external jobid '4711'" in jobs.log(job["id"])


def test_who_presses_ctrl_c_has_cancelled_it(jobs: JobsClient, stack: LocalStack, workflow: Path) -> None:
    write_workflow(workflow, SLEEPING)
    with user_of(workflow, stack).running("--config", "seconds=60") as process:
        job = job_named(jobs, workflow.name)
        jobs.wait_for_running_rule_job(job["id"])
        for each in (psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)):
            each.send_signal(signal.SIGINT)
        process.wait(30)

    assert jobs.wait(job["id"], "cancelled")
    assert set(jobs.statuses(job["id"]).values()) == {"cancelled"}


def test_what_is_silent_has_crashed_and_runs_on_if_it_was_alive(
    jobs: JobsClient, stack: LocalStack, workflow: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBS_ATTACHED_SILENCE_SECONDS", "2")
    write_workflow(workflow, SLEEPING)
    write_workflow(workflow.with_name(f"{workflow.name}-frozen"), SLEEPING)
    frozen_user = user_of(workflow.with_name(f"{workflow.name}-frozen"), stack)
    with (
        user_of(workflow, stack).running("--config", "seconds=60") as killed,
        frozen_user.running("--config", "seconds=4") as frozen,
    ):
        jobs.wait_for_running_rule_job(job_named(jobs, workflow.name)["id"])
        jobs.wait_for_running_rule_job(job_named(jobs, frozen_user.directory.name)["id"])
        killed.kill()
        frozen.send_signal(signal.SIGSTOP)
        stack.restart_worker()

        job = jobs.wait(job_named(jobs, workflow.name)["id"], "failed", seconds=40)
        assert job["error"]["kind"] == "system"
        assert "no sign of life" in job["error"]["message"]
        assert "Run Snakemake again" in job["error"]["resolution"]
        assert not {"pending", "running"} & set(jobs.statuses(job["id"]).values())

        alive = job_named(jobs, frozen_user.directory.name)["id"]
        jobs.wait(alive, "failed", seconds=40)
        monkeypatch.undo()
        stack.restart_worker()
        frozen.send_signal(signal.SIGCONT)
        assert frozen.wait(60) == 0

    job = jobs.get(alive)
    assert (job["status"], job["error"], job["progress"]) == ("completed", None, {"done": 5, "total": 5})
    assert set(jobs.statuses(alive).values()) == {"completed"}


def test_while_prefect_is_away_the_workflow_goes_on_and_the_record_follows(
    jobs: JobsClient, stack: LocalStack, workflow: Path
) -> None:
    write_workflow(workflow, SLEEPING)
    with detour(stack) as way:
        way.close()
        user = user_of(workflow, stack, port=way.port)
        with user.running("--config", "seconds=2") as process:
            wait_until((workflow / "0.txt").exists, "a rule job has ended")
            way.open()
            job = job_named(jobs, workflow.name)
            wait_until(lambda: "completed" in jobs.statuses(job["id"]).values(), "it has caught up")
            assert process.wait(60) == 0
            assert process.stderr is not None
            said = [line for line in process.stderr.read().splitlines() if line.startswith("Prefect:")]

    assert len(said) == 2
    assert "does not answer" in said[0]
    assert "answers again" in said[1]
    job = jobs.get(job["id"])
    assert (job["status"], job["progress"]) == ("completed", {"done": 5, "total": 5})
    assert set(jobs.statuses(job["id"]).values()) == {"completed"}


def test_a_prefect_that_never_answers_costs_seconds_at_the_end(stack: LocalStack, workflow: Path) -> None:
    write_workflow(workflow, SLEEPING)
    with detour(stack) as way:
        way.close()
        user = user_of(workflow, stack, port=way.port)
        began = time.monotonic()
        assert user.run("--config", "seconds=0", "--logger-prefect-patience", "0").returncode == 0
        without = time.monotonic() - began
        began = time.monotonic()
        ended = user.run("--config", "seconds=0", "--forceall")
        assert time.monotonic() - began < without + 5 + 3
    assert ended.returncode == 0
    assert "Prefect: it does not answer, so this run" in ended.stderr


def test_a_thousand_rule_jobs_cost_few_requests(jobs: JobsClient, stack: LocalStack, workflow: Path) -> None:
    snakefile = 'rule all:\n    input: expand("{n}", n=range(999))\nrule one:\n    output: "{n}"\n'
    write_workflow(workflow, snakefile)
    with detour(stack) as way:
        ended = user_of(workflow, stack, port=way.port).run("--touch")
        requests = way.connections
    assert ended.returncode == 0, ended.stderr
    job = job_named(jobs, workflow.name)
    assert (job["status"], job["progress"]) == ("completed", {"done": 1000, "total": 1000})
    assert requests < 150
