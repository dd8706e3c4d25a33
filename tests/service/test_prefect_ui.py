"""The page of a job in the Prefect UI, in a real browser, shows its rule jobs."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.support import JobsClient

CHROMIUM = "/usr/bin/chromium"
OFFLINE = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@pytest.fixture
def page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OFFLINE)
        yield browser.new_page(viewport={"width": 1600, "height": 1200})
        browser.close()


def test_the_page_of_a_job_shows_its_rule_jobs(jobs: JobsClient, page: Page) -> None:
    job_id = jobs.submit_workflow("failing", config={"fail": []})
    job = jobs.wait(job_id, "completed")

    page.goto(job["links"]["prefect"])
    expect(page.get_by_text("13 Task runs")).to_be_visible(timeout=30_000)
    page.get_by_text("Task Runs", exact=True).click()

    expect(page.get_by_text("begin[branch=a]").first).to_be_visible(timeout=30_000)
    expect(page.get_by_text("join", exact=True).first).to_be_visible(timeout=30_000)
