"""An engine without Snakemake: a chain of rule jobs that only wait, with a random outcome."""

import random
import threading
import time
from collections.abc import Iterator
from typing import Self

from flows.contract.spec import ExecutionSpec, MockOptions
from flows.snakemake_process.events import (
    AttemptFinished,
    AttemptStarted,
    EngineExited,
    ErrorRaised,
    Message,
    Outcome,
    PlanCompleted,
    RuleJobPlanned,
    WorkflowEvent,
)
from flows.workspace.workspace import Workspace


class MockEngine:
    """Executes a chain of rule jobs that only wait, with a random outcome."""

    def start(self, spec: ExecutionSpec, workspace: Workspace) -> "MockExecution":
        return MockExecution(spec.mock)


class MockExecution:
    """Reports the same events as a real execution."""

    def __init__(self, options: MockOptions) -> None:
        chance = random.Random(options.seed)
        self._rules = options.rules
        lasts = chance.uniform(*options.delay_seconds)
        succeeds = chance.random() < options.success_rate
        self._failing_rule = None if succeeds else chance.randrange(options.rules)
        # The whole job takes the chosen time, even if it fails half-way.
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
            message="The mock engine chose to fail." if fails else "",
        )
