"""Determines why a job failed and what to do, from the events of its engine. No I/O, no Prefect."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from flows.contract.documentation import with_reference
from flows.contract.spec import ErrorKind, Label
from flows.environments.uv import EnvironmentFailure
from flows.record.mirror import RuleJob
from flows.record.redaction import Redaction
from flows.snakemake_process.events import ErrorRaised

_MESSAGE_CHARACTERS = 8_000

_REFUSED = "MissingOutputException"
_CORRECT_TARGETS = "Correct `targets`: each must be a rule, or a file that a rule creates."
_CORRECT_SNAKEFILE = "Correct the Snakefile at the line in the message, and submit the job again."
_CORRECT_SYNTAX = f"{_CORRECT_SNAKEFILE} If the syntax needs a newer Python, set `environment.python`."
_ADD_PACKAGE = "Add the missing package to the job's `environment`, in the version that the workflow needs."
_RESOLUTIONS = {
    _REFUSED: "The command succeeded, but not all files in `output` exist; correct one of them.",
    "MissingInputException": "Add the missing files to the workflow's directory, or a rule that makes them.",
    "MissingRuleException": _CORRECT_TARGETS,
    "UnknownRuleException": _CORRECT_TARGETS,
    "NoRulesException": "The Snakefile has no rule; check that `snakefile` names the right file.",
    "SyntaxError": _CORRECT_SYNTAX,
    "IndentationError": _CORRECT_SNAKEFILE,
    "ModuleNotFoundError": _ADD_PACKAGE,
    "ImportError": _ADD_PACKAGE,
    "NameError": _CORRECT_SNAKEFILE,
    "KeyError": "A key is missing. If it is a key of the configuration, set it in `config`.",
    "ProtectedOutputException": "An output is write-protected; remove it, or leave it out of the targets.",
    "AmbiguousRuleException": "Two rules create the same file; set a `ruleorder` in the workflow.",
    "CyclicGraphException": "The rules depend on each other in a circle; correct their inputs.",
    "WildcardError": "Correct the wildcards of the rule in the message.",
    "CreateCondaEnvironmentException": "Correct the environment file in the message: its channels must be "
    "reachable from the service and have the packages in compatible versions.",
}
"""What to do, by Snakemake's exception. Its name in lower case is the section in the documentation."""


