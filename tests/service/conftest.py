"""After each test of the service, nothing of any job may be left running."""

from collections.abc import Iterator

import psutil
import pytest
from playwright.sync_api import Page

from deployments.local import LocalStack
from tests.service.browser import new_page
from tests.support import wait_until


@pytest.fixture(autouse=True)
def nothing_stays_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "stack" not in request.fixturenames:
        return
    stack: LocalStack = request.getfixturevalue("stack")
    jobs = str(stack.settings.home.resolve() / "jobs")
    wait_until(
        lambda: (
            not [
                process
                for process in psutil.process_iter(["cwd"])
                if (process.info["cwd"] or "").startswith(jobs)
            ]
        ),
        "no process works in a job's directory any more",
        seconds=20,
    )


@pytest.fixture
def page() -> Iterator[Page]:
    """A page of a real browser."""
    with new_page() as page:
        yield page
