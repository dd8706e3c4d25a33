"""Makes jobs: from a spec, or to continue an earlier one."""

import json
from collections.abc import Mapping
from hashlib import sha256
from http import HTTPStatus
from types import MappingProxyType
from typing import Any
from uuid import UUID, uuid4

import anyio.to_thread
import httpx
from prefect.client.schemas.objects import FlowRun
from prefect.settings import get_current_settings

from api.jobs.changes import JobChanges
from api.jobs.data import check_data, check_outputs_of_jobs
from api.jobs.disposal import Disposal, bundle_of
from api.jobs.environments import check_environment, check_executor
from api.jobs.machines import job_variables
from api.jobs.secrets import check_secrets
from api.jobs.visible_jobs import VisibleJobs
from api.jobs.workflows import check_workflow
from api.prefect.flow_runs import FlowRuns
from api.prefect.retries import translating_errors
from api.prefect.rows import FlowRunRow
from api.settings import Settings
from api.web.fair_limits import FairLimit
from api.web.problems import (
    BodyTooLarge,
    IdempotencyKeyReused,
    InvalidRequest,
    NotResumable,
    TooManyOpenJobs,
)
from api.web.schemas import Job
from api.web.statuses import OPEN_STATUSES
from api.webhooks.messages import check_webhook
from api.workflows.runs import RegisteredRuns
from flows.contract.spec import EngineName, JobSpec, Label
from flows.contract.storage import Storage

# Those of a group go to Prefect together, in one request at a time (`api.prefect.creation`).
_SUBMISSIONS_AT_ONCE = 32
_OF_ONE_GROUP = 24
# Where each counts the open jobs of its group before. It is less than half of the connections that
# Prefect's client opens, so that reads never queue behind a flood of submissions.
_COUNTED_SUBMISSIONS_AT_ONCE = 8
_COUNTED_OF_ONE_GROUP = 6


