"""What can go wrong for a client, and how it is told: RFC 9457 problem details.

    ProblemError
    ├── Unauthorized            401  no token, or none that is known
    ├── Forbidden          403  the token's scope is too small, or the service may be used here only
    ├── TooManyRequests     429  sent faster than the service allows
    ├── TooManyOpenJobs     429  the group has all the jobs that it may have at once
    ├── TooManyStreams      429  the token has all the streams of events that it may have at once
    ├── TokensDamaged       503  nobody can be let in: the operator has to act
    ├── BadCursor           400  the cursor is not one of ours, or belongs to another listing
    ├── NotJson             415  the body is not declared as JSON
    ├── UnsupportedArchive        415  the body is no archive that can be read
    ├── BodyTooLarge        413  the body, or what Prefect would have to keep of it
    ├── InvalidRequest      422  the fields listed under `errors` are wrong
    │   ├── UnknownGroup         no deployment of that name
    │   ├── WorkflowRefused      the workflow is not where the spec says, or may not be used
    │   ├── IdempotencyKeyReused the key was used for another job
    │   ├── BundleRefused        something in the archive may not come in
    │   ├── GraphTooLarge        nobody could read the drawing
    │   ├── WebhookRefused       nobody may be told there, or nobody at all
    │   ├── MachineRefused       there is no machine of that size or kind
    │   └── RefusedByPrefect     Prefect does not accept what we made of the request
    ├── NotFound            404  no such job, rule job or output
    ├── JobAlreadyFinished  409  there is nothing left to cancel
    ├── JobNotFinished      409  what is asked for can only be done when the job has ended
    ├── NotResumable        409  the job has not ended, or there is nothing left to do
    ├── ManifestDamaged     500  a job's list of outputs can't be read
    ├── PrefectUnavailable  503  Prefect can't be reached, is too slow or fails
    └── StorageUnavailable  503  what keeps bundles and outputs can't do its work

Every one says what is wrong (`detail`) and what to do now (`resolution`).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse

from flows.contract.documentation import with_reference

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 5


class FieldProblem(BaseModel):
    """What is wrong with one field."""

    pointer: str = Field(
        description="A JSON pointer into the body (`#/options/retries`), or `?name` for a query parameter."
    )
    message: str = Field(description="What is wrong there.")


class Problem(BaseModel):
    """RFC 9457 problem details, with what to do about it."""

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

    type: str = Field(default="about:blank", description="Names the kind of problem; stable.")
    title: str = Field(description="The kind of problem in words.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What happened this time.")
    instance: str = Field(description="The path that was asked for.")
    resolution: str = Field(description="What to do now.")
    errors: list[FieldProblem] | None = Field(default=None, description="The fields that are wrong.")


class ProblemError(Exception):
    """A refusal or failure that the client is told of."""

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
    """No token, or none that is known."""

    status = 401
    slug = "unauthorized"
    title = "Unauthorized"


class Forbidden(ProblemError):
    """The token's scope is too small, or the service may be used here only."""

    status = 403
    slug = "forbidden"
    title = "Forbidden"


class TooManyRequests(ProblemError):
    """Sent faster than the service allows."""

    status = 429
    slug = "too-many-requests"
    title = "Too many requests"


class TooManyOpenJobs(ProblemError):
    """The group has all the jobs that it may have at once."""

    status = 429
    slug = "too-many-open-jobs"
    title = "Too many open jobs"
    headers: ClassVar[Mapping[str, str]] = {"Retry-After": "30"}


class TooManyStreams(ProblemError):
    """The token has all the streams of events that it may have at once."""

    status = 429
    slug = "too-many-streams"
    title = "Too many streams"
    headers: ClassVar[Mapping[str, str]] = {"Retry-After": "30"}


class TokensDamaged(ProblemError):
    """Nobody can be let in: the operator has to act."""

    status = 503
    slug = "tokens-damaged"
    title = "Tokens damaged"


