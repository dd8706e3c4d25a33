"""Checks whether the service is ready, part by part."""

import os
import time
from enum import StrEnum
from pathlib import Path

import anyio
import anyio.to_thread
from pydantic import BaseModel, ConfigDict, Field

from api.auth.tokens import TokenSource, TokensUnreadable
from api.prefect.overview import Overview
from api.web.problems import ProblemError
from flows.contract.isolation import read_missing

FRESH_SECONDS = 1.0
"""Requests within this time get the same answer, so that frequent probes cost Prefect nothing."""


class PartName(StrEnum):
    """The parts that the service depends on."""

    PREFECT = "prefect"
    """The Prefect server and its database."""
    WORKERS = "workers"
    """A worker for each group. Without one, jobs are accepted and wait."""
    STORAGE = "storage"
    """The directory that holds the jobs."""
    TOKENS = "tokens"
    """The list of tokens, if tokens are on."""
    ISOLATION = "isolation"
    """What keeps jobs apart on the machines of workers, once a worker has tried it."""


_ONLY_DEGRADE = frozenset({PartName.WORKERS, PartName.ISOLATION})
"""Without these parts, the service still accepts jobs."""

_LACKS_BROKER = (
    "The Prefect server answers, but it can't reach Valkey, which its processes share: it can't create jobs."
)


class ReadinessStatus(StrEnum):
    """The readiness of the service as a whole."""

    READY = "ready"
    DEGRADED = "degraded"
    """Jobs are accepted, but some would wait, or could reach others: a load balancer should keep sending
    requests."""
    NOT_READY = "not ready"


class Part(BaseModel):
    """The readiness of one part."""

    name: PartName
    ready: bool
    detail: str = Field(
        description="What was found. It names no groups and paths, because this path needs no token."
    )


class Readiness(BaseModel):
    """The readiness of the service."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "status": "ready",
                    "parts": [{"name": "prefect", "ready": True, "detail": "Prefect answers."}],
                }
            ]
        }
    )

    status: ReadinessStatus
    parts: list[Part]

    @classmethod
    def of(cls, parts: list[Part]) -> "Readiness":
        missing = {part.name for part in parts if not part.ready}
        if missing - _ONLY_DEGRADE:
            return cls(status=ReadinessStatus.NOT_READY, parts=parts)
        return cls(status=ReadinessStatus.DEGRADED if missing else ReadinessStatus.READY, parts=parts)


class Health:
    """Checks every part, at most once in `FRESH_SECONDS`."""

    def __init__(self, overview: Overview, home: Path, tokens: TokenSource | None) -> None:
        self._overview = overview
        self._home = home
        self._tokens = tokens
        self._lock = anyio.Lock()
        self._readiness: Readiness | None = None
        self._expires = 0.0

    async def readiness(self) -> Readiness:
        async with self._lock:
            if self._readiness is None or time.monotonic() >= self._expires:
                self._readiness = Readiness.of(await self._parts())
                self._expires = time.monotonic() + FRESH_SECONDS
            return self._readiness

    async def _parts(self) -> list[Part]:
        storage = await anyio.to_thread.run_sync(_storage, self._home)
        isolation = await anyio.to_thread.run_sync(_isolation, self._home)
        return [*await self._prefect_and_workers(), storage, *self._token_part(), *isolation]

    async def _prefect_and_workers(self) -> list[Part]:
        try:
            groups = await self._overview.groups()
            pools = await self._overview.pools_with_workers(groups)
        except ProblemError as error:
            unknown = Part(
                name=PartName.WORKERS, ready=False, detail="Unknown while Prefect can't be reached."
            )
            detail = error.detail
            if await self._overview.lacks_its_database():
                detail = "The Prefect server answers, but it can't reach its database (PostgreSQL)."
            return [Part(name=PartName.PREFECT, ready=False, detail=detail), unknown]
        lacks_broker = await self._overview.lacks_its_broker()
        taking_jobs = [group for group in groups if group.takes_jobs and group.workflow is None]
        served = sum(group.work_pool in pools for group in taking_jobs)
        detail = f"{served} of {len(taking_jobs)} groups have a worker."
        return [
            Part(
                name=PartName.PREFECT,
                ready=not lacks_broker,
                detail=_LACKS_BROKER if lacks_broker else "Prefect answers.",
            ),
            Part(name=PartName.WORKERS, ready=0 < served == len(taking_jobs), detail=detail),
        ]

    def _token_part(self) -> list[Part]:
        if self._tokens is None:
            return []
        try:
            self._tokens.read()
        except TokensUnreadable:
            return [Part(name=PartName.TOKENS, ready=False, detail="The tokens can't be read.")]
        return [Part(name=PartName.TOKENS, ready=True, detail="The tokens can be read.")]


def _storage(home: Path) -> Part:
    if not home.is_dir():
        detail = "The directory JOBS_HOME does not exist."
    elif not os.access(home, os.R_OK | os.W_OK | os.X_OK):
        detail = "The directory JOBS_HOME can't be written."
    else:
        return Part(name=PartName.STORAGE, ready=True, detail="The directory JOBS_HOME can be written.")
    return Part(name=PartName.STORAGE, ready=False, detail=detail)


def _isolation(home: Path) -> list[Part]:
    missing = read_missing(home)
    if missing is None:
        return []
    detail = "Each job runs in a room of its own."
    if missing:
        detail = f"Jobs are not fully kept apart; a worker's machine lacks: {'; '.join(missing)}."
    return [Part(name=PartName.ISOLATION, ready=not missing, detail=detail)]
