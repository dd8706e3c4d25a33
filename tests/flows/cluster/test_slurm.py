"""Rule jobs on a real SLURM: their record is as exact as on one machine, and nothing of them is left."""

import os
import signal
import socket
import threading
from collections.abc import Iterator

import psutil
import pytest

from flows.engines.engine import EngineVanishedError, Execution
from flows.environments.environment import Environment
from flows.snakemake_process.events import (
    AttemptFinished,
    AttemptStarted,
    AttemptSubmitted,
    Message,
    Outcome,
    WorkflowEvent,
)
from flows.workspace.workspace import Workspace
from tests.flows.cluster.runs import (
    clients_of,
    execution_on,
    last_end,
    on_slurm,
    run_on,
    submissions,
    written,
)
from tests.flows.cluster.slurm import Slurm
from tests.flows.conftest import NewWorkspace
from tests.flows.grammar import assert_well_told
from tests.support import processes_of, wait_until

TWO_LEVELS = """
    rule all:
        input: "greeting.txt"

    rule word:
        output: "{name}.word"
        resources: mem_mb=100
        shell: "echo {wildcards.name}, said quietly; echo {wildcards.name} > {output}"

    rule greet:
        input: "hello.word", "world.word"
        output: "greeting.txt"
        log: "logs/greet.log"
        threads: 2
        shell: "cat {input} > {output}; echo greeted > {log}"
"""


@pytest.fixture(autouse=True)
def cluster(accounting_slurm: Slurm) -> Iterator[Slurm]:
    """Fails when a test leaves a job."""
    with clients_of(accounting_slurm):
        yield accounting_slurm
        try:
            # What somebody has cancelled is in the queue for another moment, as "completing".
            wait_until(lambda: accounting_slurm.queue() == [], "no job is left", 10)
        finally:
            for job in accounting_slurm.queue():
                accounting_slurm.run("scancel", job)


def test_a_workflow_runs_on_the_cluster_and_says_where(
    environment: Environment, workspace: Workspace
) -> None:
    run = run_on(on_slurm(), environment, workspace, TWO_LEVELS)
    assert run.exit_code == 0
    assert_well_told(run.events)
    assert written(workspace, "greeting.txt") == "hello\nworld\n"
    assert set(run.outcomes().values()) == {Outcome.SUCCEEDED}
    for name in ("word hello", "word world", "greet"):
        (submitted,), (started,), (finished,) = submissions(run, name), run.started(name), run.finished(name)
        assert started.external_id == submitted.external_id
        assert started.host == socket.gethostname()
        assert submitted.time <= started.time <= finished.finished_at <= finished.time
        assert finished.cpu_seconds is not None
    assert "hello, said quietly" in run.output_of("word hello")
    # It had asked for less than Snakemake itself takes on the node.
    assert run.started("word hello")[0].resources["mem_mb"] == 300
    (final,) = run.started("all")
    assert final.host is None


def test_a_rule_job_that_fails_says_so_with_its_exit_code_and_its_output(
    environment: Environment, workspace: Workspace
) -> None:
    snakefile = """
        rule all:
            output: "never.txt"
            shell: "echo this went wrong >&2; exit 7"
    """
    run = run_on(on_slurm(), environment, workspace, snakefile)
    assert run.exit_code == 1
    assert (last_end(run, "all").outcome, last_end(run, "all").exit_code) == (Outcome.FAILED, 7)
    assert "this went wrong" in run.output_of("all")


def test_a_retry_is_a_submission_of_its_own_with_more_memory(
    environment: Environment, workspace: Workspace
) -> None:
    snakefile = """
        rule all:
            output: "done.txt"
            retries: 2
            resources: mem_mb=lambda wildcards, attempt: 400 * attempt
            shell: "echo run >> tally; test {resources.mem_mb} -ge 800; touch {output}"
    """
    run = run_on(on_slurm(), environment, workspace, snakefile)
    assert run.exit_code == 0
    first, second = run.started("all")
    assert (first.resources["mem_mb"], second.resources["mem_mb"]) == (400, 800)
    assert first.external_id != second.external_id
    assert [end.will_retry for end in run.finished("all")] == [True, False]
    assert written(workspace, "tally") == "run\nrun\n"


def test_independent_rule_jobs_go_on_after_one_has_failed(
    environment: Environment, workspace: Workspace
) -> None:
    snakefile = """
        rule all:
            input: "bad.txt", "good.txt", "better.txt"
        rule bad:
            output: "bad.txt"
            shell: "exit 1"
        rule good:
            output: "good.txt"
            shell: "touch {output}"
        rule better:
            input: "good.txt"
            output: "better.txt"
            shell: "touch {output}"
    """
    run = run_on(on_slurm(), environment, workspace, snakefile, options={"keep_going": True})
    assert run.exit_code == 1
    assert run.outcomes() == {
        "bad": Outcome.FAILED,
        "good": Outcome.SUCCEEDED,
        "better": Outcome.SUCCEEDED,
    }


