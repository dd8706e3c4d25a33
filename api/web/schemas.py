"""What clients read: jobs, rule jobs, logs and outputs, page by page."""

from datetime import UTC, datetime
from functools import cached_property
from typing import Annotated, Any, Generic, Literal, Self, TypeVar, get_args
from urllib.parse import quote
from uuid import UUID

from prefect.client.schemas.objects import StateType
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr

from api.web.etags import etag_of
from api.web.statuses import JobStatus, RuleJobStatus
from flows.contract.manifest import FileKind
from flows.contract.spec import ErrorKind

Item = TypeVar("Item")
UtcDatetime = Annotated[datetime, AfterValidator(lambda moment: moment.astimezone(UTC))]

_JOB_ID = "0199c2f4-6d1e-7c35-b5d1-6d3f5b0a9c11"
_TASK_ID = "5f0c3a0e-8a55-5c3e-9f43-1d7cb0f6a2d4"


class Progress(BaseModel):
    """The progress of a job."""

    done: int = Field(
        ge=0, description="Rule jobs that are done, including those whose outputs were up to date."
    )
    total: int = Field(ge=0, description="Rule jobs in the plan as far as it is known; 0 before planning.")


class JobError(BaseModel):
    """Why a job failed."""

    kind: ErrorKind = Field(
        description="`workflow`: correct the workflow and submit it again. `system`: resume the job."
    )
    rule: str | None = Field(description="The rule that failed, if the job failed because of one.")
    message: str = Field(description="What went wrong.")
    resolution: str = Field(description="What to do now.")


class RegisteredSource(BaseModel):
    """A registered workflow."""

    name: str
    version: str | None


class JobLinks(BaseModel):
    """Addresses about a job."""

    self: str
    tasks: str
    logs: str
    outputs: str
    graph: str = Field(description="A drawing (SVG) of its rules with their progress.")
    ro_crate: str = Field(description="A research object (RO-Crate) of the job, once it has ended.")
    events: str = Field(description="Server-sent events, until the job has ended.")
    prefect: str = Field(description="The flow run in Prefect's UI.")

    @classmethod
    def of(cls, job_id: UUID, prefect_ui_url: str) -> Self:
        job = f"/jobs/{job_id}"
        return cls(
            self=job,
            tasks=f"{job}/tasks",
            logs=f"{job}/logs",
            outputs=f"{job}/outputs",
            graph=f"{job}/graph.svg",
            ro_crate=f"{job}/ro-crate",
            events=f"{job}/events",
            prefect=f"{prefect_ui_url}/runs/flow-run/{job_id}",
        )


