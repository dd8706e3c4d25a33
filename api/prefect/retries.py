"""The seam to Prefect: bounds how long its client retries, and translates its errors into problems."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import anyio
import httpx
from prefect.exceptions import ObjectNotFound

from api.web.problems import (
    RETRY_AFTER_SECONDS,
    NotFound,
    PrefectUnavailable,
    ProblemError,
    RefusedByPrefect,
)

_OVERLOADED = (408, 429)
_FORBIDDEN = (401, 403)


@asynccontextmanager
async def translating_errors(timeout_seconds: float) -> AsyncIterator[None]:
    """Bounds the calls to Prefect inside, and translates their errors.

    Within `timeout_seconds`, Prefect's client retries 408, 429, 502, 503 and lost connections
    with growing, jittered pauses (`PrefectHttpxAsyncClient.send`); without a bound, for about a
    minute. `ObjectNotFound` passes through: only the caller knows what was not found.

    Raises `PrefectUnavailable` and `RefusedByPrefect`.
    """
    try:
        with anyio.fail_after(timeout_seconds):
            yield
    except TimeoutError as error:
        raise _unavailable(f"Prefect did not answer within {timeout_seconds:g} seconds.") from error
    except httpx.HTTPStatusError as error:
        raise _translated(error.response) from error
    except httpx.TransportError as error:
        raise _unavailable("Prefect can't be reached.") from error


@contextmanager
def translating_not_found_errors(not_found: NotFound) -> Iterator[None]:
    """Raises `not_found` where Prefect does not find what is asked for inside."""
    try:
        yield
    except ObjectNotFound as error:
        raise not_found from error


def _translated(response: httpx.Response) -> ProblemError:
    status = response.status_code
    if status in _FORBIDDEN:
        return PrefectUnavailable(
            f"Prefect rejected the credentials of this service: it answered {status}.",
            "Ask the operator to set PREFECT_API_AUTH_STRING to that of the Prefect server.",
        )
    if status >= 500:
        return _unavailable(f"Prefect answered {status}: its database may be away, or busy.")
    if status in _OVERLOADED:
        return _unavailable(f"Prefect answered {status}.")
    return RefusedByPrefect(
        f"Prefect refused the request with {status}: {response.text[:2000]}",
        "Correct the job spec. If it is correct, report this to the operator: the deployment and this "
        "service may have different versions.",
    )


def _unavailable(detail: str) -> PrefectUnavailable:
    return PrefectUnavailable(
        detail,
        f"Try again in {RETRY_AFTER_SECONDS} seconds. Before you repeat a submission without an "
        "Idempotency-Key, look for the job in GET /jobs: it may have been accepted.",
    )
