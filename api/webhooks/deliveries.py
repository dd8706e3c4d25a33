"""Delivers webhooks: at least once for each final state of a job, whoever set it.

This module stores nothing. Jobs that have ended are found in Prefect, a label marks those whose webhook
was delivered, and the times of retries follow from the end of the job. So a restarted replica continues
where another has stopped; two replicas that run at once both deliver the same message.
"""

import asyncio
import logging
import random
import ssl
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit
from uuid import UUID

import anyio
from anyio.abc import TaskGroup
from standardwebhooks import Webhook as Signer

from api.prefect.overview import OVERLAP, Overview
from api.prefect.rows import FlowRunRow
from api.prefect.translation import job_from
from api.web.problems import ProblemError
from api.webhooks.messages import Message
from api.webhooks.sender import Outcome, Sender
from flows.contract.spec import Label

LOOK_BACK = timedelta(days=1)
"""How long all replicas may be down: webhooks of jobs that ended in that time are still sent."""

_AGAIN = timedelta(minutes=5)
"""How often all recent jobs are read again, to find those that a worker with a slow clock has ended."""

_AT_ONCE = 16
_MOST_WAITING = 10_000
"""The most messages that wait in memory; others are found again later."""

_JITTER = 0.1

_log = logging.getLogger(__name__)


class Deliveries:
    """Runs in the background as long as the facade."""

    def __init__(
        self,
        overview: Overview,
        signer: Signer,
        *,
        retry_seconds: Sequence[float],
        poll_seconds: float,
        private_hosts: Sequence[str],
        prefect_ui_url: str,
        count: Callable[[str], None],
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """`retry_seconds` count from the end of the job; `count` gets the outcome of each attempt."""
        self._overview = overview
        self._signer = signer
        self._retries = [timedelta(seconds=seconds) for seconds in sorted(retry_seconds)]
        self._poll_seconds = poll_seconds
        self._private_hosts = frozenset(private_hosts)
        self._prefect_ui_url = prefect_ui_url
        self._count = count
        self._ssl_context = ssl_context
        self._under_way: set[str] = set()
        self._sending = anyio.CapacityLimiter(_AT_ONCE)

    async def run(self) -> None:
        """Runs until it is cancelled."""
        while True:
            try:
                await self._run()
            except Exception:  # noqa: BLE001 - one defect must not silently end all webhooks
                _log.exception("Webhooks failed unexpectedly; restarting them.")
                await asyncio.sleep(self._poll_seconds)

    async def _run(self) -> None:
        look_back = LOOK_BACK
        async with (
            Sender(self._signer, self._private_hosts, self._ssl_context) as sender,
            anyio.create_task_group() as tries,
        ):
            while True:
                try:
                    await self._look_for(look_back, sender, tries)
                    look_back = OVERLAP + (self._retries[-1] if self._retries else timedelta(0))
                except ProblemError as error:
                    _log.warning("Webhooks are delayed: %s", error.detail)
                    await asyncio.sleep(self._poll_seconds)

    async def _look_for(self, look_back: timedelta, sender: Sender, tries: TaskGroup) -> None:
        """Finds jobs that have ended since then, and those that end now, for a while."""
        begun = datetime.now(UTC)
        sweep = self._overview.ended(begun - look_back)
        while datetime.now(UTC) - begun < _AGAIN:
            await self._start(await sweep.next(), sender, tries)
            await asyncio.sleep(self._poll_seconds)

    async def _start(self, rows: Sequence[FlowRunRow], sender: Sender, tries: TaskGroup) -> None:
        wanted = [row for row in rows if Label.WEBHOOK_URL in row.labels]
        if not wanted:
            return
        names = {group.deployment_id: group.name for group in await self._overview.groups()}
        for row in wanted:
            group = names.get(row.deployment_id) if row.deployment_id else None
            if group is None or row.end_time is None or len(self._under_way) >= _MOST_WAITING:
                continue
            job = job_from(row, group, self._prefect_ui_url)
            message_id = Message.id_of(job, row.end_time)
            if message_id not in self._under_way and not _is_settled(row, message_id):
                self._under_way.add(message_id)
                url = str(row.labels[Label.WEBHOOK_URL])
                message = Message.of(job, row.end_time)
                tries.start_soon(self._deliver, sender, row.id, url, message, row.end_time)

    async def _deliver(
        self, sender: Sender, job_id: UUID, url: str, message: Message, ended_at: datetime
    ) -> None:
        """Tries at once, then at the remaining retry times."""
        try:
            while True:
                async with self._sending:
                    outcome, reason = await sender.send(url, message)
                self._count(outcome)
                _log.info(
                    "Webhook of job %s to %s: %s",
                    job_id,
                    urlsplit(url).hostname,  # the rest of the URL may be a secret
                    reason,
                    extra={"job_id": str(job_id), "webhook_id": message.id, "outcome": outcome},
                )
                if outcome is not Outcome.FAILED:
                    await self._settle(job_id, message, outcome)
                    return
                pause = self._pause(datetime.now(UTC) - ended_at)
                if pause is None:
                    _log.warning(
                        "Webhook of job %s failed at every attempt; giving up.",
                        job_id,
                        extra={"job_id": str(job_id)},
                    )
                    return
                await asyncio.sleep(pause.total_seconds())
        finally:
            self._under_way.discard(message.id)

    async def _settle(self, job_id: UUID, message: Message, outcome: Outcome) -> None:
        label = Label.WEBHOOK_DELIVERED if outcome is Outcome.DELIVERED else Label.WEBHOOK_REFUSED
        try:
            await self._overview.label(job_id, {label: message.id})
        except ProblemError as error:
            # It is delivered again when a replica restarts, with the same id.
            _log.warning(
                "Webhook of job %s: the outcome '%s' could not be recorded (%s).", job_id, outcome, error
            )

    def _pause(self, age: timedelta) -> timedelta | None:
        """The time until the next attempt, with jitter; none after the last one."""
        later = next((retry for retry in self._retries if retry > age), None)
        return None if later is None else later * random.uniform(1, 1 + _JITTER) - age


def _is_settled(row: FlowRunRow, message_id: str) -> bool:
    labels: Mapping[str, object] = row.labels
    return message_id in (labels.get(Label.WEBHOOK_DELIVERED), labels.get(Label.WEBHOOK_REFUSED))
