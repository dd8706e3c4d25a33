"""`/readyz` and `/metrics`."""

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
    summary="Check whether the service is ready, part by part",
    responses={503: {"model": Readiness, "description": "A part that every request needs is not ready."}},
)
async def is_ready(services: WithServices, response: Response) -> Readiness:
    """A group without a worker makes the service degraded, with 200: its jobs wait, all else works."""
    readiness = await services.health.readiness()
    if readiness.status is ReadinessStatus.NOT_READY:
        response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
    return readiness


@service_router.get(
    "/metrics",
    operation_id="readMetrics",
    summary="Read the metrics in the format of Prometheus",
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
    """Needs a token for all groups, or with the scope `admin`: the metrics cover the jobs of all groups."""
    if not caller.may_operate:
        raise Forbidden(
            f"The metrics cover all groups; the token '{caller.name}' has access to some only.",
            "Ask the operator for a token with the group '*', or with the scope 'admin'.",
        )
    return Response(await services.metrics.exposition(), media_type=CONTENT_TYPE_LATEST)
