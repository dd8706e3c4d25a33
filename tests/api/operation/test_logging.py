"""The log says what happened to which job, one line each, and gives no secret away."""

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from api.auth.callers import TokenScope
from api.auth.tokens import TokenFile
from api.operation.logs import configure_logs
from api.operation.observation import ACCESS_LOGGER, Observation
from api.settings import LogFormat, Settings
from tests.api.support import facade, get, submit


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Where the log goes, instead of the standard error; afterwards all is as before."""
    root, httpx_log = logging.getLogger(), logging.getLogger("httpx")
    before = root.handlers[:], root.level, httpx_log.level
    # Another handler's close would end what pytest captures with.
    root.handlers.clear()
    stream = io.StringIO()
    yield stream
    root.handlers[:], level, httpx_log.level = before
    root.setLevel(level)


def lines(log: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.getvalue().splitlines()]


def access_lines(log: io.StringIO) -> list[dict[str, Any]]:
    return [line for line in lines(log) if line["logger"] == ACCESS_LOGGER]


@pytest.mark.anyio
async def test_every_request_is_a_line_with_the_job_it_is_about(
    api: httpx.AsyncClient, log: io.StringIO
) -> None:
    job_id = await submit(api)
    configure_logs(LogFormat.JSON, log)

    await get(api, f"/jobs/{job_id}/tasks", rule="secret-name")
    await get(api, "/jobs", limit=1)

    of_job, of_list = access_lines(log)
    assert of_job["message"] == f"GET /jobs/{job_id}/tasks 200"
    assert of_job["job_id"] == str(job_id)
    assert (of_job["method"], of_job["status"], of_job["caller"]) == ("GET", 200, "anyone")
    assert of_job["seconds"] >= 0
    assert of_job["timestamp"]
    assert of_list["job_id"] is None
    assert "secret-name" not in log.getvalue()


@pytest.mark.anyio
async def test_a_submission_is_a_line_with_the_job_that_it_made(
    api: httpx.AsyncClient, log: io.StringIO
) -> None:
    configure_logs(LogFormat.JSON, log)
    form = {"workflow_type": "SMK", "workflow_type_version": "1.0", "workflow_url": "Snakefile"}
    files = [("workflow_attachment", ("Snakefile", b""))]

    job_id = await submit(api)
    run = (await api.post("/ga4gh/wes/v1/runs", data=form, files=files)).json()

    assert [line["job_id"] for line in access_lines(log)] == [str(job_id), run["run_id"]]


@pytest.mark.anyio
async def test_a_service_without_tokens_says_so_in_one_line(
    prefect_api_url: str, home: Path, log: io.StringIO
) -> None:
    configure_logs(LogFormat.TEXT, log)

    async with facade(prefect_api_url, Settings(home=home)):
        pass

    (line,) = [line for line in log.getvalue().splitlines() if "WARNING" in line]
    assert "Tokens are off" in line
    assert "python -m api tokens create" in line


@pytest.mark.anyio
async def test_what_is_logged_on_the_way_has_the_job_as_well(log: io.StringIO) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        logging.getLogger("somebody").warning("something")
        await PlainTextResponse("")(scope, receive, send)

    job_id = uuid4()
    configure_logs(LogFormat.JSON, log)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(Observation(app))) as client:
        await client.get(f"http://127.0.0.1/jobs/{job_id}/cancel")

    (line,) = [line for line in lines(log) if line["logger"] == "somebody"]
    assert line["job_id"] == str(job_id)
    assert line["level"] == "WARNING"


def test_a_defect_is_logged_with_its_traceback_in_one_line(log: io.StringIO) -> None:
    configure_logs(LogFormat.JSON, log)
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        logging.getLogger("somebody").exception("a defect")

    (line,) = lines(log)
    assert "ZeroDivisionError" in line["exc_info"]


@pytest.mark.anyio
async def test_a_token_is_named_and_never_shown(
    prefect_api_url: str, home: Path, tmp_path: Path, log: io.StringIO
) -> None:
    path = tmp_path / "tokens.json"
    secret = TokenFile(path).create("ci", ["*"], TokenScope.READ)
    async with facade(prefect_api_url, Settings(home=home, tokens_file=path)) as client:
        configure_logs(LogFormat.JSON, log)
        await client.get("/jobs?limit=1", headers={"Authorization": f"Bearer {secret}"})
        await client.get("/jobs", headers={"Authorization": "Bearer jobs_guessed"})

        reading = TokenFile(path).create("reader", ["*"], TokenScope.READ)
        await client.post("/jobs", headers={"Authorization": f"Bearer {reading}"})

    known, guessed, refused = access_lines(log)
    assert (known["caller"], known["status"]) == ("ci", 200)
    assert (guessed["caller"], guessed["status"]) == (None, 401)
    assert (refused["caller"], refused["status"]) == ("reader", 403)
    assert secret not in log.getvalue()
    assert "jobs_guessed" not in log.getvalue()


@pytest.mark.anyio
async def test_probes_are_not_worth_a_line(api: httpx.AsyncClient, log: io.StringIO) -> None:
    configure_logs(LogFormat.JSON, log)

    await get(api, "/livez")

    assert log.getvalue() == ""


@pytest.mark.parametrize("log_format", LogFormat)
@pytest.mark.anyio
async def test_a_path_can_not_write_lines_of_its_own(
    api: httpx.AsyncClient, log: io.StringIO, log_format: LogFormat
) -> None:
    configure_logs(log_format, log)

    await api.get("/jobs/%0AWARNING api: forged")

    assert len(log.getvalue().splitlines()) == 1


@pytest.mark.anyio
async def test_text_is_for_people(api: httpx.AsyncClient, log: io.StringIO) -> None:
    configure_logs(LogFormat.TEXT, log)

    await get(api, "/jobs", limit=1)

    assert log.getvalue().endswith(" INFO prefect_snakemake.access: GET /jobs 200\n")


def test_a_message_is_one_line_whatever_it_quotes(log: io.StringIO) -> None:
    configure_logs(LogFormat.TEXT, log)

    logging.getLogger("test").warning("There is no job '%s'.", "x\n2026-01-01 INFO forged\x1b[2J")

    (line,) = log.getvalue().splitlines()
    assert line.endswith(r"There is no job 'x\n2026-01-01 INFO forged\x1b[2J'.")
