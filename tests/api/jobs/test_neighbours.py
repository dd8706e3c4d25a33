"""One group asks for all that the service can do, and another goes on."""

import json
from pathlib import Path
from uuid import UUID

import anyio
import pytest

from api.auth.callers import TokenScope
from api.auth.tokens import TokenFile
from api.settings import Settings
from tests.api.support import MOCK_JOB, facade

pytestmark = pytest.mark.anyio

READERS = 60
JOBS = 8
"""Their manifests together are larger than what the facade keeps of manifests."""


def publish(home: Path, job_id: UUID) -> None:
    """A manifest of 20,000 outputs."""
    output = {"size": 1, "sha256": "0" * 64, "modified_at": "2025-10-09T08:53:20+00:00"}
    outputs = [{"path": f"results/{number:06}/{job_id}", **output} for number in range(20_000)]
    manifest = home / "jobs" / str(job_id) / "outputs.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(json.dumps({"version": 1, "outputs": outputs}))


async def test_many_readers_of_large_manifests_hold_nobody_else_up(
    prefect_api_url: str, tmp_path: Path
) -> None:
    tokens = TokenFile(tmp_path / "tokens.json")
    loud, quiet = (
        {"Authorization": f"Bearer {tokens.create(group, [group], TokenScope.SUBMIT)}"}
        for group in ("default", "large")
    )
    home = tmp_path / "home"
    home.mkdir()
    read = 0

    async with facade(prefect_api_url, Settings(home=home, tokens_file=tmp_path / "tokens.json")) as api:

        async def submitted(group: str, headers: dict[str, str]) -> UUID:
            job = await api.post("/jobs", json=MOCK_JOB | {"group": group}, headers=headers)
            return UUID(job.raise_for_status().json()["id"])

        async def read_outputs(job_id: UUID) -> None:
            nonlocal read
            (await api.get(f"/jobs/{job_id}/outputs", headers=loud)).raise_for_status()
            read += 1

        job_ids = [await submitted("default", loud) for _ in range(JOBS)]
        for job_id in job_ids:
            publish(home, job_id)
        async with anyio.create_task_group() as readers:
            for number in range(READERS):
                readers.start_soon(read_outputs, job_ids[number % JOBS])
            await anyio.wait_all_tasks_blocked()
            own = await submitted("large", quiet)
            assert (await api.get(f"/jobs/{own}/outputs", headers=quiet)).json()["items"] == []
            assert read < READERS / 3
            readers.cancel_scope.cancel()
