"""What people see of a job in the Prefect UI: its progress, a summary, its outputs, plots and report."""

import shutil
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
from playwright.sync_api import Page, expect

from deployments.demo import EXAMPLE
from deployments.local import LocalStack
from tests.flows.executions import write_workflow
from tests.service.browser import log_in
from tests.support import JobsClient, Json, wait_until

SLOW_MS = 60_000


def artifacts_of(prefect_api: httpx.Client, job_id: str) -> dict[str, Json]:
    """By key."""
    filters = {"artifacts": {"flow_run_id": {"any_": [job_id]}}}
    found: list[Json] = prefect_api.post("/artifacts/filter", json=filters).raise_for_status().json()
    return {artifact["key"]: artifact for artifact in found}


def opened(page: Page, stack: LocalStack, artifact: Json) -> None:
    page.goto(f"{stack.settings.prefect_url}/artifacts/artifact/{artifact['id']}")


def test_who_has_only_the_prefect_ui_runs_the_example_and_looks_at_its_results(
    jobs: JobsClient, stack: LocalStack, prefect_api: httpx.Client, page: Page, tmp_path: Path
) -> None:
    """The form with one more sample, the progress, the plot and Snakemake's report."""
    name = f"variants-{uuid4().hex[:8]}"
    example = shutil.copytree(EXAMPLE, tmp_path / "variants")
    version: dict[str, Any] = {
        "workflow": {"path": str(example)},
        "environment": {"file": "requirements.txt"},
        "cores": 2,
        "options": {"report": True},
    }
    registered = jobs.http.put(f"/workflows/{name}/versions/1", json=version)
    assert registered.status_code == 201, registered.text
    log_in(page, stack)
    page.goto(f"{jobs.http.get(f'/workflows/{name}').json()['prefect']}/run")
    samples = page.locator("textarea")
    expect(samples.nth(2)).to_have_value("cedar", timeout=SLOW_MS)
    before = samples.count()
    page.get_by_role("button", name="Add item").first.click()
    expect(samples).to_have_count(before + 1)  # until then, the fourth one is another field's
    samples.nth(3).fill("extra")
    expect(samples.nth(3)).to_have_value("extra")
    page.get_by_role("button", name="Submit").click()

    job = wait_until(lambda: list(jobs.items("/jobs", workflow=name)), "the form has made a job")[0]
    moving = wait_until(
        lambda: artifacts_of(prefect_api, job["id"]).get(f"{name}-progress", {}), "progress is shown", 120
    )
    opened(page, stack, moving)
    expect(page.get_by_text("Rule jobs that have completed.").first).to_be_visible(timeout=SLOW_MS)
    jobs.wait(job["id"], "completed", seconds=240)
    artifacts = artifacts_of(prefect_api, job["id"])
    assert moving["data"] < artifacts[f"{name}-progress"]["data"] == 100.0

    opened(page, stack, artifacts[f"{name}-results-plot-png"])
    plot = page.locator("img[src^='data:image/png']").first
    expect(plot).to_be_visible(timeout=SLOW_MS)
    assert plot.evaluate("image => image.naturalWidth") > 500

    opened(page, stack, artifacts[f"{name}-outputs"])
    expect(page.get_by_text("results/mapped/extra.bam", exact=True)).to_be_visible(timeout=SLOW_MS)

    opened(page, stack, artifacts[f"{name}-summary"])
    expect(page.get_by_role("heading", name="Completed")).to_be_visible(timeout=SLOW_MS)
    report = page.get_by_role("link", name="Report").get_attribute("href")
    assert report is not None
    page.goto(report)
    expect(page.get_by_text("Results").first).to_be_visible(timeout=SLOW_MS)
    usage = jobs.http.get(f"/jobs/{job['id']}/usage.svg")
    assert b"simulate_reads" in usage.content


def test_the_summary_of_a_job_that_failed_says_why(jobs: JobsClient, prefect_api: httpx.Client) -> None:
    job_id = jobs.submit_workflow("failing")
    jobs.wait(job_id, "failed")

    artifacts = artifacts_of(prefect_api, job_id)

    text = artifacts["summary"]["data"]
    assert text.startswith("# Failed\n\n**Failed rule job:** proceed\\[branch=b\\]\n\n```text\n")
    assert "standard error of branch b" in text
    assert "**What to do:** Read the rule job's log" in text


def test_artifacts_go_with_their_job(jobs: JobsClient, prefect_api: httpx.Client, tmp_path: Path) -> None:
    snakefile = 'rule all:\n    output: report("plot.svg")\n    shell: "echo \'<svg/>\' > {output}"\n'
    job_id = jobs.submit(workflow={"path": str(write_workflow(tmp_path / "plotted", snakefile))})
    jobs.wait(job_id, "completed")
    assert set(artifacts_of(prefect_api, job_id)) == {"summary", "outputs", "plot-svg"}

    jobs.http.delete(f"/jobs/{job_id}").raise_for_status()

    assert artifacts_of(prefect_api, job_id) == {}
