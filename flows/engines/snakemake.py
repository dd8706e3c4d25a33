"""Snakemake as an engine: its command line, its environment variables, and its process."""

import contextlib
import logging
import os
import socket
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Self

from flows.contract.executors import ClusterExecutor
from flows.contract.isolation import IsolationSettings
from flows.contract.spec import ExecutionSpec
from flows.engines.batch_credentials import batch_variables
from flows.engines.cluster import (
    decisions_of,
    executor_arguments,
    sweep,
    visible_directories_of,
    visible_variables_of,
    with_defaults,
)
from flows.engines.engine import EngineVanishedError
from flows.engines.options import option_arguments, profile_arguments, switched_off
from flows.engines.software import Software
from flows.engines.storage import storage_arguments
from flows.environments.environment import Environment
from flows.environments.variables import visible_variables
from flows.environments.warm import start_supervisor
from flows.isolation.plan import create_private_directories, room_for
from flows.snakemake_process.decisions import Decisions
from flows.snakemake_process.events import EngineExited, ProtocolError, WorkflowEvent, decode
from flows.snakemake_process.supervisor import LOCKS, TERMINATE, Start
from flows.workspace.workspace import Workspace

logger = logging.getLogger("prefect.flow_runs.snakemake")

_LEAVING_SECONDS = 30.0
"""The supervisor needs 8 s at most, unless the kernel can't end a process."""

REPORT_REQUIREMENT = "pygments"
"""What Snakemake needs for a report beyond what it installs (its extra `reports`)."""

_REPORT_SECONDS = 300
"""Time limit for the report, because the job waits for it."""

_OUTPUT_CACHE_VARIABLE = "SNAKEMAKE_OUTPUT_CACHE"
"""The directory of Snakemake's between-workflow cache (`snakemake.caching`)."""


class SnakemakeEngine:
    """Runs Snakemake in a process of the workflow's environment, with the software that rules declare."""

    def __init__(
        self,
        environment: Environment,
        software: Software,
        secrets: Mapping[str, str] = MappingProxyType({}),
        isolation: IsolationSettings | None = None,
        cluster: ClusterExecutor | None = None,
    ) -> None:
        """`secrets` are environment variables that only Snakemake and the rules see.

        Rule jobs run on `cluster`, and on this machine without one.
        """
        self._environment = environment
        self._software = software
        self._secrets = dict(secrets)
        self._isolation = isolation or IsolationSettings()
        self._cluster = cluster

    def start(self, spec: ExecutionSpec, workspace: Workspace) -> "SnakemakeExecution":
        cluster = None if spec.dry_run else self._cluster
        variables = self._variables(workspace)
        workspace.report.unlink(missing_ok=True)  # from an earlier execution in this directory
        cache = _output_cache(spec, workspace)
        more = tuple(visible_directories_of(cluster)) if cluster else ()
        room = room_for(
            spec,
            workspace,
            self._environment,
            self._software,
            self._isolation,
            cache,
            more,
            is_on_cluster=cluster is not None,
        )
        start = Start(
            argv=tuple(snakemake_arguments(spec, workspace, self._environment, self._software, cluster)),
            directory=str(workspace.work),
            log_path=str(workspace.raw_log if self._secrets else workspace.snakemake_log),
            environment=variables | spec.env | self._secrets | _cache_variable(cache),
            decisions=asdict(_decisions(spec, workspace, self._software, variables["PATH"], cluster)),
            report_argv=tuple(report_arguments(spec, workspace)) if spec.options.report else (),
            report_seconds=_REPORT_SECONDS,
            room=None if room is None else asdict(room),
            variables_in_room={} if "TMPDIR" in spec.env | self._secrets else {"TMPDIR": "/tmp"},
            limits=self._isolation.limits_of(workspace.group),
            cancel_seconds=cluster.cancel_seconds if cluster else 0.0,
        )

        def connect(*, is_warm: bool) -> socket.socket:
            control = start_supervisor(self._environment, variables, is_warm=is_warm)
            return _started(control, start, workspace.work_locks)

        start_again = partial(connect, is_warm=False)
        try:
            try:
                control = connect(is_warm=True)
            except ConnectionError:  # the worker was killed before it could fork a supervisor
                control = start_again()
            clear = partial(sweep, cluster, workspace.job_id, workspace.work) if cluster else None
            return SnakemakeExecution(control, start_again, workspace.report, clear, start.cancel_seconds)
        except OSError as error:
            raise EngineVanishedError(
                "Snakemake's process did not start; see the worker's log for the reason"
            ) from error

    def _variables(self, workspace: Workspace) -> dict[str, str]:
        """A dry run has those of a cluster, too: it asks the storage what there is."""
        cluster, home = self._cluster, create_private_directories(workspace)
        visible = (*self._isolation.visible_variables, *(visible_variables_of(cluster) if cluster else ()))
        return {
            **workflow_variables(self._environment, self._software, visible),
            "HOME": str(home),
            **(batch_variables(cluster, self._environment, home) if cluster else {}),
        }


