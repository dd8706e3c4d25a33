"""Sends changes to all followers of a job, or of all jobs, at the cost of one client that polls.

All followers of a job share one `FollowedJob`, which reads Prefect once per `TICK_SECONDS` and ends with
the last of them. Followers of all jobs share one `FollowedJobs`, which learns from Prefect's event stream
which jobs changed, and polls now and then in case it has missed an event.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import TypeVar
from uuid import UUID

from prefect.client.schemas.objects import Log, TaskRun
from prefect.events.clients import PrefectEventSubscriber
from prefect.events.filters import EventFilter, EventNameFilter

from api.events.feed import Change, Feed, FeedItem, Moment
from api.prefect.changes import Changes
from api.prefect.translation import log_line_from, rule_job_from
from api.web.problems import NotFound, ProblemError
from api.web.schemas import Job
from api.web.statuses import FINAL_STATUSES, JobStatus

TICK_SECONDS = 1.0
_LATE_LINES = timedelta(seconds=10)
"""How late a line may reach Prefect, after lines that were written later."""

_POLL_EVERY = timedelta(seconds=10)
_PAUSE_SECONDS = 5.0
_FLOW_RUN_EVENTS = "prefect.flow-run."
_MOVING = (JobStatus.RUNNING, JobStatus.CANCELLING)

ReadJob = Callable[[UUID], Awaitable[Job]]
ReadJobs = Callable[[Collection[UUID]], Awaitable[Mapping[UUID, Job]]]
Key = TypeVar("Key")
Kind = TypeVar("Kind", bound="_Followed")

logger = logging.getLogger(__name__)


class Following:
    """The jobs that are followed now."""

    def __init__(self, changes: Changes, read_job: ReadJob, read_jobs: ReadJobs) -> None:
        self._changes = changes
        self._read_job = read_job
        self._read_jobs = read_jobs
        self._jobs: dict[UUID, FollowedJob] = {}
        self._all: dict[None, FollowedJobs] = {}

    async def job(self, job_id: UUID, since: Moment | None) -> AsyncIterator[FeedItem]:
        """All changes of a job so far, or since a moment; then new ones, until it has ended.

        A change is a `job`, a `task` or a `log`, with the same JSON as other routes return.
        """

        def is_news(change: Change) -> bool:
            return change.event == "job" or since is None or change.recorded_at >= since.earliest

        with _shared(self._jobs, job_id, lambda: FollowedJob(job_id, self._read_job, self._changes)) as job:
            async for item in job.feed.follow(is_news):
                yield item

    async def jobs(self, groups: Collection[str] | None, since: Moment | None) -> AsyncIterator[FeedItem]:
        """Changes of the jobs of these groups (None: all), from now on or since a moment."""

        def is_visible(change: Change) -> bool:
            return groups is None or change.group in groups

        with _shared(self._all, None, lambda: FollowedJobs(self._read_jobs, self._changes)) as jobs:
            if since is not None:
                changed = await self._changes.jobs_since(since.earliest)
                for job in (await self._read_jobs(changed)).values():
                    change = _change_of(job)
                    if is_visible(change):
                        yield change
            async for item in jobs.feed.follow(lambda _: False):
                if isinstance(item, Moment) or is_visible(item):
                    yield item


class _Followed(ABC):
    """Reads Prefect periodically, as long as it has followers."""

    def __init__(self) -> None:
        self.feed = Feed()
        self.followers = 0
        self._watch = asyncio.create_task(self._look_periodically())

    def close(self) -> None:
        self._watch.cancel()

    @abstractmethod
    async def look(self) -> Moment:
        """Puts new changes into the feed; returns the moment that is reached."""

    async def _look_periodically(self) -> None:
        async with self._listening():
            while self.feed.moment is None or not self.feed.moment.is_end:
                try:
                    await self.feed.reach(await self.look())
                    await asyncio.sleep(TICK_SECONDS)
                except ProblemError as error:
                    logger.warning("Event streams are delayed: %s", error.detail)
                    await asyncio.sleep(_PAUSE_SECONDS)
                except Exception:  # without a retry, followers would wait for ever
                    logger.exception("Event streams are delayed: reading Prefect failed; retrying.")
                    await asyncio.sleep(_PAUSE_SECONDS)

    @asynccontextmanager
    async def _listening(self) -> AsyncIterator[None]:
        yield


class FollowedJob(_Followed):
    """One job: its status and progress, its rule jobs and its log."""

    def __init__(self, job_id: UUID, read_job: ReadJob, changes: Changes) -> None:
        self._job_id = job_id
        self._read_job = read_job
        self._changes = changes
        self._job = ""
        self._rule_jobs: dict[UUID, tuple[object, ...]] = {}
        self._line_ids: set[UUID] = set()
        self._last_line: datetime | None = None
        super().__init__()

    async def look(self) -> Moment:
        now = datetime.now(UTC)
        try:
            job = await self._read_job(self._job_id)
        except NotFound:  # the job was removed
            return Moment(now, is_end=True)
        is_end = job.status in FINAL_STATUSES
        if not is_end:  # it runs before its rule jobs do, and ends after them
            self._keep_job(job)
        if self.feed.moment is None or is_end:
            self._keep_rule_jobs(await self._changes.all_rule_jobs(self._job_id))
            self._keep_lines(await self._changes.all_lines(self._job_id))
        elif job.started_at is not None:
            self._keep_rule_jobs(await self._changes.new_rule_jobs(self._job_id, self._is_known))
            since = self._last_line - _LATE_LINES if self._last_line else None
            self._keep_lines(await self._changes.lines_since(self._job_id, since))
        if is_end:
            self._keep_job(job)
        return Moment(now, is_end)

    def _keep_job(self, job: Job) -> None:
        change = _change_of(job)
        if change.data != self._job:
            self._job = change.data
            self.feed.keep(change)

    def _keep_rule_jobs(self, task_runs: Sequence[TaskRun]) -> None:
        new = [task_run for task_run in task_runs if not self._is_known(task_run)]
        for task_run in sorted(new, key=_changed_at):
            self._rule_jobs[task_run.id] = _state_of(task_run)
            recorded_at = task_run.updated or _changed_at(task_run)
            data = rule_job_from(task_run).model_dump_json()
            self.feed.keep(Change("task", task_run.id, data, recorded_at))

    def _keep_lines(self, lines: Sequence[Log]) -> None:
        for line in lines:
            if line.id not in self._line_ids:
                self._line_ids.add(line.id)
                data = log_line_from(line).model_dump_json()
                self.feed.keep(Change("log", line.id, data, line.created or line.timestamp))
                self._last_line = max(line.timestamp, self._last_line or line.timestamp)

    def _is_known(self, task_run: TaskRun) -> bool:
        return self._rule_jobs.get(task_run.id) == _state_of(task_run)


class FollowedJobs(_Followed):
    """The status and progress of all jobs."""

    def __init__(self, read_jobs: ReadJobs, changes: Changes) -> None:
        self._read_jobs = read_jobs
        self._changes = changes
        self._changed: set[UUID] = set()
        self._polled_at = datetime.now(UTC)
        self._moving: set[UUID] = set()
        self._published: dict[UUID, str] = {}
        super().__init__()

    async def look(self) -> Moment:
        now = datetime.now(UTC)
        if self.feed.moment is None:
            self._moving |= await self._changes.active_jobs()
        if now > self._polled_at + _POLL_EVERY:
            self._changed |= await self._changes.jobs_since(Moment(self._polled_at).earliest)
            self._polled_at = now
        wanted, self._changed = self._changed, set()
        jobs = await self._read_jobs(wanted | self._moving)
        for job_id, job in jobs.items():
            change = _change_of(job)
            is_new = job_id in wanted or job_id in self._published
            if is_new and self._published.get(job_id) != change.data:
                self.feed.keep(change)
            self._published[job_id] = change.data
        self._moving = {job_id for job_id, job in jobs.items() if job.status in _MOVING}
        self._published = {job_id: text for job_id, text in self._published.items() if job_id in self._moving}
        return Moment(now)

    @asynccontextmanager
    async def _listening(self) -> AsyncIterator[None]:
        listener = asyncio.create_task(self._listen())
        try:
            yield
        finally:
            listener.cancel()

    async def _listen(self) -> None:
        """Subscribes to the events of flow runs; polls for changes of the time without a subscription."""
        flow_runs = EventFilter(event=EventNameFilter(prefix=[_FLOW_RUN_EVENTS]))
        while True:
            try:
                async with PrefectEventSubscriber(filter=flow_runs) as events:
                    self._changed |= await self._changes.jobs_since(Moment(self._polled_at).earliest)
                    async for event in events:
                        self._changed.add(UUID(event.resource.id.removeprefix(_FLOW_RUN_EVENTS)))
            except Exception as error:  # noqa: BLE001 - Prefect and websockets raise many types, some of them plain
                logger.warning("The subscription to Prefect's events failed (%s); retrying.", error)
                await asyncio.sleep(_PAUSE_SECONDS)


@contextmanager
def _shared(followed: dict[Key, Kind], key: Key, make: Callable[[], Kind]) -> Iterator[Kind]:
    """The one with this key: created for its first follower, closed after the last."""
    one = followed.get(key) or make()
    followed[key] = one
    one.followers += 1
    try:
        yield one
    finally:
        one.followers -= 1
        if not one.followers:
            one.close()
            del followed[key]


def _change_of(job: Job) -> Change:
    return Change("job", job.id, job.json_text, job.updated_at or datetime.now(UTC), job.group)


def _changed_at(task_run: TaskRun) -> datetime:
    return task_run.state.timestamp if task_run.state else datetime.min.replace(tzinfo=UTC)


def _state_of(task_run: TaskRun) -> tuple[object, ...]:
    return task_run.state_type, task_run.state_name, task_run.run_count
