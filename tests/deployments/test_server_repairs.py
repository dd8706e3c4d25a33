"""A server that inserts rows apart keeps what it is sent."""

from collections.abc import Iterator
from datetime import datetime
from uuid import UUID, uuid4

import httpx
import pytest
from prefect.client.schemas.objects import StateType

from flows.record.task_runs import StateChange, log_entry, state_change_event
from tests.api.servers import prefect_client
from tests.support import wait_until

AT = 1_764_000_000.25
RULE_JOB = {"name": "sort", "task_key": "rule.sort", "dynamic_key": "1", "run_count": 1}


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with prefect_client(tmp_path_factory.mktemp("prefect")) as client:
        yield client


@pytest.fixture
def flow_run_id(prefect: httpx.Client) -> UUID:
    flow_id = prefect.post("/flows/", json={"name": f"rows-{uuid4()}"}).json()["id"]
    return UUID(prefect.post("/flow_runs/", json={"flow_id": flow_id}).json()["id"])


def test_log_entries_are_kept_in_their_order_without_null_bytes(
    prefect: httpx.Client, flow_run_id: UUID
) -> None:
    texts = ["first", "sec\0ond", "third ☃"]
    entries = [log_entry(flow_run_id, None, 20, text, AT + index) for index, text in enumerate(texts)]

    prefect.post("/logs/", json=entries).raise_for_status()

    body = {"logs": {"flow_run_id": {"any_": [str(flow_run_id)]}}, "sort": "TIMESTAMP_ASC"}
    kept = prefect.post("/logs/filter", json=body).json()
    assert [entry["message"] for entry in kept] == ["first", "second", "third ☃"]
    assert [datetime.fromisoformat(entry["timestamp"]).timestamp() for entry in kept] == [AT, AT + 1, AT + 2]
    assert {(entry["level"], entry["name"]) for entry in kept} == {(20, "prefect.flow_runs")}


def test_states_are_kept_once_with_their_time_and_message(prefect: httpx.Client, flow_run_id: UUID) -> None:
    task_run_id = uuid4()
    states = [
        StateChange(StateType.PENDING, "Pending", AT),
        StateChange(StateType.FAILED, "Failed", AT + 2, "Its command ended with exit code 2."),
    ]
    events = [state_change_event(flow_run_id, task_run_id, RULE_JOB, state) for state in states]

    prefect.post("/events", json=[*events, events[1]]).raise_for_status()

    def history() -> list[dict[str, str]]:
        found = prefect.get("/task_run_states/", params={"task_run_id": str(task_run_id)}).json()
        return sorted(found, key=lambda state: str(state["timestamp"]))

    wait_until(lambda: len(history()) == 2, "both states are recorded")
    pending, failed = history()
    assert (pending["type"], failed["type"], failed["name"]) == ("PENDING", "FAILED", "Failed")
    assert failed["message"] == "Its command ended with exit code 2."
    assert datetime.fromisoformat(failed["timestamp"]).timestamp() == AT + 2
    assert prefect.get(f"/task_runs/{task_run_id}").json()["state"]["name"] == "Failed"