def _started(control: socket.socket, start: Start, locks: list[int]) -> socket.socket:
    """Send the request to the supervisor. Raises `OSError`."""
    try:
        # The directory stays locked until all processes of Snakemake have ended, even if the flow ends first.
        socket.send_fds(control, [LOCKS], locks)
        control.sendall(start.to_line())
    except OSError:
        control.close()
        raise
    return control


def snakemake_arguments(
    spec: ExecutionSpec,
    workspace: Workspace,
    environment: Environment,
    software: Software,
    cluster: ClusterExecutor | None = None,
) -> list[str]:
    """The command line of `snakemake` for `spec`, built only from typed options."""
    if cluster is None:
        executor, options = [f"--cores={spec.cores}", "--executor=prefect"], spec.options
    else:
        executor = executor_arguments(cluster, workspace.job_id, spec.cores)
        options = with_defaults(spec.options, cluster)
    arguments = [
        *executor,
        *(["--logger=prefect-events"] if environment.has_logger_plugins else []),
        *_common_arguments(spec, workspace),
        "--scheduler=greedy",  # `flows.snakemake_process.scheduling` makes the same choices in linear time
        *option_arguments(options),
        *software.arguments(),
    ]
    if spec.dry_run:
        arguments.append("--dry-run")
    if spec.resources:
        arguments += ["--resources", *(f"{name}={limit}" for name, limit in spec.resources.items())]
    return [*arguments, "--", *spec.targets]


def report_arguments(spec: ExecutionSpec, workspace: Workspace) -> list[str]:
    """The command line of `snakemake` that creates the report of the execution of `spec`."""
    stylesheet = spec.options.report_stylesheet
    return [
        f"--cores={spec.cores}",
        f"--report={workspace.report}",
        *([f"--report-stylesheet={stylesheet}"] if stylesheet else []),
        *_common_arguments(spec, workspace),
        "--",
        *spec.targets,
    ]


def _common_arguments(spec: ExecutionSpec, workspace: Workspace) -> list[str]:
    arguments = [
        f"--snakefile={workspace.snakefile(spec)}",
        "--nocolor",
        *storage_arguments(spec.default_storage),
    ]
    if not workspace.is_shared:
        # Its directory is already locked, with a lock that is released after a crash.
        arguments.append("--nolock")
    if spec.workdir is not None:
        arguments.append(f"--directory={spec.workdir}")
    if spec.options.configfiles:
        arguments += ["--configfile", *spec.options.configfiles]
    return [*arguments, *profile_arguments(spec.options, workspace.offered_profiles())]


def _decisions(
    spec: ExecutionSpec, workspace: Workspace, software: Software, path: str, cluster: ClusterExecutor | None
) -> Decisions:
    return Decisions(
        config_file=str(workspace.config_file) if spec.config else None,
        private_directory=str(workspace.private),
        switched_off=tuple(switched_off(spec.options)),
        names_software=bool(software.methods),
        method_variables=software.method_variables(path),
        cluster=None if cluster is None else decisions_of(cluster, spec.options, workspace.job_id),
    )


