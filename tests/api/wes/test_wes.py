"""GA4GH WES 1.1.0 over the same jobs: what its document asks for in words."""

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import anyio
import httpx
import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import State as PrefectState
from prefect.client.schemas.objects import StateType

from api.auth.callers import TokenScope
from api.auth.tokens import TokenFile
from api.settings import Settings
from api.wes.routes import MOST_LOG_BYTES
from api.wes.translation import STATES
from tests.api.support import Json, RuleJobInState, Worker, facade, submit

pytestmark = pytest.mark.anyio

WES = "/ga4gh/wes/v1"
SNAKEFILE = b"rule all:\n    output: 'done'\n    shell: 'touch {output}'\n"
FORM = {"workflow_type": "SMK", "workflow_type_version": "1.0", "workflow_url": "workflow/Snakefile"}
ATTACHED = ("workflow_attachment", ("workflow/Snakefile", SNAKEFILE))


async def run(api: httpx.AsyncClient, files: Any = (ATTACHED,), **fields: Any) -> httpx.Response:
    form = {
        **FORM,
        **{key: value if isinstance(value, str) else json.dumps(value) for key, value in fields.items()},
    }
    return await api.post(f"{WES}/runs", data=form, files=list(files))


async def answer(response: httpx.Response, status: int = 200) -> Json:
    assert response.status_code == status, response.text
    content: Json = response.json()
    if status != 200:
        assert set(content) == {"msg", "status_code"}
        assert content["status_code"] == status
    return content


async def get(api: httpx.AsyncClient, path: str, **params: Any) -> Json:
    return await answer(await api.get(WES + path, params=params))


@pytest.mark.parametrize(("state_type", "state"), STATES.items())
async def test_every_state_of_prefect_is_a_state_of_wes(
    api: httpx.AsyncClient, prefect: PrefectClient, worker: Worker, state_type: StateType, state: str
) -> None:
    job_id = await submit(api)
    if state_type in (StateType.SCHEDULED, StateType.PENDING):
        await prefect.set_flow_run_state(job_id, PrefectState(type=state_type), force=True)
    else:
        await worker.bring_to(job_id, state_type)

    assert await get(api, f"/runs/{job_id}/status") == {"run_id": str(job_id), "state": state}


async def test_a_field_is_a_field_with_a_file_name_or_without(api: httpx.AsyncClient) -> None:
    """As `curl -F workflow_params=@params.json` sends one, and `requests` all of them with `files=`."""
    fields = {**FORM, "workflow_params": '{"depth": 7}', "tags": '{"by": "wes"}'}
    named = [(name, (f"{name}.json", value.encode())) for name, value in fields.items()]
    response = await api.post(f"{WES}/runs", files=[*named, ATTACHED])

    request = (await get(api, f"/runs/{(await answer(response))['run_id']}"))["request"]

    assert request["workflow_params"] == {"depth": 7}
    assert request["tags"] == {"by": "wes"}


@pytest.mark.parametrize(("content", "status"), [(b"\xff", 400), (b" " * (1 << 20) + b"{}", 400)])
async def test_a_field_with_a_file_name_obeys_the_rules_of_fields(
    api: httpx.AsyncClient, content: bytes, status: int
) -> None:
    named = ("workflow_params", ("params.json", content))
    await answer(await api.post(f"{WES}/runs", data=FORM, files=[named, ATTACHED]), status)


async def test_attachments_become_a_bundle_and_the_request_is_kept(api: httpx.AsyncClient) -> None:
    parameters = {"--cores": "3", "keep-going": "true", "name": "7"}
    run_id = (
        await answer(
            await run(
                api,
                workflow_params={"samples": ["A"]},
                tags={"by": "wes"},
                workflow_engine_parameters=parameters,
            )
        )
    )["run_id"]

    log = await get(api, f"/runs/{run_id}")
    job = (await api.get(f"/jobs/{run_id}")).json()
    assert log["request"] == {
        **FORM,
        "workflow_params": {"samples": ["A"]},
        "tags": {"by": "wes"},
        "workflow_engine_parameters": parameters,
    }
    assert (job["name"], job["tags"]) == ("7", {"by": "wes"})
    assert log["task_logs_url"].endswith(f"{WES}/runs/{run_id}/tasks")
    assert log["outputs"] == {}


