"""What the routes work with: made once when the application starts, and the same for every request."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from api.events.following import Following
from api.events.open_streams import OpenStreams
from api.gateway.routes import Gateway
from api.insight.cost import Prices
from api.insight.shared_drawings import Drawings
from api.jobs.bundles import Bundles
from api.jobs.outputs import Outputs
from api.jobs.removal import Removal
from api.jobs.submissions import Submissions
from api.operation.health import Health
from api.operation.metrics import Metrics
from api.prefect.reads import JobReads
from api.settings import Settings
from api.workflows.new_files import NewFiles
from api.workflows.registration import Registration
from api.workflows.registry import Registry
from api.workflows.scheduling import Scheduling
from api.workflows.triggering import Triggering
from flows.contract.storage import Storage


@dataclass(frozen=True, slots=True)
class Services:
    """`app.state.services`, from the start of the lifespan on."""

    settings: Settings
    storage: Storage
    bundles: Bundles
    outputs: Outputs
    reads: JobReads
    submissions: Submissions
    removal: Removal
    registry: Registry
    registration: Registration
    scheduling: Scheduling
    triggering: Triggering
    new_files: NewFiles
    prices: Prices
    prefect_ui_url: str
    drawings: Drawings
    following: Following
    open_streams: OpenStreams
    health: Health
    metrics: Metrics
    gateway: Gateway


async def services_of(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


# A coroutine, because other dependencies take a thread for each request.
WithServices = Annotated[Services, Depends(services_of)]
