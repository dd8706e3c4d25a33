"""Determines why a job failed and what to do, from the events of its engine. No I/O, no Prefect."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import httpx

from flows.contract.documentation import with_reference
from flows.contract.spec import ErrorKind, Label
from flows.environments.uv import EnvironmentFailure
from flows.known_errors import advice, advice_on_module
from flows.record.mirror import RuleJob
from flows.record.redaction import Redaction
from flows.snakemake_process.events import ErrorRaised

_MESSAGE_CHARACTERS = 8_000
_GIST_CHARACTERS = 500
"""Prefect sends it with every list that the job is in."""

_COMMAND_NOT_FOUND = 127
_CONDA_FAILED = re.compile(
    r"Could not create conda environment from (?P<file>.+?):\n.*?^Output:\n(?P<output>.+)",
    re.DOTALL | re.MULTILINE,
)
_CONDA_LINES = 6
_IN_RULE = re.compile(r"\w+ in rule (?P<rule>\S+?)(?: in file|,|:|$)", re.MULTILINE)
_EXCEPTION = re.compile(r"(?P<name>\w+(?:Error|Exception))(?::| in )")
_WILDCARDS = re.compile(r"^Wildcards:\n(?P<lines>(?:  .*\n?)*)", re.MULTILINE)
_ERROR_AFTER_TRACEBACK = re.compile(r"^[A-Za-z_][\w.]*(?::|$)(?! *\Z)", re.MULTILINE)
_CLOSING_WORDS = "At least one job did not complete successfully."
_RULE_FAILED = (
    "Read the rule job's log, correct the workflow or its input, and submit the job again; "
    "or resume it, if the cause was outside the workflow."
)
_NO_LOGS: Mapping[str, str] = MappingProxyType({})
_UNKNOWN = "Correct the workflow or its configuration; the message and the job's log say where."


@dataclass(frozen=True, slots=True)
class JobError:
    """Why a job failed, for people: who can fix it, where and what it is, and what to do now."""

    kind: ErrorKind
    message: str
    resolution: str
    section: str
    """Its section on the troubleshooting page of the documentation."""
    rule: str | None = None
    """The rule job, as `rule[wildcards]`."""

    def labels(self) -> dict[Label, str]:
        labels = {
            Label.ERROR_KIND: self.kind.value,
            Label.ERROR_MESSAGE: _shortened(self.message),
            Label.ERROR_RESOLUTION: with_reference(self.resolution, self.section),
        }
        return labels | ({Label.ERROR_RULE: _storable(self.rule)} if self.rule else {})

    def redacted(self, redaction: Redaction) -> "JobError":
        """The same without secrets."""
        return replace(
            self,
            message=redaction.text(self.message),
            resolution=redaction.text(self.resolution),
            rule=None if self.rule is None else redaction.text(self.rule),
        )

    @property
    def headline(self) -> str:
        return gist(_storable(self.message))


def of_failed_rule(
    failed: RuleJob, failures: int, errors: list[ErrorRaised], output: str, logs: Mapping[str, str] = _NO_LOGS
) -> JobError:
    """`failed` is the first of `failures` failed rule jobs; `output` is the end of its output.

    `logs` are the ends of its log files, by path.
    """
    attempts = f" after {failed.attempts} attempts" if failed.attempts > 1 else ""
    others = f" {failures - 1} more rule jobs failed." if failures > 1 else ""
    message = f"Rule job {failed.name} failed{attempts}: {failed.state.message}{_place_of(failed)}{others}"
    refused = _refusal(failed, errors)
    if refused is not None:
        message += f"\n{refused.text}"
    if output:
        message += f"\nIts output ends with:\n{output}"
    message += "".join(f"\nIts log file {path} ends with:\n{text}" for path, text in logs.items())
    kind, resolution, section = _advice_on_rule(failed, refused, "\n".join((output, *logs.values())))
    return JobError(kind, message, resolution, section, rule=failed.name)


def _place_of(failed: RuleJob) -> str:
    """Which job of the cluster it was; empty on one machine."""
    submitted, started = failed.submitted, failed.started
    if submitted is None or submitted.external_id is None:
        return ""
    host = f" on {started.host}" if started and started.host else ""
    return f" It was job {submitted.external_id} of {submitted.executor}{host}."


def _advice_on_rule(failed: RuleJob, refused: ErrorRaised | None, said: str) -> tuple[ErrorKind, str, str]:
    """Whose fault it is, what to do, and the section; `said` is the end of what the rule job wrote."""
    finished = failed.finished
    if _ran_without_its_software(failed):
        note = note_of_undeployed({failed.planned.rule: failed.planned.undeployed})
        return ErrorKind.WORKFLOW, note, "software"
    found = None
    if refused is not None:
        found = advice(refused.exception, refused.text)
    elif finished is not None and finished.exit_code is None:
        named = _EXCEPTION.match(finished.message)  # Snakemake may wrap an exception in one of its own
        found = advice(named["name"] if named else finished.exception, finished.message)
    return found or advice_on_module(said) or (ErrorKind.WORKFLOW, _RULE_FAILED, "failed-rule")


def note_of_undeployed(rules: Mapping[str, Collection[str]]) -> str:
    """A warning about software that rules declare and the job does not deploy; `rules` is by name."""
    methods = sorted({method for declared in rules.values() for method in declared})
    named = ", ".join(sorted(rules)[:5]) + (", …" if len(rules) > 5 else "")
    wanted = ", ".join(f'"{method}"' for method in methods)
    return (
        f"The rules {named} declare software that this job does not deploy, so they use the software of the "
        f'machine. Add "software": [{wanted}] to the job to deploy it.'
    )


def note_of_outside(outputs: Collection[str]) -> str:
    """A warning about outputs that lie outside of the job's directory."""
    named = ", ".join(list(outputs)[:5]) + (", …" if len(outputs) > 5 else "")
    return (
        f"Not published, because they lie outside of the job's directory: {named}. Only outputs with a path "
        "relative to the workflow's directory are published."
    )


