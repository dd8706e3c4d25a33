"""Requests are traced where a collector is named, and nowhere else."""

import sys
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.__main__ import main
from api.operation.telemetry import is_wanted
from api.settings import Settings
from tests.api.servers import serving
from tests.api.support import facade

pytestmark = pytest.mark.anyio


class Collector:
    """Takes spans over OTLP/HTTP."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.services: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        export = ExportTraceServiceRequest.FromString(await request.body())
        for resource_spans in export.resource_spans:
            attributes = resource_spans.resource.attributes
            self.services |= {item.value.string_value for item in attributes if item.key == "service.name"}
            for scope_spans in resource_spans.scope_spans:
                self.spans += scope_spans.spans
        await Response()(scope, receive, send)


async def test_every_request_becomes_a_span_named_after_its_route(
    prefect_api_url: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector = Collector()
    async with serving(collector) as url:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        monkeypatch.setenv("OTEL_SERVICE_NAME", "jobs-of-the-test")
        async with facade(prefect_api_url, Settings(home=home)) as client:
            await client.get(f"/jobs/{uuid4()}", headers={"Authorization": "Bearer jobs_secret"})
            await client.get("/livez")

    (span,) = collector.spans
    assert span.name == "GET /jobs/{job_id}"
    assert collector.services == {"jobs-of-the-test"}
    assert "jobs_secret" not in str(span)


async def test_nothing_is_traced_unless_somebody_wants_it(
    api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not is_wanted(None)
    assert is_wanted(True)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    assert is_wanted(None)
    assert not is_wanted(False)


def test_where_opentelemetry_is_not_installed_the_service_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.instrumentation.fastapi", None)
    monkeypatch.setenv("JOBS_OTEL", "true")
    monkeypatch.setattr(sys, "argv", ["api"])

    assert main() == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "prefect-snakemake[otel]" in line
