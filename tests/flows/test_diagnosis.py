"""Why a job failed, for people: whose fault, where, what, and what to do now."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from flows import diagnosis
from flows.contract.spec import ErrorKind, Label
from flows.record.mirror import Mirror, RuleJob
from flows.snakemake_process.events import ErrorRaised, WorkflowEvent
from tests.flows.stories import START, failed, planned, started

RULE_FAILED = ErrorRaised(
    time=START,
    exception="RuleException",
    text='RuleException:\nCalledProcessError in file "Snakefile", line 7:\nCommand … exit status 3.',
)
AT_LEAST_ONE = ErrorRaised(
    time=START,
    exception="WorkflowError",
    text="WorkflowError:\nAt least one job did not complete successfully.",
)


def missing_output(rule: str, file: str) -> ErrorRaised:
    """As Snakemake 9.27 tells it."""
    return ErrorRaised(
        time=START,
        exception="MissingOutputException",
        text=f'MissingOutputException in rule {rule} in file "Snakefile", line 13:\n'
        "Job 1  completed successfully, but some output files are missing. "
        f"Missing files after 1 seconds.\n{file} (missing locally)",
    )


def failures(*events: WorkflowEvent) -> list[RuleJob]:
    mirror = Mirror(uuid4())
    for event in events:
        mirror.observe(event)
    return mirror.failures()


def of_failures(jobs: Sequence[RuleJob], *errors: ErrorRaised, output: str = "") -> diagnosis.JobError:
    return diagnosis.of_failed_rule(jobs[0], len(jobs), [*errors, AT_LEAST_ONE], output)


def of_workflow(exception: str, text: str) -> diagnosis.JobError:
    return diagnosis.of_workflow([ErrorRaised(time=START, exception=exception, text=text)], 1, "the log")


def test_a_failed_rule_job_is_named_with_its_exit_code_and_the_end_of_its_output() -> None:
    job = failures(planned(rule="align", wildcards={"sample": "a"}), started(), failed(exit_code=3))
    error = of_failures(job, RULE_FAILED, output="reading a.fastq\nno such reference")
    assert error.kind is ErrorKind.WORKFLOW
    assert error.rule == "align[sample=a]"
    assert error.headline == "Rule job align[sample=a] failed: Its command ended with exit code 3."
    assert error.message.endswith("Its output ends with:\nreading a.fastq\nno such reference")
    assert "rule job's log" in error.resolution


def test_a_rule_job_whose_command_was_killed_tells_the_signal() -> None:
    error = of_failures(failures(planned(), started(), failed(exit_code=-9)))
    assert error.headline == "Rule job map failed: Its command was killed by signal 9."


def test_a_rule_job_without_a_command_tells_what_snakemake_says() -> None:
    error = of_failures(failures(planned(), started(), failed(exit_code=None, message="ValueError: 7")))
    assert error.headline == "Rule job map failed: ValueError: 7"


def test_attempts_in_vain_are_counted() -> None:
    job = failures(planned(), started(), failed(will_retry=True), started(attempt=2), failed(attempt=2))
    assert "failed after 2 attempts: " in of_failures(job).headline


def test_of_several_failures_the_first_is_named_and_the_others_are_counted() -> None:
    jobs = failures(
        *(planned(job_id, rule) for job_id, rule in enumerate(["late", "early", "later"])),
        *(started(job_id) for job_id in range(3)),
        *(failed(job_id, at=at) for job_id, at in enumerate([5, 4, 6])),
    )
    error = of_failures(jobs)
    assert error.rule == "early"
    assert error.headline.endswith("2 more rule jobs failed.")


def test_a_command_that_makes_no_output_is_told_apart_from_one_that_fails() -> None:
    job = failures(planned(rule="promise"), started(), failed(exit_code=None))
    error = of_failures(job, missing_output("promise", "promised.txt"))
    assert error.rule == "promise"
    assert "promised.txt (missing locally)" in error.message
    assert "`output`" in error.resolution


def test_the_missing_output_of_another_rule_job_is_not_blamed_on_one_whose_command_failed() -> None:
    jobs = failures(
        planned(1, "make", wildcards={"x": "1"}),
        planned(2, "make", wildcards={"x": "2"}),
        started(1),
        started(2),
        failed(1, at=3, exit_code=7),
        failed(2, at=4, exit_code=None),
    )
    error = of_failures(jobs, RULE_FAILED, missing_output("make", "2.txt"))
    assert error.rule == "make[x=1]"
    assert "2.txt" not in error.message
    assert "rule job's log" in error.resolution


def test_the_missing_output_of_a_rule_with_a_longer_name_is_not_blamed_on_this_one() -> None:
    jobs = failures(planned(1, "map"), started(1), failed(1, exit_code=None, message="ValueError: 7"))
    error = of_failures(jobs, missing_output("remap", "2.txt"))
    assert "2.txt" not in error.message


@pytest.mark.parametrize(
    ("exception", "text", "advice"),
    [
        ("SyntaxError", "SyntaxError in file Snakefile, line 4:\nexpected ':'", "Correct the Snakefile"),
        ("NameError", "NameError in file Snakefile, line 4:\nname 'x'", "Correct the Snakefile"),
        ("MissingInputException", "MissingInputException in rule copy", "Add the missing"),
        ("MissingRuleException", "MissingRuleException:\nNo rule to produce nope", "Correct `targets`"),
        ("NoRulesException", "There has to be at least one rule.", "`snakefile`"),
        ("KeyError", "KeyError in file Snakefile, line 2:\n'samples'", "`config`"),
        ("AmbiguousRuleException", "Rules a and b are ambiguous", "`ruleorder`"),
        (
            "WorkflowError",
            "WorkflowError in file Snakefile, line 9:\nError validating config file.\n"
            "ValidationError: 'high' is not of type 'integer'\n\nFailed validating 'type' in schema",
            "schema",
        ),
        ("WorkflowError", "WorkflowError:\nsomething else", "job's log"),
        ("ZeroDivisionError", "ZeroDivisionError in file Snakefile", "job's log"),
        ("", "told by a newer Snakemake", "job's log"),
    ],
    ids=lambda value: value.partition("\n")[0][:40],
)
def test_a_workflow_that_cannot_run_is_told_with_advice_for_its_kind(
    exception: str, text: str, advice: str
) -> None:
    error = of_workflow(exception, text)
    assert error.kind is ErrorKind.WORKFLOW
    assert error.message == text
    assert error.rule == ("copy" if "rule copy" in text else None)
    assert advice in error.resolution


def test_of_several_errors_the_first_is_told() -> None:
    errors = [missing_output("a", "a.txt"), AT_LEAST_ONE]
    assert diagnosis.of_workflow(errors, 1, "").message == errors[0].text


def test_an_error_that_only_the_log_holds_is_taken_from_there() -> None:
    error = diagnosis.of_workflow([], 2, "snakemake: error: invalid value for --resources")
    assert error.message == "snakemake: error: invalid value for --resources"


def test_an_engine_that_fails_without_any_word_tells_its_exit_code() -> None:
    assert "exit code 2" in diagnosis.of_workflow([], 2, "").message


@pytest.mark.parametrize(
    ("exception", "text", "advice", "kind"),
    [
        (
            "ModuleNotFoundError",
            "ModuleNotFoundError in file \"Snakefile\", line 1:\nNo module named 'pandas.core'",
            '"environment": {"packages": ["pandas"]}',
            ErrorKind.WORKFLOW,
        ),
        (
            "ModuleNotFoundError",
            "No module named 'dotenv'",
            '"environment": {"packages": ["python-dotenv"]}',
            ErrorKind.WORKFLOW,
        ),
        (
            "ImportError",
            "cannot import name 'load_configfile' from 'snakemake.io' (snakemake/io.py)",
            '"packages": ["snakemake == 8.30.0"]',
            ErrorKind.WORKFLOW,
        ),
        (
            "WorkflowError",
            "Expecting Snakemake version 99.0 or higher (you are currently using 9.27.1).",
            '"packages": ["snakemake >= 99.0"]',
            ErrorKind.WORKFLOW,
        ),
        (
            "InvalidPluginException",
            "Error loading Snakemake plugin gcs: The package snakemake-storage-plugin-gcs is not installed.",
            '"packages": ["snakemake-storage-plugin-gcs"]',
            ErrorKind.WORKFLOW,
        ),
        (
            "WorkflowError",
            "Error running conda info. Is conda installed and accessible? Error: Command 'conda info --json' "
            "returned non-zero exit status 127.",
            "JOBS_CONDA_DIRECTORY",
            ErrorKind.SYSTEM,
        ),
        (
            "WorkflowError",
            "The apptainer or singularity command has to be available in order to use "
            "apptainer/singularity integration.",
            "apptainer is not installed where the job runs",
            ErrorKind.SYSTEM,
        ),
        ("SyntaxError", "SyntaxError in line 3", "`environment.python`", ErrorKind.WORKFLOW),
    ],
)
def test_what_an_environment_lacks_is_named_with_how_to_add_it(
    exception: str, text: str, advice: str, kind: ErrorKind
) -> None:
    error = of_workflow(exception, text)
    assert advice in error.resolution
    assert error.kind is kind


def test_what_conda_says_comes_first() -> None:
    error = of_workflow(
        "CreateCondaEnvironmentException",
        "CreateCondaEnvironmentException:\nCould not create conda environment from envs/a.yaml:\nCommand:\n"
        "conda env create --prefix /somewhere\nOutput:\nChannels:\n - bioconda\n\n"
        "PackagesNotFoundError: The following packages are not available: absent=1\n",
    )
    assert error.headline == (
        "The conda environment envs/a.yaml could not be made: Channels: - bioconda "
        "PackagesNotFoundError: The following packages are not available: absent=1"
    )
    assert "environment file" in error.resolution


def test_a_traceback_does_not_hide_the_sentence_before_it() -> None:
    errors = [
        ErrorRaised(time=START, exception="RuleException", text="Unable to locate wrapper script"),
        ErrorRaised(time=START, exception="GitCommandError", text="Traceback (most recent call last):\n…"),
        AT_LEAST_ONE,
    ]
    assert diagnosis.of_workflow(errors, 1, "").message == "Unable to locate wrapper script"


def test_a_module_that_a_script_lacks_is_named_with_how_to_add_it() -> None:
    job = failures(planned(), started(), failed())
    output = "Traceback (most recent call last):\nModuleNotFoundError: No module named 'pysam'"
    error = diagnosis.of_failed_rule(job[0], 1, [], output)
    assert '"environment": {"packages": ["pysam"]}' in error.resolution


def test_a_command_that_is_not_found_is_traced_to_software_that_was_not_deployed() -> None:
    undeployed = replace(planned(rule="align"), undeployed=("conda",))
    job = failures(undeployed, started(), failed(exit_code=127))
    assert 'Add "software": ["conda"]' in of_failures(job).resolution
    others = failures(undeployed, started(), failed(exit_code=1))
    assert "software" not in of_failures(others).resolution


def test_a_timeout_is_the_submitters_and_says_what_to_change() -> None:
    error = diagnosis.of_timeout(90)
    assert error.kind is ErrorKind.WORKFLOW
    assert "90 seconds" in error.message
    assert "`timeout_seconds`" in error.resolution


@pytest.mark.parametrize(("signal_number", "how"), [(9, "killed by signal 9"), (None, "without a message")])
def test_an_engine_that_is_gone_is_the_services_fault(signal_number: int | None, how: str) -> None:
    error = diagnosis.of_vanished_engine(signal_number, Path("/srv/jobs/1"))
    assert error.kind is ErrorKind.SYSTEM
    assert how in error.message
    assert "/srv/jobs/1" in error.resolution


def test_rule_jobs_that_a_successful_snakemake_forgot_are_its_fault_and_named() -> None:
    error = diagnosis.of_forgotten([f"map[x={number}]" for number in range(7)])
    assert error.kind is ErrorKind.SYSTEM
    assert "7 rule jobs: map[x=0], map[x=1], map[x=2], map[x=3], map[x=4], …" in error.message


def test_a_fault_of_our_own_says_so() -> None:
    error = diagnosis.of_service(OSError(28, "No space left on device"))
    assert error.kind is ErrorKind.SYSTEM
    assert "No space left on device" in error.message
    assert "Resume the job" in error.resolution


def test_the_labels_of_an_error_hold_all_of_it() -> None:
    job = failures(planned(rule="align", wildcards={"sample": "a"}), started(), failed())
    error = of_failures(job)
    assert error.labels() == {
        Label.ERROR_KIND: "workflow",
        Label.ERROR_RULE: "align[sample=a]",
        Label.ERROR_MESSAGE: error.message,
        Label.ERROR_RESOLUTION: f"{error.resolution} See docs/troubleshooting.md#failed-rule.",
    }
    assert Label.ERROR_RULE not in diagnosis.of_timeout(1).labels()


def test_a_long_message_is_shortened_in_its_middle() -> None:
    message = of_workflow("WorkflowError", "what " + "x" * 50_000 + " where").labels()[Label.ERROR_MESSAGE]
    assert message.startswith("what ")
    assert message.endswith(" where")
    assert "\n…\n" in message
    assert len(message) < 8_100


FUNCTION_RAISED = """InputFunctionException in rule map in file "Snakefile", line 3:
Error:
  KeyError: 'b'
