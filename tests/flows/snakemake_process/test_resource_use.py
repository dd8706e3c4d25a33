"""What a rule job has taken of the machine is told with the end of each attempt."""

import subprocess
import sys
from dataclasses import replace

import pytest

from flows.contract.spec import Label, MockOptions, RuleJobRecord
from flows.engines.mock import MockExecution
from flows.record.task_runs import JsonObject
from flows.snakemake_process.events import AttemptFinished
from flows.snakemake_process.usage import MeasuredPopen, Usage
from tests.flows.executions import Run, execute, new_workspace, write_workflow
from tests.flows.stories import Ask, a_mirror, failed, plan_completed, planned, play, started, task_run_of

MIB = 1 << 20

SNAKEFILE = """
rule all:
    input: "big.txt", "small.txt", "short.txt", "script.txt", "block.txt", "again.txt"

# Larger than Snakemake, and works for a while, in a process that the shell waits for.
rule big:
    output: "big.txt"
    shell:
        "python -c 'held = bytes(range(256)) * (300 << 12); sum(i * i for i in range(3_000_000))'; "
        "touch {output}"

# Smaller than Snakemake, and lives long enough to be looked at.
rule small:
    output: "small.txt"
    shell:
        "python -S -c 'held = bytes(range(256)) * (30 << 12); import time; time.sleep(0.4)'; "
        "touch {output}"

rule short:
    output: "short.txt"
    shell: "touch {output}"

rule script:
    output: "script.txt"
    script: "script.py"

rule block:
    output: "block.txt"
    run: open(output[0], "w").close()

# The first attempt works, the second does not.
rule again:
    output: "again.txt"
    retries: 1
    shell:
        "if [ -e begun ]; then touch {output}; else touch begun; "
        "python -c 'sum(i * i for i in range(3_000_000))'; exit 1; fi"
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Run:
    directory = tmp_path_factory.mktemp("measured")
    workflow = write_workflow(directory / "workflow", SNAKEFILE)
    (workflow / "script.py").write_text("open(snakemake.output[0], 'w').close()\n")
    run = execute(new_workspace(directory / "home"), workflow)
    assert run.exit_code == 0, run.workspace.snakemake_log.read_text()
    return run


def usage_of(run: Run, rule: str, attempt: int = 1) -> tuple[float, int]:
    finished = run.finished(rule)[attempt - 1]
    assert finished.cpu_seconds is not None
    return finished.cpu_seconds, finished.peak_memory_bytes or 0


def record_of(told: JsonObject) -> RuleJobRecord:
    return RuleJobRecord.model_validate_json(task_run_of(told)["labels"][Label.RULE_JOB])


def test_a_command_is_told_with_its_descendants(measured: Run) -> None:
    cpu_seconds, peak = usage_of(measured, "big")

    assert 0.1 < cpu_seconds < 10
    assert 300 * MIB < peak < 400 * MIB


def test_a_command_that_is_smaller_than_snakemake_is_looked_at_while_it_runs(measured: Run) -> None:
    cpu_seconds, peak = usage_of(measured, "small")

    assert cpu_seconds < 0.4
    assert 30 * MIB < peak < 60 * MIB


def test_a_command_that_is_gone_at_once_has_no_memory_figure_rather_than_snakemakes(measured: Run) -> None:
    (finished,) = measured.finished("short")

    assert finished.cpu_seconds is not None
    assert (finished.peak_memory_bytes or 0) < 10 * MIB  # a busy machine gives it time to be seen


@pytest.mark.parametrize("rule", ["script", "block"])
def test_python_code_of_a_rule_runs_in_a_process_too(measured: Run, rule: str) -> None:
    cpu_seconds, peak = usage_of(measured, rule)

    assert cpu_seconds > 0.01
    assert peak > 5 * MIB


def test_a_rule_without_a_command_has_no_figures(measured: Run) -> None:
    (finished,) = measured.finished("all")

    assert (finished.cpu_seconds, finished.peak_memory_bytes) == (None, None)


def test_each_attempt_has_its_own_figures(measured: Run) -> None:
    (first, _), (second, _) = usage_of(measured, "again", 1), usage_of(measured, "again", 2)

    assert second < 0.1 < first


def test_the_mock_engine_claims_nothing() -> None:
    options = MockOptions(delay_seconds=(0, 0), rules=1, success_rate=1)

    (finished,) = [event for event in MockExecution(options).events() if isinstance(event, AttemptFinished)]

    assert (finished.cpu_seconds, finished.peak_memory_bytes) == (None, None)


def test_figures_reach_the_rule_jobs_record(measured: Run) -> None:
    (finished,) = measured.finished("big")
    *_, told = play(a_mirror(), measured.plan["big"], *measured.started("big"), finished, Ask(0))

    record = record_of(told)
    assert (record.cpu_seconds, record.peak_memory_bytes) == (
        finished.cpu_seconds,
        finished.peak_memory_bytes,
    )


def test_an_attempt_that_runs_does_not_show_the_figures_of_the_one_before() -> None:
    first = replace(failed(will_retry=True), cpu_seconds=3.0)
    again = started(attempt=2, at=3)

    told = play(a_mirror(), planned(), plan_completed(), started(), first, Ask(2), again, Ask(9))

    assert [record_of(event).cpu_seconds for event in told] == [3.0, None]


def test_several_commands_of_one_attempt_are_added_up() -> None:
    usage = Usage()
    after: list[float] = []
    for _ in range(2):
        with MeasuredPopen(usage, [sys.executable, "-S", "-c", "[i * i for i in range(1_000_000)]"]):
            pass
        after.append(usage.cpu_seconds or 0.0)

    assert after[1] > 1.3 * after[0] > 0


def test_a_command_keeps_its_exit_code_and_its_output() -> None:
    usage = Usage()
    with MeasuredPopen(usage, "echo said; exit 3", shell=True, stdout=subprocess.PIPE) as process:
        said, _ = process.communicate()
    assert (said, process.returncode) == (b"said\n", 3)
    with MeasuredPopen(usage, ["sleep", "60"]) as process:
        process.kill()
        assert process.wait() == -9
        assert process.wait() == -9
    with MeasuredPopen(usage, ["sleep", "0.05"]) as process, pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.001)