def _ran_without_its_software(failed: RuleJob) -> bool:
    """Whether a command was not found, and the rule declares software that was not deployed."""
    code = failed.finished.exit_code if failed.finished else None
    return code == _COMMAND_NOT_FOUND and bool(failed.planned.undeployed)


def _refusal(failed: RuleJob, errors: list[ErrorRaised]) -> ErrorRaised | None:
    """Snakemake's error about a rule job whose command succeeded and whose outputs it rejects."""
    if failed.finished is None or failed.finished.exit_code is not None or failed.finished.message:
        return None
    of_rule = re.compile(rf"\brule {re.escape(failed.planned.rule)}\b")
    return next((error for error in errors if of_rule.search(error.text)), None)


def of_workflow(
    errors: list[ErrorRaised], exit_code: int, output: str, failed: RuleJob | None = None
) -> JobError:
    """The workflow could not run at all, or `failed` could not start; `output` ends the engine's log."""
    if not errors:
        # Snakemake reports errors in its command line before its loggers exist.
        text = output or f"Snakemake ended with exit code {exit_code} without a message."
        text, named = without_traceback(text), _EXCEPTION.match(text.lstrip())
        exception = named["name"] if named else ""
    else:
        error = _most_informative(errors)
        text, exception = _conda_first(without_traceback(error.text.strip())), error.exception
    kind, resolution, section = advice(exception, text) or (ErrorKind.WORKFLOW, _UNKNOWN, "workflow")
    rule = failed.name if failed is not None else _named_rule(text)
    return JobError(kind, text, resolution, section, rule)


def guilty_of(errors: list[ErrorRaised], waiting: list[RuleJob]) -> tuple[RuleJob, str] | None:
    """The rule job that kept Snakemake from going on, and why, if its error says which one it is.

    As one whose function for `resources` raises.
    """
    if not errors:
        return None
    text = without_traceback(_most_informative(errors).text.strip())
    found = _IN_RULE.match(text)
    if found is None:
        return None
    candidates = [job for job in waiting if job.planned.rule == found["rule"]]
    wildcards = _wildcards_in(text)
    if wildcards is not None:
        candidates = [job for job in candidates if job.planned.wildcards == wildcards]
    return (candidates[0], gist(text)) if len(candidates) == 1 else None


def gist(text: str) -> str:
    """What happened, in one line: of an error in many lines, the first ones until one of them says it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = lines[0] if lines else ""
    for line in lines[1:]:
        if not said.endswith(":"):
            break
        said = f"{said} {line}"
    return said if len(said) <= _GIST_CHARACTERS else f"{said[:_GIST_CHARACTERS]} …"


def without_traceback(text: str) -> str:
    """The error at the end of a traceback; the job's log has the whole."""
    if not text.lstrip().startswith(("Traceback", "File ")):
        return text
    ends = list(_ERROR_AFTER_TRACEBACK.finditer(text))
    return text[ends[-1].start() :].strip() if ends else text