async def test_the_same_attachments_make_the_same_bundle(api: httpx.AsyncClient, home: Path) -> None:
    other = ("workflow_attachment", ("workflow/rules/a.smk", b"# nothing"))
    await answer(await run(api, (ATTACHED, other)))
    before = set((home / "bundles" / "sha256").iterdir())

    await answer(await run(api, (other, ATTACHED)))

    assert set((home / "bundles" / "sha256").iterdir()) == before


@pytest.mark.parametrize("path", ["owner/repository", "group/part/repository"])
@pytest.mark.parametrize("blob", ["/blob", "/-/blob"])
async def test_the_address_of_a_page_names_a_commit_and_a_file(
    api: httpx.AsyncClient, prefect: PrefectClient, path: str, blob: str
) -> None:
    """As one copies it from GitHub or GitLab."""
    url = f"https://git.example.org/{path}{blob}/v1.0/workflow/Snakefile"

    run_id = (await answer(await run(api, [("ignored", ("x", b""))], workflow_url=url)))["run_id"]

    log = await get(api, f"/runs/{run_id}")
    assert log["request"]["workflow_url"] == url
    parameters = (await prefect.read_flow_run(UUID(run_id))).parameters
    assert parameters["workflow"] == {"git": f"https://git.example.org/{path}", "ref": "v1.0"}
    assert parameters["snakefile"] == "workflow/Snakefile"


@pytest.mark.parametrize(
    ("files", "fields", "told"),
    [
        ((), {}, "no workflow_attachment"),
        ((("workflow_attachment", ("../Snakefile", SNAKEFILE)),), {}, "'..'"),
        ((("workflow_attachment", ("/etc/cron.d/x", SNAKEFILE)),), {}, "absolute"),
        ((ATTACHED, ATTACHED), {}, "is used twice"),
        ((ATTACHED,), {"workflow_url": "https://example.org/x"}, "one of the attachments"),
        ((), {"workflow_url": "https://127.0.0.1/x"}, "not public"),
        ((ATTACHED,), {"workflow_type": "CWL"}, "is not supported"),
        ((ATTACHED,), {"workflow_type_version": "99"}, "is not supported"),
        ((ATTACHED,), {"workflow_engine_version": "9"}, "workflow_engine is required"),
        ((ATTACHED,), {"workflow_engine": "toil"}, "is not supported"),
        ((ATTACHED,), {"workflow_params": "{"}, "not valid JSON"),
        ((ATTACHED,), {"workflow_params": "[]"}, "workflow_params is invalid"),
        ((ATTACHED,), {"tags": '{"a": 1}'}, "tags.a is invalid"),
        (
            (ATTACHED,),
            {"workflow_engine_parameters": {"--unlock": "x"}},
            "is unknown; use one of: name",
        ),
        ((ATTACHED,), {"workflow_engine_parameters": {"cores": "many"}}, "cores"),
        ((ATTACHED,), {"workflow_engine_parameters": {"group": "largo"}}, "Did you mean 'large'?"),
    ],
)
async def test_what_is_not_understood_is_refused(
    api: httpx.AsyncClient, files: Any, fields: Json, told: str
) -> None:
    assert told in (await answer(await run(api, files or [("ignored", ("x", b""))], **fields), 400))["msg"]


async def test_what_is_no_form_is_refused(api: httpx.AsyncClient) -> None:
    await answer(await api.post(f"{WES}/runs", json=FORM), 400)


async def test_runs_are_listed_page_by_page_and_the_token_ends_empty(api: httpx.AsyncClient) -> None:
    submitted = [str(await submit(api, tags={"a": "b"})) for _ in range(6)]
    found: list[Json] = []
    token = ""
    while len(found) < 6:
        page = await get(api, "/runs", page_size=2, **({"page_token": token} if token else {}))
        assert len(page["runs"]) == 2
        assert all(run["tags"] is not None for run in page["runs"])
        found += page["runs"]
        token = page["next_page_token"]
    assert [run["run_id"] for run in found] == submitted[::-1]
    while token:
        token = (await get(api, "/runs", page_size=200, page_token=token))["next_page_token"]
    assert token == ""


