"""Says why a job failed and what to do, from what its engine told: no I/O, no Prefect."""

import re
from dataclasses import dataclass
from pathlib import Path

from flows.contract.spec import ErrorKind, Label
from flows.environments.uv import EnvironmentFailure
from flows.record.mirror import RuleJob
from flows.snakemake_process.events import ErrorRaised

_MESSAGE_CHARACTERS = 8_000

_REFUSED = "MissingOutputException"
_RESOLUTIONS = {
    _REFUSED: "Its command ended well, but not every file of `output` is there; correct one of them.",
    "MissingInputException": "Add the missing files to the workflow's directory, or a rule that makes them.",
    "MissingRuleException": "Correct `targets`: each names a rule or a file that a rule makes.",
    "UnknownRuleException": "Correct `targets`: each names a rule or a file that a rule makes.",
    "NoRulesException": "The Snakefile has no rule; check that `snakefile` names the right file.",
    "SyntaxError": "Correct the Snakefile at the line that the message names, and submit again.",
    "IndentationError": "Correct the Snakefile at the line that the message names, and submit again.",
    "NameError": "Correct the Snakefile at the line that the message names, and submit again.",
    "KeyError": "A key is missing; if it is one of the configuration's, set it in `config`.",
    "ProtectedOutputException": "An output is write-protected; remove it, or leave it out of the targets.",
    "AmbiguousRuleException": "Two rules make the same file; set a `ruleorder` in the workflow.",
    "CyclicGraphException": "The rules depend on each other in a circle; correct their inputs.",
    "WildcardError": "Correct the wildcards of the rule that the message names.",
}
_CLOSING_WORDS = "At least one job did not complete successfully."
_RULE_FAILED = (
    "Read the rule job's log, correct the workflow or its input, and submit again; "
    "or resume the job, if what was missing is there now."
)
_UNKNOWN = "The message and the job's log say where; correct the workflow or its configuration."


@dataclass(frozen=True, slots=True)
class JobError:
    """Why a job failed, for people: whose fault, where, what, and what to do now."""

    kind: ErrorKind
    message: str
    resolution: str
    rule: str | None = None
    """The rule job, as `rule[wildcards]`."""

    def labels(self) -> dict[Label, str]:
        labels = {
            Label.ERROR_KIND: self.kind.value,
            Label.ERROR_MESSAGE: _shortened(self.message),
            Label.ERROR_RESOLUTION: self.resolution,
        }
        return labels | ({Label.ERROR_RULE: _storable(self.rule)} if self.rule else {})

    @property
    def headline(self) -> str:
        return _storable(self.message.partition("\n")[0])


def of_failed_rule(failed: RuleJob, failures: int, errors: list[ErrorRaised], output: str) -> JobError:
    """`failed` was the first of `failures` rule jobs; `output` is the end of what it wrote."""
    attempts = f" after {failed.attempts} attempts" if failed.attempts > 1 else ""
    others = f" {failures - 1} more rule jobs failed." if failures > 1 else ""
    message = f"Rule job {failed.name} failed{attempts}: {failed.state.message}{others}"
    refused = _refusal(failed, errors)
    if refused is not None:
        message += f"\n{refused.text}"
    if output:
        message += f"\nIts output ends with:\n{output}"
    resolution = _RULE_FAILED if refused is None else _RESOLUTIONS[_REFUSED]
    return JobError(ErrorKind.WORKFLOW, message, resolution, rule=failed.name)


def _refusal(failed: RuleJob, errors: list[ErrorRaised]) -> ErrorRaised | None:
    """What Snakemake says of a rule job whose command ended well and whose outputs are not there."""
    if failed.finished is None or failed.finished.exit_code is not None or failed.finished.message:
        return None
    of_rule = re.compile(rf"\brule {re.escape(failed.planned.rule)}\b")
    return next(
        (error for error in errors if error.exception == _REFUSED and of_rule.search(error.text)), None
    )


def of_workflow(errors: list[ErrorRaised], exit_code: int, output: str) -> JobError:
    """The workflow could not be run at all; `output` is the end of the engine's own log."""
    if not errors:
        # Snakemake tells of errors in its command line before its loggers exist.
        text = output or f"Snakemake ended with exit code {exit_code} without a message."
        return JobError(ErrorKind.WORKFLOW, text, _UNKNOWN)
    # The last that says something: earlier ones were made good by a retry.
    error = next((error for error in reversed(errors) if _CLOSING_WORDS not in error.text), errors[-1])
    resolution = _RESOLUTIONS.get(error.exception, _UNKNOWN)
    if "schema" in error.text and "Error validating" in error.text:
        resolution = "Correct `config`: the workflow's schema refuses it at the place that the message names."
    return JobError(ErrorKind.WORKFLOW, error.text.strip(), resolution)


def of_forgotten(names: list[str]) -> JobError:
    shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
    return JobError(
        ErrorKind.SYSTEM,
        f"Snakemake reports success, but has never run {len(names)} rule jobs: {shown}",
        "Resume the job; this is a fault of Snakemake, not of the workflow.",
    )


def of_timeout(seconds: float) -> JobError:
    return JobError(
        ErrorKind.WORKFLOW,
        f"The job was stopped after {seconds:g} seconds, its `timeout_seconds`.",
        "Submit it again with a longer `timeout_seconds`.",
    )


def of_vanished_engine(signal_number: int | None, directory: Path) -> JobError:
    how = f"was killed by signal {signal_number}" if signal_number else "is gone without a word"
    return JobError(
        ErrorKind.SYSTEM,
        f"The process of Snakemake {how}; nothing of it runs any more.",
        "Resume the job. If it happens again, the machine may lack memory; "
        f"the operator finds the whole log in {directory}.",
    )


def of_environment(failure: EnvironmentFailure) -> JobError:
    return JobError(failure.kind, f"The job has no environment: {failure}.", failure.resolution)


def of_service(error: Exception) -> JobError:
    return JobError(
        ErrorKind.SYSTEM,
        f"The service failed, not the workflow: {type(error).__name__}: {error}",
        "Resume the job. If it happens again, the operator finds the trace in the job's log.",
    )


def _shortened(text: str) -> str:
    """The beginning and the end, where messages say what and where."""
    text = _storable(text)
    if len(text) <= _MESSAGE_CHARACTERS:
        return text
    half = _MESSAGE_CHARACTERS // 2
    return f"{text[:half]}\n…\n{text[-half:]}"


def _storable(text: str) -> str:
    """What PostgreSQL takes: a command may have written anything, and a file be named anyhow."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