def _named_rule(text: str) -> str | None:
    """The rule job that an error is about: `rule[wildcards]`."""
    found = _IN_RULE.match(text)
    if found is None:
        return None
    wildcards = ",".join(f"{name}={value}" for name, value in (_wildcards_in(text) or {}).items())
    return f"{found['rule']}[{wildcards}]" if wildcards else found["rule"]


def _wildcards_in(text: str) -> dict[str, str] | None:
    """The wildcards that an error of a function lists."""
    found = _WILDCARDS.search(text)
    if found is None:
        return None
    return dict(line.strip().split("=", 1) for line in found["lines"].splitlines() if "=" in line)


def _conda_first(text: str) -> str:
    """What conda says before what Snakemake says about it, which names commands and directories."""
    found = _CONDA_FAILED.search(text)
    if found is None:
        return text
    lines = [line.strip() for line in found["output"].splitlines() if line.strip()][-_CONDA_LINES:]
    return f"The conda environment {found['file']} could not be made: {' '.join(lines)}\n\n{text}"


def _most_informative(errors: list[ErrorRaised]) -> ErrorRaised:
    """The last error, because retries succeeded after earlier ones. Prefers plain messages to tracebacks."""
    informative = [error for error in errors if _CLOSING_WORDS not in error.text] or errors
    plain = [error for error in informative if not error.text.startswith("Traceback")]
    return (plain or informative)[-1]


def of_forgotten(names: list[str]) -> JobError:
    shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
    return JobError(
        ErrorKind.SYSTEM,
        f"Snakemake reports success, but never ran {len(names)} rule jobs: {shown}",
        "Resume the job. This is an error of Snakemake, not of the workflow.",
        "system",
    )


def of_timeout(seconds: float) -> JobError:
    return JobError(
        ErrorKind.WORKFLOW,
        f"The job was stopped after {seconds:g} seconds, its `timeout_seconds`.",
        "Submit it again with a longer `timeout_seconds`.",
        "timeout",
    )


def of_vanished_engine(signal_number: int | None, directory: Path) -> JobError:
    how = f"was killed by signal {signal_number}" if signal_number else "ended without a message"
    return JobError(
        ErrorKind.SYSTEM,
        f"The process of Snakemake {how}; all its processes have ended.",
        "Resume the job. If it happens again, the machine may lack memory; "
        f"the operator can read the whole log in {directory}.",
        "system",
    )


def of_environment(failure: EnvironmentFailure) -> JobError:
    text = str(failure).rstrip(".")
    return JobError(
        failure.kind,
        f"The job's environment could not be created: {text}.",
        failure.resolution,
        "environment",
    )


def of_missing_plugin(package: str) -> JobError:
    return JobError(
        ErrorKind.WORKFLOW,
        f"The job's environment lacks the plugin of its `default_storage`: {package}.",
        f'Add it to the job\'s environment: "environment": {{"packages": ["{package}"]}}, with the other '
        "packages that the workflow imports.",
        "environment",
    )


def of_service(error: Exception) -> JobError:
    if isinstance(error, httpx.HTTPError):  # its text has the service's own addresses
        return JobError(
            ErrorKind.SYSTEM,
            "The service failed, not the workflow: Prefect did not answer, or had an error of its own.",
            "Resume the job. If it happens again, contact the operator; the job's log has the traceback.",
            "system",
        )
    return JobError(
        ErrorKind.SYSTEM,
        f"The service failed, not the workflow: {type(error).__name__}: {error}",
        "Resume the job. If it happens again, contact the operator; the job's log has the traceback.",
        "system",
    )


def _shortened(text: str) -> str:
    """The beginning and the end: there, messages say what happened and where."""
    text = _storable(text)
    if len(text) <= _MESSAGE_CHARACTERS:
        return text
    half = _MESSAGE_CHARACTERS // 2
    return f"{text[:half]}\n…\n{text[-half:]}"


def _storable(text: str) -> str:
    """Text that PostgreSQL accepts: outputs of commands and names of files may contain any bytes."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