def _output_cache(spec: ExecutionSpec, workspace: Workspace) -> Path | None:
    if not spec.options.cache:
        return None
    cache = Path(os.environ.get(_OUTPUT_CACHE_VARIABLE, workspace.output_cache))
    cache.mkdir(parents=True, exist_ok=True)
    return cache


def _cache_variable(cache: Path | None) -> dict[str, str]:
    return {} if cache is None else {_OUTPUT_CACHE_VARIABLE: str(cache)}


class SnakemakeExecution:
    """The flow's end of the supervisor's socket; `flows.snakemake_process.supervisor` has the protocol."""

    def __init__(
        self,
        control: socket.socket,
        start_again: Callable[[], socket.socket],
        report: Path,
        clear: Callable[[], int] | None = None,
        cancel_seconds: float = 0.0,
    ) -> None:
        """`start_again` starts another supervisor, if the first one ends before it has begun anything.

        `clear` removes from the cluster what a Snakemake that was killed has left there.
        """
        self._control = control
        self._start_again = start_again
        self._report = report
        self._clear = clear
        self._cancel_seconds = cancel_seconds
        self._is_terminated = False
        self._exit_code: int | None = None

    def events(self) -> Iterator[WorkflowEvent]:
        for event in self._all_events():
            if isinstance(event, EngineExited):
                self._exit_code = event.exit_code
            yield event

    def _all_events(self) -> Iterator[WorkflowEvent]:
        has_begun = has_exited = False
        for event in self._events():
            has_begun, has_exited = True, isinstance(event, EngineExited)
            yield event
        if not has_begun and not self._is_terminated:
            # The worker or its zygote was killed before it could fork a supervisor.
            self._restart()
            for event in self._events():
                has_exited = isinstance(event, EngineExited)
                yield event
        if not has_exited:
            raise EngineVanishedError("the supervisor of Snakemake's process ended before Snakemake did")

    def _restart(self) -> None:
        self._control.close()
        try:
            self._control = self._start_again()
        except OSError as error:
            raise EngineVanishedError("Snakemake's process did not start") from error
        if self._is_terminated:  # meanwhile
            self.terminate()

    def _events(self) -> Iterator[WorkflowEvent]:
        try:
            with self._control.makefile("rb") as lines:
                for line in lines:
                    yield decode(line)
        except ConnectionResetError:
            return
        except (ConnectionError, ProtocolError) as error:
            raise EngineVanishedError("lost the connection to Snakemake's process") from error

    def terminate(self) -> None:
        self._is_terminated = True
        with contextlib.suppress(OSError):
            self._control.sendall(TERMINATE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        # At the end of the stream, the supervisor ends everything and exits last, which ends our stream.
        with contextlib.suppress(OSError), self._control:
            self._control.settimeout(_LEAVING_SECONDS + self._cancel_seconds)
            self._control.shutdown(socket.SHUT_WR)
            while self._control.recv(1 << 16):
                pass
        if self._clear is not None and (self._exit_code is None or self._exit_code < 0):
            try:
                self._clear()
            except OSError as error:
                logger.error("Jobs may be left on the cluster: %s", error)
        with contextlib.suppress(FileNotFoundError):
            if not self._report.stat().st_size:
                self._report.unlink()  # it was only there to be mounted


def workflow_variables(
    environment: Environment, software: Software, visible: Collection[str] = ()
) -> dict[str, str]:
    """The environment variables of Snakemake and the rules, without those of the job.

    `visible` are those of the worker that the operator adds.
    """
    variables = visible_variables(visible)
    # Rules that call `python` expect the one that has Snakemake's packages.
    directories = [str(environment.python.parent), variables.get("PATH", os.defpath)]
    return variables | software.variables() | {"PATH": os.pathsep.join(directories), "PYTHONUNBUFFERED": "1"}