Wildcards:
  sample=b
Traceback:
  File "Snakefile", line 5, in <lambda>"""


def test_the_rule_job_of_a_function_that_raises_is_found_by_its_wildcards() -> None:
    mirror = Mirror(uuid4())
    for job_id, sample in enumerate("abc"):
        mirror.observe(planned(job_id, "map", wildcards={"sample": sample}))
    errors = [ErrorRaised(time=START, exception="InputFunctionException", text=FUNCTION_RAISED)]
    found = diagnosis.guilty_of(errors, mirror.open())
    assert found is not None
    assert found[0].name == "map[sample=b]"
    assert (
        found[1] == "InputFunctionException in rule map in file \"Snakefile\", line 3: Error: KeyError: 'b'"
    )
    assert diagnosis.guilty_of(errors, mirror.open()[2:]) is None
    assert diagnosis.of_workflow(errors, 1, "").rule == "map[sample=b]"


def test_an_error_that_does_not_say_which_of_many_rule_jobs_accuses_none() -> None:
    mirror = Mirror(uuid4())
    for job_id, sample in enumerate("abc"):
        mirror.observe(planned(job_id, "map", wildcards={"sample": sample}))
    errors = [ErrorRaised(time=START, exception="RuleException", text="RuleException in rule map in file x")]
    assert diagnosis.guilty_of(errors, mirror.open()) is None
    assert diagnosis.guilty_of([AT_LEAST_ONE], mirror.open()) is None
    assert diagnosis.of_workflow(errors, 1, "").rule == "map"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            'Traceback (most recent call last):\n\n  File "a.py", line 1, in f\n    with x:\n         ^^^\n\n'
            "KeyError: 1\n\n\nDuring handling of the above exception, another exception occurred:\n\n\n"
            'Traceback (most recent call last):\n\n  File "b.py", line 2, in g\n\n'
            "FileNotFoundError: [Errno 2] No such file or directory: 'scripts/none.py'",
            "FileNotFoundError: [Errno 2] No such file or directory: 'scripts/none.py'",
        ),
        (
            'Traceback (most recent call last):\n  File "a"\nbioio.Broken: a\n  of two lines',
            "bioio.Broken: a",
        ),
        ('\n  File "cli.py", line 2375, in args_to_api\n    f(e)\n\nKeyError: 2', "KeyError: 2"),
        ("Traceback (most recent call last):\n…", "Traceback (most recent call last):"),
    ],
    ids=["of two", "of two lines", "without its first line", "without its end"],
)
def test_of_a_traceback_the_error_at_its_end_is_told(text: str, said: str) -> None:
    assert of_workflow("Anything", text).headline.startswith(said)


def test_a_failed_rule_job_that_snakemake_itself_failed_has_advice_on_that() -> None:
    message = "NameError: The name 'print $1' is unknown in this context."
    job = failures(planned(), started(), failed(exit_code=None, message=message))
    error = of_failures(job)
    assert "{{print $1}}" in error.resolution
    assert error.section == "nameerror"


def test_an_error_of_prefect_shows_no_address_of_the_service() -> None:
    request = httpx.Request("POST", "http://10.0.0.7:4200/api/flow_runs/filter")
    failure = httpx.HTTPStatusError("503 for 10.0.0.7", request=request, response=httpx.Response(503))

    error = diagnosis.of_service(failure)

    assert error.kind is ErrorKind.SYSTEM
    assert "10.0.0.7" not in f"{error.message} {error.headline} {error.resolution}"


def test_an_error_of_megabytes_is_a_short_state_and_a_bounded_label() -> None:
    """Every list of jobs carries both."""
    error = of_workflow("Anything", "no line ends here; " * 500_000)

    assert len(error.headline) < 600
    assert len(error.labels()[Label.ERROR_MESSAGE]) < 9_000
