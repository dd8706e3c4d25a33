"""A real browser, and the Prefect UI in it."""

from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Page, sync_playwright

from deployments.local import LocalStack

CHROMIUM = "/usr/bin/chromium"
OFFLINE = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@contextmanager
def new_page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OFFLINE)
        yield browser.new_page(viewport={"width": 1600, "height": 1200})
        browser.close()


def log_in(page: Page, stack: LocalStack) -> None:
    page.goto(stack.settings.prefect_url)
    page.get_by_placeholder("admin:pass").fill(stack.auth_string)
    page.get_by_role("button", name="Login").click()
    page.wait_for_url("**/dashboard*")
