"""Finds out what a workflow says about itself, without running it: README, configuration and schemas.

Snakefiles are read as text. So names that are put together when the workflow runs are not found.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from flows.contract.registered import Schema, TableDescription, WorkflowDescription, merged

_MOST_SNAKEFILES = 200
_LARGEST_FILE = 1_000_000
_README_CHARACTERS = 20_000

_STRING = r"""[rf]?["']([^"']+)["']"""
_BASEDIR = "{workflow.basedir}"
_INCLUDE = re.compile(rf"^[ \t]*include:\s*{_STRING}", re.MULTILINE)
_CONFIG_FILE = re.compile(rf"^[ \t]*configfile:\s*{_STRING}", re.MULTILINE)
# `validate(samples, schema="../schemas/samples.schema.yaml")`, as snakemake.utils.validate is called
_VALIDATE = re.compile(
    rf"\bvalidate\(\s*(\w+)([^,]*),\s*(?:schema\s*=\s*)?(?:workflow\.source_path\(\s*)?{_STRING}"
)

_CONFIG_SCHEMAS = tuple(
    f"{directory}{name}.{suffix}"
    for directory in ("workflow/schemas/", "schemas/", "config/", "")
    for name in ("config.schema", "config")
    for suffix in ("yaml", "yml", "json")
    if (directory, name) not in {("config/", "config"), ("", "config")}  # the configuration itself
)
_CONFIG_FILES = ("config/config.yaml", "config/config.yml", "config.yaml", "config.yml", "config/config.json")
_READMES = ("README.md", "readme.md", "README.rst", "README.txt", "README")
_TABLE_SUFFIXES = frozenset({".tsv", ".csv", ".txt"})


def describe(
    tree: Path, snakefile: Path, workdir: str | None = None, config_files: tuple[str, ...] = ()
) -> WorkflowDescription:
    """Describe the workflow in `tree`; the Snakefile is relative to it.

    `config_files` are those that a job adds, relative to `workdir`.
    """
    sources = dict(_snakefiles(tree, snakefile))
    config = _config(tree, sources, tree / (workdir or "."), config_files)
    schemas = _schemas(tree, sources)
    file = schemas.pop("config", None) or _first_file(tree, _CONFIG_SCHEMAS)
    schema = _mapping(tree, file) if file is not None else {}
    return WorkflowDescription(
        readme=_readme(tree),
        config=config,
        config_schema=schema or schema_of(config),
        config_schema_file=_shown(tree, file) if schema and file is not None else None,
        tables=tuple(_tables(tree, schemas, config)),
    )


def schema_of(value: Any) -> Schema:
    """A schema of values like this one, with it as default."""
    match value:
        case bool():
            return {"type": "boolean", "default": value}
        case int():
            return {"type": "integer", "default": value}
        case float():
            return {"type": "number", "default": value}
        case str():
            return {"type": "string", "default": value}
        case list():
            return {"type": "array", "default": value}
        case dict():
            return {
                "type": "object",
                "properties": {str(key): schema_of(each) for key, each in value.items()},
            }
        case _:
            return {}


def _snakefiles(tree: Path, snakefile: Path) -> Iterator[tuple[Path, str]]:
    """The Snakefile and what it includes, with their texts."""
    waiting, seen = [tree / snakefile], set[Path]()
    while waiting and len(seen) < _MOST_SNAKEFILES:
        file = waiting.pop(0)
        if file in seen:
            continue
        seen.add(file)
        text = _text(tree, file)
        if text is not None:
            yield file, text
            waiting += [(file.parent / name).resolve() for name in _INCLUDE.findall(text)]


def _config(tree: Path, sources: Mapping[Path, str], workdir: Path, more: tuple[str, ...]) -> dict[str, Any]:
    named = [name for text in sources.values() for name in _CONFIG_FILE.findall(text)]
    config: dict[str, Any] = {}
    basedir = str(next(iter(sources)).parent) if sources else ""
    for name in (*(each.replace(_BASEDIR, basedir) for each in named), *more):
        config = merged(config, _mapping(tree, workdir / name))
    if config:
        return config
    file = _first_file(tree, _CONFIG_FILES)
    return {} if file is None else _mapping(tree, file)


def _schemas(tree: Path, sources: Mapping[Path, str]) -> dict[str, Path]:
    """The schema of each thing that the workflow validates, by the name of its variable."""
    found: dict[str, Path] = {}
    for file, text in sources.items():
        for variable, rest, name in _VALIDATE.findall(text):
            # Of `validate(config["samples"], …)`, only the schema's name says what it is about.
            subject = Path(name).name.partition(".")[0] if rest.strip() else variable
            places = [(directory / name).resolve() for directory in (file.parent, tree)]
            found |= [(subject, place) for place in places[::-1] if _text(tree, place) is not None]
    return found


def _tables(tree: Path, schemas: Mapping[str, Path], config: Mapping[str, Any]) -> Iterator[TableDescription]:
    """The tables that the configuration names, by the keys that are called as their schemas."""
    for subject, file in schemas.items():
        stem = file.name.partition(".")[0]
        path = next((text for key in (subject, stem) if _is_table(text := config.get(key))), None)
        schema = _mapping(tree, file)
        if path is not None and schema:
            yield TableDescription(path=path, schema_file=_shown(tree, file), row_schema=schema)


def _is_table(value: Any) -> bool:
    return isinstance(value, str) and Path(value).suffix in _TABLE_SUFFIXES and not Path(value).is_absolute()


def _readme(tree: Path) -> str:
    file = _first_file(tree, _READMES)
    return (_text(tree, file) or "")[:_README_CHARACTERS] if file is not None else ""


def _first_file(tree: Path, names: tuple[str, ...]) -> Path | None:
    return next((tree / name for name in names if (tree / name).is_file()), None)


def _mapping(tree: Path, file: Path) -> dict[str, Any]:
    """The content of a YAML or JSON file as JSON; empty where it is none."""
    try:
        content = yaml.safe_load(_text(tree, file) or "")
    except (yaml.YAMLError, RecursionError):
        return {}
    if not isinstance(content, dict):
        return {}
    found: dict[str, Any] = json.loads(json.dumps(content, default=str))  # dates, and keys of other types
    return found


def _text(tree: Path, file: Path) -> str | None:
    """None for a file that is not there, not text, too large, or not below the tree."""
    try:
        if not file.resolve().is_relative_to(tree.resolve()) or file.stat().st_size > _LARGEST_FILE:
            return None
        return file.read_text()
    except (OSError, UnicodeDecodeError):
        return None


def _shown(tree: Path, file: Path) -> str:
    return str(file.resolve().relative_to(tree.resolve()))
