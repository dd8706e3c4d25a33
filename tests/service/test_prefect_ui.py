"""In a real browser: the page of a job shows its rule jobs, and pages of others reach nothing."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
from playwright.sync_api import Page, expect

from deployments.local import LocalStack
from tests.service.browser import log_in
from tests.support import JobsClient


def test_the_page_of_a_job_shows_its_rule_jobs(jobs: JobsClient, stack: LocalStack, page: Page) -> None:
    job_id = jobs.submit_workflow("failing", config={"fail": []})
    job = jobs.wait(job_id, "completed")

    log_in(page, stack)
    page.goto(job["links"]["prefect"])
    expect(page.get_by_text("13 Task runs")).to_be_visible(timeout=30_000)
    page.get_by_text("Task Runs", exact=True).click()

    expect(page.get_by_text("begin[branch=a]").first).to_be_visible(timeout=30_000)
    expect(page.get_by_text("join", exact=True).first).to_be_visible(timeout=30_000)


ATTACK = """
async ([api, method, path, body]) => {
    const options = {method, headers: {"Content-Type": "application/json"}, body};
    try { return (await fetch(api + path, options)).status } catch (error) { return "refused" }
}
"""
"""What a page can do: send a request, where the browser lets it."""


@contextmanager
def page_of_another_origin() -> Iterator[str]:
    """The address of a page that has nothing to do with the service."""

    class Empty(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<p>Hello")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Empty) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_a_page_of_another_origin_can_neither_read_nor_submit(
    jobs: JobsClient, stack: LocalStack, page: Page
) -> None:
    """Also where the browser has logged in to the Prefect UI, and however the page names the server."""
    log_in(page, stack)
    port = stack.settings.prefect_port
    flow = '{"name": "attack"}'
    with page_of_another_origin() as address:
        page.goto(address)
        answers = [
            page.evaluate(ATTACK, [f"http://{host}:{port}/api", method, path, body])
            for host in ("127.0.0.1", "localhost")
            for method, path, body in (
                ("GET", "/admin/version", None),
                ("POST", "/flow_runs/filter", "{}"),
                ("POST", "/flows/", flow),
            )
        ]

    assert answers == ["refused"] * 6
    assert "attack" not in _names_of_flows(stack)


def _names_of_flows(stack: LocalStack) -> set[str]:
    user, _, password = stack.auth_string.partition(":")
    url = f"{stack.settings.prefect_url}/api/flows/filter"
    return {flow["name"] for flow in httpx.post(url, json={}, auth=(user, password)).json()}
