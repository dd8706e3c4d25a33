"""Every error that a client may get, as RFC 9457 problem details.

    ProblemError
    ├── Unauthorized        401  no token, or an unknown one
    ├── Forbidden           403  the token's scope is too small, or the request comes from elsewhere
    ├── TooManyRequests     429  requests come faster than the rate limit allows
    ├── TooManyOpenJobs     429  the group has reached its limit of open jobs
    ├── TooManyStreams      429  the token has reached its limit of event streams
    ├── TokensDamaged       503  the tokens can't be read: the operator has to act
    ├── BadCursor           400  the cursor is invalid, or belongs to another listing
    ├── NotJson             415  the body is not declared as JSON
    ├── UnsupportedArchive  415  the body is not a tar or zip archive
    ├── BodyTooLarge        413  the body, or the part that Prefect stores, is too large
    ├── InvalidRequest      422  the fields listed under `errors` are invalid
    │   ├── UnknownGroup         there is no deployment with that name
    │   ├── UnknownWorkflow      no workflow is registered with that name or version
    │   ├── WorkflowRefused      the workflow does not exist, or may not be used
    │   ├── IdempotencyKeyReused the key was used with another body
    │   ├── BundleRefused        the archive holds something unsafe, or is too large
    │   ├── GraphTooLarge        the graph has too many boxes or lines to draw
    │   ├── WebhookRefused       the address is not allowed, or webhooks are off
    │   ├── DataRefused          the job may not use that directory, or it does not exist
    │   ├── EnvironmentRefused   the operator does not offer that environment or software
    │   ├── SecretNotAllowed     the group's jobs may not use that Secret block
    │   ├── MachineRefused       no machine has that size or kind
    │   └── RefusedByPrefect     Prefect rejected the request
    ├── NotFound            404  no such job, rule job or output
    ├── VersionExists       409  that version is registered already, with other content
    ├── JobAlreadyFinished  409  the job can't be cancelled: it has ended
    ├── JobNotFinished      409  the job must have ended first
    ├── NotResumable        409  the job has not ended, or is complete
    ├── ManifestDamaged     500  a job's list of outputs can't be read
    ├── PrefectUnavailable  503  Prefect can't be reached, is too slow, or fails
    └── StorageUnavailable  503  the storage of bundles and outputs fails

Each says what is wrong (`detail`) and what to do now (`resolution`).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse

from flows.contract.documentation import with_reference

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 5


class FieldProblem(BaseModel):
    """An error in one field."""

    pointer: str = Field(
        description="A JSON pointer into the body (`#/options/retries`), or `?name` for a query parameter."
    )
    message: str = Field(description="What is wrong with it.")


class Problem(BaseModel):
    """RFC 9457 problem details, with a resolution."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:problem-type:prefect-snakemake:unknown-group",
                    "title": "Unknown group",
                    "status": 422,
                    "detail": "There is no group 'defualt'.",
                    "instance": "/jobs",
                    "resolution": "Did you mean 'default'? Groups: default, large. "
                    "See docs/troubleshooting.md#unknown-group.",
                    "errors": [{"pointer": "#/group", "message": "There is no group 'defualt'."}],
                }
            ]
        }
    )

    type: str = Field(
        default="about:blank", description="Identifies the kind of problem. Stable: programs may rely on it."
    )
    title: str = Field(description="The kind of problem, for people.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What went wrong in this request.")
    instance: str = Field(description="The path of the request.")
    resolution: str = Field(description="What to do now, and where the documentation says more.")
    errors: list[FieldProblem] | None = Field(default=None, description="The fields that are invalid.")