class Submissions:
    """Shared by all callers; each method gets the jobs that its caller may see.

    Every method may raise `UnknownGroup`, `TooManyOpenJobs`, `RefusedByPrefect` and
    `PrefectUnavailable`.
    """

    def __init__(
        self,
        flow_runs: FlowRuns,
        disposal: Disposal,
        settings: Settings,
        storage: Storage,
        registered: RegisteredRuns,
    ) -> None:
        self._flow_runs = flow_runs
        self._disposal = disposal
        self._settings = settings
        self._storage = storage
        self._registered = registered
        self._at_once = (
            FairLimit(_SUBMISSIONS_AT_ONCE, _OF_ONE_GROUP)
            if settings.max_open_jobs_per_group is None
            else FairLimit(_COUNTED_SUBMISSIONS_AT_ONCE, _COUNTED_OF_ONE_GROUP)
        )

    async def submit(
        self,
        jobs: VisibleJobs,
        spec: JobSpec,
        key: str | None = None,
        labels: Mapping[Label, str] = MappingProxyType({}),
    ) -> Job:
        """Makes one job of `spec`, or none; with a `key` that was used before, it returns that job.

        Raises `UnknownWorkflow`, `WorkflowRefused`, `DataRefused`, `SecretNotAllowed`, `MachineRefused`,
        `BodyTooLarge`, `WebhookRefused`,
        `IdempotencyKeyReused`, and `flows.contract.storage.StorageError` when a bundle can't be looked up.
        """
        # A key also where the client sends none: Prefect's client repeats a request without knowing
        # what became of the first one.
        idempotency_key = str(uuid4()) if key is None else f"client:{jobs.caller.name}:{key}"
        asked, registered = spec, None
        try:
            if spec.workflow is not None and spec.workflow.name is not None:
                registered = await self._registered.run_of(jobs, spec)
                spec, labels = registered.spec, {**labels, **registered.labels}
            machine = await self._check(jobs, spec)
        except InvalidRequest:
            # The workflow may have been removed since the job was made.
            made_before = await self._flow_runs.made_with(idempotency_key) if key is not None else None
            if made_before is None:
                raise
            flow_run = made_before
        else:
            flow_run = await self._make(
                jobs,
                spec.group,
                {
                    "parameters": spec.parameters(),
                    "name": spec.name,
                    "tags": spec.prefect_tags(),
                    "labels": _labels(asked) | {str(label): text for label, text in labels.items()},
                    "idempotency_key": idempotency_key,
                    "job_variables": machine or None,
                    # It is checked already, maybe against another version than that of the deployment.
                    "enforce_parameter_schema": None if registered is None else False,
                },
                spec,
                None if registered is None else registered.deployment_id,
            )
        if flow_run.labels.get(Label.SPEC_SHA256) != fingerprint(asked):
            raise IdempotencyKeyReused(
                f"The Idempotency-Key '{key}' was already used for the job {flow_run.id}, with another body.",
                "Send a new key with a new body, or the same body with this key.",
            )
        return self._flow_runs.job_from(flow_run, spec.group)

    async def check(self, jobs: VisibleJobs, spec: JobSpec) -> JobSpec:
        """The whole spec of a job of a registered workflow that somebody else will make, if it may be made.

        Raises as `submit` does.
        """
        whole = (await self._registered.run_of(jobs, spec)).spec
        await self._check(jobs, whole)
        return whole

    async def resume(self, jobs: VisibleJobs, job_id: UUID, changes: JobChanges) -> Job:
        """A new job that continues this one in its directory. Repeating the request returns the same job.

        So the jobs of a directory form a line, and no two of them run at once. Raises `NotFound` and
        `NotResumable`; with changes, everything that `submit` raises.
        """
        job = await jobs.get(job_id)
        _check_resumable(job)
        before = await self._flow_runs.whole(job_id)
        spec, machine = None, before.job_variables
        if changes.fields:
            spec = changes.apply(before.parameters, job.group)
            machine = dict(await self._check(jobs, spec)) or None
        kept = (Label.SPEC_SHA256, Label.WEBHOOK_URL, Label.WORKFLOW_NAME, Label.WORKFLOW_VERSION)
        labels = {label.value: before.labels[label] for label in kept if label in before.labels}
        labels |= _left_by(before)
        if spec is not None:
            labels |= {
                Label.SPEC_SHA256.value: fingerprint(spec),
                Label.CHANGES.value: ",".join(changes.fields),
            }
        flow_run = await self._make(
            jobs,
            job.group,
            {
                "parameters": before.parameters if spec is None else spec.parameters(),
                "name": before.name,
                "tags": before.tags,
                "labels": {
                    **labels,
                    Label.RESUMES.value: _directory_of(before),
                    Label.WORK.value: str(before.labels.get(Label.WORK, _first_of(before))),
                },
                "idempotency_key": resume_key(job_id),
                "job_variables": machine,
            },
            spec,
        )
        if flow_run.labels.get(Label.SPEC_SHA256) != labels.get(Label.SPEC_SHA256):
            raise NotResumable(
                f"The job {job_id} was resumed already, with other changes: by the job {flow_run.id}.",
                f"Resume the job {flow_run.id} when it has ended.",
            )
        await self._flow_runs.label(job_id, {Label.RESUMED_BY: str(flow_run.id)})
        return self._flow_runs.job_from(flow_run, job.group)

    async def _check(self, jobs: VisibleJobs, spec: JobSpec) -> Mapping[str, object]:
        """The job variables of a job that may be made. Raises as `submit` does."""
        machine = job_variables(spec, self._settings.machines)
        check_environment(spec, self._settings)
        check_executor(spec, self._settings)
        await anyio.to_thread.run_sync(check_data, spec, self._settings)
        await check_outputs_of_jobs(jobs, spec, self._settings)
        check_secrets(spec, self._settings)
        await self._check_workflow(spec)
        check_webhook(
            spec.webhook,
            can_sign=self._settings.webhook_secret is not None,
            private_hosts=self._settings.webhook_allowed_private_hosts,
        )
        _check_size(spec)
        return machine

    async def _check_workflow(self, spec: JobSpec) -> None:
        await anyio.to_thread.run_sync(check_workflow, spec, self._settings, self._storage)

    async def _check_open_jobs(self, jobs: VisibleJobs, group: str, idempotency_key: str) -> None:
        """Raises `UnknownGroup`; and `TooManyOpenJobs`, unless a job with that key exists already.

        Submissions at the same time don't see each other: together they may exceed the limit by as many
        as run at once.
        """
        await jobs.deployment_of(group)
        most = self._settings.max_open_jobs_per_group
        if most is None:
            return
        count = await self._flow_runs.count_open(group)
        if count >= most and await self._flow_runs.made_with(idempotency_key) is None:
            raise TooManyOpenJobs(
                f"The group '{group}' has {count} open jobs; its limit is {most}.",
                "Submit again when one of them has ended, or cancel one.",
            )

    async def _make(
        self,
        jobs: VisibleJobs,
        group: str,
        body: Mapping[str, Any],
        spec: JobSpec | None = None,
        deployment_id: UUID | None = None,
    ) -> FlowRunRow:
        """A flow run of that deployment, or of the group's. With a `spec`, the workflow must still exist."""
        key: str = body["idempotency_key"]
        bundle = bundle_of(body["parameters"])
        async with translating_errors(self._settings.submit_timeout_seconds), self._at_once.place(group):
            await self._check_open_jobs(jobs, group, key)
            if bundle is not None:
                await anyio.to_thread.run_sync(self._disposal.note_use, bundle, key)
                if spec is not None:  # the last job that needed the bundle may have been removed meanwhile
                    await self._check_workflow(spec)
            try:
                return await self._flow_runs.create(deployment_id or await jobs.deployment_of(group), body)
            except httpx.HTTPStatusError as error:
                if error.response.status_code != HTTPStatus.NOT_FOUND:
                    raise
                # The deployment was deleted, or created again with another id.
                self._flow_runs.groups.forget()
                return await self._flow_runs.create(await jobs.deployment_of(group), body)


