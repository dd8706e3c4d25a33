"""schemathesis plays a hostile client of two documents: WES's official one, and our own."""

import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from prefect.client.schemas.objects import StateType

from api.auth.callers import TokenScope
from api.auth.tokens import TokenFile
from tests.api.servers import facade_process
from tests.api.support import WES_DOCUMENT, RuleJobInState, Worker, submit

pytestmark = pytest.mark.anyio

# That any text does is what a schema says of a cursor, a workflow type or a git address; prose says more.
_PASSED_OVER = "positive_data_acceptance"

# Too many items make a body that is too large, which is found first.
_CONFIGURATION = """
[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 406, 409, 413, 415, 422, 428, 429, "5xx"]
"""


@pytest.fixture(scope="module")
def tokens_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("conformance") / "tokens.json"


@pytest.fixture(scope="module")
def token(tokens_file: Path) -> str:
    return TokenFile(tokens_file).create("conformance", ("*",), TokenScope.ADMIN)


@pytest.fixture(scope="module")
async def url(
    prefect_api_url: str,
    tokens_file: Path,
    token: str,
    worker: Worker,
    tmp_path_factory: pytest.TempPathFactory,
) -> object:
    """A facade with tokens, and jobs in every state."""
    home = tmp_path_factory.mktemp("conforming")
    with facade_process(
        prefect_api_url, home, JOBS_TOKENS_FILE=str(tokens_file), JOBS_LONGEST_WAIT_SECONDS="0.2"
    ) as running:
        headers = {"Authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(base_url=running, headers=headers, timeout=30) as client:
            for state_type in StateType:
                job_id = await submit(client, name=state_type.value, tags={"state": state_type.value})
                if state_type is not StateType.SCHEDULED:
                    await worker.bring_to(job_id, state_type)
                if state_type is StateType.FAILED:
                    await worker.record(job_id, [RuleJobInState(1), RuleJobInState(2, StateType.FAILED)])
                    await worker.log(job_id, [(1_760_000_000.0, "a line")])
        yield running


def assert_nothing_found(document: str, url: str, token: str, directory: Path, *arguments: str) -> None:
    """Fails with what schemathesis says, without its endless lines."""
    (directory / "schemathesis.toml").write_text(_CONFIGURATION)
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", document, "--url", url]
    command += ["--header", f"Authorization: Bearer {token}", "--exclude-checks", _PASSED_OVER]
    command += ["--max-examples", "8", "--generation-deterministic", "--no-shrink", "--no-color"]
    command += ["--continue-on-failure", "--request-timeout", "20", *arguments]
    result = subprocess.run(
        command, cwd=directory, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    assert re.search(r"Test cases:\s+\d{3,} generated", result.stdout), (
        result.stdout[-3000:] + result.stderr[-3000:]
    )
    if result.returncode:
        pytest.fail("\n".join(line[:300] for line in result.stdout.splitlines()), pytrace=False)


async def test_the_official_document_of_wes(url: str, token: str, tmp_path: Path) -> None:
    assert_nothing_found(str(WES_DOCUMENT), f"{url}/ga4gh/wes/v1", token, tmp_path)


async def test_our_own_document(url: str, token: str, tmp_path: Path) -> None:
    document = tmp_path / "openapi.json"
    document.write_text(httpx.get(f"{url}/openapi.json").text)
    # Streams do not end; of metrics, nothing but their being there is declared.
    assert_nothing_found(str(document), url, token, tmp_path, "--exclude-path-regex", "/events$|/metrics$")
