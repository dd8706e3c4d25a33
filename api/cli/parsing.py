"""Reads options of the form `KEY=VALUE`."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from api.cli.service import ServiceError


def pairs(texts: Iterable[str] | None) -> dict[str, str]:
    """Texts by name. Raises `ServiceError`."""
    found = {}
    for text in texts or ():
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise ServiceError(f"'{text}' must have the form KEY=VALUE.")
        found[key] = value
    return found


def values_of(texts: Iterable[str] | None) -> dict[str, Any]:
    """Values by name, read as YAML."""
    return {key: yaml.safe_load(text) for key, text in pairs(texts).items()}


def texts_of(files: Iterable[str] | None) -> dict[str, str]:
    """The contents of files of this machine, by their place in the workflow."""
    texts = {}
    for place, name in pairs(files).items():
        try:
            texts[place] = Path(name).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise ServiceError(f"{name} can't be read as text: {error}") from error
    return texts


def storage_of(storage: str | None, settings: Iterable[str] | None) -> dict[str, Any] | None:
    """`PROVIDER=PREFIX` and its settings as `default_storage`."""
    if storage is None:
        return None
    ((provider, prefix),) = pairs([storage]).items()
    found = values_of(settings)
    return {"provider": provider, "prefix": prefix, **({"settings": found} if found else {})}