def test_a_group_is_one_job_of_the_cluster(
    environment: Environment, workspace: Workspace, cluster: Slurm
) -> None:
    snakefile = """
        rule all:
            input: expand("{n}.b", n=range(3))
        rule a:
            output: "{n}.a"
            group: "both"
            shell: "touch {output}"
        rule b:
            input: "{n}.a"
            output: "{n}.b"
            group: "both"
            shell: "touch {output}"
    """
    options = {"group_components": {"both": 3}}
    run = run_on(on_slurm(cores=2), environment, workspace, snakefile, options=options)
    assert run.exit_code == 0
    (external_id,) = {event.external_id for event in run.of(AttemptSubmitted)}
    asked = cluster.run("sacct", "-n", "-X", "-P", "-o", "AllocCPUS", "-j", str(external_id))
    assert int(asked) == 2
    assert len([event for event in run.of(AttemptStarted) if event.host]) == 6
    assert set(run.outcomes().values()) == {Outcome.SUCCEEDED}


def test_a_checkpoint_and_a_local_rule_work(environment: Environment, workspace: Workspace) -> None:
    snakefile = """
        localrules: all, collect
        def parts(wildcards):
            with open(checkpoints.split.get().output[0]) as names:
                return [f"{name.strip()}.part" for name in names]
        rule all:
            input: "all.txt"
        checkpoint split:
            output: "names.txt"
            shell: "printf 'x\\ny\\n' > {output}"
        rule part:
            output: "{name}.part"
            shell: "echo {wildcards.name} > {output}"
        rule collect:
            input: parts
            output: "all.txt"
            shell: "cat {input} > {output}"
    """
    run = run_on(on_slurm(), environment, workspace, snakefile)
    assert run.exit_code == 0
    assert written(workspace, "all.txt") == "x\ny\n"
    assert run.started("part x")[0].host is not None
    assert run.started("collect")[0].host is None
    assert ("part x", "collect") in run.edges


def test_a_cancel_empties_the_queue(environment: Environment, workspace: Workspace, cluster: Slurm) -> None:
    snakefile = """
        rule all:
            input: expand("{n}.txt", n=range(12))
        rule sleep:
            output: "{n}.txt"
            shell: "sleep 300; touch {output}"
    """

    def cancel(event: WorkflowEvent, execution: Execution) -> None:
        if isinstance(event, AttemptStarted):
            execution.terminate()

    run = run_on(on_slurm(), environment, workspace, snakefile, cancel)
    assert cluster.queue() == []
    assert run.exit_code == 1
    # Those that waited in the queue have ended, too.
    assert {event.job_id for event in run.of(AttemptSubmitted)} == {
        event.job_id for event in run.of(AttemptFinished)
    }


def test_a_local_rule_that_runs_ends_with_the_cancel(environment: Environment, workspace: Workspace) -> None:
    snakefile = """
        localrules: here
        rule here:
            output: "here.txt"
            # As in the moment between a fork and its exec, the first signal is lost.
            shell: "trap '' TERM; sleep 1; trap - TERM; sleep 300"
    """

    def cancel(event: WorkflowEvent, execution: Execution) -> None:
        if isinstance(event, AttemptStarted):
            execution.terminate()

    run = run_on(on_slurm(), environment, workspace, snakefile, cancel)
    (finished,) = run.finished("here")
    assert finished.finished_at - finished.started_at < 20


def test_a_snakemake_that_is_killed_leaves_nothing_on_the_cluster(
    environment: Environment, workspace: Workspace, cluster: Slurm
) -> None:
    snakefile = """
        rule all:
            input: expand("{n}.txt", n=range(3))
        rule sleep:
            output: "{n}.txt"
            shell: "sleep 300; touch {output}"
    """

    def kill(event: WorkflowEvent, _: Execution) -> None:
        if isinstance(event, AttemptStarted):
            os.kill(driver_of(workspace).pid, signal.SIGKILL)

    run = run_on(on_slurm(), environment, workspace, snakefile, kill)
    assert run.exit_code == -signal.SIGKILL
    assert cluster.queue() == []


def test_a_supervisor_that_is_killed_leaves_nothing_on_the_cluster(
    environment: Environment, workspace: Workspace, cluster: Slurm
) -> None:
    snakefile = """
        rule all:
            output: "never.txt"
            shell: "sleep 300"
    """
    with (
        execution_on(on_slurm(), environment, workspace, snakefile) as execution,
        pytest.raises(EngineVanishedError),
    ):
        end_of_supervisor(execution, workspace)
    assert cluster.queue() == []


def test_a_rule_job_that_takes_too_much_memory_says_what_to_raise(
    environment: Environment, workspace: Workspace
) -> None:
    snakefile = """
        rule all:
            output: "never.txt"
            resources: mem_mb=300
            shell: "python -c 'import time; x = bytearray(600_000_000); time.sleep(60)'"
    """
    run = run_on(on_slurm(), environment, workspace, snakefile)
    end = last_end(run, "all")
    assert (end.outcome, end.exit_code) == (Outcome.FAILED, None)
    assert end.message.startswith("SLURM ended it for its memory. It took ")
    assert end.message.endswith(" had asked for 300 MB: raise `mem_mb`.")


