"""Makes Snakemake's scheduling of big workflows linear, with the choices of its own greedy scheduler.

Snakemake's scheduler ends a round whenever a rule job ends, and in each round looks at every rule
job that is ready: checks it, reads the sizes of its inputs, weighs it against all others. That
is quadratic in the number of rule jobs. `LinearScheduler` does this once per rule job, when it
becomes ready, and keeps the ready ones in order; a round then costs what it starts.

Built on private parts of `snakemake.scheduling.job_scheduler` and `snakemake.dag`, hence the pin
`snakemake ~= 9.27.0`. What must hold of them is tested in `tests/flows/snakemake_process/test_scheduling.py`.
"""

import heapq
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, MutableSet, Sequence
from contextlib import contextmanager
from itertools import chain, count, islice
from operator import le, sub
from typing import Any, Generic, TypeVar

import snakemake.api  # first, because it and `snakemake.workflow` import each other
import snakemake.workflow
from snakemake.jobs import Job
from snakemake.scheduling.greedy import Scheduler as GreedyScheduler
from snakemake.scheduling.job_scheduler import JobScheduler

RuleJob = TypeVar("RuleJob", bound=Hashable)
Reward = tuple[float, ...]
"""What is worth starting first: the priority, then bytes of temporary input, then bytes of input."""
Demand = tuple[float, ...]
"""How much a rule job takes of each resource that has a limit."""
_Place = tuple[Reward, int]
"""Smallest first: the negative reward, then the order of arrival."""

_DEFAULT_RATE = (100, 1)
"""Snakemake's `--max-jobs-per-timespan`: rule jobs per so many seconds."""


def install() -> None:
    """Replace, in this process, what of Snakemake's scheduling is quadratic. Call it once."""
    snakemake.workflow.JobScheduler = LinearScheduler
    Job.is_pipe_or_service_input = _is_pipe_or_service_input


class ReadyJobs(MutableSet[RuleJob], Generic[RuleJob]):
    """The rule jobs that are ready, and at any time the best of them that fit.

    Stands in for the plain set `DAG._ready_jobs`. A rule job that is added is a *newcomer* until
    it is ranked. Those that demand the same wait in one queue, so the search looks at the heads
    of the queues only. Of these there are few, unless a limited resource is a function of the input.
    """

    def __init__(self, jobs: Iterable[RuleJob] = ()) -> None:
        self._newcomers: dict[RuleJob, None] = dict.fromkeys(jobs)
        self._places: dict[RuleJob, _Place] = {}
        # Jobs that are gone stay in their queue until they come up: finding them would be linear.
        self._queues: dict[Demand, list[tuple[_Place, RuleJob]]] = {}
        self._arrivals = count()

    def __contains__(self, job: object) -> bool:
        return job in self._newcomers or job in self._places

    def __iter__(self) -> Iterator[RuleJob]:
        return chain(self._newcomers, self._places)

    def __len__(self) -> int:
        return len(self._newcomers) + len(self._places)

    def add(self, job: RuleJob) -> None:
        if job not in self:
            self._newcomers[job] = None

    def discard(self, job: RuleJob) -> None:
        self._newcomers.pop(job, None)
        self._places.pop(job, None)

    def update(self, jobs: Iterable[RuleJob]) -> None:
        """As `set.update`, which `MutableSet` leaves out."""
        for job in jobs:
            self.add(job)

    def clear(self) -> None:
        self._newcomers.clear()
        self._places.clear()
        self._queues.clear()

    @property
    def newcomers(self) -> Collection[RuleJob]:
        return self._newcomers.keys()

    def rank(self, job: RuleJob, reward: Reward, demand: Demand) -> None:
        """Make a newcomer one that `take` can choose."""
        del self._newcomers[job]
        place = (tuple(-part for part in reward), next(self._arrivals))
        self._places[job] = place
        heapq.heappush(self._queues.setdefault(demand, []), (place, job))

    def take(self, available: Demand) -> list[RuleJob]:
        """Remove and return what is to be started, the most rewarding first.

        The choice is that of Snakemake's greedy scheduler: the most rewarding rule job that
        fits into what is left, then again. As every rule job exists once, its effective
        capacities are 1 or 0, whatever its greediness is. What does not fit now does not fit
        later in the same round, because nothing is given back.
        """
        taken: list[RuleJob] = []
        left = available
        while heads := list(self._heads_that_fit(left)):
            (_, job), demand = min(heads)
            left = tuple(map(sub, left, demand))
            taken.append(job)
            self.discard(job)
        return taken

    def _heads_that_fit(self, left: Demand) -> Iterator[tuple[tuple[_Place, RuleJob], Demand]]:
        for demand in list(self._queues):
            if all(map(le, demand, left)) and (head := self._head(demand)):
                yield head, demand

    def _head(self, demand: Demand) -> tuple[_Place, RuleJob] | None:
        """The best with this demand. A queue that has run empty is forgotten."""
        queue = self._queues[demand]
        while queue:
            place, job = queue[0]
            if self._places.get(job) == place:
                return queue[0]
            heapq.heappop(queue)
        del self._queues[demand]
        return None


