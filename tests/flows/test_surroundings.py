"""What a rule job finds around it, and how the job spec reaches Snakemake."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from flows.snakemake_process.events import AttemptStarted
from flows.workspace.workspace import Workspace
from tests.flows.executions import HERE, Run, execute, new_workspace, run, staged, write_workflow

HIDDEN = {
    "PREFECT_API_KEY": "secret",
    "PREFECT_API_URL": "http://prefect.example/api",
    "JOBS_HOME": "/srv/jobs",
    "JOBS_API_KEYS": "secret",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/credentials/of-the-service",
    "GITHUB_TOKEN": "secret",
    "OTEL_EXPORTER_OTLP_HEADERS": "authorization=secret",
    "HOME": "/home/of-the-operator",
    "PREFECTURE": "Kyoto",
}
SHOWN = {"LC_TIME": "C.UTF-8", "https_proxy": "http://proxy.example:3128", "TZ": "Asia/Tokyo"}
ADDED = {"GREETING": "hello, with spaces and ü", "LAB_SITE": "Kiel", "LAB_SHELF": "3"}


@pytest.fixture(scope="module")
def surrounded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Rules that look around and speak, executed once."""
    directory = tmp_path_factory.mktemp("surroundings")
    workflow = write_workflow(
        directory / "workflow",
        """
        rule all:
            input: "environment", "place", "input", "spoken", "ran", "seen", "moment"

        rule environment:
            output: "environment"
            shell: "env -0 > {output}"

        rule place:
            output: "place"
            shell: "pwd -P > {output}; which python >> {output}"

        rule look_at_the_clock:
            output: "moment"
            shell: "date +%s.%N > {output}"

        rule read:
            output: "input"
            shell: "wc -c > {output}"

        rule speak:
            output: "spoken"
            shell: "echo out; echo err >&2; printf 'no end'; touch {output}"

        rule run_block:
            output: "ran"
            run:
                print("printed by the block")
                shell("echo said by its shell; touch {output}")

        rule see:
            output: "seen"
            threads: 2
            resources:
                mem_mb=lambda wildcards, attempt: 100 * attempt,
            shell: "echo {config[text]} {threads} {resources.mem_mb} > {output}"
        """,
    )
    with pytest.MonkeyPatch.context() as environment:
        for name, value in (HIDDEN | SHOWN | ADDED).items():
            environment.setenv(name, value)
        environment.setenv("JOBS_VISIBLE_VARIABLES", "GREETING,LAB_*")
        yield execute(new_workspace(directory / "home"), workflow, config={"text": "from the spec"})


def written(run: Run, name: str) -> str:
    return (run.workspace.work / name).read_text()


def environment_of(run: Run) -> dict[str, str]:
    lines = written(run, "environment").rstrip("\0").split("\0")
    return dict(line.split("=", 1) for line in lines)


def test_a_rule_job_sees_no_variable_that_nobody_has_listed(surrounded: Run) -> None:
    assert surrounded.exit_code == 0
    assert [
        name for name in environment_of(surrounded) if name.startswith(("PREFECT", "JOBS_", "AWS_"))
    ] == []
    assert not set(HIDDEN.values()) & set(environment_of(surrounded).values())


def test_a_rule_job_sees_locale_proxies_and_what_the_operator_lists(surrounded: Run) -> None:
    assert (SHOWN | ADDED).items() <= environment_of(surrounded).items()


def test_a_rule_job_has_a_home_of_its_own(surrounded: Run) -> None:
    assert environment_of(surrounded)["HOME"] == str(surrounded.workspace.private / "home")


def test_a_rule_job_works_in_the_jobs_directory_with_the_python_of_the_service(surrounded: Run) -> None:
    place, python = written(surrounded, "place").splitlines()
    assert place == str(surrounded.workspace.work.resolve())
    assert Path(python).parent == HERE.python.parent


def test_an_attempt_lasts_from_before_its_command_to_after_it(surrounded: Run) -> None:
    (attempt,) = surrounded.finished("look_at_the_clock")
    moment = float(written(surrounded, "moment"))
    assert attempt.started_at < moment < attempt.finished_at
    assert attempt.finished_at - attempt.started_at < 5


def test_a_rule_job_that_reads_its_input_finds_none_instead_of_waiting(surrounded: Run) -> None:
    assert written(surrounded, "input") == "0\n"


def test_what_a_command_says_is_kept_in_its_order_to_the_last_character(surrounded: Run) -> None:
    assert surrounded.output_of("speak") == "out\nerr\nno end"


def test_what_a_run_block_says_is_kept_too(surrounded: Run) -> None:
    assert surrounded.output_of("run_block").splitlines() == ["printed by the block", "said by its shell"]


def test_config_threads_and_resources_reach_the_rule_and_the_record(surrounded: Run) -> None:
    assert written(surrounded, "seen") == "from the spec 2 100\n"
    (attempt,) = surrounded.started("see")
    assert attempt.threads == 2
    assert attempt.resources["mem_mb"] == 100
    assert not any(name.startswith("_") for name in attempt.resources)


def test_no_attempt_writes_into_another_ones_output(surrounded: Run) -> None:
    silent = ["all", "environment", "place", "read", "see", "look_at_the_clock"]
    assert {name: surrounded.output_of(name) for name in silent} == dict.fromkeys(silent, "")


def test_snakefile_targets_resources_retries_and_forceall_do_what_they_say(
    workspace: Workspace, tmp_path: Path
) -> None:
    workflow = write_workflow(
        tmp_path / "options",
        """
        rule make:
            output: "{name}.txt"
            resources: mem_mb=60
            shell: "[ -e {wildcards.name}.mark ] || (touch {wildcards.name}.mark; false); touch {output}"
        """,
    )
    (workflow / "Snakefile").rename(workflow / "other.smk")
    fields = {"snakefile": "other.smk", "targets": ["a.txt", "b.txt"], "resources": {"mem_mb": 100}}
    first = execute(workspace, workflow, options={"retries": 1}, **fields)
    assert first.exit_code == 0
    assert set(first.plan) == {"make a", "make b"}
    assert [len(first.finished(name)) for name in first.plan] == [2, 2]
    attempts = sorted(
        (end.started_at, end.finished_at) for name in first.plan for end in first.finished(name)
    )
    for (_, ended), (began, _) in pairwise(attempts):
        assert ended < began, "two at once would need 120 of 100 mem_mb"
    spec = staged(workspace, workflow, options={"forceall": True}, **fields)
    assert len(run(spec, workspace).of(AttemptStarted)) == 2


def test_outputs_are_told_relative_to_the_jobs_directory_wherever_snakemake_works(
    workspace: Workspace, tmp_path: Path
) -> None:
    workflow = write_workflow(
        tmp_path / "elsewhere",
        """
        workdir: "results"

        rule make:
            output: "made.txt"
            shell: "touch {output}"
        """,
    )
    elsewhere = execute(workspace, workflow)
    assert elsewhere.plan["make"].outputs == ("results/made.txt",)
    assert workspace.publish(workspace.files_of(elsewhere.plan["make"].outputs)) == 1
