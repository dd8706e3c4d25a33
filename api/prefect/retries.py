"""The seam to Prefect: how long an answer is waited for, and what its failures are called here."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import httpx

from api.web.problems import RETRY_AFTER_SECONDS, PrefectUnavailable, ProblemError, RefusedByPrefect

_OVERLOADED = (408, 429)
_FORBIDDEN = (401, 403)


@asynccontextmanager
async def patience(seconds: float) -> AsyncIterator[None]:
    """Bounds the calls to Prefect inside, and translates their failures.

    Within `seconds`, Prefect's client tries 408, 429, 502, 503 and lost connections again
    with growing, jittered pauses (`PrefectHttpxAsyncClient.send`); left to itself it does
    so for a minute. `ObjectNotFound` passes: only the caller knows what was not found.

    Raises `PrefectUnavailable` and `RefusedByPrefect`.
    """
    try:
        with anyio.fail_after(seconds):
            yield
    except TimeoutError as error:
        raise _unavailable(f"Prefect gave no answer within {seconds:g} seconds.") from error
    except httpx.HTTPStatusError as error:
        raise _translated(error.response) from error
    except httpx.TransportError as error:
        raise _unavailable("Prefect can't be reached.") from error


def _translated(response: httpx.Response) -> ProblemError:
    status = response.status_code
    if status in _FORBIDDEN:
        return PrefectUnavailable(
            f"Prefect does not let this service in: it answered {status}.",
            "Tell the operator: PREFECT_API_AUTH_STRING must be that of the Prefect server.",
        )
    if status >= 500 or status in _OVERLOADED:
        return _unavailable(f"Prefect answered {status}.")
    return RefusedByPrefect(
        f"Prefect refused the request with {status}: {response.text[:2000]}",
        "Correct the job spec; if it is right, tell the operator: the deployment and this service may be "
        "of different versions.",
    )


def _unavailable(detail: str) -> PrefectUnavailable:
    return PrefectUnavailable(
        detail,
        f"Try again in {RETRY_AFTER_SECONDS} seconds. If this was a submission, look for the job in "
        "GET /jobs first: it may have been accepted.",
    )
