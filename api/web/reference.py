"""The reference of the REST API at `/docs`: the OpenAPI document as one page, without scripts."""

import hashlib
import json
from base64 import b64encode
from collections.abc import Iterable, Iterator
from html import escape
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h3 { margin-bottom: 0; } h3, code { font-family: ui-monospace, monospace; font-size: .95em; }
table { border-collapse: collapse; margin: .5rem 0; } td { border-top: 1px solid #ccc; padding: .2rem .6rem; }
td { vertical-align: top; } p, td { white-space: pre-line; } td:first-child { white-space: nowrap; }
"""
_STYLE_HASH = b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}
_SCHEMAS = "#/components/schemas/"

Json = dict[str, Any]

reference_router = APIRouter()


@reference_router.get("/docs", include_in_schema=False)
async def read_reference(request: Request) -> HTMLResponse:
    return HTMLResponse(reference_page(request.app.openapi()), headers=_HEADERS)


def reference_page(document: Json) -> str:
    """Every operation with its parameters, body and answers, then every schema with its fields."""
    title = escape(document["info"]["title"])
    operations = [
        _operation(method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    schemas = [_schema(name, schema) for name, schema in sorted(document["components"]["schemas"].items())]
    return "\n".join(
        [
            f'<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>{title}</title>',
            f"<style>{_STYLE}</style><h1>{title}</h1><p>{escape(document['info'].get('summary', ''))}",
            'Programs read <a href="/openapi.json">openapi.json</a>.</p><h2>Operations</h2>',
            *operations,
            "<h2>Schemas</h2>",
            *schemas,
        ]
    )


def _operation(method: str, path: str, operation: Json) -> str:
    parameters = (
        (f"{each['name']} ({each['in']})", _type(each.get("schema", {})), each.get("description", ""))
        for each in operation.get("parameters", ())
    )
    body = operation.get("requestBody", {}).get("content", {})
    bodies = (("body", _type(content.get("schema", {})), media_type) for media_type, content in body.items())
    answers = (
        (status, _answer_type(answer), answer.get("description", ""))
        for status, answer in operation["responses"].items()
    )
    return (
        f"<h3>{method.upper()} {escape(path)}</h3><p><b>{escape(operation.get('summary', ''))}.</b> "
        f"{_prose(operation.get('description', ''))}</p>"
        f"{_table([*parameters, *bodies])}{_table(answers)}"
    )


def _answer_type(answer: Json) -> str:
    return " or ".join(_type(content.get("schema", {})) for content in answer.get("content", {}).values())


def _schema(name: str, schema: Json) -> str:
    required = schema.get("required", ())
    fields = (
        (field if field in required else f"{field} (optional)", _type(inner), inner.get("description", ""))
        for field, inner in schema.get("properties", {}).items()
    )
    values = "".join(f" <code>{escape(str(value))}</code>" for value in schema.get("enum", ()))
    text = f"<p>{_prose(schema.get('description', ''))}{values}</p>"
    return f'<h3 id="{escape(name)}">{escape(name)}</h3>{text}{_table(fields)}'


def _type(schema: Json) -> str:
    """Its type as HTML, with a link to the schema that it names."""
    if reference := schema.get("$ref"):
        name = escape(reference.removeprefix(_SCHEMAS))
        return f'<a href="#{name}">{name}</a>'
    if choices := schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf"):
        return " or ".join(dict.fromkeys(_type(choice) for choice in choices))
    kind = escape(str(schema.get("type", "any")))
    if "items" in schema:
        kind = f"{kind} of {_type(schema['items'])}"
    if schema.get("default") not in (None, [], {}, ""):
        kind += f", default <code>{escape(json.dumps(schema['default']))}</code>"
    return kind


def _table(rows: Iterable[tuple[str, str, str]]) -> str:
    """The type is HTML already."""
    lines = [
        f"<tr><td>{escape(name)}</td><td>{kind}</td><td>{_prose(text)}</td></tr>" for name, kind, text in rows
    ]
    return f"<table>{''.join(lines)}</table>" if lines else ""


def _prose(text: str) -> str:
    return "".join(_marked(escape(text)))


def _marked(text: str) -> Iterator[str]:
    """Markdown's code spans as HTML."""
    for number, part in enumerate(text.split("`")):
        yield f"<code>{part}</code>" if number % 2 else part
