"""Prefect is away, slow or forgetful: clients hear so soon, and nothing is made twice."""

import json
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import httpx
import pytest
from starlette.types import Receive, Scope, Send

from api.settings import Settings
from tests.api.servers import free_port, serving
from tests.api.support import facade, get, submit, the_problem, walk

pytestmark = pytest.mark.anyio

IMPATIENT = Settings(read_timeout_seconds=0.3, submit_timeout_seconds=0.5)


class UnreliablePrefect:
    """Passes requests on to Prefect, and loses its first answer to every creation of flow runs.

    Half of them it answers with 503, in the middle of the other half it hangs up.
    """

    def __init__(self, prefect_api_url: str) -> None:
        self._upstream = httpx.AsyncClient(base_url=prefect_api_url.removesuffix("/api"), timeout=60)
        self.lost: set[str] = set()
        """The idempotency keys in those requests."""
        self._requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _body(receive)
        answer = await self._upstream.request(
            scope["method"],
            httpx.URL(scope["path"], query=scope["query_string"]),
            content=body,
            headers={"content-type": "application/json"},
        )
        status = answer.status_code
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer.content))]
        keys = _keys_in(scope["path"], body)
        if not keys <= self.lost:
            self.lost |= keys
            self._requests += 1
            if self._requests % 2:
                # Less than was announced: the server hangs up.
                await send({"type": "http.response.start", "status": 201, "headers": headers})
                await send({"type": "http.response.body", "body": answer.content[:10], "more_body": True})
                return
            status = 503
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.content})


def _keys_in(path: str, body: bytes) -> set[str]:
    """Of the flow runs that the request creates, alone or together."""
    if path.endswith("/create_flow_run"):
        return {json.loads(body)["idempotency_key"]}
    return {each["idempotency_key"] for each in json.loads(body)} if path.endswith("/bulk") else set()


async def silent_prefect(scope: Scope, receive: Receive, send: Send) -> None:
    """Takes every request and answers none."""
    while (await receive())["type"] != "http.disconnect":
        pass


def answering(status: int, body: Any) -> Any:
    """A Prefect that answers every request like this."""

    async def prefect(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(body).encode()})

    return prefect


async def _body(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        body += message["body"]
        if not message["more_body"]:
            return bytes(body)


async def is_told_soon(api: httpx.AsyncClient) -> None:
    """Every operation answers within seconds that Prefect is not available, and when to come again."""
    for method, path in (
        ("GET", "/jobs"),
        ("GET", f"/jobs/{uuid4()}"),
        ("GET", f"/jobs/{uuid4()}/outputs"),
        ("POST", f"/jobs/{uuid4()}/cancel"),
        ("POST", "/jobs"),
    ):
        started = time.monotonic()
        response = await api.request(method, path, json={"engine": "mock"} if path == "/jobs" else None)
        problem = the_problem(response, 503)
        assert time.monotonic() - started < 3
        assert problem["type"].endswith(":prefect-unavailable")
        assert int(response.headers["retry-after"]) > 0
    assert (await api.get("/livez")).status_code == 200


async def test_a_prefect_that_is_not_there_is_told_soon() -> None:
    async with facade(f"http://127.0.0.1:{free_port()}/api", IMPATIENT) as api:
        await is_told_soon(api)


async def test_a_prefect_that_went_away_is_told_soon(prefect_api_url: str) -> None:
    async with AsyncExitStack() as staying:
        async with serving(UnreliablePrefect(prefect_api_url)) as proxy_url:
            settings = Settings(read_timeout_seconds=2.0, submit_timeout_seconds=0.5)
            api = await staying.enter_async_context(facade(f"{proxy_url}/api", settings))
            await get(api, "/jobs")
        await is_told_soon(api)


async def test_a_prefect_that_gives_no_answer_is_told_soon() -> None:
    async with serving(silent_prefect) as url, facade(f"{url}/api", IMPATIENT) as api:
        await is_told_soon(api)


@pytest.mark.parametrize("status", [500, 503, 401])
async def test_a_prefect_that_only_fails_is_told_soon(status: int) -> None:
    async with serving(answering(status, {"detail": "no"})) as url, facade(f"{url}/api", IMPATIENT) as api:
        await is_told_soon(api)


async def test_a_submission_whose_answer_is_lost_makes_one_job(prefect_api_url: str, home: Path) -> None:
    here = uuid4().hex
    unreliable = UnreliablePrefect(prefect_api_url)
    async with (
        serving(unreliable) as proxy_url,
        facade(f"{proxy_url}/api", Settings(home=home)) as api,
    ):
        submitted: list[str] = []

        async def submit_one() -> None:
            submitted.append(str(await submit(api, tags={"here": here})))

        async with anyio.create_task_group() as clients:
            for _ in range(12):
                clients.start_soon(submit_one)
        jobs = await walk(api, "/jobs", tag=f"here:{here}")

    assert len(unreliable.lost) == 12
    assert sorted(job["id"] for job in jobs) == sorted(submitted)
    assert len(submitted) == 12


async def test_without_an_address_of_prefect_the_service_does_not_start() -> None:
    with pytest.raises(RuntimeError, match="PREFECT_API_URL is not set"):
        async with facade("", IMPATIENT):
            pass
