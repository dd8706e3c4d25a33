"""A server with our repairs keeps what it is sent, and what Prefect needs to know."""

import time
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


def test_a_poll_of_a_worker_is_written_down_the_first_time_and_for_a_new_queue(prefect: httpx.Client) -> None:
    pool = f"/work_pools/polled-{uuid4()}"
    prefect.post("/work_pools/", json={"name": pool.rpartition("/")[2], "type": "process"}).raise_for_status()

    def poll() -> None:
        prefect.post(f"{pool}/get_scheduled_flow_runs", json={}).raise_for_status()

    def queue(name: str) -> dict[str, str]:
        found: dict[str, str] = prefect.get(f"{pool}/queues/{name}").json()
        return found

    poll()
    first = wait_until(lambda: queue("default")["last_polled"], "the first poll is written down")
    poll()
    time.sleep(1)  # in which Prefect would write it down
    assert queue("default")["last_polled"] == first
    prefect.post(f"{pool}/queues", json={"name": "new"}).raise_for_status()
    assert queue("new")["status"] == "NOT_READY"
    poll()

    wait_until(lambda: queue("new")["status"] == "READY", "the new queue is ready")
    assert queue("default")["status"] == "READY"
    wait_until(lambda: queue("default")["last_polled"] > first, "with it, the poll is written down")
