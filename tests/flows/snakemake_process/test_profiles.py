"""Profiles of a workflow, the options of a job, and what wins."""

import json
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from flows.contract.options import Options
from flows.engines.options import option_arguments, profile_arguments, switched_off
from flows.snakemake_process.events import Message
from flows.snakemake_process.profiles import USABLE
from tests.flows.executions import Run, execute, new_workspace, write_workflow

SAY = """
configfile: "config.yaml"

rule all:
    output: "said.json"
    retries: 0
    threads: 4
    run:
        import json
        said = {"config": dict(config), "threads": threads, "mem_mb": resources.get("mem_mb")}
        json.dump(said, open(output[0], "w"))
"""


def said(home: Path, profile: str, **fields: Any) -> tuple[dict[str, Any], Run]:
    """What a rule of a workflow with this default profile sees."""
    workflow = write_workflow(home / "workflow", SAY)
    (workflow / "config.yaml").write_text("depth: 1\nname: own\nnested: {a: 1, b: 1}\n")
    (workflow / "conf").mkdir()
    (workflow / "conf" / "site.yaml").write_text("name: site\nplace: here\n")
    (workflow / "conf" / "more.yaml").write_text("place: there\n")
    (workflow / "profiles" / "default").mkdir(parents=True)
    (workflow / "profiles" / "default" / "config.yaml").write_text(dedent(profile))
    (workflow / "profiles" / "big.yaml").write_text("set-threads: {all: 2}\n")
    run = execute(new_workspace(home / "home"), workflow, cores=4, **fields)
    assert run.exit_code == 0, run.workspace.snakemake_log.read_text()
    return json.loads((run.workspace.work / "said.json").read_text()), run


def test_the_config_of_a_job_overrides_single_keys_of_the_profiles_config_and_files(tmp_path: Path) -> None:
    profile = """
        configfile: conf/site.yaml
        config:
          - depth=7
          - 'nested={"a": 7}'
        """
    found, _ = said(tmp_path, profile, config={"nested": {"b": 9}, "depth": 99})
    assert found["config"] == {
        "depth": 99,
        "name": "site",
        "place": "here",
        "nested": {"a": "7", "b": 9},
    }


def test_a_profile_applies_where_the_job_says_nothing(tmp_path: Path) -> None:
    profile = """
        config: {depth: 7}
        set-threads: {all: 2}
        default-resources: {mem_mb: 123}
        """
    found, _ = said(tmp_path, profile)
    assert (found["config"]["depth"], found["threads"], found["mem_mb"]) == (7, 2, 123)


def test_an_option_of_the_job_replaces_that_of_the_profile(tmp_path: Path) -> None:
    profile = "set-threads: {all: 2}\ndefault-resources: {mem_mb: 123}\nconfigfile: conf/site.yaml\n"
    options = {"set_threads": {"all": 1}, "configfiles": ["conf/more.yaml"]}
    found, _ = said(tmp_path, profile, options=options)
    assert (found["threads"], found["mem_mb"]) == (1, 123)
    assert (found["config"]["place"], found["config"]["name"]) == ("there", "own")


def test_a_job_can_switch_profiles_off_and_name_others(tmp_path: Path) -> None:
    profile = "default-resources: {mem_mb: 123}\n"
    options = {"workflow_profile": None, "profile": ["profiles/big.yaml"]}
    found, _ = said(tmp_path, profile, options=options)
    assert (found["threads"], found["mem_mb"]) == (2, 1000)


def test_keys_that_the_service_sets_are_ignored_and_named(tmp_path: Path) -> None:
    profile = """
        executor: slurm
        logger: snkmt
        jobs: 100
        cores: 50
        dry-run: true
        directory: elsewhere
        precommand: "exit 1"
        use-conda: false
        default-resources: {mem_mb: 123}
        """
    found, run = said(tmp_path, profile)
    assert found["mem_mb"] == 123
    (note,) = [message.text for message in run.of(Message) if "the profile itself" in message.text]
    assert "cores, directory, dry-run, executor, jobs, logger, precommand." in note


RETRIED = """
rule all:
    output: "out"
    shell: "echo x >> tries; [ $(wc -l < tries) -ge 3 ] && touch out"
"""


@pytest.mark.parametrize(("options", "exit_code"), [({}, 0), ({"retries": 0}, 1)])
def test_retries_of_a_profile_apply_unless_the_job_sets_them(
    options: dict[str, Any], exit_code: int, tmp_path: Path
) -> None:
    workflow = write_workflow(tmp_path / "workflow", RETRIED)
    (workflow / "profiles" / "default").mkdir(parents=True)
    (workflow / "profiles" / "default" / "config.yaml").write_text("retries: 3\n")
    assert execute(new_workspace(tmp_path / "home"), workflow, options=options).exit_code == exit_code


TWO = """
rule all:
    input: "a", "b"

rule a:
    output: "a"
    shell: "exit 1"

rule b:
    output: "b"
    shell: "touch b"
"""


def test_a_job_can_switch_off_an_option_of_the_profile(tmp_path: Path) -> None:
    workflow = write_workflow(tmp_path / "workflow", TWO)
    (workflow / "profiles" / "default").mkdir(parents=True)
    (workflow / "profiles" / "default" / "config.yaml").write_text("keep-going: true\n")
    options = {"keep_going": False, "prioritize": ["a"]}
    run = execute(new_workspace(tmp_path / "home"), workflow, cores=1, options=options)
    assert set(run.outcomes()) == {"a"}


LATE = """
rule all:
    output: "late"
    shell: "(sleep 2.5; echo late > late) & disown; true"
"""


def test_an_output_may_come_seconds_after_its_command(tmp_path: Path) -> None:
    workflow = write_workflow(tmp_path / "workflow", LATE)
    assert execute(new_workspace(tmp_path / "home"), workflow).exit_code == 0


SERVED = """
rule all:
    output: "got"
    input: "srv"
    shell: "cp {input} {output}"

rule serve:
    output: service("srv")
    shell: "echo 1 > {output}; sleep 60"
"""


def test_a_service_job_serves_its_consumer(tmp_path: Path) -> None:
    workflow = write_workflow(tmp_path / "workflow", SERVED)
    run = execute(new_workspace(tmp_path / "home"), workflow, timeout_seconds=30)
    assert (run.exit_code, (run.workspace.work / "got").read_text()) == (0, "1\n")


def test_options_become_arguments_as_a_person_would_type_them() -> None:
    options = Options.model_validate(
        {
            "keep_going": True,
            "notemp": False,
            "retries": 2,
            "forcerun": ["a", "b"],
            "set_threads": {"a": 2},
            "set_resources": {"a": {"mem_mb": "attempt * 100", "runtime": 5}},
            "rerun_incomplete": False,
            "batch": "all=1/3",
            "cache": ["a"],
            "workflow_profile": "small",
            "profile": ["site"],
        }
    )
    assert option_arguments(options) == [
        *("--keep-going", "--retries=2", "--forcerun", "a", "b", "--batch=all=1/3"),
        *("--set-threads", "a=2", "--set-resources", "a:mem_mb=attempt * 100", "a:runtime=5"),
        *("--cache", "a"),
    ]
    assert switched_off(options) == ["notemp", "rerun-incomplete"]
    assert profile_arguments(options, {"site": "/etc/profiles/site"}) == [
        *("--profile", "/etc/profiles/site", "--workflow-profile=small")
    ]


def test_a_profile_may_set_what_a_job_may_set() -> None:
    of_jobs = {name.replace("_", "-") for name in Options.model_fields}
    assert of_jobs - USABLE == {"profile", "workflow-profile", "report", "report-stylesheet"}
