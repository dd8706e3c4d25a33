"""What the worker reads before it forks a flow process."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse

from flows.worker.job_configuration import Deployments, job_variables_of


def deployment(**job_variables: Any) -> DeploymentResponse:
    return DeploymentResponse(name="default", flow_id=uuid4(), job_variables=job_variables, labels={})


class Prefect:
    """Counts who asks for a deployment."""

    asked = 0

    async def read_deployment(self, _: UUID) -> DeploymentResponse:
        self.asked += 1
        return deployment()


def test_a_deployment_is_read_once_for_jobs_that_are_found_together() -> None:
    prefect, deployments, deployment_id = Prefect(), Deployments(), uuid4()

    async def read() -> DeploymentResponse | None:
        return await deployments.read(prefect, deployment_id)  # type: ignore[arg-type]  # has what is asked of it

    async def run() -> None:
        assert len({id(found) for found in await asyncio.gather(read(), read(), read())}) == 1

    asyncio.run(run())
    assert prefect.asked == 1


def test_variables_of_a_run_add_to_those_of_its_deployment_and_change_none_of_the_service() -> None:
    wanted = {"env": {"OMP_NUM_THREADS": "4", "PATH": "/evil", "MINE": "run"}, "env.NESTED": "too"}
    run = FlowRun(flow_id=uuid4(), job_variables=wanted)
    operators = deployment(env={"PATH": "/operators", "MINE": "deployment", "OTHER": "kept"})

    assert job_variables_of(run, operators)["env"] == {
        **{"PATH": "/operators", "MINE": "run", "OTHER": "kept"},
        **{"OMP_NUM_THREADS": "4", "NESTED": "too"},
    }
    for without in (None, deployment(env=None)):
        assert job_variables_of(FlowRun(flow_id=uuid4()), without) == {"env": {}}
