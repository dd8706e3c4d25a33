"""A registered workflow where jobs are ECS tasks: a task describes it, and the bucket keeps its versions."""

from tests.flows.archives import workflow
from tests.support import JobsClient

SNAKEFILE = """
configfile: "config.yaml"

rule greet:
    output: "greeting.txt"
    shell: "echo Hello, {config[name]} > {output}"
"""


def test_a_task_describes_a_workflow_that_is_then_run_by_its_name(jobs: JobsClient) -> None:
    files = {"Snakefile": SNAKEFILE, "config.yaml": "name: Ada\n"}
    bundle = jobs.http.put("/bundles", content=workflow(files)).json()["bundle"]
    made = jobs.http.put(
        "/workflows/greeter/versions/1",
        json={"workflow": {"bundle": bundle}},
        params={"wait": 60},
        timeout=90,
    )
    assert made.status_code == 201, made.text
    details = jobs.http.get("/workflows/greeter/versions/1").json()
    assert details["config_schema"]["properties"]["name"] == {"type": "string", "default": "Ada"}

    wrong = jobs.http.post("/jobs", json={"workflow": {"name": "greeter"}, "config": {"name": 3}})
    assert wrong.status_code == 422
    job_id = jobs.submit(workflow={"name": "greeter"}, config={"name": "Emmy"})
    jobs.wait(job_id, "completed")
    greeting = jobs.http.get(f"/jobs/{job_id}/outputs/greeting.txt", follow_redirects=True)
    assert greeting.text == "Hello, Emmy\n"
