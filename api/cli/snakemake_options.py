"""The options of Snakemake on our command line: one for each field of `Options`, with its description."""

from collections.abc import Sequence
from typing import Any, get_args

import typer
from pydantic.fields import FieldInfo
from typer.core import TyperCommand, TyperOption

from flows.contract.options import Options

_META = "snakemake_options"
_PANEL = "Snakemake"


class CommandWithOptions(TyperCommand):
    """A command that also takes every option of Snakemake that a job can set."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(_option(name, field) for name, field in Options.model_fields.items())


def given_options(context: typer.Context) -> dict[str, Any]:
    """The options of Snakemake on the command line, as the `options` of a job."""
    options: dict[str, Any] = context.meta.get(_META, {})
    return options


def _option(name: str, field: FieldInfo) -> TyperOption:
    written = f"--{name.replace('_', '-')}"
    shape = _shape(field)
    settings: dict[str, Any] = {}
    if shape is bool:
        written = f"{written}/--no-{written.removeprefix('--')}"
        settings = {"is_flag": True, "type": bool}
    elif shape is int:
        settings = {"type": int, "metavar": "NUMBER"}
    elif shape is dict:
        key = "RULE:RESOURCE" if name == "set_resources" else "NAME"
        settings = {"multiple": True, "metavar": f"{key}=VALUE"}
    elif shape is tuple:
        settings = {"multiple": True, "metavar": "VALUE"}
    else:
        settings = {"metavar": "VALUE"}
    several = " May be repeated." if settings.get("multiple") else ""
    return TyperOption(
        param_decls=[written],
        help=f"{field.description}{several}".replace("`", ""),
        default=None,
        expose_value=False,
        callback=_keep,
        rich_help_panel=_PANEL,
        show_default=False,
        **settings,
    )


def _shape(field: FieldInfo) -> type:
    """The kind of value: bool, int, tuple, dict or str."""
    text = str(field.annotation)
    for shape in (dict, tuple, bool, int):
        if field.annotation is shape or shape in get_args(field.annotation) or f"{shape.__name__}[" in text:
            return shape
    return str


def _keep(context: typer.Context, parameter: TyperOption, value: Any) -> Any:
    """Collect a value that was given."""
    if value is None or value == ():
        return value
    name = str(parameter.name)
    shape = _shape(Options.model_fields[name])
    if shape is dict:
        value = _mapping(value, is_nested=name == "set_resources")
    elif name == "workflow_profile" and value == "none":
        value = None
    elif name == "cache" and tuple(value) == ("true",):
        value = True
    context.meta.setdefault(_META, {})[name] = list(value) if isinstance(value, tuple) else value
    return value


def _mapping(texts: Sequence[str], *, is_nested: bool) -> dict[str, Any]:
    """`name=value` texts; with `is_nested`, `rule:name=value`."""
    mapping: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        rule, colon, name = key.partition(":")
        if not (key and equals) or (is_nested and not (rule and colon and name)):
            form = "RULE:RESOURCE=VALUE" if is_nested else "NAME=VALUE"
            raise typer.BadParameter(f"'{text}' must have the form {form}.")
        number = int(value) if value.isdigit() else value
        if is_nested:
            mapping.setdefault(rule, {})[name] = number
        else:
            mapping[key] = number
    return mapping
