"""Metrics for Prometheus: requests to the facade, and jobs in Prefect.

The numbers of jobs are read from Prefect, so all replicas report the same: take the maximum over
replicas, not the sum. Counters start at 0 when a replica starts.
"""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from uuid import UUID

import anyio
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from api.prefect.groups import Group
from api.prefect.overview import Overview
from api.prefect.rows import FlowRunRow
from api.web.problems import ProblemError
from api.web.statuses import FINAL_STATUSES, job_status

FRESH_SECONDS = 5.0
"""Prefect is read at most once in this time, however many scrape."""

UNKNOWN_ROUTE = "(none)"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_QUEUE_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14_400, 86_400)


class Metrics:
    """Counts requests as they are answered, and reads the jobs at each scrape."""

    def __init__(self, overview: Overview) -> None:
        # One per application: the library's default registry is shared by the whole process.
        self._registry = CollectorRegistry()
        self._overview = overview
        now = datetime.now(UTC)
        self._started = overview.started(now)
        self._ended = overview.ended(now)
        self._lock = anyio.Lock()
        self._expires = 0.0
        self._requests = Counter(
            "jobs_http_requests",
            "HTTP requests answered.",
            ("method", "route", "status"),
            registry=self._registry,
        )
        self._request_seconds = Histogram(
            "jobs_http_request_seconds",
            "Seconds until the response started.",
            ("method", "route"),
            registry=self._registry,
        )
        self._prefect_reachable = Gauge(
            "jobs_prefect_reachable",
            "1 if Prefect answered the last request.",
            registry=self._registry,
        )
        self._group_has_worker = Gauge(
            "jobs_group_has_worker",
            "1 if a worker of the group is online.",
            ("group",),
            registry=self._registry,
        )
        self._open = Gauge(
            "jobs_open", "Jobs that have not ended.", ("group", "status"), registry=self._registry
        )
        self._finished = Counter(
            "jobs_finished", "Jobs that have ended.", ("group", "status"), registry=self._registry
        )
        self._queue_seconds = Histogram(
            "jobs_queue_seconds",
            "Seconds between the scheduled and the actual start of a job.",
            ("group",),
            buckets=_QUEUE_SECONDS,
            registry=self._registry,
        )
        self._rule_jobs = Gauge(
            "jobs_rule_jobs", "Rule jobs of open jobs.", ("status",), registry=self._registry
        )
        self._webhooks = Counter(
            "jobs_webhooks", "Attempts to deliver a webhook.", ("outcome",), registry=self._registry
        )

    def observe_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """`route` is a template, because a path would create a series for each job."""
        method = method if method in _METHODS else "OTHER"
        self._requests.labels(method, route, str(status)).inc()
        self._request_seconds.labels(method, route).observe(seconds)

    def count_webhook(self, outcome: str) -> None:
        self._webhooks.labels(outcome).inc()

    async def exposition(self) -> bytes:
        """All metrics in the text format of Prometheus; without Prefect, those of the facade only."""
        async with self._lock:
            if time.monotonic() >= self._expires:
                await self._read()
                self._expires = time.monotonic() + FRESH_SECONDS
            return generate_latest(self._registry)

    async def _read(self) -> None:
        for gauge in (self._group_has_worker, self._open, self._rule_jobs):
            gauge.clear()  # drops deleted groups and old values
        try:
            groups = await self._overview.groups()
            await self._read_gauges(groups)
            names = {group.deployment_id: group.name for group in groups}
            for row in await self._started.next():
                self._observe_start(row, names)
            for row in await self._ended.next():
                self._observe_end(row, names)
        except ProblemError:
            self._prefect_reachable.set(0)
        else:
            self._prefect_reachable.set(1)

    async def _read_gauges(self, groups: Sequence[Group]) -> None:
        pools = await self._overview.pools_with_workers(groups)
        for group in groups:
            if group.takes_jobs:
                self._group_has_worker.labels(group.name).set(group.work_pool in pools)
            for status, count in (await self._overview.open_jobs(group)).items():
                self._open.labels(group.name, status).inc(count)  # a group may have several deployments
            for status in FINAL_STATUSES:
                self._finished.labels(group.name, status)  # starts at 0, so that `rate()` sees the first one
        for rule_job_status, count in (await self._overview.rule_jobs_of_open_jobs(groups)).items():
            self._rule_jobs.labels(rule_job_status).set(count)

    def _observe_start(self, row: FlowRunRow, names: Mapping[UUID, str]) -> None:
        group = names.get(row.deployment_id) if row.deployment_id else None
        # Prefect sets the start of a job that was cancelled before it started to its end.
        never_ran = row.start_time == row.end_time
        if group and row.start_time and row.expected_start_time and not never_ran:
            waited = (row.start_time - row.expected_start_time).total_seconds()
            self._queue_seconds.labels(group).observe(max(0.0, waited))

    def _observe_end(self, row: FlowRunRow, names: Mapping[UUID, str]) -> None:
        group = names.get(row.deployment_id) if row.deployment_id else None
        if group:
            self._finished.labels(group, job_status(row.state_type)).inc()
