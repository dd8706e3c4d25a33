"""`prefect-snakemake`, as somebody at a terminal or in a script uses it."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from deployments.local import LocalStack

SNAKEFILE = """
rule all:
    input: expand("greetings/{name}.txt", name=config.get("names", ["world"]))

rule greet:
    output: "greetings/{name}.txt"
    shell: "test {wildcards.name} != nobody && echo 'Hello, {wildcards.name}!' | tee {output}"
"""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(stack: LocalStack) -> Run:
    """Runs a command of ours; its output, and exit code."""

    def run(*arguments: str, url: str = stack.settings.api_url) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [str(Path(sys.executable).with_name("prefect-snakemake")), *arguments],
            env={**stack.environment, "JOBS_URL": url},
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    return run


@pytest.fixture
def workflow(tmp_path: Path) -> str:
    directory = tmp_path / "workflow"
    (directory / ".git").mkdir(parents=True)
    (directory / ".git" / "config").write_text("not sent")
    (directory / "Snakefile").write_text(SNAKEFILE)
    return str(directory)


def test_a_directory_is_submitted_watched_and_its_outputs_downloaded(
    run: Run, workflow: str, tmp_path: Path
) -> None:
    submitted = run("submit", workflow, "--watch", "--config", "names=[Ada, Emmy]", "--tag", "by=hand")
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    job_id = submitted.stdout.split()[0]
    assert "greet[name=Ada]: completed" in submitted.stdout

    shown = run("status", job_id)
    assert "completed" in shown.stdout
    assert "greet  2     2   2 completed" in shown.stdout
    assert job_id in run("list", "--tag", "by=hand", "--status", "completed").stdout

    downloaded = run("outputs", job_id, "--download", str(tmp_path / "results"))
    assert downloaded.returncode == 0, downloaded.stderr
    assert (tmp_path / "results" / "greetings" / "Emmy.txt").read_text() == "Hello, Emmy!\n"
    assert "Hello, Ada!" in run("logs", job_id).stdout
    assert run("delete", job_id).returncode == 0
    assert run("status", job_id).returncode == 1


def test_a_job_that_fails_is_told_by_the_exit_code_and_can_be_resumed(run: Run, workflow: str) -> None:
    failed = run("submit", workflow, "--watch", "--config", "names=[nobody]")
    assert failed.returncode == 2
    assert "greet[name=nobody]: failed" in failed.stdout
    job_id = failed.stdout.split()[0]

    resumed = run("resume", job_id, "--watch", "--json")

    assert resumed.returncode == 2
    job = json.loads(resumed.stdout)
    assert (job["resumes"], job["status"]) == (job_id, "failed")


def test_programs_get_json(run: Run) -> None:
    job = json.loads(run("submit", "--mock", "--name", "for-programs", "--json").stdout)

    assert json.loads(run("cancel", job["id"], "--json").stdout)["status"] in ("cancelling", "cancelled")
    ended = json.loads(run("status", job["id"], "--watch", "--json").stdout)
    assert ended["status"] == "cancelled"
    assert [found["id"] for found in json.loads(run("list", "--name", "for-programs", "--json").stdout)] == [
        job["id"]
    ]
    assert isinstance(json.loads(run("tasks", job["id"], "--json").stdout), list)
    assert json.loads(run("outputs", job["id"], "--json").stdout) == []


def test_the_log_can_be_followed_to_the_end(run: Run, workflow: str) -> None:
    job_id = run("submit", workflow).stdout.strip()

    followed = run("logs", job_id, "--follow")

    assert followed.returncode == 0
    assert "Hello, world!" in followed.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("submit",), "The argument WORKFLOW is missing"),
        (("submit", "/not/there"), "is not a directory on this machine"),
        (("submit", "--mock", "--tag", "novalue"), "must have the form KEY=VALUE"),
        (("submit", "--mock", "--group", "larg"), "Did you mean 'large'?"),
        (("status", "00000000-0000-0000-0000-000000000007"), "There is no job"),
    ],
)
def test_what_can_not_be_done_is_told_in_words(run: Run, arguments: tuple[str, ...], told: str) -> None:
    answer = run(*arguments)

    assert answer.returncode == 1
    assert answer.stderr.startswith("Error:")
    assert told in " ".join(answer.stderr.split())
    assert "Traceback" not in answer.stderr


def test_a_service_that_is_not_there_is_told(run: Run) -> None:
    answer = run("list", url="http://127.0.0.1:9")

    assert answer.returncode == 1
    assert "No service answers at http://127.0.0.1:9" in " ".join(answer.stderr.split())


def test_a_workflow_is_registered_shown_run_by_name_and_retired(run: Run, workflow: str) -> None:
    made = run("workflows", "register", "greeter", workflow, "--version", "1.0", "--config", "names=[Ada]")
    assert made.stdout == "greeter@1.0\n", made.stdout + made.stderr
    listed = [line.split() for line in run("workflows", "list").stdout.splitlines()]
    assert ["greeter", "1.0", "default"] in listed
    shown = run("workflows", "show", "greeter").stdout
    assert "1.0      default" in shown

    submitted = run("submit", "greeter@1.0", "--watch")
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    assert "greet[name=Ada]: completed" in submitted.stdout

    assert run("workflows", "retire", "greeter", "1.0").returncode == 0
    refused = run("submit", "greeter")
    assert refused.returncode == 1
    assert "All versions of the workflow 'greeter' are retired." in refused.stderr
