"""Checks the environment and the software of a job before Prefect is asked."""

from api.settings import Settings
from api.web.problems import EnvironmentRefused, FieldProblem
from flows.contract.environments import refusal
from flows.contract.spec import EngineName, ExecutionSpec, JobSpec


def check_environment(spec: ExecutionSpec, settings: Settings) -> None:
    """Raises `EnvironmentRefused`. Whether packages can be installed, only the worker finds out."""
    if spec.engine is not EngineName.SNAKEMAKE:
        return
    if (reason := refusal(spec.environment, settings)) is not None:
        raise _refused(
            f"The job's environment is not offered: {reason}.",
            "Name one that is, or ask the operator to declare it in prefect.yaml.",
            "#/environment",
        )
    missing = [method for method in spec.software if method not in settings.software_methods]
    if missing:
        offered = ", ".join(settings.software_methods) or "none"
        raise _refused(
            f"This service does not deploy software by {', '.join(missing)}; it offers: {offered}.",
            "Leave it out, or ask the operator to allow it (JOBS_SOFTWARE_METHODS).",
            "#/software",
        )


def check_executor(spec: JobSpec, settings: Settings) -> None:
    """Raises `EnvironmentRefused` if the job sets what only the operator of its group's cluster may set."""
    cluster = settings.executor_of(spec.group)
    if cluster is not None and (reason := cluster.refusal(spec.options)) is not None:
        raise _refused(
            f"The job can't have these options: {reason}.",
            "Leave them out: the operator sets them for the group (executors in prefect.yaml).",
            "#/options",
        )


def _refused(detail: str, resolution: str, pointer: str) -> EnvironmentRefused:
    return EnvironmentRefused(detail, resolution, [FieldProblem(pointer=pointer, message=detail)])
