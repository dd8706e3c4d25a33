"""Traces of requests, exported over OTLP.

The variables are OpenTelemetry's own: OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_EXPORTER_OTLP_HEADERS set the
collector, OTEL_SERVICE_NAME the name of this service.
"""

import os
from collections.abc import Callable

from fastapi import FastAPI

from api.auth.callers import OPEN_PATHS
from api.auth.startup import StartupRefused

SERVICE_NAME = "prefect-snakemake-api"

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def is_wanted(otel: bool | None) -> bool:
    """As the setting says; without it, whether a collector is configured."""
    return any(os.environ.get(name) for name in _ENDPOINTS) if otel is None else otel


def trace(app: FastAPI) -> Callable[[], None]:
    """Records a span for each request from now on. At the end, call the returned function to send the last.

    Call this before the application handles a request: FastAPI builds its middleware once.
    Raises `StartupRefused` if OpenTelemetry is not installed.
    """
    try:
        # An optional dependency, imported only if traces are on.
        from opentelemetry.exporter.otlp.proto.http import trace_exporter  # noqa: PLC0415 - see above
        from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor  # noqa: PLC0415 - see above
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - see above
        from opentelemetry.sdk.trace import TracerProvider, export  # noqa: PLC0415 - see above
    except ImportError as error:
        raise StartupRefused(
            f"Traces are on, but OpenTelemetry is not installed ({error}). "
            "Install prefect-snakemake[otel], or set JOBS_OTEL=false."
        ) from error
    name = os.environ.get("OTEL_SERVICE_NAME", SERVICE_NAME)
    # A provider of its own, separate from other traces of this process.
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(export.BatchSpanProcessor(trace_exporter.OTLPSpanExporter()))
    FastAPIInstrumentor.instrument_app(
        app,
        tracer_provider=provider,
        excluded_urls=",".join(f"//[^/]+{path}$" for path in sorted(OPEN_PATHS)),
        exclude_spans=["receive", "send"],
    )
    return provider.shutdown
