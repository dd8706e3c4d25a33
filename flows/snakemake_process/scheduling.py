"""Makes Snakemake's scheduling of big workflows linear, with the same choices as its greedy scheduler.

Snakemake's scheduler starts a round whenever a rule job ends, and in each round processes every ready
rule job: checks it, reads the sizes of its inputs, and compares it with all others. That is quadratic
in the number of rule jobs. `LinearScheduler` does this once per rule job, when it becomes ready, and
keeps the ready ones sorted. The cost of a round is then proportional to the rule jobs that it starts.

It uses private parts of `snakemake.scheduling.job_scheduler` and `snakemake.dag`.
`tests/contracts` and `tests/flows/snakemake_process/test_scheduling.py` test it.
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
"""The order to start rule jobs in: by priority, then bytes of temporary input, then bytes of input."""
Demand = tuple[float, ...]
"""The amount of each limited resource that a rule job needs."""
_Place = tuple[Reward, int]
"""Smallest first: the negative reward, then the order of arrival."""

_DEFAULT_RATE = (100, 1)
"""Snakemake's default `--max-jobs-per-timespan`: number of rule jobs, and seconds."""


def install() -> None:
    """Replace the quadratic parts of Snakemake's scheduling in this process. Call it once."""
    snakemake.workflow.JobScheduler = LinearScheduler
    Job.is_pipe_or_service_input = _is_pipe_or_service_input


class ReadyJobs(MutableSet[RuleJob], Generic[RuleJob]):
    """The ready rule jobs, from which `take` chooses the best ones that fit.

    Replaces the plain set `DAG._ready_jobs`. An added rule job is a *newcomer* until it is ranked. Rule
    jobs with the same demand share a queue, so the search only looks at the heads of the queues. There
    are few queues, unless a limited resource is a function of the input.
    """

    def __init__(self, jobs: Iterable[RuleJob] = ()) -> None:
        self._newcomers: dict[RuleJob, None] = dict.fromkeys(jobs)
        self._places: dict[RuleJob, _Place] = {}
        # Removed jobs stay in their queue until they reach its head: finding them earlier would be linear.
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
        """Like `set.update`, which `MutableSet` lacks."""
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
        """Rank a newcomer, so that `take` can choose it."""
        del self._newcomers[job]
        place = (tuple(-part for part in reward), next(self._arrivals))
        self._places[job] = place
        heapq.heappush(self._queues.setdefault(demand, []), (place, job))

    def take(self, available: Demand) -> list[RuleJob]:
        """Remove and return the rule jobs to start, the most rewarding first.

        The choice is that of Snakemake's greedy scheduler: repeatedly the most rewarding rule job that fits
        into the remaining resources. As every rule job exists once, the effective capacities are 1 or 0,
        whatever the greediness. A rule job that does not fit now does not fit later in the same round,
        because no resources are returned.
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
        """The best rule job with this demand. Removes a queue that is empty."""
        queue = self._queues[demand]
        while queue:
            place, job = queue[0]
            if self._places.get(job) == place:
                return queue[0]
            heapq.heappop(queue)
        del self._queues[demand]
        return None


class LinearScheduler(JobScheduler):  # type: ignore[misc]  # untyped base
    """Snakemake's scheduler, but it evaluates each ready rule job once instead of in every round.

    The result does not change: when a rule job is ready, its inputs exist, and Snakemake itself computes
    resources only once. Anything that changes the DAG (a checkpoint, queue input) makes Snakemake collect
    the ready rule jobs again, and a retry adds its rule job again.
    """

    def __init__(self, workflow: Any, executor_plugin: Any, scheduler: Any, greedy_settings: Any) -> None:
        super().__init__(workflow, executor_plugin, scheduler, greedy_settings)
        # Rewards and demands are computed by Snakemake itself.
        self._rules = scheduler if isinstance(scheduler, GreedyScheduler) else self._greedy_scheduler
        self._job_selector = self._select
        self._is_selecting = False
        limit = workflow.scheduling_settings.max_jobs_per_timespan
        if limit is not None and (limit.max_jobs, limit.timespan) == _DEFAULT_RATE:
            # It protects a cluster's queue. Here cores are the limit, and each round would start a timer.
            self.job_rate_limiter = None
        self._ready: ReadyJobs[Any] = ReadyJobs(workflow.dag.ready_jobs)
        workflow.dag._ready_jobs = self._ready

    @property
    def open_jobs(self) -> list[Any]:
        """The ready rule jobs that a round must process: newcomers, or any one to show that some wait."""
        if self.dryrun:  # starts all of them at once, without a selection
            return list(self._ready)
        return list(self._ready.newcomers) or list(islice(self._ready, 1))

    @property
    def remaining_jobs(self) -> Sequence[Any]:
        """Every rule job that has not started; empty during a selection, which does not need it."""
        return () if self._is_selecting else super().remaining_jobs

    def job_selector(self, jobs: Collection[Any]) -> Sequence[Any]:
        """Snakemake's selection, with its checks and its reading of input sizes limited to newcomers."""
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
    """Snakemake's result, without a search through all dependencies for each of many inputs.

    Rule jobs that share a pipe or a service are in one group (`DAG.handle_pipes_and_services`).
    """
    return job.group is not None and bool(_of_any_job(job, path))
