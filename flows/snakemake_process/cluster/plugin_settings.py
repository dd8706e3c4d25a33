"""Prints the settings of an installed executor plugin, a JSON line each: `python plugin_settings.py NAME`.

Run in the environment that has the plugin; `flows.engines.cluster` reads the lines.
"""

import dataclasses
import json
import sys
import types
import typing
from typing import Any

_SCALARS = {"str", "int", "float", "bool", "Path"}


def main(name: str) -> int:
    """Returns an exit code: 2 if there is no such plugin."""
    import snakemake.api  # noqa: F401, PLC0415 - registers Snakemake's own plugins
    from snakemake_interface_executor_plugins.registry import (  # noqa: PLC0415 - as above
        ExecutorPluginRegistry,
    )

    registry = ExecutorPluginRegistry()
    registry.collect_plugins()
    if name not in registry.plugins:
        return 2
    settings = registry.plugins[name].settings_cls
    hints = typing.get_type_hints(settings) if settings else {}
    for field in dataclasses.fields(settings) if settings else ():
        line = {
            "name": field.name,
            "type": _kind(hints[field.name]),
            "is_required": bool(field.metadata.get("required")),
        }
        print(json.dumps(line))  # noqa: T201 - read by `flows.engines.cluster`
    return 0


def _kind(hint: Any) -> str:
    """The name of a scalar type; `str` for others, which plugins parse from a string."""
    kinds = [each for each in typing.get_args(hint) if each is not type(None)]
    if typing.get_origin(hint) in (typing.Union, types.UnionType) and len(kinds) == 1:
        return _kind(kinds[0])
    name = getattr(hint, "__name__", "str")
    return "str" if name not in _SCALARS or name == "Path" else name


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
