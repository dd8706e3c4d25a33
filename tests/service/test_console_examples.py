"""The console examples of the documentation print what it shows."""

import os
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from deployments.local import PROJECT, LocalStack
from tests.docs.console import Example, examples, printed
from tests.support import JobsClient

_SHOWN_ADDRESS = re.compile(r"\b(?:localhost|127\.0\.0\.1):8000\b")


@pytest.mark.parametrize(
    "page", ["README.md", "docs/getting-started.md", "docs/rest-api.md", "docs/security.md"]
)
def test_the_examples_of_a_page_print_what_it_shows(
    page: str, stack: LocalStack, jobs: JobsClient, tmp_path: Path
) -> None:
    shutil.copytree(PROJECT / "flows" / "examples", tmp_path / "flows" / "examples")
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "JOBS_URL": stack.settings.api_url, "PATH": programs}
    shown = [_at_address_of(stack, example) for example in examples(PROJECT / page)]
    assert shown

    outputs = printed([example.command for example in shown], tmp_path, environment)

    for example, output in zip(shown, outputs, strict=True):
        assert example.pattern().search(output), f"{example.command}\nprints\n{output}"
    for job in jobs.items("/jobs"):
        jobs.wait(job["id"])


def _at_address_of(stack: LocalStack, example: Example) -> Example:
    """The example as somebody would type it for this stack, without curl's bar of progress."""
    address = stack.settings.api_url.removeprefix("http://")
    command, text = (_SHOWN_ADDRESS.sub(address, part) for part in (example.command, example.shown))
    return replace(example, command=command.replace("curl ", "curl -sS "), shown=text)