async def test_tasks_are_rule_jobs_with_logs_that_can_be_read(api: httpx.AsyncClient, worker: Worker) -> None:
    job_id = await submit(api)
    await worker.record(job_id, [RuleJobInState(number) for number in range(3)])
    await worker.log(job_id, [(1_760_000_000.0, "said")], RuleJobInState(1).task_id(job_id))
    first = await get(api, f"/runs/{job_id}/tasks", page_size=2)
    rest = await get(api, f"/runs/{job_id}/tasks", page_size=2, page_token=first["next_page_token"])

    tasks = {task["name"]: task for task in first["task_logs"] + rest["task_logs"]}
    assert set(tasks) == {"map[n=0]", "map[n=1]", "map[n=2]"}
    assert rest["next_page_token"] == ""
    task = tasks["map[n=1]"]
    assert task == await get(api, f"/runs/{job_id}/tasks/{task['id']}")
    assert task["start_time"].endswith("Z")
    assert (await api.get(task["stdout"])).text == "said\n"


async def test_of_a_long_log_the_end_is_told(api: httpx.AsyncClient, home: Path) -> None:
    job_id = await submit(api)
    log = home / "jobs" / str(job_id) / "snakemake.log"
    log.parent.mkdir(parents=True)
    log.write_bytes(b"begins" + b"x" * (MOST_LOG_BYTES - 4) + b"ends")
    response = await api.get(f"{WES}/runs/{job_id}/log")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.content == b"x" * (MOST_LOG_BYTES - 4) + b"ends"

    os.truncate(log, 0)
    response = await api.get(f"{WES}/runs/{job_id}/log")
    assert (response.status_code, response.content) == (200, b"")


async def test_a_log_is_announced_when_it_is_there(
    api: httpx.AsyncClient, worker: Worker, home: Path
) -> None:
    job_id = await submit(api)  # a mock writes none
    await worker.bring_to(job_id, StateType.RUNNING)
    assert "stdout" not in (await get(api, f"/runs/{job_id}"))["run_log"]
    log = home / "jobs" / str(job_id) / "snakemake.log"
    log.parent.mkdir(parents=True)
    log.write_bytes(b"Building DAG of jobs...")

    told = (await get(api, f"/runs/{job_id}"))["run_log"]

    assert told["stdout"] == told["stderr"]
    assert (await api.get(told["stdout"])).content == b"Building DAG of jobs..."


@pytest.mark.parametrize("part", ["fields", "attachments"])
async def test_a_form_of_many_parts_does_not_fill_the_memory(api: httpx.AsyncClient, part: str) -> None:
    if part == "fields":
        response = await run(api, **{f"x{number}": "" for number in range(20)})
    else:
        response = await run(api, [("workflow_attachment", (f"{n}.smk", b"")) for n in range(1001)])

    assert "Too many" in (await answer(response, 400))["msg"]


@pytest.mark.parametrize("target", ["/proc/self/environ", "/dev/zero", "pipe", "outputs.json"])
async def test_a_log_that_a_rule_has_made_a_link_is_not_followed(
    api: httpx.AsyncClient, home: Path, target: str
) -> None:
    job_id = await submit(api)
    directory = home / "jobs" / str(job_id)
    directory.mkdir(parents=True)
    os.mkfifo(directory / "pipe")
    (directory / "outputs.json").write_text("{}")
    (directory / "snakemake.log").symlink_to(target)

    await answer(await api.get(f"{WES}/runs/{job_id}/log"), 404)


@pytest.mark.parametrize("path", ["", "/status", "/tasks", "/tasks/x", "/log"])
@pytest.mark.parametrize("run_id", ["nope", str(UUID(int=7))])
async def test_an_unknown_run_is_not_found(api: httpx.AsyncClient, run_id: str, path: str) -> None:
    await answer(await api.get(f"{WES}/runs/{run_id}{path}"), 404)


async def test_a_path_that_is_not_there_and_a_method_that_is_not_answer_as_wes_does(
    api: httpx.AsyncClient,
) -> None:
    await answer(await api.get(f"{WES}/nothing"), 404)
    response = await api.delete(f"{WES}/runs")
    await answer(response, 405)
    assert response.headers["Allow"] == "GET, POST"


