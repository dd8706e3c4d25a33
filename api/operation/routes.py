"""What an operator asks of the service itself: is it ready, and what has it been doing."""

from http import HTTPStatus

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from api.auth.callers import WithCaller
from api.operation.health import Readiness, ReadinessStatus
from api.services import WithServices
from api.web.problems import Forbidden, refusals

service_router = APIRouter(tags=["service"])


@service_router.get(
    "/readyz",
    operation_id="isReady",
    summary="See whether the service can do its work, and which part can't",
    responses={503: {"model": Readiness, "description": "A part that every request needs is not ready."}},
)
async def is_ready(services: WithServices, response: Response) -> Readiness:
    """Groups without a worker make it degraded, which is 200: their jobs wait, all else goes on."""
    readiness = await services.health.readiness()
    if readiness.status is ReadinessStatus.NOT_READY:
        response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
    return readiness


@service_router.get(
    "/metrics",
    operation_id="readMetrics",
    summary="Read the metrics, as Prometheus does",
    response_class=Response,
    responses={
        200: {
            "content": {
                "text/plain": {
                    "schema": {"type": "string"},
                    "example": 'jobs_open{group="default",status="running"} 2.0\n',
                }
            }
        },
        **refusals(422),
    },
)
async def read_metrics(services: WithServices, caller: WithCaller) -> Response:
    """For callers of all groups, and admins: the numbers are of everybody's jobs."""
    if not caller.may_operate:
        raise Forbidden(
            f"The metrics are of all groups, and the token '{caller.name}' is not.",
            "Ask the operator for a token with the group '*', or with the scope admin.",
        )
    return Response(await services.metrics.exposition(), media_type=CONTENT_TYPE_LATEST)
