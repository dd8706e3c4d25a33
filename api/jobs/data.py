"""Checks the data and the directory of a job before Prefect is asked."""

from api.jobs.visible_jobs import VisibleJobs
from api.settings import Settings
from api.web.problems import DataRefused, FieldProblem, NotFound, sentence
from api.web.statuses import JobStatus
from flows.contract import data_roots
from flows.contract.data_roots import check_input_path, check_project_path
from flows.contract.spec import EngineName, JobSpec
from flows.contract.untrusted_tree import Refused
from flows.contract.workflow_roots import SnakefileMissing, find_snakefile


def check_data(spec: JobSpec, settings: Settings) -> None:
    """Raises `DataRefused`. The worker checks again, and may be another machine."""
    if spec.engine is not EngineName.SNAKEMAKE:
        return
    for name, data in spec.inputs.items():
        if data.job is not None:
            continue
        try:
            check_input_path(data.path, settings.data_roots_of(spec.group))
        except data_roots.DataRefused as refusal:
            raise _refused(refusal, f"#/inputs/{_escaped(name)}/path") from refusal
    if spec.directory is not None:
        try:
            directory = check_project_path(spec.directory.path, settings.project_roots_of(spec.group))
            if spec.workflow is None and directory.is_dir():
                find_snakefile(directory, spec.snakefile)
        except (data_roots.DataRefused, SnakefileMissing) as refusal:
            raise _refused(refusal, "#/directory/path") from refusal


async def check_outputs_of_jobs(jobs: VisibleJobs, spec: JobSpec, settings: Settings) -> None:
    """Raises `DataRefused` unless each job whose outputs are inputs is of the group, and has completed."""
    for name, data in spec.inputs.items():
        if data.job is None:
            continue
        pointer = f"#/inputs/{_escaped(name)}/job"
        if settings.storage_url is not None:
            detail = "Outputs of jobs are in S3, where a job can't link them."
            raise _wrong(detail, "Let the workflow read them by a storage plugin.", pointer)
        try:
            job = await jobs.get(data.job)
        except NotFound as error:
            raise _wrong(error.detail, error.resolution, pointer) from error
        if job.group != spec.group or job.attached:
            detail = f"The job {data.job} is not of the group '{spec.group}'."
            raise _wrong(detail, "Name a job of the same group.", pointer)
        if job.status is not JobStatus.COMPLETED or job.dry_run:
            detail = f"The job {data.job} has not completed, or is a dry run."
            raise _wrong(detail, "Name a job that has completed.", pointer)


def _wrong(detail: str, resolution: str, pointer: str) -> DataRefused:
    return DataRefused(detail, resolution, [FieldProblem(pointer=pointer, message=detail)])


def _refused(refusal: Refused, pointer: str) -> DataRefused:
    detail = sentence(refusal)
    return _wrong(detail, refusal.resolution, pointer)


def _escaped(name: str) -> str:
    """A key as part of a JSON pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")
