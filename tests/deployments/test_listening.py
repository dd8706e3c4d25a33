"""The reconciler hears of cancels again when Prefect's event stream was closed, at whatever moment."""

import asyncio
import http
import json
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from deployments import reconciler
from deployments.ecs import ECS

_TIMES = 3


class ClosingServer:
    """A Prefect server that is going down: it knows the work pool, and closes who authenticates."""

    def __init__(self) -> None:
        self.were_closed = asyncio.Semaphore(0)

    async def close(self, connection: ServerConnection) -> None:
        assert json.loads(await connection.recv())["type"] == "auth"
        self.were_closed.release()
        await connection.close(code=1012, reason="service restart")

    def answer(self, connection: ServerConnection, request: Request) -> Response | None:
        if not request.path.startswith(f"/api/work_pools/{ECS}"):
            return None
        now = datetime.now(UTC).isoformat()
        pool = {"id": str(uuid4()), "name": ECS, "type": ECS, "created": now, "updated": now}
        return connection.respond(http.HTTPStatus.OK, json.dumps(pool))


def test_it_listens_again_after_it_was_closed_while_it_authenticated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciler, "_LISTEN_AGAIN_SECONDS", 0.01)

    async def listen() -> None:
        server = ClosingServer()
        async with serve(server.close, "127.0.0.1", 0, process_request=server.answer) as listening:
            port = listening.sockets[0].getsockname()[1]
            with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{port}/api"}):
                async with get_client() as client:
                    task = asyncio.create_task(reconciler._listen_for_cancels(client, asyncio.Event()))
                    for _ in range(_TIMES):
                        await asyncio.wait_for(server.were_closed.acquire(), 10)
                    assert not task.done()
                    task.cancel()

    asyncio.run(listen())
