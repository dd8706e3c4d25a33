"""Where a workflow and its configuration come from, as the command line names them."""

from pathlib import Path
from typing import Any

import yaml

from api.cli.parsing import values_of
from api.cli.service import Service, ServiceError
from flows.contract.registered import named_workflow


def source_of(
    service: Service, workflow: str, server_path: bool, ref: str | None, subdir: str | None
) -> dict[str, str]:
    """Where a workflow comes from, as the service wants it; a directory is sent. Raises `ServiceError`."""
    place = {"ref": ref, "subdir": subdir}
    source: dict[str, str] = {key: value for key, value in place.items() if value is not None}
    if server_path:
        return {"path": workflow, **source}
    if workflow.startswith("sha256:"):
        return {"bundle": workflow, **source}
    if "://" in workflow:
        return {"git": workflow, **source}
    directory = Path(workflow)
    if not directory.is_dir():
        if (registered := named_workflow(workflow)) is not None:
            return registered | source
        raise ServiceError(
            f"{workflow} is not a directory on this machine. Correct the path, or use --server-path."
        )
    return {"bundle": service.send_directory(directory), **source}


def overrides(config: list[str] | None, config_file: Path | None) -> dict[str, Any]:
    """The configuration of the options; single values override the file's."""
    content = yaml.safe_load(config_file.read_text()) if config_file is not None else {}
    if not isinstance(content, dict):
        raise ServiceError(f"{config_file} must contain a mapping of keys to values.")
    return {**content, **values_of(config)}
