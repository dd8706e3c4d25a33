"""The task of a job reaches what belongs to its job, in a real Prefect, and nothing of another."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from prefect.blocks.system import Secret
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import StateType
from prefect.settings import PREFECT_API_URL, temporary_settings
from pydantic import SecretStr

from api.auth.callers import TokenScope
from api.auth.tokens import TokenFile
from api.settings import Settings
from flows.contract.job_tokens import GATEWAY_PATH, make_token
from flows.contract.spec import Label
from flows.record.task_runs import log_entry, task_run_id_of
from tests.api.support import RuleJobInState, Worker, facade, submit, the_problem, wait_until

pytestmark = pytest.mark.anyio

SECRET = "a secret of this service, long enough"
LIFETIME = timedelta(minutes=5)
MOMENT = "2026-11-24T10:00:00+00:00"

Json = dict[str, Any]


def headers_of(job_id: UUID, secret: str = SECRET, lifetime: timedelta = LIFETIME) -> dict[str, str]:
    return {"Authorization": f"Bearer {make_token(secret, job_id, datetime.now(UTC), lifetime)}"}


@pytest.fixture
async def api(prefect_api_url: str, home: Path) -> AsyncIterator[httpx.AsyncClient]:
    settings = Settings(
        home=home,
        gateway_secret=SecretStr(SECRET),
        secret_blocks={"default": ("of-this-group",), "large": ("of-another-group",)},
    )
    async with facade(prefect_api_url, settings) as client:
        yield client


@pytest.fixture
async def own(api: httpx.AsyncClient) -> UUID:
    return await submit(api)


@pytest.fixture
async def other(api: httpx.AsyncClient) -> UUID:
    return await submit(api, group="large")


async def ask(
    api: httpx.AsyncClient, job_id: UUID, method: str, path: str, body: object = None
) -> httpx.Response:
    """As the task of this job."""
    return await api.request(method, f"{GATEWAY_PATH}{path}", json=body, headers=headers_of(job_id))


def running(message: str = "") -> Json:
    return {"state": {"type": "RUNNING", "name": "Running", "message": message}, "force": True}


class TestItsOwn:
    async def test_run_is_read_labelled_and_put_into_a_state(
        self, api: httpx.AsyncClient, prefect: PrefectClient, own: UUID
    ) -> None:
        assert (await ask(api, own, "GET", f"/flow_runs/{own}")).json()["id"] == str(own)
        labels = {Label.SNAKEMAKE_VERSION.value: "9.1.0"}
        assert (await ask(api, own, "PATCH", f"/flow_runs/{own}/labels", labels)).status_code == 204
        answer = await ask(api, own, "POST", f"/flow_runs/{own}/set_state", running("by its task"))
        assert answer.json()["status"] == "ACCEPT"

        flow_run = await prefect.read_flow_run(own)
        assert flow_run.state is not None
        assert (flow_run.state.type, flow_run.state.message) == (StateType.RUNNING, "by its task")
        assert flow_run.labels[Label.SNAKEMAKE_VERSION] == "9.1.0"

    async def test_rule_jobs_and_logs_are_recorded(
        self, api: httpx.AsyncClient, prefect: PrefectClient, own: UUID
    ) -> None:
        rule_job = RuleJobInState(3, record=None)
        entries = [log_entry(own, task, 20, "hello", 1_760_000_000) for task in (None, rule_job.task_id(own))]

        assert (await ask(api, own, "POST", "/events", [rule_job.event(own)])).status_code == 204
        assert (await ask(api, own, "POST", "/logs/", entries)).status_code == 201

        completed = {"task_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}

        async def is_counted() -> bool:
            return bool((await ask(api, own, "POST", "/task_runs/count", completed)).json() == 1)

        await wait_until(is_counted, "the rule job is recorded")
        (found,) = (await ask(api, own, "POST", "/task_runs/filter", completed)).json()
        assert found["id"] == str(rule_job.task_id(own))
        assert [log.message for log in await prefect.read_logs()].count("hello") >= 2

    async def test_deployment_and_flow_are_read(self, api: httpx.AsyncClient, own: UUID) -> None:
        run = (await ask(api, own, "GET", f"/flow_runs/{own}")).json()

        for path in (f"/deployments/{run['deployment_id']}", f"/flows/{run['flow_id']}", "/admin/version"):
            assert (await ask(api, own, "GET", path)).status_code == 200

    async def test_artifacts_are_made_and_changed(
        self, api: httpx.AsyncClient, prefect: PrefectClient, own: UUID, other: UUID
    ) -> None:
        body = {"key": "progress", "type": "progress", "data": 10.0, "flow_run_id": str(other)}
        made = (await ask(api, own, "POST", "/artifacts/", body)).json()
        assert made["flow_run_id"] == str(own), "whatever the task says"

        await ask(api, own, "PATCH", f"/artifacts/{made['id']}", {"data": 20.0})

        the_problem(await ask(api, other, "PATCH", f"/artifacts/{made['id']}", {"data": 0.0}), 403)
        filters = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[own]))
        assert [each.data for each in await prefect.read_artifacts(artifact_filter=filters)] == [20.0]

    async def test_end_is_final(self, api: httpx.AsyncClient, worker: Worker, own: UUID) -> None:
        """Labels say how it ended and what it left: nothing of the job changes them afterwards."""
        await worker.bring_to(own, StateType.COMPLETED)

        again = (await ask(api, own, "POST", f"/flow_runs/{own}/set_state", running())).json()
        labelled = await ask(api, own, "PATCH", f"/flow_runs/{own}/labels", {Label.WORK_SHA256.value: "0"})

        assert (again["status"], again["state"]["type"]) == ("REJECT", "COMPLETED")
        the_problem(labelled, 403)

    async def test_secrets_are_those_that_it_names_and_its_group_may_use(
        self, api: httpx.AsyncClient, prefect_api_url: str
    ) -> None:
        with temporary_settings({PREFECT_API_URL: prefect_api_url}):
            for name in ("of-this-group", "of-another-group"):
                await Secret(value=SecretStr(f"the value {name}")).save(name, overwrite=True)
        named = await submit(api, secrets={"TOKEN": "of-this-group"})
        path = "/block_types/slug/secret/block_documents/name"

        found = await ask(api, named, "GET", f"{path}/of-this-group")

        assert found.json()["data"]["value"] == "the value of-this-group"
        the_problem(await ask(api, named, "GET", f"{path}/of-another-group"), 403)
        the_problem(await ask(api, await submit(api), "GET", f"{path}/of-this-group"), 403)


def attacks(own: UUID, other: UUID) -> dict[str, tuple[str, str, Any]]:
    """What a rule would send with its job's token; `other` is the id of a job of another group."""
    foreign = RuleJobInState(0).event(other)
    disguised = RuleJobInState(0).event(own)
    disguised["payload"]["task_run"] |= {"id": str(task_run_id_of(other, 0)), "flow_run_id": str(other)}
    misnamed = RuleJobInState(0).event(own)
    misnamed["resource"]["prefect.resource.id"] = foreign["resource"]["prefect.resource.id"]
    cancelling = RuleJobInState(0).event(own) | {"event": "prefect.flow-run.Cancelling"}
    of_its_log = {"flow_run_id": str(own), "task_run_id": str(task_run_id_of(other, 0))}
    entry = log_entry(own, None, 20, "forged", 1_760_000_000)
    return {
        "read it": ("GET", f"/flow_runs/{other}", None),
        "read it by another path": ("GET", f"/flow_runs/{own}/../{other}", None),
        "set its state": ("POST", f"/flow_runs/{other}/set_state", running()),
        "label it": ("PATCH", f"/flow_runs/{other}/labels", {Label.PHASE.value: "forged"}),
        "change it": ("PATCH", f"/flow_runs/{other}", {"flow_version": "forged"}),
        "write to its log": ("POST", "/logs/", [entry | {"flow_run_id": str(other)}]),
        "write to the log of its rule job": ("POST", "/logs/", [entry | of_its_log]),
        "end its rule job": ("POST", "/events", [foreign]),
        "end its rule job in disguise": ("POST", "/events", [disguised]),
        "end its rule job by the resource": ("POST", "/events", [misnamed]),
        "cancel by an event": ("POST", "/events", [cancelling]),
        "delete it": ("DELETE", f"/flow_runs/{other}", None),
        "delete its own run": ("DELETE", f"/flow_runs/{own}", None),
        "name its own files' owner": ("PATCH", f"/flow_runs/{own}/labels", {Label.RESUMES.value: str(other)}),
        "notify somebody": ("PATCH", f"/flow_runs/{own}/labels", {Label.WEBHOOK_URL.value: "https://e.org"}),
        "wait again": ("POST", f"/flow_runs/{own}/set_state", {"state": {"type": "SCHEDULED"}}),
        "submit": ("POST", "/flow_runs/", {"flow_id": str(uuid4())}),
        "change an artifact that is not there": ("PATCH", f"/artifacts/{uuid4()}", {"data": 1}),
        "read artifacts": ("POST", "/artifacts/filter", {}),
        "list deployments": ("POST", "/deployments/filter", {}),
        "read a work pool": ("GET", "/work_pools/ecs", None),
        "read all secrets": ("POST", "/block_documents/filter", {"include_secrets": True}),
        "read the settings": ("GET", "/admin/settings", None),
        "send nonsense": ("POST", "/events", {"events": 7}),
    }


