"""The recorder before Prefect's real server."""

from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient

from deployments.local import LocalStack
from flows.contract.spec import Label
from flows.record.mirror import Ending, Mirror
from flows.record.recorder import UNCONFIRMED_LIMIT, Recorder
from flows.record.task_runs import JsonObject
from tests.flows.stories import planned, started, succeeded
from tests.support import wait_until


class Busy(Mirror):
    """Of rule jobs so short that each request leaves another state behind."""

    is_busy = True

    def due(self, now: float, limit: int, shown_as_running: float = 0) -> list[JsonObject]:
        if self.is_busy:
            job_id = len(self)
            for event in (planned(job_id), started(job_id), succeeded(job_id)):
                self.observe(event)
        return super().due(now, limit, shown_as_running)


def test_progress_moves_although_another_state_is_always_due(
    stack: LocalStack, prefect_api: httpx.Client
) -> None:
    flow_id = prefect_api.post("/flows/", json={"name": "recorded"}).json()["id"]
    flow_run = f"/flow_runs/{prefect_api.post('/flow_runs/', json={'flow_id': flow_id}).json()['id']}"
    with SyncPrefectClient(f"{stack.settings.prefect_url}/api", auth_string=stack.auth_string) as client:
        recorder = Recorder(client, UUID(flow_run.rpartition("/")[2]))
        recorder.mirror = mirror = Busy(recorder.mirror.flow_run_id)
        with recorder:
            wait_until(
                lambda: prefect_api.get(flow_run).json()["labels"].get(Label.PROGRESS_DONE), "it has moved"
            )
            shown_after = len(mirror)
            mirror.is_busy = False
            recorder.close(Ending.FINISHED)

    assert shown_after < UNCONFIRMED_LIMIT, "until the recorder had to wait for the server anyway"
