"""Who may see and do what: every operation before every kind of caller who may not."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from prefect.client.schemas.objects import StateType

from api.app import create_app
from api.auth.callers import OPEN_PATHS, TokenScope
from api.auth.tokens import TokenFile
from api.settings import Settings
from tests.api.support import Worker, facade, get, resolution_of, submit, the_problem, walk

pytestmark = pytest.mark.anyio

TOKENS = {
    "default-read": (("default",), TokenScope.READ),
    "default-submit": (("default",), TokenScope.SUBMIT),
    "large-admin": (("large",), TokenScope.ADMIN),
    "all-submit": (("*",), TokenScope.SUBMIT),
    "nowhere": (("not-deployed",), TokenScope.SUBMIT),
}

READS = {
    "getBundleLimits": ("GET", "/bundles/limits"),
    "listJobs": ("GET", "/jobs"),
    "getJob": ("GET", "/jobs/{job_id}"),
    "followJobs": ("GET", "/jobs/events"),
    "followJob": ("GET", "/jobs/{job_id}/events"),
    "listTasks": ("GET", "/jobs/{job_id}/tasks"),
    "getTask": ("GET", "/jobs/{job_id}/tasks/{task_id}"),
    "listTaskLogs": ("GET", "/jobs/{job_id}/tasks/{task_id}/logs"),
    "listLogs": ("GET", "/jobs/{job_id}/logs"),
    "listOutputs": ("GET", "/jobs/{job_id}/outputs"),
    "downloadOutput": ("GET", "/jobs/{job_id}/outputs/result.txt"),
    "drawJob": ("GET", "/jobs/{job_id}/graph.svg"),
    "packJob": ("GET", "/jobs/{job_id}/ro-crate"),
    "listWorkflows": ("GET", "/workflows"),
    "getWorkflow": ("GET", "/workflows/nothing"),
    "getWorkflowVersion": ("GET", "/workflows/nothing/versions/1"),
    "getWorkflowUsage": ("GET", "/workflows/nothing/usage"),
    "drawUsage": ("GET", "/jobs/{job_id}/usage.svg"),
    "listSchedules": ("GET", "/workflows/nothing/schedules"),
    "listTriggers": ("GET", "/workflows/nothing/triggers"),
    "getUsage": ("GET", "/jobs/{job_id}/usage"),
    "compareJobs": ("GET", "/jobs/{job_id}/comparison/{task_id}"),
    "readMetrics": ("GET", "/metrics"),
}
CHANGES = {
    "submitJob": ("POST", "/jobs"),
    "putBundle": ("PUT", "/bundles"),
    "deleteJob": ("DELETE", "/jobs/{job_id}"),
    "resumeJob": ("POST", "/jobs/{job_id}/resume"),
    "cancelJob": ("POST", "/jobs/{job_id}/cancel"),
    "registerWorkflow": ("PUT", "/workflows/nothing/versions/1"),
    "retireWorkflowVersion": ("POST", "/workflows/nothing/versions/1/retire"),
    "putTrigger": ("PUT", "/workflows/nothing/triggers/next"),
    "deleteTrigger": ("DELETE", "/workflows/nothing/triggers/next"),
    "putSchedule": ("PUT", "/workflows/nothing/schedules/weekly"),
    "deleteSchedule": ("DELETE", "/workflows/nothing/schedules/weekly"),
}
GUARDED = READS | CHANGES
OF_ONE_JOB = {name: (method, path) for name, (method, path) in GUARDED.items() if "{job_id}" in path}


@pytest.fixture(scope="module")
def tokens_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokens") / "tokens.json"


@pytest.fixture(scope="module")
def secrets(tokens_file: Path) -> dict[str, str]:
    """What each of `TOKENS` is."""
    file = TokenFile(tokens_file)
    return {name: file.create(name, groups, scope) for name, (groups, scope) in TOKENS.items()}


@pytest.fixture(scope="module")
def expired(tokens_file: Path) -> str:
    yesterday = datetime.now(UTC) - timedelta(days=1)
    return TokenFile(tokens_file).create("expired", ("*",), TokenScope.ADMIN, yesterday)


@pytest.fixture(scope="module")
async def guarded(
    anyio_backend: str, prefect_api_url: str, home: Path, tokens_file: Path, secrets: dict[str, str]
) -> AsyncIterator[httpx.AsyncClient]:
    """A client without a token, of a facade that asks for one; by a name that is not loopback's."""
    settings = Settings(home=home, tokens_file=tokens_file, api_host="0.0.0.0")
    async with facade(prefect_api_url, settings, "http://jobs.example.org") as client:
        yield client


