"""What executes a job's workflow, behind one seam: `Engine.start` gives an `Execution`.

An execution is an iterator of workflow events that ends with `EngineExited`. Whether rules
fail is told by events; an exception means that the engine itself could not do its work.

    EngineError
    └── EngineVanishedError   the engine's process is gone without a word
"""

import contextlib
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, Self, assert_never

from flows.contract.spec import EngineName, ExecutionSpec, MockOptions
from flows.snakemake_process.events import (
    AttemptFinished,
    AttemptStarted,
    EngineExited,
    ErrorRaised,
    Message,
    Outcome,
    PlanCompleted,
    ProtocolError,
    RuleJobPlanned,
    WorkflowEvent,
    decode,
)
from flows.snakemake_process.supervisor import LOCKS, TERMINATE, Start
from flows.workspace.workspace import Workspace

WARM_KEEPER_VARIABLE = "SNAKEMAKE_WARM_KEEPER_FD"
"""Names the socket of a keeper that was forked from a process with Snakemake already imported."""

# AWS_: with the service's own credentials, a workflow could read and replace what others have made.
_HIDDEN_VARIABLES = ("PREFECT_", "JOBS_", "AWS_", WARM_KEEPER_VARIABLE)
_LATENCY_SECONDS = 1
_LEAVING_SECONDS = 30.0
"""The keeper needs 8 s at most, unless the kernel does not let a process go."""

_REPORT_SECONDS = 300
"""A report that takes longer is not made: the job would wait for it."""

_OUTPUT_CACHE_VARIABLE = "SNAKEMAKE_OUTPUT_CACHE"
"""Where Snakemake's between-workflow cache is (`snakemake.caching`)."""


class EngineError(Exception):
    """The engine could not do its work; says nothing of the workflow."""


class EngineVanishedError(EngineError):
    """The engine's process is gone without a word."""


