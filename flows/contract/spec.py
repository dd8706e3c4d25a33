"""The contract of a job: what a client can request, and how it is stored in Prefect.

It does no I/O. It has the models, which reject unknown fields, and the names under which the flow
stores what the API reads (`Label`, `RuleJobRecord`).
"""

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, Self

from packaging.requirements import InvalidRequirement, Requirement
from pydantic import AfterValidator, Field, HttpUrl, JsonValue, field_validator, model_validator

from flows.contract.field_types import LARGEST_NUMBER, Amount, Name, OneLine, RelativePath, Strict, Target
from flows.contract.options import Options
from flows.contract.sources import (
    DefaultStorage,
    FileText,
    Input,
    ProjectDirectory,
    SecretName,
    VariableName,
    VariableValue,
    WorkflowSource,
)

FLOW_NAME = "snakemake-job"
DEFAULT_GROUP = "default"
ATTACHED_GROUP = "attached"
"""The group of runs that the service only shows (docs/attach.md). The first of them makes it."""

RESERVED_KEY = "__prefect_kind"
"""Prefect's server hydrates parameters (JSON, Jinja, variables) wherever it finds this key."""

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
    WORK = "snakemake.work"
    """Id of the first job of such a chain, which owns the working directory."""
    CHANGES = "snakemake.changes"
    """Fields in which the spec differs from that of the job that this one continues, separated by ','."""
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
    WORK_SHA256 = "snakemake.work.sha256"
    """Checksum of what an incomplete job has left for a job that resumes it, where disks don't last."""
    RESUMED_WORK_SHA256 = "snakemake.resumes.work-sha256"
    """That checksum of the job that this one continues."""
    WORKFLOW_NAME = "snakemake.workflow.name"
    """The registered workflow that the job runs. A deployment has it, too, and gives it to its runs."""
    WORKFLOW_VERSION = "snakemake.workflow.version"
    """The version of that workflow."""
    DESCRIBES = "snakemake.describes"
    """The workflow and version that a job only describes, so that they can be registered."""
    WORKFLOW_COMMIT = "snakemake.workflow.commit"
    """The commit that a workflow from a git repository was fetched at."""
    ERROR_KIND = "snakemake.error.kind"
    ERROR_RULE = "snakemake.error.rule"
    ERROR_MESSAGE = "snakemake.error.message"
    ERROR_RESOLUTION = "snakemake.error.resolution"
    ATTACHED = "snakemake.attached"
    """Where an attached run runs: `user@host:directory`. The service shows it, and runs nothing of it."""
    WEBHOOK_URL = "snakemake.webhook.url"
    """The URL to notify when the job ends."""
    WEBHOOK_DELIVERED = "snakemake.webhook.delivered"
    """Id of the message that the receiver has accepted."""
    WEBHOOK_REFUSED = "snakemake.webhook.refused"
    """Id of the message that the receiver has rejected for good."""
    WORKER = "prefect.worker.name"
    """The worker that runs the job. The name is Prefect's own."""
    PROCESS = "snakemake.process"
    """The flow process of the job on the worker's machine: `host:pid`."""
    RULE_JOB = "snakemake.rule-job"
    """On a task run: its `RuleJobRecord` as JSON (labels hold scalars only)."""


class ErrorKind(StrEnum):
    """Whether the workflow or the service caused a failure."""

    WORKFLOW = "workflow"
    """The workflow, its input or its configuration: the submitter can fix it."""
    SYSTEM = "system"
    """The service or its machine: the operator can fix it, and a retry may succeed."""


def _plain_requirement(value: str) -> str:
    try:
        requirement = Requirement(value)
    except InvalidRequirement as error:
        raise ValueError(f"{value!r} is not a requirement such as 'pandas >= 2': {error}") from error
    if requirement.url is not None:
        raise ValueError("only names and versions are allowed: the operator decides where packages come from")
    return value


class EnvironmentSpec(Strict):
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


Resources = dict[Name, Amount]


class MockOptions(Strict):
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