class As:
    """A client's requests with one of the tokens."""

    def __init__(self, client: httpx.AsyncClient, secret: str) -> None:
        self._client = client
        self._headers = {"Authorization": f"Bearer {secret}"}

    async def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        return await self._client.request(method, path, headers=self._headers, **options)


@pytest.fixture(scope="module")
async def job_of_default(anyio_backend: str, api: httpx.AsyncClient) -> UUID:
    return await submit(api)


def filled(path: str, job_id: UUID) -> str:
    return path.format(job_id=job_id, task_id=uuid4())


def test_the_table_has_every_operation() -> None:
    document = create_app(Settings()).openapi()

    operations = {
        operation["operationId"]: operation["security"]
        for path, methods in document["paths"].items()
        if path not in OPEN_PATHS
        for operation in methods.values()
    }
    assert set(operations) == set(GUARDED), "add the new operation to the table: who may not call it?"
    assert all(security == [{"token": []}] for security in operations.values())
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"


@pytest.mark.parametrize(("method", "path"), GUARDED.values(), ids=GUARDED)
class TestEveryOperation:
    async def test_asks_for_a_token(
        self, guarded: httpx.AsyncClient, job_of_default: UUID, method: str, path: str
    ) -> None:
        response = await guarded.request(method, filled(path, job_of_default))

        assert the_problem(response, 401)["type"].endswith(":unauthorized")
        assert response.headers["www-authenticate"] == 'Bearer realm="jobs"'

    @pytest.mark.parametrize("authorization", ["Bearer jobs_guessed", "bearer jobs_guessed", "Bearer é"])
    async def test_knows_a_token_that_is_none(
        self, guarded: httpx.AsyncClient, job_of_default: UUID, method: str, path: str, authorization: str
    ) -> None:
        headers = {b"Authorization": authorization.encode("latin-1")}

        response = await guarded.request(method, filled(path, job_of_default), headers=headers)

        assert the_problem(response, 401)["detail"] == "The token is unknown."
        assert 'error="invalid_token"' in response.headers["www-authenticate"]

    async def test_refuses_a_token_that_has_expired(
        self,
        guarded: httpx.AsyncClient,
        expired: str,
        job_of_default: UUID,
        method: str,
        path: str,
    ) -> None:
        caller = As(guarded, expired)

        response = await caller.request(method, filled(path, job_of_default))

        assert "has expired" in the_problem(response, 401)["detail"]


@pytest.mark.parametrize(("method", "path"), OF_ONE_JOB.values(), ids=OF_ONE_JOB)
async def test_the_job_of_another_group_is_as_if_it_were_not(
    guarded: httpx.AsyncClient, secrets: dict[str, str], job_of_default: UUID, method: str, path: str
) -> None:
    caller = As(guarded, secrets["large-admin"])
    nobodys = uuid4()

    hidden = the_problem(await caller.request(method, filled(path, job_of_default)), 404)
    missing = the_problem(await caller.request(method, filled(path, nobodys)), 404)

    assert hidden["detail"].replace(str(job_of_default), str(nobodys)) == missing["detail"]


@pytest.mark.parametrize(("method", "path"), CHANGES.values(), ids=CHANGES)
async def test_a_reader_changes_nothing(
    guarded: httpx.AsyncClient, secrets: dict[str, str], job_of_default: UUID, method: str, path: str
) -> None:
    caller = As(guarded, secrets["default-read"])

    response = await caller.request(method, filled(path, job_of_default))

    assert "needs 'submit'" in the_problem(response, 403)["detail"]
    assert 'error="insufficient_scope", scope="submit"' in response.headers["www-authenticate"]


