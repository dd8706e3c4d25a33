"""The parameters of a registered workflow as Prefect's run form shows and checks them. Pure.

Prefect's form resolves references to `#/definitions/` only, so those of the workflow's schema move there.
"""

from collections.abc import Mapping
from typing import Any

from flows.contract.registered import RegisteredVersion, Schema, TableDescription, merged
from flows.contract.spec import ExecutionSpec

_SHOWN = ("cores", "targets", "inputs", "timeout_seconds", "dry_run")
"""The fields of a job spec that the form has beside those of the workflow."""

_PREFIX = "#/definitions/"
_LOCAL = (_PREFIX, "#/$defs/")


def form_of(version: RegisteredVersion) -> Schema:
    """The JSON Schema of the parameters (Prefect's `parameter_openapi_schema`)."""
    described = version.description
    config, definitions = _hoisted(described.config_schema)
    config = prefilled(config, merged(described.config, version.job.get("config", {})))
    ours = ExecutionSpec.model_json_schema(ref_template=_PREFIX + "{model}")
    fields: dict[str, Schema] = {"config": {**config, "title": "Configuration"}}
    if described.tables:
        fields["files"] = _tables(described.tables)
    fields |= {name: _with_default(ours["properties"][name], version.job, name) for name in _SHOWN}
    return {
        "title": "Parameters",
        "type": "object",
        "properties": _in_order(fields),
        "required": [],
        "definitions": definitions | {name: each for name, each in ours["$defs"].items() if name == "Input"},
    }


def prefilled(schema: Schema, values: Any) -> Schema:
    """The schema with `values` as defaults. What has a default is no longer required."""
    if not isinstance(values, Mapping) or not isinstance(properties := schema.get("properties"), Mapping):
        return schema
    filled = {
        name: _prefilled_field(field, values[name]) if name in values else field
        for name, field in properties.items()
    }
    required = [name for name in schema.get("required", ()) if name not in values]
    return {**schema, "properties": filled, "required": required}


def _in_order(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Prefect's database forgets the order of keys; its form goes by their positions, at every level."""
    return {
        name: {**_ordered(field), "position": position} if isinstance(field, Mapping) else field
        for position, (name, field) in enumerate(properties.items())
    }


def _ordered(field: Mapping[str, Any]) -> Mapping[str, Any]:
    properties = field.get("properties")
    return {**field, "properties": _in_order(properties)} if isinstance(properties, Mapping) else field


def _prefilled_field(field: Any, value: Any) -> Any:
    if not isinstance(field, Mapping):
        return field
    if isinstance(value, Mapping) and "properties" in field:
        return prefilled(dict(field), value)
    return {**field, "default": value}


def _hoisted(schema: Schema) -> tuple[Schema, dict[str, Schema]]:
    """The schema without its definitions, and these, all with references to `#/definitions/`."""
    own = {key: part for key, part in schema.items() if key not in ("definitions", "$defs", "$schema", "$id")}
    parts = {**schema.get("definitions", {}), **schema.get("$defs", {})}
    definitions = {f"config.{name}": _rewritten(part, parts) for name, part in parts.items()}
    return {"type": "object", **_rewritten(own, parts)}, definitions


def _rewritten(part: Any, known: Mapping[str, Any]) -> Any:
    """With references to what has moved. A reference to elsewhere allows anything: files can't be read."""
    if isinstance(part, list):
        return [_rewritten(each, known) for each in part]
    if not isinstance(part, Mapping):
        return part
    reference = part.get("$ref")
    if not isinstance(reference, str):
        whole = {key: _rewritten(each, known) for key, each in part.items()}
        if isinstance(fields := whole.get("properties"), Mapping):
            # Some have `required` among their properties. Prefect can't read a form with what is no schema.
            whole["properties"] = {
                name: field for name, field in fields.items() if isinstance(field, Mapping)
            }
        return whole
    name = next((reference.removeprefix(start) for start in _LOCAL if reference.startswith(start)), None)
    return {"$ref": f"{_PREFIX}config.{name}"} if name in known else {}


def _tables(tables: tuple[TableDescription, ...]) -> Schema:
    return {
        "title": "Tables",
        "type": "object",
        "description": "Tables with your own content, as text. The workflow's own when empty.",
        "properties": {
            table.path: {"title": table.path, "type": "string", "description": _columns(table.row_schema)}
            for table in tables
        },
    }


def _columns(row: Schema) -> str:
    required = row.get("required", ())
    columns = [name if name in required else f"{name} (optional)" for name in row.get("properties", {})]
    return f"Columns: {', '.join(columns)}." if columns else ""


def _with_default(field: Schema, job: Mapping[str, Any], name: str) -> Schema:
    return {**field, "default": job[name]} if name in job else field
