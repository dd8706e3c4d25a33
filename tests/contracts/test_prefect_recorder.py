"""What Prefect's server does with states that it is sent more than once."""

from collections.abc import Iterator
from itertools import count
from uuid import UUID, uuid4

import httpx
import pytest
from prefect.client.orchestration import SyncPrefectClient

from flows.record import recorder as recording
from flows.record.mirror import Ending, Mirror
from flows.record.recorder import Recorder
from flows.record.task_runs import JsonObject
from tests.api.servers import prefect_client
from tests.flows.stories import START, Ask, planned, play, started, succeeded
from tests.support import wait_until


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A real server."""
    with prefect_client(tmp_path_factory.mktemp("prefect")) as client:
        yield client


@pytest.fixture
def mirror(prefect: httpx.Client) -> Mirror:
    """Of a flow run that the server knows."""
    flow_id = prefect.post("/flows/", json={"name": f"resent-{uuid4()}"}).json()["id"]
    return Mirror(UUID(prefect.post("/flow_runs/", json={"flow_id": flow_id}).json()["id"]))


def send(prefect: httpx.Client, events: list[JsonObject]) -> None:
    prefect.post("/events", json=events).raise_for_status()


def recorded(prefect: httpx.Client, mirror: Mirror) -> set[int]:
    """The rule jobs that the server knows to have completed."""
    body = {
        "flow_runs": {"id": {"any_": [str(mirror.flow_run_id)]}},
        "task_runs": {"state": {"type": {"any_": ["COMPLETED"]}}},
    }
    return {int(found["dynamic_key"]) for found in prefect.post("/task_runs/filter", json=body).json()}


def completed(mirror: Mirror, job_ids: range) -> list[JsonObject]:
    steps = [event(job_id) for job_id in job_ids for event in (planned, started, succeeded)]
    return play(mirror, *steps, Ask(5))


def test_a_state_that_is_sent_again_does_not_cost_the_others_in_its_request(
    prefect: httpx.Client, mirror: Mirror
) -> None:
    """A server that is slow has recorded it after all."""
    send(prefect, completed(mirror, range(3)))
    wait_until(lambda: len(recorded(prefect, mirror)) == 3, "they are recorded")

    mirror.resend(set())
    send(prefect, completed(mirror, range(3, 20)))

    wait_until(lambda: len(recorded(prefect, mirror)) == 20, "all are recorded", 20)


def test_two_states_of_one_time_still_cost_the_others_in_their_request(
    prefect: httpx.Client, mirror: Mirror
) -> None:
    """When this fails, a state that is sent again needs no time of its own any more."""
    first = completed(mirror, range(1))
    send(prefect, first)
    wait_until(lambda: recorded(prefect, mirror) == {0}, "it is recorded")

    send(prefect, [first[0] | {"id": str(uuid4())}, *completed(mirror, range(1, 3))])
    later = count(3)

    def others() -> set[int]:
        send(prefect, completed(mirror, range(job_id := next(later), job_id + 1)))
        return recorded(prefect, mirror) - {0}

    assert not {1, 2} & wait_until(others, "one of a later request is recorded")


def test_a_batch_that_the_server_drops_is_sent_again(
    prefect: httpx.Client, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another flow run of the same server has spoilt it."""
    monkeypatch.setattr(recording, "CLOSE_TIMEOUT_SECONDS", 60)
    others = Mirror(uuid4())
    spoilt = completed(others, range(1))[0]
    spoilt["payload"]["task_run"]["name"] = "a\x00b"
    with SyncPrefectClient(str(prefect.base_url)) as client, Recorder(client, mirror.flow_run_id) as recorder:
        for event in (planned, started, succeeded):
            for job_id in range(5):
                recorder.observe(event(job_id))
        recorder._stop.set()
        recorder._thread.join()
        send(prefect, [spoilt, *recorder.mirror.due(START + 5, 200)])
        recorder.close(Ending.FINISHED)

    assert recorded(prefect, mirror) == set(range(5))
