"""A job's way through AWS: bundle from S3, a task of its size, outputs back through S3."""

import json

import httpx
import pytest

from tests.ecs.aws import AUTH_STRING, ENVIRONMENT, FAMILY, GATEWAY_SECRET
from tests.ecs.conftest import EcsStack
from tests.flows.archives import workflow
from tests.support import JobsClient, Json

SNAKEFILE = """
rule all:
    input: "greeting.txt"

rule greet:
    output: "greeting.txt"
    shell: "echo Hello from {config[place]} > {output}"
"""
PRYING = """
import base64, os, urllib.error, urllib.request

def variables_of_the_flow():
    pid = os.getpid()
    while True:
        with open(f"/proc/{pid}/environ") as environ:
            found = dict(each.split("=", 1) for each in environ.read().split(chr(0)) if "=" in each)
        if "PREFECT_API_AUTH_STRING" in found:
            return found
        with open(f"/proc/{pid}/status") as status:
            pid = next(int(line.split()[1]) for line in status if line.startswith("PPid"))

def status_of(flow, path):
    request = urllib.request.Request(flow["PREFECT_API_URL"] + path)
    token = base64.b64encode(flow["PREFECT_API_AUTH_STRING"].encode()).decode()
    request.add_header("Authorization", "Basic " + token)
    try:
        return urllib.request.urlopen(request).status
    except urllib.error.HTTPError as error:
        return error.code

rule all:
    output: "answers.txt"
    run:
        flow = variables_of_the_flow()
        runs = [flow["PREFECT__FLOW_RUN_ID"], config["other"]]
        paths = ["/flow_runs/" + run for run in runs] + ["/work_pools/ecs"]
        with open(output[0], "w") as answers:
            for path in paths:
                print(status_of(flow, path), file=answers)
"""
OVERRIDES_LIMIT = 8192
"""https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_RunTask.html"""


@pytest.fixture(scope="module")
def job(jobs: JobsClient) -> Json:
    """A job that has completed, whose configuration is larger than what ECS takes."""
    bundle = jobs.http.put("/bundles", content=workflow({"Snakefile": SNAKEFILE})).json()["bundle"]
    job_id = jobs.submit(
        name="in ECS",
        workflow={"bundle": bundle},
        config={"place": "a task", "samples": ["x" * 100] * 200},
        cores=2,
        resources={"mem_mb": 5000, "disk_mb": 30_000},
        spot=True,
    )
    return jobs.wait(job_id, "completed")


def test_its_outputs_come_back(jobs: JobsClient, job: Json) -> None:
    assert job["progress"] == {"done": 2, "total": 2}
    assert jobs.statuses(job["id"]) == {"all": "completed", "greet": "completed"}
    (output,) = jobs.items(f"/jobs/{job['id']}/outputs")
    address = jobs.http.get(output["url"]).headers["location"]
    assert httpx.get(address).text == "Hello from a task\n"


def test_the_gateway_refuses_nothing_that_a_job_needs(stack: EcsStack, job: Json) -> None:
    """Prefect's runner goes on without what it is refused, so only the log shows it."""
    log = (stack.home / "facade" / "api.log").read_text()

    assert "Application startup complete" in log
    assert f"Job {job['id']} may not" not in log


def test_a_rule_reaches_its_own_job_in_prefect_and_no_other(jobs: JobsClient, job: Json) -> None:
    """With the token that it finds in its task, where it runs as the same user."""
    bundle = jobs.http.put("/bundles", content=workflow({"Snakefile": PRYING})).json()["bundle"]
    prying = jobs.submit(workflow={"bundle": bundle}, config={"other": job["id"]})

    jobs.wait(prying, "completed")

    (output,) = jobs.items(f"/jobs/{prying}/outputs")
    address = jobs.http.get(output["url"]).headers["location"]
    assert httpx.get(address).text.split() == ["200", "403", "403"]


def test_its_task_has_the_size_that_it_asked_for(stack: EcsStack, job: Json) -> None:
    (task,) = stack.aws.tasks_of(job["id"])

    assert task["overrides"]["cpu"] == "2048"
    assert task["overrides"]["memory"] == "5120"
    assert task["overrides"]["ephemeralStorage"] == {"sizeInGiB": 30}
    assert task["capacityProviderName"] == "FARGATE_SPOT"
    assert len(json.dumps(task["overrides"])) < OVERRIDES_LIMIT / 2


def test_its_task_definition_is_never_registered_again(stack: EcsStack, job: Json) -> None:
    revisions = stack.aws.ecs.list_task_definitions(familyPrefix=FAMILY)["taskDefinitionArns"]
    assert len(revisions) == 1


def test_nobody_can_read_a_secret(stack: EcsStack, jobs: JobsClient, job: Json) -> None:
    tasks = stack.aws.tasks_of(job["id"])
    definition = stack.aws.ecs.describe_task_definition(taskDefinition=FAMILY)["taskDefinition"]
    logs = [*(stack.home / "logs").glob("*.log"), *(stack.home / "tasks").glob("*.log")]
    logs += [*(stack.home / "facade").glob("*.log")]
    readable = [json.dumps([tasks, definition], default=str), jobs.log(job["id"])]
    readable += [log.read_text() for log in logs]

    assert len(logs) >= 4
    password = AUTH_STRING.partition(":")[2]
    for secret in (AUTH_STRING, password, GATEWAY_SECRET, ENVIRONMENT["AWS_SECRET_ACCESS_KEY"]):
        assert not [text for text in readable if secret in text]
    assert "the-password" not in "".join(readable)