class Job(BaseModel):
    """A submitted workflow: a flow run in Prefect, with the same id."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": _JOB_ID,
                    "name": "trio-1",
                    "group": "default",
                    "status": "failed",
                    "engine": "snakemake",
                    "commit": "9fceb02d0ae598e95dc970b74767f19372d61af8",
                    "created_at": "2025-10-07T09:30:00Z",
                    "updated_at": "2025-10-07T09:31:12Z",
                    "started_at": "2025-10-07T09:30:02Z",
                    "finished_at": "2025-10-07T09:31:12Z",
                    "progress": {"done": 7, "total": 12},
                    "error": {
                        "kind": "workflow",
                        "rule": "call",
                        "message": "call[sample=B] failed: exit code 1",
                        "resolution": "Read the log of the rule job, correct the rule, and submit again.",
                    },
                    "tags": {"project": "x"},
                    "links": JobLinks.of(UUID(_JOB_ID), "https://prefect.example.org").model_dump(),
                }
            ]
        }
    )

    id: UUID
    name: str
    group: str = Field(description="The group that runs the job: a deployment in Prefect.")
    status: JobStatus
    waiting: str | None = Field(
        default=None,
        description="Why a pending job waits, if the reason is its group: it is full, or on hold.",
    )
    phase: str | None = Field(
        default=None,
        description="What a running job does before its first rule job, while that takes long.",
    )
    workflow: RegisteredSource | None = Field(
        default=None, description="The registered workflow that the job runs, if it runs one."
    )
    engine: str = Field(description="What executes the job: `snakemake` or `mock`.")
    snakemake_version: str | None = Field(
        default=None, description="The version of Snakemake in the job's environment, once it has one."
    )
    dry_run: bool = Field(default=False, description="Whether the job only plans.")
    attached: bool = Field(
        default=False,
        description="Whether it is a run that started elsewhere and reports here: it can be watched and "
        "cancelled, but not resumed, and its files are not here.",
    )
    place: str | None = Field(
        default=None, description="Where an attached run runs, and its files are: `user@host:directory`."
    )
    commit: str | None = Field(
        description="The commit of a workflow from a git repository, once the worker has checked it out."
    )
    created_at: UtcDatetime | None
    updated_at: UtcDatetime | None
    started_at: UtcDatetime | None
    finished_at: UtcDatetime | None
    progress: Progress
    error: JobError | None = Field(description="Only when `status` is `failed`.")
    tags: dict[str, str]
    resumes: UUID | None = Field(default=None, description="The job that this one continues.")
    changes: list[str] = Field(
        default_factory=list, description="Fields of the spec that differ from the job that it continues."
    )
    resumed_by: UUID | None = Field(default=None, description="The job that continues this one.")
    links: JobLinks

    _state_type: StateType = PrivateAttr(default=StateType.SCHEDULED)

    @property
    def state_type(self) -> StateType:
        """The type of its state in Prefect, which is more detailed than `status`."""
        return self._state_type

    def in_state(self, state_type: StateType | None) -> Self:
        """The same job, with the type of its state in Prefect."""
        self._state_type = state_type or StateType.SCHEDULED
        return self

    @cached_property
    def json_text(self) -> str:
        """The JSON that is sent; cached, because one job is sent to many clients."""
        return self.model_dump_json()

    @cached_property
    def etag(self) -> str:
        """Identifies what is sent (RFC 9110, 8.8.3)."""
        return etag_of(self.json_text.encode())


class BundleLimits(BaseModel):
    """How large a bundle may be."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"max_bytes": 268_435_456, "max_unpacked_bytes": 1_073_741_824, "max_entries": 10_000}
            ]
        }
    )

    max_bytes: int = Field(description="Largest size of the archive, in bytes.")
    max_unpacked_bytes: int = Field(description="Largest size of all its files together, in bytes.")
    max_entries: int = Field(description="Most files, directories and links.")


class Bundle(BaseModel):
    """An archive of a workflow's directory, stored under the checksum of its bytes."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "bundle": "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                    "size_bytes": 20480,
                    "files": 12,
                }
            ]
        }
    )

    bundle: str = Field(description="The name of the bundle, for `workflow.bundle` of a job.")
    size_bytes: int = Field(ge=0, description="The size of the archive.")
    files: int = Field(ge=1, description="Files in the archive, including links.")


class RuleJob(BaseModel):
    """One rule of the workflow with its wildcards filled in: a task run in Prefect."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": _TASK_ID,
                    "name": "call[sample=B]",
                    "rule": "call",
                    "wildcards": {"sample": "B"},
                    "status": "failed",
                    "attempts": 2,
                    "started_at": "2025-10-07T09:31:02Z",
                    "finished_at": "2025-10-07T09:31:11Z",
                    "threads": 4,
                    "resources": {"mem_mb": 4000},
                    "reason": "Missing output files: calls/B.vcf",
                    "shell": "bcftools call -mv mapped/B.bam > calls/B.vcf",
                    "inputs": ["mapped/B.bam"],
                    "outputs": ["calls/B.vcf"],
                    "error": "exit code 1",
                    "cpu_seconds": 31.4,
                    "peak_memory_bytes": 412_090_368,
                    "external_id": "184467",
                    "host": "node07",
                    "waiting": None,
                }
            ]
        }
    )

    id: UUID
    name: str
    rule: str
    wildcards: dict[str, str]
    status: RuleJobStatus
    attempts: int = Field(ge=0, description="How many times it was started in this job.")
    started_at: UtcDatetime | None = Field(description="When its last attempt started.")
    finished_at: UtcDatetime | None
    threads: int
    resources: dict[str, int | float | str]
    reason: str | None = Field(description="Why Snakemake runs it.")
    shell: str | None = Field(description="Its shell command.")
    inputs: list[str]
    outputs: list[str]
    error: str | None
    cpu_seconds: float | None = Field(
        description="CPU time of its last attempt: its commands, and the processes that they waited for. "
        "Null while it runs, and if it ran no command."
    )
    peak_memory_bytes: int | None = Field(
        description="Peak memory of the largest single process of its last attempt. "
        "Null like `cpu_seconds`, and for commands that were too small and too short to be measured."
    )
    external_id: str | None = Field(description="The cluster's id of its last attempt.")
    host: str | None = Field(description="The node of the cluster that ran its last attempt.")
    waiting: str | None = Field(description="Why it waits in the queue of the cluster.")


