"""Errors of Snakemake and of workflows that are known, and what to do about each. No I/O, no Prefect."""

import re
from dataclasses import dataclass

from flows.contract.spec import ErrorKind

_CORRECT_TARGETS = "Correct `targets`: each must be a rule, or a file that a rule creates."
_CORRECT_SNAKEFILE = "Correct the Snakefile at the line in the message, and submit the job again."
_CORRECT_SYNTAX = f"{_CORRECT_SNAKEFILE} If the syntax needs a newer Python, set `environment.python`."
_ADD_PACKAGE = "Add the missing package to the job's `environment`, in the version that the workflow needs."
RESOLUTIONS = {
    "MissingOutputException": "The command succeeded, but not all files in `output` exist; "
    "correct one of them.",
    "MissingInputException": "Add the missing files, with `files` or with links to data of the server "
    "(`inputs`); or add a rule that makes them.",
    "MissingRuleException": _CORRECT_TARGETS,
    "UnknownRuleException": _CORRECT_TARGETS,
    "NoRulesException": "The Snakefile has no rule; check that `snakefile` names the right file.",
    "SyntaxError": _CORRECT_SYNTAX,
    "IndentationError": _CORRECT_SNAKEFILE,
    "ModuleNotFoundError": _ADD_PACKAGE,
    "ImportError": _ADD_PACKAGE,
    "NameError": f"{_CORRECT_SNAKEFILE} In a command, write braces that are not Snakemake's twice, as in "
    "`{{print $1}}`.",
    "InputFunctionException": "Correct the function in the rule in the message: it raised the error.",
    "KeyError": "A key is missing. If it is a key of the configuration, set it in `config`.",
    "LockException": "A Snakemake works in this directory, or one was killed there. If none runs, unlock it: "
    "`snakemake --unlock` in the directory. Then submit the job again.",
    "ProtectedOutputException": "An output is write-protected; remove it, or leave it out of the targets.",
    "AmbiguousRuleException": "Two rules create the same file; set a `ruleorder` in the workflow.",
    "CyclicGraphException": "The rules depend on each other in a circle; correct their inputs.",
    "WildcardError": "Correct the wildcards of the rule in the message.",
    "FileNotFoundError": "Add the file in the message with `files` or `inputs`, or correct its path.",
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
    "git": "gitpython",
    "pkg_resources": "setuptools < 81",
    "ruamel": "ruamel.yaml",
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

    def resolution_for(self, match: re.Match[str]) -> str:
        named = match.groupdict()
        if (module := named.get("module")) is not None:
            named["package"] = _PACKAGES.get(module, module)
        return self.resolution.format(**named)


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
        re.compile(r"SLURM ended it .*raise `(?P<resource>\w+)`"),
        'Resume the job with more of it: "options": {{"set_resources": {{"RULE": {{"{resource}": …}}}}}}; or '
        "let the rule ask for more with each attempt, and set `options.retries`.",
        "ended-by-the-cluster",
    ),
    _Known(
        re.compile(r"SLURM ended it: "),
        "Resume the job: somebody or something has ended its job on the cluster.",
        "ended-by-the-cluster",
        ErrorKind.SYSTEM,
    ),
    _Known(
        re.compile(r"SLURM sbatch failed"),
        "Correct the resource that the message names, in the workflow or in `options`; if the job does not "
        "set it, tell the operator.",
        "ended-by-the-cluster",
    ),
    _Known(
        re.compile(r"The job exceeded its limit of \d+ "),
        "Let fewer rule jobs run at once (`cores`, `resources`), let the rule take less, or ask the operator "
        "for more (JOBS_LIMITS); then resume the job.",
        "over-the-limit",
    ),
    _Known(
        re.compile(r"requested by the workflow but undefined[^\n]*\n(?P<name>\w+)"),
        'Set each of them in the job spec: in "env": {{"{name}": "…"}}, or in "secrets": {{"{name}": '
        '"name-of-a-block"}} if the value is a secret. The service hides the '
        "variables of the worker from workflows, except a few.",
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
        "packages that the workflow imports; or ask the operator for an environment that has it.",
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
        re.compile(r"container creation failed: [^\n]*mount[^\n]* proc[^\n]*operation not permitted"),
        "Contact the operator: this worker runs as root, and containers need an ordinary user in the room of "
        "a job.",
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
    _Known(
        re.compile(r"unexpected empty output files"),
        "The rule says `ensure(…, non_empty=True)` of an output, and its command wrote nothing into it. "
        "Correct the command or its input.",
        "rejected-output",
    ),
    _Known(
        re.compile(r"checksums that differ from the expected"),
        "The rule says with `ensure(…, sha256=…)` what an output holds, and it holds something else. Correct "
        "the input, the command or the checksum.",
        "rejected-output",
    ),
    _Known(
        re.compile(r"has older modification time .* than input"),
        "The input has a time in the future. Correct it with `touch`, or the clock of the machine that "
        "wrote it.",
        "rejected-output",
    ),
    _Known(
        re.compile(r"File name too long"),
        "Shorten the name of the file, often a wildcard's value: a name may have 255 bytes.",
        "workflow",
    ),
    _Known(
        re.compile(r"Failed to (?:check existence|retrieve|get (?:mtime|size)|store|list)\b"),
        "Check the address of the remote file and its credentials, and that the service can reach it; then "
        "resume the job.",
        "remote-files",
    ),
)


def advice(exception: str, text: str) -> tuple[ErrorKind, str, str] | None:
    """Whose fault a known error is, what to do, and its section of the documentation."""
    for known in _KNOWN:
        if match := known.pattern.search(text):
            return known.kind, known.resolution_for(match), known.section
    if exception in RESOLUTIONS:
        return ErrorKind.WORKFLOW, RESOLUTIONS[exception], exception.lower()
    if "schema" in text and "Error validating" in text:
        resolution = "Correct `config`: the workflow's schema rejects the key in the message."
        return ErrorKind.WORKFLOW, resolution, "workflow"
    return None


def advice_on_module(text: str) -> tuple[ErrorKind, str, str] | None:
    """The same for a Python module that a program lacks, in what it wrote."""
    match = _MODULE_NOT_FOUND.pattern.search(text)
    if match is None:
        return None
    return _MODULE_NOT_FOUND.kind, _MODULE_NOT_FOUND.resolution_for(match), _MODULE_NOT_FOUND.section
