"""What routes about jobs get as arguments."""

from typing import Annotated

from fastapi import Depends, Header, Request

from api.auth.callers import WithCaller
from api.jobs.bundles import Bundles
from api.jobs.jobs import Jobs
from api.jobs.outputs import Outputs


async def _jobs(request: Request, caller: WithCaller) -> Jobs:
    jobs: Jobs = request.app.state.jobs
    return jobs.seen_by(caller)


async def _outputs(request: Request) -> Outputs:
    outputs: Outputs = request.app.state.outputs
    return outputs


async def _bundles(request: Request) -> Bundles:
    bundles: Bundles = request.app.state.bundles
    return bundles


WithBundles = Annotated[Bundles, Depends(_bundles)]
WithJobs = Annotated[Jobs, Depends(_jobs)]
WithOutputs = Annotated[Outputs, Depends(_outputs)]

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        pattern=r"^[!-~]+$",
        description="A word of the client's own, such as a UUID: the same key and body make one job, "
        "however often they are sent.",
    ),
]

IfNoneMatch = Annotated[
    str | None, Header(alias="If-None-Match", description="The `ETag` of an earlier answer.")
]
