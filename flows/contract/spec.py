"""The contract of a job: what a client may ask for, and how it is written down in Prefect.

It holds no I/O: models that refuse what they do not know, and the names under which the
flow leaves what the facade reads (`Label`, `RuleJobRecord`).
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
"""PostgreSQL writes 1e44 down as an integer, and Prefect can't send one of more than 64 bits: not
this job, and no list of jobs that it is in.
"""

TAG_SEPARATOR = ":"
"""A job's tag `project=x` is the Prefect tag `project:x`."""

SNAKEFILE_NAMES = ("Snakefile", "snakefile", "workflow/Snakefile", "workflow/snakefile")
"""Where Snakemake looks for a Snakefile, in its order (`snakemake --help`, `--snakefile`)."""


class EngineName(StrEnum):
    """What executes a job."""

    SNAKEMAKE = "snakemake"
    """Snakemake itself, in a child process."""
    MOCK = "mock"
    """No Snakemake: rule jobs that only wait, with an outcome that is drawn by chance."""


class Label(StrEnum):
    """Keys of the Prefect labels through which a flow run tells the facade about its job."""

    SPEC_SHA256 = "snakemake.spec.sha256"
    """Hash of the submitted body: an idempotency key used again must carry the same."""
    RESUMES = "snakemake.resumes"
    """Id of the job that this one goes on with, in its directory."""
    RESUMED_BY = "snakemake.resumed-by"
    """Id of the job that goes on with this one."""
    WES_REQUEST = "snakemake.wes.request"
    """What of a submission to WES the job spec does not hold, as JSON."""
    PHASE = "snakemake.phase"
    """What a running job does before its first rule job, where that takes long; empty afterwards."""
    SNAKEMAKE_VERSION = "snakemake.version"
    """That of the job's environment."""
    PROGRESS_DONE = "snakemake.progress.done"
    """Rule jobs that Prefect has recorded as completed, those already done included."""
    PROGRESS_TOTAL = "snakemake.progress.total"
    """Rule jobs in the plan, as far as it is known (a checkpoint makes it grow)."""
    WORKFLOW_COMMIT = "snakemake.workflow.commit"
    """The commit that a workflow from a git repository was taken from."""
    ERROR_KIND = "snakemake.error.kind"
    ERROR_RULE = "snakemake.error.rule"
    ERROR_MESSAGE = "snakemake.error.message"
    ERROR_RESOLUTION = "snakemake.error.resolution"
    WEBHOOK_URL = "snakemake.webhook.url"
    """Who is told when the job ends."""
    WEBHOOK_DELIVERED = "snakemake.webhook.delivered"
    """Id of the message that the receiver has taken."""
    WEBHOOK_REFUSED = "snakemake.webhook.refused"
    """Id of the message that it never will."""
    RULE_JOB = "snakemake.rule-job"
    """On a task run: its `RuleJobRecord` as JSON (labels hold scalars only)."""


