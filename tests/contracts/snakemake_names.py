"""Prints what is not as our part of Snakemake's process needs it: run in the environment of a Snakemake.

python tests/contracts/snakemake_names.py
"""

import inspect
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from typing import Any

VERSION = tuple(int(part) for part in version("snakemake").split(".")[:2])


def main() -> None:
    for problem in [
        *_problems_of_methods(),
        *_problems_of_names(),
        *_problems_of_modules(),
        *(_problems_of_records() if VERSION >= (9, 0) else ()),
    ]:
        sys.stdout.write(f"{problem}\n")


def _problems_of_methods() -> list[str]:
    """Methods that we replace or extend take what they took."""
    import_module("snakemake.api")  # first, because it and `snakemake.workflow` import each other
    local = import_module("snakemake.executors.local").Executor
    conda = import_module("snakemake.deployment.conda")
    wanted: dict[Any, str] = {
        local.__post_init__: "self",
        local.cached_or_run: "self, job, run_func, args",
        local.cancel: "self",
        local.run_job: "self, job",
        local.run_job_pre: "self, job",
        local.run_jobs: "self, jobs",
        local.shutdown: "self",
        local.envvars: "self",
        local.get_envvar_declarations: "self",
        local.handle_job_success: "self, job",
        local.handle_job_error: "self, job",
        _scheduler().exit_gracefully: "self, args",
        conda.Env.create: "self, dryrun",
        conda.get_env_setup_done_flag_file: "env_path",
        import_module("snakemake.deployment.singularity").Image.pull: "self, dryrun",
        import_module("snakemake.cli").main: "argv",
        import_module("snakemake.cli").get_argument_parser: "profiles",
    }
    return [
        f"{method.__qualname__} takes {taken}, not {parameters}"
        for method, parameters in wanted.items()
        if (taken := ", ".join(inspect.signature(method).parameters)) != parameters
    ]


def _problems_of_names() -> list[str]:
    """Attributes that we read or set are used by the class that we read them from."""
    dag = import_module("snakemake.dag").DAG
    conda = import_module("snakemake.deployment.conda").Env
    image = import_module("snakemake.deployment.singularity").Image
    rule = import_module("snakemake.rules").Rule
    file = import_module("snakemake.io")._IOFile
    wanted = {
        file: ["is_storage", "storage_object"],
        _scheduler(): ["_user_kill", "_open_jobs", "_lock"],
        dag: ["_running", "_ready_jobs", "dependencies", "jobid", "needrun", "reason", "jobs"],
        conda: ["address", "file", "is_containerized", "is_externally_managed"],
        image: ["is_local", "path", "url"],
        rule: ["conda_env", "container_img", "env_modules", "is_checkpoint"],
        import_module("snakemake.workflow").Workflow: ["dag", "envvars", "is_main_process"],
        import_module("snakemake.jobs").Job: ["attempt", "is_group", "restart_times", "shellcmd"],
    }
    return [
        f"{owner.__qualname__} has no {name}"
        for owner, names in wanted.items()
        for name in names
        if not hasattr(owner, name) and f"self.{name}" not in inspect.getsource(owner)
    ]


def _problems_of_modules() -> list[str]:
    """Modules use `subprocess`, and messages go, by the name that we replace."""
    import_module("snakemake.api")
    found = []
    if sys.modules["snakemake.shell"].sp is not subprocess:
        found.append("snakemake.shell does not call subprocess `sp`")
    if import_module("snakemake.executors.local").subprocess is not subprocess:
        found.append("snakemake.executors.local does not import subprocess")
    format_error = import_module("snakemake.exceptions").format_error
    if list(inspect.signature(format_error).parameters)[:3] != ["ex", "lineno", "linemaps"]:
        found.append("snakemake.exceptions.format_error takes no linemaps")
    logging = import_module("snakemake.logging")
    if not any(hasattr(logging, name) for name in ("ColorizingTextHandler", "ColorizingStreamHandler")):
        found.append("snakemake.logging has no handler that writes to a stream")
    if not isinstance(import_module("snakemake.caching").LOCATION_ENVVAR, str):
        found.append("snakemake.caching does not name its variable")
    if VERSION < (9, 0):
        if not isinstance(logging.logger.log_handler, list):
            found.append("snakemake.logging.logger has no list log_handler")
        if not callable(logging.setup_logger):
            found.append("snakemake.logging has no setup_logger")
    return found


def _problems_of_records() -> list[str]:
    """The logger plugin `prefect` (flows/attach) meets the records, texts and frames that it knows."""
    found = []
    if import_module("snakemake.logging").logger.name != "snakemake.logging":
        found.append("Snakemake's logger has another name")
    scheduler = inspect.getsource(_scheduler())
    for text in (
        "async def postprocess():",
        "for job in self._tofinish:",
        "Terminating processes on user request, this might take some time.",
        "Will exit after finishing currently running jobs (scheduler).",
        "extra=dict(event=LogEvent.JOB_FINISHED, job_id=job.jobid)",
        "event=LogEvent.JOB_STARTED",
    ):
        if text not in scheduler:
            found.append(f"the scheduler has no {text!r}")
    execute = inspect.getsource(import_module("snakemake.workflow").Workflow.execute)
    if "event=LogEvent.RUN_INFO" not in execute:
        found.append("Workflow.execute logs no statistics of its graph")
    return found


def _scheduler() -> Any:
    """It moved in 9.8."""
    try:
        return import_module("snakemake.scheduling.job_scheduler").JobScheduler
    except ModuleNotFoundError:
        return import_module("snakemake.scheduler").JobScheduler


if __name__ == "__main__":
    main()
