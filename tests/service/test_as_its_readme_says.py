"""Published workflows as their READMEs say: own data, options, dry runs, in place, and on from there."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from deployments.local import LocalStack
from tests.flows.executions import write_workflow
from tests.support import JobsClient, Json

COUNT = """
configfile: "config/config.yaml"

rule all:
    input: expand("counted/{sample}", sample=open("config/samples.tsv").read().split())

rule count:
    input: "resources/reads/{sample}"
    output: "counted/{sample}"
    shell: "(wc -l; echo {config[depth]}) < {input} > {output}"
"""


@pytest.fixture
def workflow(tmp_path: Path) -> Path:
    directory = write_workflow(tmp_path / "count", COUNT)
    (directory / "config").mkdir()
    (directory / "config" / "config.yaml").write_text("depth: 1\n")
    (directory / "config" / "samples.tsv").write_text("A\n")
    return directory


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    for sample in "AB":
        (tmp_path / "data" / sample).write_text(f"{sample}\n")
    return tmp_path / "data"


def spec_of(workflow: Path, data: Path, **fields: object) -> Json:
    return {
        "workflow": {"path": str(workflow)},
        "inputs": {"resources/reads": {"path": str(data)}},
        "files": {"config/samples.tsv": "A\nB\n"},
        "cores": 2,
        **fields,
    }


def ran(jobs: JobsClient, job_id: str) -> set[str]:
    return {name for name, status in jobs.statuses(job_id).items() if status == "completed"}


def test_a_dry_run_lists_every_rule_job_with_its_reason_and_leaves_nothing(
    jobs: JobsClient, stack: LocalStack, workflow: Path, data: Path
) -> None:
    job_id = jobs.submit(**spec_of(workflow, data, dry_run=True))
    job = jobs.wait(job_id, "completed")
    assert (job["dry_run"], job["progress"]) == (True, {"done": 0, "total": 3})
    planned = {task["name"]: (task["status"], task["reason"]) for task in jobs.tasks(job_id)}
    assert {name: status for name, (status, _) in planned.items()} == {
        "all": "cancelled",
        "count[sample=A]": "cancelled",
        "count[sample=B]": "cancelled",
    }
    assert planned["count[sample=A]"][1] == "Missing output files: counted/A"
    assert not (stack.settings.home / "jobs" / job_id).exists()
    assert jobs.http.post(f"/jobs/{job_id}/resume").status_code == 409


def test_a_dry_run_that_fails_says_why(jobs: JobsClient, workflow: Path, stack: LocalStack) -> None:
    job_id = jobs.submit(workflow={"path": str(workflow)}, dry_run=True)
    job = jobs.wait(job_id, "failed")
    assert "resources/reads/A" in job["error"]["message"]
    assert not (stack.settings.home / "jobs" / job_id).exists()


def test_a_job_goes_on_with_another_configuration_and_other_files(
    jobs: JobsClient, workflow: Path, data: Path
) -> None:
    first = jobs.submit(**spec_of(workflow, data, files={}))
    jobs.wait(first, "completed")
    assert ran(jobs, first) == {"all", "count[sample=A]"}

    changes: Json = {"files": {"config/samples.tsv": "A\nB\n"}}
    second = jobs.http.post(f"/jobs/{first}/resume", json=changes).raise_for_status().json()
    assert (second["resumes"], second["changes"]) == (first, ["files"])
    jobs.wait(second["id"], "completed")
    assert ran(jobs, second["id"]) == {"all", "count[sample=B]"}
    assert jobs.http.get(f"/jobs/{second['id']}/outputs/counted/B").text == "1\n1\n"

    changes = {"config": {"depth": 7}, "options": {"forcerun": ["counted/A"]}}
    third = jobs.http.post(f"/jobs/{second['id']}/resume", json=changes).raise_for_status().json()
    jobs.wait(third["id"], "completed")
    assert ran(jobs, third["id"]) == {"all", "count[sample=A]"}
    assert jobs.http.get(f"/jobs/{third['id']}/outputs/counted/A").text == "1\n7\n"
    assert jobs.get(first)["resumed_by"] == second["id"]


def test_the_same_changes_make_one_job_and_others_are_refused(
    jobs: JobsClient, workflow: Path, data: Path
) -> None:
    first = jobs.submit(**spec_of(workflow, data))
    jobs.wait(first, "completed")
    changes = [{"config": {"depth": depth}} for depth in (2, 2, 3)]
    answers = [jobs.http.post(f"/jobs/{first}/resume", json=each) for each in changes]
    assert [answer.status_code for answer in answers] == [201, 201, 409]
    assert answers[0].json()["id"] == answers[1].json()["id"]
    assert answers[0].json()["id"] in answers[2].json()["detail"]
    jobs.wait(answers[0].json()["id"], "completed")


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"confg": {}}, "#/confg"),
        ({"cores": "many"}, "#/cores"),
        ({"options": {"retries": -1}}, "#/options/retries"),
        ({"inputs": {"x": {"path": "/etc"}}}, "#/inputs/x/path"),
    ],
)
def test_changes_that_make_no_job_are_refused(
    jobs: JobsClient, workflow: Path, data: Path, changes: Json, pointer: str
) -> None:
    first = jobs.submit(**spec_of(workflow, data, dry_run=False))
    jobs.wait(first, "completed")
    answer = jobs.http.post(f"/jobs/{first}/resume", json=changes)
    assert answer.status_code == 422, answer.text
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


def test_jobs_in_place_follow_each_other_and_leave_the_directory_alone(
    jobs: JobsClient, workflow: Path, data: Path
) -> None:
    (workflow / "resources").mkdir()
    (workflow / "resources" / "reads").symlink_to(data)
    ids = [jobs.submit(directory={"path": str(workflow)}, cores=2) for _ in range(2)]
    for job_id in ids:
        jobs.wait(job_id, "completed")
    assert sorted(ran(jobs, job_id) for job_id in ids) == [set(), {"all", "count[sample=A]"}]
    assert jobs.http.get(f"/jobs/{ids[0]}/outputs/counted/A").text == "1\n1\n"
    jobs.http.delete(f"/jobs/{ids[0]}").raise_for_status()
    assert (workflow / "counted" / "A").read_text() == "1\n1\n"


@pytest.mark.parametrize("field", ["inputs", "directory"])
def test_places_outside_of_the_roots_are_refused_at_submission(
    jobs: JobsClient, workflow: Path, field: str
) -> None:
    place = {"path": "/etc"} if field == "directory" else {"x/y": {"path": "/etc"}}
    answer = jobs.http.post("/jobs", json={"workflow": {"path": str(workflow)}, field: place})
    assert answer.status_code == 422
    assert answer.json()["type"].endswith("data-refused")
    assert answer.json()["errors"][0]["pointer"] in ("#/directory/path", "#/inputs/x~1y/path")


def test_links_out_of_all_roots_are_refused_at_submission(jobs: JobsClient, workflow: Path) -> None:
    (workflow / "passwd").symlink_to(os.path.relpath("/etc/passwd", workflow))
    answer = jobs.http.post("/jobs", json={"workflow": {"path": str(workflow)}})
    assert answer.status_code == 422
    assert "the link 'passwd'" in answer.json()["detail"].replace("The link", "the link")


def command(stack: LocalStack, *words: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "JOBS_URL": stack.settings.api_url}
    arguments = [str(Path(sys.executable).with_name("prefect-snakemake")), *words]
    return subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)


def test_the_command_line_does_the_same(
    stack: LocalStack, jobs: JobsClient, workflow: Path, data: Path, tmp_path: Path
) -> None:
    samples = tmp_path / "samples.tsv"
    samples.write_text("A\nB\n")
    words = [
        *("submit", str(workflow), "--server-path", "--cores", "2", "--config", "depth=5"),
        *("--input", f"resources/reads={data}", "--file", f"config/samples.tsv={samples}"),
    ]
    plan = command(stack, *words, "--dry-run", "--forceall")
    assert plan.returncode == 0, plan.stderr
    assert [line.split()[:2] for line in plan.stdout.splitlines()[1:]] == [
        ["all", "1"],
        ["count", "2"],
        ["total", "3"],
    ]

    done = command(stack, *words, "--watch", "--set-threads", "count=2", "--until", "counted/A")
    assert done.returncode == 0, done.stderr
    job_id = done.stdout.split()[0]
    (task,) = jobs.tasks(job_id, status="completed")
    assert (task["name"], task["threads"]) == ("count[sample=A]", 2)

    on = command(stack, "resume", job_id, "--config", "depth=6", "--no-keep-going", "--watch")
    assert on.returncode == 0, on.stderr
    assert jobs.get(on.stdout.split()[0])["changes"] == ["config", "options"]


def test_the_command_line_asks_for_limits_before_it_packs(stack: LocalStack, tmp_path: Path) -> None:
    workflow = write_workflow(tmp_path / "large", "rule all:")
    (workflow / "data").mkdir()
    with (workflow / "data" / "huge").open("wb") as huge:
        huge.truncate(1 << 42)
    refused = command(stack, "submit", str(workflow))
    assert refused.returncode == 1
    assert "the largest are data (4,398,047 MB)" in refused.stderr
    assert "--input" in refused.stderr


def test_wes_takes_the_same_parameters(jobs: JobsClient, workflow: Path, data: Path) -> None:
    form = {
        "workflow_type": "SMK",
        "workflow_type_version": "9",
        "workflow_url": f"file://{workflow}",
        "workflow_params": '{"depth": 3}',
        "workflow_engine": "snakemake",
        "workflow_engine_parameters": json.dumps(
            {
                "inputs": json.dumps({"resources/reads": {"path": str(data)}}),
                "files": json.dumps({"config/samples.tsv": "A\nB\n"}),
                "--cores": "2",
                "--set-threads": '{"count": 2}',
                "--until": "counted/A",
                "env": '{"GREETING": "Moin"}',
            }
        ),
    }
    answer = jobs.http.post("/ga4gh/wes/v1/runs", data=form, files={"x": b""})
    assert answer.status_code == 200, answer.text
    job_id = answer.json()["run_id"]
    jobs.wait(job_id, "completed")
    (task,) = jobs.tasks(job_id, status="completed")
    assert (task["name"], task["threads"]) == ("count[sample=A]", 2)


def test_prefects_own_command_line_takes_the_same_parameters(
    stack: LocalStack, jobs: JobsClient, workflow: Path, data: Path
) -> None:
    parameters = spec_of(workflow, data, options={"until": ["counted/B"]})
    words = [sys.executable, "-m", "prefect", "deployment", "run", "snakemake-job/default"]
    for name, value in parameters.items():
        words += ["--param", f"{name}={json.dumps(value)}"]
    done = subprocess.run(words, env=stack.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    job_id = re.findall(r"[0-9a-f]{8}-[0-9a-f-]{27}", done.stdout)[0]
    jobs.wait(job_id, "completed")
    assert ran(jobs, job_id) == {"count[sample=B]"}
