"""The gateway at `/prefect-gateway`: Prefect's API for the task of a job, which sends the job's token."""

import base64
import binascii
import logging
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from uuid import UUID

import anyio.to_thread
import httpx
import orjson
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prefect.client.orchestration import PrefectClient
from prefect.exceptions import ObjectNotFound
from pydantic import SecretStr

from api.gateway.batch_access import BatchAccess
from api.gateway.own_runs import OwnRuns
from api.gateway.permissions import NotPermitted, OwnRun, PrefectRequest, permitted
from api.gateway.rule_jobs import RuleJobs
from api.gateway.storage_access import StorageAccess
from api.prefect.retries import translating_errors
from api.web.problems import BodyTooLarge, Forbidden, Unauthorized
from flows.contract.job_tokens import BATCH_PATH, GATEWAY_PATH, STORAGE_PATH, USER, flow_run_of
from flows.contract.secrets import SecretSettings

_MAX_BYTES = 1 << 26
"""The recorder's largest batch: 200 rule jobs with their records."""

_log = logging.getLogger(__name__)

gateway_router = APIRouter()


class Gateway:
    """Passes on to Prefect what the job may ask."""

    def __init__(
        self,
        client: PrefectClient,
        secret: SecretStr | None,
        blocks: SecretSettings,
        timeout_seconds: float,
        storage: StorageAccess | None,
        batch: BatchAccess | None,
    ) -> None:
        """Without a secret, nobody has a valid token; without `storage` or `batch`, no credentials of it."""
        self._client = client
        self._secret = secret
        self._runs = OwnRuns(client, blocks)
        self._rule_jobs = RuleJobs()
        self._timeout_seconds = timeout_seconds
        self._storage = storage
        self._batch = batch

    def job_of(self, authorization: str) -> UUID:
        """The job whose token this is. Raises `Unauthorized`."""
        token = _token_in(authorization)
        job_id = None
        if self._secret is not None:
            job_id = flow_run_of(token, self._secret.get_secret_value(), datetime.now(UTC))
        if job_id is None:
            raise Unauthorized(
                "This request has no valid token of a job.", "Only tasks of jobs use this address."
            )
        return job_id

    async def answer(
        self, job_id: UUID, method: str, path: str, body: Any, parameters: dict[str, str]
    ) -> Response:
        """Prefect's answer. Raises `Forbidden` and `PrefectUnavailable`."""
        async with translating_errors(self._timeout_seconds):
            try:
                run = await self._runs.get(job_id)
                request = permitted(method, path, body, parameters, run, self._rule_jobs)
                if request.changes_run and (state := await self._runs.final_state(job_id)):
                    return _of_a_final_run(request, state)
                if request.artifact is not None:
                    await self._check_is_own(job_id, request.artifact)
            except NotPermitted as refusal:
                _log.warning("Job %s may not %s /%s: %s.", job_id, method, path, refusal)
                raise _forbidden(f"The job may not send this request: {refusal}.") from refusal
            except ObjectNotFound as error:
                raise _forbidden("The job was removed.") from error
            return await self._passed_on(request)

    async def storage_credentials(self, job_id: UUID) -> dict[str, Any]:
        """For the files of this job, while it has not ended. Raises as `answer` does."""
        if self._storage is None:
            raise _forbidden("This service makes no credentials: tasks have a role of their own.")
        run = await self._unfinished(job_id)
        return await anyio.to_thread.run_sync(self._storage.credentials, run.files)

    async def batch_credentials(self, job_id: UUID) -> dict[str, Any]:
        """For the rule jobs of this job, while it has not ended. Raises as `answer` does."""
        run = await self._unfinished(job_id)
        if self._batch is None or not self._batch.serves(run.group):
            raise _forbidden(f"The group '{run.group}' runs no rule jobs on AWS Batch.")
        return await anyio.to_thread.run_sync(
            self._batch.credentials, job_id, run.first_job or job_id, run.group
        )

    async def _unfinished(self, job_id: UUID) -> OwnRun:
        """The job, which has not ended. Raises `Forbidden` and `PrefectUnavailable`."""
        async with translating_errors(self._timeout_seconds):
            try:
                run = await self._runs.get(job_id)
                if await self._runs.final_state(job_id) is not None:
                    raise _forbidden("The job has ended.")
            except ObjectNotFound as error:
                raise _forbidden("The job was removed.") from error
        return run

    async def _check_is_own(self, job_id: UUID, artifact_id: UUID) -> None:
        """Raises `NotPermitted` for the artifact of another job, as for one that does not exist."""
        filters = {"artifacts": {"id": {"any_": [str(artifact_id)]}, "flow_run_id": {"any_": [str(job_id)]}}}
        found = await self._client.request("POST", "/artifacts/count", json=filters)
        if found.json() != 1:
            raise NotPermitted("an artifact belongs to another job")

    async def _passed_on(self, request: PrefectRequest) -> Response:
        content = None if request.body is None else orjson.dumps(request.body)
        try:
            response = await self._client.request(
                request.method,  # type: ignore[arg-type]  # one of those that permissions name
                request.path,  # type: ignore[arg-type]  # likewise
                params=request.parameters,
                content=content,
                headers={"Content-Type": "application/json"},
            )
        except httpx.HTTPStatusError as error:
            if error.response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
                raise
            response = error.response
        return Response(response.content, response.status_code, media_type="application/json")