async def test_only_an_admin_removes_jobs(
    guarded: httpx.AsyncClient, secrets: dict[str, str], api: httpx.AsyncClient, worker: Worker
) -> None:
    job_id = await submit(api)
    await worker.bring_to(job_id, StateType.COMPLETED)

    response = await As(guarded, secrets["all-submit"]).request("DELETE", f"/jobs/{job_id}")

    assert "admin" in the_problem(response, 403)["resolution"]
    assert await get(api, f"/jobs/{job_id}")


@pytest.mark.parametrize("path", ["/", "/jobs/", "//livez", "/livez/", "/LIVEZ", "/not-there", "/docs/.."])
async def test_what_is_not_known_to_be_open_is_closed(guarded: httpx.AsyncClient, path: str) -> None:
    the_problem(await guarded.get(f"http://jobs.example.org{path}"), 401)


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/docs", "/openapi.json"])
async def test_health_and_documentation_are_open(guarded: httpx.AsyncClient, path: str) -> None:
    assert (await guarded.get(path)).status_code == 200


async def test_a_refused_body_is_not_read(guarded: httpx.AsyncClient) -> None:
    async def body() -> AsyncIterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    the_problem(await guarded.post("/jobs", content=body()), 401)


class TestTheCallersOfAGroup:
    async def test_submit_see_and_cancel_their_jobs(
        self, guarded: httpx.AsyncClient, secrets: dict[str, str]
    ) -> None:
        caller = As(guarded, secrets["default-submit"])

        submitted = await caller.request("POST", "/jobs", json={"engine": "mock"})
        job = submitted.json()

        assert submitted.status_code == 201
        assert (await caller.request("GET", job["links"]["tasks"])).status_code == 200
        assert (await caller.request("POST", f"{job['links']['self']}/cancel")).status_code == 202

    @pytest.mark.parametrize("group", ["large", "no-such-group"])
    async def test_are_not_told_whether_another_group_exists(
        self, guarded: httpx.AsyncClient, secrets: dict[str, str], group: str
    ) -> None:
        caller = As(guarded, secrets["default-submit"])

        submitted = await caller.request("POST", "/jobs", json={"engine": "mock", "group": group})
        listed = await caller.request("GET", "/jobs", params={"group": group})

        for problem in (the_problem(submitted, 422), the_problem(listed, 422)):
            assert problem["detail"] == f"There is no group '{group}'."
            assert resolution_of(problem) == "Groups: default."

    async def test_find_their_jobs_only_on_every_page(
        self, guarded: httpx.AsyncClient, api: httpx.AsyncClient, secrets: dict[str, str]
    ) -> None:
        here = uuid4().hex
        submitted = [
            (group, str(await submit(api, group=group, tags={"here": here})))
            for group in ("default", "large", "default", "large", "default")
        ]

        async def found(token: str) -> list[str]:
            guarded.headers["Authorization"] = f"Bearer {secrets[token]}"
            try:
                return [job["id"] for job in await walk(guarded, "/jobs", tag=f"here:{here}", limit=1)]
            finally:
                del guarded.headers["Authorization"]

        of_default = [job_id for group, job_id in reversed(submitted) if group == "default"]
        assert await found("default-read") == of_default
        assert await found("all-submit") == [job_id for _, job_id in reversed(submitted)]
        assert await found("nowhere") == []

    async def test_do_not_see_a_job_that_somebody_else_has_just_asked_for(
        self, guarded: httpx.AsyncClient, secrets: dict[str, str], job_of_default: UUID
    ) -> None:
        path = f"/jobs/{job_of_default}"

        assert (await As(guarded, secrets["default-read"]).request("GET", path)).status_code == 200
        assert (await As(guarded, secrets["large-admin"]).request("GET", path)).status_code == 404
        assert (await As(guarded, secrets["all-submit"]).request("GET", path)).status_code == 200

    async def test_may_be_of_a_group_that_is_deployed_later(
        self, guarded: httpx.AsyncClient, secrets: dict[str, str]
    ) -> None:
        caller = As(guarded, secrets["nowhere"])

        assert (await caller.request("GET", "/jobs")).json() == {"items": [], "next_cursor": None}
        problem = the_problem(await caller.request("POST", "/jobs", json={"engine": "mock"}), 422)
        assert resolution_of(problem) == "No group is deployed yet: ask the operator."


