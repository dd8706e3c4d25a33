"""Reports new files to Prefect, whose automations then run the workflows that wait for them.

A file is new when it was not there when its trigger was made, or has changed since; and complete when two
looks find it the same. What was reported is kept on disk, so a restarted facade reports no file again.
"""

import asyncio
import glob
import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from itertools import islice
from pathlib import Path
from uuid import uuid4

import anyio.to_thread
from prefect.client.orchestration import PrefectClient

from api.prefect.automations import AutomationRow, Automations
from api.prefect.groups import GroupCache
from api.prefect.retries import translating_errors
from api.web.problems import ProblemError
from flows.contract.data_roots import DataRefused, check_input_path

EVENT = "snakemake.new-file"
LOOK_SECONDS = 5.0
MOST_FILES = 10_000
"""For each pattern."""

RootsOf = Callable[[str], Sequence[Path]]

_WILDCARDS = "*?["

_log = logging.getLogger(__name__)


def resource_of(pattern: str) -> str:
    """What the events of the pattern are about. It has no wildcard at its end, which Prefect would obey."""
    return f"{EVENT}:{pattern}:"


def pattern_of(automation: AutomationRow) -> str | None:
    """The pattern whose files fire it; None if it is another trigger."""
    if automation.trigger.get("expect") != [EVENT]:
        return None
    resource: str = automation.trigger["match"]["prefect.resource.id"]
    return resource.removeprefix(f"{EVENT}:").removesuffix(":")


def _check(pattern: str, roots: Sequence[Path]) -> None:
    parts = Path(pattern).parts[:-1]
    literal = [part for part in parts if not set(part) & set(_WILDCARDS)]
    if ".." in parts or not pattern.startswith("/"):
        raise DataRefused(f"'{pattern}' is not an absolute path", "Begin it with a data root.")
    before = parts[: next((n for n, part in enumerate(parts) if part not in literal), len(parts))]
    check_input_path(str(Path(*before)), roots)


class NewFiles:
    """Runs in the background of one facade, on the machine that has the data."""

    def __init__(
        self,
        client: PrefectClient,
        automations: Automations,
        groups: GroupCache,
        home: Path,
        roots_of: RootsOf,
        timeout_seconds: float,
    ) -> None:
        """`roots_of` returns the data roots of a group."""
        self._roots_of = roots_of
        self._client = client
        self._automations = automations
        self._groups = groups
        self._directory = home / "triggers"
        self._timeout_seconds = timeout_seconds
        self._last: dict[str, dict[str, str]] = {}

    async def begin(self, pattern: str, group: str) -> None:
        """Take the files that are there now for known."""
        found = await anyio.to_thread.run_sync(files_of, pattern, self._roots_of(group))
        await anyio.to_thread.run_sync(self._keep, pattern, found)

    def check(self, pattern: str, group: str) -> None:
        """Raises `DataRefused` unless the directory before its first wildcard is below the group's roots."""
        _check(pattern, self._roots_of(group))

    async def run(self) -> None:
        """Runs until it is cancelled."""
        while True:
            try:
                await self._look()
            except (ProblemError, OSError) as error:
                _log.warning("New files can't be looked for now: %s", error)
            await asyncio.sleep(LOOK_SECONDS)

    async def _look(self) -> None:
        patterns: dict[str, set[Path]] = {}
        for row in await self._automations.beginning_with(""):
            if (pattern := pattern_of(row)) is None or not row.enabled:
                continue
            group = await self._groups.name_of(row.deployment_id) if row.deployment_id else None
            patterns.setdefault(pattern, set()).update(self._roots_of(group or ""))
        for pattern, roots in patterns.items():
            await self._look_for(pattern, sorted(roots))
        self._last = {pattern: found for pattern, found in self._last.items() if pattern in patterns}

    async def _look_for(self, pattern: str, roots: Sequence[Path]) -> None:
        found = await anyio.to_thread.run_sync(files_of, pattern, roots)
        known = await anyio.to_thread.run_sync(self._known, pattern)
        last, self._last[pattern] = self._last.get(pattern, {}), found
        complete = [path for path, is_now in found.items() if last.get(path) == is_now != known.get(path)]
        gone = known.keys() - found.keys()
        for path in complete:
            await self._report(pattern, path)
        if complete or gone:
            reported = {path: found[path] for path in complete}
            left = {path: was for path, was in known.items() if path not in gone}
            await anyio.to_thread.run_sync(self._keep, pattern, left | reported)

    async def _report(self, pattern: str, path: str) -> None:
        resource = {"prefect.resource.id": resource_of(pattern), "prefect.resource.name": path, "path": path}
        event = {
            "id": str(uuid4()),
            "occurred": datetime.now(UTC).isoformat(),
            "event": EVENT,
            "resource": resource,
        }
        async with translating_errors(self._timeout_seconds):
            await self._client.request("POST", "/events", json=[event])
        _log.info("There is a new file: %s", path)

    def _known(self, pattern: str) -> dict[str, str]:
        try:
            known: dict[str, str] = json.loads(self._file(pattern).read_text())
        except FileNotFoundError:
            return {}
        return known

    def _keep(self, pattern: str, known: Mapping[str, str]) -> None:
        """Atomically."""
        self._directory.mkdir(parents=True, exist_ok=True)
        part = self._file(pattern).with_suffix(".part")
        part.write_text(json.dumps(known))
        part.replace(self._file(pattern))

    def _file(self, pattern: str) -> Path:
        return self._directory / f"{sha256(pattern.encode()).hexdigest()[:32]}.json"


def files_of(pattern: str, roots: Sequence[Path]) -> dict[str, str]:
    """The files below `roots`, each with what changes when it is written to."""
    return dict(islice(_stated(glob.iglob(pattern), roots), MOST_FILES))


def _stated(paths: Iterable[str], roots: Sequence[Path]) -> Iterable[tuple[str, str]]:
    for path in paths:
        try:
            check_input_path(path, roots)
            status = os.stat(path)
        except (DataRefused, OSError):
            continue
        if os.path.isfile(path):
            yield path, f"{status.st_mtime_ns}-{status.st_size}"
