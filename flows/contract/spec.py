"""The contract of a job: what a client can request, and how it is stored in Prefect.

It does no I/O. It has the models, which reject unknown fields, and the names under which the flow
stores what the API reads (`Label`, `RuleJobRecord`).
"""

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Annotated, Any, Self

from packaging.requirements import InvalidRequirement, Requirement
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, HttpUrl, JsonValue, model_validator

FLOW_NAME = "snakemake-job"
DEFAULT_GROUP = "default"
RESERVED_KEY = "__prefect_kind"
"""Prefect's server hydrates parameters (JSON, Jinja, variables) wherever it finds this key."""

LARGEST_NUMBER = 2**63
"""PostgreSQL stores 1e44 as an integer, and Prefect can't send integers of more than 64 bits: it would
fail to return the job, and every list of jobs that includes it.
"""

TAG_SEPARATOR = ":"
"""A job's tag `project=x` becomes the Prefect tag `project:x`."""

SNAKEFILE_NAMES = ("Snakefile", "snakefile", "workflow/Snakefile", "workflow/snakefile")
"""Where Snakemake looks for a Snakefile, in this order (`snakemake --help`, `--snakefile`)."""


class EngineName(StrEnum):
    """What executes a job."""

    SNAKEMAKE = "snakemake"
    """Snakemake itself, in a child process."""
    MOCK = "mock"
    """No Snakemake: rule jobs that only wait, with a random outcome."""


class Label(StrEnum):
    """Keys of the Prefect labels of a flow run, from which the API reads the state of its job."""

    SPEC_SHA256 = "snakemake.spec.sha256"
    """Hash of the submitted body: a reused idempotency key must come with the same body."""
    RESUMES = "snakemake.resumes"
    """Id of the job that this one continues, in the same working directory."""
    RESUMED_BY = "snakemake.resumed-by"
    """Id of the job that continues this one."""
    WES_REQUEST = "snakemake.wes.request"
    """The part of a WES submission that the job spec can't hold, as JSON."""
    PHASE = "snakemake.phase"
    """What a running job is doing before its first rule job, if it takes long; empty afterwards."""
    SNAKEMAKE_VERSION = "snakemake.version"
    """The version of Snakemake in the job's environment."""
    PROGRESS_DONE = "snakemake.progress.done"
    """Number of rule jobs that Prefect has recorded as completed, including those that were up to date."""
    PROGRESS_TOTAL = "snakemake.progress.total"
    """Number of rule jobs in the plan as known so far (a checkpoint can add some)."""
    WORKFLOW_COMMIT = "snakemake.workflow.commit"
    """The commit that a workflow from a git repository was fetched at."""
    ERROR_KIND = "snakemake.error.kind"
    ERROR_RULE = "snakemake.error.rule"
    ERROR_MESSAGE = "snakemake.error.message"
    ERROR_RESOLUTION = "snakemake.error.resolution"
    WEBHOOK_URL = "snakemake.webhook.url"
    """The URL to notify when the job ends."""
    WEBHOOK_DELIVERED = "snakemake.webhook.delivered"
    """Id of the message that the receiver has accepted."""
    WEBHOOK_REFUSED = "snakemake.webhook.refused"
    """Id of the message that the receiver has rejected for good."""
    RULE_JOB = "snakemake.rule-job"
    """On a task run: its `RuleJobRecord` as JSON (labels hold scalars only)."""


class ErrorKind(StrEnum):
    """Whether the workflow or the service caused a failure."""

    WORKFLOW = "workflow"
    """The workflow, its input or its configuration: the submitter can fix it."""
    SYSTEM = "system"
    """The service or its machine: the operator can fix it, and a retry may succeed."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _relative_path(value: str) -> str:
    path = PurePosixPath(value)
    if path.is_absolute() or ".." in path.parts or value in ("", "."):
        raise ValueError("must be a relative path inside the workflow's directory, without '..'")
    return value


RelativePath = Annotated[str, AfterValidator(_relative_path)]
"""A path inside the directory that it is relative to."""


def _not_an_option(value: str) -> str:
    if value.startswith("-"):
        raise ValueError("a target is a rule or a file; it can't start with '-'")
    return value


def _subdirectory(value: str) -> str:
    return value if value == "." else _relative_path(value)


class WorkflowSource(_Strict):
    """Where the workflow's directory comes from: exactly one of `path`, `git` and `bundle`."""

    path: str | None = Field(
        default=None,
        description="A directory on the server, under one of its workflow roots.",
        examples=["/srv/workflows/variants"],
        min_length=1,
        max_length=4096,
    )
    git: str | None = Field(
        default=None,
        description="The address of a git repository, as for `git clone`.",
        examples=["https://github.com/snakemake-workflows/dna-seq-varlociraptor"],
        min_length=1,
        max_length=2048,
    )
    bundle: str | None = Field(
        default=None,
        description="The id of a bundle, from the response to `PUT /bundles`.",
        pattern=r"^sha256:[0-9a-f]{64}$",
    )
    ref: str | None = Field(
        default=None,
        description="With `git`: a branch, a tag or a full commit id; the repository's HEAD when absent.",
        pattern=r"^[A-Za-z0-9_][\w./+@-]*$",
        max_length=250,
        examples=["v1.2.0"],
    )
    subdir: Annotated[str, AfterValidator(_subdirectory)] | None = Field(
        default=None,
        description="With `git` or `bundle`: the directory in it that contains the workflow.",
        max_length=1024,
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in ("path", "git", "bundle") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"give exactly one of path, git and bundle; given: {', '.join(given) or 'none of them'}"
            )
        if self.ref is not None and self.git is None:
            raise ValueError("ref is only allowed with git")
        if self.subdir is not None and self.path is not None:
            raise ValueError("subdir is only allowed with git or bundle; append it to path instead")
        return self


