"""Checks what a job gives a registered workflow against the workflow's own schemas. Pure."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from jsonschema.exceptions import ValidationError as Mistake
from jsonschema.validators import validator_for
from referencing.exceptions import Unresolvable

from api.web.problems import FieldProblem, json_pointer
from flows.contract.registered import Schema, TableDescription, WorkflowDescription, merged
from flows.contract.spec import JobSpec

_MOST = 50
"""The most mistakes in one answer."""

_MISSING = ("", "NA", "NaN", "nan", "null", "None")
"""What pandas reads as no value."""


def mistakes_in(spec: JobSpec, described: WorkflowDescription) -> list[FieldProblem]:
    """Every mistake with its place.

    A schema that can't be used, because it is wrong or refers to other files, finds none: the workflow
    checks again when it runs. So does a configuration that further files complete.
    """
    found = [] if spec.options.configfiles else list(_in_config(spec.config, described))
    for table in described.tables:
        if table.path in spec.files:
            found += _in_table(table, spec.files[table.path])
    return found[:_MOST]


def _in_config(given: Mapping[str, Any], described: WorkflowDescription) -> Iterator[FieldProblem]:
    whole = _with_defaults(described.config_schema, merged(described.config, given))
    for mistake in _mistakes(described.config_schema, whole):
        yield FieldProblem(
            pointer=json_pointer(["config", *mistake.absolute_path]), message=_message(mistake)
        )


def _in_table(table: TableDescription, text: str) -> Iterator[FieldProblem]:
    """The rows count from 1, as people count them; the header is line 1 of the file."""
    delimiter = "," if PurePosixPath(table.path).suffix == ".csv" else "\t"
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    for number, row in enumerate(csv.DictReader(lines, delimiter=delimiter), start=1):
        texts = {name: value for name, value in row.items() if name and value not in (None, *_MISSING)}
        values = {name: _value(value) for name, value in texts.items()}
        mistakes = _mistakes(table.row_schema, _with_defaults(table.row_schema, values))
        # A workflow may read every column as text.
        if mistakes and _mistakes(table.row_schema, _with_defaults(table.row_schema, texts)):
            for mistake in mistakes:
                pointer = json_pointer(["files", table.path, number, *mistake.absolute_path])
                yield FieldProblem(pointer=pointer, message=f"row {number}: {_message(mistake)}")


def _mistakes(schema: Schema, value: Any) -> Sequence[Mistake]:
    validator = validator_for(schema, default=Draft202012Validator)
    try:
        validator.check_schema(schema)
        return sorted(validator(schema).iter_errors(value), key=lambda mistake: str(mistake.absolute_path))
    except (SchemaError, Unresolvable, RecursionError):
        return ()


def _message(mistake: Mistake) -> str:
    return mistake.message if len(mistake.message) <= 300 else f"{mistake.message[:300]} …"


def _with_defaults(schema: Any, value: Any) -> Any:
    """As `snakemake.utils.validate` sets defaults before it checks."""
    if not isinstance(schema, Mapping) or not isinstance(value, Mapping):
        return value
    filled = dict(value)
    for name, field in schema.get("properties", {}).items():
        if name in filled:
            filled[name] = _with_defaults(field, filled[name])
        elif isinstance(field, Mapping) and "default" in field:
            filled[name] = field["default"]
    return filled


def _value(text: str) -> Any:
    """As pandas reads it."""
    if text in ("True", "False"):
        return text == "True"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
