"""Server-sent events over HTTP: one stream per job, and one of all jobs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Response, status
from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event

from api.auth.callers import WithCaller
from api.events.feed import Change, FeedItem, Moment
from api.events.following import Following
from api.events.open_streams import OpenStreams
from api.jobs.dependencies import WithJobs
from api.services import WithServices
from api.web.problems import BadCursor, FieldProblem, refusals, sentence
from api.web.statuses import FINAL_STATUSES

events_router = APIRouter()

PING_SECONDS = 15.0
"""Keeps the connection open: many proxies close one that is idle for a minute."""

OLDEST_EVENT = timedelta(days=1)
"""A client that was away for longer should list the jobs: that costs Prefect less."""

# Valid in JSON as they are, but many line readers, including ours, treat them as line ends.
_LINE_ENDS = {ord(end): f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"}
_NO_PROXY_BUFFER = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class EventStream(StreamingResponse):
    """Server-sent events. FastAPI's class needs a generator as route, which can't answer with an error."""

    media_type = "text/event-stream"


async def _following(services: WithServices) -> Following:
    return services.following


async def _open_streams(services: WithServices, caller: WithCaller) -> OpenStreams:
    """The open streams. Raises `TooManyStreams` if the caller may not open another."""
    services.open_streams.check(caller)
    return services.open_streams


async def _since(
    last_event_id: Annotated[
        str | None,
        Header(alias="Last-Event-ID", description="The id of the last event that the client has received."),
    ] = None,
) -> Moment | None:
    if last_event_id is None:
        return None
    try:
        return Moment.parse(last_event_id)
    except ValueError as error:
        raise _bad_event_id(
            error,
            "Send the id of the last event that you received, or no header to start from the beginning.",
        ) from error


async def _lately(since: Annotated[Moment | None, Depends(_since)]) -> Moment | None:
    if since is not None and since.at < datetime.now(UTC) - OLDEST_EVENT:
        raise _bad_event_id(
            ValueError("this event is more than a day old"),
            "List the jobs with GET /jobs, and follow them without Last-Event-ID.",
        )
    return since


def _bad_event_id(error: ValueError, resolution: str) -> BadCursor:
    problem = FieldProblem(pointer="Last-Event-ID", message=str(error))
    return BadCursor(sentence(error), resolution, [problem])


_STREAM = {
    "description": "Events, until the client disconnects or the job has ended.",
    "content": {
        "text/event-stream": {
            "schema": {"type": "string"},
            "example": 'event: job\ndata: {"id": "0199c2f4-…", …}\n\nid: 1759829472000\n\n',
        }
    },
}

WithFollowing = Annotated[Following, Depends(_following)]
WithOpenStreams = Annotated[OpenStreams, Depends(_open_streams)]
Since = Annotated[Moment | None, Depends(_since)]
SinceLately = Annotated[Moment | None, Depends(_lately)]


@events_router.get(
    "/jobs/events",
    operation_id="followJobs",
    summary="Follow all jobs",
    tags=["jobs"],
    response_class=EventStream,
    responses={200: _STREAM, **refusals(400, 422)},
)
async def follow_jobs(
    caller: WithCaller, following: WithFollowing, streams: WithOpenStreams, since: SinceLately
) -> Response:
    """Sends an event `job` with the job whenever its status or progress changes, from now on.

    With `Last-Event-ID`, the stream begins with the changes since that event, which may be a day old at
    most. To miss nothing, connect first and then list the jobs. A change may be sent more than once.
    """
    return _streamed(following.jobs(caller.groups, since), streams.one_more(caller))


@events_router.get(
    "/jobs/{job_id}/events",
    operation_id="followJob",
    summary="Follow a job",
    tags=["jobs"],
    response_class=EventStream,
    responses={
        200: _STREAM,
        204: {"description": "The job has ended, and the client has received all events."},
        **refusals(400, 404, 422),
    },
)
async def follow_job(
    job_id: UUID,
    jobs: WithJobs,
    caller: WithCaller,
    following: WithFollowing,
    streams: WithOpenStreams,
    since: Since,
) -> Response:
    """Sends events `job`, `task` and `log` from the start of the job to its end.

    Their data is the same JSON as other routes return. With `Last-Event-ID`, the stream continues after
    that event, on any replica and after a restart. A change may be sent more than once. If something
    changes several times in a moment, only its newest state is sent; of more than 10,000 rule jobs or log
    lines before the connection, only the newest are.
    """
    job = await jobs.get(job_id)
    if since is not None and since.is_end and job.status in FINAL_STATUSES:
        return Response(status_code=status.HTTP_204_NO_CONTENT)  # makes an EventSource stop reconnecting
    return _streamed(following.job(job_id, since), streams.one_more(caller))


def _streamed(items: AsyncIterator[FeedItem], meanwhile: AbstractContextManager[None]) -> Response:
    return EventStream(_with_pings(items, meanwhile), headers=_NO_PROXY_BUFFER)


async def _with_pings(
    items: AsyncIterator[FeedItem], meanwhile: AbstractContextManager[None]
) -> AsyncIterator[bytes]:
    """Encodes events, and sends a comment when there has been none for a while."""
    with meanwhile:
        yield format_sse_event(retry=2000)
        coming = asyncio.ensure_future(anext(items, None))
        try:
            while True:
                done, _ = await asyncio.wait({coming}, timeout=PING_SECONDS)
                if not done:
                    yield format_sse_event(comment="nothing new")
                    continue
                match coming.result():
                    case None:
                        return
                    case Change() as change:
                        data = change.data.translate(_LINE_ENDS)
                        yield format_sse_event(event=change.event, data_str=data)
                    case Moment() as moment:
                        yield format_sse_event(id=str(moment))
                coming = asyncio.ensure_future(anext(items, None))
        finally:
            coming.cancel()
