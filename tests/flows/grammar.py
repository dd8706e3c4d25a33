"""The grammar of an execution's story, which the flow relies on whatever engine tells it."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from flows.snakemake_process.events import (
    AttemptFinished,
    AttemptStarted,
    EngineExited,
    Outcome,
    PlanCompleted,
    RuleJobDropped,
    RuleJobPlanned,
    WorkflowEvent,
)


def assert_well_told(events: Iterable[WorkflowEvent]) -> None:
    """Fail if the story contradicts itself.

    - Rule jobs are planned before the first of them runs, and a plan's total is their number.
    - A rule job starts when everything that it depends on is done, and its attempts count from 1.
    - Every attempt ends, after it has started; only a failed one is run again.
    - `EngineExited` is told once, at the end.
    """
    story = _Story()
    for event in events:
        story.read(event)
    assert story.has_exited
    assert story.running == {}, "attempts that never ended"


@dataclass
class _Story:
    planned: dict[int, RuleJobPlanned] = field(default_factory=dict)
    running: dict[int, AttemptStarted] = field(default_factory=dict)
    attempts: Counter[int] = field(default_factory=Counter)
    done: set[int] = field(default_factory=set)
    failed: set[int] = field(default_factory=set)
    is_planned: bool = False
    has_exited: bool = False

    def read(self, event: WorkflowEvent) -> None:
        assert not self.has_exited, f"told after the end: {event}"
        match event:
            case RuleJobPlanned():
                self.planned[event.job_id] = event
                self.done |= {event.job_id} if event.is_done else set()
            case RuleJobDropped():
                del self.planned[event.job_id]
            case PlanCompleted():
                assert event.total == len(self.planned)
                self.is_planned = True
            case AttemptStarted():
                self._start(event)
            case AttemptFinished():
                self._finish(event)
            case EngineExited():
                self.has_exited = True
            case _:
                pass  # messages and errors may be told at any time

    def _start(self, event: AttemptStarted) -> None:
        assert self.is_planned
        job_id = event.job_id
        assert job_id not in self.running, f"runs already: {event}"
        assert job_id not in self.failed, f"was not to be run again: {event}"
        before = {other for other in self.planned[job_id].depends_on if other in self.planned}
        assert before <= self.done, f"too early: {event}"
        self.attempts[job_id] += 1
        assert event.attempt == self.attempts[job_id]
        self.running[job_id] = event

    def _finish(self, event: AttemptFinished) -> None:
        started = self.running.pop(event.job_id)
        assert (event.attempt, event.started_at) == (started.attempt, started.time)
        assert event.started_at <= event.finished_at <= event.time
        if event.outcome is Outcome.SUCCEEDED:
            assert not event.will_retry
            self.done.add(event.job_id)
        elif not event.will_retry:
            self.failed.add(event.job_id)