def _plain_requirement(value: str) -> str:
    try:
        requirement = Requirement(value)
    except InvalidRequirement as error:
        raise ValueError(f"{value!r} is not a requirement such as 'pandas >= 2': {error}") from error
    if requirement.url is not None:
        raise ValueError("only names and versions are allowed: the operator decides where packages come from")
    return value


class EnvironmentSpec(_Strict):
    """The Python environment that Snakemake runs in: exactly one of `name`, `packages` and `file`.

    A string instead of the object stands for `name`.
    """

    name: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][\w.-]*$",
        max_length=100,
        description="An environment that the operator has declared.",
        examples=["default"],
    )
    packages: tuple[Annotated[str, Field(max_length=300), AfterValidator(_plain_requirement)], ...] = Field(
        default=(),
        max_length=200,
        description="Packages to install, as names and versions; the newest `snakemake` is added if absent.",
        examples=[["snakemake == 9.14.0", "pandas >= 2"]],
    )
    file: RelativePath | None = Field(
        default=None,
        description="A requirements file in the workflow's directory: one name with versions per line.",
        examples=["requirements.txt"],
    )
    python: str | None = Field(
        default=None,
        pattern=r"^3\.\d{1,2}(\.\d{1,2})?$",
        description="With `packages` or `file`: the version of Python; the operator's default when absent.",
        examples=["3.12"],
    )

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, data: Any) -> Any:
        return {"name": data} if isinstance(data, str) else data

    @model_validator(mode="after")
    def _one_of_three(self) -> Self:
        given = [name for name in ("name", "packages", "file") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(
                f"give exactly one of name, packages and file; given: {', '.join(given) or 'none of them'}"
            )
        if self.python is not None and self.name is not None:
            raise ValueError("python is only allowed with packages or file; a named environment sets its own")
        return self


class SoftwareMethod(StrEnum):
    """How the software that rules declare is deployed (Snakemake's `--software-deployment-method`)."""

    CONDA = "conda"
    """`conda:` directives."""
    APPTAINER = "apptainer"
    """`container:` directives."""
    ENV_MODULES = "env-modules"
    """`envmodules:` directives."""


class Options(_Strict):
    """The options of Snakemake that a job can set: a typed allow-list, no raw command line."""

    keep_going: bool = Field(
        default=False, description="Continue with independent rule jobs after one has failed."
    )
    retries: int = Field(default=0, ge=0, le=20, description="How often to retry a failing rule job.")
    force_all: bool = Field(
        default=False, description="Run every rule job, even if its outputs are up to date."
    )
    report: bool = Field(
        default=False,
        description="Create Snakemake's HTML report when the workflow has ended, as an output of the job.",
    )
    cache: bool = Field(
        default=False,
        description="Share the outputs of rules marked `cache: True` with other jobs: reuse those of earlier "
        "jobs, and keep new ones for later jobs.",
    )


Resources = dict[
    Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")], Annotated[int, Field(ge=0, lt=LARGEST_NUMBER)]
]


class MockOptions(_Strict):
    """How the mock engine behaves."""

    delay_seconds: tuple[float, float] = Field(
        default=(10.0, 30.0),
        description="Shortest and longest duration of the whole job, in seconds.",
    )
    success_rate: float = Field(
        default=0.8, ge=0, le=1, description="Probability that the job completes, from 0 to 1."
    )
    rules: int = Field(default=4, ge=1, le=20_000, description="Number of rule jobs.")
    seed: int | None = Field(
        default=None,
        gt=-LARGEST_NUMBER,
        lt=LARGEST_NUMBER,
        description="Makes delays and outcome repeatable; they are random when absent.",
    )

    @model_validator(mode="after")
    def _delays_are_ordered(self) -> Self:
        shortest, longest = self.delay_seconds
        if not 0 <= shortest <= longest <= 86_400:
            raise ValueError("delay_seconds must be [shortest, longest], 0 <= shortest <= longest <= 86400")
        return self


class ExecutionSpec(_Strict):
    """What to execute: exactly the parameters of the Prefect flow.

    `POST /jobs`, the run form of the Prefect UI and `prefect deployment run -p` all use
    this model.
    """

    engine: EngineName = Field(default=EngineName.SNAKEMAKE, description="What executes the job.")
    workflow: WorkflowSource | None = Field(
        default=None, description="The source of the workflow; required unless `engine` is `mock`."
    )
    snakefile: RelativePath | None = Field(
        default=None,
        description="The Snakefile, relative to the workflow's directory; "
        "searched for as Snakemake does when absent.",
        examples=["workflow/Snakefile"],
    )
    targets: tuple[Annotated[str, AfterValidator(_not_an_option)], ...] = Field(
        default=(),
        max_length=10_000,
        description="Rules to run or files to create; the first rule when empty.",
    )
    config: dict[str, JsonValue] = Field(
        default_factory=dict, description="Overrides keys of the workflow's configuration."
    )
    environment: EnvironmentSpec | None = Field(
        default=None,
        description="The Python environment that Snakemake runs in; the one named `default` when absent.",
    )
    software: tuple[SoftwareMethod, ...] = Field(
        default=(),
        description="How to deploy the software that rules declare. When empty, `conda:` and `container:` "
        "directives are ignored.",
    )
    cores: int = Field(
        default=1, ge=1, le=1024, description="Cores that all running rule jobs may use together."
    )
    resources: Resources = Field(
        default_factory=dict,
        description="Limits of other resources, such as `mem_mb`, that all running rule jobs share.",
    )
    timeout_seconds: float | None = Field(
        default=None, gt=0, le=31_536_000, description="The job fails if it runs for longer than this."
    )
    options: Options = Field(default_factory=Options)
    mock: MockOptions = Field(default_factory=MockOptions, description="Only used if `engine` is `mock`.")

    @model_validator(mode="before")
    @classmethod
    def _no_reserved_key(cls, data: Any) -> Any:
        for path in _paths_of_key(data, RESERVED_KEY):
            raise ValueError(f"the key '{RESERVED_KEY}' is reserved by Prefect; found at {path}")
        return data

    @model_validator(mode="after")
    def _snakemake_needs_a_workflow(self) -> Self:
        if self.engine is EngineName.SNAKEMAKE and self.workflow is None:
            raise ValueError(
                'the snakemake engine needs a workflow, for example {"path": "/srv/workflows/variants"}'
            )
        return self


Tags = dict[
    Annotated[str, Field(pattern=rf"^[^{TAG_SEPARATOR}\s]+$", max_length=100)],
    Annotated[str, Field(max_length=200)],
]


class Webhook(_Strict):
    """The receiver to notify when the job reaches a final status."""

    url: HttpUrl = Field(
        description="A public https URL. It receives a signed POST at least once for each end of the job; "
        "a repeated message has the same `webhook-id`.",
        examples=["https://example.org/hooks/jobs"],
    )


_NOT_OF_THE_FLOW = {"name", "group", "tags", "webhook", "spot"}


class JobSpec(ExecutionSpec):
    """The body of `POST /jobs`: what to execute, and how to name and find the job."""

    name: str | None = Field(
        default=None, min_length=1, max_length=200, description="Shown in lists; generated when absent."
    )
    group: str = Field(
        default=DEFAULT_GROUP,
        pattern=r"^[A-Za-z0-9][\w.-]*$",
        max_length=100,
        description="The Prefect deployment that runs the job.",
    )
    tags: Tags = Field(default_factory=dict, max_length=50, description="Arbitrary key-value pairs.")
    webhook: Webhook | None = Field(default=None, description="The receiver to notify when the job ends.")
    spot: bool = Field(
        default=False,
        description="Run on a cheaper machine that may be reclaimed while the job runs (AWS Spot), if the "
        "service has such machines.",
    )

    def parameters(self) -> dict[str, Any]:
        """The flow's parameters, as JSON: only those that were set, so that the flow's defaults apply."""
        return self.model_dump(mode="json", exclude=_NOT_OF_THE_FLOW, exclude_unset=True)

    def prefect_tags(self) -> list[str]:
        return [f"{key}{TAG_SEPARATOR}{value}" for key, value in sorted(self.tags.items())]


class RuleJobRecord(_Strict):
    """What is known about a rule job beyond Prefect's own fields; stored in `Label.RULE_JOB`."""

    rule: str
    wildcards: dict[str, str] = {}
    threads: int = 1
    resources: dict[str, int | float | str] = {}
    reason: str | None = None
    shell: str | None = None
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    error: str | None = None
    cpu_seconds: float | None = None
    peak_memory_bytes: int | None = None


class RuleJobState(StrEnum):
    """State names of rule jobs that Prefect does not have."""

    SKIPPED = "Skipped"
    """Type COMPLETED: the outputs were up to date before the job started."""
    NOT_RUN = "NotRun"
    """Type CANCELLED: it never ran, because a rule job before it failed or the job was cancelled."""


def _paths_of_key(data: Any, key: str, path: str = "$") -> Iterator[str]:
    if isinstance(data, Mapping):
        for name, value in data.items():
            if name == key:
                yield f"{path}.{name}"
            yield from _paths_of_key(value, key, f"{path}.{name}")
    elif isinstance(data, Sequence) and not isinstance(data, str | bytes):
        for index, value in enumerate(data):
            yield from _paths_of_key(value, key, f"{path}[{index}]")
