"""What the room of a job contains, from its spec and the operator's settings."""

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from prefect.settings import get_current_settings

from flows.contract.isolation import Isolation, IsolationSettings
from flows.contract.spec import ExecutionSpec
from flows.engines.software import Software
from flows.environments.environment import Environment
from flows.snakemake_process.network import RESOLVER
from flows.snakemake_process.room import Room
from flows.workspace.git_credentials import GitCredentialSettings
from flows.workspace.workspace import Workspace

_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_OF_THE_SERVICE = ("JOBS_TOKENS_FILE", "PREFECT_HOME", "PREFECT_PROFILES_PATH")
"""Variables that name files or directories of the service. JOBS_HOME is hidden in any case."""

CLOUD_METADATA = ("169.254.0.0/16", "100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32")
"""Addresses that tell any process on a machine of a cloud what only the machine shall know."""

_RESOLVER_FILE = Path("/etc/resolv.conf")
_HOME = "home"
_PRIVATE = {"/tmp": "tmp", "/var/tmp": "var-tmp"}


def room_for(
    spec: ExecutionSpec,
    workspace: Workspace,
    environment: Environment,
    software: Software,
    settings: IsolationSettings,
    output_cache: Path | None,
    more_readable: tuple[Path, ...] = (),
    *,
    is_on_cluster: bool = False,
) -> Room | None:
    """The room of a job; None if rooms are off. Creates what the job shall find in it."""
    if settings.isolation is Isolation.OFF:
        return None
    software.directory.mkdir(parents=True, exist_ok=True)
    readable = (
        workspace.directory,
        *_roots_of(workspace),
        *workspace.work_of_inputs(spec),
        *_directories_of(environment),
        *_named_by(software),
        *settings.visible_directories_of(workspace.group),
        *more_readable,
        *(Path(os.environ[name]) for name in _CERTIFICATES if name in os.environ),
    )
    writable = (
        workspace.work,
        *_written_beside_work(spec, workspace),
        software.directory,
        *([output_cache] if output_cache else []),
        *settings.writable_directories_of(workspace.group),
    )
    return Room(
        readable=tuple(map(str, readable)),
        writable=tuple(map(str, writable)),
        hidden=tuple(map(str, (workspace.home, *_credentials()))),
        private={place: str(workspace.private / name) for place, name in _PRIVATE.items()},
        network=settings.network_of(workspace.group, is_on_cluster=is_on_cluster),
        closed_networks=tuple(
            map(str, (*CLOUD_METADATA, *settings.closed_networks, *_addresses_of_prefect()))
        ),
        private_with_network=_resolver(workspace),
        is_required=settings.isolation is Isolation.REQUIRED,
    )


def create_private_directories(workspace: Workspace) -> Path:
    """Create the job's own directories in the place of the system's; its HOME."""
    for name in (_HOME, *_PRIVATE.values()):
        (workspace.private / name).mkdir(parents=True, exist_ok=True)
    return workspace.private / _HOME


def _roots_of(workspace: Workspace) -> Iterator[Path]:
    settings = workspace.settings
    yield from settings.workflow_roots
    yield from settings.data_roots_of(workspace.group)
    if settings.profiles_directory is not None:
        yield settings.profiles_directory


def _written_beside_work(spec: ExecutionSpec, workspace: Workspace) -> Iterator[Path]:
    """What Snakemake writes in the job's directory, of which a rule must not replace anything else."""
    yield workspace.private
    if spec.options.report:
        workspace.report.touch()  # a file can only be mounted where there is one
        yield workspace.report


def _directories_of(environment: Environment) -> Iterator[Path]:
    """The environment, the installation of Python that it is made from, and our part of its process."""
    yield environment.python.parent.parent
    yield Path(os.path.realpath(environment.python)).parent.parent
    yield environment.runtime


def _named_by(software: Software) -> Iterator[Path]:
    """What the operator's settings for software name."""
    settings = software.settings
    if settings.conda_directory is not None:
        yield settings.conda_directory.absolute().parent
    if settings.modules_init is not None:
        yield settings.modules_init.absolute()
    yield from map(Path, filter(os.path.isabs, os.environ.get("MODULEPATH", "").split(os.pathsep)))
    if settings.wrapper_prefix is not None and settings.wrapper_prefix.startswith("file:"):
        yield Path(settings.wrapper_prefix.removeprefix("file:").replace("//", "/"))


def _addresses_of_prefect() -> Iterator[str]:
    """Those of a server on another machine; a network of its own does not reach this one."""
    url = get_current_settings().api.url
    if url is None or (host := urlsplit(url).hostname) is None:
        return
    with suppress(OSError):
        for *_, place in socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM):
            address = str(place[0])
            if not ip_address(address).is_loopback:
                yield address


def _resolver(workspace: Workspace) -> Mapping[str, str]:
    """The system's configuration of names, with the one address that answers them in the room."""
    try:
        lines = _RESOLVER_FILE.read_text().splitlines()
    except OSError:
        return {}
    own = workspace.private / "resolv.conf"
    others = [line for line in lines if not line.startswith("nameserver")]
    own.write_text("\n".join([*others, f"nameserver {RESOLVER}", ""]))
    return {os.path.realpath(_RESOLVER_FILE): str(own)}


def _credentials() -> Iterator[Path]:
    yield from (Path(os.environ[name]).absolute() for name in _OF_THE_SERVICE if name in os.environ)
    for credential in GitCredentialSettings().git_credentials.values():
        if credential.token_file is not None:
            yield credential.token_file.absolute()