class BadCursor(ProblemError):
    """The cursor is not one of ours, or belongs to another listing."""

    status = 400
    slug = "bad-cursor"
    title = "Bad cursor"


class NotJson(ProblemError):
    """The body is not declared as JSON."""

    status = 415
    slug = "not-json"
    title = "Unsupported media type"


class UnsupportedArchive(ProblemError):
    """The body is no archive that can be read."""

    status = 415
    slug = "not-an-archive"
    title = "Unsupported archive"


class BodyTooLarge(ProblemError):
    """The body, or what Prefect would have to keep of it, is larger than allowed."""

    status = 413
    slug = "body-too-large"
    title = "Body too large"


class InvalidRequest(ProblemError):
    """The fields listed under `errors` are wrong."""

    status = 422
    slug = "invalid-request"
    title = "Invalid request"


class UnknownGroup(InvalidRequest):
    """No deployment of that name."""

    slug = "unknown-group"
    title = "Unknown group"


class WorkflowRefused(InvalidRequest):
    """The workflow is not where the spec says, or may not be used."""

    slug = "workflow-refused"
    title = "Workflow refused"


class IdempotencyKeyReused(InvalidRequest):
    """The key belongs to a job that was submitted with another body."""

    slug = "idempotency-key-reused"
    title = "Idempotency key reused"


class BundleRefused(InvalidRequest):
    """Something in the archive may not come in."""

    slug = "bundle-refused"
    title = "Bundle refused"


class GraphTooLarge(InvalidRequest):
    """Nobody could read the drawing."""

    slug = "graph-too-large"
    title = "Graph too large"


class WebhookRefused(InvalidRequest):
    """Nobody may be told there, or nobody at all."""

    slug = "webhook-refused"
    title = "Webhook refused"


class MachineRefused(InvalidRequest):
    """There is no machine of that size or kind."""

    slug = "machine-refused"
    title = "Machine refused"


class RefusedByPrefect(InvalidRequest):
    """Prefect does not accept what we made of the request."""

    slug = "refused-by-prefect"
    title = "Refused by Prefect"


class NotFound(ProblemError):
    """No such job, rule job or output."""

    status = 404
    slug = "not-found"
    title = "Not found"


class JobAlreadyFinished(ProblemError):
    """There is nothing left to cancel."""

    status = 409
    slug = "job-already-finished"
    title = "Job already finished"


class JobNotFinished(ProblemError):
    """Only what has ended can be removed."""

    status = 409
    slug = "job-not-finished"
    title = "Job not finished"


class NotResumable(ProblemError):
    """The job has not ended, or there is nothing left of it to do."""

    status = 409
    slug = "not-resumable"
    title = "Not resumable"


class ManifestDamaged(ProblemError):
    """A job's list of outputs can't be read."""

    status = 500
    slug = "manifest-damaged"
    title = "Manifest damaged"


class PrefectUnavailable(ProblemError):
    """Prefect can't be reached, is too slow or fails."""

    status = 503
    slug = "prefect-unavailable"
    title = "Prefect unavailable"
    headers: ClassVar[Mapping[str, str]] = {"Retry-After": str(RETRY_AFTER_SECONDS)}


class StorageUnavailable(ProblemError):
    """What keeps bundles and outputs can't do its work."""

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
    """The problems that an operation may answer, for its OpenAPI document; some every one may."""
    always = (Unauthorized, Forbidden, TooManyRequests, PrefectUnavailable)
    return {status: {"model": Problem} for status in (*statuses, *(problem.status for problem in always))}


WES_PREFIX = "/ga4gh/wes/v1"
_WES_STATUSES = (400, 401, 403, 404, 405, 429, 500)


def problem_response(problem: Problem, headers: Mapping[str, str]) -> JSONResponse:
    """A problem as it is answered; below WES's paths, as its document has errors."""
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
