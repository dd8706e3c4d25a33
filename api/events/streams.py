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
"""Proxies close a connection on which nothing comes for about a minute."""

OLDEST_EVENT = timedelta(days=1)
"""Who was away for longer asks for the list: it costs Prefect less than all that happened since."""

# In JSON they may stand as they are, but readers of lines, ours included, take them for the end of one.
_LINE_ENDS = {ord(end): f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"}
_NO_PROXY_BUFFER = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class EventStream(StreamingResponse):
    """Server-sent events. FastAPI's own class wants the route to be a generator, which can refuse no more."""

    media_type = "text/event-stream"


async def _following(services: WithServices) -> Following:
    return services.following


async def _open_streams(services: WithServices, caller: WithCaller) -> OpenStreams:
    """Those that are open, if the caller may open one more."""
    services.open_streams.check(caller)
    return services.open_streams


async def _since(
    last_event_id: Annotated[
        str | None,
        Header(alias="Last-Event-ID", description="The id of the last event that was received."),
    ] = None,
) -> Moment | None:
    if last_event_id is None:
        return None
    try:
        return Moment.parse(last_event_id)
    except ValueError as error:
        raise _bad_event_id(
            error,
            "Give the id of the last event that was received, or none to start from the beginning.",
        ) from error


async def _lately(since: Annotated[Moment | None, Depends(_since)]) -> Moment | None:
    if since is not None and since.at < datetime.now(UTC) - OLDEST_EVENT:
        raise _bad_event_id(
            ValueError("this event is more than a day old"),
            "List the jobs with GET /jobs, and follow from now on.",
        )
    return since


def _bad_event_id(error: ValueError, resolution: str) -> BadCursor:
    problem = FieldProblem(pointer="Last-Event-ID", message=str(error))
    return BadCursor(sentence(error), resolution, [problem])


_STREAM = {
    "description": "Events until the client leaves, or the job has ended.",
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
    """An event `job` with the job whenever its status or progress changes, from now on.

    `Last-Event-ID` brings what was missed, of a day at most. Connect first and list the jobs
    then, and nothing falls between. A change may come more than once.
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
        204: {"description": "The job has ended, and the client knows all of it."},
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
    """Events `job`, `task` and `log` with the same JSON as elsewhere, from the job's beginning to its end.

    `Last-Event-ID` goes on from there, on any replica and after a restart. A change may come
    more than once. Of what has changed again meanwhile, the newest state is told, and of more
    than 10,000 rule jobs or log lines before the connection, the newest.
    """
    job = await jobs.get(job_id)
    if since is not None and since.is_end and job.status in FINAL_STATUSES:
        return Response(status_code=status.HTTP_204_NO_CONTENT)  # tells an EventSource not to come back
    return _streamed(following.job(job_id, since), streams.one_more(caller))


def _streamed(items: AsyncIterator[FeedItem], meanwhile: AbstractContextManager[None]) -> Response:
    return EventStream(_with_pings(items, meanwhile), headers=_NO_PROXY_BUFFER)


async def _with_pings(
    items: AsyncIterator[FeedItem], meanwhile: AbstractContextManager[None]
) -> AsyncIterator[bytes]:
    """Events as bytes, and a comment whenever nothing has come for a while."""
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
