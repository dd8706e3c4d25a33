"""The executor of a group as arguments of `snakemake`, its plugin's settings, and what it leaves behind."""

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

from flows.contract.executors import RULE_JOB_TAG, SLURM, ClusterExecutor, PluginSetting
from flows.contract.options import Options
from flows.environments.environment import Environment
from flows.snakemake_process.decisions import ClusterDecisions
from flows.snakemake_process.events import LEDGER

_QUERY_SECONDS = 120.0
_COMMAND_SECONDS = 30.0
_AGAIN_SECONDS = 0.5
_NO_PLUGIN = 2
_IDENTITY = re.compile(r"^\w[\w.:\[\]-]{0,200}$")
"""Of a job on a cluster; rules can write the file that has them."""
_SLURM_VARIABLES = ("SLURM_CONF", "SLURM_CLUSTERS", "SBATCH_*", "SQUEUE_*")
_SLURM_DIRECTORIES = (
    "/run/munge",
    "/var/run/munge",
    "/run/slurm",
    "/etc/slurm",
    "/var/spool/slurmd/conf-cache",
)


class PluginMissing(LookupError):
    """The environment has no such executor plugin."""


def executor_arguments(cluster: ClusterExecutor, job_id: UUID, cores: int) -> list[str]:
    """The arguments for `cluster`; `cores` are for the rules that run beside Snakemake."""
    arguments = [
        f"--executor={cluster.executor}",
        f"--jobs={cluster.jobs}",
        f"--local-cores={cores}",
        *(
            _setting(cluster.executor, name, value)
            for name, value in cluster.settings.items()
            if value is not False
        ),
    ]
    if cluster.cores is not None:
        arguments.append(f"--cores={cluster.cores}")
    if cluster.executor == SLURM:
        arguments.append(f"--slurm-jobname-prefix={job_id}")  # by which `sweep` finds what is left
    if cluster.container_image is not None:
        arguments.append(f"--container-image={cluster.container_image}")
    return arguments


def with_defaults(options: Options, cluster: ClusterExecutor) -> Options:
    """The options of a job, with those of the cluster where the job sets none."""
    if options.default_resources is None:
        return options
    return options.model_copy(
        update={"default_resources": {**cluster.default_resources, **options.default_resources}}
    )


def decisions_of(cluster: ClusterExecutor, options: Options, job_id: UUID) -> ClusterDecisions:
    """What Snakemake's process needs to know about the cluster."""
    return ClusterDecisions(
        executor=cluster.executor,
        default_resources=dict(cluster.default_resources),
        operator_resources=tuple(sorted(cluster.resources_of_operator())),
        least_memory_mb=cluster.least_memory_mb,
        cancel_seconds=cluster.cancel_seconds,
        latency_wait=cluster.latency_wait if options.latency_wait is None else None,
        job_definition=cluster.job_definition,
        job_id=str(job_id),
        job_tags={RULE_JOB_TAG: str(job_id)},
    )


def visible_variables_of(cluster: ClusterExecutor) -> tuple[str, ...]:
    """The worker's variables that the cluster's commands need."""
    return _SLURM_VARIABLES if cluster.executor == SLURM else ()


def visible_directories_of(cluster: ClusterExecutor) -> Iterator[Path]:
    """Directories that the cluster's commands need in the room of a job."""
    if cluster.executor != SLURM:
        return
    yield from map(Path, _SLURM_DIRECTORIES)
    if "SLURM_CONF" in os.environ:
        yield Path(os.environ["SLURM_CONF"]).absolute().parent


def settings_of_plugin(executor: str, environment: Environment) -> list[PluginSetting]:
    """The settings of the plugin in `environment`.

    Raises `PluginMissing`, or `OSError` if it can't be asked.
    """
    program = environment.runtime / "flows" / "snakemake_process" / "cluster" / "plugin_settings.py"
    command = [str(environment.python), str(program), executor]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_QUERY_SECONDS, check=False)
    if done.returncode == _NO_PLUGIN:
        raise PluginMissing(f"its environment has no executor plugin '{executor}'")
    if done.returncode:
        raise OSError(f"the executor plugin '{executor}' can't be loaded: {done.stderr.strip()[-500:]}")
    return [PluginSetting.model_validate_json(line) for line in done.stdout.splitlines()]


def sweep(cluster: ClusterExecutor, job_id: UUID, work: Path) -> int:
    """Cancel what an execution in `work` has left on the cluster. Returns how many jobs that were.

    For the case that its Snakemake was killed. Raises `OSError` if the cluster does not answer in time.
    """
    if cluster.executor == SLURM:
        return _sweep_slurm(f"{job_id}_", cluster.cancel_seconds)
    if cancel := cluster.settings.get("cancel_cmd"):
        return _cancel_ids(str(cancel), work)
    return 0


def _sweep_slurm(prefix: str, seconds: float) -> int:
    """By the name of the run, so that a job whose id nobody has noted is found, too."""
    deadline = time.monotonic() + seconds
    cancelled: set[str] = set()
    while time.monotonic() < deadline:
        held = _held_by_slurm(prefix)
        if not held:
            return len(cancelled)
        cancelled |= held
        _run("scancel", *held)
        time.sleep(_AGAIN_SECONDS)
    raise OSError(f"SLURM did not end all jobs of {prefix.rstrip('_')} within {seconds:g} seconds")


def _held_by_slurm(prefix: str) -> set[str]:
    rows = (line.split("|", 1) for line in _run("squeue", "-h", "-r", "--me", "-o", "%i|%j").splitlines())
    return {row[0] for row in rows if row[-1].startswith(prefix)}


def _cancel_ids(command: str, work: Path) -> int:
    """By the ids that the execution has noted. Those that have ended are refused, which does not matter."""
    try:
        ids = [json.loads(line) for line in (work / LEDGER).read_text().splitlines()]
    except (OSError, ValueError):
        return 0
    known = [each for each in ids if isinstance(each, str) and _IDENTITY.match(each)]
    for external_id in known:
        subprocess.run([command, external_id], capture_output=True, timeout=_COMMAND_SECONDS, check=False)
    return len(known)


def _run(*command: str) -> str:
    """What a command prints. Raises `OSError` if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=True)
    except subprocess.SubprocessError as error:
        raise OSError(f"{command[0]} failed: {error}") from error
    return done.stdout


def _setting(executor: str, name: str, value: object) -> str:
    option = f"--{executor}-{name.replace('_', '-')}"
    return option if value is True else f"{option}={value}"
