"""What clients read: jobs, rule jobs, logs and outputs, a page at a time."""

from datetime import UTC, datetime
from functools import cached_property
from typing import Annotated, Any, Generic, Literal, Self, TypeVar, get_args
from urllib.parse import quote
from uuid import UUID

from prefect.client.schemas.objects import StateType
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr

from api.web.etags import etag_of
from api.web.statuses import JobStatus, RuleJobStatus
from flows.contract.spec import ErrorKind

Item = TypeVar("Item")
UtcDatetime = Annotated[datetime, AfterValidator(lambda moment: moment.astimezone(UTC))]

_JOB_ID = "0199c2f4-6d1e-7c35-b5d1-6d3f5b0a9c11"
_TASK_ID = "5f0c3a0e-8a55-5c3e-9f43-1d7cb0f6a2d4"


class Progress(BaseModel):
    """How far a job has come."""

    done: int = Field(ge=0, description="Rule jobs that are done, those already done before included.")
    total: int = Field(ge=0, description="Rule jobs in the plan as far as it is known; 0 before it is.")


class JobError(BaseModel):
    """Why a job failed."""

    kind: ErrorKind = Field(description="`workflow`: mend it and submit again; `system`: submit again.")
    rule: str | None = Field(description="The rule that failed, if one did.")
    message: str = Field(description="What happened.")
    resolution: str = Field(description="What to do now.")


class JobLinks(BaseModel):
    """Where to go on from a job."""

    self: str
    tasks: str
    logs: str
    outputs: str
    graph: str = Field(description="An SVG of its rules, with how far each is.")
    ro_crate: str = Field(description="A research object of the job, once it has ended.")
    events: str = Field(description="Server-sent events until the job has ended.")
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
    """A submitted workflow: a flow run of Prefect, with the same id."""

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
                        "resolution": "Read its log, mend the rule, and submit again.",
                    },
                    "tags": {"project": "x"},
                    "links": JobLinks.of(UUID(_JOB_ID), "https://prefect.example.org").model_dump(),
                }
            ]
        }
    )

    id: UUID
    name: str
    group: str = Field(description="The Prefect deployment that took the job.")
    status: JobStatus
    waiting: str | None = Field(
        default=None, description="Why a pending job waits, where its group makes it: it is full, or held."
    )
    engine: str = Field(description="What executes the job: `snakemake` or `mock`.")
    commit: str | None = Field(
        description="The commit that a workflow from a git repository was taken from, once it was."
    )
    created_at: UtcDatetime | None
    updated_at: UtcDatetime | None
    started_at: UtcDatetime | None
    finished_at: UtcDatetime | None
    progress: Progress
    error: JobError | None = Field(description="Only when `status` is `failed`.")
    tags: dict[str, str]
    resumes: UUID | None = Field(default=None, description="The job that this one goes on with.")
    resumed_by: UUID | None = Field(default=None, description="The job that goes on with this one.")
    links: JobLinks

    _state_type: StateType = PrivateAttr(default=StateType.SCHEDULED)

    @property
    def state_type(self) -> StateType:
        """What Prefect says, where it tells more than `status`."""
        return self._state_type

    def in_state(self, state_type: StateType | None) -> Self:
        """The same job, which Prefect says is in this type of state."""
        self._state_type = state_type or StateType.SCHEDULED
        return self

    @cached_property
    def json_text(self) -> str:
        """As it is sent; one answer of Prefect's is sent to many."""
        return self.model_dump_json()

    @cached_property
    def etag(self) -> str:
        """Another one for whatever is sent differently (RFC 9110, 8.8.3)."""
        return etag_of(self.json_text.encode())


class Bundle(BaseModel):
    """The directory of a workflow, packed and kept under the checksum of its bytes."""

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

    bundle: str = Field(description="What a job names it by, as `workflow.bundle`.")
    size_bytes: int = Field(ge=0, description="Of the archive.")
    files: int = Field(ge=1, description="In the archive, links included.")


class RuleJob(BaseModel):
    """One rule of the workflow with its wildcards filled in: a task run of Prefect."""

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
                }
            ]
        }
    )

    id: UUID
    name: str
    rule: str
    wildcards: dict[str, str]
    status: RuleJobStatus
    attempts: int = Field(ge=0, description="How often it was started in this job.")
    started_at: UtcDatetime | None = Field(description="Start of its last attempt.")
    finished_at: UtcDatetime | None
    threads: int
    resources: dict[str, int | float | str]
    reason: str | None = Field(description="Why Snakemake ran it.")
    shell: str | None = Field(description="Its shell command.")
    inputs: list[str]
    outputs: list[str]
    error: str | None
    cpu_seconds: float | None = Field(
        description="CPU time of its last attempt: of its commands and the processes that they waited for. "
        "Null while it runs, and where no command ran."
    )
    peak_memory_bytes: int | None = Field(
        description="The most memory that the largest single process of its last attempt has held. "
        "Null as `cpu_seconds`, and for commands that were too small and too short to be seen."
    )


class LogLine(BaseModel):
    """One entry of a job's or a rule job's log."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "timestamp": "2025-10-07T09:31:11.250000Z",
                    "level": "ERROR",
                    "message": "Attempt 2 failed. It is not run again.",
                    "task_id": _TASK_ID,
                }
            ]
        }
    )

    timestamp: UtcDatetime
    level: str = Field(description="As in Python: `DEBUG`, `INFO`, `WARNING`, `ERROR`, `CRITICAL`.")
    message: str
    task_id: UUID | None = Field(description="The rule job that it belongs to, if to one.")


class Output(BaseModel):
    """One file that a job has made."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "path": "calls/B.vcf",
                    "size_bytes": 2048,
                    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                    "modified_at": "2025-10-07T09:31:11Z",
                    "url": f"/jobs/{_JOB_ID}/outputs/calls/B.vcf",
                }
            ]
        }
    )

    path: str = Field(description="Relative to the workflow's directory.")
    size_bytes: int = Field(ge=0)
    sha256: str = Field(description="Checksum of the content, in hexadecimal.")
    modified_at: UtcDatetime
    url: str = Field(description="Where to download it.")

    @staticmethod
    def url_of(job_id: UUID, path: str) -> str:
        return f"/jobs/{job_id}/outputs/{quote(path)}"


def _with_example(schema: dict[str, Any], page: type[BaseModel]) -> None:
    """A page's example holds the example of its items."""
    (item,) = get_args(page.model_fields["items"].annotation)
    extra = getattr(item, "model_config", {}).get("json_schema_extra")
    if isinstance(extra, dict):
        schema["examples"] = [{"items": extra["examples"], "next_cursor": None}]


class Page(BaseModel, Generic[Item]):
    """Some items, and how to get the next ones."""

    model_config = ConfigDict(json_schema_extra=_with_example)

    items: list[Item]
    next_cursor: str | None = Field(description="Give it as `cursor` for the next page; null at the end.")


class JobPage(Page[Job]):
    """Jobs, newest first."""


class RuleJobPage(Page[RuleJob]):
    """Rule jobs, in an order that never changes."""


class LogPage(Page[LogLine]):
    """Log lines, oldest first."""


class OutputPage(Page[Output]):
    """Outputs, by path."""


class Alive(BaseModel):
    """The service runs."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "alive"}]})

    status: Literal["alive"] = "alive"