async def test_cancelling_is_answered_with_the_id_at_any_time(api: httpx.AsyncClient, worker: Worker) -> None:
    job_id = await submit(api)
    for _ in range(2):
        assert await answer(await api.post(f"{WES}/runs/{job_id}/cancel")) == {"run_id": str(job_id)}
    assert (await get(api, f"/runs/{job_id}/status"))["state"] == "CANCELED"
    await worker.bring_to(job_id, StateType.COMPLETED)
    await answer(await api.post(f"{WES}/runs/{job_id}/cancel"))


class TestWithTokens:
    """A token sees the runs of its groups, and counts them alone."""

    @pytest.fixture
    async def anyone(self, prefect_api_url: str, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
        self.tokens = TokenFile(tmp_path / "tokens.json")
        self.secret = self.tokens.create("large", ("large",), TokenScope.READ)
        settings = Settings(home=tmp_path, tokens_file=tmp_path / "tokens.json")
        async with facade(prefect_api_url, settings) as client:
            yield client

    async def test_runs_of_other_groups_are_not_there(
        self, anyone: httpx.AsyncClient, api: httpx.AsyncClient, worker: Worker
    ) -> None:
        headers = {"Authorization": f"Bearer {self.secret}"}
        other, own = await submit(api), await submit(api, group="large")

        def counted(info: Json) -> int:
            return sum(info["system_state_counts"].values())

        before = counted((await anyone.get(f"{WES}/service-info", headers=headers)).json())
        await submit(api)
        assert counted((await anyone.get(f"{WES}/service-info", headers=headers)).json()) == before
        await submit(api, group="large")
        assert counted((await anyone.get(f"{WES}/service-info", headers=headers)).json()) == before + 1

        for path in ("", "/status", "/tasks", "/log"):
            await answer(await anyone.get(f"{WES}/runs/{other}{path}", headers=headers), 404)
        await answer(await anyone.get(f"{WES}/runs/{own}/status", headers=headers))
        listed = (await anyone.get(f"{WES}/runs", params={"page_size": 200}, headers=headers)).json()["runs"]
        assert str(own) in {run["run_id"] for run in listed}
        assert str(other) not in {run["run_id"] for run in listed}
        await answer(await anyone.post(f"{WES}/runs/{own}/cancel", headers=headers), 403)

    async def test_nobody_is_let_in_without_one(self, anyone: httpx.AsyncClient) -> None:
        for path in ("/service-info", "/runs", f"/runs/{uuid4()}"):
            response = await anyone.get(WES + path)
            await answer(response, 401)
            assert response.headers["WWW-Authenticate"]


@pytest.mark.parametrize("size", ["0", "-1", "x", "9" * 30, "0" * 19 + "1" + "0" * 5000])
async def test_a_page_size_that_is_none_is_refused(api: httpx.AsyncClient, size: str) -> None:
    await answer(await api.get(f"{WES}/runs", params={"page_size": size}), 400)


async def test_a_submission_keeps_no_more_than_a_reader_wants_to_read(api: httpx.AsyncClient) -> None:
    parameters = {"-" * 100_000 + "cores": "1"}

    assert "65,536" in (await answer(await run(api, workflow_engine_parameters=parameters), 400))["msg"]


async def test_counts_by_state_are_exact(api: httpx.AsyncClient, worker: Worker) -> None:
    before = (await get(api, "/service-info"))["system_state_counts"]
    await worker.bring_to(await submit(api), StateType.CRASHED)
    after = (await get(api, "/service-info"))["system_state_counts"]

    assert {state: after[state] - before[state] for state in after if after[state] != before[state]} == {
        "SYSTEM_ERROR": 1
    }


async def test_a_run_that_moves_is_counted_once(api: httpx.AsyncClient, prefect: PrefectClient) -> None:
    """As many as there are, at any moment: no state is counted later than another."""
    job_ids = [await submit(api) for _ in range(5)]
    total = sum((await get(api, "/service-info"))["system_state_counts"].values())

    async def move(job_id: UUID) -> None:
        while True:
            for state_type in (StateType.RUNNING, StateType.PENDING, StateType.FAILED, StateType.SCHEDULED):
                await prefect.set_flow_run_state(job_id, PrefectState(type=state_type), force=True)

    async with anyio.create_task_group() as movers:
        for job_id in job_ids:
            movers.start_soon(move, job_id)
        sums = [sum((await get(api, "/service-info"))["system_state_counts"].values()) for _ in range(40)]
        movers.cancel_scope.cancel()

    assert set(sums) == {total}