class LinearScheduler(JobScheduler):  # type: ignore[misc]  # untyped base
    """Snakemake's scheduler, which asks of each ready rule job once what it asks in every round.

    What is asked stays true: when a rule job is ready, its inputs are there, and Snakemake itself
    computes resources only once. Anything that changes the DAG (a checkpoint, queue input)
    makes Snakemake collect the ready rule jobs anew, and a retry adds its rule job again.
    """

    def __init__(self, workflow: Any, executor_plugin: Any, scheduler: Any, greedy_settings: Any) -> None:
        super().__init__(workflow, executor_plugin, scheduler, greedy_settings)
        # The rules are Snakemake's own: what is rewarded, and what a rule job demands.
        self._rules = scheduler if isinstance(scheduler, GreedyScheduler) else self._greedy_scheduler
        self._job_selector = self._select
        self._is_selecting = False
        limit = workflow.scheduling_settings.max_jobs_per_timespan
        if limit is not None and (limit.max_jobs, limit.timespan) == _DEFAULT_RATE:
            # Spares a cluster's queue. Here the cores are limit enough, and each round would start a timer.
            self.job_rate_limiter = None
        self._ready: ReadyJobs[Any] = ReadyJobs(workflow.dag.ready_jobs)
        workflow.dag._ready_jobs = self._ready

    @property
    def open_jobs(self) -> list[Any]:
        """The ready rule jobs that a round must look at: newcomers, else any one, to tell that some wait."""
        if self.dryrun:  # starts all of them at once, without selecting
            return list(self._ready)
        return list(self._ready.newcomers) or list(islice(self._ready, 1))

    @property
    def remaining_jobs(self) -> Sequence[Any]:
        """Every rule job that is still to be started; left out where the choice does not need it."""
        return () if self._is_selecting else super().remaining_jobs

    def job_selector(self, jobs: Collection[Any]) -> Sequence[Any]:
        """Snakemake's checks and reading of input sizes, for newcomers only; then its choice."""
        with self._selecting():
            selected: Sequence[Any] = super().job_selector(list(self._ready.newcomers))
            return selected

    @contextmanager
    def _selecting(self) -> Iterator[None]:
        self._is_selecting = True
        try:
            yield
        finally:
            self._is_selecting = False

    def _select(
        self,
        newcomers: Sequence[Any],
        _: Sequence[Any],
        available: Mapping[str, int],
        sizes: Mapping[Any, int],
    ) -> Sequence[Any]:
        for job in newcomers:
            reward = self._rules.job_reward(job, sizes)
            demand = tuple(self._rules.job_weight(job, available))
            self._ready.rank(job, reward if isinstance(reward, tuple) else (reward,), demand)
        return self._ready.take(tuple(available.values()))


_of_any_job = Job.is_pipe_or_service_input


def _is_pipe_or_service_input(job: Any, path: Any) -> bool:
    """Snakemake's answer, without a search through all dependencies for each of many inputs.

    Whatever is joined by a pipe or a service is in one group (`DAG.handle_pipes_and_services`).
    """
    return job.group is not None and bool(_of_any_job(job, path))