class ExecutionSpec(Strict):
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
    directory: ProjectDirectory | None = Field(
        default=None,
        description="A directory on the server to work in, instead of a directory of the job's own. Its "
        "results and Snakemake's records decide what is made again. Without `workflow`, it contains the "
        "Snakefile.",
    )
    workdir: RelativePath | None = Field(
        default=None,
        description="The working directory (`--directory`), relative to the workflow's directory, which is "
        "the default.",
        examples=[".test"],
    )
    inputs: dict[RelativePath, Input] = Field(
        default_factory=dict,
        max_length=1000,
        description="Data on the server that the workflow finds at these paths, as links. Nothing is copied.",
        examples=[{"resources/reads": {"path": "/srv/data/run42"}}],
    )
    files: dict[RelativePath, FileText] = Field(
        default_factory=dict,
        max_length=100,
        description="Small text files to add to the workflow, or to replace files of it.",
        examples=[{"config/samples.tsv": "sample\tunit\nA\t1\n"}],
    )
    targets: tuple[Target, ...] = Field(
        default=(),
        max_length=2000,
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
    env: dict[VariableName, VariableValue] = Field(
        default_factory=dict,
        max_length=200,
        description="Environment variables of Snakemake and the rules. They are no secrets: use `secrets`.",
    )
    secrets: dict[VariableName, SecretName] = Field(
        default_factory=dict,
        max_length=100,
        description="Environment variables whose values are in Prefect's Secret blocks, by block name. The "
        "operator allows blocks for each group.",
        examples=[{"NCBI_API_KEY": "ncbi-api-key"}],
    )
    default_storage: DefaultStorage | None = Field(
        default=None,
        description="Where inputs and outputs lie, if not in the working directory "
        "(`--default-storage-provider`).",
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
    dry_run: bool = Field(
        default=False, description="Only plan: list every rule job with its reason, and run none."
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
        if self.engine is EngineName.SNAKEMAKE and self.workflow is None and self.directory is None:
            raise ValueError(
                'the snakemake engine needs a workflow, for example {"path": "/srv/workflows/variants"}'
            )
        return self

    @model_validator(mode="after")
    def _only_snakemake_plans(self) -> Self:
        if self.dry_run and self.engine is not EngineName.SNAKEMAKE:
            raise ValueError("dry_run needs the snakemake engine")
        return self

    @model_validator(mode="after")
    def _a_directory_has_its_own_files(self) -> Self:
        given = [name for name in ("inputs", "files", "workdir") if getattr(self, name)]
        if self.directory is not None and given:
            raise ValueError(
                f"{', '.join(given)} can't be used with `directory`: the job works in it as it is"
            )
        return self

    @model_validator(mode="after")
    def _variables_are_set_once(self) -> Self:
        twice = sorted(self.env.keys() & self.secrets.keys())
        if twice:
            raise ValueError(f"env and secrets both set {', '.join(twice)}")
        return self


Tags = dict[
    Annotated[str, OneLine, Field(pattern=rf"^[^{TAG_SEPARATOR}\s]+$", max_length=100)],
    Annotated[str, OneLine, Field(max_length=200)],
]


class Webhook(Strict):
    """The receiver to notify when the job reaches a final status."""

    url: HttpUrl = Field(
        description="A public https URL. It receives a signed POST at least once for each end of the job; "
        "a repeated message has the same `webhook-id`.",
        examples=["https://example.org/hooks/jobs"],
    )


_NOT_OF_THE_FLOW = {"name", "group", "tags", "webhook", "spot"}


class JobSpec(ExecutionSpec):
    """The body of `POST /jobs`: what to execute, and how to name and find the job."""

    name: Annotated[str, OneLine] | None = Field(
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

    @field_validator("group")
    @classmethod
    def _has_workers(cls, group: str) -> str:
        if group == ATTACHED_GROUP:
            raise ValueError(f"{group!r} is the group of runs that start elsewhere; no worker takes its jobs")
        return group

    def parameters(self) -> dict[str, Any]:
        """The flow's parameters, as JSON: only those that were set, so that the flow's defaults apply."""
        return self.model_dump(mode="json", exclude=_NOT_OF_THE_FLOW, exclude_unset=True)

    def prefect_tags(self) -> list[str]:
        return [f"{key}{TAG_SEPARATOR}{value}" for key, value in sorted(self.tags.items())]


class RuleJobRecord(Strict):
    """What is known about a rule job beyond Prefect's own fields; stored in `Label.RULE_JOB`."""

    rule: str
    wildcards: dict[str, str] = Field(default_factory=dict)
    threads: int = 1
    resources: dict[str, int | float | str] = Field(default_factory=dict)
    reason: str | None = None
    shell: str | None = None
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    error: str | None = None
    cpu_seconds: float | None = None
    peak_memory_bytes: int | None = None
    external_id: str | None = None
    """The cluster's id of the last attempt."""
    host: str | None = None
    """The node that ran the last attempt."""
    waiting: str | None = None
    """Why it waits on the cluster."""


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