class ErrorKind(StrEnum):
    """Whose fault a failure is."""

    WORKFLOW = "workflow"
    """The workflow, its input or its configuration: the submitter can mend it."""
    SYSTEM = "system"
    """The service or its machine: the operator can mend it, and a retry may succeed."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _relative_path(value: str) -> str:
    path = PurePosixPath(value)
    if path.is_absolute() or ".." in path.parts or value in ("", "."):
        raise ValueError("must be a relative path inside the workflow's directory, without '..'")
    return value


RelativePath = Annotated[str, AfterValidator(_relative_path)]
"""A path that stays where it is."""


def _not_an_option(value: str) -> str:
    if value.startswith("-"):
        raise ValueError("a target is a rule or a file and does not start with '-'")
    return value


def _subdirectory(value: str) -> str:
    return value if value == "." else _relative_path(value)


class WorkflowSource(_Strict):
    """Where the workflow's directory comes from: exactly one of `path`, `git` and `bundle`."""

    path: str | None = Field(
        default=None,
        description="A directory of the server, under one of its workflow roots.",
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
        description="What `PUT /bundles` has answered for the packed directory.",
        pattern=r"^sha256:[0-9a-f]{64}$",
    )
    ref: str | None = Field(
        default=None,
        description="With `git`: a branch, a tag or a whole commit id; the repository's HEAD when absent.",
        pattern=r"^[A-Za-z0-9_][\w./+@-]*$",
        max_length=250,
        examples=["v1.2.0"],
    )
    subdir: Annotated[str, AfterValidator(_subdirectory)] | None = Field(
        default=None,
        description="With `git` or `bundle`: the directory in it that holds the workflow.",
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
            raise ValueError("ref goes with git only")
        if self.subdir is not None and self.path is not None:
            raise ValueError("subdir goes with git or bundle only; append it to path instead")
        return self


def _plain_requirement(value: str) -> str:
    try:
        requirement = Requirement(value)
    except InvalidRequirement as error:
        raise ValueError(f"{value!r} is not a requirement such as 'pandas >= 2': {error}") from error
    if requirement.url is not None:
        raise ValueError("names and versions only: the operator decides where packages come from")
    return value


class EnvironmentSpec(_Strict):
    """The Python environment that Snakemake runs in: exactly one of `name`, `packages` and `file`.

    A text instead of the object is a `name`.
    """

    name: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][\w.-]*$",
        max_length=100,
        description="An environment that the operator declares.",
        examples=["default"],
    )
    packages: tuple[Annotated[str, Field(max_length=300), AfterValidator(_plain_requirement)], ...] = Field(
        default=(),
        max_length=200,
        description="Packages of the job's own, as names and versions; `snakemake` comes with them.",
        examples=[["snakemake == 9.14.0", "pandas >= 2"]],
    )
    file: RelativePath | None = Field(
        default=None,
        description="A requirements file of the workflow: names and versions, a line each.",
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
            raise ValueError("python goes with packages or file; a named environment has its own")
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
    """The options of Snakemake that a job may set: a typed allow-list, no raw command line."""

    keep_going: bool = Field(
        default=False, description="Go on with independent rule jobs after one has failed."
    )
    retries: int = Field(default=0, ge=0, le=20, description="How often a failing rule job is run again.")
    force_all: bool = Field(
        default=False, description="Run every rule job, even if its outputs are up to date."
    )
    report: bool = Field(
        default=False,
        description="Make Snakemake's HTML report when the workflow has ended; it is an output of the job.",
    )
    cache: bool = Field(
        default=False,
        description="Take outputs of rules that say `cache: True` from what earlier jobs have made, and "
        "keep them for later ones.",
    )


Resources = dict[
    Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")], Annotated[int, Field(ge=0, lt=LARGEST_NUMBER)]
]


class MockOptions(_Strict):
    """How the mock engine behaves."""

    delay_seconds: tuple[float, float] = Field(
        default=(10.0, 30.0),
        description="The whole job lasts between these two, in seconds.",
    )
    success_rate: float = Field(
        default=0.8, ge=0, le=1, description="Chance that the job completes, from 0 to 1."
    )
    rules: int = Field(default=4, ge=1, le=20_000, description="Number of rule jobs.")
    seed: int | None = Field(
        default=None,
        gt=-LARGEST_NUMBER,
        lt=LARGEST_NUMBER,
        description="Makes delays and outcome repeatable; by chance when absent.",
    )

    @model_validator(mode="after")
    def _delays_are_ordered(self) -> Self:
        shortest, longest = self.delay_seconds
        if not 0 <= shortest <= longest <= 86_400:
            raise ValueError("delay_seconds must be [shortest, longest], 0 <= shortest <= longest <= 86400")
        return self


class ExecutionSpec(_Strict):
    """What is to be executed: exactly the parameters of the Prefect flow.

    `POST /jobs`, the run form of the Prefect UI and `prefect deployment run -p` all fill
    in this model.
    """

    engine: EngineName = Field(default=EngineName.SNAKEMAKE, description="What executes the job.")
    workflow: WorkflowSource | None = Field(
        default=None, description="Where the workflow comes from; required with Snakemake."
    )
    snakefile: RelativePath | None = Field(
        default=None,
        description="The Snakefile, relative to the workflow's directory; "
        "found as Snakemake finds it when absent.",
        examples=["workflow/Snakefile"],
    )
    targets: tuple[Annotated[str, AfterValidator(_not_an_option)], ...] = Field(
        default=(), max_length=10_000, description="Rules or files to make; the first rule when empty."
    )
    config: dict[str, JsonValue] = Field(
        default_factory=dict, description="Overrides the workflow's configuration, key by key."
    )
    environment: EnvironmentSpec | None = Field(
        default=None,
        description="The Python environment that Snakemake runs in; the one named `default` when absent.",
    )
    software: tuple[SoftwareMethod, ...] = Field(
        default=(),
        description="How the software that rules declare is deployed; `conda:` and `container:` directives "
        "are ignored when empty.",
    )
    cores: int = Field(default=1, ge=1, le=1024, description="Cores that rule jobs may use at once.")
    resources: Resources = Field(
        default_factory=dict,
        description="Limits of further resources, such as `mem_mb`, over all rule jobs at once.",
    )
    timeout_seconds: float | None = Field(
        default=None, gt=0, le=31_536_000, description="The job fails when it has run for longer than this."
    )
    options: Options = Field(default_factory=Options)
    mock: MockOptions = Field(default_factory=MockOptions, description="Only read when `engine` is `mock`.")

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
    """Who is told when the job has reached a final status."""

    url: HttpUrl = Field(
        description="An https address in the internet. It gets a signed POST, at least once for each end "
        "of the job; `webhook-id` tells repetitions.",
        examples=["https://example.org/hooks/jobs"],
    )


_NOT_OF_THE_FLOW = {"name", "group", "tags", "webhook", "spot"}


class JobSpec(ExecutionSpec):
    """The body of `POST /jobs`: an execution, and how the job is called and found again."""

    name: str | None = Field(
        default=None, min_length=1, max_length=200, description="Shown in lists; generated when absent."
    )
    group: str = Field(
        default=DEFAULT_GROUP,
        pattern=r"^[A-Za-z0-9][\w.-]*$",
        max_length=100,
        description="The Prefect deployment that takes the job.",
    )
    tags: Tags = Field(default_factory=dict, max_length=50, description="Free key-value pairs.")
    webhook: Webhook | None = Field(default=None, description="Who is told when the job ends.")
    spot: bool = Field(
        default=False,
        description="Whether the machine may be taken away while the job runs, for a lower price; where the "
        "service has such machines.",
    )

    def parameters(self) -> dict[str, Any]:
        """The flow's parameters, as JSON: only what was set, so that defaults stay the flow's."""
        return self.model_dump(mode="json", exclude=_NOT_OF_THE_FLOW, exclude_unset=True)

    def prefect_tags(self) -> list[str]:
        return [f"{key}{TAG_SEPARATOR}{value}" for key, value in sorted(self.tags.items())]


class RuleJobRecord(_Strict):
    """What is known of a rule job beyond Prefect's own fields; kept in `Label.RULE_JOB`."""

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
    """State names of rule jobs that are ours rather than Prefect's."""

    SKIPPED = "Skipped"
    """Type COMPLETED: the outputs were up to date before the job started."""
    NOT_RUN = "NotRun"
    """Type CANCELLED: never ran, because something before it failed or the job was cancelled."""


def _paths_of_key(data: Any, key: str, path: str = "$") -> Iterator[str]:
    if isinstance(data, Mapping):
        for name, value in data.items():
            if name == key:
                yield f"{path}.{name}"
            yield from _paths_of_key(value, key, f"{path}.{name}")
    elif isinstance(data, Sequence) and not isinstance(data, str | bytes):
        for index, value in enumerate(data):
            yield from _paths_of_key(value, key, f"{path}[{index}]")
