"""Takes the pictures of docs/: `make pictures` runs the example in a stack and photographs Prefect's UI."""

import io
import os
import tempfile
from pathlib import Path

import httpx
from PIL import Image
from playwright.sync_api import FloatRect, Page, sync_playwright
from rich.console import Console

from deployments.local import PROJECT, LocalStack
from tests.conftest import ENVIRONMENTS, local_settings
from tests.service.browser import CHROMIUM, OFFLINE
from tests.support import JobsClient

EXAMPLES = PROJECT / "flows" / "examples"
PICTURE = PROJECT / "docs" / "pictures" / "prefect-graph.png"
_WIDTH, _HEIGHT = 1440, 900
_HEADER_AND_GRAPH: FloatRect = {"x": 256, "y": 0, "width": 1184, "height": 512}
"""Of the page, without the menu and the logs below."""

_COLOURS = 64
"""Enough for a page of one colour scheme; a tenth of the size."""


def main() -> None:
    console = Console(stderr=True)
    os.environ["JOBS_ENVIRONMENTS_DIRECTORY"] = str(ENVIRONMENTS)
    with (
        tempfile.TemporaryDirectory() as home,
        LocalStack(local_settings(Path(home), [EXAMPLES]), console.print) as stack,
        httpx.Client(base_url=stack.settings.api_url, timeout=30) as http,
    ):
        address = _prefect_page_of_a_job(JobsClient(http))
        PICTURE.write_bytes(_small(_photograph(address)))
    console.print(f"{PICTURE.relative_to(PROJECT)}: {PICTURE.stat().st_size:,} bytes")


def _prefect_page_of_a_job(jobs: JobsClient) -> str:
    """The address of the page of a job that has completed; an earlier one has made its environment."""
    for name in ("warm-up", "variants-1"):
        job_id = jobs.submit(
            name=name,
            workflow={"path": str(EXAMPLES / "variants")},
            environment={"file": "requirements.txt"},
            cores=2,
        )
        job = jobs.wait(job_id, "completed", seconds=300)
    address: str = job["links"]["prefect"]
    return address


def _photograph(address: str) -> bytes:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OFFLINE)
        page = browser.new_page(viewport={"width": _WIDTH, "height": _HEIGHT}, device_scale_factor=1.5)
        page.goto(address)
        _wait_for_graph(page)
        picture = page.screenshot(clip=_HEADER_AND_GRAPH)
        browser.close()
    return picture


def _wait_for_graph(page: Page) -> None:
    page.locator("canvas").first.wait_for(timeout=30_000)
    page.wait_for_timeout(5_000)  # the graph is drawn on a canvas, which says nothing of being ready


def _small(picture: bytes) -> bytes:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(picture)).convert("RGB").quantize(_COLOURS).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