_PACKAGES = {
    "Bio": "biopython",
    "PIL": "pillow",
    "bs4": "beautifulsoup4",
    "augur": "nextstrain-augur",
    "cv2": "opencv-python-headless",
    "dotenv": "python-dotenv",
    "pkg_resources": "setuptools < 81",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
"""Well-known modules whose package has another name."""


@dataclass(frozen=True, slots=True)
class _Known:
    """A message that identifies the error better than its exception."""

    pattern: re.Pattern[str]
    resolution: str
    """May refer to groups of the pattern."""
    section: str
    kind: ErrorKind = ErrorKind.WORKFLOW


_MODULE_NOT_FOUND = _Known(
    re.compile(r"No module named '(?P<module>[\w]+)"),
    "Add the package that contains `{module}` to the job's environment, for example "
    '"environment": {{"packages": ["{package}"]}} with the other packages that the workflow imports; '
    "or ask the operator for an environment that has it.",
    "modulenotfounderror",
)
_KNOWN = (
    _MODULE_NOT_FOUND,
    _Known(
        re.compile(r"requested by the workflow but undefined[^\n]*\n(?P<name>\w+)"),
        'Set each of them in the job spec: in "env": {{"{name}": "…"}}, or in "secrets": {{"{name}": '
        '"name-of-a-block"}} if the value is a secret. The service hides its own variables (PREFECT_*, '
        "JOBS_*, AWS_*, UV_*) from workflows.",
        "variables",
    ),
    _Known(
        re.compile(r"Expecting Snakemake version (?P<version>[\w.]+) or higher"),
        'Request it: "environment": {{"packages": ["snakemake >= {version}"]}}, with the other packages '
        "that the workflow imports.",
        "environment",
    ),
    _Known(
        re.compile(r"cannot import name '\w+' from 'snakemake|'Logger' object has no attribute"),
        "The workflow is written for another version of Snakemake. Request one that this service supports "
        '(8.30 to 9), for example "environment": {{"packages": ["snakemake == 8.30.0"]}}, with the other '
        "packages that it imports.",
        "environment",
    ),
    _Known(
        re.compile(r"The package (?P<package>[\w.-]+) is not installed"),
        'Add it to the job\'s environment: "environment": {{"packages": ["{package}"]}}, with the other '
        "packages that the workflow imports.",
        "environment",
    ),
    _Known(
        re.compile(r"Is conda installed and accessible|'conda' command is not available"),
        "Contact the operator: this worker has no conda. JOBS_CONDA_DIRECTORY sets its `bin`.",
        "software",
        ErrorKind.SYSTEM,
    ),
    _Known(
        re.compile(r"apptainer or singularity command has to be available"),
        "Contact the operator: apptainer is not installed where the job runs.",
        "software",
        ErrorKind.SYSTEM,
    ),
    _Known(
        re.compile(r"Failed to pull singularity image"),
        "Check the image's address, and that the service can reach its registry; then resume the job.",
        "software",
    ),
    _Known(
        re.compile(
            r"wrapper git repository|GitCommandError|Failed to open source file|"
            r"environment for wrapper \S+ not accessible|Invalid meta wrapper"
        ),
        "Check the address. If this service can't reach it, ask the operator for a mirror "
        "(JOBS_WRAPPER_PREFIX for wrappers), or put the file into the workflow.",
        "software",
    ),
)
_COMMAND_NOT_FOUND = 127
_CONDA_FAILED = re.compile(
    r"Could not create conda environment from (?P<file>.+?):\n.*?^Output:\n(?P<output>.+)",
    re.DOTALL | re.MULTILINE,
)
_CONDA_LINES = 6
_CLOSING_WORDS = "At least one job did not complete successfully."
_RULE_FAILED = (
    "Read the rule job's log, correct the workflow or its input, and submit the job again; "
    "or resume it, if the cause was outside the workflow."
)
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
        return _storable(self.message.partition("\n")[0])


def of_failed_rule(failed: RuleJob, failures: int, errors: list[ErrorRaised], output: str) -> JobError:
    """`failed` is the first of `failures` failed rule jobs; `output` is the end of its output."""
    attempts = f" after {failed.attempts} attempts" if failed.attempts > 1 else ""
    others = f" {failures - 1} more rule jobs failed." if failures > 1 else ""
    message = f"Rule job {failed.name} failed{attempts}: {failed.state.message}{others}"
    refused = _refusal(failed, errors)
    if refused is not None:
        message += f"\n{refused.text}"
    if output:
        message += f"\nIts output ends with:\n{output}"
    resolution, section = _RULE_FAILED, "failed-rule"
    if refused is not None:
        resolution, section = _RESOLUTIONS[_REFUSED], _REFUSED.lower()
    elif _ran_without_its_software(failed):
        resolution, section = note_of_undeployed({failed.planned.rule: failed.planned.undeployed}), "software"
    elif match := _MODULE_NOT_FOUND.pattern.search(output):
        resolution, section = _resolution(_MODULE_NOT_FOUND, match), _MODULE_NOT_FOUND.section
    return JobError(ErrorKind.WORKFLOW, message, resolution, section, rule=failed.name)


def note_of_undeployed(rules: Mapping[str, Collection[str]]) -> str:
    """A warning about software that rules declare and the job does not deploy; `rules` is by name."""
    methods = sorted({method for declared in rules.values() for method in declared})
    named = ", ".join(sorted(rules)[:5]) + (", …" if len(rules) > 5 else "")
    wanted = ", ".join(f'"{method}"' for method in methods)
    return (
        f"The rules {named} declare software that this job does not deploy, so they use the software of the "
        f'machine. Add "software": [{wanted}] to the job to deploy it.'
    )


def _resolution(known: _Known, match: re.Match[str]) -> str:
    named = match.groupdict()
    if (module := named.get("module")) is not None:
        named["package"] = _PACKAGES.get(module, module)
    return known.resolution.format(**named)


def _ran_without_its_software(failed: RuleJob) -> bool:
    """Whether a command was not found, and the rule declares software that was not deployed."""
    code = failed.finished.exit_code if failed.finished else None
    return code == _COMMAND_NOT_FOUND and bool(failed.planned.undeployed)


def _refusal(failed: RuleJob, errors: list[ErrorRaised]) -> ErrorRaised | None:
    """Snakemake's error about a rule job whose command succeeded and whose outputs are missing."""
    if failed.finished is None or failed.finished.exit_code is not None or failed.finished.message:
        return None
    of_rule = re.compile(rf"\brule {re.escape(failed.planned.rule)}\b")
    return next(
        (error for error in errors if error.exception == _REFUSED and of_rule.search(error.text)), None
    )


def of_workflow(errors: list[ErrorRaised], exit_code: int, output: str) -> JobError:
    """The workflow could not run at all; `output` is the end of the engine's log."""
    if not errors:
        # Snakemake reports errors in its command line before its loggers exist.
        text = output or f"Snakemake ended with exit code {exit_code} without a message."
        return JobError(ErrorKind.WORKFLOW, text, _UNKNOWN, "workflow")
    error = _most_informative(errors)
    text = _conda_first(error.text.strip())
    for known in _KNOWN:
        if match := known.pattern.search(text):
            return JobError(known.kind, text, _resolution(known, match), known.section)
    if error.exception in _RESOLUTIONS:
        return JobError(ErrorKind.WORKFLOW, text, _RESOLUTIONS[error.exception], error.exception.lower())
    if "schema" in text and "Error validating" in text:
        resolution = "Correct `config`: the workflow's schema rejects the key in the message."
        return JobError(ErrorKind.WORKFLOW, text, resolution, "workflow")
    return JobError(ErrorKind.WORKFLOW, text, _UNKNOWN, "workflow")


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