@pytest.mark.slow  # a minute is the shortest limit that SLURM has, and it looks once a minute
def test_a_rule_job_that_takes_too_long_says_what_to_raise(
    environment: Environment, workspace: Workspace
) -> None:
    snakefile = """
        rule all:
            output: "never.txt"
            resources: runtime=1
            shell: "sleep 300"
    """
    run = run_on(on_slurm(), environment, workspace, snakefile)
    end = last_end(run, "all")
    assert (end.outcome, end.exit_code) == (Outcome.FAILED, None)
    assert end.message.startswith("SLURM ended it after ")
    assert end.message.endswith("its time limit (00:01:00): raise `runtime`.")


def test_a_rule_job_that_somebody_cancels_fails_with_the_clusters_word(
    environment: Environment, workspace: Workspace, cluster: Slurm
) -> None:
    snakefile = """
        rule all:
            output: "never.txt"
            shell: "sleep 300"
    """

    def scancel(event: WorkflowEvent, _: Execution) -> None:
        if isinstance(event, AttemptStarted):
            cluster.run("scancel", str(event.external_id))

    run = run_on(on_slurm(), environment, workspace, snakefile, scancel)
    assert run.exit_code == 1
    assert last_end(run, "all").message.startswith("SLURM ended it: CANCELLED by ")


def test_accounting_that_is_away_for_a_while_costs_no_result(
    environment: Environment, workspace: Workspace, cluster: Slurm
) -> None:
    back = threading.Timer(10, cluster.start, ["slurmdbd"])  # once: it can't be started again

    def interrupt(event: WorkflowEvent, _: Execution) -> None:
        if isinstance(event, AttemptSubmitted) and back.ident is None:
            cluster.stop("slurmdbd")
            back.start()

    run = run_on(on_slurm(settings={"status_command": "sacct"}), environment, workspace, ONE, interrupt)
    back.join()
    assert run.exit_code == 0


def test_a_partition_that_does_not_exist_fails_the_rule_job_with_sbatchs_word(
    environment: Environment, workspace: Workspace
) -> None:
    cluster = on_slurm(default_resources={"slurm_partition": "nowhere"})
    run = run_on(cluster, environment, workspace, ONE)
    assert run.exit_code == 1
    assert "invalid partition specified: nowhere" in last_end(run, "one").message


def test_a_job_that_waits_says_why(environment: Environment, workspace: Workspace, cluster: Slurm) -> None:
    host = socket.gethostname().split(".")[0]
    cluster.run("scontrol", "update", f"nodename={host}", "state=drain", "reason=test")
    reasons: list[str] = []

    def resume(event: WorkflowEvent, _: Execution) -> None:
        if isinstance(event, AttemptSubmitted) and event.queue_reason:
            reasons.append(event.queue_reason)
            cluster.run("scontrol", "update", f"nodename={host}", "state=resume")

    run = run_on(on_slurm(), environment, workspace, ONE, resume)
    assert run.exit_code == 0
    assert reasons


def test_resources_that_only_the_operator_sets_are_taken_from_the_workflow(
    environment: Environment, workspace: Workspace
) -> None:
    snakefile = """
        rule one:
            output: "one.txt"
            resources: slurm_extra="--nodelist=elsewhere"
            shell: "touch {output}"
    """
    run = run_on(on_slurm(), environment, workspace, snakefile)
    assert run.exit_code == 0
    warnings = [event.text for event in run.of(Message) if "slurm_extra" in event.text]
    assert warnings == [
        "Only the operator sets the resource 'slurm_extra'; the value of the workflow is ignored."
    ]


def test_the_defaults_of_a_profile_go_before_those_of_the_cluster(
    environment: Environment, workspaces: NewWorkspace
) -> None:
    workspace = workspaces()
    files = {"profiles/default/config.yaml": "default-resources:\n  mem_mb: 500\n  qos: paid\n"}
    run = run_on(on_slurm(), environment, workspace, ONE, files=files)
    (started,) = run.started("one")
    assert (started.resources["mem_mb"], started.resources["runtime"]) == (500, 5)
    assert any("default-resources: qos" in event.text for event in run.of(Message))


ONE = """
    rule one:
        output: "one.txt"
        shell: "touch {output}"
"""


def end_of_supervisor(execution: Execution, workspace: Workspace) -> None:
    """Kill it as soon as the first rule job runs."""
    for event in execution.events():
        if isinstance(event, AttemptStarted):
            parent = driver_of(workspace).parent()
            assert parent is not None
            parent.kill()


def driver_of(workspace: Workspace) -> psutil.Process:
    """Snakemake's process on this machine: the first one in the job's directory."""
    return min(processes_of(str(workspace.job_id)), key=psutil.Process.create_time)