class Execution(Protocol):
    """A running workflow. Leaving the context ends whatever of it is still alive, and waits for that."""

    def events(self) -> Iterator[WorkflowEvent]:
        """Every event as it happens; the last one is `EngineExited`. Raises `EngineError`."""

    def terminate(self) -> None:
        """Ask for an early end. The events go on until everything is gone. Safe from any thread."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc_info: object) -> None: ...


class Engine(Protocol):
    """Executes workflows."""

    def start(self, spec: ExecutionSpec, workspace: Workspace) -> Execution: ...


def engine_for(name: EngineName) -> Engine:
    match name:
        case EngineName.SNAKEMAKE:
            return SnakemakeEngine()
        case EngineName.MOCK:
            return MockEngine()
        case _:
            assert_never(name)


class SnakemakeEngine:
    """Snakemake, in a child process of its own."""

    def start(self, spec: ExecutionSpec, workspace: Workspace) -> "SnakemakeExecution":
        control = _warm_keeper() or _cold_keeper()
        workspace.report.unlink(missing_ok=True)  # of an earlier execution in this directory
        start = Start(
            argv=tuple(snakemake_arguments(spec, workspace)),
            directory=str(workspace.work),
            log_path=str(workspace.snakemake_log),
            environment=_environment() | _cache_variable(spec, workspace),
            report_argv=tuple(report_arguments(spec, workspace)) if spec.options.report else (),
            report_seconds=_REPORT_SECONDS,
        )
        # The directory is free for a successor when nothing of Snakemake is left in it, whoever dies first.
        socket.send_fds(control, [LOCKS], workspace.work_locks)
        control.sendall(start.to_line())
        return SnakemakeExecution(control)


def snakemake_arguments(spec: ExecutionSpec, workspace: Workspace) -> list[str]:
    """The command line of `snakemake` for `spec`, built from typed options only."""
    arguments = [
        "--executor=prefect",
        "--logger=prefect",
        *_common_arguments(spec, workspace),
        f"--retries={spec.options.retries}",
        f"--latency-wait={_LATENCY_SECONDS}",
        "--scheduler=greedy",  # its choices; `flows.snakemake_process.scheduling` makes them in linear time
        "--rerun-incomplete",
    ]
    if spec.options.keep_going:
        arguments.append("--keep-going")
    if spec.options.force_all:
        arguments.append("--forceall")
    if spec.options.cache:
        arguments.append("--cache")
    if spec.resources:
        arguments += ["--resources", *(f"{name}={limit}" for name, limit in spec.resources.items())]
    return [*arguments, "--", *spec.targets]


def report_arguments(spec: ExecutionSpec, workspace: Workspace) -> list[str]:
    """The command line of `snakemake` that makes the report of what `spec` has executed."""
    return [f"--report={workspace.report}", *_common_arguments(spec, workspace), "--", *spec.targets]


def _common_arguments(spec: ExecutionSpec, workspace: Workspace) -> list[str]:
    arguments = [
        f"--cores={spec.cores}",
        f"--snakefile={workspace.snakefile(spec)}",
        "--nocolor",
        "--nolock",  # the job's directory is locked already, by a lock that a crash does not leave behind
    ]
    return [*arguments, "--configfile", str(workspace.config_file)] if spec.config else arguments


def _cache_variable(spec: ExecutionSpec, workspace: Workspace) -> dict[str, str]:
    if not spec.options.cache:
        return {}
    cache = Path(os.environ.get(_OUTPUT_CACHE_VARIABLE, workspace.output_cache))
    cache.mkdir(parents=True, exist_ok=True)
    return {_OUTPUT_CACHE_VARIABLE: str(cache)}


class SnakemakeExecution:
    """The flow's end of the supervisor's socket; `flows.snakemake_process.supervisor` has the protocol."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control

    def events(self) -> Iterator[WorkflowEvent]:
        has_exited = False
        try:
            with self._control.makefile("rb") as lines:
                for line in lines:
                    event = decode(line)
                    has_exited = isinstance(event, EngineExited)
                    yield event
        except (ConnectionError, ProtocolError) as error:
            raise EngineVanishedError("the line to Snakemake's process broke") from error
        if not has_exited:
            raise EngineVanishedError("the keeper of Snakemake's process ended before Snakemake did")

    def terminate(self) -> None:
        with contextlib.suppress(OSError):
            self._control.sendall(TERMINATE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        # To the keeper, the end of the stream means: end everything. It leaves last, and that ends ours.
        with contextlib.suppress(OSError), self._control:
            self._control.settimeout(_LEAVING_SECONDS)
            self._control.shutdown(socket.SHUT_WR)
            while self._control.recv(1 << 16):
                pass


def _warm_keeper() -> socket.socket | None:
    number = os.environ.pop(WARM_KEEPER_VARIABLE, None)
    return None if number is None else socket.socket(fileno=int(number))


def _cold_keeper() -> socket.socket:
    """A keeper started as a new program: seconds slower than a forked one, and always possible."""
    ours, theirs = socket.socketpair()
    with theirs:
        subprocess.Popen(
            [sys.executable, "-m", "flows.snakemake_process.supervisor", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            cwd=Path(__file__).parent.parent,
            env=_environment(),
            start_new_session=True,
        )
    return ours


def _environment() -> dict[str, str]:
    """The variables that a workflow may see: none that could hold a secret of the service."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_HIDDEN_VARIABLES)}
    # Rules that say `python` mean the one with the packages that Snakemake itself has.
    kept["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)])
    kept["PYTHONUNBUFFERED"] = "1"
    return kept


class MockEngine:
    """No Snakemake at all: a chain of rule jobs that wait, with an outcome drawn by chance."""

    def start(self, spec: ExecutionSpec, workspace: Workspace) -> "MockExecution":
        return MockExecution(spec.mock)


class MockExecution:
    """Tells the same story as a real execution, in the same events."""

    def __init__(self, options: MockOptions) -> None:
        chance = random.Random(options.seed)
        self._rules = options.rules
        lasts = chance.uniform(*options.delay_seconds)
        succeeds = chance.random() < options.success_rate
        self._failing_rule = None if succeeds else chance.randrange(options.rules)
        # The whole job lasts as long as it was asked to, also when it fails half-way.
        running = options.rules if self._failing_rule is None else self._failing_rule + 1
        self._pause = lasts / running
        self._stopped = threading.Event()

    def events(self) -> Iterator[WorkflowEvent]:
        yield from self._plan()
        exit_code = 0
        for job_id in range(self._rules):
            started_at = time.time()
            yield self._started(job_id, started_at)
            was_stopped = self._stopped.wait(self._pause)
            fails = was_stopped or job_id == self._failing_rule
            yield self._finished(job_id, started_at, fails=fails)
            if fails:
                exit_code = 1
                yield ErrorRaised(
                    time=time.time(), exception="WorkflowError", text=f"Rule step_{job_id} failed."
                )
                break
        yield EngineExited(time=time.time(), exit_code=exit_code)

    def terminate(self) -> None:
        self._stopped.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.terminate()

    def _plan(self) -> Iterator[WorkflowEvent]:
        now = time.time()
        yield Message(time=now, level="INFO", text=f"Mock execution of {self._rules} rule jobs.")
        for job_id in range(self._rules):
            yield RuleJobPlanned(
                time=now,
                job_id=job_id,
                rule=f"step_{job_id}",
                wildcards={},
                depends_on=(job_id - 1,) if job_id else (),
                resources={},
                outputs=(f"step_{job_id}.txt",),
            )
        yield PlanCompleted(time=now, total=self._rules)

    def _started(self, job_id: int, started_at: float) -> AttemptStarted:
        return AttemptStarted(
            time=started_at,
            job_id=job_id,
            attempt=1,
            resources={},
            reason="Mock rule jobs always run.",
            shell=f"sleep {self._pause:.3f}",
        )

    def _finished(self, job_id: int, started_at: float, *, fails: bool) -> AttemptFinished:
        now = time.time()
        return AttemptFinished(
            time=now,
            job_id=job_id,
            attempt=1,
            outcome=Outcome.FAILED if fails else Outcome.SUCCEEDED,
            started_at=started_at,
            finished_at=now,
            exit_code=1 if fails else 0,
            message="The mock engine drew a failure." if fails else "",
        )