def resume_key(job_id: UUID) -> str:
    """The idempotency key of the one job that resumes it."""
    return f"resume:{job_id}"


def _directory_of(flow_run: FlowRun) -> str:
    """The job whose directory a successor works in: a job that never ran has none of its own."""
    before = flow_run.labels.get(Label.RESUMES)
    return str(before) if before is not None and not flow_run.run_count else str(flow_run.id)


def _left_by(flow_run: FlowRun) -> dict[str, Any]:
    """The checksum of what a successor takes over. The job itself can't change it any more."""
    label = Label.WORK_SHA256 if flow_run.run_count else Label.RESUMED_WORK_SHA256
    left = flow_run.labels.get(label)
    return {} if left is None else {Label.RESUMED_WORK_SHA256.value: left}


def _first_of(flow_run: FlowRun) -> str:
    """The job that a job continues; itself if it continues none."""
    return str(flow_run.labels.get(Label.RESUMES, flow_run.id))


def _check_resumable(job: Job) -> None:
    """Raises `NotResumable`."""
    if job.attached:
        raise NotResumable(
            f"The job {job.id} is an attached run: its files are at {job.place}.",
            "Run Snakemake again there: it does what is incomplete.",
        )
    if job.status in OPEN_STATUSES:
        raise NotResumable(f"The job {job.id} is {job.status}.", "Wait until it has ended, or cancel it.")
    if job.dry_run:
        raise NotResumable(
            f"The job {job.id} is a dry run: it has made nothing to continue from.", "Submit a new job."
        )
    if job.engine == EngineName.MOCK:
        raise NotResumable(
            f"The job {job.id} uses the mock engine, which keeps no results to continue from.",
            "Submit a new job.",
        )


def _check_size(spec: JobSpec) -> None:
    """Raises `BodyTooLarge` where Prefect would reject the parameters, measured as Prefect does it
    (`prefect._internal.schemas.validators.validate_parameter_size`).
    """
    largest = get_current_settings().server.api.max_parameter_size
    size = len(json.dumps(spec.parameters(), separators=(",", ":")))
    if 0 < largest < size:
        raise BodyTooLarge(
            f"The job spec is {size:,} bytes; Prefect accepts at most {largest:,}.",
            "Move large values into files of the workflow, and name the files in `config`.",
        )


def _labels(spec: JobSpec) -> dict[str, str]:
    labels = {Label.SPEC_SHA256.value: fingerprint(spec)}
    return labels | ({Label.WEBHOOK_URL.value: str(spec.webhook.url)} if spec.webhook else {})


def fingerprint(spec: JobSpec) -> str:
    """Hash of a submitted spec."""
    return sha256(json.dumps(spec.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()