class LogLine(BaseModel):
    """One entry of the log of a job or a rule job."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "timestamp": "2025-10-07T09:31:11.250000Z",
                    "level": "ERROR",
                    "message": "Attempt 2 failed. It will not be retried.",
                    "task_id": _TASK_ID,
                }
            ]
        }
    )

    timestamp: UtcDatetime
    level: str = Field(description="`DEBUG`, `INFO`, `WARNING`, `ERROR` or `CRITICAL`.")
    message: str
    task_id: UUID | None = Field(description="The rule job that wrote it, if one did.")


class Output(BaseModel):
    """One file that a job has published."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "path": "calls/B.vcf",
                    "kind": "output",
                    "size_bytes": 2048,
                    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                    "modified_at": "2025-10-07T09:31:11Z",
                    "url": f"/jobs/{_JOB_ID}/outputs/calls/B.vcf",
                }
            ]
        }
    )

    path: str = Field(
        description="Relative to the workflow's directory; percent-encoded if the file's name is not UTF-8."
    )
    kind: FileKind = Field(
        description="`output`; `report`: Snakemake's report; `log`: a `log:` file of a rule, what an attempt "
        "wrote (below `.snakemake/attempts`), or Snakemake's log; `benchmark`: a `benchmark:` file."
    )
    size_bytes: int = Field(ge=0)
    sha256: str | None = Field(
        description="SHA-256 of the content, in hexadecimal; null for a file that is larger than the "
        "operator's limit for checksums."
    )
    modified_at: UtcDatetime
    url: str = Field(description="Where to download the file.")

    @staticmethod
    def url_of(job_id: UUID, path: str) -> str:
        return f"/jobs/{job_id}/outputs/{quote(path)}"


def _with_example(schema: dict[str, Any], page: type[BaseModel]) -> None:
    """Makes the example of a page from the example of its items."""
    (item,) = get_args(page.model_fields["items"].annotation)
    extra = getattr(item, "model_config", {}).get("json_schema_extra")
    if isinstance(extra, dict):
        schema["examples"] = [{"items": extra["examples"], "next_cursor": None}]


class Page(BaseModel, Generic[Item]):
    """Some items, and the cursor of the next page."""

    model_config = ConfigDict(json_schema_extra=_with_example)

    items: list[Item]
    next_cursor: str | None = Field(
        description="Pass it as `cursor` to get the next page; null on the last page."
    )


class JobPage(Page[Job]):
    """Jobs, newest first."""


class RuleJobPage(Page[RuleJob]):
    """Rule jobs, in a stable order."""


class LogPage(Page[LogLine]):
    """Log lines, oldest first."""


class OutputPage(Page[Output]):
    """Outputs, sorted by path."""


class Alive(BaseModel):
    """The service is running."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "alive"}]})

    status: Literal["alive"] = "alive"