def _of_a_final_run(request: PrefectRequest, state: dict[str, Any]) -> Response:
    """Prefect's client proposes states, and takes a rejection with the state that holds."""
    if not request.path.endswith("/set_state"):
        raise _forbidden("The job has ended.")
    details = {"type": "reject_details", "reason": "The job has ended."}
    return JSONResponse({"state": state, "status": "REJECT", "details": details})


def _forbidden(detail: str) -> Forbidden:
    return Forbidden(detail, "The task of a job reaches what belongs to this job only.")


def _token_in(authorization: str) -> str:
    """From `Basic job:TOKEN` or `Bearer TOKEN`, as Prefect's client sends it; empty if there is none."""
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    try:
        user, _, token = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return ""
    return token if scheme.lower() == "basic" and user == USER else ""


@gateway_router.get(f"{GATEWAY_PATH}{STORAGE_PATH}", include_in_schema=False)
async def make_storage_credentials(request: Request) -> Response:
    gateway: Gateway = request.app.state.services.gateway
    job_id = gateway.job_of(request.headers.get("authorization", ""))
    credentials = await gateway.storage_credentials(job_id)
    return JSONResponse(credentials, headers={"Cache-Control": "no-store"})


@gateway_router.get(f"{GATEWAY_PATH}{BATCH_PATH}", include_in_schema=False)
async def make_batch_credentials(request: Request) -> Response:
    gateway: Gateway = request.app.state.services.gateway
    job_id = gateway.job_of(request.headers.get("authorization", ""))
    credentials = await gateway.batch_credentials(job_id)
    return JSONResponse(credentials, headers={"Cache-Control": "no-store"})


@gateway_router.api_route(
    f"{GATEWAY_PATH}/{{path:path}}",
    methods=["GET", "POST", "PATCH", "PUT", "DELETE"],
    include_in_schema=False,
)
async def ask_prefect(request: Request, path: str) -> Response:
    """Authenticates before the body is read."""
    gateway: Gateway = request.app.state.services.gateway
    job_id = gateway.job_of(request.headers.get("authorization", ""))
    body = await _body(request)
    return await gateway.answer(job_id, request.method, path, body, dict(request.query_params))


async def _body(request: Request) -> Any:
    received = bytearray()
    async for chunk in request.stream():
        received += chunk
        if len(received) > _MAX_BYTES:
            raise BodyTooLarge(
                f"The body is larger than {_MAX_BYTES:,} bytes.", "Send fewer events or log entries at once."
            )
    try:
        return orjson.loads(received) if received else None
    except orjson.JSONDecodeError as error:
        raise _forbidden("The body is not JSON.") from error
