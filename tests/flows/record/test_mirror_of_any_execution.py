"""Whatever happens in an execution, and whenever Prefect is told: what it is told is consistent."""

from datetime import datetime
from typing import Any
from uuid import uuid4

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from flows.record.mirror import Ending, Mirror
from flows.record.task_runs import JsonObject, task_run_id_of
from flows.snakemake_process.events import RuleJobDropped
from tests.flows.stories import START, failed, plan_completed, planned, started, succeeded

FINAL = {"COMPLETED", "FAILED", "CANCELLED", "CRASHED"}
PAUSES = st.floats(min_value=0, max_value=3)


class AnyExecution(RuleBasedStateMachine):
    """An engine that tells any plausible story, to a mirror that is asked at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.mirror = Mirror(uuid4())
        self.now = 0.0
        self.ending = Ending.FINISHED
        self.is_stopped = False
        self.job_count = 0
        self.attempts: dict[int, int] = {}
        """Attempts so far of the rule jobs that may start."""
        self.dropped: set[int] = set()
        self.running: dict[int, float] = {}
        """When the rule jobs that run have begun."""
        self.told: list[JsonObject] = []

    @initialize(done=st.lists(st.booleans(), min_size=1, max_size=6), ending=st.sampled_from(Ending))
    def plan(self, done: list[bool], ending: Ending) -> None:
        self.ending = ending
        self.grow(done, pause=0)

    @rule(done=st.lists(st.booleans(), min_size=1, max_size=3), pause=PAUSES)
    def grow(self, done: list[bool], pause: float) -> None:
        """A checkpoint brings new rule jobs."""
        self.now += pause
        for is_done in done:
            job_id = self.job_count
            before = (job_id - 1,) if job_id else ()
            self.mirror.observe(planned(job_id, at=self.now, depends_on=before, is_done=is_done))
            self.job_count += 1
            if not is_done:
                self.attempts[job_id] = 0
        self.mirror.observe(plan_completed(self.job_count, at=self.now))

    @precondition(lambda self: self.job_count > len(self.dropped))
    @rule(data=st.data())
    def plan_again(self, data: st.DataObject) -> None:
        """A checkpoint changes what a rule job depends on."""
        job_id = data.draw(st.sampled_from(sorted(set(range(self.job_count)) - self.dropped)))
        others = tuple(other for other in range(self.job_count) if other != job_id)
        self.mirror.observe(planned(job_id, at=self.now, depends_on=others))
        self.mirror.observe(plan_completed(self.job_count, at=self.now))

    @precondition(lambda self: 0 in self.attempts.values())
    @rule(data=st.data(), pause=PAUSES)
    def drop(self, data: st.DataObject, pause: float) -> None:
        """A checkpoint takes a rule job that has not run out of the plan."""
        self.now += pause
        unstarted = [job_id for job_id, attempts in self.attempts.items() if attempts == 0]
        job_id = data.draw(st.sampled_from(unstarted))
        del self.attempts[job_id]
        self.dropped.add(job_id)
        self.mirror.observe(RuleJobDropped(time=START + self.now, job_id=job_id))

    @precondition(lambda self: self.attempts and not self.is_stopped)
    @rule(data=st.data(), pause=PAUSES)
    def start(self, data: st.DataObject, pause: float) -> None:
        self.now += pause
        job_id = data.draw(st.sampled_from(sorted(self.attempts)))
        self.running[job_id] = self.now
        self.mirror.observe(started(job_id, attempt=self.attempts.pop(job_id) + 1, at=self.now))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), ending=st.sampled_from(["succeeds", "fails", "is run again"]), lasts=PAUSES)
    def finish(self, data: st.DataObject, ending: str, lasts: float) -> None:
        """An attempt ends; Snakemake may take its time to tell it."""
        job_id = data.draw(st.sampled_from(sorted(self.running)))
        began = self.running.pop(job_id)
        job = self.mirror.job(job_id)
        assert job is not None
        at = self.now + lasts
        self.now = at + data.draw(PAUSES)
        if ending == "succeeds":
            self.mirror.observe(succeeded(job_id, attempt=job.attempts, began=began, at=at, told=self.now))
            return
        will_retry = ending == "is run again"
        self.mirror.observe(failed(job_id, attempt=job.attempts, began=began, at=at, will_retry=will_retry))
        if will_retry:
            self.attempts[job_id] = job.attempts

    @rule(pause=PAUSES, limit=st.integers(1, 5))
    def ask(self, pause: float, limit: int) -> None:
        self.now += pause
        due = self.mirror.due(START + self.now, limit)
        assert len(due) <= limit
        self.told += due

    @rule()
    def stop(self) -> None:
        """The job is cancelled: nothing starts any more."""
        self.mirror.stop()
        self.is_stopped = True

    @rule(recorded=st.sets(st.integers(0, 8)))
    def lose(self, recorded: set[int]) -> None:
        """Prefect's server loses all task runs but these."""
        self.mirror.resend({task_run_id_of(self.mirror.flow_run_id, job_id) for job_id in recorded})

    def teardown(self) -> None:
        if self.job_count == 0:
            return
        self.mirror.close(self.ending, START + self.now)
        while due := self.mirror.due(START + self.now, 3):
            self.told += due
        self.check()

    def check(self) -> None:
        """The story of each task run holds together, and ends."""
        assert not self.mirror.has_unreported
        assert self.mirror.open() == []
        stories: dict[str, list[JsonObject]] = {}
        for event in self.told:
            stories.setdefault(event["resource"]["prefect.resource.id"], []).append(event)
        assert len(stories) == len(self.mirror) == self.job_count
        for story in stories.values():
            moments = [datetime.fromisoformat(event["occurred"]) for event in story]
            assert moments == sorted(moments), "a timestamp goes backwards"
            run_counts = [run_of(event)["run_count"] for event in story]
            assert run_counts == sorted(run_counts), "a run is taken back"
            types = [type_of(event) for event in story]
            assert types[-1] in FINAL
            last = types.index(next(kind for kind in types if kind in FINAL))
            assert len(set(types[last:])) == 1, "a final state is taken back"
            ended = run_of(story[-1])
            assert datetime.fromisoformat(ended["start_time"]) <= datetime.fromisoformat(ended["end_time"])
        # The server passes over an event whose id it has seen.
        states: dict[str, object] = {}
        for event in self.told:
            state = event["payload"]["validated_state"]
            assert states.setdefault(event["id"], state) == state


def type_of(event: JsonObject) -> str:
    return str(event["payload"]["validated_state"]["type"])


def run_of(event: JsonObject) -> dict[str, Any]:
    columns: dict[str, Any] = event["payload"]["task_run"]
    return columns


TestAnyExecution = AnyExecution.TestCase
TestAnyExecution.settings = settings(max_examples=100, stateful_step_count=30)