class TestARevokedToken:
    async def test_lets_in_no_more(self, prefect_api_url: str, home: Path, tmp_path: Path) -> None:
        file = TokenFile(tmp_path / "tokens.json")
        stays, goes = (file.create(name, ["*"], TokenScope.READ) for name in ("stays", "goes"))
        settings = Settings(home=home, tokens_file=tmp_path / "tokens.json")
        async with facade(prefect_api_url, settings) as client:
            assert (await As(client, goes).request("GET", "/jobs")).status_code == 200

            file.revoke("goes")

            assert (await As(client, goes).request("GET", "/jobs")).status_code == 401
            assert (await As(client, stays).request("GET", "/jobs")).status_code == 200

    async def test_list_that_was_damaged_lets_nobody_in(
        self, prefect_api_url: str, home: Path, tmp_path: Path
    ) -> None:
        path = tmp_path / "tokens.json"
        secret = TokenFile(path).create("ci", ["*"], TokenScope.READ)
        async with facade(prefect_api_url, Settings(home=home, tokens_file=path)) as client:
            path.write_text("{")

            problem = the_problem(await As(client, secret).request("GET", "/jobs"), 503)

        assert problem["type"].endswith(":tokens-damaged")
        assert str(path) not in str(problem)


class TestWithoutTokens:
    @pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "localhost", "[::1]:8000", "[::1]"])
    async def test_this_machine_is_let_in(self, api: httpx.AsyncClient, host: str) -> None:
        assert await get(api, "/jobs", limit=1)
        assert (await api.get("/jobs?limit=1", headers={"Host": host})).status_code == 200

    @pytest.mark.parametrize(
        "host", ["rebound.example.org", "rebound.example.org:8000", "192.0.2.7", "127.0.0.1.example.org", ""]
    )
    async def test_a_page_whose_name_leads_here_is_not(self, api: httpx.AsyncClient, host: str) -> None:
        problem = the_problem(await api.get("/jobs", headers={"Host": host}), 403)

        assert "to a loopback address" in problem["detail"]

    @pytest.mark.parametrize("origin", ["https://example.org", "http://127.0.0.1.example.org", "null"])
    async def test_a_page_of_elsewhere_is_not(self, api: httpx.AsyncClient, origin: str) -> None:
        """A browser asks nobody before it sends a form, and cancelling takes no body."""
        response = await api.post(f"/jobs/{uuid4()}/cancel", headers={"Origin": origin})

        the_problem(response, 403)

    @pytest.mark.parametrize(
        "origin", ["http://127.0.0.1:8000", "http://localhost:3000", "http://[::1]:8000"]
    )
    async def test_a_page_of_this_machine_is(self, api: httpx.AsyncClient, origin: str) -> None:
        assert (await api.get("/jobs?limit=1", headers={"Origin": origin})).status_code == 200

    async def test_a_request_that_came_in_by_another_address_is_not(self, home: Path) -> None:
        """As it does when a server was told to listen elsewhere than the settings say."""
        app = create_app(Settings(home=home))
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://192.0.2.7:8000") as client:
            response = await client.get("/jobs", headers={"Host": "localhost"})

        assert the_problem(response, 403)["type"].endswith(":forbidden")


PAGE = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
"""What a browser asks for when somebody opens a link."""


class TestABrowser:
    """People open links to plots and reports: their browser asks for a password, which is the token."""

    async def test_is_asked_for_a_password(self, guarded: httpx.AsyncClient) -> None:
        response = await guarded.get("/jobs", headers=PAGE)

        assert response.status_code == 401
        assert ', Basic realm="' in response.headers["www-authenticate"]

    async def test_reads_with_a_token_as_the_password(
        self, guarded: httpx.AsyncClient, secrets: dict[str, str]
    ) -> None:
        for password, code in ((secrets["default-read"], 200), ("jobs_guessed", 401), ("", 401)):
            response = await guarded.get("/jobs", headers=PAGE, auth=("anyone", password))
            assert response.status_code == code

    async def test_changes_nothing_with_it(
        self, guarded: httpx.AsyncClient, secrets: dict[str, str], job_of_default: UUID
    ) -> None:
        """A page of another site could make it send that."""
        response = await guarded.post(
            f"/jobs/{job_of_default}/cancel", headers=PAGE, auth=("anyone", secrets["default-submit"])
        )

        the_problem(response, 401)
