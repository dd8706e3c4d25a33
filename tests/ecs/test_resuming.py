"""The disk of a task goes with it; its job is resumed all the same, and does only what is incomplete."""

from pathlib import Path

from tests.ecs.conftest import EcsStack
from tests.flows.archives import workflow
from tests.service.test_resuming import SNAKEFILE, resume
from tests.support import JobsClient


def test_only_what_is_incomplete_is_done_again(jobs: JobsClient, stack: EcsStack, tmp_path: Path) -> None:
    permit, tally = tmp_path / "permit", tmp_path / "tally"
    bundle = jobs.http.put("/bundles", content=workflow({"Snakefile": SNAKEFILE})).json()["bundle"]
    config = {"permit": str(permit), "tally": str(tally)}
    failed = jobs.submit(workflow={"bundle": bundle}, config=config)
    jobs.wait(failed, "failed")
    container = stack.agent.container_of(failed)
    container.process.wait(30)
    permit.touch()

    job = jobs.wait(resume(jobs, failed)["id"], "completed")

    assert not container.disk.exists()
    assert jobs.statuses(job["id"]) == {"all": "completed", "report": "completed", "measure": "skipped"}
    assert tally.read_text() == "run\n"
    assert [output["path"] for output in jobs.items(f"/jobs/{job['id']}/outputs")] == [
        "measured.txt",
        "report.txt",
    ]