class ProblemError(Exception):
    """An error that the client gets as a `Problem`."""

    status: ClassVar[int]
    slug: ClassVar[str]
    title: ClassVar[str]
    headers: ClassVar[Mapping[str, str]] = {}

    def __init__(self, detail: str, resolution: str, errors: Sequence[FieldProblem] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.resolution = resolution
        self.errors = errors

    def problem(self, instance: str) -> Problem:
        return Problem(
            type=f"urn:problem-type:prefect-snakemake:{self.slug}",
            title=self.title,
            status=self.status,
            detail=self.detail,
            instance=instance,
            resolution=with_reference(self.resolution, self.slug),
            errors=list(self.errors) or None,
        )


class Unauthorized(ProblemError):
    """The request has no token, or an unknown one."""

    status = 401
    slug = "unauthorized"
    title = "Unauthorized"


class Forbidden(ProblemError):
    """The token's scope is too small; or tokens are off, and the request does not come from this machine."""

    status = 403
    slug = "forbidden"
    title = "Forbidden"


class TooManyRequests(ProblemError):
    """Requests come faster than the rate limit allows."""

    status = 429
    slug = "too-many-requests"
    title = "Too many requests"


class TooManyOpenJobs(ProblemError):
    """The group has reached its limit of open jobs."""

    status = 429
    slug = "too-many-open-jobs"
    title = "Too many open jobs"
    headers: ClassVar[Mapping[str, str]] = {"Retry-After": "30"}


class TooManyStreams(ProblemError):
    """The token has reached its limit of event streams."""

    status = 429
    slug = "too-many-streams"
    title = "Too many streams"
    headers: ClassVar[Mapping[str, str]] = {"Retry-After": "30"}


class TokensDamaged(ProblemError):
    """The tokens can't be read, so no request is accepted: the operator has to act."""

    status = 503
    slug = "tokens-damaged"
    title = "Tokens damaged"


class BadCursor(ProblemError):
    """The cursor is invalid, or belongs to another listing."""

    status = 400
    slug = "bad-cursor"
    title = "Bad cursor"


class NotJson(ProblemError):
    """The body is not declared as JSON."""

    status = 415
    slug = "not-json"
    title = "Unsupported media type"


class UnsupportedArchive(ProblemError):
    """The body is not a tar or zip archive."""

    status = 415
    slug = "not-an-archive"
    title = "Unsupported archive"


class BodyTooLarge(ProblemError):
    """The body, or the part that Prefect stores, is larger than allowed."""

    status = 413
    slug = "body-too-large"
    title = "Body too large"


class InvalidRequest(ProblemError):
    """The fields listed under `errors` are invalid."""

    status = 422
    slug = "invalid-request"
    title = "Invalid request"


class UnknownGroup(InvalidRequest):
    """There is no deployment with that name."""

    slug = "unknown-group"
    title = "Unknown group"


class UnknownWorkflow(InvalidRequest):
    """No workflow is registered with that name or version."""

    slug = "unknown-workflow"
    title = "Unknown workflow"


class WorkflowRefused(InvalidRequest):
    """The workflow does not exist, or may not be used."""

    slug = "workflow-refused"
    title = "Workflow refused"


class IdempotencyKeyReused(InvalidRequest):
    """The key was used to submit another body."""

    slug = "idempotency-key-reused"
    title = "Idempotency key reused"


class BundleRefused(InvalidRequest):
    """The archive holds something unsafe, or is too large."""

    slug = "bundle-refused"
    title = "Bundle refused"


class GraphTooLarge(InvalidRequest):
    """The graph has too many boxes or lines to draw."""

    slug = "graph-too-large"
    title = "Graph too large"


class WebhookRefused(InvalidRequest):
    """The address of the webhook is not allowed, or the service sends no webhooks."""

    slug = "webhook-refused"
    title = "Webhook refused"


class EnvironmentRefused(InvalidRequest):
    """The operator does not offer that environment, or that way to deploy software."""

    slug = "environment-refused"
    title = "Environment refused"


class DataRefused(InvalidRequest):
    """The job may not read that data or work in that directory, or it does not exist."""

    slug = "data-refused"
    title = "Data refused"


class SecretNotAllowed(InvalidRequest):
    """The group's jobs may not use that Secret block."""

    slug = "secret-not-allowed"
    title = "Secret not allowed"


class MachineRefused(InvalidRequest):
    """No machine has that size or kind."""

    slug = "machine-refused"
    title = "Machine refused"


class RefusedByPrefect(InvalidRequest):
    """Prefect rejected the request that the facade made for the client."""

    slug = "refused-by-prefect"
    title = "Refused by Prefect"


class NotFound(ProblemError):
    """There is no such job, rule job or output."""

    status = 404
    slug = "not-found"
    title = "Not found"


class VersionExists(ProblemError):
    """The version is registered already, or the name is taken."""

    status = 409
    slug = "version-exists"
    title = "Version exists"


class JobAlreadyFinished(ProblemError):
    """The job can't be cancelled: it has ended."""

    status = 409
    slug = "job-already-finished"
    title = "Job already finished"


class JobNotFinished(ProblemError):
    """The job must have ended first."""

    status = 409
    slug = "job-not-finished"
    title = "Job not finished"


class NotResumable(ProblemError):
    """The job has not ended, or has made nothing that another one could continue."""

    status = 409
    slug = "not-resumable"
    title = "Not resumable"


class ManifestDamaged(ProblemError):
    """A job's list of outputs can't be read."""

    status = 500
    slug = "manifest-damaged"
    title = "Manifest damaged"


class PrefectUnavailable(ProblemError):
    """Prefect can't be reached, is too slow, or fails."""

    status = 503
    slug = "prefect-unavailable"
    title = "Prefect unavailable"
    headers: ClassVar[Mapping[str, str]] = {"Retry-After": str(RETRY_AFTER_SECONDS)}


class StorageUnavailable(ProblemError):
    """The storage of bundles and outputs fails."""

    status = 503
    slug = "storage-unavailable"
    title = "Storage unavailable"
    headers: ClassVar[Mapping[str, str]] = {"Retry-After": str(RETRY_AFTER_SECONDS)}


def json_pointer(path: Iterable[str | int]) -> str:
    """RFC 6901, as a URI fragment: `#/options/retries`."""
    return "#" + "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in path)


def sentence(error: Exception) -> str:
    """The message of an error, which begins in lower case, as a `detail`."""
    text = str(error)
    return f"{text[:1].upper()}{text[1:]}."


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problems that an operation may answer, for its OpenAPI document; some may come from all."""
    always = (Unauthorized, Forbidden, TooManyRequests, PrefectUnavailable)
    return {status: {"model": Problem} for status in (*statuses, *(problem.status for problem in always))}


WES_PREFIX = "/ga4gh/wes/v1"
_WES_STATUSES = (400, 401, 403, 404, 405, 429, 500)


def problem_response(problem: Problem, headers: Mapping[str, str]) -> JSONResponse:
    """The response for a problem; under WES's paths, in the form that its document defines for errors."""
    if problem.instance.startswith(WES_PREFIX):
        status = problem.status
        if status not in _WES_STATUSES:
            status = 400 if status < 500 else 500
        message = f"{problem.detail} {problem.resolution}"
        return JSONResponse({"msg": message, "status_code": status}, status, dict(headers))
    return JSONResponse(
        problem.model_dump(exclude_none=True),
        status_code=problem.status,
        headers=dict(headers),
        media_type=MEDIA_TYPE,
    )