@pytest.mark.parametrize("name", sorted(attacks(uuid4(), uuid4())))
async def test_what_belongs_to_others_is_out_of_reach(
    api: httpx.AsyncClient, prefect: PrefectClient, own: UUID, other: UUID, name: str
) -> None:
    before = await prefect.read_flow_run(other)
    method, path, body = attacks(own, other)[name]

    the_problem(await ask(api, own, method, path, body), 403)

    assert await prefect.read_flow_run(other) == before


async def test_filters_find_nothing_of_others(
    api: httpx.AsyncClient, worker: Worker, own: UUID, other: UUID
) -> None:
    await worker.record(other, [RuleJobInState(0)])
    task_runs = {"id": {"any_": [str(task_run_id_of(other, 0))]}, "operator": "or_"}
    theirs = {"flow_runs": {"id": {"any_": [str(other)]}, "operator": "or_"}, "task_runs": task_runs}

    assert (await ask(api, own, "POST", "/task_runs/filter", theirs)).json() == []
    assert (await ask(api, own, "POST", "/task_runs/count", theirs)).json() == 0
    found = (await ask(api, own, "POST", "/flow_runs/filter", theirs)).json()
    assert [run["id"] for run in found] == [str(own)]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer x"},
        {"Authorization": "Basic x"},
        headers_of(UUID(int=7), secret="the secret of another service"),
        headers_of(UUID(int=7), lifetime=timedelta(seconds=-1)),
    ],
    ids=["none", "nonsense", "not encoded", "of another service", "expired"],
)
async def test_a_token_that_is_none_is_refused(api: httpx.AsyncClient, headers: dict[str, str]) -> None:
    the_problem(await api.get(f"{GATEWAY_PATH}/flow_runs/{UUID(int=7)}", headers=headers), 401)


async def test_a_token_for_one_door_opens_no_other(
    prefect_api_url: str, home: Path, tmp_path: Path, own: UUID
) -> None:
    tokens = TokenFile(tmp_path / "tokens.json")
    admin = {"Authorization": f"Bearer {tokens.create('admin', ['*'], TokenScope.ADMIN)}"}
    settings = Settings(home=home, tokens_file=tmp_path / "tokens.json", gateway_secret=SecretStr(SECRET))
    path = f"{GATEWAY_PATH}/flow_runs/{own}"
    async with facade(prefect_api_url, settings) as api:
        assert (await api.get(path, headers=headers_of(own))).status_code == 200
        the_problem(await api.get(path, headers=admin), 401)
        the_problem(await api.get(f"/jobs/{own}", headers=headers_of(own)), 401)


async def test_a_service_without_the_secret_has_no_gateway(
    prefect_api_url: str, home: Path, own: UUID
) -> None:
    async with facade(prefect_api_url, Settings(home=home)) as api:
        the_problem(await api.get(f"{GATEWAY_PATH}/flow_runs/{own}", headers=headers_of(own)), 401)
