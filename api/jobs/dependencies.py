"""Arguments of routes: dependencies and headers that several of them use."""

from typing import Annotated

from fastapi import Depends, Header

from api.auth.callers import WithCaller
from api.jobs.bundles import Bundles
from api.jobs.outputs import Outputs
from api.jobs.submissions import Submissions
from api.jobs.visible_jobs import VisibleJobs
from api.services import WithServices


async def _jobs(services: WithServices, caller: WithCaller) -> VisibleJobs:
    return VisibleJobs(caller, services.reads)


async def _outputs(services: WithServices) -> Outputs:
    return services.outputs


async def _bundles(services: WithServices) -> Bundles:
    return services.bundles


async def _submissions(services: WithServices) -> Submissions:
    return services.submissions


WithBundles = Annotated[Bundles, Depends(_bundles)]
WithJobs = Annotated[VisibleJobs, Depends(_jobs)]
WithOutputs = Annotated[Outputs, Depends(_outputs)]
WithSubmissions = Annotated[Submissions, Depends(_submissions)]

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        pattern=r"^[!-~]+$",
        description="A unique value that the client chooses, such as a UUID. Requests with the same key and "
        "body create one job, however often they are sent.",
    ),
]

IfNoneMatch = Annotated[
    str | None, Header(alias="If-None-Match", description="The `ETag` of an earlier response.")
]
